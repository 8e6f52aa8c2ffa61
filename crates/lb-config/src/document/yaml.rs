//! YAML events built into a tree, with limits on depth, on size and on what aliases unfold to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::position::{Files, Position};
use super::template::Origin;
use super::{Entry, MAX_DEPTH, MAX_NODES, Node, Scalar, Value, scalar};
use crate::problem::{Problem, Severity, printable, quoted};

pub(super) fn parse(
    text: &str,
    origin: &Origin,
    file: u32,
    files: &Files,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        origin,
        file,
        end: end(text),
        files,
        problems,
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        place: Position { file, line: 1, column: 1 },
    };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = builder.at(error.marker());
                let (message, hint) = match unknown_alias(text, &error) {
                    Some(alias) => (
                        format!("{} refers to an anchor that does not exist", quoted(alias)),
                        Some(format!("write `\"{}\"` if no alias is meant", printable(alias))),
                    ),
                    None if is_toml(text) => {
                        let hint = "give it a name that ends in `.toml`".to_owned();
                        ("not valid YAML: this is TOML".to_owned(), Some(hint))
                    }
                    None => (format!("not valid YAML: {}", error.info()), way_out(error.info())),
                };
                builder.problems.push(files.error(at, message, hint));
                return None;
            }
        };
        builder.place = builder.at(&span.start);
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents == 2 {
                builder.problems.push(files.problem(
                    builder.place,
                    Severity::Warning,
                    "only the first document of a file is read".to_owned(),
                    Some("move what follows `---` to a file of its own".to_owned()),
                ));
                break;
            }
        }
        if let Err(problem) = builder.take(event, span) {
            builder.problems.push(*problem);
            return None;
        }
    }
    let empty = Node::new(Position { file, line: 1, column: 1 }, Value::Null);
    Some(builder.root.take().unwrap_or(empty))
}

/// Whether the text begins as TOML does, `[entryPoints.web]`.
fn is_toml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let section = lines.next().and_then(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    section.is_some_and(|section| section.split('.').all(name))
}

/// What has most likely been written, in the words that YAML has none for.
fn way_out(error: &str) -> Option<String> {
    let hint = if error.starts_with("tabs disallowed") || error.ends_with("found a tab") {
        "indent with blanks"
    } else if error.starts_with("unexpected character: ``") || error.starts_with("while scanning a tag") {
        "put the value in single quotes: rules hold characters that mean something to YAML"
    } else if ["did not find expected key", "invalid indentation", "mapping values are not allowed"]
        .iter()
        .any(|words| error.contains(words))
    {
        "look at the indentation, and for a quote that is not closed, here and in the lines above"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// The alias that an error is about, which the parser does not name.
fn unknown_alias<'t>(text: &'t str, error: &ScanError) -> Option<&'t str> {
    let (start, _) = text.char_indices().nth(error.marker().index())?;
    let alias = text[start..].split(|c: char| c.is_whitespace() || ",[]{}".contains(c)).next()?;
    (error.info().contains("unknown anchor") && alias.starts_with('*')).then_some(alias)
}

/// Line (from 1) and column (from 0) where `text` ends. YAML breaks lines at LF, CRLF and CR.
fn end(text: &str) -> (usize, usize) {
    let last = text.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let returns = text.matches('\r').count() - text.matches("\r\n").count();
    (1 + text.matches('\n').count() + returns, text[last..].chars().count())
}

/// A value that is complete, with what it costs to walk.
#[derive(Clone)]
struct Built {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A list or map whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    nodes: usize,
    depth: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, merges: Vec<Node>, key: Option<Key> },
}

struct Key {
    text: Rc<str>,
    at: Position,
    is_merge: bool,
}

impl Key {
    fn new(text: &str, at: Position, style: ScalarStyle) -> Self {
        Self { text: Rc::from(text), at, is_merge: style == ScalarStyle::Plain && text == "<<" }
    }
}

const NOT_A_KEY: &str = "a key must be a single value";

/// Maps of so many keys are searched faster than they are hashed; chosen.
const FEW: usize = 8;

struct Builder<'a> {
    origin: &'a Origin,
    file: u32,
    /// Line and column of the end of the text.
    end: (usize, usize),
    files: &'a Files,
    problems: &'a mut Vec<Problem>,
    stack: Vec<Open>,
    /// Complete values by anchor; an anchor that is still open is absent, so no cycle can be built.
    anchors: HashMap<usize, Built>,
    nodes: usize,
    root: Option<Node>,
    /// Of the current event.
    place: Position,
}

type Taken = Result<(), Box<Problem>>;

impl Builder<'_> {
    /// What is missing at the end of a text, the parser misses one line further down.
    fn at(&self, mark: &Marker) -> Position {
        let (line, column) = (mark.line(), mark.col()).min(self.end);
        self.origin.locate(self.file, mark.index(), line, column)
    }

    fn refuse(&self, at: Position, message: impl Into<String>) -> Taken {
        Err(Box::new(self.files.error(at, message.into(), None)))
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Taken {
        let at = self.place;
        match event {
            Event::Scalar(text, style, 0, tag) if self.expects_key() => {
                self.key(&text, style, tag.as_deref())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text_offset = self.text_offset(&text, style, span);
                let value = self.scalar(&text, style, tag.as_deref(), text_offset)?;
                self.finish(Built { node: Node::new(at, value), nodes: 1, depth: 1 }, 1, anchor, style)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(built) => {
                    let mut built = built.clone();
                    built.node.at = at;
                    let new = built.nodes;
                    self.finish(built, new, 0, ScalarStyle::Plain)
                }
                None => self.refuse(at, "this alias stands inside the value it refers to"),
            },
            Event::SequenceStart(anchor, _) => self.open(anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.open(anchor, Content::Map { entries: Vec::new(), merges: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, content: Content) -> Taken {
        if self.stack.len() >= MAX_DEPTH {
            return self.refuse(self.place, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.stack.push(Open { at: self.place, anchor, nodes: 1, depth: 0, content });
        Ok(())
    }

    fn close(&mut self) -> Taken {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items.into()),
            Content::Map { entries, merges, .. } => Value::Map(self.merge(entries, &merges)?.into()),
        };
        let built = Built { node: Node::new(open.at, value), nodes: open.nodes, depth: open.depth + 1 };
        // What is inside has been counted.
        self.finish(built, 1, open.anchor, ScalarStyle::Plain)
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    /// As [`finish`](Self::finish) of a scalar that is a key: half of all scalars are, and need no node.
    fn key(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Taken {
        let at = self.place;
        let Some(seen) = self.resolve(text, style, tag)? else {
            return self.refuse(at, NOT_A_KEY);
        };
        self.count(at, 1, 1)?;
        if let Some(open) = self.stack.last_mut() {
            open.nodes += 1;
            open.depth = open.depth.max(1);
            if let Content::Map { key, .. } = &mut open.content {
                *key = Some(Key::new(&seen, at, style));
            }
        }
        Ok(())
    }

    /// Takes in `new` values that reach `depth` levels further down, unless that is too much.
    fn count(&mut self, at: Position, new: usize, depth: usize) -> Taken {
        self.nodes += new;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values once aliases are followed");
            return self.refuse(at, message);
        }
        if self.stack.len() + depth > MAX_DEPTH {
            return self
                .refuse(at, format!("nested deeper than {MAX_DEPTH} levels once aliases are followed"));
        }
        Ok(())
    }

    /// Puts a complete value where it belongs: under its key, into its list, at the root. `new` of its
    /// values have not been counted yet.
    fn finish(&mut self, built: Built, new: usize, anchor: usize, style: ScalarStyle) -> Taken {
        let at = built.node.at;
        self.count(at, new, built.depth)?;
        if anchor > 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        open.nodes += built.nodes;
        open.depth = open.depth.max(built.depth);
        match &mut open.content {
            Content::List(items) => items.push(built.node),
            Content::Map { entries, merges, key } => match key.take() {
                Some(Key { is_merge: true, .. }) => merges.push(built.node),
                Some(Key { text, at, .. }) => {
                    entries.push(Entry { key: text, at, value: built.node, merged: false });
                }
                None => {
                    let Value::Scalar(scalar) = &built.node.value else {
                        return self.refuse(at, NOT_A_KEY);
                    };
                    *key = Some(Key::new(&scalar.text, at, style));
                }
            },
        }
        Ok(())
    }

    /// The map's own keys, checked to be unique, and then what `<<` adds to them.
    fn merge(&mut self, mut entries: Vec<Entry>, merges: &[Node]) -> Result<Vec<Entry>, Box<Problem>> {
        let repeats = |(at, entry): (usize, &Entry)| entries[..at].iter().any(|other| other.key == entry.key);
        if merges.is_empty() && entries.len() <= FEW && !entries.iter().enumerate().any(repeats) {
            return Ok(entries);
        }
        let mut seen: HashMap<Rc<str>, Position> = HashMap::with_capacity(entries.len());
        entries.retain(|entry| match seen.get(&entry.key) {
            Some(first) => {
                if self.problems.len() < crate::decode::KEPT {
                    let message = format!("the key {} is given twice", quoted(&entry.key));
                    let hint = format!("it was first given in line {}; remove one of the two", first.line);
                    self.problems.push(self.files.error(entry.at, message, Some(hint)));
                }
                false
            }
            None => {
                seen.insert(Rc::clone(&entry.key), entry.at);
                true
            }
        });
        for merge in merges {
            let maps = match &merge.value {
                Value::List(maps) => &**maps,
                _ => std::slice::from_ref(merge),
            };
            for map in maps {
                let Value::Map(inherited) = &map.value else {
                    let message = "`<<` takes a map or a list of maps".to_owned();
                    return Err(Box::new(self.files.error(map.at, message, None)));
                };
                for entry in inherited.iter() {
                    if !seen.contains_key(&entry.key) {
                        seen.insert(Rc::clone(&entry.key), entry.at);
                        entries.push(Entry { merged: true, ..entry.clone() });
                    }
                }
            }
        }
        Ok(entries)
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        text_offset: Option<u32>,
    ) -> Result<Value, Box<Problem>> {
        Ok(match self.resolve(text, style, tag)? {
            None => Value::Null,
            Some(seen) if seen == text => {
                Value::Scalar(Scalar { text: text.into(), written: None, text_offset })
            }
            Some(seen) => {
                Value::Scalar(Scalar { text: seen.into(), written: Some(text.into()), text_offset: None })
            }
        })
    }

    /// The text that a scalar is seen as; `None` for null.
    fn resolve<'t>(
        &self,
        text: &'t str,
        style: ScalarStyle,
        tag: Option<&Tag>,
    ) -> Result<Option<Cow<'t, str>>, Box<Problem>> {
        let plain = match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "str" => false,
                "int" | "float" | "bool" | "null" => true,
                other => {
                    let message = format!("the tag {} is not supported", quoted(&format!("!!{other}")));
                    return Err(Box::new(self.files.error(self.place, message, None)));
                }
            },
            // Traefik ignores the tags it does not know.
            Some(_) => style == ScalarStyle::Plain,
        };
        Ok(match plain {
            false => Some(text.into()),
            true if scalar::is_null(text) => None,
            true => Some(scalar::canonical(text)),
        })
    }

    /// Set when the text stands in the file exactly as it is, on one line.
    fn text_offset(&self, text: &str, style: ScalarStyle, span: Span) -> Option<u32> {
        let quotes = match style {
            ScalarStyle::Plain => 0,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
            ScalarStyle::Literal | ScalarStyle::Folded => return None,
        };
        let as_written = self.origin.is_untouched()
            && span.start.line() == span.end.line()
            && span.len() == text.chars().count() + 2 * quotes;
        as_written.then_some(if quotes == 0 { 0 } else { 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in one line, `!` for null, or the first problem.
    fn show(text: &str) -> String {
        fn write(node: &Node, out: &mut String) {
            match &node.value {
                Value::Null => out.push('!'),
                Value::Scalar(scalar) => out.push_str(&scalar.text),
                Value::List(items) => {
                    out.push('[');
                    items.iter().for_each(|item| {
                        write(item, out);
                        out.push(' ');
                    });
                    out.push(']');
                }
                Value::Map(entries) => {
                    out.push('{');
                    for entry in entries.iter() {
                        out.push_str(&entry.key);
                        out.push(':');
                        write(&entry.value, out);
                        out.push(' ');
                    }
                    out.push('}');
                }
            }
        }
        let mut files = Files::default();
        let file = files.add("a.yml");
        let mut problems = Vec::new();
        let node = parse(text, &Origin::untouched(), file, &files, &mut problems);
        let mut out = String::new();
        if let Some(node) = node {
            write(&node, &mut out);
        }
        for problem in problems {
            out = out + "|" + &problem.to_string();
        }
        out
    }

    #[test]
    fn what_is_not_yaml_comes_with_a_way_out() {
        for (text, hint) in [
            ("a:\n\tb: 1\n", "indent with blanks"),
            ("a:\n  b: 1\n\t c: 2\n", "indent with blanks"),
            ("rule: `x`\n", "put the value in single quotes"),
            ("rule: !Host(`x`)\n", "put the value in single quotes"),
            ("a:\n  b: 1\n    c: 2\n   d: 3\n", "look at the indentation"),
            ("a:\n  b: {c: 1}\n   d: {}\n", "look at the indentation"),
            (
                "# static\n[entryPoints]\n  [entryPoints.web]\n    address = ':80'\n",
                "give it a name that ends in `.toml`",
            ),
        ] {
            let told = show(text);
            assert!(told.contains(&format!("hint: {hint}")), "{text}: {told}");
        }
    }

    #[test]
    fn scalars() {
        for (text, tree) in [
            ("", "!"),
            ("# nothing", "!"),
            ("\u{feff}a: b", "{a:b }"),
            ("a: ~", "{a:! }"),
            ("a: '~'", "{a:~ }"),
            ("a:", "{a:! }"),
            ("a: 010", "{a:8 }"),
            ("a: '010'", "{a:010 }"),
            ("a: !!str 010", "{a:010 }"),
            ("a: !!int '010'", "{a:8 }"),
            ("a: !mine 010", "{a:8 }"),
            ("404: x", "{404:x }"),
            ("{\"a\": [1, 2.0]}", "{a:[1 2 ] }"),
            ("a: >-\n  b\n  c\n", "{a:b c }"),
        ] {
            assert_eq!(show(text), tree, "{text}");
        }
        assert!(show("a: !!binary aGk=").contains("the tag `!!binary` is not supported"));
    }

    #[test]
    fn anchors_and_merges() {
        for (text, tree) in [
            ("a: &x [1]\nb: *x", "{a:[1 ] b:[1 ] }"),
            ("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", "{a:{k:1 l:2 } b:{k:3 l:2 } }"),
            ("a: &x {k: 1}\nb: &y {k: 2, l: 2}\nc: {<<: [*x, *y]}", "{a:{k:1 } b:{k:2 l:2 } c:{k:1 l:2 } }"),
            ("a: {'<<': b}", "{a:{<<:b } }"),
        ] {
            assert_eq!(show(text), tree, "{text}");
        }
    }

    #[test]
    fn only_the_first_document_is_read() {
        assert_eq!(show("---\na: b\n...\n"), "{a:b }");
        let two = show("a: b\n---\n[not: valid");
        assert!(two.starts_with("{a:b }|a.yml:2:1: warning: only the first document"), "{two}");
    }

    #[test]
    fn what_is_not_yaml_has_a_place() {
        for (text, place) in [
            ("a: [b", "a.yml:1:6"),
            ("a: [\r\n\r\n b, \u{e9}", "a.yml:3:6"), // the end of the file, not the line after it
            ("a: b\n c: d", "a.yml:2:"),
            ("a: 'b", "a.yml:1:"),
            ("*x", "a.yml:1:1"),
        ] {
            assert!(show(text).contains(place), "{}", show(text));
        }
    }

    #[test]
    fn an_alias_of_nothing_is_named() {
        for text in [
            "\u{feff}# \u{e9}\r\nhost: *.example.com\r\n",
            "#\nhost: *.example.com",
            "#\nhos: [*.example.com, b]",
            "#\nho: {a: &x 1, b: *.example.com}",
        ] {
            let shown = show(text);
            let place = format!("a.yml:2:{}: ", 1 + text.lines().nth(1).unwrap().find('*').unwrap());
            assert!(shown.contains(&place), "{shown}");
            assert!(
                shown.contains(
                    "`*.example.com` refers to an anchor that does not exist\n  \
                     hint: write `\"*.example.com\"` if no alias is meant"
                ),
                "{shown}"
            );
        }
    }
}
