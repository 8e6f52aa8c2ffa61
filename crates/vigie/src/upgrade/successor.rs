//! The running process's side: it raises the one that is to follow.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use lb_proxy::{Datagrams, Inherited};
use tokio::time::Instant;

use super::live::LiveState;
use super::predecessor::FOLLOWS;
use super::wire::{self, Offer, Offered, OfferedDatagrams, Ready, Serving};

/// How much of what a failed process said is kept: its last words. Chosen.
const LAST_WORDS: usize = 4096;
/// How long a dead process's last words are waited for: a child of its own may hold the pipe open. Chosen.
const SILENCE: Duration = Duration::from_secs(1);

/// The command line of this process, to be run again.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launch {
    /// To be called at start: what is at the path later is then the new program.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let named = arguments.next().map(PathBuf::from).unwrap_or_default();
        // As it was called, so that a symbolic link may lead elsewhere by then. A bare name came from the PATH.
        let program = match named.parent() {
            Some(parent) if parent != Path::new("") => std::path::absolute(&named)?,
            _ => std::env::current_exe()?,
        };
        Ok(Self { program, arguments: arguments.collect() })
    }
}

/// What the new process is given.
pub(super) struct Estate {
    pub(super) sockets: Vec<Inherited>,
    pub(super) datagrams: Vec<Datagrams>,
    pub(super) spoilt: BTreeSet<String>,
    pub(super) upgrades: u64,
    pub(super) upgrade_failures: u64,
    pub(super) rest: Option<String>,
    /// Asked for at the last moment; or why nothing is handed over.
    pub(super) live: Box<dyn FnOnce() -> Result<LiveState, String> + Send>,
}

/// A new process that serves.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) took: Duration,
    /// Its end tells the new process that it is on its own.
    pub(super) _line: UnixStream,
}

/// Starts a new process and hands over to it, over `ours`, whose other end is `theirs`. Blocks; shutting down
/// `ours` ends it soon.
///
/// # Errors
/// Why the new process, which has ended then, cannot serve. Its last words are in the text.
pub(super) fn raise(
    launch: &Launch,
    estate: Estate,
    (ours, theirs): (UnixStream, UnixStream),
    timeout: Duration,
) -> Result<Successor, String> {
    let began = Instant::now();
    let (mut child, words) = spawn(launch, theirs)
        .map_err(|error| format!("{} cannot be started: {error}", launch.program.display()))?;
    match hand_over(&ours, estate, began + timeout) {
        Ok(Ready { version }) => {
            Ok(Successor { pid: child.id(), version, took: began.elapsed(), _line: ours })
        }
        Err(error) if error.kind() == io::ErrorKind::Other => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.to_string())
        }
        Err(error) => {
            let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            // One that hangs up is about to end, and may yet say why.
            let mut last = if late { None } else { words.recv_timeout(SILENCE).ok() };
            // Nothing happens to one that has ended by itself: its status stays what it is.
            let _ = child.kill();
            let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            let what = match error.kind() {
                _ if late => format!("the new process was not ready within {timeout:?}"),
                io::ErrorKind::InvalidData => format!("the new process is not understood: {error}"),
                _ => format!("the new process ended ({ended})"),
            };
            last = last.or_else(|| words.recv_timeout(SILENCE).ok()).filter(|last| !last.is_empty());
            Err(match last {
                Some(last) => format!("{what}: {last}"),
                None => what,
            })
        }
    }
}

fn spawn(launch: &Launch, theirs: UnixStream) -> io::Result<(Child, Receiver<String>)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).env(FOLLOWS, std::process::id().to_string());
    // Of systemd, and meant for this process by its id.
    for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    let child = command.stdin(OwnedFd::from(theirs)).stderr(writer).spawn()?;
    // With it this process would hold the new one's ends open.
    drop(command);
    let (last, words) = mpsc::channel();
    let _ = std::thread::Builder::new().name("successor".to_owned()).spawn(move || {
        // Nobody asks once the new process serves.
        let _ = last.send(repeat(reader));
    })?;
    Ok((child, words))
}

/// Passes on what comes to standard error until its end; returns the last of it.
fn repeat(mut reader: PipeReader) -> String {
    let (mut block, mut kept) = ([0; 1024], Vec::new());
    while let Ok(count @ 1..) = reader.read(&mut block) {
        let _ = io::stderr().lock().write_all(&block[..count]);
        kept.extend_from_slice(&block[..count]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn hand_over(line: &UnixStream, estate: Estate, deadline: Instant) -> io::Result<Ready> {
    let Estate { sockets, datagrams, spoilt, upgrades, upgrade_failures, rest, live } = estate;
    let patience = || {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        line.set_write_timeout(Some(left)).and_then(|()| line.set_read_timeout(Some(left)))
    };
    patience()?;
    let offered = sockets.iter().map(|Inherited { entry_point, configured, .. }| Offered {
        entry_point: entry_point.clone(),
        configured: *configured,
    });
    let ports = datagrams.iter().map(|Datagrams { entry_point, configured, tags, .. }| OfferedDatagrams {
        entry_point: entry_point.clone(),
        configured: *configured,
        tags: tags.clone(),
    });
    let offer = Offer {
        protocol: wire::PROTOCOL,
        sockets: offered.collect(),
        datagrams: ports.collect(),
        spoilt,
        upgrades,
        upgrade_failures,
        rest,
    };
    wire::send(line, &offer)?;
    let stderr = io::stderr();
    let mut descriptors = vec![stderr.as_fd()];
    descriptors.extend(sockets.iter().map(|inherited| inherited.socket.as_fd()));
    descriptors.extend(datagrams.iter().flat_map(|one| [one.socket.as_fd(), one.pipe.as_fd()]));
    wire::send_descriptors(line, &descriptors)?;
    let ready: Ready = wire::receive(line)?;
    patience()?;
    wire::send(line, &live().map_err(io::Error::other)?)?;
    let Serving {} = wire::receive(line)?;
    Ok(ready)
}
