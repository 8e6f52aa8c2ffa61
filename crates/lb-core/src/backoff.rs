//! How long to wait before a retry.

use std::time::Duration;

/// Longest delay before jitter, that of the back-off library Traefik uses.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// The delay before retry number `retry` (0 is the first), of `attempts` tries in total.
///
/// It grows exponentially from `initial`, by a factor chosen such that it has doubled after all attempts,
/// and is spread by +-50 % with `random`, a number from the whole range. An `initial` of zero means at once.
pub fn delay(retry: u32, attempts: u32, initial: Duration, random: u64) -> Duration {
    if attempts < 2 || initial.is_zero() {
        return Duration::ZERO;
    }
    let growth = (f64::from(retry) / f64::from(attempts - 1)).exp2();
    let base = (initial.as_secs_f64() * growth).min(MAX_DELAY.max(initial).as_secs_f64());
    let jitter = 0.5 + random as f64 / u64::MAX as f64;
    Duration::try_from_secs_f64(base * jitter).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_over_all_attempts_and_are_spread_by_half() {
        let millis =
            |retry, attempts, random| delay(retry, attempts, Duration::from_millis(100), random).as_millis();
        // Retry, attempts, the least, middle and longest delay.
        for (retry, attempts, expected) in [
            (0, 2, [50, 100, 150]),
            (0, 3, [50, 100, 150]),
            (1, 3, [70, 141, 212]),
            (4, 5, [100, 200, 300]),
            (0, 1, [0, 0, 0]),
        ] {
            assert_eq!([0, u64::MAX / 2, u64::MAX].map(|random| millis(retry, attempts, random)), expected);
        }
        assert_eq!(delay(3, 5, Duration::ZERO, 7), Duration::ZERO);
        assert_eq!(delay(100, 2, Duration::from_secs(10), u64::MAX / 2).as_secs(), 60);
        assert!(delay(u32::MAX, 2, Duration::MAX, u64::MAX) >= Duration::from_secs(u64::MAX / 2));
    }
}
