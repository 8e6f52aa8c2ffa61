//! One server after the other, and back again when one does not get well.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use lb_observe::rfc3339;
use tokio::time::{Instant, sleep};

use super::command::{self, Words};
use super::fleet::{Fleet, Place, Sight};
use super::record::{Phase, Record, Store};
use super::{POLL, Rollout};
use crate::print::say;

/// Passes in a row that make a server healthy: chosen, since one may be the old process's last.
const PASSES: u32 = 2;

/// How all of it has ended, with the reason where it was not as planned.
pub(super) enum End {
    Done,
    RolledBack(String),
    Stopped(String),
}

/// Why a server was not replaced.
enum Halt {
    /// Ctrl-C.
    Asked,
    /// The version is not to be had there, or is not well.
    Failed(String),
    /// Going on would leave too few servers, or nobody can be asked.
    Stuck(String),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Stuck(format!("{error:#}"))
    }
}

pub(super) struct Steps<'a> {
    fleet: &'a Fleet,
    store: &'a Store,
    record: Record,
    options: &'a Rollout,
    min_serving: usize,
    stop: Rc<Cell<bool>>,
    began: Instant,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        fleet: &'a Fleet,
        store: &'a Store,
        record: Record,
        options: &'a Rollout,
        min_serving: usize,
    ) -> Self {
        Self { fleet, store, record, options, min_serving, stop: Rc::default(), began: Instant::now() }
    }

    /// Set when it is to end early.
    pub(super) fn stop(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.stop)
    }

    pub(super) async fn all(&mut self, todo: &[usize]) -> anyhow::Result<End> {
        let version = self.record.version.clone();
        for at in todo {
            match self.replace(*at, &version).await {
                Ok(()) => {}
                Err(Halt::Asked) => return Ok(self.stopped("stopped as asked".to_owned())),
                Err(Halt::Stuck(reason)) => return Ok(self.stopped(reason)),
                Err(Halt::Failed(reason)) => return self.back(*at, reason).await,
            }
        }
        self.enter(Phase::Done)?;
        self.say(&format!("done: {} runs {version}", self.record.service));
        Ok(End::Done)
    }

    fn stopped(&mut self, reason: String) -> End {
        // Where it cannot be recorded the record says the same of it in other words, and the reason matters more.
        let _ = self.enter(Phase::Stopped);
        End::Stopped(reason)
    }

    /// Everything that does not run what it ran before: the one that failed first, which is out of service, then the
    /// others, the last one first.
    async fn back(&mut self, failed: usize, reason: String) -> anyhow::Result<End> {
        self.say(&format!("{reason}: rolling back"));
        self.enter(Phase::RollingBack)?;
        let is_new = |at: &usize| {
            let machine = &self.record.servers[*at];
            *at != failed && machine.version.as_ref() != Some(&machine.before)
        };
        let others: Vec<usize> = (0..self.record.servers.len()).rev().filter(is_new).collect();
        for at in std::iter::once(failed).chain(others) {
            let before = self.record.servers[at].before.clone();
            if let Err(halt) = self.replace(at, &before).await {
                let further = match halt {
                    Halt::Asked => "stopped as asked".to_owned(),
                    Halt::Failed(reason) | Halt::Stuck(reason) => reason,
                };
                return Ok(self.stopped(format!("{reason}; the way back has failed as well: {further}")));
            }
        }
        // Nothing to go back to: what was tried is no good.
        let tried = self.record.version.clone();
        if let Some(previous) = self.record.previous.take() {
            self.record.version = previous;
        }
        self.enter(Phase::RolledBack)?;
        self.say(&format!("rolled back from {tried}"));
        Ok(End::RolledBack(reason))
    }

    /// Takes one server out, replaces it, and puts it back once it is well.
    async fn replace(&mut self, at: usize, version: &str) -> Result<(), Halt> {
        let url = self.record.servers[at].server.clone();
        let by = format!("rollout to {version} by {}", self.record.by);
        self.others_serve(&url).await?;
        let mut places = self.fleet.look().await?.places(&url);
        self.drain(&url, &places, &by).await?;

        self.record.servers[at].version = None;
        if let Err(error) = self.save() {
            // Nothing has happened to it yet.
            self.fleet.order(&places, "ready", &by).await?;
            return Err(error.into());
        }
        let known = self.fleet.look().await?.urls();
        let words = Words { service: &self.record.service, url: &url, version };
        let (replace, check) = (&self.record.replace, &self.record.check);
        let (replace, check) =
            (words.fill(replace)?, check.as_ref().map(|check| words.fill(check)).transpose()?);
        self.say(&format!("{url}: {replace}"));
        let limit = self.options.command_timeout;
        command::run(&replace, limit).await.map_err(|error| Halt::Failed(format!("{url}: {error:#}")))?;

        let now = self.is_well(&url, &known).await?;
        if now != url {
            self.say(&format!("{url} is {now} now"));
            self.record.servers[at].server.clone_from(&now);
        }
        if let Some(check) = check {
            let checked = command::run(&check, limit).await;
            checked.map_err(|error| Halt::Failed(format!("{now}: {error:#}")))?;
        }
        places.extend(self.fleet.look().await?.places(&now));
        self.fleet.order(&places, "ready", &by).await?;
        self.record.servers[at].version = Some(version.to_owned());
        self.save()?;
        self.say(&format!("{now}: runs {version}, in service; watched for {:?}", self.options.pause));
        self.watch(&now).await
    }

    /// Enough others get requests, now or soon.
    async fn others_serve(&self, url: &str) -> Result<(), Halt> {
        let until = Instant::now() + self.options.health_timeout;
        loop {
            let serving = self.fleet.look().await?.serving_without(url);
            if serving >= self.min_serving {
                return Ok(());
            }
            self.go_on()?;
            if Instant::now() >= until {
                return Err(Halt::Stuck(format!(
                    "{url} cannot be taken out: of the others {serving} are in service, and {} have to be",
                    self.min_serving
                )));
            }
            sleep(POLL).await;
        }
    }

    /// No new requests, and those in flight are finished, for a bounded time.
    async fn drain(&self, url: &str, places: &[Place], by: &str) -> Result<(), Halt> {
        self.fleet.order(places, "drain", by).await?;
        let began = Instant::now();
        let mut idle = 0;
        let mut told = false;
        loop {
            let in_flight = self.fleet.look().await?.in_flight(url);
            // Twice: one may have been on its way to the server when the order came.
            idle = if in_flight == 0 { idle + 1 } else { 0 };
            if idle > 1 {
                self.say(&format!("{url}: drained in {:.1} s", began.elapsed().as_secs_f64()));
                return Ok(());
            }
            if in_flight > 0 && !told {
                self.say(&format!("{url}: drains, {in_flight} in flight"));
                told = true;
            }
            if let Err(halt) = self.go_on() {
                // Nothing has happened to it yet.
                self.fleet.order(places, "ready", by).await?;
                return Err(halt);
            }
            if began.elapsed() >= self.options.drain_timeout {
                self.say(&format!("{url}: {in_flight} still in flight after --drainTimeout, and cut now"));
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until the server is healthy, from here and for the instance; returns its URL, which a container may have
    /// changed. Not broken off by Ctrl-C: it is bounded, and a server that is well belongs back in service.
    async fn is_well(&self, url: &str, known: &[String]) -> Result<String, Halt> {
        let began = Instant::now();
        let mut passes = 0;
        loop {
            let sight = self.fleet.look().await?;
            let now = replaced(&sight, url, known);
            let trouble = match &now {
                None => Some("is no longer in the configuration, and no other one is new there".to_owned()),
                Some(now) => match self.fleet.attempt(&sight, now).await {
                    Err(reason) => Some(reason),
                    // Of two observers the slower one.
                    Ok(()) => sight.ill(now).map(|trouble| format!("{trouble} for Vigie")),
                },
            };
            passes = if trouble.is_none() { passes + 1 } else { 0 };
            if let Some(now) = now.filter(|_| passes >= PASSES) {
                self.say(&format!("{now}: healthy after {:.1} s", began.elapsed().as_secs_f64()));
                return Ok(now);
            }
            if let Some(trouble) = trouble.filter(|_| began.elapsed() >= self.options.health_timeout) {
                let limit = self.options.health_timeout;
                return Err(Halt::Failed(format!("{url} is not healthy within {limit:?}: {trouble}")));
            }
            sleep(POLL).await;
        }
    }

    /// It stays well with requests.
    async fn watch(&self, url: &str) -> Result<(), Halt> {
        let until = Instant::now() + self.options.pause;
        loop {
            if let Some(trouble) = self.fleet.look().await?.ill(url) {
                return Err(Halt::Failed(format!("{url} {trouble} soon after it was put in service")));
            }
            self.go_on()?;
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(());
            }
            sleep(left.min(POLL)).await;
        }
    }

    fn go_on(&self) -> Result<(), Halt> {
        if self.stop.get() { Err(Halt::Asked) } else { Ok(()) }
    }

    fn enter(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.record.phase = phase;
        self.save()
    }

    fn save(&mut self) -> anyhow::Result<()> {
        self.record.changed_at = rfc3339(SystemTime::now());
        self.store.save(&self.record)
    }

    fn say(&self, text: &str) {
        say(&format!("{:>7.1} s  {text}", self.began.elapsed().as_secs_f64()));
    }
}

/// Where the server is now: a container may come back with another address, as one that was not there before.
fn replaced(sight: &Sight, url: &str, known: &[String]) -> Option<String> {
    if sight.has(url) {
        return Some(url.to_owned());
    }
    sight.urls().into_iter().find(|new| !known.contains(new))
}
