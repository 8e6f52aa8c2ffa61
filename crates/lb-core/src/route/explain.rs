//! Why a request goes where it goes, for operators.

use super::rule::{Rule, Test};
use super::{Request, Route, RouteIndex};
use crate::syntax::{Kind, Node};

/// A route, and what became of it for one request.
#[derive(Debug)]
pub struct Considered<'a, T> {
    pub route: &'a Route<T>,
    pub verdict: Verdict<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Takes the request.
    Taken,
    /// Its rule holds too, but a route before it takes the request.
    Outranked,
    /// Its rule does not hold; this part of it is the first to fail.
    Failed { condition: &'a str, negated: bool },
}

impl<T> RouteIndex<T> {
    /// Every route in order of evaluation with its verdict. This evaluates rule by rule what
    /// [`find`](Self::find) looks up: for questions of people, not for traffic.
    pub fn explain<'a, R: Request + ?Sized>(
        &'a self,
        request: &'a R,
    ) -> impl Iterator<Item = Considered<'a, T>> {
        let mut taken = false;
        self.routes().iter().map(move |route| {
            let verdict = match route.rule.first_failure(request) {
                Some((condition, negated)) => Verdict::Failed { condition, negated },
                None if taken => Verdict::Outranked,
                None => Verdict::Taken,
            };
            taken |= verdict == Verdict::Taken;
            Considered { route, verdict }
        })
    }
}

impl Rule {
    /// The first part of the rule that fails, as written, and whether it stands under a negation. Where
    /// alternatives all fail, it is all of them together.
    fn first_failure<R: Request + ?Sized>(&self, request: &R) -> Option<(&str, bool)> {
        let holds = |node: &Node<Test>| node.evaluate(&mut |test| test.holds(request));
        let mut node = self.condition();
        if holds(node) {
            return None;
        }
        while let Kind::All(nodes) = &node.kind {
            node = nodes.iter().find(|node| !holds(node))?;
        }
        let negated = matches!(&node.kind, Kind::Leaf(test) if test.negated);
        Some((&self.as_str()[node.span.clone()], negated))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::route::fake::Fake;

    #[test]
    fn every_route_gets_its_verdict() {
        let rules = [
            "(Host(`a`) || Host(`b`)) && Path(`/x`)",
            "Host(`c`) && Path(`/y`)",
            "Host(`c`) && !Method(`GET`)",
            "PathPrefix(`/`)",
            "Host(`c`)",
        ];
        let route =
            |rule| Route { rule: Arc::new(Rule::parse(rule).unwrap()), priority: 0, rank: 0, value: () };
        let index = RouteIndex::build(rules.map(route).into());
        let request = Fake::get("c/x");
        let verdicts: Vec<_> = index.explain(&request).map(|considered| considered.verdict).collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Failed { condition: "Host(`a`) || Host(`b`)", negated: false },
                Verdict::Failed { condition: "Path(`/y`)", negated: false },
                Verdict::Failed { condition: "Method(`GET`)", negated: true },
                Verdict::Taken,
                Verdict::Outranked,
            ]
        );
    }
}
