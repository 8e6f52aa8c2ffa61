//! The TLS settings of a `serversTransport`, as probes use them: made by whoever forwards requests, so that a
//! probe trusts whom requests trust.

use std::sync::{Arc, OnceLock};

use lb_config::dynamic::ServersTransport;
use rustls::ClientConfig;

/// Makes the client's side of TLS from a transport, with HTTP/2 and HTTP/1.1 on offer or HTTP/1.1 alone as the
/// transport says, or tells why it cannot.
pub type ClientTls = dyn Fn(&ServersTransport) -> Result<Arc<ClientConfig>, String> + Send + Sync;

/// Settings that become a `ClientConfig` at the first probe that needs one, and at most once:
/// services that speak plain HTTP never pay for reading the system's roots.
pub(crate) struct Tls {
    transport: ServersTransport,
    client_tls: Arc<ClientTls>,
    built: OnceLock<Result<Built, TlsError>>,
}

struct Built {
    http: Arc<ClientConfig>,
    grpc: Arc<ClientConfig>,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("the TLS settings cannot be used: {0}")]
pub(crate) struct TlsError(String);

impl Tls {
    pub(crate) fn new(transport: ServersTransport, client_tls: Arc<ClientTls>) -> Self {
        Self { transport, client_tls, built: OnceLock::new() }
    }

    pub(crate) fn transport(&self) -> &ServersTransport {
        &self.transport
    }

    /// Offers what the transport allows.
    pub(crate) fn http(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.built().map(|built| Arc::clone(&built.http))
    }

    /// Offers HTTP/2 alone.
    pub(crate) fn grpc(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.built().map(|built| Arc::clone(&built.grpc))
    }

    fn built(&self) -> Result<&Built, TlsError> {
        let build = || {
            let http = (self.client_tls)(&self.transport).map_err(TlsError)?;
            let mut grpc = (*http).clone();
            grpc.alpn_protocols = vec![b"h2".to_vec()];
            Ok(Built { http, grpc: Arc::new(grpc) })
        };
        self.built.get_or_init(build).as_ref().map_err(TlsError::clone)
    }
}
