//! Metrics as OTLP has them, made of what a scrape shows.

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::{ITEM, wire};

/// Counted from the start on, not from one push to the next.
const CUMULATIVE: u64 = 2;

/// Each family as a metric that is a field of its own; families without a value are left out.
pub(crate) fn metrics(families: &[MetricFamily], since: u64, at: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families.iter().filter(|family| !family.get_metric().is_empty()) {
        wire::message(&mut out, ITEM, |out| metric(out, family, since, at));
    }
    out
}

fn metric(out: &mut Vec<u8>, family: &MetricFamily, since: u64, at: u64) {
    wire::bytes(out, 1, family.name().as_bytes());
    wire::bytes(out, 2, family.help().as_bytes());
    let unit =
        if family.name().ends_with("_seconds") || family.name().ends_with(".duration") { "s" } else { "1" };
    wire::bytes(out, 3, unit.as_bytes());
    match family.get_field_type() {
        MetricType::HISTOGRAM => wire::message(out, 9, |out| {
            family.get_metric().iter().for_each(|metric| {
                wire::message(out, 1, |out| histogram(out, metric, since, at));
            });
            wire::uint(out, 2, CUMULATIVE);
        }),
        MetricType::COUNTER => wire::message(out, 7, |out| {
            for metric in family.get_metric() {
                let value = metric.get_counter().get_value();
                wire::message(out, 1, |out| number(out, metric.get_label(), since, at, value));
            }
            wire::uint(out, 2, CUMULATIVE);
            wire::uint(out, 3, 1);
        }),
        _ => wire::message(out, 5, |out| {
            for metric in family.get_metric() {
                let value = metric.get_gauge().get_value();
                wire::message(out, 1, |out| number(out, metric.get_label(), since, at, value));
            }
        }),
    }
}

fn number(out: &mut Vec<u8>, labels: &[LabelPair], since: u64, at: u64, value: f64) {
    wire::fixed64(out, 2, since);
    wire::fixed64(out, 3, at);
    wire::double(out, 4, value);
    attributes(out, 7, labels);
}

fn histogram(out: &mut Vec<u8>, metric: &prometheus::proto::Metric, since: u64, at: u64) {
    let histogram = metric.get_histogram();
    wire::fixed64(out, 2, since);
    wire::fixed64(out, 3, at);
    wire::fixed64(out, 4, histogram.get_sample_count());
    wire::double(out, 5, histogram.get_sample_sum());
    let buckets = histogram.get_bucket();
    // Prometheus counts what is below each bound, OTLP what is between two.
    let mut below = 0;
    wire::begin(out, 6, (buckets.len() + 1) * 8);
    for bucket in buckets {
        let count = bucket.cumulative_count();
        out.extend_from_slice(&count.saturating_sub(below).to_le_bytes());
        below = count;
    }
    out.extend_from_slice(&histogram.get_sample_count().saturating_sub(below).to_le_bytes());
    wire::begin(out, 7, buckets.len() * 8);
    buckets.iter().for_each(|bucket| out.extend_from_slice(&bucket.upper_bound().to_le_bytes()));
    attributes(out, 9, metric.get_label());
}

fn attributes(out: &mut Vec<u8>, field: u32, labels: &[LabelPair]) {
    // An empty label is none.
    for label in labels.iter().filter(|label| !label.value().is_empty()) {
        match (label.name(), label.value().parse()) {
            (name @ ("http.response.status_code" | "server.port"), Ok(number)) => {
                wire::int_attribute(out, field, name, number);
            }
            (name, _) => wire::text_attribute(out, field, name, label.value().as_bytes()),
        }
    }
}
