//! Many keep-alive connections at once, and an exact account of what became of their requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Fault;
use crate::client::Client;
use crate::h2_client::H2Client;
use crate::message::Response;

/// Why a request got no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection ended before a byte of the answer, whether or not it had served before.
    NoAnswer,
    /// The connection ended inside the answer.
    Truncated,
    /// RST or another error of the socket, or of the HTTP/2 stream.
    Broken,
    /// Not HTTP as it should be.
    Malformed,
    /// Nothing within [`PATIENCE`](crate::PATIENCE).
    Timeout,
    /// An answer outside 2xx.
    Status(u16),
    /// A 2xx without the text that was asked for.
    Content,
}

/// A load to run: what is asked, how often, over how many connections.
#[derive(Clone, Debug)]
pub struct Load {
    address: SocketAddr,
    host: String,
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    expect: Option<String>,
    connections: usize,
    requests: Option<usize>,
    duration: Option<Duration>,
    pause: Duration,
    tls: Option<(Arc<ClientConfig>, String)>,
    h2: bool,
}

/// What became of a load's requests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// 2xx with the expected content.
    pub ok: usize,
    pub failures: BTreeMap<Failure, usize>,
    /// The first failure of each kind in words.
    pub examples: BTreeMap<Failure, String>,
    /// Good answers by the origin that gave them: the `origin` of an echo, else the body's first 64 bytes.
    pub by_origin: BTreeMap<String, usize>,
    /// Time to the end of each good answer, ascending.
    pub latencies: Vec<Duration>,
    /// Connections opened, each new one after a close included.
    pub connections: usize,
    pub elapsed: Duration,
}

/// A load under way.
pub struct Running {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Report>,
}

impl Load {
    /// GET / over 8 connections until stopped.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            method: "GET".to_owned(),
            target: "/".to_owned(),
            fields: Vec::new(),
            body: None,
            expect: None,
            connections: 8,
            requests: None,
            duration: None,
            pause: Duration::ZERO,
            tls: None,
            h2: false,
        }
    }

    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn post(self, body: impl Into<Vec<u8>>) -> Self {
        self.body("POST", body)
    }

    /// Each request has this method and this body.
    #[must_use]
    pub fn body(mut self, method: &str, body: impl Into<Vec<u8>>) -> Self {
        method.clone_into(&mut self.method);
        self.body = Some(body.into());
        self
    }

    /// Good answers contain `text`.
    #[must_use]
    pub fn expecting(mut self, text: &str) -> Self {
        self.expect = Some(text.to_owned());
        self
    }

    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Ends after so many requests over all connections.
    #[must_use]
    pub fn requests(mut self, requests: usize) -> Self {
        self.requests = Some(requests);
        self
    }

    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// Between two requests of one connection, so that a long load leaves the machine to others.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>, name: &str) -> Self {
        self.tls = Some((config, name.to_owned()));
        self
    }

    /// Speaks HTTP/2: h2c with prior knowledge, or over TLS where [`tls`](Self::tls) is set.
    #[must_use]
    pub fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Starts in the background.
    pub fn start(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(self.drive(Arc::clone(&stop), Arc::clone(&done)));
        Running { stop, done, task }
    }

    /// Runs to its end; panics when neither `requests` nor `duration` was given.
    pub async fn run(self) -> Report {
        assert!(self.requests.is_some() || self.duration.is_some(), "a load without end");
        self.start().finished().await
    }

    async fn drive(self, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Report {
        let began = Instant::now();
        let report = Arc::new(Mutex::new(Report::default()));
        let started = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let (load, report, stop) = (self.clone(), Arc::clone(&report), Arc::clone(&stop));
            let (started, done) = (Arc::clone(&started), Arc::clone(&done));
            connections.spawn(async move {
                let mut connection = None;
                let may_start = || {
                    !stop.load(Ordering::SeqCst)
                        && load.duration.is_none_or(|length| began.elapsed() < length)
                        && load.requests.is_none_or(|most| started.fetch_add(1, Ordering::SeqCst) < most)
                };
                while may_start() {
                    load.one(&mut connection, &report).await;
                    done.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(load.pause).await;
                }
            });
        }
        while let Some(ended) = connections.join_next().await {
            ended.expect("a connection's task does not panic");
        }
        let mut report = std::mem::take(&mut *report.lock().expect("no panic under this lock"));
        report.elapsed = began.elapsed();
        report.latencies.sort_unstable();
        report
    }

    /// One request over `connection`, which is opened where there is none and dropped when it ends.
    async fn one(&self, connection: &mut Option<Connection>, report: &Mutex<Report>) {
        let began = Instant::now();
        let outcome = self.exchange(connection, report).await;
        let mut report = report.lock().expect("no panic under this lock");
        match outcome {
            Ok(origin) => {
                report.ok += 1;
                *report.by_origin.entry(origin).or_default() += 1;
                report.latencies.push(began.elapsed());
            }
            Err((failure, words)) => {
                *report.failures.entry(failure).or_default() += 1;
                report.examples.entry(failure).or_insert(words);
            }
        }
    }

    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        report: &Mutex<Report>,
    ) -> Result<String, (Failure, String)> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => {
                let opened =
                    self.connect().await.map_err(|error| (Failure::Connect, format!("{error:#}")))?;
                report.lock().expect("no panic under this lock").connections += 1;
                opened
            }
        };
        let fields: Vec<_> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let response = match &mut open {
            Connection::H1(client) => {
                client.request(&self.method, &self.host, &self.target, &fields, self.body.as_deref()).await
            }
            Connection::H2(client) => {
                client.request(&self.method, &self.host, &self.target, &fields, self.body.as_deref()).await
            }
        };
        if let Err(error) = &response
            && is_turned_away(error)
        {
            return Box::pin(self.exchange(connection, report)).await;
        }
        let response = response.map_err(|error| (classify(&error), format!("{error:#}")))?;
        let goes_on = match &open {
            Connection::H1(_) => response.keeps_alive(),
            Connection::H2(client) => !client.is_closed(),
        };
        if goes_on {
            *connection = Some(open);
        }
        if !(200..300).contains(&response.status) {
            return Err((
                Failure::Status(response.status),
                String::from_utf8_lossy(&response.body).into_owned(),
            ));
        }
        if let Some(text) = &self.expect
            && !String::from_utf8_lossy(&response.body).contains(text)
        {
            return Err((Failure::Content, String::from_utf8_lossy(&response.body).into_owned()));
        }
        Ok(origin(&response))
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(match (&self.tls, self.h2) {
            (None, false) => Connection::H1(Client::connect(self.address).await?),
            (None, true) => Connection::H2(H2Client::connect(self.address).await?),
            (Some((config, name)), false) => {
                Connection::H1(Client::connect_tls(self.address, Arc::clone(config), name).await?)
            }
            (Some((config, name)), true) => {
                Connection::H2(H2Client::connect_tls(self.address, Arc::clone(config), name).await?)
            }
        })
    }
}

enum Connection {
    H1(Client),
    H2(H2Client),
}

fn origin(response: &Response) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(&response.body).ok();
    match json.as_ref().and_then(|echo| echo["origin"].as_str()) {
        Some(name) => name.to_owned(),
        None => String::from_utf8_lossy(&response.body[..response.body.len().min(64)]).into_owned(),
    }
}

/// A GOAWAY in good order: the request was not looked at and belongs on a new connection, as every client
/// knows (RFC 9113 section 6.8).
fn is_turned_away(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<h2::Error>())
        .any(|error| error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR))
}

fn classify(error: &anyhow::Error) -> Failure {
    match error.downcast_ref() {
        Some(Fault::NoAnswer) => Failure::NoAnswer,
        Some(Fault::Truncated(_)) => Failure::Truncated,
        Some(Fault::Timeout(_)) => Failure::Timeout,
        None if error.chain().any(|cause| cause.is::<std::io::Error>() || cause.is::<h2::Error>()) => {
            Failure::Broken
        }
        None => Failure::Malformed,
    }
}

impl Running {
    /// Requests that have ended so far, well or not.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Whether it has come to its own end.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets the requests under way end, starts no more.
    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::SeqCst);
        self.finished().await
    }

    /// Waits for the load's own end.
    pub async fn finished(self) -> Report {
        self.task.await.expect("a load does not panic")
    }
}

impl Report {
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Panics unless every request succeeded, and there was one.
    pub fn assert_flawless(&self) {
        assert!(self.failures.is_empty(), "{} ok, but {:?}", self.ok, self.examples_by_kind());
        assert!(self.ok > 0, "not one request was made");
    }

    fn examples_by_kind(&self) -> Vec<String> {
        let kinds = self.failures.iter();
        kinds.map(|(kind, count)| format!("{count} x {kind:?} (first: {})", self.examples[kind])).collect()
    }

    /// Latency below which `ratio` (0 to 1) of the good answers came.
    pub fn percentile(&self, ratio: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        // Rounding down is as good a rank as any at the sizes of a test.
        let rank = (last as f64 * ratio) as usize;
        self.latencies.get(rank).copied().unwrap_or_default()
    }
}
