//! What the soak has found, for people and for programs, and whether it is good.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::chaos::Chaos;
use crate::traffic::{Account, Promise, SOCKETS, Sockets};
use crate::watch::{Sample, Trend};

const MIB: f64 = 1024.0 * 1024.0;
/// Growth over the second half that a flat process may show. Chosen: well above the noise, for the allocator takes
/// memory in pieces of 4 MiB and faults come at random, and well below what a leak of ten bytes per request adds
/// up to in an hour.
const RSS_SLACK: f64 = 12.0 * MIB;
const RSS_SHARE: f64 = 0.1;
const DESCRIPTORS_SLACK: f64 = 24.0;
const DESCRIPTORS_SHARE: f64 = 0.2;

pub(crate) struct Summary {
    /// Without the calm at the end.
    pub(crate) took: Duration,
    pub(crate) seed: u64,
    pub(crate) accounts: Vec<Account>,
    pub(crate) sockets: SocketAccount,
    pub(crate) chaos: Chaos,
    pub(crate) samples: Vec<Sample>,
    /// Of the process, where there is something to complain about.
    pub(crate) last_words: String,
}

/// What became of the WebSocket connections.
pub(crate) struct SocketAccount {
    messages: usize,
    breaks: usize,
    /// A connection cannot be handed over: an upgrade may end each of them once, when the old process has drained.
    allowed: usize,
    example: Option<String>,
}

impl SocketAccount {
    pub(crate) fn new(sockets: &Sockets, upgrades: usize) -> Self {
        Self {
            messages: sockets.messages.load(Ordering::SeqCst),
            breaks: sockets.breaks.load(Ordering::SeqCst),
            allowed: upgrades * SOCKETS,
            example: sockets.example.lock().expect("no panic under this lock").clone(),
        }
    }
}

impl Summary {
    /// Every promise that did not hold; none, and the soak has passed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = self.chaos.complaints.clone();
        for account in &self.accounts {
            let Account { name, ok, examples, .. } = account;
            if account.broken() > 0 {
                complaints.push(format!("{name}: {} requests failed: {examples:?}", account.broken()));
            }
            if *ok == 0 {
                complaints.push(format!("{name}: not one request succeeded"));
            }
        }
        let SocketAccount { messages, breaks, allowed, example } = &self.sockets;
        if breaks > allowed {
            complaints.push(format!("WebSocket: {breaks} connections broke, first: {example:?}"));
        }
        if *messages == 0 {
            complaints.push("WebSocket: not one message came back".to_owned());
        }
        match self.samples.last() {
            Some(last) if self.took.saturating_sub(last.at) < Duration::from_secs(15) => {}
            last => complaints.push(format!("the process is gone since {:?}", last.map(|sample| sample.at))),
        }
        for (what, trend) in [("memory", self.memory()), ("descriptors", self.descriptors())] {
            if !trend.is_flat() {
                complaints.push(format!("{what} are not flat: {trend:?}"));
            }
        }
        complaints
    }

    /// The first half, the second without what is left in it of a process that was being replaced, and the calm.
    fn parts(&self) -> [&[Sample]; 3] {
        let last = self.samples.last().map(|sample| sample.pid);
        let is_second = |sample: &Sample| sample.at >= self.took / 2 && Some(sample.pid) == last;
        let (first, rest) = self.samples.split_at(self.samples.partition_point(|sample| !is_second(sample)));
        let (second, calm) = rest.split_at(rest.partition_point(|sample| sample.at <= self.took));
        [first, second, calm]
    }

    fn memory(&self) -> Trend {
        Trend::of(self.parts(), |sample| sample.rss_bytes, RSS_SHARE, RSS_SLACK)
    }

    fn descriptors(&self) -> Trend {
        Trend::of(self.parts(), |sample| sample.descriptors, DESCRIPTORS_SHARE, DESCRIPTORS_SLACK)
    }

    pub(crate) fn to_json(&self) -> Value {
        let accounts: Vec<_> = self.accounts.iter().map(account).collect();
        let trend = |trend: Trend| {
            let Trend { mean, highest, before, growth, left, allowed } = trend;
            json!({
                "mean": mean,
                "highest": highest,
                "before": before,
                "growth": growth,
                "left_in_calm": left,
                "allowed_growth": allowed,
            })
        };
        let events = self.chaos.done.iter().map(|(event, count)| (format!("{event:?}"), json!(count)));
        json!({
            "passed": self.complaints().is_empty(),
            "complaints": self.complaints(),
            "seconds": self.took.as_secs_f64(),
            "seed": self.seed,
            "loads": accounts,
            "websocket": {
                "messages": self.sockets.messages,
                "breaks": self.sockets.breaks,
                "allowed_breaks": self.sockets.allowed,
            },
            "events": Value::Object(events.collect()),
            "second_half": { "rss_bytes": trend(self.memory()), "descriptors": trend(self.descriptors()) },
            "samples": self.samples.iter().map(|s| json!([s.at.as_secs(), s.pid, s.rss_bytes, s.descriptors])).collect::<Vec<_>>(),
        })
    }
}

fn account(account: &Account) -> Value {
    let failures = account.failures.iter().map(|(kind, count)| (format!("{kind:?}"), json!(count)));
    json!({
        "name": account.name,
        "promise": format!("{:?}", account.promise),
        "ok": account.ok,
        "broken": account.broken(),
        "failures": Value::Object(failures.collect()),
        "connections": account.connections,
        "p99_seconds": account.p99.as_secs_f64(),
        "longest_seconds": account.longest.as_secs_f64(),
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<18} {:>9} {:>7} {:>7} {:>12} {:>8} {:>9}",
            "load", "ok", "failed", "broken", "connections", "p99 ms", "most ms"
        )?;
        for account in &self.accounts {
            let failed: usize = account.failures.values().sum();
            let Account { name, ok, connections, p99, longest, .. } = account;
            let promise = match account.promise {
                Promise::NothingFails => "",
                Promise::NothingIsWrong => "  may fail, for nobody may send them twice",
            };
            writeln!(
                f,
                "{name:<18} {ok:>9} {failed:>7} {:>7} {connections:>12} {:>8} {:>9}{promise}",
                account.broken(),
                p99.as_millis(),
                longest.as_millis()
            )?;
        }
        let SocketAccount { messages, breaks, .. } = self.sockets;
        writeln!(f, "{:<18} {messages:>9} {breaks:>7}", "WebSocket messages")?;
        let events: Vec<_> =
            self.chaos.done.iter().map(|(event, count)| format!("{count} {event:?}")).collect();
        writeln!(f, "\nevents in {:.0} s: {}", self.took.as_secs_f64(), events.join(", "))?;
        let (memory, descriptors) = (self.memory(), self.descriptors());
        writeln!(
            f,
            "second half: memory {:.1} MiB, grew {:+.2}, in calm {:+.2} (allowed {:.1}); \
             descriptors {:.0}, grew {:+.1}, in calm {:+.1} (allowed {:.0})",
            memory.mean / MIB,
            memory.growth / MIB,
            memory.left / MIB,
            memory.allowed / MIB,
            descriptors.mean,
            descriptors.growth,
            descriptors.left,
            descriptors.allowed
        )?;
        let complaints = self.complaints();
        if complaints.is_empty() {
            return write!(f, "passed: every promise held");
        }
        writeln!(f, "FAILED, seed {}:", self.seed)?;
        for complaint in complaints {
            writeln!(f, "  {complaint}")?;
        }
        write!(f, "{}", self.last_words)
    }
}
