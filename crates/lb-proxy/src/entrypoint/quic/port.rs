//! The UDP port of an entry point: bound, or taken over from the process before, and handed on to the one that follows.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use lb_config::static_config::{EntryPoint, Http3};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::bind;
use super::socket::{Elder, pipe};

/// The port for HTTP/3 on its way from one process to the next.
#[derive(Debug)]
pub struct Datagrams {
    pub entry_point: String,
    /// The address of the entry point, port 0 included: another one does not take it over.
    pub configured: SocketAddr,
    /// What connection ids of the process that offers it begin with, and of those before it.
    pub tags: Vec<u32>,
    pub socket: UdpSocket,
    /// Takes packets for them.
    pub pipe: OwnedFd,
}

impl Datagrams {
    fn is_for(&self, entry: &EntryPoint) -> bool {
        self.configured == entry.address && (entry.address.port() != 0 || self.entry_point == entry.name)
    }
}

/// As the proxy keeps it.
pub(crate) struct Port {
    socket: UdpSocket,
    tag: u32,
    /// Of processes before this one.
    elders: Vec<u32>,
    elder: Option<Elder>,
    heirs: UnboundedSender<OwnedFd>,
    inbox: Option<UnboundedReceiver<OwnedFd>>,
}

/// As the worker gets it that is to receive.
pub(crate) struct Beginning {
    pub(super) socket: UdpSocket,
    pub(super) tag: u32,
    pub(super) elder: Option<Elder>,
    pub(super) heirs: UnboundedReceiver<OwnedFd>,
}

/// How many processes before this one may still have connections: more are not passed on to. Chosen.
const MOST_ELDERS: usize = 8;

/// The port beside the sockets of TCP, and what clients are told of it.
///
/// # Errors
/// When the port is not to be had.
pub(crate) fn beside(
    listeners: &[TcpListener],
    config: &EntryPoint,
    http3: Http3,
    inherited: &mut Vec<Datagrams>,
) -> io::Result<(Option<Port>, Option<Box<str>>)> {
    let Some(first) = listeners.first() else { return Ok((None, None)) };
    let address = first.local_addr()?;
    let (socket, elders, elder) = match inherited.extract_if(.., |one| one.is_for(config)).next() {
        Some(Datagrams { mut tags, socket, pipe, .. }) => {
            tags.truncate(MOST_ELDERS);
            (socket, tags.clone(), Some(Elder { pipe, tags }))
        }
        None => (bind::bind(address, config.reuse_port)?, Vec::new(), None),
    };
    let (heirs, inbox) = unbounded_channel();
    // RFC 7838 section 3, word for word as Traefik says it: for thirty days.
    let told = http3.advertised_port.unwrap_or(address.port());
    let alt_svc = format!("h3=\":{told}\"; ma=2592000");
    let port = Port { socket, tag: fastrand::u32(..), elders, elder, heirs, inbox: Some(inbox) };
    Ok((Some(port), Some(alt_svc.into())))
}

impl Port {
    /// What the process that is to follow needs of it.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub(crate) fn hand_on(&self, config: &EntryPoint) -> io::Result<Datagrams> {
        let (ours, theirs) = pipe()?;
        // Nobody takes it where no worker receives: then nobody has connections.
        let _ = self.heirs.send(ours);
        Ok(Datagrams {
            entry_point: config.name.clone(),
            configured: config.address,
            tags: std::iter::once(self.tag).chain(self.elders.iter().copied()).collect(),
            socket: self.socket.try_clone()?,
            pipe: theirs,
        })
    }
}

/// Which worker receives for which entry point: row by worker. One for each, spread.
///
/// # Errors
/// When the system gives no more descriptors.
pub(crate) fn share_out(
    ports: &mut [Option<Port>],
    workers: usize,
) -> io::Result<Vec<Vec<(usize, Beginning)>>> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    let each = ports.iter_mut().enumerate().filter_map(|(entry, port)| Some((entry, port.as_mut()?)));
    for (turn, (entry, port)) in each.enumerate() {
        let Some(heirs) = port.inbox.take() else { continue };
        let socket = port.socket.try_clone()?;
        let beginning = Beginning { socket, tag: port.tag, elder: port.elder.take(), heirs };
        shares[turn % workers].push((entry, beginning));
    }
    Ok(shares)
}
