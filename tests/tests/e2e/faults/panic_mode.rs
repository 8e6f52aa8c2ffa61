//! Panic mode: with too few servers left, ill ones are better than an overload of the last.

use lb_testkit::Script;

use super::{of, origins, shares, urls, vigie};
use crate::harness::{Protocol, app};

#[tokio::test]
async fn below_the_threshold_all_servers_are_used() {
    let origins = origins::<4>().await;
    let keys = "panicThreshold: 50\nhealthCheck: {path: /health, interval: 100ms, timeout: 2s}";
    let vigie = vigie(&app(keys, &urls(&origins))).await;
    let service = [("service", "app@file")];
    let all = of(&[("api-1", 1), ("api-2", 1), ("api-3", 1), ("api-4", 1)]);
    for ill in [1, 2] {
        origins[ill].on("/health", Script::status(503));
        vigie.until_metric("instance_health", &[("instance", &origins[ill].url())], 0.0).await;
    }
    vigie.until_metric("lb_panic_mode", &service, 0.0).await;
    assert_eq!(shares(&vigie, Protocol::Http1, 4).await, of(&[("api-1", 2), ("api-4", 2)]));
    origins[3].on("/health", Script::status(503));
    vigie.until_metric("lb_panic_mode", &service, 1.0).await;
    for protocol in Protocol::BOTH {
        assert_eq!(shares(&vigie, protocol, 4).await, all, "{protocol:?}");
    }
    vigie.until_said("Too few servers are eligible").await;
    assert_eq!(vigie.json("/api/http/services/app@file").await["panic"], true);
    // All of them ill: still better than nobody.
    origins[0].on("/health", Script::status(503));
    vigie.until_metric("instance_health", &[("instance", &origins[0].url())], 0.0).await;
    assert_eq!(shares(&vigie, Protocol::Http2, 4).await, all);
    for back in [0, 3] {
        origins[back].on("/health", Script::status(200));
        vigie.until_metric("instance_health", &[("instance", &origins[back].url())], 1.0).await;
    }
    assert_eq!(shares(&vigie, Protocol::Http1, 4).await, of(&[("api-1", 2), ("api-4", 2)]));
    vigie.until_said("Enough servers are eligible again").await;
    vigie.until_metric("lb_panic_mode", &service, 0.0).await;
}
