//! Rate limiting per source: a token bucket with reservations.
//!
//! As in Traefik, a request that finds no token may reserve the next one and wait for it, if the wait is
//! short; otherwise it is rejected and told when to come back. Unlike there, a source that pauses never
//! gets more than its bucket would have refilled to: forgetting a source must not be a way around.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

mod buckets;

use buckets::{Bucket, Buckets};

/// Sources remembered at a time, as in Traefik; beyond that the one unused for longest is forgotten.
const MAX_SOURCES: usize = 65_536;

/// Independent parts, so that workers rarely wait for each other. Chosen.
const SHARDS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests per `period`; 0 is no limit, as in Traefik.
    pub average: u64,
    /// Zero is one second, as in Traefik.
    pub period: Duration,
    /// Requests that may come at once; 0 is 1, as in Traefik.
    pub burst: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Proceed,
    /// A token is reserved; go on after this delay.
    Wait(Duration),
    /// Nothing is reserved; a token will be free after this time.
    Reject {
        retry_after: Duration,
    },
}

/// Token buckets of many sources. Shared by reference.
#[derive(Debug)]
pub struct Limiter {
    /// `None`: no limit.
    rate: Option<Rate>,
    /// Sources are known by a secret hash of 64 bits: that two of 65,536 share a bucket has a
    /// probability of 1 in 8 billion, and nobody can aim for it.
    hasher: RandomState,
    shards: [Mutex<Buckets>; SHARDS],
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
    max_delay: Duration,
}

impl Limiter {
    pub fn new(settings: Settings) -> Self {
        let buckets = || Mutex::new(Buckets::new(MAX_SOURCES / SHARDS));
        Self {
            rate: Rate::new(settings),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| buckets()),
        }
    }

    /// Takes a token for one request of a source.
    pub fn take(&self, source: &[u8], now: Instant) -> Decision {
        let Some(rate) = self.rate else { return Decision::Proceed };
        let hash = self.hasher.hash_one(source);
        // The map inside uses the low bits.
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        let mut buckets = shard.lock();
        let full = |bucket: &Bucket| rate.tokens(bucket, now) >= rate.burst;
        let bucket = buckets.touch(hash, Bucket { tokens: rate.burst, at: now }, full);
        rate.take(bucket, now)
    }

    /// The longest a request may be told to wait.
    pub fn max_delay(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| rate.max_delay)
    }

    /// Sources remembered.
    pub fn sources(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Rate {
    fn new(settings: Settings) -> Option<Self> {
        if settings.average == 0 {
            return None;
        }
        let period = if settings.period.is_zero() { Duration::from_secs(1) } else { settings.period };
        let per_second = settings.average as f64 / period.as_secs_f64();
        // Half the time between two requests, for whole requests per second; half a second for slow rates.
        let max_delay = Duration::from_secs_f64(0.5 / per_second.floor().max(1.0));
        Some(Self { per_second, burst: settings.burst.max(1) as f64, max_delay })
    }

    fn tokens(&self, bucket: &Bucket, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + elapsed * self.per_second).min(self.burst)
    }

    fn take(&self, bucket: &mut Bucket, now: Instant) -> Decision {
        let left = self.tokens(bucket, now) - 1.0;
        let wait = Duration::try_from_secs_f64((-left).max(0.0) / self.per_second).unwrap_or(Duration::MAX);
        if wait > self.max_delay {
            return Decision::Reject { retry_after: wait };
        }
        // Times may arrive slightly out of order from several threads: never refill the same time twice.
        *bucket = Bucket { tokens: left, at: bucket.at.max(now) };
        if wait.is_zero() { Decision::Proceed } else { Decision::Wait(wait) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::origin;

    fn limiter(average: u64, period: Duration, burst: u64) -> Limiter {
        Limiter::new(Settings { average, period, burst })
    }

    /// Decisions for requests of one source at these milliseconds: `ok`, a wait or `-` and the time to
    /// come back, in milliseconds.
    fn run(average: u64, period: Duration, burst: u64, millis: &[u64]) -> String {
        let limiter = limiter(average, period, burst);
        let start = origin();
        let decide = |millis: &u64| match limiter.take(b"source", start + Duration::from_millis(*millis)) {
            Decision::Proceed => "ok".to_owned(),
            Decision::Wait(delay) => delay.as_millis().to_string(),
            Decision::Reject { retry_after } => format!("-{}", retry_after.as_millis()),
        };
        millis.iter().map(decide).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_burst_passes_then_a_short_wait_then_rejection() {
        let second = Duration::from_secs(1);
        assert_eq!(run(1, second, 3, &[0, 0, 0, 0, 600, 600, 5_000]), "ok ok ok -1000 400 -1400 ok");
        assert_eq!(run(10, second, 1, &[0, 10, 60, 100, 150]), "ok -90 40 -100 50");
        assert_eq!(run(6, 60 * second, 1, &[0, 0, 9_000, 9_600, 10_000]), "ok -10000 -1000 400 -10000");
        assert_eq!(run(0, second, 1, &[0, 0, 0]), "ok ok ok");
        assert_eq!(run(5, Duration::ZERO, 0, &[0, 0, 100, 150]), "ok -200 100 -250");
    }

    #[test]
    fn the_longest_wait_is_half_the_time_between_requests() {
        for (average, seconds, expected) in
            [(1, 1, 500), (10, 1, 50), (19, 10, 500), (29, 10, 250), (1, 60, 500)]
        {
            let limiter = limiter(average, Duration::from_secs(seconds), 1);
            assert_eq!(limiter.max_delay().as_millis(), expected, "{average} per {seconds} s");
        }
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_forgets_the_idle_ones_first() {
        let limiter = limiter(1, Duration::from_secs(1), 1);
        let now = origin();
        for number in 0..200_000_u32 {
            limiter.take(&number.to_be_bytes(), now);
            limiter.take(b"busy", now);
        }
        assert_eq!(limiter.sources(), MAX_SOURCES);
        assert!(
            matches!(limiter.take(b"busy", now), Decision::Reject { .. }),
            "a busy source is not forgotten"
        );
        assert_eq!(limiter.take(&0_u32.to_be_bytes(), now), Decision::Proceed);
    }

    #[test]
    fn sources_whose_bucket_is_full_again_make_room() {
        let limiter = limiter(1, Duration::from_secs(1), 1);
        let start = origin();
        for number in 0..200_000_u32 {
            limiter.take(&number.to_be_bytes(), start + number * Duration::from_millis(1));
        }
        assert!(limiter.sources() < 2_000, "{}", limiter.sources());
    }

    proptest! {
        /// Whatever the pattern, no more than `burst + rate * t` requests have gone on by any time `t`.
        #[test]
        fn no_more_than_burst_and_rate_pass(
            average in 1..50_u64,
            period in 1..5_u64,
            burst in 1..20_u64,
            gaps in prop::collection::vec(prop_oneof![Just(0), 0..100_u64, 0..10_000_u64], 1..300),
        ) {
            let limiter = limiter(average, Duration::from_secs(period), burst);
            let rate = average as f64 / period as f64;
            let mut now = Duration::ZERO;
            let mut passed = Vec::new();
            let start = origin();
            for gap in gaps {
                now += Duration::from_millis(gap);
                match limiter.take(b"source", start + now) {
                    Decision::Proceed => passed.push(now),
                    Decision::Wait(delay) => {
                        prop_assert!(delay <= limiter.max_delay());
                        passed.push(now + delay);
                    }
                    Decision::Reject { retry_after } => prop_assert!(retry_after > limiter.max_delay()),
                }
            }
            passed.sort();
            for (from, first) in passed.iter().enumerate() {
                for (to, last) in passed.iter().enumerate().skip(from) {
                    let most = burst as f64 + rate * (*last - *first).as_secs_f64();
                    prop_assert!((to - from + 1) as f64 <= most + 1e-5, "{} in {:?}", to - from + 1, *last - *first);
                }
            }
        }
    }
}
