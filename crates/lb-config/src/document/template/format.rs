//! Values as texts, by the rules of Go's package `fmt`.

use std::fmt::Write as _;

use super::super::MAX_BYTES;
use super::quote::{quote, quote_with};
use super::value::{MAX_NESTED, Outcome, Room, Value, too_deep};

/// `fmt.Sprint(value)`.
pub(super) fn text(room: &Room<'_>, value: &Value) -> Outcome<String> {
    let mut out = String::new();
    print(room, &mut out, value)?;
    Ok(out)
}

/// As [`text`], behind what is there.
pub(super) fn print(room: &Room<'_>, out: &mut String, value: &Value) -> Outcome<()> {
    write(room, out, value, &Directive { verb: 'v', ..Directive::default() }, 0)
}

/// `fmt.Sprint(values...)`: with spaces between values of which neither is a text.
pub(super) fn print_all(room: &Room<'_>, values: &[Value]) -> Outcome<String> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            out.push(' ');
        }
        print(room, &mut out, value)?;
    }
    Ok(out)
}

/// `fmt.Sprintln(values...)`.
pub(super) fn print_line(room: &Room<'_>, values: &[Value]) -> Outcome<String> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        print(room, &mut out, value)?;
    }
    out.push('\n');
    Ok(out)
}

/// One `%...` of a format.
#[derive(Clone, Default)]
pub(super) struct Directive {
    pub(super) verb: char,
    pub(super) plus: bool,
    pub(super) minus: bool,
    pub(super) sharp: bool,
    pub(super) space: bool,
    pub(super) zero: bool,
    pub(super) width: Option<usize>,
    pub(super) precision: Option<usize>,
}

pub(super) fn write(
    room: &Room<'_>,
    out: &mut String,
    value: &Value,
    directive: &Directive,
    depth: usize,
) -> Outcome<()> {
    if depth > MAX_NESTED {
        return Err(too_deep());
    }
    room.step(1)?;
    if out.len() as u64 > MAX_BYTES {
        return Err(format!("a text of more than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    let go = directive.verb == 'v' && directive.sharp;
    match value {
        _ if directive.verb == 'T' => pad(out, value_type(value), directive),
        Value::Nil if directive.verb == 'v' => pad(out, "<nil>", directive),
        Value::Nil if depth > 0 => pad(out, "<nil>", directive),
        Value::Nil => _ = write!(out, "%!{}(<nil>)", directive.verb),
        Value::Bool(value) if matches!(directive.verb, 'v' | 't') => {
            pad(out, if *value { "true" } else { "false" }, directive);
        }
        Value::Int(_) | Value::Int64(_) | Value::Byte(_) => {
            match integer_text(integer(value), directive) {
                // What has a precision, or is a character, is not filled with zeros.
                Some(text) if directive.precision.is_some() || "cqU".contains(directive.verb) => {
                    pad(out, &text, &Directive { zero: false, ..directive.clone() });
                }
                Some(text) => pad_number(out, &text, directive),
                None => bad_verb(room, out, value, directive)?,
            }
        }
        Value::Float(float) => match float_text(*float, directive) {
            Some(text) => pad_number(out, &text, directive),
            None => bad_verb(room, out, value, directive)?,
        },
        Value::Text(text) => match string_text(text, directive) {
            Some(text) => pad(out, &text, directive),
            None => bad_verb(room, out, value, directive)?,
        },
        Value::List(list) => {
            if go {
                out.push_str(value.type_name());
            }
            out.push(if go { '{' } else { '[' });
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push_str(if go { ", " } else { " " });
                }
                if go && matches!(item, Value::Nil) {
                    out.push_str("interface {}(nil)");
                } else {
                    write(room, out, item, directive, depth + 1)?;
                }
            }
            out.push(if go { '}' } else { ']' });
        }
        Value::Map(map) => {
            out.push_str(if go { value.type_name() } else { "map" });
            out.push(if go { '{' } else { '[' });
            for (index, (key, item)) in room.entries(*map)?.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(if go { ", " } else { " " });
                }
                write(room, out, &Value::Text(key), directive, depth + 1)?;
                out.push(':');
                if go && matches!(item, Value::Nil) {
                    out.push_str("interface {}(nil)");
                } else {
                    write(room, out, &item, directive, depth + 1)?;
                }
            }
            out.push(if go { '}' } else { ']' });
        }
        Value::Bool(_) => bad_verb(room, out, value, directive)?,
    }
    Ok(())
}

fn value_type(value: &Value) -> &'static str {
    if matches!(value, Value::Nil) { "<nil>" } else { value.type_name() }
}

/// `%!d(string=...)`.
fn bad_verb(room: &Room<'_>, out: &mut String, value: &Value, directive: &Directive) -> Outcome<()> {
    let _ = write!(out, "%!{}({}=", directive.verb, value.type_name());
    write(room, out, value, &Directive { verb: 'v', ..directive.clone() }, 0)?;
    out.push(')');
    Ok(())
}

fn pad(out: &mut String, text: &str, directive: &Directive) {
    let missing = directive.width.unwrap_or(0).saturating_sub(text.chars().count());
    if directive.minus {
        out.push_str(text);
    }
    let filler = if directive.zero && !directive.minus { '0' } else { ' ' };
    out.extend(std::iter::repeat_n(filler, missing));
    if !directive.minus {
        out.push_str(text);
    }
}

/// Zeros go between the sign and the digits.
fn pad_number(out: &mut String, text: &str, directive: &Directive) {
    let missing = directive.width.unwrap_or(0).saturating_sub(text.chars().count());
    if !directive.zero || missing == 0 || text.ends_with("Inf") || text.ends_with("NaN") {
        return pad(out, text, &Directive { zero: false, ..directive.clone() });
    }
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-', ' '])));
    out.push_str(sign);
    out.extend(std::iter::repeat_n('0', missing));
    out.push_str(digits);
}

fn sign(negative: bool, directive: &Directive) -> &'static str {
    match () {
        () if negative => "-",
        () if directive.plus => "+",
        () if directive.space => " ",
        () => "",
    }
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Byte(byte) => i64::from(*byte),
        value => value.signed().unwrap_or(0),
    }
}

/// `None` for a verb that integers do not have.
fn integer_text(value: i64, directive: &Directive) -> Option<String> {
    let size = value.unsigned_abs();
    let character = || u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let (prefix, mut digits) = match directive.verb {
        'v' | 'd' => ("", size.to_string()),
        'b' => (if directive.sharp { "0b" } else { "" }, format!("{size:b}")),
        'o' => (if directive.sharp { "0" } else { "" }, format!("{size:o}")),
        'O' => ("0o", format!("{size:o}")),
        'x' => (if directive.sharp { "0x" } else { "" }, format!("{size:x}")),
        'X' => (if directive.sharp { "0X" } else { "" }, format!("{size:X}")),
        'U' => return Some(format!("U+{size:04X}")),
        'c' => return Some(character().to_string()),
        'q' => return Some(quote_with('\'', &character().to_string(), directive.plus)),
        _ => return None,
    };
    let sign = sign(value < 0, directive);
    let least = match (directive.precision, directive.width) {
        (Some(0), _) if size == 0 => return Some(String::new()),
        (Some(precision), _) => precision,
        // Go does not count the prefix.
        (None, Some(width)) if directive.zero => width.saturating_sub(sign.len()),
        (None, _) => 0,
    };
    digits = "0".repeat(least.saturating_sub(digits.len())) + &digits;
    Some(format!("{sign}{prefix}{digits}"))
}

fn string_text(text: &str, directive: &Directive) -> Option<String> {
    let shortened: String = match directive.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    Some(match directive.verb {
        'v' if directive.sharp => quote(&shortened),
        's' | 'v' => shortened,
        'q' if directive.sharp
            && !shortened.contains(|c: char| c == '`' || (c.is_control() && c != '\t')) =>
        {
            format!("`{shortened}`")
        }
        'q' => quote_with('"', &shortened, directive.plus),
        'x' | 'X' => {
            let mut hex = String::with_capacity(text.len() * 2);
            let prefix = if directive.sharp { format!("0{}", directive.verb) } else { String::new() };
            let bytes = text.as_bytes();
            for (index, byte) in bytes.iter().take(directive.precision.unwrap_or(bytes.len())).enumerate() {
                if directive.space && index > 0 {
                    hex.push(' ');
                }
                if index == 0 || directive.space {
                    hex.push_str(&prefix);
                }
                let _ =
                    if directive.verb == 'x' { write!(hex, "{byte:02x}") } else { write!(hex, "{byte:02X}") };
            }
            hex
        }
        _ => return None,
    })
}

fn float_text(value: f64, directive: &Directive) -> Option<String> {
    let precision = directive.precision;
    if !value.is_finite() {
        let text = if value.is_nan() { "NaN" } else { "Inf" };
        let plus = if value > 0.0 { "+" } else { "" };
        return Some(format!("{}{text}", if value < 0.0 { "-" } else { plus }));
    }
    let size = value.abs();
    let text = match directive.verb {
        'v' | 'g' => general(size, precision),
        'G' => general(size, precision).to_uppercase(),
        'f' | 'F' => {
            let precision = precision.unwrap_or(6);
            let shown = precision.min(MAX_DIGITS);
            format!("{size:.shown$}") + &"0".repeat(precision - shown)
        }
        'e' => scientific(size, precision.unwrap_or(6)),
        'E' => scientific(size, precision.unwrap_or(6)).to_uppercase(),
        _ => return None,
    };
    Some(sign(value.is_sign_negative(), directive).to_owned() + &text)
}

/// Behind so many digits every float has zeros only; the standard library panics when asked for more than 65,535.
const MAX_DIGITS: usize = 1_100;

/// Go's `%e`.
fn scientific(size: f64, precision: usize) -> String {
    let shown = precision.min(MAX_DIGITS);
    let text = format!("{size:.shown$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    exponent(&format!("{mantissa}{}e{power}", "0".repeat(precision - shown)))
}

/// Go's `%g`: as short as it can be read back without loss, or with so many digits.
fn general(size: f64, precision: Option<usize>) -> String {
    let scientific = match precision {
        Some(precision) => format!("{size:.*e}", precision.clamp(1, MAX_DIGITS) - 1),
        None => format!("{size:e}"),
    };
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let power: i32 = power.parse().unwrap_or(0);
    let digits = i32::try_from(mantissa.len() - usize::from(mantissa.contains('.'))).unwrap_or(i32::MAX);
    let limit = match precision {
        // Of the shortest that is read back without loss.
        None => 6,
        Some(precision) => {
            let precision = i32::try_from(precision.max(1)).unwrap_or(i32::MAX);
            if precision > digits && digits > power { digits.max(power + 1) } else { precision }
        }
    };
    if power < -4 || power >= limit {
        return exponent(&format!("{mantissa}e{power}"));
    }
    // The digits are there already: only the point moves.
    let decimals = usize::try_from((digits - 1 - power).max(0)).unwrap_or(0);
    format!("{:.decimals$}", format!("{mantissa}e{power}").parse::<f64>().unwrap_or(size))
}

/// Go writes two digits of an exponent at least, and its sign.
fn exponent(scientific: &str) -> String {
    let (mantissa, power) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    format!("{mantissa}e{sign}{power:0>2}")
}
