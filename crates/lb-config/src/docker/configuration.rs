//! From one container to the document that a file with the same meaning would hold (reference 4.3).

use std::net::SocketAddr;

use super::container::{Container, Protocol};
use super::layer4::is_served;
use super::tree::Branch;
use crate::document::Position;
use crate::problem::quoted;
use crate::static_config::ContainerSettings;
use crate::suggest;

/// What makes no sense in labels: it concerns no single container. Below `http`, then below one service.
const NOT_IN_LABELS: [&str; 1] = ["serversTransports"];
const NOT_IN_SERVICES: [&str; 4] = ["weighted", "mirroring", "failover", "highestRandomWeight"];

/// Labels that Traefik knows besides those of the dynamic configuration.
const OWN_LABELS: [&str; 6] = [
    "traefik.enable",
    "traefik.docker.network",
    "traefik.docker.lbswarm",
    "traefik.docker.allownonrunning",
    "traefik.swarm.network",
    "traefik.swarm.lbswarm",
];

/// Something about a label, or about the container as a whole (at line 0).
pub(super) struct Remark {
    pub(super) at: Position,
    pub(super) is_error: bool,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// Reads one container.
pub(super) struct Reader<'a> {
    pub(super) container: &'a Container,
    pub(super) settings: &'a ContainerSettings,
    /// Number in the list of files.
    pub(super) file: u32,
    /// Line of the first label.
    pub(super) first_line: u32,
    pub(super) remarks: Vec<Remark>,
}

impl Reader<'_> {
    /// The place of the container itself.
    pub(super) fn here(&self) -> Position {
        Position { file: self.file, line: 0, column: 0 }
    }

    /// The place of a label.
    fn label_at(&self, name: &str) -> Position {
        let index = self.container.labels.keys().position(|key| key.eq_ignore_ascii_case(name));
        let line = index.map_or(0, |index| self.first_line + u32::try_from(index).unwrap_or(0));
        Position { line, ..self.here() }
    }

    pub(super) fn remark(&mut self, at: Position, is_error: bool, message: String, hint: Option<&str>) {
        self.remarks.push(Remark { at, is_error, message, hint: hint.map(str::to_owned) });
    }

    /// A label that says yes or no; `Err` when it says neither.
    fn switch(&mut self, name: &str, default: bool) -> Result<bool, ()> {
        let Some((_, value)) = self.container.label(name) else { return Ok(default) };
        match crate::decode::boolean(value) {
            Some(value) => Ok(value),
            None => {
                let message = format!("expected `true` or `false`, found {}", quoted(value));
                let hint = "the container is left out; write `true` or `false`";
                self.remark(self.label_at(name), true, message, Some(hint));
                Err(())
            }
        }
    }

    /// The document; `None` when the container is not to be used.
    pub(super) fn read(&mut self) -> Option<Branch> {
        let (container, settings) = (self.container, self.settings);
        let enabled = self.switch("traefik.enable", settings.exposed_by_default).unwrap_or(false);
        let allowed = || settings.constraints.as_ref().is_none_or(|all| all.allow(&container.labels));
        if !enabled || !allowed() {
            return None;
        }
        self.one_kind().ok()?;
        let stopped_too = self.switch("traefik.docker.allownonrunning", false).ok()?;
        let is_well = container.is_healthy != Some(false);
        let is_kept = container.is_running && (is_well || settings.allow_empty_services);
        if !is_kept && !stopped_too {
            return None;
        }
        let mut root = self.tree()?;
        self.refuse_tcp_transports(&mut root);
        let (tcp, udp) = (is_served(&root, "tcp"), is_served(&root, "udp"));
        let http = root.find("http").is_some_and(|http| {
            ["routers", "services", "middlewares"].iter().any(|kind| http.count(kind) > 0)
        });
        let here = self.here();
        let serves = container.is_running && is_well;
        if tcp {
            self.layer4(root.child("tcp", here), Protocol::Tcp, serves).ok()?;
        }
        if udp {
            self.layer4(root.child("udp", here), Protocol::Udp, serves).ok()?;
        }
        if (tcp || udp) && !http {
            return Some(root);
        }
        let http = root.child("http", here);
        for key in NOT_IN_LABELS {
            if let Some(branch) = http.remove(key) {
                self.remark(branch.at, true, not_by_labels(key), Some(IN_A_FILE));
            }
        }
        let name = container.base_name();
        if http.count("services") == 0 {
            http.child("services", here).child(&name, here);
        }
        for (_, service) in &mut http.child("services", here).children {
            self.server(service, serves).ok()?;
        }
        self.routers(http, &name);
        Some(root)
    }

    /// In a swarm what is said of the container itself begins with `traefik.swarm`, or all of it as it did before that.
    fn one_kind(&mut self) -> Result<(), ()> {
        let label = |kind: &str| {
            let names = ["network", "lbswarm"].map(|name| format!("traefik.{kind}.{name}"));
            names.iter().find_map(|name| Some(self.container.label(name)?.0.to_owned()))
        };
        let (Some(_), Some(old), Some(new)) = (&self.container.service, label("docker"), label("swarm"))
        else {
            return Ok(());
        };
        let message = format!("{} is there as well", quoted(&new));
        self.remark(
            self.label_at(&old),
            true,
            message,
            Some("keep the labels that begin with `traefik.swarm`"),
        );
        Err(())
    }

    /// What the labels say, before anything is added.
    fn tree(&mut self) -> Option<Branch> {
        let mut root = Branch::new(self.here());
        let mut fits = true;
        let labels = self.container.labels.iter();
        for (line, (key, value)) in (self.first_line..).zip(labels) {
            let at = Position { line, ..self.here() };
            let Some((prefix, name)) = key.split_once('.') else { continue };
            if !prefix.eq_ignore_ascii_case("traefik") {
                continue;
            }
            let lower = name.to_ascii_lowercase();
            if ["http.", "tcp.", "udp.", "tls.stores.default."].iter().any(|known| lower.starts_with(known)) {
                if let Err(message) = root.add(name, value, at) {
                    self.remark(at, true, format!("the name of the label {message}"), None);
                    fits = false;
                }
            } else if !OWN_LABELS.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                let roots = ["traefik.http", "traefik.tcp", "traefik.udp", "traefik.tls.stores.default"];
                let near = suggest::nearest(key, OWN_LABELS.into_iter().chain(roots));
                let hint = near.map(|near| format!("did you mean {}?", quoted(near)));
                self.remark(at, false, "the label is ignored".to_owned(), hint.as_deref());
            }
        }
        fits.then_some(root)
    }

    /// Turns the `server` of a service into its list of servers, with this container as the only one.
    fn server(&mut self, service: &mut Branch, serves: bool) -> Result<(), ()> {
        let hint = "write `loadbalancer.server.port`, `.scheme`, `.weight` or `.url`";
        self.only_server(service, &NOT_IN_SERVICES, hint, serves, |reader, server| {
            let (scheme, port) = (server.remove("scheme"), server.remove("port"));
            let set = |branch: &Option<Branch>| {
                branch.as_ref().is_some_and(|branch| branch.value.as_deref().is_some_and(|v| !v.is_empty()))
            };
            if set(&server.find("url").cloned()) {
                if set(&scheme) || set(&port) {
                    let message = "`url` leaves nothing to `port` and `scheme`".to_owned();
                    let hint = "keep the `url`, or `port` and `scheme`";
                    reader.remark(server.at, true, message, Some(hint));
                    return Err(());
                }
            } else {
                server.remove("url");
                let (at, url) = reader.url(scheme, port)?;
                server.put("url", Branch::scalar(at, &url));
            }
            Ok(())
        })
    }

    /// The list of servers of a service: what `complete` makes of its `server`, or nobody while the container does
    /// not serve. `composites` are kinds of services that are not for labels; `hint` says what is.
    pub(super) fn only_server(
        &mut self,
        service: &mut Branch,
        composites: &[&str],
        hint: &str,
        serves: bool,
        complete: impl FnOnce(&mut Self, &mut Branch) -> Result<(), ()>,
    ) -> Result<(), ()> {
        let here = self.here();
        let mut is_composite = false;
        for key in composites {
            if let Some(branch) = service.remove(key) {
                self.remark(branch.at, true, not_by_labels(key), Some(IN_A_FILE));
                is_composite = true;
            }
        }
        if is_composite {
            return Err(());
        }
        let balancer = service.child("loadBalancer", here);
        if let Some(servers) = balancer.remove("servers") {
            let message = "a container is its own only server".to_owned();
            self.remark(servers.at, true, message, Some(hint));
            return Err(());
        }
        let mut server = balancer.remove("server").unwrap_or(Branch::new(here));
        if serves {
            complete(self, &mut server)?;
        }
        let servers = if serves { vec![server] } else { Vec::new() };
        balancer.put("servers", Branch::list(here, servers));
        Ok(())
    }

    /// Where this container listens.
    fn url(&mut self, scheme: Option<Branch>, port: Option<Branch>) -> Result<(Position, String), ()> {
        let at = port.as_ref().or(scheme.as_ref()).map_or(self.here(), |branch| branch.at);
        let scheme = scheme.as_ref().and_then(text).unwrap_or_else(|| "http".to_owned());
        let label = "traefik.http.services.NAME.loadbalancer.server.port";
        let address = self.address(at, port, Protocol::Tcp, label)?;
        Ok((at, format!("{scheme}://{address}")))
    }

    /// Where it listens on a port; `label` is what names it.
    pub(super) fn address(
        &mut self,
        at: Position,
        port: Option<Branch>,
        protocol: Protocol,
        label: &str,
    ) -> Result<SocketAddr, ()> {
        let (container, settings) = (self.container, self.settings);
        let number = match port.as_ref().and_then(text) {
            Some(text) => match text.parse::<u16>() {
                Ok(number) if number > 0 => number,
                _ => {
                    let message = format!("{} is not a port", quoted(&text));
                    self.remark(at, true, message, Some("write a number from 1 to 65535"));
                    return Err(());
                }
            },
            None => match container.lowest_port(protocol) {
                Some(number) => number,
                None => {
                    let message = "port is missing: the container exposes none".to_owned();
                    let hint = format!("add the label `{label}`, or `traefik.enable=false`");
                    // Somebody wants it served, or it is just there.
                    let wanted = container.labels.keys().any(|key| key.starts_with("traefik."));
                    self.remark(self.here(), wanted, message, Some(&hint));
                    return Err(());
                }
            },
        };
        let bound = settings.use_bind_port_ip.then(|| container.binding(number, protocol)).flatten();
        let (address, number) = match (bound, container.address(settings)) {
            (Some(bound), _) => bound,
            (None, Some((address, remark))) => {
                if let Some(remark) = remark {
                    let provider = settings.orchestrator.provider();
                    let hint = format!(
                        "name one with the label `traefik.{provider}.network` or `providers.{provider}.network`; \
                         Compose and stacks put their name before its own"
                    );
                    self.remark(self.here(), false, remark, Some(&hint));
                }
                (address, number)
            }
            (None, None) => {
                let message = "the container has no address".to_owned();
                self.remark(self.here(), true, message, Some("attach it to a network"));
                return Err(());
            }
        };
        Ok(SocketAddr::new(address, number))
    }

    /// Gives routers what they leave out, and the container a router if it has none.
    fn routers(&mut self, http: &mut Branch, name: &str) {
        let here = self.here();
        let only = http.only_service();
        if http.count("routers") == 0 {
            if only.is_none() {
                let message = "there is no router, and several services to lead to".to_owned();
                return self.remark(here, true, message, Some("declare a router for each service"));
            }
            http.child("routers", here).child(name, here);
        }
        let Some(routers) = http.find_mut("routers") else { return };
        routers.retain(|router, branch| {
            if lacks(branch, "rule") {
                match self.settings.default_rule.render(self.container) {
                    Ok(rule) => {
                        branch.remove("rule");
                        branch.put("rule", Branch::scalar(here, &rule));
                    }
                    Err(reason) => {
                        let message = format!("the router {} has no rule: {reason}", quoted(router));
                        self.remark(branch.at, true, message, None);
                        return false;
                    }
                }
            }
            self.lead(router, branch, only.as_deref())
        });
        if routers.children.is_empty() {
            http.remove("routers");
        }
    }

    /// Gives a router without a service the only one that there is; false: there is no such.
    pub(super) fn lead(&mut self, router: &str, branch: &mut Branch, only: Option<&str>) -> bool {
        if !lacks(branch, "service") {
            return true;
        }
        let Some(only) = only else {
            let message =
                format!("the router {} names no service, and the container has several", quoted(router));
            self.remark(branch.at, true, message, Some("add its label `.service`"));
            return false;
        };
        branch.remove("service");
        branch.put("service", Branch::scalar(self.here(), only));
        true
    }
}

fn lacks(branch: &Branch, key: &str) -> bool {
    branch.find(key).is_none_or(|field| field.value.as_deref().is_some_and(str::is_empty))
}

/// What a label says, unless that is nothing.
fn text(branch: &Branch) -> Option<String> {
    branch.value.as_deref().filter(|value| !value.is_empty()).map(str::to_owned)
}

pub(super) const IN_A_FILE: &str = "define it in a file, where it can name `service@docker`";

pub(super) fn not_by_labels(key: &str) -> String {
    format!("{} cannot be set by labels", quoted(key))
}
