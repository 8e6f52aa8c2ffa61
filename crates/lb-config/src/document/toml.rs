//! TOML as the same tree.

use std::ops::Range;
use std::rc::Rc;

use toml_edit::{Array, Document, InlineTable, Item, Key, Table};

use super::position::{Files, Position};
use super::template::Origin;
use super::{Entry, MAX_DEPTH, Node, Scalar, Value, scalar};
use crate::problem::Problem;

/// Bigger TOML is refused; chosen, since its parser takes some 500 bytes for each byte of a hostile file.
const MAX_BYTES: usize = 1024 * 1024;

pub(super) fn parse(
    text: &str,
    origin: &Origin,
    file: u32,
    files: &Files,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let start = Position { file, line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        let hint = "write it as YAML, or split it and use `providers.file.directory`".to_owned();
        problems.push(files.error(start, "TOML bigger than 1 MiB is not read".to_owned(), Some(hint)));
        return None;
    }
    let reader = Reader { text, origin, file, lines: line_starts(text), marks: marks(text) };
    if let Some(deep) = deep_key(text) {
        let message = format!("a key of more than {MAX_DEPTH} parts");
        problems.push(files.error(reader.position(deep), message, None));
        return None;
    }
    match Document::parse(text) {
        Ok(document) => Some(reader.table(document.as_table(), start)),
        Err(error) => {
            let at = error.span().map_or(start, |span| reader.position(span.start));
            let reason = error.message().lines().next().unwrap_or_default().to_owned();
            problems.push(files.error(at, format!("not valid TOML: {reason}"), None));
            None
        }
    }
}

/// Where a dotted key begins that would nest too deep. Nesting by brackets is limited by the parser,
/// nesting by dots is not. Dots in comments and in quotes nest nothing.
fn deep_key(text: &str) -> Option<usize> {
    let mut dots = 0;
    let (mut at, mut start) = (0, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' | b'\'' => {
                at = after_quotes(text.as_bytes(), at);
                continue;
            }
            b'#' => {
                at += text[at..].find('\n').unwrap_or(text.len() - at);
                continue;
            }
            b'.' => {
                dots += 1;
                if dots >= MAX_DEPTH {
                    return Some(start);
                }
            }
            // Whatever ends a key.
            b'\n' | b'=' | b',' | b'{' | b'[' => {
                dots = 0;
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the text ends that a quote at `start` begins: behind its closing quotes, or with its line or the file.
fn after_quotes(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let is_long = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if is_long { 3 } else { 1 };
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if quote == b'"' && bytes.get(at + 1) != Some(&b'\n') => at += 2,
            b'\n' if !is_long => return at,
            _ if byte == quote && !is_long => return at + 1,
            // Up to two quotes before the closing ones are part of the text.
            _ if bytes[at..].starts_with(&[quote; 3]) => {
                return at + bytes[at..].iter().take(5).take_while(|byte| **byte == quote).count();
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Bytes between two [`marks`]; chosen.
const STEP: usize = 1024;

/// How many characters begin before each [`STEP`] bytes: a file may be one line of a hundred thousand values.
fn marks(text: &str) -> Vec<usize> {
    let mut marks = vec![0];
    for chunk in text.as_bytes().chunks(STEP) {
        marks.push(marks[marks.len() - 1] + characters(chunk));
    }
    marks
}

fn characters(bytes: &[u8]) -> usize {
    // All bytes but those that continue a character (RFC 3629 section 3).
    bytes.iter().filter(|byte| *byte & 0xc0 != 0x80).count()
}

/// Byte index of the start of each line.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

struct Reader<'a> {
    text: &'a str,
    origin: &'a Origin,
    file: u32,
    lines: Vec<usize>,
    marks: Vec<usize>,
}

impl Reader<'_> {
    fn position(&self, byte: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= byte).max(1);
        let (start, index) = (self.index(self.lines[line - 1]), self.index(byte));
        self.origin.locate(self.file, index, line, index - start)
    }

    /// Which character begins at a byte.
    fn index(&self, byte: usize) -> usize {
        let byte = byte.min(self.text.len());
        let mark = byte / STEP;
        self.marks[mark] + characters(&self.text.as_bytes()[mark * STEP..byte])
    }

    fn at(&self, span: Option<Range<usize>>, parent: Position) -> Position {
        span.map_or(parent, |span| self.position(span.start))
    }

    fn table(&self, table: &Table, parent: Position) -> Node {
        let at = self.at(table.span(), parent);
        let entry = |(name, item): (&str, &Item)| {
            let key = table.key(name);
            self.entry(name, key, at, |key_at| self.item(item, key_at))
        };
        Node::new(at, Value::Map(table.iter().map(entry).collect()))
    }

    fn inline_table(&self, table: &InlineTable, parent: Position) -> Node {
        let at = self.at(table.span(), parent);
        let entry = |(name, value): (&str, &toml_edit::Value)| {
            let key = table.key(name);
            self.entry(name, key, at, |key_at| self.value(value, key_at))
        };
        Node::new(at, Value::Map(table.iter().map(entry).collect()))
    }

    fn entry(
        &self,
        name: &str,
        key: Option<&Key>,
        parent: Position,
        value: impl FnOnce(Position) -> Node,
    ) -> Entry {
        let at = self.at(key.and_then(Key::span), parent);
        Entry { key: Rc::from(name), at, value: value(at), merged: false }
    }

    fn item(&self, item: &Item, parent: Position) -> Node {
        match item {
            Item::None => Node::new(parent, Value::Null),
            Item::Value(value) => self.value(value, parent),
            Item::Table(table) => self.table(table, parent),
            Item::ArrayOfTables(tables) => {
                let at = self.at(tables.span(), parent);
                Node::new(at, Value::List(tables.iter().map(|table| self.table(table, at)).collect()))
            }
        }
    }

    fn value(&self, value: &toml_edit::Value, parent: Position) -> Node {
        let at = self.at(value.span(), parent);
        let (text, text_offset) = match value {
            toml_edit::Value::InlineTable(table) => return self.inline_table(table, at),
            toml_edit::Value::Array(array) => return self.array(array, at),
            toml_edit::Value::String(string) => {
                let text = string.value().as_str();
                (text.to_owned(), self.text_offset(text, value.span()))
            }
            toml_edit::Value::Integer(number) => (number.value().to_string(), None),
            toml_edit::Value::Float(number) => (scalar::from_float(*number.value()), None),
            toml_edit::Value::Boolean(flag) => (flag.value().to_string(), None),
            toml_edit::Value::Datetime(time) => (time.value().to_string(), None),
        };
        Node::new(at, Value::Scalar(Scalar { text: text.into(), written: None, text_offset }))
    }

    fn array(&self, array: &Array, at: Position) -> Node {
        Node::new(at, Value::List(array.iter().map(|value| self.value(value, at)).collect()))
    }

    /// 1 when the text stands between two quotes exactly as it is.
    fn text_offset(&self, text: &str, span: Option<Range<usize>>) -> Option<u32> {
        let written = self.text.get(span?)?;
        let inside = written.get(1..written.len().checked_sub(1)?)?;
        (self.origin.is_untouched() && inside == text && !text.contains('\n')).then_some(1)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Context, parse_dynamic, parse_static};

    #[test]
    fn toml_says_the_same_as_yaml() {
        let toml = r#"
            [http.routers.api]
            rule = "Host(`a.test`)"
            service = "api"
            middlewares = ["limit"]
            [http.routers.api.tls]
            [http.middlewares.limit.rateLimit]
            average = 100
            [http.services.api.loadBalancer]
            healthCheck = { path = "/h", interval = "5s", timeout = 2 }
            [[http.services.api.loadBalancer.servers]]
            url = "http://127.0.0.1:1"
            [[http.services.api.loadBalancer.servers]]
            url = "http://127.0.0.1:2"
            weight = 0x10
            [http.middlewares.odd.headers.customRequestHeaders]
            X-A = -inf
        "#;
        let yaml = r"
http:
  routers: {api: {rule: Host(`a.test`), service: api, middlewares: [limit], tls: {}}}
  middlewares: {limit: {rateLimit: {average: 100}}, odd: {headers: {customRequestHeaders: {X-A: -.inf}}}}
  services:
    api:
      loadBalancer:
        healthCheck: {path: /h, interval: 5s, timeout: 2}
        servers: [{url: 'http://127.0.0.1:1'}, {url: 'http://127.0.0.1:2', weight: 16}]
";
        let read = |name, text| parse_dynamic(name, text, "file", &Context::default()).unwrap().config;
        assert_eq!(read("a.toml", toml), read("a.yml", yaml));
    }

    #[test]
    fn places_in_long_lines_are_counted_in_characters() {
        let text = format!("[entryPoints]\na = {{ b = [{}], {} = 1 }}\n", "'é', ".repeat(10_000), "\"ü\"");
        let problems = parse_static("a.toml", &text).unwrap_err().0;
        let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
        assert_eq!(places, [(2, 5), (2, 7), (2, 7 + 5 + 5 * 10_000 + 3)], "{problems:?}");
    }

    #[test]
    fn dots_in_texts_and_comments_nest_nothing() {
        let hosts: Vec<String> = (0..60).map(|n| format!("Host(`h{n}.example.com`)")).collect();
        let rule = hosts.join(" || ");
        let dots = ".".repeat(100);
        for rule in [
            format!("\"{rule}\" # {dots}"),
            format!("'{rule}'"),
            format!("\"\"\"\\\n{rule}\"\"\""),
            format!("'''\n{rule}'''"),
        ] {
            let text = format!("# {dots}\n[http.routers.r]\nrule = {rule}\nservice = \"api@internal\"\n");
            let form = parse_dynamic("a.toml", &text, "file", &Context::default()).unwrap();
            assert!(form.problems.is_empty(), "{:?}", form.problems);
        }
        let deep = format!("{}b = 1\n", "a.".repeat(100));
        for before in [
            "",
            "a = \"\\\"\" # \"\n",
            "a = '''\"'''''\n",
            "a = \"\"\"\\\"\"\"\"\"\n",
            "a = \"\n",
            "a = '\\'\n",
        ] {
            let problem = &parse_static("a.toml", &format!("{before}{deep}")).unwrap_err().0[0];
            assert_eq!(problem.message, "a key of more than 64 parts", "{before}");
        }
    }

    #[test]
    fn problems_have_places() {
        let first = |text| parse_static("a.toml", text).unwrap_err().0[0].to_string();
        assert_eq!(
            first("[entryPoints.web]\n  adress = \":80\"\n  address = \":80\"\n").lines().next().unwrap(),
            "a.toml:2:3: entryPoints.web.adress: there is no key `adress` here"
        );
        assert_eq!(
            first("[entryPoints.web]\naddress = \":8o\"\n").lines().next().unwrap(),
            "a.toml:2:11: entryPoints.web.address: `8o` is not a port"
        );
        assert!(first("a = [\nb").starts_with("a.toml:2:"), "{}", first("a = [\nb"));
        let text = "[http.routers.r]\nrule = \"Path(`/`) && Nope(`x`)\"\nservice = \"api@internal\"\n";
        let problems = parse_dynamic("a.toml", text, "file", &Context::default()).unwrap().problems;
        assert!(problems[0].to_string().starts_with("a.toml:2:22: "), "{}", problems[0]);
    }
}
