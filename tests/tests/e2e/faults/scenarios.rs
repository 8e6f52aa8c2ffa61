//! The failure scenarios of the reference system (C15), with its own configuration and replicas on a real PostgreSQL and
//! a real Redis. Each prints its time line: docs/failure-scenarios.md has one of each.
//!
//! The balancer's own crash is in [`virtual_address`](super::virtual_address), a bad version in
//! [`rollout`](crate::change).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use lb_testkit::{Client, Failure, Load, Report, Running, VigieProcess, eventually};
use rustix::process::Signal;

use crate::harness::{Vigie, shipped};
use crate::programs::{Replica, Server};
use crate::timeline::TimeLine;

const HOST: &str = "cartae.example.com";
/// Of health checks here; the shipped file has 10 s.
const INTERVAL: Duration = Duration::from_secs(1);
/// Of one health check here; the shipped file has 3 s.
const TIMEOUT: Duration = Duration::from_millis(900);
/// How long an answer may take here; the shipped file has 10 s.
const ANSWER: Duration = Duration::from_secs(2);
/// What a busy machine may add to any of them.
const BUSY: Duration = Duration::from_secs(2);

/// `config/cartae/dynamic/api.yml` with other servers, and ten times as fast.
fn configuration(urls: &[String; 3]) -> String {
    shipped(
        "config/cartae/dynamic/api.yml",
        &[
            ("http://127.0.0.11:3001", &urls[0]),
            ("http://127.0.0.12:3001", &urls[1]),
            ("http://127.0.0.13:3001", &urls[2]),
            ("          port: 3001\n", ""),
            ("interval: 10s", "interval: 1s"),
            ("timeout: 3s", "timeout: 900ms"),
            ("responseHeaderTimeout: 10s", "responseHeaderTimeout: 2s"),
        ],
    )
}

struct System {
    vigie: Vigie,
    database: Server,
    redis: Server,
    /// Of the first replica alone.
    own_redis: Server,
    replicas: Vec<Replica>,
}

impl System {
    async fn start() -> Self {
        let (mut database, mut redis, mut own_redis) = (Server::postgres(), Server::redis(), Server::redis());
        database.start();
        redis.start();
        own_redis.start();
        let mut replicas = Vec::new();
        for (name, redis) in [("api-1", &own_redis), ("api-2", &redis), ("api-3", &redis)] {
            replicas.push(Replica::start(name, database.address, redis.address).await);
        }
        let urls = [0, 1, 2].map(|at: usize| replicas[at].url());
        let vigie = Vigie::start(&configuration(&urls)).await;
        let system = Self { vigie, database, redis, own_redis, replicas };
        system.all(1.0).await;
        system
    }

    async fn health(&self, at: usize, health: f64) {
        health_of(&self.vigie, &self.replicas[at].url(), health).await;
    }

    async fn all(&self, health: f64) {
        for at in 0..3 {
            self.health(at, health).await;
        }
    }

    fn crash(&self, at: usize) {
        self.replicas[at].process.signal(Signal::KILL).unwrap();
    }

    async fn start_again(&mut self, at: usize, name: &str) {
        let address = self.replicas[at].address;
        let redis = if at == 0 { &self.own_redis } else { &self.redis };
        self.replicas[at] = Replica::at(address, name, self.database.address, redis.address).await;
    }
}

async fn health_of(vigie: &Vigie, url: &str, health: f64) {
    vigie.until_metric("instance_health", &[("instance", url)], health).await;
}

fn load(vigie: &Vigie) -> Running {
    Load::new(vigie.web(), HOST).connections(8).pause(Duration::from_millis(2)).start()
}

/// Lets the load go on for a while first.
async fn end(load: Running) -> Report {
    let until = load.done() + 200;
    assert!(eventually(BUSY, async || load.done() >= until).await);
    load.stop().await
}

/// Who answers so many requests.
async fn shares(vigie: &Vigie, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut client = Client::connect(vigie.web()).await.unwrap();
    for _ in 0..count {
        let answer = client.get(HOST, "/").await.unwrap();
        assert_eq!(answer.status, 200);
        *shares.entry(answer.text().trim().to_owned()).or_default() += 1;
    }
    shares
}

fn requests(time: &TimeLine, report: &Report) {
    let (ok, slowest) = (report.ok, report.percentile(1.0));
    time.note(&format!("{ok} requests answered, {} failed, the slowest took {slowest:.0?}", report.failed()));
}

#[tokio::test]
async fn one_replica_crashes() {
    let mut system = System::start().await;
    let time = TimeLine::new("one of three replicas crashes (SIGKILL), health checks each second");
    let load = load(&system.vigie);
    let crashed = time.note("api-2 is killed");
    system.crash(1);
    system.health(1, 0.0).await;
    let out = time.note("api-2 is out of the pool");
    assert!(out - crashed <= INTERVAL + BUSY, "{:?}", out - crashed);
    assert_eq!(shares(&system.vigie, 20).await.len(), 2);
    system.start_again(1, "api-2").await;
    let started = time.note("api-2 is started again");
    system.health(1, 1.0).await;
    let back = time.note("api-2 is back");
    assert!(back - started <= INTERVAL + BUSY, "{:?}", back - started);
    assert_eq!(shares(&system.vigie, 30).await.len(), 3);
    let report = end(load).await;
    requests(&time, &report);
    report.assert_flawless();
}

#[tokio::test]
async fn two_replicas_crash() {
    let mut system = System::start().await;
    let time = TimeLine::new("two of three replicas crash at once (SIGKILL), health checks each second");
    let load = load(&system.vigie);
    let crashed = time.note("api-1 and api-3 are killed");
    system.crash(0);
    system.crash(2);
    system.health(0, 0.0).await;
    system.health(2, 0.0).await;
    let out = time.note("both are out of the pool, api-2 serves alone");
    assert!(out - crashed <= INTERVAL + BUSY, "{:?}", out - crashed);
    assert_eq!(shares(&system.vigie, 20).await, [("api-2".to_owned(), 20)].into());
    system.start_again(0, "api-1").await;
    system.start_again(2, "api-3").await;
    let started = time.note("both are started again");
    system.all(1.0).await;
    let back = time.note("both are back");
    assert!(back - started <= INTERVAL + BUSY, "{:?}", back - started);
    let report = end(load).await;
    requests(&time, &report);
    report.assert_flawless();
}

#[tokio::test]
async fn the_database_is_lost() {
    let mut system = System::start().await;
    let time = TimeLine::new("the database is lost, health checks each second");
    let load = load(&system.vigie);
    let lost = time.note("PostgreSQL is stopped");
    system.database.stop().await;
    system.all(0.0).await;
    let out = time.note("all replicas are unhealthy");
    assert!(out - lost <= INTERVAL + TIMEOUT + BUSY, "{:?}", out - lost);
    let mut client = Client::connect(system.vigie.web()).await.unwrap();
    let answer = client.get(HOST, "/").await.unwrap();
    assert_eq!((answer.status, answer.get("retry-after").is_some()), (503, true));
    time.note("clients get 503 with Retry-After");
    let found = time.note("PostgreSQL is started");
    system.database.start();
    system.all(1.0).await;
    let back = time.note("all replicas are back, nobody has touched them");
    // It has to start as well.
    assert!(back - found <= INTERVAL + TIMEOUT + BUSY * 2, "{:?}", back - found);
    assert_eq!(shares(&system.vigie, 30).await.len(), 3);
    let report = end(load).await;
    time.note(&format!("{} requests answered by replicas, {} with 503", report.ok, report.failed()));
    // An honest 503, and nothing else.
    assert!(report.failures.keys().all(|failure| *failure == Failure::Status(503)), "{:?}", report.failures);
}

#[tokio::test]
async fn redis_is_lost() {
    let mut system = System::start().await;
    let time = TimeLine::new("Redis of one replica is lost, health checks each second");
    let load = load(&system.vigie);
    let lost = time.note("the Redis of api-1 is stopped");
    system.own_redis.stop().await;
    system.health(0, 0.5).await;
    let degraded = time.note("api-1 is degraded");
    assert!(degraded - lost <= INTERVAL + TIMEOUT + BUSY, "{:?}", degraded - lost);
    let report = end(load).await;
    let shared = shares(&system.vigie, 50).await;
    let of = |name: &str| shared[name];
    time.note(&format!(
        "of 50 requests api-1 gets {}, api-2 {}, api-3 {}",
        of("api-1"),
        of("api-2"),
        of("api-3")
    ));
    assert_eq!((of("api-1"), of("api-2"), of("api-3")), (10, 20, 20));
    let found = time.note("Redis is started");
    system.own_redis.start();
    system.health(0, 1.0).await;
    let back = time.note("api-1 is healthy");
    assert!(back - found <= INTERVAL + TIMEOUT + BUSY, "{:?}", back - found);
    assert_eq!(shares(&system.vigie, 30).await["api-1"], 10);
    requests(&time, &report);
    report.assert_flawless();
}

/// A machine of its own for one replica, joined by a cable that can be cut. Gone with the test.
struct Island {
    name: String,
    address: SocketAddr,
}

impl Island {
    fn new() -> Self {
        let id = std::process::id();
        let name = format!("vgi{id}");
        // Four of 10.128.0.0/10 that nobody else is likely to have.
        let net = format!("10.{}.{}", 128 + id / 256 % 64, id % 256);
        run("ip", &format!("netns add {name}"));
        let island = Self { address: format!("{net}.2:3001").parse().unwrap(), name: name.clone() };
        run("ip", &format!("link add {name} type veth peer name eth0 netns {name}"));
        run("ip", &format!("addr add {net}.1/30 dev {name}"));
        run("ip", &format!("link set {name} up"));
        island.run(&format!("ip addr add {net}.2/30 dev eth0"));
        island.run("ip link set eth0 up");
        island
    }

    fn run(&self, command: &str) {
        run("ip", &format!("netns exec {} {command}", self.name));
    }

    /// Everything is dropped without a word, on connections from before as well.
    fn cut(&self) {
        self.run("iptables -I INPUT -j DROP");
        self.run("iptables -I OUTPUT -j DROP");
    }

    fn mend(&self) {
        self.run("iptables -F");
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("it is installed");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// No reset, no refusal: packets are simply gone. Needs root, as namespaces do.
#[tokio::test]
async fn the_network_to_one_replica_is_gone() {
    if !rustix::process::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the tests run as root, network namespaces need it");
        crate::timeline::show("SKIPPED: network namespaces need root");
        return;
    }
    let island = Island::new();
    // Databases are not what this is about, so `/live` says how a replica is.
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &island.name, env!("CARGO_BIN_EXE_replica-e2e"), "--name", "api-1"]);
    command.args(["--listen", &island.address.to_string()]);
    command.env("DATABASE_URL", "postgres://127.0.0.1:1/").env("REDIS_URL", "redis://127.0.0.1:1/");
    let _far = VigieProcess::spawn(&mut command).unwrap();
    let near =
        [Replica::start("api-2", nowhere, nowhere).await, Replica::start("api-3", nowhere, nowhere).await];
    let url = format!("http://{}", island.address);
    let urls = [url.clone(), near[0].url(), near[1].url()];
    let vigie = Vigie::start(&configuration(&urls).replace("path: /health", "path: /live")).await;
    for url in &urls {
        health_of(&vigie, url, 1.0).await;
    }

    let time =
        TimeLine::new("the network to one of three replicas drops everything, health checks each second");
    let load = load(&vigie);
    let until = load.done() + 200;
    assert!(eventually(BUSY, async || load.done() >= until).await);
    let gone = time.note("packets to and from api-1 are dropped");
    island.cut();
    health_of(&vigie, &url, 0.0).await;
    let out = time.note("api-1 is out of the pool");
    assert!(out - gone <= INTERVAL + TIMEOUT + BUSY, "{:?}", out - gone);
    assert_eq!(shares(&vigie, 20).await.len(), 2);
    vigie.until_metric("active_connections", &[("instance", &url)], 0.0).await;
    let rescued = time.note("whoever waited for api-1 has been answered by another one");
    assert!(rescued - gone <= ANSWER + BUSY, "{:?}", rescued - gone);
    let mended = time.note("the network is back");
    island.mend();
    health_of(&vigie, &url, 1.0).await;
    let back = time.note("api-1 is back");
    assert!(back - mended <= INTERVAL + TIMEOUT + BUSY, "{:?}", back - mended);
    assert_eq!(shares(&vigie, 30).await.len(), 3);
    let report = end(load).await;
    requests(&time, &report);
    report.assert_flawless();
    assert!(report.percentile(1.0) < ANSWER + BUSY, "{:?}", report.percentile(1.0));
}
