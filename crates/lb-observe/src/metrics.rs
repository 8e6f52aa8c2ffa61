//! Metrics: counted per worker, merged and named when scraped.
//!
//! A request costs one lookup in its worker's [`Shard`]; Traefik's series and ours are aggregates of the
//! same rows. Label values come from the configuration or from fixed sets, and from clients for `headerLabels` only.
//! What the configuration no longer names is shown once more, to each who reads, and then dropped, as Traefik does; its
//! counts stay in the aggregates, so that no counter ever runs backwards.

mod collect;
mod events;
mod family;
mod label;
mod lines;
pub mod names;
mod process;
mod sample;
mod semantic;
mod shard;
mod table;
mod tcp;
mod udp;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_core::breaker::State as BreakerState;
use lb_core::health::{AdminState, Status};
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use rustc_hash::FxHashMap;

use crate::otlp::{self, Queue};
use crate::trace;
use events::{Events, Probes};
use label::Labels;
use table::Bounds;

pub use label::{Kind, LabelId, Reader};
pub use lines::{Format, Lines};
pub use sample::{Method, Protocol, Sample};
pub use shard::{OpenConnection, Shard};
pub use tcp::TcpCounts;
pub use udp::UdpCounts;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Combinations of values of `headerLabels`: strangers choose them, and each costs memory for good. Chosen.
const MOST_HEADERS: usize = 1_000;

/// Bytes of such a value; the rest is cut off. Chosen.
const LONGEST_HEADER: usize = 256;

/// Traefik's keys under `metrics.prometheus`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Upper bounds in seconds of Traefik's duration histograms, ascending, without `+Inf`.
    pub buckets: Vec<f64>,
    pub entry_points: bool,
    pub routers: bool,
    pub services: bool,
    /// Further labels of `traefik_*_requests_total`, each with the request header that has its value.
    pub header_labels: Vec<(String, String)>,
    /// Bounds that others than Prometheus want; see [`Metrics::measurements`].
    pub more_buckets: Vec<f64>,
    /// For `lb_build_info`.
    pub version: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            buckets: vec![0.1, 0.3, 1.2, 5.0],
            entry_points: true,
            routers: false,
            services: true,
            header_labels: Vec::new(),
            more_buckets: Vec::new(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// What one exporter beside Prometheus is told of Traefik's series.
#[derive(Clone, Debug)]
pub struct View {
    /// Some of the bounds in [`Settings`].
    pub buckets: Vec<f64>,
    pub entry_points: bool,
    pub routers: bool,
    pub services: bool,
    /// Names of [`Settings::header_labels`], or none of them.
    pub header_labels: Vec<String>,
    /// Those of OpenTelemetry's semantic conventions as well.
    pub semantic: bool,
    /// Whose it is; see [`Metrics::reader`].
    pub reader: Reader,
}

/// The present state of one server of one service, read at each scrape.
#[derive(Clone, Debug)]
pub struct ServerGauge {
    pub service: String,
    pub url: String,
    pub in_flight: u32,
    pub status: Status,
    pub admin_state: AdminState,
    /// Whether the service has an active or passive health check (`traefik_service_server_up`).
    pub checked: bool,
}

/// The present state of one service; `None` where its settings do not ask for it.
#[derive(Clone, Debug)]
pub struct ServiceGauge {
    pub service: String,
    pub ejected: Option<usize>,
    pub slow_starting: Option<usize>,
    pub panics: Option<bool>,
}

/// One certificate in force (`traefik_tls_certs_not_after`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    pub common_name: String,
    /// Decimal, as Traefik prints it.
    pub serial: String,
    /// Joined with `,`.
    pub sans: String,
    pub not_after: SystemTime,
}

type Servers = Arc<dyn Fn() -> Vec<ServerGauge> + Send + Sync>;
type Services = Arc<dyn Fn() -> Vec<ServiceGauge> + Send + Sync>;

/// All metrics of the process; a cheap handle to shared state.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
    registry: Registry,
}

#[derive(Default)]
struct Inner {
    settings: Settings,
    shards: Box<[Arc<Shard>]>,
    labels: Labels,
    refused: Events,
    aliases: Events,
    udp: Mutex<BTreeMap<LabelId, Arc<UdpCounts>>>,
    udp_dropped: Events,
    upstream_errors: Events,
    retries: Events,
    retries_refused: Events,
    failovers: Events,
    mirrors_dropped: Events,
    queue_refused: Events,
    queues: Mutex<FxHashMap<LabelId, i64>>,
    ejections: Events,
    ejections_overflow: Events,
    rate_limited: Events,
    rate_limit_unknown: Events,
    forward_auth: Events,
    forward_auth_times: Mutex<FxHashMap<LabelId, Probes>>,
    error_pages: Events,
    tcp: tcp::Tcp,
    breaker_transitions: Events,
    removed_closed: AtomicU64,
    handed_over: AtomicU64,
    breakers: Mutex<FxHashMap<LabelId, BreakerState>>,
    probes: Mutex<FxHashMap<(&'static str, LabelId), Probes>>,
    certificates: Mutex<Vec<Certificate>>,
    servers: Mutex<Option<Servers>>,
    services: Mutex<Option<Services>>,
    access_log_dropped: Arc<AtomicU64>,
    memory: Mutex<Option<(u64, Arc<AtomicBool>)>>,
    log_dropped: Mutex<Arc<AtomicU64>>,
    telemetry: Mutex<Vec<(&'static str, Arc<Queue>)>>,
    quarantined: Mutex<Vec<(&'static str, usize)>>,
    disabled: Mutex<Vec<(&'static str, usize)>>,
    stale_providers: Mutex<Vec<(String, bool)>>,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
    /// Unix seconds, 0 before the first.
    last_success: AtomicU64,
    last_failure: AtomicU64,
    acme_orders: Mutex<BTreeMap<(String, &'static str), u64>>,
    ocsp_responses: Mutex<BTreeMap<&'static str, u64>>,
    upgrades: AtomicU64,
    upgrade_failures: AtomicU64,
}

impl Metrics {
    /// One shard for each of `workers`; at least one.
    pub fn new(settings: Settings, workers: usize) -> Self {
        let configured = settings.buckets.iter().chain(&settings.more_buckets).copied();
        let bounds = Bounds::new(configured.chain(collect::REQUEST_BUCKETS));
        let inner = Arc::new(Inner {
            settings,
            shards: (0..workers.max(1)).map(|_| Arc::new(Shard::new(bounds.clone()))).collect(),
            ..Inner::default()
        });
        let registry = Registry::new();
        for registered in [
            registry.register(Box::new(collect::Requests::new(Arc::clone(&inner)))),
            registry.register(Box::new(process::Process::new())),
        ] {
            if let Err(error) = registered {
                tracing::error!(%error, "metrics cannot be registered");
            }
        }
        Self { inner, registry }
    }

    /// The shard of worker `index`; indexes past the last share.
    pub fn shard(&self, index: usize) -> Arc<Shard> {
        Arc::clone(&self.inner.shards[index % self.inner.shards.len()])
    }

    /// Interns a label value. For building snapshots, not for requests.
    pub fn label(&self, kind: Kind, text: &str) -> LabelId {
        self.inner.labels.intern(kind, text)
    }

    /// The label of the service `inner` for requests that routers of the service `outer` lead to it: those count for
    /// `outer` among routers and for `inner` among services.
    pub fn via(&self, outer: LabelId, inner: LabelId) -> LabelId {
        self.inner.labels.via(outer, inner)
    }

    /// Interns a TLS version (`1.3`) and cipher (IANA name). Once per connection.
    pub fn tls(&self, version: &str, cipher: &str) -> LabelId {
        self.inner.labels.intern(Kind::Tls, &format!("{version} {cipher}"))
    }

    /// Interns what a request says in the headers of [`Settings::header_labels`]; `value` finds a header's first value. `None`
    /// where there are no such labels. Clients choose the values: once there are [`MOST_HEADERS`] combinations, new ones are
    /// counted together, as `other`.
    pub fn headers<'h>(&self, value: impl Fn(&str) -> Option<&'h [u8]>) -> Option<LabelId> {
        let wanted = &self.inner.settings.header_labels;
        if wanted.is_empty() {
            return None;
        }
        let values = wanted.iter().map(|(_, header)| {
            let value = value(header).unwrap_or_default();
            String::from_utf8_lossy(&value[..value.len().min(LONGEST_HEADER)])
        });
        let beyond = vec!["other"; wanted.len()].join("\n");
        let text = values.collect::<Vec<_>>().join("\n");
        Some(self.inner.labels.intern_few(Kind::Headers, &text, MOST_HEADERS, &beyond))
    }

    /// One more who reads the metrics regularly: names that the configuration has no more are kept until it has seen them
    /// once more.
    pub fn reader(&self) -> Reader {
        self.inner.labels.reader()
    }

    /// Called when a configuration is published, with all routers, services, servers and middlewares of it.
    /// Series of others are shown once more to each reader.
    pub fn retain(&self, live: &HashSet<LabelId>) {
        if self.inner.labels.retain(live) {
            // Not only when scraped: nobody may ever do that.
            let labels = self.inner.labels.snapshot(Reader::NOBODY);
            self.inner.shards.iter().for_each(|shard| shard.forget(&labels));
            self.inner.forget(&labels);
        }
    }

    /// A request refused before routing. `reason` is one of a fixed set.
    pub fn refused(&self, entry_point: LabelId, reason: &'static str) {
        self.inner.refused.count(entry_point, reason);
    }

    /// Name servers were asked what a host is an alias of; `result` is one of a fixed set.
    pub fn alias_asked(&self, entry_point: LabelId, result: &'static str) {
        self.inner.aliases.count(entry_point, result);
    }

    /// What the flows of a UDP entry point count by themselves.
    pub fn udp(&self, entry_point: LabelId) -> Arc<UdpCounts> {
        Arc::clone(self.inner.udp.lock().entry(entry_point).or_default())
    }

    /// A datagram that went nowhere. `reason` is one of a fixed set.
    pub fn udp_dropped(&self, entry_point: LabelId, reason: &'static str) {
        self.inner.udp_dropped.count(entry_point, reason);
    }

    /// An attempt on a server that failed.
    pub fn upstream_error(&self, service: LabelId, reason: &'static str) {
        self.inner.upstream_errors.count(service, reason);
    }

    /// An attempt after the first.
    pub fn retried(&self, service: LabelId) {
        self.inner.retries.count(service, "");
    }

    /// An attempt after the first that the retry budget did not allow.
    pub fn retry_refused(&self, service: LabelId) {
        self.inner.retries_refused.count(service, "");
    }

    /// A failover service turns to its fallback; `reason` is `health`, `status` or `unsent`.
    pub fn failed_over(&self, service: LabelId, reason: &'static str) {
        self.inner.failovers.count(service, reason);
    }

    /// A request has no copy for mirrors: too many are in progress.
    pub fn mirror_dropped(&self, service: LabelId) {
        self.inner.mirrors_dropped.count(service, "");
    }

    /// Makes the queue of a service visible while it is empty.
    pub fn queue(&self, service: LabelId) {
        self.inner.queues.lock().entry(service).or_insert(0);
    }

    /// Counts a waiting request (`lb_queue_length`) until the result is dropped.
    pub fn queued(&self, service: LabelId) -> Queued {
        *self.inner.queues.lock().entry(service).or_insert(0) += 1;
        Queued { inner: Arc::clone(&self.inner), service }
    }

    /// A request that found no room in the queue (`full`) or waited in vain (`timeout`).
    pub fn queue_refused(&self, service: LabelId, reason: &'static str) {
        self.inner.queue_refused.count(service, reason);
    }

    /// Outlier detection put a server aside.
    pub fn ejected(&self, service: LabelId, reason: &'static str) {
        self.inner.ejections.count(service, reason);
    }

    /// Outlier detection would have, had not too many been out already.
    pub fn ejection_overflowed(&self, service: LabelId) {
        self.inner.ejections_overflow.count(service, "");
    }

    /// Requests and tunnels on a removed server, ended because its `drainTimeout` was over.
    pub fn removed_closed(&self, count: u64) {
        self.inner.removed_closed.fetch_add(count, Ordering::Relaxed);
    }

    /// A client connection that went from the worker that accepted it to another one.
    pub fn handed_over(&self) {
        self.inner.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that `rateLimit` or `inFlightReq` refused.
    pub fn rate_limited(&self, middleware: LabelId) {
        self.inner.rate_limited.count(middleware, "");
    }

    /// A request whose shared limit could not be asked about.
    pub fn rate_limit_unknown(&self, middleware: LabelId) {
        self.inner.rate_limit_unknown.count(middleware, "");
    }

    /// Makes a breaker visible, or corrects it, without counting a transition.
    pub fn breaker(&self, middleware: LabelId, state: BreakerState) {
        self.inner.breakers.lock().insert(middleware, state);
    }

    /// A breaker changed its state.
    pub fn breaker_changed(&self, middleware: LabelId, to: BreakerState) {
        self.breaker(middleware, to);
        self.inner.breaker_transitions.count(middleware, collect::breaker_word(to));
    }

    /// One health probe of a server; `check_type` is `http` or `grpc`.
    pub fn probed(&self, check_type: &'static str, server: LabelId, passed: bool, took: Duration) {
        self.inner.probes.lock().entry((check_type, server)).or_default().record(passed, took);
    }

    /// What an auth server said, or that it was not asked (no time): `allowed`, `denied`, `error`, `too_large`.
    pub fn forward_auth(&self, middleware: LabelId, outcome: &'static str, took: Option<Duration>) {
        self.inner.forward_auth.count(middleware, outcome);
        if let Some(took) = took {
            let mut times = self.inner.forward_auth_times.lock();
            times.entry(middleware).or_default().record(outcome != "error", took);
        }
    }

    /// An answer was replaced; `outcome` is `served` or `failed`.
    pub fn error_page(&self, middleware: LabelId, outcome: &'static str) {
        self.inner.error_pages.count(middleware, outcome);
    }

    /// The counts of a TCP service: connections that are open, and bytes.
    pub fn tcp(&self, service: LabelId) -> Arc<TcpCounts> {
        self.inner.tcp.counts(service)
    }

    /// A connection of a TCP service has ended, or was refused; `outcome` is one of a fixed set.
    pub fn tcp_ended(&self, service: LabelId, outcome: &'static str) {
        self.inner.tcp.ended.count(service, outcome);
    }

    /// A server of a TCP service could not be reached; `reason` is `connect` or `tls`.
    pub fn tcp_dial_failed(&self, service: LabelId, reason: &'static str) {
        self.inner.tcp.dial_failures.count(service, reason);
    }

    /// A configuration came into force.
    pub fn reloaded(&self, at: SystemTime) {
        self.inner.reloads.fetch_add(1, Ordering::Relaxed);
        self.inner.last_success.store(unix_seconds(at), Ordering::Relaxed);
    }

    /// A configuration was refused.
    pub fn reload_failed(&self, at: SystemTime) {
        self.inner.reload_failures.fetch_add(1, Ordering::Relaxed);
        self.inner.last_failure.store(unix_seconds(at), Ordering::Relaxed);
    }

    /// How many objects of each kind are in force in an older version than the configuration has.
    pub fn set_quarantined(&self, counts: Vec<(&'static str, usize)>) {
        *self.inner.quarantined.lock() = counts;
    }

    /// How many objects of each kind are left out because they are broken and never were good.
    pub fn set_disabled(&self, counts: Vec<(&'static str, usize)>) {
        *self.inner.disabled.lock() = counts;
    }

    /// A responder was asked, with this outcome.
    pub fn ocsp_response(&self, outcome: &'static str) {
        *self.inner.ocsp_responses.lock().entry(outcome).or_insert(0) += 1;
    }

    /// An order for a certificate had this outcome.
    pub fn acme_order(&self, resolver: &str, outcome: &'static str) {
        *self.inner.acme_orders.lock().entry((resolver.to_owned(), outcome)).or_insert(0) += 1;
    }

    /// Of every provider, whether something older is in force than it has, or than it can be asked for.
    pub fn set_stale_providers(&self, providers: Vec<(String, bool)>) {
        *self.inner.stale_providers.lock() = providers;
    }

    /// This process follows another, which counted so many upgrades and failed ones.
    pub fn upgraded(&self, upgrades: u64, failures: u64) {
        self.inner.upgrades.store(upgrades + 1, Ordering::Relaxed);
        self.inner.upgrade_failures.store(failures, Ordering::Relaxed);
    }

    /// A new process did not get ready; this one goes on.
    pub fn upgrade_failed(&self) {
        self.inner.upgrade_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Upgrades and failed ones so far, for the process that follows.
    pub fn upgrades(&self) -> (u64, u64) {
        let inner = &self.inner;
        (inner.upgrades.load(Ordering::Relaxed), inner.upgrade_failures.load(Ordering::Relaxed))
    }

    /// Replaces the certificates shown.
    pub fn set_certificates(&self, certificates: Vec<Certificate>) {
        *self.inner.certificates.lock() = certificates;
    }

    /// Where a scrape reads in-flight requests and health.
    pub fn set_servers(&self, servers: impl Fn() -> Vec<ServerGauge> + Send + Sync + 'static) {
        *self.inner.servers.lock() = Some(Arc::new(servers));
    }

    /// Where a scrape reads whether requests are refused because memory is short, and from how many bytes on they are.
    pub fn set_memory(&self, limit_bytes: u64, shedding: Arc<AtomicBool>) {
        *self.inner.memory.lock() = Some((limit_bytes, shedding));
    }

    /// Where a scrape reads what it says of whole services.
    pub fn set_services(&self, services: impl Fn() -> Vec<ServiceGauge> + Send + Sync + 'static) {
        *self.inner.services.lock() = Some(Arc::new(services));
    }

    /// The counter for [`crate::access_log::AccessLog::open`].
    pub fn access_log_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.access_log_dropped)
    }

    /// Where lines of the diagnostics that were lost are counted.
    pub fn follow_log(&self, dropped: Arc<AtomicU64>) {
        *self.inner.log_dropped.lock() = dropped;
    }

    /// Where what leaves the process is counted; `signal` is `traces`, `logs` or `accessLogs`.
    pub fn follow_telemetry(&self, signal: &'static str, queue: Arc<Queue>) {
        self.inner.telemetry.lock().push((signal, queue));
    }

    /// Everything but the process's own numbers, as metrics of OTLP, each with the values of `at`, counted since `since`.
    pub fn measurements(&self, view: &View, since: SystemTime, at: SystemTime) -> Vec<u8> {
        let families = collect::families(&self.inner, view);
        otlp::metrics(&families, trace::unix_nanos(since), trace::unix_nanos(at))
    }

    /// The Prometheus text format; see [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }
}

/// One request that waits for a server, counted until dropped.
pub struct Queued {
    inner: Arc<Inner>,
    service: LabelId,
}

impl Drop for Queued {
    fn drop(&mut self) {
        *self.inner.queues.lock().entry(self.service).or_insert(0) -= 1;
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
