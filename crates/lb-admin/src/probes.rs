//! The answers for orchestrators and load balancers in front: ping, live, ready, health.

use std::collections::BTreeMap;

use lb_config::Kind;
use lb_core::health::{AdminState, Status};
use lb_observe::rfc3339;
use serde_json::{Map, Value, json};

use crate::{Admin, Response, Trouble, View};

/// Traefik's: `OK`, or the terminating status while draining.
pub(crate) fn ping(view: &View) -> Response {
    if !view.draining {
        return Response::new(200, "OK");
    }
    let status = view.static_config.ping.as_ref().map_or(503, |ping| ping.terminating_status_code);
    Response::new(status, status_text(status))
}

/// Reason phrases of the statuses that make sense here (RFC 9110 section 15).
fn status_text(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        404 => "Not Found",
        410 => "Gone",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// The process answers: restarting it would help nobody.
pub(crate) fn live() -> Response {
    Response::json(200, &json!({ "status": "alive" }))
}

/// Whether new traffic should come here.
pub(crate) fn ready(view: &View) -> Response {
    let reasons = not_ready(view);
    if reasons.is_empty() {
        Response::json(200, &json!({ "status": "ready" }))
    } else {
        Response::json(503, &json!({ "status": "not ready", "reasons": reasons }))
    }
}

fn not_ready(view: &View) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    if view.draining {
        reasons.push("terminating");
    }
    if view.loaded_at.is_none() {
        reasons.push("no configuration loaded yet");
    }
    reasons
}

/// `unhealthy` (503): not ready. `degraded` (200): serving, but somebody should look.
pub(crate) fn health(admin: &Admin, view: &View) -> Response {
    let not_ready = not_ready(view);
    let mut reasons = trouble(view);
    for error in &view.stale {
        reasons.push(format!("provider {}: {}", error.provider, error.words()));
    }
    for (kind, name) in in_trouble(view, Trouble::Disabled).keys() {
        reasons.push(format!("{kind} {name}: disabled, it has no good version to go back to"));
    }
    for (kind, name) in in_trouble(view, Trouble::Quarantined).keys() {
        reasons.push(format!("{kind} {name}: in quarantine, its last good version is used"));
    }
    let mut services = Map::new();
    for (name, service) in &*view.services {
        let count = |wanted| service.servers().filter(|(server, _)| server.status() == wanted).count();
        let wanted = |state| service.servers().filter(|(server, _)| server.admin_state() == state).count();
        services.insert(
            name.clone(),
            json!({
                "servers": service.servers().len(),
                "healthy": count(Status::Healthy),
                "degraded": count(Status::Degraded),
                "unhealthy": count(Status::Unhealthy),
                "drain": wanted(AdminState::Drain),
                "maintenance": wanted(AdminState::Maintenance),
                "available": service.is_available(),
            }),
        );
    }
    reasons.sort_unstable();
    let (code, status) = match (not_ready.is_empty(), reasons.is_empty()) {
        (false, _) => (503, "unhealthy"),
        (true, false) => (200, "degraded"),
        (true, true) => (200, "healthy"),
    };
    let body = json!({
        "status": status,
        "reasons": reasons,
        "version": admin.version,
        "startedAt": rfc3339(admin.started_at),
        "uptimeSeconds": view.now.duration_since(admin.started_at).unwrap_or_default().as_secs(),
        "configuration": configuration(view),
        "services": services,
    });
    Response::json(code, &body)
}

/// What is wrong besides the configuration.
fn trouble(view: &View) -> Vec<String> {
    let mut reasons: Vec<String> = not_ready(view).into_iter().map(str::to_owned).collect();
    if view.shedding {
        reasons.push("memory is short: new requests are refused".to_owned());
    }
    for (word, services) in [("service", &view.services), ("TCP service", &view.tcp)] {
        let without =
            services.iter().filter(|(_, service)| service.servers().len() > 0 && !service.is_available());
        reasons.extend(without.map(|(name, _)| format!("{word} {name}: no server is available")));
    }
    reasons.extend(view.certificates.iter().cloned());
    // Services come out of a hash map.
    reasons.sort_unstable();
    reasons
}

/// What is wrong: what was refused of the configuration, what is old, what is missing; and what else is.
pub(crate) fn in_all(view: &View) -> Value {
    let mut found = configuration(view);
    found["trouble"] = trouble(view).into();
    found
}

/// What is wrong with the configuration: what was refused, what is old, what is missing.
pub(crate) fn configuration(view: &View) -> Value {
    let refused = view
        .stale
        .iter()
        .map(|error| json!({ "provider": error.provider, "at": rfc3339(error.at), "what": error.words(), "error": error.message }));
    json!({
        "loadedAt": view.loaded_at.map(rfc3339),
        "lastError": view.last_error().map(|error| &error.message),
        "stale": refused.collect::<Vec<_>>(),
        "quarantined": objects(&in_trouble(view, Trouble::Quarantined)),
        "disabled": objects(&in_trouble(view, Trouble::Disabled)),
    })
}

type Objects<'v> = BTreeMap<(Kind, &'v str), Vec<&'v str>>;

fn in_trouble(view: &View, trouble: Trouble) -> Objects<'_> {
    let mut found = Objects::new();
    for fault in view.faults.iter().filter(|fault| fault.trouble == trouble) {
        found.entry((fault.kind, &fault.name)).or_default().push(&fault.message);
    }
    found
}

fn objects(objects: &Objects<'_>) -> Vec<Value> {
    let object = |((kind, name), errors): (&(Kind, &str), &Vec<&str>)| json!({ "kind": kind.word(), "name": name, "error": errors });
    objects.iter().map(object).collect()
}
