//! The stream under h2: what it writes is gathered into few large writes, what it reads has gone through the [`Sieve`].
//!
//! h2 flushes after each DATA frame of some size: over TLS a record and a system call for each answer. The
//! connection's task knows better when there is nothing more to write for now, and pushes then.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2_sieve::Sieve;

/// As much as one TLS record holds (RFC 8446 section 5.1): a full buffer becomes exactly one.
const CAPACITY: usize = 16 * 1024;

/// A stream for h2; a clone of it stays with the connection's task, which calls [`Gathered::poll_push`].
pub(crate) struct Gathered<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    stream: S,
    sieve: Sieve,
    /// Allocated while something waits in it: an idle connection holds no buffer.
    waiting: Vec<u8>,
    pushed: usize,
    /// Bytes that the stream has taken since somebody asked.
    taken: usize,
    holds: bool,
    /// How often something came.
    reads: u64,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Flushes when h2 says so, until [`Self::hold`].
    pub(crate) fn new(stream: S, sieve: Sieve) -> Self {
        let inner = Inner { stream, sieve, waiting: Vec::new(), pushed: 0, taken: 0, holds: false, reads: 0 };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// From now on only a full buffer, [`Self::poll_push`] and the end of the connection write.
    pub(crate) fn hold(&self) {
        self.0.borrow_mut().holds = true;
    }

    /// Bytes that were written since this was last asked.
    pub(crate) fn written(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().taken)
    }

    /// How often something has come from the peer.
    pub(crate) fn reads(&self) -> u64 {
        self.0.borrow().reads
    }

    /// See [`Sieve::hold_settings`].
    pub(crate) fn hold_settings(&self) {
        self.0.borrow_mut().sieve.hold_settings();
    }

    /// See [`Sieve::let_go`].
    pub(crate) fn let_settings_go(&self) -> bool {
        self.0.borrow_mut().sieve.let_go()
    }

    /// Writes what waits. To be called whenever h2 has no more to do.
    pub(crate) fn poll_push(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pushed < self.waiting.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.pushed..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pushed += written;
            self.taken += written;
        }
        self.waiting = Vec::new();
        self.pushed = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes as many bytes as there is room for, at least one.
    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.waiting.len() == CAPACITY {
            ready!(self.poll_drain(cx))?;
        }
        self.waiting.reserve_exact(CAPACITY - self.waiting.len());
        let before = self.waiting.len();
        for buf in bufs {
            let room = CAPACITY - self.waiting.len();
            self.waiting.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        Poll::Ready(Ok(self.waiting.len() - before))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let read = inner.sieve.poll_read(&mut inner.stream, cx, buf);
        inner.reads += u64::from(read.is_ready());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.borrow().holds { Poll::Ready(Ok(())) } else { self.poll_push(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(cx))?;
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    async fn push(io: &Gathered<DuplexStream>) {
        std::future::poll_fn(|cx| io.poll_push(cx)).await.unwrap();
    }

    fn arrived(peer: &mut DuplexStream) -> usize {
        let mut buffer = [0; 3 * CAPACITY];
        let read = tokio::task::unconstrained(peer.read(&mut buffer));
        futures_now(read).unwrap_or_default()
    }

    /// What a read finds now.
    fn futures_now(read: impl Future<Output = io::Result<usize>>) -> Option<usize> {
        let mut read = std::pin::pin!(read);
        match read.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(read) => read.ok(),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_flush_writes_only_until_writes_are_held() {
        let (stream, mut peer) = duplex(4 * CAPACITY);
        let mut io = Gathered::new(stream, Sieve::default());
        io.write_all(b"hello").await.unwrap();
        io.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), 5);
        io.hold();
        for _ in 0..10 {
            io.write_all(b"hello").await.unwrap();
            io.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut peer), 0);
        push(&io).await;
        assert_eq!(arrived(&mut peer), 50);
        io.write_all(b"bye").await.unwrap();
        io.shutdown().await.unwrap();
        assert_eq!(arrived(&mut peer), 3);
    }

    #[tokio::test]
    async fn a_full_buffer_is_written_and_no_byte_is_lost_or_moved() {
        let (stream, mut peer) = duplex(1000);
        let mut io = Gathered::new(stream, Sieve::default());
        io.hold();
        let sent: Vec<u8> = (0..5 * CAPACITY).map(|i| (i % 251) as u8).collect();
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).await.map(|_| got)
        });
        for piece in sent.chunks(777) {
            io.write_all(piece).await.unwrap();
        }
        io.shutdown().await.unwrap();
        drop(io);
        assert_eq!(reader.await.unwrap().unwrap(), sent);
    }
}
