//! HTTP/2 towards servers: what requests share there, and what must not pass from one to another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{
    Answer, Authority, Client, H2Client, H2Origin, Origin, Script, eventually, reserve_address,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, app_with};

const PROMPTLY: Duration = Duration::from_secs(5);

async fn vigie_before(url: String) -> Vigie {
    Vigie::start(&app("", &[url])).await
}

/// RFC 9113 section 5.1.2: a server that takes few streams on a connection gets more connections. Were requests to wait
/// for a stream, the last would see the server only when the first are over, which they never are here.
#[tokio::test]
async fn a_server_that_takes_few_streams_gets_more_connections() {
    let server = H2Origin::with_streams("few", 2, |request| Answer {
        delay: if request.target == "/warm" { Duration::ZERO } else { Duration::from_secs(600) },
        ..Answer::text("")
    })
    .await;
    let vigie = vigie_before(server.url()).await;
    for _ in 0..8 {
        // An answer without a body, which HTTP/2 says without a length.
        let answer = Protocol::Http1.get(vigie.web(), "/warm").await;
        assert_eq!((answer.status, answer.get("content-length")), (200, Some("0")));
    }
    assert!(server.connections() <= 2, "one connection of a worker is enough until it is full");
    let asking: Vec<_> = (0..12).map(|_| tokio::spawn(Protocol::Http1.get(vigie.web(), "/"))).collect();
    let seen = eventually(PROMPTLY, async || server.requests() == 8 + 12).await;
    assert!(seen, "{} of 12 requests have reached the server", server.requests() - 8);
    asking.iter().for_each(|request| request.abort());
}

/// As many requests at once, all on one connection of a client.
async fn ask_together(vigie: &Vigie, requests: usize) -> Vec<tokio::task::JoinHandle<u16>> {
    let client = Arc::new(H2Client::connect(vigie.web()).await.unwrap());
    let asking = (0..requests).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get(HOST, "/").await.unwrap().status })
    });
    asking.collect()
}

/// Nothing is connected yet, and still they do not open a connection each.
#[tokio::test]
async fn requests_that_come_together_share_new_connections() {
    const TOGETHER: usize = 120;
    let one_worker = STATIC.replace("workers: 2", "workers: 1");
    let forever = Duration::from_secs(600);
    let full = H2Origin::with_streams("full", 20, move |_| Answer { delay: forever, ..Answer::text("") });
    let authority = Authority::new("test authority");
    let config = authority.issue(&["localhost"]).server_config(&["h2"]);
    let secure = H2Origin::tls("secure", config, |_| Answer::text(""));
    let config = authority.issue(&["localhost"]).server_config(&["http/1.1"]);
    let (full, secure, one_by_one) =
        tokio::join!(full, secure, Origin::tls("h1", config, |_| Script::text("")));
    // The first connection says how many requests have room.
    let vigie = Vigie::with(&one_worker, &app("", &[full.url()])).await;
    let asking = ask_together(&vigie, TOGETHER).await;
    let seen = eventually(PROMPTLY, async || full.requests() == TOGETHER).await;
    assert!(seen, "{} requests have reached the server", full.requests());
    assert_eq!(full.connections(), TOGETHER / 20);
    asking.iter().for_each(|request| request.abort());
    let transport = "  serversTransports: {any: {insecureSkipVerify: true}}\n";
    for url in [secure.url(), one_by_one.url()] {
        let app = app("serversTransport: any", &[url]);
        let vigie = Vigie::with(&one_worker, &format!("{app}{transport}")).await;
        for request in ask_together(&vigie, TOGETHER).await {
            assert_eq!(timeout(PROMPTLY, request).await.unwrap().unwrap(), 200);
        }
    }
    assert_eq!(secure.connections(), 1);
}

/// RFC 9113 section 5.2.2: what one client does not take must not use up the window of all.
#[tokio::test]
async fn clients_that_take_nothing_hold_up_nobody() {
    let big = Bytes::from(vec![b'x'; 16 << 20]);
    let server = H2Origin::start("api", move |request| match &*request.target {
        "/big" => Answer { parts: vec![big.clone()], ..Answer::text("") },
        _ => Answer::echo(),
    })
    .await;
    let vigie = vigie_before(server.url()).await;
    let mut lazy = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(format!("GET /big HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
        lazy.push(client);
    }
    assert!(eventually(PROMPTLY, async || server.requests() == 40).await);
    for _ in 0..10 {
        let answer = timeout(PROMPTLY, Protocol::Http1.get(vigie.web(), "/small")).await;
        assert_eq!(answer.expect("others are served").json()["target"], "/small");
    }
}

/// RFC 9113 section 8.1: an answer may have a Content-Length and trailers; a gRPC answer has its status in them.
#[tokio::test]
async fn trailers_come_behind_a_known_length_too() {
    let pairs = |text: &str| vec![("content-length".to_owned(), text.to_owned())];
    let server = H2Origin::start("api", move |_| Answer {
        fields: pairs("5"),
        trailers: vec![("grpc-status".to_owned(), "0".to_owned())],
        ..Answer::text("hello")
    })
    .await;
    let vigie = vigie_before(server.url()).await;
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let answer = client.request("GET", HOST, "/", &[], None).await.unwrap();
    assert_eq!((&*answer.body, answer.trailers.get("grpc-status")), (&b"hello"[..], Some("0")));
}

/// What HTTP/1 clients may say is said in HTTP/2, or refused; the server is never blamed for it.
#[tokio::test]
async fn what_http_1_clients_say_is_no_fault_of_an_http_2_server() {
    let server = H2Origin::start("api", |_| Answer::echo()).await;
    let authority = server.address().to_string();
    let vigie = vigie_before(server.url()).await;
    for (request, status, target, host) in [
        ("GET /z?a=\"<b>\" HTTP/1.1\r\nHost: a\r\n\r\n", 200, "/z?a=%22%3Cb%3E%22", "a"),
        ("GET /z HTTP/1.1\r\nHost:\r\n\r\n", 200, "/z", &*authority),
        ("GET /z HTTP/1.0\r\n\r\n", 200, "/z", &*authority),
        ("GET /z HTTP/1.1\r\nHost: %41\r\n\r\n", 400, "", ""),
    ] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(request).await.unwrap();
        let answer = client.response("GET").await.unwrap();
        assert_eq!(answer.status, status, "{request:?}");
        if status == 200 {
            let seen = server.seen().pop().unwrap();
            assert_eq!((&*seen.target, seen.get("host")), (target, Some(host)), "{request:?}");
        }
    }
    assert_eq!(vigie.metrics().await.value("lb_upstream_errors_total", &[]).unwrap_or(0.0), 0.0);
}

/// RFC 9112 section 3.2: an HTTP/1.1 request has a Host, also when an HTTP/1.0 client had none to send.
#[tokio::test]
async fn servers_get_a_host_when_the_client_sent_none() {
    let server = Origin::start("api").await;
    let authority = server.address().to_string();
    let vigie = vigie_before(server.url()).await;
    for (request, host) in [
        ("GET / HTTP/1.0\r\n\r\n", &*authority),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", &authority),
        ("GET http://named.example.com/ HTTP/1.0\r\n\r\n", "named.example.com"),
    ] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(request).await.unwrap();
        assert_eq!(client.response("GET").await.unwrap().status, 200, "{request:?}");
        assert_eq!(server.last().get("host"), Some(host), "{request:?}");
    }
}

/// Takes one request on a connection: answers it with its own body and ends, or leaves it out of its GOAWAY, as nginx
/// does with those beyond `keepalive_requests`.
async fn take_one(mut stream: TcpStream, answers: bool) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    // SETTINGS with MAX_CONCURRENT_STREAMS of 100.
    stream.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]).await?;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, id @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        stream.read_exact(&mut payload).await?;
        if kind == 0 {
            body.extend(payload);
        }
        match kind {
            4 if flags == 0 => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
            // HEADERS with `:status` 200 and DATA, which end the stream; or GOAWAY with 0 as the last stream.
            0 | 1 if answers && flags & 1 == 1 => {
                let [.., high, low] = body.len().to_be_bytes();
                let data = [&[0, high, low, 0, 1][..], &id, &body].concat();
                let enough = [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &id, &[0; 4]].concat();
                stream.write_all(&[&[0, 0, 1, 1, 4][..], &id, &[0x88], &data, &enough].concat()).await?;
            }
            1 if !answers => stream.write_all(&[&[0, 0, 8, 7, 0][..], &[0; 12]].concat()).await?,
            _ => {}
        }
    }
}

/// RFC 9113 section 6.8: it was not looked at, and may be sent again, however often that happens within reason.
#[tokio::test]
async fn a_request_that_connections_leave_out_again_and_again_finds_one_that_takes_it() {
    const LEFT_OUT: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vigie = vigie_before(format!("h2c://{}", listener.local_addr().unwrap())).await;
    let server = tokio::spawn(async move {
        for taken in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(take_one(stream, taken % (LEFT_OUT + 1) == LEFT_OUT));
        }
    });
    for protocol in Protocol::BOTH {
        for body in ["", "a", &"body".repeat(4_000)] {
            let mut client = protocol.connect(vigie.web()).await;
            let answer = client.request("POST", "/", &[], Some(body.as_bytes())).await;
            assert_eq!(answer.status, 200, "{protocol:?}, {} bytes", body.len());
            assert!(answer.text() == body, "{protocol:?}, {} bytes", body.len());
        }
    }
    server.abort();
}

/// A retry middleware that has not kept the body does not go on with what is left of it, whoever failed last.
#[tokio::test]
async fn no_server_gets_a_body_without_its_beginning() {
    /// The first connection and those that a request tries besides.
    const LEFT_OUT: usize = 7;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = [format!("h2c://{}", listener.local_addr().unwrap()), format!("http://{}", reserve_address())];
    let app = app_with("middlewares: [again]", "", &urls);
    let vigie = Vigie::start(&format!("{app}  middlewares:\n    again: {{retry: {{attempts: 3}}}}\n")).await;
    let server = tokio::spawn(async move {
        for taken in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(take_one(stream, taken >= LEFT_OUT));
        }
    });
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na body\r\n0\r\n\r\n"
    );
    client.send(request).await.unwrap();
    let answer = client.response("POST").await.unwrap();
    assert!(answer.status == 502 || answer.text() == "a body", "{answer:?}");
    server.abort();
}

/// Answers its first request once all others, which get no end of an answer, were given up; then what it had sent on
/// those is still on its way.
async fn keep_sending(mut stream: TcpStream, others: usize, seen: &Notify) -> std::io::Result<()> {
    const LATE: usize = 2;
    stream.read_exact(&mut [0; 24]).await?;
    // SETTINGS with MAX_CONCURRENT_STREAMS of 2,048.
    stream.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 8, 0]).await?;
    let (mut first, mut given_up) = (None, HashSet::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, id @ ..] = head;
        stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([high, low]))]).await?;
        match kind {
            4 if flags == 0 => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
            1 if first.is_none() => {
                first = Some(id);
                seen.notify_one();
            }
            // HEADERS with `:status` 200.
            1 => stream.write_all(&[&[0, 0, 1, 1, 4][..], &id, &[0x88]].concat()).await?,
            // Others are about what came late.
            3 if given_up.insert(id) => {
                let data = [&[0, 0, 1, 0, 0][..], &id, b"x"].concat().repeat(LATE);
                stream.write_all(&data).await?;
                if given_up.len() == others {
                    let id = first.expect("it came first");
                    stream.write_all(&[&[0, 0, 1, 1, 5][..], &id, &[0x88]].concat()).await?;
                }
            }
            _ => {}
        }
    }
}

/// Clients that leave, however many at once, take nobody else's request along.
#[tokio::test]
async fn answers_that_are_given_up_leave_the_others_alone() {
    const CLIENTS: usize = 6;
    const STREAMS: usize = 200;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    // One worker: all of them share a connection.
    let vigie = Vigie::with(&STATIC.replace("workers: 2", "workers: 1"), &app("", &[url])).await;
    let seen = Arc::new(Notify::new());
    let server = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            let (stream, _) = listener.accept().await.unwrap();
            keep_sending(stream, CLIENTS * STREAMS, &seen).await
        }
    });
    let request = || http::Request::post(format!("http://{HOST}/")).body(()).unwrap();
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let (kept, _) = client.open(request(), true).await.unwrap();
    timeout(PROMPTLY, seen.notified()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..CLIENTS {
        let client = H2Client::connect(vigie.web()).await.unwrap();
        for _ in 0..STREAMS {
            let (other, _) = client.open(request(), true).await.unwrap();
            others.push(timeout(PROMPTLY, other).await.unwrap().unwrap());
        }
    }
    drop(others);
    let answer = timeout(PROMPTLY, kept).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    server.abort();
}

/// A machine that has gone without a word keeps its connection open: no further request waits there.
#[tokio::test]
async fn a_silent_connection_takes_one_request_with_it_and_no_more() {
    let silent = std::sync::OnceLock::new();
    let server = H2Origin::start("server", move |request| {
        let is_silent = *silent.get_or_init(|| request.connection) == request.connection;
        let delay =
            if is_silent && request.path() == "/wait" { Duration::from_secs(600) } else { Duration::ZERO };
        Answer { delay, ..Answer::echo() }
    })
    .await;
    let transport = "  serversTransports:\n    quick: {forwardingTimeouts: {responseHeaderTimeout: 300ms}}\n";
    let app = app("serversTransport: quick", &[server.url()]);
    let vigie = Vigie::start(&format!("{app}{transport}")).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    for (path, status) in [("/", 200), ("/wait", 504), ("/wait", 200), ("/", 200)] {
        assert_eq!(client.get(HOST, path).await.unwrap().status, status, "{path}");
    }
}

/// What hangs is given up as early on a new connection as on one that is there already.
#[tokio::test]
async fn settings_are_waited_for_no_longer_than_an_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = H2Origin::start("other", |_| Answer::echo()).await;
    let url = format!("h2c://{}", silent.local_addr().unwrap());
    let transport = "  serversTransports:\n    quick: {forwardingTimeouts: {responseHeaderTimeout: 300ms}}\n";
    for (urls, status) in [(vec![url.clone()], 504), (vec![url, other.url()], 200)] {
        let vigie = Vigie::start(&format!("{}{transport}", app("serversTransport: quick", &urls))).await;
        for _ in 0..2 {
            let answer = timeout(PROMPTLY, Protocol::Http1.get(vigie.web(), "/")).await;
            assert_eq!(answer.expect("given up").status, status, "{urls:?}");
        }
    }
}

/// Answers requests to `/empty` with frames of DATA without a byte, more than h2 takes in the life of a connection, and
/// then the one that came first.
async fn say_nothing(mut stream: TcpStream, seen: &Notify) -> std::io::Result<()> {
    const NOTHING: usize = 150;
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    let mut first = None;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, id @ ..] = head;
        stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes([high, low]))]).await?;
        match (kind, first) {
            (4, _) if flags == 0 => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
            (1, None) => {
                first = Some(id);
                seen.notify_one();
            }
            (1, Some(first)) => {
                // HEADERS with `:status` 200 and DATA, the last of which ends the stream.
                let head = [&[0, 0, 1, 1, 4][..], &id, &[0x88]].concat();
                let nothing = [&[0, 0, 0, 0, 0][..], &id].concat().repeat(NOTHING);
                let end = [&[0, 0, 1, 0, 1][..], &id, b"x"].concat();
                let other = [&[0, 0, 1, 1, 5][..], &first, &[0x88]].concat();
                stream.write_all(&[head, nothing, end, other].concat()).await?;
            }
            _ => {}
        }
    }
}

/// RFC 9113 section 6.1 allows them, and some servers flush so: they end nobody's request.
#[tokio::test]
async fn frames_without_a_byte_leave_the_others_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    // One worker: both requests share a connection.
    let vigie = Vigie::with(&STATIC.replace("workers: 2", "workers: 1"), &app("", &[url])).await;
    let seen = Arc::new(Notify::new());
    let server = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            let (stream, _) = listener.accept().await.unwrap();
            say_nothing(stream, &seen).await
        }
    });
    let mut other = Protocol::Http1.connect(vigie.web()).await;
    let other = tokio::spawn(async move { other.request("POST", "/", &[], None).await.status });
    timeout(PROMPTLY, seen.notified()).await.unwrap();
    let mut client = Protocol::Http1.connect(vigie.web()).await;
    let answer = client.request("POST", "/empty", &[], None).await;
    assert_eq!((answer.status, answer.text()), (200, "x"));
    assert_eq!(timeout(PROMPTLY, other).await.unwrap().unwrap(), 200);
    server.abort();
}
