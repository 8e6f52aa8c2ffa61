//! Formats of Go's `printf`.

use std::fmt::Write as _;

use super::format::{Directive, print, write};
use super::value::{Outcome, Room, Value};

/// Widths and precisions beyond are not read, as in Go.
const MAX_WIDTH: i64 = 9_999_999;

/// `fmt.Sprintf(format, values...)`.
pub(super) fn printf(room: &Room<'_>, format: &str, values: &[Value]) -> Outcome<String> {
    let mut out = String::new();
    let mut next = 0;
    let mut reordered = false;
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        room.step(1)?;
        let mut chars = Chars { rest: &rest[start + 1..] };
        let mut directive = Directive::default();
        while let Some(flag) = chars.peek().filter(|c| "+-# 0".contains(*c)) {
            match flag {
                '+' => directive.plus = true,
                '-' => directive.minus = true,
                '#' => directive.sharp = true,
                ' ' => directive.space = true,
                _ => directive.zero = true,
            }
            chars.next();
        }
        let mut good_index = true;
        let mut picked = chars.index(&mut next, values.len(), &mut good_index, &mut reordered);
        if chars.take('*') {
            match star(values, &mut next) {
                Some(width) => {
                    directive.minus |= width < 0;
                    directive.width = usize::try_from(width.unsigned_abs()).ok();
                }
                None => out.push_str("%!(BADWIDTH)"),
            }
            picked = false;
        } else {
            directive.width = chars.number();
            if picked && directive.width.is_some() {
                good_index = false;
            }
        }
        if chars.take('.') {
            good_index &= !picked;
            picked = chars.index(&mut next, values.len(), &mut good_index, &mut reordered);
            if chars.take('*') {
                directive.precision = star(values, &mut next).and_then(|n| usize::try_from(n).ok());
                if directive.precision.is_none() {
                    out.push_str("%!(BADPREC)");
                }
                picked = false;
            } else {
                directive.precision = Some(chars.number().unwrap_or(0));
            }
        }
        if !picked {
            chars.index(&mut next, values.len(), &mut good_index, &mut reordered);
        }
        rest = chars.rest;
        let Some(verb) = rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        rest = &rest[verb.len_utf8()..];
        directive.verb = verb;
        if directive.minus {
            directive.zero = false;
        }
        if verb == 'v' {
            directive.plus = false;
        }
        match values.get(next) {
            _ if verb == '%' => out.push('%'),
            _ if !good_index => _ = write!(out, "%!{verb}(BADINDEX)"),
            None => _ = write!(out, "%!{verb}(MISSING)"),
            Some(value) => {
                next += 1;
                write(room, &mut out, value, &directive, 0)?;
            }
        }
    }
    out.push_str(rest);
    if !reordered && next < values.len() {
        out.push_str("%!(EXTRA ");
        for (index, value) in values[next..].iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            if matches!(value, Value::Nil) {
                out.push_str("<nil>");
            } else {
                out.push_str(value.type_name());
                out.push('=');
                print(room, &mut out, value)?;
            }
        }
        out.push(')');
    }
    Ok(out)
}

struct Chars<'f> {
    rest: &'f str,
}

impl Chars<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.rest.starts_with(c);
        if found {
            self.next();
        }
        found
    }

    fn number(&mut self) -> Option<usize> {
        let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at(length);
        if length == 0 {
            return None;
        }
        let value: Option<i64> = number.parse().ok().filter(|n| *n <= MAX_WIDTH);
        self.rest = if value.is_some() { rest } else { "" };
        value.and_then(|value| usize::try_from(value).ok())
    }

    /// `[n]`: the argument to take.
    fn index(&mut self, next: &mut usize, count: usize, good: &mut bool, reordered: &mut bool) -> bool {
        if !self.rest.starts_with('[') {
            return false;
        }
        *reordered = true;
        let Some(end) = self.rest.find(']') else {
            *good = false;
            self.next();
            return false;
        };
        let number = self.rest[1..end].parse::<usize>().ok().filter(|n| (1..=count).contains(n));
        self.rest = &self.rest[end + 1..];
        match number {
            Some(number) => *next = number - 1,
            None => *good = false,
        }
        true
    }
}

fn star(values: &[Value], next: &mut usize) -> Option<i64> {
    let value = values.get(*next)?;
    *next += 1;
    value.signed().filter(|n| (-MAX_WIDTH..=MAX_WIDTH).contains(n))
}
