//! The two halves of an HTTP/2 stream as body source and sink, for either side.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use lb_http1::{Framing, Head, Version};

use super::body::{Fill, Sink, Source};
use super::h2_convert;
use super::h2_sieve::SMALL;

pub(crate) fn to_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

pub(crate) struct H2Source {
    stream: RecvStream,
    chunk: Bytes,
    /// What follows it.
    ahead: Vec<u8>,
    /// The last frame was small.
    small: bool,
    ended: bool,
    trailers: Option<Box<Head>>,
}

impl H2Source {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), ahead: Vec::new(), small: false, ended, trailers: None }
    }

    /// All of it was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether there is nothing, not even trailers.
    pub(crate) fn poll_bodiless(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.chunk.is_empty() {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => self.put(chunk),
                // It shows once more.
                Some(Err(_)) => return Poll::Ready(false),
                None => {
                    self.ended = self.stream.is_end_stream();
                    return Poll::Ready(self.ended);
                }
            }
        }
        Poll::Ready(false)
    }

    fn put(&mut self, chunk: Bytes) {
        self.small = chunk.len() < SMALL;
        self.chunk = chunk;
    }
}

impl Source for H2Source {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        loop {
            if self.chunk.is_empty() && !self.ahead.is_empty() {
                self.chunk = std::mem::take(&mut self.ahead).into();
            }
            if !self.chunk.is_empty() {
                return Poll::Ready(Ok(Fill::Data));
            }
            if self.ended {
                return Poll::Ready(Ok(Fill::End));
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => self.put(chunk),
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => {
                    if let Some(fields) = ready!(self.stream.poll_trailers(cx)).map_err(to_io)? {
                        let too_many = || io::Error::new(io::ErrorKind::InvalidData, "too many trailers");
                        self.trailers = Some(Box::new(h2_convert::trailers(&fields).ok_or_else(too_many)?));
                    }
                    self.ended = true;
                }
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        // What the reader has taken may be sent anew: RFC 9113 section 5.2. It fails only when the
        // stream is gone, which the next read tells.
        let _ = self.stream.flow_control().release_capacity(count);
    }

    fn trailers(&self) -> Option<&Head> {
        self.trailers.as_deref()
    }

    /// Small frames, for each of which h2 keeps more than it holds. The window bounds them: it is given back only for
    /// what was consumed.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        // The end, or an error, shows once more.
        while self.small
            && let Poll::Ready(Some(Ok(chunk))) = self.stream.poll_data(cx)
        {
            self.small = chunk.len() < SMALL;
            self.ahead.extend_from_slice(&chunk);
        }
    }
}

pub(crate) struct H2Sink {
    stream: SendStream<Bytes>,
    /// Bytes still announced by a content-length.
    left: Option<u64>,
    /// Trailers may follow even then; otherwise the last byte ends the stream.
    may_trail: bool,
    ended: bool,
}

impl H2Sink {
    /// For the body behind `head`, which came over whatever protocol.
    pub(crate) fn new(stream: SendStream<Bytes>, framing: Framing, head: &Head) -> Self {
        let left = if let Framing::Length(length) = framing { Some(length) } else { None };
        // HTTP/1.1 has trailers behind chunks only (RFC 9112 section 7.1.2), HTTP/2 always (RFC 9113 section 8.1).
        Self {
            stream,
            left,
            may_trail: matches!(head.version(), Version::Http2 | Version::Http3),
            ended: false,
        }
    }

    /// Ready when the peer has reset the stream or its connection is gone.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    pub(crate) fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
        self.ended = true;
    }
}

impl Sink for H2Sink {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.left.is_some_and(|left| data.len() as u64 > left) {
            return Poll::Ready(Err(io::Error::other("body longer than announced")));
        }
        if self.stream.capacity() == 0 {
            self.stream.reserve_capacity(data.len());
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = data.len().min(self.stream.capacity());
        if count == 0 {
            // `poll_capacity` has registered us for the next change.
            return Poll::Pending;
        }
        let last = match &mut self.left {
            Some(left) => {
                *left -= count as u64;
                *left == 0 && !self.may_trail
            }
            None => false,
        };
        self.stream.send_data(Bytes::copy_from_slice(&data[..count]), last).map_err(to_io)?;
        self.ended |= last;
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        if self.left.is_some_and(|left| left > 0) {
            return Err(io::Error::other("body shorter than announced"));
        }
        self.ended = true;
        match trailers {
            Some(trailers) => self.stream.send_trailers(h2_convert::fields(trailers)).map_err(to_io),
            None => self.stream.send_data(Bytes::new(), true).map_err(to_io),
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes.
        Poll::Ready(Ok(()))
    }
}
