//! What the provider `rest` was sent goes along with an upgrade.

use lb_testkit::{Client, PATIENCE, eventually, get};

use super::dynasty::Dynasty;

const REST: &str = "/api/providers/rest";

#[tokio::test]
async fn an_upgrade_keeps_what_was_sent() {
    let text = "core: {workers: 2}\nentryPoints:\n  web: {address: '127.0.0.1:0'}\n  traefik: {address: '127.0.0.1:0'}\n\
                providers: {rest: {insecure: true}, file: {filename: '{dir}/dynamic.yml'}}\napi: {insecure: true}\nping: {}\n\
                metrics: {prometheus: {}}\n";
    // A file that cannot do without.
    let file = "http: {routers: {f: {rule: 'Path(`/f`)', service: s@rest}}}";
    let mut vigie = Dynasty::found(text, file).await;
    let sent = r#"{"http": {"services": {"s": {"loadBalancer": {"servers": []}}}}}"#;
    let mut client = Client::connect(vigie.admin()).await.unwrap();
    let answer = client.request("PUT", "localhost", REST, &[], Some(sent.as_bytes())).await.unwrap();
    assert_eq!(answer.status, 200);
    let status =
        async |vigie: &Dynasty| get(vigie.web(), "localhost", "/f").await.map(|answer| answer.status);
    assert!(eventually(PATIENCE, async || status(&vigie).await.ok() == Some(503)).await);
    vigie.upgrade().await;
    assert_eq!(status(&vigie).await.unwrap(), 503);
    vigie.upgrade().await;
    assert_eq!(status(&vigie).await.unwrap(), 503);
    vigie.stop().await;
}
