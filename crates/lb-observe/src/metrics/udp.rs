//! What flows of UDP count: one set for each entry point, shared by the workers.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::MetricFamily;

use super::family::Family;
use super::label::Snapshot;
use super::{Inner, names};

/// The counts of one UDP entry point.
#[derive(Debug, Default)]
pub struct UdpCounts {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Datagrams and bytes, from clients and to them.
    received: [AtomicU64; 2],
    sent: [AtomicU64; 2],
}

impl UdpCounts {
    pub fn opened(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub fn closed(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// A datagram of a client.
    pub fn received(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// A datagram for a client.
    pub fn sent(&self, bytes: usize) {
        add(&self.sent, bytes);
    }
}

fn add([datagrams, all]: &[AtomicU64; 2], bytes: usize) {
    datagrams.fetch_add(1, Ordering::Relaxed);
    all.fetch_add(bytes as u64, Ordering::Relaxed);
}

pub(super) fn collect(inner: &Inner, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    let mut flows = Family::gauge(names::UDP_FLOWS);
    let mut begun = Family::counter(names::UDP_FLOWS_BEGUN);
    let mut datagrams = Family::counter(names::UDP_DATAGRAMS);
    let mut bytes = Family::counter(names::UDP_BYTES);
    for (label, counts) in &*inner.udp.lock() {
        let Some(text) = labels.text(*label) else { continue };
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // In this order: what has ended has begun before.
        let ended = number(&counts.ended);
        let all = number(&counts.begun);
        flows.push(&[text], all.saturating_sub(ended) as f64);
        begun.push(&[text], all as f64);
        for (way, [count, size]) in [("in", &counts.received), ("out", &counts.sent)] {
            datagrams.push(&[text, way], number(count) as f64);
            bytes.push(&[text, way], number(size) as f64);
        }
    }
    families.extend([flows, begun, datagrams, bytes].map(Family::build));
}
