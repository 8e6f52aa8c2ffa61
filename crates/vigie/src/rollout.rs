//! `vigie rollout`: another version of the servers of a service, one server at a time, without a failed request.
//!
//! Taking a server out and in is done over the API of the running instance, replacing it by a command of the operator's.
//! What has been done is on disk before each step ([`record`]).

mod command;
mod fleet;
mod record;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use lb_observe::rfc3339;
use tokio::signal::unix::{SignalKind, signal};

use crate::api_client::{ApiClient, Target};
use crate::options::Options;
use crate::print::{complain, say};
use crate::server;
use command::Words;
use fleet::{Fleet, Sight};
use record::{Lock, Machine, Phase, Record, Store};
use steps::{End, Steps};

/// How often it is looked whether something has come true.
const POLL: Duration = Duration::from_millis(200);

/// Of `vigie rollout --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  all servers run the version
  1  refused, nothing has been changed
  2  rolled back: all servers run what they ran before
  3  stopped midway; the same command goes on from there, --rollback leads back";

#[derive(Debug, Args)]
pub(crate) struct Rollout {
    /// `name@provider`, or the name alone where that is clear.
    service: String,
    /// What the servers are to run. The same again goes on where a rollout was broken off.
    #[arg(required_unless_present_any = ["rollback", "status"])]
    version: Option<String>,
    /// Back to what ran before the last rollout.
    #[arg(long, conflicts_with = "version")]
    rollback: bool,
    /// Print how the last rollout went, and change nothing.
    #[arg(long, conflicts_with_all = ["version", "rollback"])]
    status: bool,
    /// Gives one server the version: a command of the shell with {server} (host:port), {host}, {port}, {url},
    /// {service}, {version} filled in. Needed the first time.
    #[arg(long, value_name = "COMMAND")]
    replace: Option<String>,
    /// What runs now. Needed when no rollout has been recorded, or somebody changed it by other means.
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// Runs once before anything is changed, with {service} and {version}: fails when the version cannot be had.
    #[arg(long, value_name = "COMMAND")]
    preflight: Option<String>,
    /// Runs for each server once it is healthy, before it gets requests; placeholders as in --replace.
    #[arg(long, value_name = "COMMAND")]
    check: Option<String>,
    /// Servers that always get requests. Default: all but one, and at least one.
    #[arg(long = "minserving", value_name = "COUNT")]
    min_serving: Option<usize>,
    /// How long requests in flight are waited for.
    #[arg(long = "draintimeout", value_name = "TIME", default_value = "1m", value_parser = duration)]
    drain_timeout: Duration,
    /// How long a command may take.
    #[arg(long = "commandtimeout", value_name = "TIME", default_value = "5m", value_parser = duration)]
    command_timeout: Duration,
    /// How long a server may take to get healthy.
    #[arg(long = "healthtimeout", value_name = "TIME", default_value = "60s", value_parser = duration)]
    health_timeout: Duration,
    /// How long a server is watched under load before the next one.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pause: Duration,
    /// Servers that run the version already are replaced as well.
    #[arg(long)]
    again: bool,
    /// Look whether all is ready for it, and change nothing.
    #[arg(long = "dryrun")]
    dry_run: bool,
    /// Where it is kept what has been done. Default: /var/lib/vigie/rollout for root, ~/.local/state/vigie/rollout.
    #[arg(long = "statedir", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Who says so, for the log. Default: user and host.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    target: Target,
}

fn duration(text: &str) -> Result<Duration, String> {
    lb_config::duration(text).map_err(|reason| format!("{reason}; write `90s` or `10m`"))
}

/// All servers run the old version again.
const ROLLED_BACK: u8 = 2;
/// Some run one version and some the other; all that are well get requests.
const MIDWAY: u8 = 3;

pub(crate) fn run(options: &Options, rollout: &Rollout) -> anyhow::Result<ExitCode> {
    // What libraries and rustls may not find by themselves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let api = ApiClient::new(&rollout.target, options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let fleet = Fleet::find(api, options, &rollout.service).await?;
        let store = Store::open(rollout.state_dir.as_deref(), &fleet.service)?;
        if rollout.status {
            return status(&store, &fleet).await;
        }
        let lock = Lock::take(fleet.instance(), &fleet.service)?;
        let record = plan(rollout, &fleet, &store)?;
        let ended = begin(rollout, &fleet, &store, record).await;
        drop(lock);
        ended
    });
    runtime.shutdown_background();
    ended
}

/// What is to be done, from what has been done and what is asked for.
fn plan(
    rollout: &Rollout,
    fleet: &Fleet,
    store: &Store,
) -> anyhow::Result<impl FnOnce(&Sight) -> anyhow::Result<Record>> {
    let known = store.load()?;
    let service = fleet.service.clone();
    let version = match (&rollout.version, &known) {
        (Some(version), _) => version.clone(),
        (None, Some(Record { previous: Some(previous), .. })) => previous.clone(),
        (None, _) => bail!("no rollout of {service} has left anything to go back to: name the version"),
    };
    let replace = rollout.replace.clone().or_else(|| known.as_ref().map(|known| known.replace.clone()));
    let replace =
        replace.context("say how a server gets a version: --replace='COMMAND {server} {version}'")?;
    let of_server = ["{server}", "{host}", "{port}", "{url}"];
    ensure!(
        of_server.iter().any(|word| replace.contains(word)),
        "--replace says nothing of the server: write {{server}}, {{host}}, {{port}} or {{url}} into it"
    );
    let check = rollout.check.clone().or_else(|| known.as_ref().and_then(|known| known.check.clone()));
    let by = rollout.by.clone().unwrap_or_else(server::whoami);
    let from = rollout.from.clone();
    Ok(move |sight: &Sight| {
        let machines = machines(&sight.urls(), known.as_ref(), &version, from.as_deref())?;
        let previous = match &known {
            Some(known) if !known.phase.is_over() => known.previous.clone(),
            Some(known) if known.version == version => from.clone().or_else(|| known.previous.clone()),
            Some(known) => from.clone().or_else(|| Some(known.version.clone())),
            None => from.clone(),
        };
        let previous = previous.filter(|previous| *previous != version);
        let changed_at = rfc3339(SystemTime::now());
        Ok(Record {
            service,
            version,
            previous,
            phase: Phase::Running,
            by,
            changed_at,
            replace,
            check,
            servers: machines,
        })
    })
}

/// Each server with what it runs, as far as that is known, and what it goes back to.
fn machines(
    urls: &[String],
    known: Option<&Record>,
    version: &str,
    from: Option<&str>,
) -> anyhow::Result<Vec<Machine>> {
    let goes_on = known.filter(|known| !known.phase.is_over() && known.version == version);
    let mut machines = Vec::new();
    let mut unknown = Vec::new();
    for url in urls {
        let recorded = known.and_then(|known| known.servers.iter().find(|machine| machine.server == *url));
        let runs = match recorded {
            // Somebody knows better than a record that is over.
            Some(machine) if goes_on.is_none() => from
                .filter(|_| machine.version.is_some())
                .map(str::to_owned)
                .or_else(|| machine.version.clone()),
            Some(machine) => machine.version.clone(),
            None => from.map(str::to_owned),
        };
        let before = match (recorded, &runs) {
            (Some(machine), _) if goes_on.is_some() => machine.before.clone(),
            (_, Some(runs)) => runs.clone(),
            (Some(machine), None) => machine.before.clone(),
            (None, None) => {
                unknown.push(url.as_str());
                continue;
            }
        };
        machines.push(Machine { server: url.clone(), version: runs, before });
    }
    ensure!(
        unknown.is_empty(),
        "nobody has recorded what {} runs, so there would be no way back: say it with --from=VERSION",
        unknown.join(", ")
    );
    Ok(machines)
}

async fn begin(
    rollout: &Rollout,
    fleet: &Fleet,
    store: &Store,
    plan: impl FnOnce(&Sight) -> anyhow::Result<Record>,
) -> anyhow::Result<ExitCode> {
    let sight = fleet.look().await?;
    let record = plan(&sight)?;
    let count = record.servers.len();
    let min_serving = rollout.min_serving.unwrap_or_else(|| count.saturating_sub(1).max(1));
    let todo: Vec<usize> = (0..count)
        .filter(|at| rollout.again || record.servers[*at].version.as_deref() != Some(&*record.version))
        .collect();
    preflight(rollout, fleet, &sight, &record, min_serving).await?;
    if todo.is_empty() {
        // It may have been broken off behind its last step.
        if !rollout.dry_run {
            store.save(&Record { phase: Phase::Done, ..record.clone() })?;
        }
        say(&format!(
            "all {count} servers of {} run {} already; --again replaces them nevertheless",
            record.service, record.version
        ));
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{} to {}: {} of {count} servers, one at a time, at least {min_serving} in service; state in {}",
        record.service,
        record.version,
        todo.len(),
        store.path().display()
    ));
    if rollout.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    store.save(&record)?;
    let mut steps = Steps::new(fleet, store, record, rollout, min_serving);
    let stop = steps.stop();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async || {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    let mut work = std::pin::pin!(steps.all(&todo));
    let ended = tokio::select! {
        ended = &mut work => ended,
        () = next() => {
            stop.set(true);
            complain("vigie: stopping when this server is done or back; once more: at once");
            tokio::select! {
                ended = &mut work => ended,
                () = next() => Ok(End::Stopped("killed".to_owned())),
            }
        }
    };
    // What cannot be recorded ends it as well, but not as if nothing had been changed.
    let ended = ended.unwrap_or_else(|error| End::Stopped(format!("{error:#}")));
    let code = match &ended {
        End::Done => ExitCode::SUCCESS,
        End::RolledBack(_) => ExitCode::from(ROLLED_BACK),
        End::Stopped(_) => ExitCode::from(MIDWAY),
    };
    if let End::RolledBack(reason) | End::Stopped(reason) = ended {
        complain(&format!("vigie: {reason}"));
    }
    if code == ExitCode::from(MIDWAY) {
        complain(
            "  hint: the same command goes on from here, `vigie rollout SERVICE --rollback` goes back, --status shows where it is",
        );
    }
    Ok(code)
}

/// Everything that can be known before anything is changed.
async fn preflight(
    rollout: &Rollout,
    fleet: &Fleet,
    sight: &Sight,
    record: &Record,
    min_serving: usize,
) -> anyhow::Result<()> {
    let Record { service, version, servers, .. } = record;
    let count = servers.len();
    ensure!(
        sight.has_check(),
        "{service} has no `healthCheck`: nobody would notice a server that does not get well"
    );
    if let Some(takes) = fleet.notices_within(sight).filter(|takes| *takes > rollout.health_timeout) {
        bail!(
            "{service} may notice only after {} that a server is back, later than --healthTimeout: lower \
             `unhealthyInterval` of its health check, or raise --healthTimeout",
            lb_config::show_duration(takes)
        );
    }
    ensure!(
        count > min_serving,
        "{service} has {count} servers and {min_serving} are always to be in service: none may be taken out; \
         see --minServing"
    );
    for machine in servers {
        let words = Words { service, url: &machine.server, version };
        for command in [Some(&record.replace), record.check.as_ref()].into_iter().flatten() {
            words.fill(command)?;
            Words { version: &machine.before, ..words }.fill(command)?;
        }
    }
    // One that was being replaced when a rollout was broken off may be in any state.
    let settled = servers.iter().filter(|machine| machine.version.is_some());
    let ill: Vec<_> = settled
        .filter_map(|machine| Some(format!("{} {}", machine.server, sight.trouble(&machine.server)?)))
        .collect();
    ensure!(
        ill.is_empty(),
        "not all servers of {service} are in service: {}; mend that first, `vigie server ready` brings servers back",
        ill.join(", ")
    );
    if let Some(command) = &rollout.preflight {
        let words = Words { service, url: "", version };
        command::run(&words.fill(command)?, rollout.command_timeout).await.context("--preflight")?;
    }
    Ok(())
}

async fn status(store: &Store, fleet: &Fleet) -> anyhow::Result<ExitCode> {
    let Some(record) = store.load()? else {
        say(&format!("no rollout of {} is recorded in {}", fleet.service, store.path().display()));
        return Ok(ExitCode::SUCCESS);
    };
    let Record { service, version, phase, by, changed_at, .. } = &record;
    say(&format!("{service} to {version} by {by}: {}, {changed_at}", phase.words()));
    let sight = fleet.look().await?;
    for Machine { server, version, before } in &record.servers {
        let runs = version.as_ref().map_or_else(|| format!("{before} or {}", record.version), String::clone);
        let state = sight.trouble(server).unwrap_or_else(|| "is in service".to_owned());
        say(&format!("  {server} runs {runs}, {state}"));
    }
    if let Some(previous) = &record.previous {
        say(&format!("  --rollback leads to {previous}"));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
