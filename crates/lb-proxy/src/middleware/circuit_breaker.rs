//! `circuitBreaker`: keeps requests from a service that fails them anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::dynamic as config;
use lb_core::breaker::{Admission, Breaker, Change, Settings, State};
use lb_observe::metrics::{Kind, LabelId, Metrics};

use super::{Build, Middleware, Step, kept};
use crate::exchange::Exchange;
use crate::http::local::{Local, whole_seconds};

pub(crate) struct CircuitBreaker {
    options: config::CircuitBreaker,
    breaker: Arc<NamedBreaker>,
}

/// A breaker that says and counts when it changes.
pub(crate) struct NamedBreaker {
    breaker: Breaker,
    name: String,
    label: LabelId,
    metrics: Metrics,
}

impl CircuitBreaker {
    pub(crate) fn new(options: &config::CircuitBreaker, build: &Build<'_>) -> Self {
        let previous = match build.previous {
            Some(Middleware::CircuitBreaker(before)) => Some((&before.breaker, &before.options)),
            _ => None,
        };
        let settings = Settings {
            check_period: options.check_period,
            fallback: options.fallback_duration,
            recovery: options.recovery_duration,
        };
        let breaker = kept(previous, options, || {
            let label = build.metrics.label(Kind::Middleware, build.name);
            build.metrics.breaker(label, State::Closed);
            NamedBreaker {
                breaker: Breaker::new(options.expression.clone(), settings, build.now),
                name: build.name.to_owned(),
                label,
                metrics: build.metrics.clone(),
            }
        });
        Self { breaker, options: options.clone() }
    }

    pub(super) fn label(&self) -> LabelId {
        self.breaker.label
    }

    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        let (admission, change) = self.breaker.breaker.admit(x.started);
        self.breaker.announce(change);
        match admission {
            Admission::Allowed => {
                x.breakers.push((Arc::clone(&self.breaker), 0));
                Step::Next
            }
            Admission::Rejected => {
                let local = Local::status_text(self.options.response_code);
                let seconds = whole_seconds(self.breaker.breaker.rejects_for(x.started)).max(1);
                Step::Respond(match self.options.response_code {
                    503 => local.with("Retry-After", seconds.to_string()),
                    _ => local,
                })
            }
        }
    }

    /// Notes the status that passes on its way back; evaluated when the answer is complete.
    pub(crate) fn on_response(&self, x: &mut Exchange) {
        let status = x.response.status();
        if let Some(entry) = x.breakers.iter_mut().rev().find(|entry| Arc::ptr_eq(&entry.0, &self.breaker)) {
            entry.1 = status;
        }
    }
}

impl NamedBreaker {
    pub(crate) fn record(&self, status: u16, latency: Duration, now: Instant) {
        self.announce(self.breaker.record(status, latency, now));
    }

    fn announce(&self, change: Option<Change>) {
        let Some(change) = change else { return };
        self.metrics.breaker_changed(self.label, change.to);
        let (state, meaning) = match change.to {
            State::Open => ("open", "The circuit breaker opens: requests are refused"),
            State::HalfOpen => {
                ("half-open", "The circuit breaker tries: a growing share of the requests passes")
            }
            State::Closed => ("closed", "The circuit breaker closes: requests pass again"),
        };
        tracing::warn!(middlewareName = %self.name, state, "{meaning}");
    }
}
