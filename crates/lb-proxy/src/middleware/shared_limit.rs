//! `rateLimit.redis`: token buckets that several proxies share, Traefik's among them.
//!
//! A bucket is a hash with Traefik's name and fields, so both count in the same. What is to be taken from it is decided
//! by a script, which Redis runs as one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_config::dynamic as config;
use lb_core::rate_limit::Decision;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::report::Report;
use crate::tls::client_tls;
use crate::upstream::dial;

/// Bucket; rate per microsecond, burst, seconds until it is forgotten, now in microseconds, longest wait in microseconds.
/// Answers how long to wait, in microseconds; longer than the longest means that nothing was taken.
const TAKE: &str = r"
local rate, burst, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now, longest = tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('hmget', KEYS[1], 'last', 'tokens')
local last, tokens = tonumber(known[1]), tonumber(known[2])
if not (last and tokens) then
  last, tokens = now, burst
end
if now < last then
  now = last
end
tokens = math.min(tokens + (now - last) * rate, burst) - 1
local wait = 0
if tokens < 0 then
  wait = -tokens / rate
  if wait > longest then
    tokens = tokens + 1
  end
end
redis.call('hset', KEYS[1], 'last', string.format('%.0f', now), 'tokens', string.format('%.17g', tokens))
redis.call('expire', KEYS[1], ttl)
return string.format('%.3f', wait)
";

/// After a connection could not be had, or an answer did not come in time, the next try is so far away: chosen, requests
/// fail at once meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct SharedLimit {
    options: config::Redis,
    /// Begins the name of every bucket.
    prefix: String,
    per_microsecond: f64,
    burst: u64,
    ttl: u64,
    longest: Duration,
    places: Box<[Mutex<Place>]>,
    next: AtomicUsize,
    unknown: Report,
}

#[derive(Default)]
struct Place {
    connection: Option<MultiplexedConnection>,
    failed: Option<(Instant, String)>,
}

/// Why Redis did not say.
struct Unanswered {
    reason: String,
    /// It may still.
    is_late: bool,
}

impl SharedLimit {
    /// `None`: nothing is limited, so nobody has to be asked.
    pub(super) fn new(name: &str, options: &config::RateLimit) -> Option<Self> {
        let redis = options.redis.as_deref()?;
        if options.average == 0 {
            return None;
        }
        let per_second = options.average as f64 / options.period.as_secs_f64();
        // As the limit that is not shared; seconds are whole for Redis.
        let longest = Duration::from_secs_f64(0.5 / per_second.floor().max(1.0));
        let ttl = 1.0 + if per_second >= 1.0 { 1.0 } else { (1.0 / per_second).ceil() };
        Some(Self {
            prefix: format!("rate:{name}:"),
            per_microsecond: per_second / 1e6,
            burst: options.burst,
            ttl: ttl as u64,
            longest,
            places: (0..redis.connections()).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
            unknown: Report::default(),
            options: redis.clone(),
        })
    }

    /// Takes a token of this source.
    ///
    /// # Errors
    /// Why Redis could not say.
    pub(super) async fn take(&self, source: &str) -> Result<Decision, String> {
        let key = format!("{}{source}", self.prefix);
        let place = &self.places[self.next.fetch_add(1, Ordering::Relaxed) % self.places.len()];
        let mut again = true;
        let wait = loop {
            let mut connection = self.connection(place).await?;
            match self.ask(&mut connection, &key).await {
                Ok(wait) => break wait,
                Err(Unanswered { reason, is_late }) => {
                    let mut place = place.lock().await;
                    // Others may have replaced it meanwhile; then theirs is lost too, which costs them one more.
                    place.connection = None;
                    if is_late {
                        // Who says nothing now keeps nobody else waiting.
                        place.failed = Some((Instant::now(), reason.clone()));
                    }
                    // It may have been closed long ago. Had the token been taken, two are; that is no harm.
                    if is_late || !std::mem::take(&mut again) {
                        return Err(reason);
                    }
                }
            }
        };
        Ok(match wait {
            wait if wait.is_zero() => Decision::Proceed,
            wait if wait <= self.longest => Decision::Wait(wait),
            wait => Decision::Reject { retry_after: wait },
        })
    }

    /// Says now and then that Redis cannot be asked.
    pub(super) fn report(&self, reason: &str) {
        if let Some(requests) = self.unknown.count(Instant::now().into_std()) {
            let (host, port) = (&self.options.host, self.options.port);
            tracing::error!(
                requests,
                reason,
                buckets = self.prefix,
                "Redis at {host}:{port} cannot be asked: requests are answered 500"
            );
        }
    }

    async fn ask(&self, connection: &mut MultiplexedConnection, key: &str) -> Result<Duration, Unanswered> {
        let failed = |reason: String| Unanswered { reason, is_late: false };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut command = redis::cmd("EVAL");
        command.arg(TAKE).arg(1).arg(key).arg(self.per_microsecond).arg(self.burst).arg(self.ttl).arg(now);
        let longest = u64::try_from(self.longest.as_micros()).unwrap_or(u64::MAX);
        let asked = command.arg(longest).query_async::<String>(connection);
        let patience =
            self.options.read_timeout.zip(self.options.write_timeout).map(|(read, write)| read + write);
        let answer = match patience {
            Some(patience) => timeout(patience, asked)
                .await
                .map_err(|_| Unanswered { reason: "no answer in time".to_owned(), is_late: true })?,
            None => asked.await,
        };
        let answer = answer.map_err(|error| failed(reason(&error)))?;
        let microseconds: f64 = answer.parse().map_err(|_| failed("no number".to_owned()))?;
        Duration::try_from_secs_f64(microseconds / 1e6).map_err(|error| failed(error.to_string()))
    }

    /// The one that there is, or a new one.
    async fn connection(&self, place: &Mutex<Place>) -> Result<MultiplexedConnection, String> {
        let mut place = place.lock().await;
        if let Some(connection) = &place.connection {
            return Ok(connection.clone());
        }
        if let Some((at, reason)) = &place.failed
            && at.elapsed() < PAUSE
        {
            return Err(reason.clone());
        }
        let connected = timeout(self.options.dial_timeout, self.connect()).await;
        match connected.unwrap_or_else(|_| Err("no connection in time".to_owned())) {
            Ok(connection) => {
                place.failed = None;
                place.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(reason) => {
                place.failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let config::Redis { host, port, username, password, db, tls, .. } = &self.options;
        let tcp = dial(host, *port, Some(Instant::now() + self.options.dial_timeout)).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        let _ = tcp.set_nodelay(true);
        let mut settings = RedisConnectionInfo::default().set_db(*db).set_skip_set_lib_name();
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password.reveal());
        }
        // What is asked has its own limit of time.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        match tls {
            None => {
                let made = MultiplexedConnection::new_with_config(&settings, tcp, config).await;
                let (connection, driver) = made.map_err(|error| reason(&error))?;
                tokio::task::spawn_local(driver);
                Ok(connection)
            }
            Some(transport) => {
                let mut tls = rustls::ClientConfig::clone(&*client_tls(transport)?);
                // Redis is none of those.
                tls.alpn_protocols.clear();
                let name = rustls_pki_types::ServerName::try_from(host.clone());
                let name = name.map_err(|error| error.to_string())?;
                let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await;
                let stream = stream.map_err(|error| error.to_string())?;
                let made = MultiplexedConnection::new_with_config(&settings, stream, config).await;
                let (connection, driver) = made.map_err(|error| reason(&error))?;
                tokio::task::spawn_local(driver);
                Ok(connection)
            }
        }
    }
}

/// Without what was sent: there may be a password in it.
fn reason(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    format!("{} {detail}", error.category()).trim_end().to_owned()
}
