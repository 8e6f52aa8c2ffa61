//! Two connections as one, after a protocol switch: bytes pass both ways until both ends are done.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::h1::H1;
use crate::forward::Held;
use crate::stream::Stream;
use crate::worker::Worker;

/// One direction.
struct Direction {
    /// Borrowed while bytes are on their way.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    eof: bool,
    /// Who is written to takes no more: what still comes is dropped.
    deaf: bool,
    done: bool,
    bytes: u64,
}

impl Direction {
    fn new(first: &[u8]) -> Self {
        let end = first.len();
        Self { buffer: first.to_vec(), start: 0, end, eof: false, deaf: false, done: false, bytes: 0 }
    }

    /// Writes what was read, and the end where that was read.
    fn poll_pass(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let count = ready!(to.poll_write(cx, &self.buffer[self.start..self.end]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += count;
            self.bytes += count as u64;
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
        worker: &Worker,
    ) -> Poll<io::Result<()>> {
        loop {
            // Whoever takes no more may have said why, which is on its way in the other direction.
            if !self.deaf && ready!(self.poll_pass(cx, to)).is_err() {
                self.deaf = true;
            }
            if self.eof {
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.buffer.len() != crate::buffers::SMALL {
                self.buffer = worker.buffers.input();
            }
            match from.poll_read(cx, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(count)) => (self.start, self.end) = (0, count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // A quiet tunnel holds no buffer.
                    worker.buffers.give_input(std::mem::take(&mut self.buffer));
                    return Poll::Pending;
                }
            }
        }
    }
}

/// How long either side may take to hear that the tunnel is over. Chosen.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the tunnel to its end, or to that of its server's drain time; bytes from the client and from the server.
pub(crate) async fn run(
    client: &mut H1,
    server: &mut H1,
    worker: &Rc<Worker>,
    (mut lease, endpoint): Held,
) -> (u64, u64) {
    let mut up = Direction::new(client.buffered());
    let mut back = Direction::new(server.buffered());
    // The 101 itself may still be queued.
    let flushed = poll_fn(|cx| super::body::Sink::poll_flush(client, cx)).await;
    if flushed.is_ok() {
        let result: io::Result<()> = poll_fn(|cx| {
            if !up.done
                && let Poll::Ready(Err(error)) = up.poll(cx, &mut client.stream, &mut server.stream, worker)
            {
                return Poll::Ready(Err(error));
            }
            if !back.done
                && let Poll::Ready(Err(error)) = back.poll(cx, &mut server.stream, &mut client.stream, worker)
            {
                return Poll::Ready(Err(error));
            }
            // Neither has anything to pass on any more.
            if (up.done || up.deaf) && (back.done || back.deaf) {
                return Poll::Ready(Ok(()));
            }
            lease.poll_over(cx, &endpoint).map(Ok)
        })
        .await;
        if let Err(error) = result {
            tracing::debug!(%error, "tunnel broke off");
        }
        if !(up.done && back.done) {
            // In good order, TLS included: both sides see an end, not a reset. Closed with bytes unread it would be one,
            // which overtakes what was sent last.
            up.deaf = true;
            let ends = async {
                let _ = poll_fn(|cx| client.stream.poll_shutdown(cx)).await;
                let _ = poll_fn(|cx| server.stream.poll_shutdown(cx)).await;
                let _ = poll_fn(|cx| up.poll(cx, &mut client.stream, &mut server.stream, worker)).await;
            };
            let _ = tokio::time::timeout(FAREWELL, ends).await;
        }
    }
    (up.bytes, back.bytes)
}
