//! Telemetry on its way out: what workers have put into a queue goes to a receiver, from the control plane's runtime.
//!
//! A receiver that is slow, refuses or is not there costs what waits for it, and nothing else: queues are bounded, every
//! try has its time, and what is given up is counted.

mod lines;
mod logs;
mod pusher;
mod receiver;
mod resource;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lb_config::telemetry::{Push, Tracing};
use lb_observe::metrics::{Metrics, View};
use lb_observe::otlp::{self, Queue, Rejected};
use lb_observe::trace::{self, Format};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use lines::{BOUNDS, lines};
pub(crate) use logs::Log;
pub(crate) use pusher::metrics;
use receiver::{Failed, Receiver};

/// The name of the instrumentation.
const SCOPE: &str = "vigie";
/// How long spans gather before they are sent, unless many come. Chosen.
const INTERVAL: Duration = Duration::from_secs(1);
/// Of one request: below the 4 MiB that receivers of gRPC take by default. Chosen.
const BATCH_BYTES: usize = 1 << 20;
/// OpenTelemetry's for one try.
const TIMEOUT: Duration = Duration::from_secs(10);
/// OpenTelemetry's for all tries of one batch.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Between two tries: at first, and at most. Chosen.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// Between two messages about the same trouble. Chosen.
const SILENCE: Duration = Duration::from_secs(60);
/// For everything that waits when the process stops. Chosen.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// One signal and the task that sends it.
pub(crate) struct Exporter {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// How one signal leaves: whatever has come together since the last time.
trait Export: Send + 'static {
    /// `stopped` becomes true when this is the last time and there is little left of it.
    fn send(&mut self, stopped: &mut watch::Receiver<bool>) -> impl Future<Output = ()> + Send;
}

impl Exporter {
    /// Sends every `interval`, as soon as there are `many`, and a last time when the process stops.
    fn start(runtime: &Handle, interval: Duration, many: Arc<Notify>, mut export: impl Export) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = many.notified() => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
                let is_last = *stopped.borrow();
                export.send(&mut stopped).await;
                if is_last {
                    return;
                }
            }
        });
        Self { stop, task }
    }

    /// Sends what waits, as far as there is time for it.
    pub(crate) async fn finish(self) {
        let Self { stop, mut task } = self;
        stop.send_replace(true);
        if tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
            tracing::warn!("telemetry could not be sent to its end");
            task.abort();
        }
    }
}

/// All of them at once.
pub(crate) async fn finish(exporters: impl Iterator<Item = Exporter>) {
    let ends: Vec<_> = exporters.map(|exporter| tokio::spawn(exporter.finish())).collect();
    for end in ends {
        let _ = end.await;
    }
}

/// What workers need to trace, and who sends their spans.
pub(crate) struct Traces {
    pub(crate) settings: Arc<trace::Settings>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) exporter: Exporter,
}

pub(crate) fn traces(
    tracing: &Tracing,
    workers: usize,
    metrics: &Metrics,
    runtime: &Handle,
) -> anyhow::Result<Traces> {
    // Every span has that one as `user_agent.original`.
    let captured = tracing.captured_request_headers.iter().filter(|name| *name != "user-agent");
    let settings = trace::Settings {
        sample_rate: tracing.sample_rate,
        captured_request_headers: captured.cloned().collect(),
        captured_response_headers: tracing.captured_response_headers.clone(),
        safe_query_params: tracing.safe_query_params.clone(),
        formats: formats(std::env::var("OTEL_PROPAGATORS").ok().as_deref()),
    };
    let receiver = Receiver::new(&tracing.otlp, "trace.v1.TraceService")
        .map_err(|reason| anyhow::anyhow!("tracing.otlp: {reason}"))?;
    let (queue, many) = queue(workers);
    metrics.follow_telemetry("traces", Arc::clone(&queue));
    let sender = Sender {
        trouble: Trouble::new("traces"),
        queue: Arc::clone(&queue),
        receiver,
        resource: resource::encoded(&tracing.service_name, &tracing.resource_attributes),
        encode: std::convert::identity,
        most: BATCH_BYTES,
    };
    let exporter = Exporter::start(runtime, INTERVAL, many, sender);
    Ok(Traces { settings: Arc::new(settings), queue, exporter })
}

/// What metrics one more exporter is told, and with which bounds.
fn view(push: &Push, buckets: &[f64], metrics: &Metrics) -> View {
    View {
        buckets: buckets.to_vec(),
        entry_points: push.entry_points,
        routers: push.routers,
        services: push.services,
        header_labels: Vec::new(),
        semantic: false,
        reader: metrics.reader(),
    }
}

/// For so many threads, and what tells that there is much in it.
fn queue(threads: usize) -> (Arc<Queue>, Arc<Notify>) {
    let many = Arc::new(Notify::new());
    let wake = Arc::clone(&many);
    (Arc::new(Queue::new(threads, move || wake.notify_one())), many)
}

/// The fields of `OTEL_PROPAGATORS` that Vigie knows.
fn formats(words: Option<&str>) -> Vec<Format> {
    let Some(words) = words.filter(|words| !words.trim().is_empty()) else { return vec![Format::W3c] };
    let mut formats = Vec::new();
    for word in words.split(',').map(str::trim) {
        match Format::named(word) {
            Some(format) if !formats.contains(&format) => formats.push(format),
            Some(_) => {}
            // Baggage is a field like others: it is passed on as it came.
            None if matches!(word, "baggage" | "none") => {}
            None => tracing::warn!(
                word,
                "OTEL_PROPAGATORS: not known; tracecontext, baggage, b3, b3multi, none are"
            ),
        }
    }
    formats
}

/// Whether a receiver takes what it is sent, and what was said of it.
struct Trouble {
    signal: &'static str,
    /// That it does not was the last that was said.
    said: bool,
    /// When that was said.
    at: Option<Instant>,
}

impl Trouble {
    fn new(signal: &'static str) -> Self {
        Self { signal, said: false, at: None }
    }

    /// Said once for each time of trouble, and not more often than once in [`SILENCE`].
    fn note(&mut self, endpoint: &str, failed: Option<&str>) {
        let signal = self.signal;
        match failed {
            Some(reason) if !self.said && self.at.is_none_or(|at| at.elapsed() >= SILENCE) => {
                tracing::warn!(
                    signal,
                    endpoint,
                    reason,
                    "telemetry cannot be delivered; requests are not affected"
                );
                (self.said, self.at) = (true, Some(Instant::now()));
            }
            None if self.said => {
                tracing::info!(signal, endpoint, "telemetry is delivered again");
                self.said = false;
            }
            _ => {}
        }
    }

    /// What came of sending something; how many items the receiver refused of what it took.
    fn noted(&mut self, endpoint: &str, sent: Result<Option<Rejected>, Failed>) -> Result<u64, Failed> {
        match &sent {
            Ok(None) => self.note(endpoint, None),
            Ok(Some(Rejected { count, reason })) => {
                self.note(endpoint, Some(&format!("refused {count} of what it took: {reason}")));
            }
            Err(failed) => self.note(endpoint, Some(&failed.reason)),
        }
        Ok(sent?.map_or(0, |rejected| rejected.count))
    }
}

/// Sends one signal.
struct Sender {
    trouble: Trouble,
    queue: Arc<Queue>,
    receiver: Receiver,
    resource: Vec<u8>,
    /// From what is in the queue to items of OTLP.
    encode: fn(Vec<u8>) -> Vec<u8>,
    most: usize,
}

impl Export for Sender {
    async fn send(&mut self, stopped: &mut watch::Receiver<bool>) {
        for (items, count) in self.queue.take(self.most) {
            let size = items.len();
            self.deliver(&(self.encode)(items), count, stopped).await;
            self.queue.settle(size);
        }
    }
}

impl Sender {
    async fn deliver(&mut self, items: &[u8], count: u64, stopped: &mut watch::Receiver<bool>) {
        let request = Bytes::from(otlp::request(&self.resource, SCOPE, items));
        let began = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let sent = self.receiver.send_within(TIMEOUT, request.clone()).await;
            let failed = match self.trouble.noted(self.receiver.endpoint(), sent) {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.queue.lost(rejected);
                    return self.queue.arrived(count - rejected);
                }
                Err(failed) => failed,
            };
            let late = began.elapsed() + pause >= GIVE_UP || *stopped.borrow();
            if late || !failed.may_repeat {
                return self.queue.lost(count);
            }
            // It may say itself when it wants to be asked again; others may have to wait for that, too.
            let wanted = failed.after.map_or(pause, |after| after.clamp(pause, GIVE_UP));
            tokio::select! {
                () = tokio::time::sleep(wanted) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            pause = (pause * 2).min(PAUSES[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagators_are_those_that_the_environment_names() {
        for (words, expected) in [
            (None, vec![Format::W3c]),
            (Some(""), vec![Format::W3c]),
            (Some("none"), vec![]),
            (Some("baggage, b3,tracecontext,b3,xray"), vec![Format::B3, Format::W3c]),
            (Some("b3multi"), vec![Format::B3Multi]),
        ] {
            assert_eq!(formats(words), expected, "{words:?}");
        }
    }
}
