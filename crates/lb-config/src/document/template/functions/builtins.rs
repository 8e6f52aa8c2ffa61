//! The functions of Go's `text/template`.

use std::cmp::Ordering;

use super::super::eval::a;
use super::super::format::{print_all, print_line};
use super::super::printf::printf;
use super::super::quote::is_printable;
use super::super::value::{Of, Outcome, Room, Value};
use super::{Function, Run, Type, any, function, text, variadic};

pub(super) static FUNCTIONS: &[Function] = &[
    Function { name: "and", takes: &[Type::Any], rest: Some(Type::Any), run: Run::And },
    Function { name: "or", takes: &[Type::Any], rest: Some(Type::Any), run: Run::Or },
    function("not", &[Type::Any], |room, arguments| Ok(Value::Bool(!room.is_true(any(arguments, 0))))),
    variadic("eq", &[Type::Any], Type::Any, eq),
    function("ne", &[Type::Any, Type::Any], |_, v| Ok(Value::Bool(!equal(any(v, 0), any(v, 1))?))),
    function("lt", &[Type::Any, Type::Any], |_, v| Ok(Value::Bool(order(v)?.is_lt()))),
    function("le", &[Type::Any, Type::Any], |_, v| Ok(Value::Bool(order(v)?.is_le()))),
    function("gt", &[Type::Any, Type::Any], |_, v| Ok(Value::Bool(order(v)?.is_gt()))),
    function("ge", &[Type::Any, Type::Any], |_, v| Ok(Value::Bool(order(v)?.is_ge()))),
    function("len", &[Type::Any], len),
    variadic("index", &[Type::Any], Type::Any, index),
    variadic("print", &[], Type::Any, |room, v| room.text(print_all(room, v)?)),
    variadic("println", &[], Type::Any, |room, v| room.text(print_line(room, v)?)),
    variadic("printf", &[Type::Text], Type::Any, |room, v| room.text(printf(room, text(v, 0), &v[1..])?)),
    variadic("html", &[], Type::Any, html),
    variadic("js", &[], Type::Any, js),
    variadic("urlquery", &[], Type::Any, urlquery),
    variadic("call", &[Type::Any], Type::Any, |_, v| {
        Err(format!("calls functions that are values, and there are none; this is {}", a(any(v, 0))))
    }),
];

fn eq(_: &Room<'_>, arguments: &[Value]) -> Outcome {
    let [first, others @ ..] = arguments else { return Ok(Value::Bool(false)) };
    if others.is_empty() {
        return Err("nothing to compare with".to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn equal(a_value: &Value, b_value: &Value) -> Outcome<bool> {
    Ok(match (a_value, b_value) {
        (Value::Nil, Value::Nil) => true,
        (Value::Nil, _) | (_, Value::Nil) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        #[expect(clippy::float_cmp, reason = "as Go")]
        (Value::Float(a), Value::Float(b)) => a == b,
        _ => match (integer(a_value), integer(b_value)) {
            (Some(a), Some(b)) => a == b,
            _ => return Err(incomparable(a_value, b_value)),
        },
    })
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Byte(byte) => Some(i64::from(*byte)),
        value => value.signed(),
    }
}

fn order(arguments: &[Value]) -> Outcome<Ordering> {
    let (first, second) = (any(arguments, 0), any(arguments, 1));
    match (first, second) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).ok_or_else(|| "NaN has no order".to_owned()),
        _ => match (integer(first), integer(second)) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => Err(incomparable(first, second)),
        },
    }
}

fn incomparable(first: &Value, second: &Value) -> String {
    format!("{} and {} cannot be compared", a(first), a(second))
}

fn len(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let length = match any(arguments, 0) {
        Value::Text(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => room.size(*map),
        other => return Err(format!("{} has no length", a(other))),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let [first, indices @ ..] = arguments else { return Ok(Value::Nil) };
    if matches!(first, Value::Nil) {
        return Err(format!("{} has no elements", a(first)));
    }
    let mut value = first.clone();
    for index in indices {
        value = match &value {
            Value::Map(map) => {
                let Value::Text(key) = index else {
                    return Err(format!("the key of a map is a string; this is {}", a(index)));
                };
                let missing = if map.of == Of::Text { Value::plain("") } else { Value::Nil };
                room.get(*map, key).unwrap_or(missing)
            }
            Value::List(list) => at(index, list.items.len()).map(|at| list.items[at].clone())?,
            Value::Text(text) => at(index, text.len()).map(|at| Value::Byte(text.as_bytes()[at]))?,
            other => return Err(format!("{} has no elements", a(other))),
        };
    }
    Ok(value)
}

fn at(index: &Value, length: usize) -> Outcome<usize> {
    let Some(number) = integer(index) else {
        return Err(format!("an element is called by a number; this is {}", a(index)));
    };
    let at = usize::try_from(number).ok().filter(|at| *at < length);
    at.ok_or_else(|| format!("there is no element {number}: there are {length}, counted from 0"))
}

fn joined(room: &Room<'_>, arguments: &[Value]) -> Outcome<String> {
    if let [Value::Text(text)] = arguments {
        return Ok(text.to_string());
    }
    let shown =
        |value: &Value| if matches!(value, Value::Nil) { Value::plain("<no value>") } else { value.clone() };
    print_all(room, &arguments.iter().map(shown).collect::<Vec<_>>())
}

fn html(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut out = String::new();
    for c in joined(room, arguments)?.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    room.text(out)
}

fn js(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut out = String::new();
    for c in joined(room, arguments)?.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c < ' ' || !(c.is_ascii() || is_printable(c)) => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    room.text(out)
}

fn urlquery(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut out = String::new();
    for byte in joined(room, arguments)?.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    room.text(out)
}
