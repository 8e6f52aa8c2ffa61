//! What concerns one connection and not the message: RFC 9110 section 7.6.1 and 7.8, RFC 9112 section 9.

use std::time::Duration;

use crate::chars::trim_ows;
use crate::field::{bit, key};
use crate::head::{Head, Version};

/// The members of the comma-separated lists under `name` (RFC 9110 section 5.6.1), empty ones left out, as are
/// those that are not UTF-8.
pub fn list<'a>(head: &'a Head, name: &'a str) -> impl Iterator<Item = &'a str> {
    head.get_all(name).flat_map(members).filter_map(|member| str::from_utf8(member).ok())
}

fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows).filter(|member| !member.is_empty())
}

/// The options in the Connection fields.
pub fn connection_tokens(head: &Head) -> impl Iterator<Item = &str> {
    list(head, "connection")
}

fn has_connection_token(head: &Head, token: &str) -> bool {
    connection_tokens(head).any(|option| option.eq_ignore_ascii_case(token))
}

/// Whether the connection can carry another message after this one, as far as its head says: RFC 9112 section 9.3.
pub fn keep_alive(head: &Head) -> bool {
    match head.version() {
        Version::Http2 | Version::Http3 => true,
        Version::Http11 => !has_connection_token(head, "close"),
        Version::Http10 => has_connection_token(head, "keep-alive") && !has_connection_token(head, "close"),
    }
}

/// How long the sender keeps the connection while nothing is asked on it, where it says so. The field is that of RFC 2068
/// section 19.7.1, which Node.js, Apache and Tomcat send.
pub fn keep_alive_timeout(head: &Head) -> Option<Duration> {
    list(head, "keep-alive").find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let named = name.trim_ascii_end().eq_ignore_ascii_case("timeout");
        let seconds: u32 = seconds.trim_ascii_start().parse().ok().filter(|_| named)?;
        Some(Duration::from_secs(seconds.into()))
    })
}

/// What the sender wants to switch to: the first Upgrade value, if Connection says so too. RFC 9110 section 7.8:
/// never in HTTP/1.0. Nor ever to `h2c`: RFC 9113 section 3.1 has given that up, and a server that still agreed
/// would take further requests through the tunnel that nobody has checked.
pub fn wants_upgrade(head: &Head) -> Option<&str> {
    let protocol = head.get_str("upgrade").filter(|protocol| !protocol.is_empty())?;
    let is_h2c = |name: &str| name.eq_ignore_ascii_case("h2c");
    let wanted = head.version() == Version::Http11
        && has_connection_token(head, "upgrade")
        && !list(head, "upgrade").any(is_h2c);
    wanted.then_some(protocol)
}

/// Whether the client waits for `100 Continue` before it sends the body: RFC 9110 section 10.1.1, never in HTTP/1.0.
pub fn expects_continue(head: &Head) -> bool {
    head.version() != Version::Http10
        && list(head, "expect").any(|expectation| expectation.eq_ignore_ascii_case("100-continue"))
}

/// Removed from each message that is passed on: RFC 9110 section 7.6.1, and what else speaks to one connection only.
const HOP_BY_HOP: [&[u8]; 9] = [
    b"connection",
    b"http2-settings",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
];

const HOP_BY_HOP_BITS: u64 = {
    let (mut bits, mut i) = (0, 0);
    while i < HOP_BY_HOP.len() {
        bits |= bit(key(HOP_BY_HOP[i]));
        i += 1;
    }
    bits
};

/// A client may not use Connection to take these from the server behind: they say who asks, for what, and how long
/// the message is.
fn is_end_to_end(name: &[u8]) -> bool {
    let starts_with =
        |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    const NAMES: [&[u8]; 4] = [b"host", b"content-length", b"forwarded", b"x-real-ip"];
    starts_with(b"x-forwarded-") || NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected))
}

/// Chosen. Honest senders name one to three; the bound keeps the work linear in the size of the head.
const MAX_NAMED_FIELDS: usize = 32;

/// Removes what must not be passed on to the next connection: the fields of the connection itself and those that
/// Connection names, the Trailer announcement excepted (a field that Connection names stays if it says who asks, for what, or how long the message is). Read what they say before: [`keep_alive`], [`wants_upgrade`],
/// the framing, `TE: trailers`.
pub fn remove_hop_by_hop(head: &mut Head) {
    if !head.may_contain(HOP_BY_HOP_BITS) {
        return;
    }
    remove_named_by_connection(head);
    let Head { fields, buffer, .. } = head;
    fields.retain(|field| bit(field.key()) & HOP_BY_HOP_BITS == 0 || !is_hop_by_hop(field.name_of(buffer)));
}

fn remove_named_by_connection(head: &mut Head) {
    const KEY: u8 = key(b"connection");
    if !head.may_contain(const { bit(KEY) }) {
        return;
    }
    // Hardly ever does an option name a field that is there: `close` and `keep-alive` end here.
    let mut named: [&[u8]; MAX_NAMED_FIELDS] = [b""; MAX_NAMED_FIELDS];
    let mut count = 0;
    for field in head.fields.iter().filter(|field| field.is(&head.buffer, b"connection", KEY)) {
        for option in members(field.value_of(&head.buffer)) {
            let matters =
                head.may_contain(bit(key(option))) && !is_hop_by_hop(option) && !is_end_to_end(option);
            if matters && count < MAX_NAMED_FIELDS {
                named[count] = option;
                count += 1;
            }
        }
    }
    let named = &named[..count];
    if !named.is_empty() {
        let buffer = &head.buffer;
        head.fields.retain(|field| {
            let name = field.name_of(buffer);
            !named.iter().any(|option| name.eq_ignore_ascii_case(option))
        });
    }
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head of this version with these fields, written `name: value` and joined with ` | `.
    fn head(version: Version, fields: &str) -> Head {
        let mut head = Head::new();
        head.set_version(version);
        for field in fields.split(" | ").filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(": ").unwrap();
            head.append(name, value.as_bytes());
        }
        head
    }

    #[test]
    fn persistence_follows_version_and_options() {
        for (fields, http10, http11) in [
            ("", false, true),
            ("Connection: keep-alive", true, true),
            ("Connection: Keep-Alive, close", false, false),
            ("connection: ,\t CLOSE ,", false, false),
            ("Connection: x | Connection: close", false, false),
            ("Connection: closed", false, true),
            ("Proxy-Connection: keep-alive", false, true),
        ] {
            assert_eq!(keep_alive(&head(Version::Http10, fields)), http10, "{fields}");
            assert_eq!(keep_alive(&head(Version::Http11, fields)), http11, "{fields}");
            assert!(keep_alive(&head(Version::Http2, fields)));
        }
    }

    #[test]
    fn a_connection_is_kept_as_long_as_its_sender_says() {
        for (fields, seconds) in [
            ("", None),
            ("Keep-Alive: timeout=5", Some(5)),
            ("Keep-Alive: max=100,TIMEOUT = 15 | keep-alive: timeout=3", Some(15)),
            ("Keep-Alive: timeout=0", Some(0)),
            ("Keep-Alive: 300", None),
            ("Keep-Alive: timeout=, timeout=-1, timeout=x, timeouts=1, timeout=4294967296", None),
            ("Connection: keep-alive", None),
        ] {
            let timeout = keep_alive_timeout(&head(Version::Http11, fields));
            assert_eq!(timeout, seconds.map(Duration::from_secs), "{fields}");
        }
    }

    #[test]
    fn an_upgrade_is_wanted_only_if_both_fields_say_so() {
        for (fields, expected) in [
            ("Connection: Upgrade | Upgrade: websocket", Some("websocket")),
            ("Connection: keep-alive, upgrade | Upgrade: a, b", Some("a, b")),
            ("Upgrade: websocket", None),
            ("Connection: upgrade", None),
            ("Connection: upgrade | Upgrade: ", None),
            ("Connection: Upgrade, HTTP2-Settings | Upgrade: h2c | HTTP2-Settings: x", None),
            ("Connection: upgrade | Upgrade: websocket, H2C", None),
            ("Connection: upgrade | Upgrade: websocket | Upgrade: h2c", None),
        ] {
            assert_eq!(wants_upgrade(&head(Version::Http11, fields)), expected, "{fields}");
            assert_eq!(wants_upgrade(&head(Version::Http10, fields)), None, "{fields}");
        }
    }

    #[test]
    fn only_one_expectation_is_known() {
        assert!(expects_continue(&head(Version::Http11, "Expect: 100-Continue")));
        assert!(!expects_continue(&head(Version::Http11, "Expect: 200-ok")));
        assert!(!expects_continue(&head(Version::Http10, "Expect: 100-continue")));
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        for (before, after) in [
            ("Host: a | Accept: b", "Host: a | Accept: b"),
            ("Connection: close | A: 1", "A: 1"),
            (
                "A: 1 | Connection: x-private, keep-alive | X-Private: 1 | x-private: 2 | Keep-Alive: 5",
                "A: 1",
            ),
            ("Connection: a | B: 1 | Connection: ,b,, | A: 2 | C: 3", "C: 3"),
            (
                "TE: trailers | Transfer-Encoding: chunked | Upgrade: x | Proxy-Connection: x | HTTP2-Settings: x | \
                 Proxy-Authenticate: x | Proxy-Authorization: x | Trailer: y",
                "Trailer: y",
            ),
            (
                "Connection: host, content-length, X-Forwarded-For, x-real-ip, forwarded | Host: a | Content-Length: 1 | \
                 x-forwarded-for: 1 | X-Real-Ip: 1 | Forwarded: 1",
                "Host: a | Content-Length: 1 | x-forwarded-for: 1 | X-Real-Ip: 1 | Forwarded: 1",
            ),
        ] {
            let mut head = head(Version::Http11, before);
            remove_hop_by_hop(&mut head);
            let fields =
                head.iter().map(|(name, value)| format!("{name}: {}", str::from_utf8(value).unwrap()));
            assert_eq!(fields.collect::<Vec<_>>().join(" | "), after);
        }
    }
}
