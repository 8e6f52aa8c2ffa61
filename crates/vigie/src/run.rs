//! The server: everything is made, wired, started, and stopped in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lb_acme::Acme;
use lb_config::{Context, StaticConfig};
use lb_control::Control;
use lb_observe::access_log::AccessLog;
use lb_observe::diagnostics;
use lb_provider::{DockerProvider, FileProvider};
use lb_proxy::{Inherited, Proxy, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::admin::{AdminService, Answers};
use crate::options::Options;
use crate::print::complain;
use crate::providers::{self, Remotes};
use crate::publish::publish;
use crate::upgrade::{Launch, Predecessor, Requests, Upgrades};
use crate::{acme, activation, aliases, export, memory, notify, observe};

/// How long the last lines may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// Serves until a signal says to stop.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut predecessor = Predecessor::meet()?;
    let inherited = match &mut predecessor {
        Some(predecessor) => predecessor.sockets(),
        None => activation::sockets()?,
    };
    let (config, warnings) = options.static_config()?;
    for warning in warnings {
        complain(&warning.to_string());
    }
    serve(config, Life { inherited, predecessor, launch: Some(Launch::of_this_process()?) }, |_| {})
}

/// What a process has of those before it, and leaves to those after it.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) inherited: Vec<Inherited>,
    pub(crate) predecessor: Option<Predecessor>,
    /// `None`: there is none after it.
    pub(crate) launch: Option<Launch>,
}

/// Serves `config`; `started` is called once, when connections are accepted.
pub(crate) fn serve(config: StaticConfig, life: Life, started: impl FnOnce(&Proxy)) -> anyhow::Result<()> {
    let Life { inherited, mut predecessor, launch } = life;
    let own_log = config.log.otlp.as_ref().map(|otlp| export::Log::new(otlp, 1));
    let queue = own_log.as_ref().map(|log| Arc::clone(&log.queue));
    let log = diagnostics::init(observe::diagnostics(&config.log, queue))?;
    // What libraries and rustls may not find by themselves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let descriptors = raise_descriptor_limit();
    tracing::info!(source = config.file, "static configuration loaded");
    let config = Arc::new(config);
    let workers = config.core.workers.unwrap_or_else(processors);
    let least = 64 + workers * (16 + config.entry_points.len());
    anyhow::ensure!(
        descriptors >= least as u64,
        "{descriptors} file descriptors are too few to serve anybody, {least} are the least\n  \
         hint: raise the limit: `LimitNOFILE=` of the systemd unit, `ulimit -n` of a shell"
    );
    let metrics = observe::metrics(&config, workers);
    metrics.follow_log(log.dropped());
    let requests = config.access_log.as_ref().and_then(|log| log.otlp.as_ref());
    let requests = requests.map(|otlp| export::Log::new(otlp, workers));
    let access_log = match &config.access_log {
        Some(log) => {
            let queue = requests.as_ref().map(|requests| Arc::clone(&requests.queue));
            let opened =
                AccessLog::open(observe::access_log(log, queue), workers, metrics.access_log_dropped());
            Some(Arc::new(opened.context("the access log's writer cannot be started")?))
        }
        None => None,
    };
    let control_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vigie-control")
        .enable_all()
        .build()?;
    let traces = config
        .tracing
        .as_ref()
        .map(|tracing| export::traces(tracing, workers, &metrics, control_runtime.handle()));
    let traces = traces.transpose()?;
    let mut logged = Vec::new();
    for (signal, log) in [("logs", own_log), ("accessLogs", requests)] {
        if let Some(log) = log {
            logged.push(log.start(signal, &metrics, control_runtime.handle())?);
        }
    }
    let measured = config.metric_exports.otlp.as_ref().map(|exported| {
        export::metrics(exported, config.metrics.is_none(), &metrics, control_runtime.handle())
    });
    let measured = measured.transpose()?;
    let is_alone = config.metrics.is_none() && measured.is_none();
    let lines = export::lines(&config.metric_exports, is_alone, &metrics, control_runtime.handle())?;
    // From here on: to read many routers takes its time, and a log may be rotated meanwhile.
    let commands = control_runtime.block_on(async { Commands::catch() })?;
    let (acme, resolvers) = Acme::open(&config, &metrics);
    let acme = Arc::new(acme);
    let admin = Arc::new(AdminService::new(
        Arc::clone(&config),
        metrics.clone(),
        control_runtime.handle().clone(),
        Arc::clone(&acme),
    ));
    let shedding = admin.shedding();
    if let Some(limit) = memory::limit(config.core.memory_limit) {
        metrics.set_memory(limit, Arc::clone(&shedding));
        control_runtime.spawn(memory::watch(limit, Arc::clone(&shedding)));
    }
    let settings = Settings {
        config: Arc::clone(&config),
        metrics: metrics.clone(),
        access_log: access_log.clone(),
        tracing: traces.as_ref().map(|traces| (Arc::clone(&traces.settings), Arc::clone(&traces.queue))),
        internals: Arc::new(Answers(Arc::clone(&admin))),
        aliases: config.host_resolver.as_ref().map(aliases::source),
        workers,
        host_name: host_name(),
        validations: acme::validations(&acme, &config),
        shedding,
        datagrams: predecessor.as_mut().map(Predecessor::datagrams).unwrap_or_default(),
    };
    let mut proxy = Proxy::bind(settings, inherited)?;
    let publisher = proxy.publisher();
    let wanting = Arc::clone(&acme);
    let mut control =
        Control::new((&*config).into(), metrics.clone(), client(descriptors), move |candidate| {
            publish(&publisher, candidate)?;
            wanting.follow(&candidate.config);
            Ok(())
        })
        .complaining(complain);
    admin.follow(control.state(), control.operators());
    // First, so that routers find their certificates.
    acme::attach(&mut control, resolvers);
    let file = match &config.providers.file {
        Some(file) => {
            let started = FileProvider::start(file.source.clone(), file.watch, Context::from(&*config))
                .context("the file provider cannot be started")?;
            if let Err(problems) = &started.first {
                if predecessor.is_some() {
                    anyhow::bail!("the dynamic configuration is refused\n{problems}");
                }
                if !file.watch {
                    anyhow::bail!(
                        "the dynamic configuration is refused, and nothing watches it for a better one\n{problems}"
                    );
                }
            }
            control.attach("file", Some(started.first), started.readings);
            Some(started.provider)
        }
        None => None,
    };
    let mut docker = Vec::new();
    for daemon in config.providers.daemons() {
        let name = daemon.containers.orchestrator.provider();
        let tls = daemon.tls.as_ref().map(lb_proxy::client_tls).transpose();
        let tls = tls.map_err(|reason| anyhow::anyhow!("providers.{name}.tls: {reason}"))?;
        let context = Context::from(&*config);
        let started = control_runtime.block_on(DockerProvider::start(daemon.clone(), tls, context));
        if let Err(problems) = &started.first
            && predecessor.is_some()
        {
            anyhow::bail!("the containers cannot be read\n{problems}");
        }
        control.attach(name, Some(started.first), started.readings);
        docker.push(started.provider);
    }
    let remotes = Remotes::start(&config, control_runtime.handle(), &mut control, predecessor.is_some())?;
    let rest = providers::rest(&config, &mut control, predecessor.as_mut().and_then(Predecessor::rest))?;
    if let Some(rest) = &rest {
        admin.take_in(Arc::clone(rest));
    }
    let (state, operators) = (control.state(), control.operators());
    if let Some(predecessor) = &predecessor {
        predecessor.check(&admin.spoilt())?;
        predecessor.count(&metrics);
        let mut live = predecessor.ready()?;
        lb_proxy::take_over_ticket_keys(live.ticket_keys());
        operators.restore(live.orders());
        if let (Some(rest), Some(sent)) = (&rest, live.rest()) {
            // Also what came while this process got ready.
            control.apply_first("rest", providers::restored(rest, sent)?);
        }
        let recoveries = live.recall(&state.load().services, tokio::time::Instant::now().into_std());
        recoveries.into_iter().for_each(|recovery| drop(control_runtime.spawn(recovery.run())));
    }
    let control = control_runtime.spawn(control.run());
    proxy.start()?;
    // Before the report: whoever reads it may send one at once.
    let (signals, requests) =
        control_runtime.block_on(async { anyhow::Ok((Signals::catch(commands)?, Requests::listen())) })?;
    if let Some(predecessor) = predecessor {
        predecessor.serving()?;
    }
    // The process before this one orders nothing any more.
    acme.spawn(control_runtime.handle());
    acme.start();
    if let Some(ocsp) = &config.ocsp {
        let overrides = ocsp.responder_overrides.clone();
        control_runtime.spawn(crate::ocsp::run(overrides, metrics.clone()));
    }
    report(&proxy, &config, workers);
    started(&proxy);
    notify::ready("serving");
    control_runtime.spawn(notify::keep_watchdog());
    let timeout = config.core.upgrade_timeout;
    let upgrades = Upgrades {
        launch,
        proxy: &proxy,
        metrics,
        state,
        operators,
        admin: Arc::clone(&admin),
        acme: Arc::clone(&acme),
        timeout,
        ongoing: None,
    };
    let logs = Logs { access_log: access_log.as_deref(), diagnostics: &log };
    control_runtime.block_on(wait((signals, requests), upgrades, &config, &logs, (&file, &docker, &remotes)));
    acme.stop();
    proxy.drain();
    control.abort();
    drop((file, docker, remotes));
    let exporters =
        traces.map(|traces| traces.exporter).into_iter().chain(measured).chain(lines).chain(logged);
    control_runtime.block_on(export::finish(exporters));
    control_runtime.shutdown_background();
    if let Some(access_log) = &access_log {
        access_log.flush(FLUSH);
    }
    tracing::info!("stopped");
    log.flush(FLUSH);
    Ok(())
}

/// Probes reach servers as requests do, with a quarter of the descriptors: chosen, so that ten thousand silent servers
/// leave clients room.
fn client(descriptors: u64) -> lb_control::Client {
    let probes = usize::try_from(descriptors / 4).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
    lb_control::Client {
        probes: Arc::new(Semaphore::new(probes)),
        tls: Arc::new(lb_proxy::client_tls),
        dial: Arc::new(|host, port, by| Box::pin(async move { lb_proxy::dial(&host, port, Some(by)).await })),
    }
}

/// Takes all the file descriptors that the system grants: the soft limit, often 1024, is for programs that
/// use `select`. Go, and so Traefik, does the same. Returns how many that are.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
        return current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}

/// Signals that mean something to us; from the first look on they no longer end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    commands: Commands,
}

/// Those that end nothing. One that comes too early is obeyed when its time has come.
struct Commands {
    reopen: Signal,
    reread: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Needs a runtime around it.
    fn catch(commands: Commands) -> std::io::Result<Self> {
        let [terminate, interrupt] = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Ok(Self { terminate, interrupt, commands })
    }
}

impl Commands {
    /// Needs a runtime around it.
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            reopen: signal(SignalKind::user_defined1())?,
            reread: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// What is opened anew on SIGUSR1.
struct Logs<'a> {
    access_log: Option<&'a AccessLog>,
    diagnostics: &'a diagnostics::Diagnostics,
}

/// Handles signals and upgrades until one of them says to stop.
async fn wait(
    (mut signals, mut requests): (Signals, Requests),
    mut upgrades: Upgrades<'_>,
    config: &StaticConfig,
    logs: &Logs<'_>,
    (file, docker, remotes): (&Option<FileProvider>, &[DockerProvider], &Remotes),
) {
    let Signals { terminate, interrupt, commands: Commands { reopen, reread, upgrade } } = &mut signals;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reopen.recv() => {
                if let Some(access_log) = logs.access_log {
                    access_log.reopen();
                }
                logs.diagnostics.reopen();
            }
            _ = reread.recv() => {
                if let Some(file) = file {
                    file.reread();
                }
                docker.iter().for_each(DockerProvider::reread);
                remotes.reread();
            }
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
    tracing::info!(?patience, "stopping: requests are finished first");
    if !patience.is_zero() {
        // A second signal does not wait.
        tokio::select! {
            () = tokio::time::sleep(patience) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// What listens where: the first thing to look at when something cannot be reached.
fn report(proxy: &Proxy, config: &StaticConfig, workers: usize) {
    let plural = if workers == 1 { "" } else { "s" };
    let mut text =
        format!("vigie {} with {workers} worker{plural}, configured by {}", crate::VERSION, config.file);
    for (name, address) in proxy.addresses() {
        let scope = match address.ip() {
            ip if ip.is_loopback() => "this machine only",
            ip if ip.is_unspecified() => "every address of this machine",
            _ => "this address only",
        };
        text.push_str(&format!("\n  {name:<12} {address}  ({scope})"));
        if config.udp_entry_points.iter().any(|entry| entry.name == name) {
            text.push_str("  UDP");
        }
        if config.entry_points.iter().any(|entry| entry.name == name && entry.http3.is_some()) {
            text.push_str("  HTTP/3");
        }
        if config.ping.as_ref().is_some_and(|ping| ping.entry_point == name) {
            text.push_str("  /ping /live /ready /health");
        }
        if config.metrics.as_ref().is_some_and(|metrics| metrics.entry_point == name) {
            text.push_str("  /metrics");
        }
        match config.api.as_ref().filter(|_| name == "traefik") {
            Some(api) if api.insecure => text.push_str("  /api /dashboard/"),
            Some(api) if api.token.is_some() => text.push_str("  /api (by token)"),
            _ => {}
        }
    }
    complain(&text);
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// For `X-Forwarded-Server`.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
