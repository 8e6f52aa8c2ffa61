//! Labels as a tree: `traefik.http.routers.api.rule` becomes what YAML nests. Keys of a store become the same.

use std::rc::Rc;

use crate::document::{Entry, Node, Position, Scalar, Value};

/// More parts of a name are refused; chosen, the deepest option has twelve.
const MAX_PARTS: usize = 32;

/// One name below another, with what its label says and what lies below it in turn.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(super) at: Position,
    pub(super) value: Option<Rc<str>>,
    /// Fields, in the order of their first labels.
    pub(super) children: Vec<(Rc<str>, Branch)>,
    /// Elements of a list with their indices.
    items: Vec<(u32, Branch)>,
}

/// One step into the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Field(&'a str),
    Item(u32),
}

impl Branch {
    pub(crate) fn new(at: Position) -> Self {
        Self { at, value: None, children: Vec::new(), items: Vec::new() }
    }

    pub(super) fn scalar(at: Position, value: &str) -> Self {
        Self { value: Some(value.into()), ..Self::new(at) }
    }

    /// The service of a section with one alone: what routers mean that name none.
    pub(super) fn only_service(&self) -> Option<String> {
        match &self.find("services")?.children[..] {
            [(only, _)] => Some(only.to_string()),
            _ => None,
        }
    }

    pub(super) fn list(at: Position, items: Vec<Self>) -> Self {
        Self { items: (0..).zip(items).collect(), ..Self::new(at) }
    }

    /// Adds what a label says; `name` is without the root.
    ///
    /// # Errors
    /// The name is no path of fields.
    pub(crate) fn add(&mut self, name: &str, value: &str, at: Position) -> Result<(), &'static str> {
        if name.split('.').count() > MAX_PARTS {
            return Err("has too many parts");
        }
        let mut branch = self;
        for part in name.split('.') {
            let (field, index) = match part.strip_suffix(']') {
                Some(part) => {
                    let (field, index) = part.split_once('[').ok_or("has a `]` without its `[`")?;
                    (field, Some(index.parse::<u32>().map_err(|_| "has an index that is no number")?))
                }
                None if part.contains('[') => return Err("has a `[` without its `]`"),
                None => (part, None),
            };
            if field.is_empty() {
                return Err("has an empty part");
            }
            branch = branch.child(field, at);
            if let Some(index) = index {
                branch = branch.item(index, at);
            }
        }
        branch.value = Some(value.into());
        Ok(())
    }

    /// Adds what a key of a store says; columns count the parts.
    pub(crate) fn set(&mut self, parts: &[Part<'_>], value: &str, at: Position) {
        let mut branch = self;
        for (column, part) in (1..).zip(parts) {
            let at = Position { column, ..at };
            branch = match part {
                Part::Field(name) => branch.child(name, at),
                Part::Item(index) => branch.item(*index, at),
            };
        }
        branch.value = Some(value.into());
    }

    /// The field of this name, whatever its case, made if it is not there.
    pub(super) fn child(&mut self, name: &str, at: Position) -> &mut Self {
        let found = self.children.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
        let index = found.unwrap_or_else(|| {
            self.children.push((name.into(), Self::new(at)));
            self.children.len() - 1
        });
        &mut self.children[index].1
    }

    fn item(&mut self, index: u32, at: Position) -> &mut Self {
        let place = match self.items.binary_search_by_key(&index, |(known, _)| *known) {
            Ok(place) => place,
            Err(place) => {
                self.items.insert(place, (index, Self::new(at)));
                place
            }
        };
        &mut self.items[place].1
    }

    pub(super) fn find(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, branch)| branch)
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, branch)| branch)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Self> {
        let found = self.children.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(self.children.remove(found).1)
    }

    /// How many names lie right below the field `name`.
    pub(super) fn count(&self, name: &str) -> usize {
        self.find(name).map_or(0, |branch| branch.children.len())
    }

    /// As [`into_node`](Self::into_node) for the root, which is a map even with nothing in it.
    pub(crate) fn into_map(self) -> Node {
        if self.children.is_empty() { Node::new(self.at, Value::Map(Rc::from([]))) } else { self.into_node() }
    }

    /// As the document that YAML would be. Of a block that is also switched on (`tls=true` beside
    /// `tls.certresolver=x`) what is in it counts; switched off it is off.
    pub(crate) fn into_node(self) -> Node {
        let Self { at, value, children, items } = self;
        let switch =
            value.as_deref().is_none_or(|value| value.is_empty() || value.eq_ignore_ascii_case("true"));
        let value = if !children.is_empty() && switch {
            let entry = |(key, branch): (Rc<str>, Self)| Entry {
                key,
                at: branch.at,
                value: branch.into_node(),
                merged: false,
            };
            Value::Map(children.into_iter().map(entry).collect())
        } else if let Some(text) = value {
            Value::Scalar(Scalar { text, written: None, text_offset: None })
        } else {
            Value::List(items.into_iter().map(|(_, branch)| branch.into_node()).collect())
        };
        Node::new(at, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { file: 0, line: 1, column: 0 };

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "!".to_owned(),
            Value::Scalar(scalar) => scalar.text.to_string(),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entry = |entry: &Entry| format!("{}:{}", entry.key, show(&entry.value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn tree(labels: &[(&str, &str)]) -> Result<String, &'static str> {
        let mut root = Branch::new(AT);
        for (name, value) in labels {
            root.add(name, value, AT)?;
        }
        Ok(show(&root.into_node()))
    }

    #[test]
    fn names_nest() {
        for (labels, expected) in [
            (&[("a.b", "1"), ("a.c", "x,y")][..], "{a:{b:1 c:x,y}}"),
            (&[("a.B", "1"), ("A.b.c", "2")], "{a:{B:1}}"),
            (&[("a[1].x", "p"), ("a[0].x", "q"), ("a[10].x", "r")], "{a:[{x:q} {x:p} {x:r}]}"),
            (&[("l[0]", "p"), ("l[1]", "q")], "{l:[p q]}"),
            (&[("tls", "true"), ("tls.x", "y")], "{tls:{x:y}}"),
            (&[("tls", "false"), ("tls.x", "y")], "{tls:false}"),
            (&[("h.X-Foo", "")], "{h:{X-Foo:}}"),
        ] {
            assert_eq!(tree(labels), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_no_name_is_said() {
        for (name, expected) in [
            ("a..b", "has an empty part"),
            ("a.[0]", "has an empty part"),
            ("a[x]", "has an index that is no number"),
            ("a[0", "has a `[` without its `]`"),
            ("a0]", "has a `]` without its `[`"),
            (&"a.".repeat(40), "has too many parts"),
        ] {
            assert_eq!(tree(&[(name, "")]), Err(expected), "{name}");
        }
    }
}
