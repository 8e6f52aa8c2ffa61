//! Rewrites a rule as alternatives, each with at most one host and one path to index it by.
//!
//! This is the disjunctive normal form, but only as far as hosts and paths need it: what the index
//! cannot use (methods, headers, regular expressions, negations) stays whole and is evaluated when the
//! host and the path have matched.

use smallvec::{SmallVec, smallvec};

use super::matcher::{HostPattern, Matcher};
use super::rule::{Rule, Test};
use crate::syntax::{Kind, Node};

/// Alternatives one rule may become. Beyond that, parts of the rule are evaluated rather than indexed.
/// Chosen: memory of a few MiB for the worst rule, room for thousands of hosts in one.
const MAX_ALTERNATIVES: usize = 16_384;

/// One way in which a rule holds: the host and the path match, and so does all of `rest`.
#[derive(Clone, Debug)]
pub(super) struct Alternative<'r> {
    pub(super) host: HostKey<'r>,
    /// Where that is said.
    host_at: Option<&'r Node<Test>>,
    pub(super) path: PathKey<'r>,
    pub(super) rest: Vec<&'r Node<Test>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostKey<'r> {
    Any,
    Exact(&'r str),
    /// One label in front of this parent.
    Wildcard(&'r str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKey<'r> {
    Exact(&'r str),
    /// The empty prefix is every path.
    Prefix(&'r str),
}

/// Most rules have one.
pub(super) type Alternatives<'r> = SmallVec<[Alternative<'r>; 1]>;

/// The alternatives of a rule; none if it can never hold.
pub(super) fn alternatives(rule: &Rule) -> Alternatives<'_> {
    expand(rule.condition())
}

impl<'r> Alternative<'r> {
    const EVERYTHING: Self =
        Self { host: HostKey::Any, host_at: None, path: PathKey::Prefix(""), rest: Vec::new() };

    /// Both at once; `None` if they exclude each other.
    fn and(&self, other: &Self) -> Option<Self> {
        let path = self.path.and(other.path)?;
        let mut rest: Vec<_> = self.rest.iter().chain(&other.rest).copied().collect();
        let host = self.host.and(other.host).unwrap_or_else(|| {
            // A request may have both: a host, and what that is an alias of.
            rest.extend(other.host_at);
            self.host
        });
        let host_at = if self.host == host { self.host_at } else { other.host_at };
        Some(Self { host, host_at, path, rest })
    }
}

impl HostKey<'_> {
    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, key) | (key, Self::Any) => Some(key),
            (Self::Exact(host), Self::Wildcard(parent)) | (Self::Wildcard(parent), Self::Exact(host)) => {
                (super::matcher::parent(host) == Some(parent)).then_some(Self::Exact(host))
            }
            (one, two) => (one == two).then_some(one),
        }
    }
}

impl PathKey<'_> {
    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => (one == two).then_some(self),
            (Self::Exact(path), Self::Prefix(prefix)) | (Self::Prefix(prefix), Self::Exact(path)) => {
                path.starts_with(prefix).then_some(Self::Exact(path))
            }
            (Self::Prefix(one), Self::Prefix(two)) => {
                let (short, long) = if one.len() <= two.len() { (one, two) } else { (two, one) };
                long.starts_with(short).then_some(Self::Prefix(long))
            }
        }
    }
}

/// At most [`MAX_ALTERNATIVES`].
fn expand(node: &Node<Test>) -> Alternatives<'_> {
    match &node.kind {
        Kind::Leaf(test) => match key(test) {
            Some((HostKey::Exact(""), _)) => SmallVec::new(), // ``Host(`.`)``: no request has that host
            Some((host, path)) => {
                let host_at = (host != HostKey::Any).then_some(node);
                smallvec![Alternative { host, host_at, path, rest: Vec::new() }]
            }
            None => unindexed(node),
        },
        Kind::All(nodes) => conjunction(nodes),
        Kind::Any(nodes) => {
            if !has_key(node) {
                return unindexed(node);
            }
            let mut alternatives = SmallVec::new();
            for node in nodes {
                alternatives.append(&mut expand(node));
                if alternatives.len() > MAX_ALTERNATIVES {
                    break;
                }
            }
            if alternatives.len() > MAX_ALTERNATIVES { unindexed(node) } else { alternatives }
        }
    }
}

fn conjunction(nodes: &[Node<Test>]) -> Alternatives<'_> {
    let mut product: Alternatives<'_> = smallvec![Alternative::EVERYTHING];
    for node in nodes {
        let mut factor = expand(node);
        if product.len() * factor.len() > MAX_ALTERNATIVES {
            factor = unindexed(node);
        }
        product = product.iter().flat_map(|one| factor.iter().filter_map(|two| one.and(two))).collect();
    }
    product
}

/// The node as a condition to evaluate on every request.
fn unindexed(node: &Node<Test>) -> Alternatives<'_> {
    smallvec![Alternative { rest: vec![node], ..Alternative::EVERYTHING }]
}

fn key(test: &Test) -> Option<(HostKey<'_>, PathKey<'_>)> {
    const EVERY_PATH: PathKey<'_> = PathKey::Prefix("");
    if test.negated {
        return None;
    }
    match &test.matcher {
        Matcher::Host(HostPattern::Any) => Some((HostKey::Any, EVERY_PATH)),
        Matcher::Host(HostPattern::Exact(host)) => Some((HostKey::Exact(host), EVERY_PATH)),
        Matcher::Host(HostPattern::Wildcard(parent)) => Some((HostKey::Wildcard(parent), EVERY_PATH)),
        Matcher::Path(path) => Some((HostKey::Any, PathKey::Exact(path))),
        Matcher::PathPrefix(prefix) => Some((HostKey::Any, PathKey::Prefix(prefix))),
        _ => None,
    }
}

fn has_key(node: &Node<Test>) -> bool {
    let mut found = false;
    node.for_each_leaf(&mut |test| found |= key(test).is_some());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One alternative per entry: host, path (a star marks a prefix), and how many conditions remain.
    fn keys(rule: &str) -> Vec<String> {
        let rule = Rule::parse(rule).unwrap();
        let show = |alternative: &Alternative<'_>| {
            let host = match alternative.host {
                HostKey::Any => "-".to_owned(),
                HostKey::Exact(host) => host.to_owned(),
                HostKey::Wildcard(parent) => format!("*.{parent}"),
            };
            let path = match alternative.path {
                PathKey::Exact(path) => path.to_owned(),
                PathKey::Prefix(path) => format!("{path}*"),
            };
            format!("{host} {path} +{}", alternative.rest.len())
        };
        alternatives(&rule).iter().map(show).collect()
    }

    #[test]
    fn alternatives_carry_one_host_and_one_path() {
        for (rule, expected) in [
            ("Host(`a`)", vec!["a * +0"]),
            ("Host(`a`) || Host(`b`)", vec!["a * +0", "b * +0"]),
            (
                "(Host(`a`) || Host(`b`)) && (Path(`/x`) || PathPrefix(`/y`)) && Method(`GET`)",
                vec!["a /x +1", "a /y* +1", "b /x +1", "b /y* +1"],
            ),
            ("Host(`a`) && (Method(`GET`) || Method(`PUT`))", vec!["a * +1"]),
            ("Host(`a`) || Method(`GET`)", vec!["a * +0", "- * +1"]),
            ("!Host(`a`) && PathPrefix(`/x`)", vec!["- /x* +1"]),
            ("!(!Host(`a`) || !Path(`/x`))", vec!["a /x +0"]),
            ("Host(`*`) && HostRegexp(`a`)", vec!["- * +1"]),
        ] {
            assert_eq!(keys(rule), expected, "{rule}");
        }
    }

    #[test]
    fn conditions_on_the_same_thing_are_merged() {
        for (rule, expected) in [
            ("Host(`a`) && Host(`a.`)", vec!["a * +0"]),
            ("Host(`a`) && Host(`b`)", vec!["a * +1"]),
            ("Host(`x.a`) && Host(`*.a`)", vec!["x.a * +0"]),
            ("Host(`*.a`) && Host(`*.b`)", vec!["*.a * +1"]),
            ("PathPrefix(`/a`) && PathPrefix(`/ab`)", vec!["- /ab* +0"]),
            ("PathPrefix(`/a`) && Path(`/ab`)", vec!["- /ab +0"]),
            ("PathPrefix(`/a`) && Path(`/b`)", vec![]),
            ("Host(`.`)", vec![]),
        ] {
            assert_eq!(keys(rule), expected as Vec<&str>, "{rule}");
        }
    }

    #[test]
    fn expansion_is_bounded() {
        let any = |letter: char| {
            let paths: Vec<_> = (0..200).map(|i| format!("PathPrefix(`/{letter}{i}`)")).collect();
            format!("({})", paths.join("||"))
        };
        let rule = format!("Host(`h`) && {} && {}", any('a'), any('b'));
        assert_eq!(keys(&rule).len(), 200, "200 x 200 would be too many: the second factor is evaluated");
    }
}
