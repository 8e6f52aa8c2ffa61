//! A bounded table of buckets that forgets the one unused for longest.

use std::collections::HashMap;
use std::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Negative while reservations are pending.
    pub(super) tokens: f64,
    /// When there were that many.
    pub(super) at: Instant,
}

/// Buckets by hash of their source, in a list from the most to the least recently used.
#[derive(Debug)]
pub(super) struct Buckets {
    slots: Vec<Slot>,
    by_hash: HashMap<u64, u32, rustc_hash::FxBuildHasher>,
    newest: u32,
    oldest: u32,
    capacity: usize,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    bucket: Bucket,
    newer: u32,
    older: u32,
}

const NONE: u32 = u32::MAX;

impl Buckets {
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), by_hash: HashMap::default(), newest: NONE, oldest: NONE, capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The bucket of a source, which becomes the most recently used; `fresh` if it has none yet. A new
    /// one takes the place of the oldest if that is `full`, and so worth nothing, or if there is no room.
    pub(super) fn touch(&mut self, hash: u64, fresh: Bucket, full: impl Fn(&Bucket) -> bool) -> &mut Bucket {
        let index = match self.by_hash.get(&hash) {
            Some(&index) => {
                if index != self.newest {
                    self.unlink(index);
                    self.link_newest(index);
                }
                index
            }
            None => {
                let index = self.vacate(full);
                let slot = Slot { hash, bucket: fresh, newer: NONE, older: NONE };
                match self.slots.get_mut(index as usize) {
                    Some(reused) => *reused = slot,
                    None => self.slots.push(slot),
                }
                self.by_hash.insert(hash, index);
                self.link_newest(index);
                index
            }
        };
        &mut self.slots[index as usize].bucket
    }

    /// A place for a new slot: that of the oldest, or one at the end.
    fn vacate(&mut self, full: impl Fn(&Bucket) -> bool) -> u32 {
        let reusable = |oldest: &Slot| self.slots.len() >= self.capacity || full(&oldest.bucket);
        match self.slots.get(self.oldest as usize) {
            Some(oldest) if reusable(oldest) => {
                self.by_hash.remove(&oldest.hash);
                let index = self.oldest;
                self.unlink(index);
                index
            }
            _ => self.slots.len() as u32,
        }
    }

    fn unlink(&mut self, index: u32) {
        let Slot { newer, older, .. } = self.slots[index as usize];
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, index: u32) {
        let older = std::mem::replace(&mut self.newest, index);
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = index,
            None => self.oldest = index,
        }
        let slot = &mut self.slots[index as usize];
        (slot.newer, slot.older) = (NONE, older);
    }
}
