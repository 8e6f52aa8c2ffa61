//! The head of a message: start line and fields, whatever the protocol it came over.
//!
//! All text lies in one buffer and everything else points into it, so a head that has grown to its usual
//! size is filled, changed and cleared without touching the allocator. Changes append to the buffer and
//! leave what they replace behind as dead bytes until [`Head::clear`].

use std::fmt;
use std::ops::Range;

use crate::chars::{find_control, is_target_byte, is_token_bytes};
use crate::field::{Field, MAX_BUFFER_BYTES, Span, bit, key};
use crate::lines::NameSource;
use crate::reason::standard_reason;
use crate::target;

/// The protocol a message came over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
    Http3,
}

impl Version {
    /// As logs and variables write it: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2.0`, `HTTP/3.0`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
            Self::Http3 => "HTTP/3.0",
        }
    }
}

/// The head of a request or of a response: an ordered list of fields over one buffer, names as received,
/// duplicates kept.
///
/// Look-ups ignore case and expect the name they are given in lower case. Nothing that is stored can break
/// out of its place on the wire: see [`set`](Self::set), [`set_target`](Self::set_target) and
/// [`set_method`](Self::set_method) for what happens to bytes that would.
#[derive(Default)]
pub struct Head {
    pub(crate) buffer: Vec<u8>,
    pub(crate) fields: Vec<Field>,
    /// One bit per [`key`] that some field has, or once had: a clear bit proves absence.
    present: u64,
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) status: u16,
    /// `None` stands for the standard phrase of `status`.
    pub(crate) reason: Option<Span>,
    pub(crate) version: Version,
    pub(crate) progress: Progress,
}

/// How far a parser got; spans refer to the caller's bytes until the head is complete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Empty lines skipped before the start line.
    pub(crate) blank_lines: u8,
    /// Where the first line begins that is not parsed yet.
    pub(crate) line: usize,
    /// No control byte lies between `line` and here.
    pub(crate) searched: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No parse is under way: the next one clears the head first.
    #[default]
    Idle,
    StartLine,
    Fields,
}

impl Head {
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty again, with the memory kept. Also forgets a parse that is under way.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.fields.clear();
        self.present = 0;
        self.method = Span::default();
        self.target = Span::default();
        self.status = 0;
        self.reason = None;
        self.version = Version::default();
        self.progress = Progress::default();
    }

    /// Gives memory back beyond about `max_bytes`, as far as the content allows: call it after [`clear`](Self::clear).
    pub fn shrink_to(&mut self, max_bytes: usize) {
        if self.memory_bytes() > max_bytes {
            self.buffer.shrink_to(max_bytes / 2);
            self.fields.shrink_to(max_bytes / 2 / size_of::<Field>());
        }
    }

    /// What the head holds on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Empty in a response.
    pub fn method(&self) -> &str {
        match self.method.of(&self.buffer) {
            // Asked for many times in a request's life: the usual ones are not validated as text again.
            b"GET" => "GET",
            b"POST" => "POST",
            b"HEAD" => "HEAD",
            b"PUT" => "PUT",
            other => text(other),
        }
    }

    /// A method that is not a token changes nothing.
    pub fn set_method(&mut self, method: &str) {
        if is_token_bytes(method.as_bytes()) {
            self.method = self.store(method.as_bytes());
        }
    }

    /// The request target as received or set; empty in a response.
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    /// The same, not looked at as text: for what is asked of every request.
    pub fn target_bytes(&self) -> &[u8] {
        self.target.of(&self.buffer)
    }

    /// Bytes that may not stand in a target (space, control, `#`, non-ASCII) are percent-encoded.
    pub fn set_target(&mut self, target: &str) {
        let target = target.as_bytes();
        if target.iter().all(|&byte| is_target_byte(byte)) {
            self.target = self.store(target);
            return;
        }
        if self.buffer.len() + 3 * target.len() > MAX_BUFFER_BYTES {
            return;
        }
        let start = self.buffer.len();
        for &byte in target {
            if is_target_byte(byte) {
                self.buffer.push(byte);
            } else {
                let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)];
                self.buffer.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
            }
        }
        self.target = Span::new(start..self.buffer.len());
    }

    /// Takes so many bytes away from the front of the target, without touching the rest.
    pub fn strip_target(&mut self, bytes: usize) {
        let Range { start, end } = self.target.range();
        self.target = Span::new((start + bytes).min(end)..end);
    }

    /// The host and port in an absolute-form or authority-form target; `None` in the other forms, where
    /// only the Host field says it.
    pub fn authority(&self) -> Option<&str> {
        let target = self.target();
        if let Some(authority) = target::authority_in_absolute(target.as_bytes()) {
            return target.get(authority);
        }
        (self.method() == "CONNECT").then_some(target)
    }

    /// The path in the target, still encoded, without the query: `/` if an absolute-form target has none, `*` in
    /// asterisk-form, empty in authority-form.
    pub fn path(&self) -> &str {
        self.path_and_query().0
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query().1
    }

    fn path_and_query(&self) -> (&str, Option<&str>) {
        let target = self.target();
        if target == "*" {
            return (target, None);
        }
        let from_path = if target.starts_with('/') {
            target
        } else if let Some(authority) = target::authority_in_absolute(target.as_bytes()) {
            target.get(authority.end..).unwrap_or_default()
        } else {
            return ("", None);
        };
        match memchr::memchr(b'?', from_path.as_bytes()) {
            Some(0) => ("/", from_path.get(1..)),
            Some(at) => (&from_path[..at], from_path.get(at + 1..)),
            None if from_path.is_empty() => ("/", None),
            None => (from_path, None),
        }
    }

    /// Turns an absolute-form target into the origin-form that servers are sent (RFC 9112 section 3.2.1); the other
    /// forms stay. `OPTIONS` without a path becomes `*` (section 3.2.4). The authority becomes the Host that an HTTP/1.0
    /// client has not sent (section 3.3).
    pub fn make_origin_form(&mut self) {
        let span = self.target;
        let target = span.of(&self.buffer);
        let Some(authority) = target::authority_in_absolute(target) else {
            return;
        };
        let next = target.get(authority.end).copied();
        if !self.contains("host") {
            let host = target[authority.clone()].to_vec();
            self.append("Host", &host);
        }
        let start = span.range().start + authority.end;
        match next {
            Some(b'/') => self.target = Span::new(start..span.range().end),
            Some(_) => {
                // The query follows the authority, whose last byte makes room for the slash.
                self.buffer[start - 1] = b'/';
                self.target = Span::new(start - 1..span.range().end);
            }
            None if self.method() == "OPTIONS" => self.target = self.store(b"*"),
            None => self.target = self.store(b"/"),
        }
    }

    /// Zero in a request.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Also sets the reason phrase to the standard one.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
        self.reason = None;
    }

    /// The reason phrase as received; the standard one after [`set_status`](Self::set_status).
    pub fn reason(&self) -> &[u8] {
        match self.reason {
            Some(span) => span.of(&self.buffer),
            None => standard_reason(self.status).as_bytes(),
        }
    }

    /// The first value under `name`.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let key = key(name.as_bytes());
        if self.present & bit(key) == 0 {
            return None;
        }
        self.find(name.as_bytes(), key).map(|field| field.value_of(&self.buffer))
    }

    /// The first value under `name`, unless it is not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// All values under `name`, in order.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let key = key(name.as_bytes());
        let fields = if self.present & bit(key) == 0 { &[] } else { self.fields.as_slice() };
        fields
            .iter()
            .filter(move |field| field.is(&self.buffer, name.as_bytes(), key))
            .map(|field| field.value_of(&self.buffer))
    }

    /// How many fields are called `name`.
    pub fn count(&self, name: &str) -> usize {
        self.get_all(name).count()
    }

    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Replaces the first field called `name` where it stands and removes the others, or else appends one.
    ///
    /// Control bytes in `value` become spaces; a `name` that is not a token changes nothing.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let name = name.as_bytes();
        let key = key(name);
        let Some(first) = self.position(name, key) else {
            self.append_bytes(name, value);
            return;
        };
        let old = self.fields[first];
        if old.value.len as usize == value.len() && find_control(value).is_none() {
            if let Some(place) = self.buffer.get_mut(old.value.range()) {
                place.copy_from_slice(value);
            }
        } else if let Some(new) = self.store_line(NameSource::Buffer(old.name()), value) {
            self.fields[first] = new;
        }
        if self.fields[first + 1..].iter().any(|field| field.is(&self.buffer, name, key)) {
            let mut index = 0;
            self.fields.retain(|field| {
                index += 1;
                index <= first + 1 || !field.is(&self.buffer, name, key)
            });
        }
    }

    /// Adds a field at the end. Control bytes in `value` become spaces; a `name` that is not a token adds nothing.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        self.append_bytes(name.as_bytes(), value);
    }

    fn append_bytes(&mut self, name: &[u8], value: &[u8]) {
        if is_token_bytes(name)
            && let Some(field) = self.store_line(NameSource::Caller(name), value)
        {
            self.push(field);
        }
    }

    /// Appends all fields of `other`: in one copy where that holds nothing but fields, so that lines which many
    /// heads share are made once.
    pub fn copy_fields_from(&mut self, other: &Head) {
        let start = self.buffer.len();
        if other.holds_only_lines() && start + other.buffer.len() <= MAX_BUFFER_BYTES {
            self.buffer.extend_from_slice(&other.buffer);
            self.fields.extend(other.fields.iter().map(|field| field.moved(start as u32)));
            self.present |= other.present;
            return;
        }
        self.fields.reserve(other.fields.len());
        for field in &other.fields {
            let (name, value) = (field.name_of(&other.buffer), field.value_of(&other.buffer));
            if let Some(field) = self.store_line(NameSource::Caller(name), value) {
                self.push(field);
            }
        }
    }

    /// Removes all fields called `name`; returns whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.remove_bytes(name.as_bytes())
    }

    pub(crate) fn remove_bytes(&mut self, name: &[u8]) -> bool {
        let key = key(name);
        if self.present & bit(key) == 0 {
            return false;
        }
        let before = self.fields.len();
        self.fields.retain(|field| !field.is(&self.buffer, name, key));
        self.fields.len() < before
    }

    /// Keeps the fields for which `keep` says so. Names come in the case they were received in.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        self.fields.retain(|field| keep(text(field.name_of(&self.buffer)), field.value_of(&self.buffer)));
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (text(field.name_of(&self.buffer)), field.value_of(&self.buffer)))
    }

    /// As [`iter`](Self::iter), without looking at the names as text.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name_of(&self.buffer), field.value_of(&self.buffer)))
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether every field stands in the buffer as on the wire, and nothing else was ever put there.
    fn holds_only_lines(&self) -> bool {
        let lines = self.fields.iter().map(|field| field.line().map_or(0, |line| line.len()));
        lines.sum::<usize>() == self.buffer.len()
    }

    pub(crate) fn push(&mut self, field: Field) {
        self.present |= bit(field.key());
        self.fields.push(field);
    }

    /// Whether a field may exist whose key has one of these bits.
    pub(crate) fn may_contain(&self, bits: u64) -> bool {
        self.present & bits != 0
    }

    pub(crate) fn find(&self, name: &[u8], key: u8) -> Option<&Field> {
        self.fields.iter().find(|field| field.is(&self.buffer, name, key))
    }

    fn position(&self, name: &[u8], key: u8) -> Option<usize> {
        if self.present & bit(key) == 0 {
            return None;
        }
        self.fields.iter().position(|field| field.is(&self.buffer, name, key))
    }

    fn text(&self, span: Span) -> &str {
        text(span.of(&self.buffer))
    }

    /// An empty span if the buffer is full.
    fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.buffer.len();
        if start + bytes.len() > MAX_BUFFER_BYTES {
            return Span::default();
        }
        self.buffer.extend_from_slice(bytes);
        Span::new(start..self.buffer.len())
    }
}

/// Parsers and setters let nothing but ASCII into names, methods and targets; empty instead of a panic all the same.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

impl Clone for Head {
    fn clone(&self) -> Self {
        let mut clone = Self::new();
        clone.clone_from(self);
        clone
    }

    /// Reuses the memory of `self`.
    fn clone_from(&mut self, source: &Self) {
        self.buffer.clone_from(&source.buffer);
        self.fields.clone_from(&source.fields);
        self.present = source.present;
        self.method = source.method;
        self.target = source.target;
        self.status = source.status;
        self.reason = source.reason;
        self.version = source.version;
        self.progress = source.progress;
    }
}

/// Values of fields that carry secrets are not shown.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status == 0 {
            write!(f, "{} {} {}", self.method(), self.target(), self.version.as_str())?;
        } else {
            write!(f, "{} {} {}", self.version.as_str(), self.status, self.reason().escape_ascii())?;
        }
        const SECRET: [&str; 5] =
            ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
        for (name, value) in self.iter() {
            if SECRET.iter().any(|secret| name.eq_ignore_ascii_case(secret)) {
                write!(f, " | {name}: [redacted]")?;
            } else {
                write!(f, " | {name}: {}", value.escape_ascii())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, parse_request, write_response};

    /// The head with these fields, written `name: value` and joined with ` | `.
    fn head(fields: &str) -> Head {
        let mut head = Head::new();
        for field in fields.split(" | ").filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(": ").unwrap();
            head.append(name, value.as_bytes());
        }
        head
    }

    fn fields(head: &Head) -> String {
        let fields = head.iter().map(|(name, value)| format!("{name}: {}", str::from_utf8(value).unwrap()));
        fields.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn look_ups_ignore_case_and_keep_order() {
        let head = head("Host: a | X-Forwarded-For: 1 | x-forwarded-for: 2 | Accept: */*");
        assert_eq!(head.get("host"), Some(&b"a"[..]));
        assert_eq!(head.get_str("x-forwarded-for"), Some("1"));
        assert_eq!(head.get_all("x-forwarded-for").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.count("x-forwarded-for"), 2);
        assert_eq!(head.get("x-forwarded-fox"), None);
        assert_eq!(head.get(""), None);
        assert!(head.contains("accept") && !head.contains("accepu"));
    }

    #[test]
    fn set_replaces_the_first_and_removes_the_others() {
        let set = |before: &str, name: &str, value: &str| {
            let mut head = head(before);
            head.set(name, value.as_bytes());
            fields(&head)
        };
        assert_eq!(set("A: 1 | B: 2", "c", "3"), "A: 1 | B: 2 | c: 3");
        assert_eq!(set("A: 1 | B: 2", "a", "9"), "A: 9 | B: 2"); // as long as before: in place
        assert_eq!(set("A: 1 | B: 2", "a", "longer"), "A: longer | B: 2");
        assert_eq!(set("X: 0 | A: 1 | B: 2 | a: 3 | A: 4", "a", ""), "X: 0 | A:  | B: 2");
    }

    #[test]
    fn remove_and_retain_take_all_that_match() {
        let mut head = head("A: 1 | B: 2 | a: 3 | C: 4");
        assert!(head.remove("a") && !head.remove("a") && !head.remove("zz"));
        assert_eq!(fields(&head), "B: 2 | C: 4");
        head.retain(|name, value| name == "C" && value == b"4");
        assert_eq!(fields(&head), "C: 4");
        assert_eq!((head.len(), head.is_empty()), (1, false));
    }

    #[test]
    fn nothing_stored_breaks_out_of_its_place() {
        let mut head = Head::new();
        head.append("a", b"1\r\nEvil: 2\0\x7f");
        head.append("b", b"12345");
        head.set("b", b"x\r\ny\n");
        head.append("bad name", b"1");
        head.append("", b"1");
        head.set("bad:", b"1");
        assert_eq!(fields(&head), "a: 1  Evil: 2   | b: x  y ");

        head.set_method("GET");
        head.set_method("GET /x HTTP/1.1\r\n");
        head.set_method("");
        assert_eq!(head.method(), "GET");
        head.set_target("/a b\r\n#\u{e9}?\u{7f}");
        assert_eq!(head.target(), "/a%20b%0D%0A%23%C3%A9?%7F");
    }

    #[test]
    fn the_reason_follows_the_status() {
        let mut head = Head::new();
        let line = |head: &Head| {
            let mut out = Vec::new();
            write_response(head, &mut out);
            String::from_utf8(out).unwrap()
        };
        for (status, expected) in [(200, "200 OK"), (599, "599 "), (0, "000 "), (60_000, "999 ")] {
            head.set_status(status);
            assert_eq!(line(&head), format!("HTTP/1.1 {expected}\r\n\r\n"));
        }
    }

    #[test]
    fn targets_come_apart() {
        let parts = |method: &str, target: &str| {
            let mut head = Head::new();
            head.set_method(method);
            head.set_target(target);
            let before = format!("{:?} {} {:?}", head.authority(), head.path(), head.query());
            head.make_origin_form();
            (before, head.target().to_owned())
        };
        for (method, target, expected, origin_form) in [
            ("GET", "/", r#"None / None"#, "/"),
            ("GET", "/a?b?c", r#"None /a Some("b?c")"#, "/a?b?c"),
            ("GET", "/a?", r#"None /a Some("")"#, "/a?"),
            ("GET", "/http://h/?b", r#"None /http://h/ Some("b")"#, "/http://h/?b"),
            ("GET", "HTTP://h:1/a?b", r#"Some("h:1") /a Some("b")"#, "/a?b"),
            ("GET", "https://h", r#"Some("h") / None"#, "/"),
            ("GET", "http://h?b/c", r#"Some("h") / Some("b/c")"#, "/?b/c"),
            ("OPTIONS", "http://h", r#"Some("h") / None"#, "*"),
            ("OPTIONS", "*", r#"None * None"#, "*"),
            ("CONNECT", "h:1", r#"Some("h:1")  None"#, "h:1"),
        ] {
            assert_eq!(
                parts(method, target),
                (expected.to_owned(), origin_form.to_owned()),
                "{method} {target}"
            );
        }
    }

    #[test]
    fn a_warm_head_allocates_no_more_and_gives_back_when_told() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        let mut head = Head::new();
        let mut memory = 0;
        for round in 0..3 {
            parse_request(bytes, &mut head, &Limits::default()).unwrap();
            head.set("x-forwarded-for", b"127.0.0.1");
            assert!(round == 0 || head.memory_bytes() == memory);
            memory = head.memory_bytes();
        }
        let other = head.clone();
        assert_eq!(fields(&other), fields(&head));
        head.append("big", &[b'x'; 100_000]);
        head.clear();
        head.shrink_to(1000);
        assert!(head.memory_bytes() <= 1000 && head.is_empty() && head.target().is_empty());
        head.copy_fields_from(&other);
        assert_eq!(fields(&head), "Host: a | Accept: */* | x-forwarded-for: 127.0.0.1");
    }

    #[test]
    fn a_target_loses_its_front_and_no_more_than_it_has() {
        let mut head = Head::new();
        head.set_target("/api/v1?a=b");
        head.strip_target(4);
        assert_eq!((head.target(), head.path(), head.query()), ("/v1?a=b", "/v1", Some("a=b")));
        head.strip_target(100);
        assert_eq!(head.target(), "");
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut head = head("Authorization: Basic eDp5 | cookie: id=1 | A: 1");
        head.set_method("GET");
        head.set_target("/");
        assert_eq!(
            format!("{head:?}"),
            "GET / HTTP/1.1 | Authorization: [redacted] | cookie: [redacted] | A: 1"
        );
    }
}
