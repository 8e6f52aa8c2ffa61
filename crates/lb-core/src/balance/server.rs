//! The live state of one server, shared by the services of successive configurations.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Settings;
use super::queue::Queue;
use super::rest::Rest;
use super::standing::Standing;
use super::warmth::Warmth;
use crate::health::{
    self, AdminState, FailureWindow, Health, Memory, PassiveSettings, Probe, Status, Transition,
};
use crate::sticky;

/// Times to the first byte that the mean of [`Server::record_first_byte`] covers (Traefik's number).
const SAMPLES: usize = 100;

/// One server of a service: what is known of it, and what the operator wants of it.
pub struct Server {
    endpoint: Arc<Endpoint>,
    /// Copy of the status in `checks`, to be read without the lock.
    status: AtomicU8,
    /// Whether the failure window may hold something: lets good answers pass without the lock.
    failing: AtomicBool,
    checks: Mutex<Checks>,
    probes: AtomicU64,
    wanted: AtomicBool,
}

/// What stays with a URL for as long as its service lists it, whatever checks its health.
struct Endpoint {
    url: Box<str>,
    cookie: Box<str>,
    lineage: Arc<Lineage>,
    admin: AtomicU8,
    traffic: Traffic,
    times: Mutex<Times>,
    standing: Standing,
    rest: Rest,
    /// How often it was taken out of service for failing.
    outages: AtomicU32,
    /// Bits of the mean time to the first byte in milliseconds, an `f64`.
    mean_time: AtomicU64,
}

/// Written by every request, hence on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Traffic {
    in_flight: AtomicU32,
    /// Turn of the latest choice by load, for fair ties.
    last_turn: AtomicU64,
}

#[derive(Debug)]
struct Checks {
    health: Health,
    window: FailureWindow,
    /// The passive check took the server out, and its timer is to bring it back.
    awaits_recovery: bool,
}

/// The last [`SAMPLES`] times to the first byte, in whole milliseconds.
#[derive(Default)]
struct Times {
    ring: Vec<u32>,
    next: usize,
    sum: u64,
}

/// What all successive services of one name share.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Counts the changes of any server's eligibility.
    generation: AtomicU64,
    queue: Queue,
    turn: Turn,
    /// Held while it is decided whether one more server may be ejected.
    pub(super) ejecting: Mutex<()>,
    panics: AtomicBool,
}

/// Written by every pick: on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// Relaxed: only that no two picks get the same number matters.
    pub(super) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Lineage {
    /// Number of this pick in the life of the service, across workers and reloads.
    pub(super) fn next_turn(&self) -> u64 {
        self.turn.next()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// To be called after the change: whoever sees the new generation sees the change.
    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.queue.wake();
    }

    /// What was said last of panic mode.
    pub(super) fn panics(&self) -> bool {
        self.panics.load(Ordering::Relaxed)
    }

    /// Returns what was said before.
    pub(super) fn set_panics(&self, panics: bool) -> bool {
        self.panics.swap(panics, Ordering::Relaxed)
    }
}

impl Server {
    pub(super) fn new(
        url: &str,
        lineage: &Arc<Lineage>,
        active: Option<&health::Settings>,
        warmth: Warmth,
        now: Instant,
    ) -> Self {
        let endpoint = Endpoint {
            url: url.into(),
            cookie: sticky::cookie_value(url).into(),
            lineage: Arc::clone(lineage),
            admin: AtomicU8::new(AdminState::default() as u8),
            traffic: Traffic::default(),
            times: Mutex::default(),
            standing: Standing::new(warmth),
            rest: Rest::new(now),
            outages: AtomicU32::new(0),
            mean_time: AtomicU64::new(0.0_f64.to_bits()),
        };
        Self::with_health(Arc::new(endpoint), Health::new(active, now))
    }

    fn with_health(endpoint: Arc<Endpoint>, health: Health) -> Self {
        let status = AtomicU8::new(health.status() as u8);
        let checks = Checks { health, window: FailureWindow::default(), awaits_recovery: false };
        let (probes, wanted) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { endpoint, status, failing: AtomicBool::new(false), checks: Mutex::new(checks), probes, wanted }
    }

    /// The server for a service whose settings follow `before`: the same one, unless its health now comes
    /// from elsewhere. It is then a new one over the same endpoint, so that the service before, which may
    /// stay in force, notices nothing.
    pub(super) fn carry_over(
        self: &Arc<Self>,
        before: &Settings,
        after: &Settings,
        now: Instant,
    ) -> Arc<Self> {
        let loses_recovery = before.passive.is_some() && after.passive.is_none();
        let health = match (&before.active, &after.active) {
            (Some(_), Some(_)) => return Arc::clone(self),
            (None, None) if !loses_recovery => return Arc::clone(self),
            (None, Some(_)) => self.checks.lock().health.clone(),
            (_, None) => Health::new(None, now),
        };
        Arc::new(Self::with_health(Arc::clone(&self.endpoint), health))
    }

    /// As configured.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Value of the sticky cookie that leads here.
    pub fn cookie_value(&self) -> &str {
        &self.endpoint.cookie
    }

    /// Requests that are under way here, those of earlier configurations included.
    pub fn in_flight(&self) -> u32 {
        self.endpoint.traffic.in_flight.load(Ordering::Relaxed)
    }

    pub fn status(&self) -> Status {
        const HEALTHY: u8 = Status::Healthy as u8;
        const DEGRADED: u8 = Status::Degraded as u8;
        match self.status.load(Ordering::Relaxed) {
            HEALTHY => Status::Healthy,
            DEGRADED => Status::Degraded,
            _ => Status::Unhealthy,
        }
    }

    /// No connection could be had: others are asked first for a while.
    pub fn rest(&self, now: Instant) {
        self.endpoint.rest.begin(now);
    }

    /// Whether another server is to be asked instead, if there is one. When the time is over one caller
    /// gets `false`, and is to try.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.endpoint.rest.is_in_force(now)
    }

    /// It answers.
    pub fn awake(&self) {
        self.endpoint.rest.end_now();
    }

    /// How often it was taken out of service for failing. A connection from before the last time may lead to a machine
    /// that is gone.
    pub fn outages(&self) -> u32 {
        self.endpoint.outages.load(Ordering::Relaxed)
    }

    /// To be called before it comes back.
    pub(super) fn begin_outage(&self) {
        self.endpoint.outages.fetch_add(1, Ordering::Relaxed);
    }

    /// When the status began.
    pub fn status_since(&self) -> Instant {
        self.checks.lock().health.since()
    }

    /// What another process is to know of its health.
    pub fn memory(&self, now: Instant) -> Memory {
        self.checks.lock().health.memory(now)
    }

    /// Goes on with what another process knew. `awaits_recovery`: [`Server::passive_recover`] will be called.
    pub(super) fn recall(&self, memory: Memory, awaits_recovery: bool, now: Instant) {
        let mut checks = self.checks.lock();
        checks.health = Health::recalled(memory, now);
        checks.awaits_recovery = awaits_recovery;
        self.status.store(memory.status as u8, Ordering::Relaxed);
        self.endpoint.lineage.changed();
    }

    pub fn admin_state(&self) -> AdminState {
        const READY: u8 = AdminState::Ready as u8;
        const DRAIN: u8 = AdminState::Drain as u8;
        match self.endpoint.admin.load(Ordering::Relaxed) {
            READY => AdminState::Ready,
            DRAIN => AdminState::Drain,
            _ => AdminState::Maintenance,
        }
    }

    /// In force for all picks that begin after it returned, by any configuration that has the server.
    pub fn set_admin_state(&self, state: AdminState) {
        self.endpoint.admin.store(state as u8, Ordering::Relaxed);
        self.endpoint.lineage.changed();
    }

    /// Active probes whose results have been taken in.
    pub fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }

    /// What is known of its health may be from before somebody worked on it.
    pub fn want_probe(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether somebody wants it probed before it is time; whoever asks sees to it.
    pub fn take_wanted_probe(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.endpoint.standing
    }

    /// Takes in how long a request waited for the first byte of its answer, for
    /// [`LeastTime`](super::Strategy::LeastTime).
    pub fn record_first_byte(&self, elapsed: Duration) {
        let mean = self.endpoint.times.lock().record(elapsed);
        self.endpoint.mean_time.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Mean time to the first byte in milliseconds; 0 before the first sample.
    pub(super) fn mean_time(&self) -> f64 {
        f64::from_bits(self.endpoint.mean_time.load(Ordering::Relaxed))
    }

    pub(super) fn last_turn(&self) -> u64 {
        self.endpoint.traffic.last_turn.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.endpoint.traffic.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a request unless `most` are in flight already.
    pub(super) fn begin_below(&self, most: u32) -> bool {
        if most == u32::MAX {
            self.begin();
            return true;
        }
        let below = |in_flight| (in_flight < most).then_some(in_flight + 1);
        let order = Ordering::Relaxed;
        self.endpoint.traffic.in_flight.fetch_update(order, order, below).is_ok()
    }

    /// Begins a request if as many are in flight as the choice assumed.
    pub(super) fn begin_if(&self, in_flight: u32, turn: u64) -> bool {
        let traffic = &self.endpoint.traffic;
        let order = Ordering::Relaxed;
        let begun = traffic.in_flight.compare_exchange(in_flight, in_flight + 1, order, order).is_ok();
        if begun {
            traffic.last_turn.store(turn, order);
        }
        begun
    }

    pub(super) fn end(&self) {
        self.endpoint.traffic.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.endpoint.lineage.queue.wake();
    }

    pub(super) fn observe_probe(
        &self,
        probe: Probe,
        settings: &health::Settings,
        now: Instant,
    ) -> Option<Transition> {
        let mut checks = self.checks.lock();
        let change = checks.health.observe(probe, settings, now);
        let change = self.publish(change);
        self.probes.fetch_add(1, Ordering::Relaxed);
        change
    }

    pub(super) fn observe_success(&self) {
        if self.failing.load(Ordering::Relaxed) {
            let mut checks = self.checks.lock();
            checks.window.clear();
            self.failing.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn observe_failure(
        &self,
        settings: &PassiveSettings,
        has_active: bool,
        now: Instant,
    ) -> Option<Transition> {
        let mut checks = self.checks.lock();
        if checks.health.status() == Status::Unhealthy {
            return None; // an answer to a request from before it was taken out
        }
        let tripped = checks.window.record_failure(settings, now);
        self.failing.store(!tripped, Ordering::Relaxed);
        if !tripped {
            return None;
        }
        checks.awaits_recovery = !has_active;
        let change = checks.health.take_out(now);
        self.publish(change)
    }

    pub(super) fn passive_recover(&self, now: Instant) -> Option<Transition> {
        let mut checks = self.checks.lock();
        if !std::mem::take(&mut checks.awaits_recovery) {
            return None;
        }
        let change = checks.health.bring_back(now);
        self.publish(change)
    }

    /// Makes a change visible; called under the lock of `checks`, so that changes keep their order.
    fn publish(&self, change: Option<Transition>) -> Option<Transition> {
        if let Some(change) = change {
            if change.to == Status::Unhealthy {
                self.begin_outage();
            }
            self.status.store(change.to as u8, Ordering::Relaxed);
            self.endpoint.lineage.changed();
        }
        change
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &self.url())
            .field("status", &self.status())
            .field("admin_state", &self.admin_state())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Times {
    /// Returns the mean of the samples kept.
    fn record(&mut self, elapsed: Duration) -> f64 {
        let millis = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        if self.ring.len() < SAMPLES {
            self.ring.push(millis);
        } else {
            self.sum -= u64::from(std::mem::replace(&mut self.ring[self.next], millis));
            self.next = (self.next + 1) % SAMPLES;
        }
        self.sum += u64::from(millis);
        self.sum as f64 / self.ring.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_covers_the_last_hundred_samples_in_whole_milliseconds() {
        let mut times = Times::default();
        assert_eq!(times.record(Duration::from_micros(2_999)), 2.0);
        assert_eq!(times.record(Duration::from_millis(4)), 3.0);
        for _ in 0..98 {
            times.record(Duration::from_millis(3));
        }
        assert_eq!(times.record(Duration::from_millis(1_002)), (4.0 + 98.0 * 3.0 + 1_002.0) / 100.0);
        assert_eq!(times.record(Duration::from_millis(4)), (98.0 * 3.0 + 1_002.0 + 4.0) / 100.0);
        assert_eq!(times.ring.len(), SAMPLES);
    }
}
