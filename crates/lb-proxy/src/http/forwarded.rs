//! `X-Forwarded-*`: what servers behind us learn about the client, and whose word is taken for it.
//!
//! Runs for every request. One pass over the fields finds out what there is; in the common case, a client that
//! sends none of them, the rest is five appended fields and no allocation. The semantics are Traefik's
//! (reference 3.1), except that everything an application could take for one of these fields is dropped when an
//! untrusted peer sends it: any `X-Forwarded-*`, `Forwarded`, and spellings such as `X_Forwarded_For`. So is, from
//! whomever, what it could take for the length of the body (`Content_Length`, `Transfer_Encoding`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use lb_config::static_config::TrustedPeers;
use lb_http1::{FieldName, Head};
use smallvec::SmallVec;

use crate::middleware::Certificates;

const REAL_IP: FieldName = FieldName::new("X-Real-Ip");
const FORWARDED_FOR: FieldName = FieldName::new("X-Forwarded-For");
const FORWARDED_HOST: FieldName = FieldName::new("X-Forwarded-Host");
const FORWARDED_PORT: FieldName = FieldName::new("X-Forwarded-Port");

/// Who sends the requests of one connection: the TCP peer, or the client that PROXY protocol names.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// `ip` as the fields hold it; formatted once per connection.
    pub(crate) ip_text: Box<str>,
    /// Whether the connection uses TLS.
    pub(crate) secure: bool,
    /// What the client has shown of itself in the TLS handshake.
    pub(crate) certificates: Option<Box<Certificates>>,
}

impl Peer {
    /// An IPv4 address that arrived on an IPv6 socket (`::ffff:192.0.2.1`) counts as the IPv4 address it is.
    pub(crate) fn new(ip: IpAddr, secure: bool) -> Self {
        let ip = ip.to_canonical();
        Self { ip, ip_text: ip.to_string().into(), secure, certificates: None }
    }
}

/// How an entry point treats forwarding fields.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedSettings {
    /// Field names that may survive although `Connection` names them.
    pub(crate) connection: Vec<String>,
    /// Name of this machine, for `X-Forwarded-Server`. Empty leaves the field out.
    server_name: String,
    /// `addXForwardedSchemeHeaders`
    scheme: bool,
    /// The fields that are the same for every request of a plain and of a TLS connection.
    lines: [Head; 2],
}

impl ForwardedSettings {
    pub(crate) fn new(connection: Vec<String>, server_name: String, scheme: bool) -> Self {
        let lines = [&b"http"[..], b"https"].map(|proto| {
            let mut lines = Head::new();
            lines.append("X-Forwarded-Proto", proto);
            if !server_name.is_empty() {
                lines.append("X-Forwarded-Server", server_name.as_bytes());
            }
            if scheme {
                set_scheme(&mut lines, proto);
            }
            lines
        });
        Self { connection, server_name, scheme, lines }
    }
}

/// The names that ingress-nginx has for `X-Forwarded-Proto`.
fn set_scheme(head: &mut Head, proto: &[u8]) {
    head.set("X-Forwarded-Scheme", proto);
    head.set("X-Scheme", proto);
}

/// Whether `peers` contains `ip`. Ask once per connection.
pub(crate) fn is_trusted(peers: &TrustedPeers, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    peers.insecure || peers.trusted_ips.iter().any(|net| net.contains(&ip))
}

/// What one pass over the fields finds.
#[derive(Default)]
struct Seen {
    /// Something that only a trusted peer may say.
    spoofable: bool,
    /// Some of it in a spelling that no proxy has.
    misspelt: bool,
    /// A length that is none to us, and may be one to a server.
    disguised: bool,
    connection: bool,
    upgrade: bool,
    forwarded_for: u32,
}

/// Rewrites the forwarding fields of a request as it came from `peer`, before anything looks at them: steps 1 to 8
/// of reference 3.1. An HTTP/2 request needs its `:authority` in `host` by now.
///
/// `Connection` is deleted with all it names, or says no more than which survivors and which upgrade it is about:
/// read [`lb_http1::keep_alive`], [`lb_http1::wants_upgrade`] and the framing before.
pub(crate) fn inbound(head: &mut Head, peer: &Peer, trusted: bool, settings: &ForwardedSettings) {
    let mut seen = Seen::default();
    for (name, _) in head.iter_bytes() {
        // The first letter dismisses most fields; any case, for it is only a first look.
        match name.first().map(|byte| byte | 0x20) {
            Some(b'x' | b'f') => {
                if is_spoofable(name) {
                    seen.spoofable = true;
                    seen.misspelt |= !is_spelt_by_a_proxy(name);
                }
                seen.forwarded_for += u32::from(name.eq_ignore_ascii_case(b"x-forwarded-for"));
            }
            Some(b'c') => {
                seen.connection |= name.eq_ignore_ascii_case(b"connection");
                seen.disguised |= is_disguised(name, b"content-length");
            }
            Some(b't') => seen.disguised |= is_disguised(name, b"transfer-encoding"),
            Some(b'u') => seen.upgrade |= name.eq_ignore_ascii_case(b"upgrade"),
            _ => {}
        }
    }

    if seen.spoofable && !trusted {
        head.retain(|name, _| !is_spoofable(name.as_bytes()));
    } else if seen.misspelt {
        // A trusted peer replaces what its clients say under the right name and passes on what else they made up.
        head.retain(|name, _| !is_spoofable(name.as_bytes()) || is_spelt_by_a_proxy(name.as_bytes()));
    }
    if seen.disguised {
        head.retain(|name, _| {
            let name = name.as_bytes();
            !is_disguised(name, b"content-length") && !is_disguised(name, b"transfer-encoding")
        });
    }
    let websocket = seen.upgrade
        && lb_http1::wants_upgrade(head).is_some()
        && lb_http1::list(head, "upgrade").any(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    let proto = match (peer.secure, websocket) {
        (true, true) => "wss",
        (true, false) => "https",
        (false, true) => "ws",
        (false, false) => "http",
    };
    if seen.spoofable && trusted {
        complete(head, peer, proto, &seen);
        if !settings.server_name.is_empty() {
            head.set("X-Forwarded-Server", settings.server_name.as_bytes());
        }
        if settings.scheme {
            let proto: SmallVec<[u8; 8]> = head.get("x-forwarded-proto").unwrap_or_default().into();
            set_scheme(head, &proto);
        }
    } else {
        head.append_named(REAL_IP, peer.ip_text.as_bytes());
        head.copy_fields_from(&settings.lines[usize::from(peer.secure)]);
        if websocket {
            head.set("X-Forwarded-Proto", proto.as_bytes());
            if settings.scheme {
                set_scheme(head, proto.as_bytes());
            }
        }
        if !head.append_part(FORWARDED_PORT, "host", port) {
            head.append_named(FORWARDED_PORT, default_port(peer.secure));
        }
        head.append_part(FORWARDED_HOST, "host", |host| (!host.is_empty()).then_some(0..host.len()));
    }
    if seen.connection {
        remove_connection(head, settings);
    }
}

/// Fills in what a trusted peer has left out, or left empty.
fn complete(head: &mut Head, peer: &Peer, proto: &str, seen: &Seen) {
    let host: SmallVec<[u8; 128]> = head.get("host").unwrap_or_default().into();
    let mut set_if_absent = |name: &str, value: &[u8]| {
        if head.get(name).is_none_or(<[u8]>::is_empty) {
            head.set(name, value);
        }
    };
    set_if_absent("X-Real-Ip", peer.ip_text.as_bytes());
    set_if_absent("X-Forwarded-Proto", proto.as_bytes());
    if !host.is_empty() {
        set_if_absent("X-Forwarded-Host", &host);
    }
    let secure = peer.secure || matches!(head.get("x-forwarded-proto"), Some(b"https" | b"wss"));
    if head.get("x-forwarded-port").is_none_or(<[u8]>::is_empty) {
        let port = port(&host).map_or(default_port(secure), |digits| &host[digits]);
        head.set("X-Forwarded-Port", port);
    }
    if seen.forwarded_for > 1 {
        let merged = join_forwarded_for(head);
        head.set("X-Forwarded-For", &merged);
    }
}

/// Adds the peer's address to `X-Forwarded-For`, last thing before the request leaves.
pub(crate) fn append_forwarded_for(head: &mut Head, peer: &Peer) {
    if !head.contains("x-forwarded-for") {
        head.append_named(FORWARDED_FOR, peer.ip_text.as_bytes());
        return;
    }
    let mut value = join_forwarded_for(head);
    if value.is_empty() {
        head.set("X-Forwarded-For", peer.ip_text.as_bytes());
        return;
    }
    value.extend_from_slice(b", ");
    value.extend_from_slice(peer.ip_text.as_bytes());
    head.set("X-Forwarded-For", &value);
}

/// All lines as one list, RFC 9110 section 5.2.
fn join_forwarded_for(head: &Head) -> SmallVec<[u8; 256]> {
    let mut joined = SmallVec::new();
    for line in head.get_all("x-forwarded-for").filter(|line| !line.is_empty()) {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(line);
    }
    joined
}

/// Whether an application behind us may take this field for the word of a proxy.
pub(crate) fn is_spoofable(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    name.get(..PREFIX.len()).is_some_and(|start| reads_as(start, PREFIX))
        || [&b"x-real-ip"[..], b"x-scheme", b"forwarded"].iter().any(|canonical| reads_as(name, canonical))
}

/// Whether a server may take this for the field that says where the body ends, which it is not: `Transfer_Encoding`
/// makes chunks for those that turn names into variables before they look for theirs. Nobody means well with it.
fn is_disguised(name: &[u8], canonical: &[u8]) -> bool {
    reads_as(name, canonical) && !is_spelt_by_a_proxy(name)
}

fn is_spelt_by_a_proxy(name: &[u8]) -> bool {
    name.iter().all(|&byte| byte == b'-' || byte.is_ascii_alphanumeric())
}

/// Whether an application may take one name for the other. CGI and its heirs make `_` of a hyphen, some servers of
/// every other special character as well: all of them count as hyphens here.
pub(crate) fn reads_as(name: &[u8], canonical: &[u8]) -> bool {
    name.len() == canonical.len()
        && name.iter().zip(canonical).all(|(byte, expected)| {
            byte.eq_ignore_ascii_case(expected)
                || !(byte.is_ascii_alphanumeric() || expected.is_ascii_alphanumeric())
        })
}

/// Where the port stands in a `Host` value: behind the last colon, for an IPv6 address ends with its bracket.
fn port(host: &[u8]) -> Option<Range<usize>> {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let start = host.len() - digits;
    let valid = matches!(digits, 1..=5) && start > 0 && host[start - 1] == b':';
    valid.then_some(start..host.len())
}

/// The port that a client asks by this `Host`.
pub(crate) fn port_text(host: &[u8], secure: bool) -> &[u8] {
    port(host).map_or(default_port(secure), |digits| &host[digits])
}

fn default_port(secure: bool) -> &'static [u8] {
    if secure { b"443" } else { b"80" }
}

/// What `Connection` may not have removed, whoever sends it: our own fields, and those that say where the request
/// goes and how long it is. RFC 9110 section 7.6.1 forbids naming the latter; `te` and `trailer` are dealt with
/// where the request leaves.
fn is_protected(name: &str) -> bool {
    const NAMES: [&str; 6] = ["connection", "content-length", "host", "te", "trailer", "transfer-encoding"];
    NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected)) || is_spoofable(name.as_bytes())
}

/// Step 8. Common values of the field, which name nothing, cost no allocation.
fn remove_connection(head: &mut Head, settings: &ForwardedSettings) {
    let upgrade = lb_http1::wants_upgrade(head).is_some();
    let is_option = |token: &str| {
        ["keep-alive", "close", "upgrade"].iter().any(|option| token.eq_ignore_ascii_case(option))
    };
    let mut kept = String::new();
    if lb_http1::connection_tokens(head).any(|token| !is_option(token)) {
        kept = remove_named(head, settings, upgrade);
    }
    if upgrade {
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str("Upgrade");
    }
    if kept.is_empty() {
        head.remove("connection");
    } else {
        head.set("Connection", kept.as_bytes());
    }
}

/// Deletes the fields that `Connection` names; returns the names that may survive, joined.
///
/// The work is linear in the size of the head, however many names a client invents.
#[cold]
fn remove_named(head: &mut Head, settings: &ForwardedSettings, upgrade: bool) -> String {
    let mut is_named: HashMap<String, bool> =
        head.iter().map(|(name, _)| (name.to_ascii_lowercase(), false)).collect();
    let mut kept = String::new();
    let mut lower = String::new();
    for token in lb_http1::connection_tokens(head) {
        lower.clear();
        lower.push_str(token);
        lower.make_ascii_lowercase();
        let Some(named) = is_named.get_mut(lower.as_str()).filter(|named| !**named) else {
            continue;
        };
        if is_protected(token) || (upgrade && lower == "upgrade") {
            continue;
        }
        if settings.connection.iter().any(|name| name.eq_ignore_ascii_case(token)) {
            // Marked once: a repeated name is kept once.
            if !kept.split(',').any(|name| name.eq_ignore_ascii_case(token)) {
                kept.push_str(if kept.is_empty() { "" } else { "," });
                kept.push_str(token);
            }
            continue;
        }
        *named = true;
    }
    head.retain(|name, _| !is_named.get(&name.to_ascii_lowercase()).copied().unwrap_or(false));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        let mut head = Head::new();
        for line in text.lines() {
            let (name, value) = line.split_once(':').unwrap();
            head.append(name.trim(), value.trim().as_bytes());
        }
        head
    }

    fn text(head: &Head) -> String {
        head.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value))).collect()
    }

    fn settings() -> ForwardedSettings {
        ForwardedSettings::new(vec!["X-Keep".into()], "lb1".into(), false)
    }

    fn rewritten(fields: &str, secure: bool, trusted: bool) -> String {
        let mut head = head(fields);
        inbound(&mut head, &Peer::new([192, 0, 2, 7].into(), secure), trusted, &settings());
        text(&head)
    }

    const OURS: &str = "X-Real-Ip: 192.0.2.7\nX-Forwarded-Proto: http\nX-Forwarded-Server: lb1\n\
                        X-Forwarded-Port: 80\nX-Forwarded-Host: a.test\n";

    #[test]
    fn a_plain_request_gets_our_fields() {
        for trusted in [true, false] {
            let expected = format!("Host: a.test\nAccept: *\n{OURS}");
            assert_eq!(rewritten("Host: a.test\nAccept: *", false, trusted), expected);
        }
    }

    #[test]
    fn proto_and_port_follow_the_connection() {
        let rows = [
            ("Host: a.test", true, "https", "443"),
            ("Host: a.test:8443", true, "https", "8443"),
            ("Host: a.test:8443", false, "http", "8443"),
            ("Host: [::1]:81", false, "http", "81"),
            ("Host: [::1]", false, "http", "80"),
            ("Host: a.test:", false, "http", "80"),
            ("Host: a.test:x", false, "http", "80"),
            ("Accept: *", false, "http", "80"),
            ("Host: a.test\nConnection: Upgrade\nUpgrade: WebSocket", false, "ws", "80"),
            ("Host: a.test\nConnection: keep-alive, Upgrade\nUpgrade: websocket", true, "wss", "443"),
            ("Host: a.test\nConnection: upgrade\nUpgrade: foo, WebSocket", false, "ws", "80"),
            ("Host: a.test\nConnection: upgrade\nUpgrade: websocket2", false, "http", "80"),
            ("Host: a.test\nUpgrade: websocket", true, "https", "443"),
            ("Host: a.test\nConnection: Upgrade\nUpgrade: other", false, "http", "80"),
        ];
        for (fields, secure, proto, port) in rows {
            let mut head = head(fields);
            inbound(&mut head, &Peer::new([192, 0, 2, 7].into(), secure), false, &settings());
            assert_eq!(head.get_str("x-forwarded-proto"), Some(proto), "{fields}");
            assert_eq!(head.get_str("x-forwarded-port"), Some(port), "{fields}");
        }
    }

    #[test]
    fn the_scheme_has_two_more_names_where_asked_for() {
        for (fields, secure, trusted, scheme) in [
            ("Host: a.test", false, false, "http"),
            ("Host: a.test\nX-Scheme: lie\nX-Forwarded-Proto: lie", true, false, "https"),
            ("Host: a.test\nX-Scheme: lie\nX-Forwarded-Proto: https", false, true, "https"),
            ("Host: a.test\nConnection: Upgrade\nUpgrade: websocket", true, false, "wss"),
        ] {
            let settings = ForwardedSettings::new(Vec::new(), "lb1".into(), true);
            let mut head = head(fields);
            inbound(&mut head, &Peer::new([192, 0, 2, 7].into(), secure), trusted, &settings);
            for name in ["x-forwarded-proto", "x-forwarded-scheme", "x-scheme"] {
                assert_eq!((head.get_str(name), head.count(name)), (Some(scheme), 1), "{fields}: {name}");
            }
        }
    }

    #[test]
    fn an_untrusted_peer_cannot_speak_for_others() {
        let lies = [
            "X-Forwarded-For",
            "x-forwarded-proto",
            "X-FORWARDED-HOST",
            "X-Forwarded-Port",
            "X-Forwarded-Server",
            "X-Forwarded-Uri",
            "X-Forwarded-Method",
            "X-Forwarded-Prefix",
            "X-Forwarded-Scheme",
            "X-Forwarded-Tls-Client-Cert",
            "X-Forwarded-Tls-Client-Cert-Info",
            "X-Forwarded-Ssl",
            "X-Forwarded-User",
            "X-Scheme",
            "X-Real-Ip",
            "Forwarded",
            "X_Forwarded_For",
            "x_real_ip",
            "X_Scheme",
            "X-Forwarded_Proto",
            "x.forwarded.host",
            "X!Forwarded~Tls_Client-Cert",
        ];
        for lie in lies {
            let fields = format!("Host: a.test\n{lie}: 10.0.0.1\n{lie}: evil");
            assert_eq!(rewritten(&fields, false, false), format!("Host: a.test\n{OURS}"), "{lie}");
        }
        let kept =
            "Host: a.test\nX-Forward: 1\nX-Request-Id: 2\nX-Forwarded: 3\nForwarded-For: 4\nxRealIp: 5\n";
        assert_eq!(rewritten(kept, false, false), format!("{kept}{OURS}"));
    }

    #[test]
    fn a_trusted_peer_is_believed_and_completed() {
        let fields = "Host: a.test\nX-Forwarded-For: 10.0.0.1\nx-real-ip: 10.0.0.1\nX-Forwarded-Proto: https\n\
                      X-Forwarded-For: 10.0.0.2\nForwarded: for=10.0.0.1\nX_Forwarded_For: 1\n\
                      X-Forwarded-Tls_Client_Cert: 2\nX_Own: 3\nX-Forwarded-Server: other\nX-Forwarded-Host:\n";
        let expected = "Host: a.test\nX-Forwarded-For: 10.0.0.1, 10.0.0.2\nx-real-ip: 10.0.0.1\n\
                        X-Forwarded-Proto: https\nForwarded: for=10.0.0.1\nX_Own: 3\n\
                        X-Forwarded-Server: lb1\nX-Forwarded-Host: a.test\nX-Forwarded-Port: 443\n";
        assert_eq!(rewritten(fields, false, true), expected);
    }

    #[test]
    fn a_length_in_disguise_goes_whoever_sends_it() {
        let fields = "Host: a.test\nContent_Length: 5\nContent-Length: 3\ntransfer_encoding: chunked\n\
                      Transfer.Encoding: chunked\nContent_Lengths: 1\nTransfer-Coding: 2\nContent_Type: 3";
        let kept =
            "Host: a.test\nContent-Length: 3\nContent_Lengths: 1\nTransfer-Coding: 2\nContent_Type: 3\n";
        for trusted in [true, false] {
            assert_eq!(rewritten(fields, false, trusted), format!("{kept}{OURS}"));
        }
    }

    #[test]
    fn fields_named_by_connection_go_and_ours_stay() {
        let rows = [
            ("Connection: keep-alive", ""),
            ("Connection: close\nAccept: *", "Accept: *\n"),
            ("Connection: X-Hop, x-other\nX-Hop: 1\nX-Other: 2\nX-Third: 3", "X-Third: 3\n"),
            ("Connection: X-Keep, X-Hop, x-keep\nX-Hop: 1\nX-Keep: 2", "Connection: X-Keep\nX-Keep: 2\n"),
            ("Connection: Upgrade\nUpgrade: h", "Connection: Upgrade\nUpgrade: h\n"),
            (
                "Connection: X-Keep, Upgrade, X-Hop\nUpgrade: h\nX-Keep: 1\nX-Hop: 2",
                "Connection: X-Keep,Upgrade\nUpgrade: h\nX-Keep: 1\n",
            ),
            ("Connection: X-A\nX-A: 1\nConnection: X-B\nX-B: 2", ""),
            (
                "Connection: Content-Length, Transfer-Encoding, TE, Trailer, Connection\nContent-Length: 1\nTE: trailers",
                "Content-Length: 1\nTE: trailers\n",
            ),
        ];
        for (fields, expected) in rows {
            for trusted in [true, false] {
                let fields = format!("Host: a.test\n{fields}");
                let expected = format!("Host: a.test\n{expected}{OURS}");
                assert_eq!(rewritten(&fields, false, trusted), expected, "{fields}");
            }
        }
        let attack = "Host: a.test\nConnection: host, x-real-ip, X-Forwarded-Proto, x-forwarded-port, \
                      X-Forwarded-Host, X-Forwarded-Server, x-forwarded-for, forwarded";
        assert_eq!(rewritten(attack, false, false), format!("Host: a.test\n{OURS}"));
    }

    #[test]
    fn the_peer_comes_last_in_forwarded_for() {
        let rows = [
            ("", "X-Forwarded-For: 2001:db8::1\n"),
            ("X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.1, 2001:db8::1\n"),
            ("X-Forwarded-For: a\nX-Forwarded-For: b, c", "X-Forwarded-For: a, b, c, 2001:db8::1\n"),
            ("X-Forwarded-For:", "X-Forwarded-For: 2001:db8::1\n"),
        ];
        for (fields, expected) in rows {
            let mut head = head(fields);
            append_forwarded_for(&mut head, &Peer::new("2001:db8::1".parse().unwrap(), false));
            assert_eq!(text(&head), expected, "{fields}");
        }
    }

    #[test]
    fn trust_is_a_matter_of_networks() {
        let peers = TrustedPeers {
            insecure: false,
            trusted_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        };
        let rows = [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::5", true),
            ("::1", false),
        ];
        for (ip, expected) in rows {
            assert_eq!(is_trusted(&peers, ip.parse().unwrap()), expected, "{ip}");
        }
        assert!(!is_trusted(&TrustedPeers::default(), [127, 0, 0, 1].into()));
        assert!(is_trusted(&TrustedPeers { insecure: true, trusted_ips: Vec::new() }, [127, 0, 0, 1].into()));
        assert_eq!(&*Peer::new("::ffff:10.1.2.3".parse().unwrap(), false).ip_text, "10.1.2.3");
    }
}
