//! Load shedding: when memory is short new requests are refused, until it is not.

use std::time::Duration;

use lb_testkit::{Client, Gate, Origin, PATIENCE, Script, eventually};

use super::frames::*;
use crate::harness::{HOST, Protocol, STATIC, Vigie, app_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_requests_are_refused_while_memory_is_short() {
    let gate = Gate::closed();
    let origin = Origin::start("origin").await;
    origin.on("/held", Script::echo().gated(&gate));
    let vigie = start(&origin).await;
    assert_eq!(vigie.get("/").await.status, 200);
    vigie.until_metric("lb_memory_limit_bytes", &[], f64::from(LIMIT)).await;
    vigie.until_metric("lb_memory_shedding", &[], 0.0).await;
    let web = vigie.web();
    let held: Vec<_> =
        Protocol::BOTH.map(|protocol| tokio::spawn(async move { protocol.get(web, "/held").await })).into();
    assert!(eventually(PATIENCE, async || origin.requests() == 3).await);

    let hogs = hogs(&vigie).await;
    for protocol in Protocol::BOTH {
        let answer = protocol.get(web, "/").await;
        assert_eq!((answer.status, answer.get("retry-after")), (503, Some("5")), "{protocol:?}");
        if protocol == Protocol::Http1 {
            assert_eq!(answer.get("connection"), Some("close"));
        }
    }
    // The operator is let in, and told.
    for (path, status) in [("/ping", 200), ("/live", 200), ("/api/overview", 200)] {
        assert_eq!(lb_testkit::get(vigie.admin(), "localhost", path).await.unwrap().status, status, "{path}");
    }
    let health = vigie.json("/health").await;
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["reasons"].to_string().contains("memory is short"), "{health}");
    assert_eq!(
        vigie
            .metrics()
            .await
            .value("lb_refused_requests_total", &[("entrypoint", "web"), ("reason", "memory")]),
        Some(2.0)
    );
    // What was in flight is finished.
    (0..2).for_each(|_| gate.let_one_pass());
    for request in held {
        assert_eq!(request.await.unwrap().status, 200);
    }
    drop(hogs);
    let relieved = eventually(PATIENCE + Duration::from_secs(5), async || {
        vigie.metrics().await.value("lb_memory_shedding", &[]) == Some(0.0)
    });
    assert!(relieved.await, "{:?}", vigie.metrics().await.value("process_resident_memory_bytes", &[]));
    assert_eq!(vigie.get("/").await.status, 200);
    for said in ["memory is short", "memory suffices"] {
        vigie.until_said(said).await;
        assert_eq!(vigie.words().matches(said).count(), 1, "{}", vigie.words());
    }
}

/// Heads that do not end are no requests to refuse: they end where they are, before they take the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_long_head_is_waited_for_while_memory_is_short() {
    let origin = Origin::start("origin").await;
    let vigie = start(&origin).await;
    let web = vigie.web();
    let hogs = hogs(&vigie).await;
    let mut client = Client::connect(web).await.unwrap();
    let endless = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}", "x".repeat(100_000));
    client.send(endless).await.unwrap();
    let answer = client.response("GET").await.unwrap();
    assert_eq!((answer.status, answer.get("retry-after")), (503, Some("5")));
    assert!(client.closes_within(PATIENCE).await);

    let mut frames = Frames::connect(web, &[]).await;
    let part = [block(&get("/")), block(&[("x", &"x".repeat(10_000))])].concat();
    frames.send(frame(HEADERS, 0, 1, &part)).await.unwrap();
    frames.send(frame(CONTINUATION, 0, 1, &block(&[("y", &"y".repeat(10_000))]))).await.unwrap();
    assert_eq!(frames.end(1, PATIENCE).await, End::Gone(ENHANCE_YOUR_CALM));
    let reason = [("entrypoint", "web"), ("reason", "memory_head")];
    assert!(vigie.metrics().await.value("lb_refused_requests_total", &reason) >= Some(2.0));
    drop(hogs);
}

const LIMIT: u32 = 96 << 20;

/// With an entry point of its own for those who take the memory.
async fn start(origin: &Origin) -> Vigie {
    let text = STATIC
        .replace("core: {workers: 2}", &format!("core: {{workers: 2, memoryLimit: {LIMIT}}}"))
        .replace("  traefik:", "  hogs: {address: '127.0.0.1:0'}\n  traefik:");
    let hogs = "    hogs: {rule: PathPrefix(`/`), entryPoints: [hogs], middlewares: [keep], service: app}
  middlewares: {keep: {buffering: {memRequestBodyBytes: 2000000}}}
  services:";
    let dynamic = app_with("entryPoints: [web]", "", &[origin.url()]).replace("  services:", hogs);
    Vigie::with(&format!("{text}log: {{level: INFO}}\n"), &dynamic).await
}

/// Clients that send most of a body which is kept in memory, as many as are let in before it is short. Requests under way
/// are left alone, however long this takes.
async fn hogs(vigie: &Vigie) -> Vec<Client> {
    let address = vigie.address("hogs");
    let part = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1900000\r\n\r\n{}",
        "x".repeat(1_800_000)
    );
    let mut hogs = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(address).await.unwrap();
        if client.send(&part).await.is_err() {
            break;
        }
        hogs.push(client);
    }
    vigie.until_metric("lb_memory_shedding", &[], 1.0).await;
    hogs
}
