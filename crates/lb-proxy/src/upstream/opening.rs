//! Connections that are being opened to a server that takes several requests on one: those that come meanwhile wait for
//! them, as far as they will have room.
//!
//! Without this, as many requests as come together would open a connection each before the first one is ready.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::failure::Failure;

/// Those of one worker to one server.
#[derive(Default)]
pub(crate) struct Openings(RefCell<Vec<Rc<Opening>>>);

/// What a request does that finds no connection with room.
pub(crate) enum Turn {
    Open(Opener),
    Wait(Rc<Opening>),
}

pub(crate) struct Opening {
    /// Of the server, when it began.
    outages: u32,
    result: Cell<Option<Result<(), Failure>>>,
    over: Notify,
}

/// Held by the request that opens a connection; those that wait go on once it is dropped.
pub(crate) struct Opener {
    openings: Rc<Openings>,
    opening: Rc<Opening>,
}

impl Openings {
    /// The turn of a request, where one connection has `room` for so many.
    pub(crate) fn turn(self: &Rc<Self>, outages: u32, room: usize) -> Turn {
        let mut openings = self.0.borrow_mut();
        // Each request that waits holds it, so does the one that opens it, and so does the list. All before it are full.
        let has_room = |opening: &&Rc<Opening>| Rc::strong_count(opening) - 1 < room;
        match openings.last().filter(has_room).filter(|opening| opening.outages == outages) {
            Some(opening) => Turn::Wait(Rc::clone(opening)),
            None => {
                let opening = Rc::new(Opening { outages, result: Cell::default(), over: Notify::default() });
                openings.push(Rc::clone(&opening));
                Turn::Open(Opener { openings: Rc::clone(self), opening })
            }
        }
    }
}

impl Opening {
    /// What has come of it; `None` when the request that opened it was given up.
    pub(crate) async fn over(self: Rc<Self>) -> Option<Result<(), Failure>> {
        self.over.notified().await;
        self.result.get()
    }
}

impl Opener {
    pub(crate) fn done(self, result: Result<(), Failure>) {
        self.opening.result.set(Some(result));
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.openings.0.borrow_mut().retain(|opening| !Rc::ptr_eq(opening, &self.opening));
        self.opening.over.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::failure::Cause;
    use super::*;

    fn open(openings: &Rc<Openings>, outages: u32, room: usize) -> Opener {
        match openings.turn(outages, room) {
            Turn::Open(opener) => opener,
            Turn::Wait(_) => panic!("waits"),
        }
    }

    fn wait(openings: &Rc<Openings>, outages: u32, room: usize) -> Rc<Opening> {
        match openings.turn(outages, room) {
            Turn::Open(_) => panic!("opens"),
            Turn::Wait(opening) => opening,
        }
    }

    #[test]
    fn so_many_wait_for_a_connection_as_it_has_room_for() {
        let openings = Rc::new(Openings::default());
        let first = open(&openings, 0, 3);
        let mut waiting = vec![wait(&openings, 0, 3), wait(&openings, 0, 3)];
        let second = open(&openings, 0, 3);
        waiting.push(wait(&openings, 0, 3));
        // One has left, and another one takes the place.
        waiting.pop();
        waiting.push(wait(&openings, 0, 3));
        // What was begun before the server was taken out is nothing to wait for.
        let third = open(&openings, 1, 3);
        drop((first, second, third));
        drop(open(&openings, 0, 1));
        assert!(openings.0.borrow().is_empty());
    }

    #[test]
    fn those_who_wait_learn_what_has_come_of_it() {
        let failed = Failure::unsent(Cause::Connect);
        for result in [Some(Ok(())), Some(Err(failed)), None] {
            let openings = Rc::new(Openings::default());
            let opener = open(&openings, 0, usize::MAX);
            let mut waiting = pin!(wait(&openings, 0, usize::MAX).over());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            match result {
                Some(result) => opener.done(result),
                None => drop(opener),
            }
            let Poll::Ready(seen) = waiting.as_mut().poll(&mut cx) else { panic!("still waits") };
            let reason = |result: Result<(), Failure>| result.map_err(Failure::reason);
            assert_eq!(seen.map(reason), result.map(reason));
        }
    }
}
