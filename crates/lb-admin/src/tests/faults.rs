//! Objects that are broken, or in use although something is wrong with them.

use serde_json::{Value, json};

use super::{assert_has, names};
use crate::testing::{api, ask, view, view_of};
use crate::{Fault, Internal, Trouble};

#[test]
fn what_is_in_use_in_spite_of_an_error_is_warned_about() {
    let view = view_of(
        "http: {routers: {r: {rule: Host(`a.test`), service: s, entryPoints: [nope, web]}}, \
         services: {s: {loadBalancer: {servers: [{url: 'http://10.0.0.1:80'}]}}}}",
    );
    let error = "dynamic.yml:1:70: http.routers.r.entryPoints[0]: no entry point is called `nope` (known entry points: \
                 traefik, web, websecure)";
    assert_has(
        &api("/api/http/routers/r@file", &view),
        &[("/status", json!("warning")), ("/error", json!([error])), ("/using", json!(["web"]))],
    );
    assert_has(
        &api("/api/overview", &view),
        &[("/http/routers/warnings", json!(1)), ("/http/routers/errors", json!(0))],
    );
}

#[test]
fn what_is_in_quarantine_is_shown_as_stale() {
    let mut view = view();
    let stale = |kind, name: &str| Fault {
        kind,
        name: name.into(),
        trouble: Trouble::Quarantined,
        message: "a.yml:1:2: key: no".into(),
    };
    use lb_config::Kind::{Middleware, Router, Service};
    let objects = [(Router, "app@file"), (Service, "app@file"), (Middleware, "limit@file")];
    view.faults = objects.iter().map(|(kind, name)| stale(*kind, name)).collect();
    for (kind, name) in
        ["routers/app@file", "services/app@file", "middlewares/limit@file"].iter().zip(&objects)
    {
        let shown = api(&format!("/api/http/{kind}"), &view);
        assert_has(
            &shown,
            &[
                ("/status", json!("warning")),
                ("/stale", json!(true)),
                ("/error", json!(["a.yml:1:2: key: no"])),
                ("/name", json!(name.1)),
            ],
        );
    }
    assert_eq!(api("/api/http/routers/low@file", &view).get("stale"), None);
    let health: Value = serde_json::from_slice(&ask(Internal::Ping, "/health", &view).body).unwrap();
    assert_has(
        &health,
        &[
            ("/status", json!("degraded")),
            ("/configuration/disabled", json!([])),
            (
                "/configuration/quarantined/0",
                json!({"kind": "router", "name": "app@file", "error": ["a.yml:1:2: key: no"]}),
            ),
            ("/configuration/quarantined/2/kind", json!("middleware")),
        ],
    );
    let reason = json!("middleware limit@file: in quarantine, its last good version is used");
    assert!(health["reasons"].as_array().unwrap().contains(&reason), "{health}");

    view.faults = vec![Fault { trouble: Trouble::Disabled, ..stale(Router, "new@file") }];
    let health: Value = serde_json::from_slice(&ask(Internal::Ping, "/health", &view).body).unwrap();
    let reason = "router new@file: disabled, it has no good version to go back to";
    assert_has(
        &health,
        &[
            ("/reasons", json!([reason])),
            (
                "/configuration/disabled",
                json!([{"kind": "router", "name": "new@file", "error": ["a.yml:1:2: key: no"]}]),
            ),
        ],
    );
    let mut shown = api("/api/configuration", &view);
    assert_eq!(shown.as_object_mut().unwrap().remove("trouble"), Some(json!([])));
    assert_eq!(shown, health["configuration"], "where the dashboard reads it");
}

/// As Traefik 3.7.15 shows them, but for file and line.
#[test]
fn routers_that_are_left_out_are_shown_as_they_are_written() {
    let view = view_of(
        "http: {routers: {r: {rule: 'Path(`/`)', service: gone, entryPoints: [web], middlewares: [m]}, \
         x: {rule: 'Pat(`/`)', service: app}, \
         o: {rule: 'Path(`/`)', service: app, entryPoints: [web], tls: {options: none}}}, \
         middlewares: {m: {compress: {}}}, \
         services: {app: {loadBalancer: {servers: []}}}}\n\
         tcp: {routers: {t: {rule: 'HostSNI(`*`)', service: gone, entryPoints: [web]}}}\n\
         udp: {routers: {u: {service: gone, entryPoints: [dns]}}}",
    );
    let router = api("/api/http/routers/r@file", &view);
    assert_has(
        &router,
        &[
            ("/status", json!("disabled")),
            ("/rule", json!("Path(`/`)")),
            ("/service", json!("gone")),
            ("/entryPoints", json!(["web"])),
            ("/using", json!(["web"])),
            ("/middlewares", json!(["m@file"])),
            ("/priority", json!(9)),
            ("/error/0", json!("the service \"gone@file\" does not exist")),
        ],
    );
    assert_eq!(names(&api("/api/http/routers?serviceName=gone&status=disabled", &view)), ["r@file"]);
    assert_eq!(api("/api/http/middlewares/m@file", &view)["usedBy"], json!(["r@file"]));
    let without = api("/api/http/routers/o@file", &view);
    let expected = json!("building router handler: unknown TLS options: none@file");
    assert_has(&without, &[("/status", json!("disabled")), ("/error/0", expected)]);
    // Nobody can say what such a rule is.
    assert_eq!(api("/api/http/routers/x@file", &view).get("rule"), None);
    let tcp = api("/api/tcp/routers/t@file", &view);
    assert_has(
        &tcp,
        &[("/status", json!("disabled")), ("/rule", json!("HostSNI(`*`)")), ("/service", json!("gone"))],
    );
    let udp = api("/api/udp/routers/u@file", &view);
    assert_has(
        &udp,
        &[("/status", json!("disabled")), ("/service", json!("gone")), ("/using", json!(["dns"]))],
    );
    assert_eq!(names(&api("/api/udp/routers", &view)), ["u@file"]);
}
