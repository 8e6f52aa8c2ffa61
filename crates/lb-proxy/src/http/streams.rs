//! What the streams of one connection do to it, and which of their requests are served at all: alike in HTTP/2 and
//! HTTP/3.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_config::static_config::EntryPoint;
use lb_http1::{Framing, Head};
use tokio::time::Instant;

use super::downstream::Downstream;
use super::h1_serve::{LINGER, discard};
use super::local::Local;
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::worker::Worker;

/// A head that holds more counts towards [`LARGE_HEADS`]. Chosen; more than is kept for the next request anyway.
pub(super) const LARGE_HEAD: usize = 32 * 1024;
/// What the large heads of a connection's requests may hold together; a single one may hold more. HPACK makes a mebibyte
/// of some hundred bytes, on each stream anew. Chosen.
const LARGE_HEADS: usize = 4 * 1024 * 1024;
/// Once this many streams were opened ...
const EARLY_RESETS_AFTER: u64 = 500;
/// ... at most one in so many may have been reset early (CVE-2023-44487, for streams that we did begin to serve).
const EARLY_RESETS_SHARE: u64 = 2;
/// Whether a request without a length has a body shows at its stream's end, which may come behind its head. As long as Go's
/// client, and so Traefik, waits for it where the method suggests none.
const END_PATIENCE: Duration = Duration::from_millis(200);
/// A stream that the client resets this soon was opened in vain. With the next two, as Envoy has them.
pub(super) const EARLY: Duration = Duration::from_secs(1);

/// The streams of one connection.
pub(super) struct Tally {
    open: Cell<usize>,
    opened: Cell<u64>,
    reset_early: Cell<u64>,
    /// Those whose client did not take their answer.
    stalled: Cell<u64>,
    /// Bytes that the large heads of open streams hold.
    large_heads: Cell<usize>,
    /// What a connection with too many early resets, and one with too many stalled answers, is called.
    labels: [&'static str; 2],
}

impl Tally {
    pub(super) fn new(labels: [&'static str; 2]) -> Self {
        Self {
            open: Cell::new(0),
            opened: Cell::new(0),
            reset_early: Cell::new(0),
            stalled: Cell::new(0),
            large_heads: Cell::new(0),
            labels,
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// A client does not take its answer.
    pub(super) fn stalled(&self) {
        self.stalled.set(self.stalled.get() + 1);
    }

    /// What the connection is to be ended for, as metrics and logs call it.
    pub(super) fn abuse(&self) -> Option<&'static str> {
        let opened = self.opened.get();
        if opened >= EARLY_RESETS_AFTER && self.reset_early.get() > opened / EARLY_RESETS_SHARE {
            return Some(self.labels[0]);
        }
        // One paused download among many requests is none.
        (self.stalled.get() > opened / 2).then_some(self.labels[1])
    }

    /// Counts a head as long as its stream is open; `None` if it is one too many.
    pub(super) fn hold(&self, head_bytes: usize) -> Option<LargeHead<'_>> {
        let bytes = if head_bytes > LARGE_HEAD { head_bytes } else { 0 };
        let others = self.large_heads.get();
        if bytes > 0 && others > 0 && others + bytes > LARGE_HEADS {
            return None;
        }
        self.large_heads.set(others + bytes);
        Some(LargeHead { tally: self, bytes })
    }
}

/// One stream that is being served.
pub(super) struct Open(Rc<Tally>);

impl Open {
    pub(super) fn new(tally: &Rc<Tally>) -> Self {
        tally.open.set(tally.open.get() + 1);
        tally.opened.set(tally.opened.get() + 1);
        Self(Rc::clone(tally))
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.0
    }

    pub(super) fn close(self, reset_early: bool) {
        self.0.reset_early.set(self.0.reset_early.get() + u64::from(reset_early));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A head that counts towards [`LARGE_HEADS`], or is too small to.
pub(super) struct LargeHead<'a> {
    tally: &'a Tally,
    bytes: usize,
}

impl Drop for LargeHead<'_> {
    fn drop(&mut self) {
        self.tally.large_heads.set(self.tally.large_heads.get() - self.bytes);
    }
}

/// Whether a connection that was opened then, with so many requests, is to take no more: `keepAliveMaxRequests` and
/// `keepAliveMaxTime`.
pub(super) fn is_worn(config: &EntryPoint, requests: u64, opened: Instant) -> bool {
    config.keep_alive_max_requests.is_some_and(|most| requests >= most)
        || config.keep_alive_max_time.is_some_and(|most| opened.elapsed() > most)
}

/// Whether a stream that goes on behind its head ends without a body; `poll` says what comes next.
pub(super) async fn has_no_body(head: &Head, mut poll: impl FnMut(&mut Context<'_>) -> Poll<bool>) -> bool {
    let mut ended = poll_fn(|cx| Poll::Ready(poll(cx))).await;
    if ended.is_pending()
        && !head.contains("content-length")
        && matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "DELETE" | "TRACE")
    {
        // Boxed: rare, and others need not make room for it.
        let seen = Box::pin(tokio::time::timeout(END_PATIENCE, poll_fn(poll))).await;
        ended = seen.map_or(Poll::Pending, Poll::Ready);
    }
    ended == Poll::Ready(true)
}

/// How the body is known to end. Who reads it checks that DATA agrees with a content-length (RFC 9113 section 8.1.1,
/// RFC 9114 section 4.1.2).
pub(super) fn framing(head: &mut Head, ends: bool) -> Result<Framing, &'static str> {
    match lb_http1::request_framing(head).map_err(|_| "content_length")? {
        Framing::Length(1..) if ends => Err("content_length"),
        _ if ends => Ok(Framing::Empty),
        Framing::Empty => Ok(Framing::Chunked),
        framing => Ok(framing),
    }
}

/// Whether a request is served, with its framing; else the status and the reason of the refusal.
pub(super) fn admit(
    head: &Head,
    framing: Result<Framing, &'static str>,
) -> Result<Framing, (u16, &'static str)> {
    if head.len() > super::MAX_REQUEST_FIELDS {
        let error = lb_http1::HeadError::TooManyFields;
        return Err((error.status(), error.label()));
    }
    let framing = framing.map_err(|reason| (400, reason))?;
    lb_http1::validate_request(head).map_err(|error| (error.status(), error.label()))?;
    Ok(framing)
}

/// Answers a request that is not served; returns whether the answer has left.
pub(super) async fn refuse<D: Downstream>(
    worker: &Worker,
    connection: &Connection,
    x: &mut Exchange,
    client: &mut D,
    (status, reason): (u16, &'static str),
) -> bool {
    worker.refused(connection, reason, format_args!("request refused: {status}"));
    Local::bare(status).write_head(&mut x.response);
    let answered = client.respond(&mut x.response, Framing::Empty);
    answered.is_ok() && poll_fn(|cx| client.poll_flush(cx)).await.is_ok()
}

/// Lets a client that still sends see the answer and stop by itself. One that reads both in one breath, the answer and
/// that it is to stop, may take the answer for lost: curl 7.88 does.
pub(super) async fn linger<D: Downstream>(client: &mut D) {
    let end = async {
        if !discard(client).await {
            poll_fn(|cx| client.poll_gone(cx)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a connection is abusive after so many streams, of which so many were reset early.
    fn abusive(streams: u64, reset: u64) -> bool {
        let tally = Rc::new(Tally::new(["reset", "stalled"]));
        (0..streams).for_each(|stream| Open::new(&tally).close(stream < reset));
        assert_eq!(tally.open.get(), 0);
        tally.abuse().is_some()
    }

    #[test]
    fn large_heads_share_one_allowance() {
        let tally = Tally::new(["reset", "stalled"]);
        let small: Vec<_> = (0..1000).map(|_| tally.hold(LARGE_HEAD)).collect();
        let alone = tally.hold(10 * LARGE_HEADS);
        assert!(small.iter().all(Option::is_some) && alone.is_some());
        assert!(tally.hold(LARGE_HEAD + 1).is_none() && tally.hold(LARGE_HEAD).is_some());
        drop(alone);
        let large: Vec<_> = (0..6).map(|_| tally.hold(1 << 20)).collect();
        assert_eq!(large.iter().flatten().count(), 4);
        drop(large);
        assert_eq!(tally.large_heads.get(), 0);
    }

    #[test]
    fn streams_reset_early_are_abuse_when_they_are_many_and_most() {
        assert!(!abusive(499, 499));
        assert!(abusive(500, 251));
        assert!(!abusive(500, 250));
        assert!(!abusive(10_000, 5_000));
    }
}
