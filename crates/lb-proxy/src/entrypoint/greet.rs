//! What a new connection speaks: PROXY protocol, TLS, HTTP/2 with prior knowledge, HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;

use super::proxy_protocol::{self, Header};
use super::{Connection, Entry, TlsInfo};
use crate::deadline::Deadline;
use crate::http::forwarded::{Peer, is_trusted};
use crate::http::h1::H1;
use crate::http::{h1_serve, h2_serve};
use crate::stream::{Prefixed, Stream};
use crate::tls::UNRECOGNIZED_NAME;
use crate::worker::Worker;

/// RFC 9113 section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// First bytes, and then a TLS handshake, must come in this time. Chosen; nginx gives 60 s.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one accepted connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, entry: Arc<Entry>, tcp: TcpStream, peer: SocketAddr) {
    let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let open = worker.shard.connection(entry.label);
    let greeting = Box::pin(greet(&worker, &entry, tcp, client)).await;
    let Some(Greeting { stream, speaks, client, tls }) = greeting else { return };
    let connection = Rc::new(Connection {
        trusted: is_trusted(&entry.config.forwarded_headers, client.ip()),
        peer: Rc::new(Peer::new(client.ip(), tls.is_some())),
        client,
        tls,
        entry,
        _open: open,
    });
    match speaks {
        Speaks::Http1 { input, end } => {
            let h1 = H1::with_input(stream, Rc::clone(&worker.buffers), input, end);
            h1_serve::serve(worker, connection, h1).await;
        }
        Speaks::Http2 { prefix } => {
            Box::pin(h2_serve::serve(worker, connection, Prefixed::new(prefix, stream))).await;
        }
    }
}

struct Greeting {
    stream: Stream,
    speaks: Speaks,
    client: SocketAddr,
    tls: Option<TlsInfo>,
}

enum Speaks {
    /// With the bytes read so far, in a buffer of the pool.
    Http1 {
        input: Vec<u8>,
        end: usize,
    },
    Http2 {
        prefix: Vec<u8>,
    },
}

async fn greet(worker: &Worker, entry: &Arc<Entry>, tcp: TcpStream, peer: SocketAddr) -> Option<Greeting> {
    let mut deadline = Deadline::default();
    let patience =
        entry.config.read_timeout.map_or(GREETING_TIMEOUT, |timeout| timeout.min(GREETING_TIMEOUT));
    deadline.set(Instant::now(), Some(patience));
    let mut stream = Stream::Plain(tcp);
    poll_fn(|cx| match stream.poll_readable(cx) {
        Poll::Pending => deadline.poll(cx).map(|()| None),
        Poll::Ready(ready) => Poll::Ready(ready.ok()),
    })
    .await?;
    let mut input = worker.buffers.input();
    let mut end = 0;
    let mut client = peer;
    let mut proxied = !is_trusted(&entry.config.proxy_protocol, peer.ip());
    loop {
        let count = read(&mut stream, &mut input[end..], &mut deadline).await.ok()?;
        if count == 0 {
            worker.buffers.give_input(input);
            return None;
        }
        end += count;
        if !proxied {
            match proxy_protocol::parse(&input[..end]) {
                Ok(Header::Partial) if end < input.len() => continue,
                Ok(Header::None) => {}
                Ok(Header::Complete { consumed, source, .. }) => {
                    input.copy_within(consumed..end, 0);
                    end -= consumed;
                    if let Some(source) = source {
                        client = SocketAddr::new(source.ip().to_canonical(), source.port());
                    }
                }
                Ok(Header::Partial) | Err(_) => {
                    worker.metrics.refused(entry.label, "proxy_protocol");
                    tracing::info!(entryPointName = %entry.config.name, %peer, "bad PROXY protocol header");
                    return None;
                }
            }
            proxied = true;
        }
        match &input[..end] {
            [] => {}
            [TLS_HANDSHAKE, ..] => {
                let prefix = input[..end].to_vec();
                worker.buffers.give_input(input);
                let Stream::Plain(tcp) = stream else { return None };
                return handshake(worker, entry, Prefixed::new(prefix, tcp), client).await;
            }
            bytes if bytes.starts_with(H2_PREFACE) => {
                let prefix = bytes.to_vec();
                worker.buffers.give_input(input);
                return Some(Greeting { stream, speaks: Speaks::Http2 { prefix }, client, tls: None });
            }
            // "P" may yet become POST: only a whole preface tells.
            bytes if H2_PREFACE.starts_with(bytes) => {}
            _ => return Some(Greeting { stream, speaks: Speaks::Http1 { input, end }, client, tls: None }),
        }
    }
}

async fn read(stream: &mut Stream, buffer: &mut [u8], deadline: &mut Deadline) -> io::Result<usize> {
    poll_fn(|cx| match stream.poll_read(cx, buffer) {
        Poll::Pending => deadline.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        ready => ready,
    })
    .await
}

async fn handshake(
    worker: &Worker,
    entry: &Arc<Entry>,
    stream: Prefixed<TcpStream>,
    client: SocketAddr,
) -> Option<Greeting> {
    let shake = async {
        let local = stream.local_ip()?;
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let snapshot = worker.snapshot();
        let routes = &snapshot.entry_points[entry.index];
        let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let profile = routes.profile(name.as_deref()).map(Arc::clone);
        // The snapshot is not kept alive by a slow handshake.
        drop(snapshot);
        let config = profile.as_ref().and_then(|profile| match profile.depends_on_hello() {
            true => profile.config_for(name.as_deref(), local),
            false => Some(Arc::clone(&profile.config)),
        });
        let (Some(profile), Some(config)) = (profile, config) else {
            start.io.write_all(&UNRECOGNIZED_NAME).await?;
            return Err(io::Error::other("no certificate or no valid options for this name"));
        };
        Ok((start.into_stream(config).await?, profile))
    };
    match tokio::time::timeout(GREETING_TIMEOUT, shake).await {
        Ok(Ok((stream, profile))) => {
            let session = stream.get_ref().1;
            let version = match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
                _ => "1.3",
            };
            let cipher = session.negotiated_cipher_suite().map(|suite| suite.suite());
            let cipher =
                cipher.and_then(|suite| suite.as_str()).unwrap_or_default().replace("TLS13_", "TLS_");
            let speaks_h2 = session.alpn_protocol() == Some(b"h2");
            let client_subject = session.peer_certificates().and_then(crate::tls::subject);
            let tls = TlsInfo {
                options: profile.name.as_str().into(),
                label: worker.metrics.tls(version, &cipher),
                version,
                cipher,
                client_subject,
            };
            let stream = Stream::Client(Box::new(stream));
            let speaks = if speaks_h2 {
                Speaks::Http2 { prefix: Vec::new() }
            } else {
                Speaks::Http1 { input: Vec::new(), end: 0 }
            };
            Some(Greeting { stream, speaks, client, tls: Some(tls) })
        }
        Ok(Err(error)) => {
            worker.metrics.refused(entry.label, "tls_handshake");
            tracing::debug!(entryPointName = %entry.config.name, %client, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            worker.metrics.refused(entry.label, "tls_timeout");
            None
        }
    }
}
