//! Telemetry on its way out: what workers have put into a queue goes to a receiver, from the control plane's runtime.
//!
//! A receiver that is slow, refuses or is not there costs what waits for it, and nothing else: queues are bounded, every
//! try has its time, and what is given up is counted.

mod receiver;
mod resource;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lb_config::telemetry::Tracing;
use lb_observe::metrics::Metrics;
use lb_observe::otlp::{self, Queue};
use lb_observe::trace::{self, Format};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

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
/// For everything that waits when the process stops. Chosen.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// One signal and the task that sends it.
pub(crate) struct Exporter {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporter {
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
    let many = Arc::new(Notify::new());
    let queue = Arc::new(Queue::new(workers, {
        let many = Arc::clone(&many);
        move || many.notify_one()
    }));
    metrics.follow_telemetry("traces", Arc::clone(&queue));
    let (stop, stopped) = watch::channel(false);
    let resource = resource::encoded(&tracing.service_name, &tracing.resource_attributes);
    let sender =
        Sender { signal: "traces", queue: Arc::clone(&queue), receiver, resource, stopped, failing: false };
    let task = runtime.spawn(sender.run(many));
    Ok(Traces { settings: Arc::new(settings), queue, exporter: Exporter { stop, task } })
}

/// The fields of `OTEL_PROPAGATORS` that Vigie knows.
fn formats(words: Option<&str>) -> Vec<Format> {
    let Some(words) = words.filter(|words| !words.trim().is_empty()) else { return vec![Format::W3c] };
    let mut formats = Vec::new();
    for word in words.split(',').map(str::trim) {
        match Format::named(word) {
            Some(format) if !formats.contains(&format) => formats.push(format),
            // Baggage is a field like others: it is passed on as it came.
            Some(_) | None if matches!(word, "baggage" | "none") => {}
            Some(_) => {}
            None => tracing::warn!(
                word,
                "OTEL_PROPAGATORS: not known; tracecontext, baggage, b3, b3multi, none are"
            ),
        }
    }
    formats
}

/// Sends one signal.
struct Sender {
    signal: &'static str,
    queue: Arc<Queue>,
    receiver: Receiver,
    resource: Vec<u8>,
    stopped: watch::Receiver<bool>,
    /// The last thing that was tried went wrong.
    failing: bool,
}

impl Sender {
    async fn run(mut self, many: Arc<Notify>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = many.notified() => {}
                _ = self.stopped.changed() => {}
            }
            let is_last = *self.stopped.borrow();
            for (items, count) in self.queue.take(BATCH_BYTES) {
                self.deliver(&items, count).await;
            }
            if is_last {
                return;
            }
        }
    }

    async fn deliver(&mut self, items: &[u8], count: u64) {
        let request = Bytes::from(otlp::request(&self.resource, SCOPE, items));
        let began = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let tried = tokio::time::timeout(TIMEOUT, self.receiver.send(request.clone())).await;
            let failed = match tried {
                Ok(Ok(())) => return self.delivered(count),
                Ok(Err(failed)) => failed,
                Err(_) => {
                    self.receiver.hang_up();
                    Failed { reason: format!("no answer within {TIMEOUT:?}"), may_repeat: true }
                }
            };
            self.tell(&failed.reason);
            let late = began.elapsed() + pause >= GIVE_UP || *self.stopped.borrow();
            if late || !failed.may_repeat {
                return self.queue.lost(count);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.changed() => {}
            }
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    fn delivered(&mut self, count: u64) {
        self.queue.arrived(count);
        if std::mem::take(&mut self.failing) {
            tracing::info!(
                signal = self.signal,
                endpoint = self.receiver.endpoint(),
                "telemetry is delivered again"
            );
        }
    }

    /// Once for each time of trouble.
    fn tell(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                signal = self.signal,
                endpoint = self.receiver.endpoint(),
                reason,
                "telemetry cannot be delivered; requests are not affected"
            );
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
