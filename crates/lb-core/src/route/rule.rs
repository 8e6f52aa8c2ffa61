//! One rule: its text, and the condition it stands for.

use std::fmt;

use super::matcher::{HostPattern, Matcher};
use super::{Request, RuleError, v2};
use crate::syntax::{self, Kind, Node};

/// A matcher, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Test {
    pub(super) matcher: Matcher,
    pub(super) negated: bool,
}

impl Test {
    pub(super) fn holds<R: Request + ?Sized>(&self, request: &R) -> bool {
        self.matcher.matches(request) != self.negated
    }
}

/// Which language a rule is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// That of Traefik v2, deprecated: several values in one matcher, templates instead of expressions.
    V2,
    #[default]
    V3,
}

/// A condition on a request, in a rule language of Traefik. Two rules are equal if their texts are, and their syntax.
#[derive(Clone)]
pub struct Rule {
    text: Box<str>,
    syntax: Syntax,
    condition: Node<Test>,
}

impl Rule {
    /// In the syntax v3.
    ///
    /// # Errors
    /// As [`parse_as`](Self::parse_as).
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        Self::parse_as(text, Syntax::V3)
    }

    /// # Errors
    /// The first thing wrong with the text, with its byte offset and, if one is known, a way out.
    pub fn parse_as(text: &str, syntax: Syntax) -> Result<Self, RuleError> {
        let condition = match syntax {
            Syntax::V2 => syntax::parse("rule", text, &mut v2::read)?,
            Syntax::V3 => syntax::parse("rule", text, &mut |tokens, negated| {
                Ok(Kind::Leaf(Test { matcher: Matcher::read(tokens)?, negated }))
            })?,
        };
        Ok(Self { text: text.into(), syntax, condition })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn syntax(&self) -> Syntax {
        self.syntax
    }

    /// Whether the rule holds for a request. For many rules, ask a [`RouteIndex`](super::RouteIndex).
    pub fn matches<R: Request + ?Sized>(&self, request: &R) -> bool {
        self.condition.evaluate(&mut |test| test.holds(request))
    }

    /// The values of all `Host` matchers that are not negated, lower case, without trailing dot, each
    /// once. Wildcards (`*.example.com`) are among them, ``Host(`*`)`` and ``Host(`.`)`` are not: they name
    /// no host.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        self.condition.for_each_leaf(&mut |test| {
            let host = match &test.matcher {
                Matcher::Host(HostPattern::Exact(host)) if !test.negated => host.to_string(),
                Matcher::Host(HostPattern::Wildcard(parent)) if !test.negated => format!("*.{parent}"),
                _ => return,
            };
            if host.is_empty() || host == "*." || host == "*" {
                return;
            }
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        });
        hosts
    }

    pub(super) fn condition(&self) -> &Node<Test> {
        &self.condition
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.syntax == other.syntax
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fake::Fake;

    fn matches(rule: &str, request: &Fake) -> bool {
        Rule::parse(rule).unwrap_or_else(|error| panic!("{rule}: {error}")).matches(request)
    }

    /// The rows of a table for one rule: requests that match, requests that do not.
    fn check(rule: &str, yes: &[&str], no: &[&str]) {
        for (urls, expected) in [(yes, true), (no, false)] {
            for url in urls {
                assert_eq!(matches(rule, &Fake::get(url)), expected, "{rule} on {url}");
                assert_eq!(matches(&format!("!({rule})"), &Fake::get(url)), !expected, "!({rule}) on {url}");
            }
        }
    }

    #[test]
    fn host() {
        check("Host(`a.test`)", &["a.test", "a.test./x"], &["b.a.test", "test", "xa.test", ""]);
        check("Host(`A.Test.`)", &["a.test", "a.test."], &["a.testx"]);
        check("Host(`a.test:80`)", &[], &["a.test"]);
        check("Host(`::1`)", &["::1"], &["[::1]"]);
        check("Host(`*`)", &["a.test", ""], &[]);
        check(
            "Host(`*.a.test`)",
            &["x.a.test", "x.a.test."],
            &["a.test", "y.x.a.test", ".a.test", "xa.test", ""],
        );
    }

    #[test]
    fn host_regexp_sees_the_canonical_host_even_if_empty() {
        check("HostRegexp(`^[a-z]+\\.test$`)", &["a.test"], &["a1.test", "a.test.", ""]);
        check("HostRegexp(`test`)", &["a.test.org"], &["a"]);
        check("HostRegexp(`^.*$`)", &["", "a"], &[]);
    }

    #[test]
    fn hosts_may_be_aliases() {
        let request = Fake::get("shop.test").alias("app.a.test");
        for (rule, expected) in [
            ("Host(`shop.test`)", true),
            ("Host(`app.a.test`)", true),
            ("Host(`*.a.test`)", true),
            ("HostRegexp(`^app`)", true),
            ("Host(`shop.test`) && Host(`app.a.test`)", true),
            ("!Host(`app.a.test`)", false),
            ("!Host(`b.test`)", true),
            ("Host(`b.test`)", false),
        ] {
            assert_eq!(matches(rule, &request), expected, "{rule}");
        }
    }

    #[test]
    fn path() {
        check("Path(`/p`)", &["h/p", "h/p?q", "h/%70"], &["h/P", "h/p/", "h/", "h/pp"]);
        check("PathPrefix(`/api`)", &["h/api", "h/apis", "h/api/x"], &["h/ap", "h/x/api", "h/API"]);
        check("PathPrefix(`/a%2Fb`)", &["h/a%2fb", "h/a%2Fb/c"], &["h/a/b"]);
        check("Path(`/foo bar`)", &["h/foo%20bar"], &["h/foo+bar"]);
        check("PathRegexp(`\\.(jpe?g|png)$`)", &["h/x.jpg", "h/y.png"], &["h/x.gif", "h/x.png/"]);
        check("PathRegexp(`(?i)^/API/\\d{2}$`)", &["h/api/12"], &["h/api/123", "h/api/\u{663}\u{663}"]);
    }

    #[test]
    fn query_is_decoded_and_one_argument_means_empty() {
        check(
            "Query(`k`,`v w`)",
            &["h/?k=v+w", "h/?a&k=x&k=v%20w", "h/?%6b=v+w"],
            &["h/?k=v", "h/?K=v+w", "h/"],
        );
        check("Query(`k`)", &["h/?k", "h/?k=", "h/?k=1&k"], &["h/?k=1", "h/?kk", "h/"]);
        check("Query(`k`,`v`)", &["h/?k=%zz&k=v"], &["h/?k=v;x", "h/?k=v%", "h/?k=v%z"]);
        check("QueryRegexp(`k`,`^v\\d$`)", &["h/?k=v1", "h/?k=%76%31"], &["h/?k=v", "h/?j=v1", "h/?k=v%ff"]);
        check("QueryRegexp(`k`)", &["h/?k"], &["h/?k=1"]);
    }

    #[test]
    fn method_is_upper_cased_in_the_rule_only() {
        check("Method(`get`)", &["h/"], &[]);
        assert!(!matches("Method(`get`)", &Fake { method: "get".into(), ..Fake::get("h/") }));
    }

    #[test]
    fn headers_are_compared_line_by_line() {
        let request = Fake::get("h/").header("x-a", "1, 2").header("x-a", "3").header("host", "h");
        for (rule, expected) in [
            ("Header(`X-A`, `3`)", true),
            ("Header(`x-a`, `1, 2`)", true),
            ("Header(`X-A`, `1`)", false),
            ("Header(`X-B`, `3`)", false),
            ("Header(`Host`, `h`)", false),
            ("HeaderRegexp(`X-A`, `^\\d$`)", true),
            ("HeaderRegexp(`X-A`, `4`)", false),
        ] {
            assert_eq!(matches(rule, &request), expected, "{rule}");
        }
        let foreign = Fake::get("h/").header("x-a", b"\xff");
        assert!(matches("HeaderRegexp(`X-A`, `^.$`)", &foreign), "like Go, a stray byte is one character");
    }

    #[test]
    fn client_ip() {
        for (rule, client, expected) in [
            ("ClientIP(`10.0.0.1`)", "10.0.0.1", true),
            ("ClientIP(`10.0.0.1`)", "10.0.0.2", false),
            ("ClientIP(`10.1.2.3/8`)", "10.9.9.9", true),
            ("ClientIP(`10.0.0.0/8`)", "::ffff:10.0.0.1", true),
            ("ClientIP(`::ffff:10.0.0.0/104`)", "10.0.0.1", true),
            ("ClientIP(`::1`)", "::1", true),
            ("ClientIP(`fe80::/10`)", "10.0.0.1", false),
        ] {
            let request = Fake { client: client.parse().unwrap(), ..Fake::get("h/") };
            assert_eq!(matches(rule, &request), expected, "{rule} on {client}");
        }
    }

    #[test]
    fn matcher_names_have_four_spellings() {
        for name in ["PathPrefix", "pathprefix", "PATHPREFIX", "Pathprefix"] {
            assert!(matches(&format!("{name}(`/`)"), &Fake::get("h/x")));
        }
        check("ClientIP(`127.0.0.1`) && (Host(`a`) || Path(`/b`,))", &["a", "b/b"], &["b/a"]);
    }

    #[test]
    fn hosts_are_those_a_certificate_could_be_for() {
        for (rule, hosts) in [
            ("Host(`A.test.`) && Path(`/x`) || Host(`b.test`) || Host(`a.test`)", vec!["a.test", "b.test"]),
            ("!Host(`a`) && !(!Host(`b`) || Path(`/c`))", vec!["b"]),
            ("Host(`*.a.test`) || Host(`*`) || HostRegexp(`c`)", vec!["*.a.test"]),
            ("Host(`.`) || Host(`*..`)", vec![]),
        ] {
            assert_eq!(Rule::parse(rule).unwrap().hosts(), hosts, "{rule}");
        }
    }

    #[test]
    fn errors_name_the_place_and_a_way_out() {
        for (rule, at, message, hint) in [
            ("", 0, "the rule is empty", ""),
            ("Host(`a`) && PathPrefx(`/`)", 13, "unknown matcher `PathPrefx`", "did you mean `PathPrefix`?"),
            ("hOST(`a`)", 0, "unknown matcher `hOST`", "did you mean `Host`?"),
            (
                "Headers(`a`,`b`)",
                0,
                "unknown matcher `Headers`",
                "did you mean `Header`? `Headers` is of the v2 syntax: `ruleSyntax: v2`",
            ),
            (
                "HostHeader(`a`)",
                0,
                "unknown matcher `HostHeader`",
                "did you mean `Host`? `HostHeader` is of the v2 syntax: `ruleSyntax: v2`",
            ),
            (
                "Cookie(`a`)",
                0,
                "unknown matcher `Cookie`",
                "the matchers are Host, HostRegexp, Path, PathPrefix, PathRegexp, Method, Header, HeaderRegexp, \
                 Query, QueryRegexp, ClientIP",
            ),
            ("Host('a')", 5, "single quotes do not delimit strings", "use back-ticks or double quotes"),
            ("Host(a)", 5, "expected a string, found `a`", "put values in back-ticks"),
            ("Host", 4, "expected `(` after `Host`, found the end", ""),
            ("Host()", 0, "`Host` takes 1 value, not 0", ""),
            ("Host(`a`, `b`)", 0, "`Host` takes 1 value, not 2", "write Host(`a`) || Host(`b`)"),
            ("Query(`a`,`b`,`c`)", 0, "`Query` takes 1 or 2 values, not 3", ""),
            ("Header(`a`)", 0, "`Header` takes 2 values, not 1", ""),
            ("Host(``)", 5, "a value of `Host` is empty", ""),
            (
                "`a`",
                0,
                "expected a matcher, found a string",
                "wrap the value in a matcher, such as Host(`...`)",
            ),
            ("Host(`é`)", 5, "`é` is not ASCII", "write the host name in punycode (xn--...)"),
            ("HostRegexp(`é`)", 11, "`é` is not ASCII", "write the host name in punycode (xn--...)"),
            ("Path(`a`)", 5, "the path `a` does not start with `/`", "did you mean `/a`?"),
            ("ClientIP(`10.0.0`)", 9, "`10.0.0` is neither an IP address nor a CIDR range", ""),
            ("PathRegexp(`(`)", 11, "invalid regular expression: unclosed group", ""),
            ("PathRegexp(`\\pL{900}{900}`)", 11, "the regular expression is too large", ""),
            (
                "Host(`a`) and Path(`/`)",
                10,
                "expected `&&`, `||` or the end, found `and`",
                "\"and\" is written `&&`",
            ),
        ] {
            let error = Rule::parse(rule).expect_err(rule);
            let found = (error.at, error.to_string(), error.hint.unwrap_or_default());
            assert_eq!(found, (at, message.into(), hint.into()), "{rule}");
        }
    }
}
