//! The least progress of a client that alone is waited for, be it with sending a body or with taking one.
//!
//! Only that waiting counts: a stream in which the server is silent, or takes its time, may be as quiet as it likes.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_config::static_config::EntryPointLimits;
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::entrypoint::Connection;
use crate::worker::Worker;

/// What an entry point wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Least {
    /// Bytes that must pass in each window; without any, there is no limit.
    bytes: u64,
    window: Duration,
}

impl Least {
    pub(crate) fn new(limits: &EntryPointLimits) -> Self {
        let bytes = u128::from(limits.min_body_rate) * limits.body_rate_window.as_millis() / 1000;
        Self { bytes: u64::try_from(bytes).unwrap_or(u64::MAX).max(1), window: limits.body_rate_window }
    }
}

/// One direction of one exchange.
#[derive(Default)]
pub(crate) struct Pace {
    least: Least,
    /// In this window so far.
    bytes: u64,
    /// From the first wait on; most exchanges have none.
    waits: Option<Box<Waits>>,
}

#[derive(Default)]
struct Waits {
    /// In this window before `since`.
    waited: Duration,
    /// Since when the client is waited for.
    since: Option<Instant>,
    timer: Deadline,
    over: bool,
}

impl Pace {
    pub(crate) fn new(least: Least) -> Self {
        Self { least, ..Self::default() }
    }

    /// The client has sent or taken so much.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether the client was too slow.
    pub(crate) fn is_over(&self) -> bool {
        self.waits.as_ref().is_some_and(|waits| waits.over)
    }

    /// Looks at what the client's side of a connection says: pending is waiting, and [`io::ErrorKind::TimedOut`] once
    /// that is too much.
    pub(crate) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.least.bytes == 0 {
            return polled;
        }
        if polled.is_ready() {
            if let Some(waits) = &mut self.waits
                && let Some(since) = waits.since.take()
            {
                waits.waited += since.elapsed();
            }
            return polled;
        }
        ready!(self.poll_wait(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ready when a window of waiting has passed with too little in it.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.waits.get_or_insert_default();
        if waits.since.is_none() {
            let now = Instant::now();
            waits.since = Some(now);
            waits.timer.set(now, Some(self.least.window.saturating_sub(waits.waited)));
        }
        loop {
            ready!(waits.timer.poll(cx));
            if self.bytes < self.least.bytes {
                waits.over = true;
                return Poll::Ready(());
            }
            let now = Instant::now();
            (self.bytes, waits.waited, waits.since) = (0, Duration::ZERO, Some(now));
            waits.timer.set(now, Some(self.least.window));
        }
    }
}

/// Counts and says that a client was too slow.
pub(crate) fn too_slow(worker: &Worker, connection: &Connection, reason: &'static str) {
    worker.refused(
        connection,
        reason,
        format_args!("client cut off: it is slower than `limits.minBodyRate`"),
    );
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds after which a client is cut off that moves so many bytes in each second, between which it is waited
    /// for as long as `waited` says; 10 bytes a second are wanted over 10 seconds.
    async fn cut_after(bytes: impl Fn(u64) -> usize, waited: Duration) -> Option<u64> {
        let limits = EntryPointLimits {
            connections: None,
            connections_per_client: None,
            min_body_rate: 10,
            body_rate_window: 10 * SECOND,
        };
        let mut pace = Pace::new(Least::new(&limits));
        for second in 0..200 {
            let waiting = poll_fn(|cx| pace.watch::<()>(cx, Poll::Pending));
            if tokio::time::timeout(waited, waiting).await.is_ok() {
                assert!(pace.is_over());
                return Some(second);
            }
            let _ = poll_fn(|cx| pace.watch(cx, Poll::Ready(Ok(())))).await;
            pace.moved(bytes(second));
            tokio::time::sleep(SECOND - waited).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_for_too_little_is_too_slow() {
        let all = Duration::from_millis(999);
        assert_eq!(cut_after(|_| 0, all).await, Some(10));
        assert_eq!(cut_after(|_| 9, all).await, Some(10));
        assert_eq!(cut_after(|_| 11, all).await, None);
        // Whoever was fast and stops has used that up after the window that began meanwhile.
        assert!(cut_after(|second| if second < 10 { 1_000_000 } else { 0 }, all).await <= Some(21));
        // A tenth of the time is the client's.
        let tenth = Duration::from_millis(100);
        assert!(matches!(cut_after(|_| 0, tenth).await, Some(99..=101)));
        assert_eq!(cut_after(|_| 2, tenth).await, None);
    }
}
