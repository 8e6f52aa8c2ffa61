//! Bodies and what surrounds them: big ones both ways, events, upgrades, trailers, interim answers.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{
    Answer, Authority, Client, Files, Gate, H2Client, H2Origin, Origin, PATIENCE, Script, eventually,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{HOST, Protocol, STATIC_TLS, Vigie, app};

async fn vigie_before(url: String) -> Vigie {
    Vigie::start(&app("", &[url])).await
}

/// A megabyte that differs everywhere.
fn megabyte() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test]
async fn big_bodies_pass_unchanged_both_ways() {
    let big: Vec<u8> = megabyte().repeat(8);
    let server = Origin::start("api").await;
    server.on("/down", Script::text(&big));
    let h2c = H2Origin::start("h2c", {
        let part = Bytes::from(big.clone());
        move |_| Answer { parts: vec![part.clone()], ..Answer::text("") }
    })
    .await;
    for (url, name) in [(server.url(), "HTTP/1.1"), (h2c.url(), "h2c")] {
        let vigie = vigie_before(url).await;
        for protocol in Protocol::BOTH {
            let mut connection = protocol.connect(vigie.web()).await;
            let down = connection.request("GET", "/down", &[], None).await;
            assert!(down.body == big, "{protocol:?} from {name}: {} bytes", down.body.len());
            if name == "HTTP/1.1" {
                connection.request("PUT", "/up", &[], Some(&big)).await;
                let seen = server.last();
                assert!(seen.body == big, "{protocol:?}: {} bytes", seen.body.len());
                assert_eq!(
                    (&*seen.method, seen.get("transfer-encoding").is_some()),
                    ("PUT", protocol == Protocol::Http2)
                );
            }
        }
    }
}

#[tokio::test]
async fn a_chunked_upload_arrives_with_its_bytes() {
    let server = Origin::start("api").await;
    let vigie = vigie_before(server.url()).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n"
        ))
        .await
        .unwrap();
    client.send("4\r\ndefg\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().json()["body"], "abcdefg");
    // And the connection goes on.
    assert_eq!(client.get(HOST, "/next").await.unwrap().json()["target"], "/next");
}

/// Each event is seen before the next one exists: the origin waits for the test in between.
#[tokio::test]
async fn events_are_never_held_back() {
    let server = Origin::start("api").await;
    server.on("/events", Script::server_sent_events(&["a", "b", "c"], Duration::from_millis(300)));
    let vigie = vigie_before(server.url()).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    assert_eq!(client.head("GET").await.unwrap().get("content-type"), Some("text/event-stream"));
    for event in ["a", "b", "c"] {
        assert_eq!(client.piece().await.unwrap().unwrap(), format!("data: {event}\n\n").as_bytes());
    }
    assert_eq!(client.piece().await.unwrap(), None);

    let client = H2Client::connect(vigie.web()).await.unwrap();
    let request = http::Request::get(format!("http://{HOST}/events")).body(()).unwrap();
    let (response, _) = client.open(request, true).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    for event in ["a", "b", "c"] {
        let part = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(part, format!("data: {event}\n\n"));
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_survives_a_reload() {
    let server = Origin::start("api").await;
    server.on("/socket", Script::upgrade_echo("websocket"));
    server.on("/refused", Script::answer(403, &[], "no"));
    let lengthy = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n";
    server.on("/lengthy", Script::raw(lengthy));
    let vigie = vigie_before(server.url()).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    // What the server refuses stays HTTP.
    assert_eq!(client.request("GET", HOST, "/refused", &fields, None).await.unwrap().status, 403);
    let switched = client.request("GET", HOST, "/socket", &fields, None).await.unwrap();
    assert_eq!((switched.status, switched.get("upgrade")), (101, Some("websocket")));
    // RFC 9110 section 8.6: an interim answer has no length.
    let mut other = Client::connect(vigie.web()).await.unwrap();
    let lengthy = other.request("GET", HOST, "/lengthy", &fields, None).await.unwrap();
    assert_eq!((lengthy.status, lengthy.get("content-length")), (101, None));
    drop(other);
    let seen = server.seen().into_iter().find(|seen| seen.target == "/socket").unwrap();
    assert_eq!((seen.get("upgrade"), seen.get("x-forwarded-proto")), (Some("websocket"), Some("ws")));
    assert_eq!(seen.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");

    let other = Origin::start("other").await;
    vigie.write(&app("", &[other.url()]));
    vigie.until("the reload is live", |response| crate::harness::origin(response) == "other").await;
    let big = megabyte();
    let (sent, received) = (big.clone(), big.len());
    client.send(&sent[..received / 8]).await.unwrap();
    assert!(client.bytes(received / 8).await.unwrap() == big[..received / 8]);
    // Either side's end ends the other; a pooled connection may stay open beside it.
    let open = server.open_connections();
    client.finish().await.unwrap();
    assert!(eventually(PATIENCE, async || server.open_connections() < open).await);
    assert!(client.closes_within(PATIENCE).await);
}

/// A WebSocket server that is sent too much says so and closes, with bytes unread: a reset behind its last words.
#[tokio::test]
async fn the_last_words_of_a_server_pass_while_the_client_still_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vigie = vigie_before(format!("http://{}", listener.local_addr().unwrap())).await;
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(switch.as_bytes()).await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(b"too much").await.unwrap();
        }
    });
    // Made once: who sends slower than Vigie waits for the end is cut off.
    let data = megabyte();
    for _ in 0..5 {
        let mut client = TcpStream::connect(vigie.web()).await.unwrap();
        let head =
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // More than sockets hold. Many a client that cannot write gives up without having read.
        for _ in 0..16 {
            client.write_all(&data).await.expect("the client is not cut off while it sends");
        }
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"too much"), "{}", String::from_utf8_lossy(&answer));
    }
    server.abort();
}

#[tokio::test]
async fn trailers_pass() {
    let server = Origin::start("api").await;
    server.on("/", Script::trailers(&["ab", "cd"], &[("X-Sum", "4")]));
    let grpc = H2Origin::start("grpc", |_| Answer {
        fields: vec![("content-type".into(), "application/grpc".into())],
        trailers: vec![("grpc-status".into(), "0".into())],
        ..Answer::text("message")
    })
    .await;
    let vigie = vigie_before(server.url()).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!((response.text(), response.trailers.get("x-sum")), ("abcd", Some("4")), "{protocol:?}");
    }
    let vigie = vigie_before(grpc.url()).await;
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let response = client.request("POST", HOST, "/pkg.Service/Call", &fields, Some(b"m")).await.unwrap();
    assert_eq!((response.text(), response.trailers.get("grpc-status")), ("message", Some("0")));
    assert_eq!(grpc.seen()[0].get("te"), Some("trailers"));
}

#[tokio::test]
async fn interim_answers_pass() {
    let server = Origin::start("api").await;
    server.on("/", Script::text("late").after_informational(103, &[("Link", "</a.css>")]));
    let vigie = vigie_before(server.url()).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!(
            (response.status, response.text(), response.informational.len()),
            (200, "late", 1),
            "{protocol:?}"
        );
        let early = &response.informational[0];
        assert_eq!((early.status, early.get("link")), (103, Some("</a.css>")));
    }
}

/// The body is sent only when it is asked for, and not at all when the server says no.
#[tokio::test]
async fn expect_asks_before_the_body() {
    let server = Origin::start("api").await;
    server.on("/", Script::echo().after_informational(100, &[]));
    server.on("/no", Script::early(417));
    let vigie = vigie_before(server.url()).await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    };
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(head("/")).await.unwrap();
    assert_eq!(client.any_head().await.unwrap().status, 100);
    client.send("body").await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().json()["body"], "body");

    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(head("/no")).await.unwrap();
    assert_eq!(client.any_head().await.unwrap().status, 417);
}

/// The answer may be complete while the request's body is still on its way.
#[tokio::test]
async fn an_early_answer_reaches_the_client() {
    let server = Origin::start("api").await;
    server.on("/", Script::early(413));
    let vigie = vigie_before(server.url()).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nstart"))
        .await
        .unwrap();
    let response = client.head("POST").await.unwrap();
    assert_eq!(response.status, 413);

    let client = H2Client::connect(vigie.web()).await.unwrap();
    let request = http::Request::post(format!("http://{HOST}/")).body(()).unwrap();
    let (response, mut body) = client.open(request, false).await.unwrap();
    body.send_data(Bytes::from_static(b"start"), false).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
}

/// A client that is told to stop in one breath with its answer may take that for lost, as curl 7.88 does. It gets a moment
/// to stop by itself or to send the rest; only then it is told.
#[tokio::test]
async fn an_http_2_client_that_still_sends_sees_the_answer_first() {
    let server = Origin::start("api").await;
    server.on("/", Script::early(413));
    let vigie = vigie_before(server.url()).await;
    for finishes in [true, false] {
        let client = H2Client::connect(vigie.web()).await.unwrap();
        let request = http::Request::post(format!("http://{HOST}/")).body(()).unwrap();
        let (response, mut body) = client.open(request, false).await.unwrap();
        body.send_data(Bytes::from_static(b"start"), false).unwrap();
        let mut response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), 413);
        while response.body_mut().data().await.is_some() {}
        // What was sent with the answer is here when another one is.
        assert_eq!(client.get(HOST, "/else").await.unwrap().status, 200);
        let told = poll_fn(|cx| Poll::Ready(body.poll_reset(cx).is_ready())).await;
        assert!(!told, "told to stop at once");
        if finishes {
            body.send_data(Bytes::from_static(b"end"), true).unwrap();
            assert_eq!(client.get(HOST, "/else").await.unwrap().status, 200);
        } else {
            let told = tokio::time::timeout(PATIENCE, poll_fn(|cx| body.poll_reset(cx))).await;
            assert_eq!(told.expect("not for ever").unwrap(), h2::Reason::NO_ERROR);
        }
    }
}

/// An answer that breaks off is never made to look complete.
#[tokio::test]
async fn a_truncated_answer_stays_truncated() {
    let server = Origin::start("api").await;
    server.on("/length", Script::close_in_body(100, "half"));
    server.on("/reset", Script::reset_in_body(100, "half"));
    server.on(
        "/chunked",
        Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").then_reset(),
    );
    let vigie = vigie_before(server.url()).await;
    for protocol in Protocol::BOTH {
        for path in ["/length", "/reset", "/chunked"] {
            let answer = protocol.connect(vigie.web()).await.ask("GET", HOST, path, &[], None).await;
            assert!(
                answer.is_err() || answer.as_ref().is_ok_and(|a| a.status >= 500),
                "{protocol:?} {path}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let server = Origin::start("api").await;
    server.on("/head", Script::text("four"));
    server.on("/204", Script::status(204));
    server.on("/304", Script::answer(304, &[("ETag", "\"x\""), ("Content-Length", "4")], ""));
    server.on("/close", Script::until_close("to the end"));
    let vigie = vigie_before(server.url()).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let head = connection.request("HEAD", "/head", &[], None).await;
        assert_eq!(
            (head.status, head.get("content-length"), head.body.len()),
            (200, Some("4"), 0),
            "{protocol:?}"
        );
        assert_eq!(connection.request("GET", "/204", &[], None).await.body, b"");
        let unmodified = connection.request("GET", "/304", &[], None).await;
        assert_eq!((unmodified.status, unmodified.get("etag")), (304, Some("\"x\"")));
        // A body that ends with the server's connection does not end the client's.
        let response = connection.request("GET", "/close", &[], None).await;
        assert_eq!((response.text(), response.until_close), ("to the end", false));
        assert_eq!(connection.request("GET", "/204", &[], None).await.status, 204);
    }
}

/// A client that goes away cancels the work for it.
#[tokio::test]
async fn a_client_that_leaves_frees_the_server() {
    let gate = Gate::closed();
    let server = Origin::start("api").await;
    server.on("/held", Script::echo().gated(&gate));
    server.on("/hang", Script::hang());
    let vigie = vigie_before(server.url()).await;
    let instance = server.url();
    for protocol in Protocol::BOTH {
        let reached = server.requests();
        let web = vigie.web();
        let request = tokio::spawn(async move { protocol.get(web, "/hang").await });
        assert!(eventually(PATIENCE, async || server.requests() > reached).await);
        request.abort();
        vigie.until_metric("active_connections", &[("instance", &instance)], 0.0).await;
        assert!(eventually(PATIENCE, async || server.open_connections() == 0).await, "{protocol:?}");
    }
    let failed = vigie.metrics().await.value("traefik_entrypoint_requests_total", &[("code", "499")]);
    assert_eq!(failed, Some(2.0));
}

/// It has sent more than is read ahead, so that its end stands behind bytes that nobody reads.
#[tokio::test]
async fn a_client_that_pipelines_and_leaves_frees_the_server() {
    let gate = Gate::closed();
    let server = Origin::start("api").await;
    server.on("/held", Script::echo().gated(&gate));
    server.on("/hang", Script::hang());
    let vigie = vigie_before(server.url()).await;
    let next = format!("GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(3000);

    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /hang HTTP/1.1\r\nHost: {HOST}\r\n\r\n{next}")).await.unwrap();
    assert!(eventually(PATIENCE, async || server.requests() == 1).await);
    client.reset();
    assert!(eventually(PATIENCE, async || server.open_connections() == 0).await);

    // One that stays gets every answer.
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /held HTTP/1.1\r\nHost: {HOST}\r\n\r\n{next}")).await.unwrap();
    assert!(eventually(PATIENCE, async || server.requests() == 2).await);
    gate.let_one_pass();
    assert_eq!(client.response("GET").await.unwrap().json()["target"], "/held");
    for _ in 0..3000 {
        assert_eq!(client.response("GET").await.unwrap().json()["target"], "/next");
    }
}

/// Nobody reads what it still sends, and so not its end either.
#[tokio::test]
async fn a_client_that_leaves_an_upload_that_nobody_takes_is_noticed() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let authority = Authority::new("test authority");
    let files = Files::new();
    authority.issue(&[HOST]).write(files.path(), "app");
    let tls = "tls: {certificates: [{certFile: '{dir}/app.crt', keyFile: '{dir}/app.key'}]}\n";
    let vigie = Vigie::over(files, STATIC_TLS, &(app("", std::slice::from_ref(&url)) + tls)).await;
    let chunk = vec![b'x'; 0x40000];
    for secure in [false, true] {
        for (framing, start) in
            [("Content-Length: 1000000000", ""), ("Transfer-Encoding: chunked", "fffffff\r\n")]
        {
            let mut client = match secure {
                false => Client::connect(vigie.web()).await.unwrap(),
                true => {
                    let config = authority.client_config(&[]);
                    Client::connect_tls(vigie.websecure(), config, HOST).await.unwrap()
                }
            };
            let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n{start}");
            client.send(head).await.unwrap();
            let (taken, _) = server.accept().await.unwrap();
            // Until the last buffer on the way is full.
            while tokio::time::timeout(Duration::from_millis(100), client.send(&chunk)).await.is_ok() {}
            client.reset();
            vigie.until_metric("active_connections", &[("instance", &url)], 0.0).await;
            drop(taken);
        }
    }
    let gone = vigie.metrics().await.value("traefik_service_requests_total", &[("code", "499")]);
    assert_eq!(gone, Some(4.0));
}

/// A body larger than any buffer passes while the server holds it up: nothing is lost, and Vigie's memory
/// does not grow with it.
#[tokio::test]
async fn a_slow_reader_does_not_fill_memory() {
    let big = megabyte().repeat(64);
    let server = Origin::start("api").await;
    server.on("/", Script::text(&big));
    let vigie = vigie_before(server.url()).await;
    let resident = async || vigie.metrics().await.value("process_resident_memory_bytes", &[]).unwrap();
    for protocol in Protocol::BOTH {
        let before = resident().await;
        match protocol {
            Protocol::Http1 => {
                let mut client = Client::connect(vigie.web()).await.unwrap();
                client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
                client.head("GET").await.unwrap();
                let grown = resident().await - before;
                assert!(grown < 16e6, "{grown} bytes for a client that reads nothing");
                let mut length = 0;
                while let Some(piece) = client.piece().await.unwrap() {
                    length += piece.len();
                }
                assert_eq!(length, big.len());
            }
            Protocol::Http2 => {
                let client = H2Client::connect(vigie.web()).await.unwrap();
                let request = http::Request::get(format!("http://{HOST}/")).body(()).unwrap();
                let (response, _) = client.open(request, true).await.unwrap();
                let mut body = response.await.unwrap().into_body();
                let grown = resident().await - before;
                assert!(grown < 16e6, "{grown} bytes for a client that reads nothing");
                let mut length = 0;
                while let Some(part) = body.data().await {
                    let part = part.unwrap();
                    body.flow_control().release_capacity(part.len()).unwrap();
                    length += part.len();
                }
                assert_eq!(length, big.len());
            }
        }
    }
}
