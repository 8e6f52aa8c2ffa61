//! `providers.redis`, `providers.etcd` and `providers.consul`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_testkit::{Client, Files, Origin, PATIENCE, Script, VigieProcess, eventually, reserve_address};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::agent::{Agent, Data, TOKEN};
use super::{start, until_routers, until_stale};
use crate::harness::Vigie;

/// A store that runs, and an address that it keeps.
struct Store {
    kind: Kind,
    address: SocketAddr,
    peers: SocketAddr,
    files: Files,
    process: Option<VigieProcess>,
    /// Of Consul, by name of the data.
    agents: HashMap<String, Data>,
    agent: Option<(Agent, Data)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With this `notify-keyspace-events`.
    Redis(&'static str),
    Etcd,
    Consul,
}

impl Store {
    async fn start(kind: Kind) -> Self {
        let (address, peers, files) = (reserve_address(), reserve_address(), Files::new());
        let mut store =
            Self { kind, address, peers, files, process: None, agents: HashMap::new(), agent: None };
        store.resume("first").await;
        store
    }

    /// What was stored under another name of the data is not there.
    async fn resume(&mut self, data: &str) {
        if self.kind == Kind::Consul {
            let data = Data::clone(self.agents.entry(data.to_owned()).or_default());
            self.agent = Some((Agent::start(self.address, Data::clone(&data)).await, data));
            self.set(&[("ready", "yes")]).await;
            return;
        }
        let mut command = self.command(&self.files.path().join(data));
        let mut process = VigieProcess::spawn(&mut command).expect("it is installed");
        process.wait_ready(self.address).await.expect("it listens");
        self.process = Some(process);
        assert!(eventually(PATIENCE, async || self.try_set("ready", "yes").await).await, "it takes keys");
    }

    fn command(&self, data: &Path) -> Command {
        std::fs::create_dir_all(data).expect("a directory");
        match self.kind {
            Kind::Redis(events) => {
                let mut command = Command::new("redis-server");
                command.args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &self.address.port().to_string(),
                    "--save",
                    "",
                ]);
                command.args(["--notify-keyspace-events", events, "--appendonly", "yes", "--dir"]).arg(data);
                command.args(["--requirepass", "hush"]);
                command
            }
            Kind::Etcd => {
                let (clients, peers) = (format!("http://{}", self.address), format!("http://{}", self.peers));
                let mut command = Command::new("etcd");
                command.arg("--data-dir").arg(data).args(["--listen-client-urls", &clients]);
                command.args(["--advertise-client-urls", &clients, "--listen-peer-urls", &peers]);
                command.args(["--initial-advertise-peer-urls", &peers, "--initial-cluster"]);
                command.arg(format!("default={peers}"));
                command
            }
            Kind::Consul => unreachable!("it is no program"),
        }
    }

    async fn stop(&mut self) {
        if self.agent.take().is_some() {
            return;
        }
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::TERM).unwrap();
        process.ended(PATIENCE).await.unwrap();
    }

    fn provider(&self) -> String {
        match self.kind {
            Kind::Redis(_) => format!("{{redis: {{endpoints: '{}', password: hush}}}}", self.address),
            Kind::Etcd => format!("{{etcd: {{endpoints: '{}'}}}}", self.address),
            Kind::Consul => format!("{{consul: {{endpoints: '{}', token: {TOKEN}}}}}", self.address),
        }
    }

    async fn set(&self, pairs: &[(&str, &str)]) {
        for (key, value) in pairs {
            assert!(self.try_set(key, value).await, "{key}");
        }
    }

    async fn delete(&self, keys: &[&str]) {
        for key in keys {
            let done = match self.kind {
                Kind::Redis(_) => self.redis(&["DEL", key]).await.is_some_and(|answer| answer == ":1\r\n"),
                Kind::Etcd => {
                    let key = STANDARD.encode(key);
                    let body = format!(r#"{{"key": "{key}"}}"#);
                    self.etcd("/v3/kv/deleterange", &body)
                        .await
                        .is_some_and(|answer| answer.contains("deleted"))
                }
                Kind::Consul => self.consul(key, None),
            };
            assert!(done, "{key}");
        }
    }

    async fn try_set(&self, key: &str, value: &str) -> bool {
        match self.kind {
            Kind::Redis(_) => {
                self.redis(&["SET", key, value]).await.is_some_and(|answer| answer == "+OK\r\n")
            }
            Kind::Etcd => {
                let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
                let body = format!(r#"{{"key": "{key}", "value": "{value}"}}"#);
                self.etcd("/v3/kv/put", &body).await.is_some_and(|answer| answer.contains("revision"))
            }
            Kind::Consul => self.consul(key, Some(value)),
        }
    }

    fn consul(&self, key: &str, value: Option<&str>) -> bool {
        let (_, data) = self.agent.as_ref().expect("it runs");
        data.send_modify(|state| {
            state.index += 1;
            match value {
                Some(value) => state.keys.insert(key.to_owned(), value.to_owned()),
                None => state.keys.remove(key),
            };
        });
        true
    }

    async fn redis(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let mut command = format!("*2\r\n$4\r\nAUTH\r\n$4\r\nhush\r\n*{}\r\n", words.len());
        words.iter().for_each(|word| command.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        stream.write_all(command.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        while answer.iter().filter(|byte| **byte == b'\n').count() < 2 {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
        String::from_utf8(answer).ok()?.strip_prefix("+OK\r\n").map(str::to_owned)
    }

    async fn etcd(&self, path: &str, body: &str) -> Option<String> {
        let mut client = Client::connect(self.address).await.ok()?;
        let answer = client.request("POST", "localhost", path, &[], Some(body.as_bytes())).await.ok()?;
        (answer.status == 200).then(|| answer.text().to_owned())
    }
}

/// Keys of a router of this name.
fn router(name: &str) -> [(String, String); 2] {
    let key = |field: &str| format!("traefik/http/routers/{name}/{field}");
    [(key("rule"), format!("Path(`/{name}`)")), (key("service"), "noop@internal".to_owned())]
}

async fn set_router(store: &Store, name: &str) {
    let pairs = router(name);
    store.set(&[(&pairs[0].0, &pairs[0].1), (&pairs[1].0, &pairs[1].1)]).await;
}

async fn delete_router(store: &Store, name: &str) {
    let pairs = router(name);
    store.delete(&[&pairs[0].0, &pairs[1].0]).await;
}

/// The whole life of a store beside a proxy that follows it.
async fn follow(kind: Kind, name: &str) {
    let mut store = Store::start(kind).await;
    set_router(&store, "a").await;
    let vigie = start(&store.provider()).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    until_stale(&vigie, name, false).await;
    // Changes are followed, those of others are not.
    set_router(&store, "b").await;
    store.set(&[("traefik/acme/account", "x"), ("traefikother/http/routers/c/rule", "x")]).await;
    until_routers(&vigie, name, &["a", "b"]).await;
    store
        .set(&[
            ("traefik/http/routers/b/middlewares/0", "p"),
            ("traefik/http/middlewares/p/addPrefix/prefix", "/x"),
        ])
        .await;
    let held = eventually(PATIENCE, async || {
        let shown = vigie.json(&format!("/api/http/routers/b@{name}")).await;
        shown["middlewares"] == serde_json::json!([format!("p@{name}")])
    });
    assert!(held.await, "{}", vigie.words());
    delete_router(&store, "b").await;
    store
        .delete(&["traefik/http/routers/b/middlewares/0", "traefik/http/middlewares/p/addPrefix/prefix"])
        .await;
    until_routers(&vigie, name, &["a"]).await;
    // What is no configuration is refused, and told with its key.
    store.set(&[("traefik/http/routrs/a/rule", "x")]).await;
    let told = format!("{name} {}: traefik/http/routrs: there is no key `routrs` here", store.address);
    vigie.until_said(&told).await;
    until_stale(&vigie, name, true).await;
    store.delete(&["traefik/http/routrs/a/rule"]).await;
    until_stale(&vigie, name, false).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    outage(&mut store, &vigie, name).await;
    // A tree that is really empty is applied.
    set_router(&store, "d").await;
    until_routers(&vigie, name, &["d"]).await;
    delete_router(&store, "d").await;
    until_routers(&vigie, name, &[]).await;
    until_stale(&vigie, name, false).await;
}

/// A store that goes, comes back as it was, goes, and comes back with nothing in it.
async fn outage(store: &mut Store, vigie: &Vigie, name: &str) {
    store.stop().await;
    until_stale(vigie, name, true).await;
    vigie.until_said("the store cannot be reached: Connection refused").await;
    assert_eq!(vigie.get("/a").await.status, 418);
    store.resume("first").await;
    until_stale(vigie, name, false).await;
    set_router(store, "c").await;
    until_routers(vigie, name, &["a", "c"]).await;
    store.stop().await;
    until_stale(vigie, name, true).await;
    store.resume("second").await;
    until_stale(vigie, name, true).await;
    assert_eq!(vigie.get("/a").await.status, 418);
}

#[tokio::test]
async fn keys_of_redis_are_followed_and_stay_in_force_while_it_is_away() {
    follow(Kind::Redis("KEA"), "redis").await;
}

#[tokio::test]
async fn keys_of_etcd_are_followed_and_stay_in_force_while_it_is_away() {
    follow(Kind::Etcd, "etcd").await;
}

#[tokio::test]
async fn keys_of_consul_are_followed_and_stay_in_force_while_it_is_away() {
    follow(Kind::Consul, "consul").await;
}

#[tokio::test]
async fn a_redis_that_tells_nothing_is_looked_at() {
    let store = Store::start(Kind::Redis("")).await;
    let vigie = start(&store.provider()).await;
    vigie.until_said("CONFIG SET notify-keyspace-events KEA").await;
    set_router(&store, "a").await;
    until_routers(&vigie, "redis", &["a"]).await;
}

#[tokio::test]
async fn stores_that_come_later_are_found() {
    for (kind, name) in [(Kind::Redis("KEA"), "redis"), (Kind::Etcd, "etcd"), (Kind::Consul, "consul")] {
        let mut store = Store::start(kind).await;
        set_router(&store, "a").await;
        store.stop().await;
        let vigie = start(&store.provider()).await;
        assert_eq!(vigie.get("/a").await.status, 404);
        store.resume("first").await;
        until_routers(&vigie, name, &["a"]).await;
        until_stale(&vigie, name, false).await;
    }
}

#[tokio::test]
async fn a_store_that_came_back_empty_is_believed_when_told_so() {
    let mut store = Store::start(Kind::Redis("KEA")).await;
    set_router(&store, "a").await;
    let vigie = start(&store.provider()).await;
    store.stop().await;
    until_stale(&vigie, "redis", true).await;
    store.resume("second").await;
    vigie.signal(Signal::HUP);
    until_routers(&vigie, "redis", &[]).await;
    until_stale(&vigie, "redis", false).await;
}

#[tokio::test]
async fn a_wrong_password_is_told() {
    let store = Store::start(Kind::Redis("KEA")).await;
    let vigie = start(&store.provider().replace("hush", "loud")).await;
    vigie.until_said("the store gives no keys: ").await;
    assert!(!vigie.words().contains("loud"), "{}", vigie.words());
    let store = Store::start(Kind::Consul).await;
    let vigie = start(&store.provider().replace("hush", "loud")).await;
    vigie.until_said("the store answered with status 403 Forbidden: Permission denied").await;
    assert!(!vigie.words().contains("loud"), "{}", vigie.words());
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_left_for_the_next_one() {
    let sick = Origin::with("a member without a leader", |_| Script::status(503)).await;
    for (kind, name) in [(Kind::Etcd, "etcd"), (Kind::Consul, "consul")] {
        let store = Store::start(kind).await;
        set_router(&store, "a").await;
        let both = format!("endpoints: '{},", sick.address());
        let vigie = start(&store.provider().replace("endpoints: '", &both)).await;
        until_routers(&vigie, name, &["a"]).await;
        until_stale(&vigie, name, false).await;
    }
}
