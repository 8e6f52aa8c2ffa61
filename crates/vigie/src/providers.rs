//! The providers of a configuration: started, attached to the control plane, asked again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lb_config::dynamic::ServersTransport;
use lb_config::{Context, StaticConfig};
use lb_control::Control;
use lb_provider::{DockerProvider, FileProvider, Remote, Rest};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::upgrade::Predecessor;

/// How long a start waits for the first answers over the network, all together, before it goes on without; chosen, as
/// for Docker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those that run, until they are dropped.
pub(crate) struct Providers {
    file: Option<FileProvider>,
    containers: Vec<DockerProvider>,
    remotes: Vec<Remote>,
    rest: Option<Arc<Rest>>,
}

impl Providers {
    /// Starts them all and waits for what they say first, but not long. Whoever is away joins when it comes, unless
    /// there is a predecessor: that one has its configuration, and serves on.
    ///
    /// # Errors
    /// Options that cannot be used, and what is missing of a predecessor's configuration.
    pub(crate) fn start(
        config: &StaticConfig,
        runtime: &Handle,
        control: &mut Control,
        predecessor: Option<&mut Predecessor>,
    ) -> anyhow::Result<Self> {
        let has_predecessor = predecessor.is_some();
        Ok(Self {
            file: file(config, control, has_predecessor)?,
            containers: containers(config, runtime, control, has_predecessor)?,
            remotes: remotes(config, runtime, control, has_predecessor)?,
            rest: rest(config, control, predecessor.and_then(Predecessor::rest))?,
        })
    }

    pub(crate) fn rest(&self) -> Option<&Arc<Rest>> {
        self.rest.as_ref()
    }

    /// Asks them all again (`SIGHUP`).
    pub(crate) fn reread(&self) {
        if let Some(file) = &self.file {
            file.reread();
        }
        self.containers.iter().for_each(DockerProvider::reread);
        self.remotes.iter().for_each(Remote::reread);
    }
}

fn file(
    config: &StaticConfig,
    control: &mut Control,
    has_predecessor: bool,
) -> anyhow::Result<Option<FileProvider>> {
    let Some(file) = &config.providers.file else { return Ok(None) };
    let start = if has_predecessor { FileProvider::take_over } else { FileProvider::start };
    let started = start(file.source.clone(), file.watch, Context::from(config))
        .context("the file provider cannot be started")?;
    if let Err(problems) = &started.first {
        if has_predecessor {
            bail!("the dynamic configuration is refused\n{problems}");
        }
        if !file.watch {
            bail!(
                "the dynamic configuration is refused, and nothing watches it for a better one\n{problems}"
            );
        }
    }
    control.attach("file", Some(started.first), started.readings);
    Ok(Some(started.provider))
}

fn containers(
    config: &StaticConfig,
    runtime: &Handle,
    control: &mut Control,
    has_predecessor: bool,
) -> anyhow::Result<Vec<DockerProvider>> {
    let mut providers = Vec::new();
    for daemon in config.providers.daemons() {
        let name = daemon.containers.orchestrator.provider();
        let tls = client_tls(name, daemon.tls.as_ref())?;
        let started = runtime.block_on(DockerProvider::start(daemon.clone(), tls, Context::from(config)));
        if let Err(problems) = &started.first
            && has_predecessor
        {
            bail!("the containers cannot be read\n{problems}");
        }
        control.attach(name, Some(started.first), started.readings);
        providers.push(started.provider);
    }
    Ok(providers)
}

/// Those that are asked over the network: all at once, so that the start waits for the slowest only.
fn remotes(
    config: &StaticConfig,
    runtime: &Handle,
    control: &mut Control,
    has_predecessor: bool,
) -> anyhow::Result<Vec<Remote>> {
    let mut remotes = Vec::new();
    let mut sources = Vec::new();
    let _inside = runtime.enter();
    for provider in &config.providers.remote {
        let tls = client_tls(&provider.name, provider.tls.as_ref())?;
        let (remote, readings) = Remote::start(provider.clone(), tls, Context::from(config));
        remotes.push(remote);
        sources.push((provider.name.as_str(), readings));
    }
    let deadline = Instant::now() + PATIENCE;
    for (name, mut readings) in sources {
        let first = runtime.block_on(timeout_at(deadline, readings.recv())).ok().flatten();
        match &first {
            Some(Err(problems)) if has_predecessor => {
                bail!("the provider {name} cannot be read\n{problems}")
            }
            None if has_predecessor => bail!("the provider {name} gives no answer"),
            _ => control.attach(name, first, readings),
        }
    }
    Ok(remotes)
}

/// The one that is told, with what it was sent in the process before this one.
fn rest(
    config: &StaticConfig,
    control: &mut Control,
    sent: Option<String>,
) -> anyhow::Result<Option<Arc<Rest>>> {
    if config.providers.rest.is_none() {
        return Ok(None);
    }
    let (rest, mut first, readings) = Rest::open(Context::from(config))?;
    if let Some(sent) = sent {
        first = restored(&rest, sent)?;
    }
    control.attach("rest", Some(Ok(first)), readings);
    Ok(Some(Arc::new(rest)))
}

/// What was sent to the process before this one, put back.
pub(crate) fn restored(rest: &Rest, sent: String) -> anyhow::Result<lb_config::Loaded> {
    rest.restore(sent).context("what the provider rest was sent is refused")
}

fn client_tls(
    provider: &str,
    options: Option<&ServersTransport>,
) -> anyhow::Result<Option<Arc<ClientConfig>>> {
    let tls = options.map(lb_proxy::client_tls).transpose();
    tls.map_err(|reason| anyhow::anyhow!("providers.{provider}.tls: {reason}"))
}
