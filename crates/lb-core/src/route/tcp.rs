//! Which TCP router takes a connection: the same language with matchers of its own.
//!
//! The language of v2 has the same matchers, which take several values there.
//! A connection has no more than its client's address and, over TLS, what its ClientHello says.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::matcher::{
    Call, HostPattern, Value, ascii_host, network, pattern, without_trailing_dot, wrong_count,
};
use super::pattern::Pattern;
use super::v2;
use super::{RuleError, Syntax};
use crate::syntax::{self, Kind, Node, Tokens, closest};

/// What rules may look at.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// The name that the client asks for, lower case; empty without TLS or when it names none.
    pub server_name: &'a str,
    /// The protocols that it offers.
    pub alpn: &'a [&'a [u8]],
    /// The peer (after PROXY protocol).
    pub client: IpAddr,
}

#[derive(Clone, Debug)]
enum Matcher {
    HostSni(HostPattern),
    HostSniRegexp(Pattern),
    ClientIp(IpNet),
    Alpn(Box<[u8]>),
}

#[derive(Clone, Debug)]
struct Test {
    matcher: Matcher,
    negated: bool,
}

/// A condition on a connection. Two rules are equal if their texts are, and their syntax.
#[derive(Clone)]
pub struct Rule {
    text: Box<str>,
    syntax: Syntax,
    condition: Node<Test>,
}

const MATCHERS: [&str; 4] = ["HostSNI", "HostSNIRegexp", "ClientIP", "ALPN"];

fn unknown(name: &str, at: usize) -> RuleError {
    let error = RuleError::new(at, format!("unknown matcher `{name}`"));
    let meant = match name.to_ascii_lowercase().as_str() {
        "host" => Some("HostSNI"),
        "hostregexp" => Some("HostSNIRegexp"),
        _ => closest(name, MATCHERS.into_iter()),
    };
    error.hint(match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the matchers are {}", MATCHERS.join(", ")),
    })
}

/// The handshake of an ACME authority: no router is asked about it.
const ACME: &str = "acme-tls/1";

impl Matcher {
    /// `name` is one of [`MATCHERS`].
    fn new(name: &str, value: Value, syntax: Syntax) -> Result<Self, RuleError> {
        Ok(match name {
            "HostSNI" => Self::HostSni(HostPattern::parse(host(&value, syntax)?)),
            "HostSNIRegexp" => {
                ascii_host(&value)?;
                Self::HostSniRegexp(match syntax {
                    Syntax::V2 => v2::host_template(&value)?,
                    Syntax::V3 => pattern(&value)?,
                })
            }
            "ClientIP" => Self::ClientIp(network(&value)?),
            _ if value.text == ACME => {
                let message = format!("`{ACME}` is for certificate authorities and cannot be routed");
                return Err(RuleError::new(value.at, message));
            }
            _ => Self::Alpn(value.text.into_bytes().into()),
        })
    }

    fn matches(&self, hello: &Hello<'_>) -> bool {
        match self {
            Self::HostSni(pattern) => pattern.matches(without_trailing_dot(hello.server_name)),
            Self::HostSniRegexp(pattern) => pattern.is_match(hello.server_name),
            Self::ClientIp(network) => network.contains(&hello.client.to_canonical()),
            Self::Alpn(protocol) => hello.alpn.contains(&&**protocol),
        }
    }
}

/// Reads `Name(value)`, or in v2 `Name(value, ...)`: any of them will do.
fn read(tokens: &mut Tokens<'_>, negated: bool, syntax: Syntax) -> Result<Kind<Test>, RuleError> {
    let start = tokens.at();
    let call = Call::read(tokens, MATCHERS.into_iter(), unknown)?;
    if call.values.is_empty() || syntax == Syntax::V3 && call.values.len() > 1 {
        return Err(wrong_count(call.name, call.at, 1, 1, &call.values));
    }
    call.refuse_empty()?;
    let Call { name, values, .. } = call;
    let is_one = values.len() == 1;
    // Whoever is named beside everybody.
    let everybody = name == "HostSNI" && values.first().is_some_and(|first| first.text == "*");
    let mut nodes: Vec<Node<Test>> = Vec::with_capacity(values.len());
    for value in values {
        let matcher = Matcher::new(name, value, syntax)?;
        nodes.push(Node { kind: Kind::Leaf(Test { matcher, negated }), span: tokens.since(start) });
    }
    nodes.truncate(if everybody { 1 } else { usize::MAX });
    Ok(match nodes.pop() {
        Some(only) if is_one => only.kind,
        last => {
            let nodes = nodes.into_iter().chain(last).collect();
            // Under a negation "and" and "or" change places.
            if negated { Kind::All(nodes) } else { Kind::Any(nodes) }
        }
    })
}

/// What looks like a host name or an address, or stands for many; in v2 a star stands for all of them or for nothing.
fn host(value: &Value, syntax: Syntax) -> Result<&str, RuleError> {
    let text = ascii_host(value)?;
    let wildcard = text.strip_prefix("*.").filter(|_| syntax == Syntax::V3);
    let name = wildcard.unwrap_or(text);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
    if text != "*" && (name.is_empty() || !name.chars().all(fits)) {
        return Err(RuleError::new(value.at, format!("`{text}` is neither a host name nor an address")));
    }
    Ok(text)
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
        let mut leaf = |tokens: &mut Tokens<'_>, negated| read(tokens, negated, syntax);
        let condition = syntax::parse("rule", text, &mut leaf)?;
        Ok(Self { text: text.into(), syntax, condition })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, hello: &Hello<'_>) -> bool {
        self.condition.evaluate(&mut |test| test.matcher.matches(hello) != test.negated)
    }

    /// Whether it is ``HostSNI(`*`)`` and nothing else.
    pub fn is_catch_all(&self) -> bool {
        matches!(&self.condition.kind, Kind::Leaf(Test { matcher: Matcher::HostSni(HostPattern::Any), .. }))
    }

    /// A host other than `*` that it names: only a TLS client says which one it wants.
    pub fn names_host(&self) -> bool {
        let mut names = false;
        self.condition.for_each_leaf(&mut |test| {
            names |=
                matches!(&test.matcher, Matcher::HostSni(HostPattern::Exact(_) | HostPattern::Wildcard(_)));
        });
        names
    }

    /// The hosts of ``HostSNI`` that are not negated, for certificates.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = Vec::new();
        self.condition.for_each_leaf(&mut |test| {
            let host = match &test.matcher {
                Matcher::HostSni(HostPattern::Exact(host)) if !test.negated => host.to_string(),
                Matcher::HostSni(HostPattern::Wildcard(parent)) if !test.negated => format!("*.{parent}"),
                _ => return,
            };
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        });
        hosts
    }

    /// Its place among others when it names none: Traefik puts the one that takes everything last.
    pub fn default_priority(&self) -> i64 {
        if self.is_catch_all() { -1 } else { i64::try_from(self.text.len()).unwrap_or(i64::MAX) }
    }
}

/// The exact hosts without one of which the condition does not hold; `None`: there are no such.
fn hosts(node: &Node<Test>) -> Option<Vec<&str>> {
    match &node.kind {
        Kind::Leaf(Test { matcher: Matcher::HostSni(HostPattern::Exact(host)), negated: false }) => {
            Some(vec![host])
        }
        Kind::Leaf(_) => None,
        Kind::All(nodes) => nodes.iter().find_map(hosts),
        Kind::Any(nodes) => {
            let each: Option<Vec<_>> = nodes.iter().map(hosts).collect();
            each.map(|each| each.concat())
        }
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.syntax == other.syntax
    }
}

impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("tcp::Rule").field(&self.text).finish()
    }
}

/// A rule with its place in the order of evaluation, and what it leads to.
#[derive(Clone, Debug)]
pub struct Route<T> {
    pub rule: Arc<Rule>,
    /// Higher is evaluated earlier.
    pub priority: i64,
    /// Decides among equal priorities, lower first.
    pub rank: u32,
    pub value: T,
}

/// Routes in order of evaluation. Those that need a certain host are looked up by it.
#[derive(Debug)]
pub struct Table<T> {
    routes: Vec<Route<T>>,
    /// Positions, ascending.
    by_host: FxHashMap<Box<str>, Vec<u32>>,
    others: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { routes: Vec::new(), by_host: FxHashMap::default(), others: Vec::new() }
    }
}

impl<T> Table<T> {
    pub fn build(mut routes: Vec<Route<T>>) -> Self {
        routes.sort_by_key(|route| (std::cmp::Reverse(route.priority), route.rank));
        let (mut by_host, mut others) = (FxHashMap::<Box<str>, Vec<u32>>::default(), Vec::new());
        for (at, route) in (0..).zip(&routes) {
            match hosts(&route.rule.condition) {
                Some(hosts) => {
                    for host in hosts {
                        let known = by_host.entry(host.into()).or_default();
                        if known.last() != Some(&at) {
                            known.push(at);
                        }
                    }
                }
                None => others.push(at),
            }
        }
        Self { routes, by_host, others }
    }

    /// The first route, in order of evaluation, whose rule holds.
    pub fn find(&self, hello: &Hello<'_>) -> Option<&Route<T>> {
        let host = without_trailing_dot(hello.server_name);
        let named = self.by_host.get(host).map_or(&[][..], Vec::as_slice);
        let first =
            |among: &[u32]| among.iter().copied().find(|at| self.routes[*at as usize].rule.matches(hello));
        let found = match (first(named), first(&self.others)) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        self.routes.get(found as usize)
    }

    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello<'a>(server_name: &'a str, alpn: &'a [&'a [u8]]) -> Hello<'a> {
        Hello { server_name, alpn, client: "192.0.2.7".parse().unwrap() }
    }

    #[test]
    fn rules_look_at_name_protocols_and_client() {
        for (rule, yes, no) in [
            ("HostSNI(`A.test.`)", &["a.test", "a.test."][..], &["b.a.test", ""][..]),
            ("HostSNI(`*.a.test`)", &["x.a.test"], &["a.test", "y.x.a.test", ""]),
            ("hostsni(`*`)", &["", "a.test"], &[]),
            ("HostSNIRegexp(`^.+\\.test$`)", &["a.test"], &["test", ""]),
            ("HOSTSNI(`a`) || !HostSNI(`*`)", &["a"], &["b", ""]),
            ("ClientIP(`192.0.2.0/24`) && ALPN(`mqtt`)", &["a", ""], &[]),
            ("ClientIP(`192.0.2.8`) || ALPN(`h2`)", &[], &["a"]),
        ] {
            let parsed = Rule::parse(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
            for (names, expected) in [(yes, true), (no, false)] {
                for name in names {
                    assert_eq!(parsed.matches(&hello(name, &[b"mqtt"])), expected, "{rule} on {name}");
                }
            }
        }
    }

    #[test]
    fn what_takes_everything_comes_last() {
        for (rule, priority, names_host) in [
            ("HostSNI(`*`)", -1, false),
            ("HostSNI(\"*\")", -1, false),
            ("ClientIP(`::1`)", 15, false),
            ("HostSNI(`*`) || ALPN(`h2`)", 26, false),
            ("!HostSNI(`a`)", 13, true),
            ("ALPN(`x`) && HostSNI(`*.a`)", 27, true),
        ] {
            let rule = Rule::parse(rule).unwrap();
            assert_eq!((rule.default_priority(), rule.names_host()), (priority, names_host), "{rule:?}");
        }
        assert_eq!(
            Rule::parse("HostSNI(`A`) || HostSNI(`*.b`) && !HostSNI(`c`)").unwrap().hosts(),
            ["a", "*.b"]
        );
    }

    #[test]
    fn errors_name_the_place_and_a_way_out() {
        for (rule, at, message, hint) in [
            ("Host(`a`)", 0, "unknown matcher `Host`", "did you mean `HostSNI`?"),
            ("HostSNI(`a`, `b`)", 0, "`HostSNI` takes 1 value, not 2", "write HostSNI(`a`) || HostSNI(`b`)"),
            ("HostSNI(`a b`)", 8, "`a b` is neither a host name nor an address", ""),
            ("HostSNI(`*a`)", 8, "`*a` is neither a host name nor an address", ""),
            ("HostSNI(``)", 8, "a value of `HostSNI` is empty", ""),
            ("HostSNIRegexp(`(`)", 14, "invalid regular expression: unclosed group", ""),
            ("ClientIP(`a`)", 9, "`a` is neither an IP address nor a CIDR range", ""),
            ("ALPN(`acme-tls/1`)", 5, "`acme-tls/1` is for certificate authorities and cannot be routed", ""),
            (
                "`a`",
                0,
                "expected a matcher, found a string",
                "wrap the value in a matcher, such as HostSNI(`...`)",
            ),
        ] {
            let error = Rule::parse(rule).expect_err(rule);
            let found = (error.at, error.to_string(), error.hint.unwrap_or_default());
            assert_eq!(found, (at, message.into(), hint.into()), "{rule}");
        }
    }

    #[test]
    fn a_table_answers_what_a_scan_would() {
        let rules = [
            "HostSNI(`a`)",
            "HostSNI(`b`) || HostSNI(`c`)",
            "HostSNI(`*`)",
            "HostSNI(`*.b`) && ALPN(`x`)",
            "HostSNI(`a`) && ALPN(`x`)",
            "HostSNI(`a`) || ClientIP(`10.0.0.0/8`)",
            "HostSNIRegexp(`^d`)",
        ];
        let route = |(at, rule): (usize, &&str)| {
            let rule = Rule::parse(rule).unwrap();
            Route { priority: rule.default_priority(), rule: Arc::new(rule), rank: 0, value: at }
        };
        let table = Table::build(rules.iter().enumerate().map(route).collect());
        for name in ["", "a", "A", "b", "c", "x.b", "d", "dd", "z"] {
            for alpn in [&[][..], &[&b"x"[..]]] {
                let hello = hello(name, alpn);
                let scanned = table.routes().iter().find(|route| route.rule.matches(&hello));
                let found = table.find(&hello).map(|route| route.value);
                assert_eq!(found, scanned.map(|route| route.value), "{hello:?}");
            }
        }
        assert_eq!(table.find(&hello("c", &[])).map(|route| route.value), Some(1));
    }

    /// Which rules are taken, and their priorities, were seen on Traefik 3.7.
    #[test]
    fn in_v2_any_of_several_values_will_do() {
        let parse =
            |text: &str| Rule::parse_as(text, Syntax::V2).unwrap_or_else(|error| panic!("{text}: {error}"));
        for (text, yes, no) in [
            ("HostSNI(`A.test`, `b.test.`)", &["a.test", "b.test", "b.test."][..], &["c.test", ""][..]),
            ("HostSNI(`*`)", &["", "a"], &[]),
            ("HostSNI(`*`, `a`)", &["", "b"], &[]),
            (
                "HostSNIRegexp(`{sub}.a.test`, `q.test`)",
                &["x.a.test", "q.test"],
                &["a.test", "y.x.a.test", "q-test"],
            ),
            ("HostSNIRegexp(`{x:[a-c]+}`)", &["abc"], &["abd", ""]),
            ("ClientIP(`10.0.0.0/8`, `192.0.2.7`)", &[""], &[]),
            ("ALPN(`h2`, `mqtt`)", &[], &["a"]),
        ] {
            for (names, expected) in [(yes, true), (no, false)] {
                for name in names {
                    assert_eq!(parse(text).matches(&hello(name, &[b"x"])), expected, "{text} on {name}");
                    let negated = format!("!({text})");
                    assert_eq!(
                        parse(&negated).matches(&hello(name, &[b"x"])),
                        !expected,
                        "{negated} on {name}"
                    );
                }
            }
        }
        assert!(parse("ALPN(`h2`, `mqtt`)").matches(&hello("", &[b"mqtt"])));
        assert_eq!(parse("HostSNI(`*`)").default_priority(), -1);
        let both = parse("HostSNI(`*`, `a`)");
        assert!(!both.is_catch_all() && !both.names_host() && both.default_priority() == 17);
        assert!(parse("HostSNI(`a`, `b`)").names_host());
        assert_eq!(parse("HostSNI(`A`, `b`) && !HostSNI(`c`)").hosts(), ["a", "b"]);
        assert_ne!(parse("HostSNI(`a`)"), Rule::parse("HostSNI(`a`)").unwrap());
        for (text, expected) in [
            ("HostSNI()", "`HostSNI` takes 1 value, not 0"),
            ("HostSNI(`a`, ``)", "a value of `HostSNI` is empty"),
            ("HostSNI(`*.a`)", "`*.a` is neither a host name nor an address"),
            ("HostSNIRegexp(`{a`)", "the braces of `{a` do not pair"),
            ("ClientIP(`x`)", "`x` is neither an IP address nor a CIDR range"),
            ("ALPN(`h2`, `acme-tls/1`)", "`acme-tls/1` is for certificate authorities and cannot be routed"),
            ("Host(`a`)", "unknown matcher `Host`"),
        ] {
            assert_eq!(Rule::parse_as(text, Syntax::V2).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
