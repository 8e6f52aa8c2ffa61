//! Request targets and authorities: RFC 9112 section 3.2, RFC 3986 section 3.2.

use std::net::Ipv6Addr;
use std::ops::Range;

use crate::chars::{is_reg_name_byte, is_target_byte};

/// The form a request target has, RFC 9112 section 3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Origin,
    /// With the place of the authority in the target.
    Absolute(Range<usize>),
    Authority,
    Asterisk,
}

/// The form of `target` in a request with this method; `None` if it is no valid target for it.
///
/// Expects bytes that are all [`is_target_byte`].
pub(crate) fn form(method: &[u8], target: &[u8]) -> Option<Form> {
    if method == b"CONNECT" {
        let has_port = |authority: &[u8]| authority.last().is_some_and(u8::is_ascii_digit);
        return (split_host_port(target)?.1.is_some_and(has_port)).then_some(Form::Authority);
    }
    match target {
        [b'/', ..] => has_valid_path(target).then_some(Form::Origin),
        b"*" => (method == b"OPTIONS").then_some(Form::Asterisk),
        _ => {
            let authority = authority_in_absolute(target)?;
            let valid =
                is_authority_bytes(&target[authority.clone()]) && has_valid_path(&target[authority.end..]);
            valid.then_some(Form::Absolute(authority))
        }
    }
}

/// Where the authority stands if `target` begins with `http://` or `https://`. It may be empty or invalid.
pub(crate) fn authority_in_absolute(target: &[u8]) -> Option<Range<usize>> {
    let starts_with =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let start = if starts_with(b"http://") {
        7
    } else if starts_with(b"https://") {
        8
    } else {
        return None;
    };
    let rest = &target[start..];
    let len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    Some(start..start + len)
}

/// Whether `target` has only bytes that may stand in a request target: visible ASCII without `#`.
/// For targets from HTTP/2, before [`Head::set_target`](crate::Head::set_target) would encode the others.
pub fn is_target(target: &str) -> bool {
    !target.is_empty() && target.bytes().all(is_target_byte)
}

/// Whether `text` is a host, perhaps with a port, as the Host field holds it: a `reg-name` or IPv4 address, or an IPv6
/// address in brackets. Neither the host nor anything else is empty, except the port after its colon.
pub fn is_authority(text: &str) -> bool {
    is_authority_bytes(text.as_bytes())
}

pub(crate) fn is_authority_bytes(authority: &[u8]) -> bool {
    split_host_port(authority).is_some()
}

/// Host, and port digits if there is a colon; `None` unless both are valid.
fn split_host_port(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_len = if authority.first() == Some(&b'[') {
        let close = memchr::memchr(b']', authority)?;
        // Neither zone identifiers nor IPvFuture: no server expects them in Host.
        str::from_utf8(&authority[1..close]).ok()?.parse::<Ipv6Addr>().ok()?;
        close + 1
    } else {
        let mut escaped = false;
        let is_end = |&byte: &u8| {
            escaped |= byte == b'%';
            !is_reg_name_byte(byte)
        };
        let len = authority.iter().position(is_end).unwrap_or(authority.len());
        if len == 0 || (escaped && !has_valid_escapes(&authority[..len])) {
            return None;
        }
        len
    };
    let (host, rest) = authority.split_at(host_len);
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] => is_port(port).then_some((host, Some(port))),
        _ => None,
    }
}

/// `*DIGIT` (RFC 3986 section 3.2.3) that fits a port number.
fn is_port(digits: &[u8]) -> bool {
    let mut port = 0_u32;
    digits.len() <= 5
        && digits.iter().all(|&digit| {
            port = port * 10 + u32::from(digit.wrapping_sub(b'0'));
            digit.is_ascii_digit()
        })
        && port <= 65_535
}

/// The path must be decodable; the query is the server's business, as it is in Go.
fn has_valid_path(from_path: &[u8]) -> bool {
    match memchr::memchr(b'%', from_path) {
        None => true,
        Some(_) => {
            let len = memchr::memchr(b'?', from_path).unwrap_or(from_path.len());
            has_valid_escapes(&from_path[..len])
        }
    }
}

fn has_valid_escapes(text: &[u8]) -> bool {
    memchr::memchr_iter(b'%', text).all(|at| {
        let digits = text.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_method() {
        let absolute = |range| Some(Form::Absolute(range));
        for (method, target, expected) in [
            ("GET", "/", Some(Form::Origin)),
            ("GET", "//a/../b;c?%zz|{}", Some(Form::Origin)), // the query is not ours to judge
            ("GET", "/%41%2f", Some(Form::Origin)),
            ("GET", "/%4", None),
            ("GET", "/%zz?", None),
            ("GET", "", None),
            ("GET", "a", None),
            ("GET", "*", None),
            ("OPTIONS", "*", Some(Form::Asterisk)),
            ("OPTIONS", "*/", None),
            ("OPTIONS", "/", Some(Form::Origin)),
            ("GET", "http://h", absolute(7..8)),
            ("GET", "HTTPS://h:8/x", absolute(8..11)),
            ("GET", "http://h?x=http://i/", absolute(7..8)),
            ("GET", "http://", None),
            ("GET", "http:///x", None),
            ("GET", "http:h", None),
            ("GET", "http://u@h/", None),
            ("GET", "http://h/%", None),
            ("GET", "ftp://h/", None),
            ("GET", "h:443", None),
            ("CONNECT", "h:443", Some(Form::Authority)),
            ("CONNECT", "[::1]:443", Some(Form::Authority)),
            ("CONNECT", "h", None),
            ("CONNECT", "h:", None),
            ("CONNECT", "/", None),
            ("CONNECT", "http://h:1/", None),
        ] {
            assert_eq!(form(method.as_bytes(), target.as_bytes()), expected, "{method} {target}");
        }
    }

    #[test]
    fn only_hosts_with_at_most_a_port_are_authorities() {
        for valid in "a a.b a-b_c 1.2.3.4 a: a:0 a:65535 a:00080 [::1] [::1]:8 [::ffff:1.2.3.4] xn--e. %41 !$&'()*+,;=~".split(' ') {
            assert!(is_authority(valid), "{valid}");
        }
        for invalid in [
            "",
            ":",
            ":80",
            "a:65536",
            "a:000080",
            "a:+1",
            "a:8 ",
            "a:b",
            "a:1:2",
            "a b",
            "a/b",
            "a@b",
            "a,b:c",
            "a#",
            "a?",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]8",
            "[::1%25eth0]",
            "[v1.a]",
            "[1.2.3.4]",
            "[::1]]",
            "%",
            "%4",
            "%g1",
            "a\\b",
            "\u{e9}",
            "a\t",
            "\0",
        ] {
            assert!(!is_authority(invalid), "{invalid:?}");
        }
    }
}
