//! Requests for services that are made of others.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use lb_http1::{Framing, Head};

use super::around::{keep_body, without_body};
use super::downstream::Downstream;
use super::handle::{Passed, Reply, answered};
use super::local::Local;
use super::mirror::Copy;
use crate::composite::{Composite, Failover, Kind, Way};
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::forward;
use crate::passage::Passage;
use crate::snapshot::{Route, Service};
use crate::worker::Worker;

/// What is behind the middlewares of `route`, once.
pub(super) async fn pass<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    route: &'r Route,
    composite: &'r Arc<Composite>,
) -> Passed<'r> {
    let composed = p.x.composed.get_or_insert_default();
    // Of a try before this one.
    composed.cookies.clear();
    let way = composite.way(p.x, p.worker);
    let reached = route.middlewares.len();
    let most = if p.framing.has_body() { way.keeps(p.framing) } else { 0 };
    if most > 0
        && let Err(unkept) = keep_body(p, most, most as u64).await
    {
        let reply = without_body(p, unkept).map_or(Reply::Gone, Reply::Local);
        return Passed { reply, reached, failure: None };
    }
    let passed = Walk { router: &route.name, reached, root: composite }.go(p, way).await;
    stick(p.x, &passed);
    passed
}

/// Sets the cookies of all levels.
fn stick(x: &mut Exchange, passed: &Passed<'_>) {
    if let (Reply::Answer(_), Some(composed)) = (&passed.reply, &mut x.composed) {
        for cookie in composed.cookies.drain(..) {
            x.response.append("Set-Cookie", cookie.as_bytes());
        }
    }
}

/// After the answer: mirrors get their copies, unless the client went away, as with Traefik; and nothing is kept.
pub(super) fn end(worker: &Rc<Worker>, connection: &Connection, x: &mut Exchange, client_gone: bool) {
    let Some(composed) = x.composed.take() else { return };
    for copy in composed.copies.into_iter().filter(|_| !client_gone) {
        copy.send(worker, connection);
    }
}

impl Way<'_> {
    /// Bytes of this body to read before it is sent on; 0: none.
    fn keeps(&self, framing: Framing) -> usize {
        let keeps = match self {
            Self::Service(_) | Self::Nobody(_) => return 0,
            Self::Failover(composite, _) => composite.keeps,
            Self::Mirroring(composite, ..) => composite.keeps,
        };
        match framing {
            // In vain: nobody would have use for a part of it.
            Framing::Length(length) if length > keeps as u64 => 0,
            _ => keeps,
        }
    }
}

/// The way of one request through a composite.
#[derive(Clone, Copy)]
pub(super) struct Walk<'r> {
    /// Name of the router, for those who read the log.
    pub(super) router: &'r str,
    /// Middlewares that the request has passed.
    pub(super) reached: usize,
    pub(super) root: &'r Composite,
}

impl<'r> Walk<'r> {
    /// Goes on to the end; boxed, since ways lead through each other.
    pub(super) fn go<'p, D: Downstream>(
        self,
        p: &'p mut Passage<'_, 'r, D>,
        way: Way<'r>,
    ) -> Pin<Box<dyn Future<Output = Passed<'r>> + 'p>>
    where
        'r: 'p,
    {
        Box::pin(async move {
            match way {
                Way::Service(service) => self.ask(p, service).await,
                Way::Failover(composite, failover) => self.fail_over(p, composite, failover).await,
                Way::Mirroring(composite, mirroring, number) => {
                    let copy = Copy::of(p, composite, mirroring, number);
                    let way = self.root.way_through(&mirroring.main, p.x, p.worker);
                    let passed = self.go(p, way).await;
                    p.x.composed.get_or_insert_default().copies.extend(copy);
                    passed
                }
                Way::Nobody(composite) => {
                    let text = match composite.kind {
                        Kind::Failover(_) => "Service Unavailable",
                        Kind::Spread { .. } | Kind::Mirroring(_) => "no available server",
                    };
                    let local = Local::plain(503, text);
                    self.local(
                        &mut p.x.response,
                        local.with("Retry-After", composite.retry_after.to_string()),
                    )
                }
            }
        })
    }

    /// An answer of our own.
    fn local(&self, response: &mut Head, local: Local) -> Passed<'r> {
        local.write_head(response);
        Passed { reply: Reply::Local(local.body), reached: self.reached, failure: None }
    }

    /// Asks the load balancer at the end of the way.
    async fn ask<D: Downstream>(self, p: &mut Passage<'_, 'r, D>, service: &'r Service) -> Passed<'r> {
        if p.outcome.asked.is_none() {
            let asked = if self.reached == 0 { p.x.started } else { p.worker.now() };
            p.outcome.asked = Some(asked);
            service.retries.budget.deposit(asked);
        }
        let called = forward::call(p, service).await;
        let (reply, failure) = answered(p, service, called);
        Passed { reply, reached: self.reached, failure }
    }

    /// Asks the first service, and the second one if the answer is one of those that count as none.
    async fn fail_over<D: Downstream>(
        self,
        p: &mut Passage<'_, 'r, D>,
        composite: &'r Composite,
        failover: &'r Failover,
    ) -> Passed<'r> {
        let worker = p.worker;
        let Some(errors) = &failover.errors else {
            return self.local(&mut p.x.response, Local::status_text(500));
        };
        let kept = p.down.kept();
        if p.framing.has_body()
            && let Some(most) = errors.max_request_body_bytes
            && kept.is_none_or(|length| length > most as u64)
        {
            return self.local(&mut p.x.response, Local::plain(413, "Request body too large"));
        }
        let once = p.framing.has_body() && kept.is_none();
        let saved = p.x.head.clone();
        let cookies = p.x.composed.as_ref().map_or(0, |composed| composed.cookies.len());
        let way = self.root.way_through(&failover.main, p.x, worker);
        let passed = self.go(p, way).await;
        let status = p.x.response.status();
        let is_good = !errors.status.iter().any(|(from, to)| (*from..=*to).contains(&status));
        let ends = once || is_good || status == 101 || matches!(passed.reply, Reply::Gone);
        if ends || !composite.has_fallback(failover) {
            return passed;
        }
        if let Reply::Answer(answer) = &passed.reply {
            p.x.tried_in_vain(answer.picked.index());
        }
        drop(passed);
        worker.metrics.failed_over(composite.label, "status");
        tracing::info!(routerName = self.router, status, "the fallback is asked instead");
        p.x.head.clone_from(&saved);
        p.x.response.clear();
        p.x.tries = 0;
        p.outcome.endpoint = None;
        p.down.rewind();
        if let Some(composed) = &mut p.x.composed {
            composed.cookies.truncate(cookies);
        }
        let way = self.root.way_through(&failover.fallback, p.x, worker);
        self.go(p, way).await
    }
}
