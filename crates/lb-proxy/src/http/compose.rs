//! Requests for services that are made of others.

use super::downstream::Downstream;
use super::handle::{Passed, Reply, answered, unavailable};
use crate::composite::Composite;
use crate::forward;
use crate::passage::Passage;
use crate::snapshot::{Route, Service};

/// What is behind the middlewares of `route`, once.
pub(super) async fn pass<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    route: &'r Route,
    composite: &'r Composite,
) -> Passed<'r> {
    let reached = route.middlewares.len();
    if let Some(composed) = &mut p.x.composed {
        // Of a try before this one.
        composed.cookies.clear();
    }
    let worker = p.worker;
    let Some(service) = composite.resolve(p.x, || worker.random()) else {
        let body = unavailable(&mut p.x.response, composite.retry_after);
        return Passed { reply: Reply::Local(body), reached, failure: None };
    };
    ask(p, route, service).await
}

/// Asks the load balancer at the end of the way.
async fn ask<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    route: &'r Route,
    service: &'r Service,
) -> Passed<'r> {
    if p.outcome.asked.is_none() {
        let asked = if route.middlewares.is_empty() { p.x.started } else { p.worker.now() };
        p.outcome.asked = Some(asked);
        service.retries.budget.deposit(asked);
    }
    let called = forward::call(p, service).await;
    let (reply, failure) = answered(p, service, called);
    if let (Reply::Answer(_), Some(composed)) = (&reply, &mut p.x.composed) {
        for cookie in composed.cookies.drain(..) {
            p.x.response.append("Set-Cookie", cookie.as_bytes());
        }
    }
    Passed { reply, reached: route.middlewares.len(), failure }
}
