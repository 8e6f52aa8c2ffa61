//! The signals of a running process, and what is done about them.

use lb_config::StaticConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::notify;
use crate::providers::Providers;
use crate::telemetry::Telemetry;
use crate::upgrade::{Requests, Upgrades};

/// Signals that mean something to us; from the first look on they no longer end the process.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    commands: Commands,
}

/// Those that end nothing. One that comes too early is obeyed when its time has come.
pub(crate) struct Commands {
    reopen: Signal,
    reread: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Needs a runtime around it.
    pub(crate) fn catch(commands: Commands) -> std::io::Result<Self> {
        let [terminate, interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Ok(Self { terminate, interrupt, commands })
    }
}

impl Commands {
    /// Needs a runtime around it.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            reopen: signal(SignalKind::user_defined1())?,
            reread: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Handles signals and upgrades until one of them says to stop.
pub(crate) async fn wait(
    (mut signals, mut requests): (Signals, Requests),
    mut upgrades: Upgrades<'_>,
    config: &StaticConfig,
    telemetry: &Telemetry,
    providers: &Providers,
) {
    let Signals { terminate, interrupt, commands: Commands { reopen, reread, upgrade } } = &mut signals;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reopen.recv() => telemetry.reopen(),
            _ = reread.recv() => providers.reread(),
            _ = upgrade.recv() => upgrades.begin(None),
            reply = requests.next() => upgrades.begin(Some(reply)),
            // Nobody has to notice anything: what goes away is only this process.
            Some(_) = upgrades.finished() => return,
        }
    }
    if upgrades.cancel().await {
        return;
    }
    notify::stopping();
    upgrades.admin.set_draining();
    let patience =
        config.entry_points.iter().map(|entry| entry.request_accept_grace_timeout).max().unwrap_or_default();
    if patience.is_zero() {
        tracing::info!("stopping: requests are finished first");
    } else {
        tracing::info!(
            requestAcceptGraceTimeout = ?patience,
            "stopping: /ping and /ready say so, requests are taken a while longer and finished first"
        );
        // A second signal does not wait.
        tokio::select! {
            () = tokio::time::sleep(patience) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
