//! Clients that take their time: with a head, a handshake, a body, or with reading the answer.

use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{
    Answer, Authority, Client, Files, H2Client, H2Origin, Origin, PATIENCE, Script, eventually,
};
use rustix::process::Signal;
use tokio::time::Instant;

use super::frames::*;
use crate::harness::{HOST, Metrics, Protocol, STATIC, STATIC_TLS, Vigie, app};

/// What is promised for a head, and how late we may be.
const HEAD: Duration = Duration::from_secs(10);
const LATE: Duration = Duration::from_secs(4);

/// Sends `bytes` and then `more` once a second until the connection ends; what came, and how long that took.
async fn trickle(mut client: Client, bytes: &[u8], more: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut sent = client.send(bytes).await.is_ok();
    let mut came = Vec::new();
    while began.elapsed() < HEAD + LATE {
        match tokio::time::timeout(Duration::from_secs(1), client.bytes(1)).await {
            Ok(Ok(byte)) => came.extend(byte),
            Ok(Err(_)) => break,
            Err(_) if sent => sent = client.send(more).await.is_ok(),
            Err(_) => {}
        }
    }
    (String::from_utf8_lossy(&came).into_owned(), began.elapsed())
}

/// Each byte comes in time, the whole does not.
#[tokio::test]
async fn a_head_that_trickles_is_cut_off_after_ten_seconds() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "site");
    let origin = Origin::start("origin").await;
    let tls = "tls: {certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]}\n";
    let vigie = Vigie::over(files, STATIC_TLS, &format!("{}{tls}", app("", &[origin.url()]))).await;
    let plain = async || Client::connect(vigie.web()).await.unwrap();
    let secure = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await.unwrap();
    let raw_tls = Client::connect(vigie.websecure()).await.unwrap();
    let h2 = Frames::connect(vigie.web(), &[]).await;
    let h2_mid_frame = Frames::connect(vigie.web(), &[]).await;
    let mut kept = plain().await;
    kept.get(HOST, "/").await.unwrap();
    let block = block(&get("/x"));
    let head = frame(HEADERS, 0, 1, &block);
    let continuation = frame(CONTINUATION, 0, 1, b"");
    let mid_frame = &frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&block[..], &[0; 200]].concat())[..20];
    let line = b"GET / HTTP/1.1\r\nHost: a\r\n";
    let began = Instant::now();
    let (silent, http, next, https, hello, preface, frames, bytes) = tokio::join!(
        trickle(plain().await, b"", b""),
        trickle(plain().await, line, b"a: b\r\n"),
        trickle(kept, line, b"a: b\r\n"),
        trickle(secure, line, b"a: b\r\n"),
        trickle(raw_tls, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"x"),
        trickle(plain().await, b"PRI * HTTP/", b""),
        trickle(h2.client, &head, &continuation),
        trickle(h2_mid_frame.client, mid_frame, b"\0"),
    );
    assert!(began.elapsed() < HEAD + LATE);
    for (case, (came, took)) in [
        ("nothing", &silent),
        ("HTTP/1.1", &http),
        ("second request", &next),
        ("HTTPS", &https),
        ("ClientHello", &hello),
        ("preface", &preface),
        ("HTTP/2 head", &frames),
        ("HTTP/2 frame", &bytes),
    ] {
        assert!(*took < HEAD + LATE && *took > HEAD - LATE, "{case}: {took:?}");
        let is_head = ["HTTP/1.1", "second request", "HTTPS"].contains(&case);
        assert_eq!(came.starts_with("HTTP/1.1 408 "), is_head, "{case}: {came:?}");
    }
    let metrics = vigie.metrics().await;
    let counted = |entry, reason| {
        metrics.value("lb_refused_requests_total", &[("entrypoint", entry), ("reason", reason)])
    };
    assert_eq!(counted("web", "head_timeout"), Some(4.0), "two over HTTP/1.1 and two over HTTP/2");
    assert_eq!(
        (counted("websecure", "head_timeout"), counted("websecure", "tls_timeout")),
        (Some(1.0), Some(1.0))
    );
}

/// [`STATIC`] that wants a hundred bytes a second, over one second.
fn strict() -> String {
    let options =
        "limits: {minBodyRate: 100, bodyRateWindow: 1s}, transport: {respondingTimeouts: {readTimeout: 0}}";
    STATIC.replace("web: {address: '127.0.0.1:0'}", &format!("web: {{address: '127.0.0.1:0', {options}}}"))
        + "log: {level: INFO}\n"
}

#[tokio::test]
async fn an_upload_that_trickles_is_cut_off() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::with(&strict(), &app("", &[origin.url()])).await;
    for (framing, piece) in [
        ("Content-Length: 100000", &b"x"[..]),
        ("Transfer-Encoding: chunked", b"1\r\nx\r\n"),
        // Whoever does not wait for the 100 is not excused by having asked for it.
        ("Expect: 100-continue\r\nContent-Length: 100000", b"x"),
    ] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n")).await.unwrap();
        // Twenty bytes a second, until the connection ends.
        let began = Instant::now();
        while client.send(piece).await.is_ok()
            && !client.closes_within(Duration::from_millis(50)).await
            && began.elapsed() < PATIENCE
        {}
        let took = began.elapsed();
        let came = String::from_utf8_lossy(&client.rest().await.unwrap_or_default()).into_owned();
        assert!(
            came.starts_with("HTTP/1.1 408 ") && came.contains("Connection: close"),
            "{framing}: {came:?}"
        );
        assert!(took < Duration::from_secs(8), "{framing}: {took:?}");
    }
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let request =
        http::Request::post(format!("http://{HOST}/")).header("content-length", "100000").body(()).unwrap();
    let (response, mut body) = client.open(request, false).await.unwrap();
    body.send_data(Bytes::from_static(b"x"), false).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 408);
    vigie.until_metric("lb_refused_requests_total", &[("reason", "slow_body")], 4.0).await;
    // The server is rid of them as well.
    vigie.until_metric("active_connections", &[], 0.0).await;
    assert_eq!(
        vigie.metrics().await.value("lb_upstream_errors_total", &[]).unwrap_or(0.0),
        0.0,
        "not its fault"
    );
}

/// Silence is no slowness where the client is not waited for, or may be silent.
#[tokio::test]
async fn quiet_streams_are_left_alone() {
    const QUIET: Duration = Duration::from_millis(2500);
    let origin = Origin::start("origin").await;
    origin.on("/events", Script::server_sent_events(&["a", "b"], QUIET));
    origin.on("/socket", Script::upgrade_echo("websocket"));
    origin.on("/late", Script::echo().delayed(QUIET));
    let grpc = H2Origin::start("grpc", |_| Answer {
        fields: vec![("content-type".into(), "application/grpc".into())],
        trailers: vec![("grpc-status".into(), "0".into())],
        ..Answer::text("message")
    })
    .await;
    let vigie = Vigie::with(&strict(), &app("", &[origin.url()])).await;
    let grpc_vigie = Vigie::with(&strict(), &app("", &[grpc.url()])).await;
    let events = async |protocol: Protocol| {
        let answer = protocol.connect(vigie.web()).await.request("GET", "/events", &[], None).await;
        assert_eq!(answer.text(), "data: a\n\ndata: b\n\n", "{protocol:?}");
    };
    let socket = async {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
        assert_eq!(client.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
        tokio::time::sleep(QUIET).await;
        client.send("ping").await.unwrap();
        assert_eq!(client.bytes(4).await.unwrap(), b"ping");
    };
    // The server takes its time with a body that is all there.
    let upload = async |protocol: Protocol| {
        let body = vec![b'x'; 3_000_000];
        let answer = protocol.connect(vigie.web()).await.request("POST", "/late", &[], Some(&body)).await;
        assert_eq!(answer.status, 200, "{protocol:?}");
    };
    // A call in which the client says something now and then.
    let call = async {
        let client = H2Client::connect(grpc_vigie.web()).await.unwrap();
        let request = http::Request::post(format!("http://{HOST}/pkg.Service/Call"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut body) = client.open(request, false).await.unwrap();
        for last in [false, false, true] {
            body.send_data(Bytes::from_static(b"m"), last).unwrap();
            if !last {
                tokio::time::sleep(QUIET).await;
            }
        }
        assert_eq!(tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap().status(), 200);
    };
    tokio::join!(
        events(Protocol::Http1),
        events(Protocol::Http2),
        socket,
        upload(Protocol::Http1),
        upload(Protocol::Http2),
        call
    );
    assert_eq!(vigie.metrics().await.value("lb_refused_requests_total", &[]).unwrap_or(0.0), 0.0);
}

/// Who asks for much and takes nothing of it, or next to nothing.
#[tokio::test]
async fn a_reader_that_stalls_is_cut_off() {
    let origin = Origin::start("origin").await;
    origin.on("/big", Script::text(vec![b'x'; 32 << 20]));
    let vigie = Vigie::with(&strict(), &app("", &[origin.url()])).await;
    let reason = |reason: &'static str| [("entrypoint", "web"), ("reason", reason)];
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /big HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    client.head("GET").await.unwrap();
    vigie.until_metric("lb_refused_requests_total", &reason("slow_reader"), 1.0).await;
    vigie.until_metric("traefik_open_connections", &reason("slow_reader")[..1], 0.0).await;

    // Over HTTP/2 with a window of nothing: the connection serves no other purpose.
    let mut frames = Frames::connect(vigie.web(), b"\0\x04\0\0\0\0").await;
    for stream in (1..41).step_by(2) {
        frames.request(stream, &get("/big")).await.unwrap();
    }
    assert_eq!(frames.end(1001, PATIENCE).await, End::Gone(ENHANCE_YOUR_CALM));
    vigie.until_metric("lb_refused_requests_total", &reason("http2_stalled"), 1.0).await;
    let lines = vigie.words().lines().filter(|line| line.contains("http2_stalled")).count();
    assert_eq!(lines, 1, "{}", vigie.words());

    // One stream of many is reset alone.
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let request = http::Request::get(format!("http://{HOST}/big")).body(()).unwrap();
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
    }
    let (response, _) = client.open(request, true).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            match body.data().await {
                // Kept: nothing is given back to the window.
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    });
    let error = end.await.expect("in time").expect("not the end").expect_err("broken off");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    // What it held of the connection's window is free again.
    drop(body);
    assert_eq!(client.get(HOST, "/").await.unwrap().status, 200, "the connection lives");

    // Whoever reads slowly but steadily gets it all.
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /big HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    client.head("GET").await.unwrap();
    let mut length = 0;
    let mut pauses = 0;
    while let Some(piece) = client.piece().await.unwrap() {
        length += piece.len();
        if length / (4 << 20) > pauses {
            pauses = length / (4 << 20);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    assert_eq!(length, 32 << 20);
    vigie.until_metric("active_connections", &[], 0.0).await;
}

/// A client that asks for much at once, in windows that have room for all of it, and reads nothing yet. Each answer fits into
/// what may wait for it, and all of them are more than the system takes.
async fn unread(options: &str) -> (Vigie, Frames) {
    let origin = Origin::start("origin").await;
    origin.on("/answer", Script::text(vec![b'x'; ANSWER]));
    let options = format!("http2: {{maxConcurrentStreams: {ANSWERS}}}, {options}");
    let text = STATIC
        .replace("web: {address: '127.0.0.1:0'}", &format!("web: {{address: '127.0.0.1:0', {options}}}"));
    let vigie = Vigie::with(&text, &app("", &[origin.url()])).await;
    let mut frames = Frames::connect(vigie.web(), b"\0\x04\x7f\xff\xff\xff").await;
    frames.send(frame(WINDOW_UPDATE, 0, 0, &[0x3f, 0, 0, 0])).await.unwrap();
    let request = block(&get("/answer"));
    for stream in 0..u32::try_from(ANSWERS).unwrap() {
        frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &request)).await.unwrap();
    }
    let answered =
        |metrics: Metrics| metrics.value("traefik_entrypoint_requests_total", &[("entrypoint", "web")]);
    let all = eventually(PATIENCE, async || answered(vigie.metrics().await) == Some(ANSWERS as f64)).await;
    assert!(all, "{}", vigie.words());
    (vigie, frames)
}

const ANSWER: usize = 60_000;
const ANSWERS: usize = 600;

/// What the end of a connection leaves to be read is read, however long that takes.
#[tokio::test]
async fn who_reads_slowly_misses_nothing_of_a_connection_that_ends() {
    /// Who has nothing more to read is waited for that long.
    const IDLE: Duration = Duration::from_millis(2500);
    let (mut vigie, mut frames) = unread("transport: {lifeCycle: {graceTimeOut: 30s}}").await;
    vigie.signal(Signal::TERM);
    tokio::time::sleep(IDLE).await;
    assert_eq!(frames.drain(ANSWERS).await, (ANSWERS, ANSWERS * ANSWER));
    assert!(vigie.ended(PATIENCE).await.success());
}

/// Nobody waits for the client any more but h2, which keeps their answers.
#[tokio::test]
async fn answers_that_nobody_takes_are_not_kept() {
    let (vigie, mut frames) = unread("limits: {minBodyRate: 100, bodyRateWindow: 1s}").await;
    vigie.until_metric("lb_refused_requests_total", &[("reason", "http2_stalled")], 1.0).await;
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "web")], 0.0).await;
    assert!(frames.drain(ANSWERS).await.0 < ANSWERS);
}

/// Traefik's three, on an entry point where they are short.
#[tokio::test]
async fn the_timeouts_of_an_entry_point_end_what_lasts_too_long() {
    let origin = Origin::start("origin").await;
    origin.on("/drip", Script::chunked(&["a", "b", "c", "d", "e", "f"], Duration::from_secs(1)));
    // Ready when there is no time left: it is not begun.
    origin.on("/late", Script::text("late").delayed(Duration::from_millis(2500)));
    let options = "transport: {respondingTimeouts: {readTimeout: 1s, writeTimeout: 2s, idleTimeout: 1s}}";
    let text = STATIC
        .replace("web: {address: '127.0.0.1:0'}", &format!("web: {{address: '127.0.0.1:0', {options}}}"));
    let vigie = Vigie::with(&text, &app("", &[origin.url()])).await;
    let idle = async {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.get(HOST, "/").await.unwrap();
        assert!(client.closes_within(Duration::from_secs(4)).await, "idle over HTTP/1.1");
    };
    let idle_h2 = async {
        let client = H2Client::connect(vigie.web()).await.unwrap();
        client.get(HOST, "/").await.unwrap();
        let closed = eventually(Duration::from_secs(5), async || client.is_closed()).await;
        assert!(closed, "idle over HTTP/2");
    };
    let hello = async {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(b"\x16\x03\x03\x00\x10").await.unwrap();
        assert!(client.closes_within(Duration::from_secs(4)).await, "a handshake that has begun");
    };
    let upload = async {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client
            .send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nabc"))
            .await
            .unwrap();
        let answer = client.response("POST").await.unwrap();
        assert_eq!((answer.status, answer.keeps_alive()), (408, false));
    };
    let answers = async |protocol: Protocol| {
        for path in ["/drip", "/late"] {
            let answer = protocol.connect(vigie.web()).await.ask("GET", HOST, path, &[], None).await;
            assert!(answer.is_err(), "{protocol:?} {path}: {answer:?}");
        }
    };
    tokio::join!(idle, idle_h2, hello, upload, answers(Protocol::Http1), answers(Protocol::Http2));
}
