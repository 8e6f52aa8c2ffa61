//! Services made of other services, as the data plane uses them: which load balancer a request ends up at.
//!
//! A composite has no live state but whose turn it is: whether a child is up is asked of the load balancers at the
//! bottom, each of which exists once, whoever leads to it.

use std::sync::Arc;

use lb_config::dynamic::StickyCookie;
use lb_core::balance::{Children, Choice, CookieMatch};
use lb_core::sticky;
use lb_observe::metrics::LabelId;
use smallvec::SmallVec;

use crate::exchange::Exchange;
use crate::http::cookie::set_cookie;
use crate::snapshot::Service;

/// A service that others answer for.
pub(crate) struct Composite {
    pub(crate) label: LabelId,
    pub(crate) kind: Kind,
    /// It minds the health of its children.
    pub(crate) health_check: bool,
    /// Every load balancer below, with the label of its requests that came this way.
    pub(crate) leaves: Box<[(Arc<Service>, LabelId)]>,
    /// Ways down to them: what a look at the health of all of it may cost.
    pub(crate) ways: usize,
    /// Seconds after which a client may hope for a child when none is up.
    pub(crate) retry_after: u64,
}

pub(crate) enum Kind {
    /// `weighted` and `highestRandomWeight`.
    Spread { children: Box<[Child]>, choice: Children, sticky: Option<StickyCookie> },
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
}

/// What a request for a composite is about; kept with its [`Exchange`].
#[derive(Default)]
pub(crate) struct Composed {
    /// Asked last, with the label to count it under.
    pub(crate) leaf: Option<(Arc<Service>, LabelId)>,
    /// [`Exchange::tried`] of those that were asked before.
    tried: Vec<(Arc<Service>, SmallVec<[usize; 4]>)>,
    /// `Set-Cookie` fields that the answer is to have.
    pub(crate) cookies: Vec<String>,
}

impl Node {
    /// Whether a new client would get a server, as far as anybody minds.
    fn is_up(&self) -> bool {
        match self {
            Self::Service(service) => service.live.is_available(),
            Self::Composite(composite) => !composite.health_check || composite.kind.is_up(),
        }
    }

    /// Whether every server below was tried in vain.
    fn is_spent(&self, tried_of: &dyn Fn(&Arc<Service>) -> usize) -> bool {
        match self {
            Self::Service(service) => {
                let tried = tried_of(service);
                tried > 0 && tried >= service.endpoints.len()
            }
            Self::Composite(composite) => match &composite.kind {
                Kind::Spread { children, .. } => {
                    let mut of_use = children.iter().filter(|child| child.weight > 0);
                    of_use.all(|child| child.node.is_spent(tried_of))
                }
            },
        }
    }
}

impl Kind {
    fn is_up(&self) -> bool {
        match self {
            Self::Spread { children, .. } => {
                children.iter().any(|child| child.weight > 0 && child.node.is_up())
            }
        }
    }
}

impl Composite {
    /// The load balancer for the next try of a request; `None`: nothing that it could be is up.
    pub(crate) fn resolve<'r>(
        &'r self,
        x: &mut Exchange,
        random: impl Fn() -> u64,
    ) -> Option<&'r Arc<Service>> {
        let mut at = self;
        let service = loop {
            match at.step(x, random())? {
                Node::Service(service) => break service,
                Node::Composite(composite) => at = composite,
            }
        };
        self.enter(x, service);
        Some(service)
    }

    /// The child that is to go on with a request.
    fn step<'r>(&'r self, x: &mut Exchange, random: u64) -> Option<&'r Node> {
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
                    random,
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
        }
    }

    /// Notes that `service` is asked next, and which of its servers were asked before.
    fn enter(&self, x: &mut Exchange, service: &Arc<Service>) {
        let Exchange { composed, tried, .. } = x;
        let composed = composed.get_or_insert_default();
        if composed.leaf.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, service)) {
            return;
        }
        let known = self.leaves.iter().find(|(leaf, _)| Arc::ptr_eq(leaf, service));
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
