//! A window over recent time that moves in steps.

use std::time::{Duration, Instant};

/// The last `N` slices of time, each with something counted in it.
#[derive(Debug)]
pub(super) struct Rolling<const N: usize, T> {
    slices: [T; N],
    length: Duration,
    /// Start of the newest slice; the one after it in the array is the oldest.
    newest_since: Instant,
    newest: usize,
}

impl<const N: usize, T: Clone> Rolling<N, T> {
    pub(super) fn new(length: Duration, empty: T, now: Instant) -> Self {
        Self { slices: std::array::from_fn(|_| empty.clone()), length, newest_since: now, newest: 0 }
    }
}

impl<const N: usize, T> Rolling<N, T> {
    /// The slice to count in. `clear` empties those that time has passed over.
    pub(super) fn current(&mut self, now: Instant, clear: fn(&mut T)) -> &mut T {
        self.advance(now, clear);
        &mut self.slices[self.newest]
    }

    /// All slices, in no particular order.
    pub(super) fn all(&mut self, now: Instant, clear: fn(&mut T)) -> &[T; N] {
        self.advance(now, clear);
        &self.slices
    }

    pub(super) fn clear(&mut self, clear: fn(&mut T)) {
        self.slices.iter_mut().for_each(clear);
    }

    fn advance(&mut self, now: Instant, clear: fn(&mut T)) {
        // Times may arrive slightly out of order from several threads: the past counts as the present.
        let elapsed = now.saturating_duration_since(self.newest_since);
        if elapsed < self.length {
            return;
        }
        let steps = u32::try_from(elapsed.as_nanos() / self.length.as_nanos()).unwrap_or(u32::MAX);
        for _ in 0..steps.min(N as u32) {
            self.newest = (self.newest + 1) % N;
            clear(&mut self.slices[self.newest]);
        }
        self.newest_since += self.length.checked_mul(steps).unwrap_or(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_forgotten_one_by_one() {
        let t0 = crate::testing::origin();
        let clear: fn(&mut u32) = |count| *count = 0;
        let mut window = Rolling::<3, u32>::new(Duration::from_secs(1), 0, t0);
        // Milliseconds at which one is counted, and the sum afterwards.
        for (millis, expected) in
            [(0, 1), (900, 2), (1_500, 3), (2_900, 4), (2_000, 5), (3_000, 4), (4_100, 4), (9_000, 1)]
        {
            let now = t0 + Duration::from_millis(millis);
            *window.current(now, clear) += 1;
            assert_eq!(window.all(now, clear).iter().sum::<u32>(), expected, "at {millis}");
        }
    }
}
