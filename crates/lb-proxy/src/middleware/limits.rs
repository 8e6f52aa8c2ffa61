//! `rateLimit` and `inFlightReq`: how much one source may ask.

use std::sync::Arc;

use lb_config::dynamic as config;
use lb_core::in_flight::InFlightLimiter;
use lb_core::rate_limit::{Decision, Limiter, Settings};
use lb_observe::metrics::{Kind, LabelId, Metrics};

use super::shared_limit::SharedLimit;
use super::{Build, Middleware, Step, kept, source};
use crate::exchange::Exchange;
use crate::http::local::{Local, whole_seconds};

pub(crate) struct RateLimit {
    options: config::RateLimit,
    limiter: Arc<Limiter>,
    /// Takes the place of `limiter` where the limit is shared.
    shared: Option<Arc<SharedLimit>>,
    pub(super) label: LabelId,
    metrics: Metrics,
}

impl RateLimit {
    pub(crate) fn new(options: &config::RateLimit, build: &Build<'_>) -> Self {
        let previous = match build.previous {
            Some(Middleware::RateLimit(before)) => Some((&before.limiter, &before.options)),
            _ => None,
        };
        let shared = match build.previous {
            Some(Middleware::RateLimit(before)) if before.options == *options => before.shared.clone(),
            _ => SharedLimit::new(build.name, options).map(Arc::new),
        };
        let settings = Settings { average: options.average, period: options.period, burst: options.burst };
        Self {
            limiter: kept(previous, options, || Limiter::new(settings)),
            shared,
            options: options.clone(),
            label: build.metrics.label(Kind::Middleware, build.name),
            metrics: build.metrics.clone(),
        }
    }

    pub(crate) fn on_request(&self, x: &Exchange) -> Step {
        let key = source::key(x, &self.options.source);
        if let Some(shared) = &self.shared {
            let (shared, key) = (Arc::clone(shared), key.into_owned());
            let (label, metrics) = (self.label, self.metrics.clone());
            return Step::Later(Box::pin(async move {
                match shared.take(&key).await {
                    Ok(decision) => step(decision, label, &metrics),
                    Err(reason) => {
                        metrics.rate_limit_unknown(label);
                        shared.report(&reason);
                        Step::Respond(Local::plain(500, "Could not insert/update bucket"))
                    }
                }
            }));
        }
        step(self.limiter.take(key.as_bytes(), x.started), self.label, &self.metrics)
    }
}

fn step(decision: Decision, label: LabelId, metrics: &Metrics) -> Step {
    match decision {
        Decision::Proceed => Step::Next,
        Decision::Wait(delay) => Step::Wait(delay),
        Decision::Reject { retry_after } => {
            metrics.rate_limited(label);
            Step::Respond(
                Local::status_text(429)
                    .with("Retry-After", whole_seconds(retry_after).to_string())
                    .with("X-Retry-In", go_duration(retry_after)),
            )
        }
    }
}

/// A duration as Go prints it: `973.93786ms`, `1.5s`, `2m0s`.
fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, name) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let decimals = |nanos: u128| {
        let digits = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { String::new() } else { format!(".{digits}") }
    };
    let whole = nanos / unit;
    if name == "s" && whole >= 60 {
        let (hours, minutes) = (whole / 3600, whole / 60 % 60);
        let hours = if hours > 0 { format!("{hours}h") } else { String::new() };
        return format!("{hours}{minutes}m{}{}s", whole % 60, decimals(nanos));
    }
    format!("{whole}{}{name}", decimals(nanos))
}

pub(crate) struct InFlight {
    options: config::InFlightReq,
    limiter: Arc<InFlightLimiter>,
    pub(super) label: LabelId,
    metrics: Metrics,
}

impl InFlight {
    pub(crate) fn new(options: &config::InFlightReq, build: &Build<'_>) -> Self {
        let previous = match build.previous {
            Some(Middleware::InFlight(before)) => Some((&before.limiter, &before.options)),
            _ => None,
        };
        Self {
            limiter: match previous {
                Some((limiter, before)) if before == options => Arc::clone(limiter),
                _ => InFlightLimiter::new(options.amount),
            },
            options: options.clone(),
            label: build.metrics.label(Kind::Middleware, build.name),
            metrics: build.metrics.clone(),
        }
    }

    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        let key = source::key(x, &self.options.source);
        match self.limiter.acquire(key.as_bytes()) {
            Some(permit) => {
                drop(key);
                x.permits.push(permit);
                Step::Next
            }
            None => {
                self.metrics.rate_limited(self.label);
                let text = format!("max connections reached: {}", self.options.amount);
                Step::Respond(Local::bare(429).body(text.into_bytes()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_read_as_go_prints_them() {
        let cases = [
            (Duration::from_nanos(973_937_860), "973.93786ms"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_secs(120), "2m0s"),
            (Duration::from_micros(12), "12µs"),
            (Duration::from_secs(3723), "1h2m3s"),
        ];
        for (duration, text) in cases {
            assert_eq!(go_duration(duration), text);
        }
    }
}
