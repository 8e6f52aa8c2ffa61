//! `traefik.tcp.*` and `traefik.udp.*` labels: what they leave out is added, as for HTTP.

use super::configuration::{IN_A_FILE, Reader, not_by_labels};
use super::container::Protocol;
use super::tree::Branch;

/// Whether this container is to be a server of the layer: middlewares alone are for others.
pub(super) fn is_served(root: &Branch, layer: &str) -> bool {
    root.find(layer).is_some_and(|section| ["routers", "services"].iter().any(|kind| section.count(kind) > 0))
}

impl Reader<'_> {
    pub(super) fn refuse_tcp_transports(&mut self, root: &mut Branch) {
        let Some(section) = root.find_mut("tcp") else { return };
        let Some(branch) = section.remove("serversTransports") else { return };
        if section.children.is_empty() {
            root.remove("tcp");
        }
        self.remark(branch.at, true, not_by_labels("serversTransports"), Some(IN_A_FILE));
    }

    /// Turns the `server` of each service into its list of servers, and gives routers their service.
    pub(super) fn layer4(
        &mut self,
        section: &mut Branch,
        protocol: Protocol,
        serves: bool,
    ) -> Result<(), ()> {
        let here = self.here();
        let (hint, label) = match protocol {
            Protocol::Tcp => (
                "write `loadbalancer.server.port` or `.tls`",
                "traefik.tcp.services.NAME.loadbalancer.server.port",
            ),
            Protocol::Udp => {
                ("write `loadbalancer.server.port`", "traefik.udp.services.NAME.loadbalancer.server.port")
            }
        };
        if section.count("services") == 0 {
            let name = self.container.base_name();
            section.child("services", here).child(&name, here);
        }
        for (_, service) in &mut section.child("services", here).children {
            self.only_server(service, &["weighted"], hint, serves, |reader, server| {
                let port = server.remove("port");
                let at = port.as_ref().map_or(here, |branch| branch.at);
                let address = reader.address(at, port, protocol, label)?;
                server.put("address", Branch::scalar(at, &address.to_string()));
                Ok(())
            })?;
        }
        let only = section.only_service();
        let Some(routers) = section.find_mut("routers") else { return Ok(()) };
        routers.retain(|router, branch| self.lead(router, branch, only.as_deref()));
        if routers.children.is_empty() {
            section.remove("routers");
        }
        Ok(())
    }
}
