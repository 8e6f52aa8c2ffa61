//! Bytes both ways between two connections, until both have ended.
//!
//! Each direction has at most one buffer, borrowed while bytes are on their way: who does not read stops the other
//! from being read, and a quiet connection holds nothing. The end of one direction is passed on as such (half-close)
//! and leaves the other alone; an abort is passed on as an abort, so that nobody takes half of something for all of it.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_config::tcp::TerminationDelay;
use tokio::time::Instant;

use crate::buffers::{Buffers, LARGE, SMALL};
use crate::deadline::Deadline;
use crate::stream::Stream;

/// Where no `terminationDelay` is written: once one side has ended, the other may be silent for so long. Chosen, as
/// many use for `timeout client-fin` of HAProxy.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);
/// How long a side may take to hear that it is over. Chosen, as for tunnels.
const FAREWELL: Duration = Duration::from_secs(2);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have said all they had.
    Done,
    /// One has ended, and the other's time after that is over.
    Cut,
    /// The connection of the client, or of the server, was aborted.
    Client,
    Server,
}

struct Direction<'c> {
    /// Borrowed while bytes are on their way.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    /// Who is written to takes no more: what still comes is dropped.
    deaf: bool,
    done: bool,
    /// A small buffer was not enough for what waits.
    bulk: bool,
    /// Something was passed on since this was last set to false.
    moved: bool,
    passed: &'c AtomicU64,
}

impl<'c> Direction<'c> {
    fn new(first: Vec<u8>, passed: &'c AtomicU64) -> Self {
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
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        while !self.done {
            // Whoever takes no more may have said why, which is on its way in the other direction.
            if !self.deaf && ready!(self.poll_pass(cx, to)).is_err() {
                self.deaf = true;
            }
            (self.start, self.end) = (0, 0);
            if self.eof {
                self.done = true;
                self.give_back(buffers);
                break;
            }
            if std::mem::take(&mut self.bulk) {
                buffers.give_input(std::mem::replace(&mut self.buffer, buffers.large_input()));
            } else if !matches!(self.buffer.len(), SMALL | LARGE) {
                self.buffer = buffers.input();
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
                    self.give_back(buffers);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.give_back(buffers);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self, buffers: &Buffers) {
        buffers.give_input(std::mem::take(&mut self.buffer));
    }

    fn is_over(&self) -> bool {
        self.done || self.deaf
    }
}

/// Runs to the end. `first` of the client was read already; `passed` counts bytes to the server, and back.
pub(super) async fn run(
    client: &mut Stream,
    server: &mut Stream,
    first: Vec<u8>,
    delay: Option<TerminationDelay>,
    buffers: &Buffers,
    passed: [&AtomicU64; 2],
) -> End {
    let [mut up, mut back] = [Direction::new(first, passed[0]), Direction::new(Vec::new(), passed[1])];
    let mut deadline = Deadline::default();
    let mut half_closed = false;
    let end = poll_fn(|cx| {
        // Both, whatever the first says: each is woken by what it has asked.
        let upward = up.poll(cx, client, server, buffers);
        let backward = back.poll(cx, server, client, buffers);
        if let Poll::Ready(Err(_)) = upward {
            return Poll::Ready(End::Client);
        }
        if let Poll::Ready(Err(_)) = backward {
            return Poll::Ready(End::Server);
        }
        if up.is_over() && back.is_over() {
            return Poll::Ready(End::Done);
        }
        if !(up.is_over() || back.is_over()) {
            return Poll::Pending;
        }
        let moved = std::mem::take(&mut up.moved) | std::mem::take(&mut back.moved);
        match delay {
            Some(delay) if !half_closed => deadline.set(Instant::now(), delay),
            None if !half_closed || moved => deadline.set(Instant::now(), Some(HALF_CLOSED_IDLE)),
            _ => {}
        }
        half_closed = true;
        deadline.poll(cx).map(|()| End::Cut)
    })
    .await;
    match end {
        // What is under way is not all: the other side must not take it for that.
        End::Client => server.reset_on_drop(),
        End::Server => client.reset_on_drop(),
        End::Done | End::Cut if !(up.done && back.done) => {
            // In good order, TLS included. Closed with bytes unread it would be a reset, which overtakes what was
            // sent last.
            (up.deaf, back.deaf) = (true, true);
            let ends = async {
                let _ = poll_fn(|cx| client.poll_shutdown(cx)).await;
                let _ = poll_fn(|cx| server.poll_shutdown(cx)).await;
                if !up.done {
                    let _ = poll_fn(|cx| up.poll(cx, client, server, buffers)).await;
                }
            };
            let _ = tokio::time::timeout(FAREWELL, ends).await;
        }
        End::Done | End::Cut => {}
    }
    up.give_back(buffers);
    back.give_back(buffers);
    end
}
