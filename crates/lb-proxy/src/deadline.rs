//! One lazily re-armed timer.
//!
//! Moving the deadline is a store; the timer wheel is touched only when the timer fires or when
//! the deadline comes nearer than it is armed for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop;
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

    /// Ready once the deadline has passed. To be asked from the same task always: that one is woken.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        match &mut self.sleep {
            // It knows the task since it was armed; to tell it again takes four locked instructions.
            Some(sleep) if sleep.deadline() <= at && !sleep.is_elapsed() => return Poll::Pending,
            Some(sleep) if sleep.deadline() > at => sleep.as_mut().reset(at),
            _ => {}
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        loop {
            if !coop::has_budget_remaining() {
                // It would not look at who asks.
                self.sleep = None;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            std::task::ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_on_fires_when_it_should() {
        let began = Instant::now();
        let mut deadline = Deadline::default();
        for _ in 0..10 {
            deadline.set(Instant::now(), Some(3 * SECOND));
            let waited = tokio::time::timeout(SECOND, poll_fn(|cx| deadline.poll(cx))).await;
            assert!(waited.is_err());
        }
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 12);
        // Nearer than it is armed for.
        deadline.set(Instant::now(), Some(60 * SECOND));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await.is_pending());
        deadline.set(Instant::now(), Some(SECOND));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_used_up_its_turn_is_woken_all_the_same() {
        let began = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(Instant::now(), Some(SECOND));
        let mut turns = 0;
        let fired = poll_fn(|cx| {
            turns += 1;
            if turns == 1 {
                // Takes all that tokio allows a task before others have their turn.
                while let Poll::Ready(turn) = coop::poll_proceed(cx) {
                    turn.made_progress();
                }
            }
            deadline.poll(cx)
        });
        tokio::time::timeout(60 * SECOND, fired).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 1);
        assert!(turns > 1);
    }
}
