//! Active and passive health checks: who is taken out, who comes back, who gets less.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lb_testkit::{Authority, Files, Load, Origin, PATIENCE, Script, eventually};
use tokio::time::Instant;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, origin};

/// Patient, since a busy machine must not look like an ill server.
const CHECK: &str = "healthCheck: {path: /health, interval: 100ms, timeout: 2s}";

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

async fn shares(vigie: &Vigie, protocol: Protocol, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(origin(&protocol.get(vigie.web(), "/").await)).or_default() += 1;
    }
    shares
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

/// For each way to be ill: out within an interval and the time limit, back within an interval.
#[tokio::test]
async fn an_ill_server_leaves_and_comes_back_by_itself() {
    let origins = [Origin::start("api-1").await, Origin::start("api-2").await];
    let check = "healthCheck: {path: /health, interval: 200ms, timeout: 1s}";
    let vigie = Vigie::start(&app(check, &urls(&origins))).await;
    let url = origins[1].url();
    let instance = [("instance", url.as_str())];
    for illness in [Script::status(503), Script::hang(), Script::reset()] {
        origins[1].on("/health", illness);
        let began = Instant::now();
        vigie.until_metric("instance_health", &instance, 0.0).await;
        // An interval, the time limit, and what a busy machine takes.
        assert!(began.elapsed() < Duration::from_millis(200 + 1000 + 800), "{:?}", began.elapsed());
        for protocol in Protocol::BOTH {
            assert_eq!(shares(&vigie, protocol, 4).await, of(&[("api-1", 4)]), "{protocol:?}");
        }
        let api = vigie.json("/api/http/services/app@file").await;
        assert_eq!(api["serverStatus"][&url], "DOWN", "{api}");
        let health = vigie.json("/health").await;
        assert_eq!(health["services"]["app@file"]["unhealthy"], 1, "{health}");

        origins[1].on("/health", Script::status(200));
        vigie.until_metric("instance_health", &instance, 1.0).await;
        assert_eq!(shares(&vigie, Protocol::Http1, 4).await, of(&[("api-1", 2), ("api-2", 2)]));
        assert_eq!(vigie.json("/api/http/services/app@file").await["serverStatus"][&url], "UP");
    }
    let metrics = vigie.metrics().await;
    let failures = metrics.value("health_check_failures_total", &instance).unwrap();
    let checks = metrics.value("health_check_total", &instance).unwrap();
    assert!(failures >= 3.0 && checks >= 2.0 * 3.0 && checks > failures, "{failures} of {checks}");
    assert_eq!(metrics.value("health_check_duration_seconds_count", &instance), Some(checks));
    assert_eq!(
        metrics.value("traefik_service_server_up", &[("service", "app@file"), ("url", &url)]),
        Some(1.0)
    );
}

/// A crash under load costs no request: connections refused are tried elsewhere, health takes it out.
#[tokio::test]
async fn a_crash_under_load_fails_no_request() {
    for h2 in [false, true] {
        let mut origins =
            [Origin::start("api-1").await, Origin::start("api-2").await, Origin::start("api-3").await];
        let retry = "middlewares:\n  retry: {retry: {attempts: 3}}\n";
        let dynamic = crate::harness::app_with("middlewares: [retry]", CHECK, &urls(&origins));
        let dynamic = format!("{dynamic}  {}", retry.replace('\n', "\n  ").trim_end());
        let vigie = Vigie::start(&dynamic).await;
        let mut load = Load::new(vigie.web(), HOST).connections(8);
        if h2 {
            load = load.h2();
        }
        let running = load.start();
        let more = async |count: usize| {
            let until = running.done() + count;
            assert!(eventually(lb_testkit::PATIENCE, async || running.done() >= until).await);
        };
        more(100).await;
        let url = origins[1].url();
        origins[1].stop().await;
        vigie.until_metric("instance_health", &[("instance", &url)], 0.0).await;
        more(100).await;
        origins[1].restart().await;
        vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
        let back = origins[1].requests();
        assert!(eventually(lb_testkit::PATIENCE, async || origins[1].requests() > back + 10).await);
        let report = running.stop().await;
        report.assert_flawless();
    }
}

#[tokio::test]
async fn a_probe_is_sent_as_configured() {
    let server = Origin::start("api-1").await;
    let other = Origin::start("other").await;
    let check = format!(
        "healthCheck: {{path: '/check?deep=1', port: {}, interval: 100ms, timeout: 2s, method: HEAD, status: 204, \
         hostname: health.example.com, headers: {{X-Health-Check: 'true'}}, followRedirects: false}}",
        other.address().port()
    );
    other.on("/check", Script::status(204));
    let vigie = Vigie::start(&app(&check, &[server.url()])).await;
    assert!(eventually(lb_testkit::PATIENCE, async || other.requests() > 1).await);
    let probe = other.last();
    assert_eq!((probe.method.as_str(), probe.target.as_str()), ("HEAD", "/check?deep=1"));
    assert_eq!((probe.get("host"), probe.get("x-health-check")), (Some("health.example.com"), Some("true")));
    assert_eq!(server.requests(), 0, "nothing but probes, and those go to the other port");
    // Any other status, and a redirect, is a failure.
    other.on("/check", Script::answer(302, &[("Location", "/ok")], ""));
    vigie.until_metric("instance_health", &[("instance", &server.url())], 0.0).await;
    let response = vigie.get("/").await;
    assert_eq!((response.status, response.text()), (503, "no available server\n"));
    assert!(other.seen().iter().all(|probe| probe.path() == "/check"), "the redirect is not followed");
    other.on("/check", Script::status(204));
    vigie.until("it is back", |response| response.status == 200).await;
}

/// `degradedWeight` of its share, exactly; the first of five goes to each healthy one.
#[tokio::test]
async fn a_degraded_server_keeps_a_share() {
    let origins = [Origin::start("api-1").await, Origin::start("api-2").await, Origin::start("api-3").await];
    origins[2].on(
        "/health",
        Script::answer(200, &[("Content-Type", "application/json")], r#"{"status":"degraded"}"#),
    );
    for (extra, cycle, expected) in [
        ("", 5, of(&[("api-1", 2), ("api-2", 2), ("api-3", 1)])),
        (", degradedWeight: 0.25", 9, of(&[("api-1", 4), ("api-2", 4), ("api-3", 1)])),
        (", degraded: false", 3, of(&[("api-1", 1), ("api-2", 1), ("api-3", 1)])),
    ] {
        let check = format!("healthCheck: {{path: /health, interval: 100ms, timeout: 2s{extra}}}");
        let vigie = Vigie::start(&app(&check, &urls(&origins))).await;
        let instance = origins[2].url();
        let expected_health = if extra.contains("false") { 1.0 } else { 0.5 };
        vigie.until_metric("instance_health", &[("instance", &instance)], expected_health).await;
        for protocol in Protocol::BOTH {
            assert_eq!(shares(&vigie, protocol, cycle).await, expected, "{protocol:?} {extra}");
        }
    }
}

#[tokio::test]
async fn a_server_that_starts_gets_nothing_before_its_first_success() {
    let starting = Origin::start("starting").await;
    let ready = Origin::start("ready").await;
    starting.on("/health", Script::status(503));
    let check =
        "healthCheck: {path: /health, interval: 100ms, timeout: 2s, startUnhealthy: true, startPeriod: 1m}";
    let vigie = Vigie::start(&app(check, &[starting.url(), ready.url()])).await;
    vigie.until("one is ready", |response| response.status == 200).await;
    assert_eq!(shares(&vigie, Protocol::Http1, 6).await, of(&[("ready", 6)]));
    starting.on("/health", Script::status(200));
    vigie.until_metric("instance_health", &[("instance", &starting.url())], 1.0).await;
    assert_eq!(shares(&vigie, Protocol::Http2, 6).await, of(&[("ready", 3), ("starting", 3)]));
}

/// One stray failure changes nothing when two are asked for.
#[tokio::test]
async fn thresholds_damp_flapping() {
    let server = Origin::start("api-1").await;
    let check = "healthCheck: {path: /health, interval: 50ms, timeout: 2s, unhealthyThreshold: 3, healthyThreshold: 2}";
    let vigie = Vigie::start(&app(check, &[server.url()])).await;
    let url = server.url();
    let instance = [("instance", url.as_str())];
    let failures =
        async || vigie.metrics().await.value("health_check_failures_total", &instance).unwrap_or(0.0);
    server.on("/health", Script::status(500));
    vigie.until_metric("instance_health", &instance, 0.0).await;
    assert!(failures().await >= 3.0);
    server.on("/health", Script::status(200));
    vigie.until_metric("instance_health", &instance, 1.0).await;
    let checks = vigie.metrics().await.value("health_check_total", &instance).unwrap();
    assert!(checks >= failures().await + 2.0);
}

#[tokio::test]
async fn all_servers_ill_is_503_until_one_is_back() {
    let origins = [Origin::start("api-1").await, Origin::start("api-2").await];
    let vigie = Vigie::start(&app(CHECK, &urls(&origins))).await;
    for origin in &origins {
        origin.on("/health", Script::status(503));
    }
    vigie.until("nobody is left", |response| response.status == 503).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!((response.status, response.text()), (503, "no available server\n"));
    }
    let health = vigie.json("/health").await;
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["reasons"][0].as_str().unwrap().contains("app@file"), "{health}");
    origins[0].on("/health", Script::status(200));
    vigie.until("one is back", |response| response.status == 200).await;
}

/// Real requests take a server out too, for `failureWindow`.
#[tokio::test]
async fn passive_checks_take_out_whoever_fails_real_requests() {
    let good = Origin::start("good").await;
    let bad = Origin::with("bad", |_| Script::status(500)).await;
    let passive = "passiveHealthCheck: {failureWindow: 1s, maxFailedAttempts: 2}";
    let vigie = Vigie::start(&app(passive, &[good.url(), bad.url()])).await;
    let url = bad.url();
    for protocol in Protocol::BOTH {
        bad.on("/", Script::status(500));
        vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
        let before = bad.requests();
        let mut failed = 0;
        for _ in 0..12 {
            failed += usize::from(protocol.get(vigie.web(), "/").await.status == 500);
        }
        assert_eq!((failed, bad.requests() - before), (2, 2), "{protocol:?}");
        bad.on("/", Script::echo());
        vigie.until("it gets traffic again", |response| origin(response) == "bad").await;
    }
}

/// Who has only this check must hear as well that nobody is left: by a line that the default level shows.
#[tokio::test]
async fn the_log_says_that_a_passive_check_has_left_nobody() {
    let servers = [Origin::start("a").await, Origin::start("b").await];
    for server in &servers {
        server.on("/", Script::status(500));
    }
    let passive = "passiveHealthCheck: {failureWindow: 500ms}";
    let text = format!("{STATIC}log: {{level: INFO}}\n");
    let vigie = Vigie::with(&text, &app(passive, &urls(&servers))).await;
    vigie.until("both are out", |response| response.status == 503).await;
    let left =
        "ERR No server of the service is left: its requests are answered 503. serviceName=app@file servers=2";
    vigie.until_said(left).await;
    for server in &servers {
        server.on("/", Script::echo());
    }
    vigie.until_said("The service has a server again. serviceName=app@file").await;
    vigie.until_said("passive health check lets a server back in").await;
    assert_eq!(vigie.words().matches(left).count(), 1, "{}", vigie.words());
}

/// What was learnt about servers outlives a reload that keeps them.
#[tokio::test]
async fn a_reload_forgets_no_health() {
    let origins = [Origin::start("api-1").await, Origin::start("api-2").await];
    // Ill at its first probe and never asked again within this test.
    let check = "healthCheck: {path: /health, interval: 100ms, unhealthyInterval: 1h, timeout: 2s}";
    origins[1].on("/health", Script::status(503));
    let vigie = Vigie::start(&app(check, &urls(&origins))).await;
    vigie.until_metric("instance_health", &[("instance", &origins[1].url())], 0.0).await;
    let third = Origin::start("api-3").await;
    let mut more = urls(&origins);
    more.push(third.url());
    vigie.write(&app(check, &more));
    vigie.until("the new server takes part", |response| origin(response) == "api-3").await;
    assert_eq!(shares(&vigie, Protocol::Http1, 4).await, of(&[("api-1", 2), ("api-3", 2)]));
}

/// As `openssl req -x509` makes it: its own authority, and a server's certificate all the same.
fn self_signed() -> (String, Arc<rustls::ServerConfig>) {
    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://example.com/api".try_into().unwrap()));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap());
    (certificate.pem(), Arc::new(config.unwrap()))
}

/// Probes trust whom requests trust, name who they are as requests do, and speak the same versions.
#[tokio::test]
async fn probes_use_the_tls_of_requests() {
    let (own, config) = self_signed();
    let trusting = Origin::tls("api", config, |_| Script::echo()).await;
    let authority = Authority::new("authority");
    let config = authority.issue(&["backend.example.com"]).server_config_requiring(&[], &authority);
    let strict = Origin::tls("api", config, |_| Script::echo()).await;
    let files = || {
        let files = Files::new();
        files.write("own.pem", &own);
        files.write("authority.pem", authority.pem());
        authority.issue_client("vigie").write(files.path(), "client");
        files
    };
    for (server, transport, good) in [
        (&trusting, "rootCAs: ['{dir}/own.pem']", true),
        (&trusting, "rootCAs: ['{dir}/authority.pem']", false),
        (&trusting, "rootCAs: ['{dir}/own.pem'], serverName: backend.example.com", false),
        (&trusting, "insecureSkipVerify: true", true),
        (&trusting, "rootCAs: ['{dir}/own.pem'], peerCertURI: 'spiffe://example.com/api'", true),
        (&trusting, "rootCAs: ['{dir}/own.pem'], peerCertURI: 'spiffe://example.com/web'", false),
        (&trusting, "rootCAs: ['{dir}/own.pem'], disableHTTP2: true, minVersion: VersionTLS13", true),
        (&trusting, "rootCAs: ['{dir}/own.pem'], maxVersion: VersionTLS12", true),
        (
            &strict,
            "rootCAs: ['{dir}/authority.pem'], serverName: backend.example.com, \
             certificates: [{certFile: '{dir}/client.crt', keyFile: '{dir}/client.key'}]",
            true,
        ),
        (&strict, "rootCAs: ['{dir}/authority.pem'], serverName: backend.example.com", false),
    ] {
        let balancer = format!("serversTransport: ours\n{CHECK}");
        let dynamic = app(&balancer, &[server.url()]);
        let dynamic = format!("{dynamic}  serversTransports:\n    ours: {{{transport}}}\n");
        let vigie = Vigie::over(files(), STATIC, &dynamic).await;
        let url = server.url();
        let instance = [("instance", url.as_str())];
        let probed = async || vigie.metrics().await.value("health_check_total", &instance) >= Some(2.0);
        assert!(eventually(PATIENCE, probed).await, "{}", vigie.words());
        vigie.until_metric("instance_health", &instance, f64::from(u8::from(good))).await;
        let failures = vigie.metrics().await.value("health_check_failures_total", &instance);
        assert_eq!(failures.unwrap_or_default() == 0.0, good, "{transport}\n{}", vigie.words());
        // Without a healthy server 503: what a request would have met is what the probe met.
        let status = Protocol::Http1.get(vigie.web(), "/").await.status;
        assert_eq!(status, if good { 200 } else { 503 }, "{transport}");
    }
}
