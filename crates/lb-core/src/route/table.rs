//! A table by text in which a look-up waits for memory once.
//!
//! Perfect hashing by displacement (Belazzougui et al., "Hash, displace, and compress", ESA 2009): keys are
//! hashed into small groups, and each group has a seed that sends its keys to rows of their own. A look-up
//! reads one seed (those of 100,000 keys fit in the first-level cache) and one row, which holds key and
//! value side by side. It never probes further, so nothing in it depends on how full the table is.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::text::{SHORT, Text, words};

/// What is found under a key; its meaning is that of the key's owner.
pub(super) type Value = u64;

/// Keys of different owners are different keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// Tells owners apart. In a table without owners it is zero.
    pub(super) number: u32,
    /// Only makes hashes of the same text differ, so that a look-up can begin before the number is known.
    pub(super) salt: u64,
}

#[derive(Debug)]
pub(super) struct Key<'k> {
    pub(super) owner: Owner,
    pub(super) text: Cow<'k, [u8]>,
    pub(super) value: Value,
}

/// A map from text and owner, who takes this number of bytes (none or four), to [`Value`].
#[derive(Debug)]
pub(super) struct Table<const OWNER: usize> {
    /// One per group.
    seeds: Box<[u8]>,
    /// Each has value, length of the text and owner, then [`Text::end`] if it is short, or else the text.
    rows: Box<[u8]>,
    /// Their size as a power of two, so that no row lies in two cache lines.
    row_bits: u32,
    row_count: usize,
    /// Texts that are too long for a row, which then holds where they are.
    long_texts: Vec<u8>,
    /// What found no row, sorted: nothing, unless somebody crafted keys to that end.
    strays: Vec<(u32, Box<[u8]>, Value)>,
}

/// Keys that share a seed, on average. Chosen: more of them save little memory and cost time to place.
const GROUP: usize = 3;

/// Longest text kept in its row. Chosen: nearly all hosts and path prefixes are shorter, and the row is
/// still a cache line.
const LONGEST_INLINE: usize = 48;

/// Value and length of the text.
const HEAD: usize = 9;

/// A length that stands for "elsewhere": the row goes on with its place in the long texts and its length.
const ELSEWHERE: u8 = u8::MAX;

/// A length that no text has: the row is free.
const FREE: u8 = u8::MAX - 1;

impl<const OWNER: usize> Table<OWNER> {
    /// From keys that are all different.
    pub(super) fn build(keys: &[Key<'_>]) -> Self {
        let inline = keys.iter().map(|key| key.text.len()).filter(|length| *length <= LONGEST_INLINE).max();
        let row_bytes = (HEAD + OWNER + inline.unwrap_or(0).max(SHORT)).next_power_of_two();
        let row_count = keys.len() + keys.len() / 4 + 1;
        let mut table = Self {
            seeds: vec![0; keys.len() / GROUP + 1].into(),
            rows: vec![FREE; row_count * row_bytes].into(),
            row_bits: row_bytes.trailing_zeros(),
            row_count,
            long_texts: Vec::new(),
            strays: Vec::new(),
        };
        let hashes: Vec<_> = keys.iter().map(|key| Text::new(&key.text).hash(key.owner.salt)).collect();
        let mut taken = vec![false; row_count];
        let mut places = Vec::new();
        for Group { number, members } in groups(&hashes, table.seeds.len()) {
            let mut fits = |seed: &u8| {
                places.clear();
                members.iter().all(|key| {
                    let place = place(hashes[*key], *seed, row_count);
                    let free = !taken[place] && !places.contains(&place);
                    places.push(place);
                    free
                })
            };
            match (0..=u8::MAX).find(&mut fits) {
                Some(seed) => {
                    table.seeds[number] = seed;
                    for (key, place) in members.iter().zip(&places) {
                        taken[*place] = true;
                        table.write(*place, &keys[*key]);
                    }
                }
                None => table.strays.extend(members.iter().map(|key| {
                    let Key { owner, text, value } = &keys[*key];
                    (owner.number, text.as_ref().into(), *value)
                })),
            }
        }
        table.strays.sort_unstable();
        table
    }

    fn write(&mut self, place: usize, key: &Key<'_>) {
        let row = &mut self.rows[place << self.row_bits..][..1 << self.row_bits];
        let (head, text) = row.split_at_mut(HEAD);
        let (owner, text) = text.split_at_mut(OWNER);
        head[..8].copy_from_slice(&key.value.to_le_bytes());
        head[8] = stored_length(&key.text);
        owner.copy_from_slice(&key.owner.number.to_le_bytes()[..OWNER]);
        if key.text.len() <= SHORT {
            let [low, high] = Text::new(&key.text).end;
            text[..8].copy_from_slice(&low.to_le_bytes());
            text[8..SHORT].copy_from_slice(&high.to_le_bytes());
        } else if key.text.len() <= LONGEST_INLINE {
            text[..key.text.len()].copy_from_slice(&key.text);
        } else {
            text[..4].copy_from_slice(&(self.long_texts.len() as u32).to_le_bytes());
            text[4..8].copy_from_slice(&(key.text.len() as u32).to_le_bytes());
            self.long_texts.extend_from_slice(&key.text);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.row_count == 1
    }

    #[inline(always)] // as what follows: or else the text goes through memory
    pub(super) fn get(&self, owner: Owner, text: Text<'_>) -> Option<Value> {
        self.get_hashed(text.hash(owner.salt), owner.number, text)
    }

    /// With the hash of the text, salted, and the number of the owner.
    #[inline(always)]
    pub(super) fn get_hashed(&self, hash: u64, owner: u32, text: Text<'_>) -> Option<Value> {
        let seed = *self.seeds.get(group(hash, self.seeds.len()))?;
        let row = self.rows.get(place(hash, seed, self.row_count) << self.row_bits..)?;
        let (head, rest) = row.split_first_chunk::<HEAD>()?;
        let [value @ .., length] = *head;
        let (its_owner, rest) = rest.split_first_chunk::<OWNER>()?;
        if length == stored_length(text.bytes)
            && owner.to_le_bytes().first_chunk() == Some(its_owner)
            && self.has_text(rest, text)
        {
            return Some(Value::from_le_bytes(value));
        }
        if self.strays.is_empty() { None } else { self.stray(owner, text.bytes) }
    }

    /// Whether a row whose length is that of the text goes on with the text.
    #[inline(always)]
    fn has_text(&self, row: &[u8], text: Text<'_>) -> bool {
        if text.bytes.len() <= SHORT {
            row.first_chunk().is_some_and(|end| words(end) == text.end)
        } else if text.bytes.len() <= 2 * SHORT {
            let end = row.get(text.bytes.len() - SHORT..).and_then(|end| end.first_chunk());
            row.first_chunk::<SHORT>() == text.bytes.first_chunk() && end.map(words) == Some(text.end)
        } else if text.bytes.len() <= LONGEST_INLINE {
            row.starts_with(text.bytes)
        } else {
            self.is_long_text(row, text.bytes)
        }
    }

    #[cold]
    fn is_long_text(&self, row: &[u8], text: &[u8]) -> bool {
        let Some([from @ .., l0, l1, l2, l3]) = row.first_chunk::<8>() else { return false };
        let (from, length) = (u32::from_le_bytes(*from), u32::from_le_bytes([*l0, *l1, *l2, *l3]));
        length as usize == text.len()
            && self.long_texts.get(from as usize..).is_some_and(|long| long.starts_with(text))
    }

    #[cold]
    fn stray(&self, owner: u32, text: &[u8]) -> Option<Value> {
        let found = self.strays.binary_search_by(|(o, t, _)| (*o, &**t).cmp(&(owner, text))).ok()?;
        Some(self.strays[found].2)
    }
}

fn stored_length(text: &[u8]) -> u8 {
    if text.len() <= LONGEST_INLINE { text.len() as u8 } else { ELSEWHERE }
}

struct Group {
    number: usize,
    /// Positions of its keys.
    members: SmallVec<[usize; 2 * GROUP]>,
}

/// All groups that have keys: those with most of them first, while there is room.
fn groups(hashes: &[u64], count: usize) -> Vec<Group> {
    let group_of = |number| Group { number, members: SmallVec::new() };
    let mut groups: Vec<_> = (0..count).map(group_of).collect();
    for (key, hash) in hashes.iter().enumerate() {
        groups[group(*hash, count)].members.push(key);
    }
    groups.retain(|group| !group.members.is_empty());
    groups.sort_unstable_by_key(|group| std::cmp::Reverse(group.members.len()));
    groups
}

fn group(hash: u64, count: usize) -> usize {
    scale(hash >> 32, count)
}

/// The seed counts steps that differ from key to key; its product is all that waits for it.
fn place(hash: u64, seed: u8, rows: usize) -> usize {
    let step = (hash >> 16) as u32 | 1;
    scale((hash as u32).wrapping_add(step.wrapping_mul(seed.into())).into(), rows)
}

/// Maps 32 random bits to a number below `count`.
fn scale(bits: u64, count: usize) -> usize {
    ((bits * count as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::text::ODD;

    fn owner(number: u32) -> Owner {
        Owner { number, salt: number.into() }
    }

    fn key(number: u32, text: &str, value: u32) -> Key<'_> {
        Key { owner: owner(number), text: text.as_bytes().into(), value: value.into() }
    }

    fn get<const OWNER: usize>(table: &Table<OWNER>, number: u32, text: &[u8]) -> Option<Value> {
        table.get(owner(number), Text::new(text))
    }

    #[test]
    fn keys_of_any_length_and_owner_are_found() {
        let texts: Vec<_> = (0..300).map(|length| "x".repeat(length)).collect();
        let keys: Vec<_> = texts
            .iter()
            .flat_map(|text| (0..40).map(move |owner| key(owner, text, owner * 1_000 + text.len() as u32)))
            .collect();
        let table = Table::<4>::build(&keys);
        assert!(keys.iter().all(|key| get(&table, key.owner.number, &key.text) == Some(key.value)));
        assert!(texts.iter().all(|text| get(&table, 40, text.as_bytes()).is_none()));
        assert_eq!((get(&table, 7, b"xxxxy"), get(&table, 7, b"y")), (None, None));
        assert!(table.strays.is_empty());
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(get(&Table::<0>::build(&[]), 0, b""), None);
    }

    #[test]
    fn a_row_of_usual_keys_is_half_a_cache_line() {
        assert_eq!(Table::<4>::build(&[key(0, "/api/v1/customers/", 0)]).row_bits, 5);
        assert_eq!(Table::<4>::build(&[key(0, &"x".repeat(LONGEST_INLINE), 0)]).row_bits, 6);
        assert_eq!(Table::<4>::build(&[key(0, &"x".repeat(LONGEST_INLINE + 1), 0)]).row_bits, 5);
    }

    /// Where the first word is the first multiplier, the product is zero whatever the second one.
    #[test]
    fn keys_that_were_crafted_to_collide_are_found() {
        let text = |index: u64| [ODD[0].to_le_bytes(), index.to_le_bytes()].concat();
        let texts: Vec<_> = (0..100).map(text).collect();
        let keys: Vec<_> = texts
            .iter()
            .zip(0..)
            .map(|(text, value)| Key { owner: owner(0), text: Cow::Borrowed(text), value })
            .collect();
        let table = Table::<4>::build(&keys);
        assert!(!table.strays.is_empty());
        assert!(keys.iter().all(|key| get(&table, 0, &key.text) == Some(key.value)));
        assert_eq!(get(&table, 0, &text(100)), None);
    }
}
