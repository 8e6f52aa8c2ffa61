//! Search and replace with Go's regular expressions and Go's templates (`Regexp.ReplaceAllString`).
//!
//! In a template `$1` and `${1}` are the first group, `$name` and `${name}` a named one, `$$` is a dollar sign. A name is
//! as long as it can be: `$1x` is the group called `1x`, not the first one and an `x`. What names no group is empty,
//! and a dollar sign that begins no name stands for itself.

use std::ops::Range;
use std::sync::LazyLock;

use crate::route::Pattern;

/// Bytes that the searches of one text go through at most. Behind each match another one begins, which may go to the end of
/// the text and find the next byte (`a.*b|a`). Chosen: a path of 5 KiB may be nothing but matches, and it takes some 10 ms.
const MAX_SEARCHED: usize = 16 * 1024 * 1024;

/// What Go takes for a name: letters, digits and `_` of all scripts.
static NAME: LazyLock<Option<regex::Regex>> = LazyLock::new(|| regex::Regex::new(r"^[\p{L}\p{Nd}_]+").ok());

/// An expression with what takes the place of its matches.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pattern: Pattern,
    regex: String,
    replacement: String,
    parts: Vec<Part>,
    /// Where the replacement names groups that the expression does not have.
    missing: Vec<Range<usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

/// To replace all matches would take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Two of them are the same if they were written the same.
impl PartialEq for Rewrite {
    fn eq(&self, other: &Self) -> bool {
        self.regex == other.regex && self.replacement == other.replacement
    }
}

impl Eq for Rewrite {}

impl Rewrite {
    /// # Errors
    /// What is wrong with the expression, in one line. Every text is a valid replacement.
    pub fn new(regex: &str, replacement: &str) -> Result<Self, String> {
        let pattern = Pattern::parse(regex)?;
        let (parts, missing) = parse(replacement, pattern.regex());
        Ok(Self { pattern, regex: regex.to_owned(), replacement: replacement.to_owned(), parts, missing })
    }

    /// As written.
    pub fn regex(&self) -> &str {
        &self.regex
    }

    /// As written.
    pub fn replacement(&self) -> &str {
        &self.replacement
    }

    /// The names of groups, as the replacement writes them, that the expression does not have: always empty.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().filter_map(|range| self.replacement.get(range.clone()))
    }

    /// `text` with every match replaced; `None` if there is none.
    ///
    /// # Errors
    /// It is long, and there are so many that no address is meant.
    pub fn apply(&self, text: &str) -> Result<Option<String>, TooMany> {
        let mut matches = self.pattern.regex().captures_iter(text).peekable();
        if matches.peek().is_none() {
            return Ok(None);
        }
        let mut out = String::with_capacity(text.len() + self.replacement.len());
        let (mut end, mut searched) = (0, 0);
        for groups in matches {
            let Some(whole) = groups.get(0) else { continue };
            out.push_str(&text[end..whole.start()]);
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Group(number) => {
                        out.push_str(groups.get(*number).map_or("", |group| group.as_str()));
                    }
                }
            }
            end = whole.end();
            searched += text.len() - end;
            if searched > MAX_SEARCHED {
                return Err(TooMany);
            }
        }
        out.push_str(&text[end..]);
        Ok(Some(out))
    }
}

/// The template cut at its groups, and where it names some that do not exist.
fn parse(template: &str, regex: &regex::Regex) -> (Vec<Part>, Vec<Range<usize>>) {
    let (mut parts, mut missing, mut text) = (Vec::new(), Vec::new(), String::new());
    let mut at = 0;
    while let Some(dollar) = template[at..].find('$').map(|found| at + found) {
        text.push_str(&template[at..dollar]);
        let rest = &template[dollar + 1..];
        if rest.starts_with('$') {
            text.push('$');
            at = dollar + 2;
            continue;
        }
        let Some((name, length)) = name(rest) else {
            text.push('$');
            at = dollar + 1;
            continue;
        };
        at = dollar + 1 + length;
        match group(name, regex) {
            Some(number) => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Group(number));
            }
            None => missing.push(dollar..at),
        }
    }
    text.push_str(&template[at..]);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    (parts, missing)
}

/// The name that `rest` begins with, in braces or not, and how many bytes it takes with them.
fn name(rest: &str) -> Option<(&str, usize)> {
    let inner = rest.strip_prefix('{');
    let name = NAME.as_ref()?.find(inner.unwrap_or(rest))?.as_str();
    match inner {
        Some(inner) => inner[name.len()..].starts_with('}').then_some((name, name.len() + 2)),
        None => Some((name, name.len())),
    }
}

fn group(name: &str, regex: &regex::Regex) -> Option<usize> {
    // A number with leading zeros is a name.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if is_number {
        return name.parse().ok().filter(|number| *number < regex.captures_len());
    }
    regex.capture_names().position(|known| known == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(regex: &str, replacement: &str, text: &str) -> Option<String> {
        Rewrite::new(regex, replacement).unwrap().apply(text).unwrap()
    }

    /// As Go 1.26 does them.
    #[test]
    fn templates_are_expanded_as_by_go() {
        for (replacement, expected) in [
            ("$1-$2", "a-b"),
            ("${1}x", "ax"),
            ("$1x", ""),
            ("$1_", ""),
            ("$1-", "a-"),
            ("$second${second}$2", "bbb"),
            ("$seconds", ""),
            ("$$1", "$1"),
            ("$$$1", "$a"),
            ("$0", "ab"),
            ("$01", ""),
            ("$3$99999999999999999999", ""),
            ("$", "$"),
            ("$-$ ${$", "$-$ ${$"),
            ("${1", "${1"),
            ("${}", "${}"),
            ("${1 }", "${1 }"),
            ("${é}$é.", "."),
            ("é$1é", "é"),
            ("", ""),
        ] {
            let found = rewritten("^(a)(?P<second>b)$", replacement, "ab");
            assert_eq!(found.as_deref(), Some(expected), "{replacement}");
        }
    }

    #[test]
    fn every_match_is_replaced() {
        assert_eq!(rewritten("a", "b", "xyz"), None);
        assert_eq!(rewritten("a+", "<$0>", "aaxa").as_deref(), Some("<aa>x<a>"));
        // An empty match right behind another one does not count.
        assert_eq!(rewritten("b*", "-", "abba").as_deref(), Some("-a-a-"));
        assert_eq!(rewritten("(x)?b", "[$1]", "ab").as_deref(), Some("a[]"));
    }

    #[test]
    fn a_long_text_of_nothing_but_matches_is_not_searched_to_its_end() {
        let rewrite = Rewrite::new("a.*b|a", "c").unwrap();
        assert_eq!(rewrite.apply(&"a".repeat(5_000)), Ok(Some("c".repeat(5_000))));
        assert_eq!(rewrite.apply(&"a".repeat(1_000_000)), Err(TooMany));
        let one = Rewrite::new("^(.*)$", "$1$1").unwrap();
        assert!(one.apply(&"a".repeat(1_000_000)).is_ok());
    }

    #[test]
    fn groups_that_do_not_exist_are_told() {
        let rewrite = Rewrite::new("^(a)(?P<n>b)$", "$1x/${2}/${m}/$n/$3/$$4").unwrap();
        assert_eq!(rewrite.missing().collect::<Vec<_>>(), ["$1x", "${m}", "$3"]);
        assert!(Rewrite::new("(", "").is_err());
    }
}
