//! All that observes this process: opened in the order in which one part needs the other, closed in reverse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lb_config::StaticConfig;
use lb_config::static_config::Log;
use lb_observe::access_log::AccessLog;
use lb_observe::diagnostics::{self, Diagnostics};
use lb_observe::metrics::Metrics;
use lb_observe::otlp::Queue;
use lb_observe::trace;
use tokio::runtime::{Handle, Runtime};

use crate::export::{self, Exporter};
use crate::observe;

/// How long the last lines may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// The process's own log, which is there before all else.
pub(crate) struct OwnLog {
    diagnostics: Diagnostics,
    /// It leaves the process as well, as soon as there is a runtime to send it.
    export: Option<export::Log>,
}

impl OwnLog {
    pub(crate) fn open(log: &Log) -> anyhow::Result<Self> {
        let export = log.otlp.as_ref().map(|otlp| export::Log::new(otlp, 1));
        let queue = export.as_ref().map(|export| Arc::clone(&export.queue));
        Ok(Self { diagnostics: diagnostics::init(observe::diagnostics(log, queue))?, export })
    }
}

pub(crate) struct Telemetry {
    pub(crate) metrics: Metrics,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// What workers need to trace.
    pub(crate) tracing: Option<(Arc<trace::Settings>, Arc<Queue>)>,
    diagnostics: Diagnostics,
    exporters: Vec<Exporter>,
}

impl Telemetry {
    /// Opens all that `config` asks for; what is sent is sent from `runtime`.
    pub(crate) fn start(
        config: &StaticConfig,
        workers: usize,
        log: OwnLog,
        runtime: &Handle,
    ) -> anyhow::Result<Self> {
        let metrics = observe::metrics(config, workers);
        metrics.follow_log(log.diagnostics.dropped());
        let requests = config.access_log.as_ref().and_then(|log| log.otlp.as_ref());
        let requests = requests.map(|otlp| export::Log::new(otlp, workers));
        let report = log.diagnostics.report();
        let queue = requests.as_ref().map(|requests| Arc::clone(&requests.queue));
        let access_log = config.access_log.as_ref().map(|log_of_requests| {
            let dropped = metrics.access_log_dropped();
            AccessLog::open(observe::access_log(log_of_requests, queue), workers, dropped, report)
                .map(Arc::new)
                .context("the access log's writer cannot be started")
        });
        let access_log = access_log.transpose()?;
        let mut exporters = Vec::new();
        let mut tracing = None;
        if let Some(wanted) = &config.tracing {
            let traces = export::traces(wanted, workers, &metrics, runtime)?;
            tracing = Some((traces.settings, traces.queue));
            exporters.push(traces.exporter);
        }
        for (signal, log) in [("logs", log.export), ("accessLogs", requests)] {
            if let Some(log) = log {
                exporters.push(log.start(signal, &metrics, runtime)?);
            }
        }
        if let Some(otlp) = &config.metric_exports.otlp {
            exporters.push(export::metrics(otlp, &metrics, runtime)?);
        }
        exporters.extend(export::lines(&config.metric_exports, &metrics, runtime)?);
        Ok(Self { metrics, access_log, tracing, diagnostics: log.diagnostics, exporters })
    }

    /// Opens the files of logs anew (`SIGUSR1`).
    pub(crate) fn reopen(&self) {
        if let Some(access_log) = &self.access_log {
            access_log.reopen();
        }
        self.diagnostics.reopen();
    }

    /// Sends and writes what still waits, as far as there is time for it, and ends what runs on `runtime`.
    pub(crate) fn close(self, runtime: Runtime) {
        runtime.block_on(export::finish(self.exporters.into_iter()));
        runtime.shutdown_background();
        if let Some(access_log) = &self.access_log {
            access_log.flush(FLUSH);
        }
        tracing::info!("stopped");
        self.diagnostics.flush(FLUSH);
    }
}
