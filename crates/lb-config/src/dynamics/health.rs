//! `loadBalancer.healthCheck` and `passiveHealthCheck`.

use std::time::Duration;

use crate::decode::{Block, Field};
use crate::duration::show;
use crate::dynamic::{HealthCheck, PassiveHealthCheck, ProbeMode};
use crate::net::is_token;
use crate::problem::quoted;

/// Defaults of reference 2.7 and 2.8.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);
const FAILURE_WINDOW: Duration = Duration::from_secs(10);

pub(super) fn active(field: &Field<'_>) -> Option<HealthCheck> {
    let block = field.block()?;
    let check = read(&block);
    block.finish();
    check
}

fn read(block: &Block<'_>) -> Option<HealthCheck> {
    let mode = block.take_word("mode").map_or(Some(ProbeMode::Http), |field| {
        field.choice(&[("http", ProbeMode::Http), ("grpc", ProbeMode::Grpc)])
    });
    let path = block.take("path").and_then(|field| path(&field));
    let scheme = block.take("scheme").and_then(|field| scheme(&field, mode));
    let method = block.take("method").and_then(|field| method(&field));
    let status = block.take("status").and_then(|field| field.u16(0, 599)).filter(|status| *status != 0);
    let port = block.take("port").and_then(|field| field.u16(0, u16::MAX)).filter(|port| *port != 0);
    let interval_field = block.take("interval");
    let interval = interval_field.as_ref().and_then(|field| field.duration_or(INTERVAL)).unwrap_or(INTERVAL);
    let unhealthy_interval =
        block.take("unhealthyInterval").and_then(|field| field.duration_or(INTERVAL)).unwrap_or(interval);
    let timeout_field = block.take("timeout");
    let timeout = timeout_field.as_ref().and_then(|field| field.duration_or(TIMEOUT)).unwrap_or(TIMEOUT);
    if let Some(field) = timeout_field.or(interval_field)
        && timeout > interval
    {
        let message = format!("{} is longer than the interval of {}", show(timeout), show(interval));
        field.warn(message, Some("lower the timeout or raise the interval".to_owned()));
    }
    let hostname = block.take("hostname").and_then(|field| field.string()).filter(|name| !name.is_empty());
    let headers =
        block.take("headers").map(|field| crate::middlewares::header_map(&field)).unwrap_or_default();
    let follow_redirects = block.take("followRedirects").and_then(|field| field.boolean());
    Some(HealthCheck {
        path: path.unwrap_or_default(),
        scheme,
        method: method.unwrap_or_else(|| "GET".to_owned()),
        status,
        port,
        interval,
        unhealthy_interval,
        timeout,
        hostname,
        headers,
        follow_redirects: follow_redirects.unwrap_or(true),
        healthy_threshold: block.take("healthyThreshold").and_then(|field| field.u32(1)).unwrap_or(1),
        unhealthy_threshold: block.take("unhealthyThreshold").and_then(|field| field.u32(1)).unwrap_or(1),
        start_period: block.take("startPeriod").and_then(|field| field.duration()).unwrap_or_default(),
        start_unhealthy: block.take("startUnhealthy").and_then(|field| field.boolean()).unwrap_or(false),
        degraded: block.take("degraded").and_then(|field| field.boolean()).unwrap_or(true),
        degraded_weight: block.take("degradedWeight").and_then(|field| field.float(0.0..=1.0)).unwrap_or(0.5),
        mode: mode?,
    })
}

fn path(field: &Field<'_>) -> Option<String> {
    let path = field.string()?;
    if path.contains("://") || path.starts_with("//") {
        let hint = "write the path only; `scheme`, `port` and `hostname` say the rest".to_owned();
        field.error(format!("{} is a URL, not a path", quoted(&path)), Some(hint));
        return None;
    }
    let is_escape = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    // Servers read queries as they like: Traefik sends them as they are.
    let (reference, fragment) = path.split_once('#').unwrap_or((&path, ""));
    let decoded = [reference.split('?').next().unwrap_or_default(), fragment];
    let mut escapes = decoded.iter().flat_map(|part| part.split('%').skip(1));
    if path.chars().any(char::is_control) || !escapes.all(is_escape) {
        field.error(format!("{} is not a path", quoted(&path)), Some("percent-encode it".to_owned()));
        return None;
    }
    // As in Traefik, what a URL cannot hold is encoded.
    let encoded = path.bytes().map(|byte| match byte {
        b' ' | 0x80.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    });
    Some(encoded.collect())
}

fn scheme(field: &Field<'_>, mode: Option<ProbeMode>) -> Option<String> {
    let text = field.text().filter(|text| !text.value.is_empty())?;
    let words: &[&str] = match mode {
        Some(ProbeMode::Grpc) => &["http", "h2c"],
        _ => &["http", "https", "h2c"],
    };
    // RFC 3986 section 3.1: in any letter case.
    let known = words.iter().find(|word| word.eq_ignore_ascii_case(text.value));
    if known.is_none() {
        text.unknown_word(words.iter().copied());
    }
    known.map(|word| (*word).to_owned())
}

fn method(field: &Field<'_>) -> Option<String> {
    let method = field.string().filter(|method| !method.is_empty())?;
    if !is_token(&method) {
        field.error(format!("{} is not a method", quoted(&method)), None);
        return None;
    }
    Some(method)
}

pub(super) fn passive(field: &Field<'_>) -> Option<PassiveHealthCheck> {
    let block = field.block()?;
    let window = block.take("failureWindow").and_then(|field| field.positive_duration());
    let attempts = block.take("maxFailedAttempts").and_then(|field| field.u32(1));
    block.finish();
    Some(PassiveHealthCheck {
        failure_window: window.unwrap_or(FAILURE_WINDOW),
        max_failed_attempts: attempts.unwrap_or(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load_balancer, load_balancer_problems};

    fn check(health: &str) -> HealthCheck {
        load_balancer(&format!("{{servers: [], healthCheck: {health}}}")).unwrap().health_check.unwrap()
    }

    fn told(health: &str) -> Vec<String> {
        load_balancer_problems(&format!("{{servers: [], healthCheck: {health}}}"))
    }

    #[test]
    fn without_extensions_it_is_traefiks() {
        assert_eq!(
            check("{path: /h}"),
            HealthCheck {
                mode: ProbeMode::Http,
                path: "/h".to_owned(),
                scheme: None,
                method: "GET".to_owned(),
                status: None,
                port: None,
                interval: Duration::from_secs(30),
                unhealthy_interval: Duration::from_secs(30),
                timeout: Duration::from_secs(5),
                hostname: None,
                headers: vec![],
                follow_redirects: true,
                healthy_threshold: 1,
                unhealthy_threshold: 1,
                start_period: Duration::ZERO,
                start_unhealthy: false,
                degraded: true,
                degraded_weight: 0.5,
            }
        );
        assert_eq!(check("{interval: 10}").unhealthy_interval, Duration::from_secs(10));
    }

    #[test]
    fn extensions() {
        let check = check(
            "{path: /, healthyThreshold: 2, unhealthyThreshold: 3, startPeriod: 30s, startUnhealthy: true, \
             degraded: false, degradedWeight: 0.25}",
        );
        assert_eq!((check.healthy_threshold, check.unhealthy_threshold), (2, 3));
        assert_eq!((check.start_period, check.start_unhealthy), (Duration::from_secs(30), true));
        assert_eq!((check.degraded, check.degraded_weight), (false, 0.25));
    }

    #[test]
    fn what_a_url_would_spell_otherwise_is_taken() {
        let check = check("{path: '/a b/%C3é?x=%20&y=5%', scheme: HTTPS}");
        let expected = ("/a%20b/%C3%C3%A9?x=%20&y=5%", Some("https"));
        assert_eq!((check.path.as_str(), check.scheme.as_deref()), expected);
    }

    #[test]
    fn what_is_told_about_a_check() {
        for (health, expected) in [
            ("{interval: 0}", "~healthCheck.interval: must be longer than 0; 30s is used"),
            ("{timeout: -1}", "~healthCheck.timeout: must be longer than 0; 5s is used"),
            ("{interval: 3s}", "~healthCheck.interval: 5s is longer than the interval of 3s"),
            ("{path: 'http://a/h'}", "healthCheck.path: `http://a/h` is a URL, not a path"),
            ("{path: '/%zz'}", "healthCheck.path: `/%zz` is not a path"),
            ("{path: '/?a#%z'}", "healthCheck.path: `/?a#%z` is not a path"),
            ("{mode: tcp}", "healthCheck.mode: `tcp` is not a known value"),
            ("{mode: grpc, scheme: https}", "healthCheck.scheme: `https` is not a known value"),
            ("{method: 'GET /'}", "healthCheck.method: `GET /` is not a method"),
            ("{degradedWeight: 1.5}", "healthCheck.degradedWeight: `1.5` is out of range"),
            ("{healthyThreshold: 0}", "healthCheck.healthyThreshold: 0 is out of range"),
            ("{headers: {'a b': c}}", "healthCheck.headers.a b: `a b` is not a header name"),
            ("{}", "healthCheck: cannot be a standalone element: `{}` is empty"),
        ] {
            assert_eq!(told(health), [expected], "{health}");
        }
    }

    #[test]
    fn passive_checks() {
        let passive = |text: &str| load_balancer(&format!("{{servers: [], passiveHealthCheck: {text}}}"));
        let check = passive("{maxFailedAttempts: 3}").unwrap().passive_health_check.unwrap();
        assert_eq!((check.failure_window, check.max_failed_attempts), (Duration::from_secs(10), 3));
        assert!(passive("{failureWindow: 0}").is_err());
        assert!(passive("{maxFailedAttempts: 0}").is_err());
    }
}
