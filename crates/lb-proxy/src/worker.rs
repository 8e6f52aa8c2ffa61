//! One data-plane thread and what its connections share: snapshot, pools, buffers, counters.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use lb_core::balance::{Ejection, PassiveTrip, Service as LiveService};
use lb_core::health::Outcome;
use lb_observe::access_log;
use lb_observe::metrics::{Metrics, Shard};
use lb_observe::trace::Tracer;
use slab::Slab;

use crate::buffers::Buffers;
use crate::entrypoint::Connection;
use crate::entrypoint::balancer::Balancer;
use crate::exchange::Exchange;
use crate::http::alias::KnownAliases;
use crate::http::forwarded::Peer;
use crate::http::mirror::Mirrors;
use crate::lasting::Lasting;
use crate::report::Report;
use crate::snapshot::{Internal, Queue, Service, Snapshot};
use crate::upstream::Endpoint;
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::pool::Pools;

/// Exchanges a worker keeps for later, with the buffers of their heads.
const KEEP_EXCHANGES: usize = 256;
/// Idle connections that are closed at a time when descriptors run out. Chosen.
const SHED: usize = 32;
/// For how long after that was asked: woken connections close at once, and later ones are not to. Chosen.
const SHED_WITHIN: Duration = Duration::from_millis(100);

/// A request for one of Vigie's own services.
#[derive(Clone, Debug)]
pub struct InternalRequest {
    pub service: Internal,
    pub method: String,
    pub path: String,
    pub query: String,
    /// `X-Forwarded-Prefix`, which the dashboard's redirect honours.
    pub forwarded_prefix: Option<String>,
    /// The `Authorization` field, if there is exactly one.
    pub authorization: Option<Vec<u8>>,
    /// The client takes gzip.
    pub gzip: bool,
    /// The peer, not what a header claims.
    pub client: std::net::IpAddr,
    /// Of requests to the API; others have none.
    pub body: Vec<u8>,
}

/// What it answers.
#[derive(Clone, Debug)]
pub struct InternalResponse {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Whoever answers for `api@internal` and the like; runs elsewhere, not on the data plane.
pub trait Internals: Send + Sync {
    fn respond(&self, request: InternalRequest) -> Pin<Box<dyn Future<Output = InternalResponse> + Send>>;
}

pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) balancer: Arc<Balancer>,
    snapshot: RefCell<arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) pools: Pools,
    pub(crate) lasting: Lasting,
    pub(crate) mirrors: Mirrors,
    pub(crate) metrics: Metrics,
    pub(crate) shard: Arc<Shard>,
    pub(crate) access_log: Option<access_log::Shard>,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) internals: Arc<dyn Internals>,
    /// Where rules are to see what a host is an alias of.
    pub(crate) aliases: Option<Arc<KnownAliases>>,
    shedding: Arc<AtomicBool>,
    #[expect(clippy::vec_box, reason = "an exchange is handed around while it is used, and 500 bytes large")]
    exchanges: RefCell<Vec<Box<Exchange>>>,
    random: RefCell<fastrand::Rng>,
    watchers: RefCell<Slab<Watcher>>,
    draining: Cell<bool>,
    /// `graceTimeOut` is over.
    over: Cell<bool>,
    /// How many idle connections are to close, and until when.
    shed: Cell<(usize, Instant)>,
    /// Open connections by the grace that their entry points give them: a handful of rows.
    connections: RefCell<Vec<(Duration, usize)>>,
    /// The last time anybody asked what time it is.
    clock: Cell<Instant>,
    date: RefCell<Date>,
    unkept: Report,
}

/// A connection to wake when draining begins.
struct Watcher {
    waker: Waker,
    /// The endpoint whose answer it waits for, or 0: it is also to be woken when a reload removes that.
    endpoint: u64,
}

/// Where a [`Watcher`] is. Small: every idle connection has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(NonZeroU32);

/// The `Date` of answers, formatted once a second.
struct Date {
    text: String,
    until: Instant,
}

impl Worker {
    pub(crate) fn new(
        (index, balancer): (usize, Arc<Balancer>),
        store: &Arc<ArcSwap<Snapshot>>,
        metrics: &Metrics,
        (access_log, tracer): (Option<access_log::Shard>, Option<Tracer>),
        (internals, aliases): (Arc<dyn Internals>, Option<Arc<KnownAliases>>),
        shedding: Arc<AtomicBool>,
    ) -> Self {
        let now = tokio::time::Instant::now().into_std();
        Self {
            index,
            balancer,
            snapshot: RefCell::new(arc_swap::Cache::new(Arc::clone(store))),
            buffers: Rc::default(),
            pools: Pools::default(),
            lasting: Lasting::default(),
            mirrors: Mirrors::default(),
            metrics: metrics.clone(),
            shard: metrics.shard(index),
            access_log,
            tracer,
            internals,
            aliases,
            shedding,
            exchanges: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            watchers: RefCell::default(),
            draining: Cell::new(false),
            over: Cell::new(false),
            shed: Cell::new((0, now)),
            connections: RefCell::default(),
            clock: Cell::new(now),
            date: RefCell::new(Date { text: String::new(), until: now }),
            unkept: Report::default(),
        }
    }

    /// The snapshot in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshot.borrow_mut().load())
    }

    /// The same, for a look that every request takes: without counting the reference.
    pub(crate) fn with_snapshot<R>(&self, look: impl FnOnce(&Snapshot) -> R) -> R {
        look(self.snapshot.borrow_mut().load())
    }

    pub(crate) fn now(&self) -> Instant {
        let now = tokio::time::Instant::now().into_std();
        self.clock.set(now);
        now
    }

    /// The time as of the last [`Worker::now`]: good enough where a request has just asked, and free.
    pub(crate) fn recently(&self) -> Instant {
        self.clock.get()
    }

    pub(crate) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    pub(crate) fn exchange(&self, peer: &Rc<Peer>) -> Box<Exchange> {
        match self.exchanges.borrow_mut().pop() {
            Some(mut exchange) => {
                exchange.reset(peer);
                exchange
            }
            None => Box::new(Exchange::new(Rc::clone(peer), self.now())),
        }
    }

    pub(crate) fn give_exchange(&self, mut exchange: Box<Exchange>) {
        exchange.put_away();
        let mut pool = self.exchanges.borrow_mut();
        if pool.len() < KEEP_EXCHANGES {
            pool.push(exchange);
        }
    }

    /// The `Date` of this second: RFC 9110 section 6.6.1.
    pub(crate) fn with_date<R>(&self, use_it: impl FnOnce(&str) -> R) -> R {
        let now = self.recently();
        let mut date = self.date.borrow_mut();
        if now >= date.until || date.text.is_empty() {
            let wall = SystemTime::now();
            let passed = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            date.text = httpdate::fmt_http_date(wall);
            date.until = now + Duration::from_nanos(1_000_000_000 - u64::from(passed));
        }
        use_it(&date.text)
    }

    pub(crate) fn upstream_failed(&self, service: &Service, endpoint: &Endpoint, failure: Failure) {
        self.metrics.upstream_error(service.label, failure.reason());
        if let Some(requests) = endpoint.failures.count(self.now()) {
            tracing::warn!(serviceName = %service.name, url = %endpoint.url, reason = failure.reason(), requests,
                "server failed a request");
        }
    }

    /// Counts what a client is refused for, or cut off. Whoever sends rubbish without end does not fill the log: what is
    /// not told is there at the level `DEBUG`.
    pub(crate) fn refused(&self, connection: &Connection, reason: &'static str, what: fmt::Arguments<'_>) {
        let Connection { entry, client, .. } = connection;
        self.metrics.refused(entry.label, reason);
        match entry.refused.count(reason, self.now()) {
            Some(times) => {
                tracing::info!(entryPointName = %entry.config.name, %client, reason, times, "{what}");
            }
            None => tracing::debug!(entryPointName = %entry.config.name, %client, reason, "{what}"),
        }
    }

    /// A body finds no room in a temporary file.
    pub(crate) fn cannot_keep(&self, error: &io::Error) {
        if let Some(bodies) = self.unkept.count(self.now()) {
            tracing::error!(%error, bodies, directory = %std::env::temp_dir().display(),
                "bodies cannot be kept in temporary files: requests are answered 500");
        }
    }

    /// Whether the service's budget has another try for this request, after so many; counted and told
    /// either way.
    pub(crate) fn may_retry(&self, service: &Service, tries: u32, reason: &dyn fmt::Display) -> bool {
        let now = self.now();
        let retries = &service.retries;
        if retries.budget.withdraw(&retries.settings, now) {
            self.retried(service, tries, reason);
            return true;
        }
        self.metrics.retry_refused(service.label);
        if let Some(requests) = retries.refused.count(now) {
            tracing::warn!(serviceName = %service.name, requests, %reason,
                "the retry budget is used up: failed requests are not tried again");
        }
        false
    }

    /// The same after a server has failed the request. To refuse it unread was no work for anybody, and costs nothing of
    /// the budget.
    pub(crate) fn may_ask_again(&self, service: &Service, tries: u32, failure: Failure) -> bool {
        if failure.cause == Cause::Refused {
            self.retried(service, tries, &failure.reason());
            return true;
        }
        self.may_retry(service, tries, &failure.reason())
    }

    fn retried(&self, service: &Service, tries: u32, reason: &dyn fmt::Display) {
        self.metrics.retried(service.label);
        tracing::debug!(serviceName = %service.name, attempt = tries + 1, %reason, "request is tried again");
    }

    /// A request finds every server full; `reason` is `full` or `timeout`.
    pub(crate) fn queue_refused(&self, service: &Service, queue: &Queue, reason: &'static str) {
        self.metrics.queue_refused(service.label, reason);
        if let Some(requests) = queue.refused.count(self.now()) {
            tracing::warn!(serviceName = %service.name, requests, reason,
                "every server has its maxConnections: requests are answered 503");
        }
    }

    /// Passes on how a request to a server went, to whatever may take the server out for it.
    pub(crate) fn judge(&self, service: &Service, index: usize, outcome: Outcome, now: Instant) {
        if let Some(trip) = service.live.observe_response(index, outcome.is_failure(), now) {
            tracing::warn!(serviceName = %service.name, url = %service.endpoints[index].url,
                "passive health check takes a server out");
            // As after a failed probe: everybody who needs the service notices, so the default level shows it.
            if !service.live.is_available() {
                tracing::error!(serviceName = %service.name, servers = service.endpoints.len(),
                    "No server of the service is left: its requests are answered 503.");
            }
            self.recover_later(&service.live, index, trip);
        }
        match service.live.observe_outcome(index, outcome, now) {
            Some(Ejection::Begun { reason, lasts }) => {
                self.metrics.ejected(service.label, reason.word());
                tracing::warn!(serviceName = %service.name, targetURL = %service.endpoints[index].url,
                    reason = reason.word(), seconds = lasts.as_secs_f64(), "Server is ejected.");
            }
            Some(Ejection::Overflow) => self.metrics.ejection_overflowed(service.label),
            None => {}
        }
    }

    /// Lets the server of a passive health check back in when its time is over.
    fn recover_later(&self, service: &Arc<LiveService>, index: usize, trip: PassiveTrip) {
        let Some(after) = trip.recover_after else { return };
        let service = Arc::clone(service);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            let was_available = service.is_available();
            if service.passive_recover(index, tokio::time::Instant::now().into_std()).is_none() {
                return;
            }
            let url = service.servers().nth(index).map_or("", |(server, _)| server.url());
            tracing::info!(serviceName = service.name(), url, "passive health check lets a server back in");
            if !was_available && service.is_available() {
                tracing::info!(serviceName = service.name(), "The service has a server again.");
            }
        });
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether memory is short, so that new requests are refused.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding.load(Ordering::Relaxed)
    }

    /// Whether connections are to close at once that have to say so: of QUIC no system tells the client.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// The end of this thread, whatever is under way.
    pub(crate) fn end(&self) {
        self.over.set(true);
        self.drain();
    }

    /// Tells every connection to finish what it does and close.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        for (_, watcher) in self.watchers.borrow().iter() {
            watcher.waker.wake_by_ref();
        }
    }

    /// Notes which endpoint the connection of this slot waits for; 0 is none.
    pub(crate) fn waits_for(&self, Slot(place): Slot, endpoint: u64) {
        if let Some(watcher) = self.watchers.borrow_mut().get_mut(place.get() as usize - 1) {
            watcher.endpoint = endpoint;
        }
    }

    /// Wakes the connections that wait for an endpoint that is no longer there.
    pub(crate) fn wake_left_behind(&self, is_current: impl Fn(u64) -> bool) {
        for (_, watcher) in self.watchers.borrow().iter() {
            if watcher.endpoint != 0 && !is_current(watcher.endpoint) {
                watcher.waker.wake_by_ref();
            }
        }
    }

    /// Closes the idle connections to servers, and asks some of the clients' to close if they are idle.
    pub(crate) fn shed_idle(&self) {
        self.pools.drop_idle();
        self.shed.set((SHED, self.now() + SHED_WITHIN));
        let watchers = self.watchers.borrow();
        // From anywhere: the first could all be busy.
        let skipped = self.random() as usize % watchers.len().max(1);
        for (_, watcher) in watchers.iter().skip(skipped).chain(watchers.iter().take(skipped)).take(SHED) {
            watcher.waker.wake_by_ref();
        }
    }

    /// Whether the idle connection that asks is to close.
    pub(crate) fn sheds_one(&self) -> bool {
        let (left, until) = self.shed.get();
        if left == 0 {
            return false;
        }
        let is_due = self.now() < until;
        self.shed.set((if is_due { left - 1 } else { 0 }, until));
        is_due
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.borrow().iter().map(|(_, count)| count).sum()
    }

    /// Whether a connection is open that has not used up its entry point's `graceTimeOut`.
    pub(crate) fn waits_after(&self, elapsed: Duration) -> bool {
        self.connections.borrow().iter().any(|(grace, count)| *count > 0 && elapsed < *grace)
    }

    /// Counts a connection and lets draining wake it.
    pub(crate) fn watch(self: &Rc<Self>, grace: Duration) -> Watch {
        let mut connections = self.connections.borrow_mut();
        match connections.iter_mut().find(|(known, _)| *known == grace) {
            Some((_, count)) => *count += 1,
            None => connections.push((grace, 1)),
        }
        Watch { worker: Rc::clone(self), slot: None, grace }
    }
}

/// One connection's place among those that draining wakes.
pub(crate) struct Watch {
    worker: Rc<Worker>,
    slot: Option<usize>,
    grace: Duration,
}

impl Watch {
    /// Called from the task to be woken; a task keeps its waker, so the first call is enough.
    pub(crate) fn register(&mut self, waker: &Waker) {
        if self.slot.is_none() {
            let watcher = Watcher { waker: waker.clone(), endpoint: 0 };
            self.slot = Some(self.worker.watchers.borrow_mut().insert(watcher));
        }
    }

    pub(crate) fn slot(&self) -> Option<Slot> {
        u32::try_from(self.slot?).ok()?.checked_add(1).and_then(NonZeroU32::new).map(Slot)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.worker.balancer.leave(self.worker.index);
        let mut connections = self.worker.connections.borrow_mut();
        if let Some((_, count)) = connections.iter_mut().find(|(grace, _)| *grace == self.grace) {
            *count -= 1;
        }
        if let Some(slot) = self.slot {
            self.worker.watchers.borrow_mut().remove(slot);
        }
    }
}
