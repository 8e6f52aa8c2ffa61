//! Servers that a reload removes: what is under way there is finished, up to a set time.

use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{Answer, Client, Gate, H2Client, H2Origin, Origin, PATIENCE, Script, eventually};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, origin, weighted};

const UPGRADE: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
const CLOSED: &str = "lb_removed_server_closed_total";
/// Far less than the time after which idle connections are looked over anyway.
const PROMPTLY: Duration = Duration::from_secs(3);

async fn origins(names: [&str; 2]) -> (Origin, Origin) {
    (Origin::start(names[0]).await, Origin::start(names[1]).await)
}

/// Puts a configuration in force under which only `server` answers.
async fn moves_to(vigie: &Vigie, dynamic: &str, server: &Origin) {
    vigie.write(dynamic);
    let from = format!("\"origin\":\"{}\"", server.name());
    vigie.until("the reload is live", |response| response.text().contains(&from)).await;
}

/// A tunnel that has been used.
async fn tunnel(vigie: &Vigie) -> Client {
    let mut client = Client::connect(vigie.web()).await.unwrap();
    assert_eq!(client.request("GET", HOST, "/socket", &UPGRADE, None).await.unwrap().status, 101);
    echoes(&mut client).await;
    client
}

async fn echoes(tunnel: &mut Client) {
    tunnel.send("ping").await.unwrap();
    assert_eq!(tunnel.bytes(4).await.unwrap(), b"ping");
}

/// `app` renamed: its router and its service with it.
fn other_service(urls: &[String]) -> String {
    app("", urls).replace(" app:", " other:").replace("service: app", "service: other")
}

/// The router of `app` leads to another service.
fn other_target(urls: &[String]) -> String {
    app("", urls)
        .replace("services:\n    app:", "services:\n    other:")
        .replace("service: app", "service: other")
}

#[tokio::test]
async fn requests_under_way_on_a_removed_server_are_finished() {
    for remove in [|urls: &[String]| app("", urls), other_service] {
        for protocol in Protocol::BOTH {
            let (a, b) = origins(["a", "b"]).await;
            let gate = Gate::closed();
            a.on("/slow", Script::echo().gated(&gate));
            let vigie = Vigie::start(&app("", &[a.url()])).await;
            let web = vigie.web();
            let slow = tokio::spawn(async move { protocol.get(web, "/slow").await });
            assert!(eventually(PATIENCE, async || a.requests() == 1).await);
            moves_to(&vigie, &remove(&[b.url()]), &b).await;
            gate.let_one_pass();
            assert_eq!(origin(&slow.await.unwrap()), "a", "{protocol:?}");
            // And its connection is not kept for a next time that never comes.
            assert!(eventually(PROMPTLY, async || a.open_connections() == 0).await, "{protocol:?}");
            assert_eq!(vigie.metrics().await.value(CLOSED, &[]), Some(0.0));
        }
    }
}

/// What may be repeated is not lost with the last server that its request knew, whatever its service is called now, or
/// whether the router has left that for another one.
#[tokio::test]
async fn a_request_whose_removed_server_dies_goes_to_its_successor() {
    let moved = |a: &str, b: &str| {
        let old = format!("    app:\n      loadBalancer:\n        servers: [{{url: '{a}'}}]\n");
        other_target(&[b.to_owned()]) + &old
    };
    let next = [
        |_: &str, b: &str| app("", &[b.to_owned()]),
        |_: &str, b: &str| other_target(&[b.to_owned()]),
        moved,
    ];
    for (successor, protocol) in next.iter().flat_map(|next| Protocol::BOTH.map(|protocol| (next, protocol)))
    {
        for (method, status) in [("GET", 200), ("POST", 502)] {
            let (a, b) = origins(["a", "b"]).await;
            let gate = Gate::closed();
            a.on("/slow", Script::no_answer().gated(&gate));
            let vigie = Vigie::start(&app("", &[a.url()])).await;
            let web = vigie.web();
            let slow =
                tokio::spawn(
                    async move { protocol.connect(web).await.request(method, "/slow", &[], None).await },
                );
            assert!(eventually(PATIENCE, async || a.requests() == 1).await);
            let successor = successor(&a.url(), &b.url());
            moves_to(&vigie, &successor, &b).await;
            gate.let_one_pass();
            let answer = slow.await.unwrap();
            assert_eq!(answer.status, status, "{protocol:?} {method}\n{successor}");
            assert!(status != 200 || origin(&answer) == "b", "{protocol:?}");
            assert_eq!(a.seen().iter().filter(|seen| seen.path() == "/slow").count(), 1, "asked once");
        }
    }
}

/// Each reload while it is under way may bring another successor.
#[tokio::test]
async fn a_request_outlives_its_servers_one_after_the_other() {
    let (a, b) = origins(["a", "b"]).await;
    let (c, gate) = (Origin::start("c").await, Gate::closed());
    for server in [&a, &b] {
        server.on("/slow", Script::no_answer().gated(&gate));
    }
    let vigie = Vigie::start(&app("", &[a.url()])).await;
    let web = vigie.web();
    let slow = tokio::spawn(Protocol::Http1.get(web, "/slow"));
    for (from, to, next) in
        [(&a, &b, other_target as fn(&[String]) -> String), (&b, &c, |urls| app("", urls))]
    {
        let came = async || from.seen().iter().any(|seen| seen.path() == "/slow");
        assert!(eventually(PATIENCE, came).await);
        moves_to(&vigie, &next(&[to.url()]), to).await;
        // On a connection that was kept it is asked once more.
        from.on("/slow", Script::no_answer());
        gate.let_one_pass();
    }
    let answer = slow.await.unwrap();
    assert_eq!((answer.status, origin(&answer).as_str()), (200, "c"));
}

#[tokio::test]
async fn idle_connections_to_a_removed_server_are_closed_promptly() {
    let h2c = H2Origin::start("h2c", |_| Answer::echo()).await;
    let (a, b) = origins(["a", "b"]).await;
    let vigie = Vigie::start(&app("", &[a.url(), h2c.url()])).await;
    for _ in 0..8 {
        vigie.get("/").await;
    }
    assert!(a.open_connections() > 0 && h2c.open_connections() > 0);
    moves_to(&vigie, &app("", &[b.url()]), &b).await;
    let closed =
        eventually(PROMPTLY, async || a.open_connections() == 0 && h2c.open_connections() == 0).await;
    assert!(closed, "{} and {} connections are open", a.open_connections(), h2c.open_connections());
}

/// Each kind of long answer ends in its own words, and only when the time of the configuration that had the
/// server is over.
#[tokio::test]
async fn what_lasts_on_a_removed_server_ends_after_its_drain_time() {
    let (a, b) = origins(["a", "b"]).await;
    a.on("/socket", Script::upgrade_echo("websocket"));
    let endless = |kind: &str, piece: &str| {
        Script::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n{piece}"
        ))
        .then_hang()
    };
    a.on("/events", endless("text/event-stream", "9\r\ndata: a\n\n\r\n"));
    a.on("/download", endless("application/zip", "4\r\nhalf\r\n"));
    let vigie = Vigie::start(&app("drainTimeout: 500ms", &[a.url()])).await;
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");

    let mut socket = tunnel(&vigie).await;
    let mut events = Client::connect(vigie.web()).await.unwrap();
    events.send(head("/events")).await.unwrap();
    events.head("GET").await.unwrap();
    assert!(events.piece().await.unwrap().is_some());
    let mut download = Client::connect(vigie.web()).await.unwrap();
    download.send(head("/download")).await.unwrap();
    download.head("GET").await.unwrap();
    assert_eq!(download.piece().await.unwrap().unwrap(), b"half");
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let mut bodies = Vec::new();
    for path in ["/events", "/download"] {
        let request = http::Request::get(format!("http://{HOST}{path}")).body(()).unwrap();
        let (response, _) = client.open(request, true).await.unwrap();
        let mut body = response.await.unwrap().into_body();
        tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        bodies.push(body);
    }

    moves_to(&vigie, &app("", &[b.url()]), &b).await;
    assert!(socket.closes_within(PATIENCE).await, "{}", vigie.words());
    // Events end as if there were no more; the client asks for more by itself, on the same connection.
    while events.piece().await.unwrap().is_some() {}
    assert_eq!(events.get(HOST, "/").await.unwrap().json()["origin"], "b");
    while let Some(part) = tokio::time::timeout(PATIENCE, bodies[0].data()).await.unwrap() {
        part.expect("no error, but the end");
    }
    // A part of a file must not look like the whole.
    assert!(download.piece().await.is_err());
    let end = tokio::time::timeout(PATIENCE, bodies[1].data()).await.unwrap();
    assert!(end.is_some_and(|end| end.is_err()));
    vigie.until_metric(CLOSED, &[], 5.0).await;
    assert!(eventually(PATIENCE, async || a.open_connections() == 0).await);
}

#[tokio::test]
async fn grpc_is_told_to_try_elsewhere_and_a_wait_goes_elsewhere() {
    let grpc = H2Origin::start("grpc", |request| match request.path() {
        "/" => Answer::echo(),
        _ => Answer {
            fields: vec![("content-type".into(), "application/grpc".into())],
            parts: vec![Bytes::from_static(b"never")],
            pause: PATIENCE * 10,
            ..Answer::text("")
        },
    })
    .await;
    let (hangs, b) = origins(["hangs", "b"]).await;
    hangs.on("/wait", Script::hang());
    let text = format!("{STATIC}log: {{level: WARN}}\n");

    let vigie = Vigie::with(&text, &app("drainTimeout: 300ms", &[grpc.url()])).await;
    let client = H2Client::connect(vigie.web()).await.unwrap();
    let request = http::Request::post(format!("http://{HOST}/pkg.Service/Watch"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let (response, _) = client.open(request.body(()).unwrap(), true).await.unwrap();
    let mut body = response.await.unwrap().into_body();
    moves_to(&vigie, &app("", &[b.url()]), &b).await;
    let end = tokio::time::timeout(PATIENCE, body.data()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    let trailers = body.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers["grpc-status"], "14");
    vigie.until_said("drainTimeout of a removed server is over").await;

    // A request that waits for its answer goes to another server if that is safe, and gets 504 if not.
    for protocol in Protocol::BOTH {
        for (method, expected) in [("GET", 200), ("POST", 504)] {
            let both = [weighted(&hangs.url(), 100), b.url()];
            let vigie = Vigie::start(&app("drainTimeout: 300ms", &both)).await;
            for _ in 0..4 {
                // Kept connections are no reason to ask the same server again.
                vigie.get("/").await;
            }
            let (web, waiting) = (vigie.web(), hangs.requests() + 1);
            let request = tokio::spawn(async move {
                protocol.connect(web).await.request(method, "/wait", &[], None).await.status
            });
            assert!(eventually(PATIENCE, async || hangs.requests() == waiting).await);
            vigie.write(&app("", &[b.url()]));
            assert_eq!(request.await.unwrap(), expected, "{protocol:?} {method}\n{}", vigie.words());
            assert_eq!(hangs.requests(), waiting, "{protocol:?} {method}: asked once");
        }
    }
}

#[tokio::test]
async fn a_reload_that_keeps_the_server_touches_nothing() {
    let (a, gone) = origins(["a", "gone"]).await;
    let b = Origin::start("b").await;
    for server in [&a, &gone] {
        server.on("/socket", Script::upgrade_echo("websocket"));
    }
    let balancer = "drainTimeout: 1s";
    let vigie = Vigie::start(&app(balancer, &[gone.url()])).await;
    let mut witness = tunnel(&vigie).await;
    moves_to(&vigie, &app(balancer, &[a.url()]), &a).await;
    let mut kept = tunnel(&vigie).await;
    // Another transport, another strategy, another router, another neighbour: the server is the same.
    let changed = app("strategy: leastConn\nserversTransport: t\ndrainTimeout: 0s", &[a.url(), b.url()])
        .replace("routers:\n    app:", "routers:\n    renamed:")
        + "  serversTransports:\n    t: {maxIdleConnsPerHost: 7}\n";
    vigie.write(&changed);
    vigie.until("b serves as well", |response| origin(response) == "b").await;
    assert!(witness.closes_within(PATIENCE).await);
    echoes(&mut kept).await;
    // The time is the one that was said last, not that from when the tunnel began.
    moves_to(&vigie, &app(balancer, &[b.url()]), &b).await;
    assert!(kept.closes_within(PROMPTLY).await);
}

#[tokio::test]
async fn a_server_that_comes_back_in_time_was_never_removed() {
    let (a, witness) = origins(["a", "witness"]).await;
    let b = Origin::start("b").await;
    for server in [&a, &witness] {
        server.on("/socket", Script::upgrade_echo("websocket"));
    }
    let with = |servers: &[&Origin]| {
        let urls: Vec<_> = servers.iter().map(|server| server.url()).collect();
        app("drainTimeout: 3s", &urls)
    };
    let vigie = Vigie::start(&with(&[&a])).await;
    let mut returned = tunnel(&vigie).await;
    moves_to(&vigie, &with(&[&witness]), &witness).await;
    let mut cut = tunnel(&vigie).await;
    moves_to(&vigie, &with(&[&a, &b]), &b).await;
    // It was removed later, and its time is over.
    assert!(cut.closes_within(PATIENCE).await);
    echoes(&mut returned).await;
}
