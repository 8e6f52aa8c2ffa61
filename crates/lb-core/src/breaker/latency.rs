//! Latencies of the last minute, as a histogram that forgets in steps.
//!
//! The buckets are those of Gil Tene's HdrHistogram with two significant digits, as Traefik uses it:
//! exact up to 255 microseconds, above that 128 steps per power of two (at most 0.8 % wide).

use std::time::{Duration, Instant};

use super::window::Rolling;

const SLICES: usize = 6;
const SLICE: Duration = Duration::from_secs(10);

/// Up to one hour; longer latencies count as that.
const MAX_MICROS: u64 = 3_600_000_000;

/// Values below this have a bucket each; above, each power of two has half as many.
const EXACT: u64 = 256;
const BUCKETS: usize = bucket(MAX_MICROS) + 1;

#[derive(Debug)]
pub(super) struct Latencies {
    slices: Rolling<SLICES, Slice>,
}

#[derive(Clone, Debug)]
struct Slice {
    total: u64,
    counts: Box<[u32]>,
}

impl Latencies {
    pub(super) fn new(now: Instant) -> Self {
        let slice = Slice { total: 0, counts: vec![0; BUCKETS].into() };
        Self { slices: Rolling::new(SLICE, slice, now) }
    }

    pub(super) fn record(&mut self, latency: Duration, now: Instant) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROS).min(MAX_MICROS);
        let slice = self.slices.current(now, Slice::clear);
        slice.total += 1;
        let count = &mut slice.counts[bucket(micros)];
        *count = count.saturating_add(1);
    }

    /// Whole milliseconds below which this percentage of latencies lies; 0 when there are none.
    pub(super) fn quantile_ms(&mut self, percent: f64, now: Instant) -> i64 {
        let slices = self.slices.all(now, Slice::clear);
        let total: u64 = slices.iter().map(|slice| slice.total).sum();
        let wanted = ((percent / 100.0) * total as f64 + 0.5) as u64;
        let mut seen = 0;
        for index in 0..BUCKETS {
            seen += slices.iter().map(|slice| u64::from(slice.counts[index])).sum::<u64>();
            if seen >= wanted && seen > 0 {
                return (highest(index) / 1000) as i64;
            }
        }
        0
    }

    pub(super) fn clear(&mut self) {
        self.slices.clear(Slice::clear);
    }
}

impl Slice {
    fn clear(&mut self) {
        if self.total > 0 {
            self.total = 0;
            self.counts.fill(0);
        }
    }
}

const fn bucket(micros: u64) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    // Keep the eight leading bits; the highest of them is always set.
    let shift = micros.ilog2() - 7;
    (EXACT + (shift as u64 - 1) * (EXACT / 2) + (micros >> shift) - EXACT / 2) as usize
}

/// The highest number of microseconds that falls into a bucket.
const fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket - EXACT) / (EXACT / 2) + 1;
    let leading = (bucket - EXACT) % (EXACT / 2) + EXACT / 2;
    ((leading + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        for index in 1..BUCKETS {
            let lowest = highest(index - 1) + 1;
            assert_eq!((bucket(lowest), bucket(highest(index))), (index, index));
            assert!(highest(index) - lowest <= lowest / 128);
        }
        assert!(highest(BUCKETS - 1) >= MAX_MICROS);
    }

    #[test]
    fn quantiles_are_of_the_last_minute() {
        let t0 = crate::testing::origin();
        let at = |seconds| t0 + Duration::from_secs(seconds);
        let mut latencies = Latencies::new(t0);
        assert_eq!(latencies.quantile_ms(50.0, t0), 0);
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis), at(1));
        }
        for (percent, expected) in [(0.0, 1), (50.0, 50), (90.0, 90), (100.0, 100)] {
            assert_eq!(latencies.quantile_ms(percent, at(1)), expected, "{percent}");
        }
        latencies.record(Duration::MAX, at(31));
        assert_eq!(latencies.quantile_ms(50.0, at(59)), 51, "the first hundred still count");
        assert_eq!(latencies.quantile_ms(50.0, at(60)) / 10_000, 360, "only the last one is left");
        assert_eq!(latencies.quantile_ms(50.0, at(500)), 0);
    }
}
