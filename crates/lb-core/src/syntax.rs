//! The syntax that routing rules and circuit breaker expressions share: calls joined by
//! `&&`, `||`, `!` and parentheses.
//!
//! Traefik reads both with the expression parser of Go, so the lexical rules are Go's: strings in
//! back-ticks are verbatim, strings in double quotes know escapes. What a single call or comparison
//! means is decided by the caller.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Nesting a rule may have, counting parentheses and negations. Chosen: people use three or four.
const MAX_DEPTH: usize = 100;

/// Length of a rule or expression. Chosen: room for some five thousand hosts in one rule.
const MAX_BYTES: usize = 256 * 1024;

/// Why a rule or an expression was refused, for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Byte offset of the offending piece in the text.
    pub at: usize,
    pub message: String,
    /// A way out, such as ``did you mean `PathPrefix`?``.
    pub hint: Option<String>,
}

impl SyntaxError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An expression as a tree. Negations have been pushed into the leaves (De Morgan). Equal trees are equal
/// wherever they stand.
#[derive(Clone, Debug)]
pub(crate) struct Node<L> {
    pub(crate) kind: Kind<L>,
    /// Where in the text it stands, parentheses and negation excluded.
    pub(crate) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind<L> {
    Leaf(L),
    /// Joined by "and".
    All(Vec<Node<L>>),
    /// Joined by "or".
    Any(Vec<Node<L>>),
}

impl<L: PartialEq> PartialEq for Node<L> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl<L: Eq> Eq for Node<L> {}

impl<L: Hash> Hash for Node<L> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl<L> Node<L> {
    /// The value of the expression, given that of its leaves. Stops as soon as it is known.
    pub(crate) fn evaluate(&self, leaf: &mut impl FnMut(&L) -> bool) -> bool {
        match &self.kind {
            Kind::Leaf(value) => leaf(value),
            Kind::All(nodes) => nodes.iter().all(|node| node.evaluate(leaf)),
            Kind::Any(nodes) => nodes.iter().any(|node| node.evaluate(leaf)),
        }
    }

    pub(crate) fn for_each_leaf<'a>(&'a self, visit: &mut impl FnMut(&'a L)) {
        match &self.kind {
            Kind::Leaf(value) => visit(value),
            Kind::All(nodes) | Kind::Any(nodes) => nodes.iter().for_each(|node| node.for_each_leaf(visit)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Name(&'a str),
    /// A string literal, escapes already replaced.
    Text(String),
    /// A number literal, as written.
    Number(&'a str),
    Symbol(&'static str),
    End,
}

impl Token<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}`"),
            Self::Text(_) => "a string".into(),
            Self::Number(digits) => format!("the number {digits}"),
            Self::Symbol(symbol) => format!("`{symbol}`"),
            Self::End => "the end".into(),
        }
    }
}

/// Tokens of a text, with one token of look-ahead.
pub(crate) struct Tokens<'a> {
    text: &'a str,
    next: Token<'a>,
    next_span: Range<usize>,
    /// End of the token taken last.
    taken_to: usize,
    depth: usize,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 12] = ["&&", "||", "<=", ">=", "==", "!=", "(", ")", ",", "!", "<", ">"];

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Result<Self, SyntaxError> {
        let mut tokens = Self { text, next: Token::End, next_span: 0..0, taken_to: 0, depth: 0 };
        tokens.take()?;
        Ok(tokens)
    }

    pub(crate) fn peek(&self) -> &Token<'a> {
        &self.next
    }

    /// Byte offset of the next token.
    pub(crate) fn at(&self) -> usize {
        self.next_span.start
    }

    /// From a token to the one that was taken last.
    pub(crate) fn since(&self, start: usize) -> Range<usize> {
        start..self.taken_to
    }

    pub(crate) fn take(&mut self) -> Result<Token<'a>, SyntaxError> {
        self.taken_to = self.next_span.end;
        let rest = &self.text[self.taken_to..];
        let start = self.text.len() - skip_blanks(rest).len();
        let (token, length) = lex(&self.text[start..], start)?;
        self.next_span = start..start + length;
        Ok(std::mem::replace(&mut self.next, token))
    }

    /// Takes `symbol` if it comes next.
    pub(crate) fn take_if(&mut self, symbol: &str) -> Result<bool, SyntaxError> {
        let found = matches!(&self.next, Token::Symbol(next) if *next == symbol);
        if found {
            self.take()?;
        }
        Ok(found)
    }

    pub(crate) fn expect(&mut self, symbol: &str, context: fmt::Arguments<'_>) -> Result<(), SyntaxError> {
        if self.take_if(symbol)? { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}` {context}"))) }
    }

    /// The error for a token that is not what had to come.
    pub(crate) fn unexpected(&self, wanted: &str) -> SyntaxError {
        SyntaxError::new(self.at(), format!("expected {wanted}, found {}", self.next.describe()))
    }
}

/// What follows blanks and Go's comments.
fn skip_blanks(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        let comment = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(inside) = rest.strip_prefix("/*") {
            // One without an end is left to be told.
            inside.find("*/").map_or(0, |at| at + 4)
        } else {
            0
        };
        if comment == 0 {
            return rest;
        }
        rest = &rest[comment..];
    }
}

fn lex(rest: &str, at: usize) -> Result<(Token<'_>, usize), SyntaxError> {
    let Some(first) = rest.chars().next() else { return Ok((Token::End, 0)) };
    let word = |more: fn(char) -> bool| &rest[..rest.find(|c| !more(c)).unwrap_or(rest.len())];
    match first {
        '`' => {
            let Some(length) = rest[1..].find('`') else {
                return Err(SyntaxError::new(at, "the string that starts here has no closing back-tick"));
            };
            // Go drops carriage returns from raw strings.
            Ok((Token::Text(rest[1..=length].replace('\r', "")), length + 2))
        }
        '"' => quoted(rest, at),
        '\'' => Err(SyntaxError::new(at, "single quotes do not delimit strings")
            .hint("use back-ticks or double quotes")),
        'a'..='z' | 'A'..='Z' | '_' => {
            let name = word(|c| c.is_ascii_alphanumeric() || c == '_');
            Ok((Token::Name(name), name.len()))
        }
        '0'..='9' | '.' => {
            let mut digits = word(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            if digits.ends_with(['e', 'E']) && rest[digits.len()..].starts_with(['+', '-']) {
                let exponent = &rest[digits.len() + 1..];
                let length = exponent.find(|c: char| !c.is_ascii_digit()).unwrap_or(exponent.len());
                digits = &rest[..digits.len() + 1 + length];
            }
            Ok((Token::Number(digits), digits.len()))
        }
        // Most are told apart by their first byte, without a call.
        _ => match SYMBOLS
            .iter()
            .find(|symbol| symbol.as_bytes()[0] == rest.as_bytes()[0] && rest.starts_with(**symbol))
        {
            Some(symbol) => Ok((Token::Symbol(symbol), symbol.len())),
            None => {
                let error = SyntaxError::new(at, format!("`{}` has no meaning here", first.escape_debug()));
                Err(match first {
                    '&' => error.hint("\"and\" is written `&&`"),
                    '|' => error.hint("\"or\" is written `||`"),
                    '=' => error.hint("equality is written `==`"),
                    '‘' | '’' | '“' | '”' => error.hint("use back-ticks or straight double quotes"),
                    _ => error,
                })
            }
        },
    }
}

/// A string in double quotes with the escapes of Go.
fn quoted(rest: &str, at: usize) -> Result<(Token<'_>, usize), SyntaxError> {
    let open = || SyntaxError::new(at, "the string that starts here has no closing double quote");
    let mut bytes = Vec::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => {
                let text = String::from_utf8(bytes).map_err(|_| {
                    SyntaxError::new(at, "the escapes of this string do not make valid UTF-8")
                })?;
                return Ok((Token::Text(text), index + 1));
            }
            '\n' => return Err(open()),
            '\\' => {
                let (_, letter) = chars.next().ok_or_else(open)?;
                let bad = || {
                    SyntaxError::new(at + index, "unknown escape in a string")
                        .hint("in back-ticks a backslash needs no escape")
                };
                let mut number = |first: Option<u32>, digits: usize, radix: u32| {
                    let more = (0..digits).try_fold(first.unwrap_or(0), |value, _| {
                        let digit = chars.next().and_then(|(_, c)| c.to_digit(radix))?;
                        Some(value * radix + digit)
                    });
                    more.ok_or_else(bad)
                };
                let character = |code: u32| char::from_u32(code).ok_or_else(bad);
                let mut buffer = [0; 4];
                let escaped: &[u8] = match letter {
                    'a' => b"\x07",
                    'b' => b"\x08",
                    'f' => b"\x0c",
                    'n' => b"\n",
                    'r' => b"\r",
                    't' => b"\t",
                    'v' => b"\x0b",
                    '\\' => b"\\",
                    '"' => b"\"",
                    'x' => &[number(None, 2, 16)? as u8],
                    '0'..='7' => &[u8::try_from(number(letter.to_digit(8), 2, 8)?).map_err(|_| bad())?],
                    'u' => character(number(None, 4, 16)?)?.encode_utf8(&mut buffer).as_bytes(),
                    'U' => character(number(None, 8, 16)?)?.encode_utf8(&mut buffer).as_bytes(),
                    _ => return Err(bad()),
                };
                bytes.extend_from_slice(escaped);
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err(open())
}

/// Reads one leaf, or what a call stands for; the flag says that it stands under an odd number of negations.
pub(crate) trait ReadLeaf<L>: FnMut(&mut Tokens<'_>, bool) -> Result<Kind<L>, SyntaxError> {}
impl<L, F: FnMut(&mut Tokens<'_>, bool) -> Result<Kind<L>, SyntaxError>> ReadLeaf<L> for F {}

/// Parses a whole text. `what` names it in messages ("rule", "expression").
///
/// # Errors
/// The first thing wrong, with its place.
pub(crate) fn parse<L>(what: &str, text: &str, leaf: &mut impl ReadLeaf<L>) -> Result<Node<L>, SyntaxError> {
    if text.len() > MAX_BYTES {
        return Err(SyntaxError::new(MAX_BYTES, format!("the {what} is longer than {MAX_BYTES} bytes")));
    }
    let mut tokens = Tokens::new(text)?;
    if *tokens.peek() == Token::End {
        return Err(SyntaxError::new(0, format!("the {what} is empty")));
    }
    let node = any(&mut tokens, false, leaf)?;
    match tokens.peek() {
        Token::End => Ok(node),
        Token::Symbol(")") => Err(SyntaxError::new(tokens.at(), "this `)` closes nothing")),
        Token::Name(name) => {
            let join = match name.to_ascii_lowercase().as_str() {
                "and" => "\"and\" is written `&&`",
                "or" => "\"or\" is written `||`",
                _ => "join conditions with `&&` or `||`",
            };
            Err(tokens.unexpected("`&&`, `||` or the end").hint(join))
        }
        _ => Err(tokens.unexpected("`&&`, `||` or the end")),
    }
}

fn any<L>(
    tokens: &mut Tokens<'_>,
    negated: bool,
    leaf: &mut impl ReadLeaf<L>,
) -> Result<Node<L>, SyntaxError> {
    let mut nodes = vec![all(tokens, negated, leaf)?];
    while tokens.take_if("||")? {
        nodes.push(all(tokens, negated, leaf)?);
    }
    Ok(join(nodes, if negated { Joint::And } else { Joint::Or }))
}

fn all<L>(
    tokens: &mut Tokens<'_>,
    negated: bool,
    leaf: &mut impl ReadLeaf<L>,
) -> Result<Node<L>, SyntaxError> {
    let mut nodes = vec![unary(tokens, negated, leaf)?];
    while tokens.take_if("&&")? {
        nodes.push(unary(tokens, negated, leaf)?);
    }
    Ok(join(nodes, if negated { Joint::Or } else { Joint::And }))
}

fn unary<L>(
    tokens: &mut Tokens<'_>,
    negated: bool,
    leaf: &mut impl ReadLeaf<L>,
) -> Result<Node<L>, SyntaxError> {
    let start = tokens.at();
    let nested = matches!(tokens.peek(), Token::Symbol("!" | "("));
    if nested {
        tokens.depth += 1;
        if tokens.depth > MAX_DEPTH {
            return Err(SyntaxError::new(start, format!("more than {MAX_DEPTH} levels of nesting")));
        }
    }
    let node = if tokens.take_if("!")? {
        unary(tokens, !negated, leaf)?
    } else if tokens.take_if("(")? {
        let node = any(tokens, negated, leaf)?;
        tokens.expect(")", format_args!("to close the `(` at byte {start}"))?;
        node
    } else {
        let kind = leaf(tokens, negated)?;
        Node { kind, span: tokens.since(start) }
    };
    if nested {
        tokens.depth -= 1;
    }
    Ok(node)
}

#[derive(Clone, Copy)]
enum Joint {
    And,
    Or,
}

/// One node out of at least one; children that are joined the same way are merged into it.
fn join<L>(mut nodes: Vec<Node<L>>, joint: Joint) -> Node<L> {
    if nodes.len() == 1 {
        return nodes.remove(0);
    }
    let start = nodes.iter().map(|node| node.span.start).min().unwrap_or(0);
    let end = nodes.iter().map(|node| node.span.end).max().unwrap_or(0);
    let mut merged = Vec::with_capacity(nodes.len());
    for node in nodes {
        match (joint, node.kind) {
            (Joint::And, Kind::All(children)) | (Joint::Or, Kind::Any(children)) => merged.extend(children),
            (_, kind) => merged.push(Node { kind, span: node.span }),
        }
    }
    let kind = match joint {
        Joint::And => Kind::All(merged),
        Joint::Or => Kind::Any(merged),
    };
    Node { kind, span: start..end }
}

/// The known name closest to a misspelt one, if any is close.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let distance = |other: &str| strsim::osa_distance(&name, &other.to_ascii_lowercase());
    let (distance, found) = known.map(|other| (distance(other), other)).min()?;
    (distance <= 3 && distance < found.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters are leaves; `-a` in the result is a negated leaf, `&` and `|` come before their operands.
    fn tree(text: &str) -> String {
        fn show(node: &Node<String>) -> String {
            let list = |nodes: &[Node<String>]| nodes.iter().map(show).collect::<Vec<_>>().join(" ");
            match &node.kind {
                Kind::Leaf(leaf) => leaf.clone(),
                Kind::All(nodes) => format!("(& {})", list(nodes)),
                Kind::Any(nodes) => format!("(| {})", list(nodes)),
            }
        }
        let mut leaf = |tokens: &mut Tokens<'_>, negated: bool| match tokens.take()? {
            Token::Name(name) => Ok(Kind::Leaf(format!("{}{name}", if negated { "-" } else { "" }))),
            Token::Text(text) => Ok(Kind::Leaf(format!("{text:?}"))),
            _ => Err(tokens.unexpected("a leaf")),
        };
        parse("rule", text, &mut leaf)
            .map_or_else(|error| format!("{}: {error}", error.at), |node| show(&node))
    }

    #[test]
    fn not_binds_tighter_than_and_which_binds_tighter_than_or() {
        assert_eq!(tree("a || b && !c"), "(| a (& b -c))");
        assert_eq!(tree("(a || b) && c"), "(& (| a b) c)");
        assert_eq!(tree("a\n && \t b"), "(& a b)");
        assert_eq!(tree("/* why */ a // one\n && /**/ b // two"), "(& a b)");
        assert_eq!(tree("a /*/"), "2: `/` has no meaning here");
    }

    #[test]
    fn negation_is_pushed_to_the_leaves() {
        assert_eq!(tree("!(a || b && !c)"), "(& -a (| -b c))");
        assert_eq!(tree("!!a"), "a");
    }

    #[test]
    fn chains_of_one_operator_are_one_node() {
        assert_eq!(tree("a || (b || (c || d))"), "(| a b c d)");
        assert_eq!(tree("a && !(b || c)"), "(& a -b -c)");
    }

    #[test]
    fn strings_follow_go() {
        assert_eq!(tree(r"`a\n`"), r#""a\\n""#);
        assert_eq!(tree(r#""a\n\x41\101\u00e9\"""#), r#""a\nAAé\"""#);
        assert_eq!(tree(r#""\xc3\xa9""#), r#""é""#);
        assert_eq!(tree(r#""\xff""#), "0: the escapes of this string do not make valid UTF-8");
        assert_eq!(tree(r#"a && "\q""#), "6: unknown escape in a string");
        assert_eq!(tree("a && `b"), "5: the string that starts here has no closing back-tick");
        assert_eq!(tree("\"a\nb\""), "0: the string that starts here has no closing double quote");
        assert_eq!(tree("'a'"), "0: single quotes do not delimit strings");
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(tree(" "), "0: the rule is empty");
        assert_eq!(tree("(a || b"), "7: expected `)` to close the `(` at byte 0, found the end");
        assert_eq!(tree("a)"), "1: this `)` closes nothing");
        assert_eq!(tree("a b"), "2: expected `&&`, `||` or the end, found `b`");
        assert_eq!(tree("a & b"), "2: `&` has no meaning here");
        assert_eq!(tree("é"), "0: `é` has no meaning here");
    }

    #[test]
    fn hostile_nesting_is_an_error_not_a_crash() {
        for text in ["(".repeat(200_000), "!".repeat(200_000)] {
            assert_eq!(tree(&text), "100: more than 100 levels of nesting");
        }
        assert_eq!(tree(&format!("{}a{}", "(".repeat(100), ")".repeat(100))), "a");
        assert_eq!(tree(&"a".repeat(300_000)), "262144: the rule is longer than 262144 bytes");
    }
}
