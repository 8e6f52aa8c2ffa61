//! Builds the index of one host's paths.

use std::cmp::{Ordering, Reverse};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::expand::PathKey;
use super::few_paths::FewPaths;
use super::path_index::{
    ALONE, DEEPER, END, Entry, Indexed, Lengths, MAX_HOSTS, NEVER, NO_ROUTE, NO_STEP, Order, PathIndex,
    Paths, Rest, Row, Step, owner_of_exact_paths, owner_of_prefixes,
};
use super::table::{Key, Owner, Table};
use super::text::Text;

type Keyed<'k> = (&'k [u8], Entry);

/// A prefix among all of a host, which come in lexicographic order.
struct Prefix<'k, 'e> {
    text: &'k [u8],
    /// In order.
    entries: &'e [Keyed<'k>],
    /// The longest other prefix that it starts with.
    shorter: Option<usize>,
    /// Earliest order of all that it starts with.
    shorter_best: Order,
    row: Row,
}

#[derive(Default)]
pub(super) struct PathBuilder<'k> {
    /// The same key may be there several times in a row, with the same value.
    keys: Vec<Key<'k>>,
    few: FewPaths,
    /// How many hosts have which [`Indexed::from`].
    froms: FxHashMap<u32, usize>,
    lengths: Vec<Lengths>,
    steps: Vec<Step>,
    lists: Vec<[u32; 2]>,
}

impl<'k> PathBuilder<'k> {
    pub(super) fn build(mut self) -> PathIndex {
        self.keys.dedup_by(|one, two| one.owner.number == two.owner.number && one.text == two.text);
        let Self { keys, few, froms, lengths, steps, lists } = self;
        let usual_from = froms.into_iter().max_by_key(|(from, hosts)| (*hosts, Reverse(*from)));
        let usual_from = usual_from.map_or(NEVER, |(from, _)| from);
        PathIndex { table: Table::build(&keys), few, usual_from, lengths, steps, lists }
    }

    /// The row of a host, with its paths in order of evaluation.
    ///
    /// # Panics
    /// As [`add`](Self::add).
    pub(super) fn add_host<'h>(
        &mut self,
        host: &'h str,
        owner: Owner,
        paths: &[(PathKey<'k>, Entry)],
    ) -> Key<'h> {
        let text = Text::new(host.as_bytes());
        let value = self.add(text.hash(owner.salt), paths).to_value();
        Key { owner, text: text.bytes.into(), value }
    }

    /// Takes in the paths of a host that has this hash, in order of evaluation.
    ///
    /// # Panics
    /// With 2^30 hosts or more.
    pub(super) fn add(&mut self, host: u64, paths: &[(PathKey<'k>, Entry)]) -> Paths {
        if let [(PathKey::Prefix(""), entry)] = paths {
            return Paths::Whole(*entry);
        }
        if let Some((from, to)) = self.few.add(paths) {
            return Paths::Few(from, to);
        }
        let index = self.lengths.len() as u32;
        assert!(index < MAX_HOSTS, "more hosts than owners of keys");
        let (mut exact, mut prefixes) = (Vec::<Keyed<'k>>::new(), Vec::<Keyed<'k>>::new());
        for (key, entry) in paths {
            match key {
                PathKey::Exact(path) => exact.push((path.as_bytes(), *entry)),
                PathKey::Prefix(path) => prefixes.push((path.as_bytes(), *entry)),
            }
        }
        // Stable, so that the entries of one text stay in order.
        exact.sort_by_key(|(text, _)| *text);
        prefixes.sort_by_key(|(text, _)| *text);
        for entries in exact.chunk_by(|(one, _), (two, _)| one == two) {
            let row = self.exact_row(entries);
            let (owner, text) = (owner_of_exact_paths(index, host), entries[0].0.into());
            self.keys.push(Key { owner, text, value: row.to_value() });
        }
        let prefixes = self.prefixes(&prefixes);
        let everything = prefixes.first().filter(|prefix| prefix.text.is_empty());
        let everything = everything.map_or(Row::NOTHING, |prefix| prefix.row);
        let (first_step, from) = (self.add_steps(&prefixes), telling_segment(&prefixes));
        let owner = owner_of_prefixes(index, host);
        let first_key = self.keys.len();
        for prefix in prefixes.iter().filter(|prefix| !prefix.text.is_empty()) {
            self.add_starts(owner, prefix, &prefixes, first_step);
            if from.is_some_and(|from| ends_with_segment(prefix.text, from)) {
                add_slash(owner, prefix, &prefixes, &mut self.keys);
            }
        }
        self.keys[first_key..].sort_by(|one, two| one.text.cmp(&two.text));
        let best = paths.first().map_or(NO_ROUTE, |(_, entry)| entry.order);
        self.lengths.push(Lengths { best, everything, first_step });
        let from = from.map_or(NEVER, |from| from as u32);
        *self.froms.entry(from).or_default() += 1;
        Paths::Indexed(Indexed { index, from, has_exact: !exact.is_empty() })
    }

    fn exact_row(&mut self, entries: &[Keyed<'_>]) -> Row {
        let Entry { order, rest } = entries[0].1;
        let link = if rest == Rest::NOTHING { ALONE } else { self.add_list(entries, ALONE, NO_ROUTE) };
        Row { order, link }
    }

    fn add_list(&mut self, entries: &[Keyed<'_>], shorter: u32, shorter_best: Order) -> u32 {
        let list = self.lists.len() as u32;
        self.lists.push([shorter, shorter_best]);
        for (_, Entry { order, rest }) in entries {
            self.lists.push([*order, rest.0]);
            if *rest == Rest::NOTHING {
                return list; // those after it are never reached
            }
        }
        self.lists.push(END);
        list
    }

    /// From entries that are sorted by text.
    fn prefixes<'e>(&mut self, entries: &'e [Keyed<'k>]) -> Vec<Prefix<'k, 'e>> {
        let mut prefixes = Vec::<Prefix<'k, 'e>>::with_capacity(entries.len());
        for entries in entries.chunk_by(|(one, _), (two, _)| one == two) {
            let (text, first) = entries[0];
            // In this order, what the text starts with is the prefix before it or one down its chain.
            let mut shorter = prefixes.len().checked_sub(1);
            while let Some(index) = shorter.filter(|index| !text.starts_with(prefixes[*index].text)) {
                shorter = prefixes[index].shorter;
            }
            let shorter_best = shorter.map_or(NO_ROUTE, |index| {
                let shorter = &mut prefixes[index];
                shorter.row.link |= DEEPER;
                shorter.shorter_best.min(shorter.row.order)
            });
            let row = Row { order: first.order, link: ALONE };
            prefixes.push(Prefix { text, entries, shorter, shorter_best, row });
        }
        self.link(&mut prefixes);
        prefixes
    }

    /// Links the prefixes that do not stand alone, and all that they lead to.
    fn link(&mut self, prefixes: &mut [Prefix<'_, '_>]) {
        let mut needed = vec![false; prefixes.len()];
        for (index, prefix) in prefixes.iter().enumerate().rev() {
            let (_, first) = prefix.entries[0];
            needed[index] |= first.rest != Rest::NOTHING || prefix.shorter_best < first.order;
            if let Some(shorter) = prefix.shorter {
                needed[shorter] |= needed[index];
            }
        }
        for index in (0..prefixes.len()).filter(|index| needed[*index]) {
            let Prefix { entries, shorter, shorter_best, row, .. } = prefixes[index];
            let shorter = shorter.map_or(ALONE, |shorter| prefixes[shorter].row.link & !DEEPER);
            let list = self.add_list(entries, shorter, shorter_best);
            prefixes[index].row.link = row.link & DEEPER | list;
        }
    }

    /// The search over lengths as a binary tree, balanced by how many prefixes have a length: where nearly
    /// all have the same one, nearly all searches end after one look-up. Returns its root.
    fn add_steps(&mut self, prefixes: &[Prefix<'_, '_>]) -> u32 {
        let mut lengths: SmallVec<[_; 16]> = prefixes.iter().map(|prefix| prefix.text.len() as u32).collect();
        lengths.retain(|length| *length > 0);
        lengths.sort_unstable();
        let counts = lengths.chunk_by(u32::eq).map(|same| (same[0], same.len()));
        self.grow_steps(&counts.collect::<SmallVec<[_; 16]>>())
    }

    fn grow_steps(&mut self, lengths: &[(u32, usize)]) -> u32 {
        let total: usize = lengths.iter().map(|(_, count)| count).sum();
        let mut sum = 0;
        let median = lengths.iter().position(|(_, count)| {
            sum += count;
            2 * sum >= total
        });
        let Some(median) = median else { return NO_STEP };
        let index = self.steps.len();
        self.steps.push(Step { length: lengths[median].0, longer: NO_STEP, shorter: NO_STEP });
        let longer = self.grow_steps(&lengths[median + 1..]);
        let shorter = self.grow_steps(&lengths[..median]);
        self.steps[index] = Step { longer, shorter, ..self.steps[index] };
        index as u32
    }

    /// Adds a prefix under its own text, and under the starts of it that lead the search over lengths
    /// towards it. A start has the row of the longest prefix in it.
    fn add_starts(
        &mut self,
        owner: Owner,
        prefix: &Prefix<'k, '_>,
        prefixes: &[Prefix<'k, '_>],
        first_step: u32,
    ) {
        let mut next = first_step;
        while let Some(step) = self.steps.get(next as usize) {
            let length = step.length as usize;
            if let Some(start) = prefix.text.get(..length) {
                let mut longest = Some(prefix);
                while let Some(longer) = longest.filter(|longest| longest.text.len() > length) {
                    longest = longer.shorter.map(|shorter| &prefixes[shorter]);
                }
                let mut row = longest.map_or(Row::NOTHING, |longest| longest.row);
                if length < prefix.text.len() {
                    row.link |= DEEPER;
                }
                self.keys.push(Key { owner, text: start.into(), value: row.to_value() });
            }
            next = match prefix.text.len().cmp(&length) {
                Ordering::Greater => step.longer,
                Ordering::Less => step.shorter,
                Ordering::Equal => break,
            };
        }
    }
}

/// Adds a prefix that ends without slash under its text with one.
fn add_slash<'k>(
    owner: Owner,
    prefix: &Prefix<'k, '_>,
    prefixes: &[Prefix<'k, '_>],
    keys: &mut Vec<Key<'k>>,
) {
    if prefix.text.ends_with(b"/") {
        return;
    }
    let text = [prefix.text, b"/"].concat();
    let after = prefixes.partition_point(|prefix| prefix.text < &text[..]);
    let after = prefixes.get(after).filter(|after| after.text.starts_with(&text));
    if after.is_none_or(|after| after.text != text) {
        let deeper = if after.is_some() { DEEPER } else { 0 };
        let row = Row { link: prefix.row.link & !DEEPER | deeper, ..prefix.row };
        keys.push(Key { owner, text: text.into(), value: row.to_value() });
    }
}

/// Where the first segment begins that could tell prefixes apart, if most of them end with it. It may
/// begin in its middle: what matters is the slash that is found from there on.
fn telling_segment(prefixes: &[Prefix<'_, '_>]) -> Option<usize> {
    let texts = || prefixes.iter().map(|prefix| prefix.text).filter(|text| !text.is_empty());
    // In lexicographic order all share what the first and the last share.
    let shared = texts().next()?.iter().zip(texts().next_back()?).take_while(|(one, two)| one == two).count();
    let from = texts().map(without_slash).map(<[u8]>::len).fold(shared, usize::min);
    let (ends, total) = (texts().filter(|text| ends_with_segment(text, from)).count(), texts().count());
    (2 * ends >= total).then_some(from)
}

fn without_slash(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"/").unwrap_or(text)
}

/// Whether the text ends with the segment that reaches beyond `from`, with or without its slash.
fn ends_with_segment(text: &[u8], from: usize) -> bool {
    !without_slash(text)[from..].contains(&b'/')
}
