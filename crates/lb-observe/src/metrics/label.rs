//! Interned label values: requests carry small ids, only a scrape looks at the text.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

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
    /// See [`Labels::via`].
    vias: FxHashMap<(LabelId, LabelId), LabelId>,
    /// Unused by the newest configuration; forgotten by the next one unless looked up meanwhile.
    dying: FxHashSet<LabelId>,
    issued: u32,
}

impl Labels {
    pub(super) fn intern(&self, kind: Kind, text: &str) -> LabelId {
        {
            let interner = self.0.read();
            if let Some(&id) = interner.ids[kind as usize].get(text)
                && !interner.dying.contains(&id)
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
    /// service of a router is named, and for `inner` where services are. Lives as long as `inner`.
    pub(super) fn via(&self, outer: LabelId, inner: LabelId) -> LabelId {
        let mut interner = self.0.write();
        if let Some(&id) = interner.vias.get(&(outer, inner)) {
            return id;
        }
        let id = interner.issue();
        interner.vias.insert((outer, inner), id);
        id
    }

    /// Marks what `live` does not name as dying and forgets what was dying before; whether that was anything.
    pub(super) fn retain(&self, live: &HashSet<LabelId>) -> bool {
        let mut interner = self.0.write();
        let Interner { ids, texts, dying, vias, .. } = &mut *interner;
        let before = texts.len();
        for id in dying.drain().filter(|id| !live.contains(id)) {
            if let Some((kind, text)) = texts.remove(&id) {
                ids[kind as usize].remove(&text);
            }
        }
        let forgot = texts.len() < before;
        vias.retain(|(_, inner), _| texts.contains_key(inner));
        dying.extend(
            texts
                .iter()
                .filter(|(id, (kind, _))| !kind.is_permanent() && !live.contains(id))
                .map(|(id, _)| *id),
        );
        forgot
    }

    /// The labels of this moment, so that a scrape holds no lock while it writes.
    pub(super) fn snapshot(&self) -> Snapshot {
        let interner = self.0.read();
        let vias = interner.vias.iter().map(|(parts, id)| (*id, *parts)).collect();
        Snapshot { texts: interner.texts.clone(), dying: interner.dying.clone(), vias }
    }
}

impl Interner {
    fn issue(&mut self) -> LabelId {
        self.issued = self.issued.saturating_add(1);
        LabelId(NonZeroU32::new(self.issued).unwrap_or(NonZeroU32::MAX))
    }
}

#[derive(Debug)]
pub(super) struct Snapshot {
    texts: FxHashMap<LabelId, (Kind, Arc<str>)>,
    dying: FxHashSet<LabelId>,
    vias: FxHashMap<LabelId, (LabelId, LabelId)>,
}

impl Snapshot {
    /// The service that a router led to.
    pub(super) fn asked(&self, service: LabelId) -> LabelId {
        self.vias.get(&service).map_or(service, |(outer, _)| *outer)
    }

    /// The service whose servers were asked.
    pub(super) fn answering(&self, service: LabelId) -> LabelId {
        self.vias.get(&service).map_or(service, |(_, inner)| *inner)
    }

    pub(super) fn text(&self, id: LabelId) -> Option<&str> {
        self.texts.get(&id).map(|(_, text)| &**text)
    }

    pub(super) fn kind(&self, id: LabelId) -> Option<Kind> {
        self.texts.get(&id).map(|(kind, _)| *kind)
    }

    /// Whether the configuration no longer names it: its series are shown this time and not again.
    pub(super) fn is_dead(&self, id: LabelId) -> bool {
        self.dying.contains(&self.answering(id)) || self.is_forgotten(id)
    }

    /// Whether nothing is left to show it by.
    pub(super) fn is_forgotten(&self, id: LabelId) -> bool {
        !self.texts.contains_key(&self.answering(id))
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
        assert_eq!(labels.snapshot().text(router), Some("app@file"));
    }

    #[test]
    fn a_part_of_a_service_lives_as_long_as_it_is_one_itself() {
        let labels = Labels::default();
        let [outer, inner] = ["all@file", "one@file"].map(|name| labels.intern(Kind::Service, name));
        let via = labels.via(outer, inner);
        assert_eq!(labels.via(outer, inner), via);
        labels.retain(&HashSet::from([inner]));
        let snapshot = labels.snapshot();
        assert_eq!((snapshot.asked(via), snapshot.answering(via)), (outer, inner));
        assert!(snapshot.is_dead(outer) && !snapshot.is_dead(via));
        labels.retain(&HashSet::new());
        assert!(labels.snapshot().is_dead(via));
        labels.retain(&HashSet::new());
        assert_ne!(labels.via(outer, inner), via, "forgotten");
    }

    #[test]
    fn a_label_is_forgotten_by_the_second_configuration_without_it() {
        let labels = Labels::default();
        let [gone, back] = ["gone@file", "back@file"].map(|name| labels.intern(Kind::Router, name));
        let entry_point = labels.intern(Kind::EntryPoint, "web");
        labels.retain(&HashSet::new());
        let snapshot = labels.snapshot();
        assert!(snapshot.text(gone).is_some(), "shown once more");
        assert!(snapshot.is_dead(gone) && !snapshot.is_dead(entry_point));
        assert_eq!(labels.intern(Kind::Router, "back@file"), back, "a rebuild revives it");
        labels.retain(&HashSet::from([back]));
        assert_eq!(
            [gone, back, entry_point].map(|id| labels.snapshot().text(id).is_some()),
            [false, true, true]
        );
    }
}
