//! Spans and records that wait to be sent: many threads put them in, one takes them out, nobody waits.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::wire;
use crate::trace;

/// What all threads together may leave waiting. Chosen: some ten thousand spans.
const LIMIT_BYTES: usize = 16 << 20;
/// What a single thread may leave waiting at least.
const LEAST_BYTES: usize = 1 << 20;
/// From here on a thread says that there is something to send. Chosen, well below the limit.
const WAKE_BYTES: usize = 256 << 10;

/// Items of one signal, by thread.
pub struct Queue {
    pending: Box<[Mutex<Pending>]>,
    limit: usize,
    /// Bytes that were taken and are not [settled](Self::settle).
    taken: AtomicUsize,
    dropped: AtomicU64,
    sent: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Pending {
    /// Fields, one after the other.
    bytes: Vec<u8>,
}

impl Queue {
    /// For so many threads; `wake` is called when much has come together.
    pub fn new(threads: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let threads = threads.max(1);
        Self {
            pending: (0..threads).map(|_| Mutex::default()).collect(),
            limit: (LIMIT_BYTES / threads).max(LEAST_BYTES),
            taken: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            wake: Box::new(wake),
        }
    }

    /// Puts in `count` items, or counts them as dropped when too much waits already.
    pub(crate) fn put(&self, thread: usize, items: &[u8], count: u64) {
        let mut pending = self.pending[thread % self.pending.len()].lock();
        let before = pending.bytes.len();
        let elsewhere = self.taken.load(Ordering::Relaxed) / self.pending.len();
        if before + items.len() + elsewhere > self.limit {
            drop(pending);
            return self.lost(count);
        }
        pending.bytes.extend_from_slice(items);
        let after = pending.bytes.len();
        drop(pending);
        if before < WAKE_BYTES && after >= WAKE_BYTES {
            (self.wake)();
        }
    }

    /// Puts in a line of a log: an object in JSON.
    pub(crate) fn put_line(&self, thread: usize, at: SystemTime, json: &[u8]) {
        let mut item = Vec::with_capacity(json.len() + 16);
        wire::begin(&mut item, super::ITEM, json.len() + 8);
        item.extend_from_slice(&trace::unix_nanos(at).to_le_bytes());
        item.extend_from_slice(json);
        self.put(thread, &item, 1);
    }

    /// Takes everything out, in pieces of at most `most` bytes, where single items are not larger, with the number of
    /// items in each. Each piece counts as waiting until it is settled.
    pub fn take(&self, most: usize) -> Vec<(Vec<u8>, u64)> {
        let mut batches = Vec::new();
        for pending in &self.pending {
            let bytes = {
                let mut pending = pending.lock();
                self.taken.fetch_add(pending.bytes.len(), Ordering::Relaxed);
                std::mem::take(&mut pending.bytes)
            };
            split(&bytes, most, &mut batches);
        }
        batches
    }

    /// So many bytes of what was taken are gone, one way or the other.
    pub fn settle(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// So many items were given up.
    pub fn lost(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// So many items have arrived.
    pub fn arrived(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

/// Puts `items` behind what is in `batches`, pieces of at most `most` bytes with the number of items in each.
pub fn split(items: &[u8], most: usize, batches: &mut Vec<(Vec<u8>, u64)>) {
    let mut rest = items;
    while !rest.is_empty() {
        let (item, behind) = rest.split_at(wire::first_end(rest));
        rest = behind;
        match batches.last_mut() {
            Some((batch, count)) if batch.len() + item.len() <= most => {
                batch.extend_from_slice(item);
                *count += 1;
            }
            _ => batches.push((item.to_vec(), 1)),
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn item(length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        wire::bytes(&mut out, crate::otlp::ITEM, &vec![b'x'; length]);
        out
    }

    #[test]
    fn what_waits_is_bounded_and_taken_in_pieces() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let queue = Queue::new(2, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        for thread in [0, 1, 2] {
            queue.put(thread, &item(1000), 1);
        }
        let pieces = queue.take(2100).into_iter().map(|(bytes, count)| (bytes.len(), count));
        assert_eq!(pieces.collect::<Vec<_>>(), [(2 * 1003, 2), (1003, 1)]);
        assert!(queue.take(100).is_empty());
        queue.settle(3 * 1003);
        for _ in 0..9000 {
            queue.put(0, &item(1000), 1);
        }
        let waiting: u64 = queue.take(1 << 20).iter().map(|(_, count)| count).sum();
        let (_, dropped) = queue.counts();
        assert_eq!(waiting + dropped, 9000);
        assert!(dropped > 0);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        // What somebody tries to send waits still, and is shared by all threads.
        let fill = || {
            (0..9000).for_each(|_| queue.put(0, &item(1000), 1));
            queue.take(1 << 20).iter().map(|(_, count)| count).sum::<u64>()
        };
        let more = fill();
        assert!((waiting + more) * 1003 <= LIMIT_BYTES as u64 && more < waiting, "{waiting} {more}");
        queue.settle((waiting + more) as usize * 1003);
        assert_eq!(fill(), waiting);
    }
}
