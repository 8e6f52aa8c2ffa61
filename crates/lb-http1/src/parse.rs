//! The strict parser of heads.
//!
//! Line by line, each byte looked at once: what was parsed is kept in the [`Head`], so a sender that trickles
//! bytes costs no more than one that sends them at once, and a bad line is refused when it arrives.

use crate::chars::{find_control, is_ows, is_target_byte, is_token_byte, is_token_bytes};
use crate::field::{Field, MAX_BUFFER_BYTES, Span};
use crate::head::{Head, Progress, Stage, Version};
use crate::target::{self, Form};

/// How much a sender may put into one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte to the empty line, both included.
    pub max_head_bytes: usize,
    pub max_fields: usize,
}

impl Default for Limits {
    /// Bytes as in Go's net/http, hence Traefik: 1 MiB and 4 KiB of slack. The number of fields is chosen.
    fn default() -> Self {
        Self { max_head_bytes: (1 << 20) + 4096, max_fields: 256 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Call again with the same bytes and more.
    Partial,
    /// The head is complete and took this many bytes.
    Complete(usize),
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("malformed request line")]
    RequestLine,
    #[error("malformed status line")]
    StatusLine,
    #[error("invalid method")]
    Method,
    #[error("invalid request target")]
    Target,
    #[error("unsupported protocol version")]
    Version,
    #[error("invalid field name")]
    FieldName,
    #[error("white space before the colon of a field")]
    SpaceBeforeColon,
    #[error("field continued on a second line")]
    FoldedField,
    #[error("control byte in the head")]
    ControlByte,
    #[error("line feed without carriage return")]
    BareLf,
    #[error("carriage return without line feed")]
    BareCr,
    #[error("missing required Host header")]
    MissingHost,
    #[error("more than one Host header")]
    RepeatedHost,
    #[error("malformed Host header")]
    InvalidHost,
    #[error("Host header differs from the request target")]
    HostMismatch,
    #[error("head too large")]
    TooLarge,
    #[error("too many fields")]
    TooManyFields,
}

impl HeadError {
    /// What a client is answered: 400, 431 or 505.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields => 431,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// For metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::StatusLine => "status_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::Version => "version",
            Self::FieldName => "field_name",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::FoldedField => "folded_field",
            Self::ControlByte => "control_byte",
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::InvalidHost => "invalid_host",
            Self::HostMismatch => "host_mismatch",
            Self::TooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
        }
    }
}

/// Parses the head of a request from the start of `bytes`, which may go on behind it.
///
/// After [`Parsed::Partial`] call again with the same bytes and more; until then `head` shows nothing of use. Whatever
/// `head` held before is cleared.
///
/// # Errors
/// The request is to be refused and the connection closed. `head` is empty.
pub fn parse_request(bytes: &[u8], head: &mut Head, limits: &Limits) -> Result<Parsed, HeadError> {
    parse(bytes, head, limits, Start::Request)
}

/// Parses the head of a response, as strictly as [`parse_request`] does.
///
/// # Errors
/// The connection to the server is to be closed. `head` is empty.
pub fn parse_response(bytes: &[u8], head: &mut Head, limits: &Limits) -> Result<Parsed, HeadError> {
    parse(bytes, head, limits, Start::Response)
}

/// The field lines behind the last chunk, with the empty line.
pub(crate) fn parse_trailers(bytes: &[u8], head: &mut Head, limits: &Limits) -> Result<Parsed, HeadError> {
    parse(bytes, head, limits, Start::Nothing)
}

/// Checks method, target and Host of a head that no parser of this crate made, such as one from HTTP/2.
///
/// # Errors
/// The request is to be refused.
pub fn validate_request(head: &Head) -> Result<(), HeadError> {
    if !is_token_bytes(head.method().as_bytes()) {
        return Err(HeadError::Method);
    }
    if !head.target_bytes().iter().all(|&byte| is_target_byte(byte)) {
        return Err(HeadError::Target);
    }
    validate_meaning(head)
}

/// The same where method and target are known to have only bytes that may stand there.
fn validate_meaning(head: &Head) -> Result<(), HeadError> {
    let (method, target) = (head.method().as_bytes(), head.target_bytes());
    let form = target::form(method, target).ok_or(HeadError::Target)?;

    let mut hosts = head.get_all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::RepeatedHost);
    }
    let host = match host {
        Some(host) => host,
        // RFC 9112 section 3.2: required from HTTP/1.1 on.
        None if head.version() == Version::Http10 => return Ok(()),
        None => return Err(HeadError::MissingHost),
    };
    if !host.is_empty() && !target::is_authority_bytes(host) {
        return Err(HeadError::InvalidHost);
    }
    let authority = match form {
        // An empty Host says that the target has no authority; the server may then choose one (RFC 9112 section 3.3).
        Form::Origin | Form::Asterisk => return Ok(()),
        Form::Absolute(range) => &target[range],
        Form::Authority => target,
    };
    // RFC 9112 section 3.2.2 lets the target win. Two parsers could disagree, so here nobody does.
    if host.eq_ignore_ascii_case(authority) { Ok(()) } else { Err(HeadError::HostMismatch) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Request,
    Response,
    Nothing,
}

fn parse(bytes: &[u8], head: &mut Head, limits: &Limits, start: Start) -> Result<Parsed, HeadError> {
    let max = limits.max_head_bytes.min(MAX_BUFFER_BYTES);
    let window = &bytes[..bytes.len().min(max)];
    let result = match advance(window, head, limits, start) {
        Ok(Some(end)) => complete(&window[..end], head, start).map(|()| Parsed::Complete(end)),
        Ok(None) if bytes.len() >= max => Err(HeadError::TooLarge),
        Ok(None) => Ok(Parsed::Partial),
        Err(error) => Err(error),
    };
    if result.is_err() {
        head.clear();
    }
    result
}

fn complete(bytes: &[u8], head: &mut Head, start: Start) -> Result<(), HeadError> {
    head.buffer.extend_from_slice(bytes);
    head.progress = Progress::default();
    if start == Start::Request { validate_meaning(head) } else { Ok(()) }
}

/// Parses the complete lines; the end of the head once the empty line is among them.
fn advance(bytes: &[u8], head: &mut Head, limits: &Limits, start: Start) -> Result<Option<usize>, HeadError> {
    if head.progress.stage == Stage::Idle {
        head.clear();
        head.progress.stage = if start == Start::Nothing { Stage::Fields } else { Stage::StartLine };
    }
    // A line that keeps growing is not parsed again before its end, or what spoils it, is there.
    let Progress { line, searched, .. } = head.progress;
    if searched > line {
        let fresh = bytes.get(searched..).unwrap_or_default();
        if find_control(fresh).is_none() {
            head.progress.searched += fresh.len();
            return Ok(None);
        }
    }
    if head.progress.stage == Stage::StartLine {
        // RFC 9112 section 2.2: an empty line before a request is ignored; old clients send one after a body.
        while start == Start::Request && head.progress.blank_lines < MAX_BLANK_LINES {
            match bytes.get(head.progress.line..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    head.progress.blank_lines += 1;
                    head.progress.line += 2;
                }
                [b'\r'] => return Ok(None),
                _ => break,
            }
        }
        let at = head.progress.line;
        let next = match start {
            Start::Request => request_line(bytes, at, head)?,
            _ => status_line(bytes, at, head)?,
        };
        let Some(next) = next else {
            head.progress.searched = searched_to(bytes);
            return Ok(None);
        };
        head.progress.stage = Stage::Fields;
        head.progress.line = next;
    }
    let mut at = head.progress.line;
    loop {
        match field_line(bytes, at)? {
            Line::Field { field, next } => {
                if head.fields.len() >= limits.max_fields {
                    return Err(HeadError::TooManyFields);
                }
                head.push(field);
                at = next;
            }
            Line::Empty { next } => return Ok(Some(next)),
            Line::Partial => {
                head.progress.line = at;
                head.progress.searched = searched_to(bytes);
                return Ok(None);
            }
        }
    }
}

/// Chosen: one is what RFC 9112 asks for, a second does no harm.
const MAX_BLANK_LINES: u8 = 2;

/// How far an incomplete line needs no second look: all of it, but a carriage return waits for its line feed.
fn searched_to(bytes: &[u8]) -> usize {
    bytes.len() - usize::from(bytes.last() == Some(&b'\r'))
}

fn unexpected_control(byte: u8) -> HeadError {
    match byte {
        b'\r' => HeadError::BareCr,
        b'\n' => HeadError::BareLf,
        _ => HeadError::ControlByte,
    }
}

/// Where the next line begins; `None` if the line is not complete.
fn request_line(bytes: &[u8], at: usize, head: &mut Head) -> Result<Option<usize>, HeadError> {
    let Some(method_len) = span_of(bytes, at, is_token_byte) else {
        return Ok(None);
    };
    let method = at..at + method_len;
    match bytes[method.end] {
        b' ' if method_len > 0 => {}
        b'\r' | b'\n' => return Err(HeadError::RequestLine),
        _ => return Err(HeadError::Method),
    }
    let target = method.end + 1;
    let Some(target_len) = span_of(bytes, target, is_target_byte) else {
        return Ok(None);
    };
    let target = target..target + target_len;
    match bytes[target.end] {
        b' ' if target_len > 0 => {}
        b'\r' | b'\n' => return Err(HeadError::RequestLine),
        _ => return Err(HeadError::Target),
    }
    let rest = &bytes[target.end + 1..];
    let Some((version_text, line_end)) = rest.split_at_checked(8) else {
        return if find_control(rest).is_none() { Ok(None) } else { Err(HeadError::RequestLine) };
    };
    head.version = version(version_text).ok_or(HeadError::RequestLine)??;
    match line_end {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Ok(None),
        [b'\r', ..] => return Err(HeadError::BareCr),
        [b'\n', ..] => return Err(HeadError::BareLf),
        _ => return Err(HeadError::RequestLine),
    }
    head.method = Span::new(method);
    head.target = Span::new(target.clone());
    Ok(Some(target.end + 11))
}

/// As [`request_line`]. A missing space behind the status is let pass: many servers leave it out with the phrase.
fn status_line(bytes: &[u8], at: usize, head: &mut Head) -> Result<Option<usize>, HeadError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let cut_short = |rest| if find_control(rest).is_none() { Ok(None) } else { Err(HeadError::StatusLine) };
    let Some((version_text, rest)) = rest.split_at_checked(8) else {
        return cut_short(rest);
    };
    let version = version(version_text).ok_or(HeadError::StatusLine)??;
    let Some((status, rest)) = rest.split_at_checked(4) else {
        return cut_short(rest);
    };
    let [b' ', digits @ ..] = status else {
        return Err(HeadError::StatusLine);
    };
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(HeadError::StatusLine);
    }
    let reason = match rest {
        [] => return Ok(None),
        [b' ', ..] => at + 13,
        [b'\r' | b'\n', ..] => at + 12,
        _ => return Err(HeadError::StatusLine),
    };
    let Some(reason_len) = find_control(&bytes[reason..]) else {
        return Ok(None);
    };
    let Some(next) = line_end(bytes, reason + reason_len)? else {
        return Ok(None);
    };
    head.version = version;
    head.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    head.reason = Some(Span::new(reason..reason + reason_len));
    Ok(Some(next))
}

/// `None` if it is no protocol version at all, an error if it is one that nobody speaks here.
fn version(text: &[u8]) -> Option<Result<Version, HeadError>> {
    match text {
        b"HTTP/1.1" => Some(Ok(Version::Http11)),
        b"HTTP/1.0" => Some(Ok(Version::Http10)),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(Err(HeadError::Version)),
        _ => None,
    }
}

enum Line {
    Field { field: Field, next: usize },
    Empty { next: usize },
    Partial,
}

fn field_line(bytes: &[u8], at: usize) -> Result<Line, HeadError> {
    let Some(name_len) = span_of(bytes, at, is_token_byte) else {
        return Ok(Line::Partial);
    };
    let name = at..at + name_len;
    if bytes[name.end] != b':' || name_len == 0 {
        return no_field(bytes, at, name_len);
    }
    // Nearly all senders put one space here.
    let mut start = name.end + 1;
    while bytes.get(start).is_some_and(|&byte| is_ows(byte)) {
        start += 1;
    }
    let Some(len) = bytes.get(start..).and_then(find_control) else {
        return Ok(Line::Partial);
    };
    let line_end_at = start + len;
    let Some(next) = line_end(bytes, line_end_at)? else {
        return Ok(Line::Partial);
    };
    let mut end = line_end_at;
    while end > start && is_ows(bytes[end - 1]) {
        end -= 1;
    }
    let verbatim = end == line_end_at && start == name.end + 2 && bytes[start - 1] == b' ';
    let field = Field::new(bytes, name, start..end, verbatim).ok_or(HeadError::TooLarge)?;
    Ok(Line::Field { field, next })
}

/// The empty line, or what is wrong with this one.
fn no_field(bytes: &[u8], at: usize, name_len: usize) -> Result<Line, HeadError> {
    match (name_len, bytes[at + name_len]) {
        (0, b'\r') => Ok(line_end(bytes, at)?.map_or(Line::Partial, |next| Line::Empty { next })),
        (0, b' ' | b'\t') => Err(HeadError::FoldedField),
        (_, b' ' | b'\t') => Err(HeadError::SpaceBeforeColon),
        (_, b'\n') => Err(HeadError::BareLf),
        _ => Err(HeadError::FieldName),
    }
}

/// What follows the CRLF that must stand at `at`, where some control byte does.
fn line_end(bytes: &[u8], at: usize) -> Result<Option<usize>, HeadError> {
    match &bytes[at..] {
        [b'\r', b'\n', ..] => Ok(Some(at + 2)),
        [b'\r'] => Ok(None),
        [byte, ..] => Err(unexpected_control(*byte)),
        [] => Ok(None),
    }
}

/// How many bytes from `at` on belong to a class; `None` if all do, so that the end is not in sight.
fn span_of(bytes: &[u8], at: usize, class: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.get(at..)?.iter().position(|&byte| !class(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parser = fn(&[u8], &mut Head, &Limits) -> Result<Parsed, HeadError>;

    const SMALL: Limits = Limits { max_head_bytes: 120, max_fields: 4 };

    /// What became of the bytes: the head and what follows it, `...` or the label of the error. The answer must not
    /// depend on how the bytes arrive.
    fn outcome(parser: Parser, bytes: &[u8]) -> String {
        let mut head = Head::new();
        let whole = describe(parser(bytes, &mut head, &SMALL), &head, bytes);

        let mut head = Head::new();
        let mut trickled = "...".to_owned();
        for end in 1..=bytes.len() {
            trickled = describe(parser(&bytes[..end], &mut head, &SMALL), &head, bytes);
            if trickled != "..." {
                break;
            }
        }
        assert_eq!(trickled, whole, "{}", bytes.escape_ascii());
        whole
    }

    fn describe(result: Result<Parsed, HeadError>, head: &Head, bytes: &[u8]) -> String {
        match result {
            Ok(Parsed::Partial) => "...".to_owned(),
            Ok(Parsed::Complete(end)) => format!("{head:?} + {}", bytes[end..].escape_ascii()),
            Err(error) => {
                assert!(head.is_empty() && head.target().is_empty());
                error.label().to_owned()
            }
        }
    }

    fn request(bytes: &[u8]) -> String {
        outcome(parse_request, bytes)
    }

    fn response(bytes: &[u8]) -> String {
        outcome(parse_response, bytes)
    }

    #[test]
    fn good_requests_are_read_as_they_are() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], "GET / HTTP/1.1 | Host: a + "),
            (b"GET / HTTP/1.0\r\n\r\nbody", "GET / HTTP/1.0 + body"),
            (b"\r\n\r\nGET /?a|b HTTP/1.1\r\nhost:a\r\n\r\n\r\n", "GET /?a|b HTTP/1.1 | host: a + \\r\\n"),
            (b"M-_~9 / HTTP/1.1\r\nHOST: \t a:1 \t\r\n\r\n", "M-_~9 / HTTP/1.1 | HOST: a:1 + "),
            (b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", "OPTIONS * HTTP/1.1 | Host:  + "),
            (b"GET / HTTP/1.1\r\nHost: \r\nA: \t\r\n\r\n", "GET / HTTP/1.1 | Host:  | A:  + "),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nB: x\t y:\xff\r\n\r\n",
                "GET / HTTP/1.1 | Host: a | B: x\\t y:\\xff + ",
            ),
            (b"GET HTTP://A:1/ HTTP/1.1\r\nHost: a:1\r\n\r\n", "GET HTTP://A:1/ HTTP/1.1 | Host: a:1 + "),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "CONNECT a:1 HTTP/1.1 | Host: a:1 + "),
        ] {
            assert_eq!(request(bytes), expected);
        }
    }

    #[test]
    fn bad_request_lines_are_refused() {
        for (line, expected) in [
            (&b"GET  / HTTP/1.1\r\n"[..], "target"),
            (b" GET / HTTP/1.1\r\n", "method"),
            (b"GET /\r\n", "request_line"),
            (b"GET\r\n", "request_line"),
            (b"GET / \r\n", "request_line"),
            (b"GET / HTTP/1.1 \r\n", "request_line"),
            (b"GET / HTTP/1.1\n", "bare_lf"),
            (b"GET / HTTP/1.1\rA", "bare_cr"),
            (b"GET / HTTP/1.1\r\r\n", "bare_cr"),
            (b"GET\t/ HTTP/1.1\r\n", "method"),
            (b"G\x00T / HTTP/1.1\r\n", "method"),
            (b"G(T / HTTP/1.1\r\n", "method"),
            (b"\x16\x03\x01\x02", "method"), // TLS on a plain port
            (b"\nGET / HTTP/1.1\r\n", "request_line"),
            (b"\rGET / HTTP/1.1\r\n", "request_line"),
            (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n", "request_line"),
            (b"GET /#a HTTP/1.1\r\n", "target"),
            (b"GET /\xc3\xa9 HTTP/1.1\r\n", "target"),
            (b"GET /a\tb HTTP/1.1\r\n", "target"),
            (b"GET /a b HTTP/1.1\r\n", "request_line"),
            (b"GET / HT\rP/1.1\r\n", "request_line"),
            (b"GET / HTTP/1.2\r\n", "version"),
            (b"GET / HTTP/9.1\r\n", "version"),
            (b"PRI * HTTP/2.0\r\n", "version"),
            (b"GET / HTTP/1.10\r\n", "request_line"),
            (b"GET / HTTP/11.\r\n", "request_line"),
            (b"GET / http/1.1\r\n", "request_line"),
            (b"GET / HTTP/2\r\nHos", "request_line"),
        ] {
            assert_eq!(request(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn bad_fields_are_refused_when_their_line_arrives() {
        for (line, expected) in [
            (&b" A: 1\r\n"[..], "folded_field"),
            (b"\tA: 1\r\n", "folded_field"),
            (b"A : 1\r\n", "space_before_colon"),
            (b"A\t: 1\r\n", "space_before_colon"),
            (b"A B: 1\r\n", "space_before_colon"),
            (b": 1\r\n", "field_name"),
            (b"A\r\n", "field_name"),
            (b"A(: 1\r\n", "field_name"),
            (b"A\x00: 1\r\n", "field_name"),
            (b"\xc3\xa9: 1\r\n", "field_name"),
            (b"A: 1\n", "bare_lf"),
            (b"A: 1\r ", "bare_cr"),
            (b"A: 1\r\r\n", "bare_cr"),
            (b"A: \r1\r\n", "bare_cr"),
            (b"A\n", "bare_lf"),
            (b"\n", "bare_lf"),
            (b"\r\r\n", "bare_cr"),
            (b"A: a\x00\r\n", "control_byte"),
            (b"A: 12345678\x0b\r\n", "control_byte"),
            (b"A: \x7f\r\n", "control_byte"),
            (b"B: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n", "too_many_fields"),
        ] {
            let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\n", line].concat();
            assert_eq!(request(&bytes), expected, "{}", line.escape_ascii());
            let bytes = [b"HTTP/1.1 200 OK\r\nHost: a\r\n", line].concat();
            assert_eq!(response(&bytes), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn host_must_be_there_once_and_agree_with_the_target() {
        for (text, expected) in [
            ("GET / HTTP/1.1", "missing_host"),
            ("GET http://a/ HTTP/1.1", "missing_host"),
            ("GET / HTTP/1.1|Hosts: a", "missing_host"),
            ("GET / HTTP/1.1|Host: a|host: a", "repeated_host"),
            ("GET / HTTP/1.0|Host: a|Host: a", "repeated_host"),
            ("GET / HTTP/1.1|Host: a b", "invalid_host"),
            ("GET / HTTP/1.1|Host: a,b/", "invalid_host"),
            ("GET / HTTP/1.1|Host: u@a", "invalid_host"),
            ("GET / HTTP/1.1|Host: :80", "invalid_host"),
            ("GET / HTTP/1.1|Host: \u{e9}", "invalid_host"),
            ("GET / HTTP/1.0|Host: a:b", "invalid_host"),
            ("GET http://a/ HTTP/1.1|Host: b", "host_mismatch"),
            ("GET http://a:80/ HTTP/1.1|Host: a", "host_mismatch"),
            ("GET http://a/ HTTP/1.1|Host:", "host_mismatch"),
            ("CONNECT a:1 HTTP/1.1|Host: b:1", "host_mismatch"),
            ("GET * HTTP/1.1|Host: a", "target"),
            ("GET a HTTP/1.1|Host: a", "target"),
            ("GET /%x HTTP/1.1|Host: a", "target"),
            ("CONNECT / HTTP/1.1|Host: a", "target"),
        ] {
            let bytes = format!("{text}||").replace('|', "\r\n");
            assert_eq!(request(bytes.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn heads_may_be_as_large_as_the_limit_and_no_larger() {
        let with = |len: usize| {
            let start = "GET / HTTP/1.0\r\nA: ";
            format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4)).into_bytes()
        };
        assert!(request(&with(120)).starts_with("GET / HTTP/1.0 | A: xx"));
        assert_eq!(request(&with(121)), "head_too_large");
        assert_eq!(request(&with(119)[..118]), "...");
        assert_eq!(request(&[b'A'; 119]), "...");
        assert_eq!(request(&[b'A'; 120]), "head_too_large");
        let mut head = Head::new();
        let long_name = [b"GET / HTTP/1.0\r\n", "n".repeat(70_000).as_bytes(), b": 1\r\n\r\n"].concat();
        assert_eq!(parse_request(&long_name, &mut head, &Limits::default()), Err(HeadError::TooLarge));
    }

    #[test]
    fn responses_are_read_as_they_are() {
        for (bytes, expected) in [
            (&b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nx"[..], "HTTP/1.1 200 OK | A: 1 + x"),
            (b"HTTP/1.0 404 N\xf6 \t way\r\n\r\n", "HTTP/1.0 404 N\\xf6 \\t way + "),
            (b"HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200  + "),
            (b"HTTP/1.1 999\r\n\r\n", "HTTP/1.1 999  + "),
            (b"HTTP/1.1 20", "..."),
        ] {
            assert_eq!(response(bytes), expected);
        }
    }

    #[test]
    fn bad_status_lines_are_refused() {
        for (line, expected) in [
            (&b"HTTP/1.1 20\r\n\r\n"[..], "status_line"),
            (b"HTTP/1.1 2000 OK\r\n", "status_line"),
            (b"HTTP/1.1 099 OK\r\n", "status_line"),
            (b"HTTP/1.1 +20 OK\r\n", "status_line"),
            (b"HTTP/1.1  200 OK\r\n", "status_line"),
            (b"HTTP/1.1\t200 OK\r\n", "status_line"),
            (b"\r\nHTTP/1.1 200 OK\r\n", "status_line"),
            (b"HTTP/1.1\r\n", "status_line"),
            (b"HTTP/2.0 200 OK\r\n", "version"),
            (b"ICY 200 OK\r\nxxx", "status_line"),
            (b"SSH-2.0-OpenSSH_9\r\n", "status_line"),
            (b"HTTP/1.1 200 O\x00K\r\n", "control_byte"),
            (b"HTTP/1.1 200 OK\n", "bare_lf"),
            (b"HTTP/1.1 200\n", "bare_lf"),
            (b"HTTP/1.1 200\rx", "bare_cr"),
        ] {
            assert_eq!(response(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_head_starts_afresh_after_completion_and_after_errors() {
        let mut head = Head::new();
        let limits = Limits::default();
        head.append("stale", b"1");
        let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(parse_request(&good[..20], &mut head, &limits), Ok(Parsed::Partial));
        assert!(parse_request(b"GET / HTTP/1.1\r\nHost: \x00aaaaaa", &mut head, &limits).is_err());
        for _ in 0..2 {
            assert_eq!(parse_request(good, &mut head, &limits), Ok(Parsed::Complete(good.len())));
            assert_eq!(format!("{head:?}"), "GET / HTTP/1.1 | Host: a");
        }
        assert_eq!(parse_request(&good[..20], &mut head, &limits), Ok(Parsed::Partial));
        head.clear();
        assert_eq!(parse_request(good, &mut head, &limits), Ok(Parsed::Complete(good.len())));
    }

    #[test]
    fn broken_callers_cause_no_panic() {
        let mut head = Head::new();
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: bcdefgh\r\n\r\n";
        for first in 0..bytes.len() {
            for second in 0..bytes.len() {
                head.clear();
                let _ = parse_request(&bytes[..first], &mut head, &SMALL);
                assert!(head.iter().count() < 4 && head.get("host").is_none_or(<[u8]>::is_empty));
                let _ = parse_request(&bytes[..second], &mut head, &SMALL);
                let _ = parse_request(b"\r\n\r\n\r\n\r\n", &mut head, &SMALL);
            }
        }
    }

    #[test]
    fn a_head_made_by_hand_is_checked_too() {
        let mut head = Head::new();
        head.set_version(Version::Http2);
        assert_eq!(validate_request(&head), Err(HeadError::Method));
        head.set_method("GET");
        assert_eq!(validate_request(&head), Err(HeadError::Target));
        head.set_target("/");
        assert_eq!(validate_request(&head), Err(HeadError::MissingHost));
        head.set("host", b"a");
        assert_eq!(validate_request(&head), Ok(()));
    }
}
