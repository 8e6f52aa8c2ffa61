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
        self.0.lock().count(now)
    }
}

impl State {
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        let due = self.told.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
        due.then(|| {
            self.told = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

/// The same for each of a few kinds.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<Vec<(&'static str, State)>>);

impl Reports {
    pub(crate) fn count(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut states = self.0.lock();
        match states.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, state)) => state.count(now),
            None => states.push_mut((kind, State::default())).1.count(now),
        }
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

    #[test]
    fn each_kind_has_lines_of_its_own() {
        let reports = Reports::default();
        let now = tokio::time::Instant::now().into_std();
        let told = ["a", "b", "a", "b"].map(|kind| reports.count(kind, now));
        assert_eq!(told, [Some(1), Some(1), None, None]);
    }
}
