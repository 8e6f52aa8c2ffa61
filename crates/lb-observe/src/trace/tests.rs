use super::*;

fn tracer(sample_rate: f64, formats: &[Format]) -> Tracer {
    let settings = Settings {
        sample_rate,
        captured_request_headers: Vec::new(),
        captured_response_headers: Vec::new(),
        safe_query_params: Vec::new(),
        formats: formats.to_vec(),
    };
    Tracer::new(Arc::new(settings), Arc::new(Queue::new(1, || {})), 0)
}

/// What a server is told of a request that came with `fields`.
fn passed_on(rate: f64, formats: &[Format], fields: &[(&str, &str)]) -> Vec<String> {
    let tracer = tracer(rate, formats);
    let find = |name: &str| {
        let names = |known: &str| known.eq_ignore_ascii_case(name);
        fields.iter().find(|(known, _)| names(known)).map(|(_, value)| *value)
    };
    let mut next = 0x10;
    let mut random = || {
        next += 1;
        next
    };
    let trace = tracer.begin(find, &mut random);
    let span = SpanId::random(&mut random);
    let mut told = Vec::new();
    tracer.inject(&trace, span, |name, value| told.push(format!("{name}: {value}")));
    told
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

#[test]
fn a_trace_goes_on_with_the_decision_of_who_began_it() {
    let told = |rate, fields: &[(&str, &str)]| passed_on(rate, &[Format::W3c], fields);
    let (followed, ignored) = (format!("{PARENT}-01"), format!("{PARENT}-00"));
    let same = "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000012";
    for rate in [0.0, 1.0] {
        assert_eq!(
            told(rate, &[("traceparent", &followed), ("tracestate", "a=b")]),
            [format!("{same}-01"), "Tracestate: a=b".to_owned()]
        );
        assert_eq!(told(rate, &[("traceparent", &ignored)]), [format!("{same}-00")]);
    }
    assert_eq!(told(0.0, &[]), ["Traceparent: 00-00000000000000110000000000000012-0000000000000014-00"]);
    assert_eq!(told(1.0, &[]), ["Traceparent: 00-00000000000000110000000000000012-0000000000000014-01"]);
}

#[test]
fn what_is_no_parent_begins_a_new_trace() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (parent, goes_on) in [
        (format!("00-{trace}-b7ad6b7169203331-01"), true),
        (format!("01-{trace}-b7ad6b7169203331-03-more"), true),
        (format!("00-{trace}-b7ad6b7169203331-01-more"), false),
        (format!("ff-{trace}-b7ad6b7169203331-01"), false),
        (format!("00-{trace}-0000000000000000-01"), false),
        (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), false),
        (format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()), false),
        (format!("00-{trace}-b7ad6b7169203331"), false),
        ("é".repeat(27), false),
        (String::new(), false),
    ] {
        let told = passed_on(1.0, &[Format::W3c], &[("traceparent", &parent), ("tracestate", "a=b")]);
        assert_eq!(told[0].contains(trace), goes_on, "{parent}");
        assert_eq!(told.len() == 2, goes_on, "{parent}: a state without its parent means nothing");
    }
}

#[test]
fn b3_is_spoken_as_well() {
    let told = passed_on(
        0.0,
        &[Format::W3c, Format::B3, Format::B3Multi],
        &[("b3", "00000000000000aa-00000000000000bb-1")],
    );
    assert_eq!(
        told,
        [
            "Traceparent: 00-000000000000000000000000000000aa-0000000000000012-01",
            "B3: 000000000000000000000000000000aa-0000000000000012-1",
            "X-B3-Traceid: 000000000000000000000000000000aa",
            "X-B3-Spanid: 0000000000000012",
            "X-B3-Sampled: 1",
        ]
    );
    // As with Traefik the last format that is understood counts.
    let both = [("traceparent", &*format!("{PARENT}-01")), ("b3", "00000000000000aa-00000000000000bb-0")];
    assert!(passed_on(1.0, &[Format::W3c, Format::B3], &both)[1].ends_with("aa-0000000000000012-0"));
    assert!(passed_on(1.0, &[Format::B3, Format::W3c], &both)[0].starts_with("B3: 0af7651916cd43dd"));
}

/// What Traefik 3.7.15 makes of it.
#[test]
fn b3_is_understood_in_one_field_and_in_many() {
    let trace = "000000000000000000000000000000aa";
    let one = |text: &str| vec![("b3", text.to_owned())];
    let many = |more: &[(&'static str, &str)]| {
        let ids = [("x-b3-traceid", "00000000000000aa"), ("x-b3-spanid", "00000000000000bb")];
        ids.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>()
    };
    for (fields, expected) in [
        (one("00000000000000aa-00000000000000bb"), Some("")),
        (one("00000000000000aa-00000000000000bb-0"), Some("-0")),
        (one("00000000000000aa-00000000000000bb-1-00000000000000cc"), Some("-1")),
        (one("00000000000000aa-00000000000000bb-d"), Some("-d")),
        (one("00000000000000aa-00000000000000bb-true"), None),
        (one("00000000000000AA-00000000000000bb-1"), None),
        (one("aa-00000000000000bb-1"), None),
        (one("0"), None),
        (many(&[]), Some("")),
        (many(&[("x-b3-sampled", "true")]), Some("-1")),
        (many(&[("x-b3-sampled", "0")]), Some("-0")),
        (many(&[("x-b3-sampled", "d")]), None),
        (many(&[("x-b3-flags", "1")]), Some("-d")),
        (many(&[("b3", "nonsense"), ("x-b3-sampled", "1")]), Some("-1")),
    ] {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let told = &passed_on(1.0, &[Format::B3], &fields)[0];
        match expected {
            Some(decision) => {
                assert_eq!(told, &format!("B3: {trace}-0000000000000012{decision}"), "{fields:?}")
            }
            None => assert!(!told.contains(trace), "{fields:?} {told}"),
        }
        let told = passed_on(1.0, &[Format::B3Multi], &fields).split_off(2);
        let expected: &[&str] = match expected {
            Some("") => &[],
            Some("-d") => &["X-B3-Flags: 1"],
            Some("-0") => &["X-B3-Sampled: 0"],
            _ => &["X-B3-Sampled: 1"],
        };
        assert_eq!(told, expected, "{fields:?}");
    }
}

#[test]
fn a_share_is_a_share() {
    let mut random = fastrand_like(7);
    let chosen = (0..20_000).filter(|_| context::is_chosen(TraceId::random(&mut random), 0.25)).count();
    assert!((4_700..5_300).contains(&chosen), "{chosen}");
}

/// SplitMix64: enough for a share.
fn fastrand_like(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// As Go's `url.Values` writes it, which Traefik's spans have.
#[test]
fn only_values_that_are_no_secret_are_shown() {
    let safe = ["page".to_owned(), "a b".to_owned()];
    for (query, shown) in [
        ("", ""),
        ("page=2&secret=x&page=3", "page=2&page=3&secret=REDACTED"),
        ("z=1&z=2&b", "b=REDACTED&z=REDACTED"),
        ("a+b=%2F%20é", "a+b=%2F+%C3%A9"),
        ("%zz=1&page=%", ""),
    ] {
        assert_eq!(redact(query, &safe), shown, "{query}");
    }
}

#[test]
fn spans_are_within_each_other_and_only_once_handed_over() {
    let tracer = tracer(1.0, &[Format::W3c]);
    let mut random = fastrand_like(1);
    let mut trace = tracer.begin(|_| None, &mut random);
    trace.open(SpanId::random(&mut random), Kind::Server, "GET", 5).text("a", "b");
    trace.open(SpanId::random(&mut random), Kind::Client, "ReverseProxy", 6).fail();
    trace.close_to(1, 9);
    trace.close_to(0, 10);
    trace.close_to(0, 11);
    tracer.submit(&trace);
    assert_eq!(tracer.queue.take(1 << 20)[0].1, 2);
}
