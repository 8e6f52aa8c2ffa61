//! What the reader asks for: so that the schema, which is the code that reads, can answer questions about itself.

use std::cell::{Cell, RefCell};

use super::{Field, Report};
use crate::document::Position;

/// As what a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// On or off.
    Switch,
    /// A single value of any other kind.
    Word,
    List,
    /// Keys that are known.
    Map,
    /// Keys that are names.
    Names,
}

/// Ears for a document of which one value is [marked](Asked::MARK).
#[derive(Default)]
pub(crate) struct Asked {
    roots: RefCell<Vec<&'static str>>,
    keys: RefCell<Vec<&'static str>>,
    shape: Cell<Option<Shape>>,
}

impl Asked {
    /// The line of the value that is meant; no other has it.
    pub(crate) const MARK: u32 = 1;

    /// The keys at the top.
    pub(crate) fn roots(self) -> Vec<&'static str> {
        self.roots.into_inner()
    }

    /// The keys in the marked block, without those that do nothing here.
    pub(crate) fn keys(self) -> Vec<&'static str> {
        self.keys.into_inner()
    }

    /// Of the marked value; `None` when nobody has looked at it.
    pub(crate) fn shape(&self) -> Option<Shape> {
        self.shape.get()
    }
}

impl Report<'_> {
    pub(super) fn hear_root(&self, key: &'static str) {
        if let Some(asked) = self.asked {
            asked.roots.borrow_mut().push(key);
        }
    }

    pub(super) fn hear_key(&self, block: Position, key: &'static str) {
        if let Some(asked) = self.asked
            && block.line == Asked::MARK
        {
            asked.keys.borrow_mut().push(key);
        }
    }
}

impl Field<'_> {
    /// What is asked first counts: a switch is read as a text, too.
    pub(super) fn heard(&self, shape: Shape) {
        if let Some(asked) = self.report.asked
            && self.at().line == Asked::MARK
            && asked.shape.get().is_none()
        {
            asked.shape.set(Some(shape));
        }
    }
}
