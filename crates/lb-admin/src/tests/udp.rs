//! `/api/udp`.

use serde_json::json;

use super::assert_has;
use crate::Internal;
use crate::testing::{api, ask, view_of};

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
            {"service": "missing", "error": ["the UDP service \"missing@file\" does not exist"], "status": "disabled", "using": ["dns"], "name": "f@file", "provider": "file"},
        ])
    );
    assert_eq!(
        api("/api/udp/services?sortBy=type&direction=desc&search=s@", &view),
        json!([{"loadBalancer": {"servers": [{"address": "10.0.0.1:53"}]}, "status": "enabled", "usedBy": ["a@file"],
                "name": "s@file", "provider": "file", "type": "loadbalancer"}])
    );
    let names = |query: &str| {
        let shown = api(&format!("/api/udp/services?{query}"), &view);
        shown.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("sortBy=servers"), ["none@file", "w@file", "s@file"]);
    assert_eq!(names("serviceName=other"), ["none@file", "s@file", "w@file"]); // a question about routers
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
fn a_broken_udp_service_tells_who_uses_it() {
    let view = view_of(
        "udp: {routers: {a: {entryPoints: [dns], service: s}}, services: {s: {loadBalancer: {servers: [{address: nowhere}]}}}}",
    );
    let shown = api("/api/udp/services/s@file", &view);
    assert_has(&shown, &[("/status", json!("disabled")), ("/usedBy", json!(["a@file"]))]);
}
