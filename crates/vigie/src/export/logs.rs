//! Logs on their way out: lines in JSON become records with attributes here, away from whoever wrote them.

use std::sync::Arc;

use lb_config::telemetry::OtlpLogs;
use lb_observe::metrics::Metrics;
use lb_observe::otlp::{self, Line, Queue, Record, Value};
use serde_json::Map;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::receiver::Receiver;
use super::{BATCH_BYTES, Exporter, INTERVAL, Sender, Trouble, queue, resource};

/// A line with its attributes is some three times as long.
const MOST: usize = BATCH_BYTES / 4;

/// One log that leaves the process; there is something to send before there is a runtime.
pub(crate) struct Log {
    config: OtlpLogs,
    pub(crate) queue: Arc<Queue>,
    many: Arc<Notify>,
}

impl Log {
    pub(crate) fn new(config: &OtlpLogs, threads: usize) -> Self {
        let (queue, many) = queue(threads);
        Self { config: config.clone(), queue, many }
    }

    /// `signal` is `logs` or `accessLogs`.
    pub(crate) fn start(
        self,
        signal: &'static str,
        metrics: &Metrics,
        runtime: &Handle,
    ) -> anyhow::Result<Exporter> {
        let Self { config, queue, many } = self;
        let receiver = Receiver::new(&config.otlp, "logs.v1.LogsService")
            .map_err(|reason| anyhow::anyhow!("{signal} otlp: {reason}"))?;
        metrics.follow_telemetry(signal, Arc::clone(&queue));
        let resource = resource::encoded(&config.service_name, &config.resource_attributes);
        let encode = if signal == "logs" { diagnostics } else { requests };
        let trouble = Trouble::new(signal);
        let sender = Sender { trouble, queue, receiver, resource, encode, most: MOST };
        Ok(Exporter::start(runtime, INTERVAL, many, sender))
    }
}

/// The message is the body, all else attributes.
fn diagnostics(batch: Vec<u8>) -> Vec<u8> {
    records(&batch, |line, fields| {
        let level = fields.get("level").and_then(|level| level.as_str()).unwrap_or_default();
        let severity = match level {
            "trace" => 1,
            "debug" => 5,
            "info" => 9,
            "warn" => 13,
            _ => 17,
        };
        let body = fields.get("message").and_then(|message| message.as_str()).unwrap_or_default();
        let attributes = attributes(fields, &["level", "message"]);
        Record { at: line.at, severity, severity_text: level, body, attributes, trace: None }
    })
}

/// The line is the body, and its fields attributes as well: as Traefik has it.
fn requests(batch: Vec<u8>) -> Vec<u8> {
    records(&batch, |line, fields| {
        let text = |key: &str| fields.get(key).and_then(|value| value.as_str());
        let mut attributes = attributes(fields, &["level", "msg", "time"]);
        for (key, value) in &mut attributes {
            match (*key, &value) {
                ("StartUTC" | "StartLocal", _) => *value = Value::Int(line.at.cast_signed()),
                ("GzipRatio", Value::Int(whole)) => *value = Value::Float(*whole as f64),
                _ => {}
            }
        }
        let body = std::str::from_utf8(line.json).unwrap_or_default();
        let trace = text("trace_id").zip(text("span_id"));
        Record { at: line.at, severity: 9, severity_text: "info", body, attributes, trace }
    })
}

type Fields = Map<String, serde_json::Value>;

fn records(batch: &[u8], of: for<'a> fn(&Line<'a>, &'a Fields) -> Record<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    for line in otlp::lines(batch) {
        let fields: Fields = serde_json::from_slice(line.json).unwrap_or_default();
        otlp::record(&mut out, &of(&line, &fields));
    }
    out
}

fn attributes<'a>(fields: &'a Fields, but: &[&str]) -> Vec<(&'a str, Value<'a>)> {
    let kept = fields.iter().filter(|(key, _)| !but.contains(&key.as_str()));
    let value = |value: &'a serde_json::Value| match value {
        serde_json::Value::String(text) => Some(Value::Text(text)),
        serde_json::Value::Bool(flag) => Some(Value::Text(if *flag { "true" } else { "false" })),
        serde_json::Value::Number(number) => {
            number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Float))
        }
        _ => None,
    };
    kept.filter_map(|(key, field)| Some((key.as_str(), value(field)?))).collect()
}
