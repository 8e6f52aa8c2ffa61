//! Counts per [`Key`], stored flat so that a scrape copies them with one `memcpy`.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::sample::{Key, Sample};

/// Upper bounds of all histograms, in nanoseconds, ascending.
///
/// Traefik's buckets and ours are kept as one list: each exposed histogram sums the cells it needs.
#[derive(Clone, Debug)]
pub(super) struct Bounds(Vec<u64>);

impl Bounds {
    pub(super) fn new(seconds: impl IntoIterator<Item = f64>) -> Self {
        let mut bounds: Vec<u64> = seconds.into_iter().map(nanos).collect();
        bounds.sort_unstable();
        bounds.dedup();
        Self(bounds)
    }

    /// Index of the bucket; the one after the last bound is `+Inf`.
    fn bucket(&self, nanos: u64) -> usize {
        // A dozen bounds: scanning beats bisecting, and most requests end in the first.
        self.0.iter().position(|bound| nanos <= *bound).unwrap_or(self.0.len())
    }

    fn buckets(&self) -> usize {
        self.0.len() + 1
    }

    /// Requests in `cells` that took at most `bound` seconds, `bound` being one of the list.
    pub(super) fn cumulative(&self, cells: &[u64], bound: f64) -> u64 {
        let within = self.0.partition_point(|b| *b <= nanos(bound));
        cells.iter().take(within).sum()
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const COUNT: usize = 0;
const REQUEST_BYTES: usize = 1;
const RESPONSE_BYTES: usize = 2;
const SUM: usize = 3;
const SERVICE_SUM: usize = 4;
const BUCKETS: usize = 5;

/// The cells of one key, or the sum of several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    cells: &'a [u64],
    buckets: usize,
}

/// A histogram as stored: a bucket's own count, not the cumulative one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Histogram<'a> {
    pub(super) sum: Duration,
    pub(super) cells: &'a [u64],
}

impl<'a> Row<'a> {
    pub(super) fn count(self) -> u64 {
        self.cells[COUNT]
    }

    pub(super) fn request_bytes(self) -> u64 {
        self.cells[REQUEST_BYTES]
    }

    pub(super) fn response_bytes(self) -> u64 {
        self.cells[RESPONSE_BYTES]
    }

    pub(super) fn duration(self) -> Histogram<'a> {
        self.histogram(SUM, BUCKETS)
    }

    pub(super) fn service_duration(self) -> Histogram<'a> {
        self.histogram(SERVICE_SUM, BUCKETS + self.buckets)
    }

    fn histogram(self, sum: usize, first: usize) -> Histogram<'a> {
        let cells = &self.cells[first..first + self.buckets];
        Histogram { sum: Duration::from_nanos(self.cells[sum]), cells }
    }
}

/// Rows by key `K`.
#[derive(Clone, Debug)]
pub(super) struct Table<K> {
    bounds: Bounds,
    slots: FxHashMap<K, usize>,
    keys: Vec<K>,
    /// `stride` cells for each of `keys`, in their order.
    cells: Vec<u64>,
    stride: usize,
    /// The slot used last: requests of one client tend to repeat.
    last: usize,
}

impl<K: Copy + Eq + std::hash::Hash> Table<K> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let stride = BUCKETS + 2 * bounds.buckets();
        Self { bounds, slots: FxHashMap::default(), keys: Vec::new(), cells: Vec::new(), stride, last: 0 }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn row_mut(&mut self, key: K) -> &mut [u64] {
        if self.keys.get(self.last) != Some(&key) {
            self.last = *self.slots.entry(key).or_insert_with(|| {
                self.keys.push(key);
                self.cells.resize(self.cells.len() + self.stride, 0);
                self.keys.len() - 1
            });
        }
        &mut self.cells[self.last * self.stride..][..self.stride]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (K, Row<'_>)> {
        let buckets = self.bounds.buckets();
        let rows = self.cells.chunks_exact(self.stride).map(move |cells| Row { cells, buckets });
        self.keys.iter().copied().zip(rows)
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }

    /// Moves the row of `from`, if there is one, to that of `to`.
    pub(super) fn fold(&mut self, from: K, to: K) {
        let Some(slot) = self.slots.remove(&from) else { return };
        let last = self.keys.len() - 1;
        let cells = self.cells[slot * self.stride..][..self.stride].to_vec();
        // The last row takes its place.
        self.keys.swap_remove(slot);
        self.cells.copy_within(last * self.stride.., slot * self.stride);
        self.cells.truncate(last * self.stride);
        if let Some(moved) = self.keys.get(slot) {
            self.slots.insert(*moved, slot);
        }
        self.last = 0;
        self.add(to, Row { cells: &cells, buckets: self.bounds.buckets() });
    }

    pub(super) fn add(&mut self, key: K, row: Row<'_>) {
        for (cell, more) in self.row_mut(key).iter_mut().zip(row.cells) {
            // Durations are the only cells that a hostile clock could overflow.
            *cell = cell.wrapping_add(*more);
        }
    }

    /// The rows summed under what `group` makes of their key; `None` leaves a row out.
    pub(super) fn grouped<G: Copy + Eq + std::hash::Hash>(&self, group: impl Fn(K) -> Option<G>) -> Table<G> {
        let mut table = Table::new(self.bounds.clone());
        for (key, row) in self.rows() {
            if let Some(key) = group(key) {
                table.add(key, row);
            }
        }
        table
    }
}

impl Table<Key> {
    pub(super) fn record(&mut self, sample: &Sample) {
        let duration = saturating_nanos(sample.duration);
        let service_duration = saturating_nanos(sample.service_duration);
        let bucket = BUCKETS + self.bounds.bucket(duration);
        let service_bucket = BUCKETS + self.bounds.buckets() + self.bounds.bucket(service_duration);
        let row = self.row_mut(Key::of(sample));
        row[COUNT] += 1;
        row[REQUEST_BYTES] += sample.request_bytes;
        row[RESPONSE_BYTES] += sample.response_bytes;
        row[SUM] = row[SUM].wrapping_add(duration);
        row[SERVICE_SUM] = row[SERVICE_SUM].wrapping_add(service_duration);
        row[bucket] += 1;
        row[service_bucket] += 1;
    }
}
