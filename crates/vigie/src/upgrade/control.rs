//! `vigie upgrade`, and how it finds and asks the running process.
//!
//! That listens on a Unix socket in the abstract namespace whose name is its process id: nothing to configure, to
//! create or to clean up. Only the same user and root are listened to, as with a signal.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::print::say;

const NAME: &str = "vigie-";
/// The one thing that can be asked.
const UPGRADE: &[u8] = b"upgrade\n";
/// How long somebody may take to ask. Chosen.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of an upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done { pid: u32, version: String, took: Duration },
    Failed { reason: String },
}

/// Whoever waits for it.
pub(crate) struct Reply(UnixStream);

impl Reply {
    /// Written when it returns: the process may be about to end.
    pub(super) fn send(self, outcome: &Outcome) {
        let Ok(text) = serde_json::to_vec(outcome) else { return };
        // Whoever asked may have gone away.
        let _ = (&self.0).write_all(&text);
    }
}

/// Upgrades that are asked for over the socket.
pub(crate) struct Requests {
    asked: mpsc::Receiver<Reply>,
    /// Keeps `asked` open where there is no socket.
    _ask: mpsc::Sender<Reply>,
}

impl Requests {
    /// Listens from now on; needs a runtime around it. Without a socket signals are left.
    pub(crate) fn listen() -> Self {
        let (ask, asked) = mpsc::channel(1);
        let bound = address(std::process::id()).and_then(|address| UnixListener::bind_addr(&address));
        let listener = bound.and_then(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::UnixListener::from_std(listener)
        });
        match listener {
            Ok(listener) => {
                tokio::spawn(accept(listener, ask.clone()));
            }
            Err(error) => tracing::warn!(%error, "`vigie upgrade` will not find this process; SIGUSR2 does"),
        }
        Self { asked, _ask: ask }
    }

    pub(crate) async fn next(&mut self) -> Reply {
        match self.asked.recv().await {
            Some(reply) => reply,
            None => std::future::pending().await,
        }
    }
}

async fn accept(listener: tokio::net::UnixListener, ask: mpsc::Sender<Reply>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_trusted(stream.peer_cred().map(|peer| peer.uid())) => {
                tokio::spawn(answer(stream, ask.clone()));
            }
            Ok(_) => tracing::warn!("another user asked for an upgrade, in vain"),
            Err(error) => {
                tracing::warn!(%error, "nobody can ask for an upgrade now");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

fn is_trusted(peer: io::Result<u32>) -> bool {
    peer.is_ok_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
}

async fn answer(mut stream: tokio::net::UnixStream, ask: mpsc::Sender<Reply>) {
    let mut question = [0; UPGRADE.len()];
    let asked = tokio::time::timeout(PATIENCE, stream.read_exact(&mut question)).await;
    if !matches!(asked, Ok(Ok(_))) || question != UPGRADE {
        return;
    }
    let stream = stream.into_std().and_then(|stream| {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    });
    if let Ok(stream) = stream {
        // In vain when the process is stopping, which the end of the stream says.
        let _ = ask.send(Reply(stream)).await;
    }
}

fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{NAME}{pid}"))
}

/// `vigie upgrade`: asks, waits, and says what came of it.
pub(crate) fn command(pid: Option<u32>) -> anyhow::Result<()> {
    let (pid, mut stream) = match pid {
        Some(pid) => {
            (pid, connect(pid).with_context(|| format!("process {pid} is no Vigie that can be asked"))?)
        }
        None => find()?,
    };
    stream.write_all(UPGRADE)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match serde_json::from_slice(&answer) {
        Ok(Outcome::Done { pid: new, version, took }) => {
            say(&format!(
                "process {pid} has handed over to process {new}, version {version}, after {took:.1?}"
            ));
            Ok(())
        }
        Ok(Outcome::Failed { reason }) => bail!("process {pid} goes on serving: {reason}"),
        Err(_) => bail!("process {pid} ended before the upgrade did"),
    }
}

/// The one that runs.
fn find() -> anyhow::Result<(u32, UnixStream)> {
    let mut found: Vec<_> =
        running()?.into_iter().filter_map(|pid| Some((pid, connect(pid).ok()?))).collect();
    match (found.pop(), found.is_empty()) {
        (None, _) => bail!("no Vigie of this user is running"),
        (Some(one), true) => Ok(one),
        (Some((last, _)), false) => {
            let mut pids: Vec<_> = found.iter().map(|(pid, _)| pid.to_string()).collect();
            pids.push(last.to_string());
            bail!("several run: name one with --pid ({})", pids.join(", "))
        }
    }
}

fn running() -> anyhow::Result<BTreeSet<u32>> {
    let sockets = std::fs::read_to_string("/proc/net/unix").context("name the process with --pid")?;
    let names = sockets.lines().filter_map(|line| line.rsplit('@').next()?.strip_prefix(NAME));
    Ok(names.filter_map(|pid| pid.parse().ok()).collect())
}

/// Whoever listens under this name must be that process: anybody can take a name.
fn connect(pid: u32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&address(pid)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    let own = is_trusted(Ok(peer.uid.as_raw())) || rustix::process::geteuid().is_root();
    match own && peer.pid.as_raw_nonzero().get().unsigned_abs() == pid {
        true => Ok(stream),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else")),
    }
}
