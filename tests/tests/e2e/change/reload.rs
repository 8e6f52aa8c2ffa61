//! Connections that live long survive reloads that keep their route.
//!
//! Fifty reloads under load are in `endurance`, single requests over a reload in `reload`, a tunnel whose server goes in
//! `streams`.

use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{Answer, Client, Fields, H2Client, H2Origin, Load, Origin, PATIENCE, Script, get};

use crate::harness::{HOST, Vigie, origin};

const EVENTS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// Between two events: the streams last for several reloads.
const PAUSE: Duration = Duration::from_millis(300);
/// Fewer reloads than that during a stream prove little.
const RELOADS: usize = 3;

/// The routes of the streams stay. What changes with `version` is what a router adds to answers, how is balanced, a further
/// server, and where another router leads.
fn version(version: usize, api: &Origin, grpc: &H2Origin, other: &Origin) -> String {
    let strategy = ["wrr", "leastConn", "p2c"][version % 3];
    format!(
        "http:
  routers:
    api: {{rule: PathPrefix(`/`), service: api, middlewares: [mark]}}
    grpc: {{rule: PathPrefix(`/pkg.Service`), service: grpc, middlewares: [mark]}}
    version: {{rule: Path(`/version-{version}`), service: other}}
  middlewares:
    mark: {{headers: {{customResponseHeaders: {{X-Version: '{version}'}}}}}}
  services:
    api: {{loadBalancer: {{strategy: {strategy}, servers: [{{url: '{}'}}, {{url: 'http://127.0.0.1:{}', weight: 0}}]}}}}
    grpc: {{loadBalancer: {{strategy: {strategy}, servers: [{{url: '{}'}}]}}}}
    other: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        api.url(),
        version + 1,
        grpc.url(),
        other.url()
    )
}

/// Everything that an HTTP/2 stream brings; its request is ended only after that.
async fn stream(client: &H2Client, method: &str, path: &str, kind: &str) -> (Vec<u8>, Fields) {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{HOST}{path}"))
        .header("content-type", kind)
        .header("te", "trailers");
    let (response, mut sending) = client.open(request.body(()).unwrap(), method == "GET").await.unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut received = Vec::new();
    while let Some(part) = tokio::time::timeout(PATIENCE, body.data()).await.expect("the stream goes on") {
        let part = part.expect("the stream is not cut");
        body.flow_control().release_capacity(part.len()).unwrap();
        received.extend_from_slice(&part);
        if method == "POST" && received.len() < EVENTS.len() {
            sending.send_data(Bytes::from_static(b"m"), false).expect("the other direction is open as well");
        }
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let trailers =
        trailers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    (received, Fields(trailers))
}

#[tokio::test]
async fn long_lived_connections_survive_reloads_that_keep_their_route() {
    let [api, other] = [Origin::start("api").await, Origin::start("other").await];
    api.on("/events", Script::server_sent_events(&EVENTS, PAUSE));
    api.on("/socket", Script::upgrade_echo("websocket"));
    let grpc = H2Origin::start("grpc", |_| Answer {
        fields: vec![("content-type".into(), "application/grpc".into())],
        parts: EVENTS.iter().map(|event| Bytes::from_static(event.as_bytes())).collect(),
        pause: PAUSE,
        trailers: vec![("grpc-status".into(), "0".into())],
        reads_body: false,
        ..Answer::text("")
    })
    .await;
    let vigie = Vigie::start(&version(0, &api, &grpc, &other)).await;
    let load = Load::new(vigie.web(), HOST).connections(2).pause(Duration::from_millis(1));
    let running = [load.clone().start(), load.h2().start()];
    let events = EVENTS.map(|event| format!("data: {event}\n\n")).concat().into_bytes();

    // A tunnel, events over both protocols, and a call on the same HTTP/2 connection.
    let mut socket = Client::connect(vigie.web()).await.unwrap();
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(socket.request("GET", HOST, "/socket", &upgrade, None).await.unwrap().status, 101);
    let web = vigie.web();
    let http1 = tokio::spawn(async move { get(web, HOST, "/events").await.unwrap() });
    let http2 = tokio::spawn(async move {
        let client = H2Client::connect(web).await.unwrap();
        tokio::join!(
            stream(&client, "GET", "/events", "text/plain"),
            stream(&client, "POST", "/pkg.Service/Call", "application/grpc")
        )
    });
    let mut reloads = 0;
    while !http1.is_finished() || !http2.is_finished() {
        reloads += 1;
        vigie.write(&version(reloads, &api, &grpc, &other));
        vigie
            .until("the reload is live", |response| response.get("x-version") == Some(&reloads.to_string()))
            .await;
        assert_eq!(origin(&vigie.get(&format!("/version-{reloads}")).await), "other");
        let message = format!("message {reloads:04}");
        socket.send(&message).await.unwrap();
        assert_eq!(socket.bytes(message.len()).await.unwrap(), message.as_bytes());
    }
    assert!(reloads >= RELOADS, "{reloads}");
    assert!(http1.await.unwrap().body == events);
    let ((received, _), (called, trailers)) = http2.await.unwrap();
    assert!(received == events);
    assert_eq!((called, trailers.get("grpc-status")), (EVENTS.concat().into_bytes(), Some("0")));
    for running in running {
        let report = running.stop().await;
        report.assert_flawless();
        assert_eq!(report.connections, 2, "no connection was cut");
    }
    assert_eq!((grpc.requests(), grpc.connections()), (1, 1), "nothing was asked twice");
}
