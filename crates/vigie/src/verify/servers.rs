//! Whether each server is up, healthy, and reached from here on the address that the configuration names.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use lb_config::dynamic::{HealthCheck, Scheme, Server, ServersTransport, Service};
use lb_config::{Context, parse_dynamic};
use lb_control::Client;
use lb_core::health::Probe;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{AT_ONCE, Instance, PATIENCE, Report, listening, text};

/// What the API shows in place of a value that may be secret.
const MASK: &str = "xxxx";

/// One server as it is to be tried.
struct Trial {
    server: Server,
    check: Option<HealthCheck>,
    transport: Option<ServersTransport>,
}

/// What came of it.
enum Outcome {
    Up,
    Degraded,
    /// No connection: the reason, and the way out where it is known.
    Unreachable(String, Option<String>),
    /// It takes connections, and its health check says no.
    Ill(String),
}

pub(super) async fn verify(instance: &Instance, report: &mut Report) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let sockets = Arc::new(instance.sockets.clone());
    let mut trials = JoinSet::new();
    let mut told = Vec::new();
    for service in &instance.services {
        let defined = definition(service, instance);
        for live in service["serverDetails"].as_array().into_iter().flatten() {
            let at = told.len();
            let trial = defined.as_ref().and_then(|defined| {
                let server = defined.servers.iter().find(|server| server.url == text(live, "url"))?;
                let (check, transport) = (defined.health_check.clone(), transport(service, instance));
                Some(Trial { server: server.clone(), check, transport })
            });
            told.push((text(service, "name"), live, None));
            // Whoever took it out for maintenance may have switched it off.
            if let Some(trial) = trial.filter(|_| text(live, "state") != "maintenance") {
                let (turns, sockets) = (Arc::clone(&turns), Arc::clone(&sockets));
                trials.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    (at, attempt(&trial, &sockets).await)
                });
            }
        }
    }
    report.servers = told.len();
    while let Some(ended) = trials.join_next().await {
        if let Ok((at, outcome)) = ended {
            told[at].2 = Some(outcome);
        }
    }
    for (service, live, outcome) in told {
        tell(service, live, outcome.as_ref(), report);
    }
}

/// The service as the API writes it, which is how a file writes it.
fn definition(service: &Value, instance: &Instance) -> Option<Service> {
    let balancer = service.get("loadBalancer")?;
    let name = text(service, "name");
    let on_disk = instance.files.as_ref().and_then(|files| files.services.get(name));
    let mut part = json!({ "servers": balancer["servers"] });
    if let Some(check) = balancer.get("healthCheck") {
        part["healthCheck"] = check.clone();
    }
    let text = json!({"http": {"services": {"it": {"loadBalancer": part}}}}).to_string();
    let parsed = parse_dynamic("the API", &text, "api", &Context::default()).ok()?;
    let mut service = parsed.config.services.into_values().next()?;
    let is_masked = |check: &HealthCheck| check.headers.iter().any(|(_, value)| value == MASK);
    if service.health_check.as_ref().is_some_and(is_masked) {
        // Without the secret the answer would say nothing.
        service.health_check = on_disk.and_then(|service| service.health_check.clone());
    }
    Some(service)
}

/// How its servers are spoken to; `None`: only their files say, and those are not here.
fn transport(service: &Value, instance: &Instance) -> Option<ServersTransport> {
    match service["loadBalancer"]["serversTransport"].as_str() {
        Some(name) => instance.files.as_ref()?.servers_transports.get(name).cloned(),
        None => Some(instance.static_config.as_ref()?.servers_transport.clone()),
    }
}

async fn attempt(trial: &Trial, sockets: &[SocketAddr]) -> Outcome {
    let Server { host, port, .. } = &trial.server;
    match timeout(PATIENCE, lb_proxy::dial(host, *port, None)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return refused(host, *port, sockets).await;
        }
        Ok(Err(error)) => return Outcome::Unreachable(error.to_string(), None),
        Err(_) => {
            let hint = "is its machine up, and does a firewall drop what comes from here?".to_owned();
            return Outcome::Unreachable(format!("no connection within {PATIENCE:?}"), Some(hint));
        }
    }
    let Some(check) = &trial.check else { return Outcome::Up };
    let speaks_tls = |scheme: Scheme| scheme == Scheme::Https;
    let over_tls = match check.scheme.as_deref() {
        None | Some("") => speaks_tls(trial.server.scheme),
        Some(scheme) => scheme == "https",
    };
    let transport = match &trial.transport {
        Some(transport) => transport.clone(),
        None if over_tls => return Outcome::Up,
        None => match lb_config::parse_static("none", "ping: {}") {
            Ok((config, _)) => config.servers_transport,
            Err(_) => return Outcome::Up,
        },
    };
    let client = Client {
        probes: Arc::new(Semaphore::new(1)),
        tls: Arc::new(lb_proxy::client_tls),
        dial: Arc::new(|host, port, by| Box::pin(async move { lb_proxy::dial(&host, port, Some(by)).await })),
    };
    match lb_control::probe_once(&trial.server, check, &transport, &client).await {
        Ok(Probe::Passed) => Outcome::Up,
        Ok(Probe::Degraded) => Outcome::Degraded,
        Ok(Probe::Failed) => Outcome::Ill("it fails".to_owned()),
        Err(reason) => Outcome::Ill(reason),
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

/// One finding at most: from here where that says more, else what the instance says.
fn tell(service: &str, live: &Value, outcome: Option<&Outcome>, report: &mut Report) {
    let (url, health) = (text(live, "url"), text(live, "health"));
    let what = format!("service {service}, server {url}");
    let in_use = match health {
        "unhealthy" => "",
        _ => " (Vigie still sends requests there)",
    };
    match outcome {
        Some(Outcome::Unreachable(reason, hint)) => {
            let hint = hint.as_deref().unwrap_or("mend its address, or the way to it");
            return report.error(what, format!("{reason}{in_use}"), hint);
        }
        Some(Outcome::Ill(reason)) => {
            let hint = "its own log says why; `curl -i` its health path shows the answer";
            return report.error(what, format!("its health check fails from here: {reason}{in_use}"), hint);
        }
        _ => {}
    }
    if text(live, "state") != "ready" {
        let by = live["stateBy"].as_str().map(|by| format!(", as {by} wants it")).unwrap_or_default();
        let hint = format!("`vigie server ready {service} {url}` brings it back");
        return report.warn(what, format!("is in {}{by}", text(live, "state")), hint);
    }
    if health == "unhealthy" {
        let hint =
            "wait for its next health check, and look for what is between the two: `--wait 1m` asks again";
        return report.error(what, "Vigie takes it for unhealthy, though it answers from here", hint);
    }
    if live["ejected"] == true {
        return report.error(what, "is ejected: its requests fail in a row", "its own log says why");
    }
    if health == "degraded" || matches!(outcome, Some(Outcome::Degraded)) {
        report.warn(what, "calls itself degraded and gets less", "its health path says why");
    }
}
