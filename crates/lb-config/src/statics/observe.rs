//! `log`, `accessLog` and `metrics`.

use std::collections::BTreeMap;

use super::{TRAEFIK, path, telemetry};
use crate::decode::{Block, Enabled, Field};
use crate::net::{is_token, status_ranges};
use crate::problem::quoted;
use crate::static_config::{
    AccessLog, AccessLogFields, AccessLogFilters, AccessLogFormat, FieldMode, Log, LogFormat, LogLevel,
    Metrics,
};
use crate::suggest;
use crate::telemetry::MetricExports;

/// Default of reference 1.8, in seconds.
const BUCKETS: [f64; 4] = [0.1, 0.3, 1.2, 5.0];

/// More buckets than that per series help nobody and fill the memory of who collects them; chosen.
const MAX_BUCKETS: usize = 100;

pub(super) fn log(field: Option<&Field<'_>>, otlp_logs: bool) -> Log {
    const LEVELS: [(&str, LogLevel); 7] = [
        ("TRACE", LogLevel::Trace),
        ("DEBUG", LogLevel::Debug),
        ("INFO", LogLevel::Info),
        ("WARN", LogLevel::Warn),
        ("ERROR", LogLevel::Error),
        // Nothing is logged above an error.
        ("FATAL", LogLevel::Error),
        ("PANIC", LogLevel::Error),
    ];
    const FORMATS: [(&str, LogFormat); 2] = [("common", LogFormat::Common), ("json", LogFormat::Json)];
    let mut log = Log {
        level: LogLevel::Error,
        format: LogFormat::Common,
        no_color: false,
        file_path: None,
        otlp: None,
    };
    let Some(Enabled::With(block)) = field.map(Field::enabled) else { return log };
    if let Some(field) = block.take("level") {
        log.level = or_default(&field, &LEVELS, LogLevel::Error, "ERROR");
    }
    if let Some(field) = block.take("format") {
        log.format = or_default(&field, &FORMATS, LogFormat::Common, "common");
    }
    log.no_color = block.take("noColor").and_then(|field| field.boolean()).unwrap_or(false);
    log.file_path = path(&block, "filePath");
    let why = "rotate the file from outside (logrotate)";
    block.without_effect(&["compress", "maxAge", "maxBackups", "maxSize"], why);
    log.otlp = telemetry::logs(block.take("otlp"), otlp_logs);
    block.finish();
    log
}

/// Traefik takes its default for a word it does not know, in any case of letters.
fn or_default<T: Copy>(field: &Field<'_>, words: &[(&str, T)], default: T, name: &str) -> T {
    let Some(text) = field.text().filter(|text| !text.value.is_empty()) else { return default };
    let known = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.value));
    if known.is_none() {
        text.warn(
            format!("{} is not a known value; {} is used", quoted(text.value), quoted(name)),
            Some(suggest::hint(text.value, "values", words.iter().map(|(word, _)| *word))),
        );
    }
    known.map_or(default, |(_, value)| *value)
}

pub(super) fn access_log(field: &Field<'_>, otlp_logs: bool) -> Option<AccessLog> {
    const FORMATS: [(&str, AccessLogFormat); 3] = [
        ("common", AccessLogFormat::Common),
        ("genericCLF", AccessLogFormat::GenericClf),
        ("json", AccessLogFormat::Json),
    ];
    let mut log = AccessLog {
        file_path: None,
        format: AccessLogFormat::Common,
        buffering_size: 0,
        add_internals: false,
        filters: AccessLogFilters::default(),
        fields: AccessLogFields {
            default_mode: FieldMode::Keep,
            names: BTreeMap::new(),
            headers_default_mode: FieldMode::Drop,
            headers: BTreeMap::new(),
            query_parameters: FieldMode::Keep,
        },
        otlp: None,
        dual_output: false,
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(log),
        Enabled::With(block) => block,
    };
    log.file_path = path(&block, "filePath");
    if let Some(field) = block.take("format") {
        log.format = or_default(&field, &FORMATS, AccessLogFormat::Common, "common");
    }
    log.buffering_size = block.take("bufferingSize").and_then(|field| field.usize(0)).unwrap_or(0);
    log.add_internals = block.take("addInternals").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(filters) = block.take("filters").and_then(|field| field.block()) {
        log.filters = AccessLogFilters {
            status_codes: filters.take("statusCodes").map(|field| status_ranges(&field)).unwrap_or_default(),
            retry_attempts: filters.take("retryAttempts").and_then(|field| field.boolean()).unwrap_or(false),
            min_duration: filters.take("minDuration").and_then(|field| field.limit()).flatten(),
        };
        filters.finish();
    }
    if let Some(fields) = block.take("fields").and_then(|field| field.block()) {
        read_fields(&fields, &mut log.fields);
        fields.finish();
    }
    log.dual_output = block.take("dualOutput").and_then(|field| field.boolean()).unwrap_or(false);
    log.otlp = telemetry::logs(block.take("otlp"), otlp_logs);
    block.finish();
    Some(log)
}

fn read_fields(block: &Block<'_>, fields: &mut AccessLogFields) {
    const PLAIN: [(&str, FieldMode); 2] = [("keep", FieldMode::Keep), ("drop", FieldMode::Drop)];
    const HEADERS: [(&str, FieldMode); 3] =
        [("keep", FieldMode::Keep), ("drop", FieldMode::Drop), ("redact", FieldMode::Redact)];
    let mode = |block: &Block<'_>, words: &[(&str, FieldMode)]| {
        block.take_word("defaultMode").and_then(|field| field.choice(words))
    };
    let names = |block: &Block<'_>, words: &[(&str, FieldMode)]| {
        let named = block.take("names").map(|field| field.dotted()).unwrap_or_default();
        let read = |(name, field): (String, Field<'_>)| {
            field.choice(words).map(|mode| (name.to_ascii_lowercase(), mode))
        };
        named.into_iter().filter_map(read).collect()
    };
    fields.default_mode = mode(block, &PLAIN).unwrap_or(fields.default_mode);
    fields.names = names(block, &PLAIN);
    if let Some(headers) = block.take("headers").and_then(|field| field.block()) {
        fields.headers_default_mode = mode(&headers, &HEADERS).unwrap_or(fields.headers_default_mode);
        fields.headers = names(&headers, &HEADERS);
        headers.finish();
    }
    if let Some(query) = block.take("queryParameters").and_then(|field| field.block()) {
        fields.query_parameters = mode(&query, &PLAIN).unwrap_or(fields.query_parameters);
        query.finish();
    }
}

/// What Prometheus gets, with the field that names the entry point, and what others get.
type Exported<'a> = (Option<(Metrics, Option<Field<'a>>)>, MetricExports);

pub(super) fn metrics<'a>(field: &Field<'a>) -> Option<Exported<'a>> {
    let block = field.block()?;
    let add_internals = block.take("addInternals").and_then(|field| field.boolean()).unwrap_or(false);
    let prometheus = block.take("prometheus").map(|field| field.enabled());
    let exports = telemetry::exports(&block, add_internals);
    block.finish();
    Some((prometheus.and_then(|enabled| for_prometheus(enabled, add_internals)), exports))
}

/// The field is the one that names the entry point; `None` when it is switched off.
fn for_prometheus(enabled: Enabled<'_>, add_internals: bool) -> Option<(Metrics, Option<Field<'_>>)> {
    let mut metrics = Metrics {
        add_internals,
        buckets: BUCKETS.to_vec(),
        add_entry_points_labels: true,
        add_routers_labels: false,
        add_services_labels: true,
        entry_point: TRAEFIK.to_owned(),
        manual_routing: false,
        header_labels: Vec::new(),
    };
    let block = match enabled {
        Enabled::Off => return None,
        Enabled::Plain => return Some((metrics, None)),
        Enabled::With(block) => block,
    };
    if let Some(field) = block.take("buckets") {
        metrics.buckets = buckets(&field, &BUCKETS);
    }
    let flag = |key, default| block.take(key).and_then(|field| field.boolean()).unwrap_or(default);
    metrics.add_entry_points_labels = flag("addEntryPointsLabels", true);
    metrics.add_routers_labels = flag("addRoutersLabels", false);
    metrics.add_services_labels = flag("addServicesLabels", true);
    metrics.manual_routing = flag("manualRouting", false);
    let entry_point = block.take("entryPoint");
    if let Some(name) = entry_point.as_ref().and_then(|field| field.string()).filter(|name| !name.is_empty())
    {
        metrics.entry_point = name;
    }
    metrics.header_labels = block.take("headerLabels").map(|field| header_labels(&field)).unwrap_or_default();
    block.finish();
    Some((metrics, entry_point))
}

/// Further labels, sorted, each with the name of the header that has its value.
fn header_labels(field: &Field<'_>) -> Vec<(String, String)> {
    /// Those that the metrics have already.
    const TAKEN: [&str; 6] = ["code", "method", "protocol", "entrypoint", "router", "service"];
    let mut labels = Vec::new();
    for (label, field) in field.dotted() {
        let header = field.string();
        let is_name = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name || label.starts_with("__") || TAKEN.contains(&label.as_str()) {
            let hint = "letters, digits and `_`, none of those that the metrics have".to_owned();
            field.error(format!("{} cannot be the name of a label", quoted(&label)), Some(hint));
            continue;
        }
        let Some(header) = header else { continue };
        if is_token(&header) {
            labels.push((label, header));
        } else {
            field.error(format!("{} is not the name of a header", quoted(&header)), None);
        }
    }
    labels.sort();
    labels
}

/// Bounds that rise; `default` where there are none.
pub(super) fn buckets(field: &Field<'_>, default: &[f64]) -> Vec<f64> {
    let texts = field.texts();
    if texts.len() > MAX_BUCKETS {
        field.error(format!("more than {MAX_BUCKETS} buckets"), None);
        return default.to_vec();
    }
    let mut buckets: Vec<f64> = Vec::new();
    for text in &texts {
        let Some(bound) = text.float(f64::MIN_POSITIVE..=f64::MAX) else { continue };
        if buckets.last().is_some_and(|last| *last >= bound) {
            text.error("buckets must rise", Some("sort them, each one once".to_owned()));
        } else {
            buckets.push(bound);
        }
    }
    if texts.is_empty() { default.to_vec() } else { buckets }
}
