//! What happens to servers beside their health: ejection and return, slow start, panic mode.
//!
//! Ejections come with answers. Everything that only takes time happens in [`Service::advance`], which the
//! control plane calls every now and then: a pick never looks at the clock.

use std::time::{Duration, Instant};

use super::schedule::{Candidate, is_in, wanted};
use super::warmth::Warmth;
use super::{Server, Service};
use crate::health::{AdminState, EjectionReason, Outcome};

/// What a failure led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// The server gets nothing for this long.
    Begun { reason: EjectionReason, lasts: Duration },
    /// It had failed often enough, but too many are out already, or no other one would be left.
    Overflow,
}

/// A change that came with time, for the caller to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The ejection of member `index` is over, after it lasted so long.
    Returned {
        index: usize,
        after: Duration,
    },
    /// Member `index` begins with a small share of its weight.
    Rising {
        index: usize,
    },
    /// Member `index` has its whole weight.
    Risen {
        index: usize,
    },
    /// Too few servers are eligible: all are used, whatever their health.
    PanicBegun,
    PanicEnded,
}

impl Service {
    /// Takes in how a request to member `index` went, for outlier detection. Takes a lock only when that is
    /// one failure too many.
    pub fn observe_outcome(&self, index: usize, outcome: Outcome, now: Instant) -> Option<Ejection> {
        let settings = self.settings.outlier.as_ref()?;
        let server = &self.members.get(index)?.server;
        if !is_in(server, &self.settings) {
            return None; // an answer to a request from before it was out, or in panic
        }
        let reason = server.standing().record(outcome, settings)?;
        // One at a time, whatever configuration asks: two together could be one too many.
        let guard = self.lineage.ejecting.lock();
        if !self.may_eject(server, settings.max_ejection_percent) {
            return Some(Ejection::Overflow);
        }
        let lasts = server.standing().eject(settings, now)?;
        server.begin_outage();
        self.lineage.changed();
        drop(guard);
        self.refresh();
        Some(Ejection::Begun { reason, lasts })
    }

    fn may_eject(&self, server: &Server, max_percent: u8) -> bool {
        let (mut all, mut ejected, mut others) = (0_usize, 0_usize, 0_usize);
        for Candidate { server: other, .. } in wanted(&self.members, &self.settings) {
            all += 1;
            ejected += usize::from(other.standing().is_ejected());
            others += usize::from(other.url() != server.url() && is_in(&other, &self.settings));
        }
        others > 0 && (ejected == 0 || (ejected + 1) * 100 <= usize::from(max_percent) * all)
    }

    /// Whether [`advance`](Self::advance) has anything to do here, now or later.
    pub fn needs_upkeep(&self) -> bool {
        self.settings.slow_start.is_some()
            || self.settings.outlier.is_some()
            || self.settings.panic_threshold > 0
            || self.lineage.panics()
    }

    /// Brings back whose ejection is over, moves slow starts on, and says when panic begins and ends. To be
    /// called several times a second on the service in force.
    pub fn advance(&self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        let mut changed = false;
        for index in self.distinct() {
            let member = &self.members[index];
            let standing = member.server.standing();
            if self.settings.outlier.is_some()
                && let Some(after) = standing.end_ejection(now)
            {
                changed = true;
                events.push(Event::Returned { index, after });
            }
            if let Some(slow) = &self.settings.slow_start {
                // A drained server still serves those who are bound to it: it stays warm.
                let out = member.server.admin_state() == AdminState::Maintenance
                    || !is_in(&member.server, &self.settings);
                let (before, after) = standing.advance(out, slow, now);
                changed |= before.share(slow) != after.share(slow);
                match (before, after) {
                    (Warmth::Cold, Warmth::Rising { .. }) => events.push(Event::Rising { index }),
                    (Warmth::Rising { .. }, Warmth::Warm) => events.push(Event::Risen { index }),
                    _ => {}
                }
            }
        }
        if changed {
            self.lineage.changed();
            self.refresh();
        }
        let panics = self.panics();
        if self.lineage.set_panics(panics) != panics {
            events.push(if panics { Event::PanicBegun } else { Event::PanicEnded });
        }
        events
    }

    /// The first member of each URL.
    pub fn distinct(&self) -> impl Iterator<Item = usize> {
        self.members
            .iter()
            .enumerate()
            .filter(|(index, member)| member.first == *index)
            .map(|(index, _)| index)
    }

    /// Whether so few servers are eligible that all are used.
    pub fn panics(&self) -> bool {
        self.settings.panic_threshold > 0 && self.current().panics()
    }

    /// Whether outlier detection has put this member aside.
    pub fn is_ejected(&self, index: usize) -> bool {
        let is_ejected = |server: &Server| server.standing().is_ejected();
        self.settings.outlier.is_some() && self.members.get(index).is_some_and(|m| is_ejected(&m.server))
    }

    /// The share of its weight, in percent, that slow start leaves to this member; `None`: all of it.
    pub fn slow_start_percent(&self, index: usize) -> Option<u8> {
        let slow = self.settings.slow_start.as_ref()?;
        let warmth = self.members.get(index)?.server.standing().warmth();
        let rising = matches!(warmth, Warmth::Rising { .. });
        rising.then(|| u8::try_from(warmth.share(slow) / 10).unwrap_or(100))
    }
}
