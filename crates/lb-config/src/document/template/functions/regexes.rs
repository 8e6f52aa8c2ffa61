//! Sprig's regular expressions, in Go's syntax.

use regex::Regex;

use super::super::value::{BYTES_PER_STEP, Outcome, Room, Value};
use super::texts::check_size;
use super::{Function, Type, function, int, text};

const T: &[Type] = &[Type::Text];
const TT: &[Type] = &[Type::Text, Type::Text];
const TTT: &[Type] = &[Type::Text, Type::Text, Type::Text];
const TTI: &[Type] = &[Type::Text, Type::Text, Type::Int];

pub(super) static FUNCTIONS: &[Function] = &[
    function("regexMatch", TT, |room, v| Ok(Value::Bool(expression(room, v)?.is_match(text(v, 1))))),
    function("mustRegexMatch", TT, |room, v| Ok(Value::Bool(expression(room, v)?.is_match(text(v, 1))))),
    function("regexFind", TT, find),
    function("mustRegexFind", TT, find),
    function("regexFindAll", TTI, find_all),
    function("mustRegexFindAll", TTI, find_all),
    function("regexReplaceAll", TTT, replace_all),
    function("mustRegexReplaceAll", TTT, replace_all),
    function("regexReplaceAllLiteral", TTT, replace_literal),
    function("mustRegexReplaceAllLiteral", TTT, replace_literal),
    function("regexSplit", TTI, split),
    function("mustRegexSplit", TTI, split),
    function("regexQuoteMeta", T, |room, v| {
        let is_meta = |c: char| r"\.+*?()|[]{}^$".contains(c);
        let quoted = text(v, 0).chars().flat_map(|c| is_meta(c).then_some('\\').into_iter().chain([c]));
        room.text(quoted.collect::<String>())
    }),
];

/// Compiling one takes as long as some thousand steps, looking at a character as long as some.
const STEPS: usize = 2_000;
const STEPS_PER_BYTE: usize = 4;

fn expression(room: &Room<'_>, arguments: &[Value]) -> Outcome<Regex> {
    room.step(text(arguments, 1).len().saturating_mul(STEPS_PER_BYTE).saturating_add(STEPS))?;
    lb_core::route::go_regex(text(arguments, 0))
}

/// The search for a further match may go to the end again.
fn search_on(room: &Room<'_>, left: usize) -> Outcome<()> {
    room.step(1 + left / BYTES_PER_STEP)
}

/// How many are wanted; all for a negative number.
fn most(arguments: &[Value]) -> usize {
    usize::try_from(int(arguments, 2)).unwrap_or(usize::MAX)
}

fn find(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let found = expression(room, arguments)?;
    room.text(found.find(text(arguments, 1)).map_or("", |found| found.as_str()))
}

fn find_all(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (expression, of) = (expression(room, arguments)?, text(arguments, 1));
    let mut all = Vec::new();
    for found in expression.find_iter(of).take(most(arguments)) {
        search_on(room, of.len() - found.end())?;
        all.push(found.as_str());
    }
    room.texts(all.iter())
}

fn replace_all(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let expression = expression(room, arguments)?;
    let by = text(arguments, 2);
    let most = by.matches('$').count();
    replace(room, arguments, &expression, |found, out| {
        let size = most.saturating_mul(found.get_match().len()).saturating_add(by.len());
        check_size(size)?;
        found.expand(by, out);
        Ok(())
    })
}

fn replace_literal(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let expression = expression(room, arguments)?;
    replace(room, arguments, &expression, |_, out| {
        out.push_str(text(arguments, 2));
        Ok(())
    })
}

fn replace(
    room: &Room<'_>,
    arguments: &[Value],
    expression: &Regex,
    with: impl Fn(&regex::Captures<'_>, &mut String) -> Outcome<()>,
) -> Outcome {
    let of = text(arguments, 1);
    let mut out = String::new();
    let mut done = 0;
    for found in expression.captures_iter(of) {
        let whole = found.get_match();
        search_on(room, of.len() - whole.end())?;
        out.push_str(&of[done..whole.start()]);
        with(&found, &mut out)?;
        done = whole.end();
        check_size(out.len())?;
    }
    room.text(out + &of[done..])
}

/// What Go leaves out, the `regex` crate does not: the nothing before a match of nothing at the start, and after one
/// at the end.
fn split(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (expression, of, most) = (expression(room, arguments)?, text(arguments, 1), most(arguments));
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    for found in expression.find_iter(of) {
        search_on(room, of.len() - found.end())?;
        if parts.len() + 1 >= most {
            break;
        }
        end = found.start();
        if found.end() != 0 {
            parts.push(&of[start..end]);
        }
        start = found.end();
    }
    if most > 0 && (end != of.len() || of.is_empty()) {
        parts.push(&of[start..]);
    }
    room.texts(parts.iter())
}
