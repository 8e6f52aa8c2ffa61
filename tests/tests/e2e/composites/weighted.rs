//! `weighted` and `highestRandomWeight`.

use lb_testkit::{Client, Load, Script};

use super::{CHECK, cookies, log_lines, of, origins, services, shares};
use crate::harness::{HOST, Protocol, STATIC, Vigie, origin};

/// Over any cycle, whichever worker takes each connection, also when many come at once.
#[tokio::test]
async fn shares_are_exact_over_every_cycle() {
    let origins = origins(["a", "b", "c"]).await;
    let nested = "inner: {weighted: {services: [{name: b, weight: 2}, {name: c}]}}
                  outer: {weighted: {services: [{name: a, weight: 3}, {name: inner@file, weight: 3}, {name: c, weight: 0}]}}";
    let vigie = Vigie::start(&services(&["outer", "a"], &origins, "", nested)).await;
    for _ in 0..3 {
        assert_eq!(shares(&vigie, "/outer", 6).await, of(&[("a", 3), ("b", 2), ("c", 1)]));
    }
    let load = Load::new(vigie.web(), HOST).target("/outer").connections(12).requests(300);
    let report = load.run().await;
    report.assert_flawless();
    assert_eq!(report.by_origin.values().copied().collect::<Vec<_>>(), [150, 100, 50]);
    // A router of its own, and the same servers.
    assert_eq!(shares(&vigie, "/a", 2).await, of(&[("a", 2)]));
    let api = vigie.json("/api/http/services/a@file").await;
    assert_eq!(api["usedBy"], serde_json::json!(["a@file"]), "{api}");
}

/// The turns go on where they were: a reload gives nobody a second first turn.
#[tokio::test]
async fn turns_go_on_after_a_reload() {
    let origins = origins(["a", "b", "c"]).await;
    let text = |path: &str| {
        let composites = "w: {weighted: {services: [{name: a}, {name: b}, {name: c}]}}";
        services(&["w", path], &origins, "", composites)
    };
    let vigie = Vigie::start(&text("a")).await;
    assert_eq!(shares(&vigie, "/w", 1).await, of(&[("a", 1)]));
    vigie.write(&text("b"));
    vigie.until_metric("traefik_config_reloads_total", &[], 2.0).await;
    assert_eq!(shares(&vigie, "/w", 2).await, of(&[("b", 1), ("c", 1)]));
}

/// Who minds the health of its children leaves out those that are down, through every level, and says 503 when none is
/// left; the load balancers are probed although no router names them.
#[tokio::test]
async fn a_child_that_is_down_gets_nothing() {
    let origins = origins(["a", "b", "c"]).await;
    let composites = "inner: {weighted: {services: [{name: b}, {name: c}], healthCheck: {}}}
                      outer: {weighted: {services: [{name: a}, {name: inner}], healthCheck: {}}}
                      blind: {weighted: {services: [{name: a}, {name: b}]}}
                      hrw: {highestRandomWeight: {services: [{name: a}, {name: b}], healthCheck: {}}}";
    let vigie = Vigie::start(&services(&["outer", "blind", "hrw"], &origins, CHECK, composites)).await;
    assert_eq!(shares(&vigie, "/outer", 4).await, of(&[("a", 2), ("b", 1), ("c", 1)]));
    let goes = async |at: usize, status: u16, value: f64| {
        origins[at].on("/health", Script::status(status));
        vigie.until_metric("instance_health", &[("instance", &origins[at].url())], value).await;
    };
    goes(1, 503, 0.0).await;
    assert_eq!(shares(&vigie, "/outer", 6).await, of(&[("a", 3), ("c", 3)]));
    assert_eq!(shares(&vigie, "/hrw", 4).await, of(&[("a", 4)]));
    let blind = [vigie.get("/blind").await.status, vigie.get("/blind").await.status];
    assert!(blind.contains(&200) && blind.contains(&503), "nobody minds there: {blind:?}");
    goes(2, 503, 0.0).await;
    assert_eq!(shares(&vigie, "/outer", 4).await, of(&[("a", 4)]));
    let api = vigie.json("/api/http/services/outer@file").await;
    assert_eq!(api["childStatus"], serde_json::json!({"a@file": "UP", "inner@file": "DOWN"}), "{api}");
    goes(0, 503, 0.0).await;
    for path in ["/outer", "/hrw"] {
        for protocol in Protocol::BOTH {
            let answer = protocol.get(vigie.web(), path).await;
            assert_eq!((answer.status, answer.text()), (503, "no available server\n"), "{path} {protocol:?}");
            assert!(answer.get("retry-after").is_some());
        }
    }
    goes(2, 200, 1.0).await;
    assert_eq!(shares(&vigie, "/outer", 2).await, of(&[("c", 2)]));
}

/// Each level sets a cookie of its own, once; the client goes elsewhere, with new ones, when its child is down.
#[tokio::test]
async fn cookies_of_every_level() {
    let origins = origins(["a", "b", "c"]).await;
    let composites = "inner: {weighted: {services: [{name: b}, {name: c}], healthCheck: {}, sticky: {cookie: {name: two}}}}
                      outer: {weighted: {services: [{name: a}, {name: inner@file}], healthCheck: {}, sticky: {cookie: {name: one}}}}";
    let more = format!("{CHECK}, sticky: {{cookie: {{name: three}}}}");
    let vigie = Vigie::start(&services(&["outer"], &origins, &more, composites)).await;
    for protocol in Protocol::BOTH {
        let ask = async |field: &str| {
            protocol.connect(vigie.web()).await.request("GET", "/outer", &[("cookie", field)], None).await
        };
        // Whoever is led to the inner one.
        let first = loop {
            let answer = ask("").await;
            if origin(&answer) != "a" {
                break answer;
            }
        };
        let (pinned, set) = (origin(&first), cookies(&first));
        assert_eq!(set.keys().collect::<Vec<_>>(), ["one", "three", "two"]);
        let lines = first.fields.all("set-cookie");
        let names: Vec<_> = lines.iter().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(names, ["one", "two", "three"], "from the outside in, as by Traefik");
        assert_eq!(set["one"], value("inner@file"), "of the name as written");
        assert_eq!(set["two"], value(&pinned));
        let field = format!("one={}; two={}; three={}", set["one"], set["two"], set["three"]);
        for _ in 0..5 {
            let again = ask(&field).await;
            assert_eq!((origin(&again), cookies(&again).len()), (pinned.clone(), 0));
        }
        let down = origins.iter().find(|origin| origin.name() == pinned).unwrap();
        down.on("/health", Script::status(503));
        let url = down.url();
        vigie.until_metric("instance_health", &[("instance", &url)], 0.0).await;
        let moved = ask(&field).await;
        assert!(!["a", &pinned].contains(&origin(&moved).as_str()), "the inner one is still up");
        assert_eq!(cookies(&moved).keys().collect::<Vec<_>>(), ["three", "two"], "{protocol:?}");
        down.on("/health", Script::status(200));
        vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
    }
}

/// What `printf %s NAME | sha256sum | cut -c1-16` says: Traefik's formula.
fn value(name: &str) -> &'static str {
    match name {
        "inner@file" => "0a948cc5a61e87ed",
        "b" => "3e23e8160039594a",
        "c" => "2e7d2c03a9507ae2",
        other => panic!("{other}"),
    }
}

/// The address of a client decides, as Traefik 3.7.15 decides for the same names.
#[tokio::test]
async fn the_address_of_a_client_decides() {
    let origins = origins(["blue", "green-canary"]).await;
    let composites =
        "h: {highestRandomWeight: {services: [{name: blue}, {name: green-canary@file, weight: 2}]}}";
    let vigie = Vigie::start(&services(&["h"], &origins, "", composites)).await;
    let mut chosen = String::new();
    for last in 1..=24 {
        let local = format!("127.0.0.{last}").parse().unwrap();
        let mut client = Client::connect_from(local, vigie.web()).await.unwrap();
        chosen += &origin(&client.get(HOST, "/h").await.unwrap())[..1];
    }
    assert_eq!(chosen, "gggbbbgggbgbbggggbbbggbg");
}

/// A retry goes on to another child when all servers of the first were tried in vain, and its budget, the metrics and
/// the access log are those of the load balancer.
#[tokio::test]
async fn retries_metrics_and_logs_are_of_the_load_balancer() {
    let origins = origins(["a", "b"]).await;
    origins[0].on("/w", Script::status(503));
    let composites = "w: {weighted: {services: [{name: a, weight: 3}, {name: b}]}}";
    let text = services(&["w"], &origins, "", composites)
        .replace("service: w}", "service: w, middlewares: [again]}")
        + "  middlewares:\n    again: {retry: {attempts: 2, status: ['503']}}\n";
    let log = format!("{STATIC}accessLog: {{filePath: '{{dir}}/access.log', format: json}}\n");
    let vigie = Vigie::with(&log, &text).await;
    assert_eq!(shares(&vigie, "/w", 8).await, of(&[("b", 8)]));
    let metrics = vigie.metrics().await;
    let routers = [("router", "w@file"), ("service", "w@file")];
    assert_eq!(metrics.value("traefik_router_requests_total", &routers), Some(8.0));
    let services = |name| metrics.value("traefik_service_requests_total", &[("service", name)]);
    assert_eq!((services("w@file"), services("b@file")), (None, Some(8.0)));
    // Of eight first tries six went to `a`.
    assert_eq!(metrics.value("lb_retries_total", &[("service", "a@file")]), Some(6.0));
    let lines = log_lines(&vigie, 8).await;
    for line in lines {
        assert_eq!(
            (&line["RouterName"], &line["ServiceName"]),
            (&"w@file".into(), &"b@file".into()),
            "{line}"
        );
        assert_eq!(line["ServiceURL"], serde_json::json!(origins[1].url()), "{line}");
    }
}

/// What cannot work is told with its place and leaves the last good version in force.
#[tokio::test]
async fn a_reload_that_breaks_it_changes_nothing() {
    let origins = origins(["a", "b"]).await;
    let text = |second: &str| {
        let composites = format!("w: {{weighted: {{services: [{{name: a}}, {{name: {second}}}]}}}}");
        services(&["w"], &origins, "", &composites)
    };
    let vigie = Vigie::start(&text("b")).await;
    for (broken, told) in [
        ("nope", "http.services.w.weighted.services[1].name: no service is called `nope`"),
        ("w", "http.services.w.weighted.services[1].name: the service contains itself"),
    ] {
        vigie.write(&text(broken));
        vigie.until_said(told).await;
        assert_eq!(shares(&vigie, "/w", 4).await, of(&[("a", 2), ("b", 2)]), "{broken}");
        let api = vigie.json("/api/http/services/w@file").await;
        assert_eq!(api["stale"], true, "{api}");
    }
}
