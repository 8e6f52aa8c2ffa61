//! Middlewares on the way of a request: breaker, limits, retry, paths, headers, redirects, auth.

use lb_testkit::{Client, Gate, Origin, PATIENCE, Script, eventually};

use crate::harness::{HOST, Protocol, STATIC, STATIC_TLS, Vigie, app, app_with, origin};

/// [`app`] behind these middlewares, given as the lines of `http.middlewares`.
pub(crate) fn behind(names: &str, middlewares: &str, urls: &[String]) -> String {
    let lines: String = middlewares.trim().lines().map(|line| format!("    {line}\n")).collect();
    format!("{}  middlewares:\n{lines}", app_with(&format!("middlewares: [{names}]"), "", urls))
}

#[tokio::test]
async fn a_breaker_opens_answers_itself_and_recovers() {
    let server = Origin::start("api").await;
    let breaker = "breaker: {circuitBreaker: {expression: 'ResponseCodeRatio(500, 600, 0, 600) > 0.30', \
                   checkPeriod: 50ms, fallbackDuration: 400ms, recoveryDuration: 300ms, responseCode: 418}}";
    let text = format!("{STATIC}log: {{level: WARN}}\n");
    let vigie = Vigie::with(&text, &behind("breaker", breaker, &[server.url()])).await;
    let state = [("middleware", "breaker@file")];
    for protocol in Protocol::BOTH {
        server.on("/", Script::status(500));
        vigie.until("it opens", |response| response.status == 418).await;
        assert_eq!(vigie.metrics().await.value("lb_circuit_breaker_state", &state), Some(2.0));
        let before = server.requests();
        let refused = protocol.get(vigie.web(), "/").await;
        assert_eq!((refused.status, refused.text()), (418, "I'm a teapot"), "{protocol:?}");
        assert_eq!(server.requests(), before, "an open breaker spares the server");

        server.on("/", Script::echo());
        let closed = eventually(PATIENCE, async || {
            protocol.get(vigie.web(), "/").await;
            vigie.metrics().await.value("lb_circuit_breaker_state", &state) == Some(0.0)
        });
        assert!(closed.await, "{protocol:?}: it closes again");
        for _ in 0..10 {
            assert_eq!(protocol.get(vigie.web(), "/").await.status, 200);
        }
    }
    let metrics = vigie.metrics().await;
    let entered = |to| metrics.value("lb_circuit_breaker_transitions_total", &[state[0], ("to", to)]);
    assert_eq!((entered("open"), entered("closed")), (Some(2.0), Some(2.0)));
    assert!(entered("half-open").or(entered("half_open")).is_some_and(|count| count >= 2.0));
    vigie.until_said("The circuit breaker opens: requests are refused").await;
}

/// The expression of the reference system: a dead server trips it at once.
#[tokio::test]
async fn network_errors_open_a_breaker() {
    let dead = lb_testkit::reserve_address();
    let breaker = "breaker: {circuitBreaker: {expression: NetworkErrorRatio() > 0.30, fallbackDuration: 1m}}";
    let vigie = Vigie::start(&behind("breaker", breaker, &[format!("http://{dead}")])).await;
    assert_eq!(vigie.get("/").await.status, 502);
    vigie.until("it opens", |response| response.status == 503).await;
    assert_eq!(vigie.get("/").await.text(), "Service Unavailable");
}

/// A reload of something else leaves an open breaker open.
#[tokio::test]
async fn a_reload_keeps_breakers_and_limits() {
    let server = Origin::start("api").await;
    let text = behind(
        "limit, breaker",
        "breaker: {circuitBreaker: {expression: 'ResponseCodeRatio(500, 600, 0, 600) > 0.20', checkPeriod: 1ms, \
         fallbackDuration: 1m}}\n\
         limit: {rateLimit: {average: 1, period: 1h, burst: 3}}",
        &[server.url()],
    );
    let vigie = Vigie::start(&text).await;
    for _ in 0..2 {
        assert_eq!(vigie.get("/").await.status, 200);
    }
    let reload = async |mark: &str| {
        let router = format!("  routers:\n    {mark}: {{rule: 'Path(`/unused`)', service: noop@internal}}\n");
        vigie.write(&text.replace("  routers:\n", &router));
        let live = async || vigie.json("/api/rawdata").await["routers"][format!("{mark}@file")].is_object();
        assert!(eventually(PATIENCE, live).await, "{mark} is live");
    };
    reload("one").await;
    assert_eq!(vigie.get("/").await.status, 200, "the third of three");
    assert_eq!(vigie.get("/").await.status, 429, "the bucket is as empty as it was");
    let breaker = [("middleware", "breaker@file")];
    assert_eq!(vigie.metrics().await.value("lb_circuit_breaker_state", &breaker), Some(0.0));

    server.on("/", Script::status(500));
    let mut other = Client::connect_from("127.0.0.2".parse().unwrap(), vigie.web()).await.unwrap();
    let opened = eventually(PATIENCE, async || other.get(HOST, "/").await.unwrap().status == 503);
    assert!(opened.await);
    reload("two").await;
    assert_eq!(vigie.metrics().await.value("lb_circuit_breaker_state", &breaker), Some(2.0));
    let mut third = Client::connect_from("127.0.0.3".parse().unwrap(), vigie.web()).await.unwrap();
    assert_eq!(third.get(HOST, "/").await.unwrap().status, 503, "still open");
}

#[tokio::test]
async fn a_rate_limit_lets_the_burst_pass_and_names_the_wait() {
    let server = Origin::start("api").await;
    for protocol in Protocol::BOTH {
        let limit = "limit: {rateLimit: {average: 6, period: 1m, burst: 3}}";
        let vigie = Vigie::start(&behind("limit", limit, &[server.url()])).await;
        for n in 0..3 {
            assert_eq!(protocol.get(vigie.web(), "/").await.status, 200, "{n}");
        }
        let refused = protocol.get(vigie.web(), "/").await;
        assert_eq!((refused.status, refused.text()), (429, "Too Many Requests"));
        let wait: u64 = refused.get("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
        assert!(refused.get("x-retry-in").is_some_and(|wait| wait.ends_with('s')), "{:?}", refused.fields);
        // Another address has a bucket of its own.
        let mut other = Client::connect_from("127.0.0.2".parse().unwrap(), vigie.web()).await.unwrap();
        assert_eq!(other.get(HOST, "/").await.unwrap().status, 200);
        let counted = vigie.metrics().await.value("lb_rate_limited_total", &[("middleware", "limit@file")]);
        assert_eq!(counted, Some(1.0));
    }
}

#[tokio::test]
async fn in_flight_limits_count_what_runs() {
    let gate = Gate::closed();
    let held = gate.clone();
    let server = Origin::with("api", move |_| Script::echo().gated(&held)).await;
    let limit = "limit: {inFlightReq: {amount: 2}}";
    for protocol in Protocol::BOTH {
        let vigie = Vigie::start(&behind("limit", limit, &[server.url()])).await;
        let web = vigie.web();
        let before = server.requests();
        let running: Vec<_> =
            (0..2).map(|_| tokio::spawn(async move { protocol.get(web, "/").await.status })).collect();
        assert!(eventually(PATIENCE, async || server.requests() == before + 2).await);
        assert_eq!(protocol.get(web, "/").await.status, 429, "{protocol:?}");
        gate.let_one_pass();
        gate.let_one_pass();
        for request in running {
            assert_eq!(request.await.unwrap(), 200);
        }
        gate.let_one_pass();
        // A client has its answer a moment before the request counts as over.
        assert!(eventually(PATIENCE, async || protocol.get(web, "/").await.status == 200).await);
    }
}

#[tokio::test]
async fn retry_hides_servers_that_refuse() {
    let good = Origin::start("good").await;
    let dead = lb_testkit::reserve_address();
    let servers = [format!("http://{dead}"), good.url()];
    let vigie = Vigie::start(&behind("retry", "retry: {retry: {attempts: 2}}", &servers)).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for n in 0..6 {
            // Not one byte was written to the dead one, so every method may be tried again.
            let (method, body) = if n % 2 == 0 { ("GET", None) } else { ("POST", Some(&b"body"[..])) };
            let response = connection.request(method, "/", &[], body).await;
            assert_eq!(origin(&response), "good", "{protocol:?} {method}");
            if body.is_some() {
                assert_eq!(response.json()["body"], "body");
            }
        }
    }
    let metrics = vigie.metrics().await;
    assert!(metrics.value("lb_retries_total", &[("service", "app@file")]).unwrap() >= 1.0);
}

#[tokio::test]
async fn retry_on_status_spares_what_is_not_idempotent() {
    let good = Origin::start("good").await;
    let ill = Origin::with("ill", |_| Script::status(503)).await;
    let retry = "retry: {retry: {attempts: 2, status: ['503']}}";
    let vigie = Vigie::start(&behind("retry", retry, &[ill.url(), good.url()])).await;
    for protocol in Protocol::BOTH {
        for _ in 0..4 {
            let mut connection = protocol.connect(vigie.web()).await;
            assert_eq!(origin(&connection.request("PUT", "/", &[], Some(b"x")).await), "good");
        }
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let mut connection = protocol.connect(vigie.web()).await;
            statuses.push(connection.request("POST", "/", &[], Some(b"x")).await.status);
        }
        assert!(statuses.contains(&503), "{protocol:?}: a POST is not repeated: {statuses:?}");
    }
    // A client whose body breaks off while it is kept for another try hears nothing: nobody is there to be told 499.
    let mut gone = Client::connect(vigie.web()).await.unwrap();
    gone.send(format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nabc")).await.unwrap();
    gone.finish().await.unwrap();
    assert_eq!(gone.rest().await.unwrap(), b"");
    vigie.until_metric("traefik_entrypoint_requests_total", &[("code", "499")], 1.0).await;
    // Every server ill: the last try's answer is the answer.
    let ill_too = Origin::with("ill too", |_| Script::answer(503, &[("X-Own", "1")], "sorry")).await;
    vigie.write(&behind("retry", retry, &[ill_too.url()]));
    vigie.until("the answer passes", |response| response.status == 503 && response.text() == "sorry").await;
}

#[tokio::test]
async fn paths_headers_and_chains_are_rewritten() {
    let server = Origin::start("api").await;
    server.on("/v1/users", Script::answer(200, &[("X-Powered-By", "cgi")], "users"));
    let vigie = Vigie::start(&behind(
        "all",
        "
all: {chain: {middlewares: [strip, add, headers]}}
strip: {stripPrefix: {prefixes: [/api]}}
add: {addPrefix: {prefix: /v1}}
headers: {headers: {customRequestHeaders: {X-Tenant: cartae, Authorization: ''}, \
         customResponseHeaders: {X-Powered-By: '', X-Served-By: vigie}, stsSeconds: 10, forceSTSHeader: true, frameDeny: true}}",
        &[server.url()],
    ))
    .await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let response =
            connection.request("GET", "/api/users?a=b", &[("authorization", "secret")], None).await;
        let seen = server.last();
        assert_eq!((response.text(), seen.target.as_str()), ("users", "/v1/users?a=b"), "{protocol:?}");
        assert_eq!((seen.get("x-tenant"), seen.get("authorization")), (Some("cartae"), None));
        assert_eq!(seen.get("x-forwarded-prefix"), Some("/api"));
        assert_eq!((response.get("x-powered-by"), response.get("x-served-by")), (None, Some("vigie")));
        assert_eq!(response.get("strict-transport-security"), Some("max-age=10"));
        assert_eq!(response.get("x-frame-options"), Some("DENY"));
    }
}

#[tokio::test]
async fn basic_auth_and_allow_lists_keep_strangers_out() {
    let server = Origin::start("api").await;
    let vigie = Vigie::start(&behind(
        "allow, auth",
        // htpasswd -nbs someone secret
        "
allow: {ipAllowList: {sourceRange: [127.0.0.1]}}
auth: {basicAuth: {users: ['someone:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='], removeHeader: true}}",
        &[server.url()],
    ))
    .await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (fields, status) in [
            (&[][..], 401),
            (&[("authorization", "Basic c29tZW9uZTp3cm9uZw==")], 401),
            (&[("authorization", "Basic c29tZW9uZTpzZWNyZXQ=")], 200),
        ] {
            let response = connection.request("GET", "/", fields, None).await;
            assert_eq!(response.status, status, "{protocol:?} {fields:?}");
            if status == 401 {
                assert_eq!(response.get("www-authenticate"), Some("Basic realm=\"traefik\""));
            }
        }
        assert!(!server.last().fields.contains("authorization"));
    }
    let mut stranger = Client::connect_from("127.0.0.2".parse().unwrap(), vigie.web()).await.unwrap();
    assert_eq!(stranger.get(HOST, "/").await.unwrap().status, 403);
}

#[tokio::test]
async fn redirects_send_clients_to_tls() {
    let server = Origin::start("api").await;
    let redirect = "redirect: {redirectScheme: {scheme: https, permanent: true, port: '8443'}}";
    let vigie = Vigie::start(&behind("redirect", redirect, &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (method, status) in [("GET", 301), ("POST", 308)] {
            let response = connection.request(method, "/a?b=c", &[], None).await;
            let location = format!("https://{HOST}:8443/a?b=c");
            assert_eq!((response.status, response.get("location")), (status, Some(location.as_str())));
        }
    }
    // The same for a whole entry point.
    let text = STATIC_TLS.replace(
        "web: {address: '127.0.0.1:0'}",
        "web: {address: '127.0.0.1:0', http: {redirections: {entryPoint: {to: websecure, scheme: https, permanent: false}}}}",
    );
    let vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    let response = vigie.get("/x").await;
    assert_eq!(response.status, 302);
    let location = response.get("location").unwrap();
    assert!(location.starts_with("https://app.example.com") && location.ends_with("/x"), "{location}");
    assert_eq!(server.requests(), 0);
}
