//! HTTP/3 that RFC 9114 and 9204 forbid, byte by byte, and what only makes work.

use std::sync::Arc;
use std::time::Duration;

use lb_testkit::{Authority, Files, Origin, PATIENCE, Script, eventually, quic};
use quinn::{Connection, ConnectionError, Endpoint, ReadToEndError};
use rustls::ClientConfig;

use super::streams::malformed;
use crate::harness::{HOST, STATIC_TLS, Vigie, app};

struct Target {
    vigie: Vigie,
    config: Arc<ClientConfig>,
}

impl Target {
    async fn start(origin: &Origin) -> Self {
        Self::with("", origin).await
    }

    async fn with(entry_point: &str, origin: &Origin) -> Self {
        let (authority, files) = (Authority::new("authority"), Files::new());
        authority.issue(&[HOST]).write(files.path(), "site");
        let tls = "tls:\n  certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]\n";
        let own = format!("http3: {{}}, {entry_point}http: {{tls: {{}}");
        let statics = STATIC_TLS.replace("http: {tls: {}", &own);
        let vigie = Vigie::over(files, &statics, &format!("{}{tls}", app("", &[origin.url()]))).await;
        Self { vigie, config: authority.client_config(&["h3"]) }
    }

    async fn connect(&self) -> (Endpoint, Connection) {
        quic(self.vigie.websecure(), &self.config, HOST).await.unwrap()
    }

    async fn refused(&self, reason: &str) -> f64 {
        let labels = [("entrypoint", "websecure"), ("reason", reason)];
        self.vigie.metrics().await.value("lb_refused_requests_total", &labels).unwrap_or_default()
    }
}

/// An integer of RFC 9000 section 16, in four bytes.
fn varint(number: usize) -> [u8; 4] {
    (number as u32 | 0x8000_0000).to_be_bytes()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &varint(payload.len()), payload].concat()
}

/// A field section that refers to nothing.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        let mut string = |first: u8, most: usize, text: &str| {
            assert!(text.len() < 128 + most);
            if text.len() < most {
                section.push(first | text.len() as u8);
            } else {
                section.extend([first | most as u8, (text.len() - most) as u8]);
            }
            section.extend_from_slice(text.as_bytes());
        };
        string(0x20, 7, name);
        string(0, 127, value);
    }
    section
}

fn get(path: &str) -> Vec<u8> {
    frame(1, &section(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", path)]))
}

fn post(fields: &[(&str, &str)]) -> Vec<u8> {
    let head = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    frame(1, &section(&[&head[..], fields].concat()))
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered(u16),
    Reset(u64),
    Closed(u64),
}

/// What comes of a request stream with these bytes.
async fn ask(quic: &Connection, bytes: &[u8]) -> End {
    let asked = async {
        let (mut send, mut receive) = quic.open_bi().await.unwrap();
        // It may be told to stop meanwhile.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        match receive.read_to_end(1 << 20).await {
            Ok(answer) => End::Answered(status(&answer)),
            Err(ReadToEndError::Read(quinn::ReadError::Reset(code))) => End::Reset(code.into_inner()),
            Err(_) => End::Closed(closed(quic).await),
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("an end")
}

/// Of an answer's head, by the rows of the static table that Vigie writes.
fn status(answer: &[u8]) -> u16 {
    assert_eq!(answer[0], 1, "{answer:?}");
    // Behind the length of the frame and two bytes of QPACK.
    match &answer[1 + (1 << (answer[1] >> 6)) + 2..] {
        [0xd8, ..] => 103,
        [0xd9, ..] => 200,
        [0xff, 4, ..] => 400,
        [0x5f, 9, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn closed(quic: &Connection) -> u64 {
    match tokio::time::timeout(PATIENCE, quic.closed()).await.expect("it is closed") {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn malformed_requests_are_those_of_http_2() {
    let origin = Origin::start("origin").await;
    let target = Target::start(&origin).await;
    let (_endpoint, quic) = target.connect().await;
    let mut cases = 0;
    for case in malformed() {
        let end = ask(&quic, &frame(1, &section(&case))).await;
        assert_eq!(end, End::Answered(400), "{case:?}");
        assert_eq!(origin.requests(), 0, "{case:?} reached the origin as {:?}", origin.seen());
        cases += 1;
    }
    assert!(cases > 50);
    // Lengths that lie about what follows.
    for (length, body) in [("5", "1234"), ("5", "123456"), ("0", "1")] {
        let bytes = [post(&[("content-length", length)]), frame(0, body.as_bytes())].concat();
        let end = ask(&quic, &bytes).await;
        assert_ne!(end, End::Answered(200), "{length}: {body}");
        assert!(!matches!(end, End::Closed(_)), "{length}: {body}");
    }
    // Trailers that are no trailers, and such as nobody has.
    for (trailers, what) in
        [(section(&[(":path", "/")]), "pseudo"), ([&[0, 0][..], &[0xc2; 40_000]].concat(), "large")]
    {
        let bytes = [post(&[]), frame(0, b"x"), frame(1, &trailers)].concat();
        assert_eq!(ask(&quic, &bytes).await, End::Answered(400), "{what}");
    }
    // The http crate would drop the one, and take none of the others.
    let path =
        |path| section(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", path)]);
    assert_eq!(ask(&quic, &frame(1, &path("/a#b"))).await, End::Answered(400));
    assert_eq!(ask(&quic, &frame(1, &path("/a?b=\"<>\""))).await, End::Answered(200));
    assert_eq!(origin.last().target, "/a?b=\"<>\"");
    assert!(target.refused("http3_malformed").await > 40.0);
    assert_eq!(ask(&quic, &get("/fine")).await, End::Answered(200), "the connection goes on");
    assert_eq!(origin.last().target, "/fine");
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection_with_its_code() {
    let origin = Origin::start("origin").await;
    let target = Target::start(&origin).await;
    for (bytes, code, what) in [
        (frame(0, b"x"), 0x105, "a body without a head"),
        ([frame(0, b""), get("/")].concat(), 0x105, "a body without a head or a byte"),
        ([post(&[]), frame(1, &[0, 0]), frame(0, b"")].concat(), 0x105, "nothing, but behind trailers"),
        ([vec![0x80, 0xf, 7, 0, 4, 0, b'u', b'=', b'1'], get("/")].concat(), 0x105, "a priority"),
        ([frame(4, b""), get("/")].concat(), 0x105, "settings on a request"),
        ([frame(7, &[0]), get("/")].concat(), 0x105, "goaway on a request"),
        ([frame(6, b"12345678"), get("/")].concat(), 0x105, "a ping of HTTP/2"),
        (get("/")[..10].to_vec(), 0x106, "half a head"),
        (frame(1, &[1, 0, 0xd1]), 0x200, "a dynamic table"),
        (frame(1, &[0, 0x80, 0xd1]), 0x200, "a base below nothing"),
        (frame(1, &[0, 0, 0xff, 0x80]), 0x200, "half a section"),
        (
            [post(&[]), frame(0, b"x"), frame(1, &[0, 0]), frame(0, b"x")].concat(),
            0x105,
            "a body behind trailers",
        ),
        ([post(&[]), frame(0, b"x"), frame(1, &[0, 0, 0xbf])].concat(), 0x200, "broken trailers"),
    ] {
        let (_endpoint, quic) = target.connect().await;
        let _ = ask(&quic, &bytes).await;
        assert_eq!(closed(&quic).await, code, "{what}");
    }
    let settings = |pairs: &[u8]| [&[0][..], &frame(4, pairs)].concat();
    for (streams, code, what) in [
        (vec![[&[0][..], &frame(7, &[0])].concat()], 0x10a, "no settings first"),
        (vec![[settings(&[]), frame(4, &[])].concat()], 0x105, "settings twice"),
        (vec![settings(&[2, 1])], 0x109, "a setting of HTTP/2"),
        (vec![settings(&[6, 1, 6, 1])], 0x109, "a setting twice"),
        (vec![settings(&[6])], 0x106, "half a setting"),
        (vec![[settings(&[]), frame(0, b"x")].concat()], 0x105, "a body"),
        (vec![[settings(&[]), frame(3, &[0])].concat()], 0x108, "no push to cancel"),
        (vec![[settings(&[]), frame(0xd, &[5]), frame(0xd, &[4])].concat()], 0x108, "pushes taken back"),
        (vec![settings(&[]), settings(&[])], 0x103, "two control streams"),
        (vec![vec![1, 0]], 0x103, "a push"),
        (vec![vec![2, 0x3f, 0x01]], 0x201, "a table"),
        (vec![vec![3, 0x80]], 0x202, "of no table"),
        (vec![[settings(&[]), frame(0x21, &[0; 5000])].concat()], 0x107, "endless words"),
        (vec![[settings(&[]), frame(0x21, b"").repeat(1100)].concat()], 0x107, "words without end"),
        (vec![[&[3][..], &[0x40; 1100]].concat()], 0x107, "cancelled without end"),
    ] {
        let (_endpoint, quic) = target.connect().await;
        let mut open = Vec::new();
        for bytes in &streams {
            let mut stream = quic.open_uni().await.unwrap();
            // It may be closed already.
            let _ = stream.write_all(bytes).await;
            open.push(stream);
        }
        assert_eq!(closed(&quic).await, code, "{what}");
    }
    let (_endpoint, quic) = target.connect().await;
    let mut control = quic.open_uni().await.unwrap();
    control.write_all(&settings(&[])).await.unwrap();
    control.finish().unwrap();
    assert_eq!(closed(&quic).await, 0x104, "the control stream has no end");

    // What must be ignored is.
    let (_endpoint, quic) = target.connect().await;
    let mut open = Vec::new();
    let known = [settings(&[0x21, 7, 6, 0x7f, 0xff]), frame(0x21, b"grease"), frame(0xd, &[9])].concat();
    for bytes in [known, vec![2, 0x20], vec![3, 0x44, 0x7f, 1], vec![0x21, 1, 2, 3], vec![0x40]] {
        let mut stream = quic.open_uni().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        open.push(stream);
    }
    let greased = [frame(0x21, b"grease"), get("/greased"), frame(0x40 - 0x1f, b"more")].concat();
    assert_eq!(ask(&quic, &greased).await, End::Answered(200));
    assert!(quic.close_reason().is_none());
}

#[tokio::test]
async fn what_only_makes_work_ends_the_connection() {
    let origin = Origin::start("origin").await;
    let target = Target::start(&origin).await;
    for bytes in [
        [post(&[]), frame(0x21, b"").repeat(300)].concat(),
        [post(&[]), frame(0, b"").repeat(300)].concat(),
        [frame(0x21, &[0; 100_000]), get("/")].concat(),
    ] {
        let (_endpoint, quic) = target.connect().await;
        let _ = ask(&quic, &bytes).await;
        assert_eq!(closed(&quic).await, 0x107);
    }
    assert_eq!(target.refused("http3_unknown_frames").await, 3.0);
    // Streams opened to be reset.
    let (_endpoint, quic) = target.connect().await;
    for _ in 0..2000 {
        let Ok((mut send, mut receive)) = quic.open_bi().await else { break };
        let _ = send.write_all(&get("/")).await;
        let _ = send.reset(0x10c_u32.into());
        let _ = receive.stop(0x10c_u32.into());
    }
    assert_eq!(closed(&quic).await, 0x107);
    assert_eq!(target.refused("http3_rapid_reset").await, 1.0);
}

#[tokio::test]
async fn heads_have_their_limits() {
    let origin = Origin::start("origin").await;
    let target = Target::with("transport: {respondingTimeouts: {readTimeout: 1s}}, ", &origin).await;
    let (_endpoint, quic) = target.connect().await;
    // Of an announced size that is never kept, let alone waited for.
    let announced = [&[1][..], &varint(2 << 20), &[0; 1000]].concat();
    assert_eq!(ask(&quic, &announced).await, End::Answered(431));
    let many: Vec<_> = (0..300).map(|n| (format!("x-{n}"), String::new())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(ask(&quic, &post(&many)).await, End::Answered(431));
    // Small on the wire and large when read: rows of the static table.
    let head = section(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")]);
    let rows = frame(1, &[&head[..], &[0xc2].repeat(100_000)].concat());
    assert_eq!(ask(&quic, &rows).await, End::Answered(431));
    assert_eq!(ask(&quic, b"").await, End::Reset(0x10d));
    // One that never comes.
    let (mut send, mut receive) = quic.open_bi().await.unwrap();
    send.write_all(&get("/")[..5]).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, receive.read_to_end(1000)).await.unwrap();
    assert!(matches!(end, Err(ReadToEndError::Read(quinn::ReadError::Reset(_)))), "{end:?}");
    assert_eq!(ask(&quic, &get("/")).await, End::Answered(200), "the connection goes on");
    assert_eq!(target.refused("head_timeout").await, 1.0);
    assert_eq!(target.refused("head_too_large").await, 2.0);
}

/// RFC 9114 section 4.2.2: a client says what it takes, and gets no more.
#[tokio::test]
async fn a_client_gets_no_larger_heads_than_it_takes() {
    let origin = Origin::start("origin").await;
    let large = "x".repeat(3000);
    origin.on("/head", Script::answer(200, &[("X-Large", &large)], "body"));
    origin.on("/interim", Script::answer(200, &[], "body").after_informational(103, &[("Link", &large)]));
    origin.on("/trailers", Script::trailers(&["body"], &[("X-Large", &large)]));
    let target = Target::start(&origin).await;
    for (most, ends) in [
        // 2000 bytes; 4000 are room for all of it.
        ([0x47, 0xd0], [End::Reset(0x102), End::Answered(200), End::Reset(0x102)]),
        ([0x4f, 0xa0], [End::Answered(200), End::Answered(103), End::Answered(200)]),
    ] {
        let (_endpoint, quic) = target.connect().await;
        let mut control = quic.open_uni().await.unwrap();
        let settings = [&[0][..], &frame(4, &[6, most[0], most[1]])].concat();
        control.write_all(&settings).await.unwrap();
        assert_eq!(ask(&quic, &get("/")).await, End::Answered(200));
        for (path, end) in ["/head", "/interim", "/trailers"].into_iter().zip(ends) {
            assert_eq!(ask(&quic, &get(path)).await, end, "{path} {most:?}");
        }
    }
}

/// A download that its client lets wait, with all the room there is for data in use: nothing else has any then, and
/// nothing of what Vigie says by itself needs it.
#[tokio::test]
async fn a_download_may_be_paused() {
    let origin = Origin::start("origin").await;
    origin.on("/big", Script::text(vec![b'x'; 300_000]));
    let target = Target::with("transport: {respondingTimeouts: {idleTimeout: 600ms}}, ", &origin).await;
    let mut transport = quinn::TransportConfig::default();
    transport.receive_window(50_000_u32.into()).keep_alive_interval(Some(Duration::from_millis(100)));
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(Arc::clone(&target.config)).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let quic = endpoint.connect_with(config, target.vigie.websecure(), HOST).unwrap().await.unwrap();
    let (mut send, mut receive) = quic.open_bi().await.unwrap();
    send.write_all(&get("/big")).await.unwrap();
    send.finish().unwrap();
    let closed = tokio::time::timeout(Duration::from_millis(2500), quic.closed()).await;
    assert!(closed.is_err(), "{closed:?}");
    let answer = tokio::time::timeout(PATIENCE, receive.read_to_end(1 << 20)).await.unwrap().unwrap();
    assert!(answer.len() > 300_000);
}

#[tokio::test]
async fn connections_and_streams_have_their_limits() {
    let origin = Origin::start("origin").await;
    let limits = "limits: {connectionsPerClient: 2}, http2: {maxConcurrentStreams: 3}, ";
    let target = Target::with(limits, &origin).await;
    let (_one, first) = target.connect().await;
    let (_two, second) = target.connect().await;
    assert!(quic(target.vigie.websecure(), &target.config, HOST).await.is_err());
    assert!(target.refused("client_connection_limit").await >= 1.0);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(first.open_bi().await.unwrap());
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), first.open_bi()).await.is_err());
    assert_eq!(ask(&second, &get("/")).await, End::Answered(200));
    second.close(0x100_u32.into(), b"");
    let again =
        eventually(PATIENCE, async || quic(target.vigie.websecure(), &target.config, HOST).await.is_ok());
    assert!(again.await, "a place that is free is taken");
}
