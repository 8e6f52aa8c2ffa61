//! Health checks of TCP services: a connection, and perhaps a word and the right answer.
//!
//! As for HTTP each server has a task of its own, which survives reloads while nothing of it changes.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lb_config::tcp::{HealthCheck, LoadBalancer, ProxyVersion, Server, ServersTransport};
use lb_core::health::{Probe, Status};
use lb_core::proxy_header;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, error, info, warn};

use crate::probe::{Client, sleep_unless_wanted, tell_whether_available};
use crate::state::{State, StateWatch};

/// As for HTTP: first probes are spread over this long.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Owns the tasks; dropping it ends them.
pub(crate) struct TcpProbes {
    state: StateWatch,
    client: Client,
    hurry: Arc<Notify>,
    running: HashMap<(String, String), (Arc<Plan>, AbortHandle)>,
    tasks: JoinSet<()>,
}

#[derive(PartialEq)]
struct Wanted {
    service: String,
    server: Server,
    check: HealthCheck,
    transport: ServersTransport,
}

struct Plan {
    wanted: Wanted,
    client: Client,
    /// `None`: not over TLS.
    tls: Option<Result<Arc<ClientConfig>, String>>,
}

impl TcpProbes {
    /// `hurry` wakes those that look whether their server is wanted probed.
    pub(crate) fn new(state: StateWatch, client: Client, hurry: Arc<Notify>) -> Self {
        Self { state, client, hurry, running: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Starts what `state` asks for, stops what it no longer does, and leaves the rest alone.
    pub(crate) fn follow(&mut self, state: &State, default: &ServersTransport) {
        let mut before = std::mem::take(&mut self.running);
        let named = &state.config.tcp.servers_transports;
        for (name, balancer) in state.config.tcp.load_balancers() {
            let LoadBalancer { health_check: Some(check), .. } = balancer else { continue };
            let transport = balancer.servers_transport.as_ref().and_then(|name| named.get(name));
            let mut transport = transport.unwrap_or(default).clone();
            transport.proxy_protocol = transport.proxy_protocol.or(balancer.proxy_protocol);
            for server in &balancer.servers {
                let key = (name.clone(), server.address.clone());
                if self.running.contains_key(&key) {
                    continue;
                }
                let (service, server) = (name.clone(), server.clone());
                let wanted = Wanted { service, server, check: check.clone(), transport: transport.clone() };
                let running = match before.remove(&key) {
                    Some((plan, task)) if plan.wanted == wanted => (plan, task),
                    changed => {
                        if let Some((_, task)) = changed {
                            task.abort();
                        }
                        let plan = Arc::new(Plan::new(wanted, self.client.clone()));
                        let task = self.tasks.spawn(watch(
                            Arc::clone(&plan),
                            self.state.clone(),
                            Arc::clone(&self.hurry),
                        ));
                        (plan, task)
                    }
                };
                self.running.insert(key, running);
            }
        }
        before.into_values().for_each(|(_, task)| task.abort());
    }

    /// Waits for a task to fail and starts it again. Never ends by itself; may be dropped at any time.
    pub(crate) async fn supervise(&mut self) {
        loop {
            match self.tasks.join_next_with_id().await {
                None => pending().await,
                Some(Err(failure)) if failure.is_panic() => {
                    error!(%failure, "A health check panicked: this is a bug. It is started again.");
                    let failed = self.running.values_mut().find(|(_, task)| task.id() == failure.id());
                    if let Some((plan, task)) = failed {
                        *task = self.tasks.spawn(watch(
                            Arc::clone(plan),
                            self.state.clone(),
                            Arc::clone(&self.hurry),
                        ));
                    }
                }
                Some(_) => {}
            }
        }
    }
}

impl Plan {
    fn new(wanted: Wanted, client: Client) -> Self {
        let tls = wanted.server.tls.then(|| {
            let mut config = (*(client.tls)(&wanted.transport.tls)?).clone();
            config.alpn_protocols.clear();
            config.enable_sni = wanted.transport.tls.server_name.is_some();
            Ok(Arc::new(config))
        });
        Self { wanted, client, tls }
    }

    async fn check(&self, by: Instant) -> io::Result<()> {
        let Wanted { server, check, transport, .. } = &self.wanted;
        let port = check.port.unwrap_or(server.port);
        let mut tcp = (self.client.dial)(server.host.clone(), port, by).await?;
        if let Some(version) = transport.proxy_protocol {
            // It speaks for itself.
            tcp.write_all(match version {
                ProxyVersion::V1 => proxy_header::UNKNOWN_V1,
                ProxyVersion::V2 => proxy_header::LOCAL_V2,
            })
            .await?;
        }
        let Some(config) = &self.tls else { return talk(tcp, check).await };
        let config = config.as_ref().map_err(|reason| io::Error::other(reason.clone()))?;
        let name = transport.tls.server_name.as_ref().unwrap_or(&server.host).clone();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        talk(tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?, check).await
    }
}

/// As Traefik: what is expected must come with exactly that many bytes, whatever follows.
async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, check: &HealthCheck) -> io::Result<()> {
    if !check.send.is_empty() {
        stream.write_all(check.send.as_bytes()).await?;
        stream.flush().await?;
    }
    if !check.expect.is_empty() {
        let mut answer = vec![0; check.expect.len()];
        stream.read_exact(&mut answer).await?;
        if answer != check.expect.as_bytes() {
            return Err(io::Error::other("the answer is not the one that is expected"));
        }
    }
    Ok(())
}

/// Probes one server until aborted.
async fn watch(plan: Arc<Plan>, state: StateWatch, hurry: Arc<Notify>) {
    let Wanted { service, server, check, .. } = &plan.wanted;
    sleep(FIRST_WITHIN.min(check.interval).mul_f64(fastrand::f64())).await;
    let mut told: Option<String> = None;
    loop {
        let turn = plan.client.probes.acquire().await;
        let started = Instant::now();
        let by = started + check.timeout;
        let outcome =
            timeout_at(by, plan.check(by)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        drop(turn);
        let probe = if outcome.is_ok() { Probe::Passed } else { Probe::Failed };
        let failure = outcome.err().map(|failure| failure.to_string());
        let address = &server.address;
        if let Some(error) = &failure {
            if told == failure {
                debug!(serviceName = service, server = address, error, "TCP health check failed.");
            } else {
                warn!(serviceName = service, server = address, error, "TCP health check failed.");
            }
        }
        told = failure;
        let mut out = false;
        // The newest service of that name: it shares its servers' health with those still in use.
        if let Some(live) = state.load().tcp.get(service)
            && let Some(index) = live.servers().position(|(server, _)| server.url() == address)
        {
            let was_available = live.is_available();
            let change = live.observe_probe(index, probe, Instant::now().into_std());
            match change.map(|change| change.to) {
                Some(Status::Unhealthy) => {
                    warn!(serviceName = service, server = address, "TCP server is out of the rotation.");
                }
                Some(_) => info!(serviceName = service, server = address, "TCP server is healthy again."),
                None => {}
            }
            if live.is_available() != was_available {
                tell_whether_available(live, "its connections are closed", told.as_deref(), None);
            }
            out = live.servers().nth(index).is_some_and(|(server, _)| server.status() == Status::Unhealthy);
        }
        let interval = if out { check.unhealthy_interval } else { check.interval };
        let next = started + interval.mul_f64(1.0 - 0.1 * fastrand::f64());
        let is_wanted = || {
            let state = state.load();
            let mut servers = state.tcp.get(service).into_iter().flat_map(|live| live.servers());
            servers.any(|(server, _)| server.url() == address && server.take_wanted_probe())
        };
        sleep_unless_wanted(next, &hurry, is_wanted).await;
    }
}
