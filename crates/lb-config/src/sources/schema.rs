//! What the reader of files knows about options, where the spelling of a flag or a variable does not tell.
//!
//! There is no list of options: the reader is given a document with nothing but the option in question, and listened to.

use crate::decode::{Asked, Report, Shape};
use crate::docker::tree::Branch;
use crate::document::{Files, Node, Position, Value};
use crate::statics;

const PLAIN: Position = Position { file: 0, line: 0, column: 0 };
const MARKED: Position = Position { line: Asked::MARK, ..PLAIN };

/// The first keys of all options.
pub(super) fn roots() -> Vec<&'static str> {
    listen(&Node::new(PLAIN, Value::Null)).roots()
}

/// As what the option of this path is read; `None` when nobody reads it.
pub(super) fn shape(path: &str) -> Option<Shape> {
    let mut root = Branch::new(PLAIN);
    if let Some((parent, _)) = path.rsplit_once('.') {
        root.add(parent, "", PLAIN).ok()?;
    }
    root.add(path, "true", MARKED).ok()?;
    listen(&root.into_node()).shape()
}

fn listen(document: &Node) -> Asked {
    let asked = Asked::default();
    let mut files = Files::default();
    files.add("");
    statics::read(&Report::for_ears(&files, &asked), document, "");
    asked
}
