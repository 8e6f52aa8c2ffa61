//! Passive health check: a server whose answers keep failing is taken out.
//!
//! What counts as a failure (never reached, or status 500 and above) is the caller's to say, as is
//! bringing the server back when no active check does.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Failures remembered per server at most (chosen: 16 KiB). With a larger `max_failed_attempts` several
/// failures share one mark, so that the trip comes early or late by one part in a thousand.
const MAX_MARKS: u32 = 1024;

/// When failures take a server out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveSettings {
    /// Sliding window in which failures are counted; also how long the server then stays out, unless
    /// an active health check brings it back.
    pub failure_window: Duration,
    pub max_failed_attempts: NonZeroU32,
}

/// The recent failures of one server.
#[derive(Clone, Debug, Default)]
pub struct FailureWindow {
    /// Oldest first; each stands for as many failures as share a mark, usually one.
    marks: VecDeque<Instant>,
    /// Failures that wait for their mark.
    pending: u32,
}

impl FailureWindow {
    /// Takes in one failure. `true`: the server has failed too often and is to be taken out; the
    /// window is then empty again.
    pub fn record_failure(&mut self, settings: &PassiveSettings, now: Instant) -> bool {
        let max = settings.max_failed_attempts.get();
        let per_mark = max.div_ceil(MAX_MARKS);
        self.pending += 1;
        if self.pending < per_mark {
            return false;
        }
        self.pending = 0;
        let outside = |mark: &Instant| now.saturating_duration_since(*mark) >= settings.failure_window;
        while self.marks.front().is_some_and(outside) {
            self.marks.pop_front();
        }
        self.marks.push_back(now);
        let full = self.marks.len() >= max.div_ceil(per_mark) as usize;
        if full {
            self.clear();
        }
        full
    }

    /// An answer that is no failure starts the count afresh.
    pub fn clear(&mut self) {
        self.marks.clear();
        self.pending = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.pending == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    /// Seconds of the failures (a negative one is a success) that trip a window of 10 s and `max`.
    fn trips(max: u32, seconds: &[i64]) -> Vec<i64> {
        let settings = PassiveSettings {
            failure_window: Duration::from_secs(10),
            max_failed_attempts: NonZeroU32::new(max).unwrap(),
        };
        let (t0, mut window) = (origin(), FailureWindow::default());
        let mut tripped = Vec::new();
        for &second in seconds {
            let now = t0 + Duration::from_secs(second.unsigned_abs());
            if second < 0 {
                window.clear();
            } else if window.record_failure(&settings, now) {
                tripped.push(second);
            }
        }
        tripped
    }

    #[test]
    fn failures_within_the_window_trip() {
        assert_eq!(trips(1, &[4]), [4]); // Traefik's default
        assert_eq!(trips(3, &[1, 2, 3]), [3]);
        assert_eq!(trips(3, &[1, 2, 11]), []); // the first has left the window
        assert_eq!(trips(3, &[1, 5, 11, 12]), [12]);
        assert_eq!(trips(3, &[1, 2, -3, 4, 5]), []); // a good answer clears
        assert_eq!(trips(2, &[1, 2, 3, 4]), [2, 4]); // a trip starts the count afresh
        assert_eq!(trips(2, &[9, 8]), [8]); // out of order, as threads may report
    }

    #[test]
    fn memory_is_bounded_and_the_trip_stays_close() {
        let settings = PassiveSettings {
            failure_window: Duration::from_secs(10),
            max_failed_attempts: NonZeroU32::new(1_000_000).unwrap(),
        };
        let (t0, mut window) = (origin(), FailureWindow::default());
        let needed = (1..).find(|_| window.record_failure(&settings, t0)).unwrap();
        assert!((999_000..=1_001_000).contains(&needed), "{needed}");
        assert!(window.marks.capacity() <= 2 * MAX_MARKS as usize);
        assert!(window.is_empty());
    }
}
