//! Active health checks: who is probed, when, and what becomes of the results.
//!
//! Each server of a service with a `healthCheck` has a task of its own, so a slow one delays no other. The
//! first probe comes soon, spread over the first second: a server that is dead when Vigie starts is noticed
//! then, not one interval later (Traefik). After that each wait is a little shorter than the interval, by
//! up to a tenth, which keeps probes from marching in step and a failure from being noticed late.
//!
//! A task survives reloads for as long as its service, URL, check and transport stay what they are.

mod check;
mod exchange;
mod target;
mod tls;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic::{HealthCheck, ProbeMode, Server, ServersTransport};
use lb_core::balance::Service;
use lb_core::health::{Probe, Status, Transition};
use lb_observe::metrics::{Kind, Metrics};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, error, info, warn};

use crate::state::{State, StateWatch};
use check::{Failure, Passed};
use tls::Tls;
pub use tls::{Client, ClientTls, Dial};

/// First probes are spread over this long, or the interval if that is shorter: chosen.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// The same for a server that gets no traffic before its first pass: chosen.
const FIRST_WITHIN_WHEN_OUT: Duration = Duration::from_millis(100);
/// Largest part of an interval that a wait is shorter by: chosen.
const JITTER: f64 = 0.1;

/// Owns the tasks; dropping it ends them.
pub(crate) struct Probes {
    reports: Reports,
    running: HashMap<Key, Running>,
    tasks: JoinSet<()>,
    /// By the name of the transport.
    tls: HashMap<String, Arc<Tls>>,
    client: Client,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: String,
    url: String,
}

struct Running {
    plan: Arc<Plan>,
    task: AbortHandle,
}

/// What one task does.
struct Plan {
    key: Key,
    server: Server,
    check: HealthCheck,
    tls: Arc<Tls>,
}

impl Probes {
    /// `hurry` wakes those that look whether their server is wanted probed.
    pub(crate) fn new(state: StateWatch, metrics: Metrics, client: Client, hurry: Arc<Notify>) -> Self {
        let reports = Reports { state, metrics, hurry };
        Self { reports, running: HashMap::new(), tasks: JoinSet::new(), tls: HashMap::new(), client }
    }

    /// Starts what `state` asks for, stops what it no longer does, and leaves the rest alone.
    pub(crate) fn follow(&mut self, state: &State, default_transport: &ServersTransport) {
        let mut before = std::mem::take(&mut self.running);
        let mut tls_before = std::mem::take(&mut self.tls);
        for (name, service) in &state.config.services {
            let Some(check) = &service.health_check else { continue };
            let transport_name = &service.servers_transport;
            let transport = state.config.servers_transports.get(transport_name).unwrap_or(default_transport);
            let tls = self.tls.entry(transport_name.clone()).or_insert_with(|| {
                let known = tls_before.remove(transport_name).filter(|known| known.transport() == transport);
                known.unwrap_or_else(|| Arc::new(Tls::new(transport.clone(), self.client.clone())))
            });
            for server in &service.servers {
                let key = Key { service: name.clone(), url: server.url.clone() };
                // Servers with the same URL are one, as in Traefik.
                let Entry::Vacant(place) = self.running.entry(key) else { continue };
                match before.remove(place.key()) {
                    Some(running) if running.plan.check == *check && Arc::ptr_eq(&running.plan.tls, tls) => {
                        place.insert(running);
                    }
                    changed => {
                        stop(changed);
                        let (key, server) = (place.key().clone(), server.clone());
                        let plan = Arc::new(Plan { key, server, check: check.clone(), tls: Arc::clone(tls) });
                        let task = self.tasks.spawn(watch(Arc::clone(&plan), self.reports.clone()));
                        place.insert(Running { plan, task });
                    }
                }
            }
        }
        before.into_values().for_each(|gone| stop(Some(gone)));
    }

    /// Waits for a task to fail and starts it again. Never ends by itself; may be dropped at any time.
    pub(crate) async fn supervise(&mut self) {
        loop {
            match self.tasks.join_next_with_id().await {
                None => pending().await,
                Some(Err(failure)) if failure.is_panic() => {
                    error!(%failure, "A health check panicked: this is a bug. It is started again.");
                    let Some(failed) =
                        self.running.values_mut().find(|running| running.task.id() == failure.id())
                    else {
                        continue;
                    };
                    failed.task = self.tasks.spawn(watch(Arc::clone(&failed.plan), self.reports.clone()));
                }
                Some(_) => {}
            }
        }
    }
}

/// One probe as the instance would send it, for whoever wants to know now: no health changes, nothing is counted.
///
/// # Errors
/// Why the server did not pass.
pub async fn probe_once(
    server: &Server,
    check: &HealthCheck,
    transport: &ServersTransport,
    client: &Client,
) -> Result<Probe, String> {
    let tls = Tls::new(transport.clone(), client.clone());
    let _turn = tls.turn().await;
    match check::check(server, check, &tls).await {
        Ok(passed) => Ok(passed.probe),
        Err(failure) => Err(match failure.reasons() {
            Some(reasons) => format!("{}: {reasons}", failure.line()),
            None => failure.line(),
        }),
    }
}

fn stop(running: Option<Running>) {
    if let Some(running) = running {
        running.task.abort();
    }
}

/// Probes one server until aborted.
async fn watch(plan: Arc<Plan>, reports: Reports) {
    let HealthCheck { interval, unhealthy_interval, .. } = plan.check;
    let waits_outside = plan.check.start_unhealthy && reports.status(&plan.key) == Some(Status::Unhealthy);
    let within = if waits_outside { FIRST_WITHIN_WHEN_OUT } else { FIRST_WITHIN };
    sleep(within.min(interval).mul_f64(fastrand::f64())).await;
    let mut last_failure = None;
    loop {
        let turn = plan.tls.turn().await;
        let started = Instant::now();
        let outcome = check::check(&plan.server, &plan.check, &plan.tls).await;
        drop(turn);
        let failure = reports.take_in(&plan, &outcome, started, last_failure.as_deref());
        last_failure = failure;
        let out = reports.status(&plan.key) == Some(Status::Unhealthy);
        let interval = if out { unhealthy_interval } else { interval };
        let next = started + interval.mul_f64(1.0 - JITTER * fastrand::f64());
        let is_wanted = || reports.server(&plan.key).is_some_and(|server| server.take_wanted_probe());
        sleep_unless_wanted(next, &reports.hurry, is_wanted).await;
    }
}

/// Sleeps until then, or until an operator brings the server back: what is known of its health may be from before.
pub(crate) async fn sleep_unless_wanted(until: Instant, hurry: &Notify, is_wanted: impl Fn() -> bool) {
    loop {
        // Made before it is looked, so that nothing is missed in between.
        let hurried = hurry.notified();
        if is_wanted() || timeout_at(until, hurried).await.is_err() {
            return;
        }
    }
}

/// Where results go: the live state, the metrics, the log.
#[derive(Clone)]
struct Reports {
    state: StateWatch,
    metrics: Metrics,
    hurry: Arc<Notify>,
}

impl Reports {
    fn server(&self, key: &Key) -> Option<Arc<lb_core::balance::Server>> {
        let state = self.state.load();
        let mut servers = state.services.get(&key.service)?.servers();
        servers.find(|(server, _)| server.url() == key.url).map(|(server, _)| Arc::clone(server))
    }

    fn status(&self, key: &Key) -> Option<Status> {
        self.server(key).map(|server| server.status())
    }

    /// Passes the outcome on; returns why the probe failed, if it did.
    fn take_in(
        &self,
        plan: &Plan,
        outcome: &Result<Passed, Failure>,
        started: Instant,
        last_failure: Option<&str>,
    ) -> Option<String> {
        if let Err(failure) = outcome
            && failure.is_ours()
        {
            let reason = failure.line();
            log(&plan.key, Some(&reason), None, None, last_failure);
            return Some(reason);
        }
        let now = Instant::now();
        let (probe, reasons) = match outcome {
            Ok(passed) => (passed.probe, passed.reasons.as_deref()),
            Err(failure) => (Probe::Failed, failure.reasons()),
        };
        let check_type = match plan.check.mode {
            ProbeMode::Http => "http",
            ProbeMode::Grpc => "grpc",
        };
        let server = self.metrics.label(Kind::Server, &plan.key.url);
        self.metrics.probed(check_type, server, probe != Probe::Failed, now - started);
        let failure = outcome.as_ref().err().map(Failure::line);
        // The newest service of that name: it shares its servers' health with those still in use.
        let state = self.state.load();
        let service = state.services.get(&plan.key.service);
        let was_available = service.is_some_and(|service| service.is_available());
        let change = service.and_then(|service| observe(service, &plan.key.url, probe, now));
        log(&plan.key, failure.as_deref(), reasons, change, last_failure);
        if let Some(service) = service
            && service.is_available() != was_available
        {
            tell_whether_available(service, "its requests are answered 503", failure.as_deref(), reasons);
        }
        failure
    }
}

fn observe(service: &Service, url: &str, probe: Probe, now: Instant) -> Option<Transition> {
    let index = service.servers().position(|(server, _)| server.url() == url)?;
    service.observe_probe(index, probe, now.into_std())
}

/// Everybody who needs the service notices, so this is an error, which the default level shows.
///
/// `error`: why the last one has failed; `reasons`: what it says of that. A field without a value is left out.
pub(crate) fn tell_whether_available(
    service: &Service,
    otherwise: &str,
    error: Option<&str>,
    reasons: Option<&str>,
) {
    let name = service.name();
    if service.is_available() {
        info!(serviceName = name, "The service has a server again.");
    } else {
        let servers = service.servers().len();
        error!(serviceName = name, servers, error, reasons, "No server of the service is left: {otherwise}.");
    }
}

/// One line for each thing that is new: a server that stays down for days must not fill the log. What it says of itself (`reasons`) makes
/// no line new: there may be a time in it.
fn log(
    key: &Key,
    failure: Option<&str>,
    reasons: Option<&str>,
    change: Option<Transition>,
    last_failure: Option<&str>,
) {
    let Key { service, url } = key;
    let after = change.map(|change| change.after.as_secs());
    match (failure, change.map(|change| change.to)) {
        (Some(reason), Some(Status::Unhealthy)) => {
            warn!(serviceName = service, targetURL = url, error = reason, reasons, "Health check failed.");
            warn!(
                serviceName = service,
                targetURL = url,
                afterSeconds = after,
                "Server is out of the rotation."
            );
        }
        (Some(reason), _) if last_failure != Some(reason) => {
            warn!(serviceName = service, targetURL = url, error = reason, reasons, "Health check failed.");
        }
        (Some(reason), _) => {
            debug!(serviceName = service, targetURL = url, error = reason, reasons, "Health check failed.");
        }
        (None, Some(Status::Healthy)) => {
            info!(serviceName = service, targetURL = url, afterSeconds = after, "Server is healthy again.");
        }
        (None, Some(Status::Degraded)) => {
            warn!(
                serviceName = service,
                targetURL = url,
                afterSeconds = after,
                reasons,
                "Server says it is degraded."
            );
        }
        (None, Some(Status::Unhealthy) | None) => {}
    }
}

#[cfg(test)]
mod tests;
