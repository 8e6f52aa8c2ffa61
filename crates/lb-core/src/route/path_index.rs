//! The routes of a host, by path.
//!
//! An exact path is one look-up. The longest prefix mostly is one as well: prefixes tend to end where a
//! segment of the path ends, so the start of the path up to the first slash that could tell them apart is
//! tried first. Where that does not decide, it is found by binary search over the distinct *lengths* of
//! prefixes, one look-up each (Waldvogel et al., "Scalable High Speed IP Routing Lookups", SIGCOMM 1997):
//! the cost depends on how many lengths there are, not on how many prefixes. Shorter prefixes of the same
//! path hang below the longest one as a chain, which is followed only while it could hold an earlier route.
//!
//! Where to look is said in the row of the host, but a look-up that waited for it would be a fifth slower
//! (`benches`, `flatness`). So hashes depend on the host's hash rather than on its row, and the segment is
//! sought where most hosts have it before the row says where: both rows are on their way at once.

use super::few_paths::FewPaths;
use super::table::{Owner, Table, Value};
use super::text::{Text, slash_from};

/// Position in the order of evaluation: lower wins.
pub(super) type Order = u32;

/// The order of no route, after all others.
pub(super) const NO_ROUTE: Order = u32::MAX;

/// What else must hold once host and path have matched; an index into the conditions of the route index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest(pub(super) u32);

impl Rest {
    pub(super) const NOTHING: Self = Self(u32::MAX);
}

/// One route under some key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) order: Order,
    pub(super) rest: Rest,
}

/// What is searched for: the path, and how to evaluate what else a route asks for.
///
/// The earliest route found so far goes from one search to the next by value: it stays in a register.
pub(super) struct Search<'a, F> {
    pub(super) path: &'a [u8],
    pub(super) holds: F,
}

impl<F: Fn(Rest) -> bool> Search<'_, F> {
    #[inline]
    pub(super) fn takes(&self, rest: Rest) -> bool {
        rest == Rest::NOTHING || (self.holds)(rest)
    }
}

/// Owners of keys in the table: two for each [`Indexed`].
pub(super) fn owner_of_prefixes(index: u32, host: u64) -> Owner {
    Owner { number: 2 * index, salt: host }
}

pub(super) fn owner_of_exact_paths(index: u32, host: u64) -> Owner {
    Owner { number: 2 * index + 1, salt: !host }
}

/// The paths of one host, as the host's row in the table has them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paths {
    /// One route that takes every path: the most frequent kind of host.
    Whole(Entry),
    /// From where to where they are in [`FewPaths`].
    Few(u32, u32),
    Indexed(Indexed),
}

/// What a search needs to know before its first look-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed {
    /// Which [`Lengths`] it has; also tells its keys from those of others.
    pub(super) index: u32,
    /// Where to look for the slash that ends the first telling segment, or `NEVER`.
    pub(super) from: u32,
    pub(super) has_exact: bool,
}

pub(super) const NEVER: u32 = u32::MAX >> 1;

/// Marks what is no order: [`Paths::Few`] or [`Paths::Indexed`].
const SEVERAL: u32 = 1 << 31;
const INDEXED: u32 = SEVERAL | 1 << 30;

/// Orders are below the first limit, indexes and places of few paths below the second.
pub(super) const MAX_ROUTES: u32 = SEVERAL;
pub(super) const MAX_HOSTS: u32 = 1 << 30;

impl Paths {
    pub(super) const NONE: Self = Self::Whole(Entry { order: NO_ROUTE, rest: Rest::NOTHING });

    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Whole(Entry { order, rest }) => join(order, rest.0),
            Self::Few(from, to) => join(from | SEVERAL, to),
            Self::Indexed(Indexed { index, from, has_exact }) => {
                join(index | INDEXED, from << 1 | u32::from(has_exact))
            }
        }
    }

    #[inline]
    pub(super) fn from_value(value: Value) -> Self {
        let (first, second) = split(value);
        if first < SEVERAL {
            Self::Whole(Entry { order: first, rest: Rest(second) })
        } else if first < INDEXED {
            Self::Few(first & !SEVERAL, second)
        } else {
            Self::Indexed(Indexed { index: first & !INDEXED, from: second >> 1, has_exact: second & 1 == 1 })
        }
    }
}

fn join(first: u32, second: u32) -> Value {
    Value::from(first) | Value::from(second) << 32
}

fn split(value: Value) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

/// What the table has for a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) order: Order,
    /// Where to go on in [`PathIndex::lists`], or `ALONE`; and whether it is `DEEPER`.
    pub(super) link: u32,
}

/// Prefixes start with this text that are longer than it.
pub(super) const DEEPER: u32 = 1 << 31;

/// The route takes every request with this key, and is before those of all shorter prefixes.
pub(super) const ALONE: u32 = !DEEPER;

/// Comes after all routes, so that no search goes on behind it.
pub(super) const END: [u32; 2] = [NO_ROUTE, Rest::NOTHING.0];

/// How to find the longest prefix where the end of a segment does not tell.
#[derive(Debug)]
pub(super) struct Lengths {
    /// Earliest order of all paths of the host.
    pub(super) best: Order,
    /// The empty prefix.
    pub(super) everything: Row,
    /// Where to start in [`PathIndex::steps`].
    pub(super) first_step: u32,
}

/// One step of the search for the longest prefix: look up this many bytes, then go on to a longer or a
/// shorter length. `NO_STEP` ends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) length: u32,
    pub(super) longer: u32,
    pub(super) shorter: u32,
}

pub(super) const NO_STEP: u32 = u32::MAX;

/// The paths of all hosts.
#[derive(Debug)]
pub(super) struct PathIndex {
    pub(super) table: Table<4>,
    pub(super) few: FewPaths,
    /// What most hosts have as [`Indexed::from`].
    pub(super) usual_from: u32,
    pub(super) lengths: Vec<Lengths>,
    pub(super) steps: Vec<Step>,
    /// For each key that does not stand alone: the list of the next shorter prefix and the earliest order
    /// down that chain; then the entries of the key, in order, each with order and rest. What ends them is
    /// an entry without conditions, or [`END`].
    pub(super) lists: Vec<[u32; 2]>,
}

impl PathIndex {
    /// The earlier one of the best route so far and of those of a host, which has this hash.
    #[inline(always)] // so that `Whole` costs no call
    pub(super) fn search<F: Fn(Rest) -> bool>(
        &self,
        host: u64,
        paths: Paths,
        search: &Search<'_, F>,
        best: Order,
    ) -> Order {
        match paths {
            Paths::Whole(Entry { order, rest }) if order < best && search.takes(rest) => order,
            Paths::Whole(_) => best,
            Paths::Few(from, to) => self.few.search((from, to), search, best),
            Paths::Indexed(indexed) => self.search_indexed(host, indexed, search, best),
        }
    }

    #[inline(always)]
    fn search_indexed<F: Fn(Rest) -> bool>(
        &self,
        host: u64,
        indexed: Indexed,
        search: &Search<'_, F>,
        mut best: Order,
    ) -> Order {
        if best != NO_ROUTE && self.lengths[indexed.index as usize].best >= best {
            return best;
        }
        if indexed.has_exact {
            best = self.search_exact(host, indexed, search, best);
        }
        let row = self
            .at_end_of_segment(host, indexed, search.path)
            .unwrap_or_else(|| self.longest(host, indexed, search.path));
        self.consider(row, search, best)
    }

    #[inline(never)] // as the others below: it keeps the usual case small
    fn search_exact<F: Fn(Rest) -> bool>(
        &self,
        host: u64,
        indexed: Indexed,
        search: &Search<'_, F>,
        best: Order,
    ) -> Order {
        let path = Text::new(search.path);
        match self.table.get(owner_of_exact_paths(indexed.index, host), path) {
            Some(row) => self.consider(Row::from_value(row), search, best),
            None => best,
        }
    }

    /// The longest prefix, if the first segment that could tell prefixes apart decides it.
    #[inline(always)]
    fn at_end_of_segment(&self, host: u64, indexed: Indexed, path: &[u8]) -> Option<Row> {
        let usual = slash_from(path, self.usual_from as usize);
        let known =
            if indexed.from == self.usual_from { usual } else { slash_from(path, indexed.from as usize) };
        let slash = known?;
        let text = Text::new(&path[..=slash]);
        let row = Row::from_value(self.table.get(owner_of_prefixes(indexed.index, host), text)?);
        (row.link & DEEPER == 0).then_some(row)
    }

    /// The longest prefix by search over the lengths.
    #[inline(never)]
    fn longest(&self, host: u64, indexed: Indexed, path: &[u8]) -> Row {
        let Lengths { everything, first_step, .. } = self.lengths[indexed.index as usize];
        let owner = owner_of_prefixes(indexed.index, host);
        let (mut longest, mut next) = (everything, first_step);
        while let Some(step) = self.steps.get(next as usize) {
            let start = path.get(..step.length as usize);
            let found = start.and_then(|start| self.table.get(owner, Text::new(start)));
            longest = found.map_or(longest, Row::from_value);
            next = if found.is_some() { step.longer } else { step.shorter };
        }
        longest
    }

    /// Considers a key, and shorter ones as long as they may be before it.
    #[inline(always)]
    fn consider<F: Fn(Rest) -> bool>(&self, row: Row, search: &Search<'_, F>, best: Order) -> Order {
        let link = row.link & !DEEPER;
        if link == ALONE { best.min(row.order) } else { self.consider_list(link, search, best) }
    }

    #[inline(never)]
    fn consider_list<F: Fn(Rest) -> bool>(
        &self,
        mut list: u32,
        search: &Search<'_, F>,
        mut best: Order,
    ) -> Order {
        while let Some(([shorter, shorter_best], entries)) =
            self.lists.get(list as usize..).and_then(<[_]>::split_first)
        {
            let mut earlier = entries.iter().take_while(|[order, _]| *order < best);
            best = earlier.find(|[_, rest]| search.takes(Rest(*rest))).map_or(best, |[order, _]| *order);
            if *shorter_best >= best {
                return best;
            }
            list = *shorter;
        }
        best
    }
}

impl Row {
    pub(super) const NOTHING: Self = Self { order: NO_ROUTE, link: ALONE };

    pub(super) fn to_value(self) -> Value {
        join(self.order, self.link)
    }

    fn from_value(value: Value) -> Self {
        let (order, link) = split(value);
        Self { order, link }
    }
}
