//! Text into byte buffers, without the formatting machinery where a request pays for it.

use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;

pub(crate) fn push_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(crate) fn push_display(out: &mut Vec<u8>, value: impl Display) {
    // Writing into a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// IPv4 without the formatting machinery: nearly every line of an access log has two.
pub(crate) fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else { return push_display(out, ip) };
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        push_integer(out, octet);
    }
}

/// For formats of which every reader has its own idea: quotes and backslashes escaped as Apache does, so that what a
/// client sends neither ends its column nor takes the end of it along; nothing that moves a terminal's cursor or is no
/// UTF-8.
pub(crate) fn push_plain(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    let hex = |out: &mut Vec<u8>, byte: &u8| push_display(out, format_args!("\\x{byte:02x}"));
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut bytes = [0; 4];
            let bytes = character.encode_utf8(&mut bytes).as_bytes();
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', bytes[0]]),
                _ if character.is_control() => bytes.iter().for_each(|byte| hex(out, byte)),
                _ => out.extend_from_slice(bytes),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(out, byte));
    }
}

/// A message on one line, without what moves a terminal's cursor.
pub(crate) fn push_line(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        match character {
            '\n' => out.extend_from_slice(b"\\n"),
            _ if character.is_control() => push_display(out, format_args!("\\x{:02x}", u32::from(character))),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// `user-agent` as `User-Agent`.
pub(crate) fn push_canonical_header_name(out: &mut Vec<u8>, name: &str) {
    let mut first = true;
    for byte in name.bytes() {
        out.push(if first { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() });
        first = byte == b'-';
    }
}

/// Writes JSON strings; bytes that are no UTF-8 become U+FFFD.
pub(crate) struct Json<'o>(pub(crate) &'o mut Vec<u8>);

impl Json<'_> {
    pub(crate) fn string(&mut self, text: &[u8]) {
        if is_plain(text) {
            self.0.push(b'"');
            self.0.extend_from_slice(text);
            self.0.push(b'"');
        } else {
            self.joined(std::iter::once(text));
        }
    }

    /// One string of all parts, joined with commas.
    pub(crate) fn joined<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) {
        self.0.push(b'"');
        for (at, part) in parts.enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            for chunk in part.utf8_chunks() {
                self.escaped(chunk.valid());
                if !chunk.invalid().is_empty() {
                    self.0.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
        }
        self.0.push(b'"');
    }

    /// Beyond what RFC 8259 section 7 asks for, other control characters: lines are looked at on terminals.
    fn escaped(&mut self, mut text: &str) {
        let special = |c: char| matches!(c, '"' | '\\') || c.is_control();
        while let Some((plain, rest)) = text.find(special).map(|at| text.split_at(at)) {
            self.0.extend_from_slice(plain.as_bytes());
            let mut characters = rest.chars();
            match characters.next() {
                Some('"') => self.0.extend_from_slice(b"\\\""),
                Some('\\') => self.0.extend_from_slice(b"\\\\"),
                Some('\n') => self.0.extend_from_slice(b"\\n"),
                Some('\r') => self.0.extend_from_slice(b"\\r"),
                Some('\t') => self.0.extend_from_slice(b"\\t"),
                Some(other) => push_display(self.0, format_args!("\\u{:04x}", u32::from(other))),
                None => {}
            }
            text = characters.as_str();
        }
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// ASCII that stands for itself in every format. No early exit: the compiler makes it look at many bytes at once.
fn is_plain(text: &[u8]) -> bool {
    !text.iter().fold(false, |special, byte| special | matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_read_back() {
        for (text, read) in [
            (&b"plain /path?a=b&c=<d>"[..], "plain /path?a=b&c=<d>"),
            (b"quote \" slash \\ tab \t nul \0 end", "quote \" slash \\ tab \t nul \0 end"),
            ("h\u{e9}".as_bytes(), "h\u{e9}"),
            (b"bad \xff\xfe.", "bad \u{fffd}\u{fffd}."),
            ("csi \u{9b}2J del \u{7f}".as_bytes(), "csi \u{9b}2J del \u{7f}"),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            Json(&mut out).string(text);
            let written = std::str::from_utf8(&out).unwrap();
            assert!(!written.chars().any(char::is_control), "{written:?}");
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), read);
        }
    }

    #[test]
    fn plain_text_stays_in_its_column() {
        for (text, written) in [
            (&b"/path?a=b&c=<d>"[..], "/path?a=b&c=<d>"),
            (b"Mozilla/5.0 \"x\"", r#"Mozilla/5.0 \"x\""#),
            // Either would end its column, or swallow the end of it.
            (b"a\\", r"a\\"),
            (b"a\\\" 200", r#"a\\\" 200"#),
            (b"\n\x1b[2J\x7f", r"\x0a\x1b[2J\x7f"),
            // CSI in one character of Unicode, and in one byte.
            ("h\u{e9} \u{9b}2J".as_bytes(), "h\u{e9} \\xc2\\x9b2J"),
            (b"\x9b2J\xff", r"\x9b2J\xff"),
        ] {
            let mut out = Vec::new();
            push_plain(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
    }

    #[test]
    fn addresses_are_written_as_usual() {
        for text in ["127.0.0.1", "255.10.0.200", "::1", "2001:db8::7"] {
            let mut out = Vec::new();
            push_ip(&mut out, text.parse().unwrap());
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn header_names_are_canonical() {
        for (name, canonical) in
            [("user-agent", "User-Agent"), ("X-REQUEST-ID", "X-Request-Id"), ("te", "Te")]
        {
            let mut out = Vec::new();
            push_canonical_header_name(&mut out, name);
            assert_eq!(out, canonical.as_bytes());
        }
    }
}
