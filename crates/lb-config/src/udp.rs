//! `udp`: which service answers at a UDP entry point, and where its servers are.

use std::collections::BTreeMap;

/// Maps are keyed by qualified name, as those of HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    pub routers: BTreeMap<String, UdpRouter>,
    pub services: BTreeMap<String, UdpService>,
}

/// There are no rules: of the routers of one entry point the last by name counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpRouter {
    /// Empty: all UDP entry points.
    pub entry_points: Vec<String>,
    pub service: String,
    /// As the file has it, for the API.
    pub written: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpService {
    LoadBalancer { servers: Vec<UdpServer> },
    Weighted { services: Vec<UdpChild> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpServer {
    /// As the file has it.
    pub address: String,
    /// IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpChild {
    pub service: String,
    pub written: String,
    /// 0 gets nothing.
    pub weight: u32,
}

impl UdpService {
    /// The services that it is made of.
    pub fn children(&self) -> &[UdpChild] {
        match self {
            Self::LoadBalancer { .. } => &[],
            Self::Weighted { services } => services,
        }
    }
}

impl Udp {
    /// The router that counts at an entry point, which is one for UDP.
    pub fn router_of(&self, entry_point: &str) -> Option<(&str, &UdpRouter)> {
        let is_of = |router: &UdpRouter| {
            router.entry_points.is_empty() || router.entry_points.iter().any(|name| name == entry_point)
        };
        let found = self.routers.iter().rev().find(|(_, router)| is_of(router));
        found.map(|(name, router)| (name.as_str(), router))
    }
}
