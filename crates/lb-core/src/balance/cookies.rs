//! Which member a sticky cookie names.

use super::{CookieMatch, Member};
use crate::sticky;

/// All values that lead to a member, sorted.
#[derive(Debug, Default)]
pub(super) struct Cookies(Box<[Entry]>);

#[derive(Debug)]
struct Entry {
    value: Box<str>,
    index: usize,
    found: CookieMatch,
}

impl Cookies {
    pub(super) fn new(members: &[Member]) -> Self {
        let members = members.iter().filter(|member| member.weight > 0);
        Self::of_names(members.map(|member| (member.server.url(), member.first)))
    }

    /// Of what cookies are made of, with the index that it leads to.
    pub(super) fn of_names<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for (name, index) in names {
            let mut add = |value: &str, found| entries.push(Entry { value: value.into(), index, found });
            add(&sticky::cookie_value(name), CookieMatch::Current);
            for value in sticky::legacy_values(name) {
                add(&value, CookieMatch::Legacy);
            }
        }
        // A current value goes before an equal legacy one.
        entries.sort_by(|a, b| {
            let rank = |entry: &Entry| entry.found != CookieMatch::Current;
            a.value.cmp(&b.value).then(rank(a).cmp(&rank(b)))
        });
        entries.dedup_by(|later, earlier| later.value == earlier.value);
        Self(entries.into())
    }

    pub(super) fn find(&self, value: &str) -> Option<(usize, CookieMatch)> {
        let at = self.0.binary_search_by(|entry| (*entry.value).cmp(value)).ok()?;
        Some((self.0[at].index, self.0[at].found))
    }
}
