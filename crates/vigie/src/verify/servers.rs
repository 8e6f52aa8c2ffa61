//! Whether each server is up, healthy, and reached from here on the address that the configuration names.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{AT_ONCE, Instance, Report, text};
use crate::attempt::Outcome;

pub(super) async fn verify(instance: &Instance, report: &mut Report) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let sockets = Arc::new(instance.sockets.clone());
    let mut trials = JoinSet::new();
    let mut told = Vec::new();
    for service in &instance.services {
        let defined = instance.on_disk.definition(service);
        for live in service["serverDetails"].as_array().into_iter().flatten() {
            let at = told.len();
            let trial = defined.as_ref().and_then(|defined| defined.trial(text(live, "url")));
            told.push((text(service, "name"), live, None));
            // Whoever took it out for maintenance may have switched it off.
            if let Some(trial) = trial.filter(|_| text(live, "state") != "maintenance") {
                let (turns, sockets) = (Arc::clone(&turns), Arc::clone(&sockets));
                trials.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    (at, trial.run(&sockets).await)
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
