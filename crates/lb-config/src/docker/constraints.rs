//! `constraints`: which containers are looked at, by their labels (reference 4.4).

use std::collections::BTreeMap;

use lb_core::route::go_regex;
use regex::Regex;

/// A checked expression of `Label` and `LabelRegex` with `&&`, `||`, `!` and parentheses.
#[derive(Clone, Debug)]
pub struct Constraints(Expression);

#[derive(Clone, Debug)]
enum Expression {
    Label(String, String),
    LabelRegex(String, Regex),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

/// Deeper nesting is refused; chosen.
const MAX_DEPTH: usize = 32;

impl Constraints {
    /// # Errors
    /// What is wrong, and at which byte.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let expression = parser.any()?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.refuse("expected `&&`, `||` or the end"));
        }
        Ok(Self(expression))
    }

    pub fn allow(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.holds(labels)
    }
}

impl Expression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Label(key, value) => labels.get(key) == Some(value),
            Self::LabelRegex(key, regex) => labels.get(key).is_some_and(|value| regex.is_match(value)),
            Self::Not(inner) => !inner.holds(labels),
            Self::All(parts) => parts.iter().all(|part| part.holds(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(labels)),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, (usize, String)>;

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn refuse(&self, message: &str) -> (usize, String) {
        (self.at, message.to_owned())
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.take(token) { Ok(()) } else { Err(self.refuse(&format!("expected `{token}`"))) }
    }

    fn any(&mut self) -> Parsed<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.refuse("nested too deep"));
        }
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        self.depth -= 1;
        Ok(Expression::Any(parts))
    }

    fn all(&mut self) -> Parsed<Expression> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(Expression::All(parts))
    }

    fn one(&mut self) -> Parsed<Expression> {
        let mut negations = 0;
        while self.take("!") {
            negations += 1;
        }
        let inner = if self.take("(") {
            let inner = self.any()?;
            self.expect(")")?;
            inner
        } else {
            self.function()?
        };
        Ok(if negations % 2 == 1 { Expression::Not(Box::new(inner)) } else { inner })
    }

    fn function(&mut self) -> Parsed<Expression> {
        self.skip_space();
        let is_regex = self.take("LabelRegex");
        if !is_regex && !self.take("Label") {
            return Err(self.refuse("expected `Label` or `LabelRegex`"));
        }
        self.expect("(")?;
        let key = self.argument()?;
        self.expect(",")?;
        self.skip_space();
        let start = self.at;
        let value = self.argument()?;
        self.expect(")")?;
        if !is_regex {
            return Ok(Expression::Label(key, value));
        }
        let regex = go_regex(&value).map_err(|_| (start, "not a valid regular expression".to_owned()))?;
        Ok(Expression::LabelRegex(key, regex))
    }

    /// In back-ticks or quotes, as in rules.
    fn argument(&mut self) -> Parsed<String> {
        for quote in ["`", "\""] {
            if self.take(quote) {
                let Some(length) = self.rest().find(quote) else {
                    return Err(self.refuse("this text has no end"));
                };
                let argument = self.rest()[..length].to_owned();
                self.at += length + 1;
                return Ok(argument);
            }
        }
        Err(self.refuse("expected text in back-ticks"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_those_of_traefik() {
        let labels: BTreeMap<_, _> =
            [("tier", "api"), ("n", "v2.1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, expected) in [
            ("Label(`tier`,`api`)", true),
            ("Label(`tier`, `web`)", false),
            ("Label(\"tier\",\"api\")", true),
            ("!Label(`tier`,`api`)", false),
            ("LabelRegex(`n`,`2`)", true),
            ("LabelRegex(`n`,`^2`)", false),
            ("LabelRegex(`absent`,`.*`)", false),
            ("Label(`tier`,`web`) || Label(`tier`,`api`) && LabelRegex(`n`, `v`)", true),
            ("!(Label(`tier`,`web`) || Label(`tier`,`api`))", false),
        ] {
            assert_eq!(Constraints::parse(text).unwrap().allow(&labels), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, at, message) in [
            ("", 0, "expected `Label` or `LabelRegex`"),
            ("Tag(`a`)", 0, "expected `Label` or `LabelRegex`"),
            ("Label(`a`)", 9, "expected `,`"),
            ("Label(a,`b`)", 6, "expected text in back-ticks"),
            ("Label(`a`,`b`) or", 15, "expected `&&`, `||` or the end"),
            ("LabelRegex(`a`,`(`)", 15, "not a valid regular expression"),
            ("(Label(`a`,`b`)", 15, "expected `)`"),
            ("Label(`a`,`b", 11, "this text has no end"),
        ] {
            assert_eq!(Constraints::parse(text).unwrap_err(), (at, message.to_owned()), "{text}");
        }
        assert!(Constraints::parse(&"(".repeat(100_000)).is_err());
    }
}
