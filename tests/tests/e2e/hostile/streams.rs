//! HTTP/2 requests and frames that RFC 9113 forbids, and what becomes of a request that goes on as HTTP/1.1.

use lb_testkit::{Origin, PATIENCE};

use super::frames::*;
use crate::harness::{Vigie, app};

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/x");
const AUTHORITY: (&str, &str) = (":authority", "a");

/// Requests that HTTP/1.1 could not carry, or that lie.
pub(super) fn malformed() -> Vec<Vec<(&'static str, &'static str)>> {
    let with = |field| vec![METHOD, SCHEME, PATH, AUTHORITY, field];
    let path = |path| vec![METHOD, SCHEME, (":path", path), AUTHORITY];
    let authority = |authority| vec![METHOD, SCHEME, PATH, (":authority", authority)];
    let method = |method| vec![(":method", method), SCHEME, PATH, AUTHORITY];
    let mut cases = Vec::new();
    // Section 8.2.2: fields of one connection.
    cases.extend(
        [
            ("connection", "close"),
            ("connection", "x-a"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
        ]
        .map(with),
    );
    // Section 8.2.1: names and values.
    cases.extend(
        [
            ("Upper", "x"),
            ("x", "a\r\nsmuggled: 1"),
            ("x", "a\nb"),
            ("x", "a\rb"),
            ("x", "a\0b"),
            ("x\r\ny", "a"),
            ("x:y", "a"),
            ("x y", "a"),
            ("", "a"),
            ("x", " a"),
            ("x", "a "),
            ("x", "\ta"),
            ("x", "a\x01b"),
            ("x", "a\x7fb"),
        ]
        .map(with),
    );
    // Section 8.3: pseudo-header fields, their order, number and names.
    cases.extend([
        vec![METHOD, SCHEME, PATH, ("x", "1"), AUTHORITY],
        with(PATH),
        with(METHOD),
        with(AUTHORITY),
        with((":foo", "a")),
        with((":status", "200")),
        with((":protocol", "websocket")),
        vec![SCHEME, PATH, AUTHORITY],
        vec![METHOD, PATH, AUTHORITY],
        vec![METHOD, SCHEME, AUTHORITY],
    ]);
    // Section 8.3.1: a host that disagrees, or is none.
    cases.extend([
        with(("host", "b")),
        vec![METHOD, SCHEME, PATH, AUTHORITY, ("host", "a"), ("host", "a")],
        vec![METHOD, SCHEME, PATH, ("host", "a"), ("host", "b")],
        vec![METHOD, SCHEME, PATH],
    ]);
    cases.extend(["u@a", "a\r\nx: y", "a/b", "a b", "", "a:99999"].map(authority));
    // What a request line could not hold.
    cases.extend(
        ["", "x", "/a b", "/a\tb", "/\u{ff}", "@evil/x", "/%zz", "/a HTTP/1.1\r\nHost: b\r\n\r\n"].map(path),
    );
    cases.extend(["", "GET /smuggled HTTP/1.1", "GET\r\n", "G(T", "G\0T"].map(method));
    // Section 8.1.1: lengths that lie.
    cases.extend(
        [
            ("content-length", "5"),
            ("content-length", "+0"),
            ("content-length", "0, 0"),
            ("content-length", ""),
        ]
        .map(with),
    );
    cases.push(vec![METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "0"), ("content-length", "0")]);
    cases
}

#[tokio::test]
async fn what_http_1_could_not_carry_is_refused() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    for case in malformed() {
        let mut frames = Frames::connect(vigie.web(), &[]).await;
        frames.request(1, &case).await.unwrap();
        let end = frames.end(1, PATIENCE).await;
        let refused = match end {
            End::Answered(status) => status == Some(400),
            End::Reset(code) | End::Gone(code) => code == PROTOCOL_ERROR,
            End::Closed | End::Silence => false,
        };
        assert!(refused, "{case:?}: {end:?}");
        assert_eq!(origin.requests(), 0, "{case:?} reached the origin as {:?}", origin.seen());
    }
    // h2 cuts a fragment off; router and server see the same rest.
    let mut frames = Frames::connect(vigie.web(), &[]).await;
    frames.request(1, &get("/a#b")).await.unwrap();
    assert_eq!(frames.end(1, PATIENCE).await, End::Answered(Some(200)));
    assert_eq!(origin.last().target, "/a");
    // And beside all that, what is well formed arrives as one HTTP/1.1 request.
    let mut frames = Frames::connect(vigie.web(), &[]).await;
    let fine = [
        METHOD,
        SCHEME,
        PATH,
        AUTHORITY,
        ("te", "trailers"),
        ("host", "a"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x", "a, b"),
    ];
    frames.request(1, &fine).await.unwrap();
    assert_eq!(frames.end(1, PATIENCE).await, End::Answered(Some(200)));
    let seen = origin.last();
    assert!(seen.head.starts_with(b"GET /x HTTP/1.1\r\n"));
    assert_eq!(
        (seen.get("host"), seen.get("cookie"), seen.get("x")),
        (Some("a"), Some("a=1; b=2"), Some("a, b"))
    );
    assert!(seen.fields.0.iter().all(|(name, _)| !name.starts_with(':')));
}

/// Some clients say the end of what has no body in a frame of its own.
#[tokio::test]
async fn an_end_behind_the_head_is_no_body() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    for (body, lengths) in [(&b""[..], [None, None]), (b"abc", [None, Some("chunked")])] {
        let mut frames = Frames::connect(vigie.web(), &[]).await;
        let head = frame(HEADERS, END_HEADERS, 1, &block(&get("/x")));
        frames.send([head, frame(DATA, END_STREAM, 1, body)].concat()).await.unwrap();
        assert_eq!(frames.end(1, PATIENCE).await, End::Answered(Some(200)));
        let seen = origin.last();
        assert_eq!(["content-length", "transfer-encoding"].map(|name| seen.get(name)), lengths);
        assert_eq!(seen.body, body);
    }
}

/// DATA that is more or less than its content-length never makes the server wait for, or take for a request,
/// what is not there.
#[tokio::test]
async fn data_must_agree_with_the_length() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let head = |length| block(&[(":method", "POST"), SCHEME, PATH, AUTHORITY, ("content-length", length)]);
    let smuggled = b"abcGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let trailers = block(&[("x-sum", "1")]);
    let unknown = block(&[(":method", "POST"), SCHEME, PATH, AUTHORITY]);
    let pseudo = block(&[(":path", "/y")]);
    for (case, frames) in [
        ("short", [frame(HEADERS, END_HEADERS, 1, &head("5")), frame(DATA, END_STREAM, 1, b"abc")]),
        ("long", [frame(HEADERS, END_HEADERS, 1, &head("3")), frame(DATA, END_STREAM, 1, smuggled)]),
        (
            "short, then trailers",
            [
                frame(HEADERS, END_HEADERS, 1, &head("5")),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
            ],
        ),
    ] {
        let mut connection = Frames::connect(vigie.web(), &[]).await;
        connection.send(frames.concat()).await.unwrap();
        let end = connection.end(1, PATIENCE).await;
        let refused =
            matches!(end, End::Reset(PROTOCOL_ERROR) | End::Gone(PROTOCOL_ERROR) | End::Answered(Some(400)));
        assert!(refused, "{case}: {end:?}");
    }
    assert!(
        lb_testkit::eventually(PATIENCE, async || origin.open_connections() == 0).await,
        "half a request is kept"
    );
    assert!(origin.seen().iter().all(|request| request.path() == "/x"));
    // h2 drops pseudo-header fields among trailers: nobody behind it sees them.
    let mut connection = Frames::connect(vigie.web(), &[]).await;
    let frames = [
        frame(HEADERS, END_HEADERS, 1, &unknown),
        frame(DATA, 0, 1, b"abc"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &pseudo),
    ];
    connection.send(frames.concat()).await.unwrap();
    assert_ne!(connection.end(1, PATIENCE).await, End::Silence);
    assert!(origin.last().trailers.0.is_empty() && origin.last().path() == "/x");
    assert_eq!(vigie.get("/next").await.json()["target"], "/next");
}

#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let request = block(&get("/x"));
    for (case, bytes, code) in [
        ("DATA on an idle stream", frame(DATA, 0, 5, b"x"), PROTOCOL_ERROR),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("HEADERS on an even stream", frame(HEADERS, 5, 2, &request), PROTOCOL_ERROR),
        ("HEADERS on stream 0", frame(HEADERS, 5, 0, &request), PROTOCOL_ERROR),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 9, &[0; 4]), PROTOCOL_ERROR),
        ("WINDOW_UPDATE by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (
            "WINDOW_UPDATE beyond the end",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
            FLOW_CONTROL_ERROR,
        ),
        ("SETTINGS of an odd length", frame(SETTINGS, 0, 0, b"abc"), FRAME_SIZE_ERROR),
        (
            "SETTINGS with too large a window",
            frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"),
            FLOW_CONTROL_ERROR,
        ),
        ("SETTINGS with too small a frame", frame(SETTINGS, 0, 0, b"\0\x05\0\0\0\x01"), PROTOCOL_ERROR),
        ("PUSH_PROMISE of a client", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("CONTINUATION of nothing", frame(CONTINUATION, 4, 1, b""), PROTOCOL_ERROR),
        (
            "another frame inside a header block",
            [frame(HEADERS, 0, 1, &request), frame(PING, 0, 0, &[0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
        ("a broken header block", frame(HEADERS, 5, 1, &[255; 5]), COMPRESSION_ERROR),
        ("a frame above the maximum", frame(DATA, 0, 1, &[0; 20_000]), FRAME_SIZE_ERROR),
        ("PING of another length", frame(PING, 0, 0, b"abc"), FRAME_SIZE_ERROR),
        ("padding beyond the frame", frame(HEADERS, 0x0d, 1, &[255, 0x82]), PROTOCOL_ERROR),
    ] {
        let mut frames = Frames::connect(vigie.web(), &[]).await;
        frames.send(bytes).await.unwrap();
        let end = frames.end(1, PATIENCE).await;
        // h2 answers some with the code next to ours, which RFC 9113 allows it.
        assert!(matches!(end, End::Gone(_)), "{case}: {end:?}");
        if end != End::Gone(code) {
            assert_eq!(end, End::Gone(PROTOCOL_ERROR), "{case}");
        }
    }
    assert_eq!(origin.requests(), 0);
    // A preface that is none.
    let answer = super::exchange(vigie.web(), "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await.unwrap();
    assert_eq!(super::statuses(&answer), [505]);
}
