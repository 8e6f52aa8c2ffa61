//! `tls` of whoever is not a server of a service: the Docker daemon, receivers of telemetry.

use crate::decode::Block;
use crate::dynamic::ServersTransport;
use crate::pem;

/// The system's certificates, for the HTTP versions that the other side speaks.
pub(super) fn plain(http2: bool) -> ServersTransport {
    ServersTransport { disable_http2: !http2, ..ServersTransport::with_idle_conns(1) }
}

/// `ca`, `cert`, `key` and `insecureSkipVerify`.
pub(super) fn read(block: &Block<'_>, mut transport: ServersTransport) -> ServersTransport {
    if let Some(ca) = block.take_word("ca") {
        transport.root_cas = pem::certificate_list(&ca);
    }
    let has = |key: &'static str| block.take_word(key).is_some();
    if has("cert") | has("key") {
        transport.certificates.extend(pem::pair(block, "cert", "key"));
    }
    if let Some(skip) = block.take("insecureSkipVerify").and_then(|field| field.boolean()) {
        transport.insecure_skip_verify = skip;
    }
    transport
}
