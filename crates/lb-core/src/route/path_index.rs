//! The routes of one host, by path.
//!
//! A host with few routes is scanned in order. Beyond that, exact paths are one hash look-up, and the
//! longest prefix is found by binary search over the distinct *lengths* of prefixes, one hash look-up
//! each (Waldvogel et al., "Scalable High Speed IP Routing Lookups", SIGCOMM 1997): the cost depends on
//! how many lengths there are, not on how many prefixes. Shorter prefixes of the same path hang below
//! the longest one as a chain, which is followed only while it could hold an earlier route.

use smallvec::SmallVec;

use super::expand::PathKey;
use super::text::{Text, TextTable};

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

/// A search in progress: the earliest route found so far, and how to evaluate what is left.
pub(super) struct Search<'a, F> {
    pub(super) path: &'a [u8],
    pub(super) best: Order,
    pub(super) holds: F,
}

impl<F: Fn(Rest) -> bool> Search<'_, F> {
    /// Returns false when no later entry of the same key can be the one.
    fn consider(&mut self, entry: Entry) -> bool {
        if entry.order >= self.best {
            return false;
        }
        let found = entry.rest == Rest::NOTHING || (self.holds)(entry.rest);
        if found {
            self.best = entry.order;
        }
        !found
    }
}

/// Longest list that is scanned. Chosen: in `benches`, a scan of four is faster than the look-ups.
const FEW: usize = 8;

/// The routes of one host.
#[derive(Debug)]
pub(super) enum Paths {
    /// One route that takes every path: the most frequent kind of host, kept small.
    Whole(Entry),
    /// In order.
    Few(Box<[(PathText, Entry)]>),
    Many(Box<Table>),
}

#[derive(Debug)]
pub(super) struct PathText {
    text: Text,
    is_prefix: bool,
}

impl PathText {
    fn matches(&self, path: &[u8]) -> bool {
        let text = self.text.as_bytes();
        if self.is_prefix { path.starts_with(text) } else { path == text }
    }
}

impl Paths {
    /// From keys in order of evaluation.
    pub(super) fn build(keys: &[(PathKey<'_>, Entry)]) -> Self {
        match keys {
            [(PathKey::Prefix(""), entry)] => Self::Whole(*entry),
            few if few.len() <= FEW => {
                Self::Few(few.iter().map(|(key, entry)| (path_text(*key), *entry)).collect())
            }
            many => Self::Many(Box::new(Table::build(many))),
        }
    }

    pub(super) fn search(&self, search: &mut Search<'_, impl Fn(Rest) -> bool>) {
        match self {
            Self::Whole(entry) => {
                search.consider(*entry);
            }
            Self::Few(entries) => {
                for (path, entry) in entries {
                    if entry.order >= search.best || (path.matches(search.path) && !search.consider(*entry)) {
                        return;
                    }
                }
            }
            Self::Many(table) => table.search(search),
        }
    }
}

fn path_text(key: PathKey<'_>) -> PathText {
    match key {
        PathKey::Exact(path) => PathText { text: Text::new(path.as_bytes()), is_prefix: false },
        PathKey::Prefix(path) => PathText { text: Text::new(path.as_bytes()), is_prefix: true },
    }
}

/// The entries of one key, in order. The first is kept in place: mostly it is the only one.
#[derive(Clone, Copy, Debug)]
struct List {
    first: Entry,
    /// The others, in [`Table::more`].
    more_from: u32,
    more_to: u32,
}

/// A prefix as the look-up by length finds it.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    list: List,
    /// The next shorter prefix of the same paths, in [`Table::chain`].
    shorter: u32,
    /// Earliest order down that chain; `NO_ROUTE` at its end.
    shorter_best: Order,
}

/// One step of the search for the longest prefix: look up this many bytes, then go on to a longer or a
/// shorter length. `NO_STEP` ends it.
#[derive(Clone, Copy, Debug)]
struct Step {
    length: u32,
    longer: u32,
    shorter: u32,
}

const NO_STEP: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Table {
    /// Earliest order of all.
    best: Order,
    exact: TextTable<List>,
    /// Prefixes and, on the way to longer ones, markers; a marker stands for the longest prefix in it.
    prefixes: TextTable<Prefix>,
    /// Starts with the root.
    steps: SmallVec<[Step; 4]>,
    chain: Vec<Prefix>,
    /// The empty prefix.
    everything: List,
    more: Vec<Entry>,
}

impl List {
    const EMPTY: Self =
        Self { first: Entry { order: NO_ROUTE, rest: Rest::NOTHING }, more_from: 0, more_to: 0 };

    /// From entries in order. Those after an unconditional one are never reached.
    fn build(entries: &[Entry], more: &mut Vec<Entry>) -> Self {
        let Some((&first, others)) = entries.split_first() else { return Self::EMPTY };
        let more_from = more.len() as u32;
        if first.rest != Rest::NOTHING {
            let last = others.iter().position(|entry| entry.rest == Rest::NOTHING);
            more.extend(&others[..last.map_or(others.len(), |last| last + 1)]);
        }
        Self { first, more_from, more_to: more.len() as u32 }
    }
}

impl Table {
    fn build(keys: &[(PathKey<'_>, Entry)]) -> Self {
        let mut exact = std::collections::BTreeMap::<&str, Vec<Entry>>::new();
        let mut prefixes = std::collections::BTreeMap::<&str, Vec<Entry>>::new();
        for (key, entry) in keys {
            match key {
                PathKey::Exact(path) => exact.entry(path).or_default().push(*entry),
                PathKey::Prefix(path) => prefixes.entry(path).or_default().push(*entry),
            }
        }
        let mut more = Vec::new();
        let everything = prefixes.remove("").map_or(List::EMPTY, |entries| List::build(&entries, &mut more));
        let (texts, chain) = chain(&prefixes, &mut more);
        let steps = steps(&texts);
        let mut exact_table = TextTable::new();
        for (path, entries) in exact {
            exact_table.insert_with(path.as_bytes(), || List::build(&entries, &mut more));
        }
        Self {
            best: keys.first().map_or(NO_ROUTE, |(_, entry)| entry.order),
            exact: exact_table.shrink(),
            prefixes: markers(&texts, &chain, &steps),
            steps,
            chain,
            everything,
            more,
        }
    }

    fn search(&self, search: &mut Search<'_, impl Fn(Rest) -> bool>) {
        if self.best >= search.best {
            return;
        }
        if !self.exact.is_empty()
            && let Some(list) = self.exact.get(search.path)
        {
            self.consider(list, search);
        }
        if let Some(mut prefix) = self.longest_prefix(search.path) {
            loop {
                self.consider(&prefix.list, search);
                if prefix.shorter_best >= search.best {
                    break;
                }
                prefix = &self.chain[prefix.shorter as usize];
            }
        }
        self.consider(&self.everything, search);
    }

    fn longest_prefix(&self, path: &[u8]) -> Option<&Prefix> {
        let mut longest = None;
        let mut next = 0;
        while let Some(step) = self.steps.get(next as usize) {
            let found = path.get(..step.length as usize).and_then(|start| self.prefixes.get(start));
            longest = found.or(longest);
            next = if found.is_some() { step.longer } else { step.shorter };
        }
        longest
    }

    fn consider(&self, list: &List, search: &mut Search<'_, impl Fn(Rest) -> bool>) {
        if search.consider(list.first) {
            let more = &self.more[list.more_from as usize..list.more_to as usize];
            let _ = more.iter().all(|entry| search.consider(*entry));
        }
    }
}

/// The prefixes in lexicographic order, each linked to the longest other one that it starts with.
fn chain<'k>(
    prefixes: &std::collections::BTreeMap<&'k str, Vec<Entry>>,
    more: &mut Vec<Entry>,
) -> (Vec<&'k [u8]>, Vec<Prefix>) {
    let mut texts: Vec<&[u8]> = Vec::with_capacity(prefixes.len());
    let mut chain: Vec<Prefix> = Vec::with_capacity(prefixes.len());
    // Prefixes of the current text, shortest first. In this order they all come before it.
    let mut open: Vec<u32> = Vec::new();
    for (text, entries) in prefixes {
        let text = text.as_bytes();
        while open.last().is_some_and(|index| !text.starts_with(texts[*index as usize])) {
            open.pop();
        }
        let shorter = open.last().copied();
        let shorter_best = shorter.map_or(NO_ROUTE, |index| {
            let prefix = &chain[index as usize];
            prefix.shorter_best.min(prefix.list.first.order)
        });
        open.push(texts.len() as u32);
        texts.push(text);
        chain.push(Prefix {
            list: List::build(entries, more),
            shorter: shorter.unwrap_or(NO_ROUTE),
            shorter_best,
        });
    }
    (texts, chain)
}

/// The search over lengths as a binary tree, balanced by how many prefixes have a length: where nearly
/// all have the same one, nearly all searches end after one look-up.
fn steps(texts: &[&[u8]]) -> SmallVec<[Step; 4]> {
    fn grow(lengths: &[(u32, usize)], steps: &mut SmallVec<[Step; 4]>) -> u32 {
        let total: usize = lengths.iter().map(|(_, count)| count).sum();
        let mut sum = 0;
        let median = lengths.iter().position(|(_, count)| {
            sum += count;
            2 * sum >= total
        });
        let Some(median) = median else { return NO_STEP };
        let index = steps.len();
        steps.push(Step { length: lengths[median].0, longer: NO_STEP, shorter: NO_STEP });
        let longer = grow(&lengths[median + 1..], steps);
        let shorter = grow(&lengths[..median], steps);
        steps[index] = Step { longer, shorter, ..steps[index] };
        index as u32
    }
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    for text in texts {
        *counts.entry(text.len() as u32).or_default() += 1;
    }
    let mut steps = SmallVec::with_capacity(counts.len());
    grow(&counts.into_iter().collect::<Vec<_>>(), &mut steps);
    steps
}

/// Every prefix under its own text, and under the starts of it that lead the search towards it.
fn markers(texts: &[&[u8]], chain: &[Prefix], steps: &[Step]) -> TextTable<Prefix> {
    const NOTHING: Prefix = Prefix { list: List::EMPTY, shorter: 0, shorter_best: NO_ROUTE };
    let mut table = TextTable::new();
    for (index, text) in texts.iter().enumerate() {
        let mut next = 0;
        while let Some(step) = steps.get(next as usize) {
            let length = step.length as usize;
            if let Some(start) = text.get(..length) {
                // The longest prefix that is not longer than the marker: the text itself or one down its chain.
                let mut at = index;
                while texts.get(at).is_some_and(|text| text.len() > length) {
                    at = chain[at].shorter as usize;
                }
                table.insert_with(start, || chain.get(at).copied().unwrap_or(NOTHING));
            }
            next = match text.len().cmp(&length) {
                std::cmp::Ordering::Greater => step.longer,
                std::cmp::Ordering::Less => step.shorter,
                std::cmp::Ordering::Equal => break,
            };
        }
    }
    table.shrink()
}
