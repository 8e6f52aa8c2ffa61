//! What hosts are aliases of, where rules are to see that (`hostResolver.cnameFlattening`): asked once, kept for a while.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lb_observe::metrics::{LabelId, Metrics};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

/// Hosts that are kept: clients can invent as many as they like. Chosen.
const MOST: usize = 10_000;
/// Questions that are out at a time. Chosen.
const AT_A_TIME: usize = 256;
/// For an answer, as long as a request is worth holding up: then it is routed by its own host. Chosen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is kept that a host is no alias, and that nobody knows. Chosen.
const NONE: Duration = Duration::from_secs(60);
const UNKNOWN: Duration = Duration::from_secs(5);
/// Between two failures that the log tells. Chosen.
const SILENCE: Duration = Duration::from_secs(60);
/// Bounds for what records say of themselves. Chosen; a request is not to ask each time.
const LEAST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// What an alias leads to, and for how long; `None`: it is none.
pub type Alias = Option<(String, Duration)>;

/// Whoever asks name servers.
pub trait Aliases: Send + Sync {
    /// Where the aliases of `host` lead to; the error is told in the log.
    fn follow(&self, host: &str) -> Pin<Box<dyn Future<Output = Result<Alias, String>> + Send>>;
}

/// Of all workers.
pub(crate) struct KnownAliases {
    source: Arc<dyn Aliases>,
    known: Mutex<HashMap<Box<str>, Arc<OnceCell<Known>>>>,
    questions: Semaphore,
    /// When a failure was told last.
    told: Mutex<Option<Instant>>,
}

struct Known {
    alias: Option<Arc<str>>,
    until: Instant,
}

impl KnownAliases {
    pub(crate) fn new(source: Arc<dyn Aliases>) -> Self {
        Self { source, known: Mutex::default(), questions: Semaphore::new(AT_A_TIME), told: Mutex::default() }
    }

    /// What the canonical `host` is an alias of. Requests for one host wait for one answer.
    pub(crate) async fn of(&self, host: &str, metrics: &Metrics, entry_point: LabelId) -> Option<Arc<str>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() || host.parse::<std::net::IpAddr>().is_ok() {
            return None;
        }
        let cell = self.cell(host);
        let known = cell.get_or_init(|| async {
            let (found, kept) = self.ask(host).await;
            metrics.alias_asked(entry_point, found.as_ref().map_or_else(|outcome| *outcome, |_| "alias"));
            Known { alias: found.ok(), until: now() + kept }
        });
        known.await.alias.clone()
    }

    fn cell(&self, host: &str) -> Arc<OnceCell<Known>> {
        let now = now();
        let is_fresh = |cell: &Arc<OnceCell<Known>>| cell.get().is_none_or(|known: &Known| now < known.until);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = known.get(host).filter(|cell| is_fresh(cell)) {
            return Arc::clone(cell);
        }
        if known.len() >= MOST {
            known.retain(|_, cell| is_fresh(cell));
            if known.len() >= MOST {
                known.clear();
            }
        }
        let cell = Arc::<OnceCell<Known>>::default();
        known.insert(host.into(), Arc::clone(&cell));
        cell
    }

    /// The alias or why there is none, and how long that is kept.
    async fn ask(&self, host: &str) -> (Result<Arc<str>, &'static str>, Duration) {
        let Ok(_permit) = self.questions.try_acquire() else { return (Err("busy"), Duration::ZERO) };
        match timeout(PATIENCE, self.source.follow(host)).await {
            Ok(Ok(Some((alias, ttl)))) => {
                let alias = alias.to_ascii_lowercase();
                tracing::debug!(host, alias, "The host is an alias");
                (Ok(alias.into()), ttl.clamp(LEAST, LONGEST))
            }
            Ok(Ok(None)) => (Err("none"), NONE),
            Ok(Err(error)) => self.failed(host, &error),
            Err(_) => self.failed(host, "no answer in time"),
        }
    }

    /// Told once in a while: clients invent hosts.
    fn failed(&self, host: &str, error: &str) -> (Result<Arc<str>, &'static str>, Duration) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now() >= told + SILENCE) {
            *told = Some(now());
            tracing::warn!(host, error, "Whether the host is an alias cannot be found out");
        }
        (Err("failed"), UNKNOWN)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// `a.test` is an alias for 10 s, `slow.test` never answers, `bad.test` fails, others are none.
    #[derive(Default)]
    struct Zone {
        asked: AtomicUsize,
    }

    impl Aliases for Arc<Zone> {
        fn follow(&self, host: &str) -> Pin<Box<dyn Future<Output = Result<Alias, String>> + Send>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let host = host.to_owned();
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                match host.as_str() {
                    "a.test" => Ok(Some(("B.test".to_owned(), Duration::from_secs(10)))),
                    "slow.test" => std::future::pending().await,
                    "bad.test" => Err("no name server".to_owned()),
                    _ => Ok(None),
                }
            })
        }
    }

    struct Asking {
        zone: Arc<Zone>,
        aliases: KnownAliases,
        metrics: Metrics,
        entry_point: LabelId,
    }

    impl Asking {
        fn new() -> Self {
            let zone = Arc::<Zone>::default();
            let metrics = Metrics::new(lb_observe::metrics::Settings::default(), 1);
            let entry_point = metrics.label(lb_observe::metrics::Kind::EntryPoint, "web");
            Self { aliases: KnownAliases::new(Arc::new(Arc::clone(&zone))), zone, metrics, entry_point }
        }

        async fn of(&self, host: &str) -> Option<String> {
            self.aliases.of(host, &self.metrics, self.entry_point).await.map(|alias| alias.to_string())
        }

        fn asked(&self) -> usize {
            self.zone.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_as_long_as_it_holds() {
        let hosts = Asking::new();
        let (one, other) = tokio::join!(hosts.of("a.test"), hosts.of("a.test."));
        assert_eq!((one.as_deref(), other.as_deref()), (Some("b.test"), Some("b.test")));
        assert_eq!(hosts.asked(), 1, "who asks meanwhile waits for the same answer");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!((hosts.of("a.test").await.is_some(), hosts.asked()), (true, 1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((hosts.of("a.test").await.is_some(), hosts.asked()), (true, 2));
        for (host, asked) in [("c.test", 3), ("c.test", 3), ("bad.test", 4), ("bad.test", 4)] {
            assert_eq!((hosts.of(host).await, hosts.asked()), (None, asked), "{host}");
        }
        for host in ["", "192.0.2.1", "2001:db8::1"] {
            assert_eq!((hosts.of(host).await, hosts.asked()), (None, 4), "{host}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_is_silent_holds_nobody_up_for_long() {
        let hosts = Asking::new();
        let before = tokio::time::Instant::now();
        assert_eq!(hosts.of("slow.test").await, None);
        assert_eq!(before.elapsed(), PATIENCE);
        assert_eq!(
            (hosts.of("slow.test").await, before.elapsed()),
            (None, PATIENCE),
            "and the next one not at all"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_the_question_to_the_next_one() {
        let hosts = Asking::new();
        let _ = timeout(Duration::from_millis(1), hosts.of("a.test")).await;
        assert_eq!(hosts.of("a.test").await.as_deref(), Some("b.test"));
    }

    #[tokio::test(start_paused = true)]
    async fn invented_hosts_use_up_neither_memory_nor_name_servers() {
        let hosts = Asking::new();
        for n in 0..MOST {
            hosts.aliases.cell(&format!("{n}.test"));
        }
        assert_eq!(hosts.of("a.test").await.as_deref(), Some("b.test"));
        assert!(hosts.aliases.known.lock().unwrap().len() <= MOST);
        let permits = hosts.aliases.questions.acquire_many(AT_A_TIME as u32).await.unwrap();
        assert_eq!((hosts.of("other.test").await, hosts.asked()), (None, 1));
        drop(permits);
        assert_eq!((hosts.of("other.test").await, hosts.asked()), (None, 2), "busy is not kept");
    }
}
