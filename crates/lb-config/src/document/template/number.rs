//! Numbers as Go writes them.

use std::num::IntErrorKind;

use super::ast::Number;
use super::lex::Fault;
use super::origin::Place;
use crate::problem::quoted;

/// A number of a template.
///
/// # Errors
/// What is wrong with it, at its place.
pub(super) fn number(written: &str, at: Place) -> Result<Number, Fault> {
    let wrong = || Fault::new(at, format!("{} is no number", quoted(written)));
    let too_large = || Fault::new(at, format!("{} is too large for a number", quoted(written)));
    let is_hex = written.trim_start_matches(['+', '-']).starts_with(['0']) && written.contains(['x', 'X']);
    if !written.contains('.') && (is_hex || !written.contains(['e', 'E'])) {
        #[expect(clippy::cast_precision_loss, reason = "as Go")]
        return match go_integer(written) {
            Ok(int) => Ok(Number { int: Some(int), float: int as f64, is_float: false }),
            Err(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => Err(too_large()),
            Err(_) => Err(wrong()),
        };
    }
    let float: f64 = written.parse().map_err(|_| wrong())?;
    if !float.is_finite() {
        return Err(too_large());
    }
    #[expect(clippy::cast_possible_truncation, reason = "only taken where it is exact")]
    let int = Some(float as i64).filter(|_| float.fract() == 0.0 && float.abs() < 9e18);
    Ok(Number { int, float, is_float: true })
}

/// An integer as Go's literals: `0x1f`, `0o17` and `017`, `0b11`, `1_000`.
pub(super) fn go_integer(written: &str) -> Result<i64, IntErrorKind> {
    let unsigned = written.strip_prefix(['+', '-']).unwrap_or(written);
    let (base, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    // A `_` stands between digits, or between a prefix and a digit.
    let is_split = !unsigned.contains("__") && !unsigned.ends_with('_') && !unsigned.starts_with('_');
    if !is_split || digits.starts_with(['+', '-']) {
        return Err(IntErrorKind::InvalidDigit);
    }
    let sign = if written.starts_with('-') { "-" } else { "" };
    let digits = digits.replace('_', "");
    i64::from_str_radix(&format!("{sign}{digits}"), base).map_err(|error| *error.kind())
}
