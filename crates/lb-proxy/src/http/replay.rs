//! A request's body kept in memory, so that a retry or an auth server can have it as well.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use lb_http1::{Framing, Head};

use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::h1::H1;
use crate::upstream::failure::{self, Cause};

/// The client, with the beginning of its body read ahead where somebody has asked for that.
pub(crate) struct Replay<'a, D> {
    down: &'a mut D,
    kept: Vec<u8>,
    at: usize,
    /// All of the body is in `kept`.
    whole: bool,
    /// Trailers go to nobody.
    mute: bool,
}

impl<'a, D: Downstream> Replay<'a, D> {
    /// Nothing is read yet.
    pub(crate) fn new(down: &'a mut D) -> Self {
        Self { down, kept: Vec::new(), at: 0, whole: false, mute: false }
    }

    /// Reads the body before anybody else does, as far as it fits into `most` bytes.
    ///
    /// # Errors
    /// The client broke its body off.
    pub(crate) async fn keep(&mut self, most: usize) -> Result<(), Cause> {
        let Self { down, kept, whole, .. } = self;
        if *whole {
            return Ok(());
        }
        *whole = poll_fn(|cx| {
            loop {
                let fill =
                    std::task::ready!(down.poll_fill(cx)).map_err(|error| failure::client_body(&error).cause);
                match fill? {
                    Fill::End => return Poll::Ready(Ok(true)),
                    Fill::Data => {
                        let count = down.data().len();
                        if count > most.saturating_sub(kept.len()) {
                            return Poll::Ready(Ok(false));
                        }
                        kept.extend_from_slice(down.data());
                        down.consume(count);
                    }
                }
            }
        })
        .await?;
        Ok(())
    }

    /// What comes behind the body is dropped: nobody would check it.
    pub(crate) fn drop_trailers(&mut self) {
        self.mute = true;
    }

    /// The body, if all of it is kept; to be [given back](Self::give_back).
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        self.whole.then(|| std::mem::take(&mut self.kept))
    }

    pub(crate) fn give_back(&mut self, body: Vec<u8>) {
        self.kept = body;
    }
}

impl<D: Downstream> Source for Replay<'_, D> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        if self.at < self.kept.len() {
            return Poll::Ready(Ok(Fill::Data));
        }
        if self.whole { Poll::Ready(Ok(Fill::End)) } else { self.down.poll_fill(cx) }
    }

    fn data(&self) -> &[u8] {
        if self.at < self.kept.len() { &self.kept[self.at..] } else { self.down.data() }
    }

    fn consume(&mut self, count: usize) {
        if self.at < self.kept.len() { self.at += count } else { self.down.consume(count) }
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
        self.at = 0;
    }
}
