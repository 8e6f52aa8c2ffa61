//! Routers behind routers: a request that has passed the middlewares of one is routed again, as they have left it.

use std::sync::Arc;

use lb_observe::metrics::LabelId;

use super::around::behind;
use super::compose;
use super::handle::{Passed, Query, Reply, ask, complete_path, pass};
use super::local::Local;
use super::replay::Replay;
use super::traced;
use crate::passage::Passage;
use crate::snapshot::{Children, Route, Target};

/// A router that led a request on to another one, for whoever counts and logs it.
pub(crate) struct Above {
    pub(crate) name: Arc<str>,
    pub(crate) label: LabelId,
    pub(crate) service: LabelId,
    pub(crate) access_log: bool,
    pub(crate) metrics: bool,
}

impl Above {
    fn of(route: &Route) -> Self {
        let Route { label, service, access_log, metrics, .. } = *route;
        Self { name: Arc::clone(&route.name), label, service, access_log, metrics }
    }
}

/// The chain from `from` on, in which nothing has a hand in what is behind it, and what is behind.
pub(super) async fn rest<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    from: usize,
) -> Passed<'r> {
    match &route.target {
        Target::Children(children) => return descend(p, route, from, children).await,
        Target::Service(_) | Target::Internal(_) => return pass(p, route, from).await,
        Target::Composite(_) | Target::Within(_) => {}
    }
    if let Some((reached, body)) = ask(p.worker, p.x, route, from..route.middlewares.len()).await {
        return Passed { reply: Reply::Local(body), reached, failure: None };
    }
    complete_path(p.x);
    Box::pin(compose::pass(p, route)).await
}

async fn descend<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    from: usize,
    children: &'r Children,
) -> Passed<'r> {
    // Of a try before this one there may be more.
    p.outcome.route = Some(route);
    let above = &mut p.x.composed.get_or_insert_default().above;
    if let Some(depth) = above.iter().position(|above| above.name == route.name) {
        above.truncate(depth);
    }
    let chain = &route.middlewares;
    if let Some((reached, body)) = ask(p.worker, p.x, route, from..chain.len()).await {
        return Passed { reply: Reply::Local(body), reached, failure: None };
    }
    complete_path(p.x);
    let reached = chain.len();
    let Some(child) = children.find(&Query::new(p.x)) else {
        // There is no way back to other routers.
        let local = Local::plain(404, "404 page not found");
        local.write_head(&mut p.x.response);
        return Passed { reply: Reply::Local(local.body), reached, failure: None };
    };
    p.x.composed.get_or_insert_default().above.push(Above::of(route));
    p.outcome.route = Some(child);
    traced::descend(p.worker, p.x, child);
    let passed = Box::pin(behind(p, child, 0)).await;
    Passed { reached, ..passed }
}
