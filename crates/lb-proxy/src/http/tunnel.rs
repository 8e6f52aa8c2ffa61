//! Two connections as one, after a protocol switch: bytes pass both ways until both ends are done.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use super::h1::H1;
use crate::forward::Held;
use crate::pump::{Direction, farewell};
use crate::worker::Worker;

/// Runs the tunnel to its end, or to that of its server's drain time; bytes from the client and from the server.
pub(crate) async fn run(
    client: &mut H1,
    server: &mut H1,
    worker: &Rc<Worker>,
    (mut lease, endpoint): Held,
) -> (u64, u64) {
    let passed = [AtomicU64::new(0), AtomicU64::new(0)];
    {
        let mut up = Direction::new(client.buffered().to_vec(), &passed[0], &worker.buffers);
        let mut back = Direction::new(server.buffered().to_vec(), &passed[1], &worker.buffers);
        // The 101 itself may still be queued.
        if poll_fn(|cx| super::body::Sink::poll_flush(client, cx)).await.is_err() {
            return (0, 0);
        }
        let (client, server) = (&mut client.stream, &mut server.stream);
        let result: io::Result<()> = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = up.poll(cx, client, server) {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(Err(error)) = back.poll(cx, server, client) {
                return Poll::Ready(Err(error));
            }
            // Neither has anything to pass on any more.
            if up.is_over() && back.is_over() {
                return Poll::Ready(Ok(()));
            }
            lease.poll_over(cx, &endpoint).map(Ok)
        })
        .await;
        if let Err(error) = result {
            tracing::debug!(%error, "tunnel broke off");
        }
        if !(up.done && back.done) {
            farewell(&mut up, (client, server)).await;
        }
    }
    let [up, back] = passed.map(AtomicU64::into_inner);
    (up, back)
}
