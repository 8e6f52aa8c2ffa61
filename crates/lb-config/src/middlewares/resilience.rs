//! Middlewares that cope with failing servers: `circuitBreaker`, `retry`.

use std::time::Duration;

use lb_core::breaker::Expression;

use crate::decode::Block;
use crate::dynamic::{CircuitBreaker, Middleware, Retry};
use crate::net::status_ranges;

/// Defaults of the reference, circuitBreaker and retry.
const CHECK_PERIOD: Duration = Duration::from_millis(100);
const FALLBACK_DURATION: Duration = Duration::from_secs(10);
const RECOVERY_DURATION: Duration = Duration::from_secs(10);
const MAX_REQUEST_BODY_BYTES: usize = 2 * 1024 * 1024;

pub(super) fn circuit_breaker(block: &Block<'_>) -> Option<Middleware> {
    let expression = block
        .require("expression", "write one such as `NetworkErrorRatio() > 0.30`")
        .and_then(|field| field.text())
        .and_then(|text| match Expression::parse(text.value) {
            Ok(expression) => Some((expression, text.value.to_owned())),
            Err(error) => {
                text.error_at(error.at, error.message, error.hint);
                None
            }
        });
    let duration =
        |key, default| block.take(key).and_then(|field| field.duration_or(default)).unwrap_or(default);
    let check_period = duration("checkPeriod", CHECK_PERIOD);
    let fallback_duration = duration("fallbackDuration", FALLBACK_DURATION);
    let recovery_duration = duration("recoveryDuration", RECOVERY_DURATION);
    let response_code = block.take("responseCode").and_then(|field| field.u16(200, 599)).unwrap_or(503);
    let (expression, expression_text) = expression?;
    Some(Middleware::CircuitBreaker(CircuitBreaker {
        expression,
        expression_text,
        check_period,
        fallback_duration,
        recovery_duration,
        response_code,
    }))
}

pub(super) fn retry(block: &Block<'_>) -> Option<Middleware> {
    let attempts = block.require("attempts", "write how many tries there are in all, the first included");
    let attempts = attempts.and_then(|field| field.u32(1));
    let initial_interval =
        block.take("initialInterval").and_then(|field| field.duration()).unwrap_or_default();
    let timeout = block.take("timeout").and_then(|field| field.limit()).flatten();
    let status = block.take("status").map(|field| status_ranges(&field)).unwrap_or_default();
    // -1 is no limit of the user's: then ours.
    let max_request_body_bytes =
        block.take("maxRequestBodyBytes").and_then(|field| field.integer(-1..=i64::MAX));
    let max_request_body_bytes = max_request_body_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let disable = block.take("disableRetryOnNetworkError").and_then(|field| field.boolean()).unwrap_or(false);
    let non_idempotent = block.take("retryNonIdempotentMethod").and_then(|field| field.boolean());
    if disable && status.is_empty() {
        let hint = "list the statuses to retry on, or leave network errors on".to_owned();
        block.error("without `status` nothing would ever be retried".to_owned(), Some(hint));
    }
    Some(Middleware::Retry(Retry {
        attempts: attempts?,
        initial_interval,
        timeout,
        status,
        max_request_body_bytes: max_request_body_bytes.unwrap_or(MAX_REQUEST_BODY_BYTES),
        disable_retry_on_network_error: disable,
        retry_non_idempotent_method: non_idempotent.unwrap_or(false),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    #[test]
    fn a_breaker_has_traefiks_defaults() {
        let Ok(Middleware::CircuitBreaker(breaker)) =
            middleware("{circuitBreaker: {expression: NetworkErrorRatio() > 0.30, fallbackDuration: 30s}}")
        else {
            panic!("no breaker")
        };
        assert_eq!(breaker.check_period, Duration::from_millis(100));
        assert_eq!(breaker.fallback_duration, Duration::from_secs(30));
        assert_eq!((breaker.recovery_duration, breaker.response_code), (Duration::from_secs(10), 503));
    }

    #[test]
    fn retries() {
        let Ok(Middleware::Retry(retry)) = middleware("{retry: {attempts: 4, status: ['500-503,429', 408]}}")
        else {
            panic!("no retry")
        };
        assert_eq!(retry.status, [(500, 503), (429, 429), (408, 408)]);
        assert_eq!((retry.attempts, retry.max_request_body_bytes), (4, 2_097_152));
        for (written, expected) in [("-1", 2_097_152), ("0", 0), ("7", 7)] {
            let text = format!("{{retry: {{attempts: 2, maxRequestBodyBytes: {written}}}}}");
            let Ok(Middleware::Retry(retry)) = middleware(&text) else { panic!("{written}") };
            assert_eq!(retry.max_request_body_bytes, expected);
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{retry: {initialInterval: 1s}}", "retry: `attempts` is missing"),
            ("{retry: {attempts: 0}}", "retry.attempts: 0 is out of range"),
            ("{retry: {attempts: 2, status: 600-500}}", "retry.status: the range `600-500` is upside down"),
            ("{retry: {attempts: 2, status: [5xx]}}", "retry.status[0]: `5xx` is not a status"),
            (
                "{retry: {attempts: 2, disableRetryOnNetworkError: true}}",
                "retry: without `status` nothing would ever be retried",
            ),
            ("{circuitBreaker: {checkPeriod: 1s}}", "circuitBreaker: `expression` is missing"),
            (
                "{circuitBreaker: {expression: NetworkErrorRatio() > 0.3, checkPeriod: 0}}",
                "~circuitBreaker.checkPeriod: must be longer than 0; 100ms is used",
            ),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
        let bad = middleware_problems("{circuitBreaker: {expression: '!(NetworkErrorRatio() > 0.3)'}}");
        assert!(bad[0].starts_with("circuitBreaker.expression: "), "{bad:?}");
    }
}
