//! One spelling for each request: target, host and field names, before anything is decided by them.
//!
//! Pure functions, run for every request; on a target that is already normal they scan it once and allocate
//! nothing. The results are those of Traefik (reference 3.6), so that rules written for it match the same.

use std::borrow::Cow;

use lb_config::static_config::{AliasHeaders, EncodedCharacters};
use lb_http1::Head;

/// What an entry point wants done to targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Resolve `//`, `/./` and `/../`.
    pub(crate) sanitize_path: bool,
    /// A raw `;` in the query becomes `%3B`; otherwise `&`.
    pub(crate) encode_query_semicolons: bool,
}

/// A target that no two servers are sure to read alike: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTarget {
    #[error("the request target does not begin with a slash")]
    NotAPath,
    #[error("the request target contains a fragment")]
    Fragment,
    #[error("the request target contains a byte that must be percent-encoded")]
    BadByte,
    #[error("the path contains a percent sign without two hexadecimal digits")]
    BadEscape,
}

/// A field name with characters other than letters, digits and `-`, where the entry point rejects those: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header name contains characters other than letters, digits and hyphens")]
pub(crate) struct AliasHeader;

/// What a byte of a target asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Slash,
    Percent,
    Question,
    /// Fine in a query; percent-encoded in a path, where RFC 3986 does not have it. `\` is among them: some
    /// servers take it for a slash.
    Encode,
    Semicolon,
    Fragment,
    Bad,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'?' => Class::Question,
            b';' => Class::Semicolon,
            b'#' => Class::Fragment,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
            0..=b' ' | 0x7f.. => Class::Bad,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

/// Normalises a request target that is a path with perhaps a query, or `*`. `None` means it is normal already.
///
/// Escapes of unreserved characters are decoded, the others written in upper case (RFC 3986 section 6.2.2);
/// then dot segments and empty segments are resolved if `policy` says so, the way Go's `path.Clean` does: unlike
/// RFC 3986 section 5.2.4, `/a/b/..` is `/a`. `%2F` is never a separator. An empty path becomes `/`.
pub(crate) fn normalise_target(target: &[u8], policy: &Policy) -> Result<Option<String>, BadTarget> {
    let mut normal = match target.first() {
        Some(b'/') => true,
        Some(b'?') | None => false,
        Some(b'*') if target.len() == 1 => return Ok(None),
        Some(_) => return Err(BadTarget::NotAPath),
    };
    let mut path_len = target.len();
    for (at, &byte) in target.iter().enumerate() {
        match CLASSES[usize::from(byte)] {
            Class::Plain | Class::Semicolon => {}
            Class::Slash => normal &= !(policy.sanitize_path && begins_removable_segment(&target[at + 1..])),
            Class::Percent => normal &= escape(&target[at + 1..])?.is_normal,
            Class::Encode => normal = false,
            Class::Question => {
                path_len = at;
                break;
            }
            Class::Fragment => return Err(BadTarget::Fragment),
            Class::Bad => return Err(BadTarget::BadByte),
        }
    }
    let (path, query) = target.split_at(path_len);
    for &byte in query {
        match CLASSES[usize::from(byte)] {
            Class::Semicolon => normal = false,
            Class::Fragment => return Err(BadTarget::Fragment),
            Class::Bad => return Err(BadTarget::BadByte),
            _ => {}
        }
    }
    if normal {
        return Ok(None);
    }
    rewrite(path, query, policy).map(Some)
}

/// Whether what follows a slash is an empty segment before another slash, `.` or `..`.
fn begins_removable_segment(rest: &[u8]) -> bool {
    let is_end = |byte: Option<&u8>| matches!(byte, None | Some(b'/' | b'?'));
    match rest {
        [b'/', ..] => true,
        [b'.', b'.', rest @ ..] => is_end(rest.first()),
        [b'.', rest @ ..] => is_end(rest.first()),
        _ => false,
    }
}

struct Escape {
    byte: u8,
    /// Upper case, of a character that needs it.
    is_normal: bool,
}

/// The escape whose digits begin `rest`.
fn escape(rest: &[u8]) -> Result<Escape, BadTarget> {
    let digit = |index: usize| char::from(*rest.get(index)?).to_digit(16);
    let (Some(high), Some(low)) = (digit(0), digit(1)) else {
        return Err(BadTarget::BadEscape);
    };
    let byte = (high * 16 + low) as u8; // two digits of four bits
    let lower_case = rest[..2].iter().any(u8::is_ascii_lowercase);
    Ok(Escape { byte, is_normal: !lower_case && !is_unreserved(byte) })
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What paths may hold as it is (RFC 3986 section 3.3, and brackets), and Go escapes nevertheless.
pub(crate) const MARKS: &[u8] = b"!'()*[]";

#[cold]
fn rewrite(path: &[u8], query: &[u8], policy: &Policy) -> Result<String, BadTarget> {
    let mut escaped = String::with_capacity(path.len() + query.len() + 16);
    // As Go does: where one character had to be escaped, all are that it would escape by itself.
    let strict = path.iter().any(|byte| CLASSES[usize::from(*byte)] == Class::Encode);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        match CLASSES[usize::from(byte)] {
            Class::Percent => {
                let Escape { byte, .. } = escape(&path[at..])?;
                at += 2;
                if is_unreserved(byte) {
                    escaped.push(char::from(byte))
                } else {
                    push_escape(&mut escaped, byte)
                }
            }
            Class::Encode => push_escape(&mut escaped, byte),
            Class::Plain if strict && MARKS.contains(&byte) => push_escape(&mut escaped, byte),
            _ => escaped.push(char::from(byte)),
        }
    }
    let mut target = if policy.sanitize_path || escaped.is_empty() { clean(&escaped) } else { escaped };
    for &byte in query {
        match byte {
            b';' if policy.encode_query_semicolons => target.push_str("%3B"),
            b';' => target.push('&'),
            _ => target.push(char::from(byte)),
        }
    }
    Ok(target)
}

fn push_escape(text: &mut String, byte: u8) {
    let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble & 15)]);
    text.extend(['%', digit(byte >> 4), digit(byte)]);
}

/// Go's `path.Clean` of an absolute path, with the trailing slash kept.
fn clean(path: &str) -> String {
    let mut cleaned = String::with_capacity(path.len() + 1);
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => cleaned.truncate(cleaned.rfind('/').unwrap_or(0)),
            _ => {
                cleaned.push('/');
                cleaned.push_str(segment);
            }
        }
    }
    if cleaned.is_empty() || path.ends_with('/') {
        cleaned.push('/');
    }
    cleaned
}

/// Path and query of a target; the query is empty if there is none.
pub(crate) fn split_target(target: &str) -> (&str, &str) {
    match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, ""),
    }
}

/// A `Host` value as rules compare it: lower case, without port and brackets. A trailing dot stays, matchers
/// tolerate it themselves.
pub(crate) fn canonical_host(host: &str) -> Cow<'_, str> {
    let mut name = if let Some(address) = host.strip_prefix('[') {
        address.split_once(']').map_or(host, |(address, _)| address)
    } else {
        let digits = host.bytes().rev().take_while(u8::is_ascii_digit).count();
        host[..host.len() - digits].strip_suffix(':').unwrap_or(host)
    };
    let (mut upper, mut colon) = (false, false);
    for byte in name.bytes() {
        upper |= byte.is_ascii_uppercase();
        colon |= byte == b':';
    }
    if colon && name.len() < host.len() && !host.starts_with('[') {
        // An IPv6 address that somebody wrote without its brackets.
        name = host;
    }
    if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
}

/// Whether a path has an escape that the entry point does not allow: 400 (reference 1.3, `encodedCharacters`).
pub(crate) fn denied_encoded_character(path: &str, allowed: &EncodedCharacters) -> bool {
    let bytes = path.as_bytes();
    memchr::memchr_iter(b'%', bytes).any(|at| {
        let Ok(Escape { byte, .. }) = escape(&bytes[at + 1..]) else {
            return false;
        };
        !match byte {
            b'/' => allowed.slash,
            b'\\' => allowed.back_slash,
            0 => allowed.null_character,
            b';' => allowed.semicolon,
            b'%' => allowed.percent,
            b'?' => allowed.question_mark,
            b'#' => allowed.hash,
            _ => true,
        }
    })
}

/// Deals with field names that an application may confuse with others (`X_Forwarded_For`, `x.y`).
///
/// # Errors
/// There is one and the entry point rejects them.
pub(crate) fn alias_headers(
    head: &mut Head,
    strategy: AliasHeaders,
    only_underscores: bool,
) -> Result<(), AliasHeader> {
    let is_alias = |name: &str| is_alias(name, only_underscores);
    match strategy {
        AliasHeaders::Keep => {}
        AliasHeaders::Delete => head.retain(|name, _| !is_alias(name)),
        AliasHeaders::Reject => {
            if head.iter().any(|(name, _)| is_alias(name)) {
                return Err(AliasHeader);
            }
        }
    }
    Ok(())
}

/// Trailers under the same rule. It is too late to refuse the request: one such name, and none of them goes on.
pub(crate) fn without_aliases(
    trailers: Option<&Head>,
    strategy: AliasHeaders,
    only_underscores: bool,
) -> Option<&Head> {
    trailers.filter(|trailers| {
        strategy == AliasHeaders::Keep || !trailers.iter().any(|(name, _)| is_alias(name, only_underscores))
    })
}

fn is_alias(name: &str, only_underscores: bool) -> bool {
    name.bytes().any(|byte| match only_underscores {
        true => byte == b'_',
        false => !byte.is_ascii_alphanumeric() && byte != b'-',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAEFIK: Policy = Policy { sanitize_path: true, encode_query_semicolons: false };

    /// The target after normalisation.
    fn normal(target: &str, policy: &Policy) -> Result<String, BadTarget> {
        Ok(normalise_target(target.as_bytes(), policy)?.unwrap_or_else(|| target.to_owned()))
    }

    #[test]
    fn what_is_normal_is_left_alone() {
        let targets = [
            "/",
            "*",
            "/a/b/",
            "/a/b?x=1&y=//../%2e",
            "/a%2Fb%5C%00%FF",
            "/.well-known/x",
            "/..a/...",
            "/a.",
            "/!$&'()*+,;=:@[]",
            "/?\"<>\\^`{|}",
            "/a?",
            "/a?b?c",
        ];
        for target in targets {
            assert_eq!(normalise_target(target.as_bytes(), &TRAEFIK), Ok(None), "{target}");
        }
    }

    #[test]
    fn targets_are_normalised_as_by_traefik() {
        let rows = [
            ("/%61%2D%7e", "/a-~"),
            ("/%2f%e2%82%ac", "/%2F%E2%82%AC"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a"),
            ("/a/./", "/a/"),
            ("/a/b/..", "/a"),
            ("/a/b/../", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/..%2fb", "/a/..%2Fb"),
            ("/a/../..?x=/../", "/?x=/../"),
            ("/a\\..\\b", "/a%5C..%5Cb"),
            ("/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
            ("/(a)/[b]'*!\\?(c)", "/%28a%29/%5Bb%5D%27%2A%21%5C?(c)"),
            ("/a;b?c;d;", "/a;b?c&d&"),
            ("?x=1", "/?x=1"),
            ("", "/"),
        ];
        for (target, expected) in rows {
            assert_eq!(normal(target, &TRAEFIK).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn the_policy_decides_about_dots_and_semicolons() {
        let policy = Policy { sanitize_path: false, encode_query_semicolons: true };
        let rows = [
            ("//a/./../b", "//a/./../b"),
            ("/a/%2e%2e/%2f", "/a/../%2F"),
            ("/a;?b;c%3b", "/a;?b%3Bc%3b"),
            ("?a", "/?a"),
        ];
        for (target, expected) in rows {
            assert_eq!(normal(target, &policy).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn doubtful_targets_are_refused() {
        let rows = [
            ("/a#b", BadTarget::Fragment),
            ("/a?b#c", BadTarget::Fragment),
            ("/a%", BadTarget::BadEscape),
            ("/a%2", BadTarget::BadEscape),
            ("/%zz", BadTarget::BadEscape),
            ("/%+1", BadTarget::BadEscape),
            ("/a%?12", BadTarget::BadEscape),
            ("/a b", BadTarget::BadByte),
            ("/a?b c", BadTarget::BadByte),
            ("/\u{e9}", BadTarget::BadByte),
            ("/a\u{7f}", BadTarget::BadByte),
            ("/\0", BadTarget::BadByte),
            ("a", BadTarget::NotAPath),
            ("http:foo", BadTarget::NotAPath),
            ("*/", BadTarget::NotAPath),
        ];
        for (target, expected) in rows {
            assert_eq!(normal(target, &TRAEFIK), Err(expected), "{target}");
        }
    }

    #[test]
    fn a_second_pass_changes_nothing() {
        let pieces = ["/", "a", ".", "..", "%2e", "%2F", "%2f", "%41", "\\", ";", "%25", "%252e"];
        let count = pieces.len();
        for policy in [TRAEFIK, Policy { sanitize_path: false, encode_query_semicolons: true }] {
            for n in 0..count.pow(4) {
                let picked = [n, n / count, n / count.pow(2), n / count.pow(3)].map(|n| pieces[n % count]);
                let target = format!("/{}", picked.concat());
                let once = normal(&target, &policy).unwrap();
                assert_eq!(normalise_target(once.as_bytes(), &policy), Ok(None), "{target} became {once}");
            }
        }
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_brackets() {
        let rows = [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.", "example.com."),
            ("[2001:DB8::1]:443", "2001:db8::1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("[::1", "[::1"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("", ""),
            (":80", ""),
        ];
        for (host, expected) in rows {
            assert_eq!(canonical_host(host), expected, "{host}");
        }
        assert!(matches!(canonical_host("a.example:80"), Cow::Borrowed(_)));
    }

    #[test]
    fn each_encoded_character_has_its_switch() {
        let all = EncodedCharacters {
            slash: true,
            back_slash: true,
            null_character: true,
            semicolon: true,
            percent: true,
            question_mark: true,
            hash: true,
        };
        let rows = [
            ("%2F", EncodedCharacters { slash: false, ..all }),
            ("%2f", EncodedCharacters { slash: false, ..all }),
            ("%5C", EncodedCharacters { back_slash: false, ..all }),
            ("%00", EncodedCharacters { null_character: false, ..all }),
            ("%3B", EncodedCharacters { semicolon: false, ..all }),
            ("%25", EncodedCharacters { percent: false, ..all }),
            ("%3F", EncodedCharacters { question_mark: false, ..all }),
            ("%23", EncodedCharacters { hash: false, ..all }),
        ];
        for (escape, denying) in rows {
            let path = format!("/a{escape}b");
            assert!(denied_encoded_character(&path, &denying), "{path}");
            assert!(!denied_encoded_character(&path, &all), "{path}");
            let others = "/%2F%5C%00%3B%25%3F%23".replace(&escape.to_ascii_uppercase(), "/%20");
            assert!(!denied_encoded_character(&others, &denying), "{others}");
        }
        assert!(!denied_encoded_character(
            "/a/b;c",
            &EncodedCharacters { slash: false, semicolon: false, ..all }
        ));
    }

    #[test]
    fn alias_names_are_kept_deleted_or_rejected() {
        let head = || {
            let mut head = Head::new();
            for name in ["X-A", "x_a", "X.A", "b", "c~"] {
                head.append(name, b"1");
            }
            head
        };
        let names = |head: &Head| head.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>().join(" ");
        let mut kept = head();
        assert_eq!(alias_headers(&mut kept, AliasHeaders::Keep, false), Ok(()));
        assert_eq!(names(&kept), "X-A x_a X.A b c~");
        let mut deleted = head();
        assert_eq!(alias_headers(&mut deleted, AliasHeaders::Delete, false), Ok(()));
        assert_eq!(names(&deleted), "X-A b");
        assert_eq!(alias_headers(&mut head(), AliasHeaders::Reject, false), Err(AliasHeader));
        assert_eq!(alias_headers(&mut deleted, AliasHeaders::Reject, false), Ok(()));
        let mut underscored = head();
        assert_eq!(alias_headers(&mut underscored, AliasHeaders::Delete, true), Ok(()));
        assert_eq!(names(&underscored), "X-A X.A b c~");
        assert_eq!(alias_headers(&mut underscored, AliasHeaders::Reject, true), Ok(()));
    }

    #[test]
    fn a_target_splits_at_its_first_question_mark() {
        assert_eq!(split_target("/a?b?c"), ("/a", "b?c"));
        assert_eq!(split_target("/a"), ("/a", ""));
    }
}
