//! The flows of one socket of an entry point: who talks to which server.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_config::dynamic::UdpServer;
use lb_observe::metrics::UdpCounts;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::entrypoint::Entry;
use crate::entrypoint::descriptors::{Allowance, is_shortage};
use crate::entrypoint::seats::Seat;
use crate::report::Report;
use crate::upstream::addresses;
use crate::worker::Worker;

/// The longest datagram that IP has room for.
const LONGEST: usize = 65_535;
/// Datagrams that are taken from a socket before others get their turn. Chosen.
const BATCH: usize = 64;
/// What a client may send until its server's name has been looked up. Chosen.
const MOST_WAITING: usize = 16;
/// What all clients of a socket may: a look-up takes as long as it takes, and clients can be invented. Chosen.
const MOST_WAITING_BYTES: usize = 1024 * 1024;

/// Flows of an entry point that does not say how many: chosen, a quarter of the descriptors where those are few.
const MOST_FLOWS: u64 = 10_000;

pub(crate) fn most_flows() -> u64 {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    descriptors.map_or(MOST_FLOWS, |descriptors| (descriptors / 4).clamp(1, MOST_FLOWS))
}

/// One worker's socket of an entry point, and its flows.
pub(crate) struct Relay {
    worker: Rc<Worker>,
    entry: Arc<Entry>,
    socket: UdpSocket,
    counts: Arc<UdpCounts>,
    flows: RefCell<HashMap<SocketAddr, Rc<Flow>>>,
    /// Used by one datagram at a time, never across a wait.
    buffer: RefCell<Box<[u8]>>,
    allowance: Allowance,
    /// Bytes that may still wait for look-ups.
    room: Cell<usize>,
    stopping: Cell<bool>,
    /// Another process reads from the socket now.
    handed_over: Arc<AtomicBool>,
    dropped: Report,
}

/// What one client has with one server.
struct Flow {
    client: SocketAddr,
    server: Arc<UdpServer>,
    /// Connected to the server; none while its name is looked up.
    socket: OnceCell<UdpSocket>,
    waiting: RefCell<Vec<Box<[u8]>>>,
    /// When either has said something.
    last: Cell<Instant>,
    /// The server is not there.
    broken: Notify,
    _seat: Option<Seat>,
}

/// Why a datagram goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    NoServer,
    Unreachable,
    Full(&'static str),
    Descriptors,
    Stopping,
    /// Nobody takes it now; to wait would hold up others.
    Congested,
}

impl Lost {
    /// For metrics and logs.
    fn reason(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::Unreachable => "unreachable",
            Self::Full(reason) => reason,
            Self::Descriptors => "no_descriptor",
            Self::Stopping => "stopping",
            Self::Congested => "congested",
        }
    }
}

impl Relay {
    /// Needs the worker's runtime around it.
    ///
    /// # Errors
    /// The event queue does not take the socket.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        entry: Arc<Entry>,
        socket: std::net::UdpSocket,
        handed_over: Arc<AtomicBool>,
    ) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            counts: worker.metrics.udp(entry.label),
            worker: Rc::clone(worker),
            entry,
            socket: UdpSocket::from_std(socket)?,
            flows: RefCell::default(),
            buffer: RefCell::new(vec![0; LONGEST].into()),
            allowance: Allowance::of_process(),
            room: Cell::new(MOST_WAITING_BYTES),
            stopping: Cell::new(false),
            handed_over,
            dropped: Report::default(),
        }))
    }

    /// Takes datagrams of clients until told to stop. Flows that there are go on, their clients as well unless another
    /// process has the socket.
    pub(crate) async fn serve(self: Rc<Self>, stop: Rc<Notify>) {
        tokio::select! {
            biased;
            () = stop.notified() => {}
            () = self.receive() => {}
        }
        self.stopping.set(true);
        if !self.handed_over.load(Ordering::Acquire) {
            tokio::task::spawn_local(async move { self.receive().await });
        }
    }

    /// Whether there are flows that have not used up the entry point's `graceTimeOut`.
    pub(crate) fn waits_after(&self, elapsed: Duration) -> bool {
        elapsed < self.entry.config.grace_timeout && !self.flows.borrow().is_empty()
    }

    async fn receive(self: &Rc<Self>) {
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            self.take_some();
            tokio::task::yield_now().await;
        }
    }

    fn take_some(self: &Rc<Self>) {
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..BATCH {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((length, client)) => self.take(client, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "a datagram of a client cannot be received");
                    return;
                }
            }
        }
    }

    /// A datagram of a client.
    fn take(self: &Rc<Self>, client: SocketAddr, data: &[u8]) {
        self.counts.received(data.len());
        let now = Instant::now();
        let known = self.flows.borrow().get(&client).cloned();
        if let Some(flow) = known {
            flow.last.set(now);
            match flow.send(data, &self.room) {
                Ok(()) => return,
                Err(Lost::Unreachable) => {
                    // Its server has gone away since: another one gets this, as soon as possible.
                    flow.broken.notify_one();
                    self.forget(&flow);
                }
                Err(lost) => return self.lost(lost, now),
            }
        }
        if let Err(lost) = self.begin(client, data, now) {
            self.lost(lost, now);
        }
    }

    /// Begins a flow with its first datagram.
    fn begin(self: &Rc<Self>, client: SocketAddr, data: &[u8], now: Instant) -> Result<(), Lost> {
        if self.stopping.get() {
            return Err(Lost::Stopping);
        }
        let server = self.worker.with_snapshot(|snapshot| snapshot.udp.pick(self.entry.index));
        let server = server.ok_or(Lost::NoServer)?;
        let seat = Seat::take(&self.entry, client.ip().to_canonical());
        let seat = seat.map_err(|full| Lost::Full(full.reason()))?;
        let flow = Rc::new(Flow {
            client,
            server,
            socket: OnceCell::new(),
            waiting: RefCell::default(),
            last: Cell::new(now),
            broken: Notify::new(),
            _seat: seat,
        });
        // An address needs no look-up, so nothing has to wait.
        if let Ok(ip) = flow.server.host.parse::<IpAddr>() {
            flow.connect(SocketAddr::new(ip, flow.server.port), self.allowance)?;
        }
        flow.send(data, &self.room)?;
        self.counts.opened();
        self.flows.borrow_mut().insert(client, Rc::clone(&flow));
        tracing::debug!(%client, server = flow.server.address, entryPointName = self.entry.config.name, "a UDP flow begins");
        tokio::task::spawn_local(Rc::clone(self).run(flow));
        Ok(())
    }

    /// Brings answers back until nobody has said anything for `udp.timeout`, or the server is gone.
    async fn run(self: Rc<Self>, flow: Rc<Flow>) {
        if let Err(lost) = flow.ready(self.allowance, &self.room).await {
            tracing::debug!(server = flow.server.address, reason = lost.reason(), "a UDP flow has no server");
            let waiting = flow.take_waiting(&self.room).len();
            (0..waiting).for_each(|_| self.lost(lost, Instant::now()));
        } else if let Some(socket) = flow.socket.get() {
            let timeout = self.entry.config.udp_timeout;
            let mut idle = std::pin::pin!(tokio::time::sleep_until(flow.last.get() + timeout));
            loop {
                tokio::select! {
                    biased;
                    () = flow.broken.notified() => break,
                    ready = socket.ready(Interest::READABLE | Interest::ERROR) => {
                        let Ok(ready) = ready else { break };
                        if !self.to_client(&flow, socket, ready.is_error()).await {
                            break;
                        }
                        // Others get their turn.
                        tokio::task::yield_now().await;
                    }
                    () = &mut idle => {
                        let end = flow.last.get() + timeout;
                        if end <= Instant::now() {
                            break;
                        }
                        idle.as_mut().reset(end);
                    }
                }
            }
        }
        self.forget(&flow);
        self.counts.closed();
    }

    /// Passes on what the server has said; false: it is not there.
    async fn to_client(&self, flow: &Flow, socket: &UdpSocket, failed: bool) -> bool {
        // That nobody is there (ICMP) is an error without anything to read.
        if failed {
            if let Ok(Some(error)) = socket.take_error() {
                tracing::debug!(%error, server = flow.server.address, "a UDP server cannot be reached");
                self.lost(Lost::Unreachable, Instant::now());
                return false;
            }
            let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        for _ in 0..BATCH {
            let congested = {
                let mut buffer = self.buffer.borrow_mut();
                let length = match socket.try_recv(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    Err(error) => {
                        tracing::debug!(%error, server = flow.server.address, "a UDP server cannot be reached");
                        self.lost(Lost::Unreachable, Instant::now());
                        return false;
                    }
                };
                flow.last.set(Instant::now());
                match rustix::net::sendto(&self.socket, &buffer[..length], SendFlags::empty(), &flow.client) {
                    Ok(_) => {
                        self.counts.sent(length);
                        None
                    }
                    Err(Errno::WOULDBLOCK) => Some(buffer[..length].to_vec()),
                    // The client is not there any more, or takes nothing that long.
                    Err(_) => None,
                }
            };
            if let Some(data) = congested
                && self.socket.send_to(&data, flow.client).await.is_ok()
            {
                self.counts.sent(data.len());
            }
        }
        true
    }

    /// Its client begins anew.
    fn forget(&self, flow: &Rc<Flow>) {
        let mut flows = self.flows.borrow_mut();
        if flows.get(&flow.client).is_some_and(|known| Rc::ptr_eq(known, flow)) {
            flows.remove(&flow.client);
        }
    }

    fn lost(&self, lost: Lost, now: Instant) {
        self.worker.metrics.udp_dropped(self.entry.label, lost.reason());
        if let Some(datagrams) = self.dropped.count(now.into_std()) {
            tracing::warn!(
                entryPointName = self.entry.config.name,
                datagrams,
                reason = lost.reason(),
                "UDP datagrams are dropped"
            );
        }
    }
}

impl Flow {
    /// Sends it to the server, or keeps it until it is known where that is.
    fn send(&self, data: &[u8], room: &Cell<usize>) -> Result<(), Lost> {
        let Some(socket) = self.socket.get() else {
            let mut waiting = self.waiting.borrow_mut();
            let left = room.get().checked_sub(data.len()).filter(|_| waiting.len() < MOST_WAITING);
            room.set(left.ok_or(Lost::Congested)?);
            waiting.push(data.into());
            return Ok(());
        };
        // Not tokio's, which does not know yet that a new socket can be written to.
        match rustix::net::send(socket, data, SendFlags::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(Lost::Congested),
            Err(_) => Err(Lost::Unreachable),
        }
    }

    /// Looks the server up if need be, and sends what has come meanwhile.
    async fn ready(&self, allowance: Allowance, room: &Cell<usize>) -> Result<(), Lost> {
        if self.socket.get().is_some() {
            return Ok(());
        }
        let found = addresses(&self.server.host, self.server.port).await;
        let address = found.ok().and_then(|found| found.first().copied()).ok_or(Lost::Unreachable)?;
        self.connect(address, allowance)?;
        for data in self.take_waiting(room) {
            // One that is lost is not all that is lost.
            let _ = self.send(&data, room);
        }
        Ok(())
    }

    fn take_waiting(&self, room: &Cell<usize>) -> Vec<Box<[u8]>> {
        let waiting = self.waiting.take();
        room.set(room.get() + waiting.iter().map(|data| data.len()).sum::<usize>());
        waiting
    }

    fn connect(&self, address: SocketAddr, allowance: Allowance) -> Result<(), Lost> {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let open = || {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.connect(address)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        match open() {
            Ok(socket) if allowance.ends_with(&socket) => Err(Lost::Descriptors),
            Ok(socket) => {
                let _ = self.socket.set(socket);
                Ok(())
            }
            Err(error) if is_shortage(&error) => Err(Lost::Descriptors),
            Err(_) => Err(Lost::Unreachable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow {
            client: SocketAddr::from(([192, 0, 2, 1], 1)),
            server: Arc::new(UdpServer { address: "a.test:1".into(), host: "a.test".into(), port: 1 }),
            socket: OnceCell::new(),
            waiting: RefCell::default(),
            last: Cell::new(Instant::now()),
            broken: Notify::new(),
            _seat: None,
        }
    }

    /// However many clients there are, and however large what they send is.
    #[test]
    fn what_waits_for_a_look_up_is_bounded() {
        let room = Cell::new(MOST_WAITING_BYTES);
        let large = vec![0; 60_000];
        let flows: Vec<Flow> = (0..100).map(|_| flow()).collect();
        let taken = flows.iter().filter(|flow| flow.send(&large, &room).is_ok()).count();
        assert_eq!(taken, MOST_WAITING_BYTES / large.len());
        assert_eq!(flows[99].send(&large, &room), Err(Lost::Congested));
        assert_eq!(flows.iter().map(|flow| flow.take_waiting(&room).len()).sum::<usize>(), taken);
        assert_eq!(room.get(), MOST_WAITING_BYTES);
        let few = (0..100).filter(|_| flows[0].send(b"x", &room).is_ok()).count();
        assert_eq!(few, MOST_WAITING);
    }
}
