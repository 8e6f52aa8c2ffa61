//! The soak: load, faults, reloads and upgrades, mixed for as long as one likes. `tests/soak` builds and runs it.
//!
//! Everything is real: the binary, three replicas that are processes of their own and get killed, sockets,
//! files, signals. What is promised must hold to the last request; memory and descriptors must stay flat.
//! Upgrades happen in the first half only, so that the process of the second half can be judged by its growth.

mod chaos;
mod replica;
mod summary;
mod traffic;
mod vigie;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::chaos::Chaos;
use crate::replica::Replica;
use crate::summary::{SocketAccount, Summary};
use crate::traffic::Traffic;
use crate::vigie::Vigie;
use crate::watch::Watch;

const REPLICAS: usize = 3;

/// The load goes on for so long after the last fault: what a fault holds is let go by then, what leaks is not.
const CALM: Duration = Duration::from_secs(5);

struct Options {
    length: Duration,
    vigie: PathBuf,
    json: Option<PathBuf>,
    seed: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, address] = &arguments[..]
        && flag == "--replica"
    {
        replica::serve(name, address.parse()?).await;
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::read(&arguments)?;
    let summary = tokio::select! {
        summary = soak(&options) => summary?,
        // Leaving the future behind ends every process that was started.
        signal = stopped() => bail!("stopped by {}", signal?),
    };
    say(&summary.to_string());
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", summary.to_json()))?;
    }
    Ok(if summary.complaints().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn soak(options: &Options) -> anyhow::Result<Summary> {
    let Options { length, vigie: binary, seed, .. } = options;
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(Replica::start(&format!("replica-{number}")).await?);
    }
    let steady = Replica::start("steady").await?;
    let mut vigie = Vigie::start(binary, &replicas, &steady).await?;
    let upgrades = vigie.can_upgrade();
    let with = if upgrades { "with" } else { "which cannot do" };
    say(&format!("soaking {} for {length:?}, {with} upgrades; seed {seed}", binary.display()));

    let began = Instant::now();
    let watch = Watch::start(Arc::clone(&vigie.serving));
    let traffic = Traffic::start(&vigie);
    let mut chaos = Chaos::new(*seed);
    let mut told = Instant::now();
    while began.elapsed() < *length {
        let may_upgrade = upgrades && began.elapsed() < *length / 2;
        chaos.next(&mut vigie, &mut replicas, may_upgrade).await;
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            say(&format!(
                "{:>6} s: {} events, {} complaints, {} broken promises",
                began.elapsed().as_secs(),
                chaos.done.values().sum::<usize>(),
                chaos.complaints.len(),
                traffic.broken()
            ));
        }
    }
    let took = began.elapsed();
    tokio::time::sleep(CALM).await;
    let samples = watch.samples();
    let (accounts, sockets) = traffic.stop().await;
    let upgraded = chaos.done.get(&chaos::Event::Upgrade).copied().unwrap_or_default();
    let sockets = SocketAccount::new(&sockets, upgraded);
    let mut summary =
        Summary { took, seed: *seed, accounts, sockets, chaos, samples, last_words: String::new() };
    if !summary.complaints().is_empty() {
        summary.last_words = vigie.last_words();
    }
    Ok(summary)
}

async fn stopped() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

impl Options {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            length: Duration::from_secs(600),
            vigie: PathBuf::new(),
            json: None,
            seed: fastrand::u64(..1_000_000),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--vigie" => options.vigie = value()?.into(),
                "--json" => options.json = Some(value()?.into()),
                "--seed" => options.seed = value()?.parse().context("--seed takes a number")?,
                length => options.length = read_length(length)?,
            }
        }
        ensure!(!options.vigie.as_os_str().is_empty(), "--vigie is needed: the binary to soak");
        Ok(options)
    }
}

/// `90s`, `10m`, `2h`, `7d`.
fn read_length(text: &str) -> anyhow::Result<Duration> {
    let seconds = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => bail!("{text} is no length of time such as 90s, 10m or 2h"),
    };
    let count: u32 =
        text[..text.len() - 1].parse().with_context(|| format!("{text} is no length of time"))?;
    Ok(Duration::from_secs(seconds) * count)
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn say(text: &str) {
    println!("{text}");
}
