//! Sprig's numbers.

use super::super::super::MAX_BYTES;
use super::super::number::go_integer;
use super::super::value::{Of, Outcome, Room, Value};
use super::{Function, Type, any, function, int, text, variadic};

const A: &[Type] = &[Type::Any];
const AA: &[Type] = &[Type::Any, Type::Any];

pub(super) static FUNCTIONS: &[Function] = &[
    variadic("add", &[], Type::Any, |_, v| Ok(fold(0, v, i64::wrapping_add))),
    function("add1", A, |_, v| Ok(Value::Int64(to_int(any(v, 0)).wrapping_add(1)))),
    function("sub", AA, |_, v| Ok(fold_first(v, i64::wrapping_sub))),
    variadic("mul", A, Type::Any, |_, v| Ok(fold_first(v, i64::wrapping_mul))),
    function("div", AA, |_, v| divide(v, i64::wrapping_div)),
    function("mod", AA, |_, v| divide(v, i64::wrapping_rem)),
    variadic("max", A, Type::Any, |_, v| Ok(fold_first(v, i64::max))),
    variadic("biggest", A, Type::Any, |_, v| Ok(fold_first(v, i64::max))),
    variadic("min", A, Type::Any, |_, v| Ok(fold_first(v, i64::min))),
    function("add1f", A, |_, v| Ok(Value::Float(tidy(to_float(any(v, 0)) + 1.0)))),
    variadic("addf", &[], Type::Any, |_, v| Ok(Value::Float(tidy(v.iter().map(to_float).sum())))),
    variadic("subf", A, Type::Any, |_, v| fold_floats(v, |a, b| Ok(a - b))),
    variadic("mulf", A, Type::Any, |_, v| fold_floats(v, |a, b| Ok(a * b))),
    variadic("divf", A, Type::Any, |_, v| {
        fold_floats(v, |a, b| if b == 0.0 { Err("division by zero".to_owned()) } else { Ok(a / b) })
    }),
    variadic("maxf", A, Type::Any, |_, v| fold_floats(v, |a, b| Ok(a.max(b)))),
    variadic("minf", A, Type::Any, |_, v| fold_floats(v, |a, b| Ok(a.min(b)))),
    function("floor", A, |_, v| Ok(Value::Float(to_float(any(v, 0)).floor()))),
    function("ceil", A, |_, v| Ok(Value::Float(to_float(any(v, 0)).ceil()))),
    variadic("round", &[Type::Any, Type::Int], Type::Float, round),
    function("atoi", &[Type::Text], |_, v| Ok(Value::Int(text(v, 0).parse().unwrap_or(0)))),
    function("int", A, |_, v| Ok(Value::Int(to_int(any(v, 0))))),
    function("int64", A, |_, v| Ok(Value::Int64(to_int(any(v, 0))))),
    function("float64", A, |_, v| Ok(Value::Float(to_float(any(v, 0))))),
    function("toDecimal", A, |room, v| {
        let digits = super::super::format::text(room, any(v, 0))?;
        Ok(Value::Int64(i64::from_str_radix(&digits, 8).unwrap_or(0)))
    }),
    function("until", &[Type::Int], |room, v| {
        let count = int(v, 0);
        until_list(room, 0, count, if count < 0 { -1 } else { 1 })
    }),
    function("untilStep", &[Type::Int, Type::Int, Type::Int], |room, v| {
        until_list(room, int(v, 0), int(v, 1), int(v, 2))
    }),
    variadic("seq", &[], Type::Int, seq),
];

/// `cast.ToInt64`: 0 for what is no number.
fn to_int(value: &Value) -> i64 {
    match value {
        Value::Bool(value) => i64::from(*value),
        Value::Byte(value) => i64::from(*value),
        #[expect(clippy::cast_possible_truncation, reason = "as Go")]
        Value::Float(value) => *value as i64,
        Value::Text(text) => parse_int(text),
        value => value.signed().unwrap_or(0),
    }
}

/// With the prefixes of Go's literals; zeros after the point do not matter.
fn parse_int(text: &str) -> i64 {
    let text = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        _ => text,
    };
    go_integer(text).unwrap_or(0)
}

fn to_float(value: &Value) -> f64 {
    match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Float(value) => *value,
        Value::Text(text) => text.parse().unwrap_or(0.0),
        #[expect(clippy::cast_precision_loss, reason = "as Go")]
        value => to_int(value) as f64,
    }
}

fn fold(start: i64, values: &[Value], next: impl Fn(i64, i64) -> i64) -> Value {
    Value::Int64(values.iter().map(to_int).fold(start, next))
}

fn fold_first(values: &[Value], next: impl Fn(i64, i64) -> i64) -> Value {
    let (first, others) = values.split_first().unwrap_or((&Value::Nil, &[]));
    fold(to_int(first), others, next)
}

fn divide(values: &[Value], by: impl Fn(i64, i64) -> i64) -> Outcome {
    match to_int(any(values, 1)) {
        0 => Err("division by zero".to_owned()),
        divisor => Ok(Value::Int64(by(to_int(any(values, 0)), divisor))),
    }
}

fn fold_floats(values: &[Value], next: impl Fn(f64, f64) -> Outcome<f64>) -> Outcome {
    let (first, others) = values.split_first().unwrap_or((&Value::Nil, &[]));
    let result = others.iter().map(to_float).try_fold(to_float(first), next)?;
    Ok(Value::Float(tidy(result)))
}

/// Sprig reckons in decimals, where 0.1 and 0.2 are 0.3; fifteen digits are what both agree on.
fn tidy(value: f64) -> f64 {
    format!("{value:.14e}").parse().unwrap_or(value)
}

fn round(_: &Room<'_>, arguments: &[Value]) -> Outcome {
    let on = match arguments.get(2) {
        Some(Value::Float(on)) => *on,
        _ => 0.5,
    };
    let places = i32::try_from(int(arguments, 1)).map_err(|_| "that many places".to_owned())?;
    let power = 10_f64.powi(places);
    let digit = power * to_float(any(arguments, 0));
    let rounded = if digit.fract() >= on { digit.ceil() } else { digit.floor() };
    Ok(Value::Float(rounded / power))
}

/// The numbers from `start` up (or down) to before `stop`.
fn until(room: &Room<'_>, start: i64, stop: i64, step: i64) -> Outcome<Vec<i64>> {
    if step == 0 || (stop < start) != (step < 0) {
        return Ok(Vec::new());
    }
    let count = start.abs_diff(stop).div_ceil(step.unsigned_abs());
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    room.make(count.saturating_mul(size_of::<i64>()))?;
    let mut numbers = Vec::with_capacity(count);
    let mut next = start;
    for _ in 0..count {
        numbers.push(next);
        next = next.wrapping_add(step);
    }
    Ok(numbers)
}

fn until_list(room: &Room<'_>, start: i64, stop: i64, step: i64) -> Outcome {
    let numbers = until(room, start, stop, step)?;
    room.make(numbers.len() * size_of::<Value>())?;
    room.list(Of::Int, numbers.into_iter().map(Value::Int).collect())
}

/// As the command `seq`: both ends count.
fn seq(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (start, step, end) = match arguments.len() {
        1 => (1, None, int(arguments, 0)),
        2 => (int(arguments, 0), None, int(arguments, 1)),
        3 => (int(arguments, 0), Some(int(arguments, 1)), int(arguments, 2)),
        _ => return room.text(""),
    };
    let down = end < start;
    if down && step.is_some_and(|step| step > 0) {
        return room.text("");
    }
    let one = if down { -1 } else { 1 };
    let numbers = until(room, start, end.saturating_add(one), step.unwrap_or(one))?;
    if numbers.len() as u64 > MAX_BYTES / 2 {
        return Err(format!("a text of more than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    room.text(numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" "))
}
