//! Listening sockets: each worker has its own on the same address, the kernel spreads connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::balancer::{Arrival, Carrier};
use super::descriptors::{Allowance, is_shortage};
use super::{Entry, greet, quic};
use crate::worker::Worker;

/// Connections the kernel keeps for us; it caps the number at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Connections that are taken from a queue at a time while stopping, before others get their turn. Chosen.
const DRAIN_BATCH: i32 = 64;
/// Pause when no descriptor is left: the connections in service give some back, and idle ones are closed.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);
/// How often that is said.
const SHORTAGE_REPORT: Duration = Duration::from_secs(1);
/// A silent client is asked after this time, then at this interval, whether it is still there: a tunnel
/// or a waiting request would otherwise outlive the loss of its client for ever. Chosen; Traefik has 3 minutes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// A client that reads nothing for less than this may be out of reach for a moment, however short `idleTimeout` is.
/// As nginx's `send_timeout`.
const LEAST_STALL: Duration = Duration::from_secs(60);

/// Binds one socket per worker. The first without `SO_REUSEPORT`, so that a second Vigie on the same
/// address is told so instead of taking half of the traffic, unless `reuse_port` asks for just that.
///
/// A client that takes none of what waits for it is cut off after `idle_timeout`.
///
/// # Errors
/// Whatever the system says about the address.
pub(crate) fn bind(
    address: SocketAddr,
    reuse_port: bool,
    workers: usize,
    idle_timeout: Option<Duration>,
) -> io::Result<Vec<TcpListener>> {
    if !reuse_port {
        drop(open(address, false)?);
    }
    let stalled = stalled(idle_timeout);
    let first = listen(open(address, true)?, stalled)?;
    let mut listeners = vec![first];
    add_until(workers, &mut listeners, stalled)?;
    Ok(listeners)
}

/// Goes on with sockets that are bound already, all of them: connections may wait in the queue of each, and
/// closing one resets those. More workers than sockets get new ones where the system allows it; else they
/// share, as [`share_out`] does.
///
/// # Errors
/// When one of them is no listening socket.
pub(crate) fn adopt(
    sockets: Vec<TcpListener>,
    workers: usize,
    idle_timeout: Option<Duration>,
) -> io::Result<Vec<TcpListener>> {
    let stalled = stalled(idle_timeout);
    let adopted = sockets.into_iter().map(|socket| {
        let socket = Socket::from(socket);
        if !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the inherited socket does not listen"));
        }
        socket.set_tcp_nodelay(true)?;
        listen(socket, stalled)
    });
    let mut listeners = adopted.collect::<io::Result<Vec<_>>>()?;
    if let Err(error) = add_until(workers, &mut listeners, stalled) {
        tracing::debug!(%error, "workers share the sockets that there are");
    }
    Ok(listeners)
}

/// Binds more sockets to the address of the first until there is one per worker.
fn add_until(workers: usize, listeners: &mut Vec<TcpListener>, stalled: Option<Duration>) -> io::Result<()> {
    let Some(first) = listeners.first() else { return Ok(()) };
    // Port 0 asks for any free port: all workers must then share the one that was given.
    let address = first.local_addr()?;
    while listeners.len() < workers {
        listeners.push(listen(open(address, true)?, stalled)?);
    }
    Ok(())
}

/// Who accepts from which socket: row by worker, with the entry point's index. Every socket has a worker, every
/// worker a socket of each entry point; one of its own where there are as many.
pub(crate) fn share_out(
    entry_points: &[Vec<TcpListener>],
    workers: usize,
) -> io::Result<Vec<Vec<(usize, TcpListener)>>> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for (entry, sockets) in entry_points.iter().enumerate() {
        for turn in 0..workers.max(sockets.len()) {
            shares[turn % workers].push((entry, sockets[turn % sockets.len()].try_clone()?));
        }
    }
    Ok(shares)
}

fn stalled(idle_timeout: Option<Duration>) -> Option<Duration> {
    idle_timeout.map(|timeout| timeout.max(LEAST_STALL))
}

fn open(address: SocketAddr, share: bool) -> io::Result<Socket> {
    match open_exactly(address, share) {
        // `:80` means every address; a machine without IPv6 has only those of IPv4.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && is_no_ipv6(&error) => {
            open_exactly(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), share)
        }
        result => result,
    }
}

pub(crate) fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(97) // EAFNOSUPPORT
}

fn open_exactly(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // One socket for both families, as Go listens.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it: without it small answers would wait for acknowledgements (Nagle).
    socket.set_tcp_nodelay(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepted connections inherit what is set here, without a system call each.
fn listen(socket: Socket, stalled: Option<Duration>) -> io::Result<TcpListener> {
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    // Unlike any timer of ours it knows what the client acknowledges, and costs nothing (tcp(7)).
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(stalled)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until told to stop, then takes what the kernel has already accepted for us.
pub(crate) async fn accept(
    worker: Rc<Worker>,
    entry: Arc<Entry>,
    listener: tokio::net::TcpListener,
    stop: Rc<tokio::sync::Notify>,
) {
    let stopped = stop.notified();
    tokio::pin!(stopped);
    let allowance = Allowance::of_process();
    let mut reported: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            // First: a flood of clients must not put off the end.
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        let short = match accepted {
            Ok((tcp, peer)) => {
                let short = allowance.ends_with(&tcp);
                match worker.balancer.place(worker.index, entry.index, tcp, peer) {
                    Some(tcp) => welcome(&worker, &entry, tcp, peer),
                    None => worker.metrics.handed_over(),
                }
                short
            }
            Err(error) => {
                let short = is_shortage(&error);
                if !short {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                short
            }
        };
        if short {
            worker.metrics.refused(entry.label, "no_descriptor");
            if reported.is_none_or(|at| at.elapsed() >= SHORTAGE_REPORT) {
                reported = Some(Instant::now());
                tracing::error!(entryPointName = %entry.config.name,
                    "no file descriptors left for clients: closing idle connections, accepting none for now");
            }
            tokio::select! {
                () = relief(&worker, allowance) => {}
                () = &mut stopped => break,
            }
        }
    }
    if let Ok(listener) = listener.into_std() {
        empty(&listener, |tcp, peer| {
            worker.balancer.enter(worker.index);
            welcome(&worker, &entry, tcp, peer);
        })
        .await;
    }
}

/// Serves what other workers hand over. Told to stop, it takes what is on its way; from then on they keep theirs.
pub(crate) async fn receive(
    worker: Rc<Worker>,
    entries: Vec<Arc<Entry>>,
    mut inbox: UnboundedReceiver<Arrival>,
    stop: Rc<tokio::sync::Notify>,
) {
    let stopped = stop.notified();
    tokio::pin!(stopped);
    loop {
        let arrival = tokio::select! {
            biased;
            () = &mut stopped => break,
            arrival = inbox.recv() => arrival,
        };
        let Some(arrival) = arrival else { return };
        receive_one(&worker, &entries, arrival);
    }
    inbox.close();
    while let Some(arrival) = inbox.recv().await {
        receive_one(&worker, &entries, arrival);
    }
}

fn receive_one(worker: &Rc<Worker>, entries: &[Arc<Entry>], Arrival { entry, carrier }: Arrival) {
    let (tcp, peer) = match carrier {
        Carrier::Tcp(tcp, peer) => (tcp, peer),
        Carrier::Quic(arriving) => {
            let watch = worker.watch(entries[entry].config.grace_timeout);
            tokio::task::spawn_local(quic::serve(Rc::clone(worker), *arriving, watch));
            return;
        }
        Carrier::Shortage => return worker.shed_idle(),
    };
    match TcpStream::from_std(tcp) {
        Ok(tcp) => welcome(worker, &entries[entry], tcp, peer),
        Err(error) => {
            tracing::debug!(%error, "a connection ended before it was served");
            worker.balancer.leave(worker.index);
        }
    }
}

/// Takes what waits in the queue of a socket: closing it would reset those connections. The event loop may not know
/// of them yet, so the system is asked; for no more than a queue holds, or a flood would never let us go.
async fn empty(listener: &TcpListener, mut welcome: impl FnMut(TcpStream, SocketAddr)) {
    for taken in 1..=BACKLOG {
        match listener.accept() {
            Ok((tcp, peer)) => {
                if let Ok(tcp) = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) {
                    welcome(tcp, peer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_shortage(&error) => break,
            Err(_) => {}
        }
        if taken % DRAIN_BATCH == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Counts the connection from here on, so that draining waits for it, and serves it. The balancer knows of it already.
fn welcome(worker: &Rc<Worker>, entry: &Arc<Entry>, tcp: TcpStream, peer: SocketAddr) {
    let watch = worker.watch(entry.config.grace_timeout);
    tokio::task::spawn_local(greet::serve(Rc::clone(worker), Arc::clone(entry), tcp, peer, watch));
}

/// Closes idle connections until clients may have descriptors again. Those who knock meanwhile wait in the queue.
async fn relief(worker: &Worker, allowance: Allowance) {
    loop {
        worker.shed_idle();
        worker.balancer.tell_of_shortage(worker.index);
        tokio::time::sleep(SHORTAGE_PAUSE).await;
        if !allowance.is_spent() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;

    /// Everybody who knocked before another number of workers took over is let in.
    #[test]
    fn adopted_sockets_keep_their_queues() {
        for (before, after) in [(3, 1), (3, 2), (3, 3), (2, 7), (1, 4)] {
            let old = bind("127.0.0.1:0".parse().unwrap(), false, before, None).unwrap();
            let address = old[0].local_addr().unwrap();
            let clients: Vec<_> = (0..40).map(|_| Client::connect(address).unwrap()).collect();
            let handed_over = old.iter().map(|socket| socket.try_clone().unwrap()).collect();
            let new = vec![adopt(handed_over, after, None).unwrap()];
            drop(old);
            let shares = share_out(&new, after).unwrap();
            drop(new);
            assert_eq!(shares.len(), after);
            let mut accepted = Vec::new();
            for share in &shares {
                assert!(!share.is_empty(), "a worker without a socket");
                for (entry, socket) in share {
                    assert_eq!(*entry, 0);
                    accepted.extend(std::iter::from_fn(|| socket.accept().ok()).map(|(_, peer)| peer));
                }
            }
            accepted.sort();
            let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
            expected.sort();
            assert_eq!(accepted, expected, "from {before} to {after}");
        }
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = Client::connect(listener.local_addr().unwrap()).unwrap();
        let disguised = TcpListener::from(std::os::fd::OwnedFd::from(connected));
        assert_eq!(adopt(vec![disguised], 1, None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    /// A socket that may not be bound again is shared.
    #[test]
    fn a_single_socket_serves_all_workers() {
        let single = TcpListener::bind("127.0.0.1:0").unwrap();
        let adopted = adopt(vec![single], 3, None).unwrap();
        assert_eq!(adopted.len(), 1);
        assert!(share_out(&[adopted], 3).unwrap().iter().all(|share| share.len() == 1));
    }

    /// However many wait, and before the event loop has looked.
    #[tokio::test]
    async fn everybody_in_the_queue_is_let_in() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), false, 1, None).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let waiting: Vec<_> = (0..300).map(|_| Client::connect(address).unwrap()).collect();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap().into_std().unwrap();
        let mut welcomed = Vec::new();
        empty(&listener, |tcp, _| welcomed.push(tcp)).await;
        assert_eq!(welcomed.len(), waiting.len());
    }

    /// For each that is let in another one knocks.
    #[tokio::test]
    async fn a_flood_does_not_delay_the_end() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), false, 1, None).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let knock = || drop(Client::connect(address).unwrap());
        knock();
        let mut welcomed = 0;
        empty(&listener, |_, _| {
            welcomed += 1;
            assert!(welcomed <= BACKLOG, "there is no end to it");
            knock();
        })
        .await;
        assert_eq!(welcomed, BACKLOG);
    }
}
