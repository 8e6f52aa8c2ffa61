//! The form of a path that rules are compared with.

use std::borrow::Cow;

/// Characters that stay percent-encoded: they would change how the path reads (RFC 3986 section 2.2).
const RESERVED: &[u8] = b":/?#[]@!$&'()*+,;=%";

/// The routing path of an escaped path: every `%XX` is decoded, except that reserved characters stay
/// encoded, in upper-case hex.
///
/// Bytes that are not valid UTF-8 stay encoded as well: no rule can name them. A `%` that starts no
/// escape is kept as it is; refusing it is up to the parser of the request.
pub fn routing_path(escaped_path: &str) -> Cow<'_, str> {
    if !escaped_path.contains('%') {
        return Cow::Borrowed(escaped_path);
    }
    let mut decoded = Vec::with_capacity(escaped_path.len());
    let mut rest = escaped_path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, escape(tail)) {
            (b'%', Some(escaped)) => {
                rest = &tail[2..];
                if RESERVED.contains(&escaped) {
                    encode(escaped, &mut decoded)
                } else {
                    decoded.push(escaped)
                }
            }
            _ => decoded.push(byte),
        }
    }
    Cow::Owned(String::from_utf8(decoded).unwrap_or_else(|error| encode_invalid(error.as_bytes())))
}

/// The byte that two hexadecimal digits at the start stand for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

fn encode(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

fn encode_invalid(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_reserved_characters_are_decoded() {
        for (escaped, expected) in [
            ("/plain", "/plain"),
            ("/a%20b%7e", "/a b~"),
            ("/a%2fb%3a%25", "/a%2Fb%3A%25"),
            ("/%252F", "/%252F"),
            ("/%C3%A9", "/é"),
            ("/%ff%C3x%61", "/%FF%C3xa"),
            ("/100%", "/100%"),
            ("/%z1%4", "/%z1%4"),
            ("/%00", "/\0"),
        ] {
            assert_eq!(routing_path(escaped), expected, "{escaped}");
        }
    }
}
