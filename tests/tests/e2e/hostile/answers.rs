//! Answers of servers that two parsers could read differently: 502 or a stream that is visibly cut, and the
//! connection is never used again.

use lb_testkit::{Client, Origin, PATIENCE, Script, eventually};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app};

#[tokio::test]
async fn a_bad_answer_is_502_and_its_connection_is_dropped() {
    let giant = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(2_000_000));
    let many: String = (0..2000).map(|n| format!("X{n}: a\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
    let interim = "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n".repeat(40_000);
    let cases = [
        (
            "length and coding",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        ("other lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"),
        ("negative length", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
        ("empty length", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nabc"),
        ("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc"),
        ("coding in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
        ("two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        ("only LF", "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"),
        ("LF in a field", "HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"),
        ("CR in a field", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"),
        ("NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        ("no name", "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n"),
        ("status of two digits", "HTTP/1.1 99 x\r\nContent-Length: 0\r\n\r\n"),
        ("status of four digits", "HTTP/1.1 1000 x\r\nContent-Length: 0\r\n\r\n"),
        ("status 000", "HTTP/1.1 000 x\r\nContent-Length: 0\r\n\r\n"),
        ("another version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "an unasked switch",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        ("not HTTP", "SSH-2.0-x\r\n"),
        ("HTTP/0.9", "<html>hello</html>"),
        ("HTTP/2", "\0\0\0\x04\0\0\0\0\0"),
        ("an endless head", &giant),
        ("too many fields", &many),
        ("interim answers without end", &interim),
    ];
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    for (case, bytes) in cases {
        // What is no head yet would be waited for: it ends with the connection.
        let script = Script::raw(bytes);
        let complete = bytes.contains("\r\n\r\n") || bytes.len() > 1_000_000;
        origin.on("/bad", if complete { script } else { script.then_close() });
        for protocol in Protocol::BOTH {
            let answer = protocol.get(vigie.web(), "/bad").await;
            assert_eq!(answer.status, 502, "{case} {protocol:?}");
            let dropped = eventually(PATIENCE, async || origin.open_connections() == 0).await;
            assert!(dropped, "{case} {protocol:?}: the connection is kept");
        }
    }
    let errors = vigie.metrics().await.value("lb_upstream_errors_total", &[("reason", "malformed")]);
    assert!(errors.unwrap() >= cases.len() as f64 * 2.0 - 4.0, "{errors:?}");
    assert_eq!(vigie.get("/").await.status, 200);
}

/// A body that goes wrong is cut where it does: never completed, never followed by another answer.
#[tokio::test]
async fn a_body_that_goes_wrong_is_visibly_cut() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    for (case, script) in [
        ("bad size", Script::raw(format!("{chunked}zz\r\n")).then_hang()),
        ("size without end", Script::raw(format!("{chunked}{}", "0".repeat(400))).then_hang()),
        ("bad end of a chunk", Script::raw(format!("{chunked}1\r\nxyz\r\n")).then_hang()),
        ("bad trailer", Script::raw(format!("{chunked}0\r\nX : y\r\n\r\n")).then_hang()),
        ("no last chunk", Script::raw(chunked).then_close()),
        ("half a chunk", Script::raw(format!("{chunked}5\r\nab")).then_close()),
        ("short of its length", Script::close_in_body(100, "half")),
        ("reset", Script::reset_in_body(100, "half")),
        (
            "reset where the end of the connection is the end",
            Script::raw("HTTP/1.1 200 OK\r\n\r\nhalf").then_reset(),
        ),
    ] {
        origin.on("/bad", script);
        for protocol in Protocol::BOTH {
            let answer = protocol.connect(vigie.web()).await.ask("GET", HOST, "/bad", &[], None).await;
            let seen_whole = answer.as_ref().is_ok_and(|answer| answer.status == 200);
            assert!(!seen_whole, "{case} {protocol:?}: {answer:?}");
            let dropped = eventually(PATIENCE, async || origin.open_connections() == 0).await;
            assert!(dropped, "{case} {protocol:?}: the connection is kept");
        }
    }
}

/// What a server sends beyond its answer is no answer to anybody.
#[tokio::test]
async fn a_second_answer_reaches_nobody() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    for (case, script, method, status) in [
        ("behind a length", Script::text("good").then_send(EVIL), "GET", 200),
        ("behind a 204", Script::status(204).then_send(EVIL), "GET", 204),
        ("behind a 304", Script::status(304).then_send(EVIL), "GET", 304),
        (
            "behind a head",
            Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").then_send(EVIL),
            "HEAD",
            200,
        ),
        ("behind chunks", Script::chunked(&["good"], std::time::Duration::ZERO).then_send(EVIL), "GET", 200),
    ] {
        origin.on("/two", script);
        let mut client = Client::connect(vigie.web()).await.unwrap();
        for _ in 0..4 {
            let answer = client.request(method, HOST, "/two", &[], None).await.unwrap();
            assert_eq!(answer.status, status, "{case}");
            assert!(answer.body.is_empty() || answer.body == b"good", "{case}: {answer:?}");
            let next = client.get(HOST, "/next").await.unwrap();
            assert_eq!(next.json()["target"], "/next", "{case}");
        }
    }
}

/// RFC 9110 section 9.3.2: an answer to HEAD has no body. Where a server sends one late, it is no answer to the next request.
#[tokio::test]
async fn a_late_body_behind_a_head_costs_nobody_an_answer() {
    let origin = Origin::with("origin", |request| match (request.method.as_str(), request.connection) {
        ("HEAD", _) => Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("DELETE", _) => Script::raw("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        (_, 1) => Script::raw("helloHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        _ => Script::echo(),
    })
    .await;
    let vigie = Vigie::with(&STATIC.replace("workers: 2", "workers: 1"), &app("", &[origin.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    assert_eq!(client.request("HEAD", HOST, "/", &[], None).await.unwrap().status, 200);
    assert_eq!(client.get(HOST, "/next").await.unwrap().json()["target"], "/next");
    assert_eq!(origin.connections(), 2, "the first one was used for both");
    // RFC 9110 section 8.6: a 204 never names a length, and what names one may send it.
    assert_eq!(client.request("DELETE", HOST, "/", &[], None).await.unwrap().status, 204);
    assert_eq!(client.get(HOST, "/next").await.unwrap().status, 200);
    assert_eq!(origin.connections(), 3);
}

/// RFC 9110 sections 15.5.9 and 15.5.20 are about the connection to the server.
#[tokio::test]
async fn what_a_server_says_of_its_connection_is_not_about_the_clients() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    for status in [408, 421] {
        for fields in [&[][..], &[("Connection", "close")]] {
            origin.on("/", Script::answer(status, fields, "go away"));
            let answer = client.get(HOST, "/").await.unwrap();
            assert_eq!((answer.status, answer.keeps_alive()), (status, true), "{fields:?}");
        }
    }
}
