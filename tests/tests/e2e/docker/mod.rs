//! The Docker provider: most scenarios against a daemon of our own making, one against a real one.

mod daemon;
mod engine;

use engine::{Container, Engine, Refusal};
use lb_testkit::{Files, Gate, Load, Origin, PATIENCE, Script, eventually};

use crate::harness::{HOST, Protocol, Vigie, origin};

const STATIC: &str = "
core: {workers: 2}
entryPoints:
  web: {address: '127.0.0.1:0'}
  traefik: {address: '127.0.0.1:0'}
providers:
  docker: {endpoint: 'unix://{dir}/docker.sock', exposedByDefault: false, network: net}
  file: {filename: '{dir}/dynamic.yml'}
api: {insecure: true}
ping: {}
metrics: {prometheus: {addRoutersLabels: true}}
accessLog: {filePath: '{dir}/access.log', format: json}
";

/// Of every replica of `app`.
const APP: [(&str, &str); 3] = [
    ("traefik.enable", "true"),
    ("traefik.http.routers.app.rule", "PathPrefix(`/`)"),
    ("traefik.http.services.app.loadbalancer.server.scheme", "http"),
];

async fn start(engine: impl FnOnce(&Engine), dynamic: &str) -> (Vigie, Engine) {
    let files = Files::new();
    let daemon = Engine::start(files.path());
    engine(&daemon);
    (Vigie::over(files, STATIC, dynamic).await, daemon)
}

/// URLs of the servers of a service, as the API has them.
async fn servers(vigie: &Vigie, service: &str) -> Vec<String> {
    let shown = vigie.json(&format!("/api/http/services/{service}")).await;
    let servers = shown["loadBalancer"]["servers"].as_array().cloned().unwrap_or_default();
    servers.iter().map(|server| server["url"].as_str().expect("a URL").to_owned()).collect()
}

async fn until_servers(vigie: &Vigie, expected: &[&Origin]) {
    let mut expected: Vec<String> = expected.iter().map(|origin| origin.url()).collect();
    expected.sort();
    let mut last = Vec::new();
    let held = eventually(PATIENCE, async || {
        last = servers(vigie, "app@docker").await;
        last.sort();
        last == expected
    });
    assert!(held.await, "{last:?} are not {expected:?}\n{}", vigie.words());
}

async fn origins(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for number in 0..count {
        origins.push(Origin::start(&format!("app-{number}")).await);
    }
    origins
}

#[tokio::test]
async fn scaling_is_followed_without_losing_a_request() {
    let all = origins(5).await;
    let run = |engine: &Engine, number: usize| {
        engine.run(&format!("app-{number}"), Container::of(&all[number], &APP));
    };
    let (vigie, engine) = start(|engine| (0..3).for_each(|number| run(engine, number)), "{}").await;
    until_servers(&vigie, &[&all[0], &all[1], &all[2]]).await;
    let load = Load::new(vigie.web(), HOST).connections(4).duration(PATIENCE).start();
    run(&engine, 3);
    run(&engine, 4);
    until_servers(&vigie, &all.iter().collect::<Vec<_>>()).await;
    for number in [0, 2, 4] {
        engine.die(&format!("app-{number}"));
    }
    until_servers(&vigie, &[&all[1], &all[3]]).await;
    let before = all[0].requests();
    for _ in 0..8 {
        vigie.get("/").await;
    }
    assert_eq!(all[0].requests(), before);
    load.stop().await.assert_flawless();
    assert!(all.iter().all(|origin| origin.requests() > 0));
    assert_eq!(vigie.json("/health").await["status"], "healthy");
}

#[tokio::test]
async fn what_was_said_last_stays_while_the_daemon_is_gone() {
    let all = origins(2).await;
    let app = |number: usize| Container::of(&all[number], &APP);
    let (vigie, mut engine) = start(|engine| engine.put("app-0", app(0)), "{}").await;
    assert_eq!(origin(&vigie.get("/").await), "app-0");
    vigie.until_metric("lb_provider_stale", &[("provider", "docker")], 0.0).await;
    engine.stop();
    engine.put("app-1", app(1));
    vigie.until_metric("lb_provider_stale", &[("provider", "docker")], 1.0).await;
    assert_eq!(origin(&vigie.get("/").await), "app-0");
    let health = vigie.json("/health").await;
    assert_eq!(health["status"], "degraded");
    let reason = "provider docker: the daemon cannot be asked, what it said last is in force";
    assert_eq!(health["reasons"], serde_json::json!([reason]));
    // It depends on what was under way when it went.
    vigie.until_said("docker.sock: the Docker daemon ").await;
    // No event tells what has happened meanwhile.
    engine.resume();
    until_servers(&vigie, &[&all[0], &all[1]]).await;
    vigie.until_metric("lb_provider_stale", &[("provider", "docker")], 0.0).await;
    assert_eq!(vigie.json("/health").await["status"], "healthy");
}

#[tokio::test]
async fn a_daemon_that_comes_later_is_found() {
    let all = origins(1).await;
    let files = Files::new();
    let mut engine = Engine::start(files.path());
    engine.stop();
    let vigie = Vigie::over(files, STATIC, "{}").await;
    assert_eq!(vigie.get("/").await.status, 404);
    engine.put("app-0", Container::of(&all[0], &APP));
    engine.resume();
    vigie.until("the container serves", |response| response.status == 200).await;
}

#[tokio::test]
async fn requests_under_way_in_a_container_that_stops_are_finished() {
    for protocol in Protocol::BOTH {
        let all = origins(2).await;
        let gate = Gate::closed();
        all[0].on("/slow", Script::echo().gated(&gate));
        let app = |number: usize| Container::of(&all[number], &APP);
        let (vigie, engine) = start(|engine| engine.put("app-0", app(0)), "{}").await;
        let web = vigie.web();
        let slow = tokio::spawn(async move { protocol.get(web, "/slow").await });
        assert!(eventually(PATIENCE, async || all[0].requests() == 1).await);
        engine.put("app-1", app(1));
        engine.die("app-0");
        until_servers(&vigie, &[&all[1]]).await;
        gate.let_one_pass();
        assert_eq!(origin(&slow.await.unwrap()), "app-0", "{protocol:?}");
    }
}

/// Nobody waits until it refuses connections, and looks that find it still running change nothing.
#[tokio::test]
async fn a_container_that_is_told_to_stop_leaves_at_once() {
    let all = origins(3).await;
    let app = |number: usize| Container::of(&all[number], &APP);
    let (vigie, engine) =
        start(|engine| (0..2).for_each(|n| engine.put(&format!("app-{n}"), app(n))), "{}").await;
    until_servers(&vigie, &[&all[0], &all[1]]).await;
    let listening = eventually(PATIENCE, async || engine.asked("/events") == 1);
    assert!(listening.await);
    // A reload of what is inside.
    engine.signal("app-1", 1);
    engine.signal("app-0", 15);
    until_servers(&vigie, &[&all[1]]).await;
    engine.run("app-2", app(2));
    until_servers(&vigie, &[&all[1], &all[2]]).await;
    engine.run("app-0", app(0));
    until_servers(&vigie, &[&all[0], &all[1], &all[2]]).await;
    // The last one stays to its end.
    for number in [0, 1, 2] {
        engine.signal(&format!("app-{number}"), 15);
    }
    until_servers(&vigie, &[&all[2]]).await;
    engine.run("app-0", app(0));
    until_servers(&vigie, &[&all[0], &all[2]]).await;
}

#[tokio::test]
async fn a_container_serves_once_it_is_healthy() {
    let all = origins(2).await;
    let app = |number: usize| Container::of(&all[number], &APP);
    let (vigie, engine) = start(
        |engine| {
            engine.put("app-0", app(0));
            engine.put("app-1", app(1).health("starting"));
        },
        "{}",
    )
    .await;
    assert_eq!(servers(&vigie, "app@docker").await, [all[0].url()]);
    engine.run("app-1", app(1).health("healthy"));
    until_servers(&vigie, &[&all[0], &all[1]]).await;
    engine.run("app-1", app(1).health("unhealthy"));
    until_servers(&vigie, &[&all[0]]).await;
}

#[tokio::test]
async fn files_and_containers_name_each_other() {
    let all = origins(1).await;
    let labels = [
        ("traefik.enable", "true"),
        ("traefik.http.routers.app.rule", "PathPrefix(`/labels`)"),
        ("traefik.http.routers.app.middlewares", "mark@file, own"),
        ("traefik.http.middlewares.own.headers.customresponseheaders.X-Own", "docker"),
    ];
    let dynamic = "
http:
  routers:
    app: {rule: 'PathPrefix(`/file`)', service: app-0@docker, middlewares: [own@docker]}
  middlewares:
    mark: {headers: {customResponseHeaders: {X-Mark: file}}}
";
    let (vigie, _engine) =
        start(|engine| engine.put("app-0", Container::of(&all[0], &labels)), dynamic).await;
    let response = vigie.get("/labels").await;
    assert_eq!((response.get("X-Mark"), response.get("X-Own")), (Some("file"), Some("docker")));
    let response = vigie.get("/file").await;
    assert_eq!((origin(&response).as_str(), response.get("X-Own")), ("app-0", Some("docker")));
    let router = vigie.json("/api/http/routers/app@docker").await;
    assert_eq!((&router["provider"], &router["status"]), (&"docker".into(), &"enabled".into()));
    let used = &vigie.json("/api/http/services/app-0@docker").await["usedBy"];
    assert_eq!(used, &serde_json::json!(["app@docker", "app@file"]));
    assert_eq!(vigie.json("/api/overview").await["providers"], serde_json::json!(["Docker", "File"]));
    let metrics = vigie.metrics().await;
    let requests = |router: &str| {
        let labels = [("router", router), ("service", "app-0@docker"), ("code", "200")];
        metrics.value("traefik_router_requests_total", &labels)
    };
    assert_eq!((requests("app@docker"), requests("app@file")), (Some(1.0), Some(1.0)));
    let log = vigie.files.path().join("access.log");
    let logged = eventually(PATIENCE, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("\"RouterName\":\"app@docker\"") && text.contains("\"ServiceName\":\"app-0@docker\"")
    });
    assert!(logged.await);
}

#[tokio::test]
async fn a_file_that_names_a_service_of_containers_waits_for_them() {
    let all = origins(1).await;
    let labels = [("traefik.enable", "true"), ("traefik.http.routers.app.rule", "Path(`/labels`)")];
    let dynamic = "http: {routers: {app: {rule: 'Path(`/`)', service: app-0@docker}}}";
    let (vigie, engine) = start(|engine| engine.put("app-0", Container::of(&all[0], &labels)), dynamic).await;
    assert_eq!(origin(&vigie.get("/").await), "app-0");
    engine.die("app-0");
    vigie.until("nobody is there", |response| response.status == 503).await;
    assert_eq!(vigie.get("/labels").await.status, 404);
    engine.run("app-0", Container::of(&all[0], &labels));
    vigie.until("it is back", |response| response.status == 200).await;
}

/// What is known of a server outlives the coming and going of others.
#[tokio::test]
async fn servers_that_stay_keep_their_state() {
    let all = origins(3).await;
    all[0].on("/health", Script::status(503));
    let check = [
        ("traefik.http.services.app.loadbalancer.healthcheck.path", "/health"),
        ("traefik.http.services.app.loadbalancer.healthcheck.interval", "1s"),
    ];
    let labels = [APP.as_slice(), &check].concat();
    let app = |number: usize| Container::of(&all[number], &labels);
    let (vigie, engine) = start(
        |engine| {
            engine.put("app-0", app(0));
            engine.put("app-1", app(1));
        },
        "{}",
    )
    .await;
    let status = async || {
        let shown = vigie.json("/api/http/services/app@docker").await;
        shown["serverStatus"][all[0].url()].as_str().map(str::to_owned)
    };
    assert!(eventually(PATIENCE, async || status().await.as_deref() == Some("DOWN")).await);
    engine.run("app-2", app(2));
    until_servers(&vigie, &[&all[0], &all[1], &all[2]]).await;
    assert_eq!(status().await.as_deref(), Some("DOWN"));
}

#[tokio::test]
async fn a_mistake_in_labels_is_told_and_spoils_nothing_else() {
    let all = origins(2).await;
    let bad = [
        ("traefik.enable", "true"),
        ("traefik.http.routers.bad.rule", "Hots(`a`)"),
        ("traefik.http.services.bad.loadbalancer.passhostheader", "maybe"),
    ];
    let (vigie, engine) = start(|engine| engine.put("app-0", Container::of(&all[0], &APP)), "{}").await;
    engine.run("bad", Container::of(&all[1], &bad));
    vigie.until_said("container bad: traefik.http.routers.bad.rule: ").await;
    vigie.until_said("container bad: traefik.http.services.bad.loadbalancer.passhostheader: ").await;
    assert_eq!(origin(&vigie.get("/").await), "app-0");
    let router = vigie.json("/api/http/routers/bad@docker").await;
    assert_eq!(router["status"], "disabled");
    engine.die("bad");
    let gone = eventually(PATIENCE, async || vigie.json("/health").await["status"] == "healthy");
    assert!(gone.await, "{}", vigie.words());
}

#[tokio::test]
async fn a_container_that_cannot_be_looked_at_holds_up_no_other() {
    let all = origins(3).await;
    let files = Files::new();
    let engine = Engine::start(files.path());
    let refusals = [
        ("a", Refusal::Status500, "answered `GET /containers/a/json` with status 500"),
        ("b", Refusal::Rubbish, "gave an answer that is not understood"),
        ("c", Refusal::Broken, "has broken the connection"),
        ("d", Refusal::Silence, "gives no answer in time"),
    ];
    let app = |number: usize| Container::of(&all[number], &APP);
    for (name, refusal, _) in refusals {
        engine.put(name, app(2).refusing(refusal));
    }
    engine.put("e", app(0));
    let hasty = STATIC.replace("network: net", "network: net, httpClientTimeout: 400ms");
    let vigie = Vigie::over(files, &hasty, "{}").await;
    assert_eq!(servers(&vigie, "app@docker").await, [all[0].url()]);
    for (name, _, reason) in refusals {
        vigie.until_said(&format!("container {name}: it is left out: the Docker daemon {reason}")).await;
    }
    engine.run("f", app(1));
    until_servers(&vigie, &[&all[0], &all[1]]).await;
    // What is known of one stays, as long as it is there.
    engine.run("e", app(0).refusing(Refusal::Rubbish));
    vigie.until_said("container e: what was known of it stays: ").await;
    assert_eq!(origin(&vigie.get("/").await), "app-0");
    for (name, ..) in refusals {
        engine.run(name, app(2));
    }
    until_servers(&vigie, &[&all[0], &all[1], &all[2]]).await;
    engine.die("e");
    until_servers(&vigie, &[&all[1], &all[2]]).await;
    let healthy = eventually(PATIENCE, async || vigie.json("/health").await["status"] == "healthy");
    assert!(healthy.await, "{}", vigie.words());
}

#[tokio::test]
async fn without_watch_only_a_signal_asks_again() {
    let all = origins(2).await;
    let files = Files::new();
    let engine = Engine::start(files.path());
    engine.put("app-0", Container::of(&all[0], &APP));
    let unwatched = STATIC.replace("network: net", "network: net, watch: false");
    let vigie = Vigie::over(files, &unwatched, "{}").await;
    assert_eq!(engine.asked("/events"), 0);
    engine.run("app-1", Container::of(&all[1], &APP));
    assert_eq!(servers(&vigie, "app@docker").await, [all[0].url()]);
    vigie.signal(rustix::process::Signal::HUP);
    until_servers(&vigie, &[&all[0], &all[1]]).await;
}

/// An event's burst is one look, and a health check's own events are none.
#[tokio::test]
async fn a_burst_of_events_is_one_look() {
    let all = origins(2).await;
    let (vigie, engine) = start(|engine| engine.put("app-0", Container::of(&all[0], &APP)), "{}").await;
    let listening = eventually(PATIENCE, async || engine.asked("/containers/json") == 2);
    assert!(listening.await, "one look at start, and one with the events");
    for _ in 0..20 {
        engine.run("app-0", Container::of(&all[0], &APP));
    }
    engine.run("app-1", Container::of(&all[1], &APP));
    until_servers(&vigie, &[&all[0], &all[1]]).await;
    assert!(engine.asked("/containers/json") <= 6, "{}", engine.asked("/containers/json"));
}
