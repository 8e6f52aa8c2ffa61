//! At most so many requests at a time per source.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts the requests in flight of every source. Memory is bounded by the requests in flight.
#[derive(Debug)]
pub struct InFlightLimiter {
    amount: u64,
    counts: Mutex<HashMap<Arc<[u8]>, u64>>,
}

/// One request in flight; dropping it makes room for another.
#[derive(Debug)]
#[must_use = "dropping the permit ends the request"]
pub struct Permit {
    limiter: Arc<InFlightLimiter>,
    source: Arc<[u8]>,
}

impl InFlightLimiter {
    /// `amount` requests at a time per source; 0 refuses all, as in Traefik.
    pub fn new(amount: u64) -> Arc<Self> {
        Arc::new(Self { amount, counts: Mutex::default() })
    }

    /// `None` if the source has as many requests in flight as it may.
    pub fn acquire(self: &Arc<Self>, source: &[u8]) -> Option<Permit> {
        if self.amount == 0 {
            return None;
        }
        let mut counts = self.counts.lock();
        let source = match counts.get_key_value(source) {
            Some((_, &count)) if count >= self.amount => return None,
            Some((known, _)) => known.clone(),
            None => source.into(),
        };
        *counts.entry(source.clone()).or_insert(0) += 1;
        drop(counts);
        Some(Permit { limiter: self.clone(), source })
    }

    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Sources with a request in flight.
    pub fn sources(&self) -> usize {
        self.counts.lock().len()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limiter.counts.lock();
        if let Entry::Occupied(mut count) = counts.entry(self.source.clone()) {
            *count.get_mut() -= 1; // at least 1: every permit stands for one
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_limit_and_leaves_nothing_behind() {
        let limiter = InFlightLimiter::new(2);
        let [first, second] = [limiter.acquire(b"a"), limiter.acquire(b"a")];
        assert!(first.is_some() && second.is_some());
        assert!(limiter.acquire(b"a").is_none());
        let other = limiter.acquire(b"b");
        assert!(other.is_some());
        drop(first);
        let third = limiter.acquire(b"a");
        assert!(third.is_some());
        assert_eq!(limiter.sources(), 2);
        drop((second, third, other));
        assert_eq!(limiter.sources(), 0);
    }

    #[test]
    fn an_amount_of_zero_refuses_everything() {
        assert!(InFlightLimiter::new(0).acquire(b"a").is_none());
    }

    #[test]
    fn the_limit_holds_across_threads() {
        let limiter = InFlightLimiter::new(3);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let permit = limiter.acquire(b"a");
                        let in_flight = limiter.counts.lock().get(b"a".as_slice()).copied().unwrap_or(0);
                        assert!(in_flight <= 3);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(limiter.sources(), 0);
    }
}
