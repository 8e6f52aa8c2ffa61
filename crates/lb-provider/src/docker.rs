//! The providers `docker` and `swarm`: containers that start join, containers that stop leave.
//!
//! Every event that may change anything is followed by a look at all containers, so nothing depends on an event's
//! content or on none being missed; a look now and then (`refresh`) finds what no event announced. While the daemon cannot be
//! asked, what it said last stays in force and whoever listens is told, once; the first answer after that is looked at
//! in full.

mod client;
mod survey;
mod swarm;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lb_config::docker::{Container, load_containers};
use lb_config::static_config::{self, DockerEndpoint, Orchestrator};
use lb_config::{Config, Context, Loaded, Problem, Problems, Scope, Severity};
use rustls::ClientConfig;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use client::{Client, ClientError, Event, Events};
use survey::{Survey, Unread, Unreadable, survey};

/// What the daemon's answer meant, or why there was none.
pub type Reading = Result<Loaded, Problems>;

/// Quiet that ends a burst of events: chosen, one `docker` command makes several.
const QUIET: Duration = Duration::from_millis(10);
/// A burst that does not end is looked at this long after its first event, and again and again; chosen.
const LONGEST_BURST: Duration = Duration::from_millis(50);
/// A container that still runs so long after it was told to stop has taken the signal for something else; chosen,
/// three times the patience of `docker stop`.
const ENDING: Duration = Duration::from_secs(30);
/// As long as tasks of a swarm are about to run: that they do, on other nodes, is no event. Chosen.
const SETTLING: Duration = Duration::from_millis(500);
/// Pauses between attempts to reach the daemon: the first one, doubled up to the longest; chosen.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a start waits for the daemon before it goes on without; chosen.
const PATIENCE: Duration = Duration::from_secs(5);
/// Readings on their way to the listener; a slow listener delays the next look, and loses none.
const READINGS: usize = 4;

/// Follows a daemon until it is dropped.
#[derive(Debug)]
pub struct DockerProvider {
    reread: Arc<Notify>,
    task: JoinHandle<()>,
}

/// A provider that runs, what it read first, and what it will read.
#[derive(Debug)]
pub struct Started {
    pub provider: DockerProvider,
    pub first: Reading,
    /// Closed when the provider ends.
    pub readings: mpsc::Receiver<Reading>,
}

impl DockerProvider {
    /// Asks the daemon once, for at most five seconds, then follows it on this runtime; without `watch` it is asked
    /// again only by [`reread`](Self::reread), and until it has answered once.
    pub async fn start(
        settings: static_config::DockerProvider,
        tls: Option<Arc<ClientConfig>>,
        context: Context,
    ) -> Started {
        let client = Client {
            endpoint: settings.endpoint.clone(),
            tls,
            credentials: settings.credentials.clone(),
            timeout: settings.timeout.min(PATIENCE),
        };
        let (deliver, readings) = mpsc::channel(READINGS);
        let reread = Arc::new(Notify::new());
        let mut follower = Follower {
            client,
            settings,
            context,
            last: Config::default(),
            known: None,
            unread: Unread::new(),
            ending: HashMap::new(),
            is_lost: false,
            deliver,
            reread: Arc::clone(&reread),
        };
        let deadline = Instant::now() + PATIENCE;
        let looked = timeout_at(deadline, follower.look()).await;
        let first = match looked.unwrap_or(Err(ClientError::Timeout(PATIENCE))) {
            Ok((Survey { containers, unread }, _)) => {
                follower.unread = unread;
                Ok(follower.read(containers))
            }
            Err(error) => Err(follower.lost(&error)),
        };
        follower.client.timeout = follower.settings.timeout;
        let task = tokio::spawn(follower.run());
        Started { provider: Self { reread, task }, first, readings }
    }

    /// Asks the daemon again (`SIGHUP`). Returns at once.
    pub fn reread(&self) {
        self.reread.notify_one();
    }
}

impl Drop for DockerProvider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower {
    client: Client,
    settings: static_config::DockerProvider,
    context: Context,
    /// What was delivered last.
    last: Config,
    /// What it was made of; `None`: nothing was read yet.
    known: Option<Vec<Container>>,
    /// Of which the daemon could not tell.
    unread: Unread,
    /// Containers that were told to stop, and until when that is believed of those that go on.
    ending: HashMap<String, Instant>,
    /// It was told that the daemon cannot be asked.
    is_lost: bool,
    deliver: mpsc::Sender<Reading>,
    reread: Arc<Notify>,
}

/// Why following has ended.
enum End {
    /// Nobody listens any more.
    Over,
    Lost {
        error: ClientError,
        /// The daemon has answered before.
        answered: bool,
    },
}

impl Follower {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let End::Lost { error, answered } = self.follow().await else { return };
            if answered {
                // Perhaps nothing but the connection has gone: the next attempt will tell.
                debug!(%error, "the Docker daemon is asked again");
                pause = FIRST_PAUSE;
            } else if !self.is_lost {
                let problems = self.lost(&error);
                if self.deliver.send(Err(problems)).await.is_err() {
                    return;
                }
            } else {
                debug!(%error, "the Docker daemon still gives no answer");
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.reread.notified() => {}
            }
        }
    }

    /// Looks at the containers again and again, as events ask for it, until the daemon gives no answer.
    async fn follow(&mut self) -> End {
        let mut answered = false;
        match self.keep_up(&mut answered).await {
            Ok(()) => End::Over,
            Err(error) => End::Lost { error, answered },
        }
    }

    async fn keep_up(&mut self, answered: &mut bool) -> Result<(), ClientError> {
        // Before the first look, so that nothing happens unnoticed between the two.
        let mut events = match self.settings.watch {
            true => Some(self.client.events(self.settings.containers.orchestrator).await?),
            false => None,
        };
        loop {
            let (Survey { mut containers, unread }, is_settling) = self.look().await?;
            *answered = true;
            let now = Instant::now();
            self.ending.retain(|_, until| now < *until);
            for container in &mut containers {
                container.is_running &= !self.ending.contains_key(&container.id);
            }
            if std::mem::take(&mut self.is_lost) {
                info!(endpoint = self.settings.endpoint_text, "The Docker daemon answers again");
                self.known = None;
            }
            let is_new = self.known.as_ref() != Some(&containers) || self.unread != unread;
            self.unread = unread;
            if is_new && self.tell(containers).await.is_err() {
                return Ok(());
            }
            let Some(events) = &mut events else {
                self.reread.notified().await;
                continue;
            };
            let refresh = self.settings.refresh;
            let pause = if is_settling { SETTLING.min(refresh) } else { refresh };
            tokio::select! {
                event = change(events) => {
                    let mut event = event?;
                    // A burst of them is one look, but for what needs none.
                    let last = Instant::now() + LONGEST_BURST;
                    loop {
                        if let Some(containers) = self.heed(&event)
                            && self.tell(containers).await.is_err()
                        {
                            return Ok(());
                        }
                        match timeout_at((Instant::now() + QUIET).min(last), change(events)).await {
                            Ok(next) => event = next?,
                            Err(_) => break,
                        }
                    }
                }
                () = sleep(pause) => {}
                () = self.reread.notified() => info!("asking the Docker daemon again, as told"),
            }
        }
    }

    /// All containers there are, and whether more are about to run.
    async fn look(&self) -> Result<(Survey, bool), ClientError> {
        let (client, settings) = (&self.client, &self.settings.containers);
        match settings.orchestrator {
            Orchestrator::Docker => {
                let known = self.known.as_deref().unwrap_or_default();
                Ok((survey(client, settings, known, &self.unread).await?, false))
            }
            Orchestrator::Swarm => {
                let (containers, is_settling) = swarm::survey(client, settings).await?;
                Ok((Survey { containers, unread: Unread::new() }, is_settling))
            }
        }
    }

    /// What an event says by itself: to look at a thousand containers takes a while, and one that was told to stop is
    /// not to be asked until it refuses.
    fn heed(&mut self, event: &Event) -> Option<Vec<Container>> {
        let told_to_stop = event.is_told_to_stop();
        if ["start", "die"].contains(&event.action.as_str()) {
            self.ending.remove(&event.actor.id);
        }
        if !told_to_stop && event.action != "die" {
            return None;
        }
        let mut containers = self.known.clone()?;
        let container = containers.iter_mut().find(|container| container.id == event.actor.id)?;
        if !std::mem::take(&mut container.is_running) {
            return None;
        }
        if told_to_stop {
            // The last of a service may serve to its end: there is nobody else.
            if self.takes_the_last(&containers) {
                return None;
            }
            self.ending.insert(event.actor.id.clone(), Instant::now() + ENDING);
        }
        Some(containers)
    }

    /// Whether with these containers a service has no server left that has one now.
    fn takes_the_last(&self, containers: &[Container]) -> bool {
        let then = load_containers(containers, &self.settings.containers, &self.last, &self.context).config;
        let is_served = |config: &Config, name: &String| {
            config.services.get(name).is_some_and(|service| !service.servers.is_empty())
        };
        self.last.services.keys().any(|name| is_served(&self.last, name) && !is_served(&then, name))
    }

    /// Fails when nobody listens any more.
    async fn tell(&mut self, containers: Vec<Container>) -> Result<(), ()> {
        let loaded = self.read(containers);
        self.deliver.send(Ok(loaded)).await.map_err(|_| ())
    }

    fn read(&mut self, containers: Vec<Container>) -> Loaded {
        let mut loaded = load_containers(&containers, &self.settings.containers, &self.last, &self.context);
        loaded.problems.extend(self.unread.values().map(Unreadable::problem));
        self.last = loaded.config.clone();
        self.known = Some(containers);
        loaded
    }

    /// The daemon cannot be asked: remembers and words it.
    fn lost(&mut self, error: &ClientError) -> Problems {
        self.is_lost = true;
        let hint = match (&self.settings.endpoint, error) {
            (DockerEndpoint::Unix(_), ClientError::Connect(error)) => match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    Some("let Vigie's user read the socket: add it to its group, often `docker`")
                }
                std::io::ErrorKind::NotFound => {
                    Some("is the daemon running? in a container, mount its socket")
                }
                _ => Some("is the daemon running?"),
            },
            (DockerEndpoint::Tcp { .. }, ClientError::Connect(_)) => {
                Some("is the daemon running, and does it listen there?")
            }
            _ => None,
        };
        Problem {
            severity: Severity::Error,
            scope: Scope::File,
            file: self.settings.endpoint_text.clone(),
            line: 0,
            column: 0,
            key: String::new(),
            message: format!("the Docker daemon {error}"),
            hint: hint.map(str::to_owned),
        }
        .into()
    }
}

/// Waits for an event that may change anything.
async fn change(events: &mut Events) -> Result<Event, ClientError> {
    loop {
        let event = events.next().await?;
        if matters(&event) {
            debug!(kind = event.kind, action = event.action, "a container has changed");
            return Ok(event);
        }
    }
}

/// Health checks alone make three events each, which say nothing.
fn matters(event: &Event) -> bool {
    let Event { kind, action, .. } = event;
    match kind.as_str() {
        "container" => {
            event.is_told_to_stop()
                || ["start", "die", "pause", "unpause", "rename", "destroy"].contains(&action.as_str())
                || action.starts_with("health_status")
        }
        "network" => ["connect", "disconnect"].contains(&action.as_str()),
        "service" | "node" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
