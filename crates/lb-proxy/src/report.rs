//! Log lines about what may happen to every request: said now and then, with how often it was.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines are at least this far apart; chosen.
const EVERY: Duration = Duration::from_secs(10);

/// Something that is counted always and told rarely.
#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    untold: u64,
    told: Option<Instant>,
}

impl Report {
    /// How often it has happened since the last line, this time included, when a line is due.
    pub(crate) fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.untold += 1;
        let due = state.told.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
        due.then(|| {
            state.told = Some(now);
            std::mem::take(&mut state.untold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_has_happened_since_the_last_one() {
        let report = Report::default();
        let start = tokio::time::Instant::now().into_std();
        let count = |millis| report.count(start + Duration::from_millis(millis));
        assert_eq!([0, 1, 9_999, 10_000, 10_001].map(count), [Some(1), None, None, Some(3), None]);
    }
}
