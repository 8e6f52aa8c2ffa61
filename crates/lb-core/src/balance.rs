//! Chooses the server of a request.
//!
//! A [`Service`] is an immutable list of members with a strategy; the live state of each server (health,
//! requests in flight, what the operator wants) sits behind an `Arc` and is handed on to the service that
//! a reload builds, keyed by URL. Building one changes nothing that an older one sees, so a failed reload
//! has nothing to undo.
//!
//! Members with the same URL share one server, as in Traefik: their weights add up, and
//! [`Picked::index`] names the first of them.
//!
//! Services of services choose among [`Children`] instead, which have no state but their own.
//!
//! Probing, timers and retries belong to the callers.

mod children;
mod cookies;
mod hrw;
mod lowest;
mod mirrored;
mod p2c;
mod queue;
mod rest;
mod round_robin;
mod schedule;
mod server;
mod standing;
mod upkeep;
mod warmth;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::health::{self, AdminState, Memory, OutlierSettings, PassiveSettings, Probe, Status, Transition};
pub use children::{ChildSpec, Children, Choice, Spread};
use cookies::Cookies;
pub use mirrored::{Mirrored, is_mirrored};
pub use queue::Ticket;
pub use schedule::MAX_SLOTS;
use schedule::{Candidate, Candidates, Schedule};
use server::Lineage;
pub use server::Server;
pub use upkeep::{Ejection, Event};
pub use warmth::SlowStart;
use warmth::Warmth;

/// How a server is chosen among the eligible ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// `wrr`: exact shares by weight, smoothly interleaved.
    #[default]
    RoundRobin,
    /// `leastConn`: fewest requests in flight per weight.
    LeastConnections,
    /// `p2c`: the less loaded of two drawn at random; the weight does not matter unless it is 0.
    PowerOfTwoChoices,
    /// `hrw`: the same client gets the same server while that is there; cookies are ignored.
    HighestRandomWeight,
    /// `leasttime`: shortest time to the first byte, times the load, per weight.
    LeastTime,
}

/// How a service balances and judges its servers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub strategy: Strategy,
    /// Cookies are honoured (never with [`Strategy::HighestRandomWeight`], as in Traefik).
    pub sticky: bool,
    /// Share of its weight that a degraded server keeps, 0 to 1, in steps of a thousandth.
    /// 0 makes it a reserve: it is used when no healthy server is left. Degraded servers among
    /// themselves share by weight.
    pub degraded_weight: f64,
    /// How probes are read; `None`: no active health check, servers are healthy unless the passive
    /// one objects.
    pub active: Option<health::Settings>,
    pub passive: Option<PassiveSettings>,
    pub outlier: Option<OutlierSettings>,
    /// Servers that appear or come back get a growing share of their weight.
    pub slow_start: Option<SlowStart>,
    /// When fewer than this percentage of the servers is eligible all are used, whatever their health;
    /// 0: never.
    pub panic_threshold: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            sticky: false,
            degraded_weight: 0.5,
            active: None,
            passive: None,
            outlier: None,
            slow_start: None,
            panic_threshold: 0,
        }
    }
}

/// One server as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// Exactly as configured: state, cookie and hash are keyed by it.
    pub url: String,
    /// 0: never used, cookie or not.
    pub weight: u32,
}

/// A named group of interchangeable servers.
#[derive(Debug)]
pub struct Service {
    name: Box<str>,
    settings: Settings,
    members: Box<[Member]>,
    cookies: Cookies,
    lineage: Arc<Lineage>,
    schedule: ArcSwap<Schedule>,
    /// Held while the schedule is replaced, so that an older one never overwrites a newer one.
    rebuild: Mutex<()>,
}

#[derive(Debug)]
struct Member {
    server: Arc<Server>,
    weight: u32,
    /// The first member with the same URL.
    first: usize,
    /// Requests in flight at most; `u32::MAX` is no limit.
    most: u32,
}

/// What a choice depends on, besides the service.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The peer, not what a header claims.
    pub client: IpAddr,
    /// Value of the sticky cookie; `None` when the client sent none.
    pub sticky: Option<&'a str>,
    /// Fresh random bits for each pick.
    pub random: u64,
    /// Members (by [`Picked::index`]) that failed this request already: taken again only when no
    /// other eligible one is left.
    pub tried: &'a [usize],
}

/// A chosen server. The request counts as in flight there until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the request"]
pub struct Picked {
    server: Arc<Server>,
    index: usize,
    by_cookie: CookieMatch,
}

/// Whether the client's cookie chose the server, and so whether it needs a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieMatch {
    /// The cookie is good as it is.
    Current,
    /// A value from an older Traefik: honoured, and to be rewritten.
    Legacy,
    /// The server was chosen afresh.
    None,
}

/// The passive health check took a server out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveTrip {
    pub transition: Transition,
    /// When to call [`Service::passive_recover`]; `None`: the active check brings the server back.
    pub recover_after: Option<Duration>,
}

impl Service {
    /// Builds a service; `previous` is the one of the same name in the configuration before.
    ///
    /// A server that `previous` has, by URL, keeps everything: health, requests in flight, operator
    /// state, failures, response times. Its health starts afresh (healthy) only when what could bring it
    /// back is gone from the settings. A health check that is new leaves a server that serves in place
    /// until the first probes say otherwise, even with `start_unhealthy`.
    pub fn new(
        name: &str,
        settings: Settings,
        members: &[MemberSpec],
        previous: Option<&Service>,
        now: Instant,
    ) -> Self {
        let lineage = previous.map_or_else(Arc::default, |p| Arc::clone(&p.lineage));
        // Whoever serves when slow start is switched on goes on as before.
        if let (Some(previous), Some(_)) = (previous, &settings.slow_start)
            && previous.settings.slow_start.is_none()
        {
            previous.members.iter().for_each(|member| member.server.standing().warm_up());
        }
        let old: HashMap<&str, &Arc<Server>> = previous
            .iter()
            .flat_map(|p| p.members.iter().map(|member| (member.server.url(), &member.server)))
            .collect();
        let take_over = |url: &str| match (old.get(url), previous) {
            (Some(server), Some(previous)) => server.carry_over(&previous.settings, &settings, now),
            (None, Some(_)) => {
                Arc::new(Server::new(url, &lineage, settings.active.as_ref(), Warmth::Cold, now))
            }
            (_, None) => {
                let warmth = Warmth::Fresh { since: now };
                Arc::new(Server::new(url, &lineage, settings.active.as_ref(), warmth, now))
            }
        };
        let mut first_of: HashMap<&str, usize> = HashMap::new();
        let mut built: Vec<Member> = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            let first = *first_of.entry(&member.url).or_insert(index);
            let server = match built.get(first) {
                Some(twin) => Arc::clone(&twin.server),
                None => take_over(&member.url),
            };
            built.push(Member { server, weight: member.weight, first, most: u32::MAX });
        }
        let honours_cookies = settings.sticky && settings.strategy != Strategy::HighestRandomWeight;
        let cookies = if honours_cookies { Cookies::new(&built) } else { Cookies::default() };
        Self {
            name: name.into(),
            settings,
            cookies,
            schedule: ArcSwap::from_pointee(Schedule::build(&built, &settings, lineage.generation())),
            members: built.into(),
            lineage,
            rebuild: Mutex::new(()),
        }
    }

    /// Limits the requests in flight on each server, those of earlier configurations included; one limit
    /// per member, in their order, where the first member of a URL counts.
    #[must_use]
    pub fn with_max_connections(mut self, limits: &[Option<NonZeroU32>]) -> Self {
        for (member, limit) in self.members.iter_mut().zip(limits) {
            member.most = limit.map_or(u32::MAX, NonZeroU32::get);
        }
        let generation = self.lineage.generation();
        self.schedule.store(Arc::new(Schedule::build(&self.members, &self.settings, generation)));
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether picks depend on [`Server::record_first_byte`]; otherwise nobody need call it.
    pub fn compares_times(&self) -> bool {
        self.settings.strategy == Strategy::LeastTime
    }

    /// The members as configured, with their weights; the position is the index used everywhere else.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = (&Arc<Server>, u32)> {
        self.members.iter().map(|member| (&member.server, member.weight))
    }

    /// Whether a new client would get a server: what a parent service asks its children.
    pub fn is_available(&self) -> bool {
        !self.current().is_empty()
    }

    /// Requests that wait for a server, those of earlier configurations included.
    pub fn queued(&self) -> usize {
        self.lineage.queue().len()
    }

    /// Whether this is an earlier or later version of `other`, without a configuration between that had none: those who wait
    /// for the one are woken by the other.
    pub fn shares_queue(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lineage, &other.lineage)
    }

    /// Lets those who wait look again: the service has a new version, which may have room.
    pub fn wake_queue(&self) {
        fence(Ordering::SeqCst);
        self.lineage.queue().wake();
    }

    /// Lets a request wait until a server may have room for it; `None`: `most` are waiting already.
    pub fn queue(&self, most: usize, is_retry: bool) -> Option<Ticket> {
        Ticket::take(&self.lineage, most, is_retry)
    }

    /// Chooses a server and counts the request as in flight there; `None`: no server is eligible, or all
    /// that are [have as many requests as they may](Self::with_max_connections).
    ///
    /// Takes no lock and allocates nothing, but for the first pick after a server's eligibility changed
    /// where nobody refreshed the schedule yet.
    pub fn pick(&self, pick: &Pick<'_>) -> Option<Picked> {
        let mut by_cookie = CookieMatch::None;
        if let Some((index, matched)) = pick.sticky.and_then(|value| self.find_by_cookie(value, pick.tried)) {
            let Member { server, most, .. } = &self.members[index];
            if server.begin_below(*most) {
                return Some(Picked { server: Arc::clone(server), index, by_cookie: matched });
            }
            // Full for the moment is no reason to lose a session.
            by_cookie = CookieMatch::Current;
        }
        let schedule = self.current();
        let candidates = Candidates::new(&schedule, pick.tried)?;
        let mut full = match self.begin(&candidates, pick, by_cookie) {
            Ok(picked) => return Some(picked),
            Err(full) => [candidates.tried(), &[full]].concat(),
        };
        loop {
            match self.begin(&candidates.without(&full)?, pick, by_cookie) {
                Ok(picked) => return Some(picked),
                Err(more) => full.push(more),
            }
        }
    }

    /// Takes in the result of an active probe of member `index`; returns the change it caused, if any.
    /// Without an active health check it is ignored: the probe is a late one from before a reload.
    pub fn observe_probe(&self, index: usize, probe: Probe, now: Instant) -> Option<Transition> {
        let settings = self.settings.active.as_ref()?;
        let server = &self.members.get(index)?.server;
        if probe != Probe::Failed {
            server.awake();
        }
        let change = server.observe_probe(probe, settings, now);
        self.refresh_after(change)
    }

    /// Takes in how a request to member `index` went, for the passive health check. `failed`: it never
    /// reached the server, or the answer had a status of 500 or above.
    pub fn observe_response(&self, index: usize, failed: bool, now: Instant) -> Option<PassiveTrip> {
        let passive = self.settings.passive.as_ref()?;
        let server = &self.members.get(index)?.server;
        if !failed {
            server.observe_success();
            return None;
        }
        let has_active = self.settings.active.is_some();
        let transition = self.refresh_after(server.observe_failure(passive, has_active, now))?;
        let recover_after = (!has_active).then_some(passive.failure_window);
        Some(PassiveTrip { transition, recover_after })
    }

    /// Brings member `index` back after [`PassiveTrip::recover_after`]. To be called on the service that
    /// saw the trip: reloaded ones share the server, at a position that may differ. Does nothing when the
    /// server is back already; a service whose active health check has taken over does not notice.
    pub fn passive_recover(&self, index: usize, now: Instant) -> Option<Transition> {
        let change = self.members.get(index)?.server.passive_recover(now);
        self.refresh_after(change)
    }

    /// Goes on with what another process knew of member `index`, as far as something here can correct it: without
    /// an active check only that the passive one took it out. Returns when to call [`Service::passive_recover`].
    pub fn recall(&self, index: usize, memory: Memory, now: Instant) -> Option<Duration> {
        let server = &self.members.get(index)?.server;
        let recover_after = match (&self.settings.active, &self.settings.passive) {
            (Some(_), _) => None,
            (None, Some(passive)) if memory.status == Status::Unhealthy => {
                Some(passive.failure_window.saturating_sub(memory.since))
            }
            (None, _) => return None,
        };
        server.recall(memory, recover_after.is_some(), now);
        self.refresh();
        recover_after
    }

    /// Chooses and begins.
    ///
    /// # Errors
    /// The index of the chosen one, when it is full.
    fn begin(
        &self,
        candidates: &Candidates<'_>,
        pick: &Pick<'_>,
        by_cookie: CookieMatch,
    ) -> Result<Picked, usize> {
        let begun = match self.settings.strategy {
            Strategy::RoundRobin => {
                round_robin::choose(candidates, self.lineage.next_turn(), pick.random).begin()
            }
            Strategy::PowerOfTwoChoices => p2c::choose(candidates, pick.random).begin(),
            Strategy::HighestRandomWeight => hrw::choose(candidates, pick.client).begin(),
            Strategy::LeastConnections => {
                lowest::begin(candidates, self.lineage.next_turn(), lowest::connections)
            }
            Strategy::LeastTime => lowest::begin(candidates, self.lineage.next_turn(), lowest::time),
        };
        let picked = |chosen: &Candidate| Picked {
            server: Arc::clone(&chosen.server),
            index: chosen.index,
            by_cookie,
        };
        begun.map(picked).map_err(|full| full.index)
    }

    fn find_by_cookie(&self, value: &str, tried: &[usize]) -> Option<(usize, CookieMatch)> {
        let (index, matched) = self.cookies.find(value)?;
        let server = &self.members[index].server;
        let out = || !schedule::is_in(server, &self.settings) && !self.panics();
        let refused = tried.contains(&index) || server.admin_state() == AdminState::Maintenance || out();
        (!refused).then_some((index, matched))
    }

    /// The schedule for the eligibility of this moment.
    fn current(&self) -> arc_swap::Guard<Arc<Schedule>> {
        let schedule = self.schedule.load();
        if schedule.generation() == self.lineage.generation() {
            return schedule;
        }
        drop(schedule);
        self.refresh();
        self.schedule.load()
    }

    fn refresh_after(&self, change: Option<Transition>) -> Option<Transition> {
        if change.is_some() {
            self.refresh();
        }
        change
    }

    fn refresh(&self) {
        let _guard = self.rebuild.lock();
        // Read before the servers' states: a change in between only causes one more rebuild.
        let generation = self.lineage.generation();
        if self.schedule.load().generation() != generation {
            self.schedule.store(Arc::new(Schedule::build(&self.members, &self.settings, generation)));
        }
    }
}

impl Picked {
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Position among [`Service::servers`].
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn by_cookie(&self) -> CookieMatch {
        self.by_cookie
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.server.end();
    }
}

#[cfg(test)]
mod tests;
