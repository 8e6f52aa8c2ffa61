//! Providers that are asked over the network: an HTTP endpoint, stores of keys and values.
//!
//! What was said last stays in force while a source cannot be asked, or gives what is no configuration; whoever listens
//! is told so, once for each reason, and of the first good answer after that. A source that is away at the start is asked again and
//! again, in the background. What has not changed is not built again.

mod answers;
mod consul;
mod etcd;
mod http;
mod redis;
mod web;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lb_config::kv::load_keys;
use lb_config::remote::{RemoteProvider, RemoteSource};
use lb_config::{Context, Loaded, Problem, Problems, Scope, Severity, parse_answer};
use rustls::ClientConfig;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use answers::{SourceError, Trouble};
use consul::Consul;
use etcd::Etcd;
use http::Http;
use redis::Redis;

/// What a source's answer meant, or why there was none.
pub type Reading = Result<Loaded, Problems>;

/// Quiet that ends a burst of changes: chosen, scripts write one key after another, each with a process of its own.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is looked at this long after its first change, and again and again; chosen.
const LONGEST_BURST: Duration = Duration::from_secs(1);
/// Pauses between attempts to reach a source: the first one, doubled up to the longest; chosen, as for Docker.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A store's longer answer is refused; chosen, as for Docker.
const LONGEST_ANSWER: u64 = 128 * 1024 * 1024;
/// Readings on their way to the listener; a slow listener delays the next look, and loses none.
const READINGS: usize = 4;

/// Follows a source until it is dropped.
#[derive(Debug)]
pub struct Remote {
    reread: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Remote {
    /// Follows a source on this runtime, from now on; the first reading says what is there, or why nothing is known.
    pub fn start(
        provider: RemoteProvider,
        tls: Option<Arc<ClientConfig>>,
        context: Context,
    ) -> (Self, mpsc::Receiver<Reading>) {
        let RemoteProvider { name, source, .. } = provider;
        let (deliver, readings) = mpsc::channel(READINGS);
        let reread = Arc::new(Notify::new());
        let (place, root) = place_and_root(&name, &source);
        let source = match source {
            RemoteSource::Http(settings) => Source::Http(Http::new(settings, tls)),
            RemoteSource::Redis(settings) => Source::Redis(Redis::new(settings, tls)),
            RemoteSource::Consul(settings) => Source::Consul(Consul::new(settings, tls)),
            RemoteSource::Etcd(settings) => Source::Etcd(Etcd::new(settings, tls)),
        };
        let follower = Follower {
            reader: Arc::new(Reader { place, root, name, context }),
            source,
            known: None,
            is_lost: false,
            told: HashSet::new(),
            refused: None,
            was_away: false,
            deliver,
            reread: Arc::clone(&reread),
        };
        let task = tokio::spawn(follower.run());
        (Self { reread, task }, readings)
    }

    /// Asks the source again (`SIGHUP`), and believes it whatever it says. Returns at once.
    pub fn reread(&self) {
        self.reread.notify_one();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a source holds.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text(Bytes),
    /// Those keys below the root that say something about a configuration.
    Keys(BTreeMap<String, Vec<u8>>),
}

impl Content {
    /// Nothing at all, which an answer of an endpoint never is: it would say so in words.
    fn is_empty(&self) -> bool {
        matches!(self, Self::Keys(keys) if keys.is_empty())
    }
}

/// Why it is time for another look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Something has changed, and more may do so at once.
    Told,
    /// It is just time.
    Due,
}

/// One kind of outside world.
enum Source {
    Http(Http),
    Redis(Redis),
    Consul(Consul),
    Etcd(Etcd),
}

impl Source {
    /// What is there now.
    async fn look(&mut self) -> Result<Content, SourceError> {
        match self {
            Self::Http(http) => http.look().await,
            Self::Redis(redis) => redis.look().await,
            Self::Consul(consul) => consul.look().await,
            Self::Etcd(etcd) => etcd.look().await,
        }
    }

    /// Waits until another look may find something else. May be dropped and called again.
    async fn change(&mut self) -> Result<Change, SourceError> {
        match self {
            Self::Http(http) => http.change().await,
            Self::Redis(redis) => redis.change().await,
            Self::Consul(consul) => consul.change().await,
            Self::Etcd(etcd) => etcd.change().await,
        }
    }

    /// The endpoint that was asked refuses, stalls or speaks nonsense: perhaps another one is well.
    fn try_another(&mut self) {
        match self {
            Self::Http(_) => {}
            Self::Redis(redis) => redis.endpoints.next(),
            Self::Consul(consul) => consul.endpoints.next(),
            Self::Etcd(etcd) => etcd.endpoints.next(),
        }
    }

    fn is_store(&self) -> bool {
        !matches!(self, Self::Http(_))
    }
}

/// How problems name a source, and the root of its keys.
fn place_and_root(name: &str, source: &RemoteSource) -> (String, String) {
    let (endpoints, root) = match source {
        RemoteSource::Http(http) => return (http.endpoint_text.clone(), String::new()),
        RemoteSource::Redis(kv) => (&kv.endpoints, &kv.root),
        RemoteSource::Consul(kv) => (&kv.endpoints, &kv.root),
        RemoteSource::Etcd(kv) => (&kv.endpoints, &kv.root),
    };
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    (format!("{name} {}", endpoints.join(",")), root.clone())
}

/// Turns what a source holds into a configuration.
struct Reader {
    name: String,
    /// The source, as problems name it.
    place: String,
    root: String,
    context: Context,
}

impl Reader {
    fn read(&self, content: &Content) -> Reading {
        match content {
            Content::Text(body) => parse_answer(&self.name, &self.place, body, &self.context),
            Content::Keys(keys) => load_keys(&self.name, &self.place, &self.root, keys, &self.context),
        }
    }

    fn problem(&self, message: String, hint: Option<&str>) -> Problems {
        Problem {
            severity: Severity::Error,
            scope: Scope::File,
            file: self.place.clone(),
            line: 0,
            column: 0,
            key: String::new(),
            message,
            hint: hint.map(str::to_owned),
        }
        .into()
    }
}

/// Percent-encoded for a path or a query, slashes apart.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Into a string nothing fails.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

struct Follower {
    reader: Arc<Reader>,
    source: Source,
    /// What was delivered last.
    known: Option<Arc<Content>>,
    /// It was told that the source cannot be asked.
    is_lost: bool,
    /// Why, each once until it answers again: who mends one reason is to hear of the next.
    told: HashSet<Trouble>,
    /// It was told that what it holds is refused, and why.
    refused: Option<Problems>,
    /// The source could not be asked some time since it was last seen with something in it.
    was_away: bool,
    deliver: mpsc::Sender<Reading>,
    reread: Arc<Notify>,
}

/// Nobody listens any more.
struct Over;

impl Follower {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut is_told_to = false;
        loop {
            let mut answered = false;
            let Err(error) = self.keep_up(&mut answered, is_told_to).await else { return };
            self.was_away = true;
            self.source.try_another();
            if answered {
                // Perhaps nothing but a connection has gone: the next attempt will tell.
                debug!(provider = self.reader.name, %error, "the source is asked again");
                pause = FIRST_PAUSE;
            } else if !self.told.insert(error.trouble()) {
                debug!(provider = self.reader.name, %error, "the source still gives no answer");
            } else {
                self.is_lost = true;
                let subject = if self.source.is_store() { "the store" } else { "the endpoint" };
                let problems = self.reader.problem(format!("{subject} {error}"), error.hint());
                if self.deliver.send(Err(problems)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = sleep(pause) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    is_told_to = false;
                }
                () = self.reread.notified() => is_told_to = true,
            }
        }
    }

    /// Looks again and again, as changes ask for it, until the source gives no answer. The first look may be one that
    /// somebody has asked for.
    async fn keep_up(&mut self, answered: &mut bool, mut is_told_to: bool) -> Result<(), SourceError> {
        loop {
            let content = self.source.look().await?;
            *answered = true;
            if self.take_in(content, is_told_to).await.is_err() {
                return Ok(());
            }
            is_told_to = false;
            let mut change = tokio::select! {
                change = self.source.change() => change?,
                () = self.reread.notified() => {
                    info!(provider = self.reader.name, "asking the source again, as told");
                    is_told_to = true;
                    continue;
                }
            };
            let last = Instant::now() + LONGEST_BURST;
            while change == Change::Told && Instant::now() < last {
                match timeout_at((Instant::now() + QUIET).min(last), self.source.change()).await {
                    Ok(next) => change = next?,
                    Err(_) => break,
                }
            }
        }
    }

    async fn take_in(&mut self, content: Content, is_told_to: bool) -> Result<(), Over> {
        let had_something = self.known.as_ref().is_some_and(|known| !known.is_empty());
        if content.is_empty() && had_something && self.was_away && !is_told_to {
            // A store that has lost its data is not one whose keys were deleted. Told as an outage is: once.
            if !std::mem::replace(&mut self.is_lost, true) {
                let message = format!("the store has come back without a key below `{}`", self.reader.root);
                let hint = "if that is meant, send SIGHUP";
                self.tell(Err(self.reader.problem(message, Some(hint)))).await?;
            }
            return Ok(());
        }
        self.was_away = false;
        let is_back = std::mem::take(&mut self.is_lost);
        if is_back {
            self.told.clear();
            info!(provider = self.reader.name, source = self.reader.place, "The source answers again");
        }
        if !is_back && self.known.as_deref() == Some(&content) {
            return Ok(());
        }
        let content = Arc::new(content);
        self.known = Some(Arc::clone(&content));
        let reader = Arc::clone(&self.reader);
        // Much of it takes a while to read, and others have their deadlines on this thread.
        let reading =
            tokio::task::spawn_blocking(move || reader.read(&content)).await.unwrap_or_else(|failure| {
                let hint = "this is a bug in Vigie: please report it with the configuration";
                Err(self.reader.problem(format!("reading it failed: {failure}"), Some(hint)))
            });
        let refused = reading.as_ref().err().cloned();
        let is_news = is_told_to || is_back || refused.is_none() || refused != self.refused;
        self.refused = refused;
        // An error page that is another one each time is one refusal.
        if is_news { self.tell(reading).await } else { Ok(()) }
    }

    async fn tell(&mut self, reading: Reading) -> Result<(), Over> {
        self.deliver.send(reading).await.map_err(|_| Over)
    }
}
