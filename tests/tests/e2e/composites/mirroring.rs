//! `mirroring`: copies after the answer, in the background.

use std::time::Duration;

use lb_testkit::{Client, Gate, Load, Origin, PATIENCE, Script, eventually};

use super::{log_lines, of, origins, services, shares};
use crate::harness::{HOST, Protocol, STATIC, Vigie, origin};

/// Waits until an origin has had so many requests.
async fn until_requests(origin: &Origin, count: usize) {
    let come = eventually(PATIENCE, async || origin.requests() >= count).await;
    assert!(come, "{} of {count} at {}", origin.requests(), origin.name());
    assert_eq!(origin.requests(), count, "{}", origin.name());
}

/// The client hears the first service alone; the copy has method, target, fields and body.
#[tokio::test]
async fn a_mirror_gets_what_the_first_gets() {
    let origins = origins(["a", "b", "c"]).await;
    origins[1].on("/m", Script::answer(500, &[("x-mirror", "1"), ("set-cookie", "m=1")], "mirror"));
    let composites =
        "m: {mirroring: {service: a, mirrors: [{name: b, percent: 100}, {name: inner, percent: 100}]}}
                      inner: {weighted: {services: [{name: c}]}}";
    let log = format!("{STATIC}accessLog: {{filePath: '{{dir}}/access.log', format: json}}\n");
    let vigie = Vigie::with(&log, &services(&["m"], &origins, "", composites)).await;
    let mut count = 0;
    for protocol in Protocol::BOTH {
        for body in [None, Some(&b"12345"[..]), Some(&[b'x'; 300_000])] {
            let method = if body.is_some() { "POST" } else { "GET" };
            let mut client = protocol.connect(vigie.web()).await;
            let answer = client.request(method, "/m?q=1", &[("x-own", "yes")], body).await;
            assert_eq!(origin(&answer), "a");
            assert!(answer.get("x-mirror").is_none() && answer.get("set-cookie").is_none());
            count += 1;
            for origin in &origins {
                until_requests(origin, count).await;
                let whole = async || origin.last().body.as_slice() == body.unwrap_or_default();
                assert!(eventually(PATIENCE, whole).await, "{protocol:?} {}", origin.name());
                let seen = origin.last();
                assert_eq!((&*seen.method, &*seen.target), (method, "/m?q=1"));
                assert_eq!((seen.get("x-own"), seen.get("host")), (Some("yes"), Some(HOST)));
                assert_eq!(seen.fields.all("x-forwarded-for"), ["127.0.0.1"]);
                assert_eq!(seen.fields.0, origins[0].last().fields.0, "{protocol:?}");
            }
        }
    }
    // As by Traefik: counted for the services of the mirrors, and not logged.
    let services = [("a@file", "200"), ("b@file", "500"), ("c@file", "200")];
    for (service, code) in services {
        let labels = [("service", service), ("code", code)];
        vigie.until_metric("traefik_service_requests_total", &labels, count as f64).await;
    }
    let metrics = vigie.metrics().await;
    let web = [("entrypoint", "web")];
    assert_eq!(metrics.value("traefik_entrypoint_requests_total", &web), Some(count as f64));
    let lines = log_lines(&vigie, count).await;
    assert_eq!(lines.len(), count);
    assert!(lines.iter().all(|line| line["ServiceName"] == "a@file"), "{lines:?}");
}

/// Exactly so many of each hundred, over all workers and across a reload.
#[tokio::test]
async fn percents_are_exact() {
    let origins = origins(["a", "b", "c"]).await;
    let text = |more: &str| {
        let composites =
            "m: {mirroring: {service: a, mirrors: [{name: b, percent: 30}, {name: c, percent: 0}]}}";
        services(&["m", more], &origins, "", composites)
    };
    let vigie = Vigie::start(&text("a")).await;
    let load = async |requests| {
        Load::new(vigie.web(), HOST)
            .target("/m")
            .connections(8)
            .requests(requests)
            .run()
            .await
            .assert_flawless();
    };
    load(150).await;
    vigie.write(&text("b"));
    vigie.until_metric("traefik_config_reloads_total", &[], 2.0).await;
    load(50).await;
    until_requests(&origins[1], 60).await;
    assert_eq!(origins[2].requests(), 0);
}

/// Longer bodies than the limit, upgrades, and with `mirrorBody: false` bodies at all have no copy. Without a limit bodies
/// of any length have one, each mirror the whole of it.
#[tokio::test]
async fn bodies_have_a_limit() {
    let origins = origins(["a", "b", "c"]).await;
    let composites = "limited: {mirroring: {service: a, maxBodySize: 10, mirrors: [{name: b, percent: 100}]}}
                      open: {mirroring: {service: a, mirrors: [{name: b, percent: 100}, {name: c, percent: 100}]}}
                      without: {mirroring: {service: a, mirrorBody: false, mirrors: [{name: b, percent: 100}]}}";
    let vigie = Vigie::start(&services(&["limited", "open", "without"], &origins, "", composites)).await;
    let long: Vec<u8> = (0..2_400_000_u32).map(|at| (at / 7 % 251) as u8).collect();
    let mut copies = 0;
    for protocol in Protocol::BOTH {
        for (path, body, copied) in [
            ("/limited", &long[..10], Some(10)),
            ("/limited", &long[..11], None),
            ("/open", &long[..], Some(long.len())),
            ("/open", &long[..1_000_000], Some(1_000_000)),
            ("/without", &long[..], Some(0)),
        ] {
            let mut client = protocol.connect(vigie.web()).await;
            let answer = client.request("POST", path, &[], Some(body)).await;
            assert_eq!(origin(&answer), "a");
            assert_eq!(origins[0].last().body.len(), body.len(), "{protocol:?} {path}");
            let Some(length) = copied else { continue };
            copies += 1;
            until_requests(&origins[1], copies).await;
            let mirrors = if path == "/open" { &origins[1..] } else { &origins[1..2] };
            for mirror in mirrors {
                let whole = eventually(PATIENCE, async || mirror.last().body.len() == length).await;
                assert!(whole && mirror.last().body == body[..length], "{protocol:?} {path}");
            }
        }
    }
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(client.request("GET", HOST, "/open", &fields, None).await.unwrap().status, 200);
    assert_eq!(shares(&vigie, "/open", 2).await, of(&[("a", 2)]));
    until_requests(&origins[1], copies + 2).await;
}

/// A mirror that hangs or is not there delays nobody; there is an end to what waits for it, and who is dropped is
/// counted.
#[tokio::test]
async fn a_mirror_never_delays_a_request() {
    let gate = Gate::closed();
    let held = gate.clone();
    let mut origins = origins(["a"]).await;
    origins.push(Origin::with("b", move |_| Script::echo().gated(&held)).await);
    let composites = "m: {mirroring: {service: a, mirrors: [{name: b, percent: 100}]}}
                      dead: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}
                      n: {mirroring: {service: a, mirrors: [{name: dead, percent: 100}]}}";
    let vigie = Vigie::start(&services(&["m", "n"], &origins, "", composites)).await;
    let load = async |path: &str, requests| {
        let report = Load::new(vigie.web(), HOST).target(path).connections(8).requests(requests).run().await;
        report.assert_flawless();
        assert!(report.percentile(0.99) < Duration::from_secs(2), "{:?}", report.percentile(0.99));
    };
    load("/n", 100).await;
    vigie
        .until_metric("traefik_service_requests_total", &[("service", "dead@file"), ("code", "502")], 100.0)
        .await;
    // More than two workers may have in progress.
    load("/m", 1200).await;
    let dropped = vigie.metrics().await.value("lb_mirrors_dropped_total", &[("service", "m@file")]).unwrap();
    assert!(dropped >= 1200.0 - 2.0 * 512.0, "{dropped}");
    for _ in 0..1200 {
        gate.let_one_pass();
    }
    let left = 1200.0 - dropped;
    vigie.until_metric("traefik_service_requests_total", &[("service", "b@file")], left).await;
    let before = origins[1].requests();
    gate.let_one_pass();
    assert_eq!(shares(&vigie, "/m", 1).await, of(&[("a", 1)]));
    until_requests(&origins[1], before + 1).await;
}

/// A client that goes away before its answer has no copy; those that are on their way are finished before the end.
#[tokio::test]
async fn copies_are_finished_before_the_end() {
    let gates = [Gate::closed(), Gate::closed()];
    let mut origins = Vec::new();
    for (gate, name) in gates.iter().zip(["a", "b"]) {
        let gate = gate.clone();
        origins.push(Origin::with(name, move |_| Script::echo().gated(&gate)).await);
    }
    origins.push(Origin::start("c").await);
    let composites =
        "m: {mirroring: {service: a, mirrors: [{name: b, percent: 100}, {name: c, percent: 100}]}}";
    let mut vigie = Vigie::start(&services(&["m"], &origins, "", composites)).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET /m HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    until_requests(&origins[0], 1).await;
    client.reset();
    vigie.until_metric("traefik_entrypoint_requests_total", &[("code", "499")], 1.0).await;
    gates[0].let_one_pass();
    gates[0].let_one_pass();
    assert_eq!(shares(&vigie, "/m", 1).await, of(&[("a", 1)]));
    until_requests(&origins[1], 1).await;
    vigie.signal(rustix::process::Signal::TERM);
    let web = vigie.web();
    let closed = async || tokio::net::TcpStream::connect(web).await.is_err();
    assert!(eventually(PATIENCE, closed).await, "it stops");
    // Mirrors are asked one after the other.
    assert_eq!(origins[2].requests(), 0);
    gates[1].let_one_pass();
    until_requests(&origins[2], 1).await;
    assert!(vigie.ended(PATIENCE).await.success());
}
