//! Labels as a tree: `traefik.http.routers.api.rule` becomes what YAML nests. Keys of a store become the same.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::document::{Entry, Node, Position, Scalar, Value};

/// More parts of a name are refused; chosen, the deepest option has twelve.
const MAX_PARTS: usize = 32;

/// So many fields are searched as fast as looked up; chosen.
const FEW: usize = 16;

/// One name below another, with what its label says and what lies below it in turn.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(super) at: Position,
    pub(super) value: Option<Rc<str>>,
    /// Fields, in the order of their first labels; [`put`](Self::put) adds one.
    pub(super) children: Vec<(Rc<str>, Branch)>,
    /// Where they are, by their names in lower case; empty while they are few.
    places: BTreeMap<String, usize>,
    /// Elements of a list by their indices.
    items: BTreeMap<u32, Branch>,
}

/// One step into the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Field(&'a str),
    Item(u32),
}

impl Branch {
    pub(crate) fn new(at: Position) -> Self {
        let (children, places, items) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { at, value: None, children, places, items }
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
        let found = self.place(name);
        let index = found.unwrap_or_else(|| self.put(name, Self::new(at)));
        &mut self.children[index].1
    }

    /// Adds a field that is not there, and says where it is.
    pub(super) fn put(&mut self, name: &str, branch: Self) -> usize {
        self.children.push((name.into(), branch));
        if self.children.len() > FEW {
            let known = self.places.len();
            let new = self.children.iter().enumerate().skip(known);
            self.places.extend(new.map(|(place, (name, _))| (name.to_ascii_lowercase(), place)));
        }
        self.children.len() - 1
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str, &mut Self) -> bool) {
        self.places.clear();
        self.children.retain_mut(|(name, branch)| keep(name, branch));
    }

    fn place(&self, name: &str) -> Option<usize> {
        if self.places.is_empty() {
            return self.children.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
        }
        self.places.get(&name.to_ascii_lowercase()).copied()
    }

    fn item(&mut self, index: u32, at: Position) -> &mut Self {
        self.items.entry(index).or_insert_with(|| Self::new(at))
    }

    pub(super) fn find(&self, name: &str) -> Option<&Self> {
        self.place(name).map(|place| &self.children[place].1)
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.place(name).map(|place| &mut self.children[place].1)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Self> {
        let place = self.place(name)?;
        self.places.clear();
        Some(self.children.remove(place).1)
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
        let Self { at, value, children, items, .. } = self;
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
            Value::List(items.into_values().map(Self::into_node).collect())
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
    fn many_names_are_found_in_any_case() {
        let mut root = Branch::new(AT);
        let add = |root: &mut Branch, name: String| root.set(&[Part::Field(&name)], "x", AT);
        (0..40_000).for_each(|n| add(&mut root, format!("r{n}")));
        (0..40_000).rev().for_each(|n| add(&mut root, format!("R{n}")));
        assert_eq!((root.children.len(), root.find("R39999").is_some()), (40_000, true));
        assert!(root.remove("r7").is_some() && root.find("r7").is_none() && root.find("r8").is_some());
        root.retain(|name, _| name != "r9");
        root.put("new", Branch::new(AT));
        assert!(root.find("r9").is_none() && root.find("NEW").is_some() && root.find("r39999").is_some());
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
