//! HTTP/1.1 requests that two parsers could read differently: refused with one answer, the connection closed, and
//! not one byte of what was smuggled behind them taken for a request.

use lb_testkit::Origin;

use super::{exchange, statuses};
use crate::harness::{STATIC, Vigie, app};

/// What an attacker wants to be read as a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

async fn refused(cases: impl IntoIterator<Item = (String, Vec<u8>, u16)>) {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let mut count = 0.0;
    for (case, bytes, status) in cases {
        let answer = exchange(vigie.web(), &bytes).await.unwrap_or_else(|error| panic!("{case}: {error:#}"));
        assert_eq!(statuses(&answer), [status], "{case}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{case}: {answer}");
        assert!(origin.seen().iter().all(|request| request.path() == "/body"), "{case} reached the origin");
        count += 1.0;
    }
    // Chunks that turn out bad are answered as a request whose head was good.
    let metrics = vigie.metrics().await;
    let refused = metrics.value("lb_refused_requests_total", &[("entrypoint", "web")]).unwrap_or(0.0);
    let answered =
        metrics.value("traefik_entrypoint_requests_total", &[("entrypoint", "web")]).unwrap_or(0.0);
    assert!(refused.max(answered) == count, "each is counted: {refused} and {answered} of {count}");
    assert_eq!(vigie.get("/body").await.status, 200, "the next client is served");
}

/// A POST with these header lines, its body `behind`, and a request hidden after both.
fn post(lines: &str, behind: &str) -> Vec<u8> {
    format!("POST /head HTTP/1.1\r\nHost: a\r\n{lines}\r\n{behind}{SMUGGLED}").into_bytes()
}

/// Whoever sends rubbish without end does not fill the disk.
#[tokio::test]
async fn refusals_are_told_now_and_then() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::with(&format!("{STATIC}log: {{level: INFO}}\n"), &app("", &[origin.url()])).await;
    for _ in 0..50 {
        exchange(vigie.web(), "GET / HTTP/1.1\r\n\r\n").await.unwrap();
        exchange(vigie.web(), "G@T / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    for reason in ["missing_host", "method"] {
        vigie.until_metric("lb_refused_requests_total", &[("reason", reason)], 50.0).await;
        let lines = vigie.words().lines().filter(|line| line.contains(reason)).count();
        assert!((1..=4).contains(&lines), "{reason}: {lines} lines\n{}", vigie.words());
    }
}

#[tokio::test]
async fn the_length_of_a_body_is_never_a_guess() {
    let mut cases = vec![
        ("both".to_owned(), post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"), 400),
        (
            "both, turned".to_owned(),
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\n"),
            400,
        ),
        ("equal lengths".to_owned(), post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 400),
        ("other lengths".to_owned(), post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"), 400),
        ("chunked twice".to_owned(), post(&"Transfer-Encoding: chunked\r\n".repeat(2), "0\r\n\r\n"), 400),
        ("space".to_owned(), post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        ("folded".to_owned(), post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400),
        ("folded in".to_owned(), post("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("behind LF".to_owned(), post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("behind CR".to_owned(), post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (
            "chunked in 1.0".to_owned(),
            format!(
                "POST /head HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
            )
            .into(),
            400,
        ),
    ];
    for length in [
        "+5",
        "-5",
        "0x5",
        "5, 5",
        "5,",
        ",5",
        "",
        "5 5",
        "5.0",
        "5_0",
        "1e1",
        "5\x0c",
        "99999999999999999999999",
    ] {
        cases.push((
            format!("length {length:?}"),
            post(&format!("Content-Length: {length}\r\n"), "hello"),
            400,
        ));
    }
    for (coding, status) in [
        ("xchunked", 501),
        ("identity", 501),
        ("[chunked]", 400),
        ("gzip, chunked", 400),
        ("chunked, identity", 400),
        ("chunked, chunked", 400),
        ("chunked,", 400),
        (",chunked", 400),
        ("chunked;a=b", 400),
        ("\"chunked\"", 400),
        ("\x0bchunked", 400),
        ("chunked\0", 400),
        ("", 400),
    ] {
        let lines = format!("Transfer-Encoding: {coding}\r\n");
        cases.push((format!("coding {coding:?}"), post(&lines, "0\r\n\r\n"), status));
    }
    refused(cases).await;
}

#[tokio::test]
async fn chunks_are_read_in_one_way_only() {
    let long = format!("1;{}\r\nx\r\n", "a".repeat(5000));
    let zeros = format!("{}1\r\nx\r\n", "0".repeat(40));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    let chunks = [
        "-1\r\nx\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        " 1\r\nx\r\n",
        "1 1\r\nx\r\n",
        "1\nx\r\n",
        "1\r\nx\n",
        "1\r\nxx\r\n",
        "1\r\r\nx\r\n",
        "\r\nx\r\n",
        "zz\r\n",
        "fffffffffffffffff\r\nx\r\n",
        "10000000000000001\r\nx\r\n",
        "1;a\nb\r\nx\r\n",
        "1;a\rb\r\nx\r\n",
        "1;a\0\r\nx\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\nX: a\0\r\n\r\n",
        "0\r\n: a\r\n\r\n",
        &long,
        &zeros,
        &trailer,
    ];
    let request = |chunk: &&str| {
        let bytes = format!(
            "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{SMUGGLED}"
        );
        (format!("chunk {:?}", &chunk[..chunk.len().min(40)]), bytes.into_bytes(), 400)
    };
    refused(chunks.iter().map(request)).await;
}

#[tokio::test]
async fn a_request_line_has_one_form() {
    let mut cases = Vec::new();
    for (line, status) in [
        ("GET  / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET /", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.11", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.1\x0b", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("G(T / HTTP/1.1", 400),
        ("G\0T / HTTP/1.1", 400),
        (" / HTTP/1.1", 400),
        ("GET / HTTP/1.1\nX: y", 400),
        ("\rGET / HTTP/1.1", 400),
    ] {
        cases.push((line.to_owned(), format!("{line}\r\nHost: a\r\n\r\n").into_bytes(), status));
    }
    for target in
        ["/a#b", "/\0", "/\u{e9}", "a", "/a b", "/a\tb", "*", "", "/%zz", "/%", "\\", "/\x01", "/\x7f"]
    {
        cases.push((
            format!("target {target:?}"),
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into(),
            400,
        ));
    }
    for target in ["http://b/", "http://a:81/", "ftp://a/", "http://u@a/", "http:///", "http://a b/"] {
        cases.push((
            format!("target {target:?}"),
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into(),
            400,
        ));
    }
    refused(cases).await;
}

#[tokio::test]
async fn fields_and_host_have_one_form() {
    let mut cases = Vec::new();
    for field in [
        ": x",
        "abc",
        "a : b",
        "a\t: b",
        "a: b\0c",
        "a: b\x01",
        "a: \x7f",
        "\u{e9}: x",
        "a: b\nc: d",
        "a: b\rc",
        "a: b\r",
        "a[b]: c",
        "a:\x0bb",
        "a: b\r\n folded",
        "a: b\r\n\tfolded",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{SMUGGLED}");
        cases.push((format!("field {field:?}"), bytes.into_bytes(), 400));
    }
    for host in [
        "a b",
        "a/b",
        "u@a",
        "a:99999",
        "a:8x",
        "a#b",
        "a?b",
        "[::1",
        "a\0b",
        "a\u{e9}",
        "a\\b",
        "a%zz",
        "a\r\nHost: a",
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n{SMUGGLED}");
        cases.push((format!("host {host:?}"), bytes.into_bytes(), 400));
    }
    let many: String = (0..300).map(|n| format!("a{n}: b\r\n")).collect();
    let big = "x".repeat(1_100_000);
    for (case, bytes, status) in [
        ("no host", format!("GET / HTTP/1.1\r\n\r\n{SMUGGLED}"), 400),
        ("folded first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), 400),
        ("only LF", "GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("big field", format!("GET / HTTP/1.1\r\nHost: a\r\nA: {big}\r\n\r\n"), 431),
        ("big target", format!("GET /{big} HTTP/1.1\r\nHost: a\r\n\r\n"), 431),
    ] {
        cases.push((case.to_owned(), bytes.into_bytes(), status));
    }
    refused(cases).await;
}

/// A client that believes in its tunnel says anything in it.
#[tokio::test]
async fn nothing_behind_a_connect_is_a_request() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let bytes = format!("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n{SMUGGLED}");
    let answer = exchange(vigie.web(), &bytes).await.unwrap();
    assert_eq!(statuses(&answer), [501], "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(origin.requests(), 0);
}

/// What an entry point does not take as a header it does not take behind a body either.
#[tokio::test]
async fn trailers_are_under_the_rule_for_names() {
    let origin = Origin::start("origin").await;
    for (strategy, trailers, expected) in [
        ("keep", "X_User: root\r\nX-Sum: 1\r\n", 2),
        ("delete", "X_User: root\r\nX-Sum: 1\r\n", 0),
        ("reject", "X_User: root\r\n", 0),
        ("reject", "X-Sum: 1\r\n", 1),
    ] {
        let strict = format!("web: {{http: {{underscoreHeadersStrategy: {strategy}}}, ");
        let vigie = Vigie::with(&STATIC.replace("web: {", &strict), &app("", &[origin.url()])).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let answer = exchange(vigie.web(), format!("{head}2\r\nhi\r\n0\r\n{trailers}\r\n")).await.unwrap();
        assert_eq!(statuses(&answer), [200], "{strategy}: {answer}");
        assert_eq!(origin.last().trailers.0.len(), expected, "{strategy} {trailers}");
    }
}
