//! The way to the servers of a `serversTransport`, as probes take it: made by whoever forwards requests, so that a
//! probe reaches and trusts whom requests do.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use lb_config::dynamic::ServersTransport;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Makes the client's side of TLS from a transport, with HTTP/2 and HTTP/1.1 on offer or HTTP/1.1 alone as the
/// transport says, or tells why it cannot.
pub type ClientTls = dyn Fn(&ServersTransport) -> Result<Arc<ClientConfig>, String> + Send + Sync;

/// Connects to a port of a host, by name or address, before that time.
pub type Dial =
    dyn Fn(String, u16, Instant) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> + Send + Sync;

/// How requests reach servers; probes do the same.
#[derive(Clone)]
pub struct Client {
    pub tls: Arc<ClientTls>,
    pub dial: Arc<Dial>,
    /// A permit for each probe that may be under way: descriptors are for clients first.
    pub probes: Arc<Semaphore>,
}

/// Settings that become a `ClientConfig` at the first probe that needs one, and at most once:
/// services that speak plain HTTP never pay for reading the system's roots.
pub(crate) struct Tls {
    transport: ServersTransport,
    client: Client,
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
    pub(crate) fn new(transport: ServersTransport, client: Client) -> Self {
        Self { transport, client, built: OnceLock::new() }
    }

    /// Waits for a turn to probe. The semaphore is never closed.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.client.probes.acquire().await.ok()
    }

    pub(crate) async fn dial(&self, host: &str, port: u16, by: Instant) -> io::Result<TcpStream> {
        (self.client.dial)(host.to_owned(), port, by).await
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
            let http = (self.client.tls)(&self.transport).map_err(TlsError)?;
            let mut grpc = (*http).clone();
            grpc.alpn_protocols = vec![b"h2".to_vec()];
            Ok(Built { http, grpc: Arc::new(grpc) })
        };
        self.built.get_or_init(build).as_ref().map_err(TlsError::clone)
    }
}
