//! Metrics as lines for StatsD, Datadog and InfluxDB: what happened since the last push, under the names that Traefik
//! gives it there.
//!
//! Vigie keeps no list of single durations. What is sent of them is put together from the buckets of the histogram: exact
//! in number and, as far as bounds allow, in sum.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::SystemTime;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::{Metrics, View, collect};
use crate::trace;

/// Who reads the lines.
#[derive(Clone, Debug)]
pub enum Format {
    /// Names only: values of different labels are one.
    StatsD {
        prefix: String,
    },
    Datadog {
        prefix: String,
    },
    /// With more tags.
    Influx {
        labels: BTreeMap<String, String>,
    },
}

/// Name for Prometheus, for StatsD and Datadog, and for InfluxDB where that is another.
const NAMES: [(&str, &str, &str); 21] = [
    ("traefik_config_reloads_total", "config.reload.total", ""),
    ("traefik_config_last_reload_success", "config.reload.lastSuccessTimestamp", ""),
    ("traefik_open_connections", "open.connections", ""),
    ("traefik_tls_certs_not_after", CERTIFICATES, ""),
    ("traefik_entrypoint_requests_total", "entrypoint.request.total", "entrypoint.requests.total"),
    (
        "traefik_entrypoint_requests_tls_total",
        "entrypoint.request.tls.total",
        "entrypoint.requests.tls.total",
    ),
    ("traefik_entrypoint_request_duration_seconds", "entrypoint.request.duration", ""),
    ("traefik_entrypoint_requests_bytes_total", "entrypoint.requests.bytes.total", ""),
    ("traefik_entrypoint_responses_bytes_total", "entrypoint.responses.bytes.total", ""),
    ("traefik_router_requests_total", "router.request.total", "router.requests.total"),
    ("traefik_router_requests_tls_total", "router.request.tls.total", "router.requests.tls.total"),
    ("traefik_router_request_duration_seconds", "router.request.duration", ""),
    ("traefik_router_requests_bytes_total", "router.requests.bytes.total", ""),
    ("traefik_router_responses_bytes_total", "router.responses.bytes.total", ""),
    ("traefik_service_requests_total", "service.request.total", "service.requests.total"),
    ("traefik_service_requests_tls_total", "service.request.tls.total", "service.requests.tls.total"),
    ("traefik_service_request_duration_seconds", "service.request.duration", ""),
    ("traefik_service_requests_bytes_total", "service.requests.bytes.total", ""),
    ("traefik_service_responses_bytes_total", "service.responses.bytes.total", ""),
    ("traefik_service_retries_total", "service.retries.total", ""),
    ("traefik_service_server_up", "service.server.up", ""),
];

const CERTIFICATES: &str = "tls.certs.notAfterTimestamp";

/// The order in which Datadog gets them; Prometheus has them in another.
const TAGS: [&str; 12] = [
    "entrypoint",
    "router",
    "service",
    "url",
    "tls_version",
    "tls_cipher",
    "cn",
    "serial",
    "sans",
    "method",
    "protocol",
    "code",
];

/// What InfluxDB gets of durations.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// One exporter, with what it has sent already.
pub struct Lines {
    format: Format,
    view: View,
    counters: HashMap<String, f64>,
    durations: HashMap<String, Durations>,
}

/// How many took how long at most, in seconds, without what was longer than the last bound; and how long all took.
#[derive(Clone, Default)]
struct Durations {
    bounds: Vec<f64>,
    /// One more than bounds.
    counts: Vec<u64>,
    sum: f64,
}

/// The series of one name and these tags.
struct Series<'a> {
    name: &'static str,
    tags: Vec<(&'a str, &'a str)>,
}

enum Change {
    Counted(f64),
    Is(f64),
    Took(Durations),
}

impl Lines {
    pub fn new(format: Format, view: View) -> Self {
        Self { format, view, counters: HashMap::new(), durations: HashMap::new() }
    }

    /// What happened since the last call.
    pub fn take(&mut self, metrics: &Metrics, at: SystemTime) -> Vec<String> {
        let families = collect::families(&metrics.inner, &self.view);
        let mut lines: BTreeMap<String, (Series<'_>, Change)> = BTreeMap::new();
        // What is no more, or begins anew, has no before.
        let (mut counters, mut durations) = (HashMap::new(), HashMap::new());
        for family in &families {
            let Some(name) = self.name(family.name()) else { continue };
            for metric in family.get_metric() {
                // Series by series: of those that share a line one may be gone since.
                let own = series_key(family.name(), metric.get_label());
                let change = match change(family, metric) {
                    Change::Counted(value) => {
                        let before = self.counters.get(&own).copied().unwrap_or(0.0);
                        counters.insert(own, value);
                        // A count that has gone back began anew.
                        Change::Counted(if value < before { value } else { value - before })
                    }
                    Change::Took(all) => {
                        let new = self.durations.get(&own).map_or_else(|| all.clone(), |b| all.since(b));
                        durations.insert(own, all);
                        Change::Took(new)
                    }
                    is => is,
                };
                let series = Series { name, tags: self.tags(metric.get_label()) };
                let key = series.key();
                match (lines.get_mut(&key), change) {
                    // Of several certificates the one that expires first.
                    (Some((Series { name: CERTIFICATES, .. }, Change::Is(known))), Change::Is(other)) => {
                        *known = known.min(other);
                    }
                    (
                        Some((_, Change::Counted(sum) | Change::Is(sum))),
                        Change::Counted(more) | Change::Is(more),
                    ) => *sum += more,
                    (Some((_, Change::Took(all))), Change::Took(more)) => all.add(&more),
                    (_, change) => drop(lines.insert(key, (series, change))),
                }
            }
        }
        (self.counters, self.durations) = (counters, durations);
        let mut texts = Vec::new();
        for (series, change) in lines.into_values() {
            match change {
                Change::Is(value) => texts.push(self.line(&series, value, "g", at)),
                Change::Counted(new) if new > 0.0 => texts.push(self.line(&series, new, "c", at)),
                Change::Counted(_) => {}
                Change::Took(new) => self.durations_of(&series, &new, at, &mut texts),
            }
        }
        texts
    }

    fn name(&self, prometheus: &str) -> Option<&'static str> {
        let (_, plain, influx) = NAMES.iter().find(|(name, ..)| *name == prometheus)?;
        let is_influx = matches!(self.format, Format::Influx { .. });
        Some(if is_influx && !influx.is_empty() { influx } else { plain })
    }

    fn tags<'a>(&self, labels: &'a [LabelPair]) -> Vec<(&'a str, &'a str)> {
        let place = |name: &str| TAGS.iter().position(|known| *known == name);
        let mut tags: Vec<_> = labels.iter().map(|label| (label.name(), label.value())).collect();
        match self.format {
            Format::StatsD { .. } => tags.clear(),
            Format::Datadog { .. } => tags.sort_by_key(|(name, _)| place(name)),
            Format::Influx { .. } => tags.sort_unstable(),
        }
        tags
    }

    fn line(&self, series: &Series<'_>, value: f64, kind: &str, at: SystemTime) -> String {
        match &self.format {
            Format::StatsD { prefix } => format!("{prefix}.{}:{value:.6}|{kind}", series.name),
            Format::Datadog { prefix } => {
                format!("{prefix}.{}:{value:.6}|{kind}{}", series.name, hashed(&series.tags))
            }
            Format::Influx { labels } => {
                let field = if kind == "c" { "count" } else { "value" };
                format!("{} {field}={value} {}", series.influx(labels), trace::unix_nanos(at))
            }
        }
    }

    fn durations_of(&self, series: &Series<'_>, new: &Durations, at: SystemTime, lines: &mut Vec<String>) {
        let estimates = new.estimates();
        match &self.format {
            Format::Influx { labels } if !estimates.is_empty() => {
                let mut fields = String::new();
                for (name, quantile) in QUANTILES {
                    let comma = if fields.is_empty() { "" } else { "," };
                    let _ = write!(fields, "{comma}{name}={}", at_quantile(&estimates, quantile));
                }
                lines.push(format!("{} {fields} {}", series.influx(labels), trace::unix_nanos(at)));
            }
            Format::Influx { .. } => {}
            Format::StatsD { prefix } | Format::Datadog { prefix } => {
                let is_datadog = matches!(self.format, Format::Datadog { .. });
                for (seconds, count) in estimates {
                    // One line stands for as many as its rate says.
                    let rate = if count == 1 { String::new() } else { format!("|@{}", 1.0 / count as f64) };
                    let (value, kind) = if is_datadog { (seconds, "h") } else { (seconds * 1e3, "ms") };
                    let tags = hashed(&series.tags);
                    lines.push(format!("{prefix}.{}:{value:.6}|{kind}{rate}{tags}", series.name));
                }
            }
        }
    }
}

/// With all labels, whatever a line shows of them.
fn series_key(name: &str, labels: &[LabelPair]) -> String {
    let mut key = name.to_owned();
    labels.iter().for_each(|label| key.extend(["\0", label.name(), "\0", label.value()]));
    key
}

fn change(family: &MetricFamily, metric: &prometheus::proto::Metric) -> Change {
    match family.get_field_type() {
        MetricType::COUNTER => Change::Counted(metric.get_counter().get_value()),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let mut all = Durations { sum: histogram.get_sample_sum(), ..Durations::default() };
            let mut below = 0;
            for bucket in histogram.get_bucket() {
                all.bounds.push(bucket.upper_bound());
                all.counts.push(bucket.cumulative_count() - below);
                below = bucket.cumulative_count();
            }
            all.counts.push(histogram.get_sample_count() - below);
            Change::Took(all)
        }
        _ => Change::Is(metric.get_gauge().get_value()),
    }
}

impl Series<'_> {
    fn key(&self) -> String {
        let mut key = self.name.to_owned();
        self.tags.iter().for_each(|(name, value)| key.extend(["\0", name, "\0", value]));
        key
    }

    /// Measurement and tags, sorted, as the line protocol wants them.
    fn influx(&self, labels: &BTreeMap<String, String>) -> String {
        let more = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut tags: Vec<_> =
            self.tags.iter().copied().chain(more).filter(|(_, value)| !value.is_empty()).collect();
        tags.sort_unstable();
        let mut text = format!("traefik.{}", self.name);
        for (name, value) in tags {
            text.push(',');
            for (part, end) in [(name, "="), (value, "")] {
                part.chars().for_each(|c| {
                    if matches!(c, ',' | '=' | ' ' | '\\') {
                        text.push('\\');
                    }
                    text.push(c);
                });
                text.push_str(end);
            }
        }
        text
    }
}

/// A comma or a bar in a value would begin something else.
fn hashed(tags: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in tags {
        text.push_str(if text.is_empty() { "|#" } else { "," });
        let _ = write!(text, "{name}:{}", value.replace([',', '|', '\n'], "_"));
    }
    text
}

impl Durations {
    fn add(&mut self, more: &Self) {
        self.counts.iter_mut().zip(&more.counts).for_each(|(count, more)| *count += more);
        self.sum += more.sum;
    }

    fn since(&self, before: &Self) -> Self {
        let total = |durations: &Self| durations.counts.iter().sum::<u64>();
        if total(self) < total(before) {
            return self.clone();
        }
        let earlier = before.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(earlier).map(|(now, before)| now.saturating_sub(before));
        Self { bounds: self.bounds.clone(), counts: counts.collect(), sum: (self.sum - before.sum).max(0.0) }
    }

    /// One duration for each bucket that has some, with how many: the middle of the bucket, moved within it so that all
    /// together take as long as they did.
    fn estimates(&self) -> Vec<(f64, u64)> {
        let ends = |at: usize| {
            let low = if at == 0 { 0.0 } else { self.bounds[at - 1] };
            (low, self.bounds.get(at).copied().unwrap_or(f64::MAX))
        };
        let middle = |at: usize| match ends(at) {
            (low, f64::MAX) => low * 1.5,
            (low, high) => (low + high) / 2.0,
        };
        let filled = || self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0);
        let guessed: f64 = filled().map(|(at, count)| middle(at) * count as f64).sum();
        let factor = if guessed > 0.0 { self.sum / guessed } else { 1.0 };
        filled()
            .map(|(at, count)| {
                let (low, high) = ends(at);
                ((middle(at) * factor).clamp(low, high), count)
            })
            .collect()
    }
}

fn at_quantile(estimates: &[(f64, u64)], quantile: f64) -> f64 {
    let all: u64 = estimates.iter().map(|(_, count)| count).sum();
    let rank = (quantile * all as f64).ceil() as u64;
    let mut seen = 0;
    for (seconds, count) in estimates {
        seen += count;
        if seen >= rank {
            return *seconds;
        }
    }
    estimates.last().map_or(0.0, |(seconds, _)| *seconds)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::metrics::{Certificate, Kind, Method, Protocol, Reader, Sample, Settings};

    const NOTHING: View = View {
        buckets: Vec::new(),
        entry_points: false,
        routers: false,
        services: false,
        header_labels: Vec::new(),
        semantic: false,
        reader: Reader::SCRAPE,
    };

    fn sample(metrics: &Metrics, millis: u64) -> Sample {
        Sample {
            entry_point: Some(metrics.label(Kind::EntryPoint, "web")),
            router: None,
            service: None,
            reached_service: false,
            server: None,
            method: Method::of("GET"),
            protocol: Protocol::Http,
            status: 200,
            grpc_status: None,
            tls: None,
            headers: None,
            duration: Duration::from_millis(millis),
            service_duration: Duration::ZERO,
            request_bytes: 5,
            response_bytes: 7,
        }
    }

    #[test]
    fn lines_say_what_has_happened_since_the_last_ones() {
        let bounds = vec![0.1, 1.0];
        let settings = Settings { more_buckets: bounds.clone(), ..Settings::default() };
        let metrics = Metrics::new(settings, 1);
        let view = View { buckets: bounds, entry_points: true, ..NOTHING };
        let sample = |millis| sample(&metrics, millis);
        let prefix = "lb".to_owned();
        let labels = BTreeMap::from([("host".to_owned(), "a b".to_owned())]);
        let formats = [
            Format::StatsD { prefix: prefix.clone() },
            Format::Datadog { prefix },
            Format::Influx { labels },
        ];
        let mut lines = formats.map(|format| Lines::new(format, view.clone()));
        let at = UNIX_EPOCH + Duration::from_nanos(9);
        let mut take = || {
            lines.each_mut().map(|lines| {
                let mut taken = lines.take(&metrics, at);
                taken.retain(|line| line.contains("entrypoint.request"));
                taken
            })
        };
        [20, 40, 500].iter().for_each(|millis| metrics.shard(0).record(&sample(*millis)));
        let tags = "|#entrypoint:web,method:GET,protocol:http,code:200";
        let influx = "code=200,entrypoint=web,host=a\\ b,method=GET,protocol=http";
        let [statsd, datadog, influxdb] = take();
        assert_eq!(
            statsd,
            [
                "lb.entrypoint.request.duration:43.076923|ms|@0.5",
                "lb.entrypoint.request.duration:473.846154|ms",
                "lb.entrypoint.request.total:3.000000|c",
                "lb.entrypoint.requests.bytes.total:15.000000|c",
            ]
        );
        assert_eq!(datadog[0], format!("lb.entrypoint.request.duration:0.043077|h|@0.5{tags}"));
        assert_eq!(datadog[2], format!("lb.entrypoint.request.total:3.000000|c{tags}"));
        assert!(
            influxdb[0].starts_with(&format!("traefik.entrypoint.request.duration,{influx} p50=0.0430")),
            "{influxdb:?}"
        );
        assert_eq!(influxdb[2], format!("traefik.entrypoint.requests.total,{influx} count=3 9"));
        metrics.shard(0).record(&sample(30));
        let [statsd, ..] = take();
        assert_eq!(
            statsd[..2],
            ["lb.entrypoint.request.duration:30.000000|ms", "lb.entrypoint.request.total:1.000000|c"]
        );
        assert_eq!(take().map(|lines| lines.len()), [0, 0, 0]);
    }

    /// StatsD has one line for all routers, of which a reload takes one away.
    #[test]
    fn what_is_gone_is_not_counted_again() {
        let metrics = Metrics::new(Settings::default(), 1);
        let view = View { routers: true, ..NOTHING };
        let mut lines = Lines::new(Format::StatsD { prefix: "lb".to_owned() }, view);
        let [stays, goes] = ["stays@file", "goes@file"].map(|name| metrics.label(Kind::Router, name));
        let service = metrics.label(Kind::Service, "app@file");
        let record = |router, count| {
            let sample = Sample { router: Some(router), service: Some(service), ..sample(&metrics, 20) };
            (0..count).for_each(|_| metrics.shard(0).record(&sample));
        };
        let mut counted = || {
            let taken = lines.take(&metrics, UNIX_EPOCH);
            let line = taken.into_iter().find(|line| line.starts_with("lb.router.request.total:"));
            line.map(|line| line["lb.router.request.total:".len()..].to_owned())
        };
        record(stays, 5);
        record(goes, 3);
        assert_eq!(counted().as_deref(), Some("8.000000|c"));
        metrics.retain(&HashSet::from([stays, service]));
        assert_eq!(counted(), None, "shown once more");
        assert_eq!(counted(), None);
        record(stays, 1);
        assert_eq!(counted().as_deref(), Some("1.000000|c"));
    }

    /// Reloads come faster than pushes, and others read meanwhile.
    #[test]
    fn what_is_gone_is_counted_to_its_end() {
        let metrics = Metrics::new(Settings { routers: true, ..Settings::default() }, 1);
        let mut lines = ["a", "b"].map(|prefix| {
            let view = View { routers: true, reader: metrics.reader(), ..NOTHING };
            Lines::new(Format::StatsD { prefix: prefix.to_owned() }, view)
        });
        let mut counted = |at: usize| {
            let taken = lines[at].take(&metrics, UNIX_EPOCH);
            let counts = taken.iter().filter_map(|line| line.split_once(".router.request.total:"));
            counts.map(|(_, count)| count.to_owned()).collect::<String>()
        };
        let service = metrics.label(Kind::Service, "app@file");
        for round in 0..3 {
            let router = metrics.label(Kind::Router, &format!("{round}@file"));
            metrics.retain(&HashSet::from([router, service]));
            let sample = Sample { router: Some(router), service: Some(service), ..sample(&metrics, 20) };
            metrics.shard(0).record(&sample);
            metrics.render();
        }
        assert!(!metrics.render().contains("0@file"), "whoever scrapes has seen that it is no more");
        assert_eq!(counted(0), "3.000000|c");
        assert_eq!(counted(0), "");
        metrics.retain(&HashSet::from([service]));
        metrics.retain(&HashSet::from([service]));
        assert_eq!([counted(1), counted(1), counted(0)], ["3.000000|c", "", ""]);
        metrics.retain(&HashSet::from([service]));
        assert_eq!(metrics.shard(0).rows(), 1, "nobody waits for more");
    }

    #[test]
    fn of_several_certificates_the_first_to_expire_is_said() {
        let metrics = Metrics::new(Settings::default(), 1);
        let certificate = |serial: &str, not_after| Certificate {
            common_name: "a".to_owned(),
            serial: serial.to_owned(),
            sans: String::new(),
            not_after,
        };
        metrics.set_certificates(vec![
            certificate("1", UNIX_EPOCH + Duration::from_secs(9)),
            certificate("2", UNIX_EPOCH + Duration::from_secs(7)),
        ]);
        let mut lines = Lines::new(Format::StatsD { prefix: "lb".to_owned() }, NOTHING);
        let taken = lines.take(&metrics, UNIX_EPOCH);
        assert!(taken.contains(&"lb.tls.certs.notAfterTimestamp:7.000000|g".to_owned()), "{taken:?}");
    }
}
