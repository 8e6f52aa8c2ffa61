//! Tables by host or path: short byte strings kept in place, and a fast hash over them.

use std::hash::Hasher;

use hashbrown::HashTable;

/// A map from text to `V`, laid out so that a look-up in a large one misses the cache once.
#[derive(Debug)]
pub(super) struct TextTable<V>(HashTable<Row<V>>);

/// A key with its value. With a value of up to 24 bytes it is one cache line, and never straddles two.
#[derive(Debug)]
#[repr(align(64))]
struct Row<V> {
    key: Text,
    value: V,
}

impl<V> TextTable<V> {
    pub(super) fn new() -> Self {
        Self(HashTable::new())
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        self.0.find(hash(key), |row| row.key.as_bytes() == key).map(|row| &row.value)
    }

    /// Does nothing if the key is there already.
    pub(super) fn insert_with(&mut self, key: &[u8], value: impl FnOnce() -> V) {
        let entry = self.0.entry(hash(key), |row| row.key.as_bytes() == key, |row| hash(row.key.as_bytes()));
        entry.or_insert_with(|| Row { key: Text::new(key), value: value() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives back the room that growing has left over.
    pub(super) fn shrink(mut self) -> Self {
        self.0.shrink_to_fit(|row| hash(row.key.as_bytes()));
        self
    }
}

/// Keys come from the configuration, only look-ups come from strangers, so the hash needs no secret.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

/// Longest text kept in place. Chosen: nearly all hosts and path prefixes are shorter.
const INLINE: usize = 30;

/// An immutable byte string. Up to 30 bytes live inside, so that comparing a key touches no other memory.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Short { length: u8, bytes: [u8; INLINE] },
    Long(Box<[u8]>),
}

impl Text {
    pub(super) fn new(text: &[u8]) -> Self {
        if text.len() > INLINE {
            return Self::Long(text.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..text.len()].copy_from_slice(text);
        Self::Short { length: text.len() as u8, bytes }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_index_are_one_cache_line() {
        assert_eq!(size_of::<Row<[u64; 3]>>(), 64);
    }

    #[test]
    fn keys_of_any_length_are_found() {
        let mut table = TextTable::new();
        let keys: Vec<_> = (0..100).map(|length| "x".repeat(length)).collect();
        for key in &keys {
            table.insert_with(key.as_bytes(), || key.len());
            table.insert_with(key.as_bytes(), || 1_000);
        }
        let table = table.shrink();
        assert!(keys.iter().all(|key| table.get(key.as_bytes()) == Some(&key.len())));
        assert_eq!(table.get(b"y"), None);
    }
}
