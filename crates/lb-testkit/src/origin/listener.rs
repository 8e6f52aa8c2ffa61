//! What the origins have in common: a listener that can be stopped and started again, and counts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::Request;
use crate::stream::Stream;

/// Chosen: more than a test looks at, less than a load test would fill memory with.
const SEEN: usize = 2_000;

pub(super) trait Serve: Send + Sync + 'static {
    fn tally(&self) -> &Tally;
    fn serve(self: Arc<Self>, stream: Stream, connection: usize) -> impl Future<Output = ()> + Send;
}

#[derive(Default)]
pub(super) struct Tally {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    /// Latest requests with their numbers.
    seen: Mutex<VecDeque<(usize, Request)>>,
}

impl Tally {
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn seen(&self) -> Vec<Request> {
        let seen = self.seen.lock().expect("no panic under this lock");
        seen.iter().map(|(_, request)| request.clone()).collect()
    }

    /// Notes a request and returns its number.
    pub(super) fn request(&self, request: Request) -> usize {
        let mut seen = self.seen.lock().expect("no panic under this lock");
        if seen.len() == SEEN {
            seen.pop_front();
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        seen.push_back((number, request));
        number
    }

    pub(super) fn update(&self, number: usize, request: &Request) {
        let mut seen = self.seen.lock().expect("no panic under this lock");
        if let Some((_, noted)) = seen.iter_mut().rev().find(|(n, _)| *n == number) {
            noted.clone_from(request);
        }
    }
}

/// Counts a connection as open while it lives, however its task ends.
struct Open<S: Serve>(Arc<S>);

impl<S: Serve> Drop for Open<S> {
    fn drop(&mut self) {
        self.0.tally().open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) struct Listener {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    /// The accept loop, which owns its connections, and the word that stops it.
    running: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Listener {
    pub(super) async fn start<S: Serve>(
        address: SocketAddr,
        server: Arc<S>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let socket = bind(address).expect("the address is free");
        let address = socket.local_addr().expect("a bound listener has an address");
        let mut listener = Self { address, tls: tls.map(TlsAcceptor::from), running: None };
        listener.run(socket, server);
        listener
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Dropped sockets end as those of a killed process do: FIN, or RST where bytes were unread.
    pub(super) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.send_replace(true);
            task.await.expect("the accept loop does not panic");
        }
    }

    pub(super) async fn restart<S: Serve>(&mut self, server: Arc<S>) {
        self.stop().await;
        let socket = bind(self.address).expect("the origin's own port is still free");
        self.run(socket, server);
    }

    fn run<S: Serve>(&mut self, socket: TcpListener, server: Arc<S>) {
        let (stop, mut stopped) = watch::channel(false);
        let tls = self.tls.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = socket.accept() => accepted,
                    _ = connections.join_next(), if !connections.is_empty() => continue,
                    _ = stopped.changed() => break,
                };
                // A client that went away before it was accepted is no concern of the origin.
                let Ok((tcp, _)) = accepted else { continue };
                let _ = tcp.set_nodelay(true);
                let number = server.tally().connections.fetch_add(1, Ordering::SeqCst) + 1;
                server.tally().open.fetch_add(1, Ordering::SeqCst);
                let open = Open(Arc::clone(&server));
                let tls = tls.clone();
                connections.spawn(async move {
                    let stream = match tls {
                        None => Stream::Plain(tcp),
                        Some(acceptor) => match acceptor.accept(tcp).await {
                            Ok(tls) => Stream::Tls(Box::new(TlsStream::Server(tls))),
                            Err(_) => return,
                        },
                    };
                    Arc::clone(&open.0).serve(stream, number).await;
                });
            }
            connections.shutdown().await;
        });
        self.running = Some((stop, task));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.running {
            stop.send_replace(true);
        }
    }
}

/// Rebinding the port must work while old connections linger, and a burst must fit the queue.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}
