//! What an operator sees of the traffic: metrics, access log, diagnostics.

use std::io::Read as _;
use std::path::Path;

use lb_testkit::{Client, Gate, Origin, PATIENCE, Script, eventually};
use rustix::process::Signal;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, app_with};

/// Every metric of the reference system with right values, for both protocols.
#[tokio::test]
async fn the_metrics_of_the_reference_system_count_right() {
    let gate = Gate::closed();
    let servers = [Origin::start("api-1").await, Origin::start("api-2").await];
    servers[0].on("/held", Script::echo().gated(&gate));
    servers[1].on("/held", Script::echo().gated(&gate));
    for server in &servers {
        server.on("/missing", Script::status(404));
    }
    let text = STATIC.replace("prometheus: {", "prometheus: {buckets: [0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10], ");
    let check = "healthCheck: {path: /health, interval: 100ms, timeout: 2s}";
    let urls: Vec<_> = servers.iter().map(Origin::url).collect();
    let vigie = Vigie::with(&text, &app(check, &urls)).await;
    let instance = [("instance", urls[0].as_str())];
    let probed =
        async |url| vigie.metrics().await.value("health_check_total", &[("instance", url)]) >= Some(1.0);
    for url in &urls {
        assert!(eventually(PATIENCE, async || probed(url).await).await);
    }
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for n in 0..10 {
            connection.request("GET", &format!("/users/{n}?token=secret"), &[], None).await;
        }
        for _ in 0..4 {
            connection.request("POST", "/users", &[], Some(b"12345")).await;
        }
        for _ in 0..2 {
            connection.request("DELETE", "/missing", &[], None).await;
        }
        // A method that nobody has heard of must not become a label.
        connection.request("BREW", "/pot", &[], None).await;
        connection.request("BREW", "/pot", &[], None).await;
    }
    let metrics = vigie.metrics().await;
    let count = |labels: &[(&str, &str)]| {
        metrics.value("lb_requests_total", &[&instance[..], labels].concat()).unwrap_or(0.0)
    };
    // Two protocols, two servers in turn: this one has seen half of each.
    assert_eq!(count(&[("method", "GET"), ("status", "200"), ("path", "app@file")]), 10.0);
    assert_eq!(count(&[("method", "POST"), ("status", "200"), ("path", "app@file")]), 4.0);
    assert_eq!(count(&[("method", "DELETE"), ("status", "404"), ("path", "app@file")]), 2.0);
    assert_eq!(count(&[]), 18.0);
    assert_eq!(
        metrics.labels("lb_requests_total", "path"),
        ["app@file"],
        "bounded: the router, not the path"
    );
    assert_eq!(metrics.labels("lb_requests_total", "method"), ["DELETE", "EXTENSION_METHOD", "GET", "POST"]);
    assert_eq!(metrics.value("request_distribution_total", &instance), Some(18.0));
    let duration = |suffix: &str, labels: &[(&str, &str)]| {
        metrics.value(&format!("request_duration_seconds_{suffix}"), &[&instance[..], labels].concat())
    };
    assert_eq!(duration("count", &[]), Some(18.0));
    assert!(duration("sum", &[]).unwrap() > 0.0);
    for (bound, expected) in [("10", Some(18.0)), ("+Inf", Some(18.0))] {
        assert_eq!(duration("bucket", &[("le", bound)]), expected, "{bound}");
    }
    assert_eq!(
        metrics.labels("request_duration_seconds_bucket", "le"),
        ["+Inf", "0.01", "0.05", "0.1", "0.5", "1", "10", "2", "5"]
    );
    assert_eq!(
        metrics.labels("health_check_duration_seconds_bucket", "le"),
        ["+Inf", "0.01", "0.05", "0.1", "0.5", "1", "2", "5"]
    );
    assert_eq!(metrics.value("active_connections", &instance), Some(0.0));
    assert!(metrics.value("health_check_total", &[instance[0], ("check_type", "http")]).unwrap() >= 1.0);
    assert_eq!(metrics.value("health_check_failures_total", &instance).unwrap_or(0.0), 0.0);

    // Traefik's own names.
    let entry = [("entrypoint", "web")];
    assert_eq!(metrics.value("traefik_entrypoint_requests_total", &entry), Some(36.0));
    let posts = [entry[0], ("method", "POST"), ("code", "200"), ("protocol", "http")];
    assert_eq!(metrics.value("traefik_entrypoint_requests_total", &posts), Some(8.0));
    assert!(metrics.value("traefik_entrypoint_requests_bytes_total", &posts).unwrap() >= 40.0);
    assert_eq!(metrics.value("traefik_service_requests_total", &[("service", "app@file")]), Some(36.0));
    assert_eq!(
        metrics.value("traefik_router_requests_total", &[("router", "app@file"), ("service", "app@file")]),
        Some(36.0)
    );
    assert_eq!(metrics.value("traefik_config_reloads_total", &[]), Some(1.0));
    assert!(metrics.value("traefik_config_last_reload_success", &[]).unwrap() > 1e9);

    // Gauges go up and come down.
    let web = vigie.web();
    let held: Vec<_> =
        Protocol::BOTH.map(|protocol| tokio::spawn(async move { protocol.get(web, "/held").await })).into();
    vigie.until_metric("active_connections", &[], 2.0).await;
    vigie.until_metric("active_connections", &instance, 1.0).await;
    (0..2).for_each(|_| gate.let_one_pass());
    for request in held {
        assert_eq!(request.await.unwrap().status, 200);
    }
    vigie.until_metric("active_connections", &[], 0.0).await;
    vigie.until_metric("traefik_open_connections", &entry, 0.0).await;
    let client = Client::connect(web).await.unwrap();
    vigie.until_metric("traefik_open_connections", &entry, 1.0).await;
    drop(client);
    vigie.until_metric("traefik_open_connections", &entry, 0.0).await;
}

/// What is refused before routing is counted by reason.
#[tokio::test]
async fn refused_requests_are_counted_by_reason() {
    let server = Origin::start("api").await;
    let vigie = Vigie::start(&app("", &[server.url()])).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/9.1\r\nHost: a\r\n\r\n", 505),
        ("\u{1}\r\n\r\n", 400),
    ] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(request).await.unwrap();
        let response = client.response("GET").await.unwrap();
        assert_eq!((response.status, response.keeps_alive()), (status, false), "{request:?}");
    }
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_refused_requests_total", &[("entrypoint", "web")]), Some(4.0));
    assert!(metrics.labels("lb_refused_requests_total", "reason").len() >= 3);
    assert_eq!(server.requests(), 0);
}

async fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || -> Vec<String> {
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    let written = eventually(PATIENCE, async || read().len() >= count).await;
    assert!(written, "{} lines in {}, not {count}", read().len(), path.display());
    read()
}

#[tokio::test]
async fn the_access_log_tells_each_request_in_json() {
    let server = Origin::start("api").await;
    server.on("/made", Script::answer(201, &[("X-Own", "1")], "made"));
    let log = "accessLog: {filePath: '{dir}/access.log', format: json, fields: {headers: {names: {User-Agent: keep, \
               Authorization: redact}}}}\n";
    let vigie = Vigie::with(&format!("{STATIC}{log}"), &app("", &[server.url()])).await;
    let path = vigie.files.path().join("access.log");
    for (turn, protocol) in Protocol::BOTH.into_iter().enumerate() {
        let fields = [("user-agent", "test/1"), ("authorization", "Basic c2VjcmV0"), ("x-other", "dropped")];
        protocol.connect(vigie.web()).await.request("POST", "/made?a=b", &fields, Some(b"12345")).await;
        let line = lines(&path, turn + 1).await.pop().unwrap();
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        let version = if protocol == Protocol::Http1 { "HTTP/1.1" } else { "HTTP/2.0" };
        for (name, value) in [
            ("ClientHost", "127.0.0.1".into()),
            ("RequestMethod", "POST".into()),
            ("RequestPath", "/made?a=b".into()),
            ("RequestHost", HOST.into()),
            ("RequestProtocol", version.into()),
            ("RequestScheme", "http".into()),
            ("RequestContentSize", 5.into()),
            ("DownstreamStatus", 201.into()),
            ("DownstreamContentSize", 4.into()),
            ("OriginStatus", 201.into()),
            ("RouterName", "app@file".into()),
            ("ServiceName", "app@file".into()),
            ("ServiceURL", server.url().into()),
            ("ServiceAddr", server.address().to_string().into()),
            ("entryPointName", "web".into()),
            ("RetryAttempts", 0.into()),
            ("request_User-Agent", "test/1".into()),
            ("request_Authorization", "REDACTED".into()),
            ("level", "info".into()),
        ] {
            let value: serde_json::Value = value;
            assert_eq!(entry[name], value, "{protocol:?} {name}: {line}");
        }
        assert!(entry["Duration"].as_u64().unwrap() >= entry["OriginDuration"].as_u64().unwrap(), "{line}");
        assert!(!line.contains("dropped") && !line.contains("c2VjcmV0"), "{line}");
    }
    // What no router takes is logged as well.
    vigie.write("{}\n");
    vigie.until("nothing is routed", |response| response.status == 404).await;
    let found = eventually(PATIENCE, async || {
        lines(&path, 3).await.iter().any(|line| line.contains("\"DownstreamStatus\":404"))
    });
    assert!(found.await);
}

/// What a client has sent counts whoever failed then.
#[tokio::test]
async fn the_body_of_a_request_that_failed_is_counted() {
    let server = Origin::start("api").await;
    server.on("/dies", Script::no_answer());
    let log = "accessLog: {filePath: '{dir}/access.log', format: json}\n";
    let vigie = Vigie::with(&format!("{STATIC}{log}"), &app("", &[server.url()])).await;
    let path = vigie.files.path().join("access.log");
    for (turn, protocol) in Protocol::BOTH.into_iter().enumerate() {
        let answer = protocol.connect(vigie.web()).await.request("POST", "/dies", &[], Some(b"12345")).await;
        assert_eq!(answer.status, 502);
        let line = lines(&path, turn + 1).await.pop().unwrap();
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(entry["RequestContentSize"], 5, "{protocol:?}: {line}");
    }
    let bytes = vigie.metrics().await.value("traefik_service_requests_bytes_total", &[("code", "502")]);
    assert_eq!(bytes, Some(10.0));
}

/// Paths and headers are those of Traefik, which logs what Go made of a request.
#[tokio::test]
async fn the_json_log_has_the_sanitized_path_and_the_headers_as_received() {
    let server = Origin::start("api").await;
    let log =
        "accessLog: {filePath: '{dir}/access.log', format: json, fields: {headers: {defaultMode: keep}}}\n";
    let trusting = STATIC.replace(
        "web: {address: '127.0.0.1:0'}",
        "web: {address: '127.0.0.1:0', forwardedHeaders: {trustedIPs: [127.0.0.1], connection: [X-Kept]}}",
    );
    assert_ne!(trusting, STATIC);
    let dynamic = app_with("middlewares: [inside]", "", &[server.url()])
        + "  middlewares: {inside: {ipAllowList: {sourceRange: [203.0.113.9], ipStrategy: {depth: 1}}}}\n";
    let vigie = Vigie::with(&format!("{trusting}{log}"), &dynamic).await;
    let path = vigie.files.path().join("access.log");
    for (turn, (client, status)) in [("203.0.113.9", 200), ("203.0.113.8", 403)].into_iter().enumerate() {
        let fields = [
            ("x-forwarded-for", client),
            ("connection", "X-Kept, X-Gone"),
            ("x-kept", "1"),
            ("x-gone", "2"),
            ("proxy-authorization", "3"),
        ];
        let mut connection = Protocol::Http1.connect(vigie.web()).await;
        connection.request("GET", "/%61//b/../c?d=%65", &fields, None).await;
        let line = lines(&path, turn + 1).await.pop().unwrap();
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(entry["DownstreamStatus"], status, "{line}");
        assert_eq!(entry["RequestPath"], "/a/c?d=%65", "{line}");
        assert_eq!(entry["request_X-Forwarded-For"], client, "{line}");
        for (name, value) in [("Connection", "X-Kept"), ("X-Kept", "1"), ("Proxy-Authorization", "3")] {
            assert_eq!(entry[format!("request_{name}")], value, "{line}");
        }
        assert!(entry.get("request_Host").is_none() && entry.get("request_X-Gone").is_none(), "{line}");
        assert_eq!(line.contains("\"origin_"), status == 200, "{line}");
        assert!(line.contains("\"downstream_"), "{line}");
    }
    let asked = server.last();
    assert_eq!((asked.get("x-kept"), asked.get("proxy-authorization")), (None, None));
}

#[tokio::test]
async fn the_access_log_speaks_clf_and_is_reopened() {
    let server = Origin::start("api").await;
    let log = "accessLog: {filePath: '{dir}/access.log'}\n";
    let vigie = Vigie::with(&format!("{STATIC}{log}"), &app("", &[server.url()])).await;
    let path = vigie.files.path().join("access.log");
    let rotated = vigie.files.path().join("access.log.1");
    vigie.get("/one").await;
    let line = lines(&path, 1).await.remove(0);
    let (start, end) = (line.split(" [").next().unwrap(), line.split("] ").nth(1).unwrap());
    assert_eq!(start, "127.0.0.1 - -", "{line}");
    assert!(end.starts_with("\"GET /one HTTP/1.1\" 200 "), "{line}");
    assert!(end.contains(&format!("\"-\" \"-\" 1 \"app@file\" \"{}\" ", server.url())), "{line}");
    assert!(end.ends_with("ms"), "{line}");

    // logrotate: move away, then say so. No line is lost, none is written twice.
    std::fs::rename(&path, &rotated).unwrap();
    vigie.get("/two").await;
    lines(&rotated, 2).await;
    vigie.signal(Signal::USR1);
    let mut asked = 2;
    while !path.exists() {
        vigie.get("/more").await;
        asked += 1;
        assert!(asked < 5000, "the signal is heeded\n{}", vigie.words());
    }
    vigie.get("/last").await;
    let last = async || lines(&path, 1).await.iter().any(|line| line.contains("/last"));
    assert!(eventually(PATIENCE, last).await);
    assert_eq!(lines(&rotated, 2).await.len() + lines(&path, 1).await.len(), asked + 1);
}

/// A log that cannot be written is no reason to stop serving; it is said.
#[tokio::test]
async fn an_unwritable_log_stops_no_traffic() {
    let server = Origin::start("api").await;
    let log = "accessLog: {filePath: /dev/full}\n";
    let vigie = Vigie::with(&format!("{STATIC}{log}"), &app("", &[server.url()])).await;
    for _ in 0..20 {
        assert_eq!(vigie.get("/").await.status, 200);
    }
    vigie.until_said("/dev/full").await;
    assert_eq!(vigie.get("/").await.status, 200);
}

/// `log` as Traefik has it: level, format and file; secrets stay out.
#[tokio::test]
async fn diagnostics_go_where_they_are_sent() {
    let text =
        STATIC.replace("ping: {}", "ping: {}\nlog: {level: INFO, format: json, filePath: '{dir}/vigie.log'}");
    let auth = "middlewares: [auth]";
    let server = Origin::start("api").await;
    let dynamic = format!(
        "{}  middlewares:\n    auth: {{basicAuth: {{users: ['someone:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=']}}}}\n",
        app_with(auth, "", &[server.url()])
    );
    let mut vigie = Vigie::with(&text, &dynamic).await;
    vigie.write("http: [\n");
    vigie.until_metric("lb_config_reload_failures_total", &[], 1.0).await;
    vigie.signal(Signal::TERM);
    assert!(vigie.ended(PATIENCE).await.success());
    let log = std::fs::read_to_string(vigie.files.path().join("vigie.log")).unwrap();
    let entries: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(entries.iter().all(|entry| entry["level"].is_string() && entry["time"].is_string()), "{log}");
    let refused = entries.iter().find(|entry| entry["level"] == "error").expect("an error");
    assert!(refused["message"].as_str().unwrap().contains("dynamic.yml:"), "{refused}");
    assert!(!log.contains("5en6G6MezRroT3XKqkdPOmY"), "{log}");
}

/// `addInternals` counts Vigie's own routers at every level, and `addServicesLabels: false` leaves no series of services.
#[tokio::test]
async fn internal_routers_and_services_are_counted_as_asked() {
    let origin = Origin::start("origin").await;
    let counted =
        "metrics: {addInternals: true, prometheus: {addRoutersLabels: true, addServicesLabels: false}}";
    let text = STATIC.replace("metrics: {prometheus: {addRoutersLabels: true}}", counted);
    // Nobody listens on the other one: one request at least is tried again.
    let check = "healthCheck: {path: /health, interval: 30s, unhealthyThreshold: 9}";
    let vigie = Vigie::with(&text, &app(check, &[origin.url(), "http://127.0.0.1:1".to_owned()])).await;
    for _ in 0..2 {
        assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 200);
    }
    assert_eq!(Protocol::Http1.get(vigie.admin(), "/ping").await.status, 200);
    let routed = "traefik_router_requests_total";
    vigie.until_metric(routed, &[("router", "ping@internal"), ("service", "ping@internal")], 1.0).await;
    vigie.until_metric(routed, &[("router", "app@file"), ("service", "app@file")], 2.0).await;
    let metrics = vigie.metrics().await;
    assert!(metrics.value("lb_retries_total", &[]) >= Some(1.0));
    for name in
        ["traefik_service_requests_total", "traefik_service_server_up", "traefik_service_retries_total"]
    {
        assert_eq!(metrics.value(name, &[]), None, "{name}");
    }
    assert!(metrics.value("instance_health", &[]).is_some(), "those are of servers");
}

/// What an entry point says of logs and metrics holds for requests without a router as well.
#[tokio::test]
async fn an_entry_point_that_is_not_observed_is_silent_about_unknown_hosts() {
    let origin = Origin::start("origin").await;
    let quiet = "web: {address: '127.0.0.1:0'}\n  quiet: {address: '127.0.0.1:0', observability: {accessLogs: false, metrics: false}}";
    let text = STATIC.replace("web: {address: '127.0.0.1:0'}", quiet);
    let log = "accessLog: {filePath: '{dir}/access.log', format: json}\n";
    let vigie =
        Vigie::with(&format!("{text}{log}"), &app_with("entryPoints: [web]", "", &[origin.url()])).await;
    for _ in 0..4 {
        assert_eq!(Protocol::Http1.get(vigie.address("quiet"), "/").await.status, 404);
    }
    for _ in 0..4 {
        assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 200);
    }
    let counted = "traefik_entrypoint_requests_total";
    vigie.until_metric(counted, &[("entrypoint", "web")], 4.0).await;
    assert_eq!(vigie.metrics().await.value(counted, &[("entrypoint", "quiet")]), None);
    let logged = lines(&vigie.files.path().join("access.log"), 4).await;
    assert!(!logged.iter().any(|line| line.contains("quiet")), "{logged:?}");
}

#[tokio::test]
async fn metrics_are_compressed_for_whoever_takes_gzip() {
    let vigie = Vigie::start(&app("", &["http://127.0.0.1:9".to_owned()])).await;
    for (accepted, coding) in [("gzip", Some("gzip")), ("br, gzip;q=0.5", Some("gzip")), ("gzip;q=0", None)] {
        let mut client = Client::connect(vigie.admin()).await.unwrap();
        let answer = client
            .request("GET", "localhost", "/metrics", &[("Accept-Encoding", accepted)], None)
            .await
            .unwrap();
        assert_eq!(answer.get("content-encoding"), coding, "{accepted}");
        let mut text = String::new();
        let read = match coding {
            Some(_) => flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text),
            None => (&answer.body[..]).read_to_string(&mut text),
        };
        read.unwrap();
        assert!(text.contains("\ntraefik_config_reloads_total 1"), "{accepted}: {text}");
    }
}
