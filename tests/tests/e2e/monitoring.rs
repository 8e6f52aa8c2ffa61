//! What ships for Prometheus and Grafana (C13, H6, S4), in a real Prometheus beside a real Vigie.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use lb_testkit::{Files, Origin, PATIENCE, Script, VigieProcess, eventually, get, reserve_address};
use serde_json::Value;

use crate::harness::{Vigie, app_with, repository, shipped};

/// One worker, TLS for a certificate, and series of routers.
const ALL_OF_VIGIE: &str = "core: {workers: 1}
entryPoints:
  web: {address: '127.0.0.1:0'}
  traefik: {address: '127.0.0.1:0'}
  secure: {address: '127.0.0.1:0', http: {tls: {}}}
providers: {file: {filename: '{dir}/dynamic.yml'}}
metrics: {prometheus: {addRoutersLabels: true}}
";

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(repository().join("deploy/prometheus"))
        .output()
        .expect("promtool is installed");
    let words =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{words}");
    words
}

#[test]
fn prometheus_accepts_the_configuration_and_the_alerts_fire_when_they_must() {
    let words = promtool(&["check", "config", "prometheus.yml"]);
    assert!(words.contains("1 rule files found"), "{words}");
    promtool(&["test", "rules", "tests/vigie.yml"]);
}

/// The queries of the dashboard, with values in place of its variables.
fn dashboard() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&shipped("deploy/grafana/dashboards/vigie.json", &[])).expect("JSON");
    let mut ids = BTreeSet::new();
    let mut queries = Vec::new();
    let panels = dashboard["panels"].as_array().expect("panels");
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations");
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "two panels have the id {}", panel["id"]);
        queries.extend(panel["targets"].as_array().into_iter().flatten());
    }
    queries.extend(annotations);
    let text = |query: &&Value| query["expr"].as_str().expect("a query").to_owned();
    let filled = |query: String| {
        let query = query.replace("$load_balancer", ".*").replace("$service", ".*");
        query.replace("$__rate_interval", "10s")
    };
    queries.iter().map(text).map(filled).collect()
}

/// Names of metrics in a query. Labels stand in braces and behind `by` and `on`.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let prefixes =
        ["lb_", "traefik_", "request_", "instance_", "health_check_", "active_", "process_", "node_", "pg_"];
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

/// A program that listens where it is told, and serves `/metrics`.
async fn serve(command: &mut Command, address: SocketAddr) -> VigieProcess {
    let mut process = VigieProcess::spawn(command).expect("it is installed");
    process.wait_ready(address).await.unwrap();
    process
}

struct Prometheus {
    _process: VigieProcess,
    _files: Files,
    address: SocketAddr,
}

impl Prometheus {
    /// With the shipped files, but for addresses and the pace.
    async fn start(vigie: SocketAddr, node: SocketAddr, postgres: SocketAddr) -> Self {
        let files = Files::new();
        let config = shipped(
            "deploy/prometheus/prometheus.yml",
            &[
                // The exporter of PostgreSQL takes a second to say that there is none.
                ("interval: 15s", "interval: 2s"),
                ("127.0.0.1:8082", &vigie.to_string()),
                ("127.0.0.1:9100", &node.to_string()),
                ("127.0.0.1:9187", &postgres.to_string()),
            ],
        );
        let config = files.write("prometheus.yml", &config);
        std::fs::create_dir(files.path().join("rules")).unwrap();
        files.write("rules/vigie.yml", &shipped("deploy/prometheus/rules/vigie.yml", &[]));
        let address = reserve_address();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", files.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = serve(&mut command, address).await;
        let ready = eventually(PATIENCE, async || {
            get(address, "prometheus", "/-/ready").await.is_ok_and(|response| response.status == 200)
        });
        assert!(ready.await, "{}", process.stderr());
        Self { _process: process, _files: files, address }
    }

    async fn ask(&self, path: &str) -> Value {
        let response = get(self.address, "prometheus", path).await.expect("an answer");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()["data"].take()
    }

    /// The series that a query gives now.
    async fn query(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut data = self.ask(&format!("/api/v1/query?query={escaped}")).await;
        serde_json::from_value(data["result"].take()).expect("a list")
    }

    /// Waits until a query gives something.
    async fn until(&self, query: &str) {
        let held = eventually(PATIENCE, async || !self.query(query).await.is_empty()).await;
        assert!(held, "nothing for {query}");
    }
}

#[tokio::test]
async fn every_query_runs_on_what_vigie_and_the_exporters_say() {
    let origins = [Origin::start("api-1").await, Origin::start("api-2").await];
    origins[0].on("/broken", Script::status(500));
    origins[1].on("/broken", Script::status(500));
    let urls = origins.each_ref().map(Origin::url);
    let check = "healthCheck: {path: /health, interval: 200ms, timeout: 2s}";
    let dynamic = app_with("middlewares: [breaker, limit]", check, &urls)
        + "  middlewares:
    breaker: {circuitBreaker: {expression: 'NetworkErrorRatio() > 0.5'}}
    limit: {rateLimit: {average: 100000, burst: 100000}}
";
    let vigie = Vigie::with(ALL_OF_VIGIE, &dynamic).await;
    let (node, postgres) = (reserve_address(), reserve_address());
    let _node =
        serve(Command::new("prometheus-node-exporter").arg(format!("--web.listen-address={node}")), node)
            .await;
    // Nobody listens where it looks for a database.
    let _postgres = serve(
        Command::new("prometheus-postgres-exporter").arg(format!("--web.listen-address={postgres}")).env(
            "DATA_SOURCE_NAME",
            format!("postgresql://nobody@{}/none?sslmode=disable", reserve_address()),
        ),
        postgres,
    )
    .await;
    let prometheus = Prometheus::start(vigie.admin(), node, postgres).await;
    for target in ["vigie", "node", "postgres"] {
        prometheus.until(&format!("up{{job=\"{target}\"}} == 1")).await;
    }

    for path in ["/", "/", "/broken"] {
        vigie.get(path).await;
    }
    // The servers' own label survives, and which Vigie it was is another.
    let share = format!(
        "request_distribution_total{{instance=\"{}\",load_balancer=\"{}\"}} >= 1",
        urls[0],
        vigie.admin()
    );
    prometheus.until(&share).await;
    prometheus.until("sum(rate(traefik_service_requests_total{code=~\"5..\"}[10s])) >= 0").await;

    // What the rules record is there after their first evaluation.
    for record in ["service:level == 0", "machine:level"] {
        prometheus.until(record).await;
    }

    // Every metric that an alert or a panel names exists, and every panel's query is understood.
    let documented = shipped("docs/metrics.md", &[]);
    let rules = shipped("deploy/prometheus/rules/vigie.yml", &[]);
    let expressions: String =
        rules.split("expr:").skip(1).filter_map(|rule| rule.split("labels:").next()).collect();
    let dashboard = dashboard();
    assert!(dashboard.len() > 30, "queries are missing");
    let mut names = metrics_in(&expressions);
    names.extend(dashboard.iter().flat_map(|query| metrics_in(query)));
    assert!(names.len() > 30, "{names:?}");
    for name in &names {
        let of_vigie = documented.contains(&format!("| `{}` |", name.trim_end_matches("_bucket")));
        let elsewhere = name.starts_with("node_") || name.starts_with("pg_");
        assert!(of_vigie || (elsewhere && !prometheus.query(name).await.is_empty()), "no metric {name}");
    }
    // Nothing waits, is refused, fails or is retried here, and the configuration stays.
    let quiet =
        ["lb_queue_", "lb_refused_", "lb_rate_limited_", "lb_upstream_errors_", "lb_retries_", "changes("];
    for query in &dashboard {
        let found = !prometheus.query(query).await.is_empty();
        assert!(found || quiet.iter().any(|name| query.contains(name)), "nothing for {query}");
    }

    // Rules are evaluated without an error, and know what is wrong.
    origins[1].on("/health", Script::status(503));
    let alarmed = eventually(PATIENCE, async || {
        let data = prometheus.ask("/api/v1/rules").await;
        let groups = data["groups"].as_array().expect("groups");
        let rules: Vec<_> =
            groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
        assert_eq!(rules.len(), 32);
        let state = |name: &str| rules.iter().find(|rule| rule["name"] == name).expect(name)["state"].clone();
        for rule in &rules {
            assert_ne!(rule["health"], "err", "{rule}");
        }
        // They wait for their `for`.
        ["InstanceDown", "DatabaseDown", "InsufficientHealthyInstances"].map(state) == ["pending"; 3]
            && ["LoadBalancerDown", "ServiceDown", "ConfigurationBroken"].map(state) == ["inactive"; 3]
    });
    assert!(alarmed.await, "{}", prometheus.ask("/api/v1/rules").await);
}
