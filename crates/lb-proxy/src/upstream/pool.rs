//! The connections one worker keeps open to servers between requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use lb_config::dynamic::Scheme;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Endpoint;
use super::failure::Failure;
use super::h2::{Place, Shared};
use super::opening::{Openings, Turn};
use super::up::Up;
use crate::http::h1::H1;

/// So long before the server closes an idle connection no request is sent on it any more: one that may not be repeated
/// (RFC 9110 section 9.2.2) would be lost if both met on the way. At most half of the server's time. As Node.js' client
/// has it.
const MARGIN: Duration = Duration::from_secs(1);

/// How often idle connections are looked over: so many times while the one that may idle the least does, but not more
/// often than every [`SHORTEST_PAUSE`]. Chosen: servers see a connection closed a quarter too late at most.
const LOOKS: u32 = 4;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct Pools {
    by_endpoint: RefCell<FxHashMap<u64, Pool>>,
    /// Between two sweeps.
    pause: Cell<Duration>,
    /// Told when the pause gets shorter.
    hurry: Notify,
}

impl Default for Pools {
    fn default() -> Self {
        let pause = Cell::new(LONGEST_PAUSE);
        Self { by_endpoint: RefCell::default(), pause, hurry: Notify::new() }
    }
}

#[derive(Default)]
struct Pool {
    /// Of the server, when it was last looked at.
    outages: u32,
    /// The longest idle first, each with the time until which it may be used: the next one is taken from the end, where
    /// connections are warm.
    idle: Vec<(Box<H1>, Option<Instant>)>,
    /// Of the connections below.
    idle_timeout: Option<Duration>,
    /// HTTP/2 connections; later ones are there because the earlier ones were full.
    shared: Vec<Shared>,
    openings: Rc<Openings>,
    /// It has chosen HTTP/1.1 on the last new connection.
    is_http1: bool,
}

impl Pool {
    /// Lets go of what is from before the server's last outage: its machine may have gone without a word, and a request
    /// would be lost there or wait for as long as TCP hopes. Streams under way keep their connection.
    fn since(&mut self, outages: u32) -> &mut Self {
        if outages > self.outages {
            self.outages = outages;
            self.idle.clear();
            self.shared.clear();
        }
        self
    }
}

/// Until when an idle connection to `endpoint` is used that its server keeps for so long.
pub(super) fn usable_until(lasts: Duration, endpoint: &Endpoint, now: Instant) -> Option<Instant> {
    now.checked_add(usable_for(lasts, endpoint.transport.settings.idle_conn_timeout))
}

/// How long an idle connection is used that its server keeps for so long.
fn usable_for(lasts: Duration, idle_timeout: Option<Duration>) -> Duration {
    let before_its_end = lasts - MARGIN.min(lasts / 2);
    idle_timeout.map_or(before_its_end, |timeout| timeout.min(before_its_end))
}

pub(super) fn is_usable(connection: &H1, until: Option<Instant>, now: Instant) -> bool {
    until.is_none_or(|until| now < until) && connection.is_quiet()
}

/// The same right before a request is sent on it, perhaps one that can be sent only `once`: as of now, where that matters
/// more than the system call.
pub(super) fn takes_request(connection: &H1, until: Option<Instant>, now: Instant, once: bool) -> bool {
    is_usable(connection, until, now) && !((once || connection.may_go_on()) && connection.has_more())
}

impl Pools {
    /// An idle HTTP/1.1 connection that looks alive, from after so many outages of the server.
    pub(crate) fn take(
        &self,
        endpoint: &Endpoint,
        outages: u32,
        now: Instant,
        once: bool,
    ) -> Option<Box<H1>> {
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.get_mut(&endpoint.id)?.since(outages);
        while let Some((connection, until)) = pool.idle.pop() {
            if takes_request(&connection, until, now, once) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a clean connection for later, up to `maxIdleConnsPerHost`, for as long as it `lasts` at most.
    pub(crate) fn give(
        &self,
        endpoint: &Endpoint,
        outages: u32,
        (mut connection, lasts): (Box<H1>, Duration),
        now: Instant,
    ) {
        if endpoint.is_retired() {
            return;
        }
        let Some(most) = endpoint.transport.settings.max_idle_conns_per_host else { return };
        connection.release();
        self.look_within(usable_for(lasts, endpoint.transport.settings.idle_conn_timeout));
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default().since(outages);
        if pool.idle.len() < most {
            pool.idle.push((connection, usable_until(lasts, endpoint, now)));
        }
    }

    /// Something idles that may do so for so long.
    fn look_within(&self, usable: Duration) {
        if usable < self.pause.get() * LOOKS && self.pause.get() > SHORTEST_PAUSE {
            self.pause.set((usable / LOOKS).max(SHORTEST_PAUSE));
            self.hurry.notify_one();
        }
    }

    /// Until the next [`sweep`](Self::sweep).
    pub(crate) fn pause(&self) -> Duration {
        self.pause.get()
    }

    /// The pause has become shorter.
    pub(crate) async fn hurry(&self) {
        self.hurry.notified().await;
    }

    /// A place on a shared HTTP/2 connection that has room.
    pub(crate) fn place(&self, endpoint: &Endpoint, outages: u32) -> Option<Place> {
        let mut pools = self.by_endpoint.borrow_mut();
        let shared = &mut pools.get_mut(&endpoint.id)?.since(outages).shared;
        shared.retain(|shared| !shared.is_closed());
        shared.iter().find_map(Shared::place)
    }

    /// Whether a request opens a connection that others wait for, or waits for one; `None` where each needs its own.
    pub(crate) fn turn(&self, endpoint: &Endpoint, outages: u32) -> Option<Turn> {
        let never_shared = match endpoint.scheme {
            Scheme::Http => true,
            Scheme::H2c => false,
            Scheme::Https => endpoint.transport.settings.disable_http2,
        };
        if never_shared {
            return None;
        }
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default().since(outages);
        // The first connection of all says how many requests one has room for.
        let room = pool.shared.iter().map(Shared::most_streams).max().filter(|most| *most > 0);
        (!pool.is_http1).then(|| pool.openings.turn(outages, room.unwrap_or(usize::MAX)))
    }

    /// What has come of opening a connection, for those that come next.
    pub(crate) fn opened(&self, endpoint: &Endpoint, opened: &Result<Up, Failure>) {
        if let Some(pool) = self.by_endpoint.borrow_mut().get_mut(&endpoint.id)
            && let Ok(up) = opened
        {
            pool.is_http1 = matches!(up, Up::H1(_));
        }
    }

    pub(crate) fn share(&self, endpoint: &Endpoint, outages: u32, shared: Shared) {
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default().since(outages);
        pool.idle_timeout = endpoint.transport.settings.idle_conn_timeout;
        self.look_within(pool.idle_timeout.unwrap_or(Duration::MAX));
        pool.shared.push(shared);
    }

    /// Drops every idle connection: their descriptors are needed elsewhere.
    pub(crate) fn drop_idle(&self) {
        self.by_endpoint.borrow_mut().values_mut().for_each(|pool| {
            pool.idle.clear();
            pool.shared.retain(|shared| !shared.is_idle());
        });
    }

    /// Drops what has idled too long or died, and pools of servers that are gone.
    pub(crate) fn sweep(&self, now: Instant, is_current: impl Fn(u64) -> bool) {
        let mut is_empty = true;
        self.by_endpoint.borrow_mut().retain(|id, pool| {
            if !is_current(*id) {
                return false;
            }
            let timeout = pool.idle_timeout;
            pool.idle.retain(|(connection, until)| is_usable(connection, *until, now));
            pool.shared.retain(|shared| !shared.is_closed() && !shared.has_idled(now, timeout));
            is_empty &= pool.idle.is_empty() && pool.shared.is_empty();
            true
        });
        if is_empty {
            self.pause.set(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    #[test]
    fn what_may_idle_for_a_short_time_is_looked_at_often() {
        let pools = Pools::default();
        // Milliseconds: how long something may idle, and how long is the pause then.
        for (usable, pause) in
            [(90_000, 5_000), (20_000, 5_000), (8_000, 2_000), (60_000, 2_000), (75, 18), (1, 10)]
        {
            pools.look_within(Duration::from_millis(usable));
            assert_eq!(pools.pause().as_millis(), pause, "{usable}");
        }
        pools.sweep(Instant::now(), |_| true);
        assert_eq!(pools.pause(), LONGEST_PAUSE, "nothing idles");
    }

    /// What has come to the system but not to its events.
    #[tokio::test]
    async fn a_request_that_can_be_sent_only_once_goes_where_nothing_waits_unread() {
        use std::io::Write as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut connection = H1::new(Stream::Plain(stream), Rc::default());
        let takes = |connection: &H1, once| takes_request(connection, None, Instant::now(), once);
        assert!(takes(&connection, true));
        server.write_all(b"x").unwrap();
        assert!(takes(&connection, false), "nobody has told of it");
        assert!(!takes(&connection, true));
        // Behind an answer to HEAD it may be the body.
        connection.ends_with_head(true);
        assert!(!takes(&connection, false));
    }

    #[test]
    fn a_connection_is_left_before_its_server_leaves_it() {
        // Milliseconds: what the server says, `idleConnTimeout`, what comes of them.
        for (lasts, idle_timeout, usable) in [
            (5_000, 90_000, 4_000),
            (1_000, 90_000, 500),
            (0, 90_000, 0),
            (100_000, 90_000, 90_000),
            (5_000, 0, 4_000),
        ] {
            let [lasts, timeout, usable] = [lasts, idle_timeout, usable].map(Duration::from_millis);
            assert_eq!(usable_for(lasts, Some(timeout).filter(|timeout| !timeout.is_zero())), usable);
        }
        assert_eq!(usable_for(Duration::MAX, Some(MARGIN)), MARGIN);
    }
}
