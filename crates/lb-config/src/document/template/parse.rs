//! Actions put together to a [`Template`]. A fault spoils its action only: all of them are found in one go.

use std::collections::hash_map::Entry;
use std::mem::take;
use std::rc::Rc;

use super::super::source::Format;
use super::ast::{Body, Branch, Choice, Node, Pipe, Range, Template};
use super::lex::{Action, Fault, Kind as Word, Lexer, Part, Token};
use super::origin::Place;
use super::pipes::{Tokens, Within, is_keyword};
use super::value::MAX_NESTED;
use crate::problem::quoted;

/// Texts and actions of a file; chosen, five for each of 100,000 routers.
const MAX_NODES: usize = 500_000;
/// More faults are not looked for; chosen.
const MAX_FAULTS: usize = 100;

/// Reads a template; it may only be used if no fault was found.
pub(super) fn parse<'t>(text: &'t str, format: Format, faults: &mut Vec<Fault>) -> Template<'t> {
    let mut lexer = Lexer::new(text, format);
    let main = Frame::new(Place { line: 1, column: 1 }, Opened::Main);
    let mut parser = Parser { faults, scopes: vec![Scope::new()], frames: vec![main], defined: [].into() };
    for (nodes, part) in lexer.by_ref().enumerate() {
        let at = match part {
            Part::Text { at, text } => {
                parser.push(Node::Text { at, text });
                at
            }
            Part::Action(action) => {
                let at = action.at;
                parser.action(action);
                at
            }
        };
        if nodes > MAX_NODES || parser.frames.len() > MAX_NESTED || parser.faults.len() >= MAX_FAULTS {
            if nodes > MAX_NODES {
                let message = format!("more than {MAX_NODES} texts and actions in a file");
                parser.faults.push(Fault::new(at, message));
            } else if parser.frames.len() > MAX_NESTED {
                parser.faults.push(Fault::new(at, format!("nested deeper than {MAX_NESTED} levels")));
            }
            parser.frames.truncate(1);
            break;
        }
    }
    parser.finish(lexer.end())
}

pub(super) struct Parser<'f, 't> {
    pub(super) faults: &'f mut Vec<Fault>,
    /// Of the file and, while one is read, of a definition.
    scopes: Vec<Scope<'t>>,
    frames: Vec<Frame<'t>>,
    defined: std::collections::HashMap<Rc<str>, Body<'t>>,
}

pub(super) struct Scope<'t> {
    pub(super) variables: Vec<&'t str>,
    pub(super) slots: usize,
}

impl Scope<'_> {
    fn new() -> Self {
        Self { variables: vec!["$"], slots: 1 }
    }
}

/// What waits for its `{{ end }}`.
struct Frame<'t> {
    at: Place,
    opened: Opened<'t>,
    nodes: Vec<Node<'t>>,
    /// Variables known before it.
    variables: usize,
}

enum Opened<'t> {
    Main,
    /// `None` in its `else`.
    Choice {
        branches: Vec<Branch<'t>>,
        branch: Option<(Pipe, bool)>,
    },
    /// With its nodes, in its `else`.
    Range {
        pipe: Pipe,
        nodes: Option<Vec<Node<'t>>>,
    },
    /// With the pipe of a `block`.
    Definition {
        name: Rc<str>,
        call: Option<Pipe>,
    },
}

impl<'t> Frame<'t> {
    fn new(at: Place, opened: Opened<'t>) -> Self {
        Self { at, opened, nodes: Vec::new(), variables: 1 }
    }
}

impl<'t> Parser<'_, 't> {
    fn push(&mut self, node: Node<'t>) {
        if let Some(frame) = self.frames.last_mut() {
            frame.nodes.push(node);
        }
    }

    fn action(&mut self, action: Action<'t>) {
        let at = action.at;
        let mut tokens = Tokens { left: action.tokens.iter(), at };
        tokens.skip_space();
        let word = match tokens.peek() {
            Some(Token { kind: Word::Word(word), .. }) => *word,
            _ => "",
        };
        if is_keyword(word) {
            tokens.left.next();
        }
        // The structure stays what it was meant to be.
        let unreadable = action.fault.is_some();
        self.faults.extend(action.fault);
        let outcome = match word {
            "if" | "with" | "range" | "define" | "block" => self.open(word, at, &mut tokens),
            "else" => self.otherwise(at, &mut tokens),
            "end" => {
                let outcome = tokens.end("`end`");
                self.close(at);
                outcome
            }
            "template" => self.call(at, &mut tokens),
            "break" | "continue" => self.jump(word, at, &mut tokens),
            _ => self.pipe(&mut tokens, Within::Action).map(|pipe| self.push(Node::Action { at, pipe })),
        };
        if !unreadable {
            self.faults.extend(outcome.err());
        }
    }

    fn open(&mut self, word: &str, at: Place, tokens: &mut Tokens<'_, 't>) -> Result<(), Fault> {
        let variables = self.scope().variables.len();
        let mut fault = None;
        let mut pipe = |parser: &mut Self, tokens: &mut Tokens<'_, 't>, within| {
            parser.pipe(tokens, within).unwrap_or_else(|found| {
                fault = Some(found);
                Pipe { at, sets: Vec::new(), commands: Vec::new() }
            })
        };
        let opened = match word {
            "range" => Opened::Range { pipe: pipe(self, tokens, Within::Range), nodes: None },
            "if" | "with" => {
                let pipe = pipe(self, tokens, Within::Action);
                Opened::Choice { branches: Vec::new(), branch: Some((pipe, word == "with")) }
            }
            _ => {
                let is_block = word == "block";
                let misplaced = !is_block && self.frames.len() > 1;
                let name = self.name(word, tokens);
                let call = (is_block && name.is_ok()).then(|| pipe(self, tokens, Within::Action));
                let end = if is_block { Ok(()) } else { tokens.end("the name") };
                let name = name.unwrap_or_else(|found| {
                    fault = Some(found);
                    "".into()
                });
                if misplaced {
                    fault = Some(Fault::new(at, "a `define` may not stand inside of anything"));
                }
                fault = fault.take().or(end.err());
                Opened::Definition { name, call }
            }
        };
        if matches!(opened, Opened::Definition { .. }) {
            self.scopes.push(Scope::new());
        }
        self.frames.push(Frame { at, opened, nodes: Vec::new(), variables });
        fault.map_or(Ok(()), Err)
    }

    fn otherwise(&mut self, at: Place, tokens: &mut Tokens<'_, 't>) -> Result<(), Fault> {
        tokens.skip_space();
        let condition = match tokens.peek() {
            Some(Token { kind: Word::Word(word @ ("if" | "with")), .. }) => {
                tokens.left.next();
                Some(*word == "with")
            }
            _ => None,
        };
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let nodes = take(&mut frame.nodes);
        match (&mut frame.opened, condition) {
            (Opened::Choice { branches, branch }, condition) if branch.is_some() => {
                let is_with = branch.as_ref().is_some_and(|(_, with)| *with);
                let done = branch.take().map(|(pipe, with)| Branch { pipe, with, nodes });
                branches.extend(done);
                let Some(with) = condition else { return tokens.end("`else`") };
                let pipe = self.pipe(tokens, Within::Action);
                if let Some(Frame { opened: Opened::Choice { branch, .. }, .. }) = self.frames.last_mut() {
                    let broken = Pipe { at, sets: Vec::new(), commands: Vec::new() };
                    let mut fault = None;
                    let pipe = pipe.unwrap_or_else(|found| {
                        fault = Some(found);
                        broken
                    });
                    *branch = Some((pipe, with));
                    if with != is_with {
                        let message = "`else if` belongs to `if`, `else with` to `with`";
                        fault = fault.or(Some(Fault::new(at, message)));
                    }
                    return fault.map_or(Ok(()), Err);
                }
                Ok(())
            }
            (Opened::Range { nodes: body @ None, .. }, None) => {
                *body = Some(nodes);
                tokens.end("`else`")
            }
            _ => {
                frame.nodes = nodes;
                let hint = "it belongs in `if`, `with` or `range`, once";
                Err(Fault::new(at, "this `else` has nothing to be the other case of").hint(hint))
            }
        }
    }

    /// Variables end with what they were declared in.
    fn forget(&mut self, variables: usize) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.variables.truncate(variables);
        }
    }

    fn close(&mut self, at: Place) {
        if self.frames.len() < 2 {
            self.faults.push(Fault::new(at, "this `end` has nothing to end"));
            return;
        }
        let Some(Frame { at, opened, nodes, variables }) = self.frames.pop() else { return };
        match opened {
            Opened::Main => return,
            Opened::Choice { mut branches, branch } => {
                let otherwise = match branch {
                    Some((pipe, with)) => {
                        branches.push(Branch { pipe, with, nodes });
                        Vec::new()
                    }
                    None => nodes,
                };
                self.push(Node::Choice(Choice { branches, otherwise }));
            }
            Opened::Range { pipe, nodes: None } => {
                self.push(Node::Range(Range { pipe, nodes, otherwise: Vec::new() }));
            }
            Opened::Range { pipe, nodes: Some(body) } => {
                self.push(Node::Range(Range { pipe, nodes: body, otherwise: nodes }));
            }
            Opened::Definition { name, call } => {
                let slots = self.scopes.pop().map_or(1, |scope| scope.slots);
                self.define(at, Rc::clone(&name), Body { nodes, slots });
                if let Some(pipe) = call {
                    self.push(Node::Call { at, name, pipe: Some(pipe) });
                }
                return;
            }
        }
        self.forget(variables);
    }

    /// The first definition that is more than white space counts, and must be the only one.
    fn define(&mut self, at: Place, name: Rc<str>, body: Body<'t>) {
        let is_empty = |body: &Body<'_>| {
            body.nodes.iter().all(|node| matches!(node, Node::Text { text, .. } if text.trim().is_empty()))
        };
        match self.defined.entry(name) {
            Entry::Occupied(there) if is_empty(&body) => _ = there,
            Entry::Occupied(mut there) if is_empty(there.get()) => _ = there.insert(body),
            Entry::Occupied(there) => {
                let message = format!("the template {} is defined twice", quoted(there.key()));
                self.faults.push(Fault::new(at, message));
            }
            Entry::Vacant(place) => _ = place.insert(body),
        }
    }

    fn call(&mut self, at: Place, tokens: &mut Tokens<'_, 't>) -> Result<(), Fault> {
        let name = self.name("template", tokens)?;
        tokens.skip_space();
        let pipe = match tokens.peek() {
            Some(_) => Some(self.pipe(tokens, Within::Action)?),
            None => None,
        };
        self.push(Node::Call { at, name, pipe });
        Ok(())
    }

    fn name(&mut self, word: &str, tokens: &mut Tokens<'_, 't>) -> Result<Rc<str>, Fault> {
        match tokens.next_word() {
            Some(Token { kind: Word::Text(name), .. }) => Ok(name.as_str().into()),
            Some(token) => Err(Fault::new(token.at, format!("`{word}` takes a name between quotes"))),
            None => Err(Fault::new(tokens.at, format!("`{word}` takes a name between quotes"))),
        }
    }

    fn jump(&mut self, word: &str, at: Place, tokens: &mut Tokens<'_, 't>) -> Result<(), Fault> {
        tokens.end(&format!("`{word}`"))?;
        let mut inside = self.frames.iter().rev();
        let is_range = |frame: &Frame<'_>| match &frame.opened {
            Opened::Range { nodes, .. } => Some(nodes.is_none()),
            Opened::Definition { .. } | Opened::Main => Some(false),
            Opened::Choice { .. } => None,
        };
        if inside.find_map(is_range) != Some(true) {
            return Err(Fault::new(at, format!("`{word}` outside of a `range`")));
        }
        self.push(if word == "break" { Node::Break } else { Node::Continue });
        Ok(())
    }

    pub(super) fn scope(&mut self) -> &mut Scope<'t> {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::new());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn finish(mut self, end: Place) -> Template<'t> {
        while self.frames.len() > 1 {
            let Some(frame) = self.frames.pop() else { break };
            let fault = Fault::new(frame.at, "this has no `{{ end }}`");
            self.faults
                .push(fault.hint("what begins with if, range, with, define or block ends with {{ end }}"));
        }
        let nodes = self.frames.pop().map(|frame| frame.nodes).unwrap_or_default();
        let slots = self.scopes.first().map_or(1, |scope| scope.slots);
        Template { main: Body { nodes, slots }, defined: self.defined, end }
    }
}
