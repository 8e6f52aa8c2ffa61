//! What the machine grants this process: processors, file descriptors, a name.

use lb_config::StaticConfig;

/// How many workers there are to be: as many as processors, unless the configuration says otherwise.
pub(crate) fn workers(config: &StaticConfig) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.core.workers.unwrap_or_else(processors)
}

/// Takes all the file descriptors that the system grants: the soft limit, often 1024, is for programs that
/// use `select`. Go, and so Traefik, does the same. Returns how many that are.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
        return current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}

/// Whether so many descriptors are enough for these workers to serve anybody.
pub(crate) fn ensure_descriptors(
    descriptors: u64,
    workers: usize,
    config: &StaticConfig,
) -> anyhow::Result<()> {
    let least = 64 + workers * (16 + config.entry_points.len());
    anyhow::ensure!(
        descriptors >= least as u64,
        "{descriptors} file descriptors are too few to serve anybody, {least} are the least\n  \
         hint: raise the limit: `LimitNOFILE=` of the systemd unit, `ulimit -n` of a shell"
    );
    Ok(())
}

/// For `X-Forwarded-Server`.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
