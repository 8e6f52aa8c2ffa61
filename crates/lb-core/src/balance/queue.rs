//! Where requests wait while every server that may serve them is full.
//!
//! First come, first served, over all workers: a slot that becomes free wakes who has waited longest, and who
//! arrives while others wait joins behind them. A waiter takes no slot by being woken: it picks as everybody
//! does, so the servers' limits hold whatever happens here. Leaving, by success or not, wakes the next one,
//! so no free slot is ever forgotten.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::server::Lineage;

/// The waiting requests of one service.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Copy of the number of waiters, to be read without the lock.
    len: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// In the order of their ids.
    list: VecDeque<Waiter>,
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    /// A retry, which not every server can serve: those behind it need not wait for its turn.
    is_retry: bool,
    waker: Option<Waker>,
}

/// A place in the queue; dropping it gives it up.
#[derive(Debug)]
#[must_use = "dropping it leaves the queue"]
pub struct Ticket {
    lineage: Arc<Lineage>,
    id: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// A slot may be free, or a server back: to be called after the change, which was `SeqCst`.
    pub(super) fn wake(&self) {
        // Whoever joins counts itself before it looks for a slot, see `Ticket::poll_turn`.
        if self.len() > 0 {
            self.waiters.lock().wake();
        }
    }
}

impl Waiters {
    /// Wakes all who may have their turn.
    fn wake(&self) {
        for waiter in &self.list {
            if let Some(waker) = &waiter.waker {
                waker.wake_by_ref();
            }
            if !waiter.is_retry {
                break;
            }
        }
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.list.binary_search_by_key(&id, |waiter| waiter.id).ok()
    }
}

impl Ticket {
    /// `None`: there are `most` waiting already.
    pub(super) fn take(lineage: &Arc<Lineage>, most: usize, is_retry: bool) -> Option<Self> {
        let queue = lineage.queue();
        let mut waiters = queue.waiters.lock();
        if waiters.list.len() >= most {
            return None;
        }
        let id = waiters.next_id;
        waiters.next_id += 1;
        waiters.list.push_back(Waiter { id, is_retry, waker: None });
        queue.len.store(waiters.list.len(), Ordering::SeqCst);
        Some(Self { lineage: Arc::clone(lineage), id })
    }

    /// Ready when it is this one's turn to pick. When the pick brings nothing the task will be woken for
    /// the next try, as after `Pending`.
    pub fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut waiters = self.lineage.queue().waiters.lock();
        let Some(position) = waiters.position(self.id) else { return Poll::Ready(()) };
        let all_retries = waiters.list.range(..position).all(|waiter| waiter.is_retry);
        let waiter = &mut waiters.list[position];
        match &mut waiter.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        drop(waiters);
        // Either the pick that follows sees the slot that somebody frees, or that one sees the waiter.
        fence(Ordering::SeqCst);
        if all_retries { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let queue = self.lineage.queue();
        let mut waiters = queue.waiters.lock();
        if let Some(position) = waiters.position(self.id) {
            waiters.list.remove(position);
        }
        queue.len.store(waiters.list.len(), Ordering::SeqCst);
        waiters.wake();
    }
}
