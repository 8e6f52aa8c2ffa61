//! Requests and tunnels under way on servers, and the end of those whose server a reload has removed.
//!
//! A server is removed when no service of that name lists its URL any more. What is under way there goes on,
//! for the service's `drainTimeout` at most, and a server that comes back in time is removed no longer. A
//! reload that keeps the server touches nothing, however it is reached from then on.
//!
//! Each worker keeps its own list. A request enters it when it waits for its server for the first time, so that
//! it can be woken; what that costs does not show beside the wait.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use lb_config::Config;
use slab::Slab;
use tokio::time::Instant;

use crate::upstream::Endpoint;
use crate::worker::Worker;

#[derive(Default)]
pub(crate) struct Lasting(RefCell<Slab<Entry>>);

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

/// One request's or tunnel's place in the list, from its first wait on.
pub(crate) struct Lease {
    worker: Rc<Worker>,
    slot: Option<usize>,
}

impl Lease {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        Self { worker: Rc::clone(worker), slot: None }
    }

    /// Ready once the server was removed and its drain time is over. To be asked before each wait, always from
    /// the same task: that one is woken.
    pub(crate) fn poll_over(&mut self, cx: &Context<'_>, endpoint: &Arc<Endpoint>) -> Poll<()> {
        let worker = &self.worker;
        let slot = *self.slot.get_or_insert_with(|| worker.lasting.enter(worker, endpoint, cx.waker()));
        let entries = worker.lasting.0.borrow();
        if entries[slot].fate == Fate::Over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.worker.lasting.0.borrow_mut().remove(slot);
        }
    }
}

impl Lasting {
    fn enter(&self, worker: &Worker, endpoint: &Arc<Endpoint>, waker: &Waker) -> usize {
        let mut entry = Entry { endpoint: Arc::clone(endpoint), waker: waker.clone(), fate: Fate::Stays };
        // It began before a reload that has been followed already.
        if endpoint.retired.load(Ordering::Relaxed) {
            let now = Instant::from_std(worker.now());
            entry.follow(None, &worker.snapshot().config, now);
        }
        self.0.borrow_mut().insert(entry)
    }

    /// Takes a reload in: what is under way on servers that are gone has to end some time.
    pub(crate) fn follow(&self, before: &Config, after: &Config, now: Instant) {
        for (_, entry) in &mut *self.0.borrow_mut() {
            // Nearly all of them are where they were.
            if entry.endpoint.retired.load(Ordering::Relaxed) {
                entry.follow(Some(before), after, now);
            }
        }
    }

    /// When [`expire`](Self::expire) has something to do; `None`: not before the next reload.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let ends = |entry: &Entry| if let Fate::EndsAt(at) = entry.fate { at } else { None };
        self.0.borrow().iter().filter_map(|(_, entry)| ends(entry)).min()
    }

    /// Ends what had its time, with one line in the log for each server; returns how much that was.
    pub(crate) fn expire(&self, now: Instant) -> u64 {
        let mut ended: HashMap<u64, (Arc<Endpoint>, u64)> = HashMap::new();
        for (_, entry) in &mut *self.0.borrow_mut() {
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
    fn follow(&mut self, before: Option<&Config>, after: &Config, now: Instant) {
        let Endpoint { service, url, .. } = &*self.endpoint;
        let known = after.services.get(&**service);
        let listed = known.is_some_and(|known| known.servers.iter().any(|server| *server.url == **url));
        match self.fate {
            Fate::Over => {}
            _ if listed => self.fate = Fate::Stays,
            Fate::EndsAt(_) => {}
            Fate::Stays => {
                // What was said last counts, should it have changed since the request began.
                let said = before.and_then(|before| before.services.get(&**service));
                let patience = said.map_or(self.endpoint.drain_timeout, |service| service.drain_timeout);
                self.fate = Fate::EndsAt(patience.and_then(|patience| now.checked_add(patience)));
            }
        }
    }
}
