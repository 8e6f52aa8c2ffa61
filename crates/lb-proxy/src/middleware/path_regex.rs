//! `replacePathRegex`, `stripPrefixRegex`.

use std::borrow::Cow;

use lb_core::rewrite::{Rewrite, TooMany};
use lb_core::route::Pattern;

use super::Step;
use super::path::{bad_escape, cut_off, decode, decoded_prefix, escaped_path, is_canonical, set_path};
use crate::exchange::Exchange;
use crate::http::local::Local;
use crate::http::normalise::split_target;

/// The expression sees the path as it is on the wire, escapes included.
pub(super) fn replace_path(x: &mut Exchange, rewrite: &Rewrite) -> Step {
    let (before, _) = split_target(x.head.target());
    let replaced = match rewrite.apply(before) {
        Ok(Some(replaced)) => replaced,
        Ok(None) => return Step::Next,
        // RFC 9110 section 15.5.15.
        Err(TooMany) => return Step::Respond(Local::status_text(414)),
    };
    let before = before.to_owned();
    x.head.append("X-Replaced-Path", before.as_bytes());
    match escaped_path(&replaced) {
        Err(at) => {
            Step::Respond(Local::plain(500, format!("invalid URL escape {:?}", bad_escape(&replaced, at))))
        }
        // Parts of the client's path may stand in it: they must not open another path.
        Ok(path) if !is_canonical(&path) => Step::Respond(Local::plain(400, "Bad Request")),
        Ok(path) => {
            set_path(x, &path);
            Step::Next
        }
    }
}

/// The expressions see the decoded path.
pub(super) fn strip_prefix(x: &mut Exchange, patterns: &[Pattern]) -> Step {
    let (path, _) = split_target(x.head.target());
    let bytes = decode(path);
    let text = text(&bytes);
    let matched = patterns
        .iter()
        .filter_map(|pattern| pattern.find(&text))
        // Wherever it was found: it has to stand at the beginning.
        .find(|matched| !matched.is_empty() && text.starts_with(matched));
    let Some(matched) = matched else { return Step::Next };
    let prefix = &bytes[..decoded_bytes(&bytes, matched.chars().count())];
    let Some(rest) = decoded_prefix(path, prefix) else { return Step::Next };
    if prefix.iter().any(u8::is_ascii_control) {
        // A header cannot name it.
        return Step::Respond(Local::plain(400, "Bad Request"));
    }
    let cut = path.len() - rest.len();
    cut_off(x, cut, prefix)
}

/// As text for expressions: each byte that belongs to no character is one U+FFFD, as in Go.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// How many bytes the first `characters` of the [`text`] of `bytes` stand for.
fn decoded_bytes(bytes: &[u8], characters: usize) -> usize {
    let lengths = bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().map(char::len_utf8).chain(chunk.invalid().iter().map(|_| 1)));
    lengths.take(characters).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::forwarded::Peer;

    /// What is sent on and the field that says what it was, or the status of the answer.
    fn outcome(target: &str, run: impl FnOnce(&mut Exchange) -> Step) -> Result<(String, Vec<u8>), u16> {
        let peer = Peer::new("192.0.2.1".parse().unwrap(), false);
        let mut x = Exchange::new(std::rc::Rc::new(peer), tokio::time::Instant::now().into_std());
        x.head.set_target(target);
        match run(&mut x) {
            Step::Next => {
                let fields = ["x-replaced-path", "x-forwarded-prefix"];
                let told = fields.iter().find_map(|name| x.head.get(name)).unwrap_or_default().to_vec();
                Ok((x.head.target().to_owned(), told))
            }
            Step::Respond(local) => Err(local.status),
            _ => panic!("{target}"),
        }
    }

    /// As Traefik 3.7 answers.
    #[test]
    fn paths_are_replaced_as_by_traefik() {
        for (regex, with, target, expected) in [
            ("^/api/(.*)", "/v1/$1", "/api/a%2Fb%20c?y=1", Ok(("/v1/a%2Fb%20c?y=1", "/api/a%2Fb%20c"))),
            ("^/api/(.*)", "/v1/$1", "/other", Ok(("/other", ""))),
            ("^/a(.*)", "/b?x=$1", "/a/b", Ok(("/b%3Fx=/b", "/a/b"))),
            ("^/a(.*)", "/b%zz$1", "/a", Err(500)),
            ("^/a(.*)", "/b/..$1", "/a/b", Err(400)),
            ("^/a(.*)", "/b/..$1", "/a%20b", Ok(("/b/..%20b", "/a%20b"))),
            ("^/a(.*)", "/b//$1", "/ab", Err(400)),
            ("^/a(.*)", "/b?$1", "/a/..%2Fx", Err(400)),
            ("^/a(.*)", "/é/$1", "/abc?q=1", Ok(("/%C3%A9/bc?q=1", "/abc"))),
            ("^/a(.*)", "", "/abc?q=1", Ok(("?q=1", "/abc"))),
            ("b", "c", "/abba", Ok(("/acca", "/abba"))),
            ("a.*b|a", "c", &format!("/{}", "a".repeat(60_000)), Err(414)),
        ] {
            let rewrite = Rewrite::new(regex, with).unwrap();
            let found = outcome(target, |x| replace_path(x, &rewrite));
            let expected = expected.map(|(target, told)| (target.to_owned(), told.as_bytes().to_vec()));
            assert_eq!(found, expected, "{regex} {with} {target}");
        }
    }

    #[test]
    fn prefixes_are_stripped_as_by_traefik() {
        let of = |patterns: &[&str], target: &str| {
            let patterns: Vec<_> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            outcome(target, |x| strip_prefix(x, &patterns))
        };
        for (patterns, target, expected) in [
            (&["/api/v[0-9]+/"][..], "/api/v1/x?q", Ok(("/x?q", &b"/api/v1/"[..]))),
            (&["/api/v[0-9]+/"], "/x/api/v1/x", Ok(("/x/api/v1/x", b""))),
            (&["/api/v[0-9]+/"], "/api/v1/%2Fx", Ok(("/x", b"/api/v1/"))),
            (&["b*", "^/s"], "/sx", Ok(("/x", b"/s"))),
            (&["^/[^/]+"], "/a%20b", Ok(("", b"/a b"))),
            (&["^/[^/]+"], "/a%2Fb/c", Ok(("/b/c", b"/a"))),
            (&["^/[^/]+"], "/a%0Ab/c", Err(400)),
            (&["^/[^/]+"], "/a/..%2Fb", Ok(("/..%2Fb", b"/a"))),
            (&["^/[^/]"], "/a../b", Err(400)),
            (&["^/.{2}/"], "/%FF%FE/x", Ok(("/x", b"/\xff\xfe/"))),
            (&["^/.{2}/"], "/%C3%A9%C3/x", Ok(("/x", b"/\xc3\xa9\xc3/"))),
        ] {
            let expected = expected.map(|(target, told): (&str, &[u8])| (target.to_owned(), told.to_vec()));
            assert_eq!(of(patterns, target), expected, "{patterns:?} {target}");
        }
    }
}
