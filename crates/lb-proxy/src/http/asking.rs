//! The client of a request that Vigie makes itself while a client's own request waits.

use std::io;
use std::task::{Context, Poll};

use lb_http1::{Framing, Head};

use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::h1::H1;

/// Sends `body` and listens to nothing but whether the client is still there: what it has sent of its own body stays.
pub(super) struct Asking<'a> {
    client: &'a mut dyn Downstream,
    body: &'a [u8],
    at: usize,
}

impl<'a> Asking<'a> {
    pub(super) fn new(client: &'a mut dyn Downstream, body: &'a [u8]) -> Self {
        Self { client, body, at: 0 }
    }
}

impl Source for Asking<'_> {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        Poll::Ready(Ok(if self.at < self.body.len() { Fill::Data } else { Fill::End }))
    }

    fn data(&self) -> &[u8] {
        &self.body[self.at..]
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }

    fn trailers(&self) -> Option<&Head> {
        None
    }
}

/// The answer is read by whoever has asked, never passed on this way.
impl Sink for Asking<'_> {
    fn poll_send(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn finish(&mut self, _: Option<&Head>) -> io::Result<()> {
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Downstream for Asking<'_> {
    fn respond(&mut self, _: &mut Head, _: Framing) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// An interim answer to a question that the client has not asked.
    fn inform(&mut self, _: &Head) -> io::Result<()> {
        Ok(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.poll_gone(cx)
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        None
    }

    fn abort(&mut self) {}

    fn kept(&self) -> Option<u64> {
        Some(self.body.len() as u64)
    }

    fn rewind(&mut self) {
        self.at = 0;
    }
}
