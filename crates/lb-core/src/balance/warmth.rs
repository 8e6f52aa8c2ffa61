//! Slow start: a server that appears or comes back gets a growing share of its weight.
//!
//! The share grows in [`STEPS`] steps, so that the schedule is rebuilt that often and not per request.

use std::time::{Duration, Instant};

/// Steps from the least share to the whole weight. Chosen: each is a tenth.
const STEPS: u32 = 10;

/// A whole share, in the thousandths that shares are counted in.
pub(super) const WHOLE: u64 = 1000;

/// How the share of a server grows; names and defaults are those of Envoy's `slow_start_config`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// From the least share to the whole.
    pub duration: Duration,
    /// 1: the share grows evenly; above, faster at first; below, slower at first.
    pub aggression: f64,
    /// The least share in percent, 1 to 100.
    pub min_weight_percent: u8,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { duration: Duration::from_secs(30), aggression: 1.0, min_weight_percent: 10 }
    }
}

/// How used to traffic one server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Warmth {
    #[default]
    Warm,
    /// There from the beginning of the service. Where all are new nobody has to be spared, so it is warm at
    /// once if it begins to serve within the length of a slow start.
    Fresh {
        since: Instant,
    },
    /// Out, or back for less than a step.
    Cold,
    Rising {
        since: Instant,
        step: u32,
    },
}

impl Warmth {
    /// What it is at `now`, the server being out (or not) of the rotation.
    pub(super) fn next(self, out: bool, settings: &SlowStart, now: Instant) -> Self {
        match self {
            Self::Fresh { since } if out && now.saturating_duration_since(since) < settings.duration => self,
            _ if out => Self::Cold,
            Self::Warm | Self::Fresh { .. } => Self::Warm,
            Self::Cold => Self::Rising { since: now, step: 0 },
            Self::Rising { since, .. } => {
                let passed = now.saturating_duration_since(since).as_nanos() * u128::from(STEPS);
                match u32::try_from(passed / settings.duration.as_nanos().max(1)) {
                    Ok(step) if step < STEPS => Self::Rising { since, step },
                    _ => Self::Warm,
                }
            }
        }
    }

    /// Its share of its weight, in thousandths, above 0.
    pub(super) fn share(self, settings: &SlowStart) -> u64 {
        let step = match self {
            Self::Warm | Self::Fresh { .. } => return WHOLE,
            Self::Cold => 0,
            Self::Rising { step, .. } => step,
        };
        let grown = (f64::from(step) / f64::from(STEPS)).powf(1.0 / settings.aggression);
        let least = f64::from(settings.min_weight_percent) / 100.0;
        ((grown.max(least) * WHOLE as f64).round() as u64).clamp(1, WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    const SETTINGS: SlowStart =
        SlowStart { duration: Duration::from_secs(10), aggression: 1.0, min_weight_percent: 10 };

    /// Shares at each second for a server that is in (`+`) or out (`-`) then, from `start` on.
    fn shares(start: Warmth, t0: Instant, seconds: &str) -> Vec<u64> {
        let mut warmth = start;
        let each = seconds.chars().zip(0..).map(|(c, second)| {
            warmth = warmth.next(c == '-', &SETTINGS, t0 + Duration::from_secs(second));
            warmth.share(&SETTINGS)
        });
        each.collect()
    }

    #[test]
    fn the_share_grows_by_steps_after_an_absence() {
        let t0 = origin();
        let rise = [100, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1000];
        assert_eq!(shares(Warmth::Cold, t0, "++++++++++++"), rise);
        assert_eq!(shares(Warmth::Warm, t0, "+-+++"), [1000, 100, 100, 100, 200]);
        assert_eq!(shares(Warmth::Cold, t0, "++++-+++"), [100, 100, 200, 300, 100, 100, 100, 200]);
    }

    #[test]
    fn who_is_there_from_the_start_is_spared_nothing() {
        let t0 = origin();
        let fresh = Warmth::Fresh { since: t0 };
        assert_eq!(shares(fresh, t0, "--+"), [1000; 3], "it only waited for its first probe");
        assert_eq!(shares(fresh, t0, "+-+++"), [1000, 100, 100, 100, 200], "it did serve before");
        assert_eq!(shares(fresh, t0, "-----------++")[9..], [1000, 100, 100, 100], "it came late");
    }

    #[test]
    fn aggression_bends_the_curve() {
        let at_half = |aggression, min_weight_percent| {
            let settings = SlowStart { aggression, min_weight_percent, ..SETTINGS };
            Warmth::Rising { since: origin(), step: 5 }.share(&settings)
        };
        assert_eq!([at_half(1.0, 10), at_half(2.0, 10), at_half(0.5, 10)], [500, 707, 250]);
        assert_eq!([at_half(1.0, 60), at_half(1.0, 100), at_half(0.01, 1)], [600, 1000, 10]);
    }
}
