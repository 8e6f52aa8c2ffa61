//! One server tried from here: whether it takes connections, and what its health check says.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic::{Config, HealthCheck, Scheme, Server, ServersTransport, Service};
use lb_config::{Context, StaticConfig, load_dynamic, parse_dynamic};
use lb_control::Client;
use lb_core::health::Probe;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::listening;
use crate::options::Options;

/// How long a connection may take: chosen, as the health checks of the reference system have it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// What the API shows in place of a value that may be secret.
const MASK: &str = "xxxx";

/// The files of the instance, for what its API does not show; each is `None` where it cannot be read.
pub(crate) struct OnDisk {
    pub(crate) static_config: Option<StaticConfig>,
    dynamic: Option<Config>,
}

impl OnDisk {
    pub(crate) fn read(options: &Options) -> Self {
        let static_config = options.static_config().ok().map(|(config, _)| config);
        let dynamic = static_config.as_ref().and_then(|config| {
            let file = config.providers.file.as_ref()?;
            load_dynamic(&file.source, &Context::from(config)).ok().map(|loaded| loaded.config)
        });
        Self { static_config, dynamic }
    }

    /// A service as the API writes it, which is how a file writes it.
    pub(crate) fn definition(&self, service: &Value) -> Option<Definition> {
        let balancer = service.get("loadBalancer")?;
        let mut part = json!({ "servers": balancer["servers"] });
        if let Some(check) = balancer.get("healthCheck") {
            part["healthCheck"] = check.clone();
        }
        let text = json!({"http": {"services": {"it": {"loadBalancer": part}}}}).to_string();
        let parsed = parse_dynamic("the API", &text, "api", &Context::default()).ok()?;
        let Service { servers, mut health_check, .. } = parsed.config.services.into_values().next()?;
        let is_masked = |check: &HealthCheck| check.headers.iter().any(|(_, value)| value == MASK);
        if health_check.as_ref().is_some_and(is_masked) {
            // Without the secret the answer would say nothing.
            let service =
                self.dynamic.as_ref().and_then(|files| files.services.get(service["name"].as_str()?));
            health_check = service.and_then(|service| service.health_check.clone());
        }
        let transport = match balancer["serversTransport"].as_str() {
            Some(name) => self.dynamic.as_ref().and_then(|files| files.servers_transports.get(name).cloned()),
            None => self.static_config.as_ref().map(|config| config.servers_transport.clone()),
        };
        Some(Definition { servers, check: health_check, transport })
    }
}

/// A service, as far as it says how to try its servers.
pub(crate) struct Definition {
    servers: Vec<Server>,
    pub(crate) check: Option<HealthCheck>,
    /// `None`: only the files say, and they are not here.
    transport: Option<ServersTransport>,
}

impl Definition {
    pub(crate) fn trial(&self, url: &str) -> Option<Trial> {
        let server = self.servers.iter().find(|server| server.url == url)?.clone();
        Some(Trial { server, check: self.check.clone(), transport: self.transport.clone() })
    }
}

/// One server as it is to be tried.
pub(crate) struct Trial {
    server: Server,
    check: Option<HealthCheck>,
    transport: Option<ServersTransport>,
}

/// What came of it.
pub(crate) enum Outcome {
    Up,
    Degraded,
    /// No connection: the reason, and the way out where it is known.
    Unreachable(String, Option<String>),
    /// It takes connections, and its health check says no.
    Ill(String),
}

impl Trial {
    pub(crate) async fn run(&self, sockets: &[SocketAddr]) -> Outcome {
        match reach(&self.server.host, self.server.port, sockets).await {
            Ok(()) => match &self.check {
                Some(check) => self.ask(check).await,
                None => self.greet().await,
            },
            Err(unreachable) => unreachable,
        }
    }

    /// The TLS handshake that each request would begin with.
    async fn greet(&self) -> Outcome {
        let Server { scheme, host, port, .. } = &self.server;
        let Some(transport) = self.transport.as_ref().filter(|_| *scheme == Scheme::Https) else {
            return Outcome::Up;
        };
        let handshake = async {
            let config = lb_proxy::client_tls(transport)?;
            let name = transport.server_name.as_ref().unwrap_or(host).clone();
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let stream = lb_proxy::dial(host, *port, None).await.map_err(|error| error.to_string())?;
            TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
        };
        match timeout(PATIENCE, handshake).await {
            Ok(Ok(_)) => Outcome::Up,
            Ok(Err(reason)) => {
                let hint =
                    "whom Vigie trusts stands in `rootCAs` of the service's serversTransport".to_owned();
                Outcome::Unreachable(format!("the TLS handshake fails: {reason}"), Some(hint))
            }
            Err(_) => Outcome::Unreachable(format!("no TLS handshake within {PATIENCE:?}"), None),
        }
    }

    async fn ask(&self, check: &HealthCheck) -> Outcome {
        let over_tls = match check.scheme.as_deref() {
            None | Some("") => self.server.scheme == Scheme::Https,
            Some(scheme) => scheme == "https",
        };
        let transport = match &self.transport {
            Some(transport) => transport.clone(),
            None if over_tls => return Outcome::Up,
            // Without TLS none of it matters.
            None => match lb_config::parse_static("none", "ping: {}") {
                Ok((config, _)) => config.servers_transport,
                Err(_) => return Outcome::Up,
            },
        };
        let client = Client {
            probes: Arc::new(Semaphore::new(1)),
            tls: Arc::new(lb_proxy::client_tls),
            dial: Arc::new(|host, port, by| {
                Box::pin(async move { lb_proxy::dial(&host, port, Some(by)).await })
            }),
        };
        match lb_control::probe_once(&self.server, check, &transport, &client).await {
            Ok(Probe::Passed) => Outcome::Up,
            Ok(Probe::Degraded) => Outcome::Degraded,
            Ok(Probe::Failed) => Outcome::Ill("it fails".to_owned()),
            Err(reason) => Outcome::Ill(reason),
        }
    }
}

/// Whether somebody takes connections there.
///
/// # Errors
/// Nobody does: [`Outcome::Unreachable`].
pub(crate) async fn reach(host: &str, port: u16, sockets: &[SocketAddr]) -> Result<(), Outcome> {
    match timeout(PATIENCE, lb_proxy::dial(host, port, None)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Err(refused(host, port, sockets).await)
        }
        Ok(Err(error)) => Err(Outcome::Unreachable(error.to_string(), None)),
        Err(_) => {
            let hint = "is its machine up, and does a firewall drop what comes from here?".to_owned();
            Err(Outcome::Unreachable(format!("no connection within {PATIENCE:?}"), Some(hint)))
        }
    }
}

/// Nobody listens there; this machine knows where else.
async fn refused(host: &str, port: u16, sockets: &[SocketAddr]) -> Outcome {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let here = addresses.into_iter().flatten().find(|address| listening::is_here(address.ip()));
    let (reason, hint) = match here {
        Some(address) => listening::explain(sockets, address),
        None => (
            "nothing listens on that address there".to_owned(),
            format!(
                "`ss -ltn 'sport = :{port}'` on that machine shows whether the service runs; where it is bound to \
                 127.0.0.1, bind it to {host}"
            ),
        ),
    };
    Outcome::Unreachable(format!("refuses connections: {reason}"), Some(hint))
}
