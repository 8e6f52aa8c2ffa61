//! UDP: flows of clients to servers and back, while servers, configurations and processes come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lb_testkit::{PATIENCE, eventually};
use rustix::process::Signal;
use tokio::net::UdpSocket;

use super::dynasty::Dynasty;
use crate::harness::Vigie;

const FIXED: &str = "
core: {workers: 2}
entryPoints:
  web: {address: '127.0.0.1:0'}
  dns: {address: '127.0.0.1:0/udp', udp: {timeout: 10s}}
  traefik: {address: '127.0.0.1:0'}
providers: {file: {filename: '{dir}/dynamic.yml'}}
api: {insecure: true}
metrics: {prometheus: {}}
log: {level: INFO}
";

fn fixed(entry_point: &str) -> String {
    FIXED.replace("udp: {timeout: 10s}", entry_point)
}

/// Answers `name source-port what-it-was-told`.
struct Echo {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Echo {
    async fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::Relaxed);
                let mut answer = format!("{name} {} ", from.port()).into_bytes();
                answer.extend_from_slice(&buffer[..length.min(60_000)]);
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, seen, task }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Client(UdpSocket);

impl Client {
    async fn of(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        Self(socket)
    }

    /// `None`: no answer within this time.
    async fn try_ask(&self, what: &[u8], within: Duration) -> Option<Vec<u8>> {
        self.0.send(what).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = tokio::time::timeout(within, self.0.recv(&mut buffer)).await.ok()?.ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// Who answers, and the port that it was asked from.
    async fn ask(&self) -> (String, String) {
        let answer = self.try_ask(b"hello", PATIENCE).await.expect("an answer");
        let text = String::from_utf8(answer).unwrap();
        let mut words = text.split(' ').map(str::to_owned);
        let found = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(words.next().as_deref(), Some("hello"));
        found
    }
}

/// A service of these servers, for every UDP entry point.
fn servers(addresses: &[String]) -> String {
    let list: Vec<_> = addresses.iter().map(|address| format!("{{address: '{address}'}}")).collect();
    format!(
        "udp: {{routers: {{r: {{service: s}}}}, services: {{s: {{loadBalancer: {{servers: [{}]}}}}}}}}",
        list.join(", ")
    )
}

fn names(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn clients_have_a_server_each_and_keep_it() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let two_by_name = two.address.to_string().replace("127.0.0.1", "localhost");
    let vigie = Vigie::with(FIXED, &servers(&[one.address.to_string(), two_by_name])).await;
    let dns = vigie.address("dns");
    let mut clients = Vec::new();
    let mut first = Vec::new();
    for _ in 0..4 {
        let client = Client::of(dns).await;
        first.push(client.ask().await);
        clients.push(client);
    }
    assert_eq!(names(&first), ["one", "two", "one", "two"]);
    for (client, found) in clients.iter().zip(&first) {
        assert_eq!(client.ask().await, *found, "the same server, asked from the same port");
    }
    // Large ones, and one that says nothing.
    let large = clients[0].try_ask(&[b'x'; 60_000], PATIENCE).await.unwrap();
    assert!(large.len() > 60_000 && large.ends_with(b"xxx"));
    assert!(clients[1].try_ask(b"", PATIENCE).await.unwrap().starts_with(b"two "));

    let of_dns = [("entrypoint", "dns")];
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_udp_flows", &of_dns), Some(4.0));
    assert_eq!(metrics.value("lb_udp_flows_total", &of_dns), Some(4.0));
    for direction in ["in", "out"] {
        let labels = [("entrypoint", "dns"), ("direction", direction)];
        assert_eq!(metrics.value("lb_udp_datagrams_total", &labels), Some(10.0));
        assert!(metrics.value("lb_udp_bytes_total", &labels).unwrap() > 60_000.0);
    }
    let router = vigie.json("/api/udp/routers/r@file").await;
    assert_eq!((&router["using"], &router["status"]), (&serde_json::json!(["dns"]), &"enabled".into()));
    assert_eq!(vigie.json("/api/overview").await["udp"]["services"]["total"], 1);
}

#[tokio::test]
async fn a_flow_ends_when_nobody_says_anything() {
    let one = Echo::start("one").await;
    let text = servers(&[one.address.to_string()]);
    let vigie = Vigie::with(&fixed("udp: {timeout: 300ms}"), &text).await;
    let client = Client::of(vigie.address("dns")).await;
    let (_, port) = client.ask().await;
    let of_dns = [("entrypoint", "dns")];
    vigie.until_metric("lb_udp_flows", &of_dns, 0.0).await;
    assert_ne!(client.ask().await.1, port, "another socket");
    assert_eq!(vigie.metrics().await.value("lb_udp_flows_total", &of_dns), Some(2.0));
}

#[tokio::test]
async fn reloads_are_for_new_flows() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let vigie = Vigie::with(FIXED, &servers(&[one.address.to_string()])).await;
    let old = Client::of(vigie.address("dns")).await;
    let found = old.ask().await;
    vigie.write(&servers(&[two.address.to_string()]));
    let reloaded =
        eventually(PATIENCE, async || Client::of(vigie.address("dns")).await.ask().await.0 == "two");
    assert!(reloaded.await, "{}", vigie.words());
    assert_eq!(old.ask().await, found, "its flow goes on");
    // A service that is broken keeps its last good version.
    vigie.write(
        "udp: {routers: {r: {service: s}}, services: {s: {loadBalancer: {servers: [{address: nowhere}]}}}}",
    );
    vigie.until_said("the UDP service s@file is in quarantine").await;
    assert_eq!(Client::of(vigie.address("dns")).await.ask().await.0, "two");
}

#[tokio::test]
async fn a_server_that_is_gone_loses_its_flows() {
    let (one, two) = (Echo::start("one").await, Echo::start("two").await);
    let vigie = Vigie::with(FIXED, &servers(&[one.address.to_string(), two.address.to_string()])).await;
    let client = Client::of(vigie.address("dns")).await;
    assert_eq!(client.ask().await.0, "one");
    drop(one);
    // One datagram finds out, as with any UDP client; whoever asks again is served.
    let mut asked = 0;
    let served = eventually(PATIENCE, async || {
        asked += 1;
        client
            .try_ask(b"hello", Duration::from_millis(300))
            .await
            .is_some_and(|answer| answer.starts_with(b"two"))
    });
    assert!(served.await);
    assert!(asked <= 3, "{asked}");
    let dropped = [("entrypoint", "dns"), ("reason", "unreachable")];
    assert!(vigie.metrics().await.value("lb_udp_dropped_total", &dropped) >= Some(1.0));
}

#[tokio::test]
async fn strangers_take_up_no_more_than_there_are_flows() {
    let one = Echo::start("one").await;
    let text = servers(&[one.address.to_string()]);
    let vigie = Vigie::with(&fixed("limits: {connections: 2}, udp: {timeout: 10s}"), &text).await;
    let clients = [
        Client::of(vigie.address("dns")).await,
        Client::of(vigie.address("dns")).await,
        Client::of(vigie.address("dns")).await,
    ];
    clients[0].ask().await;
    clients[1].ask().await;
    assert_eq!(clients[2].try_ask(b"hello", Duration::from_millis(200)).await, None);
    clients[0].ask().await;
    let dropped = [("entrypoint", "dns"), ("reason", "connection_limit")];
    assert_eq!(vigie.metrics().await.value("lb_udp_dropped_total", &dropped), Some(1.0));
    assert_eq!(one.seen(), 3);
    vigie.until_said("UDP datagrams are dropped").await;
}

#[tokio::test]
async fn without_a_router_nothing_answers() {
    let vigie = Vigie::with(FIXED, "udp: {}").await;
    let client = Client::of(vigie.address("dns")).await;
    assert_eq!(client.try_ask(b"hello", Duration::from_millis(100)).await, None);
    let dropped = [("entrypoint", "dns"), ("reason", "no_server")];
    assert_eq!(vigie.metrics().await.value("lb_udp_dropped_total", &dropped), Some(1.0));
}

/// Whoever has a flow is served to its end, others are not.
#[tokio::test]
async fn a_stop_lets_flows_end() {
    let one = Echo::start("one").await;
    let text = servers(&[one.address.to_string()]);
    let mut vigie = Vigie::with(&fixed("udp: {timeout: 1500ms}"), &text).await;
    let client = Client::of(vigie.address("dns")).await;
    let found = client.ask().await;
    vigie.signal(Signal::TERM);
    vigie.until_said("stopping").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(client.ask().await, found);
    let stranger = Client::of(vigie.address("dns")).await;
    assert_eq!(stranger.try_ask(b"hello", Duration::from_millis(200)).await, None);
    assert!(vigie.ended(PATIENCE).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_keep_the_socket() {
    let one = Echo::start("one").await;
    let mut vigie = Dynasty::found(FIXED, &servers(&[one.address.to_string()])).await;
    let address = vigie.address("dns");
    let asking = tokio::spawn(async move {
        let mut asked = 0;
        loop {
            let client = Client::of(address).await;
            for _ in 0..5 {
                let answer = client.try_ask(b"hello", Duration::from_secs(2)).await;
                assert!(answer.is_some_and(|answer| answer.starts_with(b"one")), "{asked}: no answer");
                asked += 1;
            }
        }
    });
    for _ in 0..4 {
        let before = one.seen();
        vigie.upgrade().await;
        assert!(eventually(PATIENCE, async || one.seen() > before + 20 || asking.is_finished()).await);
    }
    assert!(!asking.is_finished(), "a datagram was lost");
    asking.abort();
    assert_eq!(vigie.metric("lb_upgrades_total").await, Some(4.0));
}
