//! From what a manager of a swarm says to the containers that lb-config reads: one for each task that runs.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use lb_config::docker::{Addresses, Container, NetworkMode, is_balanced_by_swarm, is_candidate};
use lb_config::static_config::ContainerSettings;
use serde::Deserialize;

use super::client::{Client, ClientError};

/// Tasks that the swarm wants to run: {"desired-state":{"running":true}}.
const TASKS: &str = "/tasks?filters=%7B%22desired-state%22%3A%7B%22running%22%3Atrue%7D%7D";

/// Every task of a service that may serve, and whether others of them are about to run.
pub(super) async fn survey(
    client: &Client,
    settings: &ContainerSettings,
) -> Result<(Vec<Container>, bool), ClientError> {
    let mut connection = client.connect().await?;
    let listed: Vec<Service> = connection.get("/services").await?;
    let is_wanted = |service: &Service| is_candidate(&service.spec.labels(), true, settings);
    let services: HashMap<String, Service> =
        listed.into_iter().filter(is_wanted).map(|service| (service.id.clone(), service)).collect();
    if services.is_empty() {
        return Ok((Vec::new(), false));
    }
    let tasks: Vec<Task> = connection.get(TASKS).await?;
    let uses_host = |task: &Task| task.attachments().any(|attachment| attachment.network.is_host());
    let nodes: HashMap<String, IpAddr> = match tasks.iter().any(uses_host) {
        true => {
            let nodes: Vec<Node> = connection.get("/nodes").await?;
            nodes.into_iter().filter_map(|node| Some((node.id, node.status?.addr.parse().ok()?))).collect()
        }
        false => HashMap::new(),
    };
    let names = networks(&tasks);
    let mut containers: Vec<Container> = Vec::new();
    let mut is_settling = false;
    let mut balanced: HashMap<&str, Container> = HashMap::new();
    for task in &tasks {
        let Some(service) = services.get(&task.service_id) else { continue };
        if task.status.state != "running" {
            is_settling |= task.is_about_to_run();
        } else if let Some(addresses) = service.virtual_addresses(&names) {
            let id = service.id.as_str();
            balanced.entry(id).or_insert_with(|| service.container(id, &service.spec.name, addresses));
        } else {
            containers.push(task.container(service, &nodes));
        }
    }
    containers.extend(balanced.into_values());
    containers.sort_by(|one, other| one.id.cmp(&other.id));
    Ok((containers, is_settling))
}

/// The names of the networks that tasks are attached to, but for the one that publishes ports: containers that publish
/// none do not reach it.
fn networks(tasks: &[Task]) -> HashMap<&str, &str> {
    let attached = tasks.iter().flat_map(Task::attachments).map(|attachment| &attachment.network);
    attached
        .filter(|network| !network.spec.ingress)
        .map(|network| (network.id.as_str(), network.spec.name.as_str()))
        .collect()
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Spec")]
    spec: ServiceSpec,
    #[serde(rename = "Endpoint", default)]
    endpoint: Endpoint,
}

impl Service {
    /// Where the swarm balances, if that is wanted and it does.
    fn virtual_addresses(&self, names: &HashMap<&str, &str>) -> Option<BTreeMap<String, Addresses>> {
        if !is_balanced_by_swarm(&self.spec.labels()) {
            return None;
        }
        let addresses = self.endpoint.virtual_ips.iter().flatten().filter_map(|address| {
            let name = names.get(address.network_id.as_str())?;
            Some(((*name).to_owned(), addresses([address.addr.as_str()])?))
        });
        Some(addresses.collect()).filter(|addresses: &BTreeMap<_, _>| !addresses.is_empty())
    }

    fn container(&self, id: &str, name: &str, networks: BTreeMap<String, Addresses>) -> Container {
        Container {
            id: id.to_owned(),
            name: name.to_owned(),
            service: Some(self.spec.name.clone()),
            labels: self.spec.labels(),
            is_running: true,
            // One whose health check fails is replaced, one that has not passed it is not running yet.
            is_healthy: None,
            network_mode: NetworkMode::Own,
            networks,
            ports: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
struct ServiceSpec {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
}

impl ServiceSpec {
    fn labels(&self) -> BTreeMap<String, String> {
        self.labels.clone().unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
struct Endpoint {
    #[serde(rename = "VirtualIPs", default)]
    virtual_ips: Option<Vec<VirtualIp>>,
}

#[derive(Deserialize)]
struct VirtualIp {
    #[serde(rename = "NetworkID", default)]
    network_id: String,
    /// With the length of its prefix; empty in the host's network.
    #[serde(rename = "Addr", default)]
    addr: String,
}

#[derive(Deserialize)]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    #[serde(rename = "NodeID", default)]
    node_id: String,
    /// None where the service runs once on each node.
    #[serde(rename = "Slot", default)]
    slot: Option<u64>,
    #[serde(rename = "Status", default)]
    status: TaskStatus,
    #[serde(rename = "NetworksAttachments", default)]
    attachments: Option<Vec<Attachment>>,
}

impl Task {
    fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.iter().flatten()
    }

    /// A node has it already; where none fits it may wait for ever.
    fn is_about_to_run(&self) -> bool {
        ["assigned", "accepted", "preparing", "ready", "starting"].contains(&self.status.state.as_str())
    }

    fn container(&self, service: &Service, nodes: &HashMap<String, IpAddr>) -> Container {
        let name = match self.slot {
            Some(slot) => format!("{}.{slot}", service.spec.name),
            None => format!("{}.{}", service.spec.name, self.id),
        };
        let networks = self.attachments().filter(|attachment| !attachment.network.spec.ingress);
        let networks = networks.filter_map(|attachment| {
            let given = attachment.addresses.iter().flatten().map(String::as_str);
            Some((attachment.network.spec.name.clone(), addresses(given)?))
        });
        // Events of this node's containers have the container's name, so it is that if there is one.
        let container = self.status.container.as_ref().map(|container| container.id.as_str());
        let id = container.filter(|id| !id.is_empty()).unwrap_or(&self.id);
        let mut container = service.container(id, &name, networks.collect());
        if self.attachments().any(|attachment| attachment.network.is_host())
            && let Some(node) = nodes.get(&self.node_id)
        {
            container.network_mode = NetworkMode::Host(*node);
        }
        container
    }
}

#[derive(Default, Deserialize)]
struct TaskStatus {
    #[serde(rename = "State", default)]
    state: String,
    #[serde(rename = "ContainerStatus", default)]
    container: Option<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(rename = "ContainerID", default)]
    id: String,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "Network", default)]
    network: Network,
    /// With the lengths of their prefixes.
    #[serde(rename = "Addresses", default)]
    addresses: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Network {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Spec", default)]
    spec: NetworkSpec,
    #[serde(rename = "DriverState", default)]
    driver: Option<Driver>,
}

impl Network {
    fn is_host(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.name == "host")
    }
}

#[derive(Default, Deserialize)]
struct NetworkSpec {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Ingress", default)]
    ingress: bool,
}

#[derive(Deserialize)]
struct Driver {
    #[serde(rename = "Name", default)]
    name: String,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Status", default)]
    status: Option<NodeStatus>,
}

#[derive(Deserialize)]
struct NodeStatus {
    #[serde(rename = "Addr", default)]
    addr: String,
}

/// From `10.0.1.3/24`; `None` without any.
fn addresses<'a>(given: impl IntoIterator<Item = &'a str>) -> Option<Addresses> {
    let mut found = Addresses::default();
    for address in given {
        match address.split_once('/').map_or(address, |(address, _)| address).parse::<IpAddr>() {
            Ok(address @ IpAddr::V4(_)) => found.v4 = found.v4.or(Some(address)),
            Ok(address @ IpAddr::V6(_)) => found.v6 = found.v6.or(Some(address)),
            Err(_) => {}
        }
    }
    (found.v4.is_some() || found.v6.is_some()).then_some(found)
}
