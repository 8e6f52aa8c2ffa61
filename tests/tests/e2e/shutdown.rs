//! SIGTERM: nobody under way is cut off, nobody new is let in.

use std::time::Duration;

use lb_testkit::{
    Client, Failure, Files, Gate, H2Client, Load, Origin, PATIENCE, Script, VigieProcess, eventually, get,
};
use rustix::process::Signal;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, binary, origin};

/// Requests under way are answered; the connection is told that it ends; the exit code says all is well.
#[tokio::test]
async fn requests_under_way_are_finished() {
    for protocol in Protocol::BOTH {
        let gate = Gate::closed();
        let held = gate.clone();
        let server = Origin::with("api", move |_| Script::echo().gated(&held)).await;
        let text = format!("{STATIC}log: {{level: INFO}}\n");
        let mut vigie = Vigie::with(&text, &app("", &[server.url()])).await;
        let web = vigie.web();
        let request = tokio::spawn(async move { protocol.get(web, "/").await });
        assert!(eventually(PATIENCE, async || server.requests() == 1).await);
        vigie.signal(Signal::TERM);
        let closed = eventually(PATIENCE, async || Client::connect(web).await.is_err());
        assert!(closed.await, "{protocol:?}: no new connections\n{}", vigie.words());
        assert!(!request.is_finished(), "still held");
        gate.let_one_pass();
        let response = request.await.unwrap();
        assert_eq!(origin(&response), "api");
        if protocol == Protocol::Http1 {
            assert_eq!(response.get("connection"), Some("close"));
        }
        assert!(vigie.ended(Duration::from_secs(5)).await.success(), "{}", vigie.words());
    }
}

#[tokio::test]
async fn idle_connections_are_closed_and_h2_is_told() {
    let server = Origin::start("api").await;
    let mut vigie = Vigie::start(&app("", &[server.url()])).await;
    let mut idle = Client::connect(vigie.web()).await.unwrap();
    idle.get(HOST, "/").await.unwrap();
    let h2 = H2Client::connect(vigie.web()).await.unwrap();
    h2.get(HOST, "/").await.unwrap();
    vigie.signal(Signal::TERM);
    assert!(idle.closes_within(Duration::from_secs(5)).await);
    assert!(eventually(PATIENCE, async || h2.is_closed()).await, "GOAWAY, then the end");
    assert!(vigie.ended(Duration::from_secs(5)).await.success());
}

/// Under load no request is lost: each answer either keeps the connection or says that it ends, and what
/// finds no listener any more was never accepted.
#[tokio::test]
async fn a_shutdown_under_load_loses_nothing() {
    for h2 in [false, true] {
        let server = Origin::with("api", |_| Script::echo().delayed(Duration::from_millis(2))).await;
        let mut vigie = Vigie::start(&app("", &[server.url()])).await;
        let mut load = Load::new(vigie.web(), HOST).connections(16);
        if h2 {
            load = load.h2();
        }
        let running = load.start();
        assert!(eventually(PATIENCE, async || running.done() > 300).await);
        vigie.signal(Signal::TERM);
        assert!(vigie.ended(Duration::from_secs(10)).await.success());
        let report = running.stop().await;
        assert!(report.ok > 300);
        let mut failures = report.failures.clone();
        // After the end nothing listens: that is no lost request.
        failures.remove(&Failure::Connect);
        assert!(failures.is_empty(), "h2 {h2}: {failures:?} {:?}", report.examples);
    }
}

/// `requestAcceptGraceTimeout`: `/ping` says no first, while requests are still taken.
#[tokio::test]
async fn a_balancer_in_front_is_warned_first() {
    let server = Origin::start("api").await;
    let text = STATIC
        .replace(
            "web: {address: '127.0.0.1:0'}",
            "web: {address: '127.0.0.1:0', transport: {lifeCycle: {requestAcceptGraceTimeout: 1s}}}",
        )
        .replace("ping: {}", "ping: {terminatingStatusCode: 204}");
    let mut vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    let ping = async || get(vigie.admin(), "localhost", "/ping").await.map(|response| response.status);
    assert_eq!(ping().await.unwrap(), 200);
    vigie.signal(Signal::TERM);
    assert!(eventually(PATIENCE, async || ping().await.is_ok_and(|status| status == 204)).await);
    assert_eq!(get(vigie.admin(), "localhost", "/ready").await.unwrap().status, 503);
    assert_eq!(origin(&vigie.get("/").await), "api", "requests are still taken");
    assert!(vigie.ended(Duration::from_secs(5)).await.success());
}

/// `graceTimeOut` is an end: a request that hangs holds nobody up for longer.
#[tokio::test]
async fn the_grace_has_an_end() {
    let server = Origin::with("api", |_| Script::hang()).await;
    let text = STATIC.replace(
        "web: {address: '127.0.0.1:0'}",
        "web: {address: '127.0.0.1:0', transport: {lifeCycle: {graceTimeOut: 300ms}}}",
    );
    let mut vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    assert!(eventually(PATIENCE, async || server.requests() == 1).await);
    vigie.signal(Signal::INT);
    vigie.ended(Duration::from_secs(5)).await;
    assert!(client.closes_within(Duration::from_secs(1)).await);
}

/// A worker whose thread has not run yet is told, too; the report says that signals are heeded.
#[tokio::test]
async fn a_stop_right_after_the_start_is_clean() {
    let text = STATIC.replace("workers: 2", "workers: 8");
    for _ in 0..15 {
        let mut vigie = Vigie::with(&text, &app("", &[])).await;
        vigie.signal(Signal::TERM);
        let status = vigie.ended(Duration::from_secs(5)).await;
        assert!(status.success(), "{status}\n{}", vigie.words());
    }
}

/// A log that is rotated, or a reload that is asked for, while a large configuration is read: SIGHUP and SIGUSR1 would end
/// a process that does not catch them.
#[tokio::test]
async fn signals_that_end_nothing_do_not_end_a_start() {
    let files = Files::new();
    let routers: String =
        (0..5000).map(|n| format!("    r{n}: {{rule: 'Host(`{n}.test`)', service: app}}\n")).collect();
    let dynamic =
        format!("http:\n  routers:\n{routers}  services: {{app: {{loadBalancer: {{servers: []}}}}}}\n");
    files.write("dynamic.yml", &dynamic);
    let dir = files.path().display().to_string();
    let file = files.write("vigie.yml", &STATIC.replace("{dir}", &dir));
    let mut command = std::process::Command::new(binary());
    let mut process = VigieProcess::spawn(command.arg(format!("--configFile={}", file.display()))).unwrap();
    let caught = eventually(PATIENCE, async || {
        // man 5 proc: the signals that have a handler, signal n as bit n - 1.
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let mask = status.split_once("SigCgt:").and_then(|(_, rest)| rest.split_whitespace().next());
        let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
        [Signal::HUP, Signal::USR1].iter().all(|signal| mask & (1 << (signal.as_raw() - 1)) != 0)
    });
    assert!(caught.await, "{}", process.stderr());
    assert!(!process.stderr().contains("workers"), "it still starts: {}", process.stderr());
    process.signal(Signal::HUP).unwrap();
    process.signal(Signal::USR1).unwrap();
    let serves = eventually(PATIENCE, async || process.stderr().contains("workers")).await;
    assert!(serves, "{}", process.stderr());
    assert!(process.stop(PATIENCE).await.unwrap().success());
}

/// A client that was let in before the end is heard, even if its request comes after that.
#[tokio::test]
async fn a_client_that_has_not_spoken_yet_is_waited_for() {
    let server = Origin::start("api").await;
    let mut vigie = Vigie::start(&app("", &[server.url()])).await;
    let web = vigie.web();
    let mut client = Client::connect(web).await.unwrap();
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "web")], 1.0).await;
    vigie.signal(Signal::TERM);
    assert!(eventually(PATIENCE, async || Client::connect(web).await.is_err()).await);
    let response = client.get(HOST, "/").await.unwrap();
    assert_eq!((origin(&response).as_str(), response.get("connection")), ("api", Some("close")));
    assert!(vigie.ended(Duration::from_secs(5)).await.success());
}

/// One that never speaks is not waited for as long as a greeting may take.
#[tokio::test]
async fn a_client_that_never_speaks_holds_up_no_stop() {
    const LESS_THAN_A_GREETING: Duration = Duration::from_secs(8);
    let mut vigie = Vigie::start(&app("", &["http://127.0.0.1:9".to_owned()])).await;
    let _silent = Client::connect(vigie.web()).await.unwrap();
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "web")], 1.0).await;
    vigie.signal(Signal::TERM);
    assert!(vigie.ended(LESS_THAN_A_GREETING).await.success());
}

/// The kernel's hash is uneven for so few connections on so many workers: some go from hand to hand.
#[tokio::test]
async fn who_was_handed_over_is_served_and_waited_for() {
    let server = Origin::start("api").await;
    let text = STATIC.replace("workers: 2", "workers: 8");
    let mut vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    let mut clients = Vec::new();
    for _ in 0..120 {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
        clients.push(client);
    }
    assert!(vigie.metrics().await.value("lb_connections_handed_over_total", &[]).unwrap() > 0.0);
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "web")], 120.0).await;
    vigie.signal(Signal::TERM);
    let web = vigie.web();
    assert!(eventually(PATIENCE, async || Client::connect(web).await.is_err()).await);
    for client in &mut clients {
        assert!(client.closes_within(PATIENCE).await);
    }
    assert!(vigie.ended(Duration::from_secs(5)).await.success());
}
