//! Services: health, weights, PROXY protocol, TLS; middlewares; what the API shows.

use std::time::Duration;

use lb_testkit::{Authority, Client, Files, Origin, PATIENCE, Script, eventually, reserve_address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{STATIC, Talker, everybody, greeted};
use crate::harness::{HOST, Vigie};

/// A server that does not say the right word gets nobody, and comes back when it does.
#[tokio::test]
async fn health_checks_take_servers_out_and_bring_them_back() {
    let (a, b) = (Talker::start("a").await, Talker::start("b").await);
    let check = |word: &str| {
        format!(
            "healthCheck: {{send: PING, expect: 'hello {word}', interval: 100ms, unhealthyInterval: 50ms}},"
        )
    };
    let vigie = Vigie::with(STATIC, &everybody(&check("a"), &[a.address, b.address])).await;
    vigie.until_said("TCP server is out of the rotation").await;
    for _ in 0..4 {
        assert_eq!(greeted(vigie.address("db")).await.1, "hello a\n");
    }
    let shown = vigie.json("/api/tcp/services/all@file").await;
    let status = |server: &Talker| shown["serverStatus"][server.address.to_string()].clone();
    assert_eq!((status(&a), status(&b)), ("UP".into(), "DOWN".into()), "{shown}");
    vigie.write(&everybody(&check(""), &[a.address, b.address]));
    vigie.until_said("TCP server is healthy again").await;
    let both = eventually(PATIENCE, async || greeted(vigie.address("db")).await.1 == "hello b\n");
    assert!(both.await);
    // Nobody is well: closed, not kept waiting.
    vigie.write(&everybody(&check("nobody"), &[a.address, b.address]));
    let closed = eventually(PATIENCE, async || {
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.closes_within(PATIENCE).await
    });
    assert!(closed.await);
    vigie.until_said("No server of the service is left: its connections are closed").await;
}

#[tokio::test]
async fn weights_share_out_connections() {
    let (a, b) = (Talker::start("a").await, Talker::start("b").await);
    let gone = reserve_address();
    let dynamic = format!(
        "tcp:
  routers: {{all: {{entryPoints: [db], rule: 'HostSNI(`*`)', service: all}}}}
  services:
    all: {{weighted: {{services: [{{name: three, weight: 3}}, {{name: one}}, {{name: none, weight: 0}}]}}}}
    three: {{loadBalancer: {{servers: [{{address: '{}'}}]}}}}
    one: {{loadBalancer: {{servers: [{{address: '{}'}}]}}}}
    none: {{loadBalancer: {{servers: [{{address: '{gone}'}}]}}}}
",
        a.address, b.address
    );
    let vigie = Vigie::with(STATIC, &dynamic).await;
    let mut greetings = Vec::new();
    for _ in 0..8 {
        greetings.push(greeted(vigie.address("db")).await.1);
    }
    assert_eq!(greetings.iter().filter(|greeting| *greeting == "hello a\n").count(), 6, "{greetings:?}");
    // A child that cannot be reached leaves its connections to the others.
    vigie.write(&dynamic.replace(&a.address.to_string(), &gone.to_string()));
    vigie.until_said("generation=2").await;
    for _ in 0..8 {
        assert_eq!(greeted(vigie.address("db")).await.1, "hello b\n");
    }
}

/// What a server gets first of a connection.
async fn first_bytes(
    balancer: &str,
    transports: &str,
    static_text: &str,
    sends: &[u8],
    count: usize,
) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dynamic = everybody(balancer, &[listener.local_addr().unwrap()]) + transports;
    let vigie = Vigie::with(static_text, &dynamic).await;
    let mut client = Client::connect(vigie.address("db")).await.unwrap();
    client.send(sends).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut bytes = vec![0; count];
    server.read_exact(&mut bytes).await.unwrap();
    server.write_all(b"ok").await.unwrap();
    assert_eq!(client.bytes(2).await.unwrap(), b"ok");
    let (here, there) = (client.local_address().unwrap().port(), vigie.address("db").port());
    let told = String::from_utf8_lossy(&bytes).into_owned();
    told.replace(&format!("{here} {there}"), "CLIENT VIGIE").into_bytes()
}

#[tokio::test]
async fn servers_are_told_of_the_client_by_proxy_protocol() {
    let expected = b"PROXY TCP4 127.0.0.1 127.0.0.1 CLIENT VIGIE\r\nhi";
    let length = |ports: usize| "PROXY TCP4 127.0.0.1 127.0.0.1  \r\nhi".len() + ports;
    // Ports of loopback have five digits, as the kernel gives them out.
    let told = first_bytes("proxyProtocol: {version: 1},", "", STATIC, b"hi", length(10)).await;
    assert_eq!(told, expected);
    let transports = "  serversTransports: {t: {proxyProtocol: {}}}\n";
    let told = first_bytes("serversTransport: t,", transports, STATIC, b"hi", 30).await;
    assert!(told.starts_with(b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"), "{told:?}");
    assert!(told.ends_with(b"hi"));
    // What a balancer in front has said is handed on.
    let text = STATIC.replace("db: {", "db: {proxyProtocol: {insecure: true}, ");
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let sends = [header, &b"hi"[..]].concat();
    let told = first_bytes("proxyProtocol: {version: 1},", "", &text, &sends, sends.len()).await;
    assert_eq!(told, sends);
}

/// `tls` of a server, with and without a name to verify.
#[tokio::test]
async fn servers_may_speak_tls() {
    let (authority, files) = (Authority::new("theirs"), Files::new());
    files.write("ca.pem", authority.pem());
    let server =
        Origin::tls("secret", authority.issue(&["db.test"]).server_config(&[]), |_| Script::echo()).await;
    let dynamic = |tls: &str| {
        let plain = everybody("serversTransport: t,", &[server.address()]);
        format!("{}  serversTransports: {{t: {{tls: {{{tls}}}}}}}\n", plain.replace("'}]", "', tls: true}]"))
    };
    let vigie = Vigie::over(files, STATIC, &dynamic("serverName: db.test, rootCAs: ['{dir}/ca.pem']")).await;
    let asked = async || {
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.get(HOST, "/").await.map(|response| response.status).ok()
    };
    assert_eq!(asked().await, Some(200));
    for (tls, expected) in [
        ("insecureSkipVerify: true", Some(200)),
        ("serverName: other.test, rootCAs: ['{dir}/ca.pem']", None),
        ("serverName: db.test", None),
    ] {
        vigie.write(&dynamic(tls));
        assert!(eventually(PATIENCE, async || asked().await == expected).await, "{tls}\n{}", vigie.words());
    }
    let failed = vigie.metrics().await.value("lb_tcp_dial_failures_total", &[("reason", "tls")]);
    assert!(failed.is_some_and(|failed| failed >= 2.0), "{failed:?}");
}

#[tokio::test]
async fn middlewares_refuse_connections() {
    let server = Talker::start("a").await;
    let with = |middleware: &str| {
        let plain =
            everybody("", &[server.address]).replace("service: all}", "service: all, middlewares: [m]}");
        format!("{plain}  middlewares: {{m: {{{middleware}}}}}\n")
    };
    let vigie = Vigie::with(STATIC, &with("inFlightConn: {amount: 2}")).await;
    let refused = async || {
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.closes_within(PATIENCE).await
    };
    let (one, _) = greeted(vigie.address("db")).await;
    let (two, _) = greeted(vigie.address("db")).await;
    assert!(refused().await);
    // The count lives on in the next configuration.
    let more = with("inFlightConn: {amount: 2}").replace("servers: [", "terminationDelay: 5, servers: [");
    let more = more.replace("[m]", "[n, m]");
    vigie.write(
        &more.replace("middlewares: {m:", "middlewares: {n: {ipAllowList: {sourceRange: [127.0.0.1]}}, m:"),
    );
    vigie.until_said("generation=2").await;
    assert!(refused().await);
    drop(one);
    let room = eventually(PATIENCE, async || {
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        client.bytes(8).await.is_ok()
    });
    assert!(room.await);
    drop(two);
    vigie.write(&with("ipAllowList: {sourceRange: [192.0.2.0/24]}"));
    assert!(eventually(PATIENCE, async || refused().await).await);
    let counted = vigie.metrics().await.value("lb_tcp_connections_total", &[("outcome", "refused")]);
    assert!(counted.is_some_and(|counted| counted >= 3.0), "{counted:?}");
    vigie.write(&with("ipAllowList: {sourceRange: [127.0.0.1]}"));
    assert!(eventually(PATIENCE, async || !refused().await).await);
}

/// A written `terminationDelay` is kept to the letter.
#[tokio::test]
async fn a_termination_delay_cuts_what_takes_longer() {
    for (delay, arrives) in [("terminationDelay: 200,", false), ("terminationDelay: -1,", true), ("", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vigie = Vigie::with(STATIC, &everybody(delay, &[listener.local_addr().unwrap()])).await;
        let mut client = Client::connect(vigie.address("db")).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.send("question").await.unwrap();
        client.finish().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        tokio::time::sleep(Duration::from_millis(600)).await;
        let _ = server.write_all(b"answer").await;
        let _ = server.shutdown().await;
        let answer = client.rest().await.unwrap_or_default();
        assert_eq!(answer, if arrives { &b"answer"[..] } else { b"" }, "{delay}");
    }
}
