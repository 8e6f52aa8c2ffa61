//! A server that took no connection a moment ago is passed over while another one is left.
//!
//! Without it each request of its share would be tried there first, and the tries on others would use up
//! the service's retry budget before a probe notices. As nginx's `max_fails=1`, with a shorter time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After a refused connection: a restarted server is back soon. Chosen.
const REFUSED: Duration = Duration::from_secs(1);
/// While one request tries whether it is over. nginx's `fail_timeout`.
const TRIAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Rest {
    origin: Instant,
    /// Milliseconds since `origin`; 0: awake.
    until: AtomicU64,
}

impl Rest {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, until: AtomicU64::new(0) }
    }

    pub(super) fn begin(&self, now: Instant) {
        self.until.store(self.end(now, REFUSED), Ordering::Relaxed);
    }

    pub(super) fn end_now(&self) {
        if self.until.load(Ordering::Relaxed) != 0 {
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// When the time is over, one caller is told so, to try; the others wait for what comes of that.
    pub(super) fn is_in_force(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let is_over = self.millis(now) >= until;
        let trial = self.end(now, TRIAL);
        !(is_over && self.until.compare_exchange(until, trial, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }

    fn end(&self, now: Instant, time: Duration) -> u64 {
        self.millis(now) + time.as_millis() as u64
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    #[test]
    fn one_request_tries_when_the_time_is_over() {
        let t0 = origin();
        let rest = Rest::new(t0);
        assert!(!rest.is_in_force(t0));
        rest.begin(t0);
        assert!(rest.is_in_force(t0) && rest.is_in_force(t0 + REFUSED / 2));
        let over = t0 + REFUSED;
        assert!(!rest.is_in_force(over)); // this one tries
        assert!(rest.is_in_force(over) && rest.is_in_force(over + TRIAL / 2));
        rest.begin(over); // in vain
        assert!(rest.is_in_force(over + REFUSED / 2) && !rest.is_in_force(over + REFUSED));
        rest.end_now();
        assert!(!rest.is_in_force(over + REFUSED));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let t0 = origin();
        let rest = Rest::new(t0);
        rest.begin(t0);
        assert!(!rest.is_in_force(t0 + REFUSED));
        assert!(!rest.is_in_force(t0 + REFUSED + TRIAL));
    }
}
