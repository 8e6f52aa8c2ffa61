//! Traces: which requests are followed, what their spans say, and how the next server learns of it.
//!
//! A worker writes the spans of a request, as OTLP has them, into the request's own buffer and hands them over when it
//! has ended. Nothing here waits for whoever receives them.

mod context;
mod propagation;
mod query;
mod span;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use context::{Context, SpanId, TraceId};
pub use propagation::{Format, Received};
pub use query::redact;
pub use span::{Kind, Span, Trace};

use crate::otlp::Queue;

/// Traefik's keys under `tracing`, as far as requests are concerned.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Share of the requests without a parent that are followed; others do what their parent does.
    pub sample_rate: f64,
    /// Lower case.
    pub captured_request_headers: Vec<String>,
    pub captured_response_headers: Vec<String>,
    /// Parameters whose values are no secret.
    pub safe_query_params: Vec<String>,
    /// How callers and servers say which trace a request belongs to; the last one understood counts.
    pub formats: Vec<Format>,
}

/// What one worker needs to follow requests.
#[derive(Clone, Debug)]
pub struct Tracer {
    settings: Arc<Settings>,
    queue: Arc<Queue>,
    worker: usize,
}

impl Tracer {
    pub fn new(settings: Arc<Settings>, queue: Arc<Queue>, worker: usize) -> Self {
        Self { settings, queue, worker }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The trace of a request that came with these fields, followed or not. `random` gives 64 random bits.
    pub fn begin<'a>(
        &self,
        field: impl Fn(&str) -> Option<&'a str>,
        mut random: impl FnMut() -> u64,
    ) -> Trace {
        let received = self.settings.formats.iter().rev().find_map(|format| format.read(&field));
        let id = match &received {
            Some(received) => received.context.trace,
            None => TraceId::random(&mut random),
        };
        let flags = match &received {
            Some(received) => received.context.flags,
            None => u8::from(context::is_chosen(id, self.settings.sample_rate)),
        };
        let span = SpanId::random(&mut random);
        Trace::new(Context { trace: id, span, flags }, received)
    }

    /// Tells the next server which span its work belongs to.
    pub fn inject(&self, trace: &Trace, span: SpanId, mut set: impl FnMut(&'static str, &str)) {
        let context = Context { span, ..trace.context() };
        self.settings.formats.iter().for_each(|format| format.write(&context, trace.state(), &mut set));
    }

    /// Hands over the spans of a request that has ended.
    pub fn submit(&self, trace: &Trace) {
        let (spans, count) = trace.ended();
        if count > 0 {
            self.queue.put(self.worker, spans, count);
        }
    }
}

/// Both ids as bytes, if they are some.
pub(crate) fn ids(trace: &str, span: &str) -> Option<([u8; 16], [u8; 8])> {
    context::hex(trace).zip(context::hex(span))
}

/// Nanoseconds since 1970, as OTLP has them.
pub fn unix_nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
