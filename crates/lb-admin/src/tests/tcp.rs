//! `/api/tcp`.

use serde_json::json;

use super::names;
use crate::testing::api;

/// As Traefik 3.7 shows them, with the details that Vigie has of servers.
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
                "serverDetails": [{"url": "127.0.0.1:1", "health": "healthy", "state": "ready", "weight": 1, "inFlight": 0},
                    {"url": "127.0.0.1:2", "health": "healthy", "state": "ready", "weight": 1, "inFlight": 0}],
                "serverStatus": {"127.0.0.1:1": "UP", "127.0.0.1:2": "UP"},
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

/// A sort panics of an order that contradicts itself.
#[test]
fn broken_tcp_objects_have_a_place_in_each_order() {
    let router = |number: usize| match number % 3 {
        0 => format!("r{number:02}: {{rule: 'Bad(`x`)', service: s}}"),
        _ => format!("r{number:02}: {{rule: HostSNI(`*`), service: s, priority: {}}}", 100 - number),
    };
    let routers: Vec<_> = (0..60).map(router).collect();
    let view = crate::testing::view_of(&format!(
        "tcp: {{routers: {{{}}}, services: {{s: {{loadBalancer: {{servers: [{{address: 'a:1'}}]}}}}}}}}",
        routers.join(", ")
    ));
    for by in ["priority", "rule", "service", "entryPoints"] {
        let shown = api(&format!("/api/tcp/routers?sortBy={by}"), &view);
        let shown = names(&shown);
        assert_eq!(
            (shown.len(), &shown[..2], shown[19]),
            (60, &["r00@file", "r03@file"][..], "r57@file"),
            "{by}"
        );
    }
}
