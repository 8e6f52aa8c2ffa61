//! What the service manager is told (sd_notify(3)). Without one, nothing.
//!
//! It is a datagram. One that does not read must not hold us up, so nobody waits for long here.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What matters may wait so long for a place in the service manager's queue. Chosen.
const PATIENCE: Duration = Duration::from_secs(1);

/// It serves.
pub(crate) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={}", line(status)));
}

/// A new process is being raised; [`ready`] or [`succeeded_by`] ends it.
pub(crate) fn reloading(status: &str) {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS={}", line(status)));
}

/// The service is another process from now on.
pub(crate) fn succeeded_by(pid: u32) {
    tell(&format!("MAINPID={pid}\nREADY=1\nSTATUS=serving after an upgrade"));
}

pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping: requests are finished first");
}

/// Where the service manager expects a sign of life (`WatchdogSec=`), gives it one twice as often, from the event
/// loop of the control plane. Ends at once elsewhere.
pub(crate) async fn keep_watchdog() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let Some(within) = number("WATCHDOG_USEC").filter(|within| *within > 0 && for_us) else { return };
    let mut turn = tokio::time::interval((Duration::from_micros(within) / 2).max(Duration::from_millis(1)));
    loop {
        turn.tick().await;
        // The next one will do if this is one too many.
        let _ = send("WATCHDOG=1", None);
    }
}

fn tell(message: &str) {
    if let Err(error) = send(message, Some(PATIENCE)) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn send(message: &str, patience: Option<Duration>) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(patience.is_none())?;
    socket.set_write_timeout(patience)?;
    socket.send_to_addr(message.as_bytes(), &address(&name)?)?;
    Ok(())
}

/// A path, or with `@` a name in the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// A status is one line.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
