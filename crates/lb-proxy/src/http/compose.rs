//! Requests for services that are made of others.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use lb_http1::{Framing, Head};

use super::around::{behind, keep_body, without_body};
use super::downstream::Downstream as _;
use super::handle::{Passed, Reply, answered};
use super::local::Local;
use super::mirror::Copy;
use super::replay::Replay;
use super::traced;
use crate::composite::{self, Composite, Failover, Keeps, Kind, Node, Way};
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::forward;
use crate::passage::Passage;
use crate::snapshot::{Route, Service, Target};
use crate::worker::Worker;

/// What is behind the middlewares of `route`, once: a composite, or a part of one that has middlewares of its own.
pub(super) async fn pass<'r>(p: &mut Passage<'_, 'r, Replay<'_>>, route: &'r Route) -> Passed<'r> {
    let reached = route.middlewares.len();
    let composed = p.x.composed.get_or_insert_default();
    // Those of levels above are theirs; there are none of a try before this one.
    let cookies = composed.cookies.len();
    let (root, way) = match &route.target {
        Target::Composite(composite) => (Some(Arc::clone(composite)), composite.way(p.x, p.worker)),
        Target::Within(node) => {
            let root = composed.root.clone();
            let way = composite::way_through(root.as_deref(), node, p.x, p.worker);
            (root, way)
        }
        // Never: they are others' to lead to.
        Target::Service(_) | Target::Internal(_) | Target::Children(_) => {
            return Passed { reply: Reply::Gone, reached, failure: None };
        }
    };
    if p.framing.has_body()
        && let Some(Keeps { memory, most }) = way.keeps(p.framing)
        && let Err(unkept) = keep_body(p, memory, most).await
    {
        let reply = without_body(p, unkept).map_or(Reply::Gone, Reply::Local);
        return Passed { reply, reached, failure: None };
    }
    let passed = Walk { router: &route.name, reached, root: root.as_ref() }.go(p, way).await;
    stick(p.x, &passed, cookies);
    passed
}

/// Sets the cookies of the levels from here on.
fn stick(x: &mut Exchange, passed: &Passed<'_>, from: usize) {
    let Some(composed) = &mut x.composed else { return };
    // Middlewares on the way may have answered: the client comes back to the same ones.
    let has_answer = match passed.reply {
        Reply::Answer(_) | Reply::Whole(_) => true,
        Reply::Local(_) => passed.failure.is_none() && x.response.status() != 503,
        Reply::Gone => false,
    };
    let cookies = composed.cookies.drain(from..).filter(|_| has_answer);
    super::cookie::put_first(&mut x.response, cookies);
}

/// After the answer: mirrors get their copies, unless the client went away, as with Traefik; and nothing is kept.
pub(super) fn end(worker: &Rc<Worker>, connection: &Connection, x: &mut Exchange, client_gone: bool) {
    let Some(composed) = x.composed.take() else { return };
    for copy in composed.copies.into_iter().filter(|_| !client_gone) {
        copy.send(worker, connection);
    }
}

impl Way<'_> {
    /// How much of this body to read before it is sent on.
    fn keeps(&self, framing: Framing) -> Option<Keeps> {
        let keeps = match self {
            Self::Service(_) | Self::Chained(_) | Self::Nobody(_) => return None,
            Self::Failover(composite, _) => composite.keeps,
            Self::Mirroring(composite, ..) => composite.keeps,
        };
        // Else in vain: nobody would have use for a part of it.
        let fits = !matches!(framing, Framing::Length(length) if length > keeps.most);
        (fits && keeps.most > 0).then_some(keeps)
    }
}

/// The way of one request through a composite.
#[derive(Clone, Copy)]
pub(super) struct Walk<'w> {
    /// Name of the router, for those who read the log.
    pub(super) router: &'w str,
    /// Middlewares that the request has passed.
    pub(super) reached: usize,
    /// Where it began; `None`: at a service with middlewares of its own.
    pub(super) root: Option<&'w Arc<Composite>>,
}

impl<'w> Walk<'w> {
    /// Goes on to the end; boxed, since ways lead through each other.
    pub(super) fn go<'p, 'r>(
        self,
        p: &'p mut Passage<'_, 'r, Replay<'_>>,
        way: Way<'r>,
    ) -> Pin<Box<dyn Future<Output = Passed<'r>> + 'p>>
    where
        'r: 'p,
        'w: 'p,
    {
        Box::pin(async move {
            match way {
                Way::Service(service) => self.ask(p, service).await,
                Way::Chained(route) => {
                    p.x.composed.get_or_insert_default().root = self.root.cloned();
                    let passed = behind(p, route, 0).await;
                    Passed { reached: self.reached, ..passed }
                }
                Way::Failover(composite, failover) => self.fail_over(p, composite, failover).await,
                Way::Mirroring(composite, mirroring, number) => {
                    let copy = Copy::of(p, composite, mirroring, number);
                    let passed = self.through(p, &mirroring.main).await;
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

    /// The same, through a node.
    pub(super) async fn through<'r>(self, p: &mut Passage<'_, 'r, Replay<'_>>, node: &'r Node) -> Passed<'r> {
        let way = composite::way_through(self.root.map(|root| &**root), node, p.x, p.worker);
        self.go(p, way).await
    }

    /// An answer of our own.
    fn local<'r>(&self, response: &mut Head, local: Local) -> Passed<'r> {
        local.write_head(response);
        Passed { reply: Reply::Local(local.body), reached: self.reached, failure: None }
    }

    /// Asks the load balancer at the end of the way.
    async fn ask<'r>(self, p: &mut Passage<'_, 'r, Replay<'_>>, service: &'r Service) -> Passed<'r> {
        if p.outcome.asked.is_none() {
            let asked = if self.reached == 0 { p.x.started } else { p.worker.now() };
            p.outcome.asked = Some(asked);
            service.retries.budget.deposit(asked);
        }
        let called = forward::call(p, service).await;
        let (reply, failure) = answered(p, service, called);
        Passed { reply, reached: self.reached, failure }
    }

    /// Asks the first service, and the second one if no server of the first could be given the request, or the answer is
    /// one of those that count as none.
    async fn fail_over<'r>(
        self,
        p: &mut Passage<'_, 'r, Replay<'_>>,
        composite: &'r Composite,
        failover: &'r Failover,
    ) -> Passed<'r> {
        let (worker, errors) = (p.worker, failover.errors.as_ref());
        let kept = p.down.kept();
        if p.framing.has_body()
            && let Some(most) = errors.and_then(|errors| errors.max_request_body_bytes)
            && kept.is_none_or(|length| length > most as u64)
        {
            return self.local(&mut p.x.response, Local::plain(413, "Request body too large"));
        }
        let once = p.framing.has_body() && kept.is_none();
        let saved = (p.x.head.clone(), p.x.append_forwarded_for, p.x.detect_type);
        let held = (p.x.permits.len(), p.x.breakers.len());
        let outer = traced::outer(p.x);
        let cookies = p.x.composed.as_ref().map_or(0, |composed| composed.cookies.len());
        let passed = self.through(p, &failover.main).await;
        let status = p.x.response.status();
        let is_bad =
            errors.is_some_and(|e| e.status.iter().any(|(from, to)| (*from..=*to).contains(&status)));
        let is_unsent = passed.failure.is_some_and(|f| f.unsent && !f.body_begun && f.blames_server());
        let reason = match is_bad && !once && status != 101 {
            true => "status",
            false if is_unsent => "unsent",
            false => return passed,
        };
        if matches!(passed.reply, Reply::Gone) || !composite.has_fallback(failover) {
            return passed;
        }
        if let Reply::Answer(answer) = &passed.reply {
            p.x.tried_in_vain(answer.picked.index());
        }
        passed.reply.discard(p);
        worker.metrics.failed_over(composite.label, reason);
        if let Some(requests) = composite.failed_over.count(worker.now()) {
            tracing::info!(
                routerName = self.router,
                status,
                reason,
                requests,
                "the fallback is asked instead"
            );
        }
        // Middlewares of the first service have seen the end of it.
        p.x.settle(held, worker.now());
        (p.x.head, p.x.append_forwarded_for, p.x.detect_type) = saved;
        p.x.drop_answer();
        traced::leave(p.x, outer);
        p.x.tries = 0;
        p.outcome.endpoint = None;
        p.down.rewind();
        if let Some(composed) = &mut p.x.composed {
            composed.cookies.truncate(cookies);
        }
        self.through(p, &failover.fallback).await
    }
}
