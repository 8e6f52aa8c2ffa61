//! `providers.http`.

use lb_testkit::{Authority, Files, Origin, PATIENCE, Script, eventually};

use super::{over, start, until_routers, until_stale};

fn router(name: &str) -> String {
    format!("http: {{routers: {{{name}: {{rule: 'Path(`/{name}`)', service: noop@internal}}}}}}")
}

fn provider(endpoint: &str) -> String {
    format!("{{http: {{endpoint: '{endpoint}', pollInterval: 20ms, pollTimeout: 2s}}}}")
}

#[tokio::test]
async fn what_an_endpoint_answers_is_followed_and_rubbish_is_not() {
    let mut endpoint = Origin::with("endpoint", |_| Script::status(404)).await;
    endpoint.on("/conf", Script::text(router("a")));
    let url = format!("{}/conf?of=vigie", endpoint.url());
    let vigie = start(&provider(&url)).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    until_stale(&vigie, "http", false).await;
    // JSON is YAML, and what stays the same is not built again.
    endpoint.on(
        "/conf",
        Script::text(r#"{"http": {"routers": {"b": {"rule": "Path(`/b`)", "service": "noop@internal"}}}}"#),
    );
    until_routers(&vigie, "http", &["b"]).await;
    let built = || async { vigie.metrics().await.value("traefik_config_reloads_total", &[]) };
    let (before, asked) = (built().await, endpoint.requests());
    assert!(eventually(PATIENCE, async || endpoint.requests() > asked + 3).await);
    assert_eq!(built().await, before);
    // Neither statuses nor bodies that are no configuration take anything away.
    let html = "<html>Please sign in</html>";
    for (script, words) in [
        (Script::status(500), format!("{url}: the endpoint answered with status 500")),
        (Script::answer(204, &[], ""), format!("{url}: the endpoint answered with status 204")),
        (Script::text(html), format!("{url}:1:1: a configuration is a map")),
        (Script::text(""), format!("{url}: the answer is empty")),
        (Script::text("{\"error\": \"no\"}"), format!("{url}: the answer has none of the sections")),
        (
            Script::text("http:\n  routrs: {}\n"),
            format!("{url}:2:3: http.routrs: there is no key `routrs` here"),
        ),
        (Script::reset(), format!("{url}: the endpoint has broken the connection")),
        (Script::close_in_body(1000, "http: {}"), format!("{url}: the endpoint has broken the connection")),
    ] {
        endpoint.on("/conf", script);
        vigie.until_said(&words).await;
        until_stale(&vigie, "http", true).await;
        until_routers(&vigie, "http", &["b"]).await;
        assert_eq!(vigie.get("/b").await.status, 418);
        endpoint.on("/conf", Script::text(router("b")));
        until_stale(&vigie, "http", false).await;
    }
    endpoint.stop().await;
    vigie.until_said("the endpoint cannot be reached: Connection refused").await;
    until_stale(&vigie, "http", true).await;
    assert_eq!(vigie.get("/b").await.status, 418);
    endpoint.on("/conf", Script::text("{}"));
    endpoint.restart().await;
    until_routers(&vigie, "http", &[]).await;
    until_stale(&vigie, "http", false).await;
}

#[tokio::test]
async fn the_same_refusal_is_told_once() {
    let pages = std::sync::atomic::AtomicUsize::new(0);
    let page = move |_: &lb_testkit::Request| {
        let page = pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Script::text(format!("<html>An error, at {page}</html>"))
    };
    let endpoint = Origin::with("endpoint", page).await;
    let vigie = start(&provider(&endpoint.url())).await;
    vigie.until_said("a configuration is a map").await;
    assert!(eventually(PATIENCE, async || endpoint.requests() > 5).await);
    assert_eq!(vigie.metrics().await.value("lb_config_reload_failures_total", &[]), Some(1.0));
}

#[tokio::test]
async fn another_reason_is_told_as_well() {
    let endpoint = Origin::with("endpoint", |_| Script::status(503)).await;
    let vigie = start(&provider(&endpoint.url())).await;
    vigie.until_said("the endpoint answered with status 503").await;
    endpoint.on("/", Script::status(401));
    vigie.until_said("the endpoint answered with status 401").await;
    let health = vigie.json("/health").await;
    let told =
        health["configuration"]["stale"][0].to_string() + &health["configuration"]["lastError"].to_string();
    assert!(told.contains("401") && !told.contains("503"), "{health}");
    endpoint.on("/", Script::status(503));
    let asked = endpoint.requests();
    assert!(eventually(PATIENCE, async || endpoint.requests() > asked + 1).await);
    assert_eq!(vigie.metrics().await.value("lb_config_reload_failures_total", &[]), Some(2.0));
}

#[tokio::test]
async fn an_endpoint_that_comes_later_is_found() {
    let mut endpoint = Origin::with("endpoint", |_| Script::text(router("a"))).await;
    endpoint.stop().await;
    let vigie = start(&provider(&endpoint.url())).await;
    assert_eq!(vigie.get("/a").await.status, 404);
    assert_eq!(vigie.json("/ready").await["status"], "not ready");
    endpoint.restart().await;
    until_routers(&vigie, "http", &["a"]).await;
    assert_eq!(vigie.json("/ready").await["status"], "ready");
    until_stale(&vigie, "http", false).await;
}

#[tokio::test]
async fn one_router_that_is_broken_keeps_its_last_good_version() {
    let endpoint = Origin::with("endpoint", |_| Script::text(router("a"))).await;
    let vigie = start(&provider(&endpoint.url())).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    endpoint.on("/", Script::text(router("a").replace("Path(", "Pth(")));
    vigie.until_said("the router a@http is in quarantine, its last good version is used").await;
    assert_eq!(vigie.get("/a").await.status, 418);
}

#[tokio::test]
async fn tls_headers_and_a_limit_of_size() {
    let (files, authority) = (Files::new(), Authority::new("ca"));
    let other = Authority::new("clients");
    let certified = authority.issue(&["127.0.0.1"]);
    other.issue_client("vigie").write(files.path(), "client");
    files.write("ca.pem", authority.pem());
    let tls = certified.server_config_requiring(&["h2", "http/1.1"], &other);
    let endpoint = Origin::tls("endpoint", tls, |_| Script::text(router("a"))).await;
    let provider = format!(
        "{{http: {{endpoint: 'https://me:word@{}/x', pollInterval: 20ms, maxResponseBodySize: 100, \
         headers: {{Host: config.test, X-Key: k}}, tls: {{ca: '{{dir}}/ca.pem', cert: '{{dir}}/client.crt', key: '{{dir}}/client.key'}}}}}}",
        endpoint.address()
    );
    let vigie = over(files, &provider).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    let seen = endpoint.last();
    assert_eq!((seen.get("Host"), seen.get("X-Key")), (Some("config.test"), Some("k")));
    assert_eq!((seen.get("Authorization"), &*seen.target), (Some("Basic bWU6d29yZA=="), "/x"));
    for long in [
        Script::text("#".repeat(101)),
        Script::chunked(&["#".repeat(101).as_str()], std::time::Duration::ZERO),
    ] {
        endpoint.on("/x", long);
        vigie.until_said("the endpoint gave an answer of more than 100 bytes").await;
        until_stale(&vigie, "http", true).await;
        endpoint.on("/x", Script::text(router("a")));
        until_stale(&vigie, "http", false).await;
    }
    assert!(!vigie.words().contains("word"), "{}", vigie.words());
}
