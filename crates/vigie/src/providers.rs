//! The providers that are asked over the network: started, attached, asked again.

use std::time::Duration;

use lb_config::{Context, StaticConfig};
use lb_control::Control;
use lb_provider::Remote;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// How long a start waits for the first answers, all together, before it goes on without; chosen, as for Docker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those of a configuration.
pub(crate) struct Remotes(Vec<Remote>);

impl Remotes {
    /// Starts them all and waits for what they say first, but not long. Whoever is away joins when it comes, unless
    /// there is a predecessor (`has_predecessor`): that one has its configuration, and serves on.
    ///
    /// # Errors
    /// TLS options that cannot be used, and what is missing of a predecessor's configuration.
    pub(crate) fn start(
        config: &StaticConfig,
        runtime: &Handle,
        control: &mut Control,
        has_predecessor: bool,
    ) -> anyhow::Result<Self> {
        let mut remotes = Vec::new();
        let mut sources = Vec::new();
        let _inside = runtime.enter();
        for provider in &config.providers.remote {
            let tls = provider.tls.as_ref().map(lb_proxy::client_tls).transpose();
            let tls = tls.map_err(|reason| anyhow::anyhow!("providers.{}.tls: {reason}", provider.name))?;
            let (remote, readings) = Remote::start(provider.clone(), tls, Context::from(config));
            remotes.push(remote);
            sources.push((provider.name.as_str(), readings));
        }
        let deadline = Instant::now() + PATIENCE;
        for (name, mut readings) in sources {
            let first = runtime.block_on(timeout_at(deadline, readings.recv())).ok().flatten();
            match &first {
                Some(Err(problems)) if has_predecessor => {
                    anyhow::bail!("the provider {name} cannot be read\n{problems}")
                }
                None if has_predecessor => anyhow::bail!("the provider {name} gives no answer"),
                _ => control.attach(name, first, readings),
            }
        }
        Ok(Self(remotes))
    }

    /// Asks them all again (`SIGHUP`).
    pub(crate) fn reread(&self) {
        self.0.iter().for_each(Remote::reread);
    }
}
