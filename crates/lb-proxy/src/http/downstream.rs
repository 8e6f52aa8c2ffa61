//! The client's side of an exchange, as forwarding sees it: HTTP/1.1 and HTTP/2 alike.

use std::io;
use std::task::{Context, Poll};

use lb_http1::{Framing, Head};

use super::body::{Sink, Source};
use super::h1::H1;

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

    /// Whether [`rewind`](Self::rewind) brings the whole of the request's body again.
    fn keeps_body(&self) -> bool {
        false
    }

    /// Starts what was kept of the request's body over.
    fn rewind(&mut self) {}
}
