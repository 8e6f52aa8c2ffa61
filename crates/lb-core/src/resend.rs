//! When `buffering` sends a request again: the conditions of its `retryExpression`.
//!
//! The lexical rules are those of [breaker expressions](crate::breaker::Expression), and what is compared with what
//! is checked as strictly: statuses and attempts with whole numbers, the method with a string.

use std::fmt;

use crate::comparison::Operator;
use crate::syntax::{self, Kind, Node, SyntaxError, Token, Tokens, closest};

/// A condition on an answer. Two are equal if their texts are.
#[derive(Clone)]
pub struct Condition {
    text: Box<str>,
    node: Node<Test>,
}

/// An answer, as a condition sees it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Tries so far, this one included.
    pub attempts: u32,
    pub status: u16,
    pub method: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// 502 or 504, as Vigie answers when the network fails.
    NetworkError,
    Number(Number, Operator, i64),
    /// Whether the method is to be this one or another.
    Method(bool, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Attempts,
    ResponseCode,
}

impl Condition {
    /// # Errors
    /// The first thing wrong with the text, with its byte offset and, if one is known, a way out.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self {
            text: text.into(),
            node: syntax::parse("expression", text, &mut |tokens, negated| {
                read_test(tokens, negated).map(Kind::Leaf)
            })?,
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn holds(&self, answered: &Answered<'_>) -> bool {
        self.node.evaluate(&mut |test| match test {
            Test::NetworkError => matches!(answered.status, 502 | 504),
            Test::Number(Number::Attempts, operator, value) => {
                operator.holds(answered.attempts.into(), *value)
            }
            Test::Number(Number::ResponseCode, operator, value) => {
                operator.holds(answered.status.into(), *value)
            }
            Test::Method(wanted, value) => (answered.method == value) == *wanted,
        })
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

const FUNCTIONS: [&str; 4] = ["Attempts", "ResponseCode", "IsNetworkError", "RequestMethod"];

fn read_test(tokens: &mut Tokens<'_>, negated: bool) -> Result<Test, SyntaxError> {
    let at = tokens.at();
    let Token::Name(name) = *tokens.peek() else {
        let error = tokens.unexpected("a function");
        return Err(match tokens.peek() {
            Token::Number(_) | Token::Text(_) => {
                error.hint("write the function on the left, the value on the right")
            }
            _ => error,
        });
    };
    if !FUNCTIONS.contains(&name) {
        let error = SyntaxError::new(at, format!("unknown function `{name}`"));
        return Err(match closest(name, FUNCTIONS.into_iter()) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error.hint(format!("the functions are {}", FUNCTIONS.join(", "))),
        });
    }
    if negated {
        return Err(SyntaxError::new(at, "`!` is not defined in retry expressions")
            .hint("use the opposite comparison, such as `<=` for `>`"));
    }
    tokens.take()?;
    tokens.expect("(", format_args!("after `{name}`"))?;
    tokens.expect(")", format_args!("after `{name}(`"))?;
    if name == "IsNetworkError" {
        return Ok(Test::NetworkError);
    }
    let wanted = "a comparison such as `==`";
    let Token::Symbol(symbol) = *tokens.peek() else { return Err(tokens.unexpected(wanted)) };
    let operator = Operator::of(symbol).ok_or_else(|| tokens.unexpected(wanted))?;
    tokens.take()?;
    let at = tokens.at();
    match (name, tokens.take()?) {
        ("RequestMethod", Token::Text(method)) => match operator {
            Operator::Equal | Operator::NotEqual => Ok(Test::Method(operator == Operator::Equal, method)),
            _ => Err(SyntaxError::new(at, "a method is compared with `==` or `!=`")),
        },
        ("RequestMethod", _) => {
            Err(SyntaxError::new(at, "a method is compared with a string").hint("write one such as \"GET\""))
        }
        (_, Token::Number(digits)) => {
            let number = if name == "Attempts" { Number::Attempts } else { Number::ResponseCode };
            let value = digits
                .replace('_', "")
                .parse()
                .map_err(|_| SyntaxError::new(at, format!("{digits} is not an integer such as 500")))?;
            Ok(Test::Number(number, operator, value))
        }
        _ => Err(SyntaxError::new(at, format!("`{name}()` is compared with an integer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, attempts: u32, status: u16, method: &str) -> bool {
        Condition::parse(text).unwrap().holds(&Answered { attempts, status, method })
    }

    #[test]
    fn conditions_look_at_the_answer() {
        for (text, attempts, status, method, expected) in [
            ("IsNetworkError()", 1, 502, "GET", true),
            ("IsNetworkError()", 1, 504, "GET", true),
            ("IsNetworkError()", 1, 503, "GET", false),
            ("IsNetworkError() && Attempts() <= 2", 2, 502, "GET", true),
            ("IsNetworkError() && Attempts() <= 2", 3, 502, "GET", false),
            ("ResponseCode() >= 500 && ResponseCode() < 600", 1, 500, "GET", true),
            ("ResponseCode() == 500 || ResponseCode() == 503", 1, 501, "GET", false),
            ("RequestMethod() == \"GET\" && ResponseCode() != 200", 1, 404, "GET", true),
            ("RequestMethod() != `POST`", 1, 404, "POST", false),
            ("Attempts() > 1", 2, 200, "GET", true),
        ] {
            assert_eq!(
                holds(text, attempts, status, method),
                expected,
                "{text} {attempts} {status} {method}"
            );
        }
    }

    #[test]
    fn errors_name_the_place_and_a_way_out() {
        for (text, at, message, hint) in [
            ("", 0, "the expression is empty", ""),
            ("Attempts()", 10, "expected a comparison such as `==`, found the end", ""),
            ("Attempts", 8, "expected `(` after `Attempts`, found the end", ""),
            ("Attempts() == 1.5", 14, "1.5 is not an integer such as 500", ""),
            ("ResponseCode() == \"500\"", 18, "`ResponseCode()` is compared with an integer", ""),
            ("RequestMethod() == 5", 19, "a method is compared with a string", "write one such as \"GET\""),
            ("RequestMethod() < \"GET\"", 18, "a method is compared with `==` or `!=`", ""),
            (
                "!IsNetworkError()",
                1,
                "`!` is not defined in retry expressions",
                "use the opposite comparison, such as `<=` for `>`",
            ),
            ("IsNetworkErorr()", 0, "unknown function `IsNetworkErorr`", "did you mean `IsNetworkError`?"),
            (
                "2 > Attempts()",
                0,
                "expected a function, found the number 2",
                "write the function on the left, the value on the right",
            ),
        ] {
            let error = Condition::parse(text).expect_err(text);
            let found = (error.at, error.to_string(), error.hint.unwrap_or_default());
            assert_eq!(found, (at, message.into(), hint.into()), "{text}");
        }
    }
}
