//! HTTP/2 clients that only cause work: each kind is cut off with the right code, counted under its name and
//! logged once, while others are served and memory stays bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{Answer, Client, Gate, H2Client, H2Origin, Origin, PATIENCE, Script, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::frames::*;
use crate::harness::{HOST, STATIC, Vigie, app};

async fn vigie_before(origin: &Origin) -> Vigie {
    Vigie::with(&format!("{STATIC}log: {{level: INFO}}\n"), &app("", &[origin.url()])).await
}

async fn resident(vigie: &Vigie) -> f64 {
    vigie.metrics().await.value("process_resident_memory_bytes", &[]).expect("it is shown on Linux")
}

/// Sends until the connection ends, for one of `reasons`: whichever limit is met first. A victim is served meanwhile.
async fn blast(
    vigie: &Vigie,
    reasons: &[&str],
    settings: &[u8],
    prelude: &[u8],
    mut more: impl FnMut() -> Vec<u8>,
) {
    let before = resident(vigie).await;
    let mut victim = H2Client::connect(vigie.web()).await.unwrap();
    let mut frames = Frames::connect(vigie.web(), settings).await;
    frames.send(prelude).await.unwrap();
    let mut sent = 0;
    for round in 0.. {
        let bytes = more();
        sent += bytes.len();
        assert!(sent < 64 << 20, "{reasons:?}: nobody minds {sent} bytes");
        if frames.send(&bytes).await.is_err() {
            break;
        }
        if round == 5 {
            assert_eq!(
                victim.get(HOST, "/victim").await.unwrap().status,
                200,
                "{reasons:?}: another connection"
            );
        }
    }
    // What was answered meanwhile comes before the farewell; a reset may have taken it along.
    let end = frames.end(u32::MAX, PATIENCE).await;
    assert!(matches!(end, End::Gone(ENHANCE_YOUR_CALM) | End::Closed), "{reasons:?}: {end:?}");
    let mut counted = None;
    let is_counted = eventually(PATIENCE, async || {
        let metrics = vigie.metrics().await;
        let count =
            |reason| metrics.value("lb_refused_requests_total", &[("entrypoint", "web"), ("reason", reason)]);
        counted = reasons.iter().find(|reason| count(reason) == Some(1.0));
        counted.is_some()
    });
    assert!(is_counted.await, "{reasons:?}: not counted\n{}", vigie.words());
    let reason = counted.expect("counted");
    vigie.until_said(reason).await;
    let lines = vigie.words().lines().filter(|line| line.contains(reason)).count();
    assert_eq!(lines, 1, "{reason}: one line\n{}", vigie.words());
    assert_eq!(victim.get(HOST, "/victim").await.unwrap().status, 200, "{reason}: another connection");
    victim = H2Client::connect(vigie.web()).await.unwrap();
    assert_eq!(victim.get(HOST, "/victim").await.unwrap().status, 200, "{reason}: a new connection");
    let grown = resident(vigie).await - before;
    assert!(grown < 48e6, "{reason}: {grown} bytes more");
}

#[tokio::test]
async fn floods_of_empty_frames_are_cut_off() {
    let origin = Origin::start("origin").await;
    origin.on("/hang", Script::hang());
    let vigie = vigie_before(&origin).await;
    let many = |one: Vec<u8>| one.repeat(1000);
    for (reason, flood) in [
        ("http2_ping_flood", frame(PING, 0, 0, b"12345678")),
        ("http2_settings_flood", frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff")),
        ("http2_priority_flood", frame(PRIORITY, 0, 1, &[0; 5])),
        ("http2_unknown_flood", frame(0x55, 0, 0, b"")),
    ] {
        blast(&vigie, &[reason], &[], &[], || many(flood.clone())).await;
    }
    let open = frame(HEADERS, END_HEADERS, 1, &block(&get("/hang")));
    // A window that does not overflow within the budget.
    blast(&vigie, &["http2_window_update_flood"], &[], &open, || {
        many(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))
    })
    .await;
    blast(&vigie, &["http2_data_flood"], &[], &open, || many(frame(DATA, 0, 1, b""))).await;
    let start = frame(HEADERS, 0, 1, &block(&get("/x")));
    blast(&vigie, &["http2_continuation_flood"], &[], &start, || many(frame(CONTINUATION, 0, 1, b""))).await;
}

/// The head of a request with a body.
fn post(stream: u32, path: &str) -> Vec<u8> {
    let head = block(&[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]);
    frame(HEADERS, END_HEADERS, stream, &head)
}

/// A frame takes memory besides its payload, until that is read.
#[tokio::test]
async fn small_frames_pass_as_long_as_they_are_read() {
    let origin = Origin::start("origin").await;
    origin.on("/auth", Script::hang());
    let text = format!(
        "
http:
  routers:
    app: {{rule: 'PathPrefix(`/`)', service: app}}
    stuck: {{rule: 'PathPrefix(`/stuck`)', service: app, middlewares: [ask]}}
  middlewares: {{ask: {{forwardAuth: {{address: '{url}/auth'}}}}}}
  services: {{app: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}}}
",
        url = origin.url()
    );
    let vigie = Vigie::with(&format!("{STATIC}log: {{level: INFO}}\n"), &text).await;
    // As a client of gRPC sends many messages at once.
    let mut client = Frames::connect(vigie.web(), &[]).await;
    client.send(post(1, "/body")).await.unwrap();
    let messages = frame(DATA, 0, 1, &[b'm'; 16]).repeat(4000);
    client.send([messages, frame(DATA, END_STREAM, 1, b"")].concat()).await.unwrap();
    assert_eq!(client.end(1, PATIENCE).await, End::Answered(Some(200)));
    assert_eq!(origin.last().body.len(), 16 * 4000);
    // Of one byte each, and nobody reads them yet: what follows on the same stream joins.
    let mut client = Frames::connect(vigie.web(), &[]).await;
    client.send([post(1, "/stuck"), frame(DATA, 0, 1, b"m").repeat(100_000)].concat()).await.unwrap();
    client.ping().await.unwrap();
    let bytes = [frame(DATA, 0, 1, b"m"), frame(DATA, 0, 3, b"m")].concat().repeat(1000);
    let open = [post(1, "/stuck"), post(3, "/stuck")].concat();
    blast(&vigie, &["http2_data_flood"], &[], &open, || bytes.clone()).await;
}

/// Takes two requests, and nothing of their bodies before it is told to.
async fn take_late(mut stream: TcpStream, now: &Notify) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    // SETTINGS_INITIAL_WINDOW_SIZE: RFC 9113 section 6.5.2.
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await?;
    let mut taken = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, id @ ..] = head;
        stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([high, low]))]).await?;
        let id = u32::from_be_bytes(id);
        if kind == SETTINGS && flags == 0 {
            stream.write_all(&frame(SETTINGS, 1, 0, b"")).await?;
        }
        if kind == HEADERS {
            taken.push(id);
            if taken.len() == 2 {
                now.notified().await;
                for id in [0, taken[0], taken[1]] {
                    stream.write_all(&frame(WINDOW_UPDATE, 0, id, &[0, 16, 0, 0])).await?;
                }
            }
        }
        if kind == DATA && flags & END_STREAM != 0 {
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88])).await?;
        }
    }
}

/// A server that is slow to take what its client sends in many messages is no reason to end the client's connection.
#[tokio::test]
async fn small_frames_may_wait_for_a_slow_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vigie = Vigie::start(&app("", &[format!("h2c://{}", listener.local_addr().unwrap())])).await;
    let now = Arc::new(Notify::new());
    let server = tokio::spawn({
        let now = Arc::clone(&now);
        async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let now = Arc::clone(&now);
                tokio::spawn(async move { take_late(stream, &now).await });
            }
        }
    });
    let mut client = Frames::connect(vigie.web(), &[]).await;
    client.send([post(1, "/"), post(3, "/")].concat()).await.unwrap();
    // More than may wait unread, bit by bit.
    let messages = [frame(DATA, 0, 1, b"tiny"), frame(DATA, 0, 3, b"tiny")].concat().repeat(50);
    for _ in 0..120 {
        client.send(&messages).await.unwrap();
        client.ping().await.unwrap();
    }
    now.notify_one();
    for stream in [1, 3] {
        client.send(frame(DATA, END_STREAM, stream, b"")).await.unwrap();
        assert_eq!(client.end(stream, PATIENCE).await, End::Answered(Some(200)));
    }
    server.abort();
}

/// CVE-2023-44487, all at once and paced, and CVE-2025-8671, where the client makes us do the resetting.
#[tokio::test]
async fn streams_opened_in_vain_are_cut_off() {
    let origin = Origin::start("origin").await;
    origin.on("/hang", Script::hang());
    let vigie = vigie_before(&origin).await;
    let request = block(&get("/hang"));
    let mut stream = 1;
    blast(&vigie, &["http2_rapid_reset"], &[], &[], || {
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &request));
            bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            stream += 2;
        }
        bytes
    })
    .await;
    let vigie = vigie_before(&origin).await;
    let mut stream = 1;
    // A stream that ends in vain is one, whoever resets it: half of 500 may come before 1,024.
    blast(&vigie, &["http2_made_reset", "http2_rapid_reset"], &[], &[], || {
        let mut bytes = Vec::new();
        for _ in 0..50 {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &request));
            bytes.extend(frame(WINDOW_UPDATE, 0, stream, &[0x7f, 255, 255, 255]));
            stream += 2;
        }
        bytes
    })
    .await;
    // The server no longer works for streams that nobody reads.
    vigie.until_metric("active_connections", &[], 0.0).await;
}

/// Paced below what h2 itself counts: each stream reaches the server before it is reset.
#[tokio::test]
async fn streams_reset_one_by_one_are_cut_off() {
    let origin = Origin::start("origin").await;
    origin.on("/hang", Script::hang());
    let vigie = vigie_before(&origin).await;
    let request = block(&get("/hang"));
    let mut frames = Frames::connect(vigie.web(), &[]).await;
    let mut cut = false;
    for stream in (1..4000).step_by(2) {
        let reached = origin.requests();
        if frames.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &request)).await.is_err() {
            cut = true;
            break;
        }
        let begun = eventually(Duration::from_secs(1), async || origin.requests() > reached).await;
        if !begun || frames.send(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.is_err() {
            cut = true;
            break;
        }
    }
    assert!(cut, "2000 streams reset at once, and nobody minds");
    vigie.until_metric("lb_refused_requests_total", &[("reason", "http2_rapid_reset")], 1.0).await;
    assert_eq!(vigie.get("/").await.status, 200);
}

/// The same index again and again, within what one head may hold: some hundred bytes on the wire are a mebibyte in
/// memory, on each of 200 streams that a server is slow to answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_heads_of_one_connection_are_bounded_together() {
    let gate = Gate::closed();
    let origin = Origin::start("origin").await;
    origin.on("/held", Script::echo().gated(&gate));
    let vigie = vigie_before(&origin).await;
    let before = resident(&vigie).await;
    let mut frames = Frames::connect(vigie.web(), &[]).await;
    let mut head = block(&get("/held"));
    // Literal with incremental indexing: an entry of nearly 4 KiB in the dynamic table.
    head.extend([0x40, 1, b'x', 0x7f, 0x80 | (3800 - 127) as u8 & 0x7f, ((3800 - 127) >> 7) as u8]);
    head.extend(vec![b'a'; 3800]);
    frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.unwrap();
    let mut again = block(&get("/held"));
    again.extend(vec![0xbe; 240]);
    let streams = 200;
    for stream in 1..=streams {
        frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &again)).await.unwrap();
    }
    let reason = [("entrypoint", "web"), ("reason", "http2_large_heads")];
    let refused =
        || async { vigie.metrics().await.value("lb_refused_requests_total", &reason).unwrap_or(0.0) };
    assert!(eventually(PATIENCE, async || refused().await >= f64::from(streams) - 8.0).await);
    assert!(refused().await < f64::from(streams), "some are served");
    let end = frames.end(2 * streams + 1, PATIENCE).await;
    assert!(matches!(end, End::Answered(_)), "{end:?}");
    let grown = resident(&vigie).await - before;
    assert!(grown < 64e6, "{grown} bytes for 80 kB");
    // Heads as they commonly are need no allowance, on the same connection neither.
    let stream = 2 * streams + 3;
    frames.request(stream, &get("/")).await.unwrap();
    assert_eq!(frames.end(stream, PATIENCE).await, End::Answered(Some(200)));
    (0..=streams).for_each(|_| gate.let_one_pass());
}

/// A header list that is small on the wire and large when decoded.
#[tokio::test]
async fn a_header_bomb_is_refused_for_what_it_is_worth() {
    let origin = Origin::start("origin").await;
    let vigie = vigie_before(&origin).await;
    let before = resident(&vigie).await;
    let mut frames = Frames::connect(vigie.web(), &[]).await;
    // Literal with incremental indexing: an entry of nearly 4 KiB in the dynamic table.
    let mut first = block(&get("/x"));
    first.extend([0x40, 1, b'x', 0x7f, 0x80 | (3800 - 127) as u8 & 0x7f, ((3800 - 127) >> 7) as u8]);
    first.extend(vec![b'a'; 3800]);
    frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &first)).await.unwrap();
    assert_eq!(frames.end(1, PATIENCE).await, End::Answered(Some(200)));
    // Index 62, ten thousand times in 10 kB: 38 MB.
    let mut bomb = block(&get("/x"));
    bomb.extend(vec![0xbe; 10_000]);
    let reached = origin.requests();
    for stream in (3..400).step_by(2) {
        if frames.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb)).await.is_err() {
            break;
        }
    }
    let end = frames.end(3, PATIENCE).await;
    assert!(matches!(end, End::Answered(Some(431)) | End::Reset(_) | End::Gone(_)), "{end:?}");
    assert_eq!(origin.requests(), reached);
    let grown = resident(&vigie).await - before;
    assert!(grown < 64e6, "{grown} bytes for a bomb");
    assert_eq!(Client::connect(vigie.web()).await.unwrap().get(HOST, "/").await.unwrap().status, 200);
}

/// HPACK makes thousands of fields of a few bytes, in heads and trailers alike: more than may stand in a message go
/// nowhere, whichever side they are from.
#[tokio::test]
async fn thousands_of_fields_get_through_on_neither_side() {
    const MANY: usize = 30_000;
    let many = || vec![("a".to_owned(), String::new()); MANY];
    let server = H2Origin::start("server", move |request| match &*request.target {
        "/head" => Answer { fields: many(), ..Answer::text("x") },
        "/trailers" => Answer { trailers: many(), ..Answer::text("x") },
        _ => Answer::echo(),
    })
    .await;
    let vigie = Vigie::start(&app("", &[server.url()])).await;
    let client = H2Client::connect(vigie.web()).await.unwrap();
    assert_eq!(client.get(HOST, "/head").await.unwrap().status, 502);
    assert!(client.get(HOST, "/trailers").await.is_err(), "the answer is broken off");
    let request = http::Request::post(format!("http://{HOST}/")).body(()).unwrap();
    let (response, mut body) = client.open(request, false).await.unwrap();
    let mut trailers = http::HeaderMap::new();
    for _ in 0..MANY {
        trailers.append("a", http::HeaderValue::from_static(""));
    }
    body.send_data(Bytes::from_static(b"x"), false).unwrap();
    body.send_trailers(trailers).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(client.get(HOST, "/").await.unwrap().status, 200, "the connection is none the worse");
}
