//! Requests and tunnels under way on servers, and the end of those whose server a reload has removed.
//!
//! A server is removed when no service of that name lists its URL any more. What is under way there goes on,
//! for the service's `drainTimeout` at most, and a server that comes back in time is removed no longer. A
//! reload that keeps the server touches nothing, however it is reached from then on.
//!
//! Each worker keeps its own list. Who is in it is woken when its time is over. A request over HTTP/1.1 enters it only
//! once its server was removed: until then a note at its connection says for whom it waits, which costs nothing
//! beside the wait.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lb_config::Config;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::upstream::Endpoint;
use crate::worker::{Slot, Worker};

#[derive(Default)]
pub(crate) struct Lasting {
    entries: RefCell<Slab<Entry>>,
    joined: Notify,
}

struct Entry {
    endpoint: Arc<Endpoint>,
    waker: Waker,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// The server was removed; `None`: what is under way may take as long as it wants.
    EndsAt(Option<Instant>),
    Over,
}

/// One request's or tunnel's place in the list, or what stands for it.
pub(crate) struct Lease {
    worker: Rc<Worker>,
    place: Place,
}

enum Place {
    /// Nothing wakes it yet.
    None,
    /// Woken with the connection of this slot.
    Connection(Slot),
    Listed(usize),
}

impl Lease {
    /// `slot`: of the connection, where its task is the one that will wait.
    pub(crate) fn new(worker: &Rc<Worker>, slot: Option<Slot>) -> Self {
        Self { worker: Rc::clone(worker), place: slot.map_or(Place::None, Place::Connection) }
    }

    /// Ready once the server was removed and its drain time is over. To be asked before each wait, always from
    /// the same task: that one is woken.
    pub(crate) fn poll_over(&mut self, cx: &Context<'_>, endpoint: &Arc<Endpoint>) -> Poll<()> {
        let worker = &self.worker;
        let slot = match self.place {
            Place::Connection(slot) if !endpoint.is_retired() => {
                worker.waits_for(slot, endpoint.id);
                return Poll::Pending;
            }
            Place::Listed(slot) => slot,
            Place::None | Place::Connection(_) => {
                let slot = worker.lasting.enter(worker, endpoint, cx.waker());
                self.leave();
                self.place = Place::Listed(slot);
                slot
            }
        };
        let entries = self.worker.lasting.entries.borrow();
        if entries[slot].fate == Fate::Over { Poll::Ready(()) } else { Poll::Pending }
    }

    fn leave(&self) {
        match self.place {
            Place::None => {}
            Place::Connection(slot) => self.worker.waits_for(slot, 0),
            Place::Listed(slot) => drop(self.worker.lasting.entries.borrow_mut().remove(slot)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Lasting {
    fn enter(&self, worker: &Worker, endpoint: &Arc<Endpoint>, waker: &Waker) -> usize {
        let mut entry = Entry { endpoint: Arc::clone(endpoint), waker: waker.clone(), fate: Fate::Stays };
        if endpoint.is_retired() {
            entry.follow(&worker.snapshot().config, Instant::from_std(worker.now()));
            self.joined.notify_one();
        }
        self.entries.borrow_mut().insert(entry)
    }

    /// Takes a reload in: what is under way on servers that are gone has to end some time.
    pub(crate) fn follow(&self, after: &Config, now: Instant) {
        self.entries.borrow_mut().iter_mut().for_each(|(_, entry)| entry.follow(after, now));
    }

    /// Somebody has come whose server was removed before.
    pub(crate) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// When [`expire`](Self::expire) has something to do; `None`: not before the next reload, or who joins.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let ends = |entry: &Entry| if let Fate::EndsAt(at) = entry.fate { at } else { None };
        self.entries.borrow().iter().filter_map(|(_, entry)| ends(entry)).min()
    }

    /// Ends what had its time, with one line in the log for each server; returns how much that was.
    pub(crate) fn expire(&self, now: Instant) -> u64 {
        let mut ended: HashMap<u64, (Arc<Endpoint>, u64)> = HashMap::new();
        for (_, entry) in &mut *self.entries.borrow_mut() {
            if matches!(entry.fate, Fate::EndsAt(Some(at)) if at <= now) {
                entry.fate = Fate::Over;
                entry.waker.wake_by_ref();
                let of_server = ended.entry(entry.endpoint.id);
                of_server.or_insert_with(|| (Arc::clone(&entry.endpoint), 0)).1 += 1;
            }
        }
        for (endpoint, count) in ended.values() {
            tracing::warn!(serviceName = %endpoint.service, url = %endpoint.url, ended = count,
                "drainTimeout of a removed server is over, ending what is left there");
        }
        ended.values().map(|(_, count)| count).sum()
    }
}

impl Entry {
    fn follow(&mut self, after: &Config, now: Instant) {
        let Endpoint { service, url, retired, .. } = &*self.endpoint;
        // Nearly all of them are where they were.
        let Some(patience) = retired.get() else { return };
        let known = after.services.get(&**service);
        let listed = known.is_some_and(|known| known.servers.iter().any(|server| *server.url == **url));
        match self.fate {
            Fate::Over => {}
            _ if listed => self.fate = Fate::Stays,
            Fate::EndsAt(_) => {}
            Fate::Stays => self.fate = Fate::EndsAt(patience.and_then(|patience| now.checked_add(patience))),
        }
    }
}
