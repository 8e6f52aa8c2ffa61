//! A receiver in trouble: requests know nothing of it.

use std::time::Duration;

use lb_testkit::{Client, Gate, Origin, PATIENCE, Script, reserve_address};
use rustix::process::Signal;

use super::collector::Collector;
use crate::harness::{HOST, STATIC, Vigie, app};

async fn traced(endpoint: &str, server: &Origin) -> Vigie {
    let text =
        format!("{STATIC}\nlog: {{level: INFO}}\ntracing: {{otlp: {{http: {{endpoint: '{endpoint}'}}}}}}\n");
    Vigie::with(&text, &app("", &[server.url()])).await
}

async fn ask(vigie: &Vigie, count: usize) {
    let mut client = Client::connect(vigie.web()).await.unwrap();
    for _ in 0..count {
        assert_eq!(client.request("GET", HOST, "/", &[], None).await.unwrap().status, 200);
    }
}

const SENT: &str = "lb_telemetry_sent_total";
const DROPPED: &str = "lb_telemetry_dropped_total";
const TRACES: [(&str, &str); 1] = [("signal", "traces")];

#[tokio::test]
async fn a_receiver_that_refuses_gets_them_once() {
    let server = Origin::start("api").await;
    let collector = Origin::with("collector", |_| Script::status(400)).await;
    let vigie = traced(&collector.url(), &server).await;
    ask(&vigie, 10).await;
    vigie.until_metric(DROPPED, &TRACES, 20.0).await;
    vigie.until_said("telemetry cannot be delivered").await;
    assert_eq!(vigie.metrics().await.value(SENT, &TRACES), Some(0.0));
    let bytes: usize = collector.seen().iter().map(|request| request.body.len()).sum();
    assert!(bytes > 0);
}

#[tokio::test]
async fn a_receiver_that_comes_late_gets_what_has_waited() {
    let server = Origin::start("api").await;
    let mut collector = Origin::with("collector", |_| Script::text("")).await;
    collector.stop().await;
    let vigie = traced(&collector.url(), &server).await;
    ask(&vigie, 10).await;
    vigie.until_said("telemetry cannot be delivered").await;
    collector.restart().await;
    vigie.until_metric(SENT, &TRACES, 20.0).await;
    vigie.until_said("telemetry is delivered again").await;
    assert_eq!(vigie.metrics().await.value(DROPPED, &TRACES), Some(0.0));
    assert_eq!(Collector::Http(collector).traces().len(), 20);
}

/// Nobody waits for it, and what it does not take is bounded.
#[tokio::test]
async fn a_receiver_that_hangs_costs_spans_and_nothing_else() {
    let server = Origin::start("api").await;
    let gate = Gate::closed();
    let held = gate.clone();
    let collector = Origin::with("collector", move |_| Script::text("").gated(&held)).await;
    let mut vigie = traced(&collector.url(), &server).await;
    // Each has a span of 64 KiB and more: 300 of them are more than may wait.
    let long = format!("/{}", "x".repeat(60_000));
    let mut client = Client::connect(vigie.web()).await.unwrap();
    for _ in 0..300 {
        assert_eq!(client.request("GET", HOST, &long, &[], None).await.unwrap().status, 200);
    }
    let metrics = vigie.metrics().await;
    assert!(metrics.value(DROPPED, &TRACES) > Some(100.0), "{:?}", metrics.value(DROPPED, &TRACES));
    vigie.signal(Signal::TERM);
    // It has no more than its last words.
    vigie.ended(PATIENCE).await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_holds_up_no_end() {
    let server = Origin::start("api").await;
    let mut vigie = traced(&format!("http://{}", reserve_address()), &server).await;
    ask(&vigie, 10).await;
    vigie.signal(Signal::TERM);
    vigie.ended(Duration::from_secs(5)).await;
}
