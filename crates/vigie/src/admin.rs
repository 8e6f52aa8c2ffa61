//! `api@internal` and the like: lb-admin's answers, given on the control plane's thread.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use lb_acme::Acme;
use lb_admin::{Admin, Demand, Fault, LoadError, Response, Standing, Verdict, View};
use lb_config::StaticConfig;
use lb_control::{Operators, StateWatch};
use lb_observe::metrics::Metrics;
use lb_provider::Rest;
use lb_proxy::{Internal, InternalRequest, InternalResponse, Internals};
use tokio::runtime::Handle;

use crate::acme;

/// Gathers the view of each request and answers it away from the data plane.
pub(crate) struct AdminService {
    admin: Arc<Admin>,
    static_config: Arc<StaticConfig>,
    state: OnceLock<(StateWatch, Operators)>,
    started_at: SystemTime,
    draining: AtomicBool,
    shedding: Arc<AtomicBool>,
    control: Handle,
    acme: Arc<Acme>,
    rest: OnceLock<Arc<Rest>>,
}

impl AdminService {
    pub(crate) fn new(
        static_config: Arc<StaticConfig>,
        metrics: Metrics,
        control: Handle,
        acme: Arc<Acme>,
    ) -> Self {
        let started_at = SystemTime::now();
        let admin = Arc::new(Admin::new(metrics, crate::VERSION, started_at));
        let (draining, shedding) = (AtomicBool::new(false), Arc::default());
        Self {
            admin,
            static_config,
            state: OnceLock::new(),
            started_at,
            draining,
            shedding,
            control,
            acme,
            rest: OnceLock::new(),
        }
    }

    /// Where the state is read from; said once, when the control plane exists.
    pub(crate) fn follow(&self, state: StateWatch, operators: Operators) {
        let _ = self.state.set((state, operators));
    }

    /// Who takes configurations in; said once, before requests come.
    pub(crate) fn take_in(&self, rest: Arc<Rest>) {
        let _ = self.rest.set(rest);
    }

    pub(crate) fn rest(&self) -> Option<Arc<Rest>> {
        self.rest.get().cloned()
    }

    /// Set by whoever watches memory, while it is short.
    pub(crate) fn shedding(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shedding)
    }

    /// Objects of the configuration that are not served.
    pub(crate) fn spoilt(&self) -> BTreeSet<String> {
        let state = self.state.get().map(|(state, _)| state.load_full()).unwrap_or_default();
        state.disabled.keys().map(|(kind, name)| format!("{} {name}", kind.word())).collect()
    }

    /// A provider that is asked over the network and whose last good configuration only this process knows.
    pub(crate) fn remembered(&self) -> Option<&str> {
        let (state, _) = self.state.get()?;
        let state = state.load();
        let mut names = self.static_config.providers.remote.iter().map(|remote| remote.name.as_str());
        names.find(|name| state.stale().any(|(stale, _)| stale == *name))
    }

    /// A file of a directory that was emptied or broken, and whose last good content only this process knows.
    pub(crate) fn remembered_file(&self) -> Option<String> {
        let (state, _) = self.state.get()?;
        let state = state.load();
        let mut objects = state.quarantined.keys();
        objects.find(|(kind, _)| *kind == lb_config::Kind::File).map(|(_, name)| name.clone())
    }

    /// `/ping` and `/ready` say from now on that this instance is going away.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn view(&self) -> View {
        let followed = self.state.get();
        let state = followed.map(|(state, _)| state.load_full()).unwrap_or_default();
        let standing = followed.map(|(_, operators)| operators.all()).unwrap_or_default();
        let problems = state.providers.values().flat_map(|provider| &*provider.problems);
        let faults = Fault::of_load(&state.disabled, &state.quarantined, problems);
        // Without any provider there is nothing to wait for.
        let alone = self.static_config.providers.names().next().is_none();
        let sources = state.providers.iter().filter(|(name, _)| !acme::is_resolver(name));
        let loaded_at = sources.filter_map(|(_, provider)| provider.loaded_at).max();
        let loaded_at = loaded_at.or_else(|| alone.then_some(self.started_at));
        let stale = state.stale().map(|(provider, refusal)| LoadError {
            provider: provider.to_owned(),
            at: refusal.at,
            message: refusal.problems.to_string(),
        });
        View {
            static_config: Arc::clone(&self.static_config),
            config: Arc::clone(&state.config),
            left_out: Arc::clone(&state.left_out),
            services: Arc::clone(&state.services),
            tcp: Arc::clone(&state.tcp),
            standing: standing.into_iter().map(|(told, server)| Standing { told, server }).collect(),
            faults,
            loaded_at,
            stale: stale.collect(),
            draining: self.draining.load(Ordering::Relaxed),
            shedding: self.shedding.load(Ordering::Relaxed),
            certificates: acme::failing(&self.acme),
            now: SystemTime::now(),
        }
    }
}

impl AdminService {
    fn answer(&self, request: &InternalRequest) -> Response {
        let service = match request.service {
            Internal::Api => lb_admin::Internal::Api,
            Internal::ApiByToken => lb_admin::Internal::ApiByToken,
            Internal::Dashboard => lb_admin::Internal::Dashboard,
            Internal::Ping => lb_admin::Internal::Ping,
            Internal::Prometheus => lb_admin::Internal::Prometheus,
            // Challenges and configurations are answered before it comes to this.
            Internal::AcmeHttp | Internal::Rest | Internal::Noop => lb_admin::Internal::Noop,
        };
        let view = self.view();
        let demand = Demand {
            service,
            method: &request.method,
            path: &request.path,
            authorization: request.authorization.as_deref(),
            client: request.client,
            body: &request.body,
        };
        match self.admin.judge(&demand, &view) {
            Verdict::Read => {
                self.admin.respond(service, &request.method, &request.path, &request.query, &view)
            }
            Verdict::Refused(response) => {
                let InternalRequest { client, method, path, .. } = request;
                tracing::warn!(%client, method, path, status = response.status, "The API refuses a request");
                response
            }
            Verdict::Order(told) => {
                if let Some((_, operators)) = self.state.get() {
                    // Unknown only when a reload has just removed it: the answer says so.
                    operators.set(told);
                }
                self.admin.respond(service, "GET", &request.path, "", &self.view())
            }
        }
    }
}

/// The dashboard's own redirections are about what the client asked for, before `stripPrefix` took a part of it.
fn lead_back(response: &mut Response, prefix: Option<&str>) {
    // As by Traefik, a path only: `//` and what browsers take for it would lead to another host.
    let is_path = |prefix: &&str| {
        prefix.starts_with('/')
            && !prefix[1..].starts_with(['/', '\\'])
            && !prefix.contains(|c: char| c.is_control())
    };
    let Some(prefix) = prefix.filter(is_path) else { return };
    for (name, value) in &mut response.headers {
        if *name == "Location" && value.starts_with('/') {
            value.insert_str(0, prefix.trim_end_matches('/'));
        }
    }
}

/// The handle that the data plane gets.
pub(crate) struct Answers(pub(crate) Arc<AdminService>);

impl Internals for Answers {
    fn respond(&self, request: InternalRequest) -> Pin<Box<dyn Future<Output = InternalResponse> + Send>> {
        if request.service == Internal::AcmeHttp {
            let answer = acme::answer(&self.0.acme.answers(), &request.path);
            return Box::pin(std::future::ready(answer));
        }
        let service = Arc::clone(&self.0);
        let control = service.control.clone();
        Box::pin(async move {
            let answered = control.spawn_blocking(move || {
                if request.service == Internal::Rest
                    && let Some(rest) = service.rest()
                {
                    return crate::rest::answer(&rest, &request);
                }
                let mut response = service.answer(&request);
                lead_back(&mut response, request.forwarded_prefix.as_deref());
                // As in Traefik: with many routers there are megabytes of metrics.
                let metrics = request.service == Internal::Prometheus;
                let response = if metrics && request.gzip { response.gzipped() } else { response };
                InternalResponse { status: response.status, headers: response.headers, body: response.body }
            });
            answered.await.unwrap_or_else(|_| InternalResponse {
                status: 500,
                headers: Vec::new(),
                body: Vec::new(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_to_where_the_client_has_asked() {
        for (prefix, expected) in [
            (None, "/dashboard/"),
            (Some("/secure"), "/secure/dashboard/"),
            (Some("/secure/"), "/secure/dashboard/"),
            (Some("/"), "/dashboard/"),
            (Some("secure"), "/dashboard/"),
            (Some("//evil.test"), "/dashboard/"),
            (Some("/\\evil.test"), "/dashboard/"),
            (Some("https://evil.test"), "/dashboard/"),
        ] {
            let mut response = Response {
                status: 302,
                headers: vec![("Location", "/dashboard/".to_owned())],
                body: Vec::new(),
            };
            lead_back(&mut response, prefix);
            assert_eq!(response.headers[0].1, expected, "{prefix:?}");
        }
    }
}
