//! Lengths of time, amounts of memory and counts, alone and as values of a configuration.
#![no_main]

use std::time::Duration;

use lb_config::dynamic::Middleware;
use lb_config::{Context, parse_dynamic};
use libfuzzer_sys::fuzz_target;

// The files as they stand: lb-config keeps them to itself.
#[path = "../../crates/lb-config/src/duration.rs"]
#[allow(dead_code, reason = "what reads and prints is of interest")]
mod duration;
#[path = "../../crates/lb-config/src/size.rs"]
mod size;

/// The only middleware of a file in which `value` stands as a string, if the file has no error.
fn configured(kind: &str, key: &str, value: &str) -> Option<Middleware> {
    let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("http: {{middlewares: {{m: {{{kind}: {{{key}: \"{quoted}\"}}}}}}}}");
    let loaded = parse_dynamic("a.yml", &text, "file", &Context::default()).ok()?;
    loaded.strict().ok()?.config.middlewares.into_values().next()
}

fuzz_target!(|text: &str| {
    let parsed = duration::parse(text);
    if let Ok(span) = parsed {
        match span.to_duration() {
            None => assert!(span.is_negative() && text.starts_with('-')),
            Some(length) => {
                assert_eq!(span.is_positive(), !length.is_zero());
                // At most Go's 292 years, and printed so that it reads the same.
                assert!(length <= Duration::from_nanos(i64::MAX as u64));
                let shown = duration::show(length);
                assert_eq!(duration::parse(&shown), Ok(span), "{text:?} is shown as {shown:?}");
            }
        }
    }
    let size = size::parse(text);
    if let Ok(bytes) = size {
        assert_eq!(size::parse(&bytes.to_string()), Ok(bytes), "{text:?}");
    }
    // Without a unit it is bytes, exactly, or nothing.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let exact = text.parse::<u128>().ok().and_then(|bytes| u64::try_from(bytes).ok());
        assert_eq!(size.ok(), exact, "{text:?}");
    }
    // The same text inside of a file is taken for what it is by itself.
    let writable = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.contains("{{");
    if text.len() > 60 || !writable {
        return;
    }
    let length = parsed.ok().and_then(|span| span.to_duration());
    match configured("rateLimit", "period", text) {
        Some(Middleware::RateLimit(limit)) => {
            let expected = length.filter(|length| !length.is_zero()).unwrap_or(Duration::from_secs(1));
            assert_eq!(limit.period, expected, "{text:?}");
        }
        None => assert_eq!(length, None, "{text:?}"),
        other => panic!("{other:?}"),
    }
    // A count is read as it stands or not at all: no sign is lost, no digit, no unit.
    let count = text.parse::<i64>().ok().and_then(|count| u64::try_from(count).ok());
    match configured("inFlightReq", "amount", text) {
        Some(Middleware::InFlightReq(limit)) => assert_eq!(Some(limit.amount), count, "{text:?}"),
        None => assert_eq!(count, None, "{text:?}"),
        other => panic!("{other:?}"),
    }
});
