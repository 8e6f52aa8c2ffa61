//! `/api/http/services`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic::{OutlierDetection, SlowStart};
use lb_core::health::Outcome;
use serde_json::json;

use super::assert_has;
use crate::testing::{api, live, view};

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

#[test]
fn what_the_strategy_ignores_is_shown_as_written() {
    let view = crate::testing::view_of(
        "http: {services: {h: {loadBalancer: {strategy: hrw, sticky: {cookie: {name: c}}, servers: [{url: 'http://a'}]}}}}",
    );
    let shown = api("/api/http/services/h@file", &view);
    assert_eq!(shown["loadBalancer"]["strategy"], "hrw");
    assert_eq!(shown["loadBalancer"]["sticky"], json!({"cookie": {"name": "c", "path": "/"}}));
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
