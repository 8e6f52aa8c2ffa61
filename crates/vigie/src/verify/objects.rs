//! What the instance itself says is wrong: refused, in quarantine, left out, without a server.

use serde_json::Value;

use super::{Instance, Report, text};

pub(super) fn verify(instance: &Instance, report: &mut Report) {
    let configuration = &instance.configuration;
    let each = |key: &str| configuration[key].as_array().into_iter().flatten();
    for refused in each("stale") {
        let what = format!("provider {}", text(refused, "provider"));
        let problem = format!("an older configuration is in force: {}", text(refused, "error"));
        report.error(what, problem, "mend it: `vigie check` shows all of it");
    }
    for (key, problem, hint) in [
        ("quarantined", "an older version is in force", "mend it: `vigie check` shows all of it"),
        ("disabled", "is left out", "mend it: `vigie check` shows all of it"),
    ] {
        for object in each(key) {
            let what = format!("{} {}", text(object, "kind"), text(object, "name"));
            report.error(what, format!("{problem}: {}", errors(object)), hint);
        }
    }
    let own = |objects: &[Value]| objects.iter().filter(|object| object["provider"] != "internal").count();
    (report.routers, report.services) = (own(&instance.routers), own(&instance.services));
    for router in &instance.routers {
        let told = each("disabled").any(|object| object["name"] == router["name"]);
        let what = format!("router {}", text(router, "name"));
        match text(router, "status") {
            "disabled" if !told => {
                report.error(what, format!("is left out: {}", errors(router)), "mend what it names");
            }
            "warning" if router["stale"] != true => {
                report.warn(what, errors(router), "mend what it names");
            }
            _ => {}
        }
    }
    for service in &instance.services {
        let Some(balancer) = service.get("loadBalancer") else { continue };
        if balancer["servers"].as_array().is_none_or(Vec::is_empty) {
            let what = format!("service {}", text(service, "name"));
            let hint = "add a server, or start its containers";
            match service["usedBy"].as_array().and_then(|users| users.first()).and_then(Value::as_str) {
                Some(router) => {
                    report.error(what, format!("has no server, and router {router} leads to it"), hint)
                }
                None => report.warn(what, "has no server", hint),
            }
        }
    }
}

/// The rest of what the instance complains of, once it is known what is wrong with its servers.
pub(super) fn trouble(instance: &Instance, report: &mut Report) {
    let troubles = instance.configuration["trouble"].as_array().into_iter().flatten();
    for trouble in troubles.filter_map(Value::as_str) {
        let (what, problem) = trouble.split_once(": ").unwrap_or(("instance", trouble));
        let of_server = format!("{what}, server ");
        let told = report.findings.iter().any(|known| known.is_error && known.what.starts_with(&of_server));
        if !told {
            report.error(what, problem, "what is said of its servers is why, or the log says it");
        }
    }
}

fn errors(object: &Value) -> String {
    let errors = object["error"].as_array().into_iter().flatten().filter_map(Value::as_str);
    errors.collect::<Vec<_>>().join(", ")
}
