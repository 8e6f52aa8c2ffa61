//! `contentType`: types of answers that nobody has named.

use std::time::Duration;

use lb_testkit::{Answer, Client, H2Origin, Origin, Script};

use crate::harness::{HOST, Protocol, Vigie};
use crate::middlewares::behind;

const HTML: &str = "<!DOCTYPE html><p>hello";

#[tokio::test]
async fn answers_without_a_type_get_the_one_they_show() {
    let server = Origin::with("api", |request| match request.target.as_str() {
        "/html" => Script::text(HTML),
        "/binary" => Script::text("\0\x01"),
        "/missing" => Script::answer(404, &[], "no such thing"),
        "/typed" => Script::answer(200, &[("Content-Type", "x/y")], HTML),
        "/encoded" => Script::answer(200, &[("Content-Encoding", "br")], HTML),
        "/empty" => Script::text(""),
        "/streamed" => Script::chunked(&[HTML], Duration::ZERO),
        "/closed" => Script::until_close(HTML),
        _ => Script::early_then_read(200),
    })
    .await;
    let h2c = H2Origin::start("h2c", |_| {
        let fields = vec![("content-length".to_owned(), HTML.len().to_string())];
        Answer { fields, ..Answer::text(HTML) }
    })
    .await;
    let kinds = "types: {contentType: {}}\naway: {redirectScheme: {scheme: https}}";
    let text = behind("types", kinds, &[server.url()]);
    let routers = "  routers:\n    away: {rule: 'Path(`/away`)', priority: 100, middlewares: [types, away], service: app}\n    \
                   plain: {rule: 'Path(`/plain`)', priority: 100, service: app}\n    h2: {rule: 'Path(`/h2`)', priority: 100, middlewares: [types], \
                   service: h2}\n";
    let services =
        format!("  services:\n    h2: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n", h2c.url());
    let text = text.replace("  routers:\n", routers).replace("  services:\n", &services);
    let vigie = Vigie::start(&text).await;
    let upload = vec![b'x'; 1 << 20];
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (method, path, body, kind) in [
            ("GET", "/html", Some(HTML), Some("text/html; charset=utf-8")),
            ("HEAD", "/html", None, None),
            ("GET", "/binary", Some("\0\x01"), Some("application/octet-stream")),
            ("GET", "/missing", Some("no such thing"), Some("text/plain; charset=utf-8")),
            ("GET", "/typed", Some(HTML), Some("x/y")),
            ("GET", "/encoded", Some(HTML), None),
            ("GET", "/empty", Some(""), None),
            ("GET", "/streamed", Some(HTML), None),
            ("GET", "/closed", Some(HTML), Some("text/html; charset=utf-8")),
            ("GET", "/away", Some("Found"), Some("text/plain; charset=utf-8")),
            ("GET", "/plain", Some("early"), None),
            ("GET", "/h2", Some(HTML), Some("text/html; charset=utf-8")),
            ("POST", "/upload", Some("early"), Some("text/plain; charset=utf-8")),
        ] {
            let sent = (method == "POST").then_some(&upload[..]);
            let response = connection.request(method, path, &[], sent).await;
            assert_eq!(response.get("content-type"), kind, "{protocol:?} {method} {path}");
            assert!(body.is_none_or(|body| response.text() == body), "{protocol:?} {method} {path}");
        }
    }
    let shown = vigie.json("/api/http/middlewares/types@file").await;
    assert_eq!((&shown["contentType"], &shown["type"]), (&serde_json::json!({}), &"contenttype".into()));
}

/// `buffering` knows the length of what is streamed, so its type is told as well, however little it keeps in memory.
#[tokio::test]
async fn answers_that_were_buffered_get_a_type_too() {
    let server = Origin::with("api", |request| match request.target.as_str() {
        "/streamed" => Script::chunked(&[HTML], Duration::ZERO),
        "/typed" => Script::answer(200, &[("Content-Type", "x/y")], HTML),
        "/empty" => Script::text(""),
        _ => Script::text(HTML),
    })
    .await;
    let kinds = "types: {contentType: {}}\nwhole: {buffering: {maxResponseBodyBytes: 4096, memResponseBodyBytes: 3}}\n\
                 press: {compress: {minResponseBodyBytes: 1}}";
    let vigie = Vigie::start(&behind("types, press, whole", kinds, &[server.url()])).await;
    let html = Some("text/html; charset=utf-8");
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (path, coding, kind) in [
            ("/", "identity", html),
            ("/streamed", "identity", html),
            ("/typed", "identity", Some("x/y")),
            ("/empty", "identity", None),
            ("/", "gzip", html),
        ] {
            let response = connection.request("GET", path, &[("accept-encoding", coding)], None).await;
            assert_eq!(response.get("content-type"), kind, "{protocol:?} {path} {coding}");
            assert_eq!(response.get("content-encoding"), Some("gzip").filter(|it| *it == coding));
        }
    }
}

#[tokio::test]
async fn a_head_does_not_wait_for_a_body_that_does_not_come() {
    let server = Origin::with("api", |request| match request.target.as_str() {
        "/late" => Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        _ => Script::close_in_body(5, ""),
    })
    .await;
    let vigie = Vigie::start(&behind("types", "types: {contentType: {}}", &[server.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /late HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    let head = client.head("GET").await.unwrap();
    assert_eq!((head.status, head.get("content-type"), head.get("content-length")), (200, None, Some("5")));
    // Nobody takes what was broken off for whole.
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        assert!(connection.ask("GET", HOST, "/broken", &[], None).await.is_err(), "{protocol:?}");
    }
}
