//! Forwarding fields: two bytes of settings, then a request head from a peer that is trusted, or is not.
#![no_main]

use lb_config::static_config::AliasHeaders;
use lb_http1::{
    Head, Limits, Parsed, connection_tokens, parse_request, remove_hop_by_hop, request_framing, write_request,
};
use libfuzzer_sys::fuzz_target;

use forwarded::{ForwardedSettings, Peer, append_forwarded_for, inbound};
use normalise::alias_headers;

// The files as they stand: lb-proxy as a whole would bring the C of a TLS library along.
#[path = "../../crates/lb-proxy/src/http/forwarded.rs"]
#[allow(dead_code, reason = "who is trusted is an argument here")]
mod forwarded;
#[path = "../../crates/lb-proxy/src/http/normalise.rs"]
#[allow(dead_code, reason = "targets have a fuzz target of their own")]
mod normalise;

/// Nobody shows a certificate here.
mod middleware {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Certificates;
}

const LIMITS: Limits = Limits { max_head_bytes: 4096, max_fields: 64 };
const OURS: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "host",
];

/// How an application that has learnt its names from CGI reads one.
fn cgi(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn speaks_for_a_proxy(name: &str) -> bool {
    let name = cgi(name);
    name.starts_with("x-forwarded-") || ["x-real-ip", "forwarded"].contains(&&*name)
}

fn values(head: &Head, name: &str) -> Vec<String> {
    head.get_all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[flags, trust], request)) = bytes.split_first_chunk() else { return };
    let trusted = trust == b'T';
    let mut head = Head::new();
    if !matches!(parse_request(request, &mut head, &LIMITS), Ok(Parsed::Complete(_))) {
        return;
    }
    let aliases = [AliasHeaders::Keep, AliasHeaders::Delete, AliasHeaders::Reject][usize::from(flags) % 3];
    if alias_headers(&mut head, aliases, false).is_err() {
        return;
    }
    if aliases != AliasHeaders::Keep {
        assert!(
            head.iter()
                .all(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        );
    }
    head.make_origin_form();
    let framing = request_framing(&mut head);
    let before = head.clone();

    let secure = flags & 8 != 0;
    let peer = Peer::new([192, 0, 2, 7].into(), secure);
    // An operator may let a field through that Connection names.
    let settings = ForwardedSettings::new(vec!["X-Keep".into()], "lb1".into(), false);
    inbound(&mut head, &peer, trusted, &settings);
    // Middlewares run here; then the request leaves.
    remove_hop_by_hop(&mut head);
    append_forwarded_for(&mut head, &peer);

    // Where it goes and how long it is are no matter for Connection.
    assert_eq!(values(&head, "host"), values(&before, "host"));
    assert_eq!(values(&head, "content-length"), values(&before, "content-length"));
    let chunked = before.contains("transfer-encoding");
    assert!(chunked || request_framing(&mut head) == framing, "{before:?} became {head:?}");

    // Nor does the server find another length than we did.
    for (name, _) in head.iter() {
        let read_as = cgi(name);
        let frames = ["content-length", "transfer-encoding"].contains(&&*read_as);
        assert!(!frames || name.eq_ignore_ascii_case(&read_as), "{name} came through");
    }

    // Each of our fields is there once, whatever Connection says.
    let has_host = before.get("host").is_some_and(|host| !host.is_empty());
    for name in OURS.iter().filter(|name| has_host || !name.ends_with("host")) {
        let found = values(&head, name).len();
        assert!(found == 1 || (trusted && found > 0), "{name} {found} times in {head:?}");
    }
    let of_peer = |name: &str| values(&head, name) == ["192.0.2.7"];
    if trusted {
        // The chain goes on where the peer has left it, and its end is ours.
        let chain = values(&head, "x-forwarded-for").concat();
        assert!(chain.ends_with("192.0.2.7"), "{chain:?}");
        let claimed: Vec<_> =
            values(&before, "x-forwarded-for").into_iter().filter(|line| !line.is_empty()).collect();
        let expected = [&claimed[..], &["192.0.2.7".to_owned()]].concat().join(", ");
        assert_eq!(chain, expected, "{before:?}");
    } else {
        assert!(of_peer("x-forwarded-for") && of_peer("x-real-ip"), "{head:?}");
        let proto = head.get_str("x-forwarded-proto").unwrap_or_default();
        assert!([["http", "ws"], ["https", "wss"]][usize::from(secure)].contains(&proto), "{proto}");
        for (name, _) in head.iter().filter(|(name, _)| speaks_for_a_proxy(name)) {
            assert!(OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)), "{name} came through");
        }
        assert_eq!(
            values(&head, "x-forwarded-host"),
            values(&before, "host").into_iter().filter(|_| has_host).collect::<Vec<_>>()
        );
    }
    // What Connection names does not reach the server, unless it is needed there or the operator wants it.
    for token in connection_tokens(&before) {
        let kept = ["host", "content-length", "x-keep", "trailer"].contains(&&*token.to_ascii_lowercase());
        assert!(
            kept || speaks_for_a_proxy(token) || cgi(token) == "x-scheme" || !head.contains(token),
            "{token} in {head:?}"
        );
    }

    // And the server reads the very head that we have made.
    let mut out = Vec::new();
    write_request(&head, &mut out);
    let mut again = Head::new();
    let limits = Limits { max_head_bytes: out.len(), max_fields: 100 };
    if has_host && head.method() != "CONNECT" && head.version() == lb_http1::Version::Http11 {
        assert_eq!(parse_request(&out, &mut again, &limits), Ok(Parsed::Complete(out.len())), "{head:?}");
        assert!(again.iter().eq(head.iter()));
    }
});
