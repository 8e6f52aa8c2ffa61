//! The objects of the provider `internal`, as far as an operator sees them.

use lb_config::StaticConfig;

/// A router that nobody wrote.
pub(super) struct InternalRouter {
    pub(super) name: String,
    pub(super) entry_points: Vec<String>,
    pub(super) rule: String,
    pub(super) priority: i64,
    pub(super) service: &'static str,
}

pub(super) fn routers(config: &StaticConfig) -> Vec<InternalRouter> {
    let mut routers = Vec::new();
    let mut add = |name: &str, entry_point: &str, rule: &str, priority, service| {
        let [name, entry_point, rule] = [name, entry_point, rule].map(str::to_owned);
        routers.push(InternalRouter { name, entry_points: vec![entry_point], rule, priority, service });
    };
    if let Some(ping) = config.ping.as_ref().filter(|ping| !ping.manual_routing) {
        add("ping@internal", &ping.entry_point, "PathPrefix(`/ping`)", i64::MAX, "ping@internal");
        let rule = "Path(`/live`) || Path(`/ready`) || Path(`/health`)";
        add("health@internal", &ping.entry_point, rule, i64::MAX, "ping@internal");
    }
    if let Some(metrics) = config.metrics.as_ref().filter(|metrics| !metrics.manual_routing) {
        let entry_point = &metrics.entry_point;
        add("prometheus@internal", entry_point, "PathPrefix(`/metrics`)", i64::MAX, "prometheus@internal");
    }
    if config.providers.rest.is_some_and(|rest| rest.insecure) {
        add("rest@internal", "traefik", "PathPrefix(`/api/providers`)", i64::MAX, "rest@internal");
    }
    if let Some(api) = config.api.as_ref().filter(|api| api.insecure) {
        add("api@internal", "traefik", "PathPrefix(`/api`)", i64::MAX - 1, "api@internal");
        if api.dashboard {
            add("dashboard@internal", "traefik", "PathPrefix(`/`)", i64::MAX - 2, "dashboard@internal");
        }
    }
    let challenges = "PathPrefix(`/.well-known/acme-challenge/`)";
    for entry_point in &config.entry_points {
        if let Some(redirection) = &entry_point.http.redirection {
            let name = format!("{}-to-{}@internal", entry_point.name, redirection.to.trim_start_matches(':'));
            let rule = match entry_point.allow_acme_by_pass {
                true => format!("HostRegexp(`^.+$`) && !{challenges}"),
                false => "HostRegexp(`^.+$`)".to_owned(),
            };
            add(&name, &entry_point.name, &rule, redirection.priority_with(&rule), "noop@internal");
        }
    }
    let (passed, first): (Vec<_>, Vec<_>) =
        config.http_challenges().partition(|entry_point| entry_point.allow_acme_by_pass);
    for (name, priority, at) in [
        ("acme-http@internal", i64::MAX, first),
        ("acme-http-bypass@internal", challenges.len() as i64, passed),
    ] {
        if !at.is_empty() {
            routers.push(InternalRouter {
                name: name.to_owned(),
                entry_points: at.iter().map(|entry_point| entry_point.name.clone()).collect(),
                rule: challenges.to_owned(),
                priority,
                service: "acme-http@internal",
            });
        }
    }
    routers
}

pub(super) fn services(config: &StaticConfig) -> Vec<&'static str> {
    let api = config.api.as_ref();
    [
        ("acme-http@internal", config.http_challenges().next().is_some()),
        ("api@internal", api.is_some()),
        ("dashboard@internal", api.is_some_and(|api| api.dashboard)),
        ("noop@internal", true),
        ("ping@internal", config.ping.is_some()),
        ("prometheus@internal", config.metrics.is_some()),
        ("rest@internal", config.providers.rest.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect()
}
