//! Counters of what should be rare. They share one lock each; what a request always does is in the shards.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use rustc_hash::FxHashMap;

use super::family::Family;
use super::label::{LabelId, Snapshot};
use super::names::Definition;

/// A counter by label and a word out of a fixed set (a reason, a state).
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<FxHashMap<(LabelId, &'static str), u64>>);

impl Events {
    pub(super) fn count(&self, label: LabelId, word: &'static str) {
        *self.0.lock().entry((label, word)).or_insert(0) += 1;
    }

    /// The counter as a scrape shows it: without the words where `definition` has no label for them.
    pub(super) fn family(&self, definition: Definition, labels: &Snapshot) -> MetricFamily {
        // A copy: nobody who counts waits for texts to be written.
        let counts: Vec<_> = self.0.lock().iter().map(|(key, count)| (*key, *count)).collect();
        let mut family = Family::counter(definition);
        for ((label, word), count) in counts {
            if let Some(text) = labels.text(label) {
                family.push(&[text, word][..definition.labels.len()], count as f64);
            }
        }
        family.build()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn forget(&self, labels: &Snapshot) {
        self.0.lock().retain(|(label, _), _| !labels.is_dead(*label));
    }
}

/// What the probes of one server cost and found.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    pub(super) total: u64,
    pub(super) failed: u64,
    pub(super) sum: Duration,
    /// Per bucket of [`PROBE_BUCKETS`], not cumulative; the last is `+Inf`.
    pub(super) buckets: [u64; PROBE_BUCKETS.len() + 1],
}

/// Seconds, as the dashboards of the systems we replace expect them.
pub(super) const PROBE_BUCKETS: [f64; 7] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0];

impl Probes {
    pub(super) fn record(&mut self, passed: bool, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = PROBE_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(PROBE_BUCKETS.len());
        self.total += 1;
        self.failed += u64::from(!passed);
        self.sum += took;
        self.buckets[bucket] += 1;
    }
}
