//! `rateLimit.redis`: where limits are shared.

use std::time::Duration;

use super::asking::tls;
use crate::decode::Field;
use crate::dynamic::{Redis, Secret, ServersTransport};
use crate::net::server_url;
use crate::problem::quoted;

/// Defaults of the reference, rateLimit.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(3);
/// Connections at most; chosen, each carries many requests at a time.
const MOST_CONNECTIONS: usize = 64;

pub(super) fn redis(field: &Field<'_>) -> Option<Redis> {
    let block = field.block()?;
    let endpoints = block.take("endpoints").map(|field| field.texts()).unwrap_or_default();
    let mut address = Some(("localhost".to_owned(), 6379));
    if let Some(text) = endpoints.first() {
        address = match server_url(&format!("http://{}", text.value)) {
            Ok(url) if url.path.is_empty() && !url.ignored => {
                let has_port = text.value.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
                Some((url.host, if has_port { url.port } else { 6379 }))
            }
            _ => {
                let hint = Some("write `redis.example.com:6379`".to_owned());
                text.error(format!("{} is not the address of a server", quoted(text.value)), hint);
                None
            }
        };
    }
    if let Some(second) = endpoints.get(1) {
        let hint = Some("name one server, or a proxy in front of the cluster".to_owned());
        second.error("several endpoints (a Redis cluster) are not supported yet", hint);
    }
    let text = |key| block.take(key).and_then(|field| field.string()).filter(|text| !text.is_empty());
    let (username, password) = (text("username"), text("password"));
    let db = block.take("db").and_then(|field| field.integer(0..=i64::from(u16::MAX))).unwrap_or(0);
    let count = |key| block.take(key).and_then(|field| field.usize(0)).unwrap_or(0);
    let (pool_size, most) = (count("poolSize"), count("maxActiveConns"));
    block.without_effect(&["minIdleConns"], "connections are opened when they are needed, and kept");
    let timeout = |key, default| block.take(key).and_then(|field| field.timeout()).unwrap_or(default);
    let dial = block.take("dialTimeout").and_then(|field| field.duration_or(DIAL_TIMEOUT));
    let mut transport = ServersTransport::with_idle_conns(0);
    let is_secure = block.take("tls").map(|field| tls(&field, &mut transport)).is_some();
    let redis = Redis {
        endpoints: endpoints.iter().map(|text| text.value.to_owned()).collect(),
        host: String::new(),
        port: 0,
        username,
        password: password.as_deref().map(Secret::new),
        db,
        pool_size,
        max_active_conns: most,
        dial_timeout: dial.unwrap_or(DIAL_TIMEOUT),
        read_timeout: timeout("readTimeout", Some(TIMEOUT)),
        write_timeout: timeout("writeTimeout", Some(TIMEOUT)),
        tls: is_secure.then_some(transport),
    };
    block.finish();
    let (host, port) = address?;
    Some(Redis { host, port, ..redis })
}

impl Redis {
    /// Connections that are used at a time.
    pub fn connections(&self) -> usize {
        let most = if self.max_active_conns == 0 { MOST_CONNECTIONS } else { self.max_active_conns };
        self.pool_size.clamp(1, most.min(MOST_CONNECTIONS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamic::Middleware;
    use crate::testing::{middleware, middleware_problems};

    fn read(redis: &str) -> Redis {
        match middleware(&format!("{{rateLimit: {{average: 1, redis: {redis}}}}}")) {
            Ok(Middleware::RateLimit(limit)) => *limit.redis.expect("a redis"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_read() {
        let plain = read("{db: 0}");
        assert_eq!((plain.host.as_str(), plain.port, plain.connections()), ("localhost", 6379, 1));
        assert_eq!((plain.dial_timeout, plain.read_timeout), (DIAL_TIMEOUT, Some(TIMEOUT)));
        let full = read(
            "{endpoints: ['r.test:7000'], username: u, password: secret, db: 2, poolSize: 8, maxActiveConns: 4, \
             readTimeout: 0, dialTimeout: 1s, tls: {insecureSkipVerify: true}}",
        );
        assert_eq!((full.host.as_str(), full.port, full.db, full.connections()), ("r.test", 7000, 2, 4));
        assert_eq!((full.read_timeout, full.dial_timeout), (None, Duration::from_secs(1)));
        assert!(full.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify));
        assert!(!format!("{full:?}").contains("secret"));
        assert_eq!(read("{endpoints: '[::1]'}").host, "::1");
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (redis, expected) in [
            ("{}", "rateLimit.redis: cannot be a standalone element: `{}` is empty"),
            ("{endpoints: 'a b'}", "rateLimit.redis.endpoints: `a b` is not the address of a server"),
            (
                "{endpoints: [a, b]}",
                "rateLimit.redis.endpoints[1]: several endpoints (a Redis cluster) are not supported yet",
            ),
            ("{db: -1}", "rateLimit.redis.db: -1 is out of range"),
            ("{endpoint: a}", "rateLimit.redis.endpoint: there is no key `endpoint` here"),
        ] {
            assert_eq!(
                middleware_problems(&format!("{{rateLimit: {{average: 1, redis: {redis}}}}}")),
                [expected]
            );
        }
    }
}
