//! A body on its way: where it comes from, where it goes, and the pump between the two.

use std::io;
use std::task::{Context, Poll, ready};

use lb_http1::Head;

/// What a source has to offer next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// [`Source::data`] is not empty.
    Data,
    /// The body ended; [`Source::trailers`] may have something.
    End,
}

/// A message body being read.
pub(crate) trait Source {
    /// Makes the next bytes available. An error means the body is incomplete.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>>;
    fn data(&self) -> &[u8];
    fn consume(&mut self, count: usize);
    fn trailers(&self) -> Option<&Head>;
}

/// A message body being written, behind a head that was queued before.
pub(crate) trait Sink {
    /// Takes some of `data`, at least one byte when ready; small pieces may wait for a flush.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;
    /// Marks the end of the body; what that takes on the wire leaves with the next flush.
    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Which side broke a body off.
#[derive(Debug)]
pub(crate) enum PumpError {
    Source(io::Error),
    Sink,
}

/// Moves one body from source to sink, with the bytes counted.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(crate) bytes: u64,
    ended: bool,
    done: bool,
}

impl Pump {
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Runs until both sides are finished; what was taken from the source is flushed before waiting.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Poll<Result<(), PumpError>> {
        while !self.ended {
            match source.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => {
                    let taken = ready!(sink.poll_send(cx, source.data())).map_err(|_| PumpError::Sink)?;
                    source.consume(taken);
                    self.bytes += taken as u64;
                }
                Poll::Ready(Ok(Fill::End)) => {
                    sink.finish(source.trailers()).map_err(|_| PumpError::Sink)?;
                    self.ended = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::Source(error))),
                Poll::Pending => {
                    if let Poll::Ready(Err(_)) = sink.poll_flush(cx) {
                        return Poll::Ready(Err(PumpError::Sink));
                    }
                    return Poll::Pending;
                }
            }
        }
        ready!(sink.poll_flush(cx)).map_err(|_| PumpError::Sink)?;
        self.done = true;
        Poll::Ready(Ok(()))
    }
}
