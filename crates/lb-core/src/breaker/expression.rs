//! The condition that opens a breaker: comparisons of metrics with numbers.
//!
//! Types are as strict as Traefik's: a ratio is compared with a float (`0.30`), the latency with an
//! integer (`100`). The metric stands on the left.

use std::fmt;
use std::num::{ParseFloatError, ParseIntError};

use super::ExpressionError;
use crate::comparison::Operator;
use crate::syntax::{self, Kind, Node, Token, Tokens, closest};

/// A condition on recent responses. Two expressions are equal if their texts are.
#[derive(Clone)]
pub struct Expression {
    text: Box<str>,
    condition: Node<Comparison>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    /// A share of responses in another: of those in the second set, how many are in the first.
    Ratio(Codes, Codes, Operator, f64),
    LatencyAtQuantileMs(f64, Operator, i64),
}

/// A set of response codes to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codes {
    All,
    /// 502 and 504, as the proxy answers when the network fails.
    NetworkError,
    /// From the first up to but not including the second.
    Range(u16, u16),
}

impl Codes {
    pub(super) fn contain(self, status: u16) -> bool {
        match self {
            Self::All => true,
            Self::NetworkError => matches!(status, 502 | 504),
            Self::Range(from, to) => (from..to).contains(&status),
        }
    }
}

impl Expression {
    /// # Errors
    /// The first thing wrong with the text, with its byte offset and, if one is known, a way out.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let condition = syntax::parse("expression", text, &mut |tokens, negated| {
            read_comparison(tokens, negated).map(Kind::Leaf)
        })?;
        Ok(Self { text: text.into(), condition })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn condition(&self) -> &Node<Comparison> {
        &self.condition
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

const METRICS: [&str; 3] = ["NetworkErrorRatio", "ResponseCodeRatio", "LatencyAtQuantileMS"];

fn read_comparison(tokens: &mut Tokens<'_>, negated: bool) -> Result<Comparison, ExpressionError> {
    if negated {
        return Err(ExpressionError::new(tokens.at(), "`!` is not defined in breaker expressions")
            .hint("use the opposite comparison, such as `<=` for `>`"));
    }
    let at = tokens.at();
    let Token::Name(name) = *tokens.peek() else {
        let error = tokens.unexpected("a metric");
        return Err(match tokens.peek() {
            Token::Number(_) => error.hint("write the metric on the left, the number on the right"),
            _ => error,
        });
    };
    tokens.take()?;
    match name {
        "NetworkErrorRatio" => {
            read_arguments(tokens, name, at, 0)?;
            let (operator, value) = read_right(tokens, float)?;
            Ok(Comparison::Ratio(Codes::NetworkError, Codes::All, operator, value))
        }
        "ResponseCodeRatio" => {
            let arguments = read_arguments(tokens, name, at, 4)?;
            let codes =
                arguments.iter().map(|(text, at)| integer(text, *at)).collect::<Result<Vec<_>, _>>()?;
            // Codes are below 1000, so a bound that does not fit means "no limit".
            let code = |index: usize| u16::try_from(codes[index]).unwrap_or(u16::MAX);
            let (operator, value) = read_right(tokens, float)?;
            Ok(Comparison::Ratio(
                Codes::Range(code(0), code(1)),
                Codes::Range(code(2), code(3)),
                operator,
                value,
            ))
        }
        "LatencyAtQuantileMS" => {
            let arguments = read_arguments(tokens, name, at, 1)?;
            let (text, at) = arguments[0];
            // Like Traefik, which takes any quantile above 100 for 100.
            let quantile = float(text, at)?.min(100.0);
            let (operator, value) = read_right(tokens, integer)?;
            Ok(Comparison::LatencyAtQuantileMs(quantile, operator, value))
        }
        _ => {
            let error = ExpressionError::new(at, format!("unknown metric `{name}`"));
            Err(match closest(name, METRICS.into_iter()) {
                Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                None => error.hint(format!("the metrics are {}", METRICS.join(", "))),
            })
        }
    }
}

/// Reads `(number, ...)`; each number comes with its place.
fn read_arguments<'a>(
    tokens: &mut Tokens<'a>,
    name: &str,
    at: usize,
    wanted: usize,
) -> Result<Vec<(&'a str, usize)>, ExpressionError> {
    tokens.expect("(", format_args!("after `{name}`"))?;
    let mut numbers = Vec::new();
    while !tokens.take_if(")")? {
        let Token::Number(digits) = *tokens.peek() else { return Err(tokens.unexpected("a number")) };
        numbers.push((digits, tokens.at()));
        tokens.take()?;
        if !tokens.take_if(",")? {
            tokens.expect(")", format_args!("after the arguments of `{name}`"))?;
            break;
        }
    }
    if numbers.len() != wanted {
        let message = format!("`{name}` takes {wanted} arguments, not {}", numbers.len());
        return Err(ExpressionError::new(at, message));
    }
    Ok(numbers)
}

/// Reads `operator number`.
fn read_right<N>(
    tokens: &mut Tokens<'_>,
    number: fn(&str, usize) -> Result<N, ExpressionError>,
) -> Result<(Operator, N), ExpressionError> {
    let wanted = "a comparison such as `>`";
    let Token::Symbol(symbol) = *tokens.peek() else { return Err(tokens.unexpected(wanted)) };
    let operator = Operator::of(symbol).ok_or_else(|| tokens.unexpected(wanted))?;
    tokens.take()?;
    let Token::Number(digits) = *tokens.peek() else { return Err(tokens.unexpected("a number")) };
    let value = number(digits, tokens.at())?;
    tokens.take()?;
    Ok((operator, value))
}

fn float(digits: &str, at: usize) -> Result<f64, ExpressionError> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ExpressionError::new(at, format!("{digits} is an integer, but a float is needed"))
            .hint(format!("write {digits}.0")));
    }
    let value = digits.replace('_', "").parse();
    value.map_err(|_: ParseFloatError| {
        ExpressionError::new(at, format!("{digits} is not a float such as 0.30"))
    })
}

fn integer(digits: &str, at: usize) -> Result<i64, ExpressionError> {
    let value = digits.replace('_', "").parse();
    value.map_err(|_: ParseIntError| {
        ExpressionError::new(at, format!("{digits} is not an integer such as 100"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_read_with_their_types() {
        use Comparison::{LatencyAtQuantileMs, Ratio};
        let of = |text| match Expression::parse(text).unwrap().condition.kind {
            syntax::Kind::Leaf(comparison) => comparison,
            other => panic!("{other:?}"),
        };
        let network = |operator, value| Ratio(Codes::NetworkError, Codes::All, operator, value);
        assert_eq!(of("NetworkErrorRatio() > 0.30"), network(Operator::Greater, 0.3));
        assert_eq!(of("NetworkErrorRatio() <= 1e-1"), network(Operator::AtMost, 0.1));
        assert_eq!(
            of("(LatencyAtQuantileMS(50.0) >= 100)"),
            LatencyAtQuantileMs(50.0, Operator::AtLeast, 100)
        );
        assert_eq!(
            of("ResponseCodeRatio(500, 600, 0, 600) == 0.25"),
            Ratio(Codes::Range(500, 600), Codes::Range(0, 600), Operator::Equal, 0.25)
        );
        Expression::parse(
            "NetworkErrorRatio() > .5 && (LatencyAtQuantileMS(99.9) < 1 || NetworkErrorRatio() != 1.)",
        )
        .unwrap();
    }

    #[test]
    fn errors_name_the_place_and_a_way_out() {
        for (text, at, message, hint) in [
            ("", 0, "the expression is empty", ""),
            ("NetworkErrorRatio()", 19, "expected a comparison such as `>`, found the end", ""),
            ("NetworkErrorRatio > 0.5", 18, "expected `(` after `NetworkErrorRatio`, found `>`", ""),
            ("NetworkErrorRatio() > 1", 22, "1 is an integer, but a float is needed", "write 1.0"),
            ("LatencyAtQuantileMS(50) > 100", 20, "50 is an integer, but a float is needed", "write 50.0"),
            ("LatencyAtQuantileMS(50.0) > 100.0", 28, "100.0 is not an integer such as 100", ""),
            ("ResponseCodeRatio(500, 600) > 0.5", 0, "`ResponseCodeRatio` takes 4 arguments, not 2", ""),
            (
                "0.5 < NetworkErrorRatio()",
                0,
                "expected a metric, found the number 0.5",
                "write the metric on the left, the number on the right",
            ),
            (
                "!(NetworkErrorRatio() > 0.5)",
                2,
                "`!` is not defined in breaker expressions",
                "use the opposite comparison, such as `<=` for `>`",
            ),
            (
                "NetworkErorRatio() > 0.5",
                0,
                "unknown metric `NetworkErorRatio`",
                "did you mean `NetworkErrorRatio`?",
            ),
            ("NetworkErrorRatio() > -0.5", 22, "`-` has no meaning here", ""),
            ("NetworkErrorRatio() = 0.5", 20, "`=` has no meaning here", "equality is written `==`"),
            ("NetworkErrorRatio() > 0.5.5", 22, "0.5.5 is not a float such as 0.30", ""),
        ] {
            let error = Expression::parse(text).expect_err(text);
            let found = (error.at, error.to_string(), error.hint.unwrap_or_default());
            assert_eq!(found, (at, message.into(), hint.into()), "{text}");
        }
    }
}
