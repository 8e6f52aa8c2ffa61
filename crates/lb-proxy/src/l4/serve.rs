//! One connection of a TCP router, from its route to its end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lb_core::balance::{Pick, Picked};
use lb_core::in_flight::Permit;
use lb_observe::metrics::OpenConnection;
use rustls::server::Acceptor;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::connect::{Introduction, connect};
use super::greet::Routed;
use super::relay::{self, End};
use super::{Middleware, Route, Service, Tls};
use crate::buffers::Buffers;
use crate::entrypoint::Entry;
use crate::entrypoint::greet::{GREETING_TIMEOUT, is_too_old};
use crate::entrypoint::proxy_protocol::{self, Header};
use crate::entrypoint::seats::Seat;
use crate::forward::prefer_awake;
use crate::stream::{Prefixed, Stream};
use crate::tls::{TlsProfile, UNRECOGNIZED_NAME, config_for_suites};
use crate::worker::{Watch, Worker};

/// As for HTTPS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that has found its router.
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    /// What was read of it.
    pub(crate) first: Vec<u8>,
    pub(crate) client: SocketAddr,
    /// Where the PROXY protocol says that the client connected to.
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) routed: Routed,
    pub(crate) seat: Option<Seat>,
    /// Nothing was read, and it may begin with a PROXY protocol header, which nobody believes.
    pub(crate) header: bool,
}

/// Serves it to its end. `watch` lets draining wait for it.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    entry: Arc<Entry>,
    accepted: Accepted,
    (_open, _watch): (OpenConnection, Watch),
) {
    let Accepted { stream, first, client, destination, routed, seat: _seat, header } = accepted;
    let Routed { route, postgres } = routed;
    let refuse = |outcome: &'static str, reason: &str| {
        worker.metrics.tcp_ended(route.label, outcome);
        tracing::debug!(entryPointName = %entry.config.name, routerName = %route.name, %client, reason,
            "TCP connection refused");
    };
    let _permits = match pass(&route, client) {
        Ok(permits) => permits,
        Err(middleware) => return refuse("refused", middleware),
    };
    let local = destination.map_or_else(|| stream.local_addr(), Ok);
    let Ok(local) = local else { return refuse("client_aborted", "the client has gone") };
    let (mut stream, first) = match &route.tls {
        Tls::None | Tls::Passthrough => (stream, first),
        Tls::Ends(None) => return refuse("tls", "its TLS options are broken"),
        Tls::Ends(Some(profile)) => match terminate(&worker, &entry, stream, first, client, profile).await {
            Some(stream) => (stream, Vec::new()),
            None => return refuse("tls", "TLS handshake failed"),
        },
    };
    let asks_postgres = postgres && matches!(route.tls, Tls::Passthrough);
    let introduction = Introduction { client, local, asks_postgres };
    // Boxed: what waits for a server is large, and most of a connection's life comes afterwards.
    let found = Box::pin(find_server(&worker, &route, &introduction)).await;
    let Some((service, picked, mut server)) = found else {
        return refuse("no_server", "no server takes it");
    };
    let mut first = [first, Vec::new()];
    if header {
        match Box::pin(without_header(&mut stream, &mut server, &worker.buffers)).await {
            Ok(said) => first = said,
            Err((outcome, reason)) => return refuse(outcome, reason),
        }
    }
    let address = &service.servers[picked.index()].address;
    tracing::debug!(entryPointName = %entry.config.name, routerName = %route.name, serviceName = %service.name,
        %client, server = %address, "TCP connection");
    let _counted = service.counts.open();
    let passed = [&service.counts.received, &service.counts.sent];
    let delay = service.termination_delay;
    let end = relay::run(&mut stream, &mut server, first, delay, &worker.buffers, passed).await;
    let outcome = match end {
        End::Done => "done",
        End::Cut => "cut",
        End::Client => "client_aborted",
        End::Server => "server_aborted",
    };
    worker.metrics.tcp_ended(service.label, outcome);
    tracing::debug!(routerName = %route.name, serviceName = %service.name, %client, server = %address, outcome,
        "TCP connection ended");
}

/// What middlewares give out for as long as the connection lasts, or which of them refuses it.
fn pass(route: &Route, client: SocketAddr) -> Result<SmallVec<[Permit; 1]>, &'static str> {
    let mut permits = SmallVec::new();
    for middleware in &route.middlewares {
        match middleware {
            Middleware::IpAllowList(networks) => {
                if !networks.iter().any(|network| network.contains(&client.ip())) {
                    return Err("ipAllowList");
                }
            }
            Middleware::InFlightConn(limiter) => {
                let text = client.ip().to_string();
                permits.push(limiter.acquire(text.as_bytes()).ok_or("inFlightConn")?);
            }
        }
    }
    Ok(permits)
}

/// What client and server say first, without the client's header of the PROXY protocol; or what has come of it, and why.
///
/// A header comes before all else (section 2 of its specification): where the server speaks first there is none to
/// wait for.
async fn without_header(
    client: &mut Stream,
    server: &mut Stream,
    buffers: &Buffers,
) -> Result<[Vec<u8>; 2], (&'static str, &'static str)> {
    let mut input = Vec::new();
    let (read, is_client) = poll_fn(|cx| {
        input = buffers.input();
        if let Poll::Ready(read) = client.poll_read(cx, &mut input) {
            return Poll::Ready((read, true));
        }
        if let Poll::Ready(read) = server.poll_read(cx, &mut input) {
            return Poll::Ready((read, false));
        }
        // Whoever waits holds no buffer.
        buffers.give_input(std::mem::take(&mut input));
        Poll::Pending
    })
    .await;
    let aborted = if is_client { "client_aborted" } else { "server_aborted" };
    let mut end = read.map_err(|_| (aborted, "nothing was said"))?;
    if !is_client {
        input.truncate(end);
        return Ok([Vec::new(), input]);
    }
    let header = async {
        loop {
            match proxy_protocol::parse(&input[..end]).ok()? {
                Header::None => return Some(0),
                Header::Complete { consumed, .. } => return Some(consumed),
                Header::Partial => match poll_fn(|cx| client.poll_read(cx, &mut input[end..])).await {
                    Ok(0) | Err(_) => return Some(0),
                    Ok(count) => end += count,
                },
            }
        }
    };
    let consumed = timeout(GREETING_TIMEOUT, header).await.ok().flatten();
    let first = consumed.map(|consumed| input[consumed..end].to_vec());
    buffers.give_input(input);
    Ok([first.ok_or(("refused", "bad PROXY protocol header"))?, Vec::new()])
}

/// The client's TLS ends here.
async fn terminate(
    worker: &Worker,
    entry: &Entry,
    stream: Stream,
    first: Vec<u8>,
    client: SocketAddr,
    profile: &TlsProfile,
) -> Option<Stream> {
    let Stream::Plain(mut tcp) = stream else { return None };
    if is_too_old(worker, entry, &first, &mut tcp, client).await {
        return None;
    }
    let stream = Prefixed::new(first, tcp);
    let shake = async {
        let local = stream.local_ip()?;
        let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let Some(config) = profile.config_for(name.as_deref(), local) else {
            tokio::io::AsyncWriteExt::write_all(&mut start.io, &UNRECOGNIZED_NAME).await?;
            return Err(io::Error::other("no certificate or no valid options for this name"));
        };
        let config = config_for_suites(config, start.client_hello().cipher_suites());
        start.into_stream(config).await
    };
    match timeout(HANDSHAKE_TIMEOUT, Box::pin(shake)).await {
        Ok(Ok(stream)) => Some(Stream::Client(Box::new(stream))),
        Ok(Err(error)) => {
            profile.report(&error, &entry.config.name, client, Instant::now().into_std());
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

/// A server that takes the connection. One that does not has seen nothing of the client's, so another may, also one that
/// a reload has brought meanwhile.
async fn find_server(
    worker: &Worker,
    route: &Arc<Route>,
    introduction: &Introduction,
) -> Option<(Arc<Service>, Picked, Stream)> {
    let client = introduction.client.ip();
    let mut route = Arc::clone(route);
    let mut tried: Vec<Tried> = Vec::new();
    let mut refused: Vec<Arc<str>> = Vec::new();
    loop {
        // Who rests is told by the last time that anybody has asked for, which without HTTP nobody else does.
        worker.now();
        let random = worker.random();
        let spent = |service: &Arc<Service>| tried.iter().any(|tried| tried.spent && tried.is_of(service));
        let Some(service) =
            route.target.leaf(client, random, &spent).filter(|service| !spent(service)).cloned()
        else {
            let newer = worker.with_snapshot(|snapshot| snapshot.tcp.route(&route.name).map(Arc::clone));
            if let Some(newer) = newer.filter(|newer| !Arc::ptr_eq(newer, &route)) {
                route = newer;
                continue;
            }
            if let Some(connections) = route.nobody.count(worker.now()) {
                tracing::warn!(routerName = %route.name, connections, "no server takes TCP connections");
            }
            return None;
        };
        let at = tried.iter().position(|tried| tried.is_of(&service)).unwrap_or_else(|| {
            let is_refused = |&at: &usize| refused.contains(&service.servers[at].address);
            let servers = (0..service.servers.len()).filter(is_refused).collect();
            tried.push(Tried { service: Arc::clone(&service), servers, spent: false });
            tried.len() - 1
        });
        let Tried { servers, spent, .. } = &mut tried[at];
        let pick = Pick { client, sticky: None, random, tried: servers };
        let picked = service.live.pick(&pick);
        let Some(picked) = picked.filter(|picked| !pick.tried.contains(&picked.index())) else {
            *spent = true;
            continue;
        };
        let picked = prefer_awake(worker, &service.live, picked, &pick);
        servers.push(picked.index());
        let server = &service.servers[picked.index()];
        let outages = picked.server().outages();
        let is_listed = || worker.with_snapshot(|snapshot| snapshot.tcp.lists(&service.name, server));
        // Once the router is gone, perhaps under another name from now on, there is nobody else to ask.
        let is_last = || worker.with_snapshot(|snapshot| snapshot.tcp.route(&route.name).is_none());
        let is_wanted = || picked.server().outages() == outages && (is_listed() || is_last());
        match connect(&service, server, introduction, is_wanted).await {
            Ok(stream) => {
                picked.server().awake();
                return Some((service, picked, stream));
            }
            Err((reason, error)) => {
                // One that a reload has taken from its service may be there again under another name.
                if is_listed() {
                    refused.push(Arc::clone(&server.address));
                }
                picked.server().rest(worker.now());
                worker.metrics.tcp_dial_failed(service.label, reason);
                if let Some(connections) = server.unreached.count(worker.now()) {
                    tracing::warn!(serviceName = %service.name, server = %server.address, reason, %error,
                        connections, "TCP server cannot be reached");
                }
            }
        }
    }
}

/// The servers of one load balancer that could not be reached.
struct Tried {
    service: Arc<Service>,
    servers: SmallVec<[usize; 4]>,
    /// There is none left that could be.
    spent: bool,
}

impl Tried {
    fn is_of(&self, service: &Arc<Service>) -> bool {
        Arc::ptr_eq(&self.service, service)
    }
}
