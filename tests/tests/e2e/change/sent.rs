//! Upgrades and what only the running process knows: what the provider `rest` was sent, and what a store said last.

use std::process::Command;

use lb_testkit::{Client, PATIENCE, VigieProcess, eventually, get, reserve_address};

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

/// Adds keys of a router to a Redis, once it takes them.
async fn set_router(address: std::net::SocketAddr) -> bool {
    let Ok(mut client) = Client::connect(address).await else { return false };
    let keys = ["service noop@internal", "rule Path(`/f`)"]
        .map(|key| format!("SET traefik/http/routers/f/{key}\r\n"));
    client.send(keys.concat()).await.is_ok()
        && client.bytes(10).await.is_ok_and(|answer| answer == b"+OK\r\n+OK\r\n")
}

#[tokio::test]
async fn no_upgrade_believes_a_store_that_has_lost_its_data() {
    let address = reserve_address();
    let redis = || {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string()]);
        VigieProcess::spawn(&mut command).expect("it is installed")
    };
    let running = redis();
    assert!(eventually(PATIENCE, async || set_router(address).await).await);
    let text = format!(
        "core: {{workers: 2}}\nentryPoints:\n  web: {{address: '127.0.0.1:0'}}\n  traefik: {{address: '127.0.0.1:0'}}\n\
         providers: {{redis: {{endpoints: '{address}'}}}}\napi: {{insecure: true}}\nping: {{}}\nmetrics: {{prometheus: {{}}}}\n"
    );
    let mut vigie = Dynasty::found(&text, "{}").await;
    let status = async |vigie: &Dynasty| get(vigie.web(), "localhost", "/f").await.unwrap().status;
    vigie.upgrade().await;
    assert_eq!(status(&vigie).await, 418);
    drop(running);
    let _running = redis();
    let told = async || {
        vigie.words().contains("the store has come back without a key below `traefik`")
            || vigie.words().contains("the store cannot be reached")
    };
    assert!(eventually(PATIENCE, told).await, "{}", vigie.words());
    let refused = vigie.try_upgrade().await.unwrap_err();
    assert!(refused.contains("the provider redis no longer says what is in force here"), "{refused}");
    assert_eq!(status(&vigie).await, 418);
    vigie.stop().await;
}
