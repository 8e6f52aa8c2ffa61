//! From a checked configuration to the TCP routers of each entry point, taking over what lives on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lb_config::Kind;
use lb_config::dynamic::Config;
use lb_config::static_config::StaticConfig;
use lb_config::tcp;
use lb_core::balance::{ChildSpec, Children, MemberSpec, Service as LiveService, Settings, Spread};
use lb_core::in_flight::InFlightLimiter;
use lb_core::route::tcp::{Route as TableRoute, Table};
use lb_observe::metrics::{self, LabelId, Metrics};

use super::{Middleware, Node, Route, Routes, Server, Service, Tls, Transport, Weighted};
use crate::report::Report;
use crate::snapshot::{EntryRoutes, Failure};
use crate::tls::TlsTable;

/// Services inside each other at most; chosen, as for HTTP.
const DEEPEST: usize = 32;

/// What TCP routers are compiled from.
pub(crate) struct Source<'a> {
    pub(crate) fixed: &'a StaticConfig,
    pub(crate) metrics: &'a Metrics,
    pub(crate) config: &'a Config,
    pub(crate) live: &'a HashMap<String, Arc<LiveService>>,
    pub(crate) tls: &'a TlsTable,
    /// The HTTP routers of each entry point.
    pub(crate) http: &'a [EntryRoutes],
    pub(crate) previous: Option<&'a Compiled>,
    pub(crate) now: Instant,
}

/// The TCP part of a snapshot.
#[derive(Default)]
pub(crate) struct Compiled {
    /// By index of the entry point; empty without any TCP router.
    entry_points: Box<[Option<Arc<Routes>>]>,
    /// By name: where the next snapshot finds the state to keep.
    routes: HashMap<String, Arc<Route>>,
    weighted: HashMap<String, Arc<Weighted>>,
    services: HashMap<String, Arc<Service>>,
    transports: HashMap<String, Arc<Transport>>,
}

impl Compiled {
    /// The TCP routers of an entry point, if it has any.
    pub(crate) fn at(&self, entry_point: usize) -> Option<&Arc<Routes>> {
        self.entry_points.get(entry_point)?.as_ref()
    }

    pub(super) fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }

    /// Whether a server is one of its service's.
    pub(super) fn lists(&self, service: &str, server: &Server) -> bool {
        let mut known = self.services.get(service).into_iter().flat_map(|service| &service.servers);
        known.any(|known| known.address == server.address)
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = LabelId> {
        let services = self.services.values().map(|service| service.label);
        services.chain(self.routes.values().map(|route| route.label))
    }
}

/// Compiles; a broken object is left out and named.
pub(crate) fn build(source: &Source<'_>) -> (Compiled, Vec<Failure>) {
    let mut builder = Builder { source, built: Compiled::default(), failures: Vec::new() };
    if !source.config.tcp.routers.is_empty() {
        builder.entry_points();
    }
    (builder.built, builder.failures)
}

struct Builder<'a> {
    source: &'a Source<'a>,
    built: Compiled,
    failures: Vec<Failure>,
}

/// The name under which the default transport is kept.
const DEFAULT: &str = "default@internal";

impl Builder<'_> {
    fn fail(&mut self, kind: Kind, name: &str, message: impl Into<String>) {
        self.failures.push(Failure { kind, name: name.to_owned(), message: message.into() });
    }

    fn entry_points(&mut self) {
        let entries = &self.source.fixed.entry_points;
        let explicit = entries.iter().any(|entry| entry.as_default);
        let is_default = |name: &str, as_default| if explicit { as_default } else { name != "traefik" };
        let mut tables: Vec<(Vec<_>, Vec<_>)> = entries.iter().map(|_| Default::default()).collect();
        for (name, router) in &self.source.config.tcp.routers {
            let at: Vec<usize> = (0..entries.len())
                .filter(|at| match &router.entry_points[..] {
                    [] => is_default(&entries[*at].name, entries[*at].as_default),
                    named => named.contains(&entries[*at].name),
                })
                .collect();
            if at.is_empty() {
                let missing: Vec<_> = router
                    .entry_points
                    .iter()
                    .map(|name| format!("entryPoint {name:?} doesn't exist"))
                    .collect();
                self.fail(Kind::TcpRouter, name, missing.join("; "));
                continue;
            }
            let Some(route) = self.route(name, router) else { continue };
            self.built.routes.insert(name.clone(), Arc::clone(&route));
            for at in at {
                let (plain, secure) = &mut tables[at];
                let table = if router.tls.is_some() { secure } else { plain };
                table.push(TableRoute {
                    rule: Arc::clone(&router.rule),
                    priority: router.priority,
                    rank: self.rank(name),
                    value: Arc::clone(&route),
                });
            }
        }
        let routes = tables.into_iter().zip(self.source.http).map(|((plain, secure), http)| {
            (!plain.is_empty() || !secure.is_empty()).then(|| {
                let rules = || http.secure.routes().iter().map(|route| &route.rule);
                Arc::new(Routes {
                    plain: Table::build(plain),
                    secure: Table::build(secure),
                    https_hosts: rules().flat_map(|rule| rule.hosts()).collect(),
                    https_for_all: rules().any(|rule| rule.hosts().is_empty()),
                })
            })
        });
        self.built.entry_points = routes.collect();
    }

    fn rank(&self, name: &str) -> u32 {
        let provider = name.rsplit_once('@').map_or("", |(_, provider)| provider);
        let precedence = &self.source.fixed.providers.precedence;
        precedence.iter().position(|known| known == provider).map_or(u32::MAX, |at| at as u32)
    }

    fn route(&mut self, name: &str, router: &tcp::Router) -> Option<Arc<Route>> {
        let target = self.node((Kind::TcpRouter, name), &router.service, 0)?;
        let before = self.source.previous.and_then(|previous| previous.routes.get(name));
        let mut middlewares = Vec::with_capacity(router.middlewares.len());
        for middleware in &router.middlewares {
            let Some(config) = self.source.config.tcp.middlewares.get(middleware) else {
                self.fail(Kind::TcpRouter, name, format!("middleware {middleware:?} does not exist"));
                return None;
            };
            middlewares.push(match config {
                tcp::Middleware::InFlightConn { amount } => {
                    let is_same = |middleware: &&Middleware| match middleware {
                        Middleware::InFlightConn(limiter) => limiter.amount() == *amount,
                        Middleware::IpAllowList(_) => false,
                    };
                    // Each of several with one amount has its own.
                    let nth = middlewares.iter().filter(is_same).count();
                    let kept = before.and_then(|route| route.middlewares.iter().filter(is_same).nth(nth));
                    let kept = kept.and_then(|middleware| match middleware {
                        Middleware::InFlightConn(limiter) => Some(limiter),
                        Middleware::IpAllowList(_) => None,
                    });
                    Middleware::InFlightConn(kept.map_or_else(|| InFlightLimiter::new(*amount), Arc::clone))
                }
                tcp::Middleware::IpAllowList { source_range, .. } => {
                    Middleware::IpAllowList(source_range.clone().into())
                }
            });
        }
        let tls = match &router.tls {
            None => Tls::None,
            Some(tls) if tls.passthrough => Tls::Passthrough,
            Some(tls) => {
                let options = &tls.terminated.options;
                let profile = self.source.tls.options(options);
                // Options that are there and broken are told by themselves.
                if profile.is_none() && !self.source.config.tls.options.contains_key(options) {
                    self.fail(Kind::TcpRouter, name, format!("unknown TLS options: {options}"));
                    return None;
                }
                Tls::Ends(profile)
            }
        };
        let label = self.source.metrics.label(metrics::Kind::Service, &router.service);
        Some(Arc::new(Route {
            name: name.into(),
            label,
            middlewares: middlewares.into(),
            target,
            tls,
            nobody: Report::default(),
        }))
    }

    fn node(&mut self, user: (Kind, &str), name: &str, depth: usize) -> Option<Node> {
        if depth > DEEPEST {
            self.fail(user.0, user.1, format!("more than {DEEPEST} services inside each other"));
            return None;
        }
        match self.source.config.tcp.services.get(name) {
            None => {
                self.fail(user.0, user.1, format!("the TCP service {name:?} does not exist"));
                None
            }
            Some(tcp::Service::LoadBalancer(balancer)) => self.service(name, balancer).map(Node::Service),
            Some(tcp::Service::Weighted(weighted)) => {
                if let Some(built) = self.built.weighted.get(name) {
                    return Some(Node::Weighted(Arc::clone(built)));
                }
                let mut children = Vec::with_capacity(weighted.services.len());
                for child in &weighted.services {
                    children.push(self.node((Kind::TcpService, name), &child.name, depth + 1)?);
                }
                let specs = weighted.services.iter();
                let specs: Vec<_> = specs
                    .map(|child| ChildSpec { name: child.written.clone(), weight: child.weight })
                    .collect();
                let before = self.source.previous.and_then(|previous| previous.weighted.get(name));
                let choice = Children::new(Spread::Turns, &specs, before.map(|before| &before.choice));
                let (children, health_check) = (children.into(), weighted.health_check);
                let built = Arc::new(Weighted { children, choice, health_check });
                self.built.weighted.insert(name.to_owned(), Arc::clone(&built));
                Some(Node::Weighted(built))
            }
        }
    }

    fn service(&mut self, name: &str, config: &tcp::LoadBalancer) -> Option<Arc<Service>> {
        if let Some(built) = self.built.services.get(name) {
            return Some(Arc::clone(built));
        }
        let transport = self.transport(name, config.servers_transport.as_deref())?;
        if config.servers.iter().any(|server| server.tls)
            && let Err(message) = transport.tls()
        {
            let (kind, of) = match &config.servers_transport {
                Some(transport) => (Kind::TcpServersTransport, transport.as_str()),
                None => (Kind::TcpService, name),
            };
            self.fail(kind, of, message);
            return None;
        }
        let now = self.source.now;
        // A check of a configuration has none.
        let fresh = || {
            let member = |server: &tcp::Server| MemberSpec { url: server.address.clone(), weight: 1 };
            let members: Vec<_> = config.servers.iter().map(member).collect();
            Arc::new(LiveService::new(name, Settings::default(), &members, None, now))
        };
        let live = self.source.live.get(name).map_or_else(fresh, Arc::clone);
        let server = |server: &tcp::Server| Server {
            address: server.address.as_str().into(),
            host: server.host.clone(),
            port: server.port,
            socket: server.host.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, server.port)),
            tls: server.tls,
            unreached: Report::default(),
        };
        let label = self.source.metrics.label(metrics::Kind::Service, name);
        let service = Arc::new(Service {
            name: name.into(),
            label,
            live,
            counts: self.source.metrics.tcp(label),
            servers: config.servers.iter().map(server).collect(),
            proxy_protocol: transport.settings.proxy_protocol.or(config.proxy_protocol),
            termination_delay: config.termination_delay.or(transport.settings.termination_delay),
            transport,
        });
        self.built.services.insert(name.to_owned(), Arc::clone(&service));
        Some(service)
    }

    /// An unchanged one is taken over with its TLS sessions.
    fn transport(&mut self, service: &str, name: Option<&str>) -> Option<Arc<Transport>> {
        let settings = match name {
            None => &self.source.fixed.tcp_servers_transport,
            Some(name) => match self.source.config.tcp.servers_transports.get(name) {
                Some(settings) => settings,
                None => {
                    self.fail(Kind::TcpService, service, format!("serversTransport {name:?} does not exist"));
                    return None;
                }
            },
        };
        let name = name.unwrap_or(DEFAULT);
        let earlier = || self.source.previous.and_then(|previous| previous.transports.get(name));
        let known = self.built.transports.get(name).or_else(earlier);
        let kept = known.filter(|known| known.settings == *settings).cloned();
        let transport = kept.unwrap_or_else(|| Arc::new(Transport::new(settings)));
        self.built.transports.insert(name.to_owned(), Arc::clone(&transport));
        Some(transport)
    }
}
