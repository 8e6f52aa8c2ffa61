//! Outlier ejection: a server that keeps failing requests sits out for a while and returns by itself.
//!
//! The rules and defaults are Envoy's `outlier_detection`. How many may sit out at a time is decided by the
//! service, which knows the others ([`crate::balance`]); probes and the passive check judge on their own.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// When a server is ejected, for how long, and how many of a service may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierSettings {
    /// So many [`Outcome::ServerError`] or [`Outcome::GatewayFailure`] in a row eject; `None`: they do not.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// So many [`Outcome::GatewayFailure`] in a row eject; `None`: they do not by themselves.
    pub consecutive_gateway_failure: Option<NonZeroU32>,
    /// A server forgets one ejection for each such time that it serves without another.
    pub interval: Duration,
    /// Length of the first ejection; the n-th lasts n times as long.
    pub base_ejection_time: Duration,
    /// No ejection lasts longer, unless `base_ejection_time` itself does.
    pub max_ejection_time: Duration,
    /// Percent of a service's servers, 1 to 100, that may be out at a time; one may be in any case.
    pub max_ejection_percent: u8,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            consecutive_5xx: NonZeroU32::new(5),
            consecutive_gateway_failure: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
        }
    }
}

/// How one request to a server went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Served,
    /// A status of 500 or above that is none of the gateway's.
    ServerError,
    /// 502, 503 or 504, or no usable answer at all.
    GatewayFailure,
}

impl Outcome {
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailure,
            500.. => Self::ServerError,
            _ => Self::Served,
        }
    }

    pub fn is_failure(self) -> bool {
        self != Self::Served
    }
}

/// Why a server was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
}

impl EjectionReason {
    /// The word of metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
        }
    }
}

/// Failures in a row of one server. Served requests write nothing unless they end a streak.
#[derive(Debug, Default)]
pub(crate) struct Streaks {
    errors: AtomicU32,
    gateway_failures: AtomicU32,
}

impl Streaks {
    /// Takes in one outcome; returns why it is one too many, and counts afresh then.
    pub(crate) fn record(&self, outcome: Outcome, settings: &OutlierSettings) -> Option<EjectionReason> {
        let gateway = match outcome {
            Outcome::GatewayFailure => add(&self.gateway_failures),
            Outcome::ServerError | Outcome::Served => end(&self.gateway_failures),
        };
        let errors = match outcome {
            Outcome::GatewayFailure | Outcome::ServerError => add(&self.errors),
            Outcome::Served => end(&self.errors),
        };
        let reached = |count, limit: Option<NonZeroU32>| limit.is_some_and(|limit| count >= limit.get());
        let reason = if reached(gateway, settings.consecutive_gateway_failure) {
            EjectionReason::ConsecutiveGatewayFailure
        } else if reached(errors, settings.consecutive_5xx) {
            EjectionReason::Consecutive5xx
        } else {
            return None;
        };
        end(&self.errors);
        end(&self.gateway_failures);
        Some(reason)
    }
}

fn add(count: &AtomicU32) -> u32 {
    count.fetch_add(1, Ordering::Relaxed).saturating_add(1)
}

fn end(count: &AtomicU32) -> u32 {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
    0
}

/// The ejections of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ejections {
    /// Those that count towards the length of the next one.
    remembered: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Never,
    Out {
        since: Instant,
        until: Instant,
    },
    Back {
        since: Instant,
    },
}

impl Ejections {
    /// Begins an ejection; returns how long it lasts. `None`: one is under way.
    pub(crate) fn begin(&mut self, settings: &OutlierSettings, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Out { .. } => return None,
            Phase::Back { since } => {
                let served = now.saturating_duration_since(since).as_nanos();
                let forgotten = served / settings.interval.as_nanos().max(1);
                let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
                self.remembered = self.remembered.saturating_sub(forgotten);
            }
            Phase::Never => {}
        }
        self.remembered = self.remembered.saturating_add(1);
        let longest = settings.max_ejection_time.max(settings.base_ejection_time);
        let time = settings.base_ejection_time.saturating_mul(self.remembered).min(longest);
        // A time that no clock will reach is as good as the far future.
        let until = now.checked_add(time).unwrap_or_else(|| now + FAR);
        self.phase = Phase::Out { since: now, until };
        Some(time)
    }

    /// Ends an ejection whose time is over; returns how long it lasted.
    pub(crate) fn end(&mut self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Out { since, until } if now >= until => {
                self.phase = Phase::Back { since: now };
                Some(now.saturating_duration_since(since))
            }
            _ => None,
        }
    }
}

/// A hundred years.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    /// What each outcome leads to (`5` or `g` where it ejects): `+` served, `5` for 500, `g` for 502 to 504.
    fn run(errors: u32, gateway: u32, outcomes: &str) -> String {
        let settings = OutlierSettings {
            consecutive_5xx: NonZeroU32::new(errors),
            consecutive_gateway_failure: NonZeroU32::new(gateway),
            ..OutlierSettings::default()
        };
        let streaks = Streaks::default();
        let step = |c| {
            let outcome = Outcome::of_status(match c {
                '5' => 500,
                'g' => 503,
                _ => 404,
            });
            match streaks.record(outcome, &settings) {
                Some(EjectionReason::Consecutive5xx) => '5',
                Some(EjectionReason::ConsecutiveGatewayFailure) => 'g',
                None => '.',
            }
        };
        outcomes.chars().map(step).collect()
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        assert_eq!(run(3, 0, "555"), "..5");
        assert_eq!(run(3, 0, "5g5"), "..5"); // gateway failures are server errors, too
        assert_eq!(run(3, 0, "55+55"), "....."); // one served request ends the streak
        assert_eq!(run(3, 0, "555555"), "..5..5"); // the count starts afresh
        assert_eq!(run(0, 2, "gg"), ".g");
        assert_eq!(run(0, 2, "g5g5"), "...."); // a 500 is an answer of the application itself
        assert_eq!(run(3, 2, "gg5"), ".g.");
        assert_eq!(run(0, 0, "ggg555"), "......");
    }

    #[test]
    fn statuses_are_told_apart() {
        let of = |status| Outcome::of_status(status);
        assert_eq!([200, 404, 499].map(of), [Outcome::Served; 3]);
        assert_eq!([500, 501, 505, 599].map(of), [Outcome::ServerError; 4]);
        assert_eq!([502, 503, 504].map(of), [Outcome::GatewayFailure; 3]);
    }

    #[test]
    fn each_ejection_is_longer_until_it_is_forgotten() {
        let (settings, mut now) = (OutlierSettings::default(), origin());
        let mut ejections = Ejections::default();
        let mut once = |served: u64| {
            now += Duration::from_secs(served);
            let time = ejections.begin(&settings, now).unwrap();
            assert_eq!(ejections.begin(&settings, now), None, "it is out already");
            assert_eq!(ejections.end(now + time - Duration::from_nanos(1)), None);
            now += time;
            assert_eq!(ejections.end(now), Some(time));
            assert_eq!(ejections.end(now), None);
            time.as_secs()
        };
        assert_eq!([0, 0, 9].map(&mut once), [30, 60, 90]);
        assert_eq!(once(10), 90, "one interval of good service");
        assert_eq!(once(29), 60, "two");
        assert_eq!(once(3_600), 30);
        assert_eq!([0; 12].map(once)[9..], [300; 3], "no longer than the longest");
    }

    #[test]
    fn extreme_settings_and_clocks_do_no_harm() {
        let settings = OutlierSettings {
            base_ejection_time: Duration::MAX,
            interval: Duration::ZERO,
            ..OutlierSettings::default()
        };
        let (now, mut ejections) = (origin() + Duration::from_secs(9), Ejections::default());
        assert_eq!(ejections.begin(&settings, now), Some(Duration::MAX));
        assert_eq!(ejections.end(now - Duration::from_secs(5)), None);
    }
}
