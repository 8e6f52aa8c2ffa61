//! The new process's side: it takes over, or ends and says why on standard error.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lb_observe::metrics::Metrics;
use lb_proxy::{Datagrams, Inherited};
use rustix::process::{Pid, getppid};

use super::live::LiveState;
use super::wire::{self, Offer, Offered, OfferedDatagrams, Ready, Serving};

/// Names the process that this one follows; its end of the socket pair is standard input then.
pub(super) const FOLLOWS: &str = "VIGIE_FOLLOWS";
/// How long the other may take for its last words to the service manager. Chosen.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often, and after which pause, it is looked whether the other has died. Chosen.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The running process that is to be followed.
pub(crate) struct Predecessor {
    parent: Option<Pid>,
    line: UnixStream,
    /// Where standard error goes; until this process serves the other one reads it.
    stderr: OwnedFd,
    offer: Offer,
    sockets: Vec<Inherited>,
    datagrams: Vec<Datagrams>,
}

impl Predecessor {
    /// `None` when this process was started to serve from scratch.
    pub(crate) fn meet() -> anyhow::Result<Option<Self>> {
        let parent = getppid();
        let named = parent.map(|pid| pid.as_raw_nonzero().to_string());
        // Some descendant may have been given the variable on the way.
        if named.is_none() || std::env::var(FOLLOWS).ok() != named {
            return Ok(None);
        }
        let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let offer: Offer = wire::receive(&line).context("the running process offers nothing")?;
        if offer.protocol != wire::PROTOCOL {
            bail!("the running process speaks version {} of the upgrade protocol", offer.protocol);
        }
        let count = 1 + offer.sockets.len() + 2 * offer.datagrams.len();
        let mut descriptors = wire::receive_descriptors(&line, count)
            .context("the running process keeps its sockets")?
            .into_iter();
        let stderr = descriptors.next().context("no standard error")?;
        let named = offer.sockets.iter().zip(descriptors.by_ref());
        let sockets = named.map(|(Offered { entry_point, configured }, socket)| Inherited {
            entry_point: entry_point.clone(),
            configured: *configured,
            socket: TcpListener::from(socket),
        });
        let sockets = sockets.collect();
        let mut datagrams = Vec::new();
        for OfferedDatagrams { entry_point, configured, tags } in &offer.datagrams {
            let (socket, pipe) = descriptors.next().zip(descriptors.next()).context("no port for HTTP/3")?;
            let (entry_point, tags) = (entry_point.clone(), tags.clone());
            let socket = UdpSocket::from(socket);
            datagrams.push(Datagrams { entry_point, configured: *configured, tags, socket, pipe });
        }
        Ok(Some(Self { parent, line, stderr, offer, sockets, datagrams }))
    }

    /// Its listening sockets, to be taken once.
    pub(crate) fn sockets(&mut self) -> Vec<Inherited> {
        std::mem::take(&mut self.sockets)
    }

    /// Its ports for HTTP/3, to be taken once.
    pub(crate) fn datagrams(&mut self) -> Vec<Datagrams> {
        std::mem::take(&mut self.datagrams)
    }

    pub(crate) fn count(&self, metrics: &Metrics) {
        metrics.upgraded(self.offer.upgrades, self.offer.upgrade_failures);
    }

    /// What its provider `rest` was sent so far, to be taken once.
    pub(crate) fn rest(&mut self) -> Option<String> {
        self.offer.rest.take()
    }

    /// Checks that nothing is `spoilt` here that the other still serves.
    pub(crate) fn check(&self, spoilt: &BTreeSet<String>) -> anyhow::Result<()> {
        let lost: Vec<_> = spoilt.difference(&self.offer.spoilt).map(String::as_str).collect();
        if !lost.is_empty() {
            bail!("the dynamic configuration would lose what is served now: {}", lost.join(", "));
        }
        Ok(())
    }

    /// Says that everything is prepared; returns when it is time to serve, with what is known of the servers: nothing if the
    /// other has died meanwhile. Nobody else has the sockets then.
    pub(crate) fn ready(&self) -> anyhow::Result<LiveState> {
        let ready = Ready { version: crate::VERSION.to_owned() };
        let told = wire::send(&self.line, &ready).and_then(|()| wire::receive(&self.line));
        if told.is_err() && has_died(self.parent) {
            tracing::warn!("the process before this one has died: nothing is known of the servers yet");
            return Ok(LiveState::default());
        }
        told.context("the running process did not hand over")
    }

    /// Says that this process accepts connections: the other one stops. Returns when that has told the service
    /// manager, which believes this process from then on.
    pub(crate) fn serving(self) -> anyhow::Result<()> {
        let Self { parent, mut line, stderr, .. } = self;
        let told = wire::send(&line, &Serving {});
        if told.is_err() && !has_died(parent) {
            return told.context("the running process has given this one up");
        }
        rustix::stdio::dup2_stderr(stderr)?;
        line.set_read_timeout(Some(FAREWELL))?;
        // It says no more: the end, or that it takes its time.
        let _ = line.read(&mut [0]);
        Ok(())
    }
}

/// Whether the other, which says nothing more, has died. If not, it has given this process up, and ends it.
fn has_died(parent: Option<Pid>) -> bool {
    // Its sockets are closed a moment before it is nobody's parent.
    (0..LOOKS).any(|_| {
        let died = getppid() != parent;
        if !died {
            std::thread::sleep(PAUSE);
        }
        died
    })
}
