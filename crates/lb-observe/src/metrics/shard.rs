//! One worker's counts. Its lock is taken by the worker and by a scrape, so it is all but never contended.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::label::{LabelId, Snapshot};
use super::sample::{Key, Sample};
use super::table::{Bounds, Table};

/// The metrics of one data-plane thread.
#[derive(Debug)]
pub struct Shard(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    requests: Table<Key>,
    /// Open connections by entry point (clients) or service (upstream). One worker may open and another
    /// close, so only the sum over the shards means something.
    open: FxHashMap<LabelId, i64>,
}

/// One open connection, counted until dropped.
#[derive(Debug)]
pub struct OpenConnection {
    shard: Arc<Shard>,
    label: LabelId,
}

impl Shard {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self(Mutex::new(Counts { requests: Table::new(bounds), open: FxHashMap::default() }))
    }

    pub fn record(&self, sample: &Sample) {
        self.0.lock().requests.record(sample);
    }

    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        self.0.lock().requests.keys().len()
    }

    /// Counts a connection until the result is dropped: a client's with an entry point's label
    /// (`traefik_open_connections`), one to a server with a service's (`lb_upstream_connections`).
    pub fn connection(self: &Arc<Self>, label: LabelId) -> OpenConnection {
        *self.0.lock().open.entry(label).or_insert(0) += 1;
        OpenConnection { shard: Arc::clone(self), label }
    }

    /// A copy of the counts; rows with dead labels are afterwards kept under what is left of their key.
    pub(super) fn scrape(&self, labels: &Snapshot) -> (Table<Key>, FxHashMap<LabelId, i64>) {
        let copy = {
            let counts = self.0.lock();
            (counts.requests.clone(), counts.open.clone())
        };
        self.forget(labels);
        copy
    }

    /// Keeps rows with dead labels under what is left of their key. The worker does not wait while they are searched for.
    pub(super) fn forget(&self, labels: &Snapshot) {
        let mut keys = self.0.lock().requests.keys().to_vec();
        keys.retain(|key| key.left(labels) != *key);
        let mut counts = self.0.lock();
        keys.iter().for_each(|key| counts.requests.fold(*key, key.left(labels)));
        counts.open.retain(|label, open| *open != 0 || !labels.is_dead(*label));
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        *self.shard.0.lock().open.entry(self.label).or_insert(0) -= 1;
    }
}
