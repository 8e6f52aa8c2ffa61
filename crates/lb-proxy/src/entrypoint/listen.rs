//! Listening sockets: each worker has its own on the same address, the kernel spreads connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::time::Instant;

use super::descriptors::{Allowance, is_shortage};
use super::{Entry, greet};
use crate::worker::Worker;

/// Connections the kernel keeps for us; it caps the number at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
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
    let stalled = idle_timeout.map(|timeout| timeout.max(LEAST_STALL));
    let open = |address| open(address, true).and_then(|socket| listen(socket, stalled));
    let first = open(address)?;
    // Port 0 asks for any free port: all workers must then share the one that was given.
    let address = SocketAddr::new(address.ip(), first.local_addr()?.port());
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(open(address)?);
    }
    Ok(listeners)
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

fn is_no_ipv6(error: &io::Error) -> bool {
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
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        let short = match accepted {
            Ok((tcp, peer)) => {
                let short = allowance.ends_with(&tcp);
                tokio::task::spawn_local(greet::serve(Rc::clone(&worker), Arc::clone(&entry), tcp, peer));
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
    // Closing the socket would reset connections that wait in its queue.
    while let Some(Ok((tcp, peer))) = futures_now(listener.accept()).await {
        tokio::task::spawn_local(greet::serve(Rc::clone(&worker), Arc::clone(&entry), tcp, peer));
    }
}

/// Closes idle connections until clients may have descriptors again. Those who knock meanwhile wait in the queue.
async fn relief(worker: &Worker, allowance: Allowance) {
    loop {
        worker.shed_idle();
        tokio::time::sleep(SHORTAGE_PAUSE).await;
        if !allowance.is_spent() {
            break;
        }
    }
    worker.keep_idle();
}

/// The result of a future that is ready now.
async fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}
