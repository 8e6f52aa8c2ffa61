//! From what the daemon says to the containers that lb-config reads.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_config::docker::{Addresses, Container, NetworkMode, Port, is_candidate};
use lb_config::static_config::ContainerSettings;
use lb_config::{Kind, Problem, Scope, Severity};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::client::{Client, ClientError, Connection, Inspected};

/// Names under which the host is known inside of containers, where it is.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];
/// How long the resolver may take for one of them; chosen.
const LOOKUP: Duration = Duration::from_secs(1);
/// How long one that gave no answer last time may take; chosen, all others wait meanwhile.
const BRIEF: Duration = Duration::from_secs(1);

/// What the daemon tells of its containers.
#[derive(Default)]
pub(super) struct Survey {
    /// Every one that may serve, in the order of their ids.
    pub(super) containers: Vec<Container>,
    pub(super) unread: Unread,
}

/// Containers that are there, and of which the daemon cannot tell more, by their ids.
pub(super) type Unread = BTreeMap<String, Unreadable>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    name: String,
    /// Worded to follow "the Docker daemon".
    reason: String,
    /// What was known of it is used.
    is_known: bool,
    /// There was no answer in time.
    is_silent: bool,
}

impl Unreadable {
    pub(super) fn problem(&self) -> Problem {
        let file = format!("container {}", self.name);
        let what = if self.is_known { "what was known of it stays" } else { "it is left out" };
        Problem {
            severity: Severity::Error,
            scope: Scope::Object { kind: Kind::File, name: file.clone() },
            file,
            line: 0,
            column: 0,
            key: String::new(),
            message: format!("{what}: the Docker daemon {}", self.reason),
            hint: Some("does `docker inspect` answer for it? other containers are not concerned".to_owned()),
        }
    }
}

/// Looks at every container that may serve. One that cannot be read holds up no other: what is `known` of it stays.
///
/// # Errors
/// There is no list of them, or not one could be read.
pub(super) async fn survey(
    client: &Client,
    settings: &ContainerSettings,
    known: &[Container],
    unread: &Unread,
) -> Result<Survey, ClientError> {
    let mut connection = client.connect().await?;
    let mut found = Survey::default();
    let mut first_error = None;
    let mut host = None;
    // Each one that is silent halves it, so a look takes as long as an answer may, and little more.
    let mut patience = client.timeout / 2;
    for listed in connection.list().await? {
        let is_running = listed.state.as_deref() == Some("running");
        if !is_candidate(listed.labels.as_ref().unwrap_or(&BTreeMap::new()), is_running, settings) {
            continue;
        }
        let was_silent = unread.get(&listed.id).is_some_and(|unread| unread.is_silent);
        let limit = if was_silent { BRIEF.min(patience) } else { patience };
        let looked = timeout(limit, inspect(&mut connection, &listed.id, &mut host, 0)).await;
        let error = match looked.unwrap_or(Err(ClientError::Timeout(limit))) {
            Ok(container) => {
                found.containers.extend(container);
                continue;
            }
            Err(error) => error,
        };
        let is_silent = matches!(error, ClientError::Timeout(_));
        if is_silent && !was_silent {
            patience /= 2;
        }
        if !error.ends_answer() {
            connection = client.connect().await?;
        }
        let last = known.iter().find(|container| container.id == listed.id);
        found.containers.extend(last.map(|last| Container { is_running, ..last.clone() }));
        let reason = if is_silent { "gives no answer in time".to_owned() } else { error.to_string() };
        let unreadable = Unreadable { name: listed.name(), reason, is_known: last.is_some(), is_silent };
        found.unread.insert(listed.id, unreadable);
        first_error.get_or_insert(error);
    }
    match first_error {
        Some(error) if found.containers.len() <= found.unread.values().filter(|one| one.is_known).count() => {
            Err(error)
        }
        _ => {
            found.containers.sort_by(|one, other| one.id.cmp(&other.id));
            Ok(found)
        }
    }
}

/// `None`: it is gone.
async fn inspect(
    connection: &mut Connection,
    id: &str,
    host: &mut Option<IpAddr>,
    depth: usize,
) -> Result<Option<Container>, ClientError> {
    let inspected = match connection.inspect(id).await {
        Ok(inspected) => inspected,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = match inspected.host_config.network_mode.as_str() {
        "host" => {
            let address = match *host {
                Some(address) => address,
                None => *host.insert(host_address().await),
            };
            NetworkMode::Host(address)
        }
        // A container may use the network of one that uses that of another: not deeper, lest they form a circle.
        mode if depth < 3 && mode.starts_with("container:") => {
            let other = mode.trim_start_matches("container:").to_owned();
            match Box::pin(inspect(connection, &other, host, depth + 1)).await? {
                Some(other) => NetworkMode::Container(Box::new(other)),
                None => NetworkMode::Own,
            }
        }
        _ => NetworkMode::Own,
    };
    Ok(Some(container(inspected, mode)))
}

fn container(inspected: Inspected, network_mode: NetworkMode) -> Container {
    let Inspected { id, name, state, config, network_settings, .. } = inspected;
    let networks = network_settings.networks.unwrap_or_default();
    let ports = network_settings.ports.unwrap_or_default();
    Container {
        id,
        name: name.trim_start_matches('/').to_owned(),
        service: None,
        labels: config.labels.unwrap_or_default(),
        is_running: state.status == "running",
        is_healthy: state
            .health
            .map(|health| health.status)
            .filter(|status| !status.is_empty() && status != "none")
            .map(|status| status == "healthy"),
        network_mode,
        networks: networks
            .into_iter()
            .filter_map(|(name, network)| {
                let network = network?;
                Some((name, Addresses { v4: network.v4.parse().ok(), v6: network.v6.parse().ok() }))
            })
            .collect(),
        ports: ports
            .into_iter()
            .filter_map(|(port, bindings)| {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let binding = |binding: super::client::Binding| {
                    Some((binding.host_ip, binding.host_port.parse().ok()?))
                };
                let bindings = bindings.unwrap_or_default().into_iter().filter_map(binding).collect();
                Some(Port { number: number.parse().ok()?, is_tcp: protocol == "tcp", bindings })
            })
            .collect(),
    }
}

/// Where containers that share the host's network are reached.
async fn host_address() -> IpAddr {
    for name in HOST_NAMES {
        if let Ok(Ok(found)) = timeout(LOOKUP, lookup_host((name, 0))).await {
            let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            found.sort_by_key(IpAddr::is_ipv6);
            if let Some(address) = found.first() {
                return *address;
            }
        }
    }
    Ipv4Addr::LOCALHOST.into()
}
