//! Sprig's questions about values, and what stands in for empty ones.

use super::super::value::{Outcome, Room, Value};
use super::{Function, Type, any, function, text, variadic};

const A: &[Type] = &[Type::Any];
const TA: &[Type] = &[Type::Text, Type::Any];

pub(super) static FUNCTIONS: &[Function] = &[
    variadic("default", A, Type::Any, |room, v| {
        Ok(v.get(1).filter(|given| room.is_true(given)).unwrap_or(any(v, 0)).clone())
    }),
    function("empty", A, |room, v| Ok(Value::Bool(!room.is_true(any(v, 0))))),
    variadic("coalesce", &[], Type::Any, |room, v| {
        Ok(v.iter().find(|value| room.is_true(value)).cloned().unwrap_or(Value::Nil))
    }),
    variadic("all", &[], Type::Any, |room, v| Ok(Value::Bool(v.iter().all(|value| room.is_true(value))))),
    variadic("any", &[], Type::Any, |room, v| Ok(Value::Bool(v.iter().any(|value| room.is_true(value))))),
    function("ternary", &[Type::Any, Type::Any, Type::Bool], ternary),
    function("typeOf", A, |_, v| Ok(Value::plain(type_of(any(v, 0))))),
    function("typeIs", TA, |_, v| Ok(Value::Bool(text(v, 0) == type_of(any(v, 1))))),
    function("typeIsLike", TA, |_, v| Ok(Value::Bool(text(v, 0) == type_of(any(v, 1))))),
    function("kindOf", A, |_, v| Ok(Value::plain(any(v, 0).kind()))),
    function("kindIs", TA, |_, v| Ok(Value::Bool(text(v, 0) == any(v, 1).kind()))),
    function("deepEqual", &[Type::Any, Type::Any], |room, v| {
        Ok(Value::Bool(room.equal(any(v, 0), any(v, 1))?))
    }),
];

fn ternary(_: &Room<'_>, arguments: &[Value]) -> Outcome {
    let chosen = if matches!(any(arguments, 2), Value::Bool(true)) { 0 } else { 1 };
    Ok(any(arguments, chosen).clone())
}

fn type_of(value: &Value) -> &'static str {
    if matches!(value, Value::Nil) { "<nil>" } else { value.type_name() }
}
