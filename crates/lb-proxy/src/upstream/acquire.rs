//! A connection for a request: an idle one, a place on a shared one, or a new one.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_core::balance::Picked;
use tokio::time::Instant;

use super::Endpoint;
use super::connect::{self, Spoken};
use super::failure::{Cause, Failure};
use super::h2::Shared;
use super::opening::Turn;
use super::private::Private;
use super::up::Up;
use crate::http::h1::H1;
use crate::worker::Worker;

/// How often, and how long, a request waits for a file descriptor: 2 s in all. Chosen.
const SHORTAGE_WAITS: u32 = 40;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// So often a request waits for a connection that others open, and has then found it full: the first one says how many
/// requests there is room for, and servers may change that. Chosen.
const MOST_WAITS: u32 = 4;

/// One that is there already: the client's own before any that is free for all. For a request that can be sent only
/// `once`, what waits unread on it is asked of the system.
pub(crate) async fn reuse(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    outages: u32,
    upgrade: bool,
    private: Option<&Private>,
    once: bool,
) -> Option<Up> {
    if !upgrade && let Some(up) = share(worker, endpoint, outages).await {
        return Some(up);
    }
    let now = Instant::from_std(worker.recently());
    let own = private.and_then(|private| private.take(endpoint, outages, now, once));
    own.or_else(|| worker.pools.take(endpoint, outages, now, once)).map(Up::H1)
}

/// A new one, or a place on one that others are opening; given up once its server has been taken out.
pub(crate) async fn open(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    picked: Option<&Picked>,
    upgrade: bool,
) -> Result<Up, Failure> {
    if upgrade {
        return open_one(worker, endpoint, picked, upgrade).await;
    }
    let outages = picked.map_or(0, |picked| picked.server().outages());
    let mut waits = 0;
    let mut opener = None;
    while waits < MOST_WAITS {
        match worker.pools.turn(endpoint, outages) {
            Some(Turn::Wait(opening)) => match opening.over().await {
                Some(Ok(())) => waits += 1,
                Some(Err(failure)) => return Err(failure),
                None => {}
            },
            Some(Turn::Open(own)) => {
                opener = Some(own);
                break;
            }
            None => break,
        }
        if let Some(up) = share(worker, endpoint, outages).await {
            return Ok(up);
        }
    }
    let opened = open_one(worker, endpoint, picked, upgrade).await;
    worker.pools.opened(endpoint, &opened);
    if let Some(opener) = opener {
        opener.done(opened.as_ref().map(drop).map_err(|failure| *failure).or_else(|failure| {
            // That was about this request's place.
            if failure.cause == Cause::WentAway { Ok(()) } else { Err(failure) }
        }));
    }
    opened
}

async fn open_one(
    worker: &Rc<Worker>,
    endpoint: &Arc<Endpoint>,
    picked: Option<&Picked>,
    upgrade: bool,
) -> Result<Up, Failure> {
    let outages = || picked.map_or(0, |picked| picked.server().outages());
    let before = outages();
    let is_replaced = || worker.with_snapshot(|snapshot| snapshot.replaces(endpoint));
    let is_wanted = || outages() == before && !(endpoint.is_retired() && is_replaced());
    let mut waits = 0;
    let (stream, spoken) = loop {
        match connect::connect(endpoint, upgrade, is_wanted).await {
            Err(failure) if failure.cause == Cause::Shortage && waits < SHORTAGE_WAITS => {
                waits += 1;
                worker.shed_idle();
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            connected => break connected?,
        }
    };
    match spoken {
        Spoken::Http1 => {
            let mut connection = H1::new(stream, Rc::clone(&worker.buffers));
            connection.counted = Some(worker.shard.connection(endpoint.service_label));
            Ok(Up::H1(Box::new(connection)))
        }
        Spoken::Http2 => {
            let counted = worker.shard.connection(endpoint.service_label);
            let shared = Shared::handshake(stream, &endpoint.transport.settings, counted).await?;
            worker.pools.share(endpoint, before, shared);
            share(worker, endpoint, before).await.ok_or(Failure::unsent(Cause::WentAway))
        }
    }
}

/// A stream on a connection that is there already.
async fn share(worker: &Worker, endpoint: &Endpoint, outages: u32) -> Option<Up> {
    let stream = worker.pools.place(endpoint, outages)?.ready().await?;
    Some(Up::H2(Box::new(stream)))
}
