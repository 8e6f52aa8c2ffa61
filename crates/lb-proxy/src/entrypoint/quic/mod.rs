//! QUIC connections of an entry point with `http3`, beside the TCP ones on the same port.
//!
//! One socket and one quinn endpoint for each entry point, on one worker: it reads datagrams and knows by their
//! connection id, never by the address they come from, which connection they are for. So clients may move to another
//! address, and no worker ever gets another's packets, as several sockets on one port would have it. Everything that
//! costs more than reading belongs to the connection and runs on the worker that the balancer chooses: handshake,
//! encryption, sending, requests.

mod accept;
mod bind;
mod hello;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_config::static_config::{EntryPoint, Http3};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Entry;
use crate::worker::Worker;

pub(crate) use accept::{Arriving, Receiver, serve};

/// Time for the last packets of connections that are closed. Chosen.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The socket beside those of TCP, and what clients are told of it.
///
/// # Errors
/// When the port is not to be had.
pub(crate) fn beside(
    listeners: &[TcpListener],
    config: &EntryPoint,
    http3: Http3,
) -> io::Result<(Option<UdpSocket>, Option<Box<str>>)> {
    let Some(first) = listeners.first() else { return Ok((None, None)) };
    let address = first.local_addr()?;
    let socket = bind::bind(address, config.reuse_port)?;
    // RFC 7838 section 3, word for word as Traefik says it: for thirty days.
    let port = http3.advertised_port.unwrap_or(address.port());
    Ok((Some(socket), Some(format!("h3=\":{port}\"; ma=2592000").into())))
}

/// Which worker receives for which entry point: row by worker. One for each, spread.
///
/// # Errors
/// When the system gives no more descriptors.
pub(crate) fn share_out(
    sockets: &[Option<UdpSocket>],
    workers: usize,
) -> io::Result<Vec<Vec<(usize, UdpSocket)>>> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    let each = sockets.iter().enumerate().filter_map(|(entry, socket)| Some((entry, socket.as_ref()?)));
    for (turn, (entry, socket)) in each.enumerate() {
        shares[turn % workers].push((entry, socket.try_clone()?));
    }
    Ok(shares)
}

/// Begins to receive; `acceptors` has who is to be told to stop.
pub(crate) fn start(
    worker: &Rc<Worker>,
    entries: &[Arc<Entry>],
    sockets: Vec<(usize, UdpSocket)>,
    acceptors: &mut Vec<(Rc<Notify>, JoinHandle<()>)>,
) -> Vec<Rc<Receiver>> {
    let mut receivers = Vec::new();
    for (entry, socket) in sockets {
        match Receiver::new(worker, Arc::clone(&entries[entry]), socket) {
            Ok(receiver) => {
                let (receiver, stop) = (Rc::new(receiver), Rc::new(Notify::new()));
                let accept = accept::accept(Rc::clone(worker), Rc::clone(&receiver), Rc::clone(&stop));
                acceptors.push((stop, tokio::task::spawn_local(accept)));
                receivers.push(receiver);
            }
            Err(error) => {
                let name = &entries[entry].config.name;
                tracing::error!(entryPointName = %name, %error, "the socket for HTTP/3 cannot be used");
            }
        }
    }
    receivers
}

/// Tells the clients of what is left that it ends.
pub(crate) async fn end(receivers: &[Rc<Receiver>]) {
    if receivers.is_empty() {
        return;
    }
    receivers.iter().for_each(|receiver| receiver.close());
    tokio::time::sleep(LAST_WORDS).await;
}
