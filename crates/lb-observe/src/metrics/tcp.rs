//! What TCP services count.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use rustc_hash::FxHashMap;

use super::events::Events;
use super::family::Family;
use super::label::{LabelId, Snapshot};
use super::names;

/// The counts of one TCP service.
#[derive(Debug, Default)]
pub struct TcpCounts {
    open: AtomicI64,
    /// From clients, passed on to servers.
    pub received: AtomicU64,
    /// From servers, passed on to clients.
    pub sent: AtomicU64,
}

/// One open connection, counted until dropped.
#[derive(Debug)]
pub struct OpenTcp<'c>(&'c TcpCounts);

impl TcpCounts {
    pub fn open(&self) -> OpenTcp<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenTcp(self)
    }
}

impl Drop for OpenTcp<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct Tcp {
    services: Mutex<FxHashMap<LabelId, Arc<TcpCounts>>>,
    pub(super) ended: Events,
    pub(super) dial_failures: Events,
}

impl Tcp {
    pub(super) fn counts(&self, service: LabelId) -> Arc<TcpCounts> {
        Arc::clone(self.services.lock().entry(service).or_default())
    }

    pub(super) fn forget(&self, labels: &Snapshot) {
        self.ended.forget(labels);
        self.dial_failures.forget(labels);
        // One whose connections outlive it is shown until they are gone.
        self.services
            .lock()
            .retain(|service, counts| counts.open.load(Ordering::Relaxed) != 0 || !labels.is_dead(*service));
    }

    pub(super) fn collect(&self, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
        let mut open = Family::gauge(names::TCP_OPEN);
        let mut bytes = Family::counter(names::TCP_BYTES);
        for (service, counts) in &*self.services.lock() {
            let now_open = counts.open.load(Ordering::Relaxed);
            let Some(service) = labels.text_while(now_open != 0, *service) else { continue };
            open.push(&[service], now_open as f64);
            for (direction, count) in [("in", &counts.received), ("out", &counts.sent)] {
                bytes.push(&[service, direction], count.load(Ordering::Relaxed) as f64);
            }
        }
        families.extend([
            open.build(),
            bytes.build(),
            self.ended.family(names::TCP_CONNECTIONS, labels),
            self.dial_failures.family(names::TCP_DIAL_FAILURES, labels),
        ]);
    }
}
