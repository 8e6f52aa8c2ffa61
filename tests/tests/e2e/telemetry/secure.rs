//! Receivers that speak TLS, each with its own idea of whom to trust.

use lb_testkit::{Authority, Files, H2Origin, Origin, PATIENCE, Script, eventually};

use super::collector::{Collector, taken};
use crate::harness::{Protocol, STATIC, Vigie, app};

#[tokio::test]
async fn receivers_and_vigie_prove_to_each_other_who_they_are() {
    let (authority, clients) = (Authority::new("receivers"), Authority::new("clients"));
    let files = Files::new();
    let ca = files.write("ca.pem", authority.pem());
    let (cert, key) = clients.issue_client("vigie").write(files.path(), "vigie");
    let identity = format!("ca: '{}', cert: '{}', key: '{}'", ca.display(), cert.display(), key.display());
    let certified = authority.issue(&["127.0.0.1"]);
    // Over HTTP nobody speaks HTTP/2, whatever a receiver offers.
    let both = ["h2", "http/1.1"];
    let strict =
        Origin::tls("traces", certified.server_config_requiring(&both, &clients), |_| Script::text(""));
    let traces = Collector::Http(strict.await);
    let strict = certified.server_config_requiring(&["h2"], &clients);
    let metrics = Collector::Grpc(H2Origin::tls("metrics", strict, taken).await);
    // Nobody vouches for these two.
    let unknown = Authority::new("unknown").issue(&["else.example.com"]);
    let logs = Collector::Grpc(H2Origin::tls("logs", unknown.server_config(&["h2"]), taken).await);
    let config = unknown.server_config(&["http/1.1"]);
    let requests = Origin::tls("requests", config, |_| Script::text("")).await;

    let server = Origin::with("api", |_| Script::text("hello")).await;
    let otlp = metrics.over_tls(&identity).replace("otlp: {", "otlp: {pushInterval: 100ms, ");
    let text = STATIC.replace("prometheus: {addRoutersLabels: true}", &otlp);
    let text = format!(
        "{text}\nexperimental: {{otlpLogs: true}}\ntracing: {{{}}}\n\
         log: {{level: INFO, {}}}\naccessLog: {{otlp: {{http: {{endpoint: '{}', tls: {{ca: '{}'}}}}}}}}\n",
        traces.over_tls(&identity),
        logs.over_tls("insecureSkipVerify: true"),
        requests.url(),
        ca.display(),
    );
    let vigie = Vigie::over(files, &text, &app("", &[server.url()])).await;
    assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 200);
    let arrived = eventually(PATIENCE, async || {
        let [traces, metrics, logs] = [traces.traces().len(), metrics.metrics().len(), logs.logs().len()];
        traces == 2 && metrics > 0 && logs > 0
    });
    assert!(arrived.await, "{}", vigie.words());
    // What is not to be trusted gets nothing, and the log says why.
    let told = eventually(PATIENCE, async || {
        let logs = logs.logs().into_iter().map(|record| super::collector::attributes(&record.attributes));
        let reasons: Vec<_> =
            logs.filter(|log| log.get("signal").is_some_and(|signal| signal == "accessLogs")).collect();
        reasons.iter().any(|log| log["reason"].contains("certificate"))
    });
    assert!(told.await, "{:#?}", logs.logs());
    assert_eq!(requests.requests(), 0);
}
