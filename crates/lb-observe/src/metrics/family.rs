//! Short ways to say what the `prometheus` crate says at length.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::names::Definition;

/// The samples of one metric under construction.
pub(super) struct Family {
    definition: Definition,
    /// Labels behind those of the definition.
    more: Vec<String>,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Family {
    pub(super) fn counter(definition: Definition) -> Self {
        Self::new(definition, MetricType::COUNTER)
    }

    pub(super) fn gauge(definition: Definition) -> Self {
        Self::new(definition, MetricType::GAUGE)
    }

    pub(super) fn histogram(definition: Definition) -> Self {
        Self::new(definition, MetricType::HISTOGRAM)
    }

    fn new(definition: Definition, kind: MetricType) -> Self {
        Self { definition, more: Vec::new(), kind, metrics: Vec::new() }
    }

    /// Each sample has values for these as well, behind the others.
    pub(super) fn with(mut self, labels: Vec<String>) -> Self {
        self.more = labels;
        self
    }

    /// Adds one sample of a counter or gauge; label values in the order of the definition.
    pub(super) fn push(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds one histogram; `buckets` are upper bound and cumulative count, `+Inf` left out.
    pub(super) fn push_histogram(
        &mut self,
        labels: &[&str],
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum_seconds: f64,
    ) {
        let mut metric = self.labelled(labels);
        let mut histogram = Histogram::default();
        histogram.set_bucket(
            buckets
                .map(|(bound, count)| {
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(bound);
                    bucket.set_cumulative_count(count);
                    bucket
                })
                .collect(),
        );
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum_seconds);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        let names = self.definition.labels.iter().copied().chain(self.more.iter().map(String::as_str));
        debug_assert_eq!(values.len(), names.clone().count(), "{}", self.definition.name);
        let pairs = names.zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        // By name, as Go's client prints them: a page compares with Traefik's line by line.
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        Metric::from_label(pairs)
    }

    pub(super) fn build(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.definition.name.to_owned());
        family.set_help(self.definition.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        family
    }
}

/// A metric without labels.
pub(super) fn single(mut family: Family, value: f64) -> MetricFamily {
    family.push(&[], value);
    family.build()
}
