//! `maxConnections`: no server gets more at a time, the others wait in order, and not for ever.

use std::time::Duration;

use lb_testkit::{Client, Gate, Origin, PATIENCE, Response, Script, eventually};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, origin};

const SERVICE: [(&str, &str); 1] = [("service", "app@file")];

/// An origin whose answers wait for the test.
async fn gated(name: &str) -> (Origin, Gate) {
    let gate = Gate::closed();
    let inner = gate.clone();
    (Origin::with(name, move |_| Script::echo().gated(&inner)).await, gate)
}

fn ask(vigie: &Vigie, protocol: Protocol, path: &str) -> JoinHandle<Response> {
    let (web, path) = (vigie.web(), path.to_owned());
    tokio::spawn(async move { protocol.get(web, &path).await })
}

async fn until_requests(origin: &Origin, count: usize) {
    assert!(eventually(PATIENCE, async || origin.requests() >= count).await, "{count} requests");
}

/// Whatever the strategy, whichever worker: requests that have arrived are never more than those that were
/// let go and the limits together.
#[tokio::test]
async fn no_server_gets_more_than_its_limit() {
    for strategy in ["wrr", "leastConn", "p2c", "hrw", "leasttime"] {
        let (small, small_gate) = gated("small").await;
        let (large, large_gate) = gated("large").await;
        let servers = [format!("{{url: '{}', maxConnections: 1}}", small.url()), large.url()];
        let vigie = Vigie::start(&app(&format!("strategy: {strategy}\nmaxConnections: 3"), &servers)).await;
        let answers: Vec<_> = (0..24).map(|n| ask(&vigie, Protocol::BOTH[n % 2], "/")).collect();
        vigie.until_metric("lb_queue_length", &SERVICE, 20.0).await;
        let mut released = [0; 2];
        for n in 0..24 {
            let arrived = [small.requests(), large.requests()];
            assert!(
                arrived[0] <= released[0] + 1 && arrived[1] <= released[1] + 3,
                "{strategy}: {arrived:?} have arrived, {released:?} were let go"
            );
            // Each in turn while it has something to answer.
            let which = usize::from(n % 4 != 0 || arrived[0] == released[0]);
            [&small_gate, &large_gate][which].let_one_pass();
            released[which] += 1;
            let expected = (4 + n + 1).min(24);
            let total = async || small.requests() + large.requests() >= expected;
            assert!(eventually(PATIENCE, total).await, "{strategy}: a freed slot is used");
        }
        for gate in [&small_gate, &large_gate] {
            (0..24).for_each(|_| gate.let_one_pass());
        }
        for answer in answers {
            origin(&answer.await.unwrap());
        }
        vigie.until_metric("active_connections", &[], 0.0).await;
        vigie.until_metric("lb_queue_length", &SERVICE, 0.0).await;
    }
}

/// On whichever worker they wait, and in whatever protocol they came.
#[tokio::test]
async fn first_come_first_served() {
    let (server, gate) = gated("api").await;
    let vigie = Vigie::start(&app("maxConnections: 1", &[server.url()])).await;
    let mut answers = vec![ask(&vigie, Protocol::Http1, "/0")];
    until_requests(&server, 1).await;
    for n in 1..8 {
        answers.push(ask(&vigie, Protocol::BOTH[n % 2], &format!("/{n}")));
        vigie.until_metric("lb_queue_length", &SERVICE, n as f64).await;
    }
    for n in 1..8 {
        gate.let_one_pass();
        until_requests(&server, n + 1).await;
    }
    gate.let_one_pass();
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().json()["target"], format!("/{n}"));
    }
    let order: Vec<_> = server.seen().into_iter().map(|request| request.target).collect();
    assert_eq!(order, (0..8).map(|n| format!("/{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_queue_is_bounded_in_length_and_time() {
    let (server, gate) = gated("api").await;
    let queue = "maxConnections: 1\nqueue: {size: 1, timeout: 1500ms}";
    let static_text = format!("{STATIC}log: {{level: WARN}}\n");
    let vigie = Vigie::with(&static_text, &app(queue, &[server.url()])).await;
    for (protocol, served) in Protocol::BOTH.into_iter().zip([1, 2]) {
        let running = ask(&vigie, protocol, "/");
        until_requests(&server, served).await;
        let began = Instant::now();
        let waiting = ask(&vigie, protocol, "/waits");
        vigie.until_metric("lb_queue_length", &SERVICE, 1.0).await;
        let refused = protocol.get(vigie.web(), "/").await;
        assert!(began.elapsed() < Duration::from_millis(1500), "refused at once");
        let late = waiting.await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
        for response in [refused, late] {
            // A wait as long as the queue's, in whole seconds.
            assert_eq!((response.status, response.get("retry-after")), (503, Some("2")), "{protocol:?}");
        }
        gate.let_one_pass();
        origin(&running.await.unwrap());
    }
    let metrics = vigie.metrics().await;
    for reason in ["full", "timeout"] {
        let labels = [("service", "app@file"), ("reason", reason)];
        assert_eq!(metrics.value("lb_queue_refused_total", &labels), Some(2.0), "{reason}");
    }
    assert_eq!(metrics.value("lb_queue_length", &SERVICE), Some(0.0));
    vigie.until_said("every server has its maxConnections").await;
}

#[tokio::test]
async fn a_waiting_client_that_leaves_frees_its_place() {
    let (server, gate) = gated("api").await;
    let queue = "maxConnections: 1\nqueue: {size: 1, timeout: 60s}";
    let vigie = Vigie::start(&app(queue, &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let before = server.requests();
        let running = ask(&vigie, protocol, "/");
        until_requests(&server, before + 1).await;
        let leaves = ask(&vigie, protocol, "/leaves");
        vigie.until_metric("lb_queue_length", &SERVICE, 1.0).await;
        leaves.abort();
        vigie.until_metric("lb_queue_length", &SERVICE, 0.0).await;
        let stays = ask(&vigie, protocol, "/stays");
        vigie.until_metric("lb_queue_length", &SERVICE, 1.0).await;
        gate.let_one_pass();
        gate.let_one_pass();
        origin(&running.await.unwrap());
        assert_eq!(stays.await.unwrap().json()["target"], "/stays", "{protocol:?}");
    }
    assert!(server.seen().iter().all(|request| request.target != "/leaves"));
}

/// A tunnel is a request that lasts.
#[tokio::test]
async fn an_upgraded_connection_counts() {
    let server = Origin::start("api").await;
    server.on("/socket", Script::upgrade_echo("websocket"));
    let queue = "maxConnections: 1\nqueue: {size: 0}";
    let vigie = Vigie::start(&app(queue, &[server.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(client.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!((response.status, response.get("retry-after")), (503, Some("5")), "{protocol:?}");
    }
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");
    drop(client);
    vigie.until("the slot is free again", |response| response.status == 200).await;
}

/// Servers that die while requests wait: those are told at once, not after the queue's time.
#[tokio::test]
async fn nobody_waits_for_servers_that_are_gone() {
    let (server, _gate) = gated("api").await;
    server.on("/health", Script::status(200));
    let balancer = "maxConnections: 1\nqueue: {timeout: 60s}\nhealthCheck: {path: /health, interval: 100ms, timeout: 2s}";
    let vigie = Vigie::start(&app(balancer, &[server.url()])).await;
    let _running = ask(&vigie, Protocol::Http1, "/held");
    vigie.until_metric("active_connections", &[], 1.0).await;
    let waiting = Protocol::BOTH.map(|protocol| ask(&vigie, protocol, "/"));
    vigie.until_metric("lb_queue_length", &SERVICE, 2.0).await;
    server.on("/health", Script::status(500));
    for answer in waiting {
        let response = answer.await.unwrap();
        let told = (response.status, response.text(), response.get("retry-after"));
        assert_eq!(told, (503, "no available server\n", Some("1")));
    }
}

/// Who scales out does it for those who wait: they, and who comes after them, use what a reload brings at once.
#[tokio::test]
async fn what_a_reload_adds_is_for_those_who_wait() {
    let queue = "maxConnections: 1\nqueue: {timeout: 60s}";
    for raised in [false, true] {
        let (full, gate) = gated("full").await;
        let added = Origin::start("added").await;
        let vigie = Vigie::start(&app(queue, &[full.url()])).await;
        let running = ask(&vigie, Protocol::Http1, "/running");
        until_requests(&full, 1).await;
        let waiting = Protocol::BOTH.map(|protocol| ask(&vigie, protocol, "/waiting"));
        vigie.until_metric("lb_queue_length", &SERVICE, 2.0).await;
        if raised {
            vigie.write(&app("maxConnections: 3\nqueue: {timeout: 60s}", &[full.url()]));
            until_requests(&full, 3).await;
            (0..3).for_each(|_| gate.let_one_pass());
        } else {
            // Another path, too: a server's own prefix belongs to it.
            let added = format!("{{url: '{}/prefix', preservePath: true}}", added.url());
            vigie.write(&app(queue, &[full.url(), added]));
        }
        let who = if raised { "full" } else { "added" };
        for answer in waiting {
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("nobody waits on").unwrap();
            assert_eq!(origin(&answer), who);
            let target = if raised { "/waiting" } else { "/prefix/waiting" };
            assert_eq!(answer.json()["target"], target);
        }
        if !raised {
            let late = Protocol::Http1.get(vigie.web(), "/late");
            assert_eq!(origin(&tokio::time::timeout(PATIENCE, late).await.unwrap()), "added");
            gate.let_one_pass();
        }
        assert_eq!(origin(&running.await.unwrap()), "full");
        vigie.until_metric("lb_queue_length", &SERVICE, 0.0).await;
    }
}

/// The service goes and comes again while a request waits: it gets the slot that it has waited for, whoever else waits
/// for the service of now.
#[tokio::test]
async fn who_waits_is_not_forgotten_with_its_service() {
    let server = Origin::start("api").await;
    let gates = ["/first", "/third"].map(|path| {
        let gate = Gate::closed();
        server.on(path, Script::echo().gated(&gate));
        gate
    });
    let limited = app("maxConnections: 1\nqueue: {size: 9, timeout: 60s}", &[server.url()]);
    let vigie = Vigie::start(&limited).await;
    let first = ask(&vigie, Protocol::Http1, "/first");
    until_requests(&server, 1).await;
    let second = ask(&vigie, Protocol::Http1, "/second");
    vigie.until_metric("lb_queue_length", &SERVICE, 1.0).await;
    // The API says what is in force: a request would wait behind the second.
    let renamed = limited.replace(" app:", " other:").replace("service: app", "service: other");
    for (dynamic, service) in [(&renamed, "other@file"), (&limited, "app@file")] {
        vigie.write(dynamic);
        let is_there = async || vigie.json("/api/http/services").await.to_string().contains(service);
        assert!(eventually(PATIENCE, is_there).await, "{service}");
    }
    let third = ask(&vigie, Protocol::Http1, "/third");
    until_requests(&server, 2).await;
    gates[0].let_one_pass();
    for answer in [first, second] {
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("it is its turn").unwrap();
        assert_eq!((answer.status, origin(&answer)), (200, "api".to_owned()));
    }
    gates[1].let_one_pass();
    assert_eq!(third.await.unwrap().status, 200);
}
