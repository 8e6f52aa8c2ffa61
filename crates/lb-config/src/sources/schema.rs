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

/// Every option that can be set, in alphabetical order: `entrypoints.<name>.address`.
pub(super) fn options() -> Vec<String> {
    let mut found = Vec::new();
    roots().into_iter().for_each(|root| add(root.to_owned(), &mut found));
    found.sort();
    found.dedup();
    found
}

/// The option of this path, if it is one by itself, and those below.
fn add(path: String, found: &mut Vec<String>) {
    let shown = |path: &str| path.replace(".*", ".<name>").replace("[0]", "[n]").to_ascii_lowercase();
    let is_alone = match shape(&path) {
        None => return,
        Some(Shape::Word | Shape::Switch) => true,
        Some(Shape::Map) => false,
        Some(Shape::Names) => return add(format!("{path}.*"), found),
        Some(Shape::List) => {
            let before = found.len();
            keys(&format!("{path}[0]")).iter().for_each(|key| add(format!("{path}[0].{key}"), found));
            found.len() == before
        }
    };
    if is_alone {
        found.push(shown(&path));
    }
    keys(&path).iter().for_each(|key| add(format!("{path}.{key}"), found));
}

/// The keys of the block of this path.
fn keys(path: &str) -> Vec<&'static str> {
    let mut root = Branch::new(PLAIN);
    // None of these is no path.
    if let Some((parent, _)) = path.rsplit_once('.') {
        let _ = root.add(parent, "", PLAIN);
    }
    let _ = root.add(path, "true", MARKED);
    let _ = root.add(&format!("{path}.*"), "", PLAIN);
    listen(&root.into_node()).keys()
}
