//! Bytes from one connection to another, as they come.
//!
//! Each direction has at most one buffer, borrowed while bytes are on their way: who does not read stops the other
//! from being read, and a quiet connection holds nothing. The end is passed on as such (half-close).

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::buffers::{Buffers, LARGE, SMALL};
use crate::stream::Stream;

/// How long either side may take to hear that it is over. Chosen.
const FAREWELL: Duration = Duration::from_secs(2);

/// One direction of two connections that are one.
pub(crate) struct Direction<'c> {
    /// Borrowed while bytes are on their way.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    /// Who is written to takes no more: what still comes is dropped.
    deaf: bool,
    pub(crate) done: bool,
    /// A small buffer was not enough for what waits.
    bulk: bool,
    /// Something was passed on since this was last set to false.
    pub(crate) moved: bool,
    /// Bytes.
    passed: &'c AtomicU64,
    buffers: &'c Buffers,
}

impl<'c> Direction<'c> {
    /// `first` was read already.
    pub(crate) fn new(first: Vec<u8>, passed: &'c AtomicU64, buffers: &'c Buffers) -> Self {
        let end = first.len();
        Self {
            buffer: first,
            start: 0,
            end,
            eof: false,
            deaf: false,
            done: false,
            bulk: false,
            moved: false,
            passed,
            buffers,
        }
    }

    /// Writes what was read, and the end where that was read.
    fn poll_pass(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let count = ready!(to.poll_write(cx, &self.buffer[self.start..self.end]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += count;
            self.moved = true;
            self.passed.fetch_add(count as u64, Ordering::Relaxed);
        }
        ready!(to.poll_flush(cx))?;
        if self.eof { to.poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Ready when nothing more comes; an error is one of reading.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        while !self.done {
            // Whoever takes no more may have said why, which is on its way in the other direction.
            if !self.deaf && ready!(self.poll_pass(cx, to)).is_err() {
                self.deaf = true;
            }
            (self.start, self.end) = (0, 0);
            if self.eof {
                self.done = true;
                self.give_back();
                break;
            }
            if std::mem::take(&mut self.bulk) {
                self.give_back();
                self.buffer = self.buffers.large_input();
            } else if !matches!(self.buffer.len(), SMALL | LARGE) {
                self.buffer = self.buffers.input();
            }
            match from.poll_read(cx, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(count)) => {
                    self.end = count;
                    self.bulk = count == SMALL && self.buffer.len() == SMALL;
                }
                // A TLS client that closes without saying so; others take that for the end as well.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.eof = true,
                Poll::Ready(Err(error)) => {
                    self.give_back();
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.give_back();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self) {
        self.buffers.give_input(std::mem::take(&mut self.buffer));
    }

    /// Nothing more is passed on.
    pub(crate) fn is_over(&self) -> bool {
        self.done || self.deaf
    }
}

impl Drop for Direction<'_> {
    /// Also when it is dropped with bytes under way: of large buffers there are only so many.
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Ends both connections in good order, TLS included, when `up`, from the client, has not come to its end. Closed with
/// bytes unread it would be a reset, which overtakes what was sent last.
pub(crate) async fn farewell(up: &mut Direction<'_>, (client, server): (&mut Stream, &mut Stream)) {
    up.deaf = true;
    let ends = async {
        let _ = poll_fn(|cx| client.poll_shutdown(cx)).await;
        let _ = poll_fn(|cx| server.poll_shutdown(cx)).await;
        let _ = poll_fn(|cx| up.poll(cx, client, server)).await;
    };
    let _ = tokio::time::timeout(FAREWELL, ends).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_with_bytes_under_way_gives_its_buffer_back() {
        let (buffers, passed) = (Buffers::default(), AtomicU64::new(0));
        for _ in 0..1000 {
            let large = buffers.large_input();
            assert_eq!(large.len(), LARGE);
            drop(Direction::new(large, &passed, &buffers));
        }
    }
}
