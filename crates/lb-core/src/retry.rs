//! How many second tries a service may get: a budget that keeps retries from becoming a storm of their own.
//!
//! As Finagle's and Linkerd's: over the last ten seconds at most a percentage of the requests, plus a floor
//! that does not depend on traffic. Which requests may be sent again is decided elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// What is remembered, in seconds: that of Finagle and Linkerd.
const WINDOW: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Retries per hundred requests.
    pub percent: f64,
    /// Allowed besides, so that a quiet service can retry at all. What was not used adds up over the window.
    pub min_per_second: u32,
}

impl Default for Settings {
    /// The defaults of Linkerd; Envoy's share is the same.
    fn default() -> Self {
        Self { percent: 20.0, min_per_second: 10 }
    }
}

/// Counts the requests and retries of one service. Shared by reference; all times come from the caller.
#[derive(Debug)]
pub struct RetryBudget {
    since: Instant,
    requests: Requests,
    /// Second and count. Under a lock, so that two workers never share the last of the budget.
    retries: Mutex<[(u32, u64); WINDOW as usize]>,
}

/// Requests by second: the second in the upper half, the count in the lower. Written by every request,
/// hence on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Requests([AtomicU64; WINDOW as usize]);

impl RetryBudget {
    pub fn new(now: Instant) -> Self {
        Self { since: now, requests: Requests::default(), retries: Mutex::default() }
    }

    /// Counts one request, however often it will be tried.
    pub fn deposit(&self, now: Instant) {
        let second = self.second(now);
        let slot = &self.requests.0[(second % WINDOW) as usize];
        let mut seen = slot.load(Ordering::Relaxed);
        // Most find their second begun already. One that comes late counts for the second that is.
        while seen_in(seen) < second {
            let first = u64::from(second) << 32 | 1;
            match slot.compare_exchange_weak(seen, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => seen = newer,
            }
        }
        slot.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one retry is granted; it is counted then.
    pub fn withdraw(&self, settings: &Settings, now: Instant) -> bool {
        let second = self.second(now);
        let within = |at: u32| at + WINDOW > second;
        let mut retries = self.retries.lock();
        let requests: u64 = self
            .requests
            .0
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|seen| within(seen_in(*seen)))
            .map(|seen| seen & u64::from(u32::MAX))
            .sum();
        let spent: u64 = retries.iter().filter(|(at, _)| within(*at)).map(|(_, count)| count).sum();
        let earned = requests as f64 * settings.percent / 100.0;
        let floor = u64::from(settings.min_per_second) * u64::from(WINDOW);
        if (spent + 1) as f64 > earned + floor as f64 {
            return false;
        }
        let slot = &mut retries[(second % WINDOW) as usize];
        match slot {
            (at, count) if *at >= second => *count += 1,
            slot => *slot = (second, 1),
        }
        true
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX - WINDOW)
    }
}

fn seen_in(slot: u64) -> u32 {
    (slot >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;
    use crate::testing::origin;

    /// What becomes of requests (`.`), retries (`r`) and pauses of a second (` `): `+` granted, `-` refused.
    fn run(percent: f64, min_per_second: u32, script: &str) -> String {
        let start = origin();
        let budget = RetryBudget::new(start);
        let settings = Settings { percent, min_per_second };
        let mut now = start;
        let mut decisions = String::new();
        for step in script.chars() {
            match step {
                '.' => budget.deposit(now),
                'r' => decisions.push(if budget.withdraw(&settings, now) { '+' } else { '-' }),
                _ => now += Duration::from_secs(1),
            }
        }
        decisions
    }

    #[test]
    fn traffic_earns_retries_and_time_forgets_both() {
        assert_eq!(run(20.0, 0, "r....r.rr"), "--+-");
        assert_eq!(run(20.0, 0, "..........rrr"), "++-");
        assert_eq!(run(100.0, 0, "..rrr"), "++-");
        assert_eq!(run(0.0, 0, "....r"), "-");
        // Nine seconds later they count, ten seconds later not.
        assert_eq!(run(20.0, 0, ".....         r"), "+");
        assert_eq!(run(20.0, 0, ".....          r"), "-");
        // The floor: ten at once, ten more when those are forgotten.
        let eleven = "r".repeat(11);
        assert_eq!(run(0.0, 1, &format!("{eleven}          {eleven}")), "++++++++++-++++++++++-");
    }

    #[test]
    fn threads_share_one_budget_exactly() {
        let start = origin();
        let budget = RetryBudget::new(start);
        let settings = Settings { percent: 10.0, min_per_second: 0 };
        let one = || {
            let mut granted = 0;
            for n in 0..10_000_u64 {
                let now = start + Duration::from_micros(n * 50);
                budget.deposit(now);
                granted += u64::from(budget.withdraw(&settings, now));
            }
            granted
        };
        let granted: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Within one second nothing is forgotten: all that was earned, and not one more.
        assert_eq!(granted, 4_000);
    }

    proptest! {
        /// In whatever ten seconds one looks: no more retries than the requests of ten seconds earn. A
        /// second of the clock is counted as a whole, hence the two windows that meet in it.
        #[test]
        fn no_window_holds_more_retries_than_it_earns(
            percent in 0_u32..=100,
            min_per_second in 0_u32..3,
            steps in prop::collection::vec((0_u64..700, any::<bool>()), 1..400),
        ) {
            let start = origin();
            let budget = RetryBudget::new(start);
            let settings = Settings { percent: f64::from(percent), min_per_second };
            let (mut millis, mut requests, mut granted) = (0, Vec::new(), Vec::new());
            for (pause, is_request) in steps {
                millis += pause;
                let now = start + Duration::from_millis(millis);
                if is_request {
                    budget.deposit(now);
                    requests.push(millis / 1000);
                } else if budget.withdraw(&settings, now) {
                    granted.push(millis / 1000);
                    let last_ten = |seconds: &[u64]| seconds.iter().filter(|at| **at + 10 > millis / 1000).count();
                    let earned = last_ten(&requests) as f64 * settings.percent / 100.0;
                    let floor = f64::from(min_per_second) * 10.0;
                    prop_assert!(last_ten(&granted) as f64 <= earned + floor);
                }
            }
        }
    }
}
