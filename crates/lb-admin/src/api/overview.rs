//! `/api/overview`: how many there are and how many are in trouble.

use lb_config::StaticConfig;
use serde_json::{Value, json};

use super::{Model, certificate, middleware, router, service, tcp, udp};

pub(super) fn overview(model: &Model<'_>) -> Value {
    let fixed = &model.view.static_config;
    let [tcp_routers, tcp_services, tcp_middlewares] = tcp::statuses(model).map(|statuses| count(&statuses));
    let mut providers = Vec::new();
    // In Traefik's order.
    if fixed.providers.docker.is_some() {
        providers.push("Docker");
    }
    if fixed.providers.swarm.is_some() {
        providers.push("Swarm");
    }
    if fixed.providers.file.is_some() {
        providers.push("File");
    }
    if fixed.providers.rest.is_some() {
        providers.push("Rest");
    }
    providers.extend(fixed.providers.remote.iter().map(|remote| remote.source.word()));
    providers.dedup();
    json!({
        "http": {
            "routers": count(&router::statuses(model)),
            "services": count(&service::statuses(model)),
            "middlewares": count(&middleware::statuses(model)),
        },
        "tcp": { "routers": tcp_routers, "services": tcp_services, "middlewares": tcp_middlewares },
        "udp": {
            "routers": count(&udp::statuses(&udp::routers(model))),
            "services": count(&udp::statuses(&udp::services(model))),
        },
        "certificates": count(&certificate::statuses(&model.view.config.tls, model.view.now)),
        "features": {
            "tracing": if fixed.tracing.is_some() { "OTLP" } else { "" },
            "metrics": metrics(fixed),
            "accessLog": fixed.access_log.is_some(),
        },
        "providers": providers,
    })
}

/// The first one, in Traefik's order.
fn metrics(fixed: &StaticConfig) -> &'static str {
    let exports = &fixed.metric_exports;
    let all = [
        (fixed.metrics.is_some(), "Prometheus"),
        (exports.datadog.is_some(), "Datadog"),
        (exports.statsd.is_some(), "StatsD"),
        (exports.influxdb.is_some(), "InfluxDB2"),
        (exports.otlp.is_some(), "OTLP"),
    ];
    all.into_iter().find(|(is_there, _)| *is_there).map_or("", |(_, name)| name)
}

fn count(statuses: &[&str]) -> Value {
    let of = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    json!({ "total": statuses.len(), "warnings": of("warning"), "errors": of("disabled") })
}
