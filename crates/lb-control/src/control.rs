//! From what providers read to what is in force.
//!
//! Each provider's last good configuration is kept. A new one is merged with those of the others, built
//! beside what runs, and published with one store. Objects that it spoils keep their version in force
//! ([`lb_config::settle`]), those that turn out not to compile as well.
//!
//! Changes are applied at once. Traefik mutes a provider for `providersThrottleDuration` (2 s) after each
//! change; here two builds are at least [`SHORTEST_GAP`] apart, or that duration if it is shorter, and what
//! arrives in between is applied together. So a single change is live without delay, and a storm of them
//! costs at most twenty builds a second.

use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_config::dynamic::ServersTransport;
use lb_config::{Config, Context, Loaded, Problem, Problems, Reasons, Settled, StaticConfig};
use lb_core::balance;
use lb_observe::metrics::{Metrics, ServerGauge, ServiceGauge};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use crate::operator::Operators;
use crate::probe::{Client, Probes};
use crate::quarantine;
use crate::services::{self, Services};
use crate::state::{ProviderState, Refusal, State, StateWatch};
use crate::tcp_probe::TcpProbes;
use crate::upkeep::Upkeep;

/// Shortest time between two builds: chosen, so that a change is live within 250 ms even after another one.
const SHORTEST_GAP: Duration = Duration::from_millis(50);

/// What a provider delivers: a configuration, or why it has none.
pub type Reading = Result<Loaded, Problems>;

/// What the static configuration says about the control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `providersThrottleDuration`.
    pub throttle: Duration,
    /// `default@internal`, for the probes of services that name no transport.
    pub default_transport: ServersTransport,
    /// The same for the probes of TCP services.
    pub default_tcp_transport: lb_config::tcp::ServersTransport,
    /// What the entry points ask of the dynamic configuration.
    pub context: Context,
}

impl From<&StaticConfig> for Settings {
    fn from(config: &StaticConfig) -> Self {
        Self {
            throttle: config.providers.throttle,
            default_transport: config.servers_transport.clone(),
            default_tcp_transport: config.tcp_servers_transport.clone(),
            context: config.into(),
        }
    }
}

/// A complete configuration that is about to come into force.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Number it will have if it does.
    pub generation: u64,
    pub config: Arc<Config>,
    pub services: Arc<Services>,
    /// Those of `tcp`.
    pub tcp: Arc<Services>,
    /// Objects that are known not to compile and have no version in force: they are left out without a word.
    pub left_out: Reasons,
}

/// Merges, builds, publishes, and probes what is published.
pub struct Control {
    settings: Settings,
    metrics: Metrics,
    publish: Arc<Publish>,
    complain: Box<dyn Fn(&str) + Send + Sync>,
    /// Each provider's part in force, as it was read.
    parts: BTreeMap<String, Arc<Loaded>>,
    /// What was told of [`rivals`].
    rivals: Vec<String>,
    sources: Vec<Source>,
    state: StateWatch,
    operators: Operators,
    probes: Probes,
    tcp_probes: TcpProbes,
    upkeep: Upkeep,
}

type Publish = dyn Fn(&Candidate) -> Result<(), Problems> + Send + Sync;

struct Source {
    provider: String,
    readings: Receiver<Reading>,
}

/// What one provider delivered since the last build: of its good configurations the newest, and what was
/// refused after that.
#[derive(Default)]
struct Backlog {
    good: Option<Loaded>,
    refused: Option<Problems>,
}

impl Control {
    /// `client` is how requests reach servers; probes do the same.
    ///
    /// `publish` compiles a candidate and puts it in force with one store, or refuses it and changes
    /// nothing. It may take its time: it does not run on the control plane's thread.
    pub fn new(
        settings: Settings,
        metrics: Metrics,
        client: Client,
        publish: impl Fn(&Candidate) -> Result<(), Problems> + Send + Sync + 'static,
    ) -> Self {
        let state = StateWatch::default();
        let watch = state.clone();
        metrics.set_servers(move || gauges(&watch.load()));
        let watch = state.clone();
        metrics.set_services(move || service_gauges(&watch.load()));
        let hurry = Arc::<Notify>::default();
        let tcp_probes = TcpProbes::new(state.clone(), client.clone(), Arc::clone(&hurry));
        let probes = Probes::new(state.clone(), metrics.clone(), client, Arc::clone(&hurry));
        Self {
            settings,
            metrics,
            publish: Arc::new(publish),
            complain: Box::new(|_| {}),
            parts: BTreeMap::new(),
            rivals: Vec::new(),
            sources: Vec::new(),
            operators: Operators::new(state.clone(), hurry),
            state,
            probes,
            tcp_probes,
            upkeep: Upkeep::default(),
        }
    }

    /// What is in force, now and later.
    pub fn state(&self) -> StateWatch {
        self.state.clone()
    }

    /// What operators want of servers, now and later.
    pub fn operators(&self) -> Operators {
        self.operators.clone()
    }

    /// Whom to tell, besides the log, why a configuration was refused: an operator at a terminal wants to
    /// read it in lines.
    #[must_use]
    pub fn complaining(mut self, complain: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.complain = Box::new(complain);
        self
    }

    /// Applies what the provider read first, if it has, before returning, and follows it from the start of
    /// [`run`](Self::run) on. May be called outside a runtime.
    pub fn attach(&mut self, provider: &str, first: Option<Reading>, readings: Receiver<Reading>) {
        self.sources.push(Source { provider: provider.to_owned(), readings });
        if let Some(reading) = first {
            self.apply(provider, reading);
        }
    }

    /// Applies what an attached provider has had before this process, in place of what it read first.
    pub fn apply_first(&mut self, provider: &str, loaded: Loaded) {
        self.apply(provider, Ok(loaded));
    }

    fn apply(&mut self, provider: &str, reading: Reading) {
        match reading {
            Ok(loaded) => {
                if let Some(job) = self.prepare(provider, loaded) {
                    let done = job.run();
                    self.finish(done);
                }
            }
            Err(problems) => self.refuse(provider, problems),
        }
    }

    /// Applies what providers deliver and probes servers, until it is dropped. Needs a tokio runtime, which
    /// may be single-threaded; dropping the future stops every task it started.
    pub async fn run(mut self) {
        self.follow();
        let gap = SHORTEST_GAP.min(self.settings.throttle);
        let mut backlog: BTreeMap<String, Backlog> = BTreeMap::new();
        let mut earliest = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.probes.supervise() => {}
                () = self.tcp_probes.supervise() => {}
                () = self.operators.supervise() => {}
                (provider, reading) = next(&mut self.sources) => {
                    backlog.entry(provider).or_default().add(reading);
                }
                () = sleep_until(earliest), if !backlog.is_empty() => {
                    for (provider, backlog) in std::mem::take(&mut backlog) {
                        self.catch_up(&provider, backlog).await;
                    }
                    earliest = Instant::now() + gap;
                }
            }
        }
    }

    async fn catch_up(&mut self, provider: &str, backlog: Backlog) {
        if let Some(loaded) = backlog.good
            && let Some(job) = self.prepare(provider, loaded)
        {
            // A hundred thousand routers take a while; probes must not miss their deadlines for it.
            match tokio::task::spawn_blocking(move || job.run()).await {
                Ok(done) => {
                    self.finish(done);
                    self.follow();
                }
                Err(failure) => self.refuse(provider, bug(&failure).into()),
            }
        }
        if let Some(problems) = backlog.refused {
            self.refuse(provider, problems);
        }
    }

    /// Probes and looks after what is in force now.
    fn follow(&mut self) {
        let state = self.state.load();
        self.probes.follow(&state, &self.settings.default_transport);
        self.tcp_probes.follow(&state, &self.settings.default_tcp_transport);
        self.upkeep.follow(&state);
    }

    /// What has to be built; `None` when there is nothing to build, and all that is to be done is done.
    fn prepare(&mut self, provider: &str, loaded: Loaded) -> Option<Job> {
        let part = Arc::new(loaded);
        if self.parts.get(provider).is_some_and(|old| is_same(old, &part)) {
            self.confirm(provider, part);
            return None;
        }
        let mut parts = self.parts.clone();
        parts.insert(provider.to_owned(), part);
        let state = self.state.load_full();
        let (publish, context) = (Arc::clone(&self.publish), self.settings.context.clone());
        let operators = self.operators.clone();
        Some(Job { provider: provider.to_owned(), parts, state, context, operators, publish })
    }

    /// The provider says again what is in force: nothing to build, and nothing refused any more.
    fn confirm(&mut self, provider: &str, part: Arc<Loaded>) {
        let mut state = State::clone(&self.state.load());
        let known = state.providers.entry(provider.to_owned()).or_default();
        let was_refused = known.refused.take().is_some();
        let earlier = std::mem::replace(&mut known.problems, Arc::new(part.problems.clone()));
        let [quarantined, disabled] = [&state.quarantined, &state.disabled].map(Arc::clone);
        self.store(state);
        if was_refused {
            self.metrics.reloaded(SystemTime::now());
        }
        quarantine::tell_problems(provider, &earlier, &part.problems, [&*quarantined, &*disabled]);
        self.parts.insert(provider.to_owned(), part);
        if was_refused {
            self.relieve(provider);
            info!(provider, "Configuration is again the one in force");
        }
    }

    /// Stores first and tells then: whoever is told finds it in `/health` and in the metrics, too.
    fn finish(&mut self, done: Done) {
        let Done { provider, parts, settled, built, took } = done;
        let candidate = match built {
            Ok(candidate) => candidate,
            Err(problems) => return self.refuse(&provider, problems),
        };
        let now = SystemTime::now();
        let before = self.state.load_full();
        let mut state = State::clone(&before);
        state.generation = candidate.generation;
        state.config = candidate.config;
        state.services = candidate.services;
        state.tcp = candidate.tcp;
        state.loaded_at = Some(now);
        let known = state.providers.entry(provider.clone()).or_default();
        known.loaded_at = Some(now);
        let was_refused = known.refused.take().is_some();
        let problems = parts.get(&provider).map(|part| Arc::new(part.problems.clone())).unwrap_or_default();
        let earlier = std::mem::replace(&mut known.problems, Arc::clone(&problems));
        let (stale, disabled) = (Arc::new(settled.stale), Arc::new(settled.disabled));
        state.quarantined = Arc::clone(&stale);
        state.disabled = Arc::clone(&disabled);
        state.left_out = Arc::new(settled.left_out);
        let [routers, services, middlewares] = sizes(&state.config);
        self.store(state);
        // Orders that were given while this was built.
        let state = self.state.load();
        self.operators.apply(&state.services, &state.tcp);
        self.metrics.set_quarantined(quarantine::counts(&stale));
        self.metrics.set_disabled(quarantine::counts(&disabled));
        self.metrics.reloaded(now);

        if was_refused {
            self.relieve(&provider);
        }
        let rivals = rivals(&parts);
        for words in rivals.iter().filter(|words| !self.rivals.contains(words)) {
            error!("{words}");
            (self.complain)(words);
        }
        (self.parts, self.rivals) = (parts, rivals);
        quarantine::tell_problems(&provider, &earlier, &problems, [&stale, &disabled]);
        let warnings = problems.iter().filter(|problem| !problem.is_error()).count();
        quarantine::STALE.tell(&before.quarantined, &stale, &*self.complain);
        quarantine::DISABLED.tell(&before.disabled, &disabled, &*self.complain);
        info!(
            provider,
            generation = state.generation,
            routers,
            services,
            middlewares,
            warnings,
            quarantined = stale.len(),
            disabled = disabled.len(),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "Configuration loaded"
        );
    }

    fn store(&self, state: State) {
        let stale = |(name, known): (&String, &ProviderState)| (name.clone(), known.refused.is_some());
        self.metrics.set_stale_providers(state.providers.iter().map(stale).collect());
        self.state.store(state);
    }

    /// Whoever was told of the refusal hears that it is over.
    fn relieve(&self, provider: &str) {
        (self.complain)(&format!(
            "provider {provider}: its configuration is no longer refused, and in force"
        ));
    }

    fn refuse(&mut self, provider: &str, problems: Problems) {
        let at = SystemTime::now();
        let mut state = State::clone(&self.state.load());
        let known = state.providers.entry(provider.to_owned()).or_default();
        let words = match known.loaded_at {
            Some(loaded_at) => {
                format!(
                    "{problems}; still running the configuration loaded at {} UTC",
                    time_of_day(loaded_at)
                )
            }
            None => format!("{problems}; running without this provider until it is fixed"),
        };
        known.refused = Some(Arc::new(Refusal { at, problems }));
        self.store(state);
        self.metrics.reload_failed(at);
        // Whoever reads it finds it in `/health` and in the metric, too.
        error!(provider, "{words}");
        (self.complain)(&words);
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Backlog {
    fn add(&mut self, reading: Reading) {
        match reading {
            Ok(loaded) => *self = Self { good: Some(loaded), refused: None },
            Err(problems) => self.refused = Some(problems),
        }
    }
}

/// What is global, and defined by several providers: that of the first by name counts.
fn rivals(parts: &BTreeMap<String, Arc<Loaded>>) -> Vec<String> {
    let told = |what: &str, defines: fn(&Config) -> bool| {
        let names = parts.iter().filter(|(_, part)| defines(&part.config)).map(|(name, _)| name.as_str());
        let names: Vec<&str> = names.collect();
        let words = |first| {
            let all = names.join(", ");
            format!(
                "{what} defined by several providers ({all}): that of {first} is used\n  hint: define it once"
            )
        };
        names.first().filter(|_| names.len() > 1).map(words)
    };
    let options = told("the TLS options `default` are", |config| config.tls.options.contains_key("default"));
    let certificate = told("the default certificate is", |config| {
        config.tls.default_certificate.is_some() || config.tls.default_generated.is_some()
    });
    options.into_iter().chain(certificate).collect()
}

/// Whether building it again would come to the same.
fn is_same(old: &Loaded, new: &Loaded) -> bool {
    old.config == new.config
        && old.waiting == new.waiting
        && old.unfit == new.unfit
        && old.disabled == new.disabled
        && old.stale_files == new.stale_files
        // The reasons name lines.
        && (new.disabled.is_empty() || old.problems == new.problems)
}

/// A build, to be run where it may take long.
struct Job {
    provider: String,
    parts: BTreeMap<String, Arc<Loaded>>,
    state: Arc<State>,
    context: Context,
    operators: Operators,
    publish: Arc<Publish>,
}

struct Done {
    provider: String,
    parts: BTreeMap<String, Arc<Loaded>>,
    settled: Settled,
    built: Result<Candidate, Problems>,
    took: Duration,
}

impl Job {
    /// Builds, and builds again without what turned out not to work, until the rest does.
    fn run(self) -> Done {
        let start = Instant::now();
        let Self { provider, parts, state, context, operators, publish } = self;
        let mut spoilt = Reasons::new();
        let mut left_out = Reasons::new();
        let (settled, built) = loop {
            let named = parts.iter().map(|(name, part)| (name.as_str(), &**part));
            let mut settled = lb_config::settle(named, &spoilt, &state.config, &context);
            let config = std::mem::take(&mut settled.config);
            let candidate = Candidate {
                generation: state.generation + 1,
                services: Arc::new(services::build(&config, &state.services, start.into_std())),
                tcp: Arc::new(services::build_tcp(&config, &state.tcp, start.into_std())),
                config: Arc::new(config),
                left_out: left_out.clone(),
            };
            operators.apply(&candidate.services, &candidate.tcp);
            match publish(&candidate) {
                Ok(()) => break (settled, Ok(candidate)),
                Err(mut problems) => {
                    for problem in &mut problems.0 {
                        parts.values().for_each(|part| part.places.locate(problem));
                    }
                    if !quarantine::learn(&problems, &mut spoilt, &mut left_out, &settled) {
                        break (settled, Err(problems));
                    }
                }
            }
        };
        Done { provider, parts, settled, built, took: start.elapsed() }
    }
}

/// The next reading of any source; waits forever when there is none left.
async fn next(sources: &mut Vec<Source>) -> (String, Reading) {
    poll_fn(|context| {
        let mut at = 0;
        while let Some(source) = sources.get_mut(at) {
            match source.readings.poll_recv(context) {
                Poll::Ready(Some(reading)) => return Poll::Ready((source.provider.clone(), reading)),
                Poll::Ready(None) => {
                    error!(
                        provider = source.provider,
                        "The provider has ended; what it said last stays in force"
                    );
                    sources.swap_remove(at);
                }
                Poll::Pending => at += 1,
            }
        }
        Poll::Pending
    })
    .await
}

/// Routers, services and middlewares of HTTP, TCP and UDP.
fn sizes(config: &Config) -> [usize; 3] {
    let Config { routers, services, composites, middlewares, tcp, udp, .. } = config;
    [
        routers.len() + tcp.routers.len() + udp.routers.len(),
        services.len() + composites.len() + tcp.services.len() + udp.services.len(),
        middlewares.len() + tcp.middlewares.len(),
    ]
}

fn gauges(state: &State) -> Vec<ServerGauge> {
    let mut gauges = Vec::new();
    // Traefik has no metric of the health of TCP servers.
    let http = state.services.iter().map(|service| (service, true));
    for ((name, service), is_http) in http.chain(state.tcp.iter().map(|service| (service, false))) {
        let checked =
            is_http && (service.settings().active.is_some() || service.settings().passive.is_some());
        // A URL that is listed twice is one server: the same series twice would spoil the whole scrape.
        let mut seen = HashSet::new();
        let servers = service.servers().filter(|(server, _)| seen.insert(server.url()));
        gauges.extend(servers.map(|(server, _)| ServerGauge {
            service: name.clone(),
            url: server.url().to_owned(),
            in_flight: server.in_flight(),
            status: server.status(),
            admin_state: server.admin_state(),
            checked,
        }));
    }
    gauges
}

fn service_gauges(state: &State) -> Vec<ServiceGauge> {
    let gauge = |(name, service): (&String, &Arc<balance::Service>)| {
        let count = |is: &dyn Fn(usize) -> bool| service.distinct().filter(|index| is(*index)).count();
        let settings = service.settings();
        ServiceGauge {
            service: name.clone(),
            ejected: settings.outlier.map(|_| count(&|index| service.is_ejected(index))),
            slow_starting: settings
                .slow_start
                .map(|_| count(&|index| service.slow_start_percent(index).is_some())),
            panics: (settings.panic_threshold > 0).then(|| service.panics()),
        }
    };
    state.services.iter().map(gauge).collect()
}

/// A build that panicked has published nothing.
fn bug(failure: &tokio::task::JoinError) -> Problem {
    let message = format!("building this configuration failed: {failure}");
    let hint = "this is a bug in Vigie: please report it with the configuration".to_owned();
    Problem::whole_file("vigie", message, Some(hint))
}

/// `09:14:03`.
fn time_of_day(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests;
