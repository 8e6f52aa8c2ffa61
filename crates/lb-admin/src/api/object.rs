//! JSON objects as Go writes them: what is empty is left out.

use std::time::Duration;

use serde_json::{Map, Value};

use super::duration::go_duration;

#[derive(Clone, Debug, Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.set(key, value),
            None => self,
        }
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.set(key, value) }
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        if value { self.set(key, true) } else { self }
    }

    pub(crate) fn number(self, key: &str, value: impl Into<i64>) -> Self {
        let value = value.into();
        if value == 0 { self } else { self.set(key, value) }
    }

    pub(crate) fn list(self, key: &str, values: &[impl AsRef<str>]) -> Self {
        if values.is_empty() {
            return self;
        }
        self.set(key, values.iter().map(|value| value.as_ref().to_owned()).collect::<Vec<_>>())
    }

    pub(crate) fn duration(self, key: &str, value: Duration) -> Self {
        self.set(key, go_duration(value))
    }

    /// Left out when it has no members.
    pub(crate) fn object(self, key: &str, value: Value) -> Self {
        if value.as_object().is_some_and(Map::is_empty) { self } else { self.set(key, value) }
    }

    pub(crate) fn build(self) -> Value {
        Value::Object(self.0)
    }
}
