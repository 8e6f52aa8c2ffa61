//! Request targets and hosts: what middlewares, rules and servers are shown must be one and the same thing.
#![no_main]

use std::borrow::Cow;

use lb_config::static_config::EncodedCharacters;
use lb_core::route::routing_path;
use libfuzzer_sys::fuzz_target;

use normalise::{Policy, canonical_host, denied_encoded_character, normalise_target, split_target};

// The file as it stands: lb-proxy as a whole would bring the C of a TLS library along.
#[path = "../../crates/lb-proxy/src/http/normalise.rs"]
#[allow(dead_code, unused_imports, reason = "the target uses what concerns targets and hosts")]
mod normalise;

const STRICT: EncodedCharacters = EncodedCharacters {
    slash: false,
    back_slash: false,
    null_character: false,
    semicolon: false,
    percent: false,
    question_mark: false,
    hash: false,
};

fn normal<'a>(target: &'a str, policy: &Policy) -> Option<Cow<'a, str>> {
    let normal = normalise_target(target.as_bytes(), policy).ok()?;
    Some(normal.map_or(Cow::Borrowed(target), Cow::Owned))
}

fuzz_target!(|text: &str| {
    let host = canonical_host(text);
    assert_eq!(host, host.to_ascii_lowercase());
    if lb_http1::is_authority(text) {
        // Case and port make no difference, and nothing of them is left.
        assert_eq!(canonical_host(&text.to_ascii_uppercase()), host);
        assert!(
            !host.contains(['[', ']']) && host.parse::<std::net::Ipv6Addr>().is_ok() == host.contains(':'),
            "{host}"
        );
        if !text.contains(':') || text.ends_with(']') {
            assert_eq!(canonical_host(&format!("{text}:8080")), host);
        }
    }

    for sanitize_path in [true, false] {
        let policy = Policy { sanitize_path, encode_query_semicolons: !sanitize_path };
        let Some(target) = normal(text, &policy) else { continue };
        // The server parses what we send as we have parsed it, and a second proxy changes nothing.
        assert!(lb_http1::is_target(&target), "{target:?}");
        assert_eq!(normalise_target(target.as_bytes(), &policy), Ok(None), "{text:?} became {target:?}");
        let (path, query) = split_target(&target);
        assert!(!query.contains(';'), "{target:?}");
        if path == "*" {
            continue;
        }
        assert!(
            path.starts_with('/') && !path.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}', '#']),
            "{path:?}"
        );
        if sanitize_path {
            assert!(!path.contains("//"), "{path:?}");
            assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?}");
        }
        // Rules see the path decoded; an encoded slash or dot is not a way around one of them.
        let routed = routing_path(path);
        assert_eq!(
            routed.matches('/').count(),
            path.matches('/').count(),
            "{path:?} is routed as {routed:?}"
        );
        let segments = |path: &str| path.split('/').filter(|segment| matches!(*segment, "." | "..")).count();
        assert_eq!(segments(&routed), segments(path), "{path:?} is routed as {routed:?}");
        assert_eq!(routing_path(&routed), routed, "{path:?} is routed as {routed:?}");
        if !denied_encoded_character(path, &STRICT) {
            for escape in ["%2F", "%5C", "%00", "%3B", "%25", "%3F", "%23"] {
                assert!(!path.contains(escape), "{path:?}");
            }
        }
    }
});
