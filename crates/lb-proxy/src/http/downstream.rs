//! The client's side of an exchange, as forwarding sees it: HTTP/1.1 and HTTP/2 alike.

use std::io;
use std::task::{Context, Poll};

use lb_http1::{Framing, Head};

use super::body::{Sink, Source};
use super::h1::H1;
use super::spool::Spool;
use crate::upstream::failure::Cause;

/// A request whose head was read: its body comes from [`Source`], the answer goes to [`Sink`].
pub(crate) trait Downstream: Source + Sink {
    /// Queues the head of the final answer; `framing` is how its body will be known to end.
    fn respond(&mut self, head: &mut Head, framing: Framing) -> io::Result<()>;

    /// Queues an interim (1xx) answer, flushed at once where the protocol can.
    fn inform(&mut self, head: &Head) -> io::Result<()>;

    /// Ready when the client has gone away.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The connection itself, where an upgrade can take it over.
    fn tunnel(&mut self) -> Option<&mut H1>;

    /// The answer cannot be completed: the client must not take it for whole.
    fn abort(&mut self);

    /// Reads the request's body before anybody else does, where that can be kept: see [`Replay`](super::replay::Replay).
    fn poll_keep(&mut self, _: &mut Context<'_>, _memory: usize, _most: u64) -> Poll<Result<bool, Unkept>> {
        Poll::Ready(Ok(false))
    }

    /// Length of the request's body, if [`rewind`](Self::rewind) brings the whole of it again.
    fn kept(&self) -> Option<u64> {
        None
    }

    /// That body for somebody else.
    fn share(&self) -> Option<Spool> {
        None
    }

    /// Starts what was kept of the request's body over.
    fn rewind(&mut self) {}
}

/// Why a body is not kept.
pub(crate) enum Unkept {
    /// The client broke it off.
    Client(Cause),
    /// It cannot be written to its file, or read from there.
    File(io::Error),
}
