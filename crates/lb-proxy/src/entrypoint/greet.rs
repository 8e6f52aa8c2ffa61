//! What a new connection speaks: PROXY protocol, TLS, HTTP/2 with prior knowledge, HTTP/1.1.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lb_core::client_hello::{self, Read};
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;

use super::proxy_protocol::{self, Header};
use super::seats::{Full, Seat, Told};
use super::{Connection, Entry, TlsInfo, Validations};
use crate::deadline::Deadline;
use crate::http::forwarded::{Peer, is_trusted};
use crate::http::h1::H1;
use crate::http::h1_serve::{self, LAME_DUCK};
use crate::http::h2_serve;
use crate::l4::{self, greet::Whose};
use crate::middleware::Certificates;
use crate::stream::{Prefixed, Stream};
use crate::tls::{PROTOCOL_VERSION, UNRECOGNIZED_NAME, config_for_suites};
use crate::worker::{Watch, Worker};

/// RFC 9113 section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// First bytes, and then a TLS handshake, must come in this time. Chosen; nginx gives 60 s.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that is refused may take so long to be told why. Chosen.
const FAREWELL: Duration = Duration::from_secs(1);
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Retry-After: 5\r\nConnection: close\r\nContent-Length: 21\r\n\r\ntoo many connections\n";

/// Serves one accepted connection to its end.
///
/// The future is no larger than what serves HTTP/1.1, since most connections are idle most of the time.
pub(crate) fn serve(
    worker: Rc<Worker>,
    entry: Arc<Entry>,
    tcp: TcpStream,
    peer: SocketAddr,
    mut watch: Watch,
) -> impl Future<Output = ()> {
    let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let open = worker.shard.connection(entry.label);
    let greeted = Box::pin(async move {
        let greeting = match greet(&worker, &entry, tcp, client, &mut watch).await? {
            Greeted::Http(greeting) => greeting,
            Greeted::Tcp(accepted) => {
                // In a task of its own, which takes up no more than it needs.
                let serve =
                    l4::serve::serve(Rc::clone(&worker), Arc::clone(&entry), *accepted, (open, watch));
                tokio::task::spawn_local(serve);
                return None;
            }
        };
        let Greeting { stream, speaks, client, tls, certificates, seat } = greeting;
        let slot = if let Speaks::Http1 { .. } = speaks { watch.slot() } else { None };
        let mut peer = Peer::new(client.ip(), tls.is_some());
        peer.certificates = certificates;
        let connection = Rc::new(Connection {
            trusted: is_trusted(&entry.config.forwarded_headers, client.ip()),
            peer: Rc::new(peer),
            client,
            tls,
            entry,
            slot,
            _open: Some(open),
            _seat: seat,
            private: OnceCell::new(),
        });
        match speaks {
            Speaks::Http1 { input, end } => {
                let h1 = H1::with_input(stream, Rc::clone(&worker.buffers), input, end);
                Some(h1_serve::serve(worker, connection, h1, watch))
            }
            Speaks::Http2 { prefix } => {
                let stream = Prefixed::new(prefix, stream);
                Box::pin(h2_serve::serve(worker, connection, stream, watch)).await;
                None
            }
        }
    });
    async move {
        let Some(http1) = greeted.await else { return };
        http1.await;
    }
}

#[expect(clippy::large_enum_variant, reason = "it lives for a moment, and nearly always it is the large one")]
enum Greeted {
    Http(Greeting),
    /// A TCP router has it.
    Tcp(Box<l4::serve::Accepted>),
}

struct Greeting {
    stream: Stream,
    speaks: Speaks,
    client: SocketAddr,
    tls: Option<TlsInfo>,
    /// What the client has shown of itself.
    certificates: Option<Box<Certificates>>,
    seat: Option<Seat>,
}

impl Greeting {
    /// Without TLS.
    fn plain(stream: Stream, speaks: Speaks, client: SocketAddr, seat: Option<Seat>) -> Self {
        Self { stream, speaks, client, tls: None, certificates: None, seat }
    }
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

async fn greet(
    worker: &Worker,
    entry: &Arc<Entry>,
    tcp: TcpStream,
    peer: SocketAddr,
    watch: &mut Watch,
) -> Option<Greeted> {
    let mut deadline = Deadline::default();
    // Others than clients of HTTP may take their time before they say something.
    let mut undecided = l4::greet::has_routes(worker, entry);
    let patience = patience(entry.config.read_timeout, undecided);
    let opened = Instant::now();
    deadline.set(opened, patience);
    let mut stream = Stream::Plain(tcp);
    let mut client = peer;
    let peers = &entry.config.proxy_protocol;
    let believed = is_trusted(peers, peer.ip());
    // Where some are believed, what others say is stepped over, as by Traefik: a balancer that is missing from the
    // list costs the clients' addresses, not the service.
    let mut expected = peers.insecure || !peers.trusted_ips.is_empty();
    let mut seat = None;
    let mut destination = None;
    let tcp_route = |stream, first: &[u8], client, destination, routed, seat| {
        let first = first.to_vec();
        let accepted =
            l4::serve::Accepted { stream, first, client, destination, routed, seat, header: false };
        Some(Greeted::Tcp(Box::new(accepted)))
    };
    if !believed {
        match Seat::take(entry, client.ip()) {
            Ok(taken) => seat = taken,
            Err(full) => {
                Box::pin(turn_away(worker, entry, stream, &[], client, full)).await;
                return None;
            }
        }
    }
    if undecided
        && !believed
        && let Some(routed) = l4::greet::at_once(worker, entry, client.ip())
    {
        let first = Vec::new();
        let accepted =
            l4::serve::Accepted { stream, first, client, destination, routed, seat, header: expected };
        return Some(Greeted::Tcp(Box::new(accepted)));
    }
    let mut ending = false;
    let mut input = Vec::new();
    let first = poll_fn(|cx| {
        watch.register(cx.waker());
        if stream.poll_readable(cx).is_ready() {
            // Perhaps: of a new connection nothing is known.
            input = worker.buffers.input();
            if let Poll::Ready(read) = stream.poll_read(cx, &mut input) {
                return Poll::Ready(read.ok());
            }
            // Whoever waits holds no buffer.
            worker.buffers.give_input(std::mem::take(&mut input));
        }
        if worker.is_draining() && !ending {
            ending = true;
            deadline
                .set(Instant::now(), Some(patience.map_or(LAME_DUCK, |patience| patience.min(LAME_DUCK))));
        }
        // Not yet the one whose first request may be on its way.
        if !undecided && opened.elapsed() >= LAME_DUCK && worker.sheds_one() {
            return Poll::Ready(None);
        }
        deadline.poll(cx).map(|()| None)
    })
    .await?;
    let mut first = Some(first);
    let mut end = 0;
    loop {
        let count = match first.take() {
            Some(count) => count,
            None => read(&mut stream, &mut input[end..], &mut deadline).await.ok()?,
        };
        if count == 0 {
            worker.buffers.give_input(input);
            return None;
        }
        end += count;
        if expected {
            match proxy_protocol::parse(&input[..end]) {
                Ok(Header::Partial) if end < input.len() => continue,
                Ok(Header::None) => {}
                Ok(Header::Complete { consumed, source, destination: meant }) => {
                    input.copy_within(consumed..end, 0);
                    end -= consumed;
                    match source {
                        Some(source) if believed => {
                            destination = meant;
                            client = SocketAddr::new(source.ip().to_canonical(), source.port());
                        }
                        Some(_) => tracing::debug!(entryPointName = %entry.config.name, %peer,
                            "a PROXY protocol header of an untrusted peer is ignored"),
                        None => {}
                    }
                }
                Ok(Header::Partial) | Err(_) => {
                    worker.metrics.refused(entry.label, "proxy_protocol");
                    // Strangers do not fill the log.
                    if believed {
                        tracing::info!(entryPointName = %entry.config.name, %peer, "bad PROXY protocol header");
                    }
                    return None;
                }
            }
            expected = false;
            if believed {
                match Seat::take(entry, client.ip()) {
                    Ok(taken) => seat = taken,
                    Err(full) => {
                        Box::pin(turn_away(worker, entry, stream, &input[..end], client, full)).await;
                        worker.buffers.give_input(input);
                        return None;
                    }
                }
            }
        }
        if undecided {
            if believed && let Some(routed) = l4::greet::at_once(worker, entry, client.ip()) {
                let accepted = tcp_route(stream, &input[..end], client, destination, routed, seat);
                worker.buffers.give_input(input);
                return accepted;
            }
            if end == 0 {
                continue;
            }
            undecided = false;
            let read = (&mut input, &mut end);
            let whose =
                Box::pin(l4::greet::whose(worker, entry, &mut stream, read, client.ip(), &mut deadline))
                    .await;
            match whose {
                Whose::Http => {}
                Whose::Tcp(routed) => {
                    let accepted = tcp_route(stream, &input[..end], client, destination, routed, seat);
                    worker.buffers.give_input(input);
                    return accepted;
                }
                Whose::Nobody => {
                    worker.buffers.give_input(input);
                    return None;
                }
            }
        }
        match &input[..end] {
            [] => {}
            [TLS_HANDSHAKE, ..] => {
                let prefix = input[..end].to_vec();
                worker.buffers.give_input(input);
                let Stream::Plain(mut tcp) = stream else { return None };
                if is_too_old(worker, entry, &prefix, &mut tcp, client).await {
                    return None;
                }
                let greeting =
                    Box::pin(handshake(worker, entry, Prefixed::new(prefix, tcp), client, seat)).await;
                return greeting.map(Greeted::Http);
            }
            bytes if bytes.starts_with(H2_PREFACE) => {
                let prefix = bytes.to_vec();
                worker.buffers.give_input(input);
                let speaks = Speaks::Http2 { prefix };
                return Some(Greeted::Http(Greeting::plain(stream, speaks, client, seat)));
            }
            // "P" may yet become POST: only a whole preface tells.
            bytes if H2_PREFACE.starts_with(bytes) => {}
            _ => {
                let speaks = Speaks::Http1 { input, end };
                return Some(Greeted::Http(Greeting::plain(stream, speaks, client, seat)));
            }
        }
    }
}

/// How long a client may say nothing; `None`: as long as it likes, which an operator may allow others than those of
/// HTTP.
fn patience(read_timeout: Option<Duration>, undecided: bool) -> Option<Duration> {
    match undecided {
        true => read_timeout,
        false => Some(read_timeout.map_or(GREETING_TIMEOUT, |timeout| timeout.min(GREETING_TIMEOUT))),
    }
}

/// Refuses a connection for which there is no seat. A client that speaks HTTP/1.1 is told so; for any other it is
/// cheaper, and as clear, to close.
async fn turn_away(
    worker: &Worker,
    entry: &Arc<Entry>,
    mut stream: Stream,
    first: &[u8],
    client: SocketAddr,
    full: Full,
) {
    worker.metrics.refused(entry.label, full.reason());
    if entry.seats.reports() {
        tracing::warn!(entryPointName = %entry.config.name, %client, reason = full.reason(),
            "connections are refused");
    }
    // Who does not speak HTTP would not understand.
    if l4::greet::at_once(worker, entry, client.ip()).is_some() {
        return;
    }
    let Some(_told) = Told::one_more(entry) else { return };
    let farewell = Box::pin(async {
        let mut scratch = [0; 512];
        let mut first = first.first().copied();
        if first.is_none() && poll_fn(|cx| stream.poll_read(cx, &mut scratch)).await.unwrap_or(0) > 0 {
            first = Some(scratch[0]);
        }
        // Methods are upper case, where everybody keeps to the standard ones; of them none but HTTP/2's begins
        // with `PRI`, and it gets what it cannot read.
        if first.is_some_and(|first| first.is_ascii_uppercase()) && stream.write_all(TOO_MANY).await.is_ok() {
            let _ = stream.shutdown().await;
            // Closing with unread bytes would reset the connection and take the answer with it.
            while let Ok(1..) = poll_fn(|cx| stream.poll_read(cx, &mut scratch)).await {}
        }
    });
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

async fn read(stream: &mut Stream, buffer: &mut [u8], deadline: &mut Deadline) -> io::Result<usize> {
    poll_fn(|cx| match stream.poll_read(cx, buffer) {
        Poll::Pending => deadline.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        ready => ready,
    })
    .await
}

/// Whether a client speaks no version that TLS could go on with, by the first bytes of its hello; it is told so.
pub(crate) async fn is_too_old(
    worker: &Worker,
    entry: &Entry,
    first: &[u8],
    tcp: &mut TcpStream,
    client: SocketAddr,
) -> bool {
    // Nearly all are known by two bytes: record and message have headers of 5 and 4.
    if first.get(9..11).is_none_or(|version| version >= &[3, 3][..])
        || !matches!(client_hello::read(first), Read::Hello(hello) if hello.is_old)
    {
        return false;
    }
    worker.metrics.refused(entry.label, "tls_handshake");
    tracing::debug!(entryPointName = %entry.config.name, %client, error = "the client speaks nothing above TLS 1.1",
        "TLS handshake failed");
    let _ = tcp.write_all(&PROTOCOL_VERSION).await;
    true
}

/// The configuration for an authority that validates the name: its hello offers nothing but `acme-tls/1`.
fn validation(
    hello: &ClientHello<'_>,
    name: Option<&str>,
    validations: &Validations,
) -> Option<Arc<ServerConfig>> {
    let mut offered = hello.alpn()?;
    (offered.next() == Some(b"acme-tls/1") && offered.next().is_none()).then(|| validations(name?))?
}

async fn handshake(
    worker: &Worker,
    entry: &Arc<Entry>,
    stream: Prefixed<TcpStream>,
    client: SocketAddr,
    seat: Option<Seat>,
) -> Option<Greeting> {
    let shake = async {
        let local = stream.local_ip()?;
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let snapshot = worker.snapshot();
        let routes = &snapshot.entry_points[entry.index];
        let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        if let Some(validations) = &entry.validations
            && let Some(expected) = validation(&start.client_hello(), name.as_deref(), &**validations)
        {
            // The handshake is all that the authority looks at.
            Box::pin(async { start.into_stream(expected).await?.shutdown().await }).await?;
            return Ok(None);
        }
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
        let config = config_for_suites(config, start.client_hello().cipher_suites());
        match start.into_stream(config).await {
            Ok(stream) => Ok(Some((stream, profile))),
            Err(error) => {
                profile.report(&error, &entry.config.name, client, Instant::now().into_std());
                Err(error)
            }
        }
    };
    let limit = patience(entry.config.read_timeout, false).unwrap_or(GREETING_TIMEOUT);
    match tokio::time::timeout(limit, shake).await {
        Ok(Ok(None)) => None,
        Ok(Ok(Some((stream, profile)))) => {
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
            let certificates = Certificates::new(session.peer_certificates());
            let tls = TlsInfo {
                options: profile.name.as_str().into(),
                proof: profile.proof(session.peer_certificates().is_some()),
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
            Some(Greeting { stream, speaks, client, tls: Some(tls), certificates, seat })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clients_of_http_have_to_hurry() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (read_timeout, undecided, expected) in [
            (seconds(60), false, seconds(10)),
            (seconds(3), false, seconds(3)),
            (None, false, seconds(10)),
            (seconds(60), true, seconds(60)),
            (seconds(3), true, seconds(3)),
            (None, true, None),
        ] {
            assert_eq!(patience(read_timeout, undecided), expected, "{read_timeout:?} {undecided}");
        }
    }
}
