//! A template, read.

use std::collections::HashMap;
use std::rc::Rc;

use super::functions::Function;
use super::origin::Place;

/// A list of parts, the variables of which lie in so many slots.
pub(super) struct Body<'t> {
    pub(super) nodes: Vec<Node<'t>>,
    pub(super) slots: usize,
}

pub(super) struct Template<'t> {
    pub(super) main: Body<'t>,
    pub(super) defined: HashMap<Rc<str>, Body<'t>>,
    /// The end of the file.
    pub(super) end: Place,
}

pub(super) enum Node<'t> {
    Text { at: Place, text: &'t str },
    Action { at: Place, pipe: Pipe },
    Choice(Choice<'t>),
    Range(Range<'t>),
    Call { at: Place, name: Rc<str>, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// `if` or `with`, and each `else if` or `else with`.
pub(super) struct Choice<'t> {
    pub(super) branches: Vec<Branch<'t>>,
    pub(super) otherwise: Vec<Node<'t>>,
}

pub(super) struct Branch<'t> {
    pub(super) pipe: Pipe,
    /// The value becomes the dot.
    pub(super) with: bool,
    pub(super) nodes: Vec<Node<'t>>,
}

pub(super) struct Range<'t> {
    pub(super) pipe: Pipe,
    pub(super) nodes: Vec<Node<'t>>,
    pub(super) otherwise: Vec<Node<'t>>,
}

pub(super) struct Pipe {
    pub(super) at: Place,
    /// Slots of the variables that take the value; in a `range` of two the first takes the index.
    pub(super) sets: Vec<usize>,
    pub(super) commands: Vec<Command>,
}

pub(super) struct Command {
    pub(super) operator: Expression,
    pub(super) arguments: Vec<Expression>,
}

pub(super) struct Expression {
    pub(super) at: Place,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    Text(Rc<str>),
    Variable(usize),
    Function(&'static Function),
    Pipe(Box<Pipe>),
    Fields(Box<Expression>, Vec<Rc<str>>),
}

/// A number as Go's untyped constants: it may be an integer and a float.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) int: Option<i64>,
    pub(super) float: f64,
    /// Written with a point or an exponent.
    pub(super) is_float: bool,
}
