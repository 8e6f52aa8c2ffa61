//! What the replicas themselves need: a real PostgreSQL and a real Redis, lost and found again (C6).

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lb_testkit::{PATIENCE, VigieProcess, eventually, get, reserve_address};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Vigie, app};

/// A server program with its files and a port that it keeps over restarts.
struct Server {
    address: SocketAddr,
    directory: TempDir,
    process: Option<VigieProcess>,
    command: fn(&Path, SocketAddr) -> Command,
}

impl Server {
    fn redis() -> Self {
        Self::new(|directory, address| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string()]);
            command.current_dir(directory);
            command
        })
    }

    fn postgres() -> Self {
        let server = Self::new(|directory, address| {
            let mut command = unprivileged("postgres");
            // Sockets of its own, and no waiting for the disk: nothing here has to last.
            command.arg("-D").arg(directory.join("data")).arg("-k").arg(directory).arg("-F");
            command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
            command
        });
        let mut initdb = unprivileged("initdb");
        initdb
            .args(["--no-sync", "-A", "trust", "-U", "replica", "-D"])
            .arg(server.directory.path().join("data"));
        if let Some((uid, gid)) = postgres_user() {
            chown(server.directory.path(), Some(uid), Some(gid)).expect("root may give things away");
        }
        let Output { status, stderr, .. } = initdb.output().expect("initdb is installed");
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        server
    }

    fn new(command: fn(&Path, SocketAddr) -> Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { address: reserve_address(), directory, process: None, command }
    }

    fn start(&mut self) {
        let mut command = (self.command)(self.directory.path(), self.address);
        self.process = Some(VigieProcess::spawn(&mut command).expect("it is installed"));
    }

    /// At once, for both: PostgreSQL does not wait for its clients.
    async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::INT).unwrap();
        process.ended(PATIENCE).await.unwrap();
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal).unwrap();
    }
}

/// PostgreSQL refuses to run as root: Debian has a user for it.
fn postgres_user() -> Option<(u32, u32)> {
    rustix::process::getuid().is_root().then(|| {
        let users = std::fs::read_to_string("/etc/passwd").expect("a file of users");
        let line = users.lines().find_map(|line| line.strip_prefix("postgres:")).expect("a user postgres");
        let mut ids = line.split(':').skip(1).map(|id| id.parse().expect("a number"));
        (ids.next().expect("a user id"), ids.next().expect("a group id"))
    })
}

/// A program of PostgreSQL, which Debian keeps out of the PATH.
fn unprivileged(program: &str) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let binaries = versions.map(|version| version.expect("a directory").path().join("bin").join(program));
    let newest: PathBuf = binaries.filter(|path| path.exists()).max().expect("PostgreSQL is installed");
    let mut command = Command::new(newest);
    command.current_dir("/");
    if let Some((uid, gid)) = postgres_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The reference replica as it ships.
struct Replica {
    process: VigieProcess,
    address: SocketAddr,
}

impl Replica {
    async fn start(name: &str, database: SocketAddr, redis: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replica-e2e"));
        command
            .args(["--listen", "127.0.0.1:0", "--name", name])
            .env("DATABASE_URL", format!("postgres://replica@{database}/postgres"))
            .env("REDIS_URL", format!("redis://{redis}/"));
        let process = VigieProcess::spawn(&mut command).unwrap();
        let mut address = None;
        let said = eventually(PATIENCE, async || {
            let words = process.stderr();
            address = words
                .split_once("address=")
                .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
            address.is_some()
        });
        assert!(said.await, "{}", process.stderr());
        Self { process, address: address.unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status code and body of one of its three endpoints.
    async fn ask(&self, endpoint: &str) -> (u16, serde_json::Value) {
        let response = get(self.address, "replica", endpoint).await.unwrap();
        (response.status, response.json())
    }

    async fn until(&self, ready: u16, health: u16, status: &str) -> serde_json::Value {
        let mut last = None;
        let held = eventually(PATIENCE, async || {
            let seen = (self.ask("/ready").await, self.ask("/health").await);
            let held = seen.0.0 == ready && seen.1.0 == health && seen.1.1["status"] == status;
            last = Some(seen);
            held
        });
        assert!(held.await, "{last:?}\n{}", self.process.stderr());
        last.unwrap().1.1
    }
}

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
