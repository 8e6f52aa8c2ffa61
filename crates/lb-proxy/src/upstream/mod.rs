//! Connections towards servers: who they are, how they are reached, what can go wrong.

pub(crate) mod acquire;
mod connect;
mod dial;
pub(crate) mod failure;
pub(crate) mod h2;
mod opening;
pub(crate) mod pool;
pub(crate) mod private;
pub(crate) mod refused;
mod resolve;
pub(crate) mod room;
pub(crate) mod up;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lb_config::dynamic::{Scheme, Server, ServersTransport};
use lb_observe::metrics::LabelId;

use crate::report::Report;

pub use dial::dial;
pub(crate) use dial::while_wanted;

/// The addresses of `host`, with `port`, in the system's order.
pub(crate) async fn addresses(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    resolve::resolve(host, port).await
}

/// One server as the data plane reaches it. Immutable; unchanged ones live on in the next snapshot.
pub(crate) struct Endpoint {
    /// Keys the workers' connection pools; never used twice.
    pub(crate) id: u64,
    pub(crate) url: Arc<str>,
    pub(crate) label: LabelId,
    /// The service it belongs to.
    pub(crate) service: Arc<str>,
    pub(crate) service_label: LabelId,
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Known without a look-up when the URL holds an address.
    pub(crate) address: Option<SocketAddr>,
    /// `host:port` as the URL has it: the `Host` when the client's is not passed on.
    pub(crate) authority: String,
    /// `host:port`, for the access log.
    pub(crate) address_text: String,
    /// Prepended to the request path (`preservePath`).
    pub(crate) path_prefix: Option<String>,
    pub(crate) transport: Arc<Transport>,
    /// Set when no snapshot in force has it any more: nothing is to be kept open to it. Holds the service's
    /// `drainTimeout` of then.
    pub(crate) retired: OnceLock<Option<Duration>>,
    /// Requests that it has failed, and connections that could not be had.
    pub(crate) failures: Report,
    unconnected: Report,
}

/// How servers are talked to: one `serversTransport`, compiled.
pub(crate) struct Transport {
    pub(crate) settings: ServersTransport,
    /// Offers `http/1.1` only: upgrades, and `disableHTTP2`.
    pub(crate) tls_http1: Result<Arc<rustls::ClientConfig>, String>,
    /// Offers `h2` first.
    pub(crate) tls_any: Result<Arc<rustls::ClientConfig>, String>,
}

impl Endpoint {
    pub(crate) fn new(
        id: u64,
        server: &Server,
        label: LabelId,
        service: (Arc<str>, LabelId),
        transport: Arc<Transport>,
    ) -> Self {
        let (service, service_label) = service;
        let ip: Option<IpAddr> = server.host.parse().ok();
        let bracketed = matches!(ip, Some(IpAddr::V6(_)));
        let host = if bracketed { format!("[{}]", server.host) } else { server.host.clone() };
        let default_port = if server.scheme == Scheme::Https { 443 } else { 80 };
        // Go's URL.Host keeps a port only where it was written; a default one that was written is rare.
        let address_text = format!("{host}:{}", server.port);
        let authority = if server.port == default_port { host } else { format!("{host}:{}", server.port) };
        let path = server.path.trim_end_matches('/');
        Self {
            id,
            url: server.url.as_str().into(),
            label,
            service,
            service_label,
            scheme: server.scheme,
            host: server.host.clone(),
            port: server.port,
            address: ip.map(|ip| SocketAddr::new(ip, server.port)),
            authority,
            address_text,
            path_prefix: (server.preserve_path && !path.is_empty()).then(|| path.to_owned()),
            transport,
            retired: OnceLock::new(),
            failures: Report::default(),
            unconnected: Report::default(),
        }
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get().is_some()
    }

    /// Still the same server, reached the same way.
    pub(crate) fn is_same(&self, server: &Server, transport: &Arc<Transport>) -> bool {
        *self.url == *server.url
            && self.path_prefix.is_some()
                == (server.preserve_path && !server.path.trim_end_matches('/').is_empty())
            && Arc::ptr_eq(&self.transport, transport)
    }
}
