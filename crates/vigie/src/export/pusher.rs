//! Metrics on their way out: all of them, every so often. One push that fails loses nothing, the next one has it all.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use lb_config::telemetry::OtlpMetrics;
use lb_observe::metrics::{Metrics, View};
use lb_observe::otlp;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::receiver::Receiver;
use super::{BATCH_BYTES, Export, Exporter, SCOPE, TIMEOUT, Trouble, resource, view};

pub(crate) fn metrics(config: &OtlpMetrics, metrics: &Metrics, runtime: &Handle) -> anyhow::Result<Exporter> {
    let receiver = Receiver::new(&config.otlp, "metrics.v1.MetricsService")
        .map_err(|reason| anyhow::anyhow!("metrics.otlp: {reason}"))?;
    let view = View { semantic: true, ..view(&config.push, &config.boundaries, metrics) };
    let pusher = Pusher {
        trouble: Trouble::new("metrics"),
        metrics: metrics.clone(),
        view,
        receiver,
        resource: resource::encoded(&config.service_name, &config.resource_attributes),
        since: SystemTime::now(),
    };
    Ok(Exporter::start(runtime, config.push.interval, Arc::default(), pusher))
}

struct Pusher {
    trouble: Trouble,
    metrics: Metrics,
    view: View,
    receiver: Receiver,
    resource: Vec<u8>,
    since: SystemTime,
}

impl Export for Pusher {
    async fn send(&mut self, _: &mut watch::Receiver<bool>) {
        let items = self.metrics.measurements(&self.view, self.since, SystemTime::now());
        let mut batches = Vec::new();
        otlp::split(&items, BATCH_BYTES, &mut batches);
        for (items, _) in batches {
            let request = Bytes::from(otlp::request(&self.resource, SCOPE, &items));
            let sent = self.receiver.send_within(TIMEOUT, request).await;
            // The next push has it all.
            let _ = self.trouble.noted(self.receiver.endpoint(), sent);
        }
    }
}
