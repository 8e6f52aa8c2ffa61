//! Interned label values: requests carry small ids, only a scrape looks at the text.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

/// What a label names. The same text under two kinds is two labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    EntryPoint,
    Router,
    Service,
    /// A server, by its URL.
    Server,
    Middleware,
    /// TLS version and cipher; made by [`super::Metrics::tls`].
    Tls,
    /// An entry point once more, for its connections over QUIC.
    Http3,
    /// Values of request headers, a line for each; made by [`super::Metrics::headers`].
    Headers,
}

const KINDS: usize = 8;

impl Kind {
    /// Never renamed by a reload and few, so never forgotten.
    fn is_permanent(self) -> bool {
        matches!(self, Self::EntryPoint | Self::Tls | Self::Http3 | Self::Headers)
    }
}

/// Who reads the metrics: a name that the configuration has no more is kept until each of them has seen it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader(u32);

impl Reader {
    /// Whoever scrapes.
    pub(super) const SCRAPE: Self = Self(1);
    pub(super) const NOBODY: Self = Self(0);
}

/// Names that are kept for readers at most: those of reloads that follow each other faster than readers come round. Chosen.
const MOST_DYING: usize = 10_000;

/// An interned label value. Ids are never reused, so one held by an old snapshot stays harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelId(NonZeroU32);

impl LabelId {
    pub(super) fn bits(id: Option<Self>) -> u64 {
        id.map_or(0, |id| u64::from(id.0.get()))
    }
}

#[derive(Debug, Default)]
pub(super) struct Labels(RwLock<Interner>);

#[derive(Debug, Default)]
struct Interner {
    ids: [FxHashMap<Arc<str>, LabelId>; KINDS],
    texts: FxHashMap<LabelId, (Kind, Arc<str>)>,
    /// See [`Labels::via`]. One for each inner service is of nobody: what is left of those whose outer service is gone.
    vias: FxHashMap<(Option<LabelId>, LabelId), LabelId>,
    /// Unused by the newest configuration, with the [readers](Reader) that are to see them once more.
    dying: FxHashMap<LabelId, u32>,
    /// Those beside [`Reader::SCRAPE`].
    more_readers: u32,
    issued: u32,
}

impl Labels {
    pub(super) fn intern(&self, kind: Kind, text: &str) -> LabelId {
        {
            let interner = self.0.read();
            if let Some(&id) = interner.ids[kind as usize].get(text)
                && !interner.dying.contains_key(&id)
            {
                return id;
            }
        }
        let mut interner = self.0.write();
        if let Some(&id) = interner.ids[kind as usize].get(text) {
            interner.dying.remove(&id);
            return id;
        }
        let id = interner.issue();
        let text: Arc<str> = text.into();
        interner.ids[kind as usize].insert(Arc::clone(&text), id);
        interner.texts.insert(id, (kind, text));
        id
    }

    /// As [`intern`](Self::intern), or `beyond` for a text that is new when there are `most` of its kind.
    pub(super) fn intern_few(&self, kind: Kind, text: &str, most: usize, beyond: &str) -> LabelId {
        let is_full = {
            let interner = self.0.read();
            let known = &interner.ids[kind as usize];
            known.len() >= most && !known.contains_key(text)
        };
        self.intern(kind, if is_full { beyond } else { text })
    }

    /// The service `inner` as a part of the service `outer`: what is counted under it counts for `outer` where the
    /// service of a router is named, and for `inner` where services are. Lives as long as both.
    pub(super) fn via(&self, outer: LabelId, inner: LabelId) -> LabelId {
        let mut interner = self.0.write();
        interner.via(None, inner);
        interner.via(Some(outer), inner)
    }

    /// One more reader.
    pub(super) fn reader(&self) -> Reader {
        let mut interner = self.0.write();
        // With more than fit some are one.
        let bit = (interner.more_readers | Reader::SCRAPE.0).wrapping_add(1).max(1);
        interner.more_readers |= bit;
        Reader(bit)
    }

    /// Marks what `live` does not name as dying, and forgets what was dying before and nobody waits for; whether that was
    /// anything. Those who push come round by themselves, but nobody may ever scrape.
    pub(super) fn retain(&self, live: &HashSet<LabelId>) -> bool {
        let mut interner = self.0.write();
        let Interner { ids, texts, dying, vias, more_readers, .. } = &mut *interner;
        // Not those of names that are forgotten now: counts have yet to go elsewhere.
        vias.retain(|(outer, inner), _| {
            texts.contains_key(inner) && outer.is_none_or(|outer| texts.contains_key(&outer))
        });
        let before = texts.len();
        dying.retain(|id, _| !live.contains(id));
        let too_many = dying.len() > MOST_DYING;
        dying.retain(|id, awaited_by| {
            *awaited_by &= !Reader::SCRAPE.0;
            let stays = *awaited_by != 0 && !too_many;
            if !stays && let Some((kind, text)) = texts.remove(id) {
                ids[kind as usize].remove(&text);
            }
            stays
        });
        for (id, (kind, _)) in texts.iter() {
            if !kind.is_permanent() && !live.contains(id) {
                dying.entry(*id).or_insert(*more_readers | Reader::SCRAPE.0);
            }
        }
        texts.len() < before
    }

    /// The labels of this moment as `reader` is to see them, so that it holds no lock while it writes.
    pub(super) fn snapshot(&self, reader: Reader) -> Snapshot {
        let interner = self.0.read();
        let vias = interner.vias.iter().map(|(parts, id)| (*id, *parts)).collect();
        let orphans = interner.vias.iter().filter(|((outer, _), _)| outer.is_none());
        let orphans = orphans.map(|((_, inner), id)| (*inner, *id)).collect();
        let (texts, dying) = (interner.texts.clone(), interner.dying.clone());
        Snapshot { reader, texts, dying, vias, orphans }
    }

    /// The reader of `snapshot` has seen it.
    pub(super) fn seen(&self, snapshot: &Snapshot) {
        if snapshot.dying.is_empty() {
            return;
        }
        let mut interner = self.0.write();
        for id in snapshot.dying.keys() {
            if let Some(awaited_by) = interner.dying.get_mut(id) {
                *awaited_by &= !snapshot.reader.0;
            }
        }
    }
}

impl Interner {
    fn via(&mut self, outer: Option<LabelId>, inner: LabelId) -> LabelId {
        if let Some(&id) = self.vias.get(&(outer, inner)) {
            return id;
        }
        let id = self.issue();
        self.vias.insert((outer, inner), id);
        id
    }

    fn issue(&mut self) -> LabelId {
        self.issued = self.issued.saturating_add(1);
        LabelId(NonZeroU32::new(self.issued).unwrap_or(NonZeroU32::MAX))
    }
}

#[derive(Debug)]
pub(super) struct Snapshot {
    reader: Reader,
    texts: FxHashMap<LabelId, (Kind, Arc<str>)>,
    dying: FxHashMap<LabelId, u32>,
    vias: FxHashMap<LabelId, (Option<LabelId>, LabelId)>,
    /// By inner service.
    orphans: FxHashMap<LabelId, LabelId>,
}

impl Snapshot {
    /// The service that a router led to; `None`: it is no more.
    pub(super) fn asked(&self, service: LabelId) -> Option<LabelId> {
        self.vias.get(&service).map_or(Some(service), |(outer, _)| *outer)
    }

    /// The service whose servers were asked.
    pub(super) fn answering(&self, service: LabelId) -> LabelId {
        self.vias.get(&service).map_or(service, |(_, inner)| *inner)
    }

    /// `None`: it is no more, and the reader has seen that.
    pub(super) fn text(&self, id: LabelId) -> Option<&str> {
        let seen = self.dying.get(&id).is_some_and(|awaited_by| awaited_by & self.reader.0 == 0);
        self.texts.get(&id).filter(|_| !seen).map(|(_, text)| &**text)
    }

    /// The same, but for as long as it is known where something still goes on under it.
    pub(super) fn text_while(&self, goes_on: bool, id: LabelId) -> Option<&str> {
        self.text(id).or_else(|| self.texts.get(&id).filter(|_| goes_on).map(|(_, text)| &**text))
    }

    pub(super) fn kind(&self, id: LabelId) -> Option<Kind> {
        self.texts.get(&id).map(|(kind, _)| *kind)
    }

    /// Whether the configuration no longer names it and no other reader waits for it: this was the last time that its
    /// series are shown.
    pub(super) fn is_dead(&self, id: LabelId) -> bool {
        let waits_nobody_else = |awaited_by: &u32| awaited_by & !self.reader.0 == 0;
        !self.texts.contains_key(&id) || self.dying.get(&id).is_some_and(waits_nobody_else)
    }

    /// What requests that were counted under this label are counted under from now on; `None`: under nothing.
    pub(super) fn heir(&self, id: LabelId) -> Option<LabelId> {
        match self.vias.get(&id) {
            Some((_, inner)) if self.is_dead(*inner) => None,
            Some((Some(outer), inner)) if self.is_dead(*outer) => self.orphans.get(inner).copied(),
            Some(_) => Some(id),
            None => (!self.is_dead(id)).then_some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_its_kind_and_its_text() {
        let labels = Labels::default();
        let router = labels.intern(Kind::Router, "app@file");
        assert_eq!(labels.intern(Kind::Router, "app@file"), router);
        assert_ne!(labels.intern(Kind::Service, "app@file"), router);
        assert_eq!(labels.snapshot(Reader::SCRAPE).text(router), Some("app@file"));
    }

    #[test]
    fn a_part_of_a_service_outlives_the_whole() {
        let labels = Labels::default();
        let [outer, inner] = ["all@file", "one@file"].map(|name| labels.intern(Kind::Service, name));
        let via = labels.via(outer, inner);
        assert_eq!(labels.via(outer, inner), via);
        let snapshot = labels.snapshot(Reader::SCRAPE);
        assert_eq!((snapshot.asked(via), snapshot.answering(via)), (Some(outer), inner));
        assert_eq!(snapshot.heir(via), Some(via));
        labels.retain(&HashSet::from([inner]));
        let snapshot = labels.snapshot(Reader::SCRAPE);
        let orphan = snapshot.heir(via).unwrap();
        assert_eq!((snapshot.asked(via), snapshot.asked(orphan)), (Some(outer), None));
        assert_eq!((snapshot.answering(orphan), snapshot.heir(orphan)), (inner, Some(orphan)));
        labels.retain(&HashSet::new());
        let snapshot = labels.snapshot(Reader::SCRAPE);
        assert_eq!([via, orphan, outer, inner].map(|id| snapshot.heir(id)), [None; 4]);
        while labels.retain(&HashSet::new()) {}
        labels.retain(&HashSet::new());
        assert!(labels.0.read().vias.is_empty());
    }

    #[test]
    fn a_label_is_forgotten_by_the_second_configuration_without_it() {
        let labels = Labels::default();
        let [gone, back] = ["gone@file", "back@file"].map(|name| labels.intern(Kind::Router, name));
        let entry_point = labels.intern(Kind::EntryPoint, "web");
        labels.retain(&HashSet::new());
        let snapshot = labels.snapshot(Reader::SCRAPE);
        assert!(snapshot.text(gone).is_some(), "shown once more");
        assert!(snapshot.is_dead(gone) && !snapshot.is_dead(entry_point));
        assert_eq!(labels.intern(Kind::Router, "back@file"), back, "a rebuild revives it");
        labels.retain(&HashSet::from([back]));
        assert_eq!(
            [gone, back, entry_point].map(|id| labels.snapshot(Reader::SCRAPE).text(id).is_some()),
            [false, true, true]
        );
    }
}
