//! Lengths of time as Traefik reads them: a whole number is seconds, anything else needs a unit.

use std::time::Duration;

/// A length of time that may be negative (Go's durations are signed nanoseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    nanos: i64,
}

impl Span {
    pub(crate) fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub(crate) fn is_positive(self) -> bool {
        self.nanos > 0
    }

    /// `None` when negative.
    pub(crate) fn to_duration(self) -> Option<Duration> {
        u64::try_from(self.nanos).ok().map(Duration::from_nanos)
    }
}

/// Reads `10`, `300ms`, `1m30s`, `-1s`; the error is a reason to print after the value.
pub(crate) fn parse(text: &str) -> Result<Span, &'static str> {
    const TOO_LONG: &str = "is too long (at most 292 years)";
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1_000_000_000).map(|nanos| Span { nanos }).ok_or(TOO_LONG);
    }
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Span { nanos: 0 });
    }
    if rest.is_empty() {
        return Err("is not a length of time");
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let whole_len = digits(rest);
        let (whole, after) = rest.split_at(whole_len);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err("is not a length of time");
        }
        let unit_len = after.bytes().take_while(|b| *b != b'.' && !b.is_ascii_digit()).count();
        let (unit, after) = after.split_at(unit_len);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "" => return Err("has no unit"),
            _ => return Err("has a unit that does not exist"),
        };
        // 19 digits hold every length that fits, so a longer number is too long whatever its unit.
        if whole.trim_start_matches('0').len() > 19 {
            return Err(TOO_LONG);
        }
        total += whole.bytes().fold(0i128, |n, b| n * 10 + i128::from(b - b'0')) * unit;
        // Digits below a nanosecond are cut, as Go does.
        let mut scale = unit;
        for b in fraction.bytes() {
            scale /= 10;
            total += i128::from(b - b'0') * scale;
        }
        if total > i128::from(i64::MAX) {
            return Err(TOO_LONG);
        }
        rest = after;
    }
    let nanos = i64::try_from(if negative { -total } else { total }).map_err(|_| TOO_LONG)?;
    Ok(Span { nanos })
}

/// A length of time that is not negative, as the configuration writes it; the error is a reason to print
/// after the text.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    parse(text)?.to_duration().ok_or("is negative")
}

/// Go's way to print it (`1m30s`, `300ms`), for messages.
pub fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let with_unit = |unit: u128, name: &str| {
        let text = format!("{}.{:09}", nanos / unit, (nanos % unit) * (1_000_000_000 / unit));
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => with_unit(1_000, "us"),
        1_000_000..1_000_000_000 => with_unit(1_000_000, "ms"),
        _ => {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
            let mut text = String::new();
            if hours > 0 {
                text.push_str(&format!("{hours}h"));
            }
            if hours > 0 || minutes > 0 {
                text.push_str(&format!("{minutes}m"));
            }
            let rest = format!("{}.{:09}", seconds % 60, duration.subsec_nanos());
            text.push_str(rest.trim_end_matches('0').trim_end_matches('.'));
            text.push('s');
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of the length, or the reason against it.
    fn read(text: &str) -> Result<f64, &'static str> {
        parse(text).map(|span| span.nanos as f64 / 1e6)
    }

    #[test]
    fn lengths_are_read_as_traefik_reads_them() {
        for (text, millis) in [
            ("10", 10_000.0),
            ("+5", 5_000.0),
            ("-1", -1_000.0),
            ("0", 0.0),
            ("300ms", 300.0),
            ("1m30s", 90_000.0),
            ("1h0.5m", 3_630_000.0),
            (".5s", 500.0),
            ("1.s", 1_000.0),
            ("-1s", -1_000.0),
            ("1us", 0.001),
            ("1\u{b5}s", 0.001),
            ("0.0000000019s", 0.000001),
        ] {
            assert_eq!(read(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn what_traefik_refuses_is_refused() {
        for text in
            ["", " 5", "5 ", "0.5", "0x10", "s", "-", "1d", "1h 2m", "abc", "1.5.5s", "9999999999999h", "."]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read("1.5"), Err("has no unit"));
        assert_eq!(read("2d"), Err("has a unit that does not exist"));
    }

    #[test]
    fn lengths_print_as_go_prints_them() {
        for (millis, text) in [
            (0, "0s"),
            (300, "300ms"),
            (10_000, "10s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
            (1_500, "1.5s"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), text);
        }
    }
}
