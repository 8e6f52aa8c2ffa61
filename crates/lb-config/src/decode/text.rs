//! A single value as text, which knows where each of its characters stands.

use super::Field;
use crate::document::{Position, Scalar};
use crate::problem::quoted;
use crate::static_config::Place;

#[derive(Clone)]
pub(crate) struct Text<'a> {
    pub(crate) value: &'a str,
    pub(crate) field: Field<'a>,
    /// As written in the file, where the decoder sees something else.
    written: Option<&'a str>,
    /// Characters from the field's position to `value`, if they are in the same line.
    offset: Option<u32>,
}

impl<'a> Text<'a> {
    pub(super) fn new(field: Field<'a>, scalar: &'a Scalar) -> Self {
        Self { value: &scalar.text, field, written: scalar.written.as_deref(), offset: scalar.text_offset }
    }

    /// Of the byte `byte` of the value, or of the whole value when that is not known.
    pub(crate) fn at(&self, byte: usize) -> Position {
        match (self.offset, self.value.get(..byte)) {
            (Some(offset), Some(before)) => {
                let characters = u32::try_from(before.chars().count()).unwrap_or(u32::MAX);
                self.field.at().right(offset.saturating_add(characters))
            }
            _ => self.field.at(),
        }
    }

    /// Of the value itself: its opening quote, or its part of a comma separated list.
    pub(crate) fn start(&self) -> Position {
        if std::ptr::eq(self.value.as_ptr(), self.whole().as_ptr()) { self.field.at() } else { self.at(0) }
    }

    /// For problems that are found when the file is no longer at hand.
    pub(crate) fn place(&self) -> Place {
        let Position { line, column, .. } = self.start();
        Place { line, column, key: self.field.path() }
    }

    fn whole(&self) -> &'a str {
        match &self.field.node.value {
            crate::document::Value::Scalar(scalar) => &scalar.text,
            _ => self.value,
        }
    }

    /// The value in back-ticks, as the file writes it.
    pub(crate) fn quoted(&self) -> String {
        quoted(self.written.unwrap_or(self.value))
    }

    /// The value as an owned string; says so when it is not what the file seems to say.
    pub(crate) fn string(&self) -> String {
        if let Some(written) = self.written {
            self.field.warn(
                format!("{} without quotes is read as {}", quoted(written), quoted(self.value)),
                Some(format!("write \"{}\" if that is meant", crate::problem::printable(written))),
            );
        }
        self.value.to_owned()
    }

    /// The value has the wrong type.
    pub(crate) fn shape(&self, message: impl Into<String>, hint: Option<String>) {
        self.field.report.misfit(self.start(), &self.field.path(), message.into(), hint, false);
    }

    /// The value cannot work.
    pub(crate) fn error(&self, message: impl Into<String>, hint: Option<String>) {
        self.field.report.error(self.start(), &self.field.path(), message.into(), hint);
    }

    /// As [`error`](Self::error), pointing at a byte of the value.
    pub(crate) fn error_at(&self, byte: usize, message: impl Into<String>, hint: Option<String>) {
        self.field.report.error(self.at(byte), &self.field.path(), message.into(), hint);
    }

    pub(crate) fn warn(&self, message: impl Into<String>, hint: Option<String>) {
        self.field.report.warn(self.start(), &self.field.path(), message.into(), hint);
    }

    pub(super) fn trimmed(self) -> Self {
        let value = self.value.trim();
        self.part(value)
    }

    pub(crate) fn split_commas(self) -> Vec<Self> {
        if self.value.is_empty() {
            return Vec::new();
        }
        self.value.split(',').map(|piece| self.clone().part(piece.trim())).collect()
    }

    /// `value` is a piece of the present value.
    fn part(self, value: &'a str) -> Self {
        let skipped = value.as_ptr() as usize - self.value.as_ptr() as usize;
        let characters = self.value.get(..skipped).map_or(0, |before| before.chars().count());
        let further = u32::try_from(characters).unwrap_or(u32::MAX);
        Self { value, offset: self.offset.map(|offset| offset.saturating_add(further)), ..self }
    }
}
