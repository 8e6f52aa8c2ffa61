//! What is left on a connection when a message has ended: nothing that could be taken for the next one.

use bytes::Bytes;
use lb_testkit::{Answer, Client, H2Client, H2Origin, Origin, PATIENCE, Script};

use crate::harness::{HOST, Protocol, Vigie, app, app_with};

/// Fields that would have framed, routed or vouched for the message, had they been in the head.
const FORBIDDEN: [(&str, &str); 10] = [
    ("Content-Length", "99"),
    ("Transfer-Encoding", "chunked"),
    ("Host", "evil.example"),
    ("X-Forwarded-For", "203.0.113.7"),
    ("X_Forwarded_For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-Ip", "203.0.113.7"),
    ("Forwarded", "for=203.0.113.7"),
    ("Authorization", "Basic YTpi"),
    ("Connection", "close"),
];

#[tokio::test]
async fn trailers_of_a_request_carry_no_framing_and_no_trust() {
    let h1 = Origin::start("h1").await;
    let h2 = H2Origin::start("h2", |_| Answer::echo()).await;
    let lines: String = FORBIDDEN.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    for (to_h2, url) in [(false, h1.url()), (true, h2.url())] {
        let vigie = Vigie::start(&app("", &[url])).await;
        let trailers = |seen: &lb_testkit::Request| {
            seen.trailers
                .0
                .iter()
                .map(|(name, value)| (name.to_lowercase(), value.clone()))
                .collect::<Vec<_>>()
        };
        let last = || if to_h2 { h2.seen().pop().unwrap() } else { h1.last() };

        let mut client = Client::connect(vigie.web()).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{head}3\r\nabc\r\n0\r\nX-Sum: 3\r\n{lines}\r\n")).await.unwrap();
        assert_eq!(client.response("POST").await.unwrap().json()["body"], "abc");
        if !to_h2 {
            assert_eq!(trailers(&last()), [("x-sum".to_owned(), b"3".to_vec())]);
        }
        // Nothing is left for the next one.
        assert_eq!(client.get(HOST, "/next").await.unwrap().json()["target"], "/next");

        // Over HTTP/2 those that h2 itself refuses are another matter.
        let client = H2Client::connect(vigie.web()).await.unwrap();
        let request =
            http::Request::post(format!("http://{HOST}/")).header("te", "trailers").body(()).unwrap();
        let (response, mut body) = client.open(request, false).await.unwrap();
        body.send_data(Bytes::from_static(b"abc"), false).unwrap();
        let mut fields = http::HeaderMap::new();
        fields.insert("x-sum", "3".parse().unwrap());
        for (name, value) in
            FORBIDDEN.iter().filter(|(name, _)| !matches!(*name, "Transfer-Encoding" | "Connection"))
        {
            fields.insert(
                http::HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        body.send_trailers(fields).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        if !to_h2 {
            assert_eq!(trailers(&last()), [("x-sum".to_owned(), b"3".to_vec())]);
        }
        assert!(!last().fields.all("x-forwarded-for").contains(&"203.0.113.7"));
    }
}

#[tokio::test]
async fn trailers_of_an_answer_carry_no_framing() {
    let origin = Origin::start("origin").await;
    let evil =
        [("X-Sum", "4"), ("Content-Length", "99"), ("Transfer-Encoding", "chunked"), ("Set-Cookie", "a=b")];
    origin.on("/", Script::trailers(&["abcd"], &evil));
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for _ in 0..2 {
            let answer = connection.request("GET", "/", &[("te", "trailers")], None).await;
            assert_eq!(
                (answer.text(), answer.trailers.0.len()),
                ("abcd", 1),
                "{protocol:?}: {:?}",
                answer.trailers
            );
            assert_eq!(answer.trailers.get("x-sum"), Some("4"));
        }
    }
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n";

/// The server answers before it has read the body: neither its connection nor the client's is used again while
/// that is so, and what the client still sends is body, whatever it looks like.
#[tokio::test]
async fn an_unread_body_leaves_no_reusable_connection_to_the_server() {
    let origin = Origin::start("origin").await;
    origin.on("/early", Script::early_then_read(413));
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let body = SMUGGLED.repeat(40_000);
    for framing in [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".to_owned()] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(format!("POST /early HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n")).await.unwrap();
        let answer = client.response("POST").await.unwrap();
        assert_eq!((answer.status, answer.keeps_alive()), (413, false), "{framing}");
        let used = origin.last().connection;
        assert_eq!(vigie.get("/next").await.json()["target"], "/next");
        assert_ne!(origin.last().connection, used, "{framing}: its body may still come");
        // Sent late, some of it may find the connection closed.
        let _ = client.send(&body).await;
        let _ = client.rest().await;
    }
    assert!(origin.seen().iter().all(|request| request.path() != "/smuggled"));
    assert_eq!(vigie.metrics().await.value("lb_refused_requests_total", &[]).unwrap_or(0.0), 0.0);
}

/// Vigie answers by itself: what is left of the request is thrown away as a body, or the connection is closed.
#[tokio::test]
async fn an_unread_body_is_never_a_request() {
    let origin = Origin::start("origin").await;
    let denied = "http:\n  middlewares:\n    deny: {ipAllowList: {sourceRange: ['192.0.2.1']}}\n";
    let config = app_with("middlewares: [deny]", "", &[origin.url()]);
    let vigie = Vigie::start(&config.replacen("http:\n", denied, 1)).await;
    let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let large = SMUGGLED.repeat(20_000);
    for (framing, body, kept) in [
        (format!("Content-Length: {}", SMUGGLED.len()), SMUGGLED, true),
        (format!("Content-Length: {}", large.len()), &large, false),
        ("Transfer-Encoding: chunked".to_owned(), &chunk, false),
        (format!("Expect: 100-continue\r\nContent-Length: {}", SMUGGLED.len()), SMUGGLED, false),
    ] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n");
        client.send(format!("{head}{body}GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
        let first = client.response("POST").await.unwrap();
        assert_eq!((first.status, first.keeps_alive()), (403, kept), "{framing}");
        if kept {
            assert_eq!(client.response("GET").await.unwrap().status, 403, "{framing}");
        }
        let more = tokio::time::timeout(std::time::Duration::from_millis(200), client.any_head()).await;
        assert!(!matches!(more, Ok(Ok(_))), "{framing}: an answer to what nobody asked: {more:?}");
    }
    assert_eq!(origin.requests(), 0);
    let counted = vigie.metrics().await.value("traefik_entrypoint_requests_total", &[("entrypoint", "web")]);
    assert_eq!(counted, Some(5.0), "four bodies and one request behind them");
}
