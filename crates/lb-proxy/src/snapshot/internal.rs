//! The routers and services Vigie brings along: `ping@internal`, `api@internal` and the like.

use std::sync::Arc;

use lb_config::dynamic::{Observability, RedirectScheme, Router};
use lb_config::static_config::{EntryPoint, Redirection, StaticConfig};
use lb_core::route::Rule;

/// A service answered by Vigie itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Internal {
    /// Answers to challenges of ACME over HTTP.
    AcmeHttp,
    Api,
    /// The API where each request has to show the token.
    ApiByToken,
    Dashboard,
    Ping,
    Prometheus,
    /// Takes configurations in.
    Rest,
    Noop,
}

/// RFC 8555 section 8.3.
const CHALLENGES: &str = "PathPrefix(`/.well-known/acme-challenge/`)";

/// Above every router a user can write.
const TOP: i64 = i64::MAX;

/// A router of the provider `internal`. Entry points treat it as any other.
pub(super) struct InternalRouter {
    pub(super) name: String,
    pub(super) router: Router,
    pub(super) target: Internal,
    /// Carried out after the middlewares of the entry point.
    pub(super) redirect: Option<RedirectScheme>,
}

impl Internal {
    /// The service a qualified name stands for, when its feature is on.
    pub(super) fn find(name: &str, fixed: &StaticConfig) -> Option<Self> {
        match name {
            "noop@internal" => Some(Self::Noop),
            "acme-http@internal" if fixed.http_challenges().next().is_some() => Some(Self::AcmeHttp),
            "api@internal" if fixed.api.is_some() => Some(Self::Api),
            "dashboard@internal" if fixed.api.as_ref().is_some_and(|api| api.dashboard) => {
                Some(Self::Dashboard)
            }
            "ping@internal" if fixed.ping.is_some() => Some(Self::Ping),
            "prometheus@internal" if fixed.metrics.is_some() => Some(Self::Prometheus),
            "rest@internal" if fixed.providers.rest.is_some() => Some(Self::Rest),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AcmeHttp => "acme-http@internal",
            Self::Api | Self::ApiByToken => "api@internal",
            Self::Dashboard => "dashboard@internal",
            Self::Ping => "ping@internal",
            Self::Prometheus => "prometheus@internal",
            Self::Rest => "rest@internal",
            Self::Noop => "noop@internal",
        }
    }
}

/// The routers that the static configuration asks for.
pub(super) fn routers(fixed: &StaticConfig) -> Vec<InternalRouter> {
    let mut routers = Vec::new();
    let mut add = |name: &str, entry_point: &str, rule: &str, priority, target| {
        routers.extend(router(name, entry_point, rule, priority, target));
    };
    if let Some(ping) = fixed.ping.as_ref().filter(|ping| !ping.manual_routing) {
        add("ping@internal", &ping.entry_point, "PathPrefix(`/ping`)", TOP, Internal::Ping);
        // Beyond Traefik: the endpoints orchestrators expect, beside /ping.
        let rule = "Path(`/live`) || Path(`/ready`) || Path(`/health`)";
        add("health@internal", &ping.entry_point, rule, TOP, Internal::Ping);
    }
    if let Some(metrics) = fixed.metrics.as_ref().filter(|metrics| !metrics.manual_routing) {
        add("prometheus@internal", &metrics.entry_point, "PathPrefix(`/metrics`)", TOP, Internal::Prometheus);
    }
    if fixed.providers.rest.is_some_and(|rest| rest.insecure) {
        add("rest@internal", "traefik", "PathPrefix(`/api/providers`)", TOP, Internal::Rest);
    }
    if let Some(api) = fixed.api.as_ref().filter(|api| api.insecure || api.token.is_some()) {
        let service = if api.insecure { Internal::Api } else { Internal::ApiByToken };
        let rule = format!("PathPrefix(`{}/api`)", api.base_path.trim_end_matches('/'));
        add("api@internal", "traefik", &rule, TOP - 1, service);
        if api.dashboard && api.insecure {
            add("dashboard@internal", "traefik", "PathPrefix(`/`)", TOP - 2, Internal::Dashboard);
        } else if api.dashboard {
            // Says why it is not there: a browser has no token to show.
            let rule = format!("PathPrefix(`{}/dashboard`)", api.base_path.trim_end_matches('/'));
            add("dashboard@internal", "traefik", &rule, TOP - 2, service);
        }
    }
    let (passed, first): (Vec<_>, Vec<_>) =
        fixed.http_challenges().partition(|entry| entry.allow_acme_by_pass);
    let length = i64::try_from(CHALLENGES.len()).unwrap_or_default();
    for (name, priority, at) in
        [("acme-http@internal", TOP, first), ("acme-http-bypass@internal", length, passed)]
    {
        if at.is_empty() {
            continue;
        }
        let own = router(name, "", CHALLENGES, priority, Internal::AcmeHttp);
        routers.extend(own.map(|mut own| {
            own.router.entry_points = at.iter().map(|entry| entry.name.clone()).collect();
            own
        }));
    }
    for entry in &fixed.entry_points {
        routers.extend(entry.http.redirection.as_ref().and_then(|to| redirection(fixed, entry, to)));
    }
    routers
}

/// The router of `http.redirections.entryPoint`: everything on this entry point moves to another.
fn redirection(
    fixed: &StaticConfig,
    entry: &EntryPoint,
    redirection: &Redirection,
) -> Option<InternalRouter> {
    let port = match redirection.to.strip_prefix(':') {
        Some(port) => port.to_owned(),
        None => {
            let target = fixed.entry_points.iter().find(|other| other.name == redirection.to)?;
            target.address.port().to_string()
        }
    };
    let name = format!("{}-to-{}@internal", entry.name, redirection.to.trim_start_matches(':'));
    let everything = match entry.allow_acme_by_pass {
        true => format!("HostRegexp(`^.+$`) && !{CHALLENGES}"),
        false => "HostRegexp(`^.+$`)".to_owned(),
    };
    let redirect = RedirectScheme {
        scheme: redirection.scheme.clone(),
        port: Some(port),
        permanent: redirection.permanent,
    };
    let priority = redirection.priority_with(&everything);
    let router = router(&name, &entry.name, &everything, priority, Internal::Noop)?;
    Some(InternalRouter { redirect: Some(redirect), ..router })
}

/// `None` where the rule does not parse.
fn router(
    name: &str,
    entry_point: &str,
    rule: &str,
    priority: i64,
    target: Internal,
) -> Option<InternalRouter> {
    let router = Router {
        rule: Arc::new(Rule::parse(rule).ok()?),
        rule_text: rule.to_owned(),
        rule_syntax: String::new(),
        entry_points: vec![entry_point.to_owned()],
        middlewares: Vec::new(),
        service: target.name().to_owned(),
        parents: Vec::new(),
        priority,
        tls: None,
        observability: Observability::default(),
    };
    Some(InternalRouter { name: name.to_owned(), router, target, redirect: None })
}
