//! Services made of other services, as the data plane uses them: which load balancer a request ends up at.
//!
//! A composite has no live state but whose turn it is: whether a child is up is asked of the load balancers at the
//! bottom, each of which exists once, whoever leads to it.

use std::sync::Arc;

use lb_config::dynamic::{FailoverErrors, StickyCookie};
use lb_core::balance::{Children, Choice, CookieMatch, Mirrored, is_mirrored};
use lb_core::sticky;
use lb_observe::metrics::LabelId;
use smallvec::SmallVec;

use crate::exchange::Exchange;
use crate::http::cookie::set_cookie;
use crate::http::layers::Above;
use crate::http::mirror::Copy;
use crate::report::Report;
use crate::snapshot::{Route, Service};
use crate::worker::Worker;

/// A service that others answer for.
pub(crate) struct Composite {
    pub(crate) label: LabelId,
    pub(crate) kind: Kind,
    /// It minds the health of its children.
    pub(crate) health_check: bool,
    /// Every load balancer below, with the label of its requests that came this way.
    pub(crate) leaves: Box<[(Arc<Service>, LabelId)]>,
    /// Services inside each other.
    pub(crate) height: usize,
    /// Ways down to them: what a look at the health of all of it may cost.
    pub(crate) ways: usize,
    /// Seconds after which a client may hope for a child when none is up.
    pub(crate) retry_after: u64,
    /// What something here or below may want a second time.
    pub(crate) keeps: Keeps,
    /// Requests that the fallback has got instead.
    pub(crate) failed_over: Report,
}

/// How much of a request's body is read before it is sent on, so that it can be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keeps {
    /// Bytes in memory; the rest goes to a temporary file.
    pub(crate) memory: usize,
    /// Bytes of a body that is kept at all.
    pub(crate) most: u64,
}

impl Keeps {
    fn up_to(most: Option<usize>) -> Self {
        Self { memory: most.unwrap_or(KEPT).min(KEPT), most: most.map_or(u64::MAX, |most| most as u64) }
    }

    /// What does for both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { memory: self.memory.max(other.memory), most: self.most.max(other.most) }
    }
}

pub(crate) enum Kind {
    /// `weighted` and `highestRandomWeight`.
    Spread {
        children: Box<[Child]>,
        choice: Children,
        sticky: Option<StickyCookie>,
    },
    Failover(Failover),
    Mirroring(Mirroring),
}

pub(crate) struct Mirroring {
    pub(crate) main: Node,
    /// With their percents.
    pub(crate) mirrors: Box<[(Node, u8)]>,
    /// Copies have the body, up to so many bytes if the user says so.
    pub(crate) body: bool,
    pub(crate) most: Option<usize>,
    pub(crate) requests: Mirrored,
}

pub(crate) struct Failover {
    pub(crate) main: Node,
    /// The main one has a health check, so that it can be seen to be down.
    pub(crate) main_probed: bool,
    pub(crate) fallback: Node,
    pub(crate) errors: Option<FailoverErrors>,
}

pub(crate) struct Child {
    pub(crate) node: Node,
    /// 0 is never chosen.
    pub(crate) weight: u32,
    /// Of the sticky cookie that names it.
    pub(crate) cookie: String,
}

/// What a service leads to.
#[derive(Clone)]
pub(crate) enum Node {
    Service(Arc<Service>),
    Composite(Arc<Composite>),
    Chained(Arc<Chained>),
}

/// A service that has middlewares and is part of something else.
pub(crate) struct Chained {
    /// The middlewares, and [`Target::Within`](crate::snapshot::Target) behind them.
    pub(crate) route: Route,
    pub(crate) node: Node,
    /// Services inside each other, those that `errors` take pages from among them.
    pub(crate) height: usize,
}

/// What a request for a composite, or one that several routers have led on, is about; kept with its [`Exchange`].
#[derive(Default)]
pub(crate) struct Composed {
    /// Asked last, with the label to count it under.
    pub(crate) leaf: Option<(Arc<Service>, LabelId)>,
    /// [`Exchange::tried`] of those that were asked before.
    tried: Vec<(Arc<Service>, SmallVec<[usize; 4]>)>,
    /// `Set-Cookie` fields that the answer is to have.
    pub(crate) cookies: Vec<String>,
    /// What mirrors are to get once the client has its answer.
    pub(crate) copies: Vec<Copy>,
    /// Whose parts have middlewares that the request is in.
    pub(crate) root: Option<Arc<Composite>>,
    /// Routers that led the request on to others, from the root.
    pub(crate) above: Vec<Above>,
}

/// Where the way of a request leads.
pub(crate) enum Way<'r> {
    Service(&'r Arc<Service>),
    /// Middlewares are first.
    Chained(&'r Route),
    /// Its first service is up, and what comes of asking it is to be looked at.
    Failover(&'r Composite, &'r Failover),
    /// Mirrors are to have a copy; with the number of the request.
    Mirroring(&'r Arc<Composite>, &'r Mirroring, u64),
    /// Nothing is up below this one.
    Nobody(&'r Composite),
}

impl Node {
    /// Services inside each other, from here on.
    pub(crate) fn height(&self) -> usize {
        match self {
            Self::Service(_) => 0,
            Self::Composite(composite) => composite.height,
            Self::Chained(chained) => chained.height,
        }
    }

    /// What is behind its middlewares, if it has any.
    pub(crate) fn behind_middlewares(&self) -> &Self {
        match self {
            Self::Chained(chained) => &chained.node,
            node => node,
        }
    }

    /// Whether a new client would get a server, as far as anybody minds.
    fn is_up(&self) -> bool {
        match self {
            Self::Service(service) => service.live.is_available(),
            Self::Composite(composite) => !composite.health_check || composite.kind.is_up(),
            Self::Chained(chained) => chained.node.is_up(),
        }
    }

    /// Whether every server below was tried in vain.
    fn is_spent(&self, tried_of: &dyn Fn(&Arc<Service>) -> usize) -> bool {
        match self {
            Self::Service(service) => {
                let tried = tried_of(service);
                tried > 0 && tried >= service.endpoints.len()
            }
            Self::Chained(chained) => chained.node.is_spent(tried_of),
            Self::Composite(composite) => match &composite.kind {
                Kind::Spread { children, .. } => {
                    let mut of_use = children.iter().filter(|child| child.weight > 0);
                    of_use.all(|child| child.node.is_spent(tried_of))
                }
                Kind::Failover(Failover { main, fallback, .. }) => {
                    main.is_spent(tried_of) && fallback.is_spent(tried_of)
                }
                Kind::Mirroring(mirroring) => mirroring.main.is_spent(tried_of),
            },
        }
    }
}

/// Bytes of a body in memory; chosen as for `retry`.
const KEPT: usize = 2 * 1024 * 1024;

impl Kind {
    /// What it may want a second time.
    pub(crate) fn keeps(&self) -> Keeps {
        match self {
            Self::Failover(Failover { errors: Some(errors), .. }) => {
                Keeps::up_to(errors.max_request_body_bytes)
            }
            Self::Mirroring(mirroring) if mirroring.body => Keeps::up_to(mirroring.most),
            Self::Failover(_) | Self::Spread { .. } | Self::Mirroring(_) => Keeps::default(),
        }
    }

    fn is_up(&self) -> bool {
        match self {
            Self::Spread { children, .. } => {
                children.iter().any(|child| child.weight > 0 && child.node.is_up())
            }
            Self::Failover(Failover { main, fallback, .. }) => main.is_up() || fallback.is_up(),
            Self::Mirroring(mirroring) => mirroring.main.is_up(),
        }
    }
}

impl Mirroring {
    /// The mirrors that get this request, by their place.
    pub(crate) fn selected(&self, number: u64) -> impl Iterator<Item = usize> {
        let mirrors = self.mirrors.iter().enumerate();
        mirrors.filter(move |(_, (_, percent))| is_mirrored(number, *percent)).map(|(place, _)| place)
    }
}

impl Failover {
    fn tries_main(&self) -> bool {
        !self.main_probed || self.main.is_up()
    }
}

impl Composite {
    /// Where the next try of a request for this composite leads.
    pub(crate) fn way<'r>(self: &'r Arc<Self>, x: &mut Exchange, worker: &Worker) -> Way<'r> {
        way_from(Some(self), self, x, worker)
    }

    /// The child that is to go on with a request.
    fn step<'r>(&'r self, x: &mut Exchange, worker: &Worker) -> Option<&'r Node> {
        let composed = x.composed.get_or_insert_default();
        match &self.kind {
            Kind::Spread { children, choice, sticky } => {
                let value = sticky.as_ref().and_then(|cookie| {
                    x.head.get_all("cookie").find_map(|line| sticky::find_cookie(line, &cookie.name))
                });
                let spent = |index: usize| {
                    !(x.tried.is_empty() && composed.tried.is_empty())
                        && children[index].node.is_spent(&|service| composed.tried_of(service, &x.tried))
                };
                let (index, matched) = choice.choose(&Choice {
                    client: x.peer.ip,
                    sticky: value,
                    random: worker.random(),
                    up: &|index| !self.health_check || children[index].node.is_up(),
                    spent: &spent,
                })?;
                let Child { node, cookie: value, .. } = &children[index];
                if let Some(cookie) = sticky
                    && matched != CookieMatch::Current
                {
                    composed.cookies.push(set_cookie(cookie).header_value(value));
                }
                Some(node)
            }
            Kind::Mirroring(mirroring) => Some(&mirroring.main),
            Kind::Failover(failover) if failover.tries_main() => Some(&failover.main),
            Kind::Failover(failover) => self.has_fallback(failover).then(|| {
                worker.metrics.failed_over(self.label, "health");
                &failover.fallback
            }),
        }
    }

    pub(crate) fn mirrors(&self) -> &[(Node, u8)] {
        match &self.kind {
            Kind::Mirroring(mirroring) => &mirroring.mirrors,
            Kind::Spread { .. } | Kind::Failover(_) => &[],
        }
    }

    /// Whether the second service of this failover may be asked.
    pub(crate) fn has_fallback(&self, failover: &Failover) -> bool {
        !self.health_check || failover.fallback.is_up()
    }
}

/// Where a request leads that has come from `root` to this node.
pub(crate) fn way_through<'r>(
    root: Option<&Composite>,
    node: &'r Node,
    x: &mut Exchange,
    worker: &Worker,
) -> Way<'r> {
    match node {
        Node::Service(service) => {
            enter(root, x, service);
            Way::Service(service)
        }
        Node::Composite(composite) => way_from(root, composite, x, worker),
        Node::Chained(chained) => Way::Chained(&chained.route),
    }
}

fn way_from<'r>(
    root: Option<&Composite>,
    mut at: &'r Arc<Composite>,
    x: &mut Exchange,
    worker: &Worker,
) -> Way<'r> {
    loop {
        if let Kind::Failover(failover) = &at.kind
            && failover.tries_main()
        {
            return Way::Failover(at, failover);
        }
        if let Kind::Mirroring(mirroring) = &at.kind {
            let number = mirroring.requests.next();
            if mirroring.selected(number).next().is_some() {
                return Way::Mirroring(at, mirroring, number);
            }
        }
        match at.step(x, worker) {
            None => return Way::Nobody(at),
            Some(Node::Composite(composite)) => at = composite,
            Some(node) => return way_through(root, node, x, worker),
        }
    }
}

/// Notes that `service` is asked next, and which of its servers were asked before.
fn enter(root: Option<&Composite>, x: &mut Exchange, service: &Arc<Service>) {
    let Exchange { composed, tried, .. } = x;
    let composed = composed.get_or_insert_default();
    if composed.leaf.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, service)) {
        return;
    }
    let mut leaves = root.into_iter().flat_map(|root| &root.leaves);
    let known = leaves.find(|(leaf, _)| Arc::ptr_eq(leaf, service));
    let label = known.map_or(service.label, |(_, label)| *label);
    if let Some((last, _)) = composed.leaf.replace((Arc::clone(service), label))
        && !tried.is_empty()
    {
        composed.tried.push((last, std::mem::take(tried)));
    }
    if let Some(at) = composed.tried.iter().position(|(leaf, _)| Arc::ptr_eq(leaf, service)) {
        *tried = composed.tried.swap_remove(at).1;
    }
}

impl Composed {
    /// The load balancer that was asked last.
    pub(crate) fn service(&self) -> Option<&Arc<Service>> {
        self.leaf.as_ref().map(|(service, _)| service)
    }

    /// Servers of `service` that were tried in vain; `current` are those of the one that was asked last.
    fn tried_of(&self, service: &Arc<Service>, current: &[usize]) -> usize {
        if self.leaf.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, service)) {
            return current.len();
        }
        let before = self.tried.iter().find(|(leaf, _)| Arc::ptr_eq(leaf, service));
        before.map_or(0, |(_, tried)| tried.len())
    }
}
