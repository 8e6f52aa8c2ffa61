//! HTTP/2 servers that refuse a stream: another try is safe, with all of its body or not at all.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use lb_testkit::{Client, PATIENCE, eventually};
use tokio::net::TcpListener;

use crate::harness::{HOST, Protocol, Vigie, app, app_with};

/// Refuses some streams, when the first bytes of their bodies have come or they have none, and notes the bodies of all
/// others.
struct Refuser {
    address: SocketAddr,
    refused: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<String>>>,
}

/// Whether a stream is refused: of which connection, the how manyth of that, and how many were refused before.
type Refuses = fn(usize, usize, usize) -> bool;

impl Refuser {
    /// Clients may send so many bytes of a body ahead.
    async fn start(window: u32, refuses: Refuses) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (refused, bodies) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let told = (Arc::clone(&refused), Arc::clone(&bodies));
        tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let (refused, bodies) = told.clone();
                tokio::spawn(async move {
                    let mut settings = h2::server::Builder::new();
                    let streams = settings.initial_window_size(window).handshake::<_, Bytes>(socket);
                    let mut streams = streams.await.unwrap();
                    let mut stream = 0;
                    while let Some(Ok((request, mut respond))) = streams.accept().await {
                        let (refused, bodies) = (Arc::clone(&refused), Arc::clone(&bodies));
                        tokio::spawn(async move {
                            let mut body = request.into_body();
                            let mut read = Vec::new();
                            loop {
                                let data = body.data().await;
                                if read.is_empty() && refuses(connection, stream, refused.load(SeqCst)) {
                                    refused.fetch_add(1, SeqCst);
                                    return respond.send_reset(Reason::REFUSED_STREAM);
                                }
                                let Some(Ok(data)) = data else { break };
                                body.flow_control().release_capacity(data.len()).unwrap();
                                read.extend_from_slice(&data);
                            }
                            bodies.lock().unwrap().push(String::from_utf8(read).unwrap());
                            let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
                            answer.send_data(Bytes::from_static(b"taken"), true).unwrap();
                        });
                        stream += 1;
                    }
                });
            }
        });
        Self { address, refused, bodies }
    }

    fn refused(&self) -> usize {
        self.refused.load(SeqCst)
    }
}

/// RFC 9113 section 8.7: it was not looked at, and is sent again where there is no other server, on another connection
/// as well, but not without end, and whatever the retry budget. The server takes a byte at a time: the rest of the body
/// waits for it.
#[tokio::test]
async fn what_the_only_server_refuses_is_sent_to_it_again() {
    use Protocol::{Http1, Http2};
    let post = Some("some body");
    let first: Refuses = |_, _, refused| refused == 0;
    let cases: [(Refuses, Protocol, Option<&str>, u16, usize); 7] = [
        (first, Http1, post, 200, 1),
        (first, Http2, post, 200, 1),
        (first, Http1, None, 200, 1),
        (|_, stream, _| stream == 0, Http2, post, 200, 1),
        (|connection, _, _| connection == 0, Http1, post, 200, 2),
        (|_, _, refused| refused < 6, Http1, None, 200, 6),
        (|_, _, _| true, Http2, post, 502, 7),
    ];
    for (case, (refuses, protocol, body, status, refused)) in cases.into_iter().enumerate() {
        let method = if body.is_some() { "POST" } else { "GET" };
        let server = Refuser::start(1, refuses).await;
        let no_budget = "retryBudget: {percent: 0, minRetriesPerSecond: 0}";
        let vigie = Vigie::start(&app(no_budget, &[format!("h2c://{}", server.address)])).await;
        let mut client = protocol.connect(vigie.web()).await;
        let answer = client.request(method, "/", &[], body.map(str::as_bytes)).await;
        let what = format!("case {case}, {method} over {protocol:?}");
        assert_eq!((answer.status, server.refused()), (status, refused), "{what}");
        let bodies = [body.unwrap_or_default()];
        assert_eq!(*server.bodies.lock().unwrap(), bodies[..usize::from(status == 200)], "{what}");
        let reason = [("reason", "refused_stream")];
        let errors = vigie.metrics().await.value("lb_upstream_errors_total", &reason);
        assert_eq!(errors, Some(refused as f64), "{what}");
    }
}

/// A part of a body is never sent as a whole: with chunks the server could not tell. The second try has all of it.
#[tokio::test]
async fn a_body_that_was_begun_is_not_sent_in_part() {
    for (options, method) in [
        ("", "POST"),
        (", status: ['599'], retryNonIdempotentMethod: true", "POST"),
        (", status: ['599']", "PUT"),
    ] {
        let server = Refuser::start(1000, |_, _, refused| refused == 0).await;
        let app = app_with("middlewares: [again]", "", &[format!("h2c://{}", server.address)]);
        let again = format!("  middlewares:\n    again: {{retry: {{attempts: 3{options}}}}}\n");
        let vigie = Vigie::start(&format!("{app}{again}")).await;
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let head = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{head}5\r\nFIRST\r\n")).await.unwrap();
        if options.is_empty() {
            assert!(eventually(PATIENCE, async || server.refused() == 1).await);
        }
        client.send("6\r\nSECOND\r\n0\r\n\r\n").await.unwrap();
        let answer = client.response(method).await.unwrap();
        assert_eq!(answer.status, 200, "{method}{options}");
        assert_eq!(*server.bodies.lock().unwrap(), ["FIRSTSECOND"], "{method}{options}");
    }
}
