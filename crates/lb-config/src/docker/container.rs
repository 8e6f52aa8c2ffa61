//! What is known of one container.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::static_config::ContainerSettings;

/// A container, as the daemon describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Without the leading `/`.
    pub name: String,
    /// The swarm's service that it is a task of; then these are the service's labels.
    pub service: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub is_running: bool,
    /// `None`: it has no health check.
    pub is_healthy: Option<bool>,
    pub network_mode: NetworkMode,
    /// By name of the network.
    pub networks: BTreeMap<String, Addresses>,
    pub ports: Vec<Port>,
}

/// How a container is on the network, as far as it has no networks of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    #[default]
    Own,
    /// It shares those of its host, which is reached at this address.
    Host(IpAddr),
    /// It shares those of another container.
    Container(Box<Container>),
}

/// Of a container in one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

impl Addresses {
    fn preferred(self) -> Option<IpAddr> {
        self.v4.or(self.v6)
    }
}

/// A port that a container exposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    pub is_tcp: bool,
    /// Where the host publishes it.
    pub bindings: Vec<(String, u16)>,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Port {
    fn is_for(&self, protocol: Protocol) -> bool {
        self.is_tcp == (protocol == Protocol::Tcp)
    }
}

/// The labels of Docker Compose that name a container better than its own name does.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

impl Container {
    /// The name that is used where labels give none (reference 4.3, "Names").
    pub(super) fn base_name(&self) -> String {
        if let Some(service) = &self.service {
            return normalize(service);
        }
        match (self.labels.get(COMPOSE_SERVICE), self.labels.get(COMPOSE_PROJECT)) {
            (Some(service), Some(project)) => normalize(&format!("{service}_{project}")),
            _ => normalize(&self.name),
        }
    }

    /// What problems name in place of a file.
    pub(super) fn title(&self) -> String {
        match &self.service {
            Some(service) => format!("service {service}"),
            None => format!("container {}", self.name),
        }
    }

    /// The value of a label, whatever the case of its name.
    pub(super) fn label(&self, name: &str) -> Option<(&str, &str)> {
        let found = self.labels.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The network that the label names, or the provider.
    fn network<'a>(&'a self, settings: &'a ContainerSettings) -> Option<&'a str> {
        let swarm = self.service.as_ref().and_then(|_| self.label("traefik.swarm.network"));
        let label = swarm.or_else(|| self.label("traefik.docker.network")).map(|(_, network)| network);
        label.filter(|network| !network.is_empty()).or(settings.network.as_deref())
    }

    /// Where its servers listen, with a remark if that is a guess (reference 4.3, "IP").
    pub(super) fn address(&self, settings: &ContainerSettings) -> Option<(IpAddr, Option<String>)> {
        self.address_in(self.network(settings))
    }

    fn address_in(&self, network: Option<&str>) -> Option<(IpAddr, Option<String>)> {
        let named = network.and_then(|network| self.networks.get(network));
        if let Some(address) = named.and_then(|addresses| addresses.preferred()) {
            return Some((address, None));
        }
        match &self.network_mode {
            NetworkMode::Host(address) => return Some((*address, None)),
            NetworkMode::Container(other) => {
                let label = other.label("traefik.docker.network").map(|(_, network)| network);
                return other.address_in(label.filter(|network| !network.is_empty()).or(network));
            }
            NetworkMode::Own => {}
        }
        let mut all =
            self.networks.iter().filter_map(|(name, addresses)| Some((name, addresses.preferred()?)));
        let (name, address) = all.next()?;
        // Traefik takes any; here it is the first by name, each time.
        let remark = match network {
            Some(network) => {
                Some(format!("the container is not attached to the network `{network}`; `{name}` is used"))
            }
            None => all
                .next()
                .map(|_| format!("the container is in several networks and none is named; `{name}` is used")),
        };
        Some((address, remark))
    }

    /// The lowest port of the protocol that it exposes. Where all are for TCP, UDP has the lowest of those, as by
    /// Traefik: people leave `/udp` out.
    pub(super) fn lowest_port(&self, protocol: Protocol) -> Option<u16> {
        let lowest = |protocol| {
            let ports = self.ports.iter().filter(|port| port.is_for(protocol));
            ports.map(|port| port.number).min()
        };
        lowest(protocol).or_else(|| lowest(Protocol::Tcp))
    }

    /// Where the host publishes a port, if at a particular address.
    pub(super) fn binding(&self, port: u16, protocol: Protocol) -> Option<(IpAddr, u16)> {
        let port = self.ports.iter().find(|known| known.is_for(protocol) && known.number == port)?;
        let (address, port) = port.bindings.first()?;
        let address: IpAddr = address.parse().ok()?;
        (!address.is_unspecified()).then_some((address, *port))
    }
}

/// Traefik's `normalize`: every run of characters other than letters and digits becomes one `-`.
pub(super) fn normalize(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(networks: &[(&str, &str)]) -> Container {
        let addresses = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            if address.is_ipv4() {
                Addresses { v4: Some(address), v6: None }
            } else {
                Addresses { v4: None, v6: Some(address) }
            }
        };
        let networks =
            networks.iter().map(|(name, address)| ((*name).to_owned(), addresses(address))).collect();
        Container { networks, ..Container::default() }
    }

    #[test]
    fn names_are_those_of_compose_where_it_made_the_container() {
        assert_eq!(Container { name: "web_1".to_owned(), ..Container::default() }.base_name(), "web-1");
        let labels = [(COMPOSE_PROJECT, "shop"), (COMPOSE_SERVICE, "web.api")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let container = Container { name: "shop-web-1".to_owned(), labels, ..Container::default() };
        assert_eq!(container.base_name(), "web-api-shop");
        assert_eq!(normalize("/a--b__c/"), "a-b-c");
    }

    #[test]
    fn the_address_is_in_the_network_that_is_named() {
        let settings = |network: Option<&str>| ContainerSettings {
            network: network.map(str::to_owned),
            ..ContainerSettings::default()
        };
        let two = container(&[("a", "10.0.0.1"), ("b", "10.0.1.1")]);
        let address = |container: &Container, network: Option<&str>| {
            let (address, remark) = container.address(&settings(network)).unwrap();
            (address.to_string(), remark.is_some())
        };
        assert_eq!(address(&two, Some("b")), ("10.0.1.1".to_owned(), false));
        assert_eq!(address(&two, Some("c")), ("10.0.0.1".to_owned(), true));
        assert_eq!(address(&two, None), ("10.0.0.1".to_owned(), true));
        assert_eq!(address(&container(&[("a", "10.0.0.1")]), None), ("10.0.0.1".to_owned(), false));
        assert_eq!(address(&container(&[("a", "fd00::1")]), None), ("fd00::1".to_owned(), false));
        let labels: BTreeMap<_, _> = [("traefik.docker.NETWORK".to_owned(), "b".to_owned())].into();
        let labelled = Container { labels, ..two.clone() };
        assert_eq!(address(&labelled, Some("a")), ("10.0.1.1".to_owned(), false));
        let beside =
            Container { network_mode: NetworkMode::Container(Box::new(labelled)), ..Container::default() };
        assert_eq!(address(&beside, None), ("10.0.1.1".to_owned(), false));
        let host = NetworkMode::Host("192.0.2.1".parse().unwrap());
        let host = Container { network_mode: host, ..Container::default() };
        assert_eq!(address(&host, Some("a")), ("192.0.2.1".to_owned(), false));
        assert_eq!(Container::default().address(&settings(None)), None);
    }
}
