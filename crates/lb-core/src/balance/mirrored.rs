//! Which requests of a service are mirrored: Traefik's counters, as arithmetic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the requests of one `mirroring` service, across workers and reloads.
#[derive(Clone, Debug, Default)]
pub struct Mirrored(Arc<AtomicU64>);

impl Mirrored {
    /// Number of this request, from 1.
    pub fn next(&self) -> u64 {
        // Relaxed: only that no two requests get the same number matters.
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Whether request `number` goes to a mirror with `percent`: whenever the mirror has had less than its share of the
/// requests so far, this one included.
pub fn is_mirrored(number: u64, percent: u8) -> bool {
    // After n requests a mirror has had n * percent / 100 of them, rounded up.
    let share = |requests: u64| (u128::from(requests) * u128::from(percent)).div_ceil(100);
    share(number) > share(number.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `#` for each request that is mirrored.
    fn first(count: u64, percent: u8) -> String {
        (1..=count).map(|number| if is_mirrored(number, percent) { '#' } else { '.' }).collect()
    }

    #[test]
    fn shares_are_even() {
        assert_eq!(first(6, 100), "######");
        assert_eq!(first(6, 0), "......");
        assert_eq!(first(6, 50), "#.#.#.");
        assert_eq!(first(10, 30), "#..#..#...");
        assert_eq!(first(200, 1).matches('#').count(), 2);
    }

    proptest! {
        /// Traefik: `count * 100 < total * percent` selects, and counts.
        #[test]
        fn they_are_those_of_traefiks_counters(percent in 0_u8..=100) {
            let mut count = 0_u64;
            for total in 1..1000_u64 {
                let selected = count * 100 < total * u64::from(percent);
                count += u64::from(selected);
                prop_assert_eq!(is_mirrored(total, percent), selected);
            }
        }
    }
}
