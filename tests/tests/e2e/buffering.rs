//! `buffering`: bodies that are read to their end before they go on, their limits, and requests sent again.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lb_testkit::{Client, Origin, PATIENCE, Script, eventually};

use crate::harness::{HOST, Protocol, Vigie, app_with, origin};

/// [`app_with`] behind these middlewares, given as the lines of `http.middlewares`.
fn behind(names: &str, middlewares: &[&str], urls: &[String]) -> String {
    let lines: String = middlewares.iter().map(|line| format!("    {line}\n")).collect();
    format!("{}  middlewares:\n{lines}", app_with(&format!("middlewares: [{names}]"), "", urls))
}

/// Different everywhere, so that no piece can stand for another.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at / 3 % 23) as u8 + u8::from(at % 70_001 == 0)).collect()
}

/// Files without a name that the process has open.
fn files(pid: u32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
    names.filter(|name| name.to_string_lossy().ends_with("(deleted)")).count()
}

#[tokio::test]
async fn servers_get_requests_whole_and_with_their_length() {
    let server = Origin::start("api").await;
    let keep = "keep: {buffering: {memRequestBodyBytes: 1000}}";
    let vigie = Vigie::start(&behind("keep", &[keep], &[server.url()])).await;
    let sent = body(3 << 20);
    for protocol in Protocol::BOTH {
        // Less than the memory, the memory, and far more: then in a temporary file.
        for length in [0, 1, 1000, 1001, 300_000, sent.len()] {
            let mut connection = protocol.connect(vigie.web()).await;
            let answer = connection.request("POST", "/", &[], Some(&sent[..length])).await;
            assert_eq!(origin(&answer), "api");
            let seen = server.seen().pop().unwrap();
            assert!(seen.body == sent[..length], "{protocol:?} {length}");
            assert_eq!(seen.get("content-length"), Some(length.to_string().as_str()), "{protocol:?}");
        }
    }
    // Chunks are gone, and while some are missing the server hears nothing.
    let asked = server.requests();
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    );
    client.send(head).await.unwrap();
    assert_eq!(client.any_head().await.unwrap().status, 100);
    let piece = [b"100000\r\n".as_slice(), &sent[..1 << 20], b"\r\n"].concat();
    client.send(&piece).await.unwrap();
    assert!(eventually(PATIENCE, async || files(vigie.process.pid()) == 1).await, "a file holds it");
    assert_eq!(server.requests(), asked);
    client.send(b"0\r\n\r\n").await.unwrap();
    assert_eq!(client.response("PUT").await.unwrap().status, 200);
    let seen = server.seen().pop().unwrap();
    assert_eq!((seen.get("content-length"), seen.get("transfer-encoding")), (Some("1048576"), None));
    assert_eq!(seen.get("expect"), None);
    assert!(eventually(PATIENCE, async || files(vigie.process.pid()) == 0).await, "and is gone with it");
    // So it is when the client gives up.
    client.send(format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2000000\r\n\r\n")).await.unwrap();
    client.send(&sent[..1 << 20]).await.unwrap();
    assert!(eventually(PATIENCE, async || files(vigie.process.pid()) == 1).await);
    client.reset();
    assert!(eventually(PATIENCE, async || files(vigie.process.pid()) == 0).await);
    assert_eq!(server.requests(), asked + 1);
}

#[tokio::test]
async fn requests_and_answers_have_limits() {
    let server = Origin::start("api").await;
    server.on("/fits", Script::answer(200, &[], body(2000)));
    server.on("/large", Script::answer(200, &[], body(2001)));
    let text = String::from_utf8(body(2001)).unwrap();
    server.on("/chunks", Script::chunked(&[&text[..1500], &text[1500..]], std::time::Duration::ZERO));
    let keep = "keep: {buffering: {maxRequestBodyBytes: 1000, maxResponseBodyBytes: 2000}}";
    let vigie = Vigie::start(&behind("keep", &[keep], &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let asked = server.requests();
        let mut connection = protocol.connect(vigie.web()).await;
        let refused = connection.request("POST", "/", &[], Some(&body(1001))).await;
        assert_eq!((refused.status, refused.text()), (413, "Request Entity Too Large"), "{protocol:?}");
        assert_eq!(server.requests(), asked);
        let mut connection = protocol.connect(vigie.web()).await;
        assert_eq!(connection.request("POST", "/", &[], Some(&body(1000))).await.status, 200);
        let fits = connection.request("GET", "/fits", &[], None).await;
        assert_eq!((fits.status, fits.body.len()), (200, 2000));
        for path in ["/large", "/chunks"] {
            let refused = connection.request("GET", path, &[], None).await;
            assert_eq!(
                (refused.status, refused.text()),
                (500, "Internal Server Error"),
                "{protocol:?} {path}"
            );
        }
        // Of HEAD only the length is large.
        server.on("/head", Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"));
        let head = connection.request("HEAD", "/head", &[], None).await;
        assert_eq!((head.status, head.get("content-length")), (200, Some("5000")));
    }
    // The service has answered well, and counts so.
    vigie.until_metric("traefik_router_requests_total", &[("code", "500")], 4.0).await;
    assert_eq!(vigie.metrics().await.value("traefik_service_requests_total", &[("code", "500")]), None);
    // Without an announced length the limit shows on the way.
    let asked = server.requests();
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"))
        .await
        .unwrap();
    client.send([b"3e9\r\n".as_slice(), &body(1001), b"\r\n0\r\n\r\n"].concat()).await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 413);
    assert_eq!(server.requests(), asked);
}

#[tokio::test]
async fn clients_get_answers_whole_or_an_error() {
    let server = Origin::start("api").await;
    let large = body(2 << 20);
    server.on("/large", Script::answer(200, &[], &large));
    server.on("/chunks", Script::chunked(&["one ", "two"], std::time::Duration::from_millis(20)));
    server.on("/trailers", Script::trailers(&["one ", "two"], &[("X-Checksum", "abc")]));
    server.on("/cut", Script::close_in_body(40_000, "some"));
    server.on("/none", Script::status(204));
    server.on("/early", Script::text("late").after_informational(103, &[("Link", "</a>")]));
    server.on("/socket", Script::upgrade_echo("websocket"));
    let keep = "keep: {buffering: {memResponseBodyBytes: 1000}}";
    let vigie = Vigie::start(&behind("keep", &[keep], &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let answer = connection.request("GET", "/large", &[], None).await;
        assert!(answer.body == large, "{protocol:?}");
        assert_eq!(answer.get("content-length"), Some("2097152"));
        let answer = connection.request("GET", "/chunks", &[], None).await;
        assert_eq!((answer.text(), answer.get("content-length")), ("one two", Some("7")));
        let answer = connection.request("GET", "/trailers", &[], None).await;
        assert_eq!((answer.text(), answer.trailers.get("x-checksum")), ("one two", Some("abc")));
        // Nothing of it was sent, so it can still be said.
        let broken = connection.request("GET", "/cut", &[], None).await;
        assert_eq!((broken.status, broken.text()), (502, "Bad Gateway"), "{protocol:?}");
        assert_eq!(connection.request("GET", "/none", &[], None).await.status, 204);
        let early = connection.request("GET", "/early", &[], None).await;
        assert_eq!((early.informational[0].status, early.text()), (103, "late"));
    }
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(client.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");
}

/// An origin whose first answers to a path are 500, the next is an echo.
async fn failing(times: usize) -> (Origin, Arc<AtomicUsize>) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let origin = Origin::with("api", move |_| match counted.fetch_add(1, Ordering::Relaxed) < times {
        true => Script::answer(500, &[("X-Try", "failed")], "no"),
        false => Script::echo(),
    });
    (origin.await, tries)
}

#[tokio::test]
async fn requests_are_sent_again_with_their_bodies() {
    let again = "again: {buffering: {memRequestBodyBytes: 10, retryExpression: 'ResponseCode() == 500'}}";
    for protocol in Protocol::BOTH {
        for (times, status, tried) in [(0, 200, 1), (4, 200, 5), (100, 500, 11)] {
            let (server, tries) = failing(times).await;
            let vigie = Vigie::start(&behind("again", &[again], &[server.url()])).await;
            let sent = body(600_000);
            let mut connection = protocol.connect(vigie.web()).await;
            let answer = connection.request("POST", "/", &[], Some(&sent)).await;
            assert_eq!((answer.status, tries.load(Ordering::Relaxed)), (status, tried), "{protocol:?}");
            assert!(server.seen().iter().all(|seen| seen.body == sent));
            assert_eq!(answer.get("x-try").is_some(), status == 500);
        }
    }
}

/// The client has nothing of it yet, so it is as safe as before the head; POST is not.
#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let good = Origin::start("good").await;
    let broken = Origin::with("broken", |_| Script::reset_in_body(5000, "some")).await;
    let keep = "keep: {buffering: {memRequestBodyBytes: 10}}";
    let vigie = Vigie::start(&behind("keep", &[keep], &[broken.url(), good.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let sent = body(300_000);
        for _ in 0..4 {
            assert_eq!(origin(&connection.request("PUT", "/", &[], Some(&sent)).await), "good");
            assert_eq!(good.last().body.len(), sent.len());
        }
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(connection.request("POST", "/", &[], Some(b"body")).await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 502, 502], "{protocol:?}");
    }
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_retries_total", &[("service", "app@file")]), Some(8.0));
    let closed = [("service", "app@file"), ("reason", "closed")];
    assert_eq!(metrics.value("lb_upstream_errors_total", &closed), Some(12.0), "with four of POST");
    // With nobody else to ask it is an error, and is asked for once.
    vigie.write(&behind("keep", &[keep], &[broken.url()]));
    let asked = broken.requests();
    let alone = eventually(PATIENCE, async || Protocol::Http1.get(vigie.web(), "/").await.status == 502);
    assert!(alone.await);
    assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 502);
    assert!(broken.requests() >= asked + 2);
}

#[tokio::test]
async fn expressions_decide_and_another_server_is_asked() {
    let good = Origin::start("good").await;
    let broken = Origin::with("broken", |_| Script::reset_in_body(5000, "some")).await;
    let twice = "again: {buffering: {retryExpression: 'IsNetworkError() && Attempts() < 2 && RequestMethod() != \"PUT\"'}}";
    let vigie = Vigie::start(&behind("again", &[twice], &[broken.url(), good.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for _ in 0..6 {
            assert_eq!(origin(&connection.request("POST", "/", &[], Some(b"body")).await), "good");
        }
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(connection.request("PUT", "/", &[], Some(b"body")).await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 502, 502], "{protocol:?}: PUT is left alone");
    }
}

/// Before and behind `retry`, `compress` and another `buffering`.
#[tokio::test]
async fn it_works_with_its_neighbours() {
    let middlewares = [
        "keep: {buffering: {memRequestBodyBytes: 10, maxRequestBodyBytes: 200000}}",
        "less: {buffering: {maxRequestBodyBytes: 100000, maxResponseBodyBytes: 500000}}",
        "again: {retry: {attempts: 3, status: ['500'], retryNonIdempotentMethod: true}}",
        "press: {compress: {}}",
        "staff: {basicAuth: {users: ['ops:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/']}}",
    ];
    for names in
        ["keep, again, press", "again, keep, press", "press, again, keep", "press, keep, less, again"]
    {
        let (server, tries) = failing(2).await;
        let vigie = Vigie::start(&behind(names, &middlewares, &[server.url()])).await;
        let sent = body(90_000);
        let mut connection = Protocol::Http1.connect(vigie.web()).await;
        let answer = connection.request("POST", "/", &[("Accept-Encoding", "gzip")], Some(&sent)).await;
        assert_eq!((answer.status, answer.get("content-encoding")), (200, Some("gzip")), "{names}");
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut plain).unwrap();
        let echo: serde_json::Value = serde_json::from_str(&plain).unwrap();
        assert!(echo["body"].as_str().unwrap().as_bytes() == sent, "{names}");
        assert_eq!(tries.load(Ordering::Relaxed), 3, "{names}");
        let large = connection.request("POST", "/", &[], Some(&body(150_000))).await;
        assert_eq!(large.status, if names.contains("less") { 413 } else { 200 }, "{names}");
    }
    // What stands before it is asked before the body is read.
    let (server, _) = failing(0).await;
    let vigie = Vigie::start(&behind("again, staff, keep", &middlewares, &[server.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n")).await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 401);
    let shown = vigie.json("/api/http/middlewares/keep@file").await;
    let expected = serde_json::json!({"maxRequestBodyBytes": 200_000, "memRequestBodyBytes": 10});
    assert_eq!((&shown["buffering"], &shown["type"]), (&expected, &"buffering".into()));
}

#[tokio::test]
async fn what_a_middleware_answers_is_limited_too() {
    let server = Origin::start("api").await;
    let less = "less: {buffering: {maxResponseBodyBytes: 10}}";
    let deny = "deny: {ipAllowList: {sourceRange: [192.0.2.1], rejectStatusCode: 451}}";
    let vigie = Vigie::start(&behind("less, deny", &[less, deny], &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let answer = protocol.get(vigie.web(), "/").await;
        assert_eq!((answer.status, answer.text()), (500, "Internal Server Error"), "{protocol:?}");
    }
}
