//! `rateLimit.redis`: two Vigies share one limit in a real Redis, which goes away and comes back.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use lb_testkit::{Origin, PATIENCE, VigieProcess, eventually, get, reserve_address};
use rustix::process::Signal;

use crate::harness::{HOST, Vigie};
use crate::middlewares::behind;

struct Redis {
    address: SocketAddr,
    directory: tempfile::TempDir,
    process: Option<VigieProcess>,
}

impl Redis {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut redis = Self { address: reserve_address(), directory, process: None };
        redis.run().await;
        redis
    }

    async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        let port = self.address.port().to_string();
        command.args(["--bind", "127.0.0.1", "--save", "", "--requirepass", "secret", "--port", &port]);
        self.process = Some(VigieProcess::spawn(command.current_dir(self.directory.path())).unwrap());
        let listens = async || std::net::TcpStream::connect(self.address).is_ok();
        assert!(eventually(PATIENCE, listens).await);
    }

    async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::INT).unwrap();
        process.ended(PATIENCE).await.unwrap();
    }

    /// Requests by `source`: one an hour, and so many at once.
    fn limit(&self, burst: usize) -> String {
        format!(
            "limit: {{rateLimit: {{average: 1, period: 1h, burst: {burst}, sourceCriterion: {{requestHeaderName: X-Source}}, \
             redis: {{endpoints: ['{}'], password: secret, db: 3, readTimeout: 500ms, writeTimeout: 500ms, dialTimeout: 1s}}}}}}",
            self.address
        )
    }
}

async fn status(vigie: &Vigie, source: &str) -> u16 {
    let mut client = lb_testkit::Client::connect(vigie.web()).await.unwrap();
    client.request("GET", HOST, "/", &[("X-Source", source)], None).await.unwrap().status
}

#[tokio::test]
async fn two_proxies_share_one_limit() {
    let redis = Redis::start().await;
    let server = Origin::start("api").await;
    let text = behind("limit", &redis.limit(6), &[server.url()]);
    let vigies = [Vigie::start(&text).await, Vigie::start(&text).await];
    let mut statuses = Vec::new();
    for turn in 0..8 {
        statuses.push(status(&vigies[turn % 2], "one").await);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429, 429]);
    assert_eq!(status(&vigies[1], "another").await, 200);
    let refused = get(vigies[0].web(), HOST, "/").await.unwrap();
    assert_eq!(refused.status, 200, "without the header it is a source of its own");
    let mut client = lb_testkit::Client::connect(vigies[0].web()).await.unwrap();
    let refused = client.request("GET", HOST, "/", &[("X-Source", "one")], None).await.unwrap();
    assert_eq!((refused.status, refused.text()), (429, "Too Many Requests"));
    let wait: u64 = refused.get("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    // A reload counts on.
    vigies[0].write(&format!("{text}    more: {{addPrefix: {{prefix: /x}}}}\n"));
    let reloaded = eventually(PATIENCE, async || {
        get(vigies[0].admin(), "localhost", "/api/http/middlewares/more@file").await.unwrap().status == 200
    });
    assert!(reloaded.await);
    assert_eq!(status(&vigies[0], "one").await, 429);
    let shown = vigies[0].json("/api/http/middlewares/limit@file").await;
    let redis = &shown["rateLimit"]["redis"];
    assert_eq!(
        (&redis["password"], &redis["db"], &redis["dialTimeout"]),
        (&"xxxx".into(), &3.into(), &"1s".into())
    );
}

#[tokio::test]
async fn many_at_once_get_no_more_than_there_are() {
    let redis = Redis::start().await;
    let server = Origin::start("api").await;
    let text = behind("limit", &redis.limit(20), &[server.url()]);
    let vigies = [Vigie::start(&text).await, Vigie::start(&text).await];
    let mut asking = tokio::task::JoinSet::new();
    for turn in 0..60 {
        let address = vigies[turn % 2].web();
        asking.spawn(async move { get(address, HOST, "/").await.unwrap().status });
    }
    let statuses = asking.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20);
}

#[tokio::test]
async fn without_its_redis_a_limit_lets_nobody_in() {
    let mut redis = Redis::start().await;
    let server = Origin::start("api").await;
    let vigie = Vigie::start(&behind("limit", &redis.limit(100), &[server.url()])).await;
    assert_eq!(status(&vigie, "one").await, 200);
    redis.stop().await;
    let refused = get(vigie.web(), HOST, "/").await.unwrap();
    assert_eq!((refused.status, refused.text()), (500, "Could not insert/update bucket\n"));
    let labels = [("middleware", "limit@file")];
    assert_eq!(vigie.metrics().await.value("lb_rate_limit_store_errors_total", &labels), Some(1.0));
    vigie.until_said("cannot be asked: requests are answered 500").await;
    assert!(!vigie.words().contains("secret"));
    redis.run().await;
    vigie.until("it goes on by itself", |response| response.status == 200).await;
    // One that does not answer is as good as none.
    redis.process.as_ref().unwrap().signal(Signal::STOP).unwrap();
    let began = tokio::time::Instant::now();
    // 1 s for an answer, and then at once for 1 s.
    for _ in 0..20 {
        assert_eq!(get(vigie.web(), HOST, "/").await.unwrap().status, 500);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    redis.process.as_ref().unwrap().signal(Signal::CONT).unwrap();
    vigie.until("and again", |response| response.status == 200).await;
}
