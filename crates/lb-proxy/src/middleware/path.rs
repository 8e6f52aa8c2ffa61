//! `stripPrefix`, `addPrefix`, `replacePath`, and the entry point's policy on encoded characters.

use std::borrow::Cow;

use lb_config::static_config::EncodedCharacters;

use super::Step;
use crate::exchange::Exchange;
use crate::http::local::Local;
use crate::http::normalise::{MARKS, denied_encoded_character, split_target};

pub(super) fn check_encoded(x: &Exchange, allowed: &EncodedCharacters) -> Step {
    let (path, _) = split_target(x.head.target());
    if denied_encoded_character(path, allowed) { Step::Respond(Local::bare(400)) } else { Step::Next }
}

/// Puts `path` in place of the path; the query stays.
pub(super) fn set_path(x: &mut Exchange, path: &str) {
    let target = match x.head.target().split_once('?') {
        Some((_, query)) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    x.head.set_target(&target);
}

pub(super) fn strip_prefix(x: &mut Exchange, prefixes: &[String], force_slash: bool) -> Step {
    let (path, _) = split_target(x.head.target());
    // The prefix is compared with the decoded path, and as many encoded bytes are taken away.
    let found = prefixes
        .iter()
        .find_map(|prefix| Some((prefix.as_bytes(), decoded_prefix(path, prefix.as_bytes())?.len())));
    let Some((prefix, left)) = found else { return Step::Next };
    let cut = path.len() - left;
    let step = cut_off(x, cut, prefix);
    if force_slash && left == 0 {
        set_path(x, "/");
    }
    step
}

/// Takes so many bytes off the front of the path, which are `prefix` in escaped form, and names it to the server.
pub(super) fn cut_off(x: &mut Exchange, cut: usize, prefix: &[u8]) -> Step {
    let (path, _) = split_target(x.head.target());
    let rest = &path[cut..];
    // With an encoded slash behind the prefix only the decoded path begins as a path has to: it is what goes on, and
    // what must not climb out of anything.
    let stripped = if rest.starts_with("%2F") {
        Some(escape(&decode(rest)))
    } else if rest.starts_with('/') || rest.is_empty() {
        None
    } else {
        Some(format!("/{rest}"))
    };
    if !is_canonical(stripped.as_deref().unwrap_or(rest)) {
        return Step::Respond(Local::plain(400, "Bad Request"));
    }
    // Nothing left stays nothing, for a prefix added behind this; it leaves as `/`.
    x.head.append("X-Forwarded-Prefix", prefix);
    match stripped {
        Some(path) => set_path(x, &path),
        None => x.head.strip_target(cut),
    }
    Step::Next
}

/// What is left of the escaped `path` behind `prefix`, which is compared decoded.
pub(super) fn decoded_prefix<'a>(path: &'a str, prefix: &[u8]) -> Option<&'a str> {
    let mut rest = path.as_bytes();
    for &wanted in prefix {
        let (byte, length) = match rest {
            [b'%', high, low, ..] => (hex(*high)? << 4 | hex(*low)?, 3),
            [byte, ..] => (*byte, 1),
            [] => return None,
        };
        if byte != wanted {
            return None;
        }
        rest = &rest[length..];
    }
    path.get(path.len() - rest.len()..)
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// Without dot segments and double slashes: what is stripped must not open another path.
pub(super) fn is_canonical(path: &str) -> bool {
    !path.contains("//") && path.split('/').all(|segment| segment != "." && segment != "..")
}

pub(super) fn add_prefix(x: &mut Exchange, prefix: &str) -> Step {
    let (path, _) = split_target(x.head.target());
    let slash = if prefix.starts_with('/') { "" } else { "/" };
    // The prefix is plain text: what a path cannot hold literally, `%` included, is escaped. Where that happens Go
    // escapes all of the path as it would by itself; what has a meaning of its own (`%2F`) stays escaped here.
    let escaped = escape(prefix.as_bytes());
    let path = match escaped == prefix {
        true => Cow::Borrowed(path),
        false => Cow::Owned(escape_marks(path)),
    };
    let path = format!("{slash}{escaped}{path}");
    set_path(x, &path);
    Step::Next
}

pub(super) fn replace_path(x: &mut Exchange, path: &str) -> Step {
    let (before, _) = split_target(x.head.target());
    let before = before.to_owned();
    x.head.append("X-Replaced-Path", before.as_bytes());
    match escaped_path(path) {
        Ok(escaped) => {
            set_path(x, &escaped);
            Step::Next
        }
        Err(at) => Step::Respond(Local::plain(500, format!("invalid URL escape {:?}", bad_escape(path, at)))),
    }
}

/// `path`, which may hold escapes, as it goes on the wire: as it stands where it is a valid path, else decoded and
/// escaped anew, as Go's `URL.EscapedPath` does. An error is the position of an escape that is none.
pub(super) fn escaped_path(path: &str) -> Result<Cow<'_, str>, usize> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut valid = true;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digits = bytes.get(at + 1).zip(bytes.get(at + 2));
            let value = digits.and_then(|(high, low)| Some(hex(*high)? << 4 | hex(*low)?));
            decoded.push(value.ok_or(at)?);
            at += 3;
        } else {
            valid &= is_plain(byte) || MARKS.contains(&byte);
            decoded.push(byte);
            at += 1;
        }
    }
    Ok(if valid { Cow::Borrowed(path) } else { Cow::Owned(escape(&decoded)) })
}

pub(super) fn bad_escape(path: &str, at: usize) -> &str {
    path.get(at..(at + 3).min(path.len())).unwrap_or("%")
}

/// The bytes of a path whose escapes are sound, which normalising has seen to.
pub(super) fn decode(path: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &rest[3..] } else { after };
    }
    decoded
}

/// What Go leaves alone when it escapes a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~$&+,/:;=@".contains(&byte)
}

pub(super) fn escape(path: &[u8]) -> String {
    escape_except(path, b"-._~$&+,/:;=@")
}

fn escape_marks(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len() + 16);
    for character in path.chars() {
        match u8::try_from(character) {
            Ok(byte) if MARKS.contains(&byte) => escaped.push_str(&format!("%{byte:02X}")),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Everything but letters, digits and `plain`.
pub(super) fn escape_except(bytes: &[u8], plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::http::forwarded::Peer;

    fn exchange(target: &str) -> Exchange {
        let peer = Peer::new("192.0.2.1".parse().unwrap(), false);
        let mut x = Exchange::new(Rc::new(peer), tokio::time::Instant::now().into_std());
        x.head.set_method("GET");
        x.head.set_target(target);
        x
    }

    #[test]
    fn strip_prefix_works_on_characters_and_keeps_the_query() {
        let cases = [
            ("/api/users?a=b", "/api", "/users?a=b"),
            ("/spx", "/s", "/px"),
            ("/api", "/api", ""),
            ("/api?q", "/api", "?q"),
            ("/other", "/api", "/other"),
            ("/a%20b/c", "/a b", "/c"),
            ("/api%2Fx/y", "/api", "/x/y"),
            ("/api%2Fx%2Fy%20z", "/api", "/x/y%20z"),
            ("/api/x%2Fy", "/api", "/x%2Fy"),
        ];
        for (target, prefix, expected) in cases {
            let mut x = exchange(target);
            assert!(matches!(strip_prefix(&mut x, &[prefix.to_owned()], false), Step::Next));
            assert_eq!(x.head.target(), expected, "{target} without {prefix}");
        }
        for target in ["/api../x", "/api%2F..%2Fx", "/api%2F%2Fx"] {
            let refused = strip_prefix(&mut exchange(target), &["/api".to_owned()], false);
            assert!(matches!(refused, Step::Respond(local) if local.status == 400), "{target}");
        }
        for (target, expected) in [("/api?q", "/?q"), ("/api/", "/"), ("/api/x", "/x"), ("/other", "/other")]
        {
            let mut x = exchange(target);
            assert!(matches!(strip_prefix(&mut x, &["/api".to_owned()], true), Step::Next));
            assert_eq!(x.head.target(), expected, "{target}");
        }
    }

    #[test]
    fn add_and_replace_keep_the_query() {
        let mut x = exchange("/x?q=1");
        add_prefix(&mut x, "api");
        assert_eq!(x.head.target(), "/api/x?q=1");
        replace_path(&mut x, "/new?");
        assert_eq!(x.head.target(), "/new%3F?q=1");
        assert_eq!(x.head.get("x-replaced-path"), Some(&b"/api/x"[..]));
    }

    #[test]
    fn configured_paths_are_escaped_as_go_does() {
        let cases = [
            ("/new", Ok("/new")),
            ("/n w", Ok("/n%20w")),
            ("/n%2Fw", Ok("/n%2Fw")),
            ("/[x]!", Ok("/[x]!")),
            ("/é;[x]^|", Ok("/%C3%A9;%5Bx%5D%5E%7C")),
            ("/a%zz", Err(2)),
            ("/a%2", Err(2)),
        ];
        for (path, expected) in cases {
            assert_eq!(escaped_path(path).as_deref(), expected.as_ref().map(|p| *p), "{path}");
        }
        let mut x = exchange("/x");
        add_prefix(&mut x, "/p%2F?q");
        assert_eq!(x.head.target(), "/p%252F%3Fq/x");
        for (prefix, expected) in [("/p", "/p/(a)%2F!"), ("/a b", "/a%20b/%28a%29%2F%21")] {
            let mut x = exchange("/(a)%2F!");
            add_prefix(&mut x, prefix);
            assert_eq!(x.head.target(), expected);
        }
    }
}
