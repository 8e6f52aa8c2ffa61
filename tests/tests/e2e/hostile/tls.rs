//! TLS: what is no handshake, sessions that are continued, and connections that are used for another name.

use lb_testkit::{Authority, Client, Files, H2Client, Origin, PATIENCE};

use super::frames::{PING, frame};
use crate::harness::{HOST, STATIC_TLS, Vigie, app};

/// A real ClientHello, as a rustls client sends it.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let name = HOST.try_into().unwrap();
    let mut client =
        rustls::ClientConnection::new(authority.client_config(&["h2", "http/1.1"]), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn truncated_and_mutated_handshakes_hurt_nobody() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "site");
    let origin = Origin::start("origin").await;
    let tls = "tls: {certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]}\n";
    let vigie = Vigie::over(files, STATIC_TLS, &format!("{}{tls}", app("", &[origin.url()]))).await;
    let mut bystander =
        Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await.unwrap();
    let hello = client_hello(&authority);
    let mut random = fastrand::Rng::with_seed(7);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..600 {
        let mut bytes = hello.clone();
        match number % 4 {
            0 => bytes.truncate(random.usize(..bytes.len())),
            1 => (0..random.usize(1..8)).for_each(|_| {
                let at = random.usize(1..bytes.len());
                bytes[at] = random.u8(..);
            }),
            2 => {
                // Lengths that lie: of the record, and of the message.
                let at = [3, 4, 6, 7, 8][random.usize(..5)];
                bytes[at] = random.u8(..);
            }
            _ => {
                let rest = random.usize(1..bytes.len());
                bytes[rest..].iter_mut().for_each(|byte| *byte = random.u8(..));
                bytes.extend((0..random.usize(..20_000)).map(|_| random.u8(..)));
            }
        }
        let address = vigie.websecure();
        clients.spawn(async move {
            let mut client = Client::connect(address).await.unwrap();
            let _ = client.send(&bytes).await;
            let _ = client.finish().await;
            let _ = client.rest().await;
        });
    }
    clients.join_all().await;
    assert_eq!(bystander.get(HOST, "/").await.unwrap().status, 200);
    let mut after = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await.unwrap();
    assert_eq!(after.get(HOST, "/").await.unwrap().status, 200);
    assert_eq!(origin.requests(), 2);
    assert!(!vigie.words().contains("panic"), "{}", vigie.words());
    let failed = vigie.metrics().await.value("lb_refused_requests_total", &[("reason", "tls_handshake")]);
    assert!(failed.is_some_and(|failed| failed > 100.0), "{failed:?}");
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "websecure")], 2.0).await;
}

/// RFC 8446 appendix D.2: whoever reads the client's log sees what is wrong.
#[tokio::test]
async fn clients_that_speak_nothing_above_tls_1_1_are_told_so() {
    // Version 1.1 in both places, no session, one suite, no compression, no extension.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let origin = Origin::start("origin").await;
    let tcp = "tcp: {routers: {t: {rule: 'HostSNI(`*`)', service: s, tls: {}, entryPoints: [websecure]}}, \
               services: {s: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}}}";
    for dynamic in [app("", &[origin.url()]), tcp.to_owned()] {
        let vigie = Vigie::over(Files::new(), STATIC_TLS, &dynamic).await;
        let mut client = Client::connect(vigie.websecure()).await.unwrap();
        client.send(&hello).await.unwrap();
        assert_eq!(client.rest().await.unwrap(), [21, 3, 1, 0, 2, 2, 70], "{dynamic}");
    }
}

/// One connection, many names: only those under the options it was accepted with are served on it.
#[tokio::test]
async fn a_router_with_client_certificates_is_reached_by_its_own_connections_only() {
    let (authority, people, files) = (Authority::new("servers"), Authority::new("people"), Files::new());
    authority.issue(&["open.example.com", "closed.example.com"]).write(files.path(), "site");
    files.write("people.pem", people.pem());
    let origin = Origin::start("origin").await;
    let dynamic = format!(
        "
http:
  routers:
    open: {{rule: 'Host(`open.example.com`)', service: app, tls: {{}}}}
    closed: {{rule: 'Host(`closed.example.com`)', service: app, tls: {{options: people}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
tls:
  certificates: [{{certFile: '{{dir}}/site.crt', keyFile: '{{dir}}/site.key'}}]
  options:
    people: {{clientAuth: {{caFiles: ['{{dir}}/people.pem'], clientAuthType: RequireAndVerifyClientCert}}}}
",
        origin.url()
    );
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    let address = vigie.websecure();
    let (open, closed) = ("open.example.com", "closed.example.com");
    // Spellings of the name that the router still takes for its own.
    for host in [closed, "CLOSED.example.com", "closed.example.com:443", "closed.example.com."] {
        let mut client = Client::connect_tls(address, authority.client_config(&[]), open).await.unwrap();
        assert_eq!(client.get(open, "/").await.unwrap().status, 200);
        let reached = origin.requests();
        let status = client.get(host, "/").await.unwrap().status;
        assert!(matches!(status, 421 | 404), "{host}: {status}");
        assert_eq!(origin.requests(), reached, "{host}");
    }
    let client = H2Client::connect_tls(address, authority.client_config(&["h2"]), open).await.unwrap();
    let reached = origin.requests();
    assert_eq!(client.get(closed, "/").await.unwrap().status, 421);
    assert_eq!(origin.requests(), reached);
    assert_eq!(client.get(open, "/").await.unwrap().status, 200, "the connection goes on");
    // Under its own name there is no way in without a certificate, continued session or not.
    let anonymous = authority.client_config(&[]);
    for _ in 0..2 {
        let mut first = Client::connect_tls(address, anonymous.clone(), open).await.unwrap();
        assert_eq!(first.get(open, "/").await.unwrap().status, 200);
        let second =
            async { Client::connect_tls(address, anonymous.clone(), closed).await?.get(closed, "/").await };
        assert!(second.await.is_err());
    }
    let known = authority.client_config_with(&[], &people.issue_client("someone"));
    let mut client = Client::connect_tls(address, known, closed).await.unwrap();
    assert_eq!(client.get(closed, "/").await.unwrap().status, 200);
}

/// Options belong to a server name, routers to more than that. Where the two do not go together a certificate that
/// a router or an entry point requires is required nevertheless.
#[tokio::test]
async fn a_client_certificate_that_is_required_is_never_given_up() {
    let (authority, people, files) = (Authority::new("servers"), Authority::new("people"), Files::new());
    let (open, both, wild) = ("open.example.com", "both.example.com", "one.wild.example.com");
    authority.issue(&[open, both, wild]).write(files.path(), "site");
    files.write("people.pem", people.pem());
    let origin = Origin::start("origin").await;
    let dynamic = format!(
        "
http:
  routers:
    open: {{rule: 'Host(`open.example.com`)', entryPoints: [websecure], service: app, tls: {{}}}}
    hostless: {{rule: 'PathPrefix(`/private`)', priority: 1000, entryPoints: [websecure], service: app, tls: {{options: people}}}}
    both: {{rule: 'Host(`both.example.com`)', entryPoints: [websecure], service: app, tls: {{options: people}}}}
    part: {{rule: 'Host(`both.example.com`) && Path(`/open`)', entryPoints: [websecure], service: app, tls: {{}}}}
    wild: {{rule: 'Host(`*.wild.example.com`)', entryPoints: [websecure], service: app, tls: {{options: people}}}}
    one: {{rule: 'Host(`one.wild.example.com`)', entryPoints: [websecure], service: app, tls: {{}}}}
    all: {{rule: 'PathPrefix(`/`)', entryPoints: [people], service: app}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
tls:
  certificates: [{{certFile: '{{dir}}/site.crt', keyFile: '{{dir}}/site.key'}}]
  options:
    people: {{clientAuth: {{caFiles: ['{{dir}}/people.pem'], clientAuthType: RequireAndVerifyClientCert}}}}
",
        origin.url()
    );
    let text = STATIC_TLS
        .replace(
            "  traefik:",
            "  people: {address: '127.0.0.1:0', http: {tls: {options: people@file}}}\n  traefik:",
        )
        .replace("ping: {}", "ping: {entryPoint: people}\nlog: {level: WARN}");
    let vigie = Vigie::over(files, &text, &dynamic).await;
    let anonymous = authority.client_config(&[]);
    for (host, path, status) in
        [(open, "/", 200), (open, "/private", 421), (both, "/", 421), (both, "/open", 200), (wild, "/", 200)]
    {
        let mut client = Client::connect_tls(vigie.websecure(), anonymous.clone(), host).await.unwrap();
        assert_eq!(client.get(host, path).await.unwrap().status, status, "{host}{path}");
    }
    for router in ["hostless", "both"] {
        vigie.until_said(&format!("routerName={router}@file")).await;
    }
    // On the entry point of people there is nothing without a certificate, whatever the name.
    let known = authority.client_config_with(&[], &people.issue_client("someone"));
    let people = vigie.address("people");
    for path in ["/", "/ping"] {
        let asked =
            async { Client::connect_tls(people, anonymous.clone(), open).await?.get(open, path).await };
        assert!(asked.await.is_err(), "{path}");
        let mut client = Client::connect_tls(people, known.clone(), open).await.unwrap();
        assert_eq!(client.get(open, path).await.unwrap().status, 200, "{path}");
    }
}

/// Options that become stricter are for connections that are open already, too.
#[tokio::test]
async fn a_connection_without_a_certificate_ends_where_one_is_required_from_now_on() {
    let (authority, people, files) = (Authority::new("servers"), Authority::new("people"), Files::new());
    let host = "site.example.com";
    authority.issue(&[host]).write(files.path(), "site");
    files.write("people.pem", people.pem());
    let origin = Origin::start("origin").await;
    let dynamic = |kind| {
        format!(
            "
http:
  routers: {{site: {{rule: 'Host(`{host}`)', service: app, tls: {{options: people}}}}}}
  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}
tls:
  certificates: [{{certFile: '{{dir}}/site.crt', keyFile: '{{dir}}/site.key'}}]
  options: {{people: {{clientAuth: {{caFiles: ['{{dir}}/people.pem'], clientAuthType: {kind}}}}}}}
",
            origin.url()
        )
    };
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic("VerifyClientCertIfGiven")).await;
    let address = vigie.websecure();
    let anonymous = authority.client_config(&[]);
    let known = authority.client_config_with(&[], &people.issue_client("someone"));
    let mut stranger = Client::connect_tls(address, anonymous, host).await.unwrap();
    let streams = H2Client::connect_tls(address, authority.client_config(&["h2"]), host).await.unwrap();
    let mut someone = Client::connect_tls(address, known, host).await.unwrap();
    assert_eq!(stranger.get(host, "/").await.unwrap().status, 200);
    assert_eq!(streams.get(host, "/").await.unwrap().status, 200);
    vigie.write(&dynamic("RequireAndVerifyClientCert"));
    let refused = async || streams.get(host, "/").await.unwrap().status == 421;
    assert!(lb_testkit::eventually(PATIENCE, refused).await);
    let reached = origin.requests();
    let refusal = stranger.get(host, "/").await.unwrap();
    assert_eq!((refusal.status, refusal.fields.get("connection")), (421, Some("close")));
    assert_eq!(origin.requests(), reached);
    assert_eq!(someone.get(host, "/").await.unwrap().status, 200, "who has shown one stays");
}

/// A session is continued, whichever worker the next connection lands on; each continuation comes with new tickets.
#[tokio::test]
async fn sessions_are_continued_by_tickets() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "site");
    let origin = Origin::start("origin").await;
    let tls = "tls: {certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]}\n";
    let vigie = Vigie::over(files, STATIC_TLS, &format!("{}{tls}", app("", &[origin.url()]))).await;
    let config = authority.client_config(&[]);
    let mut kinds = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect_tls(vigie.websecure(), config.clone(), HOST).await.unwrap();
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
        kinds.push(client.tls().unwrap().handshake_kind().unwrap());
    }
    assert_eq!(kinds[0], rustls::HandshakeKind::Full);
    assert!(kinds[1..].iter().all(|kind| *kind == rustls::HandshakeKind::Resumed), "{kinds:?}");
}

/// TLS 1.2 has renegotiation; rustls does not.
#[tokio::test]
async fn plain_bytes_inside_tls_end_the_connection() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "site");
    let origin = Origin::start("origin").await;
    let tls = "tls: {certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]}\n";
    let vigie = Vigie::over(files, STATIC_TLS, &format!("{}{tls}", app("", &[origin.url()]))).await;
    // What was agreed on is HTTP/1.1: an HTTP/2 preface inside it is refused.
    let mut client =
        Client::connect_tls(vigie.websecure(), authority.client_config(&["http/1.1"]), HOST).await.unwrap();
    client
        .send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(PING, 0, 0, &[0; 8])].concat())
        .await
        .unwrap();
    let answer = client.head("GET").await.unwrap();
    assert_eq!(answer.status, 505);
    assert!(client.closes_within(PATIENCE).await || client.rest().await.is_ok());
    assert_eq!(origin.requests(), 0);
}
