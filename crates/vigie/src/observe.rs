//! From what the static file says about observing to the settings of lb-observe.

use std::sync::Arc;

use lb_config::static_config::{self as config, StaticConfig};
use lb_observe::otlp::Queue;
use lb_observe::{access_log, diagnostics, metrics};
use tracing::Level;

pub(crate) fn metrics(config: &StaticConfig, workers: usize) -> metrics::Metrics {
    let exports = &config.metric_exports;
    let has_lines = exports.statsd.is_some() || exports.datadog.is_some() || exports.influxdb.is_some();
    let mut more_buckets = exports.otlp.as_ref().map(|otlp| otlp.boundaries.clone()).unwrap_or_default();
    if has_lines {
        more_buckets.extend(crate::export::BOUNDS);
    }
    let default = metrics::Settings { version: crate::VERSION, more_buckets, ..metrics::Settings::default() };
    let settings = match &config.metrics {
        Some(prometheus) => metrics::Settings {
            buckets: prometheus.buckets.clone(),
            entry_points: prometheus.add_entry_points_labels,
            routers: prometheus.add_routers_labels,
            services: prometheus.add_services_labels,
            header_labels: prometheus.header_labels.clone(),
            ..default
        },
        None => default,
    };
    metrics::Metrics::new(settings, workers)
}

pub(crate) fn access_log(log: &config::AccessLog, otlp: Option<Arc<Queue>>) -> access_log::Settings {
    let mode = |mode: &config::FieldMode| match mode {
        config::FieldMode::Keep => access_log::FieldMode::Keep,
        config::FieldMode::Drop => access_log::FieldMode::Drop,
        config::FieldMode::Redact => access_log::FieldMode::Redact,
    };
    let modes = |map: &std::collections::BTreeMap<String, config::FieldMode>| {
        map.iter().map(|(name, value)| (name.clone(), mode(value))).collect()
    };
    access_log::Settings {
        otlp: otlp.map(|queue| (queue, log.dual_output)),
        file_path: log.file_path.clone(),
        format: match log.format {
            config::AccessLogFormat::Common => access_log::Format::Common,
            config::AccessLogFormat::GenericClf => access_log::Format::GenericClf,
            config::AccessLogFormat::Json => access_log::Format::Json,
        },
        filters: access_log::Filters {
            status_codes: log.filters.status_codes.clone(),
            retry_attempts: log.filters.retry_attempts,
            min_duration: log.filters.min_duration,
        },
        fields: access_log::Fields {
            default_mode: mode(&log.fields.default_mode),
            names: modes(&log.fields.names),
            headers_default_mode: mode(&log.fields.headers_default_mode),
            headers: modes(&log.fields.headers),
            query_parameters: mode(&log.fields.query_parameters),
        },
    }
}

pub(crate) fn diagnostics(log: &config::Log, otlp: Option<Arc<Queue>>) -> diagnostics::Settings {
    diagnostics::Settings {
        otlp,
        level: match log.level {
            config::LogLevel::Trace => Level::TRACE,
            config::LogLevel::Debug => Level::DEBUG,
            config::LogLevel::Info => Level::INFO,
            config::LogLevel::Warn => Level::WARN,
            config::LogLevel::Error => Level::ERROR,
        },
        format: match log.format {
            config::LogFormat::Common => diagnostics::Format::Common,
            config::LogFormat::Json => diagnostics::Format::Json,
        },
        no_color: log.no_color,
        file_path: log.file_path.clone(),
    }
}
