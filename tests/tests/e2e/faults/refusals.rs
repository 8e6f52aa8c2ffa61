//! HTTP/2 servers that refuse a stream: another try is safe, with all of its body or not at all.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use lb_testkit::{Client, PATIENCE, eventually};
use tokio::net::TcpListener;

use crate::harness::{HOST, Vigie, app_with};

/// Refuses the first stream when the first bytes of its body have come, and notes the bodies of all others.
struct Refuser {
    address: SocketAddr,
    refused: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Refuser {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (refused, bodies) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let told = (Arc::clone(&refused), Arc::clone(&bodies));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (refused, bodies) = told.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let (refused, bodies) = (Arc::clone(&refused), Arc::clone(&bodies));
                        tokio::spawn(async move {
                            let mut body = request.into_body();
                            let mut read = Vec::new();
                            while let Some(Ok(data)) = body.data().await {
                                read.extend_from_slice(&data);
                                if refused.load(Ordering::SeqCst) == 0 {
                                    refused.fetch_add(1, Ordering::SeqCst);
                                    return respond.send_reset(Reason::REFUSED_STREAM);
                                }
                            }
                            bodies.lock().unwrap().push(String::from_utf8(read).unwrap());
                            let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
                            answer.send_data(Bytes::from_static(b"taken"), true).unwrap();
                        });
                    }
                });
            }
        });
        Self { address, refused, bodies }
    }
}

/// What the client has sent already cannot be sent again: a second try would have the rest only, and with chunks the
/// server could not tell. Where the body was kept the second try has all of it.
#[tokio::test]
async fn a_body_that_was_begun_is_not_sent_in_part() {
    for (options, method, status, bodies) in [
        ("", "POST", 502, &[][..]),
        (", status: ['599'], retryNonIdempotentMethod: true", "POST", 200, &["FIRSTSECOND"][..]),
        (", status: ['599']", "PUT", 200, &["FIRSTSECOND"]),
    ] {
        let server = Refuser::start().await;
        let app = app_with("middlewares: [again]", "", &[format!("h2c://{}", server.address)]);
        let again = format!("  middlewares:\n    again: {{retry: {{attempts: 3{options}}}}}\n");
        let vigie = Vigie::start(&format!("{app}{again}")).await;
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let head = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{head}5\r\nFIRST\r\n")).await.unwrap();
        if bodies.is_empty() {
            assert!(eventually(PATIENCE, async || server.refused.load(Ordering::SeqCst) == 1).await);
        }
        client.send("6\r\nSECOND\r\n0\r\n\r\n").await.unwrap();
        let answer = client.response(method).await.unwrap();
        assert_eq!(answer.status, status, "{method}{options}");
        assert_eq!(*server.bodies.lock().unwrap(), bodies, "{method}{options}");
    }
}
