//! What TLS clients want decides whose they are: passed through, ended here, or HTTPS, on one entry point.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use lb_testkit::{Authority, Client, Files, Origin, Script};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{STATIC, Talker};
use crate::harness::{Vigie, origin};

/// Certificates of `authority` for `names`, in the files.
fn certificates(authority: &Authority, files: &Files, names: &[&str]) -> String {
    authority.issue(names).write(files.path(), "own");
    "tls:\n  certificates:\n    - {certFile: '{dir}/own.crt', keyFile: '{dir}/own.key'}\n".to_owned()
}

fn service(name: &str, address: SocketAddr) -> String {
    format!("    {name}: {{loadBalancer: {{servers: [{{address: '{address}'}}]}}}}\n")
}

async fn https(vigie: &Vigie, authority: &Authority, name: &str, alpn: &[&str]) -> anyhow::Result<Client> {
    Client::connect_tls(vigie.address("db"), authority.client_config(alpn), name).await
}

/// The table of dispatch, with a router of each kind on one port.
#[tokio::test]
async fn one_port_serves_every_kind_of_client() {
    let (authority, theirs, files) = (Authority::new("own"), Authority::new("theirs"), Files::new());
    let names = ["ended.test", "web.test", "mqtt.test", "other.test"];
    let own = certificates(&authority, &files, &names);
    let passed = theirs.issue(&["passed.test", "a.wild.test"]);
    let behind = Origin::tls("behind", passed.server_config(&[]), |_| Script::echo()).await;
    let (ended, plain, mqtt, web) = (
        Talker::start("e").await,
        Talker::start("p").await,
        Talker::start("m").await,
        Origin::start("web").await,
    );
    let dynamic = format!(
        "tcp:
  routers:
    passed: {{rule: 'HostSNI(`passed.test`) || HostSNI(`*.wild.test`)', service: behind, tls: {{passthrough: true}}}}
    ended: {{rule: 'HostSNI(`ended.test`) || HostSNI(`web.test`)', service: ended, tls: {{}}}}
    mqtt: {{rule: 'HostSNI(`*`) && ALPN(`mqtt`)', service: mqtt, tls: {{options: mqtt}}}}
    plain: {{rule: 'HostSNI(`*`) && !ClientIP(`192.0.2.0/24`)', service: plain, entryPoints: [db]}}
  services:
{}{}{}{}http:
  routers: {{web: {{rule: 'Host(`web.test`)', service: web, tls: {{}}}}}}
  services: {{web: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
{own}  options: {{mqtt: {{alpnProtocols: [mqtt]}}}}
",
        service("behind", behind.address()),
        service("ended", ended.address),
        service("mqtt", mqtt.address),
        service("plain", plain.address),
        web.url()
    );
    let vigie = Vigie::over(files, STATIC, &dynamic).await;
    // Step 6, passed through: the certificate is that of the server behind.
    for name in ["passed.test", "PASSED.test", "a.wild.test"] {
        let mut client = https(&vigie, &theirs, name, &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(origin(&client.get(name, "/").await.unwrap()), "behind", "{name}");
    }
    // Ended here: plain text behind.
    let mut client = https(&vigie, &authority, "ended.test", &[]).await.unwrap();
    assert_eq!(client.bytes(8).await.unwrap(), b"hello e\n");
    client.send("secret").await.unwrap();
    client.finish().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"secretbye e\n");
    assert_eq!(ended.until_heard(1).await, [b"secret"]);
    // Step 5: a host of an HTTP router is HTTPS, whatever TCP routers say of it.
    let mut client = https(&vigie, &authority, "web.test", &["http/1.1"]).await.unwrap();
    assert_eq!(origin(&client.get("web.test", "/").await.unwrap()), "web");
    // By protocol.
    let mut client = https(&vigie, &authority, "mqtt.test", &["mqtt"]).await.unwrap();
    assert_eq!(client.alpn(), Some(&b"mqtt"[..]));
    assert_eq!(client.bytes(8).await.unwrap(), b"hello m\n");
    // Step 9: nobody's name is HTTPS, which knows no such host.
    let mut client = https(&vigie, &authority, "other.test", &["http/1.1"]).await.unwrap();
    assert_eq!(client.get("other.test", "/").await.unwrap().status, 404);
    // Step 3: without TLS, once it has said something.
    let mut client = Client::connect(vigie.address("db")).await.unwrap();
    client.send("x").await.unwrap();
    assert_eq!(client.bytes(9).await.unwrap(), b"hello p\nx");
}

/// Steps 7 and 8: an HTTP router without a host comes before the TCP router for everybody, and not before others.
#[tokio::test]
async fn routers_for_everybody_come_last() {
    let (authority, files) = (Authority::new("own"), Files::new());
    let own = certificates(&authority, &files, &["a.test", "b.test"]);
    let (named, all, web) = (Talker::start("n").await, Talker::start("x").await, Origin::start("web").await);
    let tcp = format!(
        "tcp:
  routers:
    all: {{rule: 'HostSNI(`*`)', service: all, tls: {{}}}}
    named: {{rule: 'HostSNI(`a.test`)', service: named, tls: {{}}}}
  services:
{}{}{own}",
        service("all", all.address),
        service("named", named.address)
    );
    let vigie = Vigie::over(files, STATIC, &tcp).await;
    for (name, greeting) in [("a.test", b"hello n\n"), ("b.test", b"hello x\n")] {
        let mut client = https(&vigie, &authority, name, &[]).await.unwrap();
        assert_eq!(client.bytes(8).await.unwrap(), greeting);
    }
    vigie.write(&format!(
        "{tcp}http:\n  routers: {{web: {{rule: 'PathPrefix(`/`)', service: web, tls: {{}}}}}}\n  services: {{web: \
         {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n",
        web.url()
    ));
    vigie.until_said("generation=2").await;
    let mut client = https(&vigie, &authority, "a.test", &[]).await.unwrap();
    assert_eq!(client.bytes(8).await.unwrap(), b"hello n\n");
    let mut client = https(&vigie, &authority, "b.test", &[]).await.unwrap();
    assert_eq!(origin(&client.get("b.test", "/").await.unwrap()), "web");
}

/// Client certificates, and options that are broken: nobody gets in under laxer ones.
#[tokio::test]
async fn options_decide_who_gets_in() {
    let (authority, clients, files) = (Authority::new("own"), Authority::new("clients"), Files::new());
    let own = certificates(&authority, &files, &["a.test", "b.test"]);
    files.write("clients.pem", clients.pem());
    let server = Talker::start("a").await;
    let dynamic = format!(
        "tcp:
  routers:
    strict: {{rule: 'HostSNI(`a.test`)', service: s, tls: {{options: strict}}}}
    broken: {{rule: 'HostSNI(`b.test`)', service: s, tls: {{options: broken}}}}
  services:
{}{own}  options:
    strict: {{clientAuth: {{caFiles: ['{{dir}}/clients.pem'], clientAuthType: RequireAndVerifyClientCert}}}}
    broken: {{cipherSuites: [TLS_NOTHING]}}
",
        service("s", server.address)
    );
    let vigie = Vigie::over(files, STATIC, &dynamic).await;
    let known = clients.issue_client("me");
    let config = authority.client_config_with(&[], &known);
    let mut client = Client::connect_tls(vigie.address("db"), config, "a.test").await.unwrap();
    assert_eq!(client.bytes(8).await.unwrap(), b"hello a\n");
    for name in ["a.test", "b.test"] {
        let client = https(&vigie, &authority, name, &[]).await;
        let let_in = match client {
            Ok(mut client) => {
                let greeting = tokio::time::timeout(Duration::from_secs(1), client.bytes(8)).await;
                matches!(greeting, Ok(Ok(_)))
            }
            Err(_) => false,
        };
        assert!(!let_in, "{name}");
    }
}

/// A client of PostgreSQL: it asks for TLS in plain text, and begins once it is told yes.
fn postgres(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for byte in [0, 0, 0, 8, 4, 210, 22, 47] {
        tcp.write_all(&[byte]).unwrap();
    }
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    StreamOwned::new(ClientConnection::new(config, name.to_owned().try_into().unwrap()).unwrap(), tcp)
}

/// A server of PostgreSQL as far as TLS goes, and then one that gives back what it gets.
fn postgres_server(config: Arc<rustls::ServerConfig>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (mut tcp, config) = (tcp.unwrap(), Arc::clone(&config));
            std::thread::spawn(move || {
                let mut asked = [0; 8];
                tcp.read_exact(&mut asked).unwrap();
                assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47]);
                tcp.write_all(b"S").unwrap();
                let connection = rustls::ServerConnection::new(config).unwrap();
                let mut stream = StreamOwned::new(connection, tcp);
                let mut bytes = [0; 5];
                stream.read_exact(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
                stream.flush().unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn clients_of_postgres_find_their_router() {
    let (authority, theirs, files) = (Authority::new("own"), Authority::new("theirs"), Files::new());
    let own = certificates(&authority, &files, &["ended.test"]);
    let behind = postgres_server(theirs.issue(&["passed.test"]).server_config(&[]));
    let (server, plain) = (Talker::start("a").await, Talker::start("p").await);
    let dynamic = format!(
        "tcp:
  routers:
    passed: {{rule: 'HostSNI(`passed.test`)', service: behind, tls: {{passthrough: true}}}}
    ended: {{rule: 'HostSNI(`ended.test`)', service: server, tls: {{}}}}
    plain: {{rule: 'HostSNI(`*`)', service: plain, entryPoints: [db]}}
  services:
{}{}{}{own}",
        service("behind", behind),
        service("server", server.address),
        service("plain", plain.address)
    );
    let vigie = Vigie::over(files, STATIC, &dynamic).await;
    let db = vigie.address("db");
    let (own, other) = (authority.client_config(&[]), theirs.client_config(&[]));
    let unknown = own.clone();
    tokio::task::spawn_blocking(move || {
        let mut passed = postgres(db, other, "passed.test");
        passed.write_all(b"hallo").unwrap();
        let mut answer = [0; 5];
        passed.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hallo");
        let mut ended = postgres(db, own, "ended.test");
        let mut greeting = [0; 8];
        ended.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello a\n");
        let mut lost = postgres(db, unknown, "lost.test");
        assert!(lost.read_exact(&mut greeting).is_err());
    })
    .await
    .unwrap();
    vigie.until_metric("lb_refused_requests_total", &[("reason", "no_tcp_router")], 1.0).await;
    // What begins alike and goes on otherwise is no question.
    let mut client = Client::connect(db).await.unwrap();
    client.send([0, 0, 0, 8, 4, 210, 22, 46]).await.unwrap();
    assert_eq!(client.bytes(16).await.unwrap(), [&b"hello p\n"[..], &[0, 0, 0, 8, 4, 210, 22, 46]].concat());
}

/// A stranger has as long as `readTimeout` to say whom it wants, and as many bytes as a hello may have.
#[tokio::test]
async fn strangers_have_limits() {
    let (authority, files) = (Authority::new("own"), Files::new());
    let own = certificates(&authority, &files, &["a.test"]);
    let server = Talker::start("a").await;
    let text = STATIC.replace("db: {", "db: {transport: {respondingTimeouts: {readTimeout: 700ms}}, ");
    let dynamic = format!(
        "tcp:\n  routers: {{a: {{rule: 'HostSNI(`a.test`)', service: s, tls: {{}}}}}}\n  services:\n{}{own}",
        service("s", server.address)
    );
    let vigie = Vigie::over(files, &text, &dynamic).await;
    for first in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x00\x00\x00\x08"] {
        let began = tokio::time::Instant::now();
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.send(first).await.unwrap();
        assert!(client.closes_within(Duration::from_secs(8)).await, "{first:?}");
        assert!(began.elapsed() >= Duration::from_millis(650), "{first:?}: {:?}", began.elapsed());
    }
    // One record after the other, each with another byte of an endless hello: for HTTPS then, which refuses it.
    let mut client = Client::connect(vigie.address("db")).await.unwrap();
    let mut hello = b"\x16\x03\x01\x00\x04\x01\x00\xff\xf0".to_vec();
    hello.extend(b"\x16\x03\x01\x00\x01\x00".repeat(20_000));
    let _ = client.send(hello).await;
    assert!(client.closes_within(Duration::from_secs(8)).await);
}
