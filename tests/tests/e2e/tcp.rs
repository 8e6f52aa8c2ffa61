//! TCP routers: connections passed on as they are.

mod many;
mod names;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_testkit::{Client, Origin, PATIENCE, eventually, get, reserve_address};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, ToSocketAddrs};

use crate::change::dynasty::Dynasty;
use crate::faults::replicas::full_backlog;
use crate::harness::{HOST, Vigie, origin};

/// An entry point for TCP alone, one for HTTP, and the operator's.
pub(crate) const STATIC: &str = "
core: {workers: 2}
log: {level: DEBUG}
entryPoints:
  db: {address: '127.0.0.1:0'}
  web: {address: '127.0.0.1:0'}
  traefik: {address: '127.0.0.1:0'}
providers: {file: {filename: '{dir}/dynamic.yml'}}
api: {insecure: true}
metrics: {prometheus: {}}
";

/// A server that speaks first, as databases do: it greets, gives back what it gets, and takes its leave at the end.
pub(crate) struct Talker {
    pub(crate) address: SocketAddr,
    /// What each connection has said, in order of their ends.
    heard: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
}

impl Talker {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::at("127.0.0.1:0", name).await
    }

    async fn at(address: impl ToSocketAddrs, name: &'static str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::default();
        let all: Arc<std::sync::Mutex<Vec<Vec<u8>>>> = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let all = Arc::clone(&all);
                tokio::spawn(async move {
                    let (mut said, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
                    let talk = async {
                        stream.write_all(format!("hello {name}\n").as_bytes()).await?;
                        loop {
                            let count = stream.read(&mut buffer).await?;
                            if count == 0 {
                                break;
                            }
                            said.extend_from_slice(&buffer[..count]);
                            stream.write_all(&buffer[..count]).await?;
                        }
                        stream.write_all(format!("bye {name}\n").as_bytes()).await?;
                        stream.shutdown().await
                    };
                    let ended: std::io::Result<()> = talk.await;
                    if ended.is_err() {
                        said.extend_from_slice(b"(aborted)");
                    }
                    all.lock().unwrap().push(said);
                });
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }

    async fn until_heard(&self, count: usize) -> Vec<Vec<u8>> {
        assert!(eventually(PATIENCE, async || self.heard().len() >= count).await, "{:?}", self.heard());
        self.heard()
    }
}

/// One router on `db` for everybody, and a service of these servers.
pub(crate) fn everybody(balancer: &str, servers: &[SocketAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(|server| format!("{{address: '{server}'}}")).collect();
    format!(
        "tcp:\n  routers:\n    all: {{entryPoints: [db], rule: 'HostSNI(`*`)', service: all}}\n  services:\n    \
         all: {{loadBalancer: {{{balancer} servers: [{}]}}}}\n",
        servers.join(", ")
    )
}

pub(crate) async fn greeted(address: SocketAddr) -> (Client, String) {
    let mut client = Client::connect(address).await.unwrap();
    let greeting = client.bytes(8).await.unwrap();
    (client, String::from_utf8(greeting).unwrap())
}

/// Nobody waits for the client to begin, and what comes after its end arrives: half-closed connections are whole.
#[tokio::test]
async fn a_server_may_speak_first_and_last() {
    let server = Talker::start("a").await;
    let vigie = Vigie::with(STATIC, &everybody("", &[server.address])).await;
    let (mut client, greeting) = greeted(vigie.address("db")).await;
    assert_eq!(greeting, "hello a\n");
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");
    client.finish().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"bye a\n");
    assert_eq!(server.until_heard(1).await, [b"ping"]);
    vigie
        .until_metric("lb_tcp_connections_total", &[("service", "all@file"), ("outcome", "done")], 1.0)
        .await;
    vigie.until_metric("lb_tcp_open_connections", &[("service", "all@file")], 0.0).await;
    vigie.until_metric("lb_tcp_bytes_total", &[("service", "all@file"), ("direction", "out")], 18.0).await;
}

/// Many megabytes both ways at once, byte for byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_is_lost_or_mixed_up() {
    let server = Talker::start("a").await;
    let vigie = Vigie::with(STATIC, &everybody("", &[server.address])).await;
    let clients = (0..4_u8).map(|seed| {
        let address = vigie.address("db");
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.into());
            let data: Vec<u8> = (0..6 * 1024 * 1024).map(|_| random.u8(..)).collect();
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (mut read, mut write) = stream.into_split();
            let sent = data.clone();
            let writer = tokio::spawn(async move {
                for piece in sent.chunks(100_001) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            writer.await.unwrap();
            assert!(back == [b"hello a\n", &data[..], b"bye a\n"].concat(), "{} bytes", back.len());
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// Whoever aborts has not ended: the other side must not take what it got for all of it.
#[tokio::test]
async fn an_abort_is_passed_on_as_one() {
    let server = Talker::start("a").await;
    let vigie = Vigie::with(STATIC, &everybody("", &[server.address])).await;
    let (mut client, _) = greeted(vigie.address("db")).await;
    client.send("half").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"half");
    client.reset();
    assert_eq!(server.until_heard(1).await, [b"half(aborted)"]);
    let aborted = [("service", "all@file"), ("outcome", "client_aborted")];
    vigie.until_metric("lb_tcp_connections_total", &aborted, 1.0).await;
}

/// Turns are taken; a server that cannot be reached costs no connection while another can.
#[tokio::test]
async fn an_unreachable_server_costs_nobody_a_connection() {
    let (a, b) = (Talker::start("a").await, Talker::start("b").await);
    let gone = reserve_address();
    let vigie = Vigie::with(STATIC, &everybody("", &[a.address, gone, b.address])).await;
    let mut greetings = Vec::new();
    let start = tokio::time::Instant::now();
    for _ in 0..24 {
        greetings.push(greeted(vigie.address("db")).await.1);
    }
    let count = |name: &str| greetings.iter().filter(|greeting| greeting.contains(name)).count();
    assert!(count(" a") >= 8 && count(" b") >= 8, "{greetings:?}");
    let failed = vigie.metrics().await.value("lb_tcp_dial_failures_total", &[("service", "all@file")]);
    // It is tried again each second, not by each connection.
    let most = 2.0 + start.elapsed().as_secs_f64();
    assert!(failed.is_some_and(|failed| (1.0..=most).contains(&failed)), "{failed:?}");
    vigie.write(&everybody("", &[gone]));
    let closed = eventually(PATIENCE, async || {
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.closes_within(PATIENCE).await
    });
    assert!(closed.await, "with nobody to take it a connection is closed");
}

/// Also where no request of HTTP looks at the clock.
#[tokio::test]
async fn a_server_that_is_back_is_not_passed_over_for_ever() {
    let (gone, b) = (reserve_address(), Talker::start("b").await);
    let vigie = Vigie::with(STATIC, &everybody("", &[gone, b.address])).await;
    let db = vigie.address("db");
    for _ in 0..4 {
        assert_eq!(greeted(db).await.1, "hello b\n");
    }
    let _a = Talker::at(gone, "a").await;
    assert!(eventually(PATIENCE, async || greeted(db).await.1 == "hello a\n").await);
}

/// TCP would go on asking for the 30 s of `dialTimeout`, TLS wait for 10 s.
#[tokio::test]
async fn nobody_waits_for_a_server_that_a_reload_has_removed() {
    let b = Talker::start("b").await;
    let (silent, _listener, _fill) = full_backlog().await;
    // Its system takes connections, and nobody says anything on them.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = everybody("", &[mute.local_addr().unwrap()]).replace("'}", "', tls: true}");
    let silent = everybody("", &[silent]);
    let removed = |text: String| text;
    let renamed = |text: String| {
        text.replace("service: all", "service: other").replace("    all: {load", "    other: {load")
    };
    for (bad, reload) in [(&silent, removed as fn(_) -> _), (&silent, renamed), (&mute, removed)] {
        let vigie = Vigie::with(STATIC, bad).await;
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        vigie.until_metric("traefik_open_connections", &[("entrypoint", "db")], 1.0).await;
        vigie.write(&reload(everybody("", &[b.address])));
        let greeting = tokio::time::timeout(Duration::from_secs(9), client.bytes(8)).await;
        assert_eq!(greeting.expect("it waits for the dial").unwrap(), b"hello b\n");
    }
}

/// Nobody else could be asked.
#[tokio::test]
async fn a_dial_that_takes_its_time_outlives_new_names() {
    let (slow, listener, fill) = full_backlog().await;
    let everybody = everybody("", &[slow]);
    let vigie = Vigie::with(STATIC, &everybody).await;
    let mut client = Client::connect(vigie.address("db")).await.unwrap();
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "db")], 1.0).await;
    let loaded = vigie.metrics().await.value("traefik_config_reloads_total", &[]).unwrap_or_default();
    vigie.write(&everybody.replace(" all:", " new:").replace("service: all", "service: new"));
    vigie.until_metric("traefik_config_reloads_total", &[], loaded + 1.0).await;
    drop(fill);
    let serve = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"hello").await;
            open.push(stream);
        }
    });
    assert_eq!(client.bytes(5).await.unwrap(), b"hello");
    serve.abort();
}

/// A reload takes nothing from who is connected, even where its server or its router is gone.
#[tokio::test]
async fn a_reload_leaves_connections_alone() {
    let (a, b) = (Talker::start("a").await, Talker::start("b").await);
    let vigie = Vigie::with(STATIC, &everybody("", &[a.address])).await;
    let (mut old, _) = greeted(vigie.address("db")).await;
    vigie.write(&everybody("", &[b.address]));
    assert!(eventually(PATIENCE, async || greeted(vigie.address("db")).await.1 == "hello b\n").await);
    old.send("still here").await.unwrap();
    assert_eq!(old.bytes(10).await.unwrap(), b"still here");
    // A file that is broken here and there changes nothing for the rest.
    vigie.write(&everybody("", &[b.address]).replace("service: all}", "service: lost}"));
    vigie.until_said("is in quarantine").await;
    assert_eq!(greeted(vigie.address("db")).await.1, "hello b\n");
    vigie.write("http: {services: {x: {loadBalancer: {servers: []}}}}");
    let gone = eventually(PATIENCE, async || {
        get(vigie.address("db"), HOST, "/").await.is_ok_and(|response| response.status == 404)
    });
    assert!(gone.await, "an entry point without TCP routers speaks HTTP");
    old.finish().await.unwrap();
    assert_eq!(old.rest().await.unwrap(), b"bye a\n");
}

/// Draining waits for connections, as long as the entry point has patience.
#[tokio::test]
async fn a_shutdown_waits_for_connections_as_long_as_it_may() {
    let server = Talker::start("a").await;
    for (grace, ends_by_itself) in [("60s", true), ("300ms", false)] {
        let patience = format!("db: {{transport: {{lifeCycle: {{graceTimeOut: {grace}}}}},");
        let mut vigie =
            Vigie::with(&STATIC.replace("db: {", &patience), &everybody("", &[server.address])).await;
        let (mut client, _) = greeted(vigie.address("db")).await;
        vigie.signal(Signal::TERM);
        let db = vigie.address("db");
        assert!(eventually(PATIENCE, async || Client::connect(db).await.is_err()).await);
        if ends_by_itself {
            client.send("last words").await.unwrap();
            assert_eq!(client.bytes(10).await.unwrap(), b"last words");
            client.finish().await.unwrap();
            assert_eq!(client.rest().await.unwrap(), b"bye a\n");
        }
        assert!(vigie.ended(Duration::from_secs(5)).await.success(), "{}", vigie.words());
        if !ends_by_itself {
            assert!(client.closes_within(Duration::from_secs(5)).await);
        }
    }
}

/// The old process keeps its connections, the new one takes the others.
#[tokio::test]
async fn an_upgrade_leaves_connections_where_they_are() {
    let server = Talker::start("a").await;
    let text = STATIC.replace("web: {", "web: {transport: {lifeCycle: {graceTimeOut: 60s}}, ");
    let dynamic = everybody("", &[server.address]).replace("[db]", "[web]");
    let mut vigie = Dynasty::found(&text, &dynamic).await;
    let (mut old, _) = greeted(vigie.web()).await;
    vigie.upgrade().await;
    let (mut new, _) = greeted(vigie.web()).await;
    for client in [&mut old, &mut new] {
        client.send("one more").await.unwrap();
        assert_eq!(client.bytes(8).await.unwrap(), b"one more");
        client.finish().await.unwrap();
        assert_eq!(client.rest().await.unwrap(), b"bye a\n");
    }
    vigie.until_alone().await;
    vigie.stop().await;
}

/// Who is not for a TCP router speaks HTTP, on the same port; PROXY protocol says who that is.
#[tokio::test]
async fn http_has_what_no_tcp_router_takes() {
    let (server, web) = (Talker::start("a").await, Origin::start("api").await);
    let text = STATIC.replace("web: {", "web: {proxyProtocol: {trustedIPs: [127.0.0.1]}, ");
    let dynamic = format!(
        "{}http: {{routers: {{r: {{rule: 'PathPrefix(`/`)', service: s}}}}, services: {{s: {{loadBalancer: {{servers: \
         [{{url: '{}'}}]}}}}}}}}\n",
        everybody("", &[server.address])
            .replace("[db], rule: 'HostSNI(`*`)'", "[web], rule: 'ClientIP(`192.0.2.0/24`)'"),
        web.url()
    );
    let vigie = Vigie::with(&text, &dynamic).await;
    assert_eq!(origin(&vigie.get("/").await), "api");
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n").await.unwrap();
    assert_eq!(client.bytes(8).await.unwrap(), b"hello a\n");
    // And byte by byte, one that is for HTTP after all.
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let request =
        format!("PROXY TCP4 198.51.100.7 198.51.100.1 1 2\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    client.trickle(request, 7, Duration::from_millis(1)).await.unwrap();
    assert_eq!(client.response("GET").await.unwrap().status, 200);
    assert_eq!(web.last().get("x-forwarded-for"), Some("198.51.100.7"));
}

/// Where others are believed, a stranger's header goes no further, and nobody has to wait for one.
#[tokio::test]
async fn a_header_of_a_stranger_is_stepped_over() {
    let (silent, talker) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Talker::start("a").await);
    let believing = "{proxyProtocol: {trustedIPs: [192.0.2.1]}, ";
    let text =
        STATIC.replace("db: {", &format!("db: {believing}")).replace("web: {", &format!("web: {believing}"));
    let dynamic = format!(
        "tcp:
  routers:
    silent: {{entryPoints: [db], rule: 'HostSNI(`*`)', service: silent}}
    talker: {{entryPoints: [web], rule: 'HostSNI(`*`)', service: talker}}
  services:
    silent: {{loadBalancer: {{servers: [{{address: '{}'}}]}}}}
    talker: {{loadBalancer: {{servers: [{{address: '{}'}}]}}}}
",
        silent.local_addr().unwrap(),
        talker.address
    );
    let vigie = Vigie::with(&text, &dynamic).await;
    for header in ["PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", ""] {
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.trickle(format!("{header}data"), 5, Duration::from_millis(1)).await.unwrap();
        client.finish().await.unwrap();
        let (mut stream, _) = silent.accept().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "data", "{header:?}");
    }
    let mut client = Client::connect(vigie.address("db")).await.unwrap();
    client.send("PROXY nonsense\r\n").await.unwrap();
    assert!(client.closes_within(PATIENCE).await);
    assert_eq!(greeted(vigie.web()).await.1, "hello a\n");
}
