//! Providers that are asked over the network: what their options say, checked.

use std::time::Duration;

use crate::dynamic::ServersTransport;
use crate::static_config::Credentials;

/// One provider that is asked over the network.
#[derive(Clone, Debug)]
pub struct RemoteProvider {
    /// What its objects are called after: `http`, `redis`, `consul-NAMESPACE`.
    pub name: String,
    pub source: RemoteSource,
    /// How to speak TLS with it; `None` is without.
    pub tls: Option<ServersTransport>,
}

#[derive(Clone, Debug)]
pub enum RemoteSource {
    Http(HttpSource),
    Redis(KvSource<RedisOptions>),
    Consul(KvSource<ConsulOptions>),
    Etcd(KvSource<Option<Credentials>>),
}

impl RemoteSource {
    /// Traefik's word for it in the overview.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP",
            Self::Redis(_) => "Redis",
            Self::Consul(_) => "Consul",
            Self::Etcd(_) => "Etcd",
        }
    }
}

/// An endpoint whose answer is a configuration.
#[derive(Clone, Debug)]
pub struct HttpSource {
    pub endpoint: Endpoint,
    /// As the file writes it, without a password.
    pub endpoint_text: String,
    pub path_and_query: String,
    pub poll_interval: Duration,
    pub poll_timeout: Duration,
    /// Valid names and values; `Host` is that of the request.
    pub headers: Headers,
    /// A longer body is refused.
    pub max_body_bytes: u64,
}

/// A store of keys and values below a root.
#[derive(Clone, Debug)]
pub struct KvSource<T> {
    /// At least one; the first that answers is used.
    pub endpoints: Vec<Endpoint>,
    /// Without slashes around it.
    pub root: String,
    pub options: T,
}

#[derive(Clone, Debug)]
pub struct RedisOptions {
    pub login: Login,
    pub db: i64,
    /// The endpoints are sentinels, to be asked for the server of this name.
    pub sentinel: Option<Sentinel>,
}

#[derive(Clone, Debug)]
pub struct Sentinel {
    pub master_name: String,
    pub login: Login,
}

#[derive(Clone, Debug, Default)]
pub struct ConsulOptions {
    pub token: Option<Secret>,
    pub namespace: Option<String>,
}

/// A password with or without a user.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<Secret>,
}

/// Does not show itself when printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Fields of requests; the values may be secrets and do not show themselves when printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
