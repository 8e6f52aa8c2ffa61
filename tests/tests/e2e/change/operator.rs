//! Operators take servers out of service and bring them back, by command and by API.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use lb_testkit::{Client, Gate, Origin, PATIENCE, Response, Script, VigieProcess, eventually};
use serde_json::{Value, json};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, binary, origin};
use crate::tcp::{Talker, everybody, greeted};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const STICKY: &str = "sticky: {cookie: {name: seat}}";

fn static_text() -> String {
    let api = format!("api: {{insecure: true, token: {TOKEN}}}\nlog: {{level: INFO}}");
    STATIC.replace("api: {insecure: true}", &api)
}

async fn two_servers(balancer: &str) -> (Vigie, Origin, Origin) {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let vigie = Vigie::with(&static_text(), &app(balancer, &[a.url(), b.url()])).await;
    (vigie, a, b)
}

fn path(server: &str) -> String {
    let server = server.replace(':', "%3A").replace('/', "%2F");
    format!("/api/http/services/app@file/servers/{server}/state")
}

/// A PUT of the state with the token.
async fn order(vigie: &Vigie, protocol: Protocol, server: &str, body: Value) -> Response {
    let fields = [("Authorization", &*format!("Bearer {TOKEN}"))];
    let body = body.to_string();
    let mut connection = protocol.connect(vigie.admin()).await;
    connection.request("PUT", &path(server), &fields, Some(body.as_bytes())).await
}

async fn ordered(vigie: &Vigie, server: &str, body: Value) -> Value {
    let response = order(vigie, Protocol::Http1, server, body).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn seat(response: &Response) -> Option<String> {
    Some(response.get("set-cookie")?.split(';').next()?.to_owned())
}

/// A GET on a connection of its own, with this cookie.
async fn seated(protocol: Protocol, web: SocketAddr, cookie: &str) -> Response {
    protocol.connect(web).await.request("GET", "/", &[("cookie", cookie)], None).await
}

/// Who answers six new clients.
async fn new_clients(protocol: Protocol, web: SocketAddr) -> String {
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(origin(&protocol.get(web, "/").await));
    }
    names.sort();
    names.dedup();
    names.concat()
}

/// `vigie server ...` against this instance, with the token from its own configuration file.
fn command(vigie: &Vigie, arguments: &[&str]) -> VigieProcess {
    let mut command = Command::new(binary());
    command.arg("server").args(arguments).arg(format!("--address=http://{}", vigie.admin()));
    command.arg(format!("--configFile={}", vigie.files.path().join("vigie.yml").display()));
    command.env_remove("VIGIE_API_TOKEN").env_remove("VIGIE_API_ADDRESS");
    VigieProcess::spawn(&mut command).expect("it can be started")
}

/// Runs it to its end: exit code, stdout and stderr.
async fn commanded(vigie: &Vigie, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut process = command(vigie, arguments);
    let status = process.ended(PATIENCE).await.expect("it ends");
    (status.code(), process.stdout(), process.stderr())
}

#[tokio::test]
async fn a_drained_server_keeps_its_sticky_clients_until_the_deadline() {
    for protocol in Protocol::BOTH {
        let (vigie, a, _b) = two_servers(STICKY).await;
        let web = vigie.web();
        let pinned = loop {
            let first = protocol.get(web, "/").await;
            if origin(&first) == "a" {
                break seat(&first).expect("a cookie for a new session");
            }
        };
        let gate = Gate::closed();
        a.on("/slow", Script::echo().gated(&gate));
        let cookie = pinned.clone();
        let slow = tokio::spawn(async move {
            protocol.connect(web).await.request("GET", "/slow", &[("cookie", &cookie)], None).await
        });
        vigie.until_metric("active_connections", &[("instance", &a.url())], 1.0).await;

        let answer = ordered(&vigie, &a.url(), json!({"state": "drain", "deadline": "none"})).await;
        assert_eq!((&answer["state"], &answer["inFlight"]), (&json!("drain"), &json!(1)), "{answer}");
        assert_eq!(new_clients(protocol, web).await, "b", "{protocol:?}");
        let stays = seated(protocol, web, &pinned).await;
        assert_eq!((origin(&stays), seat(&stays)), ("a".to_owned(), None), "{protocol:?}");

        ordered(&vigie, &a.url(), json!({"state": "drain", "deadline": "100ms"})).await;
        let mut moved = None;
        let over = eventually(PATIENCE, async || {
            let response = seated(protocol, web, &pinned).await;
            let left = origin(&response) == "b";
            moved = left.then(|| seat(&response)).flatten();
            left
        });
        assert!(over.await, "{protocol:?}: nobody moves\n{}", vigie.words());
        let moved = moved.expect("the cookie is rewritten");
        assert_eq!(origin(&seated(protocol, web, &moved).await), "b");
        // What was under way all the time is finished there.
        gate.let_one_pass();
        assert_eq!(origin(&slow.await.unwrap()), "a");
        ordered(&vigie, &a.url(), json!({"state": "ready"})).await;
        assert_eq!(new_clients(protocol, web).await, "ab");
    }
}

#[tokio::test]
async fn nobody_gets_to_a_server_in_maintenance_but_tunnels_stay() {
    let (vigie, a, b) = two_servers(STICKY).await;
    a.on("/socket", Script::upgrade_echo("websocket"));
    ordered(&vigie, &b.url(), json!({"state": "maintenance"})).await;
    let mut socket = Client::connect(vigie.web()).await.unwrap();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(socket.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
    ordered(&vigie, &b.url(), json!({"state": "ready"})).await;
    let answer = ordered(&vigie, &a.url(), json!({"state": "maintenance"})).await;
    assert_eq!(answer["inFlight"], 1, "a tunnel is in flight: {answer}");
    for protocol in Protocol::BOTH {
        assert_eq!(new_clients(protocol, vigie.web()).await, "b");
        let pinned = seat(&protocol.get(vigie.web(), "/").await).unwrap();
        ordered(&vigie, &b.url(), json!({"state": "maintenance"})).await;
        let response = seated(protocol, vigie.web(), &pinned).await;
        assert_eq!(response.status, 503, "{protocol:?}: no cookie leads there");
        ordered(&vigie, &b.url(), json!({"state": "ready"})).await;
    }
    socket.send("ping").await.unwrap();
    assert_eq!(socket.bytes(4).await.unwrap(), b"ping");
}

/// What the last check said, a minute ago, is of no interest to who has restarted the server since.
#[tokio::test]
async fn the_command_waits_for_a_check_of_its_own() {
    let check = "healthCheck: {path: /health, interval: 60s, unhealthyInterval: 50ms, timeout: 1s}";
    let (vigie, mut a, _b) = two_servers(check).await;
    vigie.until_metric("health_check_total", &[("instance", &a.url())], 1.0).await;
    let (code, _, error) = commanded(&vigie, &["maintenance", "app", &a.url()]).await;
    assert_eq!(code, Some(0), "{error}");
    a.stop().await;
    let mut waiting = command(&vigie, &["ready", "app", &a.url(), "--wait"]);
    vigie.until_metric("instance_health", &[("instance", &a.url())], 0.0).await;
    assert!(waiting.ended(Duration::from_millis(300)).await.is_err(), "{}", waiting.stdout());
    a.restart().await;
    let status = waiting.ended(PATIENCE).await.unwrap();
    assert!(status.success(), "{}{}", waiting.stdout(), waiting.stderr());
    assert_eq!(new_clients(Protocol::Http1, vigie.web()).await, "ab");
}

#[tokio::test]
async fn the_command_waits_for_the_last_request() {
    let (vigie, a, b) = two_servers("").await;
    let gate = Gate::closed();
    a.on("/", Script::echo().gated(&gate));
    let short = a.url().replace("http://", "");
    let (code, _, complained) = commanded(&vigie, &["maintenance", "app", &b.url()]).await;
    assert_eq!((code, &*complained), (Some(0), ""));
    for protocol in Protocol::BOTH {
        let web = vigie.web();
        let request = tokio::spawn(async move { protocol.get(web, "/").await });
        vigie.until_metric("active_connections", &[("instance", &a.url())], 1.0).await;
        let (code, said, complained) =
            commanded(&vigie, &["drain", "app", &short, "--wait", "--timeout", "300ms"]).await;
        assert_eq!(code, Some(2), "{said}{complained}");
        assert!(complained.contains("300ms is over") && complained.contains("1 in flight"), "{complained}");
        assert!(complained.contains("no other server of app@file is available"), "{complained}");

        let mut waiting = command(&vigie, &["drain", "app", &short, "--wait", "--by", "alice"]);
        let told = eventually(PATIENCE, async || waiting.stdout().contains("1 in flight")).await;
        assert!(told, "{}{}", waiting.stdout(), waiting.stderr());
        assert!(waiting.ended(Duration::from_millis(500)).await.is_err(), "it waits for the request");
        gate.let_one_pass();
        let status = waiting.ended(PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(0), "{}", waiting.stderr());
        assert!(waiting.stdout().contains("healthy, 0 in flight"), "{}", waiting.stdout());
        assert_eq!(origin(&request.await.unwrap()), "a");
        let (code, said, _) = commanded(&vigie, &["ready", "app@file", &a.url(), "--wait"]).await;
        assert_eq!(code, Some(0));
        assert!(said.contains("ready, healthy, 0 in flight"), "{said}");
    }
    let (_, said, _) = commanded(&vigie, &["list"]).await;
    assert!(said.contains(&format!("app@file {}: maintenance, healthy, 0 in flight", b.url())), "{said}");
}

#[tokio::test]
async fn a_wrong_name_is_answered_with_the_right_ones() {
    let (vigie, a, b) = two_servers("").await;
    for (arguments, expected) in [
        (
            ["drain", "ap@file", &*a.url()],
            "no service is called `ap@file`; did you mean `app@file`?".to_owned(),
        ),
        (["drain", "app", "127.0.0.1:1"], "no server is called `127.0.0.1:1`; ".to_owned()),
        (["drain", "app", "127.0.0.1:1"], a.url()),
        (["drain", "app", "127.0.0.1:1"], b.url()),
    ] {
        let (code, _, complained) = commanded(&vigie, &arguments).await;
        assert_eq!(code, Some(1), "{complained}");
        assert!(complained.contains(&expected), "{complained}");
    }
    let mut unreachable = Command::new(binary());
    unreachable.args(["server", "ready", "app", "x", "--address=http://127.0.0.1:1"]);
    let mut unreachable = VigieProcess::spawn(unreachable.env("VIGIE_API_TOKEN", TOKEN)).unwrap();
    assert_eq!(unreachable.ended(PATIENCE).await.unwrap().code(), Some(1));
    assert!(unreachable.stderr().contains("no answer from http://127.0.0.1:1"), "{}", unreachable.stderr());
    for (wrong, expected) in [
        (&["drain", "app"][..], "<SERVER>"),
        (&["ready", "app", &a.url(), "--timeout", "1s"], "--wait"),
        (&["ready", "app", &a.url(), "--wait", "--timeout", "soon"], "\"soon\" is not a length of time"),
        (&["retire", "app", "x"], "retire"),
    ] {
        let (code, _, complained) = commanded(&vigie, wrong).await;
        assert_eq!(code, Some(1), "{wrong:?}");
        assert!(complained.contains(expected), "{wrong:?}: {complained}");
    }
}

#[tokio::test]
async fn a_state_survives_reloads_and_is_seen_everywhere() {
    let (vigie, a, b) = two_servers("").await;
    let by = json!({"state": "maintenance", "by": "alice"});
    ordered(&vigie, &a.url(), by.clone()).await;
    // Again, and by HTTP/2: the same.
    let again = order(&vigie, Protocol::Http2, &a.url(), by).await;
    assert_eq!((again.status, &again.json()["stateBy"]), (200, &json!("alice (127.0.0.1)")));

    let instance = [("service", "app@file"), ("url", &*a.url())];
    let seen = async || {
        let service = vigie.json("/api/http/services/app@file").await;
        let details = service["serverDetails"].as_array().unwrap();
        let state = details.iter().find(|server| server["url"] == a.url()).map(|s| s["state"].clone());
        let health = vigie.json("/health").await;
        let metric = vigie.metrics().await.value("lb_server_admin_state", &instance);
        (state, health["services"]["app@file"]["maintenance"].clone(), metric)
    };
    let out = (Some(json!("maintenance")), json!(1), Some(2.0));
    assert_eq!(seen().await, out);
    vigie.until_said("alice (127.0.0.1)").await;
    let log = vigie.words();
    let line = log.lines().find(|line| line.contains("sets the state")).expect("a line in the log");
    for part in [a.url().as_str(), "app@file", "previous=ready", "state=maintenance", "alice (127.0.0.1)"] {
        assert!(line.contains(part), "{part}: {line}");
    }

    // Through a reload, and through one without the server.
    let c = Origin::start("c").await;
    vigie.write(&app("", &[c.url(), a.url(), b.url()]));
    let names = eventually(PATIENCE, async || new_clients(Protocol::Http1, vigie.web()).await == "bc").await;
    assert!(names, "{}", vigie.words());
    assert_eq!(seen().await, out);
    vigie.write(&app("", &[c.url()]));
    vigie.until("only c is left", |response| response.status == 200).await;
    let only_c = eventually(PATIENCE, async || new_clients(Protocol::Http1, vigie.web()).await == "c").await;
    assert!(only_c);
    let gone = vigie.json(&path(&a.url())).await;
    assert_eq!((&gone["state"], &gone["configured"]), (&json!("maintenance"), &json!(false)), "{gone}");
    vigie.write(&app("", &[a.url(), b.url()]));
    let back = eventually(PATIENCE, async || new_clients(Protocol::Http1, vigie.web()).await == "b").await;
    assert!(back, "{}", vigie.words());
    assert_eq!(seen().await, out);
}

#[tokio::test]
async fn nobody_without_the_token_changes_anything() {
    let (vigie, a, _b) = two_servers("").await;
    let right = format!("Bearer {TOKEN}");
    let body = br#"{"state": "maintenance"}"#;
    for protocol in Protocol::BOTH {
        let ask = async |method: &str, fields: &[(&str, &str)], body: Option<&[u8]>| {
            protocol.connect(vigie.admin()).await.request(method, &path(&a.url()), fields, body).await
        };
        for fields in [
            &[][..],
            &[("Authorization", "Bearer 0123456789abcdef0123456789abcdee")],
            &[("Authorization", "Basic YTpi")],
            &[("Cookie", &*right)],
            &[("Authorization", &*right), ("Authorization", &*right)],
        ] {
            let response = ask("PUT", fields, Some(body)).await;
            assert_eq!(response.status, 401, "{protocol:?} {fields:?}");
            assert_eq!(response.get("www-authenticate"), Some("Bearer realm=\"vigie\""));
        }
        let token = [("Authorization", &*right)];
        // No page of a browser is ever invited.
        let preflight = ask("OPTIONS", &[("Origin", "http://evil.test")], None).await;
        assert_eq!((preflight.status, preflight.get("access-control-allow-origin")), (405, None));
        assert_eq!(preflight.get("allow"), Some("GET, HEAD, PUT"));
        assert_eq!(ask("PUT", &token, Some(&[b' '; 20_000])).await.status, 413);
        assert_eq!(ask("PUT", &token, Some(b"{\"state\": \"off\"}")).await.status, 400);
        assert_eq!(ask("PUT", &token, None).await.status, 400);
        assert_eq!(ask("GET", &[], None).await.json()["state"], "ready");
        // Nor where the traffic enters.
        let stray =
            protocol.connect(vigie.web()).await.request("PUT", &path(&a.url()), &token, Some(body)).await;
        assert_eq!(origin(&stray).len(), 1, "{protocol:?}: it goes to a server");
    }
    vigie.until_said("The API refuses a request").await;

    // Without a token in the configuration nobody may; without `insecure` nobody reads either.
    let server = Origin::start("a").await;
    let open = Vigie::start(&app("", &[server.url()])).await;
    assert_eq!(order(&open, Protocol::Http1, &server.url(), json!({"state": "drain"})).await.status, 403);
    let shut = static_text().replace("insecure: true, ", "");
    let shut = Vigie::with(&shut, &app("", &[server.url()])).await;
    for (target, fields, status) in [
        ("/api/version", &[][..], 401),
        (&*path(&server.url()), &[], 401),
        ("/api/version", &[("Authorization", &*right)], 200),
        ("/dashboard/", &[("Authorization", &*right)], 404),
    ] {
        let response = Protocol::Http1.connect(shut.admin()).await.request("GET", target, fields, None).await;
        assert_eq!(response.status, status, "{target} {fields:?}");
    }
    assert_eq!(commanded(&shut, &["drain", "app", &server.url()]).await.0, Some(0));
    assert_eq!(shut.get("/").await.status, 503);
}

/// New connections go elsewhere, those that there are go on, and the command waits for them.
#[tokio::test]
async fn tcp_servers_drain_too() {
    let (a, b) = (Talker::start("a").await, Talker::start("b").await);
    let text = crate::tcp::STATIC
        .replace("api: {insecure: true}", &format!("api: {{insecure: true, token: {TOKEN}}}"));
    let vigie = Vigie::with(&text, &everybody("", &[a.address, b.address])).await;
    let db = vigie.address("db");
    let (mut old, greeting) = greeted(db).await;
    let (first, other) = if greeting == "hello a\n" { (&a, "hello b\n") } else { (&b, "hello a\n") };
    let server = first.address.to_string();
    let (code, said, error) = commanded(&vigie, &["drain", "all", &server]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(said.contains("healthy, 1 in flight"), "{said}");
    for _ in 0..4 {
        assert_eq!(greeted(db).await.1, other);
    }
    old.send("still here").await.unwrap();
    assert_eq!(old.bytes(10).await.unwrap(), b"still here");
    vigie.until_metric("lb_server_admin_state", &[("service", "all@file"), ("url", &server)], 1.0).await;
    // A reload forgets nothing.
    vigie.write(&everybody("terminationDelay: 5000,", &[a.address, b.address]));
    let shown = eventually(PATIENCE, async || {
        vigie.json("/api/tcp/services/all@file").await["loadBalancer"]["terminationDelay"] == 5000
    });
    assert!(shown.await);
    assert_eq!(greeted(db).await.1, other);
    old.finish().await.unwrap();
    old.rest().await.unwrap();
    let (code, said, _) = commanded(&vigie, &["drain", "all", &server, "--wait", "--timeout", "10s"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (_, said, _) = commanded(&vigie, &["list"]).await;
    assert!(said.contains(&format!("all@file {server}: drain")), "{said}");
    let (code, ..) = commanded(&vigie, &["ready", "all", &server]).await;
    assert_eq!(code, Some(0));
    assert!(eventually(PATIENCE, async || greeted(db).await.1 != other).await);
}
