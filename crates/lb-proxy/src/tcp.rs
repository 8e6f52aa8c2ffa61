//! Plain TCP with as few instructions as the system allows.
//!
//! tokio's own calls go through libc, where `recv` and `send` are cancellation points: four locked instructions per
//! request of which nothing comes here. Readiness stays tokio's.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads into `buf`, which is not empty; 0 is the end of the stream.
pub(crate) fn poll_recv(tcp: &TcpStream, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_read_ready(cx))?;
        let mut received = None;
        let read = tcp.try_io(Interest::READABLE, || {
            let (count, _) = rustix::net::recv(tcp, &mut *buf, RecvFlags::empty())?;
            received = Some(count);
            // What is not filled has emptied the socket: to say so now saves the call that would find it out.
            if (1..buf.len()).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, read) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if is_transient(&error) => {}
            (None, read) => return Poll::Ready(read.map(|()| 0)),
        }
    }
}

/// Whether the peer has ended its side or reset the connection, whatever it has sent before. No system call.
pub(crate) fn has_ended(tcp: &TcpStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = pin!(tcp.ready(Interest::READABLE)).poll(&mut cx);
    matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

/// Sends some of `bytes`.
pub(crate) fn poll_send(tcp: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        let mut sent = None;
        let wrote = tcp.try_io(Interest::WRITABLE, || {
            let count = rustix::net::send(tcp, bytes, SendFlags::NOSIGNAL)?;
            sent = Some(count);
            if (1..bytes.len()).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (sent, wrote) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if is_transient(&error) => {}
            (None, wrote) => return Poll::Ready(wrote.map(|()| 0)),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
