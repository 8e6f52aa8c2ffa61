//! `udp.routers` and `udp.services`.

use super::Draft;
use crate::decode::{Block, Field};
use crate::net::server_url;
use crate::problem::{Kind, quoted};
use crate::udp::{UdpChild, UdpRouter, UdpServer, UdpService};

/// A heavier child is refused, as a heavier server of HTTP.
const MAX_WEIGHT: i64 = 65_535;

impl<'a> Draft<'a> {
    pub(super) fn read_udp(&mut self, udp: &Block<'a>) {
        self.objects(udp, "routers", Kind::UdpRouter, Self::udp_router, |config| &mut config.udp.routers);
        self.objects(udp, "services", Kind::UdpService, Self::udp_service, |config| &mut config.udp.services);
    }

    fn udp_router(&mut self, name: &str, field: &Field<'a>) -> Option<UdpRouter> {
        let block = field.object()?;
        let field = block.require("service", "name the UDP service that answers");
        let written = field.as_ref().and_then(|field| field.string()).unwrap_or_default();
        let service = field.and_then(|field| self.reference(Kind::UdpRouter, name, Kind::UdpService, &field));
        let known = &self.context.udp_entry_points;
        let entry_points = block.take("entryPoints");
        let entry_points =
            entry_points.map(|field| self.known_entry_points(&field, known)).unwrap_or_default();
        block.finish();
        Some(UdpRouter { entry_points, service: service?, written })
    }

    fn udp_service(&mut self, name: &str, field: &Field<'a>) -> Option<UdpService> {
        let block = field.object()?;
        let (balancer, weighted) = (block.take("loadBalancer"), block.take("weighted"));
        match (&balancer, &weighted) {
            (Some(_), Some(_)) => block.error(
                "a service can be of one kind only".to_owned(),
                Some("declare two services and let one refer to the other".to_owned()),
            ),
            // A key that does not exist is likely to be the kind, misspelt.
            (None, None) if block.left_over().is_empty() => block.error(
                "the service has no kind".to_owned(),
                Some("give it a `loadBalancer` with `servers`".to_owned()),
            ),
            _ => {}
        }
        block.finish();
        if let Some(block) = balancer.and_then(|field| field.block()) {
            let servers = block.take("servers").map(|field| field.list()).unwrap_or_default();
            let servers = servers.iter().filter_map(server).collect();
            block.finish();
            return Some(UdpService::LoadBalancer { servers });
        }
        let block = weighted.and_then(|field| field.block())?;
        let mut services = Vec::new();
        for field in block.take("services").map(|field| field.list()).unwrap_or_default() {
            services.extend(self.udp_child(name, &field));
        }
        block.finish();
        Some(UdpService::Weighted { services })
    }

    fn udp_child(&mut self, name: &str, field: &Field<'a>) -> Option<UdpChild> {
        let child = field.object()?;
        let field = child.require("name", "write the name of a UDP service")?;
        let written = field.string()?;
        let service = self.reference(Kind::UdpService, name, Kind::UdpService, &field);
        let weight = child.take("weight").map_or(Some(1), |field| field.integer(i64::MIN..=MAX_WEIGHT));
        child.finish();
        // Less than nothing is nothing, as by Traefik.
        let weight = u32::try_from(weight?.max(0)).ok()?;
        Some(UdpChild { service: service?, written, weight })
    }
}

fn server(field: &Field<'_>) -> Option<UdpServer> {
    let block = field.object()?;
    let text = block.require("address", "write `address: 192.0.2.7:53`").and_then(|field| field.text());
    block.finish();
    let text = text?;
    let hint = || Some("write `192.0.2.7:53`, `dns.example.com:53` or `[2001:db8::1]:53`".to_owned());
    // The rules for hosts are those of URLs; without a host it is this machine, as to Go.
    let written = if text.value.starts_with(':') { "localhost" } else { "" };
    let has_port =
        text.value.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'));
    match server_url(&format!("http://{written}{}", text.value)) {
        Ok(url) if has_port && url.path.is_empty() && !url.ignored => {
            Some(UdpServer { address: text.value.to_owned(), host: url.host, port: url.port })
        }
        Ok(_) if !has_port => {
            text.error(format!("{} has no port", quoted(text.value)), hint());
            None
        }
        Ok(_) | Err(_) => {
            text.error(format!("{} is not the address of a server", quoted(text.value)), hint());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::dynamic::Config;
    use crate::load::{Context, parse_dynamic};
    use crate::testing::{load, problems};
    use crate::udp::{UdpChild, UdpServer, UdpService};

    #[test]
    fn services_are_read() {
        let loaded = load(
            "udp: {services: {s: {loadBalancer: {servers: [{address: '192.0.2.7:53'}, {address: '[::1]:54'}, \
             {address: 'dns.test:55'}, {address: ':56'}]}}, w: {weighted: {services: [{name: s, weight: 3}, \
             {name: s@file, weight: -1}, {name: s}]}}}}",
        );
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let server = |address: &str, host: &str, port| UdpServer {
            address: address.to_owned(),
            host: host.to_owned(),
            port,
        };
        let servers = vec![
            server("192.0.2.7:53", "192.0.2.7", 53),
            server("[::1]:54", "::1", 54),
            server("dns.test:55", "dns.test", 55),
            server(":56", "localhost", 56),
        ];
        assert_eq!(loaded.config.udp.services["s@file"], UdpService::LoadBalancer { servers });
        let child = |written: &str, weight| UdpChild {
            service: "s@file".to_owned(),
            written: written.to_owned(),
            weight,
        };
        let services = vec![child("s", 3), child("s@file", 0), child("s", 1)];
        assert_eq!(loaded.config.udp.services["w@file"], UdpService::Weighted { services });
    }

    #[test]
    fn the_last_router_by_name_counts() {
        let config: Config = load(
            "udp: {routers: {a: {service: s}, b: {entryPoints: [dns], service: s}, c: {entryPoints: [syslog], \
             service: s}}, services: {s: {loadBalancer: {servers: []}}}}",
        )
        .config;
        let of = |entry_point| config.udp.router_of(entry_point).map(|(name, _)| name);
        assert_eq!((of("dns"), of("syslog"), of("other")), (Some("b@file"), Some("c@file"), Some("a@file")));
    }

    #[test]
    fn what_cannot_work_is_told() {
        let s = "s: {loadBalancer: {servers: []}}";
        for (routers, services, expected) in [
            ("{}", "", "udp.routers.r: `service` is missing"),
            ("{service: missing}", "", "udp.routers.r.service: no UDP service is called `missing`"),
            ("{service: s, rule: x}", "", "udp.routers.r.rule: there is no key `rule` here"),
            (
                "{service: s}",
                "x: {loadBalancer: {}}",
                "udp.services.x.loadBalancer: cannot be a standalone element: `{}` is empty",
            ),
            (
                "{service: s}",
                "x: {loadBalancer: {servers: [{address: '192.0.2.7'}]}}",
                "udp.services.x.loadBalancer.servers[0].address: `192.0.2.7` has no port",
            ),
            (
                "{service: s}",
                "x: {loadBalancer: {servers: [{address: 'a b:1'}]}}",
                "udp.services.x.loadBalancer.servers[0].address: `a b:1` is not the address of a server",
            ),
            (
                "{service: s}",
                "x: {weighted: {services: [{weight: 1}]}}",
                "udp.services.x.weighted.services[0]: `name` is missing",
            ),
            (
                "{service: s}",
                "x: {weighted: {services: [{name: x}]}}",
                "udp.services.x.weighted.services[0].name: the service contains itself: `x@file > x@file`",
            ),
        ] {
            let more = if services.is_empty() { String::new() } else { format!(", {services}") };
            let text = format!("udp: {{routers: {{r: {routers}}}, services: {{{s}{more}}}}}");
            assert_eq!(problems(&text), [expected], "{text}");
        }
    }

    #[test]
    fn routers_have_entry_points_for_udp() {
        let context = Context {
            entry_points: Some(["web".to_owned()].into()),
            udp_entry_points: Some(["dns".to_owned()].into()),
            ..Context::default()
        };
        let text = "udp: {routers: {r: {entryPoints: [web], service: s}, t: {entryPoints: [dns, web], service: s}}, \
                    services: {s: {loadBalancer: {servers: []}}}}";
        let loaded = parse_dynamic("a.yml", text, "file", &context).unwrap();
        assert_eq!(loaded.config.udp.routers.keys().collect::<Vec<_>>(), ["t@file"]);
        assert_eq!(loaded.config.udp.routers["t@file"].entry_points, ["dns"]);
        assert_eq!(
            loaded.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(),
            ["no entry point is called `web`"; 2]
        );
    }
}
