//! Vigie under test: its files, the process that serves now, and the ways it is changed under load.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use lb_testkit::{Authority, Files, PATIENCE, VigieProcess, eventually, get, reserve_address};
use rustix::process::{Pid, Signal, kill_process};

use crate::replica::Replica;

/// The name under which everything is asked for.
pub(crate) const HOST: &str = "soak.example.com";

const QUARANTINED: &str = "lb_config_quarantined_objects";

const STATIC: &str = "
core: {workers: 2}
entryPoints:
  web: {address: '{web}', transport: {lifeCycle: {graceTimeOut: 5s}}}
  websecure: {address: '{websecure}', http: {tls: {}}, transport: {lifeCycle: {graceTimeOut: 5s}}}
  traefik: {address: '{admin}'}
providers: {file: {filename: '{dir}/dynamic.yml'}}
api: {insecure: true}
ping: {}
metrics: {prometheus: {}}
log: {level: INFO, filePath: '{dir}/vigie.log'}
accessLog: {filePath: '{dir}/access.log', format: json}
";

/// Everything that keeps a request alive while a replica is not: probes, passive checks, a limit for the time to
/// an answer, and retries. `{n}` makes each version another one. Two seconds are chosen for each kind of patience:
/// a replica on a busy machine answers sooner, one that hangs does not.
const DYNAMIC: &str = "
http:
  routers:
    api: {rule: PathPrefix(`/`), priority: 1, middlewares: [again], service: api}
    sockets: {rule: Path(`/ws`), service: steady}
    version-{n}: {rule: Path(`/version-{n}`), service: steady}
  middlewares:
    again: {retry: {attempts: 4, initialInterval: 20ms, status: [502-504]}}
  services:
    api:
      loadBalancer:
        strategy: {strategy}
        servers: [{servers}]
        healthCheck: {path: /health, interval: 2s, unhealthyInterval: 500ms, timeout: 2s}
        passiveHealthCheck: {failureWindow: 2s, maxFailedAttempts: 3}
        serversTransport: impatient
    steady: {loadBalancer: {servers: [{url: '{steady}'}]}}
  serversTransports:
    impatient: {forwardingTimeouts: {dialTimeout: 2s, responseHeaderTimeout: 2s}}
tls: {certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]}
";

pub(crate) struct Vigie {
    binary: PathBuf,
    files: Files,
    pub(crate) authority: Authority,
    pub(crate) web: SocketAddr,
    pub(crate) websecure: SocketAddr,
    admin: SocketAddr,
    /// URLs of the replicas that come and go, and of the one that stays.
    servers: Vec<String>,
    steady: String,
    version: usize,
    process: VigieProcess,
    /// The process that serves now, for whoever watches it.
    pub(crate) serving: Arc<AtomicU32>,
}

impl Vigie {
    pub(crate) async fn start(binary: &Path, replicas: &[Replica], steady: &Replica) -> anyhow::Result<Self> {
        let files = Files::new();
        let authority = Authority::new("soak");
        authority.issue(&[HOST]).write(files.path(), "site");
        let [web, websecure, admin] = [(); 3].map(|()| reserve_address());
        let addresses = [("{web}", web), ("{websecure}", websecure), ("{admin}", admin)];
        let mut text = STATIC.replace("{dir}", &files.path().display().to_string());
        for (placeholder, address) in addresses {
            text = text.replace(placeholder, &address.to_string());
        }
        let servers: Vec<_> = replicas.iter().map(Replica::url).collect();
        files.write("dynamic.yml", &dynamic(&files, 0, &servers, &steady.url()));
        let process = VigieProcess::start(binary, &files.write("vigie.yml", &text), web).await?;
        let binary = binary.to_owned();
        let steady = steady.url();
        let serving = Arc::new(AtomicU32::new(process.pid()));
        let mut vigie = Self {
            binary,
            files,
            authority,
            web,
            websecure,
            admin,
            servers,
            steady,
            version: 0,
            process,
            serving,
        };
        vigie.reload().await?;
        Ok(vigie)
    }

    /// The processes that were started with our static file, the oldest first: an upgrade puts another one in the
    /// place of ours, and for a while there are two.
    fn processes(&self) -> Vec<u32> {
        let file = self.files.path().join("vigie.yml").display().to_string();
        let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut found: Vec<(u64, u32)> = numbers
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&file)
            })
            .filter_map(|pid| Some((started(pid)?, pid)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, pid)| pid).collect()
    }

    /// Another version of the dynamic file, and proof that it is in force.
    pub(crate) async fn reload(&mut self) -> anyhow::Result<()> {
        let servers = self.servers.clone();
        self.reload_with(&servers).await
    }

    /// A server leaves the service and comes back.
    pub(crate) async fn reload_without(&mut self, server: usize) -> anyhow::Result<()> {
        let mut servers = self.servers.clone();
        servers.remove(server);
        self.reload_with(&servers).await?;
        self.reload().await
    }

    async fn reload_with(&mut self, servers: &[String]) -> anyhow::Result<()> {
        self.version += 1;
        let text = dynamic(&self.files, self.version, servers, &self.steady);
        self.files.write("dynamic.yml", &text);
        let path = format!("/version-{}", self.version);
        // Only the new version's router leads there; the others would echo the origin's name of the pool.
        let live = eventually(PATIENCE, async || {
            get(self.web, HOST, &path).await.is_ok_and(|answer| answer.text().contains("\"steady\""))
        });
        ensure!(live.await, "version {} was not in force within {PATIENCE:?}", self.version);
        Ok(())
    }

    /// A file with a mistake: it is refused and counted, or what is broken is quarantined, and nothing else
    /// happens. Then it is mended.
    pub(crate) async fn reload_broken(&mut self, how: usize) -> anyhow::Result<()> {
        let before = self.metric("lb_config_reload_failures_total").await?;
        let good = dynamic(&self.files, self.version, &self.servers, &self.steady);
        let broken = match how % 3 {
            0 => good.replace("service: api}", "service: nobody}"),
            1 => good.replace("rule:", "rulle:"),
            _ => format!("{good}  ]"),
        };
        self.files.write("dynamic.yml", &broken);
        let noticed = eventually(PATIENCE, async || {
            self.metric("lb_config_reload_failures_total").await.is_ok_and(|now| now > before)
                || self.metric(QUARANTINED).await.is_ok_and(|objects| objects > 0.0)
        });
        ensure!(noticed.await, "a broken file was not noticed:\n{broken}");
        self.reload().await?;
        let mended = eventually(PATIENCE, async || self.metric(QUARANTINED).await.is_ok_and(|n| n == 0.0));
        ensure!(mended.await, "something is still in quarantine");
        Ok(())
    }

    /// As logrotate does.
    pub(crate) async fn rotate_logs(&self) -> anyhow::Result<()> {
        let logs = ["access.log", "vigie.log"].map(|name| self.files.path().join(name));
        for log in &logs {
            if log.exists() {
                std::fs::rename(log, log.with_extension("old"))?;
            }
        }
        let pid = self.serving.load(Ordering::SeqCst);
        signal(pid, Signal::USR1)?;
        // Each is opened anew with its next line; what counts is that nobody holds the old one.
        let left = eventually(PATIENCE, async || {
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            !open.any(|path| path.extension().is_some_and(|extension| extension == "old"))
        });
        ensure!(left.await, "the old logs are still open after {PATIENCE:?}");
        for log in &logs {
            // Absent where nothing was logged since the rotation before.
            let _ = std::fs::remove_file(log.with_extension("old"));
        }
        Ok(())
    }

    /// Whether the binary knows how to replace itself.
    pub(crate) fn can_upgrade(&self) -> bool {
        let mut help = Command::new(&self.binary);
        help.args(["upgrade", "--help"]).stdout(Stdio::null()).stderr(Stdio::null());
        help.status().is_ok_and(|status| status.success())
    }

    /// Replaces the process by a new one and waits until that serves and the old one is gone.
    pub(crate) async fn upgrade(&mut self) -> anyhow::Result<()> {
        let old = self.serving.load(Ordering::SeqCst);
        signal(old, Signal::USR2)?;
        let replaced = eventually(PATIENCE * 2, async || match self.processes()[..] {
            [only] => only != old,
            _ => false,
        });
        ensure!(replaced.await, "process {old} was not replaced; its log ends with\n{}", self.last_words());
        self.serving.store(self.processes().last().copied().unwrap_or(old), Ordering::SeqCst);
        self.reload().await
    }

    /// The sum of a metric's series.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = get(self.admin, "localhost", "/metrics").await?;
        let series = page
            .text()
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        series
            .map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>().context("a number"))
            .sum()
    }

    /// Whether all servers take traffic.
    pub(crate) async fn all_healthy(&self) -> bool {
        self.metric("instance_health").await.is_ok_and(|sum| sum >= self.servers.len() as f64)
    }

    /// The end of its log and what it has written to stderr.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.files.path().join("vigie.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(30)..];
        format!("{}\n{}", tail.join("\n"), self.process.stderr())
    }
}

impl Drop for Vigie {
    fn drop(&mut self) {
        // The first process dies with its handle, its successors are nobody's children of ours.
        for pid in self.processes() {
            let _ = signal(pid, Signal::KILL);
        }
    }
}

fn dynamic(files: &Files, version: usize, servers: &[String], steady: &str) -> String {
    let strategy = ["wrr", "leastConn", "p2c", "leasttime"][version % 4];
    // Each version lists the servers in another order.
    let mut servers: Vec<_> = servers.iter().map(|url| format!("{{url: '{url}'}}")).collect();
    let first = version % servers.len();
    servers.rotate_left(first);
    DYNAMIC
        .replace("{dir}", &files.path().display().to_string())
        .replace("{n}", &version.to_string())
        .replace("{strategy}", strategy)
        .replace("{servers}", &servers.join(", "))
        .replace("{steady}", steady)
}

/// Field 22 of /proc/PID/stat; `None` for one that has ended.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let is_zombie = fields.next() == Some("Z");
    fields.nth(18)?.parse().ok().filter(|_| !is_zombie)
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id is not zero")?;
    Ok(kill_process(pid, signal)?)
}
