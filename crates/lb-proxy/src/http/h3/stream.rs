//! The two halves of a request's stream as body source and sink.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use lb_http1::{Framing, Head};
use quinn::SendStream;

use super::convert;
use super::frame::{Code, Ended, Frames, kind, put_frame, put_varint};
use super::link::{Fault, Link, protocol};
use super::qpack::{self, SectionError};
use crate::http::body::{Fill, Source};
use crate::http::streams::LARGE_HEAD;

/// Frames of a stream that carry nothing, and bytes of those that nobody knows. Enough to keep others' parsers
/// honest (RFC 9114 section 7.2.8), and no way to keep a worker busy. Chosen.
const MOST_IDLE_FRAMES: u32 = 256;
const MOST_UNKNOWN_BYTES: u64 = 64 * 1024;

/// A stream from its client, read frame by frame.
pub(super) struct H3Source {
    frames: Frames,
    link: Rc<Link>,
    /// The head of the next frame, or the end, looked at before its time.
    ahead: Option<Option<(u64, u64)>>,
    /// The head has been read.
    begun: bool,
    /// In the payload of a DATA frame.
    in_data: bool,
    /// Of an unknown frame still to be passed over.
    skipping: bool,
    /// Trailers that have come in part.
    trailing: Option<Vec<u8>>,
    trailers: Option<Box<Head>>,
    /// Bytes still announced by a content-length.
    announced: Option<u64>,
    ended: bool,
    /// The rest is not read.
    given_up: bool,
    idle_frames: u32,
    unknown_bytes: u64,
}

/// What a stream begins with.
pub(super) enum Begun {
    /// The field section of a request.
    Section(Vec<u8>),
    /// One that is not read, with status and reason.
    Refused(u16, &'static str),
}

impl H3Source {
    pub(super) fn new(frames: Frames, link: Rc<Link>) -> Self {
        Self {
            frames,
            link,
            ahead: None,
            begun: false,
            in_data: false,
            skipping: false,
            trailing: None,
            trailers: None,
            announced: None,
            ended: false,
            given_up: false,
            idle_frames: 0,
            unknown_bytes: 0,
        }
    }

    /// Reads the head of the request, of at most so many bytes; `None` when there is none to answer.
    pub(super) async fn head(&mut self, most: usize) -> Option<Begun> {
        let length = match poll_fn(|cx| self.poll_known(cx)).await {
            Ok(Some((kind::HEADERS, length))) => usize::try_from(length).unwrap_or(usize::MAX),
            Ok(Some(_)) => {
                // RFC 9114 section 4.1.
                self.link.fail(protocol(Code::FrameUnexpected));
                return None;
            }
            Ok(None) => {
                self.frames.stop(Code::RequestIncomplete);
                return None;
            }
            Err(_) => return None,
        };
        self.begun = true;
        let link = Rc::clone(&self.link);
        // Before anything of it is kept.
        let held = link.tally.hold(length);
        let refused = match length {
            _ if length > most => Some(Begun::Refused(431, "head_too_large")),
            _ if length > LARGE_HEAD && link.worker.is_shedding() => Some(Begun::Refused(503, "memory_head")),
            _ if held.is_none() => Some(Begun::Refused(431, "http3_large_heads")),
            _ => None,
        };
        if refused.is_some() {
            self.given_up = true;
            return refused;
        }
        let mut section = Vec::new();
        poll_fn(|cx| self.poll_section(cx, &mut section)).await.ok()?;
        Some(Begun::Section(section))
    }

    /// From here on it is a body, of this length if that is announced.
    pub(super) fn expect(&mut self, length: Option<u64>) {
        self.announced = length;
    }

    /// Whether the stream ends behind the head: then there is no body.
    pub(super) fn poll_bodiless(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.ahead.is_none() {
            match ready!(self.poll_known(cx)) {
                Ok(frame) => self.ahead = Some(frame),
                // The body will say so.
                Err(_) => return Poll::Ready(false),
            }
        }
        Poll::Ready(self.ahead == Some(None))
    }

    /// There is nothing to read any more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended || self.given_up
    }

    pub(super) fn stop(&mut self, code: Code) {
        self.frames.stop(code);
    }

    /// The next frame that means something. An error has been dealt with.
    fn poll_known(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<(u64, u64)>, io::Error>> {
        loop {
            if self.skipping {
                while ready!(self.frames.poll_payload(cx)).map_err(|ended| self.broken(&ended))? {
                    let count = self.frames.payload().len();
                    self.unknown_bytes += count as u64;
                    self.frames.consume(count);
                    if self.unknown_bytes > MOST_UNKNOWN_BYTES {
                        return Poll::Ready(Err(
                            self.fails(Fault(Code::ExcessiveLoad, "http3_unknown_frames"))
                        ));
                    }
                }
                self.skipping = false;
            }
            let frame = ready!(self.frames.poll_frame(cx)).map_err(|ended| self.broken(&ended))?;
            match frame {
                None => return Poll::Ready(Ok(None)),
                // RFC 9114 section 4.1: a body has its place, and so have its frames without a byte.
                Some((kind::DATA, 0)) if self.begun && self.trailers.is_none() => {}
                Some((kind::DATA | kind::HEADERS, _)) => return Poll::Ready(Ok(frame)),
                // RFC 9114 sections 7.2.3 to 7.2.8, RFC 9218 section 7.2: they have no place on this stream.
                Some((kind, _)) if kind::is_of_control(kind) || kind::is_forbidden(kind) => {
                    return Poll::Ready(Err(self.fails(protocol(Code::FrameUnexpected))));
                }
                Some(_) => self.skipping = true,
            }
            self.idle_frames += 1;
            if self.idle_frames > MOST_IDLE_FRAMES {
                return Poll::Ready(Err(self.fails(Fault(Code::ExcessiveLoad, "http3_unknown_frames"))));
            }
        }
    }

    fn poll_section(&mut self, cx: &mut Context<'_>, section: &mut Vec<u8>) -> Poll<io::Result<()>> {
        while ready!(self.frames.poll_payload(cx)).map_err(|ended| self.broken(&ended))? {
            let payload = self.frames.payload();
            section.extend_from_slice(payload);
            let count = payload.len();
            self.frames.consume(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the trailers, of which `section` has come, and what is behind them.
    fn poll_trailers(&mut self, cx: &mut Context<'_>, mut section: Vec<u8>) -> Poll<io::Result<()>> {
        if self.trailers.is_none() {
            let Poll::Ready(read) = self.poll_section(cx, &mut section) else {
                self.trailing = Some(section);
                return Poll::Pending;
            };
            read?;
            self.trailers = Some(Box::new(match convert::trailers(&section, LARGE_HEAD) {
                Ok(Some(trailers)) => trailers,
                Ok(None) | Err(SectionError::TooLarge) => return Poll::Ready(Err(self.malformed())),
                Err(SectionError::Broken) => {
                    return Poll::Ready(Err(self.fails(protocol(Code::DecompressionFailed))));
                }
            }));
        }
        match self.poll_known(cx) {
            Poll::Ready(Ok(None)) => Poll::Ready(Ok(())),
            // RFC 9114 section 4.1: nothing follows the trailers.
            Poll::Ready(Ok(Some(_))) => Poll::Ready(Err(self.fails(protocol(Code::FrameUnexpected)))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.trailing = Some(Vec::new());
                Poll::Pending
            }
        }
    }

    /// RFC 9114 section 4.1.2: an error of this stream alone.
    fn malformed(&mut self) -> io::Error {
        if !self.given_up {
            self.given_up = true;
            self.link.worker.metrics.refused(self.link.connection.entry.label, "http3_malformed");
            self.frames.stop(Code::MessageError);
        }
        io::Error::new(io::ErrorKind::InvalidData, "malformed request")
    }

    fn fails(&self, fault: Fault) -> io::Error {
        self.link.fail(fault);
        io::Error::new(io::ErrorKind::InvalidData, fault.1)
    }

    fn broken(&self, ended: &Ended) -> io::Error {
        match ended {
            Ended::Gone => io::ErrorKind::ConnectionReset.into(),
            // RFC 9114 section 7.1.
            Ended::Short => self.fails(protocol(Code::FrameError)),
        }
    }
}

impl Source for H3Source {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(Fill::End));
            }
            if self.given_up {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if let Some(section) = self.trailing.take() {
                ready!(self.poll_trailers(cx, section))?;
                self.ended = true;
            } else if self.in_data {
                if ready!(self.frames.poll_payload(cx)).map_err(|ended| self.broken(&ended))? {
                    return Poll::Ready(Ok(Fill::Data));
                }
                self.in_data = false;
            } else {
                let frame = match self.ahead.take() {
                    Some(frame) => frame,
                    None => ready!(self.poll_known(cx))?,
                };
                if let Some((kind::DATA, length)) = frame {
                    match &mut self.announced {
                        // RFC 9114 section 4.1.2.
                        Some(left) if *left < length => return Poll::Ready(Err(self.malformed())),
                        Some(left) => *left -= length,
                        None => {}
                    }
                    self.in_data = true;
                    continue;
                }
                if self.announced.is_some_and(|left| left > 0) {
                    return Poll::Ready(Err(self.malformed()));
                }
                match frame {
                    Some((_, length)) => {
                        // So they need not count as large heads do.
                        if length > LARGE_HEAD as u64 {
                            return Poll::Ready(Err(self.malformed()));
                        }
                        self.trailing = Some(Vec::new());
                    }
                    None => self.ended = true,
                }
            }
        }
    }

    fn data(&self) -> &[u8] {
        self.frames.payload()
    }

    fn consume(&mut self, count: usize) {
        self.frames.consume(count);
    }

    fn trailers(&self) -> Option<&Head> {
        self.trailers.as_deref()
    }
}

/// The answer on its way to the client. Dropped before its end it is reset: the client must not take a part for the
/// whole.
pub(super) struct H3Sink {
    stream: SendStream,
    /// Heads of answers and of frames, before the bytes that come next; `written` of it have left.
    queued: Vec<u8>,
    written: usize,
    /// Bytes of the DATA frame that was begun.
    in_frame: usize,
    /// Bytes still announced by a content-length.
    left: Option<u64>,
    has_body: bool,
    /// Everything is queued.
    complete: bool,
    ended: bool,
}

impl H3Sink {
    pub(super) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            queued: Vec::new(),
            written: 0,
            in_frame: 0,
            left: None,
            has_body: false,
            complete: false,
            ended: false,
        }
    }

    /// Ready when the client wants no more, or has all of it.
    pub(super) fn stopped(&self) -> Pin<Box<dyn Future<Output = bool>>> {
        let stopped = self.stream.stopped();
        // An error is the end of the connection.
        Box::pin(async move { !matches!(stopped.await, Ok(None)) })
    }

    /// Queues a head, interim or final, if the client takes one of that size.
    pub(super) fn head(&mut self, head: &Head, most: u64) -> io::Result<()> {
        self.section(most, |section| qpack::status(section, head.status()) + qpack::fields(section, head))
    }

    /// RFC 9114 section 4.2.2: what is larger than the client takes should not be sent.
    fn section(&mut self, most: u64, write: impl FnOnce(&mut Vec<u8>) -> usize) -> io::Result<()> {
        let (before, mut size) = (self.queued.len(), 0);
        put_frame(kind::HEADERS, &mut self.queued, |section| {
            qpack::begin(section);
            size = write(section);
        });
        if size as u64 > most {
            self.queued.truncate(before);
            return Err(io::Error::other("larger than the client takes"));
        }
        Ok(())
    }

    /// Queues the final head; `framing` is how its body will be known to end, if there is one.
    pub(super) fn respond(&mut self, head: &Head, framing: Option<Framing>, most: u64) -> io::Result<()> {
        self.head(head, most)?;
        self.has_body = framing.is_some();
        if let Some(Framing::Length(length)) = framing {
            self.left = Some(length);
        }
        self.complete = framing.is_none();
        Ok(())
    }

    /// Sends what is queued, as far as that goes without waiting.
    pub(super) fn try_flush(&mut self) -> io::Result<()> {
        match self.poll_queued(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    pub(super) fn reset(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            // It fails where the client has stopped the stream.
            let _ = self.stream.reset(code.into());
        }
    }

    /// Whether all of the answer has left for the client.
    pub(super) fn is_whole(&self) -> bool {
        self.ended && self.complete
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.queued.len() {
            self.written += ready!(self.poll_write(cx, None))?;
        }
        self.queued.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Marks the end of the body, as a body's sink; the client takes trailers of at most that size.
    pub(super) fn finish(&mut self, trailers: Option<&Head>, most: u64) -> io::Result<()> {
        if self.complete {
            return Ok(());
        }
        if self.in_frame > 0 || self.left.is_some_and(|left| left > 0) {
            return Err(io::Error::other("body shorter than announced"));
        }
        if let Some(trailers) = trailers {
            self.section(most, |section| qpack::fields(section, trailers))?;
        }
        self.complete = true;
        Ok(())
    }

    /// Writes `data`, or else what is queued.
    fn poll_write(&mut self, cx: &mut Context<'_>, data: Option<&[u8]>) -> Poll<io::Result<usize>> {
        let data = data.unwrap_or(&self.queued[self.written..]);
        Pin::new(&mut self.stream).poll_write(cx, data).map_err(io::Error::from)
    }

    /// Takes some of the body.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.has_body || self.left.is_some_and(|left| data.len() as u64 > left) {
            return Poll::Ready(Err(io::Error::other("body longer than announced")));
        }
        if self.in_frame == 0 {
            put_varint(kind::DATA, &mut self.queued);
            put_varint(data.len() as u64, &mut self.queued);
            self.in_frame = data.len();
        }
        ready!(self.poll_queued(cx))?;
        let data = &data[..data.len().min(self.in_frame)];
        let count = ready!(self.poll_write(cx, Some(data)))?;
        self.in_frame -= count;
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
        Poll::Ready(Ok(count))
    }

    /// Sends what is queued; ready once it has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_queued(cx))?;
        if self.complete && !self.ended {
            self.ended = true;
            // It fails where the client has stopped the stream: then it is gone.
            self.stream.finish().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for H3Sink {
    fn drop(&mut self) {
        self.reset(Code::InternalError);
    }
}
