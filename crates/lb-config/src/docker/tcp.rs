//! `traefik.tcp.*` labels: what they leave out is added, as for HTTP.

use super::configuration::{IN_A_FILE, Reader, not_by_labels};
use super::tree::Branch;
use crate::problem::quoted;

impl Reader<'_> {
    /// Turns the `server` of each service into its list of servers, and gives routers their service.
    pub(super) fn tcp(&mut self, tcp: &mut Branch, serves: bool) -> Result<(), ()> {
        let here = self.here();
        if let Some(branch) = tcp.remove("serversTransports") {
            self.remark(branch.at, true, not_by_labels("serversTransports"), Some(IN_A_FILE));
        }
        if tcp.count("services") == 0 {
            let name = self.container.base_name();
            tcp.child("services", here).child(&name, here);
        }
        for (_, service) in &mut tcp.child("services", here).children {
            self.tcp_server(service, serves)?;
        }
        self.tcp_routers(tcp);
        Ok(())
    }

    fn tcp_server(&mut self, service: &mut Branch, serves: bool) -> Result<(), ()> {
        let here = self.here();
        if let Some(branch) = service.remove("weighted") {
            self.remark(branch.at, true, not_by_labels("weighted"), Some(IN_A_FILE));
            return Err(());
        }
        let balancer = service.child("loadBalancer", here);
        if let Some(servers) = balancer.remove("servers") {
            let message = "a container is its own only server".to_owned();
            let hint = "write `loadbalancer.server.port` or `.tls`";
            self.remark(servers.at, true, message, Some(hint));
            return Err(());
        }
        let mut server = balancer.remove("server").unwrap_or(Branch::new(here));
        if serves {
            let port = server.remove("port");
            let at = port.as_ref().map_or(here, |branch| branch.at);
            let address = self.address(at, port, "traefik.tcp.services.NAME.loadbalancer.server.port")?;
            server.children.push(("address".into(), Branch::scalar(at, &address.to_string())));
        }
        let servers = if serves { vec![server] } else { Vec::new() };
        balancer.children.push(("servers".into(), Branch::list(here, servers)));
        Ok(())
    }

    fn tcp_routers(&mut self, tcp: &mut Branch) {
        let here = self.here();
        let services: Vec<_> = tcp.find("services").into_iter().flat_map(|all| &all.children).collect();
        let only = match services.as_slice() {
            [(only, _)] => Some(only.clone()),
            _ => None,
        };
        let Some(routers) = tcp.find_mut("routers") else { return };
        routers.children.retain_mut(|(router, branch)| {
            let service = branch.find("service");
            if service.is_some_and(|service| service.value.as_deref() != Some("")) {
                return true;
            }
            let Some(only) = &only else {
                let message =
                    format!("the router {} names no service, and the container has several", quoted(router));
                self.remark(branch.at, true, message, Some("add its label `.service`"));
                return false;
            };
            branch.remove("service");
            branch.children.push(("service".into(), Branch::scalar(here, only)));
            true
        });
        if routers.children.is_empty() {
            tcp.remove("routers");
        }
    }
}
