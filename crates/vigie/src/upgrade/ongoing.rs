//! The upgrade that is under way, if one is, and its end.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use lb_acme::Acme;
use lb_control::{Operators, StateWatch};
use lb_observe::metrics::Metrics;
use lb_proxy::Proxy;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::control::{Outcome, Reply};
use super::live::LiveState;
use super::successor::{self, Estate, Launch, Successor};
use crate::admin::AdminService;
use crate::notify;

/// What an upgrade needs of the running process.
pub(crate) struct Upgrades<'a> {
    pub(crate) launch: Option<Launch>,
    pub(crate) proxy: &'a Proxy,
    pub(crate) metrics: Metrics,
    pub(crate) state: StateWatch,
    pub(crate) operators: Operators,
    pub(crate) admin: Arc<AdminService>,
    pub(crate) acme: Arc<Acme>,
    /// `core.upgradeTimeout`.
    pub(crate) timeout: Duration,
    pub(crate) ongoing: Option<Ongoing>,
}

pub(crate) struct Ongoing {
    raised: JoinHandle<Result<Successor, String>>,
    line: UnixStream,
    reply: Option<Reply>,
}

impl Upgrades<'_> {
    /// Begins an upgrade. `reply`: somebody waits for the outcome.
    pub(crate) fn begin(&mut self, reply: Option<Reply>) {
        if self.ongoing.is_some() {
            tracing::warn!("an upgrade is under way already");
            return answer(reply, Outcome::Failed { reason: "an upgrade is under way already".to_owned() });
        }
        match self.raise() {
            Ok((raised, line)) => {
                tracing::info!("upgrading: a new process is started");
                notify::reloading("upgrading: a new process is getting ready");
                self.ongoing = Some(Ongoing { raised, line, reply });
            }
            Err(reason) => self.failed(reason, reply),
        }
    }

    fn raise(&self) -> Result<(JoinHandle<Result<Successor, String>>, UnixStream), String> {
        let launch = self.launch.clone().ok_or("this command cannot be upgraded")?;
        if let Some(provider) = self.admin.remembered() {
            // A store that has lost its data would be believed.
            return Err(format!("the provider {provider} no longer says what is in force here"));
        }
        let (upgrades, upgrade_failures) = self.metrics.upgrades();
        let (state, operators) = (self.state.clone(), self.operators.clone());
        let (acme, rest, admin) = (Arc::clone(&self.acme), self.admin.rest(), Arc::clone(&self.admin));
        let estate = Estate {
            sockets: self.proxy.sockets().map_err(|error| error.to_string())?,
            datagrams: self.proxy.datagrams().map_err(|error| error.to_string())?,
            spoilt: self.admin.spoilt(),
            upgrades,
            upgrade_failures,
            rest: rest.as_ref().and_then(|rest| rest.last()),
            live: Box::new(move || {
                // An empty file is nothing wrong to a process that does not know what it said before.
                if let Some(file) = admin.remembered_file() {
                    return Err(format!("the file {file} no longer says what is in force here"));
                }
                // The new process owns the files of certificates as soon as it serves.
                acme.stop();
                let orders = operators.all().into_iter().map(|(told, _)| told);
                let now = Instant::now().into_std();
                let state = state.load();
                let services = [&*state.services, &*state.tcp];
                let live = LiveState::record(services, orders, lb_proxy::ticket_keys(), now);
                Ok(live.with_rest(rest.and_then(|rest| rest.last())))
            }),
        };
        let pair = || {
            let (ours, theirs) = UnixStream::pair()?;
            Ok((ours.try_clone()?, ours, theirs))
        };
        let (line, ours, theirs) = pair().map_err(|error: std::io::Error| error.to_string())?;
        let timeout = self.timeout;
        let raised =
            tokio::task::spawn_blocking(move || successor::raise(&launch, estate, (ours, theirs), timeout));
        Ok((raised, line))
    }

    /// Waits for the end of the upgrade; for ever while there is none. May be dropped at any time. `Some`: the new
    /// process serves.
    pub(crate) async fn finished(&mut self) -> Option<u32> {
        let Some(ongoing) = &mut self.ongoing else { return std::future::pending().await };
        let raised = (&mut ongoing.raised).await;
        let reply = self.ongoing.take().and_then(|ongoing| ongoing.reply);
        match raised.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(successor) => {
                let Successor { pid, version, took, _line: _ } = &successor;
                tracing::info!(
                    pid,
                    version,
                    ?took,
                    "upgraded: the new process serves, this one drains and ends"
                );
                self.proxy.handed_over();
                notify::succeeded_by(*pid);
                answer(reply, Outcome::Done { pid: *pid, version: version.clone(), took: *took });
                Some(*pid)
            }
            Err(reason) => {
                self.failed(reason, reply);
                None
            }
        }
    }

    /// Gives the upgrade up, if one is under way: this process is to stop. `true`: it was too late.
    pub(crate) async fn cancel(&mut self) -> bool {
        let Some(ongoing) = &self.ongoing else { return false };
        // Whoever reads it sees its end.
        let _ = ongoing.line.shutdown(Shutdown::Both);
        self.finished().await.is_some()
    }

    fn failed(&self, reason: String, reply: Option<Reply>) {
        self.acme.start();
        self.metrics.upgrade_failed();
        tracing::error!(reason, "the upgrade failed: this process goes on serving");
        notify::ready(&format!("serving; the last upgrade failed: {reason}"));
        answer(reply, Outcome::Failed { reason });
    }
}

fn answer(reply: Option<Reply>, outcome: Outcome) {
    if let Some(reply) = reply {
        reply.send(&outcome);
    }
}
