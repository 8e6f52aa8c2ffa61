//! A request's body kept, so that a retry or an auth server can have it as well, or a server all of it at once. One around
//! another leaves it to the outer one what that has kept.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use lb_http1::{Framing, Head};

use super::body::{Fill, Sink, Source};
use super::downstream::{Downstream, Unkept};
use super::grpc_web::Decoder;
use super::h1::H1;
use super::spool::Spool;
use crate::upstream::failure;

/// The client, with the beginning of its body read ahead where somebody has asked for that.
pub(crate) struct Replay<'a> {
    down: &'a mut dyn Downstream,
    /// The body comes in base64, and is wanted without. What is kept is decoded.
    decoder: Option<Decoder>,
    kept: Spool,
    /// All of the body is in `kept`.
    whole: bool,
    /// Trailers go to nobody.
    mute: bool,
}

impl<'a> Replay<'a> {
    /// Nothing is read yet.
    pub(crate) fn new(down: &'a mut dyn Downstream) -> Self {
        Self { down, decoder: None, kept: Spool::new(0), whole: false, mute: false }
    }

    /// Bytes that were read before anybody wanted them.
    pub(crate) fn ahead(&self) -> u64 {
        self.kept().unwrap_or(self.kept.len())
    }

    /// A copy of what is kept, before any of it is sent.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn copy(&mut self) -> io::Result<Vec<u8>> {
        let mut copy = Vec::new();
        while let Fill::Data = poll_fn(|cx| self.poll_fill(cx)).await? {
            let count = self.data().len();
            copy.extend_from_slice(self.data());
            self.consume(count);
        }
        self.rewind();
        Ok(copy)
    }

    /// From here on the body is what the client's base64 means.
    ///
    /// # Errors
    /// What was kept of it is no base64, or cannot be moved.
    pub(crate) async fn decode_base64(&mut self) -> io::Result<()> {
        if self.decoder.is_some() {
            return Ok(());
        }
        let mut decoder = Decoder::default();
        if self.kept.len() > 0 || self.whole {
            let mut decoded = self.kept.another();
            while poll_fn(|cx| self.kept.poll_read(cx)).await? {
                let taken = decoder.decode(self.kept.data())?;
                self.kept.consume(taken);
                while !decoder.data().is_empty() {
                    let count = poll_fn(|cx| decoded.poll_write(cx, decoder.data())).await?;
                    decoder.consume(count);
                }
            }
            if self.whole {
                decoder.end()?;
            }
            poll_fn(|cx| decoded.poll_moved(cx)).await?;
            self.kept = decoded;
        }
        self.decoder = Some(decoder);
        Ok(())
    }

    /// What comes behind the body is dropped: nobody would check it.
    pub(crate) fn drop_trailers(&mut self) {
        self.mute = true;
    }
}

/// What the client sends, decoded where it is wanted so.
fn poll_client(
    down: &mut dyn Downstream,
    decoder: &mut Option<Decoder>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Fill>> {
    let Some(decoder) = decoder else { return down.poll_fill(cx) };
    while decoder.data().is_empty() {
        match ready!(down.poll_fill(cx))? {
            Fill::Data => {
                let taken = decoder.decode(down.data())?;
                down.consume(taken);
            }
            Fill::End => {
                decoder.end()?;
                return Poll::Ready(Ok(Fill::End));
            }
        }
    }
    Poll::Ready(Ok(Fill::Data))
}

fn client_data<'d>(down: &'d dyn Downstream, decoder: &'d Option<Decoder>) -> &'d [u8] {
    decoder.as_ref().map_or_else(|| down.data(), Decoder::data)
}

fn consume_client(down: &mut dyn Downstream, decoder: &mut Option<Decoder>, count: usize) {
    match decoder {
        Some(decoder) => decoder.consume(count),
        None => down.consume(count),
    }
}

impl Source for Replay<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        if ready!(self.kept.poll_read(cx))? {
            return Poll::Ready(Ok(Fill::Data));
        }
        if self.whole { Poll::Ready(Ok(Fill::End)) } else { poll_client(self.down, &mut self.decoder, cx) }
    }

    fn data(&self) -> &[u8] {
        let kept = self.kept.data();
        if kept.is_empty() { client_data(self.down, &self.decoder) } else { kept }
    }

    fn consume(&mut self, count: usize) {
        if self.kept.data().is_empty() {
            consume_client(self.down, &mut self.decoder, count);
        } else {
            self.kept.consume(count);
        }
    }

    fn trailers(&self) -> Option<&Head> {
        self.down.trailers().filter(|_| !self.mute)
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        self.down.read_ahead(cx);
    }
}

impl Sink for Replay<'_> {
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

impl Downstream for Replay<'_> {
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
        let Self { down, decoder, kept, whole, .. } = self;
        if decoder.is_none()
            && let Some(length) = down.kept()
        {
            return Poll::Ready(Ok(length <= most));
        }
        kept.allow(memory);
        while !*whole {
            let fill = ready!(poll_client(*down, decoder, cx));
            let data = client_data(*down, decoder);
            match fill.map_err(|error| Unkept::Client(failure::client_body(&error).cause))? {
                Fill::End => *whole = true,
                Fill::Data if kept.len() + data.len() as u64 > most => return Poll::Ready(Ok(false)),
                Fill::Data => {
                    let count = ready!(kept.poll_write(cx, data)).map_err(Unkept::File)?;
                    consume_client(*down, decoder, count);
                }
            }
        }
        ready!(kept.poll_moved(cx)).map_err(Unkept::File)?;
        Poll::Ready(Ok(kept.len() <= most))
    }

    fn kept(&self) -> Option<u64> {
        match self.decoder {
            _ if self.whole => Some(self.kept.len()),
            None => self.down.kept(),
            Some(_) => None,
        }
    }

    fn share(&self) -> Option<Spool> {
        match self.decoder {
            _ if self.whole => self.kept.share(),
            None => self.down.share(),
            Some(_) => None,
        }
    }

    fn rewind(&mut self) {
        self.kept.rewind();
        if !self.whole {
            self.down.rewind();
        }
    }
}
