//! The socket as quinn sees it, and how two processes share it while one follows the other.
//!
//! After an [upgrade](super::Datagrams) the new process alone reads the port. A connection id begins with a tag of the
//! process that has given it: what is for a process before goes to it through a pipe, whoever sends it from wherever. Each
//! process sends by itself. A pipe that is full loses packets, as networks do, and QUIC sends them again.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, UdpPoller};
use quinn_proto::InvalidCid;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;

/// A tag, and enough behind it that nobody guesses an id.
const ID: usize = TAG + 8;
const TAG: usize = 4;
/// What stands before a packet in a pipe: flags, source with port and scope, destination.
const ENVELOPE: usize = 1 + 16 + 2 + 4 + 16;
const IS_IPV4: u8 = 1 << 2;
const HAS_DESTINATION: u8 = 1 << 3;
const DESTINATION_IS_IPV4: u8 = 1 << 4;
/// The largest packet of UDP.
const PACKET: usize = 1 << 16;

pub(super) struct Socket {
    port: Arc<dyn AsyncUdpSocket>,
    elder: Option<Elder>,
    state: Mutex<State>,
}

/// The process before this one.
pub(super) struct Elder {
    pub(super) pipe: OwnedFd,
    /// Its tag, and those of processes before it that it may still serve.
    pub(super) tags: Vec<u32>,
}

struct State {
    /// Pipes to processes that are to follow.
    heirs: UnboundedReceiver<OwnedFd>,
    heir: Option<UnixStream>,
    /// The heir has begun to read.
    heir_reads: bool,
    /// The heir reads the port.
    left: bool,
    /// This process is to end.
    ending: bool,
}

impl State {
    fn new(heirs: UnboundedReceiver<OwnedFd>) -> Self {
        Self { heirs, heir: None, heir_reads: false, left: false, ending: false }
    }
}

impl Socket {
    pub(super) fn new(
        port: Arc<dyn AsyncUdpSocket>,
        elder: Option<Elder>,
        heirs: UnboundedReceiver<OwnedFd>,
    ) -> Self {
        if let Some(elder) = &elder {
            // A word that is no packet: from here on this process reads.
            let _ = rustix::net::send(&elder.pipe, b"!", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        Self { port, elder, state: Mutex::new(State::new(heirs)) }
    }
}

impl Socket {
    /// This process is to end. If there is one that follows the port is its own: what comes before it reads waits in the
    /// kernel, as connections of TCP do.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        while let Ok(pipe) = state.heirs.try_recv() {
            state.follow(pipe);
        }
        state.left |= state.heir.is_some();
        state.ending = true;
    }

    /// Whether another process reads the port.
    pub(super) fn is_followed(&self) -> bool {
        self.state.lock().left
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.port).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.port.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        while let Poll::Ready(Some(pipe)) = state.heirs.poll_recv(cx) {
            state.follow(pipe);
        }
        let received = state.poll_heir(cx, bufs, meta);
        let left = state.left;
        drop(state);
        if received > 0 {
            self.pass_on(bufs, &mut meta[..received]);
            return Poll::Ready(Ok(received));
        }
        if left {
            return Poll::Pending;
        }
        self.port.poll_recv(cx, bufs, meta).map_ok(|count| {
            self.pass_on(bufs, &mut meta[..count]);
            count
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.port.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.port.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.port.may_fragment()
    }
}

impl State {
    fn follow(&mut self, pipe: OwnedFd) {
        // Readiness is all that is asked of tokio: its type for streams has that for any socket of Unix.
        self.heir = UnixStream::from_std(pipe.into()).ok();
        (self.left, self.heir_reads) = (false, false);
    }

    /// Takes what the heir passes on; returns how many packets that are.
    fn poll_heir(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> usize {
        let mut received = 0;
        let mut envelope = vec![0; if self.heir.is_some() { ENVELOPE + PACKET } else { 0 }];
        while let Some(heir) = &self.heir
            && received < bufs.len().min(meta.len())
            && let Poll::Ready(ready) = heir.poll_read_ready(cx)
        {
            let read = ready.and_then(|()| heir.try_io(Interest::READABLE, || receive(heir, &mut envelope)));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1) => (self.left, self.heir_reads) = (true, true),
                Ok(length @ 1..) => {
                    if let Some(told) = open(&envelope[..length], &mut bufs[received]) {
                        meta[received] = told;
                        received += 1;
                    }
                }
                // It is gone: if it read, this process does so again. Not at its own end: that one has been followed in
                // turn, and what comes is for the process that reads by now.
                Ok(0) | Err(_) => (self.heir, self.left) = (None, self.ending && self.heir_reads),
            }
        }
        received
    }
}

fn receive(pipe: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(pipe, buffer, RecvFlags::DONTWAIT)?.0)
}

impl Socket {
    /// Takes out of what was received what is for processes before this one, and gives it to them.
    fn pass_on(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) {
        let Some(elder) = &self.elder else { return };
        for (buffer, meta) in bufs.iter_mut().zip(metas) {
            let stride = meta.stride.max(1);
            let mut kept = 0;
            // One read may bring several packets of one sender, of which the last may be shorter.
            for at in (0..meta.len).step_by(stride) {
                let end = meta.len.min(at + stride);
                if tag(&buffer[at..end]).is_some_and(|tag| elder.tags.contains(&tag)) {
                    let sealed = seal(meta, &buffer[at..end]);
                    let _ =
                        rustix::net::send(&elder.pipe, &sealed, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                } else {
                    buffer.copy_within(at..end, kept);
                    kept += end - at;
                }
            }
            meta.len = kept;
        }
    }
}

/// The tag of the connection that a packet is for: RFC 9000 section 17, RFC 8999. `None` if its id is none of ours.
fn tag(packet: &[u8]) -> Option<u32> {
    let id = match packet.first()? & 0x80 {
        0 => packet.get(1..=ID)?,
        _ if usize::from(*packet.get(5)?) == ID => packet.get(6..6 + ID)?,
        _ => return None,
    };
    id.first_chunk::<TAG>().map(|tag| u32::from_be_bytes(*tag))
}

fn seal(meta: &RecvMeta, packet: &[u8]) -> Vec<u8> {
    let ecn = meta.ecn.map_or(0, |ecn| ecn as u8);
    let scope = if let SocketAddr::V6(address) = meta.addr { address.scope_id() } else { 0 };
    let mut flags = ecn;
    flags |= if meta.addr.is_ipv4() { IS_IPV4 } else { 0 };
    flags |= meta.dst_ip.map_or(0, |ip| HAS_DESTINATION | if ip.is_ipv4() { DESTINATION_IS_IPV4 } else { 0 });
    let mut sealed = Vec::with_capacity(ENVELOPE + packet.len());
    sealed.push(flags);
    sealed.extend_from_slice(&octets(meta.addr.ip()));
    sealed.extend_from_slice(&meta.addr.port().to_be_bytes());
    sealed.extend_from_slice(&scope.to_be_bytes());
    sealed.extend_from_slice(&octets(meta.dst_ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into())));
    sealed.extend_from_slice(packet);
    sealed
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Into a buffer of quinn's. `None`: it is no packet, or too large for that.
fn open(sealed: &[u8], buffer: &mut [u8]) -> Option<RecvMeta> {
    let (envelope, packet) = sealed.split_at_checked(ENVELOPE)?;
    let (&flags, rest) = envelope.split_first()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (scope, rest) = rest.split_first_chunk::<4>()?;
    let (destination, _) = rest.split_first_chunk::<16>()?;
    let ip = |octets: &[u8; 16], is_ipv4| {
        let ip = Ipv6Addr::from(*octets);
        if is_ipv4 { ip.to_canonical() } else { ip.into() }
    };
    let mut addr = SocketAddr::new(ip(source, flags & IS_IPV4 != 0), u16::from_be_bytes(*port));
    if let SocketAddr::V6(address) = &mut addr {
        address.set_scope_id(u32::from_be_bytes(*scope));
    }
    buffer.get_mut(..packet.len())?.copy_from_slice(packet);
    let dst_ip = (flags & HAS_DESTINATION != 0).then(|| ip(destination, flags & DESTINATION_IS_IPV4 != 0));
    let ecn = EcnCodepoint::from_bits(flags & 3);
    Some(RecvMeta { addr, len: packet.len(), stride: packet.len(), ecn, dst_ip })
}

/// Two ends of a pipe that keeps packets apart.
///
/// # Errors
/// When the system gives no more descriptors.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&ours, &theirs] {
        // As much as the port has, if the system allows it.
        let _ = socket2::SockRef::from(&end.as_fd()).set_send_buffer_size(super::bind::BUFFER);
    }
    Ok((ours, theirs))
}

/// Gives ids that say whose they are.
pub(super) struct Ids(pub(super) u32);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        id[..TAG].copy_from_slice(&self.0.to_be_bytes());
        if aws_lc_rs::rand::fill(&mut id[TAG..]).is_err() {
            // It never fails on Linux; an id that is guessed costs no more than a packet looked at in vain.
            id[TAG..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
        }
        ConnectionId::new(&id)
    }

    /// Others get no stateless reset (RFC 9000 section 10.3): its token would not be the one that their client knows.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if id.starts_with(&self.0.to_be_bytes()) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_pass_the_pipe_with_all_that_is_known_of_them() {
        let (ours, theirs) = pipe().unwrap();
        for (addr, dst_ip, ecn) in [
            ("192.0.2.1:443", Some("192.0.2.2"), Some(EcnCodepoint::Ect0)),
            ("[::ffff:192.0.2.1]:443", Some("::ffff:192.0.2.2"), Some(EcnCodepoint::Ce)),
            ("[fe80::1%7]:1", None, None),
        ] {
            let (addr, dst_ip) = (addr.parse().unwrap(), dst_ip.map(|ip| ip.parse().unwrap()));
            let meta = RecvMeta { addr, len: 6, stride: 6, ecn, dst_ip };
            rustix::net::send(&ours, &seal(&meta, b"packet"), SendFlags::empty()).unwrap();
            let (mut sealed, mut buffer) = ([0; 1000], [0; 10]);
            let length = receive(&theirs, &mut sealed).unwrap();
            let opened = open(&sealed[..length], &mut buffer).unwrap();
            assert_eq!((opened.addr, opened.dst_ip, opened.ecn), (meta.addr, meta.dst_ip, meta.ecn));
            assert_eq!(&buffer[..opened.len], b"packet");
            assert!(open(&sealed[..length], &mut [0; 5]).is_none());
        }
    }

    /// Two upgrades, of which the second process ends before the first.
    #[tokio::test]
    async fn the_port_is_read_again_only_by_who_goes_on() {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        for (begins, ends, left) in
            [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
        {
            let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, port).unwrap();
            let (heirs, inbox) = tokio::sync::mpsc::unbounded_channel();
            let socket = Socket::new(port, None, inbox);
            let (ours, theirs) = pipe().unwrap();
            heirs.send(ours).unwrap();
            if begins {
                rustix::net::send(&theirs, b"!", SendFlags::empty()).unwrap();
            }
            if ends {
                socket.leave();
            }
            drop(theirs);
            let mut gone = async || {
                let _ =
                    socket.poll_recv(cx, &mut [IoSliceMut::new(&mut [0; 1500])], &mut [RecvMeta::default()]);
                tokio::task::yield_now().await;
                socket.state.lock().heir.is_none()
            };
            while !gone().await {}
            assert_eq!(socket.is_followed(), left, "{begins} {ends}");
        }
    }

    #[test]
    fn an_id_says_whose_it_is() {
        let mut ids = Ids(0x0102_0304);
        let (one, other) = (ids.generate_cid(), ids.generate_cid());
        assert_ne!(one, other);
        assert!(ids.validate(&one).is_ok() && Ids(0x0102_0305).validate(&one).is_err());
        let short = [&[0x40][..], &one, b"rest"].concat();
        assert_eq!(tag(&short), Some(0x0102_0304));
        let long = [&[0xe0, 0, 0, 0, 1, ID as u8][..], &one, b"rest"].concat();
        assert_eq!(tag(&long), Some(0x0102_0304));
        // Of the client's choosing.
        let initial = [&[0xc0, 0, 0, 0, 1, 8][..], &one[..8], b"rest"].concat();
        assert_eq!(tag(&initial), None);
        assert_eq!(tag(b""), None);
        assert_eq!(tag(&short[..5]), None);
    }
}
