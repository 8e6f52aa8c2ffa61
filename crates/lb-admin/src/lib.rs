//! What an operator and an orchestrator ask: the API, the probes, the metrics page, the dashboard.
//!
//! Pure: a request and a [`View`] of the moment go in, a response comes out. Reading and writing it, and
//! building the view, is left to the binary.

mod api;
mod dashboard;
mod operator;
mod probes;
mod query;
mod response;
mod view;

use std::time::SystemTime;

use lb_observe::metrics::{self, Metrics};

pub use operator::{Demand, Standing, Verdict};
pub use response::Response;
pub use view::{Fault, LoadError, Trouble, View};

/// The services that Vigie answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Internal {
    /// `api@internal`; serves the dashboard too when that is on.
    Api,
    /// The same where it is for those with the token only: [`Admin::judge`] comes first.
    ApiByToken,
    /// `dashboard@internal`.
    Dashboard,
    /// `ping@internal`: `/live`, `/ready`, `/health`, and `/ping` under any other path, as in Traefik.
    Ping,
    /// `prometheus@internal`.
    Prometheus,
    /// `noop@internal`.
    Noop,
}

/// Answers for the internal services.
#[derive(Clone, Debug)]
pub struct Admin {
    metrics: Metrics,
    version: &'static str,
    started_at: SystemTime,
}

impl Admin {
    pub fn new(metrics: Metrics, version: &'static str, started_at: SystemTime) -> Self {
        Self { metrics, version, started_at }
    }

    /// Answers one request. `path` is the escaped path and `query` the raw query, without `?`.
    ///
    /// The body of an answer to `HEAD` is the one of `GET`; the caller leaves it out.
    pub fn respond(&self, service: Internal, method: &str, path: &str, query: &str, view: &View) -> Response {
        match service {
            Internal::Ping => match path {
                "/live" => probes::live(),
                "/ready" => probes::ready(view),
                "/health" => probes::health(self, view),
                _ => probes::ping(view),
            },
            Internal::Prometheus => Response::new(200, self.metrics.render().into_bytes())
                .with("Content-Type", metrics::CONTENT_TYPE),
            Internal::Noop => Response::new(418, Vec::new()),
            Internal::Api | Internal::ApiByToken | Internal::Dashboard
                if method != "GET" && method != "HEAD" =>
            {
                // As by Traefik: nothing is there for any method, such as the provider `rest` where it is not open.
                if self.respond(service, "GET", path, query, view).status == 404 {
                    return Response::page_not_found();
                }
                let changes = service != Internal::Dashboard && operator::place(path, view).is_some();
                Response::new(405, Vec::new())
                    .with("Allow", if changes { "GET, HEAD, PUT" } else { "GET, HEAD" })
            }
            Internal::Api | Internal::ApiByToken => self.api(path, query, view),
            Internal::Dashboard => self.dashboard(path, view).unwrap_or_else(Response::page_not_found),
        }
    }

    fn api(&self, path: &str, query: &str, view: &View) -> Response {
        let local = below_base(path, view);
        if let Some(rest) = local.and_then(|local| local.strip_prefix("/api/")) {
            return api::respond(self, rest, &query::Query::parse(query), view);
        }
        let with_dashboard = view.static_config.api.as_ref().is_some_and(|api| api.dashboard);
        with_dashboard.then(|| self.dashboard(path, view)).flatten().unwrap_or_else(Response::page_not_found)
    }

    fn dashboard(&self, path: &str, view: &View) -> Option<Response> {
        match below_base(path, view)? {
            "" | "/" | "/dashboard" => {
                let target = format!("{}/dashboard/", base(view));
                Some(Response::new(302, Vec::new()).with("Location", target))
            }
            "/dashboard/" => Some(dashboard::page()),
            _ => None,
        }
    }
}

/// `api.basePath` without a slash at its end.
fn base(view: &View) -> &str {
    view.static_config.api.as_ref().map_or("", |api| api.base_path.trim_end_matches('/'))
}

fn below_base<'p>(path: &'p str, view: &View) -> Option<&'p str> {
    let local = path.strip_prefix(base(view))?;
    (local.is_empty() || local.starts_with('/')).then_some(local)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
