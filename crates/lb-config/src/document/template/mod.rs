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
use std::collections::BTreeMap;

pub(crate) use origin::Origin;

use super::position::{Files, Position};
use super::source::Format;
use crate::problem::{Problem, escaped};
use lex::Fault;
use value::{Entries, Of, Room, Value};

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

/// What is wrong with a template in a value: the byte, what, and a way out.
pub(crate) type Flaw = (usize, String, Option<String>);

/// What is wrong with the template that a value is.
pub(crate) fn flaws(text: &str) -> Vec<Flaw> {
    let mut faults = Vec::new();
    parse::parse(text, Format::Toml, &mut faults);
    let byte = |at: origin::Place| {
        let above = text.split_inclusive('\n').take(at.line as usize - 1).map(str::len).sum::<usize>();
        let before = text[above..].chars().take(at.column as usize - 1).map(char::len_utf8).sum::<usize>();
        above + before
    };
    faults.into_iter().map(|Fault { at, message, hint }| (byte(at), message, hint)).collect()
}

/// Runs the template that a value is; its data has the fields `texts`, and `map` with further texts.
///
/// # Errors
/// What cannot be done.
pub(crate) fn fill_in(
    text: &str,
    texts: &[(&str, String)],
    (name, map): (&str, &BTreeMap<String, String>),
) -> Result<String, String> {
    let env = |name: &str| std::env::var(name).ok();
    let room = Room::of_values(&env);
    let map: Entries = map.iter().map(|(key, value)| (key.as_str().into(), Value::plain(value))).collect();
    let mut fields: Entries = [(name.into(), room.map(Of::Text, map)?)].into();
    fields.extend(texts.iter().map(|(name, text)| ((*name).into(), Value::plain(text))));
    let data = room.map(Of::Fields, fields)?;
    let mut faults = Vec::new();
    let template = parse::parse(text, Format::Toml, &mut faults);
    let first = faults.into_iter().next();
    let out = first.map_or_else(|| eval::run(&template, data, &room), |fault| Err(Box::new(fault)));
    out.map(|out| out.text).map_err(|fault| fault.message)
}

#[cfg(test)]
mod tests;
