//! One byte stream, whatever carries it: plain TCP or TLS, from a client or towards a server.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::tcp;

/// No more than this has rustls read of a connection and not yet handed out: four records. Chosen.
const HELD_BY_TLS: u64 = 64 * 1024;

/// So much is looked at to find the end of a body. Chosen: more than systems keep of a connection by default.
const MOST_REST: usize = 8 << 20;

/// A connected socket. An enum rather than a type parameter: the forwarding code exists once.
pub(crate) enum Stream {
    Plain(TcpStream),
    Client(Box<tokio_rustls::server::TlsStream<Prefixed>>),
    Server(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Reads into `buf`; `Ok(0)` is the end of the stream.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(match self {
            Self::Plain(s) => return tcp::poll_recv(s, cx, buf.initialize_unfilled()),
            Self::Client(s) => Pin::new(s).poll_read(cx, &mut buf),
            Self::Server(s) => Pin::new(s).poll_read(cx, &mut buf),
        })?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Ready when a read would find something, as far as that is known without a buffer.
    ///
    /// Over TLS the socket says it: what rustls has already decrypted was handed out before.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_read_ready(cx)
    }

    /// Whether nothing has happened since it was last read empty. No system call.
    pub(crate) fn is_quiet(&self) -> bool {
        // Not so if rustls has read more than it was asked for: bytes that nobody took, or the peer's goodbye.
        let tls_is_quiet = match self {
            Self::Plain(_) => true,
            Self::Client(s) => s.get_ref().1.wants_read(),
            Self::Server(s) => s.get_ref().1.wants_read(),
        };
        tls_is_quiet && self.tcp().try_io(Interest::READABLE, || Ok(())).is_err()
    }

    /// Whether the peer has gone before it has sent so many bytes more than were read: it has reset the connection, or
    /// ended its direction without them.
    pub(crate) fn ends_before(&self, bytes: u64) -> bool {
        let tcp = self.tcp();
        if !tcp::has_ended(tcp) {
            return false;
        }
        let within = if matches!(self, Self::Plain(_)) { 0 } else { HELD_BY_TLS };
        let unread = rustix::io::ioctl_fionread(tcp).unwrap_or_default();
        unread.saturating_add(within) < bytes || !matches!(tcp.take_error(), Ok(None))
    }

    /// Whether there is something to read now, or nothing any more: events tell that later.
    pub(crate) fn has_more(&self) -> bool {
        let peeked = rustix::net::recv(self.tcp(), &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(peeked, Err(Errno::AGAIN))
    }

    /// All that there will be to read, once the peer has ended its direction. Not of TLS, and not where that is too much.
    pub(crate) fn rest(&self) -> Option<Vec<u8>> {
        let Self::Plain(tcp) = self else { return None };
        if !tcp::has_ended(tcp) {
            return None;
        }
        let unread = usize::try_from(rustix::io::ioctl_fionread(tcp).ok()?).ok()?;
        if unread > MOST_REST {
            return None;
        }
        let mut rest = vec![0; unread];
        // Nothing is left of what was reset.
        let peeked = rustix::net::recv(tcp, &mut *rest, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        rest.truncate(peeked.map_or(0, |(count, _)| count));
        Some(rest)
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Client(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Server(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(s) => tcp::poll_send(s, cx, bytes),
            Self::Client(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Server(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    /// Pushes what TLS has encrypted but not yet sent; nothing to do for plain TCP.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Client(s) => Pin::new(s).poll_flush(cx),
            Self::Server(s) => Pin::new(s).poll_flush(cx),
        }
    }

    /// Ends our side: `close_notify` over TLS, then FIN.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Client(s) => Pin::new(s).poll_shutdown(cx),
            Self::Server(s) => Pin::new(s).poll_shutdown(cx),
        }
    }

    /// Makes dropping it a reset, which no peer takes for an orderly end.
    pub(crate) fn reset_on_drop(&self) {
        // Fails on dead sockets only, which end by no orderly end anyway.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Where the client connected to, or where a connection to a server comes from.
    pub(crate) fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.tcp().local_addr()
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(s) => s,
            Self::Client(s) => &s.get_ref().0.inner,
            Self::Server(s) => s.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Client(s) => Pin::new(s).poll_read(cx, buf),
            Self::Server(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self, cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write_vectored(&mut self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown(&mut self, cx)
    }
}

/// A stream of which some bytes were already read, to find out what is spoken on it.
pub(crate) struct Prefixed<S = TcpStream> {
    prefix: Vec<u8>,
    taken: usize,
    inner: S,
}

impl<S> Prefixed<S> {
    pub(crate) fn new(prefix: Vec<u8>, inner: S) -> Self {
        Self { prefix, taken: 0, inner }
    }
}

impl Prefixed<TcpStream> {
    /// The address the client connected to.
    pub(crate) fn local_ip(&self) -> io::Result<IpAddr> {
        Ok(self.inner.local_addr()?.ip().to_canonical())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken < this.prefix.len() {
            let left = &this.prefix[this.taken..];
            let n = left.len().min(buf.remaining());
            buf.put_slice(&left[..n]);
            this.taken += n;
            if this.taken == this.prefix.len() {
                this.prefix = Vec::new();
                this.taken = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            // Nearly always there is one TLS record, and `send` costs less than `writev`.
            [one] => Pin::new(&mut self.inner).poll_write(cx, one),
            _ => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_has_gone_is_known_by_what_is_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = TcpStream::connect(address).await.unwrap();
        let stream = Stream::Plain(listener.accept().await.unwrap().0);
        peer.write_all(b"hello").await.unwrap();
        stream.tcp().readable().await.unwrap();
        assert!(!stream.ends_before(u64::MAX), "it may send more");
        peer.shutdown().await.unwrap();
        while !tcp::has_ended(stream.tcp()) {
            tokio::task::yield_now().await;
        }
        assert_eq!([4, 5, 6].map(|bytes| stream.ends_before(bytes)), [false, false, true]);
        socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        assert!(stream.ends_before(5), "it has reset the connection");
    }
}
