//! A server that has room for a request, and the wait for one where every server has its `maxConnections`.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use lb_core::balance::{Pick, Picked};
use tokio::time::Instant;

use super::Endpoint;
use super::failure::{Cause, Failure};
use crate::deadline::Deadline;
use crate::forward::Called;
use crate::http::downstream::Downstream;
use crate::snapshot::{Queue, Service};
use crate::worker::Worker;

/// Why no server was found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoRoom {
    /// No server is eligible.
    NoServer,
    /// All that are eligible are full, and so is the queue, or the wait was too long.
    Busy,
    ClientGone,
}

impl NoRoom {
    /// What becomes of the request; `last` is how an earlier try has failed.
    pub(crate) fn called<'a>(self, last: Option<(Failure, &'a Arc<Endpoint>)>) -> Called<'a> {
        match (self, last) {
            (Self::ClientGone, _) => Called::Failed(Failure::unsent(Cause::ClientGone), None),
            (Self::Busy, Some((failure, endpoint))) => Called::Failed(failure, Some(endpoint)),
            (Self::Busy, None) => Called::Busy,
            (Self::NoServer, _) => Called::NoServer,
        }
    }
}

/// Waits until a server has room, but no longer than the queue allows and the client cares.
///
/// With `follows` a reload counts at once: servers that it adds and limits that it raises are for those who wait. The
/// newer version of the service is returned with the server that it chose.
pub(crate) async fn wait<D: Downstream>(
    worker: &Rc<Worker>,
    service: &Service,
    queue: &Queue,
    pick: &Pick<'_>,
    follows: bool,
    down: &mut D,
) -> Result<(Picked, Option<Arc<Service>>), NoRoom> {
    if !service.live.is_available() {
        return Err(NoRoom::NoServer);
    }
    let Some(mut ticket) = service.live.queue(queue.settings.size, !pick.tried.is_empty()) else {
        worker.queue_refused(service, queue, "full");
        return Err(NoRoom::Busy);
    };
    let _counted = worker.metrics.queued(service.label);
    let mut deadline = Deadline::default();
    deadline.set(Instant::now(), Some(queue.settings.timeout));
    let mut newer: Option<Arc<Service>> = None;
    let waited = poll_fn(|cx| {
        if ticket.poll_turn(cx).is_ready() {
            if follows {
                worker.with_snapshot(|snapshot| {
                    let found = snapshot.service(&service.name);
                    // One that was away in between has a queue of its own, which wakes nobody here.
                    let is_newer = |found: &&Arc<Service>| {
                        !std::ptr::eq(&***found, service) && found.live.shares_queue(&service.live)
                    };
                    if let Some(found) = found.filter(is_newer) {
                        newer = Some(Arc::clone(found));
                    }
                });
            }
            let live = newer.as_ref().map_or(&service.live, |newer| &newer.live);
            if let Some(picked) = live.pick(pick) {
                return Poll::Ready(Ok((picked, newer.take())));
            }
            if !live.is_available() {
                return Poll::Ready(Err(NoRoom::NoServer));
            }
        }
        if down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(NoRoom::ClientGone));
        }
        deadline.poll(cx).map(|()| Err(NoRoom::Busy))
    })
    .await;
    if matches!(waited, Err(NoRoom::Busy)) {
        worker.queue_refused(service, queue, "timeout");
    }
    waited
}
