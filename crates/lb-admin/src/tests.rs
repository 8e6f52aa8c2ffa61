use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic::{Observability, OutlierDetection, SlowStart};
use lb_core::health::{AdminState, Outcome, Probe};
use serde_json::{Value, json};

use crate::testing::{api, ask, live, started, view, view_of};
use crate::{Admin, Fault, Internal, LoadError, Response, Trouble, View};

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_has(value: &Value, expected: &[(&str, Value)]) {
    for (pointer, expected) in expected {
        assert_eq!(value.pointer(pointer), Some(expected), "{pointer} of {value:#}");
    }
}

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

/// With its entry points changed to these.
fn with_entry_points(entry_points: &str) -> View {
    let text =
        format!("entryPoints: {{{entry_points}}}\napi: {{insecure: true}}\nping: {{entryPoint: secure}}\n");
    let mut view = view();
    view.static_config = Arc::new(lb_config::parse_static("traefik.yml", &text).unwrap().0);
    view
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
fn services_have_traefiks_shape() {
    let view = view();
    let mut service = api("/api/http/services/app@file", &view);
    assert_has(
        &service,
        &[("/serverDetails/1", {
            json!({"url": "http://10.0.0.2:80", "health": "healthy", "state": "ready", "weight": 3, "inFlight": 0})
        })],
    );
    service.as_object_mut().unwrap().remove("serverDetails");
    assert_eq!(
        service,
        json!({
            "loadBalancer": {
                "sticky": {"cookie": {"name": "stick", "secure": true, "path": "/"}},
                "servers": [{"url": "http://10.0.0.1:80"}, {"url": "http://10.0.0.2:80", "weight": 3}],
                "strategy": "wrr",
                "healthCheck": {
                    "mode": "http", "path": "/ready", "interval": "10s", "timeout": "5s", "followRedirects": true,
                    "headers": {"X-Token": "xxxx", "X-Name": "lb"},
                },
                "passHostHeader": true,
                "responseForwarding": {"flushInterval": "100ms"},
            },
            "status": "enabled", "usedBy": ["app@file", "low@file", "websecure-low@file"], "name": "app@file", "provider": "file",
            "type": "loadbalancer", "serverStatus": {"http://10.0.0.1:80": "UP", "http://10.0.0.2:80": "UP"},
        })
    );
    assert_eq!(
        api("/api/http/services/api@internal", &view),
        json!({"status": "enabled", "usedBy": ["api@internal", "ops@file"], "name": "api@internal",
               "provider": "internal"})
    );
}

/// As Traefik 3.7.15 shows the same file, but for `childStatus`.
#[test]
fn services_of_services_have_traefiks_shape() {
    let view = crate::testing::view_of(
        "http: {services: {a: {loadBalancer: {servers: [{url: 'http://a'}], healthCheck: {path: /}}}, \
         down: {loadBalancer: {servers: [], healthCheck: {path: /}}}, \
         w: {weighted: {services: [{name: a, weight: 3}, {name: down@file}, {name: v}], sticky: {cookie: {name: c}}, \
         healthCheck: {}}}, v: {weighted: {services: [{name: down}], healthCheck: {}}}, \
         h: {highestRandomWeight: {services: [{name: a}]}}, \
         m: {mirroring: {service: a, mirrors: [{name: h, percent: 50}, {name: a, percent: 0}]}}, \
         f: {failover: {service: a, fallback: down, errors: {status: ['500-504']}}}}, \
         routers: {r: {rule: Path(`/`), service: w, entryPoints: [web]}}}",
    );
    assert_eq!(
        api("/api/http/services/w@file", &view),
        json!({
            "weighted": {
                "services": [{"name": "a", "weight": 3}, {"name": "down@file", "weight": 1}, {"name": "v", "weight": 1}],
                "sticky": {"cookie": {"name": "c", "path": "/"}}, "healthCheck": {},
            },
            "status": "enabled", "usedBy": ["r@file"], "name": "w@file", "provider": "file", "type": "weighted",
            "childStatus": {"a@file": "UP", "down@file": "DOWN", "v@file": "DOWN"},
        })
    );
    assert_eq!(
        api("/api/http/services/h@file", &view),
        json!({
            "highestRandomWeight": {"services": [{"name": "a", "weight": 1}]}, "status": "enabled", "name": "h@file",
            "provider": "file", "type": "highestrandomweight", "childStatus": {"a@file": "UP"},
        })
    );
    assert_eq!(
        api("/api/http/services/f@file", &view),
        json!({
            "failover": {"service": "a", "fallback": "down", "errors": {"maxRequestBodyBytes": -1, "status": ["500-504"]}},
            "status": "enabled", "name": "f@file", "provider": "file", "type": "failover",
            "childStatus": {"a@file": "UP", "down@file": "DOWN"},
        })
    );
    assert_eq!(api("/api/overview", &view).pointer("/http/services/total"), Some(&json!(12)));
    assert_eq!(
        api("/api/http/services/m@file", &view)["mirroring"],
        json!({"service": "a", "mirrorBody": true, "maxBodySize": -1,
               "mirrors": [{"name": "h", "percent": 50}, {"name": "a"}]})
    );
    assert!(api("/api/rawdata", &view).pointer("/services/w@file/weighted").is_some());
}

#[test]
fn ejection_slow_start_and_panic_are_shown() {
    let mut view = view();
    let mut config = (*view.config).clone();
    let written = config.services.get_mut("app@file").unwrap();
    let detection = OutlierDetection { consecutive_5xx: NonZeroU32::new(1), ..OutlierDetection::default() };
    written.outlier_detection = Some(detection);
    written.slow_start = Some(SlowStart::default());
    written.panic_threshold = 60;
    let service = live(&config, "app@file");
    let now = service.servers().next().unwrap().0.status_since();
    service.observe_outcome(1, Outcome::ServerError, now);
    service.advance(now + Duration::from_secs(29));
    view.config = Arc::new(config);
    view.services = Arc::new([("app@file".to_owned(), Arc::new(service))].into());
    let shown = api("/api/http/services/app@file", &view);
    assert_has(
        &shown,
        &[
            ("/panic", json!(true)),
            ("/serverStatus", json!({"http://10.0.0.1:80": "UP", "http://10.0.0.2:80": "DOWN"})),
            ("/serverDetails/1/ejected", json!(true)),
            (
                "/loadBalancer/slowStart",
                json!({"duration": "30s", "aggression": 1.0, "minWeightPercent": 10}),
            ),
            ("/loadBalancer/panicThreshold", json!(60)),
            (
                "/loadBalancer/outlierDetection",
                json!({"consecutive5xx": 1, "consecutiveGatewayFailure": "off", "interval": "10s",
                       "baseEjectionTime": "30s", "maxEjectionTime": "5m0s", "maxEjectionPercent": 10}),
            ),
        ],
    );
    assert_eq!(shown.pointer("/serverDetails/0/ejected"), None);
    view.services["app@file"].advance(now + Duration::from_secs(30));
    let shown = api("/api/http/services/app@file", &view);
    assert_has(&shown, &[("/serverDetails/1/slowStartPercent", json!(10))]);
    assert_eq!((shown.get("panic"), shown.pointer("/serverDetails/1/ejected")), (None, None));
}

#[test]
fn middlewares_have_traefiks_shape_and_no_secrets() {
    let view = view();
    for (name, expected) in [
        (
            "limit",
            json!({"rateLimit": {"average": 100, "period": "1s", "burst": 50}, "status": "enabled", "name": "limit@file",
                   "provider": "file", "type": "ratelimit"}),
        ),
        (
            "auth",
            json!({"basicAuth": {"users": ["xxxx"]}, "status": "enabled", "usedBy": ["app@file"], "name": "auth@file",
                   "provider": "file", "type": "basicauth"}),
        ),
        (
            "secure",
            json!({"headers": {"stsSeconds": 60, "frameDeny": true}, "status": "enabled", "usedBy": ["app@file", "websecure-low@file"],
                   "name": "secure@file", "provider": "file", "type": "headers"}),
        ),
        (
            "retry",
            json!({"retry": {"attempts": 3, "initialInterval": "100ms", "maxRequestBodyBytes": 2_097_152},
                   "status": "enabled", "name": "retry@file", "provider": "file", "type": "retry"}),
        ),
    ] {
        assert_eq!(api(&format!("/api/http/middlewares/{name}@file"), &view), expected);
    }
    let everything = ["/api/rawdata", "/api/http/middlewares", "/api/http/services"]
        .map(|path| api(path, &view).to_string())
        .concat();
    for secret in ["2jmj7l5rSw0yVb", "bob", "hunter2"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[test]
fn entry_points_have_traefiks_shape() {
    let view = view();
    assert_eq!(
        api("/api/entrypoints/websecure", &view),
        json!({
            "address": ":443", "asDefault": true,
            "transport": {
                "lifeCycle": {"graceTimeOut": "10s"},
                "respondingTimeouts": {"readTimeout": "1m30s", "idleTimeout": "3m0s"},
            },
            "forwardedHeaders": {},
            "http": {
                "middlewares": ["secure@file"], "tls": {}, "sanitizePath": true, "maxHeaderBytes": 1_048_576,
            },
            "http2": {
                "maxConcurrentStreams": 250, "maxDecoderHeaderTableSize": 4096, "maxEncoderHeaderTableSize": 4096,
            },
            "udp": {"timeout": "3s"}, "name": "websecure",
        })
    );
    assert_eq!(names(&api("/api/entrypoints", &view)), ["dns", "traefik", "web", "websecure"]);
    let unclean = with_entry_points("secure: {address: ':1', http: {sanitizePath: false}}");
    assert_eq!(api("/api/entrypoints/secure", &unclean)["http"]["sanitizePath"], false);
}

#[test]
fn overview_counts() {
    let mut view = view();
    view.faults.push(Fault {
        kind: lb_config::Kind::Router,
        name: "low@file".into(),
        trouble: Trouble::Warning,
        message: "odd".into(),
    });
    let overview = api("/api/overview", &view);
    assert_has(
        &overview,
        &[
            // Four of the file, one of them twice, and six internal.
            ("/http/routers", json!({"total": 11, "warnings": 2, "errors": 1})),
            ("/http/services", json!({"total": 7, "warnings": 0, "errors": 0})),
            ("/http/middlewares", json!({"total": 4, "warnings": 0, "errors": 0})),
            ("/udp/services/total", json!(0)),
            ("/features", json!({"tracing": "", "metrics": "Prometheus", "accessLog": true})),
            ("/providers", json!(["File"])),
        ],
    );
}

#[test]
fn udp_is_shown_as_by_traefik() {
    let view = view_of(
        "udp: {routers: {a: {entryPoints: [dns], service: s}, b: {service: w}, f: {service: missing}}, \
         services: {s: {loadBalancer: {servers: [{address: '10.0.0.1:53'}]}}, \
         w: {weighted: {services: [{name: s, weight: 3}]}}, none: {loadBalancer: {servers: []}}}}",
    );
    assert_eq!(
        api("/api/udp/routers", &view),
        json!([
            {"entryPoints": ["dns"], "service": "s", "status": "enabled", "using": ["dns"], "name": "a@file", "provider": "file"},
            {"service": "w", "status": "enabled", "using": ["dns"], "name": "b@file", "provider": "file"},
            {"error": ["the UDP service \"missing@file\" does not exist"], "status": "disabled", "name": "f@file", "provider": "file"},
        ])
    );
    assert_eq!(
        api("/api/udp/services?sortBy=type&direction=desc&search=s@", &view),
        json!([{"loadBalancer": {"servers": [{"address": "10.0.0.1:53"}]}, "status": "enabled", "usedBy": ["a@file"],
                "name": "s@file", "provider": "file", "type": "loadbalancer"}])
    );
    assert_eq!(
        api("/api/udp/services/w@file", &view),
        json!({"weighted": {"services": [{"name": "s", "weight": 3}]}, "status": "enabled", "usedBy": ["b@file"],
               "name": "w@file", "provider": "file", "type": "weighted"})
    );
    assert_eq!(
        api("/api/udp/services/none@file", &view),
        json!({"loadBalancer": {}, "status": "enabled", "name": "none@file", "provider": "file", "type": "loadbalancer"})
    );
    assert_has(
        &api("/api/overview", &view),
        &[
            ("/udp/routers", json!({"total": 3, "warnings": 0, "errors": 1})),
            ("/udp/services", json!({"total": 3, "warnings": 0, "errors": 0})),
        ],
    );
    assert_has(
        &api("/api/rawdata", &view),
        &[
            ("/udpRouters/b@file", json!({"service": "w", "status": "enabled", "using": ["dns"]})),
            ("/udpServices/s@file/usedBy", json!(["a@file"])),
        ],
    );
    assert_has(
        &api("/api/entrypoints/dns", &view),
        &[("/address", json!(":53/udp")), ("/udp", json!({"timeout": "3s"}))],
    );
    let missing = ask(Internal::Api, "/api/udp/routers/x@file", &view);
    assert_eq!(missing.status, 404);
}

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

#[test]
fn raw_data_leaves_out_what_its_keys_say() {
    let view = view();
    let raw = api("/api/rawdata", &view);
    assert_has(
        &raw,
        &[
            ("/routers/app@file/status", json!("enabled")),
            ("/services/app@file/serverStatus/http:~1~110.0.0.1:80", json!("UP")),
            ("/middlewares/limit@file/rateLimit/burst", json!(50)),
        ],
    );
    for (kind, name) in [("routers", "app@file"), ("services", "app@file"), ("middlewares", "auth@file")] {
        for key in ["name", "provider", "type", "priorityStr"] {
            assert_eq!(raw[kind][name].get(key), None, "{kind} {key}");
        }
    }
    assert_eq!(raw.get("tcpRouters"), None);
}

#[test]
fn lists_are_searched_filtered_sorted_and_paged() {
    let view = view();
    for (query, expected) in [
        ("search=LOW", vec!["low@file", "websecure-low@file"]),
        ("search=a.test", vec!["app@file"]),
        ("status=DISABLED", vec!["broken@file"]),
        ("serviceName=app@file", vec!["app@file", "low@file", "websecure-low@file"]),
        ("serviceName=app", vec!["app@file", "low@file", "websecure-low@file"]),
        ("middlewareName=auth@file", vec!["app@file"]),
        (
            "search=@file&sortBy=priority",
            vec!["low@file", "websecure-low@file", "broken@file", "app@file", "ops@file"],
        ),
        (
            "search=@file&direction=desc",
            vec!["websecure-low@file", "ops@file", "low@file", "broken@file", "app@file"],
        ),
        ("search=@file&per_page=2&page=2", vec!["low@file", "ops@file"]),
        ("search=nothing", vec![]),
    ] {
        assert_eq!(names(&api(&format!("/api/http/routers?{query}"), &view)), expected, "{query}");
    }
    let next = |query: &str| {
        let response = ask(Internal::Api, &format!("/api/http/routers?search=@file&{query}"), &view);
        header(&response, "X-Next-Page").map(str::to_owned)
    };
    assert_eq!([next("per_page=3"), next("per_page=3&page=2")], [Some("2".into()), Some("1".into())]);
    assert_eq!(
        names(&api("/api/http/services?sortBy=servers&direction=desc&per_page=1", &view)),
        ["app@file"]
    );
    assert_eq!(api("/api/tcp/routers", &view), json!([]));
}

/// As Traefik 3.7 shows them.
#[test]
fn tcp_objects_are_shown_as_traefik_does() {
    let view = crate::testing::view_of(
        "
tcp:
  routers:
    lim: {rule: HostSNI(`*`), service: w, middlewares: [one, ips], entryPoints: [web]}
    full: {rule: HostSNI(`a.test`), service: s, tls: {passthrough: true, options: o}}
    bad: {rule: HostSNI(`a.test`), service: s}
  services:
    s: {loadBalancer: {servers: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2', tls: true}], terminationDelay: 200, \
        proxyProtocol: {version: 1}, healthCheck: {send: x, expect: hello, interval: 1s}}}
    w: {weighted: {services: [{name: s, weight: 3}]}}
  middlewares:
    one: {inFlightConn: {amount: 1}}
    ips: {ipAllowList: {sourceRange: [127.0.0.1, 10.0.0.0/8]}}
",
    );
    assert_eq!(
        api("/api/tcp/routers/lim@file", &view),
        json!({"entryPoints": ["web"], "middlewares": ["one@file", "ips@file"], "service": "w", "rule": "HostSNI(`*`)",
            "priority": -1, "status": "enabled", "using": ["web"], "name": "lim@file", "provider": "file",
            "priorityStr": "-1"})
    );
    assert_eq!(
        api("/api/tcp/routers?search=full", &view),
        json!([{"entryPoints": ["websecure"], "service": "s", "rule": "HostSNI(`a.test`)", "priority": 17,
            "tls": {"passthrough": true, "options": "o"}, "status": "enabled", "using": ["websecure"], "name": "full@file",
            "provider": "file", "priorityStr": "17"}])
    );
    assert_eq!(
        api("/api/tcp/services", &view),
        json!([
            {"loadBalancer": {"servers": [{"address": "127.0.0.1:1"}, {"address": "127.0.0.1:2", "tls": true}],
                "proxyProtocol": {"version": 1}, "terminationDelay": 200,
                "healthCheck": {"send": "x", "expect": "hello", "interval": "1s", "timeout": "5s"}},
                "status": "enabled", "usedBy": ["full@file"], "name": "s@file", "provider": "file",
                "type": "loadbalancer"},
            {"weighted": {"services": [{"name": "s", "weight": 3}]}, "status": "enabled", "usedBy": ["lim@file"],
                "name": "w@file", "provider": "file", "type": "weighted"}
        ])
    );
    assert_eq!(
        api("/api/tcp/middlewares?sortBy=type&direction=desc", &view),
        json!([
            {"ipAllowList": {"sourceRange": ["127.0.0.1/32", "10.0.0.0/8"]}, "status": "enabled",
                "usedBy": ["lim@file"], "name": "ips@file", "provider": "file", "type": "ipallowlist"},
            {"inFlightConn": {"amount": 1}, "status": "enabled", "usedBy": ["lim@file"], "name": "one@file",
                "provider": "file", "type": "inflightconn"}
        ])
    );
    assert_eq!(names(&api("/api/tcp/routers?status=disabled", &view)), ["bad@file"]);
    assert_eq!(names(&api("/api/tcp/routers?middlewareName=one@file", &view)), ["lim@file"]);
    let overview = api("/api/overview", &view);
    assert_eq!(overview["tcp"]["routers"], json!({"total": 3, "warnings": 0, "errors": 1}));
    assert_eq!(overview["tcp"]["middlewares"], json!({"total": 2, "warnings": 0, "errors": 0}));
    assert_eq!(api("/api/rawdata", &view)["tcpRouters"]["lim@file"]["service"], "w");
}

#[test]
fn errors_are_traefiks() {
    let view = view();
    for (target, status, message) in [
        ("/api/http/routers/x%2Fy@file", 404, "router not found: x/y@file"),
        ("/api/http/services/x", 404, "service not found: x"),
        ("/api/http/middlewares/x", 404, "middleware not found: x"),
        ("/api/entrypoints/x", 404, "entry point not found: x"),
        ("/api/http/routers?page=9", 400, "invalid request: page: 9, per_page: 100"),
    ] {
        let response = ask(Internal::Api, target, &view);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(text(&response).trim_end(), json!({ "message": message }).to_string());
        assert_eq!(header(&response, "Content-Type"), Some("text/plain; charset=utf-8"));
    }
    for target in ["/api", "/api/", "/api/nope", "/api/http/nope", "/apix"] {
        let response = ask(Internal::Api, target, &view);
        assert_eq!((response.status, text(&response)), (404, "404 page not found\n"), "{target}");
    }
    let metrics = lb_observe::metrics::Metrics::new(lb_observe::metrics::Settings::default(), 1);
    let admin = Admin::new(metrics, "1", started());
    assert_eq!(admin.respond(Internal::Api, "POST", "/api/version", "", &view).status, 405);
    assert_eq!(admin.respond(Internal::Noop, "POST", "/", "", &view).status, 418);
    let page = admin.respond(Internal::Prometheus, "GET", "/metrics", "", &view);
    assert!(text(&page).contains("traefik_config_reloads_total 0"));
    assert_eq!(header(&page, "Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn the_base_path_moves_everything() {
    let mut view = view();
    let mut fixed = (*view.static_config).clone();
    fixed.api.as_mut().unwrap().base_path = "/ops/".into();
    view.static_config = Arc::new(fixed);
    assert_eq!(api("/ops/api/version", &view)["Version"], "1.2.3");
    for (path, status) in [("/api/version", 404), ("/opsx/api/version", 404), ("/ops/dashboard/", 200)] {
        assert_eq!(ask(Internal::Api, path, &view).status, status, "{path}");
    }
    for path in ["/ops", "/ops/", "/ops/dashboard"] {
        let response = ask(Internal::Dashboard, path, &view);
        assert_eq!(
            (response.status, header(&response, "Location")),
            (302, Some("/ops/dashboard/")),
            "{path}"
        );
    }
}

#[test]
fn the_dashboard_stands_alone() {
    let view = view();
    let response = ask(Internal::Dashboard, "/dashboard/", &view);
    let policy = header(&response, "Content-Security-Policy").unwrap();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("style-src 'sha256-"), "{policy}");
    let page = text(&response);
    for foreign in ["http://", "https://", "src=", "<link", "@import", "innerHTML", " style=", " onclick="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(ask(Internal::Dashboard, "/dashboard/other.js", &view).status, 404);
}
