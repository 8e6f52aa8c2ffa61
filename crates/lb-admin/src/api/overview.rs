//! `/api/overview`: how many there are and how many are in trouble.

use serde_json::{Value, json};

use super::{Model, certificate, middleware, router, service, tcp, udp};

pub(super) fn overview(model: &Model<'_>) -> Value {
    let fixed = &model.view.static_config;
    let [tcp_routers, tcp_services, tcp_middlewares] = tcp::statuses(model).map(|statuses| count(&statuses));
    let mut providers = Vec::new();
    if fixed.providers.file.is_some() {
        providers.push("File");
    }
    if fixed.providers.docker.is_some() {
        providers.push("Docker");
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
            "tracing": "",
            "metrics": if fixed.metrics.is_some() { "Prometheus" } else { "" },
            "accessLog": fixed.access_log.is_some(),
        },
        "providers": providers,
    })
}

fn count(statuses: &[&str]) -> Value {
    let of = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    json!({ "total": statuses.len(), "warnings": of("warning"), "errors": of("disabled") })
}
