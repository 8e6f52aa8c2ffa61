//! What expressions of a template have for values: those of Go that a template can make.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Why a function refuses its arguments; says nothing of the texts in them, which may be secrets.
pub(super) type Outcome<T = Value> = Result<T, String>;

pub(super) type Entries = BTreeMap<Rc<str>, Value>;

/// Steps of one file; chosen, 100,000 routers of some twenty actions.
pub(super) const MAX_STEPS: u32 = 5_000_000;
/// Bytes of texts, lists and maps that one file makes on the way; chosen.
const MAX_MADE: usize = 256 * 1024 * 1024;
/// What a text takes besides its bytes, a map with its first entry, and each entry of a map; estimated.
const TEXT: usize = 32;
const MAP: usize = 500;
pub(super) const MAP_ENTRY: usize = 80;
/// Bytes that a function goes through in the time of a step; chosen.
pub(super) const BYTES_PER_STEP: usize = 64;
/// Values within values; chosen.
pub(super) const MAX_NESTED: usize = 64;

#[derive(Clone, Debug)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    /// A number of the template, and what counts.
    Int(i64),
    /// What Sprig's arithmetic makes: no `int` to functions that ask for one.
    Int64(i64),
    /// One byte of a text.
    Byte(u8),
    Float(f64),
    Text(Rc<str>),
    List(List),
    Map(Map),
}

/// What a list or map is declared to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Any,
    Text,
    Int,
    /// A struct's fields, and no others.
    Fields,
}

#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) of: Of,
    pub(super) items: Rc<[Value]>,
    /// Lists within lists, so that freeing them needs no deep stack.
    depth: usize,
}

/// A map can be changed through each of its names and may end up in itself: it lies in [`Room`], which owns all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) of: Of,
    at: usize,
}

/// What the values of one file live in, and how much of it is left.
pub(super) struct Room<'e> {
    pub(super) env: &'e dyn Fn(&str) -> Option<String>,
    /// Of values, not of files: there `split` is Sprig's.
    pub(super) is_of_values: bool,
    maps: RefCell<Vec<Entries>>,
    steps: Cell<u32>,
    made: Cell<usize>,
}

impl<'e> Room<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        let (steps, made) = (Cell::new(MAX_STEPS), Cell::new(MAX_MADE));
        Self { env, is_of_values: false, maps: RefCell::default(), steps, made }
    }

    pub(super) fn of_values(env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Self { is_of_values: true, ..Self::new(env) }
    }

    /// Takes the time for `steps`.
    pub(super) fn step(&self, steps: usize) -> Outcome<()> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps.get().checked_sub(steps));
        self.steps.set(left.ok_or_else(|| format!("the template takes more than {MAX_STEPS} steps"))?);
        Ok(())
    }

    /// Takes the memory for `bytes`; to be asked before they are made.
    pub(super) fn make(&self, bytes: usize) -> Outcome<()> {
        let left = self.made.get().checked_sub(bytes);
        self.made.set(left.ok_or_else(|| {
            format!("the template makes more than {} MiB of values", MAX_MADE / 1024 / 1024)
        })?);
        Ok(())
    }

    pub(super) fn text(&self, text: impl Into<Rc<str>> + AsRef<str>) -> Outcome {
        self.make(text.as_ref().len() + TEXT)?;
        Ok(Value::Text(text.into()))
    }

    pub(super) fn list(&self, of: Of, items: Vec<Value>) -> Outcome {
        self.make(items.len() * size_of::<Value>())?;
        self.step(items.len() / 16)?;
        let within = items.iter().map(|item| if let Value::List(list) = item { list.depth } else { 0 });
        let depth = 1 + within.max().unwrap_or(0);
        if depth > MAX_NESTED {
            return Err(too_deep());
        }
        Ok(Value::List(List { of, items: items.into(), depth }))
    }

    pub(super) fn texts<T: AsRef<str>>(&self, texts: impl Iterator<Item = T>) -> Outcome {
        let items: Outcome<Vec<Value>> = texts
            .map(|text| {
                self.make(size_of::<Value>())?;
                self.text(text.as_ref())
            })
            .collect();
        self.list(Of::Text, items?)
    }

    pub(super) fn map(&self, of: Of, entries: Entries) -> Outcome {
        self.make(if entries.is_empty() { MAP_ENTRY } else { MAP + entries.len() * MAP_ENTRY })?;
        let mut maps = self.maps.borrow_mut();
        maps.push(entries);
        Ok(Value::Map(Map { of, at: maps.len() - 1 }))
    }

    /// What is in it now.
    pub(super) fn entries(&self, map: Map) -> Outcome<Vec<(Rc<str>, Value)>> {
        let maps = self.maps.borrow();
        let entries = &maps[map.at];
        self.step(entries.len())?;
        Ok(entries.iter().map(|(key, value)| (Rc::clone(key), value.clone())).collect())
    }

    pub(super) fn get(&self, map: Map, key: &str) -> Option<Value> {
        self.maps.borrow()[map.at].get(key).cloned()
    }

    pub(super) fn size(&self, map: Map) -> usize {
        self.maps.borrow()[map.at].len()
    }

    pub(super) fn set(&self, map: Map, key: &str, value: Value) -> Outcome<()> {
        let first = if self.size(map) == 0 { MAP } else { 0 };
        self.make(first + MAP_ENTRY + key.len())?;
        self.maps.borrow_mut()[map.at].insert(key.into(), value);
        Ok(())
    }

    pub(super) fn unset(&self, map: Map, key: &str) {
        self.maps.borrow_mut()[map.at].remove(key);
    }

    /// Whether `if` takes it for true, and Sprig's `empty` for something.
    pub(super) fn is_true(&self, value: &Value) -> bool {
        match value {
            Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Int(value) | Value::Int64(value) => *value != 0,
            Value::Byte(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(value) => !value.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => self.size(*map) > 0,
        }
    }

    /// Go's `reflect.DeepEqual`: an `int` never equals an `int64`.
    pub(super) fn equal(&self, a: &Value, b: &Value) -> Outcome<bool> {
        self.equal_within(a, b, 0)
    }

    fn equal_within(&self, a: &Value, b: &Value, depth: usize) -> Outcome<bool> {
        if depth > MAX_NESTED {
            return Err(too_deep());
        }
        self.step(1)?;
        Ok(match (a, b) {
            (Value::Nil, Value::Nil) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) | (Value::Int64(a), Value::Int64(b)) => a == b,
            (Value::Byte(a), Value::Byte(b)) => a == b,
            #[expect(clippy::float_cmp, reason = "as Go")]
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => {
                self.step(a.len() / BYTES_PER_STEP)?;
                a == b
            }
            (Value::List(a), Value::List(b)) => {
                if a.of != b.of || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&*b.items) {
                    if !self.equal_within(a, b, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(a), Value::Map(b)) if a == b => true,
            (Value::Map(a), Value::Map(b)) => {
                let (a_entries, b_entries) = (self.entries(*a)?, self.entries(*b)?);
                if a.of != b.of || a_entries.len() != b_entries.len() {
                    return Ok(false);
                }
                for ((a_key, a), (b_key, b)) in a_entries.iter().zip(&b_entries) {
                    if a_key != b_key || !self.equal_within(a, b, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }
}

pub(super) fn too_deep() -> String {
    format!("values nested deeper than {MAX_NESTED} levels")
}

impl Value {
    pub(super) fn plain(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// Go's name of the type, as `typeOf` and messages say it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Int64(_) => "int64",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(List { of: Of::Text, .. }) => "[]string",
            Self::List(List { of: Of::Int, .. }) => "[]int",
            Self::List(_) => "[]interface {}",
            Self::Map(Map { of: Of::Text, .. }) => "map[string]string",
            Self::Map(Map { of: Of::Fields, .. }) => "struct",
            Self::Map(_) => "map[string]interface {}",
        }
    }

    /// Go's name of its kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "invalid",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            other => other.type_name(),
        }
    }

    /// `int` and `int64`.
    pub(super) fn signed(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Int64(value) => Some(*value),
            _ => None,
        }
    }
}
