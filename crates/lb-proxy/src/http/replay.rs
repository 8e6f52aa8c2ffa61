//! A request's body kept, so that a retry or an auth server can have it as well, or a server all of it at once.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use lb_http1::{Framing, Head};

use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::h1::H1;
use super::spool::Spool;
use crate::upstream::failure::{self, Cause};

/// The client, with the beginning of its body read ahead where somebody has asked for that.
pub(crate) struct Replay<'a, D> {
    down: &'a mut D,
    kept: Spool,
    /// All of the body is in `kept`.
    whole: bool,
    /// Trailers go to nobody.
    mute: bool,
}

/// Why a body is not kept.
pub(crate) enum Unkept {
    /// The client broke it off.
    Client(Cause),
    /// It cannot be written to its file, or read from there.
    File(io::Error),
}

impl<'a, D: Downstream> Replay<'a, D> {
    /// Nothing is read yet.
    pub(crate) fn new(down: &'a mut D) -> Self {
        Self { down, kept: Spool::new(0), whole: false, mute: false }
    }

    /// Reads the body before anybody else does, up to `memory` bytes into memory and the rest into a file, as far as it
    /// is no longer than `most` bytes. Returns whether that is all of it.
    ///
    /// # Errors
    /// The client broke its body off, or the file fails.
    pub(crate) async fn keep(&mut self, memory: usize, most: u64) -> Result<bool, Unkept> {
        let Self { down, kept, whole, .. } = self;
        kept.allow(memory);
        poll_fn(|cx| {
            while !*whole {
                let fill = ready!(down.poll_fill(cx))
                    .map_err(|error| Unkept::Client(failure::client_body(&error).cause));
                match fill? {
                    Fill::End => *whole = true,
                    Fill::Data if kept.len() + down.data().len() as u64 > most => {
                        return Poll::Ready(Ok(false));
                    }
                    Fill::Data => {
                        let count = ready!(kept.poll_write(cx, down.data())).map_err(Unkept::File)?;
                        down.consume(count);
                    }
                }
            }
            ready!(kept.poll_moved(cx)).map_err(Unkept::File)?;
            Poll::Ready(Ok(kept.len() <= most))
        })
        .await
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> u64 {
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

    fn keeps_body(&self) -> bool {
        self.whole
    }

    fn rewind(&mut self) {
        self.kept.rewind();
    }
}
