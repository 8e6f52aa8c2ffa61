//! Machines that vanish without a word and come back: nothing says that the connections to them are dead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lb_testkit::{Answer, H2Origin, Origin, PATIENCE, Script, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::replicas::full_backlog;
use crate::harness::{Protocol, Vigie, app_with};

const CHECK: &str = "healthCheck: {path: /health, interval: 100ms, timeout: 2s}";

/// What the machine does: it fails its probes while it is gone, and when it is back it knows no connection from before.
#[derive(Default)]
struct Machine {
    gone: AtomicBool,
    /// Number of the last connection that it has forgotten.
    forgotten: AtomicUsize,
}

impl Machine {
    async fn vanish_and_return(&self, vigie: &Vigie, url: &str, connections: usize) {
        self.gone.store(true, Ordering::SeqCst);
        let says = async |status: &str| {
            let seen =
                async || vigie.json("/api/http/services/app@file").await["serverStatus"][url] == status;
            assert!(eventually(PATIENCE, seen).await, "not {status}");
        };
        says("DOWN").await;
        self.forgotten.store(connections, Ordering::SeqCst);
        self.gone.store(false, Ordering::SeqCst);
        says("UP").await;
    }
}

/// The probes have seen it go: no request is lost on what is left of it, not even one that may not be sent twice.
#[tokio::test]
async fn connections_from_before_an_outage_are_not_used_after_it() {
    let machine = Arc::<Machine>::default();
    let told = Arc::clone(&machine);
    let server = Origin::with("api", move |request| match request.path() {
        "/health" if told.gone.load(Ordering::SeqCst) => Script::reset(),
        "/health" => Script::text("").then_close(),
        _ if request.connection <= told.forgotten.load(Ordering::SeqCst) => Script::reset(),
        // Long enough for several to be under way at a time.
        _ if request.method == "GET" => Script::echo().delayed(Duration::from_millis(50)),
        _ => Script::echo(),
    })
    .await;
    let vigie = Vigie::start(&app_with("", CHECK, &[server.url()])).await;
    for outage in 1..=2 {
        // Several connections are kept by each worker.
        let asked: Vec<_> = (0..12).map(|_| tokio::spawn(Protocol::Http1.get(vigie.web(), "/"))).collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap().status, 200);
        }
        machine.vanish_and_return(&vigie, &server.url(), server.connections()).await;
        for _ in 0..24 {
            let mut client = Protocol::Http1.connect(vigie.web()).await;
            let answer = client.request("POST", "/", &[], Some(b"body")).await;
            assert_eq!(answer.status, 200, "after outage {outage}");
        }
    }
}

/// On a shared connection all requests would wait for as long as TCP hopes.
#[tokio::test]
async fn a_shared_connection_from_before_an_outage_is_not_used_after_it() {
    let machine = Arc::<Machine>::default();
    let told = Arc::clone(&machine);
    let server = H2Origin::start("api", move |request| {
        let dead = request.connection <= told.forgotten.load(Ordering::SeqCst);
        let silent = Answer { delay: Duration::from_secs(600), ..Answer::text("") };
        match request.path() {
            "/health" if told.gone.load(Ordering::SeqCst) => Answer { status: 500, ..Answer::text("") },
            "/health" => Answer::text(""),
            _ if dead => silent,
            _ => Answer::echo(),
        }
    })
    .await;
    let vigie = Vigie::start(&app_with("", CHECK, &[server.url()])).await;
    for _ in 0..12 {
        assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 200);
    }
    machine.vanish_and_return(&vigie, &server.url(), server.connections()).await;
    for _ in 0..12 {
        assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 200);
    }
}

/// TCP would go on asking for the 30 s of `dialTimeout`, TLS wait for 10 s.
#[tokio::test]
async fn nobody_waits_for_a_connection_to_a_server_that_was_taken_out() {
    let good = Origin::start("good").await;
    let (silent, _listener, _fill) = full_backlog().await;
    // Its system takes connections, and nobody says anything on them.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent, mute) = (format!("http://{silent}"), format!("https://{}", mute.local_addr().unwrap()));
    let check = "healthCheck: {path: /, interval: 3s, timeout: 3s}";
    for (bad, check, removed) in [(&silent, check, false), (&silent, "", true), (&mute, "", true)] {
        let both = [bad.clone(), good.url()];
        let vigie = Vigie::start(&app_with("", check, &both)).await;
        let asked: Vec<_> = (0..4).map(|_| tokio::spawn(Protocol::Http1.get(vigie.web(), "/"))).collect();
        vigie.until_metric("active_connections", &[], 2.0).await;
        if removed {
            vigie.write(&app_with("", check, &[good.url()]));
        }
        let answers = tokio::time::timeout(Duration::from_secs(9), async {
            for answer in asked {
                assert_eq!(answer.await.unwrap().status, 200);
            }
        });
        answers.await.expect("they wait for the dial");
        let labels = [("service", "app@file"), ("reason", "connect_timeout")];
        let given_up = vigie.metrics().await.value("lb_upstream_errors_total", &labels);
        assert!(given_up >= Some(1.0), "nobody has asked the silent one: {given_up:?}");
    }
}

/// The server is only reached in another way from now on, or its service has another name, or none at all.
#[tokio::test]
async fn a_dial_that_takes_its_time_outlives_a_reload() {
    let with = |most: u32, slow| {
        let app = app_with("", "serversTransport: t", &[format!("http://{slow}")]);
        format!("{app}  serversTransports:\n    t: {{maxIdleConnsPerHost: {most}}}\n")
    };
    let renamed = |slow| {
        let app = with(7, slow).replace("service: app", "service: new");
        app.replace("  services:\n    app:", "  services:\n    new:")
    };
    let gone = |_| "http: {services: {other: {loadBalancer: {servers: []}}}}".to_owned();
    tokio::join!(
        outlives("another way", with, |slow| with(8, slow)),
        outlives("another name", with, renamed),
        outlives("gone", with, gone),
    );
}

/// `reload` comes while a request waits for its connection to the server, which gets there all the same.
async fn outlives(
    case: &str,
    with: impl Fn(u32, SocketAddr) -> String,
    reload: impl Fn(SocketAddr) -> String,
) {
    let (slow, listener, fill) = full_backlog().await;
    let vigie = Vigie::start(&with(7, slow)).await;
    let asked = tokio::spawn(Protocol::Http1.get(vigie.web(), "/"));
    vigie.until_metric("active_connections", &[], 1.0).await;
    let loaded = vigie.metrics().await.value("traefik_config_reloads_total", &[]).unwrap_or_default();
    vigie.write(&reload(slow));
    vigie.until_metric("traefik_config_reloads_total", &[], loaded + 1.0).await;
    drop(fill);
    let serve = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    });
    assert_eq!(asked.await.unwrap().status, 200, "{case}");
    serve.abort();
}
