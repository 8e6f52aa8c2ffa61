//! The section `tcp` of the dynamic configuration, checked.
//!
//! Names are qualified as everywhere; TCP objects have names of their own beside those of `http`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lb_core::route::tcp::Rule;

use crate::dynamic;

/// What is under `tcp`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tcp {
    pub routers: BTreeMap<String, Router>,
    pub services: BTreeMap<String, Service>,
    pub middlewares: BTreeMap<String, Middleware>,
    pub servers_transports: BTreeMap<String, ServersTransport>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    pub rule: Arc<Rule>,
    pub rule_text: String,
    /// `ruleSyntax` as written; empty: the default.
    pub rule_syntax: String,
    /// Empty: the default entry points.
    pub entry_points: Vec<String>,
    /// Qualified names, in order.
    pub middlewares: Vec<String>,
    pub service: String,
    /// As written, or what the rule has by default.
    pub priority: i64,
    pub tls: Option<RouterTls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterTls {
    /// The client's TLS goes to the server as it is; the rest has no meaning then.
    pub passthrough: bool,
    pub terminated: dynamic::RouterTls,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Service {
    LoadBalancer(LoadBalancer),
    Weighted(Weighted),
}

#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancer {
    pub servers: Vec<Server>,
    /// Qualified; `None`: the static `tcpServersTransport`, with the two settings that follow.
    pub servers_transport: Option<String>,
    pub proxy_protocol: Option<ProxyVersion>,
    pub termination_delay: Option<TerminationDelay>,
    pub health_check: Option<HealthCheck>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `host:port` exactly as configured: the live state is keyed by it.
    pub address: String,
    /// IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    pub services: Vec<WeightedChild>,
    /// It minds the health of its children.
    pub health_check: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedChild {
    /// Qualified.
    pub name: String,
    /// As written in the configuration.
    pub written: String,
    /// 0 is never chosen.
    pub weight: u32,
}

/// How long the other direction may go on after one side has ended its own, whatever passes; `None`: for ever.
pub type TerminationDelay = Option<Duration>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: Option<u16>,
    /// Empty: nothing is sent.
    pub send: String,
    /// Empty: a connection is enough.
    pub expect: String,
    pub interval: Duration,
    pub unhealthy_interval: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Middleware {
    InFlightConn {
        amount: u64,
    },
    IpAllowList {
        source_range: Vec<IpNet>,
        /// It is written under its older name, `ipWhiteList`.
        is_white_list: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServersTransport {
    /// `None` is "no limit".
    pub dial_timeout: Option<Duration>,
    pub dial_keep_alive: KeepAlive,
    /// `None`: not written.
    pub termination_delay: Option<TerminationDelay>,
    pub proxy_protocol: Option<ProxyVersion>,
    /// How servers with `tls` are talked to; of its settings those that concern TLS count.
    pub tls: dynamic::ServersTransport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    Every(Duration),
    /// As the system has it.
    System,
    Off,
}

/// Defaults of reference, `tcp.serversTransports`.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
const DIAL_KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Default for ServersTransport {
    fn default() -> Self {
        Self {
            dial_timeout: Some(DIAL_TIMEOUT),
            dial_keep_alive: KeepAlive::Every(DIAL_KEEP_ALIVE),
            termination_delay: None,
            proxy_protocol: None,
            tls: dynamic::ServersTransport::with_idle_conns(0),
        }
    }
}

impl Service {
    /// The services that it is made of.
    pub fn children(&self) -> &[WeightedChild] {
        match self {
            Self::LoadBalancer(_) => &[],
            Self::Weighted(weighted) => &weighted.services,
        }
    }

    /// Whether it knows how well it is.
    pub fn is_probed(&self) -> bool {
        match self {
            Self::LoadBalancer(balancer) => balancer.health_check.is_some(),
            Self::Weighted(weighted) => weighted.health_check,
        }
    }
}

impl Tcp {
    /// The load balancers, by name.
    pub fn load_balancers(&self) -> impl Iterator<Item = (&String, &LoadBalancer)> {
        self.services.iter().filter_map(|(name, service)| match service {
            Service::LoadBalancer(balancer) => Some((name, balancer)),
            Service::Weighted(_) => None,
        })
    }
}
