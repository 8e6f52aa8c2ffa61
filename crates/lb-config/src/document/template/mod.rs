//! Templates in dynamic files: Go's `text/template`, run before the file is parsed, as Traefik does.
//!
//! A file without `{{` is left as it is. What a template may do is bounded, whatever it says: see the limits in
//! `value.rs`, `parse.rs` and `eval.rs`. Messages say nothing of values, which may be secrets from the environment.

mod ast;
mod eval;
mod format;
mod functions;
mod lex;
mod number;
mod origin;
mod parse;
mod pipes;
mod printf;
mod quote;
mod value;

use std::borrow::Cow;

pub(crate) use origin::Origin;

use super::position::{Files, Position};
use super::source::Format;
use crate::problem::{Problem, escaped};
use lex::Fault;
use value::{Room, Value};

pub(crate) struct Rendered<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) origin: Origin,
}

/// Runs the template; `None` when something is wrong with it.
pub(crate) fn render<'t>(
    text: &'t str,
    format: Format,
    file: u32,
    files: &Files,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<Rendered<'t>> {
    if !text.contains("{{") {
        return Some(Rendered { text: text.into(), origin: Origin::untouched() });
    }
    let mut faults = Vec::new();
    let template = parse::parse(text, format, &mut faults);
    let mut outcome = None;
    if faults.is_empty() {
        // Traefik's data for files is `false`.
        match eval::run(&template, Value::Bool(false), &Room::new(env)) {
            Ok(out) => outcome = Some(out.finish(format, template.end)),
            Err(fault) => faults.push(*fault),
        }
    }
    faults.sort_by_key(|fault| (fault.at.line, fault.at.column));
    problems.extend(faults.into_iter().map(|Fault { at, message, hint }| {
        let at = Position { file, line: at.line, column: at.column };
        files.error(at, escaped(&message), hint.map(|hint| escaped(&hint)))
    }));
    outcome.map(|(text, origin)| Rendered { text: text.into(), origin })
}

#[cfg(test)]
mod tests;
