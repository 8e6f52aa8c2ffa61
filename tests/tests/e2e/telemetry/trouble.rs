//! A receiver in trouble: requests know nothing of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_testkit::{Client, Gate, H2Origin, Origin, PATIENCE, Script, reserve_address};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use rustix::process::Signal;
use tokio::time::Instant;

use super::collector::{Collector, accepted};
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

/// OTLP calls it partial success: sending the rest again would be in vain.
#[tokio::test]
async fn what_a_receiver_refuses_of_what_it_takes_is_counted() {
    let answer = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "a span is too odd".to_owned(),
        }),
    };
    let answer = answer.encode_to_vec();
    let body = answer.clone();
    let http = Origin::with("collector", move |_| {
        Script::answer(200, &[("Content-Type", "application/x-protobuf")], &body)
    });
    let grpc = H2Origin::start("collector", move |_| accepted(&answer));
    for collector in [Collector::Http(http.await), Collector::Grpc(grpc.await)] {
        let server = Origin::start("api").await;
        let text = format!("{STATIC}\nlog: {{level: INFO}}\ntracing: {{{}}}\n", collector.otlp(""));
        let vigie = Vigie::with(&text, &app("", &[server.url()])).await;
        ask(&vigie, 1).await;
        vigie.until_metric(SENT, &TRACES, 1.0).await;
        vigie.until_metric(DROPPED, &TRACES, 1.0).await;
        vigie.until_said("refused 1 of what it took: a span is too odd").await;
        assert_eq!(collector.requests().len(), 1);
    }
}

/// RFC 9110 section 10.2.3.
#[tokio::test]
async fn a_receiver_says_when_it_wants_to_be_asked_again() {
    let server = Origin::start("api").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let collector = Origin::with("collector", move |_| {
        let mut times = times.lock().unwrap();
        times.push(Instant::now());
        if times.len() == 1 { Script::answer(503, &[("Retry-After", "2")], "") } else { Script::text("") }
    });
    let collector = collector.await;
    let vigie = traced(&collector.url(), &server).await;
    ask(&vigie, 1).await;
    vigie.until_metric(SENT, &TRACES, 2.0).await;
    vigie.until_said("telemetry cannot be delivered").await;
    // By itself it would come after half a second.
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 2 && asked[1] - asked[0] >= Duration::from_secs(2), "{asked:?}");
}

/// A receiver may end a connection that was idle just when something is sent over it: no trouble yet.
#[tokio::test]
async fn a_connection_that_was_kept_may_end() {
    let server = Origin::start("api").await;
    let asked = AtomicUsize::new(0);
    let collector = Origin::with("collector", move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        1 => Script::reset(),
        _ => Script::text(""),
    });
    let collector = collector.await;
    let vigie = traced(&collector.url(), &server).await;
    for count in [2.0, 4.0] {
        ask(&vigie, 1).await;
        vigie.until_metric(SENT, &TRACES, count).await;
    }
    assert_eq!((collector.requests(), collector.connections()), (3, 2));
    assert!(!vigie.words().contains("telemetry"), "{}", vigie.words());
}
