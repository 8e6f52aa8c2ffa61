//! The matchers of the rule language: what each takes, and what it means for one request.

use ipnet::IpNet;

use super::pattern::Pattern;
use super::{Request, RuleError, query, v2};
use crate::syntax::{Token, Tokens, closest};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Matcher {
    Host(HostPattern),
    HostRegexp(Pattern),
    Path(Box<str>),
    PathPrefix(Box<str>),
    PathRegexp(Pattern),
    Method(Box<str>),
    /// The name is in lower case.
    Header(Box<str>, Box<str>),
    HeaderRegexp(Box<str>, Pattern),
    Query(Box<str>, Box<str>),
    QueryRegexp(Box<str>, Pattern),
    /// Of the v2 syntax: the first value of the parameter, and no other.
    FirstQuery(Box<str>, Pattern),
    ClientIp(IpNet),
}

/// Lower case, without trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostPattern {
    Any,
    Exact(Box<str>),
    /// One label in front of this parent.
    Wildcard(Box<str>),
}

/// A host without the dot that marks it as fully qualified.
pub(super) fn without_trailing_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// The part of a host after its first label, if that label is not empty.
pub(super) fn parent(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent)
}

impl HostPattern {
    pub(super) fn parse(value: &str) -> Self {
        let value = value.to_ascii_lowercase();
        let host = without_trailing_dot(&value);
        match host.strip_prefix("*.") {
            _ if host == "*" => Self::Any,
            Some(parent) => Self::Wildcard(parent.into()),
            None => Self::Exact(host.into()),
        }
    }

    /// `host` comes without trailing dot.
    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            // An absent host matches no name, not even ``Host(`.`)``.
            Self::Exact(exact) => **exact == *host && !host.is_empty(),
            Self::Wildcard(suffix) => parent(host) == Some(suffix),
        }
    }
}

/// Canonical name, least and most values.
const MATCHERS: [(&str, usize, usize); 11] = [
    ("Host", 1, 1),
    ("HostRegexp", 1, 1),
    ("Path", 1, 1),
    ("PathPrefix", 1, 1),
    ("PathRegexp", 1, 1),
    ("Method", 1, 1),
    ("Header", 2, 2),
    ("HeaderRegexp", 2, 2),
    ("Query", 1, 2),
    ("QueryRegexp", 1, 2),
    ("ClientIP", 1, 1),
];

/// A value with its place in the rule.
pub(super) struct Value {
    pub(super) text: String,
    pub(super) at: usize,
}

/// `Name(value, ...)`, whatever it means.
pub(super) struct Call<'n> {
    /// As it is written in the list of those that are known.
    pub(super) name: &'n str,
    pub(super) at: usize,
    pub(super) values: Vec<Value>,
}

impl<'n> Call<'n> {
    /// Reads one of those that are `known`; `other` tells of one that is not.
    pub(super) fn read(
        tokens: &mut Tokens<'_>,
        mut known: impl Iterator<Item = &'n str>,
        other: fn(&str, usize) -> RuleError,
    ) -> Result<Self, RuleError> {
        let at = tokens.at();
        let Token::Name(name) = *tokens.peek() else {
            let error = tokens.unexpected("a matcher");
            return Err(match tokens.peek() {
                Token::Text(_) => {
                    let first = known.next().unwrap_or("Host");
                    error.hint(format!("wrap the value in a matcher, such as {first}(`...`)"))
                }
                _ => error,
            });
        };
        let name = known.find(|canonical| is_spelling(name, canonical)).ok_or_else(|| other(name, at))?;
        tokens.take()?;
        Ok(Self { name, at, values: read_values(tokens, name)? })
    }

    pub(super) fn refuse_empty(&self) -> Result<(), RuleError> {
        match self.values.iter().find(|value| value.text.is_empty()) {
            Some(empty) => Err(RuleError::new(empty.at, format!("a value of `{}` is empty", self.name))),
            None => Ok(()),
        }
    }
}

impl Matcher {
    /// Reads `Name(value, ...)`.
    pub(super) fn read(tokens: &mut Tokens<'_>) -> Result<Self, RuleError> {
        let call = Call::read(tokens, MATCHERS.iter().map(|(name, ..)| *name), unknown)?;
        let Call { name, at, ref values } = call;
        let counts = MATCHERS.iter().find(|(known, ..)| *known == name);
        let &(_, least, most) = counts.ok_or_else(|| unknown(name, at))?;
        if !(least..=most).contains(&values.len()) {
            return Err(wrong_count(name, at, least, most, values));
        }
        call.refuse_empty()?;
        let values = call.values;
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (Some(first), None) => Self::with_one(name, first),
            (Some(first), Some(second)) => Self::with_two(name, first, second),
            (None, _) => Err(wrong_count(name, at, least, most, &[])),
        }
    }

    fn with_one(name: &str, value: Value) -> Result<Self, RuleError> {
        Ok(match name {
            "Host" => Self::Host(HostPattern::parse(ascii_host(&value)?)),
            "HostRegexp" => {
                ascii_host(&value)?;
                Self::HostRegexp(pattern(&value)?)
            }
            "Path" => Self::Path(absolute_path(value)?),
            "PathPrefix" => Self::PathPrefix(absolute_path(value)?),
            "PathRegexp" => Self::PathRegexp(pattern(&value)?),
            "Method" => Self::Method(value.text.to_uppercase().into()),
            "ClientIP" => Self::ClientIp(network(&value)?),
            // `Query` and `QueryRegexp` without a second value ask for an empty one.
            _ => Self::Query(value.text.into(), "".into()),
        })
    }

    fn with_two(name: &str, key: Value, value: Value) -> Result<Self, RuleError> {
        Ok(match name {
            "Header" => Self::Header(key.text.to_ascii_lowercase().into(), value.text.into()),
            "HeaderRegexp" => Self::HeaderRegexp(key.text.to_ascii_lowercase().into(), pattern(&value)?),
            "Query" => Self::Query(key.text.into(), value.text.into()),
            _ => Self::QueryRegexp(key.text.into(), pattern(&value)?),
        })
    }

    pub(super) fn matches<R: Request + ?Sized>(&self, request: &R) -> bool {
        match self {
            Self::Host(pattern) => any_host(request, |host| pattern.matches(without_trailing_dot(host))),
            Self::HostRegexp(pattern) => any_host(request, |host| pattern.is_match(host)),
            Self::Path(path) => request.path() == &**path,
            Self::PathPrefix(prefix) => request.path().starts_with(&**prefix),
            Self::PathRegexp(pattern) => pattern.is_match(request.path()),
            Self::Method(method) => request.method() == &**method,
            Self::Header(name, value) => any_header(request, name, &mut |line| line == value.as_bytes()),
            Self::HeaderRegexp(name, pattern) => {
                any_header(request, name, &mut |line| pattern.is_match(&String::from_utf8_lossy(line)))
            }
            Self::Query(key, value) => query::any_value_is(request.query(), key, value),
            Self::QueryRegexp(key, pattern) => query::any_value(request.query(), key, |value| {
                pattern.is_match(&String::from_utf8_lossy(value))
            }),
            Self::FirstQuery(key, pattern) => query::first_value(request.query(), key, |value| {
                pattern.is_match(&String::from_utf8_lossy(value))
            }),
            Self::ClientIp(network) => network.contains(&request.client().to_canonical()),
        }
    }
}

/// The host that the client has named, or what that is an alias of.
fn any_host<R: Request + ?Sized>(request: &R, test: impl Fn(&str) -> bool) -> bool {
    test(request.host()) || request.alias().is_some_and(test)
}

/// The host is not part of Traefik's header map, whatever the request carries.
fn any_header<R: Request + ?Sized>(request: &R, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    name != "host" && request.any_header(name, test)
}

/// As documented, lower case, upper case, or with only the first letter in upper case.
fn is_spelling(name: &str, canonical: &str) -> bool {
    let (first, rest) = name.split_at(name.len().min(1)); // names are ASCII
    let is_upper = |text: &str| !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let is_lower = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
    name == canonical
        || name.eq_ignore_ascii_case(canonical) && (is_lower(rest) || is_upper(first) && is_upper(rest))
}

fn unknown(name: &str, at: usize) -> RuleError {
    let error = RuleError::new(at, format!("unknown matcher `{name}`"));
    if ["PathStrip", "PathPrefixStrip"].iter().any(|old| old.eq_ignore_ascii_case(name)) {
        return error
            .hint("a matcher of Traefik v1: since then `PathPrefix`, and the middleware `stripPrefix`");
    }
    let names = || MATCHERS.iter().map(|(canonical, ..)| *canonical);
    let meant = match name.to_ascii_lowercase().as_str() {
        "hostheader" => Some("Host"), // of the v2 syntax
        _ => closest(name, names()),
    };
    error.hint(match meant {
        Some(meant) if v2::knows(name) && !name.eq_ignore_ascii_case(meant) => {
            format!("did you mean `{meant}`? `{name}` is of the v2 syntax: `ruleSyntax: v2`")
        }
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the matchers are {}", names().collect::<Vec<_>>().join(", ")),
    })
}

fn read_values(tokens: &mut Tokens<'_>, name: &str) -> Result<Vec<Value>, RuleError> {
    tokens.expect("(", format_args!("after `{name}`"))?;
    let mut values = Vec::new();
    // As in Go, a comma may follow the last value.
    while !tokens.take_if(")")? {
        let at = tokens.at();
        if !matches!(tokens.peek(), Token::Text(_)) {
            let error = tokens.unexpected("a string");
            return Err(match tokens.peek() {
                Token::Name(_) | Token::Number(_) => error.hint("put values in back-ticks"),
                _ => error,
            });
        }
        if let Token::Text(text) = tokens.take()? {
            values.push(Value { text, at });
        }
        if !tokens.take_if(",")? {
            tokens.expect(")", format_args!("after the values of `{name}`"))?;
            break;
        }
    }
    Ok(values)
}

pub(super) fn wrong_count(name: &str, at: usize, least: usize, most: usize, values: &[Value]) -> RuleError {
    let wanted = match (least, most) {
        (1, 1) => "1 value".to_owned(),
        (least, most) if least == most => format!("{least} values"),
        (least, most) => format!("{least} or {most} values"),
    };
    let error = RuleError::new(at, format!("`{name}` takes {wanted}, not {}", values.len()));
    if most > 1 || values.is_empty() {
        return error;
    }
    let several: Vec<_> = values.iter().map(|value| format!("{name}(`{}`)", value.text)).collect();
    error.hint(format!("write {}", several.join(" || ")))
}

pub(super) fn ascii_host(value: &Value) -> Result<&str, RuleError> {
    if value.text.is_ascii() {
        return Ok(&value.text);
    }
    Err(RuleError::new(value.at, format!("`{}` is not ASCII", value.text))
        .hint("write the host name in punycode (xn--...)"))
}

pub(super) fn absolute_path(value: Value) -> Result<Box<str>, RuleError> {
    if value.text.starts_with('/') {
        return Ok(value.text.into());
    }
    Err(RuleError::new(value.at, format!("the path `{}` does not start with `/`", value.text))
        .hint(format!("did you mean `/{}`?", value.text)))
}

pub(super) fn pattern(value: &Value) -> Result<Pattern, RuleError> {
    Pattern::parse(&value.text).map_err(|message| RuleError::new(value.at, message))
}

pub(super) fn network(value: &Value) -> Result<IpNet, RuleError> {
    let text = &value.text;
    crate::net::network(text).ok_or_else(|| {
        RuleError::new(value.at, format!("`{text}` is neither an IP address nor a CIDR range"))
    })
}
