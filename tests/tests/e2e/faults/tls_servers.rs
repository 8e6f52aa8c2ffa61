//! TLS servers that say more than an answer in one breath with it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use lb_testkit::Authority;
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::harness::{Protocol, Vigie, app_with};

/// What follows an answer, in the same write.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The end of TLS; the socket stays open until the client says something, as asyncio's does.
    Goodbye,
    /// Another answer, which nobody has asked for.
    Surplus,
}

fn serve(config: Arc<ServerConfig>, then: Then) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || converse(socket, config, then));
        }
    });
    address
}

fn converse(mut socket: TcpStream, config: Arc<ServerConfig>, then: Then) -> Option<()> {
    let mut tls = ServerConnection::new(config).ok()?;
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut some = [0; 4096];
        match Stream::new(&mut tls, &mut socket).read(&mut some).ok()? {
            0 => return None,
            count => read.extend_from_slice(&some[..count]),
        }
    }
    // As long as the buffer that it is read into: what follows stays in the client's TLS.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 16342\r\n\r\n";
    let answer = format!("{head}{:a<1$}", "asked for ", 16 * 1024 - head.len());
    tls.writer().write_all(answer.as_bytes()).ok()?;
    match then {
        Then::Goodbye => tls.send_close_notify(),
        Then::Surplus => {
            tls.writer().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus").ok()?
        }
    }
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out).ok()?;
    }
    socket.write_all(&out).ok()?;
    let _ = socket.read(&mut [0; 4096]);
    None
}

/// Such a connection is not used again: the next request would be lost there, or get what is not its answer.
#[tokio::test]
async fn what_comes_with_an_answer_is_seen_through_tls() {
    let authority = Authority::new("authority");
    for then in [Then::Goodbye, Then::Surplus] {
        let server = serve(authority.issue(&["backend.example.com"]).server_config(&[]), then);
        let app = app_with("", "serversTransport: ours", &[format!("https://{server}")]);
        let vigie =
            Vigie::start(&format!("{app}  serversTransports:\n    ours: {{insecureSkipVerify: true}}\n"))
                .await;
        for _ in 0..8 {
            let mut client = Protocol::Http1.connect(vigie.web()).await;
            let answer = client.request("POST", "/", &[], None).await;
            assert_eq!(answer.status, 200, "{then:?}");
            assert!(answer.body.starts_with(b"asked for"), "{then:?}: {:?}", answer.text());
        }
    }
}
