//! What the replicas themselves need: a real PostgreSQL and a real Redis, lost and found again (C6).

use std::time::Duration;

use lb_testkit::get;
use rustix::process::Signal;

use crate::harness::{Vigie, app};
use crate::programs::{Replica, Server};

#[tokio::test]
async fn replicas_lose_and_find_their_database_and_their_redis() {
    let (mut database, mut redis) = (Server::postgres(), Server::redis());
    database.start();
    redis.start();
    let mut replicas = Vec::new();
    for name in ["api-1", "api-2", "api-3"] {
        replicas.push(Replica::start(name, database.address, redis.address).await);
    }
    let urls: Vec<String> = replicas.iter().map(Replica::url).collect();
    // The time limit of the reference system.
    let check =
        "healthCheck: {path: /health, interval: 200ms, timeout: 3s, degraded: true, startUnhealthy: true}";
    let vigie = Vigie::start(&app(check, &urls)).await;
    let health = async |expected: f64| {
        for url in &urls {
            vigie.until_metric("instance_health", &[("instance", url)], expected).await;
        }
    };

    health(1.0).await;
    let body = replicas[0].until(200, 200, "healthy").await;
    for reading in [
        "/checks/database/latency_ms",
        "/checks/redis/latency_ms",
        "/checks/memory/percent",
        "/checks/cpu/percent",
    ] {
        assert!(body.pointer(reading).is_some_and(serde_json::Value::is_number), "{reading}: {body}");
    }
    assert!(body["version"].is_string() && body["uptime_seconds"].is_u64(), "{body}");
    for name in ["api-1", "api-2", "api-3"] {
        assert_eq!(vigie.get("/").await.text(), format!("{name}\n"));
    }
    // Nothing of a real one is to be played with.
    assert_eq!(get(replicas[0].address, "replica", "/fail?crash").await.unwrap().text(), "api-1 GET /fail\n");

    // Redis lost: worse, but at work. `/ready` is for orchestrators, which Vigie is not.
    redis.stop().await;
    health(0.5).await;
    let body = replicas[0].until(503, 200, "degraded").await;
    assert!(body["reasons"].to_string().contains("redis: "), "{body}");
    vigie.until("a degraded replica serves", |response| response.status == 200).await;

    // The database lost as well: nobody is left to ask.
    database.stop().await;
    health(0.0).await;
    let body = replicas[0].until(503, 503, "unhealthy").await;
    assert!(body["reasons"].to_string().contains("database: "), "{body}");
    vigie.until("no replica is left", |response| response.status == 503).await;
    assert_eq!(get(replicas[0].address, "replica", "/live").await.unwrap().status, 200);

    // Both are back: so are the replicas, and nobody has started anything anew.
    database.start();
    redis.start();
    health(1.0).await;
    replicas[0].until(200, 200, "healthy").await;
    vigie.until("all is well again", |response| response.status == 200).await;

    // A Redis that accepts and says nothing is as good as lost, and found again all the same.
    redis.signal(Signal::STOP);
    let body = replicas[0].until(503, 200, "degraded").await;
    assert!(body["reasons"].to_string().contains("redis: timed out"), "{body}");
    redis.signal(Signal::CONT);
    replicas[0].until(200, 200, "healthy").await;

    let status = replicas[0].process.stop(Duration::from_secs(5)).await.unwrap();
    assert!(status.success(), "{status}");
    for _ in 0..6 {
        assert_eq!(vigie.get("/").await.status, 200);
    }
    redis.stop().await;
    database.stop().await;
}
