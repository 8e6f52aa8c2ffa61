//! What is known of the servers, and the keys of TLS sessions, as a document for the process that follows.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lb_control::Services;
use lb_core::balance::Service;
use lb_core::health::{AdminState, Memory, Status};
use lb_core::operator::OperatorState;
use lb_proxy::TicketKey;
use serde::{Deserialize, Serialize};

/// Not to be printed: there are keys in it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct LiveState {
    servers: Vec<ServerState>,
    #[serde(default)]
    orders: Vec<Order>,
    #[serde(default)]
    ticket_keys: Vec<SharedKey>,
    /// What the provider `rest` was sent last.
    #[serde(default)]
    rest: Option<String>,
}

/// See [`TicketKey`].
#[derive(Serialize, Deserialize)]
struct SharedKey {
    name: [u8; 16],
    secret: [u8; 32],
    age_ms: u64,
}

/// One server of one service. Times are ages in milliseconds: clocks of processes are not to be compared.
#[derive(Debug, Serialize, Deserialize)]
struct ServerState {
    service: String,
    url: String,
    status: String,
    streak: u32,
    since_ms: u64,
    appeared_ms: u64,
    starting: bool,
}

/// See [`OperatorState`]. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    service: String,
    url: String,
    state: String,
    since_ms: u64,
    until_ms: Option<u64>,
    by: String,
}

impl Order {
    fn of(told: OperatorState) -> Self {
        let since = |time: SystemTime| millis(time.duration_since(UNIX_EPOCH).unwrap_or_default());
        let OperatorState { service, url, state, until, by, .. } = told;
        let state = state.word().to_owned();
        Self { service, url, state, since_ms: since(told.since), until_ms: until.map(since), by }
    }

    /// `None` for a state of a later version.
    fn told(self) -> Option<OperatorState> {
        let time = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let Self { service, url, state, since_ms, until_ms, by } = self;
        let state = AdminState::from_word(&state)?;
        Some(OperatorState { service, url, state, since: time(since_ms), until: until_ms.map(time), by })
    }
}

/// A server that its service lets back in at some time, unless something else does before.
pub(crate) struct Recovery {
    pub(crate) service: Arc<Service>,
    pub(crate) index: usize,
    pub(crate) after: Duration,
}

impl Recovery {
    pub(crate) async fn run(self) {
        tokio::time::sleep(self.after).await;
        self.service.passive_recover(self.index, tokio::time::Instant::now().into_std());
    }
}

const STATUSES: [(Status, &str); 3] =
    [(Status::Healthy, "healthy"), (Status::Degraded, "degraded"), (Status::Unhealthy, "unhealthy")];

impl LiveState {
    /// `services` are those of HTTP and of TCP: they may have one name, but no address is a URL.
    pub(crate) fn record(
        services: [&Services; 2],
        orders: impl IntoIterator<Item = OperatorState>,
        ticket_keys: Vec<TicketKey>,
        now: Instant,
    ) -> Self {
        let of_service = |(name, service): (&String, &Arc<Service>)| {
            let servers = service.servers().map(|(server, _)| {
                let Memory { status, streak, since, appeared, starting } = server.memory(now);
                ServerState {
                    service: name.clone(),
                    url: server.url().to_owned(),
                    status: word(&STATUSES, status),
                    streak,
                    since_ms: millis(since),
                    appeared_ms: millis(appeared),
                    starting,
                }
            });
            servers.collect::<Vec<_>>()
        };
        let shared = |TicketKey { name, secret, age }| SharedKey { name, secret, age_ms: millis(age) };
        Self {
            servers: services.into_iter().flatten().flat_map(of_service).collect(),
            orders: orders.into_iter().map(Order::of).collect(),
            ticket_keys: ticket_keys.into_iter().map(shared).collect(),
            rest: None,
        }
    }

    pub(crate) fn with_rest(self, rest: Option<String>) -> Self {
        Self { rest, ..self }
    }

    /// What the provider `rest` was sent last, to be taken once.
    pub(crate) fn rest(&mut self) -> Option<String> {
        self.rest.take()
    }

    /// What operators want of servers, to be taken once.
    pub(crate) fn orders(&mut self) -> Vec<OperatorState> {
        std::mem::take(&mut self.orders).into_iter().filter_map(Order::told).collect()
    }

    /// Keys of TLS session tickets, to be taken once.
    pub(crate) fn ticket_keys(&mut self) -> Vec<TicketKey> {
        let keys = std::mem::take(&mut self.ticket_keys).into_iter();
        let key = |SharedKey { name, secret, age_ms }| TicketKey {
            name,
            secret,
            age: Duration::from_millis(age_ms),
        };
        keys.map(key).collect()
    }

    /// Goes on with what is recorded of the servers that there still are; the rest is forgotten.
    pub(crate) fn recall(&self, services: [&Services; 2], now: Instant) -> Vec<Recovery> {
        let mut recoveries = Vec::new();
        for known in &self.servers {
            let index_in =
                |service: &Service| service.servers().position(|(server, _)| server.url() == known.url);
            let mut named = services.iter().filter_map(|services| services.get(&known.service));
            let Some((service, index)) = named.find_map(|service| Some((service, index_in(service)?))) else {
                continue;
            };
            let Some(status) = meaning(&STATUSES, &known.status) else { continue };
            let [since, appeared] = [known.since_ms, known.appeared_ms].map(Duration::from_millis);
            let memory = Memory { status, streak: known.streak, since, appeared, starting: known.starting };
            if let Some(after) = service.recall(index, memory, now) {
                recoveries.push(Recovery { service: Arc::clone(service), index, after });
            }
        }
        recoveries
    }
}

fn word<T: PartialEq>(words: &[(T, &str)], meant: T) -> String {
    let found = words.iter().find(|(meaning, _)| *meaning == meant);
    found.map(|(_, word)| (*word).to_owned()).unwrap_or_default()
}

/// `None` for a word of a later version.
fn meaning<T: Copy>(words: &[(T, &str)], word: &str) -> Option<T> {
    words.iter().find(|(_, known)| *known == word).map(|(meaning, _)| *meaning)
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use lb_core::balance::{MemberSpec, Settings};
    use lb_core::health::{self, PassiveSettings, Probe};
    use std::num::NonZeroU32;

    use super::*;

    fn services(settings: Settings, urls: &[&str], now: Instant) -> Services {
        let member = |url: &&str| MemberSpec { url: (*url).to_owned(), weight: 1 };
        let members: Vec<_> = urls.iter().map(member).collect();
        let service = Service::new("app@file", settings, &members, None, now);
        Services::from([("app@file".to_owned(), Arc::new(service))])
    }

    fn states(services: &Services) -> Vec<(&str, Status)> {
        let servers = services["app@file"].servers();
        servers.map(|(server, _)| (server.url(), server.status())).collect()
    }

    #[test]
    fn health_and_operator_states_pass_through_the_document() {
        let now = tokio::time::Instant::now().into_std();
        let checked = Settings { active: Some(health::Settings::default()), ..Settings::default() };
        let old = services(checked, &["http://a", "http://b", "http://gone"], now);
        let app = &old["app@file"];
        app.observe_probe(0, Probe::Failed, now);
        app.observe_probe(2, Probe::Failed, now);
        let since = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let order = OperatorState {
            service: "app@file".to_owned(),
            url: "http://b".to_owned(),
            state: AdminState::Drain,
            since,
            until: Some(since + Duration::from_secs(600)),
            by: "alice".to_owned(),
        };
        let old_tcp = services(checked, &["a:5432"], now);
        old_tcp["app@file"].observe_probe(0, Probe::Failed, now);
        let live = LiveState::record([&old, &old_tcp], [order.clone()], Vec::new(), now);
        let text = serde_json::to_string(&live).unwrap();

        let later = now + Duration::from_secs(5);
        let new = services(checked, &["http://new", "http://b", "http://a"], later);
        let mut live: LiveState = serde_json::from_str(&text).unwrap();
        assert_eq!(live.orders(), [order]);
        let new_tcp = services(checked, &["a:5432"], later);
        assert!(live.recall([&new, &new_tcp], later).is_empty());
        assert_eq!(states(&new_tcp), [("a:5432", Status::Unhealthy)]);
        assert_eq!(
            states(&new),
            [("http://new", Status::Healthy), ("http://b", Status::Healthy), ("http://a", Status::Unhealthy)]
        );
    }

    #[test]
    fn what_the_passive_check_took_out_has_a_way_back() {
        let now = tokio::time::Instant::now().into_std();
        let window = Duration::from_secs(10);
        let passive = PassiveSettings { failure_window: window, max_failed_attempts: NonZeroU32::MIN };
        let settings = Settings { passive: Some(passive), ..Settings::default() };
        let old = services(settings, &["http://a"], now);
        assert!(old["app@file"].observe_response(0, true, now).is_some());
        let new = services(settings, &["http://a"], now);
        let live = LiveState::record([&old, &Services::new()], [], Vec::new(), now + Duration::from_secs(4));
        let recoveries = live.recall([&new, &Services::new()], now + Duration::from_secs(4));
        assert_eq!(states(&new)[0].1, Status::Unhealthy);
        assert_eq!(recoveries[0].after, Duration::from_secs(6));
        recoveries[0].service.passive_recover(recoveries[0].index, now + window);
        assert_eq!(states(&new)[0].1, Status::Healthy);
    }

    #[test]
    fn words_of_a_later_version_are_skipped() {
        let now = tokio::time::Instant::now().into_std();
        let checked = Settings { active: Some(health::Settings::default()), ..Settings::default() };
        let new = services(checked, &["http://a"], now);
        let text = r#"{"later": 1, "servers": [{"service": "app@file", "url": "http://a", "status": "asleep",
            "streak": 0, "since_ms": 1, "appeared_ms": 1, "starting": false, "mood": "fine"}], "orders": [{"service": "app@file", "url": "http://a", "state": "gone",
            "since_ms": 1, "until_ms": null, "by": "bob"}]}"#;
        let mut live: LiveState = serde_json::from_str(text).unwrap();
        live.recall([&new, &Services::new()], now);
        assert_eq!(live.orders(), []);
        assert_eq!(states(&new)[0].1, Status::Healthy);
    }
}
