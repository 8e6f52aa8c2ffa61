//! Texts between quotes, as Go writes them.

use std::fmt::Write as _;

/// Go's `strconv.Quote`.
pub(super) fn quote(text: &str) -> String {
    quote_with('"', text, false)
}

pub(super) fn quote_with(quote: char, text: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c == quote || c == '\\' => out.extend(['\\', c]),
            c if is_printable(c) && (!ascii || c.is_ascii()) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x80 => write!(out, "\\x{code:02x}"),
                    0x80..0x10000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// Go's `unicode.IsPrint`, told by what Rust shows as it is; combining characters it does not, are printable in Go.
pub(super) fn is_printable(c: char) -> bool {
    match c.escape_debug().next() {
        Some('\\') => {
            matches!(c, '"' | '\'' | '\\')
                || ("a".to_owned() + c.encode_utf8(&mut [0; 4])).escape_debug().count() == 2
        }
        _ => true,
    }
}
