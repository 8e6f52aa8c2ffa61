//! `tcp.services`.

use std::collections::HashSet;
use std::time::Duration;

use super::super::composites::switch;
use super::super::services::weight;
use super::Draft;
use super::transports::proxy_protocol;
use crate::decode::{Block, Field};
use crate::net::host_port;
use crate::problem::{Kind, quoted};
use crate::tcp::{HealthCheck, LoadBalancer, Server, Service, TerminationDelay, Weighted, WeightedChild};

/// Defaults of reference 2.12.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest `send` and `expect`; chosen, a greeting has some hundred bytes.
const MOST_BYTES: usize = 64 * 1024;

impl<'a> Draft<'a> {
    pub(super) fn tcp_service(&mut self, name: &str, field: &Field<'a>) -> Option<Service> {
        let block = field.object()?;
        let (balancer, weighted) = (block.take("loadBalancer"), block.take("weighted"));
        if balancer.is_some() && weighted.is_some() {
            let hint = "declare two services and let one refer to the other".to_owned();
            block.error("a service can be of one kind only".to_owned(), Some(hint));
        }
        if balancer.is_none() && weighted.is_none() && block.left_over().is_empty() {
            let hint = "give it a `loadBalancer` with `servers`".to_owned();
            block.error("the service has no kind".to_owned(), Some(hint));
        }
        block.finish();
        if let Some(field) = weighted {
            let block = field.block()?;
            let weighted = self.tcp_weighted(name, &block);
            block.finish();
            return Some(Service::Weighted(weighted));
        }
        let block = balancer?.block()?;
        let balancer = self.tcp_balancer(name, &block);
        block.finish();
        Some(Service::LoadBalancer(balancer))
    }

    fn tcp_balancer(&mut self, name: &str, block: &Block<'a>) -> LoadBalancer {
        let servers = block.take("servers").map(|field| servers(&field)).unwrap_or_default();
        let servers_transport = block
            .take_word("serversTransport")
            .filter(|field| field.string().as_deref() != Some("default@internal"))
            .and_then(|field| self.reference(Kind::TcpService, name, Kind::TcpServersTransport, &field));
        let (header, delay) = (block.take("proxyProtocol"), block.take("terminationDelay"));
        if servers_transport.is_some() {
            for field in [&header, &delay].into_iter().flatten() {
                let message = "has no effect beside `serversTransport`".to_owned();
                field.warn_at_key(message, Some("write it there".to_owned()));
            }
        }
        let delay = delay.and_then(|field| field.integer(i64::MIN..=i64::MAX));
        let delay =
            delay.map(|millis| -> TerminationDelay { u64::try_from(millis).ok().map(Duration::from_millis) });
        LoadBalancer {
            servers,
            termination_delay: delay.filter(|_| servers_transport.is_none()),
            proxy_protocol: header
                .and_then(|field| proxy_protocol(&field))
                .filter(|_| servers_transport.is_none()),
            servers_transport,
            health_check: block.take("healthCheck").and_then(|field| health_check(&field)),
        }
    }

    fn tcp_weighted(&mut self, name: &str, block: &Block<'a>) -> Weighted {
        let health_check = block.take("healthCheck").is_some_and(|field| switch(&field));
        let mut services = Vec::new();
        for field in block.take("services").map(|field| field.list()).unwrap_or_default() {
            let Some(child) = field.object() else { continue };
            let written = child.require("name", "write the name of a service");
            let service = written
                .as_ref()
                .and_then(|field| self.reference(Kind::TcpService, name, Kind::TcpService, field));
            if health_check && service.is_some() {
                self.needs_health_check();
            }
            let written = written.and_then(|field| field.string());
            let weight = child.take("weight").map_or(Some(1), |field| weight(&field));
            child.finish();
            if let (Some(name), Some(written), Some(weight)) = (service, written, weight) {
                services.push(WeightedChild { name, written, weight });
            }
        }
        Weighted { services, health_check }
    }
}

fn servers(field: &Field<'_>) -> Vec<Server> {
    let mut known = HashSet::new();
    let mut servers = Vec::new();
    let mut refused = Vec::new();
    for field in field.list() {
        let Some(block) = field.object() else { continue };
        let address =
            block.require("address", "write `address: 192.0.2.7:5432`").and_then(|field| field.text());
        let tls = block.take("tls").and_then(|field| field.boolean()).unwrap_or(false);
        if let Some(address) = address {
            match host_port(address.value) {
                Ok((host, port)) => {
                    if !known.insert(address.value) {
                        let message = format!("the server {} is listed twice", quoted(address.value));
                        block.warn(message, Some("remove one of them".to_owned()));
                    }
                    servers.push(Server { address: address.value.to_owned(), host, port, tls });
                }
                Err((message, hint)) => refused.push((address, message, hint)),
            }
        }
        block.finish();
    }
    // As in Traefik the others go on without; where there are none there is nothing to go on with.
    for (address, message, hint) in refused {
        if servers.is_empty() {
            address.error(message, hint);
        } else {
            field.report.tolerated(address.start(), &address.field.path(), message, hint);
        }
    }
    servers
}

fn health_check(field: &Field<'_>) -> Option<HealthCheck> {
    let block = match field.enabled() {
        crate::decode::Enabled::Off => return None,
        crate::decode::Enabled::Plain => None,
        crate::decode::Enabled::With(block) => Some(block),
    };
    let mut check = HealthCheck {
        port: None,
        send: String::new(),
        expect: String::new(),
        interval: INTERVAL,
        unhealthy_interval: INTERVAL,
        timeout: TIMEOUT,
    };
    let Some(block) = block else { return Some(check) };
    check.port = block.take("port").and_then(|field| field.u16(0, u16::MAX)).filter(|port| *port != 0);
    let bytes = |key| {
        let field: Option<Field<'_>> = block.take(key);
        let text = field.as_ref().and_then(|field| field.string()).unwrap_or_default();
        if let Some(field) = field.filter(|_| text.len() > MOST_BYTES) {
            field.error(format!("longer than {MOST_BYTES} bytes"), None);
        }
        text
    };
    (check.send, check.expect) = (bytes("send"), bytes("expect"));
    let time = |key, default| {
        let field: Option<Field<'_>> = block.take(key);
        field.and_then(|field| field.duration_or(default)).unwrap_or(default)
    };
    check.interval = time("interval", INTERVAL);
    check.unhealthy_interval = time("unhealthyInterval", check.interval);
    check.timeout = time("timeout", TIMEOUT);
    block.finish();
    Some(check)
}
