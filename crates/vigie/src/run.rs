//! The server: everything is made, wired, started, and stopped in order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lb_acme::Acme;
use lb_config::StaticConfig;
use lb_control::Control;
use lb_observe::metrics::Metrics;
use lb_proxy::{Inherited, Proxy, Publisher, Settings};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;

use crate::admin::{AdminService, Answers};
use crate::options::Options;
use crate::print::{Complaints, complain};
use crate::providers::{Providers, restored};
use crate::publish::publish;
use crate::report::report;
use crate::signals::{self, Commands, Signals};
use crate::telemetry::{OwnLog, Telemetry};
use crate::upgrade::{Launch, Predecessor, Requests, Upgrades};
use crate::{acme, activation, aliases, machine, memory, notify};

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
    let log = OwnLog::open(&config.log)?;
    // What libraries and rustls may not find by themselves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let descriptors = machine::raise_descriptor_limit();
    tracing::info!(source = config.file, "static configuration loaded");
    let config = Arc::new(config);
    let workers = machine::workers(&config);
    machine::ensure_descriptors(descriptors, workers, &config)?;
    let control_runtime = control_runtime()?;
    let runtime = control_runtime.handle();
    let telemetry = Telemetry::start(&config, workers, log, runtime)?;
    let metrics = telemetry.metrics.clone();
    // From here on: to read many routers takes its time, and a log may be rotated meanwhile.
    let commands = runtime.block_on(async { Commands::catch() })?;
    let (acme, resolvers) = Acme::open(&config, &metrics);
    let acme = Arc::new(acme);
    let admin =
        Arc::new(AdminService::new(Arc::clone(&config), metrics.clone(), runtime.clone(), Arc::clone(&acme)));
    watch_memory(&config, &metrics, admin.shedding(), runtime);
    let settings = Settings {
        config: Arc::clone(&config),
        metrics: metrics.clone(),
        access_log: telemetry.access_log.clone(),
        tracing: telemetry.tracing.clone(),
        internals: Arc::new(Answers(Arc::clone(&admin))),
        aliases: config.host_resolver.as_ref().map(aliases::source),
        workers,
        host_name: machine::host_name(),
        validations: acme::validations(&acme, &config),
        shedding: admin.shedding(),
        datagrams: predecessor.as_mut().map(Predecessor::datagrams).unwrap_or_default(),
    };
    let mut proxy = Proxy::bind(settings, inherited)?;
    let complaints = Complaints::through(complain)?;
    let mut control = control(&config, &metrics, client(descriptors), proxy.publisher(), &acme)
        .complaining(move |text| complaints.add(text));
    let (state, operators) = (control.state(), control.operators());
    admin.follow(state.clone(), operators.clone());
    // First, so that routers find their certificates.
    acme::attach(&mut control, resolvers);
    let providers = Providers::start(&config, runtime, &mut control, predecessor.as_mut())?;
    if let Some(rest) = providers.rest() {
        admin.take_in(Arc::clone(rest));
    }
    if let Some(predecessor) = &predecessor {
        predecessor.check(&admin.spoilt())?;
        predecessor.count(&metrics);
        take_over(predecessor, &mut control, &providers, runtime)?;
    }
    let control = runtime.spawn(control.run());
    proxy.start()?;
    // Before the report: whoever reads it may send one at once.
    let (signals, requests) =
        runtime.block_on(async { anyhow::Ok((Signals::catch(commands)?, Requests::listen())) })?;
    if let Some(predecessor) = predecessor {
        predecessor.serving()?;
    }
    // The process before this one orders nothing any more.
    acme.spawn(runtime);
    acme.start();
    if let Some(ocsp) = &config.ocsp {
        runtime.spawn(crate::ocsp::run(ocsp.responder_overrides.clone(), metrics.clone()));
    }
    report(&proxy, &config, workers);
    started(&proxy);
    notify::ready("serving");
    runtime.spawn(notify::keep_watchdog());
    let upgrades = Upgrades {
        launch,
        proxy: &proxy,
        metrics,
        state,
        operators,
        admin: Arc::clone(&admin),
        acme: Arc::clone(&acme),
        timeout: config.core.upgrade_timeout,
        ongoing: None,
    };
    runtime.block_on(signals::wait((signals, requests), upgrades, &config, &telemetry, &providers));
    acme.stop();
    proxy.drain();
    control.abort();
    drop(providers);
    telemetry.close(control_runtime);
    Ok(())
}

fn control_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vigie-control")
        .enable_all()
        .build()
}

/// Sets `shedding` while memory is short.
fn watch_memory(config: &StaticConfig, metrics: &Metrics, shedding: Arc<AtomicBool>, runtime: &Handle) {
    if let Some(limit) = memory::limit(config.core.memory_limit) {
        metrics.set_memory(limit, Arc::clone(&shedding));
        runtime.spawn(memory::watch(limit, shedding));
    }
}

/// What it publishes goes to the workers, and to who orders certificates for it.
fn control(
    config: &StaticConfig,
    metrics: &Metrics,
    client: lb_control::Client,
    publisher: Publisher,
    acme: &Arc<Acme>,
) -> Control {
    let acme = Arc::clone(acme);
    Control::new(config.into(), metrics.clone(), client, move |candidate| {
        publish(&publisher, candidate)?;
        acme.follow(&candidate.config);
        Ok(())
    })
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

/// Says that this process is ready and goes on with what the one before it knows at this moment.
fn take_over(
    predecessor: &Predecessor,
    control: &mut Control,
    providers: &Providers,
    runtime: &Handle,
) -> anyhow::Result<()> {
    let mut live = predecessor.ready()?;
    lb_proxy::take_over_ticket_keys(live.ticket_keys());
    control.operators().restore(live.orders());
    if let (Some(rest), Some(sent)) = (providers.rest(), live.rest()) {
        // Also what came while this process got ready.
        control.apply_first("rest", restored(rest, sent)?);
    }
    let state = control.state().load_full();
    let services = [&*state.services, &*state.tcp];
    let recoveries = live.recall(services, tokio::time::Instant::now().into_std());
    recoveries.into_iter().for_each(|recovery| drop(runtime.spawn(recovery.run())));
    Ok(())
}
