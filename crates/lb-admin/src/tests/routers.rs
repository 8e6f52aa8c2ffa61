//! `/api/http/routers`.

use std::sync::Arc;

use lb_config::dynamic::Observability;
use serde_json::json;

use super::{assert_has, names};
use crate::testing::{api, view, view_of, with_entry_points};
use crate::{Fault, Trouble, View};

#[test]
fn routers_have_traefiks_shape() {
    let view = view();
    assert_eq!(
        api("/api/http/routers/app@file", &view),
        json!({
            "entryPoints": ["websecure"], "middlewares": ["secure@file", "auth@file"], "service": "app",
            "rule": "Host(`a.test`)", "priority": 14, "tls": {"options": "default"},
            "observability": {"accessLogs": true, "metrics": true, "tracing": true, "traceVerbosity": "minimal"},
            "status": "enabled", "using": ["websecure"], "name": "app@file", "provider": "file", "priorityStr": "14",
        })
    );
    assert_has(
        &api("/api/http/routers/low%40file", &view),
        &[("/priority", json!(-5)), ("/using", json!(["web"])), ("/priorityStr", json!("-5"))],
    );
    assert_has(
        &api("/api/http/routers/websecure-low@file", &view),
        &[
            ("/entryPoints", json!(["websecure"])),
            ("/middlewares", json!(["secure@file"])),
            ("/tls", json!({"options": "default"})),
            ("/service", json!("app")),
        ],
    );
    assert_has(&api("/api/http/routers/ops@file", &view), &[("/service", json!("api@internal"))]);
    let broken = api("/api/http/routers/broken@file", &view);
    assert_has(&broken, &[("/status", json!("disabled"))]);
    assert!(broken["error"][0].as_str().unwrap().contains("Hots"), "{broken:#}");
    assert_has(
        &api("/api/http/routers/ping@internal", &view),
        &[("/priorityStr", json!("9223372036854775807")), ("/using", json!(["traefik"]))],
    );
    assert!(names(&api("/api/http/routers", &view)).contains(&"web-to-websecure@internal"));
}

#[test]
fn routers_show_what_they_get_from_their_entry_point() {
    let mut view = with_entry_points(
        "traefik: {address: ':80', http: {middlewares: [auth@file]}}, \
         web: {address: ':81', http: {middlewares: [gone@file], redirections: {entryPoint: {to: secure}}}}, \
         secure: {address: ':443', http: {tls: {}}, observability: {accessLogs: false}}, \
         strict: {address: ':444', http: {tls: {options: gone@file}}}, \
         seen: {address: ':82', observability: {tracing: false}}",
    );
    use lb_config::Kind::{Middleware, TlsOptions};
    for (kind, message) in [(Middleware, "no middleware"), (TlsOptions, "no options")] {
        let (name, message) = ("gone@file".into(), message.into());
        view.faults.push(Fault { kind, name, trouble: Trouble::Disabled, message });
    }
    for (router, expected) in [
        ("api@internal", [json!(["auth@file"]), json!(null), json!("enabled"), json!(null)]),
        ("ping@internal", [json!(null), json!({"options": "default"}), json!("enabled"), json!(null)]),
        ("web-to-secure@internal", {
            [json!(["gone@file"]), json!(null), json!("disabled"), json!(["no middleware"])]
        }),
        ("web-app@file", {
            [json!(["gone@file", "auth@file"]), json!(null), json!("disabled"), json!(["no middleware"])]
        }),
        ("strict-app@file", {
            [json!(["auth@file"]), json!({"options": "gone@file"}), json!("disabled"), json!(["no options"])]
        }),
        ("seen-app@file", [json!(["auth@file"]), json!(null), json!("enabled"), json!(null)]),
    ] {
        let shown = api(&format!("/api/http/routers/{router}"), &view);
        let found = ["middlewares", "tls", "status", "error"].map(|key| shown[key].clone());
        assert_eq!(found, expected, "{router}");
    }
    for (router, logged) in [("ping@internal", false), ("secure-app@file", false), ("api@internal", true)] {
        let shown = api(&format!("/api/http/routers/{router}"), &view);
        assert_eq!(shown["observability"]["accessLogs"], json!(logged), "{router}");
    }
}

#[test]
fn routers_take_the_observability_of_their_entry_point() {
    let mut view = view();
    assert_eq!(api("/api/entrypoints/web", &view).get("observability"), None);
    let off = Observability { access_logs: Some(false), metrics: Some(false), ..Observability::default() };
    let fixed = Arc::make_mut(&mut view.static_config);
    fixed.entry_points.iter_mut().find(|entry_point| entry_point.name == "web").unwrap().observability =
        Some(off);
    let shown = |access_logs: bool, metrics: bool| json!({"accessLogs": access_logs, "metrics": metrics, "tracing": true, "traceVerbosity": "minimal"});
    assert_has(&api("/api/entrypoints/web", &view), &[("/observability", shown(false, false))]);
    let router =
        |name: &str, view: &View| api(&format!("/api/http/routers/{name}"), view)["observability"].clone();
    assert_eq!(router("ops@file", &view), shown(false, false));
    // On two entry points, it is a router for itself on this one.
    assert_eq!(router("web-low@file", &view), shown(false, false));
    assert_eq!(router("websecure-low@file", &view), shown(true, true));
    let config = Arc::make_mut(&mut view.config);
    config.routers.get_mut("ops@file").unwrap().observability.metrics = Some(true);
    assert_eq!(router("ops@file", &view), shown(false, true));
}

#[test]
fn routers_that_dispute_the_tls_options_of_a_host_are_warned_of() {
    let view = view_of(
        "tls: {options: {strict: {minVersion: VersionTLS13}, loose: {}}}\n\
         http: {services: {s: {loadBalancer: {servers: []}}}, routers: {\
         a: {rule: 'Host(`a.test`) && Path(`/a`)', service: s, entryPoints: [web], tls: {options: strict}}, \
         b: {rule: 'Host(`a.test`) || Host(`b.test`)', service: s, entryPoints: [web], tls: {options: loose}}, \
         c: {rule: Host(`b.test`), service: s, entryPoints: [web], tls: {options: loose}}, \
         d: {rule: Host(`c.test`), service: s, entryPoints: [web], tls: {}}, \
         e: {rule: Host(`c.test`), service: s, entryPoints: [web], tls: {options: default}}, \
         f: {rule: 'PathPrefix(`/`)', service: s, entryPoints: [web], tls: {options: strict}}, \
         g: {rule: Host(`a.test`), service: s, entryPoints: [web], tls: {options: gone}}}}",
    );
    let warned = api("/api/http/routers?search=@file&status=warning", &view);
    assert_eq!(names(&warned), ["a@file", "b@file", "f@file"]);
    let unbound = "no domain found in rule PathPrefix(`/`), the TLS option strict@file cannot be applied";
    assert_eq!(api("/api/http/routers/f@file", &view)["error"], json!([unbound]));
    let text = "router's TLSOptions configuration is conflicting with other routers on the same entrypoint and host, default TLS \
             options will be used instead";
    assert_eq!(api("/api/http/routers/a@file", &view)["error"], json!([text]));
    assert_eq!(api("/api/overview", &view)["http"]["routers"]["warnings"], json!(3));
}
