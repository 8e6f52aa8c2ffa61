//! Chains with middlewares that have a hand in what is behind them: `retry` runs it again, `errors` replaces its answer,
//! `forwardAuth` lets nobody get there before somebody else was asked.

use std::future::poll_fn;
use std::sync::Arc;

use lb_config::dynamic::Retry;
use lb_http1::{Framing, Head};

use super::authorize::{Refusal, authorize, refuse};
use super::body::MOST_KEPT;
use super::buffering::buffered;
use super::downstream::{Downstream, Unkept};
use super::grpc_web;
use super::handle::{Passed, Reply, ask, send, unwind};
use super::layers::rest;
use super::local::Local;
use super::pages::{self, Before};
use super::replay::Replay;
use super::traced;
use crate::exchange::Exchange;
use crate::forward;
use crate::middleware::{ForwardAuth, Middleware};
use crate::passage::Passage;
use crate::snapshot::{Route, Service, Target};
use crate::upstream::failure::{Cause, Failure};

/// Runs a chain whose first such middleware is at `at`, if there is one, and sends what comes of it.
pub(super) async fn run<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    route: &'r Route,
    at: Option<usize>,
) -> bool {
    let Passage { worker, connection, framing, patience, renewed, .. } = *p;
    let (x, outcome) = (&mut *p.x, &mut *p.outcome);
    let mut replay = Replay::new(&mut *p.down);
    let mut p = Passage { worker, connection, x, down: &mut replay, framing, patience, outcome, renewed };
    let mut passed = match at {
        Some(at) => stage(&mut p, route, 0, at).await,
        None => rest(&mut p, route, 0).await,
    };
    unwind(p.x, &route.middlewares[..passed.reached]);
    send(&mut p, &mut passed.reply).await
}

/// The chain from `from` on. The middlewares before `at`, where one of those is, have not seen the answer yet.
async fn stage<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    from: usize,
    at: usize,
) -> Passed<'r> {
    let chain = &route.middlewares;
    if let Some((reached, body)) = ask(p.worker, p.x, route, from..at).await {
        return Passed { reply: Reply::Local(body), reached, failure: None };
    }
    // A `retry` has a span for each try.
    if !matches!(chain[at], Middleware::Retry(_)) {
        traced::enter(p.worker, p.x, route, at);
    }
    let passed = match &chain[at] {
        Middleware::Retry(retry) => retried(p, route, (at, retry)).await,
        Middleware::Buffering(options) => Box::pin(buffered(p, route, (at, options))).await,
        Middleware::Errors(errors) => {
            let before = Before::of(p.x);
            let passed = behind(p, route, at + 1).await;
            pages::replace(p, errors, &before, passed).await
        }
        Middleware::GrpcWeb(web) => Box::pin(grpc_web::stage(p, route, (at, web))).await,
        Middleware::ForwardAuth(auth) => match Box::pin(authorized(p, auth)).await {
            Ok(()) => {
                let passed = behind(p, route, at + 1).await;
                chain[at].on_response(p.x);
                passed
            }
            Err(refusal) => refused(at, refusal),
        },
        _ => behind(p, route, at + 1).await,
    };
    Passed { reached: passed.reached.min(at), ..passed }
}

/// The chain from `from` on, whose middlewares have seen the answer.
pub(super) async fn behind<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    from: usize,
) -> Passed<'r> {
    let chain = &route.middlewares;
    let passed = match chain[from..].iter().position(Middleware::wraps) {
        None => rest(p, route, from).await,
        Some(next) => Box::pin(stage(p, route, from, from + next)).await,
    };
    unwind(p.x, &chain[from..passed.reached.max(from)]);
    passed
}

/// Keeps the body, up to `memory` bytes in memory; returns whether it is no longer than `most` bytes.
pub(super) async fn keep_body<D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    memory: usize,
    most: u64,
) -> Result<bool, Unkept> {
    if lb_http1::expects_continue(&p.x.head) {
        let mut head = Head::new();
        head.set_status(100);
        let _ = p.down.inform(&head);
        p.x.head.remove("expect");
    }
    let read = poll_fn(|cx| p.down.poll_keep(cx, memory, most));
    match p.patience.read_by {
        Some(by) => {
            tokio::time::timeout_at(by, read).await.unwrap_or(Err(Unkept::Client(Cause::ClientTimeout)))
        }
        None => read.await,
    }
}

/// The answer to a client whose body cannot be had.
pub(super) fn without_body<D>(p: &mut Passage<'_, '_, D>, unkept: Unkept) -> Refusal {
    let local = match unkept {
        Unkept::Client(Cause::ClientGone) => return None,
        Unkept::Client(cause) => Local::status_text(Failure::unsent(cause).status()),
        Unkept::File(error) => {
            tracing::warn!(%error, "a body cannot be kept in a temporary file");
            Local::status_text(500)
        }
    };
    local.write_head(&mut p.x.response);
    Some(local.body)
}

/// Asks an auth server whether the request may go on.
async fn authorized(p: &mut Passage<'_, '_, Replay<'_>>, auth: &ForwardAuth) -> Result<(), Refusal> {
    // What is behind the body comes too late to be looked at, and may not say what only the auth server can.
    p.down.drop_trailers();
    if !(auth.options.forward_body && p.framing.has_body()) {
        return authorize(p, auth, &[]).await;
    }
    let most = auth.options.max_body_bytes;
    let announced = matches!(p.framing, Framing::Length(length) if length > most as u64);
    let fits = if announced { Ok(false) } else { keep_body(p, most, most as u64).await };
    if !fits.map_err(|unkept| without_body(p, unkept))? {
        return Err(too_large(p, auth));
    }
    let body = p.down.copy().await.map_err(|error| without_body(p, Unkept::File(error)))?;
    authorize(p, auth, &body).await
}

fn too_large<D>(p: &mut Passage<'_, '_, D>, auth: &ForwardAuth) -> Refusal {
    auth.count("too_large", None);
    traced::failed(p.x, "The request's body is too large");
    Some(refuse(p.x, 401))
}

fn refused<'r>(at: usize, refusal: Refusal) -> Passed<'r> {
    Passed { reply: refusal.map_or(Reply::Gone, Reply::Local), reached: at, failure: None }
}

async fn retried<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    (at, retry): (usize, &Retry),
) -> Passed<'r> {
    // When a status comes, or a server has begun to work, the body is gone, so it is kept, unless it will be in time. Rare
    // enough to have its own allocation.
    let kept_later = route.middlewares[at..].iter().any(|other| matches!(other, Middleware::Buffering(_)));
    let for_status = !retry.status.is_empty() && may_repeat(retry, p.x.head.method());
    let is_short = matches!(p.framing, Framing::Length(length) if length <= MOST_KEPT as u64);
    let for_error = !retry.disable_retry_on_network_error
        && is_short
        && forward::is_idempotent(p.x.head.method())
        && !lb_http1::expects_continue(&p.x.head);
    let keeps = p.framing.has_body() && (for_status || for_error) && !kept_later;
    let most = retry.max_request_body_bytes;
    if keeps && let Err(unkept) = Box::pin(keep_body(p, most, most as u64)).await {
        return refused(at, without_body(p, unkept));
    }
    attempts(p, route, (at, retry)).await
}

/// The service that was asked last.
pub(super) fn asked<'a>(x: &'a Exchange, route: &'a Route) -> Option<&'a Arc<Service>> {
    match &route.target {
        Target::Service(service) => Some(service),
        Target::Composite(_) | Target::Within(_) => {
            x.composed.as_ref().and_then(|composed| composed.service())
        }
        Target::Internal(_) | Target::Children(_) => None,
    }
}

/// The methods for which a status makes a retry.
fn may_repeat(retry: &Retry, method: &str) -> bool {
    retry.retry_non_idempotent_method || !matches!(method, "POST" | "PATCH" | "LOCK")
}

/// What is behind the retry middleware at `at`, until it is answered well or no try is left.
async fn attempts<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    (at, retry): (usize, &Retry),
) -> Passed<'r> {
    let worker = p.worker;
    let held = (p.x.permits.len(), p.x.breakers.len());
    let saved = p.x.head.clone();
    let began = worker.now();
    let mut tries = 1;
    let outer = traced::outer(p.x);
    loop {
        traced::retry(worker, p.x, route.middleware_name(at), tries - 1, outer);
        let passed = behind(p, route, at + 1).await;
        let by_error = passed.failure.filter(|failure| {
            let harmless = failure.unsent || forward::is_idempotent(saved.method());
            harmless && failure.blames_server() && !retry.disable_retry_on_network_error
        });
        // Whoever answered: a server, or Vigie for it.
        let by_status = !matches!(passed.reply, Reply::Gone)
            && p.x.response.status() != 101
            && may_repeat(retry, saved.method())
            && retry.status.iter().any(|(from, to)| (*from..=*to).contains(&p.x.response.status()));
        let late = retry.timeout.is_some_and(|most| worker.now().duration_since(began) >= most);
        let repeatable = match by_error {
            // Of a body that was not kept nothing is missing only while nothing of it was sent.
            Some(failure) if failure.unsent && !failure.body_begun => true,
            _ => (by_error.is_some() || by_status) && (!p.framing.has_body() || p.down.kept().is_some()),
        };
        let asked = asked(p.x, p.outcome.route.unwrap_or(route));
        let allowed = || match (asked, by_error) {
            (Some(service), Some(failure)) => worker.may_retry(service, p.x.tries, &failure.reason()),
            (Some(service), None) => worker.may_retry(service, p.x.tries, &p.x.response.status()),
            (None, _) => true,
        };
        if !repeatable || late || tries >= retry.attempts || !allowed() {
            return passed;
        }
        // A page's server is none of those to choose from.
        if let Some(server) = asked.and_then(|service| passed.reply.server(service)) {
            p.x.tried_in_vain(server);
        }
        passed.reply.discard(p);
        // The limits and breakers that are behind the retry count each try for itself.
        p.x.settle(held, worker.now());
        let delay =
            lb_core::backoff::delay(tries - 1, retry.attempts, retry.initial_interval, worker.random());
        if !delay.is_zero() {
            Box::pin(tokio::time::sleep(delay)).await;
        }
        tries += 1;
        p.x.head.clone_from(&saved);
        p.x.drop_answer();
        p.down.rewind();
    }
}
