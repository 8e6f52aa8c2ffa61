//! Typed values: booleans, numbers, lengths of time, choices.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Field, Shape, Text};
use crate::duration::{self, Span, show};
use crate::suggest;

/// Go's `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl<'a> Field<'a> {
    pub(crate) fn string(&self) -> Option<String> {
        self.text().map(|text| text.string())
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        self.heard(Shape::Switch);
        let text = self.text()?;
        let value = boolean(text.value);
        if value.is_none() {
            let hint = "write `true` or `false`".to_owned();
            text.shape(format!("expected `true` or `false`, found {}", text.quoted()), Some(hint));
        }
        value
    }

    /// A whole number; one outside of `range` cannot work.
    pub(crate) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let text = self.text()?;
        let number = text.integer()?;
        if range.contains(&number) {
            return Some(number);
        }
        let (low, high) = (*range.start(), *range.end());
        let bounds = match (low, high) {
            (low, i64::MAX) => format!("at least {low}"),
            (i64::MIN, high) => format!("at most {high}"),
            (low, high) => format!("from {low} to {high}"),
        };
        text.error(format!("{number} is out of range"), Some(format!("allowed: {bounds}")));
        None
    }

    pub(crate) fn u32(&self, low: u32) -> Option<u32> {
        self.integer(i64::from(low)..=i64::from(u32::MAX)).and_then(|n| u32::try_from(n).ok())
    }

    pub(crate) fn u64(&self, low: i64) -> Option<u64> {
        self.integer(low..=i64::MAX).and_then(|n| u64::try_from(n).ok())
    }

    pub(crate) fn usize(&self, low: i64) -> Option<usize> {
        self.integer(low..=i64::MAX).and_then(|n| usize::try_from(n).ok())
    }

    pub(crate) fn u16(&self, low: u16, high: u16) -> Option<u16> {
        self.integer(i64::from(low)..=i64::from(high)).and_then(|n| u16::try_from(n).ok())
    }

    /// A number with a fraction, finite and inside `range`.
    pub(crate) fn float(&self, range: RangeInclusive<f64>) -> Option<f64> {
        self.text()?.float(range)
    }

    /// A length of time of any sign.
    pub(crate) fn span(&self) -> Option<Span> {
        let text = self.text()?;
        match duration::parse(text.value) {
            Ok(span) => Some(span),
            Err(reason) => {
                let hint = "write seconds as a whole number, or a unit: `300ms`, `10s`, `1m30s`".to_owned();
                text.shape(format!("{} {reason}", text.quoted()), Some(hint));
                None
            }
        }
    }

    /// Zero or longer.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let span = self.span()?;
        if span.is_negative() {
            self.error("a length of time cannot be negative".to_owned(), None);
        }
        span.to_duration()
    }

    /// Zero or longer, or the word `none` for no limit, which is `Some(None)`.
    pub(crate) fn duration_or_none(&self) -> Option<Option<Duration>> {
        if self.text()?.value == "none" {
            return Some(None);
        }
        self.duration().map(Some)
    }

    /// Longer than zero.
    pub(crate) fn positive_duration(&self) -> Option<Duration> {
        let span = self.span()?;
        if !span.is_positive() {
            self.error("must be longer than 0".to_owned(), Some("remove it for the default".to_owned()));
            return None;
        }
        span.to_duration()
    }

    /// Where Traefik takes its default for a time that is not longer than 0, and says so.
    pub(crate) fn duration_or(&self, default: Duration) -> Option<Duration> {
        let span = self.span()?;
        if span.is_positive() {
            return span.to_duration();
        }
        let message = format!("must be longer than 0; {} is used", show(default));
        self.warn(message, Some("remove it for the default".to_owned()));
        Some(default)
    }

    /// Where 0 says "no limit", which is `Some(None)`.
    pub(crate) fn limit(&self) -> Option<Option<Duration>> {
        self.duration().map(|duration| Some(duration).filter(|d| !d.is_zero()))
    }

    /// As [`limit`](Self::limit) for the timeouts where Traefik takes a negative one for none as well.
    pub(crate) fn timeout(&self) -> Option<Option<Duration>> {
        let span = self.span()?;
        if span.is_negative() {
            self.warn("a negative time means no limit".to_owned(), Some("write 0".to_owned()));
            return Some(None);
        }
        Some(span.to_duration().filter(|d| !d.is_zero()))
    }

    /// One of some words, compared exactly.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            text.unknown_word(choices.iter().map(|(word, _)| *word));
        }
        found
    }
}

impl<'a> Text<'a> {
    pub(crate) fn integer(&self) -> Option<i64> {
        let number = self.value.parse::<i64>().ok();
        if number.is_none() {
            self.shape(format!("expected a whole number, found {}", self.quoted()), None);
        }
        number
    }

    pub(crate) fn float(&self, range: RangeInclusive<f64>) -> Option<f64> {
        match self.value.parse::<f64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(_) => {
                let hint = match (*range.start(), *range.end()) {
                    (f64::MIN_POSITIVE, f64::MAX) => "allowed: more than 0".to_owned(),
                    (low, f64::MAX) => format!("allowed: at least {low}"),
                    (low, high) => format!("allowed: from {low} to {high}"),
                };
                self.error(format!("{} is out of range", self.quoted()), Some(hint));
                None
            }
            Err(_) => {
                self.shape(format!("expected a number, found {}", self.quoted()), None);
                None
            }
        }
    }

    pub(crate) fn unknown_word<'w>(&self, words: impl IntoIterator<Item = &'w str>) {
        self.error(
            format!("{} is not a known value", self.quoted()),
            Some(suggest::hint(self.value, "values", words)),
        );
    }
}
