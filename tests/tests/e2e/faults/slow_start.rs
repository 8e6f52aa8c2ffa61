//! Slow start: a growing share for servers that a reload adds or that come back.

use std::collections::BTreeSet;

use lb_testkit::{PATIENCE, Script, eventually};

use super::{of, origins, shares, urls, vigie};
use crate::harness::{Protocol, app};

const SERVICE: [(&str, &str); 1] = [("service", "app@file")];

/// Twelve seconds long the least share holds: a busy machine does not get past its first step.
const LONG: &str = "slowStart: {duration: 60s}";

#[tokio::test]
async fn a_server_that_a_reload_adds_begins_with_a_tenth() {
    for (strategy, protocol) in ["wrr", "leastConn"].into_iter().zip(Protocol::BOTH) {
        let origins = origins::<3>().await;
        let keys = format!("{LONG}\nstrategy: {strategy}");
        let vigie = vigie(&app(&keys, &urls(&origins[..2]))).await;
        assert_eq!(
            shares(&vigie, protocol, 4).await,
            of(&[("api-1", 2), ("api-2", 2)]),
            "all new: none slow"
        );
        vigie.write(&app(&keys, &urls(&origins)));
        vigie.until_metric("lb_slow_start_servers", &SERVICE, 1.0).await;
        let tenth = of(&[("api-1", 10), ("api-2", 10), ("api-3", 1)]);
        assert_eq!(shares(&vigie, protocol, 21).await, tenth, "{strategy}");
        let details = &vigie.json("/api/http/services/app@file").await["serverDetails"];
        assert_eq!(details[2]["slowStartPercent"], 10, "{details}");
        // It goes on through a reload, by whose settings it is over here.
        vigie.write(&app(&keys.replace("60s", "100ms"), &urls(&origins)));
        vigie.until_metric("lb_slow_start_servers", &SERVICE, 0.0).await;
        assert_eq!(shares(&vigie, protocol, 3).await, of(&[("api-1", 1), ("api-2", 1), ("api-3", 1)]));
        vigie.until_said("Server has its whole share.").await;
    }
}

#[tokio::test]
async fn the_share_grows_step_by_step() {
    let origins = origins::<3>().await;
    let keys = "slowStart: {duration: 6s}";
    let vigie = vigie(&app(keys, &urls(&origins[..2]))).await;
    vigie.write(&app(keys, &urls(&origins)));
    vigie.until_metric("lb_slow_start_servers", &SERVICE, 1.0).await;
    let mut seen = Vec::new();
    let mut over = false;
    while !over {
        over = vigie.metrics().await.value("lb_slow_start_servers", &SERVICE) == Some(0.0);
        let shares = shares(&vigie, Protocol::Http1, 21).await;
        seen.push(shares.get("api-3").copied().unwrap_or(0));
    }
    assert!(seen[0] <= 4 && seen.last() == Some(&7), "of 21 each: {seen:?}");
    // Where the table changes within a sample it may be off by one or two.
    assert!(seen.is_sorted_by(|before, after| *before <= *after + 2), "{seen:?}");
    assert!(seen.iter().collect::<BTreeSet<_>>().len() >= 3, "it jumped: {seen:?}");
}

#[tokio::test]
async fn a_recovered_server_begins_with_a_tenth() {
    let origins = origins::<2>().await;
    let keys = format!(
        "{LONG}\nhealthCheck: {{path: /health, interval: 100ms, unhealthyInterval: 1s, timeout: 1s}}"
    );
    let vigie = vigie(&app(&keys, &urls(&origins))).await;
    let url = origins[1].url();
    origins[1].on("/health", Script::status(503));
    vigie.until_metric("instance_health", &[("instance", &url)], 0.0).await;
    origins[1].on("/health", Script::status(200));
    vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
    for protocol in Protocol::BOTH {
        assert_eq!(shares(&vigie, protocol, 11).await, of(&[("api-1", 10), ("api-2", 1)]), "{protocol:?}");
    }
    vigie.until_said("Server starts slowly.").await;
}

/// Servers that wait for their first pass at the start of Vigie are all new as well.
#[tokio::test]
async fn nobody_is_slow_when_vigie_starts() {
    let origins = origins::<2>().await;
    let keys =
        format!("{LONG}\nhealthCheck: {{path: /health, interval: 100ms, timeout: 2s, startUnhealthy: true}}");
    origins[1].on("/health", Script::status(503));
    let vigie = vigie(&app(&keys, &urls(&origins))).await;
    vigie.until("the first is ready", |response| response.status == 200).await;
    let probes = async |more: usize| {
        let until = origins[1].requests() + more;
        assert!(eventually(PATIENCE, async || origins[1].requests() >= until).await);
    };
    probes(5).await; // half a second outside
    origins[1].on("/health", Script::status(200));
    vigie.until_metric("instance_health", &[("instance", &origins[1].url())], 1.0).await;
    assert_eq!(shares(&vigie, Protocol::Http1, 4).await, of(&[("api-1", 2), ("api-2", 2)]));
    probes(5).await;
    assert_eq!(vigie.metrics().await.value("lb_slow_start_servers", &SERVICE), Some(0.0));
    assert!(!vigie.words().contains("Server starts slowly."), "{}", vigie.words());
}
