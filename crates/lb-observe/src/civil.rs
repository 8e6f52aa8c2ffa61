//! Points in time as text, UTC. A second is formatted once for all lines that share it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::text::push_integer;

/// The clocks of one writer: requests that overlap start and end in different seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks {
    pub(crate) start: Clock,
    pub(crate) end: Clock,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// What `rfc3339` and `clf` show; `None` before the first use.
    second: Option<u64>,
    nanos: u32,
    /// `2026-01-02T15:04:05`, without the zone.
    rfc3339: String,
    /// `02/Jan/2026:15:04:05 +0000`.
    clf: String,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Clock {
    /// Sets the clock to a moment; anything before 1970 is 1970.
    pub(crate) fn at(&mut self, time: SystemTime) -> &Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.nanos = since.subsec_nanos();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            let (year, month, day) = date(since.as_secs() / 86_400);
            let of_day = since.as_secs() % 86_400;
            let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            let name = MONTHS[month as usize - 1];
            self.rfc3339 = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
            self.clf = format!("{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
        }
        self
    }

    pub(crate) fn clf(&self) -> &[u8] {
        self.clf.as_bytes()
    }

    pub(crate) fn push_rfc3339(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rfc3339.as_bytes());
        out.push(b'Z');
    }

    /// Go's `RFC3339Nano`: trailing zeros of the fraction are left out.
    pub(crate) fn push_rfc3339_nanos(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rfc3339.as_bytes());
        if self.nanos != 0 {
            let point = out.len();
            // The leading 1 keeps the zeros of a small fraction and becomes the point.
            push_integer(out, 1_000_000_000 + self.nanos);
            out[point] = b'.';
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        out.push(b'Z');
    }
}

/// A moment as `2026-01-02T15:04:05Z`, for whoever prints times outside this crate.
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::new();
    Clock::default().at(time).push_rfc3339(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`, for days that are not negative).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_as_text() {
        let mut clock = Clock::default();
        for (seconds, nanos, rfc3339, clf) in [
            (0, 0, "1970-01-01T00:00:00Z", "01/Jan/1970:00:00:00 +0000"),
            (951_827_696, 279_804_185, "2000-02-29T12:34:56.279804185Z", "29/Feb/2000:12:34:56 +0000"),
            (951_827_696, 5_000, "2000-02-29T12:34:56.000005Z", "29/Feb/2000:12:34:56 +0000"),
            (1_798_761_599, 100_000_000, "2026-12-31T23:59:59.1Z", "31/Dec/2026:23:59:59 +0000"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            let clock = clock.at(UNIX_EPOCH + Duration::new(seconds, nanos));
            let mut out = Vec::new();
            clock.push_rfc3339_nanos(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), rfc3339);
            assert_eq!(clock.clf(), clf.as_bytes());
        }
    }
}
