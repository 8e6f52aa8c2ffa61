//! Sprig's encodings, sums and JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::super::super::MAX_BYTES;
use super::super::value::{Entries, MAX_NESTED, Of, Outcome, Room, Value, too_deep};
use super::{Function, Type, any, function, text};

const A: &[Type] = &[Type::Any];
const T: &[Type] = &[Type::Text];

pub(super) static FUNCTIONS: &[Function] = &[
    function("b64enc", T, |room, v| room.text(STANDARD.encode(text(v, 0)))),
    function("b64dec", T, |room, v| {
        decoded(room, STANDARD.decode(text(v, 0).replace(['\r', '\n'], "")).ok())
    }),
    function("b32enc", T, |room, v| room.text(base32(text(v, 0).as_bytes()))),
    function("b32dec", T, |room, v| decoded(room, from_base32(text(v, 0)))),
    function("sha1sum", T, |room, v| room.text(hex(&Sha1::digest(text(v, 0))))),
    function("sha256sum", T, |room, v| room.text(hex(&Sha256::digest(text(v, 0))))),
    function("adler32sum", T, |room, v| room.text(adler32(text(v, 0).as_bytes()).to_string())),
    function("toJson", A, |room, v| json(room, any(v, 0), true, None)),
    function("mustToJson", A, |room, v| json(room, any(v, 0), true, None)),
    function("toRawJson", A, |room, v| json(room, any(v, 0), false, None)),
    function("mustToRawJson", A, |room, v| json(room, any(v, 0), false, None)),
    function("toPrettyJson", A, |room, v| json(room, any(v, 0), true, Some(0))),
    function("mustToPrettyJson", A, |room, v| json(room, any(v, 0), true, Some(0))),
    function("fromJson", T, |room, v| from_json(room, text(v, 0))?.map_or(Ok(Value::Nil), Ok)),
    function("mustFromJson", T, |room, v| {
        from_json(room, text(v, 0))?.ok_or_else(|| "the text is not valid JSON".to_owned())
    }),
];

/// Sprig writes an error of decoding into the file; here it is one.
fn decoded(room: &Room<'_>, bytes: Option<Vec<u8>>) -> Outcome {
    let bytes = bytes.ok_or_else(|| "the text is not encoded that way".to_owned())?;
    room.text(String::from_utf8(bytes).map_err(|_| "what was encoded is no UTF-8 text".to_owned())?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// RFC 4648 section 6.
fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let bits = (0..5).fold(0_u64, |bits, at| bits << 8 | u64::from(chunk.get(at).copied().unwrap_or(0)));
        let digits = (chunk.len() * 8).div_ceil(5);
        for at in 0..8 {
            let digit = (bits >> (35 - 5 * at)) & 31;
            out.push(if at < digits { char::from(BASE32[digit as usize]) } else { '=' });
        }
    }
    out
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let text = text.replace(['\r', '\n'], "");
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(8) || text.len() - digits.len() > 6 || matches!(digits.len() % 8, 1 | 3 | 6)
    {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 5 / 8);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = BASE32.iter().position(|known| *known == digit)?;
        bits = (bits << 5 | u32::try_from(value).ok()?) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// RFC 1950 section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// As Go's `encoding/json`; `indent` counts the levels around it.
fn json(room: &Room<'_>, value: &Value, html: bool, indent: Option<usize>) -> Outcome {
    let mut out = String::new();
    write_json(room, &mut out, value, html, indent, 0)?;
    room.text(out)
}

fn write_json(
    room: &Room<'_>,
    out: &mut String,
    value: &Value,
    html: bool,
    indent: Option<usize>,
    depth: usize,
) -> Outcome<()> {
    if depth > MAX_NESTED {
        return Err(too_deep());
    }
    room.step(1)?;
    if out.len() as u64 > MAX_BYTES {
        return Err(format!("a text of more than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    let line = |out: &mut String, depth: usize| {
        if indent.is_some() {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    };
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Float(value) => out.push_str(&json_float(*value)),
        Value::Text(text) => json_text(out, text, html),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                write_json(room, out, item, html, indent, depth + 1)?;
            }
            if !list.items.is_empty() {
                line(out, depth);
            }
            out.push(']');
        }
        Value::Map(map) => {
            let entries = room.entries(*map)?;
            out.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                json_text(out, key, html);
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write_json(room, out, item, html, indent, depth + 1)?;
            }
            if !entries.is_empty() {
                line(out, depth);
            }
            out.push('}');
        }
        Value::Int(_) | Value::Int64(_) | Value::Byte(_) => {
            super::super::format::print(room, out, value)?;
        }
    }
    Ok(())
}

fn json_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((mantissa, power)) if !power.starts_with('-') => format!("{mantissa}e+{power}"),
            _ => text,
        };
    }
    format!("{value}")
}

fn json_text(out: &mut String, text: &str, html: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\u{2028}' | '\u{2029}' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            '<' | '>' | '&' if html => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c if c < ' ' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `None` for what is no JSON.
fn from_json(room: &Room<'_>, text: &str) -> Outcome<Option<Value>> {
    // What it is read into takes some twenty times as much at worst.
    room.make(text.len().saturating_mul(20))?;
    match serde_json::from_str(text) {
        Ok(json) => value_of(room, json, 0).map(Some),
        Err(_) => Ok(None),
    }
}

fn value_of(room: &Room<'_>, json: serde_json::Value, depth: usize) -> Outcome {
    if depth > MAX_NESTED {
        return Err(too_deep());
    }
    Ok(match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Value::Text(text.into()),
        serde_json::Value::Array(items) => {
            let items = items.into_iter().map(|item| value_of(room, item, depth + 1));
            let items = items.collect::<Outcome<Vec<Value>>>()?;
            room.list(Of::Any, items)?
        }
        serde_json::Value::Object(entries) => {
            let entries =
                entries.into_iter().map(|(key, value)| Ok((key.into(), value_of(room, value, depth + 1)?)));
            let entries = entries.collect::<Outcome<Entries>>()?;
            room.map(Of::Any, entries)?
        }
    })
}
