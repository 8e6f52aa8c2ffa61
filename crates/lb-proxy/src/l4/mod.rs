//! TCP routers: connections that are passed on as they are, beside or instead of HTTP.
//!
//! Which connections are theirs is decided while they are greeted ([`greet`]); from then on one task of its own
//! serves each ([`serve`]).

mod build;
mod connect;
pub(crate) mod greet;
mod relay;
pub(crate) mod serve;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lb_config::tcp::{ProxyVersion, ServersTransport, TerminationDelay};
use lb_core::balance::{Children, Choice, Service as LiveService};
use lb_core::in_flight::InFlightLimiter;
use lb_core::route::tcp::{Hello, Table};
use lb_observe::metrics::{LabelId, TcpCounts};
use rustls::ClientConfig;

pub(crate) use build::{Compiled, Source, build};

use crate::report::Report;
use crate::tls::TlsProfile;

/// The TCP routers of one entry point.
pub(crate) struct Routes {
    /// Those for clients without TLS.
    plain: Table<Arc<Route>>,
    secure: Table<Arc<Route>>,
    /// Of `Host` matchers of HTTP routers with TLS: these hosts are not for TCP routers.
    https_hosts: HashSet<String>,
    /// Some HTTP router with TLS names no host.
    https_for_all: bool,
}

/// One router; the same on all its entry points.
pub(crate) struct Route {
    name: Arc<str>,
    /// Label of its service.
    label: LabelId,
    middlewares: Box<[Middleware]>,
    target: Node,
    tls: Tls,
    nobody: Report,
}

enum Tls {
    /// The client speaks none.
    None,
    Passthrough,
    /// `None`: its options are broken, and nobody is let in.
    Ends(Option<Arc<TlsProfile>>),
}

enum Middleware {
    InFlightConn(Arc<InFlightLimiter>),
    IpAllowList(Box<[ipnet::IpNet]>),
}

#[derive(Clone)]
enum Node {
    Service(Arc<Service>),
    Weighted(Arc<Weighted>),
}

struct Weighted {
    children: Box<[Node]>,
    choice: Children,
    /// It minds the health of its children.
    health_check: bool,
}

/// One load balancer.
struct Service {
    name: Arc<str>,
    label: LabelId,
    live: Arc<LiveService>,
    counts: Arc<TcpCounts>,
    /// In the order of the live ones.
    servers: Box<[Server]>,
    transport: Arc<Transport>,
    proxy_protocol: Option<ProxyVersion>,
    termination_delay: Option<TerminationDelay>,
}

struct Server {
    address: Arc<str>,
    host: String,
    port: u16,
    /// Known without a look-up when it is an address.
    socket: Option<SocketAddr>,
    tls: bool,
    unreached: Report,
}

/// How servers are dialled.
struct Transport {
    settings: ServersTransport,
    /// Made when the first load balancer needs it.
    tls: std::sync::OnceLock<Result<Arc<ClientConfig>, String>>,
}

/// Whom a TLS client wants.
enum Wanted<'r> {
    Tcp(&'r Arc<Route>),
    Https,
}

impl Routes {
    /// Whether a client may be served before it says anything: nobody here waits for its first bytes, as with
    /// protocols where the server speaks first (reference 2.12, step 1).
    fn at_once(&self, client: IpAddr) -> Option<&Arc<Route>> {
        let speaks_tls = !self.secure.is_empty() || self.https_for_all || !self.https_hosts.is_empty();
        if speaks_tls { None } else { self.plain(client) }
    }

    fn plain(&self, client: IpAddr) -> Option<&Arc<Route>> {
        let hello = Hello { server_name: "", alpn: &[], client };
        self.plain.find(&hello).map(|route| &route.value)
    }

    fn secure(&self, hello: &Hello<'_>) -> Option<&Arc<Route>> {
        self.secure.find(hello).map(|route| &route.value)
    }

    /// Reference 2.12, steps 5 to 9.
    fn wanted(&self, hello: &Hello<'_>) -> Wanted<'_> {
        if self.is_https_host(hello.server_name) {
            return Wanted::Https;
        }
        match self.secure.find(hello) {
            Some(route) if !self.https_for_all || !route.rule.is_catch_all() => Wanted::Tcp(&route.value),
            _ => Wanted::Https,
        }
    }

    fn is_https_host(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let wildcard = || name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        !name.is_empty()
            && !self.https_hosts.is_empty()
            && (self.https_hosts.contains(name)
                || wildcard().is_some_and(|wildcard| self.https_hosts.contains(&wildcard)))
    }
}

impl Node {
    fn is_up(&self) -> bool {
        match self {
            Self::Service(service) => service.live.is_available(),
            Self::Weighted(weighted) => !weighted.health_check || weighted.children.iter().any(Self::is_up),
        }
    }

    fn is_spent(&self, spent: &dyn Fn(&Arc<Service>) -> bool) -> bool {
        match self {
            Self::Service(service) => spent(service),
            Self::Weighted(weighted) => weighted.children.iter().all(|child| child.is_spent(spent)),
        }
    }

    /// The load balancer whose turn it is, of those that are not spent if there is one.
    fn leaf(
        &self,
        client: IpAddr,
        random: u64,
        spent: &dyn Fn(&Arc<Service>) -> bool,
    ) -> Option<&Arc<Service>> {
        let mut node = self;
        loop {
            let weighted = match node {
                Self::Service(service) => return Some(service),
                Self::Weighted(weighted) => weighted,
            };
            let (chosen, _) = weighted.choice.choose(&Choice {
                client,
                sticky: None,
                random,
                up: &|index| weighted.children[index].is_up(),
                spent: &|index| weighted.children[index].is_spent(spent),
            })?;
            node = &weighted.children[chosen];
        }
    }
}

impl Transport {
    fn new(settings: &ServersTransport) -> Self {
        Self { settings: settings.clone(), tls: std::sync::OnceLock::new() }
    }

    /// No protocol is offered, and no name but the one that is configured, as Traefik does.
    fn tls(&self) -> Result<&Arc<ClientConfig>, &str> {
        let compile = || {
            let mut config = (*crate::tls::client_config(&self.settings.tls, false)
                .map_err(|error| error.to_string())?)
            .clone();
            config.alpn_protocols.clear();
            config.enable_sni = self.settings.tls.server_name.is_some();
            Ok(Arc::new(config))
        };
        self.tls.get_or_init(compile).as_ref().map_err(String::as_str)
    }
}

#[cfg(test)]
mod tests;
