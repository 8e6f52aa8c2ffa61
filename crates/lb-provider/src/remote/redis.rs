//! `providers.redis`: keys of a Redis or Valkey server, alone or behind sentinels.
//!
//! Key-space notifications tell of changes, where the server sends them; a look every half minute finds what none told.
//! A server that sends none is looked at as often as an endpoint of `providers.http`, and a hint is logged.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lb_config::kv::concerns;
use lb_config::remote::{Endpoint, KvSource, Login, RedisOptions, Sentinel};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisResult};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::answers::SourceError;
use super::web::{Endpoints, Stream};
use super::{Change, Content, LONGEST_ANSWER};

/// Time between two looks that nothing asked for: with notifications, and without. Chosen.
const RESYNC: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(5);
/// For each answer; chosen.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys that one command asks for; chosen, other clients of the server wait meanwhile.
const BATCH: usize = 1000;

pub(super) struct Redis {
    settings: KvSource<RedisOptions>,
    pub(super) endpoints: Endpoints,
    link: Option<Link>,
    /// The hint was given.
    told_to_notify: bool,
}

/// Connections to a server.
struct Link {
    server: Endpoint,
    commands: MultiplexedConnection,
    changes: PubSub,
    listens: bool,
    /// It says that it sends notifications.
    notifies: bool,
    next_look: Instant,
}

impl Redis {
    pub(super) fn new(settings: KvSource<RedisOptions>, tls: Option<Arc<ClientConfig>>) -> Self {
        let endpoints = Endpoints::new(settings.endpoints.clone(), tls);
        Self { settings, endpoints, link: None, told_to_notify: false }
    }

    pub(super) async fn look(&mut self) -> Result<Content, SourceError> {
        let mut link = match self.link.take() {
            Some(link) => link,
            // Listens before the first look, so that nothing happens unnoticed between the two.
            None => self.connect().await?,
        };
        if !link.notifies {
            link.notifies = link.listens && notifies(&mut link.commands).await;
            if !link.notifies && !std::mem::replace(&mut self.told_to_notify, true) {
                warn!(
                    server = %link.server,
                    every = ?POLL,
                    "Redis tells nobody of changes: its keys are looked at again and again. \
                     Hint: `CONFIG SET notify-keyspace-events KEA`"
                );
            }
        }
        let content = keys(&mut link.commands, &self.settings.root).await?;
        link.next_look = Instant::now() + if link.notifies { RESYNC } else { POLL };
        self.link = Some(link);
        Ok(content)
    }

    pub(super) async fn change(&mut self) -> Result<Change, SourceError> {
        let Some(link) = &mut self.link else { return Ok(Change::Due) };
        let mut told = link.changes.on_message();
        tokio::select! {
            change = told.next() => match change {
                Some(_) => return Ok(Change::Told),
                None => {
                    drop(told);
                    self.link = None;
                    return Err(SourceError::Ended);
                }
            },
            () = sleep_until(link.next_look) => {}
        }
        drop(told);
        if let Some(sentinel) = &self.settings.options.sentinel {
            // A server that is no longer the one may not know it.
            let server = ask_sentinels(&mut self.endpoints, sentinel).await?;
            if server != link.server {
                self.link = None;
            }
        }
        Ok(Change::Due)
    }

    async fn connect(&mut self) -> Result<Link, SourceError> {
        let (server, one, other) = match &self.settings.options.sentinel {
            Some(sentinel) => {
                let server = ask_sentinels(&mut self.endpoints, sentinel).await?;
                let dial = || async { self.endpoints.dial(&server).await.map_err(SourceError::Connect) };
                let (one, other) = (dial().await?, dial().await?);
                (server, one, other)
            }
            None => {
                let (one, server) = self.endpoints.connect().await?;
                let other = self.endpoints.dial(&server).await.map_err(SourceError::Connect)?;
                (server, one, other)
            }
        };
        let RedisOptions { login, db, .. } = &self.settings.options;
        let info = info(login, *db);
        let linked = async {
            let commands = commands(&info, one).await?;
            let mut changes = PubSub::new(&info, other).await?;
            let pattern = format!("__keyspace@{db}__:{}/*", escaped(&self.settings.root));
            // A user may be forbidden to listen.
            let listens = changes.psubscribe(pattern).await.is_ok();
            Ok(Link { server, commands, changes, listens, notifies: false, next_look: Instant::now() })
        };
        timeout(TIMEOUT, linked).await.unwrap_or(Err(SourceError::Timeout(TIMEOUT)))
    }
}

fn info(login: &Login, db: i64) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(db).set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(&password.0);
    }
    info
}

async fn commands(
    info: &RedisConnectionInfo,
    stream: Box<dyn Stream>,
) -> Result<MultiplexedConnection, SourceError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    // Ends with the connection.
    tokio::spawn(driver);
    Ok(connection)
}

/// Where the server is now; every sentinel knows.
async fn ask_sentinels(endpoints: &mut Endpoints, sentinel: &Sentinel) -> Result<Endpoint, SourceError> {
    let ask = async {
        let (stream, _) = endpoints.connect().await?;
        let mut connection = commands(&info(&sentinel.login, 0), stream).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&sentinel.master_name);
        let server: Option<(String, u16)> = question.query_async(&mut connection).await?;
        let (host, port) = server.ok_or_else(|| SourceError::NoServer(sentinel.master_name.clone()))?;
        Ok(Endpoint { host, port })
    };
    timeout(TIMEOUT, ask).await.unwrap_or(Err(SourceError::Timeout(TIMEOUT)))
}

/// Whether the server says that it tells of keys that are set and deleted. Where it may not be asked, it does not.
async fn notifies(connection: &mut MultiplexedConnection) -> bool {
    let mut question = redis::cmd("CONFIG");
    question.arg("GET").arg("notify-keyspace-events");
    let answer: RedisResult<Vec<String>> = question.query_async(connection).await;
    answer.is_ok_and(|answer| answer.get(1).is_some_and(|events| tells_enough(events)))
}

/// Of events of keys (`K`): all, or those of strings and of keys as such (deleted, renamed, expired).
fn tells_enough(events: &str) -> bool {
    let has = |event| events.contains(event);
    has('K') && (has('A') || (has('$') && has('g') && has('x')))
}

async fn keys(connection: &mut MultiplexedConnection, root: &str) -> Result<Content, SourceError> {
    let pattern = format!("{}/*", escaped(root));
    let mut names = std::collections::BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(BATCH);
        let (next, found): (u64, Vec<Vec<u8>>) = scan.query_async(connection).await?;
        let found = found.into_iter().filter_map(|name| String::from_utf8(name).ok());
        names.extend(found.filter(|name| concerns(name, root)));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let names: Vec<String> = names.into_iter().collect();
    let mut pairs = std::collections::BTreeMap::new();
    let mut total = 0_u64;
    for names in names.chunks(BATCH) {
        let mut get = redis::cmd("MGET");
        get.arg(names);
        let values: Vec<Option<Vec<u8>>> = get.query_async(connection).await?;
        for (name, value) in names.iter().zip(values) {
            // What has gone meanwhile is gone, and what is no string says nothing.
            let Some(value) = value else { continue };
            total += (name.len() + value.len()) as u64;
            pairs.insert(name.clone(), value);
        }
        if total > LONGEST_ANSWER {
            return Err(SourceError::TooLong(LONGEST_ANSWER));
        }
    }
    Ok(Content::Keys(pairs))
}

/// As a pattern that means nothing but itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_tell_too_little_are_known() {
        for (events, enough) in [
            ("", false),
            ("K", false),
            ("AK", true),
            ("AKE", true),
            ("AE", false),
            ("g$xK", true),
            ("g$K", false),
        ] {
            assert_eq!(tells_enough(events), enough, "{events}");
        }
    }

    #[test]
    fn roots_are_no_patterns() {
        assert_eq!(escaped("a/b"), "a/b");
        assert_eq!(escaped("a*[b]?"), "a\\*\\[b\\]\\?");
    }
}
