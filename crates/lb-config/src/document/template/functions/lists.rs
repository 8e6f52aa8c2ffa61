//! Sprig's lists.

use std::rc::Rc;

use super::super::value::{List, Of, Outcome, Room, Value};
use super::texts::shown;
use super::{Function, Type, any, count, function, list, text, variadic};

const A: &[Type] = &[Type::Any];
const AA: &[Type] = &[Type::Any, Type::Any];

pub(super) static FUNCTIONS: &[Function] = &[
    variadic("list", &[], Type::Any, |room, v| room.list(Of::Any, v.to_vec())),
    variadic("tuple", &[], Type::Any, |room, v| room.list(Of::Any, v.to_vec())),
    function("first", A, |_, v| Ok(list(v, 0)?.items.first().cloned().unwrap_or(Value::Nil))),
    function("mustFirst", A, |_, v| Ok(list(v, 0)?.items.first().cloned().unwrap_or(Value::Nil))),
    function("last", A, |_, v| Ok(list(v, 0)?.items.last().cloned().unwrap_or(Value::Nil))),
    function("mustLast", A, |_, v| Ok(list(v, 0)?.items.last().cloned().unwrap_or(Value::Nil))),
    function("rest", A, rest),
    function("mustRest", A, rest),
    function("initial", A, initial),
    function("mustInitial", A, initial),
    function("append", AA, append),
    function("mustAppend", AA, append),
    function("push", AA, append),
    function("mustPush", AA, append),
    function("prepend", AA, prepend),
    function("mustPrepend", AA, prepend),
    variadic("concat", &[], Type::Any, concat),
    function("reverse", A, reverse),
    function("mustReverse", A, reverse),
    function("uniq", A, uniq),
    function("mustUniq", A, uniq),
    variadic("without", A, Type::Any, without),
    variadic("mustWithout", A, Type::Any, without),
    function("has", AA, has),
    function("mustHas", AA, has),
    function("compact", A, compact),
    function("mustCompact", A, compact),
    variadic("slice", A, Type::Any, slice),
    variadic("mustSlice", A, Type::Any, slice),
    function("chunk", &[Type::Int, Type::Any], chunk),
    function("mustChunk", &[Type::Int, Type::Any], chunk),
    function("sortAlpha", A, sort),
    function("join", &[Type::Text, Type::Any], |room, v| {
        let parts = texts(room, any(v, 1))?;
        let bytes = parts.iter().map(|part| part.len() + text(v, 0).len()).sum();
        room.make(bytes)?;
        room.text(parts.join(text(v, 0)))
    }),
    function("toStrings", A, |room, v| room.texts(texts(room, any(v, 0))?.into_iter())),
];

/// Room for a copy of that many.
fn copy(room: &Room<'_>, list: &List) -> Outcome<Vec<Value>> {
    room.make(size_of_val(&*list.items))?;
    Ok(list.items.to_vec())
}

fn rest(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = copy(room, list(arguments, 0)?)?;
    items.drain(..1.min(items.len()));
    room.list(Of::Any, items)
}

fn initial(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = copy(room, list(arguments, 0)?)?;
    items.pop();
    room.list(Of::Any, items)
}

fn append(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = copy(room, list(arguments, 0)?)?;
    items.push(any(arguments, 1).clone());
    room.list(Of::Any, items)
}

fn prepend(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = copy(room, list(arguments, 0)?)?;
    items.insert(0, any(arguments, 1).clone());
    room.list(Of::Any, items)
}

fn concat(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = Vec::new();
    for at in 0..arguments.len() {
        items.extend(copy(room, list(arguments, at)?)?);
    }
    room.list(Of::Any, items)
}

fn reverse(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = copy(room, list(arguments, 0)?)?;
    items.reverse();
    room.list(Of::Any, items)
}

fn contains(room: &Room<'_>, items: &[Value], wanted: &Value) -> Outcome<bool> {
    for item in items {
        if room.equal(item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn uniq(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items: Vec<Value> = Vec::new();
    for item in &*list(arguments, 0)?.items {
        if !contains(room, &items, item)? {
            items.push(item.clone());
        }
    }
    room.list(Of::Any, items)
}

fn without(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items: Vec<Value> = Vec::new();
    for item in &*list(arguments, 0)?.items {
        if !contains(room, &arguments[1..], item)? {
            items.push(item.clone());
        }
    }
    room.list(Of::Any, items)
}

fn has(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    if matches!(any(arguments, 1), Value::Nil) {
        return Ok(Value::Bool(false));
    }
    Ok(Value::Bool(contains(room, &list(arguments, 1)?.items, any(arguments, 0))?))
}

fn compact(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut items = copy(room, list(arguments, 0)?)?;
    items.retain(|item| room.is_true(item));
    room.list(Of::Any, items)
}

fn slice(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let whole = list(arguments, 0)?;
    if whole.items.is_empty() {
        return Ok(Value::Nil);
    }
    let bound = |at: usize, otherwise: usize| match arguments.get(at) {
        None => Ok(otherwise),
        Some(value) => value
            .signed()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| "takes numbers from 0 as bounds".to_owned()),
    };
    let (start, end) = (bound(1, 0)?, bound(2, whole.items.len())?);
    let Some(part) = whole.items.get(start..end) else {
        return Err(format!("there are no elements {start} to {end} in a list of {}", whole.items.len()));
    };
    room.list(whole.of, part.to_vec())
}

fn chunk(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let size = count(arguments, 0)?;
    if size == 0 {
        return Err("takes the size of a part, from 1".to_owned());
    }
    let parts = list(arguments, 1)?.items.chunks(size).map(|part| room.list(Of::Any, part.to_vec()));
    let parts = parts.collect::<Outcome<Vec<Value>>>()?;
    room.list(Of::Any, parts)
}

fn sort(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut sorted = texts(room, any(arguments, 0))?;
    room.step(sorted.len())?;
    sorted.sort_unstable();
    room.texts(sorted.into_iter())
}

/// Sprig's `strslice`: what is nil is left out.
fn texts(room: &Room<'_>, of: &Value) -> Outcome<Vec<Rc<str>>> {
    let single;
    let items: &[Value] = match of {
        Value::List(list) => &list.items,
        other => {
            single = [other.clone()];
            &single
        }
    };
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::Nil => {}
            Value::Text(text) => all.push(Rc::clone(text)),
            item => {
                let text = shown(room, item)?;
                room.make(text.len() + size_of::<Value>())?;
                all.push(text.into());
            }
        }
    }
    Ok(all)
}
