//! What the service manager is told (sd_notify(3)). Without one, nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// It serves.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// A new process is being raised; [`ready`] or [`succeeded_by`] ends it.
pub(crate) fn reloading(status: &str) {
    let Ok(now) = NotifyState::monotonic_usec_now() else { return };
    tell(&[NotifyState::Reloading, now, NotifyState::Status(&line(status))]);
}

/// The service is another process from now on.
pub(crate) fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready, NotifyState::Status("serving after an upgrade")]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: requests are finished first")]);
}

/// Where the service manager expects a sign of life (`WatchdogSec=`), gives it one twice as often, from the event
/// loop of the control plane. Ends at once elsewhere.
pub(crate) async fn keep_watchdog() {
    let Some(within) = sd_notify::watchdog_enabled().filter(|within| !within.is_zero()) else { return };
    let mut turn = tokio::time::interval((within / 2).max(Duration::from_millis(1)));
    loop {
        turn.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// A status is one line.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
