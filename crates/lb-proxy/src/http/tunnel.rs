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
    done: bool,
    bytes: u64,
}

impl Direction {
    fn new(first: &[u8]) -> Self {
        Self { buffer: first.to_vec(), start: 0, end: first.len(), eof: false, done: false, bytes: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        worker: &Worker,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.start < self.end {
                let count = ready!(to.poll_write(cx, &self.buffer[self.start..self.end]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += count;
                self.bytes += count as u64;
            }
            ready!(to.poll_flush(cx))?;
            if self.eof {
                ready!(to.poll_shutdown(cx))?;
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
            if up.done && back.done {
                return Poll::Ready(Ok(()));
            }
            lease.poll_over(cx, &endpoint).map(Ok)
        })
        .await;
        match result {
            Err(error) => tracing::debug!(%error, "tunnel broke off"),
            Ok(()) if up.done && back.done => {}
            // In good order, TLS included: both sides see an end, not a reset.
            Ok(()) => {
                let ends = async {
                    let _ = poll_fn(|cx| client.stream.poll_shutdown(cx)).await;
                    let _ = poll_fn(|cx| server.stream.poll_shutdown(cx)).await;
                };
                let _ = tokio::time::timeout(FAREWELL, ends).await;
            }
        }
    }
    (up.bytes, back.bytes)
}
