//! Which worker serves a new connection.
//!
//! The kernel spreads connections over the listening sockets by a hash, which knows no load, and a socket that is
//! shared goes to whoever is awake. A worker with clearly more open connections than another hands the next one on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::quic::Arriving;

/// A connection on its way to another worker. They are bounded as open connections are: each holds a descriptor, or a
/// place in quinn's memory.
pub(crate) struct Arrival {
    /// Index of its entry point.
    pub(crate) entry: usize,
    pub(crate) carrier: Carrier,
}

pub(crate) enum Carrier {
    Tcp(std::net::TcpStream, SocketAddr),
    Quic(Box<Arriving>),
    /// Nobody: another worker is out of descriptors, which idle connections of this one may have.
    Shortage,
}

/// What all workers of a proxy share.
pub(crate) struct Balancer {
    members: Box<[Member]>,
}

/// On a cache line of its own: each is written by one worker, mostly.
#[repr(align(128))]
struct Member {
    /// Open connections, those on their way included.
    open: AtomicUsize,
    inbox: UnboundedSender<Arrival>,
}

impl Balancer {
    /// With the inbox of each worker.
    pub(crate) fn new(workers: usize) -> (Arc<Self>, Vec<UnboundedReceiver<Arrival>>) {
        let (members, inboxes) = (0..workers)
            .map(|_| {
                let (inbox, receiver) = unbounded_channel();
                (Member { open: AtomicUsize::new(0), inbox }, receiver)
            })
            .unzip::<_, _, Vec<_>, _>();
        (Arc::new(Self { members: members.into() }), inboxes)
    }

    /// Counts a connection that worker `own` has accepted, and hands it on where another has clearly fewer. Gives it
    /// back if it is to stay; `None`: it is another's, or has just ended.
    pub(crate) fn place(
        &self,
        own: usize,
        entry: usize,
        tcp: TcpStream,
        peer: SocketAddr,
    ) -> Option<TcpStream> {
        let chosen = self.choose(own);
        self.enter(chosen);
        if chosen == own {
            return Some(tcp);
        }
        // Out of one event queue and into another: two system calls, which is why a small difference is left alone.
        let Ok(tcp) = tcp.into_std() else {
            self.leave(chosen);
            return None;
        };
        match self.send(own, chosen, Arrival { entry, carrier: Carrier::Tcp(tcp, peer) })?.carrier {
            Carrier::Tcp(tcp, _) => TcpStream::from_std(tcp).inspect_err(|_| self.leave(own)).ok(),
            Carrier::Quic(_) | Carrier::Shortage => None,
        }
    }

    /// The same for a connection of QUIC.
    pub(crate) fn place_quic(&self, own: usize, entry: usize, quic: Arriving) -> Option<Arriving> {
        let chosen = self.choose(own);
        self.enter(chosen);
        if chosen == own {
            return Some(quic);
        }
        match self.send(own, chosen, Arrival { entry, carrier: Carrier::Quic(Box::new(quic)) })?.carrier {
            Carrier::Quic(quic) => Some(*quic),
            Carrier::Tcp(..) | Carrier::Shortage => None,
        }
    }

    /// Hands over what worker `chosen` counts already; given back, it is counted for `own`.
    fn send(&self, own: usize, chosen: usize, arrival: Arrival) -> Option<Arrival> {
        let refused = self.members[chosen].inbox.send(arrival).err()?;
        // That worker takes no more: it is stopping.
        self.leave(chosen);
        self.enter(own);
        Some(refused.0)
    }

    /// Tells the workers but `own` that descriptors are short.
    pub(crate) fn tell_of_shortage(&self, own: usize) {
        for (worker, member) in self.members.iter().enumerate() {
            if worker != own {
                // Who is stopping closes its connections anyway.
                let _ = member.inbox.send(Arrival { entry: 0, carrier: Carrier::Shortage });
            }
        }
    }

    /// Counts a connection of this worker.
    pub(crate) fn enter(&self, worker: usize) {
        self.members[worker].open.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of this worker has ended.
    pub(crate) fn leave(&self, worker: usize) {
        self.members[worker].open.fetch_sub(1, Ordering::Relaxed);
    }

    fn choose(&self, own: usize) -> usize {
        let open = |worker: usize| self.members[worker].open.load(Ordering::Relaxed);
        let least = (0..self.members.len()).min_by_key(|&worker| open(worker)).unwrap_or(own);
        if open(own) > open(least) + slack(open(least)) { least } else { own }
    }
}

/// How many connections more than the least loaded worker are left alone: an eighth, and two. Chosen.
fn slack(least: usize) -> usize {
    least / 8 + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connection() -> (TcpStream, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().await.unwrap()
    }

    fn open(balancer: &Balancer) -> Vec<usize> {
        balancer.members.iter().map(|member| member.open.load(Ordering::Relaxed)).collect()
    }

    /// Whoever accepts.
    #[tokio::test]
    async fn nobody_has_clearly_more_than_another() {
        for accepting in [[0, 0, 0], [0, 1, 1], [2, 0, 2]] {
            let (balancer, mut inboxes) = Balancer::new(3);
            let mut kept = 0;
            for turn in 0..60 {
                let (tcp, peer) = connection().await;
                kept += usize::from(balancer.place(accepting[turn % 3], 7, tcp, peer).is_some());
            }
            let counts = open(&balancer);
            let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            assert!(*most <= least + slack(*least) + 1, "{counts:?}");
            assert_eq!(counts.iter().sum::<usize>(), 60);
            let handed_over: usize =
                inboxes.iter_mut().map(|inbox| std::iter::from_fn(|| inbox.try_recv().ok()).count()).sum();
            assert_eq!(kept + handed_over, 60);
            assert!(handed_over > 0);
        }
    }

    #[tokio::test]
    async fn who_stops_is_handed_nothing() {
        let (balancer, mut inboxes) = Balancer::new(2);
        inboxes[1].close();
        for _ in 0..20 {
            let (tcp, peer) = connection().await;
            assert!(balancer.place(0, 0, tcp, peer).is_some());
        }
        assert_eq!(open(&balancer), [20, 0]);
    }

    #[tokio::test]
    async fn a_single_worker_keeps_all() {
        let (balancer, _inboxes) = Balancer::new(1);
        for _ in 0..20 {
            let (tcp, peer) = connection().await;
            assert!(balancer.place(0, 0, tcp, peer).is_some());
        }
        balancer.leave(0);
        assert_eq!(open(&balancer), [19]);
    }
}
