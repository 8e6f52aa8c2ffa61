//! `http.serversTransports`, and what the static `serversTransport` shares with it.

use std::time::Duration;

use super::{tls, tls_max_version, tls_min_version};
use crate::decode::{Block, Field};
use crate::dynamic::ServersTransport;
use crate::pem;

/// Defaults of reference 2.10.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_CONN_TIMEOUT: Duration = Duration::from_secs(90);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// What 0 means.
const IDLE_CONNS: usize = 2;

impl ServersTransport {
    /// With nothing configured but the number of idle connections kept.
    pub(crate) fn with_idle_conns(max_idle_conns_per_host: usize) -> Self {
        Self {
            server_name: None,
            insecure_skip_verify: false,
            root_cas: Vec::new(),
            certificates: Vec::new(),
            max_idle_conns_per_host: Some(max_idle_conns_per_host),
            dial_timeout: Some(DIAL_TIMEOUT),
            response_header_timeout: None,
            idle_conn_timeout: Some(IDLE_CONN_TIMEOUT),
            read_idle_timeout: None,
            ping_timeout: Some(PING_TIMEOUT),
            disable_http2: false,
            min_version: None,
            max_version: None,
            cipher_suites: Vec::new(),
            peer_cert_uri: None,
        }
    }
}

pub(super) fn servers_transport(field: &Field<'_>) -> Option<ServersTransport> {
    let block = field.object()?;
    let mut transport = ServersTransport::with_idle_conns(IDLE_CONNS);
    transport.server_name =
        block.take("serverName").and_then(|field| field.string()).filter(|name| !name.is_empty());
    if let Some(skip) = block.take("insecureSkipVerify").and_then(|field| field.boolean()) {
        transport.insecure_skip_verify = skip;
    }
    if let Some(roots) = block.take("rootCAs") {
        transport.root_cas = pem::certificate_list(&roots);
    }
    if let Some(certificates) = block.take("certificates") {
        for pair in certificates.list().iter().filter_map(Field::block) {
            transport.certificates.extend(pem::key_pair(&pair));
            pair.finish();
        }
    }
    if let Some(field) = block.take("maxIdleConnsPerHost") {
        max_idle_conns(&field, &mut transport);
    }
    if let Some(timeouts) = block.take("forwardingTimeouts").and_then(|field| field.block()) {
        forwarding_timeouts(&timeouts, &mut transport);
        if let Some(timeout) = timeouts.take("readIdleTimeout").and_then(|field| field.timeout()) {
            transport.read_idle_timeout = timeout;
        }
        if let Some(timeout) = timeouts.take("pingTimeout").and_then(|field| field.timeout()) {
            transport.ping_timeout = timeout;
        }
        timeouts.finish();
    }
    if let Some(disable) = block.take("disableHTTP2").and_then(|field| field.boolean()) {
        transport.disable_http2 = disable;
    }
    transport.min_version = block.take("minVersion").and_then(|field| tls_min_version(&field));
    transport.max_version = block.take("maxVersion").and_then(|field| tls_max_version(&field));
    tls::check_version_order(&block, transport.min_version, transport.max_version);
    transport.cipher_suites =
        block.take("cipherSuites").map(|field| tls::cipher_suites(&field)).unwrap_or_default();
    transport.peer_cert_uri =
        block.take("peerCertURI").and_then(|field| field.string()).filter(|uri| !uri.is_empty());
    block.unsupported(&["spiffe", "peerCertSANs"]);
    block.finish();
    Some(transport)
}

/// 0 means 2, a negative number no reuse at all (reference 1.11).
pub(crate) fn max_idle_conns(field: &Field<'_>, transport: &mut ServersTransport) {
    if let Some(number) = field.integer(i64::MIN..=i64::MAX) {
        transport.max_idle_conns_per_host = match number {
            0 => Some(IDLE_CONNS),
            number => usize::try_from(number).ok(),
        };
    }
}

/// The three that the static transport has as well.
pub(crate) fn forwarding_timeouts(block: &Block<'_>, transport: &mut ServersTransport) {
    if let Some(timeout) = block.take("dialTimeout").and_then(|field| field.timeout()) {
        transport.dial_timeout = timeout;
    }
    if let Some(timeout) = block.take("responseHeaderTimeout").and_then(|field| field.timeout()) {
        transport.response_header_timeout = timeout;
    }
    if let Some(timeout) = block.take("idleConnTimeout").and_then(|field| field.timeout()) {
        transport.idle_conn_timeout = timeout;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, problems};

    fn transport(text: &str) -> ServersTransport {
        let mut loaded = load(&format!("http: {{serversTransports: {{x: {text}}}}}"));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        loaded.config.servers_transports.remove("x@file").unwrap()
    }

    #[test]
    fn an_empty_transport_has_traefiks_defaults() {
        assert_eq!(transport("{}"), ServersTransport::with_idle_conns(2));
        assert_eq!(transport("{maxIdleConnsPerHost: 0}").max_idle_conns_per_host, Some(2));
        assert_eq!(transport("{maxIdleConnsPerHost: -1}").max_idle_conns_per_host, None);
        let timeouts =
            transport("{forwardingTimeouts: {dialTimeout: 0, idleConnTimeout: 5, pingTimeout: 1m}}");
        assert_eq!(timeouts.dial_timeout, None);
        assert_eq!(timeouts.idle_conn_timeout, Some(Duration::from_secs(5)));
        assert_eq!(timeouts.ping_timeout, Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_broken_transport_takes_its_services_with_it() {
        let text = "http: {serversTransports: {t: {rootCAs: [/does/not/exist]}}, \
                    services: {s: {loadBalancer: {servers: [], serversTransport: t}}}}";
        assert_eq!(problems(text), ["http.serversTransports.t.rootCAs[0]: `/does/not/exist` does not exist"]);
        assert!(load(text).config.services.is_empty());
    }
}
