//! Routers behind routers (`parentRefs`).

use lb_testkit::{Origin, PATIENCE, eventually};

use crate::harness::{Protocol, STATIC, Vigie, origin};

fn dynamic(a: &Origin, b: &Origin, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        "
http:
  services:
    a: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    b: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    none: {{loadBalancer: {{servers: []}}}}
    either: {{weighted: {{services: [{{name: a}}]}}}}
  middlewares:
    tenant: {{headers: {{customRequestHeaders: {{X-Tenant: a}}, customResponseHeaders: {{X-P: p}}}}}}
    strip: {{stripPrefix: {{prefixes: [/root]}}}}
    child: {{headers: {{customResponseHeaders: {{X-C: c}}}}}}
    again: {{retry: {{attempts: 3, status: ['503'], initialInterval: 1ms}}}}
    limit: {{buffering: {{maxRequestBodyBytes: 10}}}}
    one: {{inFlightReq: {{amount: 1}}}}
  routers:
    root: {{rule: 'PathPrefix(`/root`)', middlewares: [tenant, strip], entryPoints: [web]}}
    kid: {{rule: 'Path(`/x`) && Header(`X-Tenant`, `a`)', parentRefs: [root], service: a, middlewares: [child]}}
    mid: {{rule: 'PathPrefix(`/y`)', parentRefs: [root@file], middlewares: [child, limit]}}
    leaf: {{rule: 'PathPrefix(`/y/z`)', parentRefs: [mid], service: b}}
    all: {{rule: 'PathPrefix(`/y`)', parentRefs: [mid], service: either, priority: 1}}
    gone: {{rule: 'Path(`/gone`)', parentRefs: [root], service: none, middlewares: [again]}}
    rest: {{rule: 'PathPrefix(`/`)', service: b, priority: 1}}
    quiet: {{rule: 'Path(`/quiet`)', observability: {{accessLogs: false, metrics: false}}}}
    quiet-kid: {{rule: 'PathPrefix(`/`)', parentRefs: [quiet], service: b}}
{more}",
        a.url(),
        b.url()
    )
}

#[tokio::test]
async fn a_router_leads_on_to_others_with_the_request_as_its_middlewares_leave_it() {
    let (a, b) = tokio::join!(Origin::start("a"), Origin::start("b"));
    let text = format!("{STATIC}accessLog: {{format: json, filePath: '{{dir}}/access.log'}}\n");
    let vigie = Vigie::with(&text, &dynamic(&a, &b, "")).await;
    for protocol in Protocol::BOTH {
        for (path, expected, p, c) in [
            ("/root/x", "a /x", true, true),
            ("/root/y/z", "b /y/z", true, true),
            ("/root/y/q?v=1", "a /y/q?v=1", true, true),
            // No way back: other routers would take it.
            ("/root/zz", "404", true, false),
            ("/root", "404", true, false),
            // A request that only looks as the parent makes them.
            ("/x", "b /x", false, false),
            ("/root/gone", "503", true, false),
            ("/quiet", "b /quiet", false, false),
        ] {
            let response = protocol.get(vigie.web(), path).await;
            let found = match response.status {
                200 => {
                    let name = origin(&response);
                    let seen = if name == "a" { a.last() } else { b.last() };
                    format!("{name} {}", seen.target)
                }
                status => status.to_string(),
            };
            assert_eq!(found, expected, "{protocol:?} {path}");
            let fields = (response.get("x-p").is_some(), response.get("x-c").is_some());
            assert_eq!(fields, (p, c), "{protocol:?} {path}");
        }
    }
    // A middleware of the child that wraps what is behind it, behind one of the parent's.
    let mut connection = Protocol::Http1.connect(vigie.web()).await;
    let response = connection.request("POST", "/root/y/z", &[], Some(b"more than ten bytes")).await;
    assert_eq!((response.status, response.get("x-p")), (413, Some("p")));
    let metrics = vigie.metrics().await;
    let routed = |router: &str, service: &str, code: &str| {
        let labels = [("router", router), ("service", service), ("code", code), ("method", "GET")];
        metrics.value("traefik_router_requests_total", &labels)
    };
    assert_eq!(routed("root@file", "root@file-muxer", "200"), Some(6.0));
    assert_eq!(routed("root@file", "root@file-muxer", "404"), Some(4.0));
    assert_eq!(routed("mid@file", "mid@file-muxer", "200"), Some(4.0));
    assert_eq!(routed("kid@file", "a@file", "200"), Some(2.0));
    assert_eq!(
        (routed("quiet@file", "quiet@file-muxer", "200"), routed("quiet-kid@file", "b@file", "200")),
        (None, None)
    );
    let entered =
        metrics.value("traefik_entrypoint_requests_total", &[("entrypoint", "web"), ("code", "200")]);
    assert_eq!(entered, Some(8.0), "each request once");
    let log = vigie.files.path().join("access.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(PATIENCE, async || read().lines().count() >= 15).await, "{}", read());
    let lines: Vec<serde_json::Value> =
        read().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |path: &str| {
        let found = lines.iter().find(|line| line["RequestPath"] == path).unwrap_or_else(|| panic!("{path}"));
        format!("{} {}", found["RouterName"].as_str().unwrap(), found["ServiceName"].as_str().unwrap_or("-"))
    };
    assert_eq!(line("/root/y/z"), "root@file -> mid@file -> leaf@file b@file");
    assert_eq!(line("/root/x"), "root@file -> kid@file a@file");
    assert_eq!(line("/root/zz"), "root@file -");
    assert!(lines.iter().all(|line| line["RequestPath"] != "/quiet"));
}

#[tokio::test]
async fn a_parents_retry_routes_again() {
    let (a, b) = tokio::join!(Origin::start("a"), Origin::start("b"));
    let more = "parent: {rule: 'Path(`/again`)', middlewares: [again, strip]}
                again-kid: {rule: 'Path(`/again`)', parentRefs: [parent], middlewares: [child, one], service: none}";
    let text = format!("{STATIC}accessLog: {{format: json, filePath: '{{dir}}/access.log'}}\n");
    let vigie = Vigie::with(&text, &dynamic(&a, &b, more)).await;
    let response = vigie.get("/again").await;
    assert_eq!(response.status, 503);
    let log = vigie.files.path().join("access.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(PATIENCE, async || read().contains("/again")).await);
    assert!(read().contains("\"parent@file -> again-kid@file\""), "once, not once for each try: {}", read());
}

#[tokio::test]
async fn the_api_shows_the_tree_and_a_reload_moves_a_child() {
    let (a, b) = tokio::join!(Origin::start("a"), Origin::start("b"));
    let vigie =
        Vigie::start(&dynamic(&a, &b, "late: {rule: 'Path(`/late`)', parentRefs: [root], service: a}")).await;
    let mid = vigie.json("/api/http/routers/mid@file").await;
    assert_eq!(
        mid,
        serde_json::json!({
            "name": "mid@file", "provider": "file", "parentRefs": ["root@file"], "middlewares": ["child@file", "limit@file"],
            "rule": "PathPrefix(`/y`)", "priority": 16, "priorityStr": "16", "status": "enabled",
        })
    );
    assert_eq!(origin(&vigie.get("/root/late").await), "a");
    let moved = dynamic(&a, &b, "late: {rule: 'Path(`/late`)', parentRefs: [root], service: b}");
    vigie.write(&moved);
    let is_moved = async || origin(&vigie.get("/root/late").await) == "b";
    assert!(eventually(PATIENCE, is_moved).await);
    // A parent that is broken stays as it was, and with it what is behind.
    vigie.write(&moved.replace("'PathPrefix(`/root`)'", "'PathPrefx(`/root`)'"));
    vigie.until_said("http.routers.root.rule: unknown matcher `PathPrefx`").await;
    assert_eq!(origin(&vigie.get("/root/late").await), "b");
    // So does a child, beside others.
    vigie.write(&moved.replace("'Path(`/late`)'", "'Pth(`/late`)'"));
    vigie.until_said("http.routers.late.rule: unknown matcher `Pth`").await;
    assert_eq!(origin(&vigie.get("/root/late").await), "b");
    assert_eq!(origin(&vigie.get("/root/x").await), "a");
}
