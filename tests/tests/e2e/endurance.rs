//! The promise as a whole: 200,000 requests through the shipped reference configuration, while it is
//! replaced fifty times and a replica is killed and comes back. Not one may fail.

use std::collections::BTreeMap;

use lb_testkit::{Files, Load, Origin, PATIENCE, eventually};

use crate::harness::{Vigie, shipped};

const REQUESTS: usize = 200_000;
const RELOADS: usize = 50;
const HOST: &str = "cartae.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_requests_survive_reloads_and_a_crash() {
    let mut replicas = Vec::new();
    for name in ["api-1", "api-2", "api-3"] {
        let replica = Origin::start(name).await;
        replica.on("/", lb_testkit::Script::text(format!(r#"{{"origin":"{name}"}}"#)));
        replica.on("/health", lb_testkit::Script::text(r#"{"status":"healthy"}"#));
        replicas.push(replica);
    }
    let urls: Vec<_> = replicas.iter().map(Origin::url).collect();
    let addresses = [
        ("http://127.0.0.11:3001", &*urls[0]),
        ("http://127.0.0.12:3001", &urls[1]),
        ("http://127.0.0.13:3001", &urls[2]),
    ];
    // The replicas have a port each, and the test has no ten seconds for a probe.
    let own = [("          port: 3001\n", ""), ("interval: 10s", "interval: 200ms")];
    let api = shipped("config/cartae/dynamic/api.yml", &[&addresses[..], &own[..]].concat());
    let files = Files::new();
    files.write("dynamic/api.yml", &api);
    files.write("dynamic/strategies.yml", &shipped("config/cartae/dynamic/strategies.yml", &addresses));
    files.write("dynamic/hardening.yml", &shipped("config/cartae/dynamic/hardening.yml", &[]));
    files.write("dynamic/tls.yml", &shipped("config/cartae/dynamic/tls.yml", &[]));
    let ports = [
        ("127.0.0.1:8000", "127.0.0.1:0"),
        ("127.0.0.1:8443", "127.0.0.1:0"),
        ("127.0.0.1:8082", "127.0.0.1:0"),
        ("127.0.0.1:8080", "127.0.0.1:0"),
        ("config/cartae/dynamic", "{dir}/dynamic"),
        ("accessLog: {}", "accessLog: {filePath: '{dir}/access.log'}\ncore: {workers: 2}"),
    ];
    let vigie = Vigie::launch(files, &shipped("config/cartae/development.yml", &ports)).await;
    let instance = urls[1].as_str();
    for url in &urls {
        vigie.until_metric("instance_health", &[("instance", url)], 1.0).await;
    }

    let load = |share| Load::new(vigie.web(), HOST).connections(16).requests(share).expecting("api-");
    let running = [load(REQUESTS * 3 / 4).start(), load(REQUESTS / 4).h2().start()];
    let done = || running.iter().map(lb_testkit::Running::done).sum::<usize>();
    let reached = async |count: usize| {
        let progress = async || {
            let before = done();
            eventually(PATIENCE, async || done() >= count || done() > before + 1000).await && done() >= count
        };
        while !progress().await {
            assert!(done() < REQUESTS, "the load ended early");
        }
    };
    for reload in 0..RELOADS {
        reached((reload + 1) * REQUESTS / (RELOADS + 5)).await;
        // Each version differs in what is served, by a router, and in how, by the balancing.
        let strategy = ["strategy: wrr", "strategy: leastConn", "strategy: p2c"][reload % 3];
        let router = format!(
            "  routers:\n    version-{reload}:\n      rule: Path(`/version-{reload}`)\n      service: api\n"
        );
        vigie.files.write(
            "dynamic/api.yml",
            &api.replace("strategy: wrr", strategy).replace("  routers:\n", &router),
        );
        match reload {
            10 | 30 => {
                replicas[1].stop().await;
                vigie.until_metric("instance_health", &[("instance", instance)], 0.0).await;
            }
            20 | 40 => {
                replicas[1].restart().await;
                vigie.until_metric("instance_health", &[("instance", instance)], 1.0).await;
            }
            _ => {}
        }
    }
    let live = async || {
        vigie.json("/api/rawdata").await["routers"][format!("version-{}@file", RELOADS - 1)].is_object()
    };
    assert!(eventually(PATIENCE, live).await, "the last version is in force");

    let mut by_origin: BTreeMap<String, usize> = BTreeMap::new();
    let mut ok = 0;
    for running in running {
        let report = running.finished().await;
        report.assert_flawless();
        assert_eq!(report.connections, 16, "no connection was cut");
        ok += report.ok;
        for (name, count) in report.by_origin {
            *by_origin.entry(name).or_default() += count;
        }
    }
    assert_eq!(ok, REQUESTS);
    let least = REQUESTS / 10;
    assert!(by_origin.len() == 3 && by_origin.values().all(|&count| count > least), "{by_origin:?}");
    let metrics = vigie.metrics().await;
    assert_eq!(
        metrics.value("traefik_entrypoint_requests_total", &[("entrypoint", "web"), ("code", "200")]),
        Some(ok as f64)
    );
    assert!(metrics.value("traefik_config_reloads_total", &[]).unwrap() >= RELOADS as f64 / 2.0);
    assert_eq!(metrics.value("lb_config_reload_failures_total", &[]), Some(0.0));
    assert_eq!(metrics.value("active_connections", &[]), Some(0.0));
}
