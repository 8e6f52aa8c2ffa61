//! A URL as Go reads it and writes it again (`url.Parse`, `URL.String`): what Traefik sends for a text that was
//! written as an address.

use std::net::Ipv6Addr;

use super::path::{escape_except, escaped_path, hex};

/// The text is no URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoUrl;

/// `text` with what a URL cannot hold escaped, and the scheme in lower case.
pub(super) fn normalised(text: &str) -> Result<String, NoUrl> {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(NoUrl);
    }
    let mut url = String::with_capacity(text.len() + fragment.len() + 16);
    let (scheme, rest) = split_scheme(text)?;
    if !scheme.is_empty() {
        url.push_str(&scheme.to_ascii_lowercase());
        url.push(':');
    }
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    if !rest.starts_with('/') && !scheme.is_empty() {
        // Opaque: `mailto:a@b.test`.
        url.push_str(rest);
    } else {
        if !rest.starts_with('/') && rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err(NoUrl);
        }
        let path = match rest.strip_prefix("//") {
            Some(authority) if !scheme.is_empty() || !authority.starts_with('/') => {
                let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
                if !(authority.is_empty() && path.is_empty()) {
                    url.push_str("//");
                }
                push_authority(authority, &mut url)?;
                path
            }
            _ => rest,
        };
        url.push_str(&escaped_path(path).map_err(|_| NoUrl)?);
    }
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    if !fragment.is_empty() {
        url.push('#');
        url.push_str(&escaped_fragment(fragment)?);
    }
    Ok(url)
}

/// RFC 3986 section 3.1, as lenient as Go: what looks like no scheme is a path.
fn split_scheme(text: &str) -> Result<(&str, &str), NoUrl> {
    match text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))) {
        Some(0) if text.starts_with(':') => Err(NoUrl),
        Some(end) if text[end..].starts_with(':') && text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((&text[..end], &text[end + 1..]))
        }
        _ => Ok(("", text)),
    }
}

fn push_authority(authority: &str, url: &mut String) -> Result<(), NoUrl> {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if let Some(user) = user {
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name, Some(password)),
            None => (user, None),
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
        if !user.bytes().all(valid) {
            return Err(NoUrl);
        }
        url.push_str(&escape_except(&unescaped(name)?, b"-._~$&+,;="));
        if let Some(password) = password {
            url.push(':');
            url.push_str(&escape_except(&unescaped(password)?, b"-._~$&+,;="));
        }
        url.push('@');
    }
    let (name, port) = match host.rfind(['[', ']']) {
        Some(at) if host.starts_with('[') && host[at..].starts_with(']') => host.split_at(at + 1),
        Some(_) => return Err(NoUrl),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_is_valid = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    if !port_is_valid || literal.is_some_and(|address| address.parse::<Ipv6Addr>().is_err()) {
        return Err(NoUrl);
    }
    // ASCII has to stand for itself, and only the rest may be escaped.
    const PLAIN: &[u8] = b"-._~!$&'()*+,;=:[]<>\"";
    let valid = |(at, byte)| match byte {
        b'%' => name.as_bytes().get(at + 1).and_then(|digit| hex(*digit)).is_some_and(|digit| digit >= 8),
        byte => byte >= 0x80 || byte.is_ascii_alphanumeric() || PLAIN.contains(&byte),
    };
    if !name.bytes().enumerate().all(valid) {
        return Err(NoUrl);
    }
    let host = unescaped(host)?;
    url.push_str(&escape_except(&host, PLAIN));
    Ok(())
}

fn escaped_fragment(fragment: &str) -> Result<String, NoUrl> {
    let decoded = unescaped(fragment)?;
    let plain = b"-._~$&+,/:;=?@!()*";
    let valid = fragment.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || byte == b'%' || plain.contains(&byte) || b"'[]".contains(&byte)
    });
    Ok(if valid { fragment.to_owned() } else { escape_except(&decoded, plain) })
}

fn unescaped(text: &str) -> Result<Vec<u8>, NoUrl> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return Ok(decoded),
            [b'%', high, low, after @ ..] => {
                let byte = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low);
                decoded.push(byte.ok_or(NoUrl)?);
                after
            }
            [b'%', ..] => return Err(NoUrl),
            [byte, after @ ..] => {
                decoded.push(*byte);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Traefik 3.7 (Go 1.26) makes of them.
    #[test]
    fn urls_are_written_as_by_go() {
        for (text, expected) in [
            ("https://a.test/b?c=d#e", Some("https://a.test/b?c=d#e")),
            ("HTTPS://A.test:8080", Some("https://A.test:8080")),
            ("https://[::1]:80/new/x", Some("https://[::1]:80/new/x")),
            ("https://é.test/%2f%41 <>?x#a%20 b", Some("https://%C3%A9.test//A%20%3C%3E?x#a%20%20b")),
            ("https://h.test?a%20b", Some("https://h.test?a%20b")),
            ("https://h.test/a b%2fc[]?x#", Some("https://h.test/a%20b/c%5B%5D?x")),
            ("https://h.test/[]%2f", Some("https://h.test/[]%2f")),
            ("https:///nohost/x", Some("https:///nohost/x")),
            ("https:/one/x", Some("https:/one/x")),
            ("https://u:p%40@h/", Some("https://u:p%40@h/")),
            ("../rel/q?x=y;é", Some("../rel/q?x=y;é")),
            ("/local/a%20b%2Fc", Some("/local/a%20b%2Fc")),
            ("//h.test/x", Some("//h.test/x")),
            ("mailto:x y?abc", Some("mailto:x y?abc")),
            ("x:y/z?", Some("x:y/z?")),
            ("a:b:c/d", Some("a:b:c/d")),
            ("", Some("")),
            ("http://a.test/|", Some("http://a.test/%7C")),
            ("1a:b/d", None),
            (":a", None),
            ("-http://h.test", None),
            ("https://h.test:port/", None),
            ("https://h%41.test/", None),
            ("https://%C3%A9.test/", Some("https://%C3%A9.test/")),
            ("https://a:1:2/", None),
            ("https://[a]/", None),
            ("https://a[::1]/", None),
            ("https://Ex ample.test/", None),
            ("https://[::1", None),
            ("https://h.test/%zz", None),
            ("https://h.test/\t", None),
        ] {
            assert_eq!(normalised(text).ok().as_deref(), expected, "{text}");
        }
    }
}
