//! A file cut into text and actions, and actions into tokens, by the rules of Go's `text/template`.

use super::super::source::Format;
use super::origin::{Cursor, Place};
use crate::problem::quoted;

/// Tokens of one action; chosen.
const MAX_TOKENS: usize = 20_000;

/// What is wrong at a place of the template, and the way out.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Place,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(at: Place, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

pub(super) enum Part<'t> {
    Text { at: Place, text: &'t str },
    Action(Action<'t>),
}

pub(super) struct Action<'t> {
    /// Of its `{{`.
    pub(super) at: Place,
    pub(super) tokens: Vec<Token<'t>>,
    /// What ended it before its `}}`; the tokens are those before that.
    pub(super) fault: Option<Fault>,
}

#[derive(Clone, Debug)]
pub(super) struct Token<'t> {
    pub(super) at: Place,
    pub(super) kind: Kind<'t>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'t> {
    Space,
    /// A name, a keyword, `true`, `false` or `nil`.
    Word(&'t str),
    Dot,
    /// Without its dot.
    Field(&'t str),
    /// With its dollar.
    Variable(&'t str),
    Text(String),
    Char(char),
    Number(&'t str),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    Close,
    Other(char),
}

impl Kind<'_> {
    /// As written, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Space => "a space".to_owned(),
            Self::Word(word) | Self::Number(word) | Self::Variable(word) => quoted(word),
            Self::Dot => "`.`".to_owned(),
            Self::Field(name) => quoted(&format!(".{name}")),
            Self::Text(_) => "a text".to_owned(),
            Self::Char(_) => "a character".to_owned(),
            Self::Pipe => "`|`".to_owned(),
            Self::Comma => "`,`".to_owned(),
            Self::Declare => "`:=`".to_owned(),
            Self::Assign => "`=`".to_owned(),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
            Self::Other(c) => quoted(c.encode_utf8(&mut [0; 4])),
        }
    }
}

pub(super) struct Lexer<'t> {
    text: &'t str,
    offset: usize,
    places: Cursor<'t>,
    /// The last action ended in `-}}`.
    trim: bool,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// What a name is made of.
fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl<'t> Iterator for Lexer<'t> {
    type Item = Part<'t>;

    fn next(&mut self) -> Option<Part<'t>> {
        loop {
            if self.rest().is_empty() {
                return None;
            }
            if let Some(text) = self.take_text() {
                return Some(text);
            }
            if let Some(action) = self.take_action() {
                return Some(Part::Action(action));
            }
        }
    }
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str, format: Format) -> Self {
        let places = Cursor::new(text, format, Place { line: 1, column: 1 });
        Self { text, offset: 0, places, trim: false }
    }

    /// Of the end, once everything was taken.
    pub(super) fn end(mut self) -> Place {
        self.places.at(self.text.len())
    }

    fn rest(&self) -> &'t str {
        &self.text[self.offset..]
    }

    /// The text before the next `{{`, without what trim markers take from it.
    fn take_text(&mut self) -> Option<Part<'t>> {
        if std::mem::take(&mut self.trim) {
            self.offset = self.text.len() - self.rest().trim_start_matches(is_space).len();
        }
        let rest = self.rest();
        let start = self.offset;
        let length = rest.find("{{").unwrap_or(rest.len());
        self.offset += length;
        let mut text = &rest[..length];
        if let Some(action) = rest[length..].strip_prefix("{{-")
            && action.starts_with(is_space)
        {
            text = text.trim_end_matches(is_space);
        }
        let is_something = !text.is_empty();
        is_something.then(|| Part::Text { at: self.places.at(start), text })
    }

    /// `None` for a comment.
    fn take_action(&mut self) -> Option<Action<'t>> {
        if self.rest().is_empty() {
            return None;
        }
        let mut action = Action { at: self.places.at(self.offset), tokens: Vec::new(), fault: None };
        self.offset += 2;
        if self.rest().strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space)) {
            self.offset += 2;
        }
        match self.take_tokens(&mut action) {
            Ok(()) if action.tokens.is_empty() => None,
            Ok(()) => Some(action),
            Err(fault) => {
                action.fault = Some(fault);
                // What follows is looked at as if the action ended where the next one does.
                match self.rest().find("}}") {
                    Some(end) => self.offset += end + 2,
                    None => self.offset = self.text.len(),
                }
                Some(action)
            }
        }
    }

    fn take_tokens(&mut self, action: &mut Action<'t>) -> Result<(), Fault> {
        if self.rest().starts_with("/*") {
            return self.skip_comment(action.at);
        }
        let mut open = Vec::new();
        loop {
            let at = self.places.at(self.offset);
            if self.skip_end() {
                return match open.pop() {
                    Some(at) => Err(Fault::new(at, "this `(` has no `)`")),
                    None if action.tokens.is_empty() => Err(Fault::new(action.at, "this action is empty")
                        .hint("write a literal `{{` as {{ \"{{\" }}")),
                    None => Ok(()),
                };
            }
            if self.rest().is_empty() {
                return Err(Fault::new(action.at, "this `{{` has no `}}`"));
            }
            if action.tokens.len() == MAX_TOKENS {
                return Err(Fault::new(at, format!("an action of more than {MAX_TOKENS} words")));
            }
            let kind = self.take_token(at)?;
            match kind {
                Kind::Open => open.push(at),
                Kind::Close if open.pop().is_none() => {
                    return Err(Fault::new(at, "this `)` has no `(`"));
                }
                _ => {}
            }
            action.tokens.push(Token { at, kind });
        }
    }

    fn skip_comment(&mut self, at: Place) -> Result<(), Fault> {
        let Some(end) = self.rest()[2..].find("*/") else {
            self.offset = self.text.len();
            return Err(Fault::new(at, "this comment has no `*/`"));
        };
        self.offset += 2 + end + 2;
        if self.skip_end() {
            return Ok(());
        }
        Err(Fault::new(at, "a comment must fill its action: `}}` or ` -}}` has to follow `*/`"))
    }

    /// Whether the action ends here.
    fn skip_end(&mut self) -> bool {
        let rest = self.rest();
        if rest.starts_with("}}") {
            self.offset += 2;
            return true;
        }
        let trims = rest.starts_with(is_space) && rest[1..].starts_with("-}}");
        if trims {
            self.offset += 4;
            self.trim = true;
        }
        trims
    }

    /// Passes over what `accept` takes and returns it.
    fn run(&mut self, accept: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let run = &rest[..rest.find(|c| !accept(c)).unwrap_or(rest.len())];
        self.offset += run.len();
        run
    }

    fn take_token(&mut self, at: Place) -> Result<Kind<'t>, Fault> {
        let rest = self.rest();
        let mut chars = rest.chars();
        let Some(first) = chars.next() else { return Err(Fault::new(at, "this `{{` has no `}}`")) };
        let second = chars.next();
        let kind = match first {
            c if is_space(c) => {
                self.run(is_space);
                if self.rest().starts_with("-}}") {
                    // The last one belongs to the end.
                    self.offset -= 1;
                }
                return Ok(Kind::Space);
            }
            '"' => return self.take_quoted(at),
            '\'' => return self.take_char(at),
            '`' => {
                let Some(end) = rest[1..].find('`') else {
                    self.offset = self.text.len();
                    return Err(Fault::new(at, "this raw text has no second back-tick"));
                };
                self.offset += end + 2;
                // Go takes carriage returns out of raw texts.
                return Ok(Kind::Text(rest[1..=end].replace('\r', "")));
            }
            '$' => {
                self.offset += 1;
                let name = self.run(is_alphanumeric);
                self.check_end_of_word()?;
                return Ok(Kind::Variable(&rest[..=name.len()]));
            }
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => {
                self.offset += 1;
                let name = self.run(is_alphanumeric);
                self.check_end_of_word()?;
                return Ok(if name.is_empty() { Kind::Dot } else { Kind::Field(name) });
            }
            '.' | '+' | '-' | '0'..='9' => return self.take_number(at),
            c if is_alphanumeric(c) => {
                let word = self.run(is_alphanumeric);
                self.check_end_of_word()?;
                return Ok(Kind::Word(word));
            }
            ':' if second == Some('=') => {
                self.offset += 1;
                Kind::Declare
            }
            ':' => return Err(Fault::new(at, "a `:` without `=`").hint("a variable is set by `:=`")),
            '=' => Kind::Assign,
            '|' => Kind::Pipe,
            ',' => Kind::Comma,
            '(' => Kind::Open,
            ')' => Kind::Close,
            c if c.is_ascii_graphic() => Kind::Other(c),
            c => {
                let shown = quoted(c.encode_utf8(&mut [0; 4]));
                return Err(Fault::new(at, format!("{shown} has no meaning in an action")));
            }
        };
        self.offset += 1;
        Ok(kind)
    }

    /// Go reads neither `a"b"` nor `$x=1`.
    fn check_end_of_word(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        match rest.chars().next() {
            Some(c) if !is_space(c) && !".,|:()".contains(c) && !rest.starts_with("}}") => {
                let at = self.places.at(self.offset);
                let shown = quoted(c.encode_utf8(&mut [0; 4]));
                Err(Fault::new(at, format!("{shown} may not follow a word"))
                    .hint("write a space between them"))
            }
            _ => Ok(()),
        }
    }

    fn take_number(&mut self, at: Place) -> Result<Kind<'t>, Fault> {
        let rest = self.rest();
        self.optional(&['+', '-']);
        let mut digits = "0123456789_";
        if self.optional(&['0']) {
            if self.optional(&['x', 'X']) {
                digits = "0123456789abcdefABCDEF_";
            } else if self.optional(&['o', 'O']) {
                digits = "01234567_";
            } else if self.optional(&['b', 'B']) {
                digits = "01_";
            }
        }
        self.run(|c| digits.contains(c));
        if self.optional(&['.']) {
            self.run(|c| digits.contains(c));
        }
        if digits.len() == 11 && self.optional(&['e', 'E']) {
            self.optional(&['+', '-']);
            self.run(|c| "0123456789_".contains(c));
        }
        let number = &rest[..rest.len() - self.rest().len()];
        if self.rest().starts_with(is_alphanumeric) || !number.contains(|c: char| c.is_ascii_digit()) {
            let rest = self.run(is_alphanumeric);
            return Err(Fault::new(at, format!("{} is no number", quoted(&format!("{number}{rest}")))));
        }
        Ok(Kind::Number(number))
    }

    fn optional(&mut self, chars: &[char]) -> bool {
        let found = self.rest().starts_with(chars);
        self.offset += usize::from(found);
        found
    }

    fn take_quoted(&mut self, at: Place) -> Result<Kind<'t>, Fault> {
        let literal = self.take_literal('"', at)?;
        let mut bytes = Vec::with_capacity(literal.len());
        let mut rest = literal;
        while let Some(next) = take_escaped(&mut rest, '"') {
            match next {
                Some(Unit::Char(c)) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                Some(Unit::Byte(byte)) => bytes.push(byte),
                None => return Err(bad_escape(at)),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Kind::Text(text)),
            Err(_) => Err(Fault::new(at, "the bytes of this text are not UTF-8")),
        }
    }

    fn take_char(&mut self, at: Place) -> Result<Kind<'t>, Fault> {
        let mut rest = self.take_literal('\'', at)?;
        let unit = take_escaped(&mut rest, '\'');
        match unit {
            Some(Some(unit)) if rest.is_empty() => Ok(Kind::Char(match unit {
                Unit::Char(c) => c,
                Unit::Byte(byte) => char::from(byte),
            })),
            Some(None) => Err(bad_escape(at)),
            _ => Err(Fault::new(at, "single quotes hold one character").hint("a text has double quotes")),
        }
    }

    /// What stands between two quotes on a line.
    fn take_literal(&mut self, quote: char, at: Place) -> Result<&'t str, Fault> {
        let rest = &self.rest()[1..];
        let mut escaped = false;
        for (end, c) in rest.char_indices() {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.offset += 1 + end + 1;
                    return Ok(&rest[..end]);
                }
                _ => {}
            }
        }
        let hint = "it must end on its line; back-ticks go around several lines";
        Err(Fault::new(at, format!("this text has no second {quote}")).hint(hint))
    }
}

fn bad_escape(at: Place) -> Fault {
    Fault::new(at, "an unknown escape after `\\` in this text")
        .hint("write a backslash as `\\\\`, or the text between back-ticks")
}

enum Unit {
    Char(char),
    Byte(u8),
}

/// The next character of a literal of Go; the inner `None` for one that is not right.
#[expect(clippy::option_option, reason = "the end is no fault")]
fn take_escaped(rest: &mut &str, quote: char) -> Option<Option<Unit>> {
    let mut chars = rest.chars();
    let first = chars.next()?;
    if first != '\\' {
        *rest = chars.as_str();
        return Some(Some(Unit::Char(first)));
    }
    let Some(kind) = chars.next() else { return Some(None) };
    let simple = match kind {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        '\\' => Some('\\'),
        c if c == quote => Some(c),
        _ => None,
    };
    if let Some(c) = simple {
        *rest = chars.as_str();
        return Some(Some(Unit::Char(c)));
    }
    let (digits, base) = match kind {
        'x' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='7' => (3, 8),
        _ => return Some(None),
    };
    let after = if base == 8 { &rest[1..] } else { chars.as_str() };
    let Some((number, after)) = after.split_at_checked(digits) else { return Some(None) };
    *rest = after;
    let value = if number.starts_with(['+', '-']) { None } else { u32::from_str_radix(number, base).ok() };
    Some(match (kind, value) {
        ('u' | 'U', Some(value)) => char::from_u32(value).map(Unit::Char),
        (_, Some(value)) => u8::try_from(value).ok().map(Unit::Byte),
        (_, None) => None,
    })
}
