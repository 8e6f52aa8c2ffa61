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
    /// What is offered is not taken for now: a source that keeps what comes meanwhile at a high price may look at it.
    fn read_ahead(&mut self, _: &mut Context<'_>) {}
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

/// So much of the beginning of a body is kept for another try. Chosen: most messages of APIs and of gRPC are shorter.
pub(crate) const MOST_KEPT: usize = 64 * 1024;

/// Moves one body from source to sink, with the bytes counted.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(crate) bytes: u64,
    ended: bool,
    done: bool,
    /// All that was taken from the source, here and on earlier tries, of which `bytes` were sent this time.
    kept: Option<Vec<u8>>,
}

impl Pump {
    /// One that keeps the beginning of the body. It starts with what was kept by the one before.
    pub(crate) fn keeping(kept: Vec<u8>) -> Self {
        Self { kept: Some(kept), ..Self::default() }
    }

    /// All that was taken from the source, if that was kept.
    pub(crate) fn into_kept(self) -> Option<Vec<u8>> {
        self.kept
    }

    /// There will be no other try.
    pub(crate) fn keep_no_more(&mut self) {
        self.kept.take_if(|kept| kept.len() as u64 == self.bytes);
    }

    /// What an earlier one has taken and this one has not sent yet.
    fn again(&self) -> Option<&[u8]> {
        self.kept.as_ref()?.get(usize::try_from(self.bytes).ok()?..).filter(|again| !again.is_empty())
    }

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
            if let Some(again) = self.again() {
                self.bytes += ready!(sink.poll_send(cx, again)).map_err(|_| PumpError::Sink)? as u64;
                continue;
            }
            match source.poll_fill(cx) {
                Poll::Ready(Ok(Fill::Data)) => {
                    let Poll::Ready(taken) = sink.poll_send(cx, source.data()) else {
                        source.read_ahead(cx);
                        return Poll::Pending;
                    };
                    let taken = taken.map_err(|_| PumpError::Sink)?;
                    self.kept.take_if(|kept| kept.len() + taken > MOST_KEPT);
                    if let Some(kept) = &mut self.kept {
                        kept.extend_from_slice(&source.data()[..taken]);
                    }
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Pieces of a body that come one by one.
    struct Pieces(Vec<Vec<u8>>);

    impl Source for Pieces {
        fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Fill>> {
            self.0.retain(|piece| !piece.is_empty());
            Poll::Ready(Ok(if self.0.is_empty() { Fill::End } else { Fill::Data }))
        }

        fn data(&self) -> &[u8] {
            &self.0[0]
        }

        fn consume(&mut self, count: usize) {
            self.0[0].drain(..count);
        }

        fn trailers(&self) -> Option<&Head> {
            None
        }
    }

    /// Takes so many bytes, a few at a time, and breaks.
    struct Server(Vec<u8>, usize);

    impl Sink for Server {
        fn poll_send(&mut self, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let count = data.len().min(1000).min(self.1 - self.0.len());
            self.0.extend_from_slice(&data[..count]);
            Poll::Ready(if count > 0 { Ok(count) } else { Err(io::ErrorKind::BrokenPipe.into()) })
        }

        fn finish(&mut self, _: Option<&Head>) -> io::Result<()> {
            Ok(())
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn another_try_sends_every_byte_once() {
        let body: Vec<u8> = (0..50_000_usize).map(|n| (n % 251) as u8).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut source = Pieces(body.chunks(7000).map(<[u8]>::to_vec).collect());
        let mut kept = Vec::new();
        // The second server breaks before it has all that the first one got.
        for most in [20_500, 3_000, 20_500, 49_999] {
            let (mut pump, mut server) = (Pump::keeping(kept), Server(Vec::new(), most));
            assert!(matches!(
                pump.poll(&mut cx, &mut source, &mut server),
                Poll::Ready(Err(PumpError::Sink))
            ));
            assert_eq!((pump.bytes, &*server.0), (most as u64, &body[..most]));
            kept = pump.into_kept().unwrap();
        }
        let (mut pump, mut server) = (Pump::keeping(kept), Server(Vec::new(), body.len()));
        assert!(matches!(pump.poll(&mut cx, &mut source, &mut server), Poll::Ready(Ok(()))));
        assert_eq!((pump.bytes, server.0), (body.len() as u64, body));
    }

    #[test]
    fn what_is_kept_is_bounded_and_let_go() {
        let mut cx = Context::from_waker(Waker::noop());
        for (length, keeps) in [(MOST_KEPT, true), (MOST_KEPT + 1, false)] {
            let (mut source, mut server) = (Pieces(vec![vec![b'x'; length]]), Server(Vec::new(), length));
            let mut pump = Pump::keeping(Vec::new());
            assert!(pump.poll(&mut cx, &mut source, &mut server).is_ready());
            assert_eq!(pump.into_kept().is_some(), keeps, "{length}");
        }
        // An answer has come: what was sent is let go of, what is still to be sent again is not.
        for (most, kept) in [(2000, None), (1000, Some(2000))] {
            let mut pump = Pump::keeping(vec![b'x'; 2000]);
            let _ = pump.poll(&mut cx, &mut Pieces(Vec::new()), &mut Server(Vec::new(), most));
            pump.keep_no_more();
            assert_eq!(pump.into_kept().map(|kept| kept.len()), kept);
        }
    }
}
