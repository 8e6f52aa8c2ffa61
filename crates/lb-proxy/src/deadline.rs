//! One lazily re-armed timer.
//!
//! Moving the deadline is a store; the timer wheel is touched only when the timer fires or when
//! the deadline comes nearer than it is armed for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// `None` waits forever.
    pub(crate) fn set(&mut self, now: Instant, after: Option<Duration>) {
        self.at = after.and_then(|after| now.checked_add(after));
    }

    /// The same, for a moment that is known already.
    pub(crate) fn set_at(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// Ready once the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            std::task::ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
