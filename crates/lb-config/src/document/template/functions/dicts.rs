//! Sprig's maps.

use std::rc::Rc;

use super::super::eval::a;
use super::super::value::{Entries, MAX_NESTED, Map, Of, Outcome, Room, Value, too_deep};
use super::texts::shown;
use super::{Function, Type, any, function, map, text, variadic};

const M: &[Type] = &[Type::Map];
const MT: &[Type] = &[Type::Map, Type::Text];

pub(super) static FUNCTIONS: &[Function] = &[
    variadic("dict", &[], Type::Any, dict),
    function("get", MT, |room, v| {
        Ok(map(v, 0).and_then(|map| room.get(map, text(v, 1))).unwrap_or(Value::plain("")))
    }),
    function("set", &[Type::Map, Type::Text, Type::Any], set),
    function("unset", MT, |room, v| {
        if let Some(map) = map(v, 0) {
            room.unset(map, text(v, 1));
        }
        Ok(any(v, 0).clone())
    }),
    function("hasKey", MT, |room, v| {
        Ok(Value::Bool(map(v, 0).is_some_and(|map| room.get(map, text(v, 1)).is_some())))
    }),
    variadic("keys", &[], Type::Map, |room, v| {
        let mut keys = Vec::new();
        for at in 0..v.len() {
            keys.extend(entries(room, v, at)?.into_iter().map(|(key, _)| Value::Text(key)));
        }
        room.list(Of::Text, keys)
    }),
    function("values", M, |room, v| {
        room.list(Of::Any, entries(room, v, 0)?.into_iter().map(|(_, value)| value).collect())
    }),
    variadic("pick", M, Type::Text, |room, v| choose(room, v, true)),
    variadic("omit", M, Type::Text, |room, v| choose(room, v, false)),
    variadic("pluck", &[Type::Text], Type::Map, |room, v| {
        let found = (1..v.len()).filter_map(|at| room.get(map(v, at)?, text(v, 0)));
        room.list(Of::Any, found.collect())
    }),
    variadic("dig", &[Type::Any, Type::Any, Type::Any], Type::Any, dig),
    variadic("merge", M, Type::Map, |room, v| merge_all(room, v, false)),
    variadic("mustMerge", M, Type::Map, |room, v| merge_all(room, v, false)),
    variadic("mergeOverwrite", M, Type::Map, |room, v| merge_all(room, v, true)),
    variadic("mustMergeOverwrite", M, Type::Map, |room, v| merge_all(room, v, true)),
    function("deepCopy", &[Type::Any], |room, v| deep_copy(room, any(v, 0), 0)),
    function("mustDeepCopy", &[Type::Any], |room, v| deep_copy(room, any(v, 0), 0)),
];

fn entries(room: &Room<'_>, arguments: &[Value], at: usize) -> Outcome<Vec<(Rc<str>, Value)>> {
    map(arguments, at).map_or(Ok(Vec::new()), |map| room.entries(map))
}

fn dict(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut made = Entries::new();
    for pair in arguments.chunks(2) {
        let key = shown(room, any(pair, 0))?;
        room.make(key.len())?;
        made.insert(key.into(), pair.get(1).cloned().unwrap_or(Value::plain("")));
    }
    room.map(Of::Any, made)
}

fn set(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let Some(map) = map(arguments, 0) else { return Err("there is no map to set a key of".to_owned()) };
    room.set(map, text(arguments, 1), any(arguments, 2).clone())?;
    Ok(any(arguments, 0).clone())
}

fn choose(room: &Room<'_>, arguments: &[Value], keeps: bool) -> Outcome {
    let named: Vec<&str> = (1..arguments.len()).map(|at| text(arguments, at)).collect();
    let all = entries(room, arguments, 0)?;
    room.step(all.len().saturating_mul(named.len()))?;
    let chosen = all.into_iter().filter(|(key, _)| named.contains(&&**key) == keeps);
    room.map(Of::Any, chosen.collect())
}

/// `dig "a" "b" default map`.
fn dig(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let [keys @ .., otherwise, start] = arguments else { return Ok(Value::Nil) };
    let mut value = start.clone();
    for key in keys {
        let (Value::Map(map), Value::Text(key)) = (&value, key) else {
            return Err(format!("looks for a string in a map; this is {} in {}", a(key), a(&value)));
        };
        match room.get(*map, key) {
            Some(found) => value = found,
            None => return Ok(otherwise.clone()),
        }
    }
    Ok(value)
}

/// Into the first; what is empty there is filled, or everything here wins.
fn merge_all(room: &Room<'_>, arguments: &[Value], overwrites: bool) -> Outcome {
    let Some(into) = map(arguments, 0) else {
        let empty = room.map(Of::Any, Entries::new())?;
        let all: Vec<Value> = [empty].into_iter().chain(arguments.iter().skip(1).cloned()).collect();
        return merge_all(room, &all, overwrites);
    };
    for at in 1..arguments.len() {
        if let Some(from) = map(arguments, at) {
            merge(room, into, from, overwrites, 0)?;
        }
    }
    Ok(any(arguments, 0).clone())
}

fn merge(room: &Room<'_>, into: Map, from: Map, overwrites: bool, depth: usize) -> Outcome<()> {
    if depth > MAX_NESTED {
        return Err(too_deep());
    }
    for (key, new) in room.entries(from)? {
        let old = room.get(into, &key);
        match (&old, &new) {
            (Some(Value::Map(old)), Value::Map(new)) => merge(room, *old, *new, overwrites, depth + 1)?,
            (None, _) => room.set(into, &key, new)?,
            (Some(old), new) => {
                if overwrites || !room.is_true(old) {
                    room.set(into, &key, new.clone())?;
                }
            }
        }
    }
    Ok(())
}

fn deep_copy(room: &Room<'_>, value: &Value, depth: usize) -> Outcome {
    if depth > MAX_NESTED {
        return Err(too_deep());
    }
    room.step(1)?;
    match value {
        Value::Nil if depth == 0 => Err("there is nothing to copy".to_owned()),
        Value::List(list) => {
            room.make(size_of_val(&*list.items))?;
            let items = list.items.iter().map(|item| deep_copy(room, item, depth + 1));
            let items = items.collect::<Outcome<Vec<Value>>>()?;
            room.list(list.of, items)
        }
        Value::Map(map) => {
            let entries = room.entries(*map)?.into_iter();
            let entries = entries.map(|(key, value)| Ok((key, deep_copy(room, &value, depth + 1)?)));
            let entries = entries.collect::<Outcome<Entries>>()?;
            room.map(map.of, entries)
        }
        other => Ok(other.clone()),
    }
}
