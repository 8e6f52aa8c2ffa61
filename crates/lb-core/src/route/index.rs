//! Many routes, compiled: by host, then by path.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::expand::{Alternative, HostKey, PathKey, alternatives};
use super::matcher::{parent, without_trailing_dot};
use super::path_build::PathBuilder;
use super::path_index::{Entry, MAX_ROUTES, NO_ROUTE, Order, PathIndex, Paths, Rest, Search};
use super::rule::Test;
use super::table::{Owner, Table};
use super::text::Text;
use super::{Request, Route};
use crate::syntax::Node;

/// Hosts have tables of their own, and need no number. Their hashes salt the paths, which are all in one table: those of
/// `a.test` and of `*.a.test` have to differ.
const EXACT: Owner = Owner { number: 0, salt: 0 };
const WILDCARD: Owner = Owner { number: 0, salt: 1 };

/// In place of the hash of a host.
const ANY: u64 = 2;

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
            match *host {
                HostKey::Any => any_host = paths.add(ANY, entries),
                HostKey::Exact(host) => hosts.push(paths.add_host(host, EXACT, entries)),
                HostKey::Wildcard(parent) => wildcards.push(paths.add_host(parent, WILDCARD, entries)),
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
        let search = Search { path: request.path().as_bytes(), holds };
        let mut best = self.search_host(request.host(), &search, NO_ROUTE);
        if let Some(alias) = request.alias() {
            best = self.search_host(alias, &search, best);
        }
        best = self.paths.search(ANY, self.any_host, &search, best);
        self.routes.get(best as usize).map(|route| &route.value)
    }

    /// The earlier one of the best route so far and of those of a host, by name or by wildcard.
    #[inline]
    fn search_host<F: Fn(Rest) -> bool>(&self, host: &str, search: &Search<'_, F>, mut best: Order) -> Order {
        let host = without_trailing_dot(host);
        let text = Text::new(host.as_bytes());
        let hash = text.hash(EXACT.salt);
        if let Some(found) = self.hosts.get_hashed(hash, EXACT.number, text) {
            best = self.paths.search(hash, Paths::from_value(found), search, best);
        }
        if !self.wildcards.is_empty()
            && let Some(parent) = parent(host)
            && let text = Text::new(parent.as_bytes())
            && let hash = text.hash(WILDCARD.salt)
            && let Some(found) = self.wildcards.get_hashed(hash, WILDCARD.number, text)
        {
            best = self.paths.search(hash, Paths::from_value(found), search, best);
        }
        best
    }

    /// The routes in order of evaluation.
    pub fn routes(&self) -> &[Route<T>] {
        &self.routes
    }
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
