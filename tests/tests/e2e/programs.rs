//! Outside programs that scenarios need: a real PostgreSQL, a real Redis, and the reference replica.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lb_testkit::{PATIENCE, VigieProcess, eventually, get, reserve_address};
use rustix::process::Signal;
use tempfile::TempDir;

/// A server program with its files and a port that it keeps over restarts.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    process: Option<VigieProcess>,
    command: fn(&Path, SocketAddr) -> Command,
}

impl Server {
    pub(crate) fn redis() -> Self {
        Self::new(|directory, address| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string()]);
            command.current_dir(directory);
            command
        })
    }

    pub(crate) fn postgres() -> Self {
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

    pub(crate) fn start(&mut self) {
        let mut command = (self.command)(self.directory.path(), self.address);
        self.process = Some(VigieProcess::spawn(&mut command).expect("it is installed"));
    }

    /// At once, for both: PostgreSQL does not wait for its clients.
    pub(crate) async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::INT).unwrap();
        process.ended(PATIENCE).await.unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
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
pub(crate) struct Replica {
    pub(crate) process: VigieProcess,
    pub(crate) address: SocketAddr,
}

impl Replica {
    pub(crate) async fn start(name: &str, database: SocketAddr, redis: SocketAddr) -> Self {
        Self::at(reserve_address(), name, database, redis).await
    }

    /// At an address of the caller's: it comes back where it was.
    pub(crate) async fn at(listen: SocketAddr, name: &str, database: SocketAddr, redis: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_replica-e2e"));
        command
            .args(["--listen", &listen.to_string(), "--name", name])
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

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status code and body of one of its three endpoints.
    pub(crate) async fn ask(&self, endpoint: &str) -> (u16, serde_json::Value) {
        let response = get(self.address, "replica", endpoint).await.unwrap();
        (response.status, response.json())
    }

    pub(crate) async fn until(&self, ready: u16, health: u16, status: &str) -> serde_json::Value {
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
