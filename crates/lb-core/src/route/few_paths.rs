//! Hosts with very few paths: all of them in one place, to be gone through in order.

use super::expand::PathKey;
use super::path_index::{Entry, MAX_HOSTS, Order, Rest, Search};

/// The routes of such hosts, one host after the other: per route order, rest and length of the path, then
/// the path.
#[derive(Debug, Default)]
pub(super) struct FewPaths(Vec<u8>);

/// Chosen: in `benches`, going through so many is as fast as one look-up, and the memory of one route is
/// next to that of the other.
const FEW: usize = 3;

const HEAD: usize = 12;

/// In the length, marks prefixes.
const PREFIX: u32 = 1 << 31;

impl FewPaths {
    /// Takes in the paths of one host, in order of evaluation, if they are few: from where to where they are.
    pub(super) fn add(&mut self, paths: &[(PathKey<'_>, Entry)]) -> Option<(u32, u32)> {
        let from = u32::try_from(self.0.len()).ok().filter(|from| *from < MAX_HOSTS)?;
        if paths.len() > FEW {
            return None;
        }
        for (key, Entry { order, rest }) in paths {
            let (text, mark) = match key {
                PathKey::Exact(text) => (text, 0),
                PathKey::Prefix(text) => (text, PREFIX),
            };
            for word in [*order, rest.0, text.len() as u32 | mark] {
                self.0.extend(word.to_le_bytes());
            }
            self.0.extend(text.as_bytes());
        }
        Some((from, u32::try_from(self.0.len()).ok()?))
    }

    pub(super) fn search<F: Fn(Rest) -> bool>(
        &self,
        (from, to): (u32, u32),
        search: &Search<'_, F>,
        best: Order,
    ) -> Order {
        let mut routes = self.0.get(from as usize..to as usize).unwrap_or_default();
        while let Some((head, tail)) = routes.split_first_chunk::<HEAD>() {
            let (words, _) = head.as_chunks::<4>();
            let [order, rest, length] = [0, 1, 2].map(|index| u32::from_le_bytes(words[index]));
            let Some((text, next)) = tail.split_at_checked((length & !PREFIX) as usize) else { return best };
            let is_prefix = length & PREFIX != 0;
            let matches = if is_prefix { search.path.starts_with(text) } else { search.path == text };
            if order >= best {
                return best;
            }
            if matches && search.takes(Rest(rest)) {
                return order;
            }
            routes = next;
        }
        best
    }
}
