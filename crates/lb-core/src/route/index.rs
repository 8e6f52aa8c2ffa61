//! Many routes, compiled: by host, then by path.

use std::collections::HashMap;

use super::expand::{Alternative, HostKey, PathKey, alternatives};
use super::matcher::{parent, without_trailing_dot};
use super::path_index::{Entry, NO_ROUTE, Order, Paths, Rest, Search};
use super::rule::Test;
use super::text::TextTable;
use super::{Request, Route};
use crate::syntax::Node;

/// Routes in order of evaluation, with an index that answers what a scan in that order would.
///
/// A look-up hashes the host, then the path; it allocates nothing (beyond what long query values and
/// field values that are not UTF-8 need to be seen by a regular expression). Routes without `Host`, or
/// with `HostRegexp` only, are looked at for every host; those that share host and path, one by one.
#[derive(Debug)]
pub struct RouteIndex<T> {
    /// In order of evaluation; [`Order`] is a position in here.
    routes: Vec<Route<T>>,
    hosts: TextTable<Paths>,
    /// By what follows the first label.
    wildcards: TextTable<Paths>,
    any_host: Paths,
    conditions: Vec<Box<[Node<Test>]>>,
}

impl<T> RouteIndex<T> {
    /// # Panics
    /// With 2^32 - 1 routes or more.
    pub fn build(mut routes: Vec<Route<T>>) -> Self {
        assert!(routes.len() < NO_ROUTE as usize, "more routes than a u32 can number");
        routes.sort_by_key(|route| (std::cmp::Reverse(route.priority), route.rank));
        let mut conditions = Vec::new();
        let mut by_host = HashMap::<HostKey<'_>, Vec<(PathKey<'_>, Entry)>>::new();
        for (route, order) in routes.iter().zip(0 as Order..) {
            // The alternatives of a rule mostly share what is left to evaluate: keep it once.
            let mut kept = HashMap::new();
            for Alternative { host, path, rest } in alternatives(&route.rule) {
                let identity: Vec<_> = rest.iter().map(|node| std::ptr::from_ref(*node)).collect();
                let rest = if rest.is_empty() {
                    Rest::NOTHING
                } else {
                    *kept.entry(identity).or_insert_with(|| {
                        conditions.push(rest.into_iter().cloned().collect());
                        Rest(conditions.len() as u32 - 1)
                    })
                };
                by_host.entry(host).or_default().push((path, Entry { order, rest }));
            }
        }
        let mut hosts = TextTable::new();
        let mut wildcards = TextTable::new();
        let mut any_host = Paths::build(&[]);
        for (host, keys) in by_host {
            let paths = Paths::build(&keys);
            match host {
                HostKey::Any => any_host = paths,
                HostKey::Exact(host) => hosts.insert_with(host.as_bytes(), || paths),
                HostKey::Wildcard(parent) => wildcards.insert_with(parent.as_bytes(), || paths),
            }
        }
        Self { hosts: hosts.shrink(), wildcards: wildcards.shrink(), any_host, conditions, routes }
    }

    /// The value of the first route, in order of evaluation, whose rule holds.
    pub fn find<R: Request + ?Sized>(&self, request: &R) -> Option<&T> {
        let holds = |rest: Rest| {
            let nodes = &self.conditions[rest.0 as usize];
            nodes.iter().all(|node| node.evaluate(&mut |test: &Test| test.holds(request)))
        };
        let host = without_trailing_dot(request.host());
        let mut search = Search { path: request.path().as_bytes(), best: NO_ROUTE, holds };
        if let Some(paths) = self.hosts.get(host.as_bytes()) {
            paths.search(&mut search);
        }
        if !self.wildcards.is_empty()
            && let Some(parent) = parent(host)
            && let Some(paths) = self.wildcards.get(parent.as_bytes())
        {
            paths.search(&mut search);
        }
        self.any_host.search(&mut search);
        self.routes.get(search.best as usize).map(|route| &route.value)
    }

    /// The routes in order of evaluation.
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }
}
