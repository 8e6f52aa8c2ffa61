//! What the data plane runs: one immutable compilation of the configuration.
//!
//! A request loads it once and keeps it to its end. Live state (health, limiters, breakers,
//! connection pools) sits behind `Arc` or is keyed by identity and lives on in the next snapshot.

mod build;
mod composites;
mod free;
mod internal;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lb_config::dynamic::{self, Config, RetryBudget, ServersTransport, StickyCookie, TraceVerbosity};
use lb_core::balance::Service as LiveService;
use lb_core::route::RouteIndex;
use lb_observe::metrics::LabelId;

pub use build::Failure;
pub(crate) use build::Fixed;
pub use internal::Internal;

use crate::composite::{Composite, Node};
use crate::middleware::Middleware;
use crate::report::Report;
use crate::tls::{Proof, TlsProfile, TlsTable};
use crate::udp::UdpTable;
use crate::upstream::{Endpoint, Transport};

/// Everything a request is decided by.
pub struct Snapshot {
    /// What it was compiled from.
    pub(crate) config: Arc<Config>,
    /// One for each entry point, in the order of the static configuration.
    pub(crate) entry_points: Vec<EntryRoutes>,
    pub(crate) tls: Arc<TlsTable>,
    pub(crate) tcp: crate::l4::Compiled,
    pub(crate) udp: UdpTable,
    /// By name: where the next snapshot finds the state to keep.
    routes: HashMap<String, Arc<Route>>,
    services: HashMap<String, Arc<Service>>,
    /// By middleware.
    auth_servers: HashMap<String, Arc<AuthServer>>,
    composites: HashMap<String, Arc<Composite>>,
    transports: HashMap<String, (ServersTransport, Arc<Transport>)>,
    service_chains: HashMap<String, Arc<ServiceChain>>,
    /// Ids of the endpoints in use; pools of others are closed.
    pub(crate) endpoints: HashSet<u64>,
}

/// What one entry point routes.
pub(crate) struct EntryRoutes {
    /// Routers without TLS answer plain connections, those with TLS answer encrypted ones.
    pub(crate) plain: RouteIndex<Arc<Route>>,
    pub(crate) secure: RouteIndex<Arc<Route>>,
    /// TLS options by host (lower case), from the `Host` matchers of TLS routers.
    /// `None`: the options are broken, and nobody is let in under laxer ones.
    pub(crate) profiles: HashMap<String, Option<Arc<TlsProfile>>>,
    /// For other names, and for clients that send none.
    pub(crate) default_profile: Option<Arc<TlsProfile>>,
}

/// One router on one entry point. Those of one name share the state of their middlewares.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) label: LabelId,
    /// Label of its service, an internal one too.
    pub(crate) service: LabelId,
    pub(crate) middlewares: Box<[Middleware]>,
    pub(crate) target: Target,
    /// Name of the TLS options a connection must have been accepted with (421 otherwise).
    pub(crate) tls_options: Option<Arc<str>>,
    /// What these have every client show: they may have been others when a connection was accepted.
    pub(crate) proof: Proof,
    pub(crate) access_log: bool,
    pub(crate) metrics: bool,
    /// `None`: its requests have no spans.
    pub(crate) tracing: Option<TraceVerbosity>,
    /// Rule and service as written, where spans show them.
    pub(crate) shown: Option<Box<(String, String)>>,
    /// Qualified names of the middlewares, but for those that YAML does not call middlewares: the policy on encoded
    /// characters before, a redirection behind them.
    names: Vec<String>,
}

pub(crate) enum Target {
    Service(Arc<Service>),
    Composite(Arc<Composite>),
    /// A part of something, behind middlewares of its own.
    Within(Node),
    Internal(Internal),
    /// Other routers decide, once the middlewares of this one have seen the request (`parentRefs`).
    Children(Arc<Children>),
}

pub(crate) type Children = RouteIndex<Arc<Route>>;

impl Target {
    /// Whether a request for it may need a hand in what is behind, as some middlewares do.
    pub(crate) fn wraps(&self) -> bool {
        match self {
            Self::Composite(_) | Self::Within(_) | Self::Children(_) => true,
            Self::Service(_) | Self::Internal(_) => false,
        }
    }
}

/// The middlewares of a service. Routers that lead to it have instances of their own with the live state of these.
struct ServiceChain {
    /// Qualified, chains replaced by their members.
    names: Vec<String>,
    middlewares: Vec<Middleware>,
}

/// One service as the data plane uses it.
pub(crate) struct Service {
    pub(crate) name: Arc<str>,
    pub(crate) label: LabelId,
    pub(crate) live: Arc<LiveService>,
    /// In the order of the service's servers: what a pick's index points into.
    pub(crate) endpoints: Box<[Arc<Endpoint>]>,
    pub(crate) sticky: Option<StickyCookie>,
    pub(crate) pass_host_header: bool,
    /// Answers are judged: by a passive health check or by outlier detection.
    pub(crate) judged: bool,
    pub(crate) retries: Retries,
    /// `None`: no server has a limit, so nothing ever waits.
    pub(crate) queue: Option<Queue>,
    /// Seconds after which a client may hope for a server when there is none.
    pub(crate) retry_after: u64,
}

/// The one server that a `forwardAuth` asks, with what every server has: pools, a resolver, timeouts.
pub(crate) struct AuthServer {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) live: LiveService,
}

/// What may be tried again.
pub(crate) struct Retries {
    pub(crate) settings: RetryBudget,
    /// Lives on in the next snapshot.
    pub(crate) budget: Arc<lb_core::retry::RetryBudget>,
    pub(crate) refused: Report,
}

/// Where requests wait for a server with room; who waits is known to [`Service::live`].
pub(crate) struct Queue {
    pub(crate) settings: dynamic::Queue,
    pub(crate) refused: Report,
}

impl Snapshot {
    /// Every metric label this snapshot counts under.
    pub(crate) fn labels(&self) -> HashSet<LabelId> {
        let mut labels: HashSet<_> = self.composites.values().map(|composite| composite.label).collect();
        for entry in &self.entry_points {
            for route in entry.plain.routes().iter().chain(entry.secure.routes()) {
                route.value.labels(&mut labels);
            }
        }
        for service in self.services.values() {
            labels.insert(service.label);
            labels.extend(service.endpoints.iter().map(|endpoint| endpoint.label));
        }
        for chain in self.service_chains.values() {
            labels.extend(chain.middlewares.iter().filter_map(Middleware::label));
        }
        labels.extend(self.tcp.labels());
        labels
    }
}

impl Snapshot {
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The service that the router of this name leads to, if it is one of servers.
    pub(crate) fn led_to(&self, router: &str) -> Option<&Arc<Service>> {
        match &self.routes.get(router)?.target {
            Target::Service(service) => Some(service),
            _ => None,
        }
    }

    /// Whether others have taken the place of the endpoint's server in its service. It does not matter how the server is
    /// reached; and where the service is gone or empty, who has begun to ask has nobody else.
    pub(crate) fn replaces(&self, endpoint: &Endpoint) -> bool {
        let known = self.service(&endpoint.service).map_or(&[][..], |service| &service.endpoints);
        !known.is_empty() && known.iter().all(|known| known.url != endpoint.url)
    }

    /// Lets requests that wait for room know of this version of their service, which has just come into force.
    pub(crate) fn wake_queues(&self) {
        self.services.values().for_each(|service| service.live.wake_queue());
    }

    /// Marks the endpoints that `next` has no use for, just before it takes over.
    pub(crate) fn retire_for(&self, next: &Self) {
        for (name, service) in &self.services {
            // The last that was said of it; the endpoint may be older.
            let patience = self.config.services.get(name).and_then(|config| config.drain_timeout);
            for endpoint in service.endpoints.iter().filter(|known| !next.endpoints.contains(&known.id)) {
                endpoint.retired.get_or_init(|| patience);
            }
        }
        for server in self.auth_servers.values().filter(|known| !next.endpoints.contains(&known.endpoint.id))
        {
            server.endpoint.retired.get_or_init(|| None);
        }
    }
}

impl Route {
    fn labels(&self, labels: &mut HashSet<LabelId>) {
        labels.extend([self.label, self.service]);
        labels.extend(self.middlewares.iter().filter_map(Middleware::label));
        match &self.target {
            Target::Composite(composite) => labels.extend(composite.leaves.iter().map(|(_, label)| *label)),
            Target::Children(children) => {
                children.routes().iter().for_each(|child| child.value.labels(labels));
            }
            Target::Service(_) | Target::Within(_) | Target::Internal(_) => {}
        }
    }

    /// The name of the middleware at this place of the chain.
    pub(crate) fn middleware_name(&self, at: usize) -> &str {
        let policy = matches!(self.middlewares.first(), Some(Middleware::EncodedCharacters(_)));
        self.names.get(at.wrapping_sub(usize::from(policy))).map_or("", String::as_str)
    }

    /// The middleware at this place of the list, if it has that name.
    fn middleware(&self, at: usize, name: &str) -> Option<&Middleware> {
        let policy = matches!(self.middlewares.first(), Some(Middleware::EncodedCharacters(_)));
        let named = self.names.get(at).is_some_and(|known| known == name);
        self.middlewares.get(at + usize::from(policy)).filter(|_| named)
    }
}

impl Drop for Snapshot {
    /// The last to let go of a snapshot mostly is a worker, and many routers take milliseconds to free.
    fn drop(&mut self) {
        let size = self.routes.len() + self.services.len();
        let config = std::mem::take(&mut self.config);
        let entry_points = std::mem::take(&mut self.entry_points);
        let (routes, services) = (std::mem::take(&mut self.routes), std::mem::take(&mut self.services));
        let composites = std::mem::take(&mut self.composites);
        free::free((config, entry_points, routes, services, composites), size);
    }
}

impl EntryRoutes {
    /// TLS options for a handshake: by SNI, else those of the entry point. `None` refuses it.
    pub(crate) fn profile(&self, server_name: Option<&str>) -> Option<&Arc<TlsProfile>> {
        let known = server_name.filter(|_| !self.profiles.is_empty()).and_then(|name| {
            self.profiles.get(name).or_else(|| {
                // As rules do: a wildcard stands for exactly one label.
                let (_, parent) = name.split_once('.')?;
                self.profiles.get(&format!("*.{parent}"))
            })
        });
        known.unwrap_or(&self.default_profile).as_ref()
    }
}
