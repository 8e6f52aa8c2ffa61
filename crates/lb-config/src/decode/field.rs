//! The value of one key.

use super::path::{Path, Segment};
use super::{Block, Report, Shape, Text};
use crate::document::{Entry, Node, Position, Value};
use crate::problem::quoted;

#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub(crate) report: &'a Report<'a>,
    pub(super) node: &'a Node,
    key_at: Position,
    parent: Path<'a>,
    segment: Segment<'a>,
}

/// What stands for a block that may be switched on with nothing in it.
pub(crate) enum Enabled<'a> {
    /// `false`.
    Off,
    /// `true` or `{}`.
    Plain,
    With(Block<'a>),
}

impl<'a> Field<'a> {
    pub(super) fn new(
        report: &'a Report<'a>,
        node: &'a Node,
        key_at: Position,
        parent: Path<'a>,
        segment: Segment<'a>,
    ) -> Self {
        Self { report, node, key_at, parent, segment }
    }

    /// Of the value.
    pub(crate) fn at(&self) -> Position {
        self.node.at
    }

    pub(crate) fn path(&self) -> String {
        self.place().to_string()
    }

    fn place(&self) -> Path<'a> {
        self.parent.join(self.segment)
    }

    /// The value has the wrong shape.
    pub(crate) fn shape(&self, message: String, hint: Option<String>) {
        let is_empty = matches!(&self.node.value, Value::Map(entries) if entries.is_empty());
        self.report.misfit(self.at(), &self.path(), message, hint, self.node.holds_maps() && !is_empty);
    }

    /// The value cannot work.
    pub(crate) fn error(&self, message: String, hint: Option<String>) {
        self.report.error(self.at(), &self.path(), message, hint);
    }

    pub(crate) fn error_at_key(&self, message: String, hint: Option<String>) {
        self.report.error(self.key_at, &self.path(), message, hint);
    }

    pub(crate) fn warn(&self, message: String, hint: Option<String>) {
        self.report.warn(self.at(), &self.path(), message, hint);
    }

    pub(crate) fn warn_at_key(&self, message: String, hint: Option<String>) {
        self.report.warn(self.key_at, &self.path(), message, hint);
    }

    fn expected(&self, what: &str) {
        let hint = match (what, &self.node.value, self.key_at.line) {
            (_, _, 0) => None,
            ("a map", Value::List(_), _) => Some(
                "its keys are no elements of a list: leave out the `- `, in TOML one pair of the brackets",
            ),
            ("a map", Value::Scalar(_), _) => Some("its options stand indented below it: `key: value`"),
            _ => None,
        };
        self.shape(format!("expected {what}, found {}", self.node.shape()), hint.map(str::to_owned));
    }

    /// A block with at least one key.
    pub(crate) fn block(&self) -> Option<Block<'a>> {
        self.heard(Shape::Map);
        match &self.node.value {
            Value::Map(entries) if entries.is_empty() => {
                self.standalone();
                None
            }
            Value::Map(entries) => Some(self.open(entries)),
            _ => {
                self.expected("a map");
                None
            }
        }
    }

    /// The block of a named object, which may be empty.
    pub(crate) fn object(&self) -> Option<Block<'a>> {
        self.heard(Shape::Map);
        match &self.node.value {
            Value::Map(entries) => Some(self.open(entries)),
            _ => {
                let message = format!("expected a map, found {}", self.node.shape());
                self.shape(message, self.hint_of_object());
                None
            }
        }
    }

    /// What may have been meant by a single value in place of an object, where there are lines.
    fn hint_of_object(&self) -> Option<String> {
        let is_written = self.key_at.line > 0 && matches!(self.node.value, Value::Scalar(_));
        let is_glued = matches!(&self.node.value, Value::Scalar(scalar) if is_glued(&scalar.text));
        is_written.then(|| match self.segment {
            _ if is_glued => "write a blank after the colon of a key: `key: value`".to_owned(),
            Segment::Key(key) => {
                format!(
                    "{} is read as a name here: a key of what stands above is indented further",
                    quoted(key)
                )
            }
            Segment::Index(_) => "write its key as well: `- key: value`".to_owned(),
        })
    }

    /// A block that `{}` or `true` switch on.
    pub(crate) fn enabled(&self) -> Enabled<'a> {
        self.heard(Shape::Switch);
        match &self.node.value {
            Value::Map(entries) if entries.is_empty() => Enabled::Plain,
            Value::Map(entries) => Enabled::With(self.open(entries)),
            // As empty as `{}`, and the only way in which a label can be.
            Value::Scalar(scalar) if scalar.text.is_empty() => Enabled::Plain,
            Value::Scalar(scalar) if scalar.text.eq_ignore_ascii_case("true") => Enabled::Plain,
            Value::Scalar(scalar) => match super::values::boolean(&scalar.text) {
                Some(true) => {
                    let message = format!("{} switches nothing on, as in Traefik", quoted(&scalar.text));
                    self.warn(message, Some("write `true`, or remove it".to_owned()));
                    Enabled::Off
                }
                Some(false) => Enabled::Off,
                None => {
                    self.shape(
                        format!("expected a map or `true`, found {}", quoted(&scalar.text)),
                        Some("`true` or `{}` switch it on with its defaults".to_owned()),
                    );
                    Enabled::Off
                }
            },
            Value::List(_) | Value::Null => {
                self.expected("a map or `true`");
                Enabled::Off
            }
        }
    }

    /// Names to objects; a null object is as good as absent and gets a warning.
    pub(crate) fn objects(&self) -> Vec<(&'a Entry, Field<'a>)> {
        self.entries("give it its keys, or remove it")
    }

    /// Names to values; a null value is as good as absent and gets a warning.
    pub(crate) fn map(&self) -> Vec<(&'a Entry, Field<'a>)> {
        self.entries("write \"\" if it should be empty, or remove it")
    }

    /// As [`map`](Self::map), for texts whose names may have dots: as in Traefik, those of maps within are joined with
    /// them, which flags, variables and TOML (`service.version = "1"`) cannot write otherwise.
    pub(crate) fn dotted(&self) -> Vec<(String, Field<'a>)> {
        let mut found = Vec::new();
        for (entry, field) in self.map() {
            match &field.node.value {
                Value::Map(entries) if !entries.is_empty() => {
                    let below = field.dotted().into_iter();
                    found.extend(below.map(|(name, field)| (format!("{}.{name}", entry.key), field)));
                }
                _ => found.push((entry.key.to_string(), field)),
            }
        }
        found
    }

    fn entries(&self, hint: &str) -> Vec<(&'a Entry, Field<'a>)> {
        self.heard(Shape::Names);
        let entries = match &self.node.value {
            Value::Map(entries) if entries.is_empty() => {
                self.standalone();
                return Vec::new();
            }
            Value::Map(entries) => entries,
            _ => {
                self.expected("a map");
                return Vec::new();
            }
        };
        let path = self.place();
        let mut fields = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let field = Field::new(
                self.report,
                &entry.value,
                entry.at,
                path.clone(),
                Segment::Key(entry.key.as_ref()),
            );
            if entry.value.is_null() {
                field.warn_at_key(
                    format!("{} has no value and is ignored", quoted(&entry.key)),
                    Some(hint.to_owned()),
                );
            } else {
                fields.push((entry, field));
            }
        }
        fields
    }

    /// Whether the value is `""`.
    pub(super) fn is_empty_text(&self) -> bool {
        matches!(&self.node.value, Value::Scalar(scalar) if scalar.text.is_empty())
    }

    /// The single value under `key` of a map, without reading it.
    pub(crate) fn peek(&self, key: &str) -> Option<&'a str> {
        let Value::Map(entries) = &self.node.value else { return None };
        entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key)).and_then(|entry| {
            match &entry.value.value {
                Value::Scalar(scalar) => Some(scalar.text.as_ref()),
                _ => None,
            }
        })
    }

    /// The elements of a list of blocks.
    pub(crate) fn list(&self) -> Vec<Field<'a>> {
        self.heard(Shape::List);
        match &self.node.value {
            Value::List(items) => {
                let path = self.place();
                let element = |(index, node): (usize, &'a Node)| {
                    Field::new(self.report, node, node.at, path.clone(), Segment::Index(index))
                };
                items.iter().enumerate().map(element).collect()
            }
            // As in Traefik, whose documentation has `servers: {}`.
            Value::Map(entries) if entries.is_empty() => Vec::new(),
            // Traefik takes it for one empty element, which never works.
            Value::Map(_) => {
                let hint = "put `- ` before the element; in TOML its header is `[[...]]`".to_owned();
                self.shape("expected a list, found a map".to_owned(), Some(hint));
                Vec::new()
            }
            _ => {
                self.expected("a list");
                Vec::new()
            }
        }
    }

    /// A single value as text.
    pub(crate) fn text(&self) -> Option<Text<'a>> {
        self.heard(Shape::Word);
        match &self.node.value {
            Value::Scalar(scalar) => Some(Text::new(self.clone(), scalar)),
            _ => {
                self.expected("a single value");
                None
            }
        }
    }

    /// A list of single values, or one value with commas.
    pub(crate) fn texts(&self) -> Vec<Text<'a>> {
        self.heard(Shape::List);
        match &self.node.value {
            Value::Scalar(scalar) => Text::new(self.clone(), scalar).split_commas(),
            Value::List(_) => self.list().iter().filter_map(Field::text).map(|text| text.trimmed()).collect(),
            Value::Map(entries) if entries.is_empty() => Vec::new(),
            _ => {
                self.expected("a list");
                Vec::new()
            }
        }
    }

    fn open(&self, entries: &'a [Entry]) -> Block<'a> {
        Block::new(self.report, self.at(), self.place(), entries)
    }

    /// Traefik's "cannot be a standalone element".
    fn standalone(&self) {
        self.shape(
            "cannot be a standalone element: `{}` is empty".to_owned(),
            Some("remove the key, or write at least one option".to_owned()),
        );
    }
}

/// Whether a text is a key and a value without the blank that YAML wants between them.
fn is_glued(text: &str) -> bool {
    text.split_once(':').is_some_and(|(key, value)| {
        key.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !key.is_empty()
            && !value.starts_with("//")
            && !value.bytes().all(|byte| byte.is_ascii_digit())
    })
}
