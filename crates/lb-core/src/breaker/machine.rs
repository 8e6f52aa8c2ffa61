//! The breaker itself: what it counts, and how it moves between its states.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::expression::{Codes, Comparison, Expression};
use super::latency::Latencies;
use super::window::Rolling;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The expression is evaluated at most this often, when a response completes.
    pub check_period: Duration,
    /// How long all requests are rejected once the expression has held.
    pub fallback: Duration,
    /// How long traffic then takes to return.
    pub recovery: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Lets traffic through.
    Closed,
    /// Rejects.
    Open,
    /// Lets a growing share of traffic through (Traefik's recovering).
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Allowed,
    Rejected,
}

/// A change of state, for the caller to log, count and publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub to: State,
}

/// A circuit breaker. Shared by reference; all times come from the caller.
#[derive(Debug)]
pub struct Breaker {
    expression: Expression,
    settings: Settings,
    /// Copy of the state in `inner`, written under its lock: a closed breaker admits without the lock.
    state: AtomicU8,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// No evaluation up to and including this moment.
    checked_until: Option<Instant>,
    counters: Counters,
    /// `None` if the expression does not ask for latencies.
    latencies: Option<Latencies>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { since: Instant, until: Instant, allowed: u64, denied: u64 },
}

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

impl Breaker {
    /// Starts closed.
    pub fn new(expression: Expression, settings: Settings, now: Instant) -> Self {
        let mut sets = Vec::new();
        let mut latencies = None;
        expression.condition().for_each_leaf(&mut |comparison| match comparison {
            Comparison::Ratio(part, whole, ..) => sets.extend([*part, *whole]),
            Comparison::LatencyAtQuantileMs(..) => latencies = Some(Latencies::new(now)),
        });
        let inner = Inner {
            phase: Phase::Closed,
            checked_until: None,
            counters: Counters::new(sets, now),
            latencies,
        };
        Self { expression, settings, state: AtomicU8::new(State::Closed as u8), inner: Mutex::new(inner) }
    }

    pub fn state(&self) -> State {
        // Relaxed: a request that races with a change of state may see either side of it.
        match self.state.load(Ordering::Relaxed) {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// Decides on one request. Whatever is allowed must be [recorded](Self::record) when answered.
    pub fn admit(&self, now: Instant) -> (Admission, Option<Change>) {
        if self.state() == State::Closed {
            return (Admission::Allowed, None);
        }
        let mut inner = self.inner.lock();
        let before = inner.phase.state();
        let admission = inner.admit(&self.settings, now);
        (admission, self.publish(before, &inner))
    }

    /// How long all requests will still be rejected; zero when it is not open.
    pub fn rejects_for(&self, now: Instant) -> Duration {
        match self.inner.lock().phase {
            Phase::Open { until } => until.saturating_duration_since(now),
            Phase::Closed | Phase::HalfOpen { .. } => Duration::ZERO,
        }
    }

    /// Takes in one response: its status (as the client gets it) and how long it took.
    pub fn record(&self, status: u16, latency: Duration, now: Instant) -> Option<Change> {
        let mut inner = self.inner.lock();
        let before = inner.phase.state();
        inner.counters.record(status, now);
        if let Some(latencies) = &mut inner.latencies {
            latencies.record(latency, now);
        }
        if inner.checked_until.is_none_or(|until| now > until) {
            inner.checked_until = Some(after(now, self.settings.check_period));
            if before != State::Open && inner.condition_holds(&self.expression, now) {
                inner.phase = Phase::Open { until: after(now, self.settings.fallback) };
                inner.counters.clear();
                if let Some(latencies) = &mut inner.latencies {
                    latencies.clear();
                }
            }
        }
        self.publish(before, &inner)
    }

    fn publish(&self, before: State, inner: &Inner) -> Option<Change> {
        let to = inner.phase.state();
        if to == before {
            return None;
        }
        self.state.store(to as u8, Ordering::Relaxed);
        Some(Change { to })
    }
}

impl Inner {
    fn admit(&mut self, settings: &Settings, now: Instant) -> Admission {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Admission::Rejected;
            }
            self.phase =
                Phase::HalfOpen { since: now, until: after(now, settings.recovery), allowed: 0, denied: 0 };
        }
        let Phase::HalfOpen { since, until, allowed, denied } = &mut self.phase else {
            return Admission::Allowed;
        };
        if now > *until {
            self.phase = Phase::Closed;
            return Admission::Allowed;
        }
        // Half of the traffic at the end of the ramp, as in Traefik.
        let elapsed = now.saturating_duration_since(*since).as_secs_f64();
        let quota = 0.5 * elapsed / settings.recovery.as_secs_f64();
        if (*allowed + 1) as f64 / ((*allowed + 1 + *denied) as f64) < quota {
            *allowed += 1;
            Admission::Allowed
        } else {
            *denied += 1;
            Admission::Rejected
        }
    }

    fn condition_holds(&mut self, expression: &Expression, now: Instant) -> bool {
        expression.condition().evaluate(&mut |comparison| match *comparison {
            Comparison::Ratio(part, whole, operator, value) => {
                operator.holds(self.counters.ratio(part, whole, now), value)
            }
            Comparison::LatencyAtQuantileMs(quantile, operator, value) => {
                // Present, as `new` has seen the same expression.
                let latencies = self.latencies.as_mut();
                operator.holds(latencies.map_or(0, |latencies| latencies.quantile_ms(quantile, now)), value)
            }
        })
    }
}

/// A deadline; a configured time too long for the clock is as good as for ever.
fn after(now: Instant, delay: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(3_155_760_000);
    now + delay.min(CENTURY)
}

/// Responses of the last ten seconds, by the sets of codes that the expression asks for.
#[derive(Debug)]
struct Counters {
    sets: Vec<Codes>,
    /// One count per set.
    seconds: Rolling<10, Box<[u64]>>,
}

impl Counters {
    fn new(mut sets: Vec<Codes>, now: Instant) -> Self {
        let mut index = 0;
        while index < sets.len() {
            if sets[..index].contains(&sets[index]) {
                sets.remove(index);
            } else {
                index += 1;
            }
        }
        let empty = vec![0; sets.len()].into();
        Self { sets, seconds: Rolling::new(Duration::from_secs(1), empty, now) }
    }

    fn record(&mut self, status: u16, now: Instant) {
        let counts = self.seconds.current(now, Self::forget);
        for (codes, count) in self.sets.iter().zip(counts) {
            *count += u64::from(codes.contain(status));
        }
    }

    /// 0 when there is nothing to divide by.
    fn ratio(&mut self, part: Codes, whole: Codes, now: Instant) -> f64 {
        let seconds = self.seconds.all(now, Self::forget);
        let sum = |codes: Codes| {
            let index = self.sets.iter().position(|set| *set == codes);
            index.map_or(0, |index| seconds.iter().map(|counts| counts[index]).sum::<u64>())
        };
        let whole = sum(whole);
        if whole == 0 { 0.0 } else { sum(part) as f64 / whole as f64 }
    }

    fn clear(&mut self) {
        self.seconds.clear(Self::forget);
    }

    fn forget(counts: &mut Box<[u64]>) {
        counts.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::origin;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(expression: &str, now: Instant) -> Breaker {
        let settings = Settings { check_period: SECOND / 10, fallback: 10 * SECOND, recovery: 10 * SECOND };
        Breaker::new(Expression::parse(expression).unwrap(), settings, now)
    }

    /// Runs steps such as `0.5:200` (a response at that second), `3:200*4/20ms` (four, each taking 20 ms),
    /// or `12:?` (ask for admission). One letter per step: the state after it (C, O, H), in lower case if
    /// a request was just rejected.
    fn run(expression: &str, steps: &str) -> String {
        let start = origin();
        let breaker = breaker(expression, start);
        let step = |step: &str| {
            let (at, what) = step.split_once(':').unwrap();
            let now = start + Duration::from_secs_f64(at.parse().unwrap());
            let mut rejected = false;
            if what == "?" {
                rejected = breaker.admit(now).0 == Admission::Rejected;
            } else {
                let (response, millis) = what.split_once('/').unwrap_or((what, "1ms"));
                let (status, count) = response.split_once('*').unwrap_or((response, "1"));
                let latency = Duration::from_millis(millis.trim_end_matches("ms").parse().unwrap());
                for _ in 0..count.parse().unwrap() {
                    breaker.record(status.parse().unwrap(), latency, now);
                }
            }
            match (breaker.state(), rejected) {
                (State::Closed, _) => 'C',
                (State::Open, false) => 'O',
                (State::Open, true) => 'o',
                (State::HalfOpen, false) => 'H',
                (State::HalfOpen, true) => 'h',
            }
        };
        steps.split(' ').map(step).collect()
    }

    #[test]
    fn the_first_failing_response_opens_it() {
        assert_eq!(run("NetworkErrorRatio() > 0.5", "0:200 0.2:? 0.3:502"), "CCC");
        assert_eq!(run("NetworkErrorRatio() > 0.5", "0:502 0.1:? 9.9:? 10:?"), "Ooo".to_owned() + "h");
    }

    #[test]
    fn the_expression_is_evaluated_once_per_check_period() {
        // The check at 0 starts a period of 0.1 s, which includes its end.
        assert_eq!(run("NetworkErrorRatio() > 0.5", "0:200 0.05:504*5 0.1:504 0.11:504"), "CCCO");
        assert_eq!(run("NetworkErrorRatio() > 0.5", "0:200 0.05:504*5 5:?"), "CCC"); // and only by responses
    }

    #[test]
    fn counters_cover_ten_seconds() {
        assert_eq!(run("NetworkErrorRatio() > 0.5", "0:200*9 1:502*9 9.9:502"), "CCO"); // 10 of 19
        assert_eq!(run("NetworkErrorRatio() > 0.95", "0:200*9 5:502*9 9.5:502 10.2:502"), "CCCO"); // 200s gone
    }

    #[test]
    fn ratios_of_response_codes_include_the_start_and_exclude_the_end() {
        let expression = "ResponseCodeRatio(500, 600, 0, 600) > 0.25";
        assert_eq!(run(expression, "0:200*3 1:500 2:599 3:600"), "CCOO");
        assert_eq!(run("ResponseCodeRatio(500, 504, 400, 404) > 0.9", "0:503 1:404 2:403"), "CCO"); // 1 / 0 is 0
    }

    #[test]
    fn latency_quantiles_open_it() {
        let expression = "LatencyAtQuantileMS(50.0) > 100 && NetworkErrorRatio() < 0.5";
        assert_eq!(run(expression, "0:200/200ms"), "O");
        assert_eq!(run(expression, "0:200*3/90ms 1:200*3/300ms 2:200/300ms"), "CCO");
    }

    #[test]
    fn it_closes_when_the_ramp_is_over_and_opens_again_during_it() {
        let open = "0:502";
        assert_eq!(run("NetworkErrorRatio() > 0.5", &format!("{open} 10:? 20:? 20.1:? 20.2:?")), "OhhCC");
        // 10 s into the ramp from 10: the quota is 50 %, one of two denied; 1 / 2 is not below it.
        assert_eq!(run("NetworkErrorRatio() > 0.5", &format!("{open} 10:? 19:? 19:? 19:?")), "OhhHh");
        assert_eq!(run("NetworkErrorRatio() > 0.5", &format!("{open} 10:? 15:502 24.9:? 25:?")), "OhOoh");
        // Counters were reset, but what was still in flight counts from then on.
        assert_eq!(
            run("NetworkErrorRatio() > 0.5", &format!("{open} 5:502*2 11:? 12:200 13:200*2")),
            "OOhOO"
        );
        assert_eq!(run("NetworkErrorRatio() > 0.5", &format!("{open} 5:502 16:? 17:200 18:?")), "OOhHh");
    }

    #[test]
    fn every_change_is_told_once() {
        let start = origin();
        let breaker = breaker("NetworkErrorRatio() > 0.5", start);
        let at = |seconds| start + seconds * SECOND;
        assert_eq!(breaker.record(502, SECOND, at(0)), Some(Change { to: State::Open }));
        assert_eq!(breaker.record(502, SECOND, at(1)), None);
        assert_eq!(breaker.admit(at(10)), (Admission::Rejected, Some(Change { to: State::HalfOpen })));
        assert_eq!(breaker.admit(at(11)), (Admission::Rejected, None));
        assert_eq!(breaker.admit(at(21)), (Admission::Allowed, Some(Change { to: State::Closed })));
    }

    proptest! {
        /// Whenever requests come, those allowed stay below the ramp: half of all at its end.
        #[test]
        fn half_open_admits_at_most_its_quota(gaps in prop::collection::vec(0..200_u64, 1..500)) {
            let opened = origin();
            let breaker = breaker("NetworkErrorRatio() > 0.5", opened);
            breaker.record(502, SECOND, opened);
            let start = opened + 10 * SECOND;
            let (mut now, mut asked, mut allowed) = (start, 0, 0);
            for gap in gaps {
                asked += 1;
                allowed += u32::from(breaker.admit(now).0 == Admission::Allowed);
                let quota = 0.5 * (now - start).as_secs_f64() / 10.0;
                prop_assert!(f64::from(allowed) <= quota * f64::from(asked), "{allowed} of {asked} at {now:?}");
                now += Duration::from_millis(gap);
                if now > start + 10 * SECOND {
                    break;
                }
            }
        }
    }
}
