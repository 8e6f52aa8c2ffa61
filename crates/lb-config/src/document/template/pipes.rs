//! What stands in an action: pipelines, commands, values.

use std::rc::Rc;

use super::ast::{Command, Expression, Kind, Number, Pipe};
use super::functions;
use super::lex::{Fault, Kind as Word, Token};
use super::number::number;
use super::origin::Place;
use super::parse::Parser;
use super::value::MAX_NESTED;
use crate::problem::quoted;

/// Variables that are known at one place; chosen.
const MAX_VARIABLES: usize = 1_000;

/// Where a pipe stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Within {
    Action,
    Range,
    /// How many.
    Parentheses(usize),
}

pub(super) struct Tokens<'a, 't> {
    pub(super) left: std::slice::Iter<'a, Token<'t>>,
    /// Of the action.
    pub(super) at: Place,
}

impl<'a, 't> Tokens<'a, 't> {
    pub(super) fn peek(&self) -> Option<&'a Token<'t>> {
        self.left.as_slice().first()
    }

    pub(super) fn skip_space(&mut self) {
        while self.peek().is_some_and(|token| token.kind == Word::Space) {
            self.left.next();
        }
    }

    pub(super) fn next_word(&mut self) -> Option<&'a Token<'t>> {
        self.skip_space();
        self.left.next()
    }

    /// Of the next word, or of the action when there is none.
    fn place(&self) -> Place {
        self.peek().map_or(self.at, |token| token.at)
    }

    pub(super) fn end(&mut self, what: &str) -> Result<(), Fault> {
        match self.next_word() {
            None => Ok(()),
            Some(token) => Err(Fault::new(token.at, format!("{} after {what}", token.kind.shown()))),
        }
    }
}

impl<'t> Parser<'_, 't> {
    /// `None`, with a fault, for one that was not declared.
    fn variable(&mut self, name: &str, at: Place) -> Option<usize> {
        let known = &self.scope().variables;
        let found = known.iter().rposition(|known| *known == name);
        if found.is_none() {
            let hint =
                match crate::suggest::nearest(name, known.iter().copied().filter(|known| *known != "$")) {
                    Some(near) => format!("did you mean {}?", quoted(near)),
                    None => "`:=` declares one, up to the `end` of what it stands in".to_owned(),
                };
            let message = format!("the variable {} is not declared here", quoted(name));
            self.faults.push(Fault::new(at, message).hint(hint));
        }
        found
    }

    fn declare(&mut self, name: &'t str, at: Place) -> usize {
        if self.scope().variables.len() == MAX_VARIABLES {
            self.faults.push(Fault::new(at, format!("more than {MAX_VARIABLES} variables")));
        }
        let scope = self.scope();
        if scope.variables.len() < MAX_VARIABLES {
            scope.variables.push(name);
        }
        scope.slots = scope.slots.max(scope.variables.len());
        scope.variables.len() - 1
    }

    /// `$x := a | b c`, up to the end of the action or of the parentheses.
    pub(super) fn pipe(&mut self, tokens: &mut Tokens<'_, 't>, within: Within) -> Result<Pipe, Fault> {
        tokens.skip_space();
        let at = tokens.place();
        let mut names: Vec<(&'t str, Place)> = Vec::new();
        let mut assigns = false;
        while let Some(Token { kind: Word::Variable(name), at }) = tokens.peek() {
            let before = tokens.left.clone();
            tokens.left.next();
            tokens.skip_space();
            match tokens.peek().map(|token| &token.kind) {
                Some(kind @ (Word::Declare | Word::Assign)) => {
                    assigns = *kind == Word::Assign;
                    tokens.left.next();
                    names.push((name, *at));
                }
                Some(Word::Comma) => {
                    if within != Within::Range || !names.is_empty() {
                        let hint = "`range` sets two, everything else one";
                        return Err(Fault::new(*at, "too many variables are set").hint(hint));
                    }
                    tokens.left.next();
                    tokens.skip_space();
                    names.push((name, *at));
                    if !matches!(tokens.peek(), Some(Token { kind: Word::Variable(_), .. })) {
                        return Err(Fault::new(
                            tokens.place(),
                            "a second variable is missing after the comma",
                        ));
                    }
                    continue;
                }
                _ => tokens.left = before,
            }
            break;
        }
        let commands = self.commands(tokens, within, at);
        let sets = names.into_iter().filter_map(|(name, at)| {
            if assigns { self.variable(name, at) } else { Some(self.declare(name, at)) }
        });
        let sets = sets.collect();
        Ok(Pipe { at, sets, commands: commands? })
    }

    fn commands(
        &mut self,
        tokens: &mut Tokens<'_, 't>,
        within: Within,
        at: Place,
    ) -> Result<Vec<Command>, Fault> {
        let mut commands: Vec<Command> = Vec::new();
        loop {
            tokens.skip_space();
            let start = tokens.place();
            let command = self.command(tokens, within)?;
            let Some(command) = command else {
                // Go reads over a `|` at the end.
                match (tokens.left.next(), within) {
                    (None, _) | (Some(Token { kind: Word::Close, .. }), Within::Parentheses(_)) => {}
                    (Some(token), _) => {
                        let message = format!("{} is not expected here", token.kind.shown());
                        return Err(Fault::new(token.at, message));
                    }
                }
                let is_something = !commands.is_empty();
                return is_something.then_some(commands).ok_or_else(|| Fault::new(at, "a value is missing"));
            };
            let passes_nothing_on = |kind: &Kind| {
                matches!(kind, Kind::Bool(_) | Kind::Dot | Kind::Nil | Kind::Number(_) | Kind::Text(_))
            };
            if !commands.is_empty() && passes_nothing_on(&command.operator.kind) {
                return Err(Fault::new(start, "only a function takes what comes through `|`"));
            }
            commands.push(command);
            let token = tokens.left.next();
            match (token.map(|token| &token.kind), within) {
                (Some(Word::Pipe), _) => {}
                (None, _) | (Some(Word::Close), Within::Parentheses(_)) => return Ok(commands),
                (Some(kind), _) => {
                    let at = token.map_or(start, |token| token.at);
                    return Err(Fault::new(at, format!("{} is not expected here", kind.shown())));
                }
            }
        }
    }

    /// A value, or a function with its arguments; `None` if there is nothing.
    fn command(&mut self, tokens: &mut Tokens<'_, 't>, within: Within) -> Result<Option<Command>, Fault> {
        let mut command: Option<Command> = None;
        while let Some(operand) = self.operand(tokens, within)? {
            match &mut command {
                None => command = Some(Command { operator: operand, arguments: Vec::new() }),
                Some(command) => command.arguments.push(operand),
            }
            match tokens.peek() {
                Some(Token { kind: Word::Space, .. }) => tokens.skip_space(),
                Some(Token { kind: Word::Pipe | Word::Close, .. }) | None => break,
                Some(token) => {
                    let message = format!("{} is not expected here", token.kind.shown());
                    return Err(Fault::new(token.at, message).hint("write a space between two values"));
                }
            }
        }
        Ok(command)
    }

    fn operand(&mut self, tokens: &mut Tokens<'_, 't>, within: Within) -> Result<Option<Expression>, Fault> {
        let Some(Token { at, kind }) = tokens.peek() else { return Ok(None) };
        let at = *at;
        let kind = match kind {
            Word::Word("true") => Kind::Bool(true),
            Word::Word("false") => Kind::Bool(false),
            Word::Word("nil") => Kind::Nil,
            Word::Word(word) if is_keyword(word) => {
                return Err(Fault::new(at, format!("`{word}` may only begin an action")));
            }
            Word::Word(word) => match functions::find(word) {
                Ok(function) => Kind::Function(function),
                Err((message, hint)) => {
                    self.faults.push(Fault { at, message, hint: Some(hint) });
                    Kind::Fields(Box::new(Expression { at, kind: Kind::Nil }), Vec::new())
                }
            },
            Word::Dot => Kind::Dot,
            Word::Field(name) => {
                Kind::Fields(Box::new(Expression { at, kind: Kind::Dot }), vec![(*name).into()])
            }
            Word::Variable(name) => match self.variable(name, at) {
                Some(slot) => Kind::Variable(slot),
                None => Kind::Fields(Box::new(Expression { at, kind: Kind::Nil }), Vec::new()),
            },
            Word::Text(text) => Kind::Text(text.as_str().into()),
            Word::Char(c) => {
                let code = u32::from(*c);
                Kind::Number(Number { int: Some(code.into()), float: code.into(), is_float: false })
            }
            Word::Number(written) => Kind::Number(number(written, at)?),
            Word::Open => {
                let depth = if let Within::Parentheses(depth) = within { depth + 1 } else { 1 };
                if depth > MAX_NESTED {
                    return Err(Fault::new(
                        at,
                        format!("more than {MAX_NESTED} parentheses within each other"),
                    ));
                }
                tokens.left.next();
                let pipe = self.pipe(tokens, Within::Parentheses(depth))?;
                return self.fields(Expression { at, kind: Kind::Pipe(Box::new(pipe)) }, tokens).map(Some);
            }
            _ => return Ok(None),
        };
        tokens.left.next();
        self.fields(Expression { at, kind }, tokens).map(Some)
    }

    /// `.a.b` directly behind a value.
    fn fields(&mut self, of: Expression, tokens: &mut Tokens<'_, 't>) -> Result<Expression, Fault> {
        let mut names: Vec<Rc<str>> = Vec::new();
        let start = tokens.place();
        while let Some(Token { kind: Word::Field(name), .. }) = tokens.peek() {
            names.push((*name).into());
            tokens.left.next();
        }
        let at = of.at;
        match of.kind {
            _ if names.is_empty() => Ok(of),
            Kind::Bool(_) | Kind::Text(_) | Kind::Number(_) | Kind::Nil | Kind::Dot => {
                Err(Fault::new(start, "this value has no fields").hint("write a space between two values"))
            }
            Kind::Fields(of, first) => {
                Ok(Expression { at, kind: Kind::Fields(of, first.into_iter().chain(names).collect()) })
            }
            kind => Ok(Expression { at, kind: Kind::Fields(Box::new(Expression { at, kind }), names) }),
        }
    }
}

pub(super) fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range" | "template" | "with"
    )
}
