//! Many routes, compiled: by host, then by path.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::expand::{Alternative, HostKey, PathKey, alternatives};
use super::matcher::{parent, without_trailing_dot};
use super::path_build::PathBuilder;
use super::path_index::{Entry, MAX_ROUTES, NO_ROUTE, Order, PathIndex, Paths, Rest, Search};
use super::rule::Test;
use super::table::{Key, Table};
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
    /// With the [`Paths`] of each host.
    hosts: Table<0>,
    /// By what follows the first label.
    wildcards: Table<0>,
    paths: PathIndex,
    any_host: Paths,
    conditions: Vec<Box<[Node<Test>]>>,
}

impl<T> RouteIndex<T> {
    /// # Panics
    /// With 2^31 routes or more, or 2^30 hosts.
    pub fn build(mut routes: Vec<Route<T>>) -> Self {
        assert!(routes.len() < MAX_ROUTES as usize, "more routes than there are numbers for them");
        routes.sort_by_key(|route| (std::cmp::Reverse(route.priority), route.rank));
        let mut conditions = Conditions::default();
        let mut by_host = FxHashMap::<HostKey<'_>, SmallVec<[(PathKey<'_>, Entry); 1]>>::default();
        for (route, order) in routes.iter().zip(0 as Order..) {
            for Alternative { host, path, rest, .. } in alternatives(&route.rule) {
                let rest = conditions.add(rest);
                by_host.entry(host).or_default().push((path, Entry { order, rest }));
            }
        }
        let (mut hosts, mut wildcards) = (Vec::with_capacity(by_host.len()), Vec::new());
        let (mut any_host, mut paths) = (Paths::NONE, PathBuilder::default());
        for (host, entries) in &by_host {
            let found = paths.add(entries);
            match *host {
                HostKey::Any => any_host = found,
                HostKey::Exact(host) => hosts.push(key(host, found)),
                HostKey::Wildcard(parent) => wildcards.push(key(parent, found)),
            }
        }
        let (hosts, wildcards, paths) = (Table::build(&hosts), Table::build(&wildcards), paths.build());
        let conditions = conditions.nodes;
        drop(by_host);
        Self { hosts, wildcards, paths, any_host, conditions, routes }
    }

    /// The value of the first route, in order of evaluation, whose rule holds.
    pub fn find<R: Request + ?Sized>(&self, request: &R) -> Option<&T> {
        let holds = |rest: Rest| {
            let nodes = &self.conditions[rest.0 as usize];
            nodes.iter().all(|node| node.evaluate(&mut |test: &Test| test.holds(request)))
        };
        let mut search = Search { path: request.path().as_bytes(), best: NO_ROUTE, holds };
        self.search_host(request.host(), &mut search);
        if let Some(alias) = request.alias() {
            self.search_host(alias, &mut search);
        }
        self.paths.search(self.any_host, &mut search);
        self.routes.get(search.best as usize).map(|route| &route.value)
    }

    /// The routes of one host, by name or by wildcard.
    #[inline]
    fn search_host<F: Fn(Rest) -> bool>(&self, host: &str, search: &mut Search<'_, F>) {
        let host = without_trailing_dot(host);
        if let Some(found) = self.hosts.get(0, host.as_bytes()) {
            self.paths.search(Paths::from_value(found), search);
        }
        if !self.wildcards.is_empty()
            && let Some(parent) = parent(host)
            && let Some(found) = self.wildcards.get(0, parent.as_bytes())
        {
            self.paths.search(Paths::from_value(found), search);
        }
    }

    /// The routes in order of evaluation.
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }
}

fn key(host: &str, paths: Paths) -> Key<'_> {
    Key { owner: 0, text: host.as_bytes().into(), value: paths.to_value() }
}

/// What rules ask for beside host and path, each combination once: many routes ask for the same.
#[derive(Default)]
struct Conditions<'r> {
    nodes: Vec<Box<[Node<Test>]>>,
    known: FxHashMap<Vec<&'r Node<Test>>, Rest>,
}

impl<'r> Conditions<'r> {
    fn add(&mut self, rest: Vec<&'r Node<Test>>) -> Rest {
        if rest.is_empty() {
            return Rest::NOTHING;
        }
        if let Some(known) = self.known.get(&rest) {
            return *known;
        }
        let added = Rest(self.nodes.len() as u32);
        self.nodes.push(rest.iter().copied().cloned().collect());
        self.known.insert(rest, added);
        added
    }
}
