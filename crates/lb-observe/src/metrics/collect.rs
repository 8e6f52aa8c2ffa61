//! A scrape: rows of the shards become the series that operators know.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use rustc_hash::FxHashMap;

use super::events::{Events, PROBE_BUCKETS, Probes};
use super::family::{Family, single};
use super::label::{Kind, LabelId, Reader, Snapshot};
use super::names::{self, Definition};
use super::sample::Key;
use super::semantic;
use super::table::{Bounds, Histogram, Row, Table};
use super::{
    AdminState, BreakerState, Certificate, Inner, ServerGauge, ServiceGauge, Settings, Status, View,
    unix_seconds,
};

/// Seconds, of `request_duration_seconds`.
pub(super) const REQUEST_BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

pub(super) struct Requests {
    inner: Arc<Inner>,
    descriptions: Vec<Desc>,
}

pub(super) fn descriptions<'a>(definitions: impl Iterator<Item = &'a Definition>) -> Vec<Desc> {
    definitions
        .filter_map(|d| {
            let labels = d.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(d.name.to_owned(), d.help.to_owned(), labels, Default::default()).ok()
        })
        .collect()
}

impl Requests {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let own = names::ALL.iter().filter(|d| !d.name.starts_with("process_"));
        Self { inner, descriptions: descriptions(own) }
    }
}

impl Collector for Requests {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Settings { buckets, entry_points, routers, services, header_labels, .. } = &self.inner.settings;
        let (entry_points, routers, services) = (*entry_points, *routers, *services);
        let view = View {
            buckets: buckets.clone(),
            entry_points,
            routers,
            services,
            header_labels: header_labels.iter().map(|(label, _)| label.clone()).collect(),
            semantic: false,
            reader: Reader::SCRAPE,
        };
        families(&self.inner, &view)
    }
}

/// All series as `view` wants them.
pub(super) fn families(inner: &Inner, view: &View) -> Vec<MetricFamily> {
    let labels = inner.labels.snapshot(view.reader);
    let (requests, open) = inner.merged(&labels);
    let mut families = Vec::new();
    traefik(view, &requests, &labels, &mut families);
    per_server(&requests, &labels, &mut families);
    if view.semantic {
        semantic::push(view, &requests, &labels, &mut families);
    }
    connections(&open, &labels, &mut families);
    servers(inner, view, &mut families);
    services(inner, &mut families);
    events(inner, view, &labels, &mut families);
    probes(inner, &labels, &mut families);
    inner.tcp.collect(&labels, &mut families);
    super::udp::collect(inner, &labels, &mut families);
    configuration(inner, &mut families);
    inner.forget(&labels);
    inner.labels.seen(&labels);
    families
}

type Open = FxHashMap<LabelId, i64>;

impl Inner {
    /// The sum of all shards. What is dead is in the sum, and folded away in the shards.
    fn merged(&self, labels: &Snapshot) -> (Table<Key>, Open) {
        let mut shards = self.shards.iter().map(|shard| shard.scrape(labels));
        let (mut requests, mut open) =
            shards.next().unwrap_or_else(|| unreachable!("there is at least one shard"));
        for (more_requests, more_open) in shards {
            for (key, row) in more_requests.rows() {
                requests.add(key, row);
            }
            for (label, count) in more_open {
                *open.entry(label).or_insert(0) += count;
            }
        }
        (requests, open)
    }

    /// Each counter of events under the names that it has.
    fn events(&self) -> [(Definition, &Events); 17] {
        [
            (names::REFUSED_REQUESTS, &self.refused),
            (names::ALIAS_LOOKUPS, &self.aliases),
            (names::UDP_DROPPED, &self.udp_dropped),
            (names::UPSTREAM_ERRORS, &self.upstream_errors),
            (names::RETRIES, &self.retries),
            (names::SERVICE_RETRIES, &self.retries),
            (names::RETRIES_REFUSED, &self.retries_refused),
            (names::FAILOVERS, &self.failovers),
            (names::MIRRORS_DROPPED, &self.mirrors_dropped),
            (names::QUEUE_REFUSED, &self.queue_refused),
            (names::EJECTIONS, &self.ejections),
            (names::EJECTIONS_OVERFLOW, &self.ejections_overflow),
            (names::RATE_LIMITED, &self.rate_limited),
            (names::RATE_LIMIT_UNKNOWN, &self.rate_limit_unknown),
            (names::FORWARD_AUTH, &self.forward_auth),
            (names::ERROR_PAGES, &self.error_pages),
            (names::BREAKER_TRANSITIONS, &self.breaker_transitions),
        ]
    }

    pub(super) fn forget(&self, labels: &Snapshot) {
        let lives = |label: &LabelId| !labels.is_dead(*label);
        self.events().iter().for_each(|(_, events)| events.forget(labels));
        self.tcp.forget(labels);
        self.queues.lock().retain(|label, waiting| *waiting != 0 || lives(label));
        self.breakers.lock().retain(|label, _| lives(label));
        self.probes.lock().retain(|(_, label), _| lives(label));
        self.forward_auth_times.lock().retain(|label, _| lives(label));
    }
}

/// What Traefik calls a level: the five metrics of entry points, routers or services.
struct Level {
    requests: Definition,
    tls: Definition,
    duration: Definition,
    request_bytes: Definition,
    response_bytes: Definition,
    measured: for<'a> fn(Row<'a>) -> Histogram<'a>,
}

const ENTRY_POINTS: Level = Level {
    requests: names::ENTRY_POINT_REQUESTS,
    tls: names::ENTRY_POINT_TLS,
    duration: names::ENTRY_POINT_DURATION,
    request_bytes: names::ENTRY_POINT_REQUEST_BYTES,
    response_bytes: names::ENTRY_POINT_RESPONSE_BYTES,
    measured: |row| row.duration(),
};

const ROUTERS: Level = Level {
    requests: names::ROUTER_REQUESTS,
    tls: names::ROUTER_TLS,
    duration: names::ROUTER_DURATION,
    request_bytes: names::ROUTER_REQUEST_BYTES,
    response_bytes: names::ROUTER_RESPONSE_BYTES,
    measured: |row| row.duration(),
};

const SERVICES: Level = Level {
    requests: names::SERVICE_REQUESTS,
    tls: names::SERVICE_TLS,
    duration: names::SERVICE_DURATION,
    request_bytes: names::SERVICE_REQUEST_BYTES,
    response_bytes: names::SERVICE_RESPONSE_BYTES,
    measured: |row| row.service_duration(),
};

/// Whose series a row belongs to: an entry point, a router and its service, or a service.
type Owner = (LabelId, Option<LabelId>);

fn traefik(settings: &View, requests: &Table<Key>, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    if settings.entry_points {
        let owner = |key: Key| Some((key.entry_point?, None));
        level(&ENTRY_POINTS, requests, owner, settings, labels, families);
    }
    if settings.routers {
        let owner = |key: Key| Some((key.router?, Some(labels.asked(key.service?)?)));
        level(&ROUTERS, requests, owner, settings, labels, families);
    }
    if settings.services {
        let owner = |key: Key| Some((labels.answering(key.service.filter(|_| key.reached_service)?), None));
        level(&SERVICES, requests, owner, settings, labels, families);
    }
}

fn level(
    level: &Level,
    requests: &Table<Key>,
    owner: impl Fn(Key) -> Option<Owner>,
    view: &View,
    labels: &Snapshot,
    families: &mut Vec<MetricFamily>,
) {
    let owner_texts = |(first, second): Owner| {
        let mut texts = vec![labels.text(first)?];
        if let Some(second) = second {
            texts.push(labels.text(second)?);
        }
        Some(texts)
    };
    let mut count = Family::counter(level.requests).with(view.header_labels.clone());
    let mut durations = Family::histogram(level.duration);
    let mut request_bytes = Family::counter(level.request_bytes);
    let mut response_bytes = Family::counter(level.response_bytes);
    let grouped = requests.grouped(|key| Some((owner(key)?, key.code(), key.method, key.protocol)));
    for ((owner, code, method, protocol), row) in grouped.rows() {
        let Some(owner) = owner_texts(owner) else { continue };
        let code = code.to_string();
        let mut texts = vec![code.as_str(), method.as_str(), protocol.as_str()];
        texts.extend(owner);
        if view.header_labels.is_empty() {
            count.push(&texts, row.count() as f64);
        }
        histogram(&mut durations, &texts, grouped.bounds(), &view.buckets, (level.measured)(row));
        request_bytes.push(&texts, row.request_bytes() as f64);
        response_bytes.push(&texts, row.response_bytes() as f64);
    }
    if !view.header_labels.is_empty() {
        let grouped =
            requests.grouped(|key| Some((owner(key)?, key.code(), key.method, key.protocol, key.headers)));
        for ((owner, code, method, protocol, headers), row) in grouped.rows() {
            let Some(owner) = owner_texts(owner) else { continue };
            let code = code.to_string();
            let mut texts = vec![code.as_str(), method.as_str(), protocol.as_str()];
            texts.extend(owner);
            let mut values = headers.and_then(|headers| labels.text(headers)).unwrap_or_default().split('\n');
            texts.extend(view.header_labels.iter().map(|_| values.next().unwrap_or_default()));
            count.push(&texts, row.count() as f64);
        }
    }
    let mut tls = Family::counter(level.tls);
    let grouped = requests.grouped(|key| Some((owner(key)?, key.tls?)));
    for ((owner, version_and_cipher), row) in grouped.rows() {
        let (Some(owner), Some(text)) = (owner_texts(owner), labels.text(version_and_cipher)) else {
            continue;
        };
        let (version, cipher) = text.split_once(' ').unwrap_or((text, ""));
        let mut texts = vec![version, cipher];
        texts.extend(owner);
        tls.push(&texts, row.count() as f64);
    }
    families.extend([count, durations, request_bytes, response_bytes, tls].map(Family::build));
}

pub(super) fn histogram(
    family: &mut Family,
    labels: &[&str],
    bounds: &Bounds,
    buckets: &[f64],
    histogram: Histogram<'_>,
) {
    let count = histogram.cells.iter().sum();
    let buckets = buckets.iter().map(|bound| (*bound, bounds.cumulative(histogram.cells, *bound)));
    family.push_histogram(labels, buckets, count, histogram.sum.as_secs_f64());
}

fn per_server(requests: &Table<Key>, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    let mut count = Family::counter(names::REQUESTS);
    let mut durations = Family::histogram(names::REQUEST_DURATION);
    // A row whose router is gone has lost its `path`; only the distribution still counts it.
    let grouped = requests.grouped(|key| Some((key.server?, key.router?, key.method, key.status)));
    for ((server, router, method, status), row) in grouped.rows() {
        let (Some(server), Some(router)) = (labels.text(server), labels.text(router)) else { continue };
        let status = status.to_string();
        count.push(&[server, method.as_str(), &status, router], row.count() as f64);
        let texts = [server, method.as_str(), router, &status];
        histogram(&mut durations, &texts, grouped.bounds(), &REQUEST_BUCKETS, row.duration());
    }
    let mut distribution = Family::counter(names::REQUEST_DISTRIBUTION);
    for (server, row) in requests.grouped(|key| key.server).rows() {
        if let Some(server) = labels.text(server) {
            distribution.push(&[server], row.count() as f64);
        }
    }
    families.extend([count, durations, distribution].map(Family::build));
}

fn connections(open: &Open, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    let mut clients = Family::gauge(names::OPEN_CONNECTIONS);
    let mut upstream = Family::gauge(names::UPSTREAM_CONNECTIONS);
    let mut http3 = Family::gauge(names::HTTP3_CONNECTIONS);
    for (label, count) in open {
        let Some(text) = labels.text_while(*count != 0, *label) else { continue };
        match labels.kind(*label) {
            Some(Kind::EntryPoint) => clients.push(&[text, "TCP"], *count as f64),
            Some(Kind::Http3) => http3.push(&[text], *count as f64),
            Some(Kind::Service) => upstream.push(&[text], *count as f64),
            _ => {}
        }
    }
    families.extend([clients.build(), http3.build(), upstream.build()]);
}

fn servers(inner: &Inner, view: &View, families: &mut Vec<MetricFamily>) {
    let read = inner.servers.lock().clone();
    let Some(read) = read else { return };
    let mut up = Family::gauge(names::SERVER_UP);
    let mut admin = Family::gauge(names::SERVER_ADMIN_STATE);
    // One URL may serve several services: requests add up, and the worst health is what an alert wants.
    let mut instances: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for ServerGauge { service, url, in_flight, status, admin_state, checked } in read() {
        let health = match status {
            Status::Healthy => 1.0,
            Status::Degraded => 0.5,
            Status::Unhealthy => 0.0,
        };
        if checked && view.services {
            up.push(&[&service, &url], if status == Status::Unhealthy { 0.0 } else { 1.0 });
        }
        let wanted = match admin_state {
            AdminState::Ready => 0.0,
            AdminState::Drain => 1.0,
            AdminState::Maintenance => 2.0,
        };
        admin.push(&[&service, &url], wanted);
        let (requests, worst) = instances.entry(url).or_insert((0, 1.0));
        *requests += u64::from(in_flight);
        *worst = worst.min(health);
    }
    let mut active = Family::gauge(names::ACTIVE_CONNECTIONS);
    let mut healths = Family::gauge(names::INSTANCE_HEALTH);
    for (url, (requests, health)) in &instances {
        active.push(&[url], *requests as f64);
        healths.push(&[url], *health);
    }
    families.extend([up, admin, active, healths].map(Family::build));
}

fn services(inner: &Inner, families: &mut Vec<MetricFamily>) {
    let read = inner.services.lock().clone();
    let Some(read) = read else { return };
    let mut ejections = Family::gauge(names::EJECTED_SERVERS);
    let mut slow_starts = Family::gauge(names::SLOW_START_SERVERS);
    let mut panic_modes = Family::gauge(names::PANIC_MODE);
    for ServiceGauge { service, ejected, slow_starting, panics } in read() {
        let push = |family: &mut Family, value: Option<f64>| {
            value.into_iter().for_each(|value| family.push(&[&service], value));
        };
        push(&mut ejections, ejected.map(|count| count as f64));
        push(&mut slow_starts, slow_starting.map(|count| count as f64));
        push(&mut panic_modes, panics.map(|panics| f64::from(u8::from(panics))));
    }
    families.extend([ejections, slow_starts, panic_modes].map(Family::build));
}

fn events(inner: &Inner, view: &View, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    for (definition, events) in inner.events() {
        if definition.name != names::SERVICE_RETRIES.name || view.services {
            families.push(events.family(definition, labels));
        }
    }
    let mut queues = Family::gauge(names::QUEUE_LENGTH);
    for (label, waiting) in &*inner.queues.lock() {
        if let Some(text) = labels.text_while(*waiting != 0, *label) {
            queues.push(&[text], *waiting as f64);
        }
    }
    families.push(queues.build());
    let mut breakers = Family::gauge(names::BREAKER_STATE);
    for (label, state) in &*inner.breakers.lock() {
        if let Some(text) = labels.text(*label) {
            breakers.push(&[text], breaker_value(*state));
        }
    }
    families.push(breakers.build());
}

/// As `lb_circuit_breaker_state` documents it: the more it refuses, the higher.
fn breaker_value(state: BreakerState) -> f64 {
    match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    }
}

pub(super) fn breaker_word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Open => "open",
    }
}

fn probes(inner: &Inner, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    let mut total = Family::counter(names::HEALTH_CHECKS);
    let mut failed = Family::counter(names::HEALTH_CHECK_FAILURES);
    let mut durations = Family::histogram(names::HEALTH_CHECK_DURATION);
    for ((check_type, server), probes) in &*inner.probes.lock() {
        let Some(server) = labels.text(*server) else { continue };
        let texts = [check_type, server];
        total.push(&texts, probes.total as f64);
        failed.push(&texts, probes.failed as f64);
        times(&mut durations, &texts, probes);
    }
    let mut auths = Family::histogram(names::FORWARD_AUTH_DURATION);
    for (middleware, asked) in &*inner.forward_auth_times.lock() {
        if let Some(middleware) = labels.text(*middleware) {
            times(&mut auths, &[middleware], asked);
        }
    }
    families.extend([total, failed, durations, auths].map(Family::build));
}

fn times(family: &mut Family, labels: &[&str], probes: &Probes) {
    let mut sum = 0;
    let buckets = PROBE_BUCKETS.iter().zip(probes.buckets).map(|(bound, count)| {
        sum += count;
        (*bound, sum)
    });
    family.push_histogram(labels, buckets, probes.total, probes.sum.as_secs_f64());
}

fn configuration(inner: &Inner, families: &mut Vec<MetricFamily>) {
    let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    families.extend([
        single(Family::counter(names::CONFIG_RELOADS), number(&inner.reloads)),
        single(Family::gauge(names::CONFIG_LAST_RELOAD_SUCCESS), number(&inner.last_success)),
        single(Family::counter(names::RELOAD_FAILURES), number(&inner.reload_failures)),
        single(Family::gauge(names::LAST_RELOAD_FAILURE), number(&inner.last_failure)),
        single(Family::counter(names::UPGRADES), number(&inner.upgrades)),
        single(Family::counter(names::UPGRADE_FAILURES), number(&inner.upgrade_failures)),
        single(Family::counter(names::ACCESS_LOG_DROPPED), number(&inner.access_log_dropped)),
        single(Family::counter(names::LOG_DROPPED), number(&inner.log_dropped.lock())),
        single(Family::counter(names::REMOVED_CLOSED), number(&inner.removed_closed)),
        single(Family::counter(names::HANDED_OVER), number(&inner.handed_over)),
    ]);
    if let Some((limit, shedding)) = &*inner.memory.lock() {
        let shedding = f64::from(u8::from(shedding.load(Ordering::Relaxed)));
        families.extend([
            single(Family::gauge(names::MEMORY_LIMIT), *limit as f64),
            single(Family::gauge(names::MEMORY_SHEDDING), shedding),
        ]);
    }
    let mut sent = Family::counter(names::TELEMETRY_SENT);
    let mut dropped = Family::counter(names::TELEMETRY_DROPPED);
    for (signal, queue) in &*inner.telemetry.lock() {
        let (arrived, lost) = queue.counts();
        sent.push(&[signal], arrived as f64);
        dropped.push(&[signal], lost as f64);
    }
    families.extend([sent.build(), dropped.build()]);
    for (name, counts) in [(names::QUARANTINED, &inner.quarantined), (names::DISABLED, &inner.disabled)] {
        let mut broken = Family::gauge(name);
        for (kind, count) in &*counts.lock() {
            broken.push(&[kind], *count as f64);
        }
        families.push(broken.build());
    }
    let mut orders = Family::counter(names::ACME_ORDERS);
    for ((resolver, outcome), count) in &*inner.acme_orders.lock() {
        orders.push(&[resolver, outcome], *count as f64);
    }
    families.push(orders.build());
    let mut responses = Family::counter(names::OCSP_RESPONSES);
    for (outcome, count) in &*inner.ocsp_responses.lock() {
        responses.push(&[outcome], *count as f64);
    }
    families.push(responses.build());
    let mut stale = Family::gauge(names::PROVIDER_STALE);
    for (provider, is_stale) in &*inner.stale_providers.lock() {
        stale.push(&[provider], f64::from(u8::from(*is_stale)));
    }
    families.push(stale.build());
    let mut build = Family::gauge(names::BUILD_INFO);
    build.push(&[inner.settings.version], 1.0);
    let mut certificates = Family::gauge(names::TLS_CERTS_NOT_AFTER);
    // The same series twice would make Prometheus refuse the whole scrape.
    let unique: HashSet<Certificate> = inner.certificates.lock().iter().cloned().collect();
    for Certificate { common_name, serial, sans, not_after } in &unique {
        certificates.push(&[common_name, serial, sans], unix_seconds(*not_after) as f64);
    }
    families.extend([build.build(), certificates.build()]);
}
