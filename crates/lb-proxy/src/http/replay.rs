//! A request's body kept, so that a retry or an auth server can have it as well, or a server all of it at once.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use lb_http1::{Framing, Head};

use super::body::{Fill, Sink, Source};
use super::downstream::{Downstream, Unkept};
use super::h1::H1;
use super::spool::Spool;
use crate::upstream::failure;

/// The client, with the beginning of its body read ahead where somebody has asked for that.
pub(crate) struct Replay<'a, D> {
    down: &'a mut D,
    kept: Spool,
    /// All of the body is in `kept`.
    whole: bool,
    /// Trailers go to nobody.
    mute: bool,
}

impl<'a, D: Downstream> Replay<'a, D> {
    /// Nothing is read yet.
    pub(crate) fn new(down: &'a mut D) -> Self {
        Self { down, kept: Spool::new(0), whole: false, mute: false }
    }

    /// Bytes that were read before anybody wanted them.
    pub(crate) fn ahead(&self) -> u64 {
        self.kept.len()
    }

    /// A copy of what is kept, before any of it is sent.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn copy(&mut self) -> io::Result<Vec<u8>> {
        let mut copy = Vec::new();
        while poll_fn(|cx| self.kept.poll_read(cx)).await? {
            let count = self.kept.data().len();
            copy.extend_from_slice(self.kept.data());
            self.kept.consume(count);
        }
        self.kept.rewind();
        Ok(copy)
    }

    /// What comes behind the body is dropped: nobody would check it.
    pub(crate) fn drop_trailers(&mut self) {
        self.mute = true;
    }
}

impl<D: Downstream> Source for Replay<'_, D> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        if ready!(self.kept.poll_read(cx))? {
            return Poll::Ready(Ok(Fill::Data));
        }
        if self.whole { Poll::Ready(Ok(Fill::End)) } else { self.down.poll_fill(cx) }
    }

    fn data(&self) -> &[u8] {
        let kept = self.kept.data();
        if kept.is_empty() { self.down.data() } else { kept }
    }

    fn consume(&mut self, count: usize) {
        if self.kept.data().is_empty() { self.down.consume(count) } else { self.kept.consume(count) }
    }

    fn trailers(&self) -> Option<&Head> {
        self.down.trailers().filter(|_| !self.mute)
    }
}

impl<D: Downstream> Sink for Replay<'_, D> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.down.poll_send(cx, data)
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        self.down.finish(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.down.poll_flush(cx)
    }
}

impl<D: Downstream> Downstream for Replay<'_, D> {
    fn respond(&mut self, head: &mut Head, framing: Framing) -> io::Result<()> {
        self.down.respond(head, framing)
    }

    fn inform(&mut self, head: &Head) -> io::Result<()> {
        self.down.inform(head)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.down.poll_gone(cx)
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        self.down.tunnel()
    }

    fn abort(&mut self) {
        self.down.abort();
    }

    /// Up to `memory` bytes go into memory and the rest into a file, as far as the body is no longer than `most` bytes.
    /// Ready with whether that is all of it.
    fn poll_keep(&mut self, cx: &mut Context<'_>, memory: usize, most: u64) -> Poll<Result<bool, Unkept>> {
        let Self { down, kept, whole, .. } = self;
        kept.allow(memory);
        while !*whole {
            let fill = ready!(down.poll_fill(cx));
            match fill.map_err(|error| Unkept::Client(failure::client_body(&error).cause))? {
                Fill::End => *whole = true,
                Fill::Data if kept.len() + down.data().len() as u64 > most => return Poll::Ready(Ok(false)),
                Fill::Data => {
                    let count = ready!(kept.poll_write(cx, down.data())).map_err(Unkept::File)?;
                    down.consume(count);
                }
            }
        }
        ready!(kept.poll_moved(cx)).map_err(Unkept::File)?;
        Poll::Ready(Ok(kept.len() <= most))
    }

    fn kept(&self) -> Option<u64> {
        self.whole.then(|| self.kept.len())
    }

    fn kept_bytes(&self) -> Option<&[u8]> {
        self.kept.in_memory().filter(|_| self.whole)
    }

    fn rewind(&mut self) {
        self.kept.rewind();
    }
}
