//! Plain YAML scalars as the text that Traefik's decoder sees.
//!
//! Traefik resolves a plain scalar to a YAML 1.1/1.2 value and prints that value again before it
//! fills a field, so `010` is `8` and `1.10` is `1.100000`. Observed on Traefik 3.7.15.

use std::borrow::Cow;

pub(super) fn is_null(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

/// The text a plain scalar is seen as.
pub(super) fn canonical(plain: &str) -> Cow<'_, str> {
    match plain {
        "true" | "True" | "TRUE" => return "true".into(),
        "false" | "False" | "FALSE" => return "false".into(),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return "+Inf".into(),
        "-.inf" | "-.Inf" | "-.INF" => return "-Inf".into(),
        ".nan" | ".NaN" | ".NAN" => return "NaN".into(),
        _ => {}
    }
    // Most values are words: they are left alone at the first byte. Numbers end at 60 characters.
    if !plain.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) || plain.len() > 60 {
        return plain.into();
    }
    let digits: Cow<str> = if plain.contains('_') { plain.replace('_', "").into() } else { plain.into() };
    if let Some(number) = integer(&digits) {
        return if number == plain { plain.into() } else { number.into() };
    }
    if is_float(&digits)
        && let Ok(number) = digits.parse::<f64>()
        && number.is_finite()
    {
        return from_float(number).into();
    }
    plain.into()
}

/// How a number with a fraction is printed: six decimals, none when it is whole.
pub(super) fn from_float(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.6}") }
}

/// Decimal text of an integer in any of Go's spellings (`10`, `0x1F`, `0o17`, `017`, `0b11`).
fn integer(text: &str) -> Option<String> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if digits.is_empty() || !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match (negative, magnitude) {
        (_, 0) => Some("0".to_owned()),
        (true, 1..=0x8000_0000_0000_0000) => Some(format!("-{magnitude}")),
        (true, _) => None,
        (false, _) => Some(magnitude.to_string()),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits =
        all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_seen_as_traefik_sees_them() {
        // Every row observed on Traefik 3.7.15 as a header value.
        for (written, seen) in [
            ("1.5", "1.500000"),
            ("1.10", "1.100000"),
            ("010", "8"),
            ("08", "8"),
            ("1e3", "1000"),
            ("12345678901234567890", "12345678901234567890"),
            ("123456789012345678901234567890", "123456789012345677877719597056"),
            ("0.1234567", "0.123457"),
            (".inf", "+Inf"),
            ("TRUE", "true"),
            ("0o17", "15"),
            ("0b11", "3"),
            ("0x1F", "31"),
            ("1_000", "1000"),
            ("+5", "5"),
            ("-0", "0"),
            ("1.0", "1"),
            ("1e400", "1e400"),
            ("1:30", "1:30"),
            ("yes", "yes"),
            ("10s", "10s"),
            ("10.0.0.1", "10.0.0.1"),
            ("-", "-"),
            ("+", "+"),
            (".", "."),
            ("1e", "1e"),
            ("0x", "0x"),
        ] {
            assert_eq!(canonical(written), seen, "{written}");
        }
    }
}
