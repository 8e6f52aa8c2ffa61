//! The rule language of Traefik v2, in terms of the matchers of today.
//!
//! Its matchers take several values, any of which will do (of header fields and parameters: all), and hosts and
//! paths may be templates: `{name}` stands for a label or a segment, `{name:expression}` for what the expression
//! matches. The name means nothing. What it says is compiled into the same conditions as v3 is, so that nothing at
//! run time knows in which language a rule was written.

use std::fmt::Write as _;

use super::RuleError;
use super::matcher::{
    Call, HostPattern, Matcher, Value, absolute_path, ascii_host, network, pattern, without_trailing_dot,
};
use super::pattern::Pattern;
use super::rule::Test;
use crate::syntax::{Kind, Node, Tokens, closest};

const MATCHERS: [&str; 10] = [
    "Host",
    "HostHeader",
    "HostRegexp",
    "Path",
    "PathPrefix",
    "Method",
    "Headers",
    "HeadersRegexp",
    "Query",
    "ClientIP",
];

/// Whether a matcher of that name exists here.
pub(super) fn knows(name: &str) -> bool {
    MATCHERS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Conditions joined by "and": one value of a matcher.
type Together = Vec<Matcher>;

/// Reads `Name(value, ...)`.
pub(super) fn read(tokens: &mut Tokens<'_>, negated: bool) -> Result<Kind<Test>, RuleError> {
    let start = tokens.at();
    let call = Call::read(tokens, MATCHERS.iter().copied(), unknown)?;
    if call.values.is_empty() {
        return Err(RuleError::new(call.at, format!("`{}` has no value", call.name)));
    }
    call.refuse_empty()?;
    let alternatives = alternatives(call)?;
    let node = |kind| Node { kind, span: tokens.since(start) };
    let leaf = |matcher| node(Kind::Leaf(Test { matcher, negated }));
    // Under a negation "and" and "or" change places.
    let (all, any): (fn(_) -> _, fn(_) -> _) =
        if negated { (Kind::Any, Kind::All) } else { (Kind::All, Kind::Any) };
    let mut nodes: Vec<Node<Test>> = Vec::with_capacity(alternatives.len());
    for mut together in alternatives {
        nodes.push(match together.pop() {
            Some(only) if together.is_empty() => leaf(only),
            last => node(all(together.into_iter().chain(last).map(leaf).collect())),
        });
    }
    Ok(if nodes.len() == 1 { nodes.remove(0).kind } else { any(nodes) })
}

/// Any of these will do.
fn alternatives(call: Call<'_>) -> Result<Vec<Together>, RuleError> {
    let Call { name, at, values } = call;
    match name {
        "Headers" | "HeadersRegexp" => Ok(vec![headers(name, at, values)?]),
        "Query" => Ok(vec![query(at, values)?]),
        _ => values.into_iter().map(|value| one(name, value)).collect(),
    }
}

/// A value of a matcher that takes any of them.
fn one(name: &str, value: Value) -> Result<Together, RuleError> {
    Ok(match name {
        "HostRegexp" => {
            ascii_host(&value)?;
            vec![Matcher::HostRegexp(host_template(&value)?)]
        }
        "Path" => path(value, true)?,
        "PathPrefix" => path(value, false)?,
        "Method" => vec![Matcher::Method(value.text.to_uppercase().into())],
        "ClientIP" => vec![Matcher::ClientIp(network(&value)?)],
        // `Host` and `HostHeader`. A star is a character like others: there are no wildcards.
        _ => {
            let host = ascii_host(&value)?.to_ascii_lowercase();
            vec![Matcher::Host(HostPattern::Exact(without_trailing_dot(&host).into()))]
        }
    })
}

/// A template of a host name: each variable stands for a label.
pub(super) fn host_template(value: &Value) -> Result<Pattern, RuleError> {
    let expression = format!("(?i)^{}$", Template::read(value, "[^.]+")?.expression);
    expand(value, &expression)
}

/// A path, or a template of one: what stands before its first variable finds it in the index.
fn path(value: Value, whole: bool) -> Result<Together, RuleError> {
    let template = Template::read(&value, "[^/]+")?;
    if template.variables == 0 {
        let path = absolute_path(value)?;
        return Ok(vec![if whole { Matcher::Path(path) } else { Matcher::PathPrefix(path) }]);
    }
    let end = if whole { "$" } else { "" };
    let expression = expand(&value, &format!("^{}{end}", template.expression))?;
    absolute_path(value)?;
    Ok(vec![Matcher::PathPrefix(template.start.into()), Matcher::PathRegexp(expression)])
}

/// Names and values in turn; of a name that comes twice the last value counts.
fn headers(name: &str, at: usize, values: Vec<Value>) -> Result<Together, RuleError> {
    if values.len() % 2 == 1 {
        let message = format!("`{name}` takes pairs of name and value, and the last name has no value");
        return Err(RuleError::new(at, message));
    }
    let mut fields: Vec<(Box<str>, Matcher)> = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let (Some(key), Some(value)) = (values.next(), values.next()) {
        let key: Box<str> = key.text.to_ascii_lowercase().into();
        let matcher = if name == "Headers" {
            Matcher::Header(key.clone(), value.text.into())
        } else {
            Matcher::HeaderRegexp(key.clone(), pattern(&value)?)
        };
        fields.retain(|(known, _)| *known != key);
        fields.push((key, matcher));
    }
    Ok(fields.into_iter().map(|(_, matcher)| matcher).collect())
}

/// `key=value`, or the two as values of their own; a value may be a template, an absent one is anything.
fn query(at: usize, values: Vec<Value>) -> Result<Together, RuleError> {
    let mut parts = Vec::with_capacity(values.len() * 2);
    for Value { text, at } in values {
        match text.split_once('=') {
            Some((key, value)) => {
                parts.extend([key, value].map(|text| Value { text: text.to_owned(), at }));
            }
            None => parts.push(Value { text, at }),
        }
    }
    if parts.len() % 2 == 1 {
        let error =
            RuleError::new(at, "`Query` takes pairs of name and value, and the last name has no value");
        return Err(error.hint("write Query(`name=value`), or Query(`name=`) for any value"));
    }
    let mut together = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        // The name of a variable in here means as little as elsewhere, but it has to have one.
        Template::read(&key, ".*")?;
        let template = Template::read(&value, ".*")?;
        let expression = if value.text.is_empty() { ".*" } else { &template.expression };
        let expression = expand(&value, &format!("^{expression}$"))?;
        together.push(Matcher::FirstQuery(key.text.into(), expression));
    }
    Ok(together)
}

/// Text with variables in braces.
struct Template {
    variables: usize,
    /// What stands before the first of them.
    start: String,
    /// All of it, without anchors.
    expression: String,
}

impl Template {
    /// `default` is what a variable without an expression stands for.
    fn read(value: &Value, default: &str) -> Result<Self, RuleError> {
        let text = &value.text;
        let unbalanced = || {
            RuleError::new(value.at, format!("the braces of `{text}` do not pair"))
                .hint("a variable is written `{name}` or `{name:expression}`")
        };
        let mut template = Self { variables: 0, start: String::new(), expression: String::new() };
        let (mut level, mut from) = (0_usize, 0);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'{' => {
                    if level == 0 {
                        template.literal(&text[from..at]);
                        from = at + 1;
                    }
                    level += 1;
                }
                b'}' => {
                    level = level.checked_sub(1).ok_or_else(unbalanced)?;
                    if level == 0 {
                        template.variable(value, &text[from..at], default)?;
                        from = at + 1;
                    }
                }
                _ => {}
            }
        }
        if level > 0 {
            return Err(unbalanced());
        }
        template.literal(&text[from..]);
        Ok(template)
    }

    fn literal(&mut self, text: &str) {
        if self.variables == 0 {
            self.start.push_str(text);
        }
        self.expression.push_str(&regex::escape(text));
    }

    fn variable(&mut self, value: &Value, inside: &str, default: &str) -> Result<(), RuleError> {
        let (name, expression) = inside.split_once(':').unwrap_or((inside, default));
        if name.is_empty() || expression.is_empty() {
            return Err(RuleError::new(value.at, format!("`{{{inside}}}` lacks a name or an expression"))
                .hint("a variable is written `{name}` or `{name:expression}`"));
        }
        // By itself too, so that its parentheses are its own.
        expand(value, expression)?;
        self.variables += 1;
        let _ = write!(self.expression, "({expression})");
        Ok(())
    }
}

fn expand(value: &Value, expression: &str) -> Result<Pattern, RuleError> {
    Pattern::parse(expression).map_err(|message| RuleError::new(value.at, message))
}

fn unknown(name: &str, at: usize) -> RuleError {
    let error = RuleError::new(at, format!("the v2 syntax has no matcher `{name}`"));
    let meant = match name.to_ascii_lowercase().as_str() {
        "header" => Some("Headers"),
        "headerregexp" => Some("HeadersRegexp"),
        "pathregexp" => Some("Path"),
        _ => closest(name, MATCHERS.iter().copied()),
    };
    error.hint(match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the matchers are {}", MATCHERS.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use crate::route::fake::Fake;
    use crate::route::{Rule, Syntax};

    fn rule(text: &str) -> Rule {
        Rule::parse_as(text, Syntax::V2).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The rows of a table for one rule: requests that match, requests that do not.
    fn check(text: &str, yes: &[&str], no: &[&str]) {
        for (urls, expected) in [(yes, true), (no, false)] {
            for url in urls {
                let matches = |text: &str| rule(text).matches(&Fake::get(url));
                assert_eq!(matches(text), expected, "{text} on {url}");
                assert_eq!(matches(&format!("!({text})")), !expected, "!({text}) on {url}");
            }
        }
    }

    /// Every row was seen on Traefik 3.7.
    #[test]
    fn hosts() {
        check("Host(`a`, `B.`)", &["a", "a.", "b", "b."], &["c", ""]);
        check("HostHeader(`a`,`b`)", &["a", "b"], &["c"]);
        check("Host(`*.a`)", &[], &["x.a"]);
        check("Host(`*`)", &[], &["a", ""]);
        check(
            "HostRegexp(`A.test`, `{x:b+}.test`)",
            &["a.test", "bb.test"],
            &["a.test.", "atest", "xa.test"],
        );
        check("HostRegexp(`{sub}.a.test`)", &["x.a.test"], &["a.test", "y.x.a.test"]);
        check("HostRegexp(`{sub:[A-Z]{1,2}}.a.test`)", &["x.a.test"], &["xyz.a.test"]);
        check("HostRegexp(`{any:.*}`)", &["a", ""], &[]);
        check("HostRegexp(`^a$`, `[a-z]+.test`)", &[], &["a", "a.test"]);
    }

    #[test]
    fn paths() {
        check("Path(`/a`,`/b/{n:[0-9]+}`)", &["h/a", "h/b/12"], &["h/a/", "h/b/", "h/b/1x", "h/b/1/2"]);
        check("Path(`/a/{id}/c`)", &["h/a/1/c"], &["h/a//c", "h/a/1/2/c"]);
        check("Path(`/{x:a|b}/c`)", &["h/a/c", "h/b/c"], &["h/a", "h/c/c"]);
        check("PathPrefix(`/a`,`/b`)", &["h/apis", "h/b/c"], &["h/c"]);
        check("PathPrefix(`/a/{id:[0-9]+}`)", &["h/a/1", "h/a/1x/y"], &["h/a", "h/a/x", "h/b/a/1"]);
        check("Path(`/foo bar`)", &["h/foo%20bar"], &["h/foo+bar"]);
        check("Path(`/a%2Fb`)", &["h/a%2fb"], &["h/a/b"]);
        check("Path(`/{x:(?i)AB}`)", &["h/ab"], &["h/abc"]);
        check("Path(`/a[b]`)", &["h/a[b]"], &["h/ab"]);
    }

    #[test]
    fn parameters_are_judged_by_their_first_value() {
        check(
            "Query(`q=1`)",
            &["h/?q=1", "h/?q=1&q=2", "h/?%71=1", "h/?q=%zz&q=1"],
            &["h/?q=2&q=1", "h/?q", "h/?Q=1"],
        );
        check("Query(`q=`)", &["h/?q", "h/?q=", "h/?q=1"], &["h/", "h/?r=1", "h/?q=a%0Ab"]);
        check("Query(`q=1`, `r`, `2`)", &["h/?q=1&r=2"], &["h/?q=1", "h/?r=2"]);
        check("Query(`q=x{n:[0-9]+}y`)", &["h/?q=x12y"], &["h/?q=x1y2", "h/?q=xy"]);
        check("Query(`q=a b`)", &["h/?q=a+b", "h/?q=a%20b"], &["h/?q=ab"]);
        check("Query(`q=1=2`)", &["h/?q=1=2"], &["h/?q=1"]);
        check("Query(`q=a.b`)", &["h/?q=a.b"], &["h/?q=axb"]);
    }

    #[test]
    fn fields_must_all_match_and_methods_any() {
        let request = Fake::get("h/").header("x-a", "1").header("x-a", "2").header("x-b", "3");
        for (text, expected) in [
            ("Headers(`X-A`,`2`)", true),
            ("Headers(`X-A`,`1`,`x-b`,`3`)", true),
            ("Headers(`X-A`,`1`,`X-B`,`4`)", false),
            ("Headers(`X-A`,`4`,`x-a`,`1`)", true),
            ("Headers(`Host`,`h`)", false),
            ("HeadersRegexp(`X-A`,`^[0-9]$`,`X-B`,`3`)", true),
            ("HeadersRegexp(`X-A`,`[a-z]`)", false),
            ("!Headers(`X-A`,`1`,`X-B`,`4`)", true),
            ("Method(`POST`,`get`)", true),
            ("Method(`POST`,`PUT`)", false),
            ("ClientIP(`10.0.0.0/8`,`127.0.0.1`)", true),
            ("!ClientIP(`10.0.0.0/8`,`::1`)", true),
            ("hostheader(`h`) && PATHPREFIX(`/`) || Hostheader(`x`)", true),
        ] {
            assert_eq!(rule(text).matches(&request), expected, "{text}");
        }
    }

    #[test]
    fn hosts_are_those_a_certificate_could_be_for() {
        assert_eq!(rule("Host(`A`,`b.`) && !Host(`c`) || HostRegexp(`d`)").hosts(), ["a", "b"]);
    }

    #[test]
    fn the_same_text_is_another_rule_in_another_syntax() {
        let text = "Host(`a`)";
        assert_ne!(rule(text), Rule::parse(text).unwrap());
        assert_eq!(rule(text), rule(text));
    }

    #[test]
    fn errors_name_the_place_and_a_way_out() {
        const VARIABLE: &str = "a variable is written `{name}` or `{name:expression}`";
        for (text, at, message, hint) in [
            ("PathRegexp(`/a`)", 0, "the v2 syntax has no matcher `PathRegexp`", "did you mean `Path`?"),
            ("Header(`a`,`b`)", 0, "the v2 syntax has no matcher `Header`", "did you mean `Headers`?"),
            ("Hots(`a`)", 0, "the v2 syntax has no matcher `Hots`", "did you mean `Host`?"),
            ("Host()", 0, "`Host` has no value", ""),
            ("Host(`a`,``)", 9, "a value of `Host` is empty", ""),
            ("Host(`é`)", 5, "`é` is not ASCII", "write the host name in punycode (xn--...)"),
            ("Path(`/a`,`b`)", 10, "the path `b` does not start with `/`", "did you mean `/b`?"),
            ("Path(`/{x`)", 5, "the braces of `/{x` do not pair", VARIABLE),
            ("Path(`/x}`)", 5, "the braces of `/x}` do not pair", VARIABLE),
            ("Query(`{x=1`)", 6, "the braces of `{x` do not pair", VARIABLE),
            ("HostRegexp(`{}`)", 11, "`{}` lacks a name or an expression", VARIABLE),
            ("Path(`/{x:}`)", 5, "`{x:}` lacks a name or an expression", VARIABLE),
            ("Path(`/{x:(}`)", 5, "invalid regular expression: unclosed group", ""),
            ("Path(`/{x:a)(b}`)", 5, "invalid regular expression: unopened group", ""),
            (
                "Query(`q=1`,`r`)",
                0,
                "`Query` takes pairs of name and value, and the last name has no value",
                "write Query(`name=value`), or Query(`name=`) for any value",
            ),
            (
                "Headers(`a`)",
                0,
                "`Headers` takes pairs of name and value, and the last name has no value",
                "",
            ),
            ("ClientIP(`::1`,`x`)", 15, "`x` is neither an IP address nor a CIDR range", ""),
        ] {
            let error = Rule::parse_as(text, Syntax::V2).expect_err(text);
            let found = (error.at, error.to_string(), error.hint.unwrap_or_default());
            assert_eq!(found, (at, message.into(), hint.into()), "{text}");
        }
    }
}
