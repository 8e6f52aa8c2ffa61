//! Connections from their first packet to their first request.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use lb_observe::metrics::{Kind, LabelId};
use quinn::{EndpointConfig, Incoming, Runtime, ServerConfig, TokioRuntime, TransportConfig};
use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hello::{self, Common, Offer, Settled};
use super::port::Beginning;
use super::socket::{Ids, Socket};
use crate::deadline::Deadline;
use crate::entrypoint::greet::GREETING_TIMEOUT;
use crate::entrypoint::seats::Seat;
use crate::entrypoint::{Connection, Entry, TlsInfo};
use crate::http::forwarded::{Peer, is_trusted};
use crate::http::h1_serve::LAME_DUCK;
use crate::http::h2_serve::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::http::h3;
use crate::middleware::Certificates;
use crate::worker::{Watch, Worker};

/// Streams beside requests: three by the protocol (RFC 9114 section 6.2), and some to be ignored. Chosen.
const OTHER_STREAMS: u32 = 16;
/// Requests at a time, whatever `http2.maxConcurrentStreams` allows: quinn makes a place for each as soon as a connection
/// begins, before anything is asked on it. Chosen.
const MOST_STREAMS: u32 = 1000;
/// Handshakes at a time, beyond which a client has to prove its address first (RFC 9000 section 8.1.2): a flood from
/// invented addresses then costs a packet each, not a signature. Chosen.
const UNPROVEN_HANDSHAKES: usize = 512;
/// How long a client that was asked to prove its address is waited for: what it answers with is for this process alone. Long
/// enough for one packet that is lost (RFC 9002 section 6.2.2). Chosen.
const PROOF: Duration = Duration::from_secs(3);
/// A client that is silent for so long is gone where `idleTimeout` has no end: there is no other sign of it. As long as
/// `idleTimeout` is by default.
const SILENCE: Duration = Duration::from_secs(180);
/// A connection that has been idle for `idleTimeout` is told to go, which takes some time. Without it QUIC would end it at
/// that moment, on both sides without a word (RFC 9000 section 10.1), and a request on its way would be lost. Chosen.
const FAREWELL: Duration = Duration::from_secs(5);
/// Connections that wait to be looked at, and bytes that they may bring along each and together. Chosen.
const BACKLOG: usize = 4096;
const EARLY_BYTES: u64 = 32 * 1024;
const EARLY_BYTES_IN_ALL: u64 = 16 * 1024 * 1024;

/// What the connections of one entry point have in common.
pub(crate) struct Shared {
    entry: Arc<Entry>,
    label: LabelId,
    common: Arc<Common>,
    config: ServerConfig,
    bound: IpAddr,
    /// Connections, from the first packet on.
    open: AtomicUsize,
    shaking: AtomicUsize,
}

/// Receives for one entry point.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    socket: Arc<Socket>,
    /// When a client was last asked to prove its address.
    asked: Cell<Option<Instant>>,
}

impl Receiver {
    /// Call it on the thread that is to receive.
    pub(crate) fn new(worker: &Worker, entry: Arc<Entry>, beginning: Beginning) -> io::Result<Self> {
        let Beginning { socket, tag, elder, heirs } = beginning;
        let common = Arc::new(Common::new()?);
        let mut config = ServerConfig::with_crypto(hello::without_sessions(&common));
        config
            .transport_config(Arc::new(transport(&entry)))
            .max_incoming(BACKLOG)
            .incoming_buffer_size(EARLY_BYTES)
            .incoming_buffer_size_total(EARLY_BYTES_IN_ALL);
        let bound = socket.local_addr()?.ip().to_canonical();
        let mut endpoint = EndpointConfig::default();
        endpoint.supported_versions(vec![hello::VERSION]);
        endpoint.cid_generator(move || Box::new(Ids(tag)));
        let runtime = Arc::new(TokioRuntime);
        let socket = Arc::new(Socket::new(runtime.wrap_udp_socket(socket)?, elder, heirs));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            endpoint,
            Some(config.clone()),
            Arc::clone(&socket) as _,
            runtime,
        )?;
        let (open, shaking) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let label = worker.metrics.label(Kind::Http3, &entry.config.name);
        let shared = Arc::new(Shared { entry, label, common, config, bound, open, shaking });
        Ok(Self { shared, endpoint, socket, asked: Cell::default() })
    }

    /// Whether a connection is open, on whatever worker, or about to be, that has not used up its entry point's
    /// `graceTimeOut`.
    pub(crate) fn waits_after(&self, elapsed: Duration) -> bool {
        let asked = || self.asked.get().is_some_and(|asked| asked.elapsed() < PROOF);
        // Where nobody follows it may as well end: the client finds nothing here either way.
        let awaited = || self.socket.is_followed() && asked();
        (self.shared.open.load(Ordering::Acquire) > 0 || awaited())
            && elapsed < self.shared.entry.config.grace_timeout
    }

    /// Tells the clients of what is left that it ends.
    pub(crate) fn close(&self) {
        self.endpoint.close(h3::NO_ERROR.into(), b"");
    }
}

fn transport(entry: &Entry) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(streams(entry.config.http2_max_concurrent_streams).into())
        .max_concurrent_uni_streams(OTHER_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        // RFC 9221 is not offered.
        .datagram_receive_buffer_size(None)
        // More than 2^62 milliseconds cannot be said.
        .max_idle_timeout(silence(entry.config.idle_timeout).try_into().ok());
    transport
}

fn streams(most: u32) -> u32 {
    most.min(MOST_STREAMS)
}

/// How long QUIC keeps a connection that is silent.
fn silence(idle: Option<Duration>) -> Duration {
    idle.map_or(SILENCE, |idle| idle.saturating_add(FAREWELL))
}

/// One connection on its way to the worker that serves it.
pub(crate) struct Arriving {
    incoming: Incoming,
    seat: Option<Seat>,
    open: Open,
}

/// Counts a connection until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

/// The same for handshakes.
struct Shaking<'a>(&'a Shared);

impl<'a> Shaking<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.shaking.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Shaking<'_> {
    fn drop(&mut self) {
        self.0.shaking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hands connections to the workers until told to stop, and refuses them from then on: clients then try TCP at once. Those
/// that were asked to prove their address before are served.
pub(crate) async fn accept(worker: Rc<Worker>, receiver: Rc<Receiver>, stop: Rc<Notify>) {
    let Receiver { endpoint, socket, .. } = &*receiver;
    let stopped = stop.notified();
    tokio::pin!(stopped);
    loop {
        let incoming = tokio::select! {
            biased;
            // First: a flood of clients must not put off the end.
            () = &mut stopped => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            let name = &receiver.shared.entry.config.name;
            tracing::error!(entryPointName = %name, "the socket for HTTP/3 has failed: there is none until a restart");
            return;
        };
        welcome(&worker, &receiver, incoming);
    }
    socket.leave();
    // Those who came before the end.
    while let Ok(Some(incoming)) = tokio::time::timeout(Duration::ZERO, endpoint.accept()).await {
        welcome(&worker, &receiver, incoming);
    }
    let (worker, receiver) = (Rc::clone(&worker), Rc::clone(&receiver));
    tokio::task::spawn_local(async move {
        while let Some(incoming) = receiver.endpoint.accept().await {
            if incoming.may_retry() {
                incoming.refuse();
            } else {
                welcome(&worker, &receiver, incoming);
            }
        }
    });
}

fn welcome(worker: &Rc<Worker>, receiver: &Receiver, incoming: Incoming) {
    let shared = &receiver.shared;
    let Some(arriving) = admit(worker, receiver, incoming) else { return };
    match worker.balancer.place_quic(worker.index, shared.entry.index, arriving) {
        Some(arriving) => {
            let watch = worker.watch(shared.entry.config.grace_timeout);
            tokio::task::spawn_local(serve(Rc::clone(worker), arriving, watch));
        }
        None => worker.metrics.handed_over(),
    }
}

/// Whether there is room for it.
fn admit(worker: &Worker, receiver: &Receiver, incoming: Incoming) -> Option<Arriving> {
    let shared = &receiver.shared;
    let entry = &shared.entry;
    let limits = &entry.config.limits;
    // Whoever invents an address must not take that client's seats.
    let prove = limits.connections.is_some()
        || limits.connections_per_client.is_some()
        || shared.shaking.load(Ordering::Relaxed) >= UNPROVEN_HANDSHAKES;
    if prove && !incoming.remote_address_validated() {
        match incoming.retry() {
            Ok(()) => receiver.asked.set(Some(Instant::now())),
            // It has tried already.
            Err(error) => error.into_incoming().refuse(),
        }
        return None;
    }
    let client = incoming.remote_address().ip().to_canonical();
    match Seat::take(entry, client) {
        Ok(seat) => Some(Arriving { incoming, seat, open: Open::new(shared) }),
        Err(full) => {
            worker.metrics.refused(entry.label, full.reason());
            if entry.seats.reports() {
                tracing::warn!(entryPointName = %entry.config.name, %client, reason = full.reason(),
                    "connections are refused");
            }
            incoming.refuse();
            None
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, arriving: Arriving, mut watch: Watch) {
    let Arriving { incoming, seat, open } = arriving;
    let shared = &open.0;
    let entry = &shared.entry;
    let peer = incoming.remote_address();
    let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Some((quic, settled)) = greet(&worker, shared, incoming, client, &mut watch).await else { return };
    let chain = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain = chain.as_ref().map(|chain| chain.as_slice());
    let mut peer = Peer::new(client.ip(), true);
    peer.certificates = Certificates::new(chain);
    let cipher = settled.suite.and_then(|suite| suite.as_str()).unwrap_or_default().replace("TLS13_", "TLS_");
    let connection = Rc::new(Connection {
        trusted: is_trusted(&entry.config.forwarded_headers, client.ip()),
        peer: Rc::new(peer),
        client,
        tls: Some(TlsInfo {
            options: settled.profile.name.as_str().into(),
            proof: settled.profile.proof(chain.is_some()),
            label: worker.metrics.tls("1.3", &cipher),
            version: "1.3",
            cipher,
            client_subject: chain.and_then(crate::tls::subject),
        }),
        entry: Arc::clone(entry),
        slot: None,
        _open: Some(worker.shard.connection(shared.label)),
        _seat: seat,
        private: OnceCell::new(),
    });
    h3::serve::serve(worker, connection, quic, watch).await;
}

async fn greet(
    worker: &Worker,
    shared: &Arc<Shared>,
    incoming: Incoming,
    client: SocketAddr,
    watch: &mut Watch,
) -> Option<(quinn::Connection, Box<Settled>)> {
    let entry = &shared.entry;
    let _shaking = Shaking::new(shared);
    let offer = Offer {
        common: Arc::clone(&shared.common),
        entry: Arc::clone(entry),
        client,
        local: incoming.local_ip().map_or(shared.bound, |ip| ip.to_canonical()),
        snapshot: Some(worker.snapshot()).into(),
    };
    let mut config = shared.config.clone();
    config.crypto = Arc::new(offer);
    let mut shake = pin!(async { incoming.accept_with(Arc::new(config))?.await });
    let mut deadline = Deadline::default();
    deadline.set(Instant::now(), Some(GREETING_TIMEOUT));
    let mut ending = false;
    let shaken = poll_fn(|cx| {
        watch.register(cx.waker());
        if let Poll::Ready(shaken) = shake.as_mut().poll(cx) {
            return Poll::Ready(Some(shaken));
        }
        if worker.is_draining() && !ending {
            ending = true;
            deadline.set(Instant::now(), Some(LAME_DUCK));
        }
        deadline.poll(cx).map(|()| None)
    });
    match shaken.await {
        Some(Ok(quic)) => {
            let settled = quic.handshake_data()?.downcast().ok()?;
            Some((quic, settled))
        }
        Some(Err(error)) => {
            worker.metrics.refused(entry.label, "tls_handshake");
            tracing::debug!(entryPointName = %entry.config.name, %client, %error, "QUIC handshake failed");
            None
        }
        None => {
            worker.metrics.refused(entry.label, "tls_timeout");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GOAWAY and what follows it (`h3::serve`) have their time before QUIC ends a connection without a word.
    #[test]
    fn an_idle_connection_has_time_to_be_told() {
        for idle in [Duration::from_millis(1), Duration::from_secs(180), Duration::from_secs(86_400)] {
            assert!(silence(Some(idle)) >= idle + Duration::from_secs(2));
        }
        assert_eq!(silence(Some(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn a_connection_has_no_more_places_than_it_can_use() {
        assert_eq!([1, 250, 1_000_000, u32::MAX].map(streams), [1, 250, MOST_STREAMS, MOST_STREAMS]);
    }

    #[test]
    fn there_is_a_cipher_suite_for_first_packets() {
        assert!(Common::new().is_ok());
    }
}
