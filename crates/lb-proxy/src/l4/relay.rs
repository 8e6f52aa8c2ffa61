//! Bytes both ways between two connections, until both have ended.
//!
//! The end of one direction leaves the other alone; an abort is passed on as an abort, so that nobody takes half of
//! something for all of it.

use std::future::poll_fn;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use std::time::Duration;

use lb_config::tcp::TerminationDelay;
use tokio::time::Instant;

use crate::buffers::Buffers;
use crate::deadline::Deadline;
use crate::pump::{Direction, farewell};
use crate::stream::Stream;

/// Where no `terminationDelay` is written: once one side has ended, the other may be silent for so long. Chosen, as
/// many use for `timeout client-fin` of HAProxy.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);
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

/// Runs to the end. `first` of each was read already; `passed` counts bytes to the server, and back.
pub(super) async fn run(
    client: &mut Stream,
    server: &mut Stream,
    [first, first_back]: [Vec<u8>; 2],
    delay: Option<TerminationDelay>,
    buffers: &Buffers,
    passed: [&AtomicU64; 2],
) -> End {
    let mut up = Direction::new(first, passed[0], buffers);
    let mut back = Direction::new(first_back, passed[1], buffers);
    let mut deadline = Deadline::default();
    let mut half_closed = false;
    let end = poll_fn(|cx| {
        // Both, whatever the first says: each is woken by what it has asked.
        let upward = up.poll(cx, client, server);
        let backward = back.poll(cx, server, client);
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
        End::Done | End::Cut if !(up.done && back.done) => farewell(&mut up, (client, server)).await,
        End::Done | End::Cut => {}
    }
    end
}
