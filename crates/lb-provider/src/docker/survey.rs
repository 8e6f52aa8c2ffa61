//! From what the daemon says to the containers that lb-config reads.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_config::docker::{Addresses, Container, NetworkMode, Port, is_candidate};
use lb_config::static_config::ContainerSettings;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::client::{Client, ClientError, Connection, Inspected};

/// Names under which the host is known inside of containers, where it is.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];
/// How long the resolver may take for one of them; chosen.
const LOOKUP: Duration = Duration::from_secs(1);

/// Every container that may serve, looked at.
pub(super) async fn survey(
    client: &Client,
    settings: &ContainerSettings,
) -> Result<Vec<Container>, ClientError> {
    let mut connection = client.connect().await?;
    let mut containers = Vec::new();
    let mut host = None;
    for listed in connection.list().await? {
        let is_running = listed.state.as_deref() == Some("running");
        if !is_candidate(&listed.labels.unwrap_or_default(), is_running, settings) {
            continue;
        }
        if let Some(container) = inspect(&mut connection, &listed.id, &mut host, 0).await? {
            containers.push(container);
        }
    }
    containers.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(containers)
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
