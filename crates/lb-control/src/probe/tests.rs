use lb_config::dynamic::Pem;

use super::*;
use crate::testing::{
    Identity, Origin, Speaks, client, grpc, health_check, json, server, stalls, status, transport, trusting,
    wait_until, with,
};

/// `passed`, `degraded`, or why not.
async fn probe(origin: &Origin, scheme: &str, check: &HealthCheck, transport: ServersTransport) -> String {
    probe_url(&origin.url(scheme), check, transport).await
}

async fn probe_url(url: &str, check: &HealthCheck, transport: ServersTransport) -> String {
    match check::check(&server(url), check, &Tls::new(transport, client())).await {
        Ok(Passed { probe: Probe::Passed, .. }) => "passed".to_owned(),
        Ok(Passed { probe: Probe::Degraded, .. }) => "degraded".to_owned(),
        Ok(Passed { probe: Probe::Failed, .. }) => unreachable!("failures come with a reason"),
        Err(failure) => failure.line(),
    }
}

#[tokio::test]
async fn the_status_decides() {
    let origin = Origin::start(Speaks::Http1, |_| status(200)).await;
    for (answer, expected_status, outcome) in [
        (200, None, "passed"),
        (204, None, "passed"),
        (304, None, "passed"),
        (404, None, "answered 404 Not Found"),
        (503, None, "answered 503 Service Unavailable"),
        (200, Some(204), "answered 200 OK"),
        (503, Some(503), "passed"),
    ] {
        origin.now_answers(move |_| status(answer));
        let check = HealthCheck { status: expected_status, ..health_check() };
        assert_eq!(
            probe(&origin, "http", &check, transport()).await,
            outcome,
            "{answer} {expected_status:?}"
        );
    }
}

#[tokio::test]
async fn a_server_may_say_why() {
    let origin = Origin::start(Speaks::Http1, |_| status(200)).await;
    let why = r#"{"status": "x", "reasons": ["database: refused", 7, "redis: slow"]}"#;
    let told = Some("database: refused; redis: slow");
    for (code, kind, body, degraded, expected) in [
        (503, "application/json", why, true, told),
        (200, "application/json", why, true, told),
        (503, "application/json", why, false, None),
        (503, "text/plain", why, true, None),
        (404, "application/json", why, true, None),
        (503, "application/json", r#"{"reasons": []}"#, true, None),
        (503, "application/json", r#"{"reasons": "one"}"#, true, None),
    ] {
        origin.now_answers(move |_| with(code, &[("content-type", kind)], body));
        let check = HealthCheck { degraded, ..health_check() };
        let outcome =
            check::check(&server(&origin.url("http")), &check, &Tls::new(transport(), client())).await;
        let reasons = match &outcome {
            Ok(passed) => passed.reasons.as_deref(),
            Err(failure) => failure.reasons(),
        };
        assert_eq!((outcome.is_ok(), reasons), (code == 200, expected), "{code} {kind} {body}");
    }
    let long = format!(r#"{{"reasons": ["{}"]}}"#, "ä".repeat(1000));
    origin.now_answers(move |_| with(503, &[("content-type", "application/json")], long.clone()));
    let outcome =
        check::check(&server(&origin.url("http")), &health_check(), &Tls::new(transport(), client())).await;
    assert_eq!(outcome.unwrap_err().reasons().map(|told| told.chars().count()), Some(300));
}

#[tokio::test]
async fn the_request_is_what_the_check_says() {
    let origin = Origin::start(Speaks::Http1, |_| status(200)).await;
    let check = HealthCheck {
        method: "HEAD".to_owned(),
        path: "/ready?deep=1".to_owned(),
        hostname: Some("api.example.com".to_owned()),
        headers: vec![
            ("X-Health-Check".to_owned(), "vigie".to_owned()),
            ("User-Agent".to_owned(), "probe".to_owned()),
            ("Host".to_owned(), "ignored.example.com".to_owned()),
        ],
        ..health_check()
    };
    assert_eq!(probe(&origin, "http", &check, transport()).await, "passed");
    let seen = origin.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.uri.to_string().as_str()), ("HEAD", "/ready?deep=1"));
    for (name, value) in [("host", "api.example.com"), ("x-health-check", "vigie"), ("user-agent", "probe")] {
        let values: Vec<_> = seen.headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    // Without `hostname` it is the address, port included.
    assert_eq!(probe(&origin, "http", &health_check(), transport()).await, "passed");
    assert_eq!(origin.seen()[1].headers["host"], origin.address.to_string());
}

#[tokio::test]
async fn port_and_scheme_of_the_check_win_over_the_servers() {
    let origin = Origin::start(Speaks::H2c, |_| status(200)).await;
    let (port, scheme) = (Some(origin.address.port()), Some("h2c".to_owned()));
    let check = HealthCheck { port, scheme, ..health_check() };
    assert_eq!(probe_url("http://127.0.0.1:1", &check, transport()).await, "passed");
    assert_eq!(origin.seen()[0].version, http::Version::HTTP_2);
    let check = HealthCheck { scheme: Some("ftp".to_owned()), ..health_check() };
    let outcome = probe(&origin, "http", &check, transport()).await;
    assert_eq!(outcome, "`ftp` is no scheme a probe can speak: use http, https or h2c");
}

#[tokio::test]
async fn a_json_answer_may_say_degraded() {
    let origin = Origin::start(Speaks::Http1, |_| status(200)).await;
    let degraded = r#"{"checks":{"redis":"down"},"status":"degraded"}"#;
    let large = format!(r#"{{"status":"degraded","padding":"{}"}}"#, "x".repeat(64 * 1024));
    for (code, body, heed, status, outcome) in [
        (200, degraded, true, None, "degraded"),
        (503, degraded, true, None, "answered 503 Service Unavailable"),
        (503, degraded, true, Some(503), "degraded"), // demanded, so it passes
        (200, degraded, false, None, "passed"),
        (503, degraded, false, None, "answered 503 Service Unavailable"),
        (503, degraded, true, Some(200), "answered 503 Service Unavailable"),
        (500, degraded, true, None, "answered 500 Internal Server Error"),
        (200, r#"{"status":"healthy"}"#, true, None, "passed"),
        (503, r#"{"status":"unhealthy"}"#, true, None, "answered 503 Service Unavailable"),
        (200, r#"{"status":["degraded"]}"#, true, None, "passed"),
        (200, r#"{"status":"degraded""#, true, None, "passed"),
        (200, large.as_str(), true, None, "passed"),
    ] {
        let text = body.to_owned();
        origin.now_answers(move |_| json(code, &text));
        let check = HealthCheck { degraded: heed, status, ..health_check() };
        assert_eq!(probe(&origin, "http", &check, transport()).await, outcome, "{code} {:.40}", body);
    }
    origin.now_answers(move |_| with(200, &[("content-type", "text/plain")], degraded));
    assert_eq!(probe(&origin, "http", &health_check(), transport()).await, "passed");
}

#[tokio::test]
async fn each_probe_has_its_timeout() {
    let check = HealthCheck { timeout: Duration::from_millis(100), ..health_check() };
    // Accepts and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    assert_eq!(probe_url(&url, &check, transport()).await, "no answer in time");
    let url = url.replace("http", "https");
    let trusting = trusting(&Identity::new());
    assert_eq!(probe_url(&url, &check, trusting).await, "no answer in time");
    // Once the status is there a body that never comes changes nothing.
    let origin = Origin::start(Speaks::Http1, |_| stalls(200, "application/json")).await;
    assert_eq!(probe(&origin, "http", &check, transport()).await, "passed");
    origin.now_answers(|_| stalls(200, "text/event-stream"));
    let patient = HealthCheck { timeout: Duration::from_secs(60), ..health_check() };
    assert_eq!(probe(&origin, "http", &patient, transport()).await, "passed");
}

#[tokio::test]
async fn what_is_not_there_or_not_http_fails_with_the_reason() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = probe_url(&format!("http://{gone}"), &health_check(), transport()).await;
    assert!(outcome.starts_with("cannot connect: Connection refused"), "{outcome}");
    let h2c = Origin::start(Speaks::H2c, |_| status(200)).await;
    let outcome = probe(&h2c, "http", &health_check(), transport()).await;
    assert!(outcome.starts_with("no valid answer: "), "{outcome}");
}

#[tokio::test]
async fn redirects_are_followed_unless_told_not_to() {
    let other = Origin::start(Speaks::Http1, |_| status(200)).await;
    let elsewhere = format!("{}/elsewhere", other.url("http"));
    let origin = Origin::start(Speaks::Http1, move |request| match request.uri.path() {
        "/health" => with(302, &[("location", "ready")], ""),
        "/ready" => with(307, &[("location", &elsewhere)], ""),
        "/loop" => with(301, &[("location", "/loop")], ""),
        "/lost" => status(303),
        "/encode" => with(302, &[("location", "/à b")], ""),
        "/%C3%A0%20b" => status(200),
        _ => status(500),
    })
    .await;
    let check = HealthCheck {
        method: "POST".to_owned(),
        hostname: Some("api.example.com".to_owned()),
        headers: vec![
            ("Authorization".to_owned(), "secret".to_owned()),
            ("X-Kept".to_owned(), "1".to_owned()),
        ],
        ..health_check()
    };
    assert_eq!(probe(&origin, "http", &check, transport()).await, "passed");
    let path = |path: &str| HealthCheck { path: path.to_owned(), ..health_check() };
    assert_eq!(probe(&origin, "http", &path("/loop"), transport()).await, "more than 10 redirects");
    // As Go does: who says not where to is taken as it is.
    assert_eq!(probe(&origin, "http", &path("/lost"), transport()).await, "passed");
    assert_eq!(probe(&origin, "http", &path("/encode"), transport()).await, "passed");
    let stay = HealthCheck { follow_redirects: false, ..health_check() };
    assert_eq!(probe(&origin, "http", &stay, transport()).await, "passed");
    let stay = HealthCheck { status: Some(200), ..stay };
    assert_eq!(probe(&origin, "http", &stay, transport()).await, "answered 302 Found");

    // The method changes with 302 as browsers have it, and secrets stay on their server.
    let [first, second] = &origin.seen()[..2] else { panic!() };
    assert_eq!((first.method.as_str(), second.method.as_str()), ("POST", "GET"));
    assert_eq!(second.headers["authorization"], "secret");
    assert_eq!(second.headers["host"], "api.example.com");
    let last = other.seen().remove(0);
    assert_eq!(last.uri.path(), "/elsewhere");
    assert!(!last.headers.contains_key("authorization") && last.headers.contains_key("x-kept"));
    assert_eq!(last.headers["host"], other.address.to_string());
}

#[tokio::test]
async fn a_request_looks_like_those_of_others() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = HealthCheck { method: "POST".to_owned(), ..health_check() };
    let url = format!("http://{address}");
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let fields: String = (0..1000).map(|n| format!("X-{n}: {}\r\n", "x".repeat(900))).collect();
        stream.write_all(format!("HTTP/1.1 204 No Content\r\n{fields}\r\n").as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let (outcome, head) = tokio::join!(probe_url(&url, &check, transport()), server);
    assert_eq!(outcome, "passed");
    assert_eq!(
        head,
        format!(
            "POST /health HTTP/1.1\r\nHost: {address}\r\nUser-Agent: vigie-health-check\r\n\
             Content-Length: 0\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn tls_is_what_requests_use() {
    let [identity, stranger] = [Identity::new(), Identity::new()];
    let origin = Origin::start(identity.server(), |_| status(200)).await;
    let trusting = trusting(&identity);
    let check = health_check();
    for (settings, passes) in [
        (trusting.clone(), true),
        (ServersTransport { root_cas: vec![stranger.pem.clone()], ..trusting.clone() }, false),
        (ServersTransport { server_name: None, ..trusting.clone() }, false), // 127.0.0.1 is not in it
    ] {
        let outcome = probe(&origin, "https", &check, settings.clone()).await;
        assert_eq!(outcome == "passed", passes, "{outcome} with {settings:?}");
        assert!(passes || outcome.starts_with("TLS handshake failed: "), "{outcome}");
    }
    assert_eq!(origin.seen()[0].version, http::Version::HTTP_2);
    let http1 = ServersTransport { disable_http2: true, ..trusting.clone() };
    assert_eq!(probe(&origin, "https", &check, http1).await, "passed");
    assert_eq!(origin.seen().pop().unwrap().version, http::Version::HTTP_11);
    let broken = ServersTransport { root_cas: vec![Pem(b"no pem".as_slice().into())], ..trusting };
    assert_eq!(
        probe(&origin, "https", &check, broken).await,
        "the TLS settings cannot be used: no certificate authority"
    );
}

#[tokio::test]
async fn grpc_servers_must_say_serving() {
    let check = HealthCheck { mode: ProbeMode::Grpc, ..health_check() };
    let origin = Origin::start(Speaks::H2c, |_| status(200)).await;
    type Say = fn(&http::request::Parts) -> http::Response<crate::testing::Body>;
    for (answer, outcome) in [
        ((|_| grpc(Some(1), "0")) as Say, "passed"),
        (|_| grpc(Some(2), "0"), "gRPC health `NOT_SERVING`, not SERVING"),
        (|_| grpc(Some(0), "0"), "gRPC health `UNKNOWN`, not SERVING"),
        (|_| grpc(None, "5"), "gRPC status 5"),
        (|_| with(200, &[("grpc-status", "12")], ""), "gRPC status 12"),
        (|_| status(503), "answered 503 Service Unavailable"),
        (|_| status(200), "gRPC status missing"),
    ] {
        origin.now_answers(answer);
        // Plain HTTP means HTTP/2 without TLS, as in Traefik.
        for scheme in ["http", "h2c"] {
            assert_eq!(probe(&origin, scheme, &check, transport()).await, outcome);
        }
    }
    let seen = origin.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.uri.path()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(
        (&seen.headers["content-type"], &seen.headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );

    let identity = Identity::new();
    let origin = Origin::start(identity.server(), |_| grpc(Some(1), "0")).await;
    assert_eq!(probe(&origin, "https", &check, trusting(&identity)).await, "passed");
}

#[tokio::test]
async fn nothing_of_a_probe_outlives_it() {
    for speaks in [Speaks::Http1, Speaks::H2c] {
        let scheme = if matches!(speaks, Speaks::H2c) { "h2c" } else { "http" };
        let origin = Origin::start(speaks, |_| stalls(200, "application/json")).await;
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let check = HealthCheck { timeout: Duration::from_secs(60), ..health_check() };
        let task = tokio::spawn(async move { probe(&origin, scheme, &check, transport()).await });
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        wait_until(|| alive() > before + 1).await;
        task.abort();
        wait_until(|| alive() < before).await; // the origin goes with the task
    }
}
