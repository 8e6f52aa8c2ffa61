//! Outlier detection: who keeps failing requests sits out, a few at a time, and returns by itself.

use lb_testkit::{Origin, Script, eventually};

use super::{of, origins, shares, urls, vigie};
use crate::harness::{Protocol, app, origin};

const SERVICE: [(&str, &str); 1] = [("service", "app@file")];

#[tokio::test]
async fn failures_in_a_row_eject_until_the_time_is_over() {
    let origins = origins::<4>().await;
    let keys = "outlierDetection: {consecutive5xx: 3, baseEjectionTime: 1500ms}";
    let vigie = vigie(&app(keys, &urls(&origins))).await;
    vigie.until_metric("lb_ejected_servers", &SERVICE, 0.0).await;
    let bad = &origins[3];
    let url = bad.url();
    for (protocol, ejections) in Protocol::BOTH.into_iter().zip([1.0, 2.0]) {
        bad.on("/", Script::status(500));
        let failed = shares(&vigie, protocol, 12).await;
        assert_eq!(failed.get("500"), Some(&3), "{protocol:?} {failed:?}");
        assert_eq!(shares(&vigie, protocol, 3).await, of(&[("api-1", 1), ("api-2", 1), ("api-3", 1)]));
        let metrics = vigie.metrics().await;
        let reason = [SERVICE[0], ("reason", "consecutive_5xx")];
        assert_eq!(metrics.value("lb_ejections_total", &reason), Some(ejections));
        assert_eq!(metrics.value("lb_ejected_servers", &SERVICE), Some(1.0));
        let service = vigie.json("/api/http/services/app@file").await;
        assert_eq!(service["serverStatus"][&url], "DOWN");
        assert_eq!(service["serverDetails"][3]["ejected"], true);
        assert_eq!(service["serverDetails"][3]["health"], "healthy", "health is another matter");
        bad.on("/", Script::echo());
        vigie.until("it returns", |response| origin(response) == "api-4").await;
        vigie.until_metric("lb_ejected_servers", &SERVICE, 0.0).await;
        assert_eq!(vigie.json("/api/http/services/app@file").await["serverStatus"][&url], "UP");
    }
    vigie.until_said("Server is no longer ejected.").await;
    let words = vigie.words();
    assert!(words.lines().any(|line| line.contains("Server is ejected.") && line.contains(&url)), "{words}");
}

/// Two of four fail: one sits out (10 %, but at least one), the other stays.
#[tokio::test]
async fn no_more_are_ejected_than_the_cap_allows() {
    let origins = origins::<4>().await;
    for bad in &origins[2..] {
        bad.on("/", Script::status(503));
    }
    let vigie =
        vigie(&app("outlierDetection: {consecutive5xx: 2, baseEjectionTime: 1h}", &urls(&origins))).await;
    shares(&vigie, Protocol::Http1, 16).await;
    let settled = shares(&vigie, Protocol::Http2, 6).await;
    assert_eq!(settled, of(&[("503", 2), ("api-1", 2), ("api-2", 2)]));
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_ejected_servers", &SERVICE), Some(1.0));
    assert!(metrics.value("lb_ejections_overflow_total", &SERVICE).unwrap() >= 1.0);
    // More may go with a higher cap, and who is out stays out while the file changes.
    let keys = "outlierDetection: {consecutive5xx: 2, baseEjectionTime: 1h, maxEjectionPercent: 50}";
    vigie.write(&app(keys, &urls(&origins)));
    vigie.until_metric("traefik_config_reloads_total", &[], 2.0).await;
    assert_eq!(vigie.metrics().await.value("lb_ejected_servers", &SERVICE), Some(1.0));
    let both_out = eventually(lb_testkit::PATIENCE, async || {
        shares(&vigie, Protocol::Http1, 4).await == of(&[("api-1", 2), ("api-2", 2)])
    });
    assert!(both_out.await, "{}", vigie.words());
}

/// A server that refuses connections costs two attempts, no request, and then nothing.
#[tokio::test]
async fn transport_errors_eject_as_well() {
    let mut origins = origins::<3>().await;
    let keys = "outlierDetection: {consecutive5xx: off, consecutiveGatewayFailure: 2, baseEjectionTime: 1h}";
    let vigie = vigie(&app(keys, &urls(&origins))).await;
    origins[0].on("/", Script::status(500));
    origins[2].stop().await;
    let answers = shares(&vigie, Protocol::Http1, 30).await;
    assert_eq!(
        answers.keys().collect::<Vec<_>>(),
        ["500", "api-2"],
        "500 is the application's own: {answers:?}"
    );
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_upstream_errors_total", &SERVICE), Some(2.0));
    let reason = [SERVICE[0], ("reason", "consecutive_gateway_failure")];
    assert_eq!(metrics.value("lb_ejections_total", &reason), Some(1.0));
}

/// The probes say the server is well, its answers say it is not: both have to agree.
#[tokio::test]
async fn a_passing_probe_ends_no_ejection() {
    let good = Origin::start("good").await;
    let bad = Origin::with("bad", |_| Script::status(502)).await;
    bad.on("/health", Script::status(200));
    let keys = "healthCheck: {path: /health, interval: 50ms, timeout: 2s}\n\
                outlierDetection: {consecutive5xx: 1, baseEjectionTime: 1h}";
    let vigie = vigie(&app(keys, &[good.url(), bad.url()])).await;
    assert_eq!(shares(&vigie, Protocol::Http1, 4).await, of(&[("502", 1), ("good", 3)]));
    let passed = bad.requests() + 5;
    assert!(eventually(lb_testkit::PATIENCE, async || bad.requests() > passed).await);
    assert_eq!(shares(&vigie, Protocol::Http2, 4).await, of(&[("good", 4)]));
}
