//! The probes.

use std::sync::Arc;
use std::time::Duration;

use lb_core::health::{AdminState, Probe};
use serde_json::{Value, json};

use super::{assert_has, text};
use crate::testing::{api, ask, live, started, view};
use crate::{Internal, LoadError, Response, View};

#[test]
fn ping_is_traefiks() {
    let mut view = view();
    for path in ["/ping", "/pingpong"] {
        let response = ask(Internal::Ping, path, &view);
        assert_eq!(response, Response { status: 200, headers: Vec::new(), body: b"OK".to_vec() });
    }
    view.draining = true;
    let response = ask(Internal::Ping, "/ping", &view);
    assert_eq!((response.status, text(&response)), (410, "Gone"));
}

#[test]
fn live_ready_and_health_follow_the_state() {
    type Change = fn(&mut View);
    let refused: Change = |view| {
        let error = LoadError { provider: "file".into(), at: started(), message: "a.yml:1:2: no".into() };
        view.stale.push(error);
    };
    let down: Change = |view| {
        let service = live(&view.config, "idle@file");
        #[expect(clippy::disallowed_methods, reason = "only handed on")]
        let now = std::time::Instant::now() + Duration::from_secs(1);
        service.observe_probe(0, Probe::Failed, now);
        Arc::make_mut(&mut view.services).insert("idle@file".into(), Arc::new(service));
    };
    let drained: Change = |view| {
        let service = &view.services["app@file"];
        service.servers().next().unwrap().0.set_admin_state(AdminState::Drain);
    };
    let cases: [(&str, Change, u16, u16, &str); 6] = [
        ("as loaded", |_| {}, 200, 200, "healthy"),
        ("refused reload", refused, 200, 200, "degraded"),
        ("a service without servers", down, 200, 200, "degraded"),
        ("one server drained", drained, 200, 200, "healthy"),
        ("terminating", |view| view.draining = true, 503, 503, "unhealthy"),
        ("nothing loaded", |view| view.loaded_at = None, 503, 503, "unhealthy"),
    ];
    for (case, change, ready, health, status) in cases {
        let mut view = view();
        view.faults.clear();
        change(&mut view);
        let codes = ["/live", "/ready", "/health"].map(|path| ask(Internal::Ping, path, &view).status);
        assert_eq!(codes, [200, ready, health], "{case}");
        let body: Value = serde_json::from_slice(&ask(Internal::Ping, "/health", &view).body).unwrap();
        assert_eq!(body["status"], status, "{case}: {body:#}");
        assert_eq!(body["reasons"].as_array().unwrap().is_empty(), status == "healthy", "{case}");
    }
    let mut view = view();
    down(&mut view);
    refused(&mut view);
    let body: Value = serde_json::from_slice(&ask(Internal::Ping, "/health", &view).body).unwrap();
    assert_has(
        &body,
        &[
            ("/version", json!("1.2.3")),
            ("/uptimeSeconds", json!(61)),
            ("/configuration/loadedAt", json!("2026-11-22T00:45:56Z")),
            ("/configuration/lastError", json!("a.yml:1:2: no")),
            ("/configuration/stale/0/provider", json!("file")),
            ("/configuration/stale/0/what", json!("the newest configuration was refused")),
            (
                "/services/idle@file",
                json!({"servers":1,"healthy":0,"degraded":0,"unhealthy":1,"drain":0,"maintenance":0,"available":false}),
            ),
            ("/services/app@file/healthy", json!(2)),
        ],
    );
    // The dashboard shows what `/health` complains of, wherever in the list of services it is.
    assert_has(
        &api("/api/configuration", &view),
        &[
            ("/trouble", json!(["service idle@file: no server is available"])),
            ("/stale/0/provider", json!("file")),
        ],
    );
}
