//! Providers that are asked over the network: an HTTP endpoint, and stores of keys, of which the real servers run.

mod agent;
mod endpoint;
mod logins;
mod stores;

use lb_testkit::{Files, PATIENCE, eventually};

use crate::harness::Vigie;

/// With these providers, and nothing that is not asked over the network.
async fn start(providers: &str) -> Vigie {
    over(Files::new(), providers).await
}

async fn over(files: Files, providers: &str) -> Vigie {
    let text = format!(
        "core: {{workers: 2}}\nentryPoints:\n  web: {{address: '127.0.0.1:0'}}\n  traefik: {{address: '127.0.0.1:0'}}\n\
         providers: {providers}\napi: {{insecure: true}}\nping: {{}}\nmetrics: {{prometheus: {{}}}}\nlog: {{level: INFO}}\n"
    );
    Vigie::launch(files, &text).await
}

/// Waits until exactly these routers of the provider are there.
async fn until_routers(vigie: &Vigie, provider: &str, expected: &[&str]) {
    let mut last = Vec::new();
    let held = eventually(PATIENCE, async || {
        last.clear();
        let routers = vigie.json("/api/http/routers").await;
        for router in routers.as_array().into_iter().flatten() {
            let name = router["name"].as_str().unwrap_or_default();
            last.extend(name.strip_suffix(&format!("@{provider}")).map(str::to_owned));
        }
        last.sort();
        last == expected
    });
    assert!(held.await, "{last:?} are not {expected:?}\n{}", vigie.words());
}

async fn until_stale(vigie: &Vigie, provider: &str, stale: bool) {
    vigie.until_metric("lb_provider_stale", &[("provider", provider)], f64::from(u8::from(stale))).await;
    let health = vigie.json("/health").await;
    let status = if stale { "degraded" } else { "healthy" };
    assert_eq!(health["status"], status, "{health}");
    if stale {
        let reason = format!(
            "provider {provider}: it cannot be asked, or what it says is refused; what it said last is in force"
        );
        assert_eq!(health["reasons"], serde_json::json!([reason]));
    }
}
