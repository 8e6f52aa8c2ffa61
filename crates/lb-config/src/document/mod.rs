//! A configuration file as a tree in which every key and value knows where it was written.
//!
//! YAML and TOML both end here; what the tree means is decided by `decode`. Reading is bounded in
//! time and memory whatever the file holds: see the limits below.

mod masked;
mod position;
mod scalar;
mod source;
pub(crate) mod template;
mod toml;
mod yaml;

use std::path::Path;
use std::rc::Rc;

pub(crate) use masked::masked;
pub(crate) use position::{Files, Position};
pub(crate) use source::{Format, read_text, reason as source_reason};
pub use source::{defines_nothing, read_bytes, read_string};

use crate::problem::Problem;

/// Bigger files are refused; chosen, 100,000 routers take some 10 MiB.
pub(crate) const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Deeper nesting is refused; chosen, the deepest key of Traefik lies at 12.
pub(crate) const MAX_DEPTH: usize = 64;
/// Keys and values counted after aliases are followed; chosen, more than a file of `MAX_BYTES` needs: a
/// router with a rule, a service and an entry point has nine in some 100 bytes.
pub(crate) const MAX_NODES: usize = 2_000_000;

/// One value. Aliases share what they stand for, so a tree costs what was written.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Scalar(Scalar),
    List(Rc<[Node]>),
    /// In the order of the file; keys are unique.
    Map(Rc<[Entry]>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) at: Position,
    pub(crate) value: Node,
    /// Came in through `<<`: a key written in the map itself wins over it, whatever its case.
    pub(crate) merged: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    /// The text that Traefik's decoder would see.
    pub(crate) text: Rc<str>,
    /// As written, where that differs: `1.10` is seen as `1.100000`.
    pub(crate) written: Option<Rc<str>>,
    /// Characters between the value's position and its text, when the text stands there as it is:
    /// 0 for a plain scalar, 1 for a quoted one. Then a column inside the text is known.
    pub(crate) text_offset: Option<u32>,
}

impl Node {
    pub(crate) fn new(at: Position, value: Value) -> Self {
        Self { at, value }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Whether it may be one or several objects, indented too far.
    pub(crate) fn holds_maps(&self) -> bool {
        match &self.value {
            Value::Map(_) => true,
            Value::List(items) => items.iter().any(Self::holds_maps),
            Value::Null | Value::Scalar(_) => false,
        }
    }

    /// "a map", "a list", "a value", for messages.
    pub(crate) fn shape(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads `text` as the tree of file number `file`; `None` when it is too broken to have one.
/// Problems go to `problems`, which may hold errors even when there is a tree.
pub(crate) fn parse(
    text: &str,
    format: Format,
    file: u32,
    files: &Files,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    match format {
        Format::Yaml => yaml::parse(text, &template::Origin::untouched(), file, files, problems),
        Format::Toml => toml::parse(text, &template::Origin::untouched(), file, files, problems),
    }
}

/// Refuses a static file without values, with which Traefik does not start: it was truncated, or waits to be filled.
pub(crate) fn refuse_nothing(path: &Path, text: &str, format: Format) -> Result<(), Box<Problem>> {
    let name = path.display().to_string();
    let mut files = Files::default();
    let file = files.add(&name);
    match parse(text, format, file, &files, &mut Vec::new()).map(|root| root.value) {
        Some(Value::Null) => {}
        Some(Value::Map(entries)) if entries.iter().all(|entry| entry.value.is_null()) => {}
        // What has faults has its own problems.
        _ => return Ok(()),
    }
    let hint =
        "write the entry points and providers into it, or remove it to configure by flags or variables";
    let message = "the file has no configuration".to_owned();
    Err(Box::new(Problem::whole_file(&name, message, Some(hint.to_owned()))))
}

/// Like [`parse`], after the template was run.
pub(crate) fn parse_template(
    text: &str,
    format: Format,
    file: u32,
    files: &Files,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let rendered = template::render(text, format, file, files, env, problems)?;
    match format {
        Format::Yaml => yaml::parse(&rendered.text, &rendered.origin, file, files, problems),
        Format::Toml => toml::parse(&rendered.text, &rendered.origin, file, files, problems),
    }
}
