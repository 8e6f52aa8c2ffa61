//! Replicas that break in every way there is: what the client gets is right, or visibly broken off.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lb_testkit::{Authority, Client, Load, Origin, PATIENCE, Script, eventually, reserve_address};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, app_with, origin};

const CHECK: &str = "healthCheck: {path: /health, interval: 100ms, timeout: 2s}";

/// Gives up soon on servers that neither accept nor answer.
const QUICK: &str = "  serversTransports:\n    quick: {forwardingTimeouts: {dialTimeout: 300ms, responseHeaderTimeout: 300ms}}\n";

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

/// Two servers of a service that tries again only by itself, or with `retry` as well.
fn two(faulty: &str, good: &str, retry: bool) -> String {
    let router = if retry { "middlewares: [again]" } else { "" };
    let app = app_with(router, "serversTransport: quick", &[faulty.to_owned(), good.to_owned()]);
    format!("{app}  middlewares:\n    again: {{retry: {{attempts: 2}}}}\n{QUICK}")
}

/// Name, what the server does, the status, and whether a GET is repeated without a middleware.
type Fault = (&'static str, fn() -> Script, u16, bool);

/// What a client of the faulty server sees, by what went wrong: without a middleware a request that may have
/// been begun is not repeated, with one it is where the method allows.
#[tokio::test]
async fn each_fault_has_its_answer() {
    let good = Origin::start("good").await;
    let faulty = Origin::start("faulty").await;
    let faults: [Fault; 6] = [
        ("no answer", Script::no_answer, 502, true),
        ("reset", Script::reset, 502, true),
        ("reset inside the head", Script::reset_in_head, 502, true),
        ("reset behind 103", || Script::reset().after_informational(103, &[("Link", "</a>")]), 502, true),
        ("garbage", || Script::raw("this is not HTTP\r\n\r\n").then_close(), 502, false),
        ("hangs", Script::hang, 504, false),
    ];
    for retry in [false, true] {
        let vigie = Vigie::start(&two(&faulty.url(), &good.url(), retry)).await;
        for protocol in Protocol::BOTH {
            for (name, script, status, repeated) in faults {
                faulty.on("/", script());
                for (method, body, hidden) in [
                    ("GET", None, retry || repeated),
                    // This client of HTTP/2 does not say how long it is.
                    ("PUT", Some(&b"body"[..]), repeated || retry && matches!(protocol, Protocol::Http1)),
                    ("POST", Some(&b"body"[..]), false),
                ] {
                    let before = faulty.requests();
                    let response = loop {
                        let mut connection = protocol.connect(vigie.web()).await;
                        let response = connection.request(method, "/", &[], body).await;
                        if faulty.requests() > before {
                            break response;
                        }
                        assert_eq!(origin(&response), "good");
                    };
                    let expected = if hidden { 200 } else { status };
                    assert_eq!(response.status, expected, "{name}, {protocol:?} {method}, retry: {retry}");
                    assert_eq!(faulty.requests() - before, 1, "asked once");
                }
            }
        }
    }
}

/// The half head of one server is no part of the next one's, however long it was.
#[tokio::test]
async fn a_head_that_breaks_off_leaves_nothing_behind() {
    let (good, faulty) = (Origin::start("good").await, Origin::start("faulty").await);
    let vigie = Vigie::start(&two(&faulty.url(), &good.url(), false)).await;
    for half in [
        "HTTP/1.1 503 Service Unavailable\r\nX-Half: yes\r\nContent-Length: 1\r\nX-H",
        "HTTP/1.1 201 Created\r\nX-Half: yes\r\n",
        "HTTP/1.1 200 O",
    ] {
        faulty.on("/", Script::raw(half).then_close());
        for protocol in Protocol::BOTH {
            let before = faulty.requests();
            while faulty.requests() == before {
                let answer = protocol.get(vigie.web(), "/").await;
                assert_eq!((answer.status, origin(&answer).as_str()), (200, "good"), "{half:?}");
                assert_eq!(answer.get("x-half"), None);
            }
        }
    }
}

/// Nothing was sent, so a POST goes on too: to whoever accepts.
#[tokio::test]
async fn who_does_not_accept_is_passed_over() {
    let good = Origin::start("good").await;
    let (full, _listener, _fill) = full_backlog().await;
    let stranger = Authority::new("stranger").issue(&["127.0.0.1"]).server_config(&[]);
    let strange = Origin::tls("strange", stranger, |_| Script::echo()).await;
    for (reason, faulty) in [
        ("connect", format!("http://{}", reserve_address())),
        ("connect_timeout", format!("http://{full}")),
        ("tls", strange.url()),
    ] {
        let vigie = Vigie::start(&two(&faulty, &good.url(), false)).await;
        for protocol in Protocol::BOTH {
            for _ in 0..3 {
                let mut connection = protocol.connect(vigie.web()).await;
                let response = connection.request("POST", "/", &[], Some(b"body")).await;
                assert_eq!((origin(&response).as_str(), &response.json()["body"]), ("good", &"body".into()));
            }
        }
        let labels = [("service", "app@file"), ("reason", reason)];
        let metrics = vigie.metrics().await;
        let errors = metrics.value("lb_upstream_errors_total", &labels);
        assert!(errors >= Some(1.0), "{reason}: {errors:?}");
        assert_eq!(metrics.value("lb_retries_total", &[("service", "app@file")]), errors);
    }
}

/// An address where connections hang, as behind a firewall that drops them.
pub(crate) async fn full_backlog() -> (SocketAddr, tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fill = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
    {
        fill.push(connected.unwrap());
        assert!(fill.len() < 100, "the backlog does not fill");
    }
    (address, listener, fill)
}

/// Kept connections that die unannounced, before the next request is sent or only when it comes, fail no GET or PUT,
/// repeat no POST, and cost nothing of the retry budget.
#[tokio::test]
async fn connections_that_die_between_requests_are_replaced() {
    let closes = Origin::with("closes", |_| Script::echo().then_close()).await;
    let known = Mutex::new(HashSet::new());
    let resets = Origin::with("resets", move |request| {
        // Not known yet: the first request of its connection.
        if known.lock().unwrap().insert(request.connection) { Script::echo() } else { Script::reset() }
    })
    .await;
    let budget = "retryBudget: {percent: 0, minRetriesPerSecond: 0}";
    for server in [closes, resets] {
        let vigie = Vigie::start(&app(budget, &[server.url()])).await;
        for protocol in Protocol::BOTH {
            let mut connection = protocol.connect(vigie.web()).await;
            for (method, body) in [("GET", None), ("PUT", Some(&b"body"[..]))] {
                for _ in 0..50 {
                    let response = connection.request(method, "/", &[], body).await;
                    assert_eq!(origin(&response), server.name(), "{protocol:?} {method}");
                }
            }
            let before = server.requests();
            let mut answered = 0;
            for _ in 0..50 {
                let response = connection.request("POST", "/", &[], Some(b"x")).await;
                assert!(matches!(response.status, 200 | 502), "{response:?}");
                answered += usize::from(response.status == 200);
            }
            let arrived = server.requests() - before;
            assert!(answered > 0 && arrived <= 50, "{protocol:?}: 50 POSTs have arrived {arrived} times");
        }
    }
}

/// A server that says how long it keeps a connection is not asked on it when that is over, or nearly.
#[tokio::test]
async fn a_connection_is_not_used_for_longer_than_its_server_keeps_it() {
    for (timeout, connections) in [("timeout=60", 1), ("timeout=0", 3)] {
        let server = Origin::start("server").await;
        server.on("/", Script::answer(200, &[("Keep-Alive", timeout)], b"ok"));
        let vigie = Vigie::start(&app("", &[server.url()])).await;
        let mut client = Client::connect(vigie.web()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
        }
        assert_eq!(server.connections(), connections, "{timeout}");
    }
}

/// Whatever a server does to its answers, no client gets another one's, or a part that looks whole.
#[tokio::test]
async fn answers_are_never_mixed_nor_made_to_look_whole() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let turn = AtomicUsize::new(0);
    let faulty = Origin::with("faulty", move |_| match turn.fetch_add(1, Ordering::Relaxed) % 11 {
        0 => Script::reset(),
        1 => Script::no_answer(),
        2 => Script::reset_in_head(),
        3 => Script::raw("\0\0\0\0").then_close(),
        4 => Script::reset_in_body(100, "half"),
        5 => Script::close_in_body(100, "half"),
        6 => Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").then_close(),
        7 => Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n").then_close(),
        // Answers nobody asked for.
        8 => Script::echo().then_send(EVIL),
        9 => Script::raw(format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}")),
        _ => Script::echo(),
    })
    .await;
    for retry in [false, true] {
        let good = Origin::start("good").await;
        let vigie = Vigie::start(&two(&faulty.url(), &good.url(), retry)).await;
        for protocol in Protocol::BOTH {
            let [mut whole, mut broken, mut refused] = [0; 3];
            let mut connection = protocol.connect(vigie.web()).await;
            for n in 0..110 {
                let path = format!("/{n}");
                match connection.ask("GET", HOST, &path, &[], None).await {
                    Ok(response) if response.status == 200 => {
                        assert_eq!(response.json()["target"], path.as_str(), "{protocol:?}");
                        whole += 1;
                    }
                    Ok(response) if response.status == 204 => assert_eq!(response.body, b""),
                    Ok(response) => {
                        assert_eq!((response.status, response.text()), (502, "Bad Gateway"), "{protocol:?}");
                        refused += 1;
                    }
                    Err(_) => {
                        broken += 1;
                        connection = protocol.connect(vigie.web()).await;
                    }
                }
            }
            assert!(whole >= 55 && broken > 0, "{protocol:?}: {whole} whole, {broken} broken off");
            assert_eq!(refused > 0, !retry, "{protocol:?}: {refused} refused");
        }
    }
}

/// Without any middleware: one of three replicas dies twice under load, and no GET is lost.
#[tokio::test]
async fn a_replica_that_dies_under_load_fails_no_get() {
    for h2 in [false, true] {
        let mut origins =
            [Origin::start("api-1").await, Origin::start("api-2").await, Origin::start("api-3").await];
        let vigie = Vigie::start(&app(CHECK, &urls(&origins))).await;
        let load = Load::new(vigie.web(), HOST).connections(8);
        let running = if h2 { load.h2().start() } else { load.start() };
        let url = origins[1].url();
        for _ in 0..2 {
            let until = running.done() + 200;
            assert!(eventually(PATIENCE, async || running.done() >= until).await);
            origins[1].stop().await;
            vigie.until_metric("instance_health", &[("instance", &url)], 0.0).await;
            origins[1].restart().await;
            vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
        }
        running.stop().await.assert_flawless();
    }
}

/// Told at once, with the time after which it makes sense to ask again; back as soon as a probe says so.
#[tokio::test]
async fn all_replicas_down_is_503_at_once() {
    let mut origins = [Origin::start("api-1").await, Origin::start("api-2").await];
    let check = "healthCheck: {path: /health, interval: 1200ms, timeout: 1s}";
    let told = format!("{STATIC}log: {{level: INFO}}\n");
    let vigie = Vigie::with(&told, &app(check, &urls(&origins))).await;
    for origin in &mut origins {
        let url = origin.url();
        origin.stop().await;
        vigie.until_metric("instance_health", &[("instance", &url)], 0.0).await;
    }
    vigie.until_said("No server of the service is left: its requests are answered 503").await;
    for protocol in Protocol::BOTH {
        let began = Instant::now();
        let response = protocol.get(vigie.web(), "/").await;
        assert!(began.elapsed() < Duration::from_millis(1000), "{:?}", began.elapsed());
        let told = (response.status, response.text(), response.get("retry-after"));
        assert_eq!(told, (503, "no available server\n", Some("2")), "{protocol:?}");
    }
    let began = Instant::now();
    origins[0].restart().await;
    vigie.until("one is back", |response| response.status == 200).await;
    // An interval, and what a busy machine takes.
    assert!(began.elapsed() < Duration::from_millis(1200 + 1500), "{:?}", began.elapsed());
    vigie.until_said("The service has a server again").await;
    assert_eq!(vigie.words().matches("No server of the service is left").count(), 1, "{}", vigie.words());
}

#[tokio::test]
async fn an_open_breaker_says_how_long() {
    let ill = Origin::with("ill", |_| Script::status(500)).await;
    let breaker = "{expression: 'ResponseCodeRatio(500, 600, 0, 600) > 0.5', fallbackDuration: 40s}";
    let app = app_with("middlewares: [breaker]", "", &[ill.url()]);
    let vigie =
        Vigie::start(&format!("{app}  middlewares:\n    breaker: {{circuitBreaker: {breaker}}}\n")).await;
    vigie.until("it opens", |response| response.status == 503).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        let seconds: u64 = response.get("retry-after").unwrap().parse().unwrap();
        assert_eq!(response.status, 503);
        assert!((25..=40).contains(&seconds), "{protocol:?}: {seconds}");
    }
}
