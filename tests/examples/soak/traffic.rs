//! The load: several kinds of clients at once, each with what it is promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_testkit::{Client, Failure, Load, Report};
use tokio::task::JoinSet;

use crate::vigie::{HOST, Vigie};

/// A load is run in slices, so that its account does not grow with the length of the soak. A slice ends with
/// its connections; sockets and bodies of longer life are [`sockets`]' part.
const SLICE: Duration = Duration::from_secs(30);

/// WebSocket connections that are held for the whole run.
pub(crate) const SOCKETS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// No request fails while a replica lives.
    NothingFails,
    /// A request may fail, for nobody may send it twice; but no answer is wrong.
    NothingIsWrong,
}

/// What became of one kind of requests.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) promise: Promise,
    pub(crate) ok: usize,
    pub(crate) failures: BTreeMap<Failure, usize>,
    pub(crate) examples: BTreeMap<Failure, String>,
    pub(crate) connections: usize,
    /// Of the slice in which it was longest.
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
}

impl Account {
    fn new(name: &'static str, promise: Promise) -> Self {
        Self {
            name,
            promise,
            ok: 0,
            failures: BTreeMap::new(),
            examples: BTreeMap::new(),
            connections: 0,
            p99: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }

    fn add(&mut self, report: Report) {
        self.ok += report.ok;
        for (kind, count) in &report.failures {
            *self.failures.entry(*kind).or_default() += count;
        }
        for (kind, example) in &report.examples {
            self.examples.entry(*kind).or_insert_with(|| example.chars().take(200).collect());
        }
        self.connections += report.connections;
        self.p99 = self.p99.max(report.percentile(0.99));
        self.longest = self.longest.max(report.latencies.last().copied().unwrap_or_default());
    }

    /// Failures that the promise does not allow.
    pub(crate) fn broken(&self) -> usize {
        let is_wrong = |kind: &Failure| matches!(kind, Failure::Content | Failure::Malformed);
        let counts = |kind: &Failure| self.promise == Promise::NothingFails || is_wrong(kind);
        self.failures.iter().filter(|(kind, _)| counts(kind)).map(|(_, count)| count).sum()
    }
}

/// Loads under way.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    accounts: Arc<Mutex<Vec<Account>>>,
    tasks: JoinSet<()>,
    sockets: Arc<Sockets>,
}

#[derive(Default)]
pub(crate) struct Sockets {
    pub(crate) messages: AtomicUsize,
    pub(crate) breaks: AtomicUsize,
    pub(crate) example: Mutex<Option<String>>,
}

impl Traffic {
    pub(crate) fn start(vigie: &Vigie) -> Self {
        use Promise::{NothingFails, NothingIsWrong};
        let get = |name: &str| Load::new(vigie.web, HOST).target(&format!("/{name}")).expecting("\"replica-");
        let tls = |alpn: &[&str]| {
            Load::new(vigie.websecure, HOST)
                .target("/tls")
                .expecting("\"replica-")
                .tls(vigie.authority.client_config(alpn), HOST)
        };
        let body: String = (0..32 * 1024_u32).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
        let upload = |method: &str| get("upload").body(method, body.clone()).expecting(&body);
        let pause = Duration::from_millis;
        let loads = [
            ("keep-alive", NothingFails, get("keep-alive").connections(8).pause(pause(20))),
            (
                "new connections",
                NothingFails,
                get("new").field("Connection", "close").connections(4).pause(pause(40)),
            ),
            (
                "TLS",
                NothingFails,
                tls(&["http/1.1"]).field("Connection", "close").connections(1).pause(pause(100)),
            ),
            ("HTTP/2", NothingFails, get("h2c").h2().connections(4).pause(pause(20))),
            ("HTTP/2 over TLS", NothingFails, tls(&["h2"]).h2().connections(4).pause(pause(20))),
            ("uploads, PUT", NothingFails, upload("PUT").connections(2).pause(pause(100))),
            ("uploads, POST", NothingIsWrong, upload("POST").connections(2).pause(pause(100))),
        ];
        let mut traffic = Self {
            stop: Arc::default(),
            accounts: Arc::new(Mutex::new(Vec::new())),
            tasks: JoinSet::new(),
            sockets: Arc::default(),
        };
        for (index, (name, promise, load)) in loads.into_iter().enumerate() {
            traffic.accounts.lock().expect("no panic under this lock").push(Account::new(name, promise));
            let (stop, accounts) = (Arc::clone(&traffic.stop), Arc::clone(&traffic.accounts));
            // Not all at once: a slice's end would be a dip in the descriptors.
            let mut slice = SLICE / 10 * (index as u32 + 1);
            traffic.tasks.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let running = load.clone().duration(slice).start();
                    let report = end(running, &stop).await;
                    accounts.lock().expect("no panic under this lock")[index].add(report);
                    slice = SLICE;
                }
            });
        }
        for _ in 0..SOCKETS {
            let (stop, sockets, address) =
                (Arc::clone(&traffic.stop), Arc::clone(&traffic.sockets), vigie.web);
            traffic.tasks.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if let Err(error) = hold(address, &stop, &sockets).await {
                        sockets.breaks.fetch_add(1, Ordering::SeqCst);
                        let mut example = sockets.example.lock().expect("no panic under this lock");
                        example.get_or_insert_with(|| format!("{error:#}"));
                    }
                }
            });
        }
        traffic
    }

    /// Requests that have failed against a promise so far; slices under way are not in it.
    pub(crate) fn broken(&self) -> usize {
        self.accounts.lock().expect("no panic under this lock").iter().map(Account::broken).sum()
    }

    pub(crate) async fn stop(mut self) -> (Vec<Account>, Arc<Sockets>) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a load does not panic");
        }
        let accounts = std::mem::take(&mut *self.accounts.lock().expect("no panic under this lock"));
        (accounts, self.sockets)
    }
}

/// The report of a slice, which ends early when everything stops.
async fn end(running: lb_testkit::Running, stop: &AtomicBool) -> Report {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while !running.is_over() && !stop.load(Ordering::SeqCst) {
        tick.tick().await;
    }
    running.stop().await
}

/// One WebSocket that echoes, until everything stops or it breaks. Frames are as good as any bytes.
async fn hold(address: std::net::SocketAddr, stop: &AtomicBool, sockets: &Sockets) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    let answer = client.request("GET", HOST, "/ws", &upgrade, None).await?;
    anyhow::ensure!(answer.status == 101, "the upgrade was answered with {}", answer.status);
    for number in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let frame = format!("message {number:08} {}", "x".repeat((number % 2000) as usize));
        client.send(&frame).await?;
        anyhow::ensure!(client.bytes(frame.len()).await? == frame.as_bytes(), "another echo than {number}");
        sockets.messages.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
