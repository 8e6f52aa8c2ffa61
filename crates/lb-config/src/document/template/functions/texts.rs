//! Functions over texts and paths, and the environment.

use super::super::super::MAX_BYTES;
use super::super::format;
use super::super::quote::quote;
use super::super::value::{BYTES_PER_STEP, MAP_ENTRY, Of, Outcome, Room, Value};
use super::names::{camel_case, separated};
use super::{Function, Type, any, count, function, int, text, variadic};

const T: &[Type] = &[Type::Text];
const TT: &[Type] = &[Type::Text, Type::Text];
const TTT: &[Type] = &[Type::Text, Type::Text, Type::Text];
const IT: &[Type] = &[Type::Int, Type::Text];

pub(super) static FUNCTIONS: &[Function] = &[
    function("env", T, |room, v| room.text((room.env)(text(v, 0)).unwrap_or_default())),
    function("expandenv", T, expandenv),
    function("trim", T, |room, v| room.text(text(v, 0).trim())),
    function("trimAll", TT, trim_all),
    function("trimall", TT, trim_all),
    function("trimPrefix", TT, |room, v| {
        let of = text(v, 1);
        room.text(of.strip_prefix(text(v, 0)).unwrap_or(of))
    }),
    function("trimSuffix", TT, |room, v| {
        let of = text(v, 1);
        room.text(of.strip_suffix(text(v, 0)).unwrap_or(of))
    }),
    function("upper", T, |room, v| room.text(each(text(v, 0), upper))),
    function("lower", T, |room, v| room.text(each(text(v, 0), lower))),
    function("title", T, |room, v| room.text(title(text(v, 0)))),
    function("untitle", T, |room, v| room.text(words(text(v, 0), lower))),
    function("swapcase", T, |room, v| room.text(swap_case(text(v, 0)))),
    function("initials", T, |room, v| {
        room.text(text(v, 0).split_whitespace().filter_map(|word| word.chars().next()).collect::<String>())
    }),
    function("nospace", T, |room, v| {
        room.text(text(v, 0).chars().filter(|c| !c.is_whitespace()).collect::<String>())
    }),
    function("repeat", IT, repeat),
    function("substr", &[Type::Int, Type::Int, Type::Text], substr),
    function("trunc", IT, trunc),
    function("abbrev", IT, abbreviate),
    function("replace", TTT, replace),
    function("contains", TT, |_, v| Ok(Value::Bool(text(v, 1).contains(text(v, 0))))),
    function("hasPrefix", TT, |_, v| Ok(Value::Bool(text(v, 1).starts_with(text(v, 0))))),
    function("hasSuffix", TT, |_, v| Ok(Value::Bool(text(v, 1).ends_with(text(v, 0))))),
    variadic("quote", &[], Type::Any, |room, v| quoted(room, v, quote)),
    variadic("squote", &[], Type::Any, |room, v| quoted(room, v, |text| format!("'{text}'"))),
    variadic("cat", &[], Type::Any, cat),
    function("indent", IT, |room, v| room.text(indent(room, v)?)),
    function("nindent", IT, |room, v| room.text(format!("\n{}", indent(room, v)?))),
    function("plural", &[Type::Text, Type::Text, Type::Int], |room, v| {
        room.text(text(v, usize::from(int(v, 2) != 1)))
    }),
    function("snakecase", T, |room, v| room.text(separated(text(v, 0), '_'))),
    function("kebabcase", T, |room, v| room.text(separated(text(v, 0), '-'))),
    function("camelcase", T, |room, v| room.text(camel_case(text(v, 0)))),
    function("normalize", T, normalize),
    function("split", TT, |room, v| match room.is_of_values {
        true => parts(room, text(v, 0), -1, text(v, 1)),
        false => split(room, text(v, 1), text(v, 0)),
    }),
    function("splitList", TT, |room, v| split(room, text(v, 0), text(v, 1))),
    function("splitn", &[Type::Text, Type::Int, Type::Text], |room, v| {
        parts(room, text(v, 0), int(v, 1), text(v, 2))
    }),
    function("toString", &[Type::Any], |room, v| room.text(shown(room, any(v, 0))?)),
    function("base", T, |room, v| room.text(base(text(v, 0)))),
    function("osBase", T, |room, v| room.text(base(text(v, 0)))),
    function("dir", T, |room, v| room.text(dir(text(v, 0)))),
    function("osDir", T, |room, v| room.text(dir(text(v, 0)))),
    function("clean", T, |room, v| room.text(clean(text(v, 0)))),
    function("osClean", T, |room, v| room.text(clean(text(v, 0)))),
    function("ext", T, |room, v| room.text(ext(text(v, 0)))),
    function("osExt", T, |room, v| room.text(ext(text(v, 0)))),
    function("isAbs", T, |_, v| Ok(Value::Bool(text(v, 0).starts_with('/')))),
    function("osIsAbs", T, |_, v| Ok(Value::Bool(text(v, 0).starts_with('/')))),
    function("hello", &[], |room, _| room.text("Hello!")),
    function("fail", T, |_, v| Err(text(v, 0).to_owned())),
];

/// Sprig's `strval`.
pub(super) fn shown(room: &Room<'_>, value: &Value) -> Outcome<String> {
    match value {
        Value::Text(text) => Ok(text.to_string()),
        value => format::text(room, value),
    }
}

/// Go's `os.ExpandEnv`.
fn expandenv(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let mut rest = text(arguments, 0);
    let mut out = String::new();
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        let special = |c: char| c.is_ascii_digit() || "*#$@!?-".contains(c);
        let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], &inner[end + 1..]),
                // What cannot be read is taken away.
                None => ("", inner),
            },
            None if rest.starts_with(special) => rest.split_at(1),
            None => rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len())),
        };
        if name.is_empty() && after.len() == rest.len() {
            out.push('$');
        }
        let value = if name.is_empty() { String::new() } else { (room.env)(name).unwrap_or_default() };
        room.make(value.len())?;
        out.push_str(&value);
        rest = after;
    }
    room.text(out + rest)
}

fn trim_all(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (cut, of) = (text(arguments, 0), text(arguments, 1));
    room.step(cut.len().saturating_mul(of.len()) / BYTES_PER_STEP)?;
    room.text(of.trim_matches(|c| cut.contains(c)))
}

/// One character for each, as Go.
fn each(text: &str, change: impl FnMut(char) -> char) -> String {
    text.chars().map(change).collect()
}

fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    all.next().filter(|_| all.next().is_none()).unwrap_or(c)
}

fn lower(c: char) -> char {
    let mut all = c.to_lowercase();
    all.next().filter(|_| all.next().is_none()).unwrap_or(c)
}

/// Go's `strings.Title`.
fn title(text: &str) -> String {
    let mut before = ' ';
    each(text, |c| {
        let starts =
            (before.is_ascii() || before.is_whitespace()) && before != '_' && !before.is_alphanumeric();
        before = c;
        if starts { upper(c) } else { c }
    })
}

/// Changes the first character of each word.
fn words(text: &str, change: impl Fn(char) -> char) -> String {
    let mut starts = true;
    each(text, |c| {
        let is_first = std::mem::replace(&mut starts, c.is_whitespace());
        if is_first { change(c) } else { c }
    })
}

fn swap_case(text: &str) -> String {
    each(text, |c| if c.is_uppercase() { lower(c) } else { upper(c) })
}

fn repeat(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (times, of) = (count(arguments, 0)?, text(arguments, 1));
    check_size(times.saturating_mul(of.len()))?;
    room.text(of.repeat(times))
}

/// A text that long would not be written anyway.
pub(super) fn check_size(bytes: usize) -> Outcome<()> {
    if bytes as u64 > MAX_BYTES {
        return Err(format!("a text of more than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    Ok(())
}

/// Go counts bytes.
fn slice(room: &Room<'_>, of: &str, from: i64, to: i64) -> Outcome {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let Some((from, to)) = range.filter(|(from, to)| from <= to && *to <= of.len()) else {
        return Err(format!("the text has no bytes {from} to {to}"));
    };
    match of.get(from..to) {
        Some(part) => room.text(part),
        None => Err("this cuts a character of several bytes in two".to_owned()),
    }
}

fn substr(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (start, end, of) = (int(arguments, 0), int(arguments, 1), text(arguments, 2));
    let length = i64::try_from(of.len()).unwrap_or(i64::MAX);
    match (start, end) {
        (start, end) if start < 0 => slice(room, of, 0, end),
        (start, end) if end < 0 || end > length => slice(room, of, start, length),
        (start, end) => slice(room, of, start, end),
    }
}

fn trunc(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (size, of) = (int(arguments, 0), text(arguments, 1));
    let length = i64::try_from(of.len()).unwrap_or(i64::MAX);
    match size {
        size if size < 0 && length.saturating_add(size) > 0 => slice(room, of, length + size, length),
        size if size >= 0 && length > size => slice(room, of, 0, size),
        _ => room.text(of),
    }
}

/// Cut, with dots for what is gone.
fn abbreviate(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (width, of) = (int(arguments, 0), text(arguments, 1));
    let length = i64::try_from(of.len()).unwrap_or(i64::MAX);
    if width < 4 || length <= width {
        return room.text(of);
    }
    match slice(room, of, 0, width - 3)? {
        Value::Text(kept) => room.text(format!("{kept}...")),
        other => Ok(other),
    }
}

fn replace(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let (old, new, of) = (text(arguments, 0), text(arguments, 1), text(arguments, 2));
    check_size(of.len().saturating_add((of.len() + 1).saturating_mul(new.len())).min(
        // Known exactly only by counting.
        of.len().saturating_add(of.matches(old).count().saturating_mul(new.len())),
    ))?;
    room.text(of.replace(old, new))
}

fn quoted(room: &Room<'_>, values: &[Value], around: impl Fn(&str) -> String) -> Outcome {
    joined(room, values, |value| Ok(around(&shown(room, value)?)))
}

fn cat(room: &Room<'_>, values: &[Value]) -> Outcome {
    joined(room, values, |value| format::text(room, value))
}

/// What is not nil, with spaces between.
fn joined(room: &Room<'_>, values: &[Value], show: impl Fn(&Value) -> Outcome<String>) -> Outcome {
    let mut all = Vec::with_capacity(values.len());
    for value in values.iter().filter(|value| !matches!(value, Value::Nil)) {
        let text = show(value)?;
        room.make(text.len())?;
        all.push(text);
    }
    room.text(all.join(" "))
}

fn indent(_: &Room<'_>, arguments: &[Value]) -> Outcome<String> {
    let (spaces, of) = (count(arguments, 0)?, text(arguments, 1));
    let lines = of.matches('\n').count() + 1;
    check_size(of.len().saturating_add(lines.saturating_mul(spaces)))?;
    let pad = " ".repeat(spaces);
    Ok(format!("{pad}{}", of.replace('\n', &format!("\n{pad}"))))
}

/// Traefik's: letters and digits stay, what is between them becomes one dash.
fn normalize(room: &Room<'_>, arguments: &[Value]) -> Outcome {
    let parts = text(arguments, 0).split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    room.text(parts.collect::<Vec<_>>().join("-"))
}

/// Go's `strings.Split`.
fn split(room: &Room<'_>, separator: &str, of: &str) -> Outcome {
    if separator.is_empty() {
        return room.texts(of.chars().map(String::from));
    }
    room.texts(of.split(separator))
}

/// A map `_0`, `_1` ... as Sprig; of at most so many, or all for a negative number.
fn parts(room: &Room<'_>, separator: &str, most: i64, of: &str) -> Outcome {
    let most = if most < 0 { usize::MAX } else { usize::try_from(most).unwrap_or(usize::MAX) };
    room.make(most.min(of.len() + 1).saturating_mul(MAP_ENTRY))?;
    let parts: Vec<&str> = match separator {
        "" => {
            let mut rest = of;
            let mut parts = Vec::new();
            while let Some(first) = rest.chars().next() {
                let length = if parts.len() + 1 == most { rest.len() } else { first.len_utf8() };
                if parts.len() == most {
                    break;
                }
                parts.push(&rest[..length]);
                rest = &rest[length..];
            }
            parts
        }
        separator => of.splitn(most, separator).collect(),
    };
    let named = parts.iter().enumerate().map(|(n, part)| (format!("_{n}").into(), Value::plain(part)));
    room.map(Of::Text, named.collect())
}

fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/" } else { path.rsplit('/').next().unwrap_or(path) }
}

fn dir(path: &str) -> String {
    clean(&path[..path.rfind('/').map_or(0, |slash| slash + 1)])
}

fn ext(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rfind('.').map_or("", |dot| &file[dot..])
}

/// Go's `path.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}
