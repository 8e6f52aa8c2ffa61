//! HTTP/3 at the entry point: what HTTP/2 does there, over QUIC.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use lb_testkit::{
    Answer, Authority, Client, Files, Gate, H2Client, H2Origin, H3Client, Origin, PATIENCE, Script, collect,
    eventually, quic,
};
use rustix::process::Signal;
use rustls::ClientConfig;

use crate::harness::{HOST, STATIC_TLS, Vigie, app, app_with, origin};

/// [`STATIC_TLS`] with HTTP/3, and further lines.
fn statics(http3: &str, more: &str) -> String {
    let statics = STATIC_TLS.replace("http: {tls: {}}", &format!("http3: {http3}, http: {{tls: {{}}}}"));
    format!("{statics}{more}")
}

/// A Vigie with a certificate for [`HOST`], and a client's configuration for HTTP/3.
async fn vigie(statics: &str, dynamic: &str) -> (Vigie, Arc<ClientConfig>, Authority) {
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "site");
    let dynamic = format!("{dynamic}{CERTIFICATES}");
    let vigie = Vigie::over(files, statics, &dynamic).await;
    let config = authority.client_config(&["h3"]);
    (vigie, config, authority)
}

const CERTIFICATES: &str =
    "tls:\n  certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]\n";

async fn client(vigie: &Vigie, config: &Arc<ClientConfig>) -> H3Client {
    H3Client::connect(vigie.websecure(), Arc::clone(config), HOST).await.unwrap()
}

/// A megabyte that differs everywhere.
fn megabyte() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test]
async fn requests_are_served_and_told_like_others() {
    let server = Origin::start("api").await;
    let log = "accessLog: {filePath: '{dir}/access.log', format: json}\n";
    let (vigie, config, _) = vigie(&statics("{}", log), &app("", &[server.url()])).await;
    let client = client(&vigie, &config).await;
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("x-forwarded-for", "192.0.2.1"), ("te", "trailers")];
    let answer = client.request("GET", HOST, "/a//b?c", &fields, None).await.unwrap();
    assert_eq!((answer.status, &*origin(&answer)), (200, "api"));
    assert!(answer.fields.contains("date") && !answer.fields.contains("connection"));
    let seen = server.last();
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/a/b?c"));
    for (name, value) in [
        ("host", HOST),
        ("cookie", "a=1; b=2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-host", HOST),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        assert_eq!(seen.get(name), Some(value), "{name}");
    }
    assert!(seen.get("transfer-encoding").is_none(), "a request without a body has none behind us either");
    let head = client.request("HEAD", HOST, "/", &[], None).await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let missing = client.request("GET", "other.example.com:81", "/", &[], None).await.unwrap();
    assert_eq!(missing.status, 200, "the rule takes every host");
    assert_eq!(server.last().get("x-forwarded-port"), Some("81"));

    let path = vigie.files.path().join("access.log");
    let mut lines = Vec::new();
    let logged = eventually(PATIENCE, async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
        lines.len() == 3
    });
    assert!(logged.await);
    for (key, value) in [
        ("RequestProtocol", "HTTP/3.0"),
        ("RequestScheme", "https"),
        ("TLSVersion", "1.3"),
        ("entryPointName", "websecure"),
    ] {
        assert_eq!(lines[0][key], value, "{key}");
    }
    assert!(lines[0]["TLSCipher"].as_str().unwrap().starts_with("TLS_"));
    let metrics = vigie.metrics().await;
    let requests = [("entrypoint", "websecure"), ("method", "GET"), ("protocol", "http"), ("code", "200")];
    assert_eq!(metrics.value("traefik_entrypoint_requests_total", &requests), Some(2.0));
    let tls = [("entrypoint", "websecure"), ("tls_version", "1.3")];
    assert_eq!(metrics.value("traefik_entrypoint_requests_tls_total", &tls), Some(3.0));
    let open = [("entrypoint", "websecure")];
    assert_eq!(metrics.value("lb_http3_connections", &open), Some(1.0));
    drop(client);
    vigie.until_metric("lb_http3_connections", &open, 0.0).await;
}

/// As Traefik: on every answer over TLS but those of HTTP/3 itself.
#[tokio::test]
async fn answers_over_tls_say_that_it_is_there() {
    let server = Origin::start("api").await;
    server.on("/own", Script::answer(200, &[("Alt-Svc", "h2=\":1\"")], "x"));
    let middleware = app_with("middlewares: [deny]\n", "", &[server.url()])
        .replace("rule: PathPrefix(`/`)", "rule: PathPrefix(`/denied`)");
    let middleware = middleware.replace("  services:", "    open: {rule: PathPrefix(`/`), service: app}\n  middlewares: {deny: {ipAllowList: {sourceRange: [192.0.2.1]}}}\n  services:");
    for (http3, port) in [("{}", None), ("true", None), ("{advertisedPort: 443}", Some(443))] {
        let (vigie, _, authority) = vigie(&statics(http3, ""), &middleware).await;
        let expected = format!("h3=\":{}\"; ma=2592000", port.unwrap_or(vigie.websecure().port()));
        let config = authority.client_config(&["http/1.1"]);
        let mut http1 = Client::connect_tls(vigie.websecure(), config, HOST).await.unwrap();
        for (path, status) in [("/", 200), ("/denied", 403)] {
            let answer = http1.get(HOST, path).await.unwrap();
            assert_eq!((answer.status, answer.get("alt-svc")), (status, Some(&*expected)), "{path}");
        }
        let own = http1.get(HOST, "/own").await.unwrap();
        assert_eq!(own.fields.all("alt-svc"), ["h2=\":1\"", &expected]);
        let config = authority.client_config(&["h2"]);
        let http2 = H2Client::connect_tls(vigie.websecure(), config, HOST).await.unwrap();
        assert_eq!(http2.get(HOST, "/").await.unwrap().get("alt-svc"), Some(&*expected));
        let http3 = client(&vigie, &authority.client_config(&["h3"])).await;
        assert_eq!(http3.get(HOST, "/").await.unwrap().get("alt-svc"), None);
        assert_eq!(vigie.get("/").await.get("alt-svc"), None, "not over plain HTTP");
    }
    let (vigie, config, authority) = vigie(&statics("false", ""), &app("", &[server.url()])).await;
    let config1 = authority.client_config(&["http/1.1"]);
    let mut http1 = Client::connect_tls(vigie.websecure(), config1, HOST).await.unwrap();
    assert_eq!(http1.get(HOST, "/").await.unwrap().get("alt-svc"), None);
    let nothing = tokio::time::timeout(Duration::from_secs(1), quic(vigie.websecure(), &config, HOST)).await;
    assert!(!matches!(nothing, Ok(Ok(_))), "nobody is there");
}

/// More connections than one worker is left alone with, and many streams on each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_spread_and_streams_are_many() {
    let server = Origin::start("api").await;
    server.on("/big", Script::text(megabyte()));
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Arc::new(client(&vigie, &config).await));
    }
    assert!(vigie.metrics().await.value("lb_connections_handed_over_total", &[]).unwrap() >= 3.0);
    let mut asked = tokio::task::JoinSet::new();
    for client in &clients {
        for stream in 0..50 {
            let client = Arc::clone(client);
            asked.spawn(async move {
                let path = if stream == 7 { "/big".to_owned() } else { format!("/{stream}") };
                let answer = client.get(HOST, &path).await.unwrap();
                match stream {
                    7 => assert!(answer.body == megabyte()),
                    _ => assert_eq!(answer.json()["target"], path),
                }
            });
        }
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn big_bodies_pass_unchanged_both_ways() {
    let big: Vec<u8> = megabyte().repeat(8);
    let server = Origin::start("api").await;
    server.on("/down", Script::text(&big));
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let client = client(&vigie, &config).await;
    let down = client.get(HOST, "/down").await.unwrap();
    assert!(down.body == big, "{} bytes", down.body.len());
    client.request("PUT", HOST, "/up", &[], Some(&big)).await.unwrap();
    assert!(server.last().body == big);
    let length = big.len().to_string();
    client.request("PUT", HOST, "/up", &[("content-length", &length)], Some(&big)).await.unwrap();
    let seen = server.last();
    assert!(seen.body == big);
    assert_eq!((seen.get("content-length"), seen.get("transfer-encoding")), (Some(&*length), None));
}

#[tokio::test]
async fn trailers_and_interim_answers_pass_both_ways() {
    let http1 = Origin::start("http1").await;
    http1.on(
        "/",
        Script::trailers(&["a", "b"], &[("X-Sum", "2")]).after_informational(103, &[("Link", "</a>")]),
    );
    let http2 = H2Origin::start("http2", |_| Answer {
        trailers: vec![("x-sum".into(), "2".into())],
        informational: vec![103],
        ..Answer::text("ab")
    })
    .await;
    for url in [http1.url(), http2.url()] {
        let (vigie, config, _) = vigie(&statics("{}", ""), &app("", std::slice::from_ref(&url))).await;
        let client = client(&vigie, &config).await;
        let request =
            http::Request::post(format!("https://{HOST}/")).header("te", "trailers").body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.send_data(Bytes::from_static(b"body")).await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-request-sum", "4".parse().unwrap());
        stream.send_trailers(trailers).await.unwrap();
        stream.finish().await.unwrap();
        let answer = collect(&mut stream).await.unwrap();
        assert_eq!((answer.text(), answer.trailers.get("x-sum")), ("ab", Some("2")), "{url}");
        assert_eq!(answer.informational.len(), 1, "{url}");
        assert_eq!(answer.informational[0].status, 103);
    }
    let seen = http2.seen().pop().unwrap();
    assert_eq!(seen.body, b"body");
    assert_eq!(seen.trailers.get("x-request-sum"), Some("4"));
}

/// Each side speaks when it likes, and sees what the other one says before anything more is said.
#[tokio::test]
async fn a_conversation_goes_both_ways_at_once() {
    let server = Origin::start("api").await;
    server.on("/events", Script::server_sent_events(&["a", "b", "c"], Duration::from_millis(300)));
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let client = client(&vigie, &config).await;
    let request = http::Request::get(format!("https://{HOST}/events")).body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().headers()["content-type"], "text/event-stream");
    for event in ["a", "b", "c"] {
        let mut part = tokio::time::timeout(PATIENCE, stream.recv_data()).await.unwrap().unwrap().unwrap();
        assert_eq!(part.copy_to_bytes(part.remaining()), format!("data: {event}\n\n"));
    }

    // An answer before the request is complete, which then is not wanted any more.
    server.on("/early", Script::early(413));
    let request = http::Request::post(format!("https://{HOST}/early")).body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.send_data(Bytes::from(vec![b'x'; 1000])).await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), 413);
    let told = async {
        while stream.send_data(Bytes::from(vec![b'x'; 1000])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("it is told to stop");
    assert_eq!(client.get(HOST, "/next").await.unwrap().status, 200, "the connection goes on");
}

/// Whoever goes away takes the work for him along.
#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let server = Origin::start("api").await;
    server.on("/hang", Script::hang());
    server.on("/endless", Script::chunked(&["a"; 100_000], Duration::from_millis(5)));
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let client = client(&vigie, &config).await;
    let open = async |path: &str| {
        let request = http::Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.finish().await.unwrap();
        let reached = eventually(PATIENCE, async || {
            server.seen().iter().any(|seen| seen.target == path) && server.open_connections() == 1
        });
        assert!(reached.await, "{path}");
        stream
    };
    for path in ["/hang", "/endless"] {
        let mut stream = open(path).await;
        if path == "/endless" {
            assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        }
        // STOP_SENDING.
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
        assert!(eventually(PATIENCE, async || server.open_connections() == 0).await, "{path}");
    }
    // An upload that is broken off.
    let request = http::Request::post(format!("https://{HOST}/upload")).body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.send_data(Bytes::from(vec![b'x'; 1000])).await.unwrap();
    assert!(eventually(PATIENCE, async || server.open_connections() == 1).await);
    stream.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
    assert!(eventually(PATIENCE, async || server.open_connections() == 0).await);
    // And a whole connection.
    let _stream = open("/hang").await;
    client.quic().close(0x100_u32.into(), b"");
    assert!(eventually(PATIENCE, async || server.open_connections() == 0).await);
}

/// An answer that breaks off is never taken for whole.
#[tokio::test]
async fn a_truncated_answer_is_reset() {
    let server = Origin::start("api").await;
    server.on("/promised", Script::close_in_body(10, "abc"));
    server.on("/chunked", Script::chunked(&["a", "b"], Duration::ZERO).then_reset());
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let client = client(&vigie, &config).await;
    for path in ["/promised"] {
        let request = http::Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.finish().await.unwrap();
        let error = collect(&mut stream).await.unwrap_err();
        assert!(format!("{error:?}").contains("INTERNAL"), "{path}: {error:?}");
    }
    assert_eq!(client.get(HOST, "/").await.unwrap().status, 200, "the connection goes on");
}

/// A network gives a client another port, or another address: the connection goes on.
#[tokio::test]
async fn a_client_may_move() {
    let server = Origin::start("api").await;
    let gate = Gate::closed();
    server.on("/slow", Script::echo().gated(&gate));
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    for _ in 0..4 {
        let client = client(&vigie, &config).await;
        let request = http::Request::get(format!("https://{HOST}/slow")).body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.finish().await.unwrap();
        client.move_away().unwrap();
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
        gate.let_one_pass();
        let answer = tokio::time::timeout(PATIENCE, collect(&mut stream)).await.unwrap().unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn certificates_and_options_are_those_of_tls() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let files = Files::new();
    for name in ["open.test", "strict.test", "private.test"] {
        authority.issue(&[name]).write(files.path(), name);
    }
    files.write("ca.pem", authority.pem());
    let server = Origin::start("api").await;
    let router = |name: &str, options: &str| {
        format!("    {name}: {{rule: 'Host(`{name}.test`)', service: app, tls: {{options: {options}}}}}\n")
    };
    let routers = [
        router("open", "default"),
        router("strict", "strict"),
        router("private", "private"),
        router("old", "old"),
    ]
    .concat();
    let certificates: String = ["open.test", "strict.test", "private.test"]
        .map(|name| format!("    - {{certFile: '{{dir}}/{name}.crt', keyFile: '{{dir}}/{name}.key'}}\n"))
        .concat();
    let dynamic = format!(
        "{}tls:\n  certificates:\n{certificates}  options:\n    strict: {{sniStrict: true}}\n    old: {{maxVersion: VersionTLS12}}\n    private: {{clientAuth: {{caFiles: ['{{dir}}/ca.pem'], clientAuthType: RequireAndVerifyClientCert}}}}\n",
        app("", &[server.url()]).replace("  services:", &format!("{routers}  services:"))
    );
    let vigie = Vigie::over(files, &statics("{}", ""), &dynamic).await;
    let config = authority.client_config(&["h3"]);
    let connect = async |config: &Arc<ClientConfig>, name: &str| {
        H3Client::connect(vigie.websecure(), Arc::clone(config), name).await
    };
    let open = connect(&config, "open.test").await.unwrap();
    assert_eq!(open.get("open.test", "/").await.unwrap().status, 200);
    // RFC 9110 section 15.5.20: not under the options of another name.
    assert_eq!(open.get("private.test", "/").await.unwrap().status, 421);
    assert!(connect(&config, "strict.test").await.unwrap().get("strict.test", "/").await.is_ok());
    assert!(connect(&config, "unknown.test").await.is_err(), "the default certificate is not for it");
    assert!(connect(&config, "old.test").await.is_err(), "there is no QUIC without TLS 1.3");
    assert!(connect(&authority.client_config(&["h2"]), "open.test").await.is_err(), "it speaks HTTP/3 alone");
    let (mine, foreign) = (authority.issue_client("me"), other.issue_client("stranger"));
    let private = connect(&authority.client_config_with(&["h3"], &mine), "private.test").await.unwrap();
    assert_eq!(private.get("private.test", "/").await.unwrap().status, 200);
    for config in [config.clone(), authority.client_config_with(&["h3"], &foreign)] {
        let answer = match connect(&config, "private.test").await {
            // A client is done before its certificate is looked at: RFC 8446 section 4.4.2.4.
            Ok(client) => client.get("private.test", "/").await.ok(),
            Err(_) => None,
        };
        assert!(answer.is_none());
    }
    let refused = [("entrypoint", "websecure"), ("reason", "tls_handshake")];
    let counted = eventually(PATIENCE, async || {
        vigie.metrics().await.value("lb_refused_requests_total", &refused) >= Some(3.0)
    });
    assert!(counted.await);
}

/// Early data can be replayed: there is none, whoever offers it.
#[tokio::test]
async fn nothing_is_believed_before_the_handshake() {
    let server = Origin::start("api").await;
    let (vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let mut config = ClientConfig::clone(&config);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let first = client(&vigie, &config).await;
    assert_eq!(first.get(HOST, "/").await.unwrap().status, 200);
    // It has a ticket by now, and would begin with early data if that said so.
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(config, vigie.websecure(), HOST).unwrap();
    assert!(connecting.into_0rtt().is_err());
}

/// A renewed certificate is served to new connections; old ones go on, over any reload.
#[tokio::test]
async fn a_reload_cuts_nothing() {
    let server = Origin::start("api").await;
    let gate = Gate::closed();
    server.on("/slow", Script::echo().gated(&gate));
    let dynamic = app("", &[server.url()]);
    let (vigie, config, authority) = vigie(&statics("{}", ""), &dynamic).await;
    let client = client(&vigie, &config).await;
    let shown = async || {
        let (_endpoint, quic) = quic(vigie.websecure(), &config, HOST).await.unwrap();
        let chain = quic.peer_identity().unwrap();
        chain.downcast::<Vec<rustls::pki_types::CertificateDer<'_>>>().unwrap()[0].to_vec()
    };
    let before = shown().await;
    let request = http::Request::get(format!("https://{HOST}/slow")).body(()).unwrap();
    let mut stream = client.open(request).await.unwrap();
    stream.finish().await.unwrap();
    authority.issue(&[HOST]).write(vigie.files.path(), "site");
    assert!(eventually(PATIENCE, async || shown().await != before).await);
    let other = Origin::start("other").await;
    vigie.write(&format!("{}{CERTIFICATES}", app("", &[server.url(), other.url()])));
    let live = eventually(PATIENCE, async || origin(&client.get(HOST, "/").await.unwrap()) == "other");
    assert!(live.await);
    gate.let_one_pass();
    assert_eq!(collect(&mut stream).await.unwrap().status, 200);
}

/// SIGTERM: clients are told by GOAWAY, requests under way are finished, and then it ends soon.
#[tokio::test]
async fn the_end_lets_requests_finish() {
    let server = Origin::start("api").await;
    let gate = Gate::closed();
    server.on("/slow", Script::echo().gated(&gate));
    let (mut vigie, config, _) = vigie(&statics("{}", ""), &app("", &[server.url()])).await;
    let (busy, idle) = (client(&vigie, &config).await, client(&vigie, &config).await);
    assert_eq!(idle.get(HOST, "/").await.unwrap().status, 200);
    let request = http::Request::get(format!("https://{HOST}/slow")).body(()).unwrap();
    let mut stream = busy.open(request).await.unwrap();
    stream.finish().await.unwrap();
    assert!(eventually(PATIENCE, async || server.seen().iter().any(|seen| seen.target == "/slow")).await);
    vigie.signal(Signal::TERM);
    let closed = tokio::time::timeout(PATIENCE, idle.quic().closed()).await.unwrap();
    assert!(
        matches!(&closed, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == 0x100_u32.into()),
        "{closed}"
    );
    // What is new is refused at once, so that clients try TCP.
    assert!(quic(vigie.websecure(), &config, HOST).await.is_err());
    gate.let_one_pass();
    assert_eq!(collect(&mut stream).await.unwrap().status, 200);
    let closed = tokio::time::timeout(PATIENCE, busy.quic().closed()).await.unwrap();
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    assert!(vigie.ended(Duration::from_secs(5)).await.success());
}

/// What `graceTimeOut` was too short for is closed by every worker, not left to clients that wait in vain.
#[tokio::test]
async fn the_end_is_told_to_all() {
    let server = Origin::start("api").await;
    server.on("/hang", Script::hang());
    let grace = "transport: {lifeCycle: {graceTimeOut: 700ms}}, http3: {}";
    let statics = statics("{}", "").replace("http3: {}", grace);
    let (mut vigie, config, _) = vigie(&statics, &app("", &[server.url()])).await;
    let mut asked = Vec::new();
    for _ in 0..8 {
        let client = client(&vigie, &config).await;
        let request = http::Request::get(format!("https://{HOST}/hang")).body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.finish().await.unwrap();
        asked.push((client, stream));
    }
    assert!(eventually(PATIENCE, async || server.open_connections() == 8).await);
    vigie.signal(Signal::TERM);
    for (client, _stream) in &asked {
        let closed = tokio::time::timeout(PATIENCE, client.quic().closed()).await.expect("it is told");
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    }
    assert!(vigie.ended(PATIENCE).await.success());
}

/// An idle connection is told to go, and closed.
#[tokio::test]
async fn idle_connections_end() {
    let server = Origin::start("api").await;
    server.on("/slow", Script::echo().delayed(Duration::from_secs(3)));
    let statics = statics("{}", "")
        .replace("http3: {}", "transport: {respondingTimeouts: {idleTimeout: 1s}}, http3: {}");
    let (vigie, config, _) = vigie(&statics, &app("", &[server.url()])).await;
    let client = client(&vigie, &config).await;
    assert_eq!(client.get(HOST, "/slow").await.unwrap().status, 200, "one that is waited for is not idle");
    let closed = tokio::time::timeout(PATIENCE, client.quic().closed()).await.unwrap();
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
}

/// `keepAliveMaxRequests` and `keepAliveMaxTime`: what is asked is answered, then the client is sent elsewhere.
#[tokio::test]
async fn connections_end_that_have_served_enough() {
    let server = Origin::start("api").await;
    for (worn, requests) in [("keepAliveMaxRequests: 3", 3), ("keepAliveMaxTime: 50ms", usize::MAX)] {
        let statics = statics("{}", "").replace("http3: {}", &format!("transport: {{{worn}}}, http3: {{}}"));
        let (vigie, config, authority) = vigie(&statics, &app("", &[server.url()])).await;
        let client = client(&vigie, &config).await;
        let config = authority.client_config(&["h2"]);
        let http2 = H2Client::connect_tls(vigie.websecure(), config, HOST).await.unwrap();
        let (mut http3_served, mut http2_served) = (0, 0);
        let ended = eventually(PATIENCE, async || {
            if http3_served < requests && client.get(HOST, "/").await.is_ok_and(|answer| answer.status == 200)
            {
                http3_served += 1;
            }
            if http2_served < requests && http2.get(HOST, "/").await.is_ok_and(|answer| answer.status == 200)
            {
                http2_served += 1;
            }
            client.quic().close_reason().is_some() && http2.is_closed()
        });
        assert!(ended.await, "{worn}: {http3_served}, {http2_served}");
        let all = requests == usize::MAX || (http3_served, http2_served) == (3, 3);
        assert!(all && http3_served > 0 && http2_served > 0, "{worn}: {http3_served}, {http2_served}");
        let closed = client.quic().close_reason().unwrap();
        assert!(closed.to_string().contains("256") || format!("{closed:?}").contains("256"), "{closed:?}");
    }
}
