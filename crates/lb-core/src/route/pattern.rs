//! Regular expressions in the syntax of Go (RE2), run by the `regex` crate.
//!
//! The two dialects differ in small things that would silently change which requests a rule matches:
//! `\d`, `\w`, `\s` and `\b` are ASCII in Go, `[[a]` and `[a&&b]` are plain classes, a lone `{` is a
//! character, `\Q...\E` quotes. [`translate`] rewrites what differs.

use std::hash::{Hash, Hasher};
use std::iter::Peekable;
use std::str::Chars;

/// Compiled size of one expression. Chosen: everyday expressions take some ten KiB.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// An expression in the syntax of Go.
///
/// # Errors
/// What is wrong, in one line.
pub fn go_regex(text: &str) -> Result<regex::Regex, String> {
    let mut builder = regex::RegexBuilder::new(&translate(text));
    builder.size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".into(),
        error => {
            // The text of the crate spans several lines and quotes our translation.
            let text = error.to_string();
            let cause = text.lines().last().unwrap_or_default();
            format!("invalid regular expression: {}", cause.strip_prefix("error: ").unwrap_or(cause))
        }
    })
}

/// A compiled expression; clones share it.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// # Errors
    /// What is wrong, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        go_regex(text).map(Self)
    }

    /// Unanchored, as in Go.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The leftmost match.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.0.find(text).map(|found| found.as_str())
    }

    pub(crate) fn regex(&self) -> &regex::Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// The same expression in the dialect of the `regex` crate. Errors are left for its parser to find.
fn translate(go: &str) -> String {
    let mut out = String::with_capacity(go.len() + 16);
    let mut chars = go.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Q') => quoted(&mut chars, &mut out),
                Some(c) => escape(c, false, &mut chars, &mut out),
                None => out.push('\\'),
            },
            '[' => class(&mut chars, &mut out),
            '{' if !starts_repetition(chars.clone()) => out.push_str(r"\{"),
            c => out.push(c),
        }
    }
    out
}

/// Whether `n}`, `n,}` or `n,m}` follows; otherwise Go takes the brace as a character.
fn starts_repetition(mut chars: Peekable<Chars<'_>>) -> bool {
    let mut inner = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || *c == ',') {
        inner.push(c);
    }
    let (least, most) = inner.split_once(',').unwrap_or((&inner, ""));
    chars.peek() == Some(&'}') && !least.is_empty() && !most.contains(',')
}

/// Copies what stands between `\Q` and `\E` as plain characters.
fn quoted(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            return;
        }
        out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

/// Writes the escape `\c`, in or outside of a class.
fn escape(c: char, in_class: bool, chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    match (c, in_class) {
        ('d', false) => out.push_str("[0-9]"),
        ('D', false) => out.push_str("[^0-9]"),
        ('w', false) => out.push_str("[0-9A-Za-z_]"),
        ('W', false) => out.push_str("[^0-9A-Za-z_]"),
        ('s', false) => out.push_str(r"[\t\n\f\r ]"),
        ('S', false) => out.push_str(r"[^\t\n\f\r ]"),
        ('d', true) => out.push_str("0-9"),
        ('D', true) => out.push_str("[^0-9]"),
        ('w', true) => out.push_str("0-9A-Za-z_"),
        ('W', true) => out.push_str("[^0-9A-Za-z_]"),
        ('s', true) => out.push_str(r"\t\n\f\r "),
        ('S', true) => out.push_str(r"[^\t\n\f\r ]"),
        ('b', false) => out.push_str(r"(?-u:\b)"),
        ('B', false) => out.push_str(r"(?-u:\B)"),
        ('0'..='7', _) if c == '0' || chars.peek().is_some_and(|next| next.is_digit(8)) => {
            octal(c, chars, out)
        }
        ('p' | 'P', _) if is_negated_property(chars) => {
            out.extend(['\\', if c == 'p' { 'P' } else { 'p' }, '{']);
            chars.nth(1);
            copy_to_brace(chars, out);
        }
        ('p' | 'P' | 'x', _) => {
            out.extend(['\\', c]);
            braces(chars, out);
        }
        (c, _) if c.is_ascii_alphanumeric() => out.extend(['\\', c]),
        (c, _) => literal(c, out),
    }
}

/// Writes a plain character so that it is one in or outside of a class.
fn literal(c: char, out: &mut String) {
    if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
        out.push('\\');
    }
    out.push(c);
}

/// Copies a class after its `[`; characters that only mean something to the `regex` crate are escaped.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return;
            }
            '[' if chars.peek() == Some(&':') => named_class(chars, out),
            '\\' => {
                let Some(c) = chars.next() else { return out.push('\\') };
                escape(c, true, chars, out);
            }
            c => literal(c, out),
        }
        first = false;
        // A hyphen between two characters makes a range; at the end it is a character, and escaped above.
        let mut ahead = chars.clone();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
            chars.next();
            out.push('-');
        }
    }
}

/// Writes the character of up to three octal digits, the first of which is `c`.
fn octal(c: char, chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut code = c.to_digit(8).unwrap_or(0);
    for _ in 0..2 {
        let Some(digit) = chars.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8)) else { break };
        code = code * 8 + digit;
    }
    out.push_str(&format!("\\x{{{code:x}}}"));
}

/// Whether `{^...` follows, Go's other way to say `\P{...}`.
fn is_negated_property(chars: &Peekable<Chars<'_>>) -> bool {
    let mut ahead = chars.clone();
    ahead.next() == Some('{') && ahead.next() == Some('^')
}

/// Copies `{...}` after `\p` or `\x`.
fn braces(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    if chars.peek() == Some(&'{') {
        copy_to_brace(chars, out);
    }
}

fn copy_to_brace(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    for c in chars.by_ref() {
        out.push(c);
        if c == '}' {
            return;
        }
    }
}

/// Copies `[:name:]`, or the bracket alone if it starts none.
fn named_class(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let name: String = chars.clone().take_while(|c| *c != ']').collect();
    if name.len() < 2 || !name.ends_with(':') {
        return literal('[', out);
    }
    out.push('[');
    out.push_str(&name);
    out.push(']');
    chars.nth(name.chars().count());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_expressions_mean_here_what_they_mean_there() {
        for (go, yes, no) in [
            (r"^\d+$", "12", "\u{663}"),
            (r"^[\d]$", "1", "\u{663}"),
            (r"^\w$", "a", "é"),
            (r"^\W$", "é", "a"),
            (r"^\s$", " ", "\u{a0}"),
            (r"é\b", "éa", "é"),
            (r"^[[a]$", "[", "b"),
            (r"^[a&&b]$", "&", "c"),
            (r"^[a~~b]$", "~", "c"),
            (r"^[+--]$", ",", "+-"),
            (r"^[a-]$", "-", "b"),
            (r"^[]a]$", "]", "b"),
            (r"^[^]a]$", "b", "]"),
            (r"^[[:alpha:]0]$", "x", ":"),
            (r"^[\p{Greek}]$", "α", "a"),
            (r"^[\w.-]+$", "a.b-c", "a b"),
            (r"^[\]\-\\]+$", "]-\\", "a"),
            (r"^/{id}$", "/{id}", "/id"),
            (r"^a{2}$", "aa", "a{2}"),
            (r"^a{,2}$", "a{,2}", "a"),
            (r"^a{1$", "a{1", "a"),
            (r"^a{1,2b}$", "a{1,2b}", "ab"),
            (r"^\101[\060-\071]\0$", "A7\0", "1017"),
            (r"^\p{^L}\P{^L}[\p{^L}]$", "1a2", "a1b"),
            (r"^\Qa.b\E.$", "a.bx", "axbx"),
            (r"^\<\>\_\/$", "<>_/", "a"),
            (r"(?i)^ABC$", "abc", "abd"),
            (r"^\p{L}\pN$", "é1", "11"),
            (r"^\x{e9}$", "é", "e"),
            (r"a|b", "xbx", "xcx"),
            (r"^(?P<name>x)(?:y)z*?$", "xyzz", "xz"),
        ] {
            let pattern = Pattern::parse(go).unwrap_or_else(|error| panic!("{go}: {error}"));
            assert!(pattern.is_match(yes), "{go} on {yes}: {}", translate(go));
            assert!(!pattern.is_match(no), "{go} on {no}: {}", translate(go));
        }
    }

    #[test]
    fn what_re2_cannot_do_is_refused() {
        for (go, message) in [
            ("(a", "invalid regular expression: unclosed group"),
            ("[a", "invalid regular expression: unclosed character class"),
            (
                "(?=a)",
                "invalid regular expression: look-around, including look-ahead and look-behind, is not supported",
            ),
            (r"(a)\1", "invalid regular expression: backreferences are not supported"),
            ("a{1000}{1000}", "the regular expression is too large"),
        ] {
            assert_eq!(Pattern::parse(go).map(|_| ()), Err(message.into()), "{go}");
        }
    }
}
