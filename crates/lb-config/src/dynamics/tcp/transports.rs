//! `tcp.serversTransports`, and the static `tcpServersTransport`.

use crate::decode::{Block, Enabled, Field};
use crate::dynamic;
use crate::pem;
use crate::tcp::{KeepAlive, ProxyVersion, ServersTransport, TerminationDelay};

pub(super) fn servers_transport(field: &Field<'_>) -> Option<ServersTransport> {
    let block = field.object()?;
    let mut transport = ServersTransport::default();
    common(&block, &mut transport);
    transport.proxy_protocol = block.take("proxyProtocol").and_then(|field| proxy_protocol(&field));
    if let Some(Enabled::With(tls)) = block.take("tls").map(|field| field.enabled()) {
        transport.tls = self::tls(&tls);
        tls.finish();
    }
    block.finish();
    Some(transport)
}

/// `tcpServersTransport`: for every load balancer that names no transport.
pub(crate) fn default_transport(field: Option<&Field<'_>>) -> ServersTransport {
    let mut transport = ServersTransport::default();
    let Some(block) = field.and_then(|field| field.block()) else { return transport };
    common(&block, &mut transport);
    if let Some(Enabled::With(tls)) = block.take("tls").map(|field| field.enabled()) {
        verification(&tls, &mut transport.tls);
        tls.finish();
    }
    block.finish();
    transport
}

fn common(block: &Block<'_>, transport: &mut ServersTransport) {
    if let Some(timeout) = block.take("dialTimeout").and_then(|field| field.timeout()) {
        transport.dial_timeout = timeout;
    }
    if let Some(span) = block.take("dialKeepAlive").and_then(|field| field.span()) {
        transport.dial_keep_alive = match span.to_duration() {
            None => KeepAlive::Off,
            Some(every) if every.is_zero() => KeepAlive::System,
            Some(every) => KeepAlive::Every(every),
        };
    }
    let delay = block.take("terminationDelay").and_then(|field| field.span());
    transport.termination_delay = delay.map(|span| -> TerminationDelay { span.to_duration() });
}

fn tls(block: &Block<'_>) -> dynamic::ServersTransport {
    let mut transport = ServersTransport::default().tls;
    verification(block, &mut transport);
    transport.server_name =
        block.take("serverName").and_then(|field| field.string()).filter(|name| !name.is_empty());
    if let Some(certificates) = block.take("certificates") {
        for pair in certificates.list().iter().filter_map(Field::block) {
            transport.certificates.extend(pem::key_pair(&pair));
            pair.finish();
        }
    }
    transport.peer_cert_uri =
        block.take("peerCertURI").and_then(|field| field.string()).filter(|uri| !uri.is_empty());
    transport
}

fn verification(block: &Block<'_>, transport: &mut dynamic::ServersTransport) {
    if let Some(skip) = block.take("insecureSkipVerify").and_then(|field| field.boolean()) {
        transport.insecure_skip_verify = skip;
    }
    if let Some(roots) = block.take("rootCAs") {
        transport.root_cas = pem::certificate_list(&roots);
    }
    block.unsupported(&["spiffe", "peerCertSANs"]);
}

/// Version 2 where the block says nothing.
pub(super) fn proxy_protocol(field: &Field<'_>) -> Option<ProxyVersion> {
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(ProxyVersion::V2),
        Enabled::With(block) => block,
    };
    let version = block.take("version").map_or(Some(2), |field| field.integer(1..=2));
    block.finish();
    Some(if version? == 1 { ProxyVersion::V1 } else { ProxyVersion::V2 })
}
