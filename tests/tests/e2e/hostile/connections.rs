//! Many connections: limits for all and for each client, ten thousand that idle, and no descriptor left.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_testkit::{
    Authority, Client, Files, Gate, H2Client, Origin, PATIENCE, Script, VigieProcess, eventually,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{HOST, STATIC, STATIC_TLS, Vigie, app, binary};

/// [`STATIC`] with these options of the entry point `web`.
fn web(options: &str) -> String {
    STATIC.replace("web: {address: '127.0.0.1:0'}", &format!("web: {{address: '127.0.0.1:0', {options}}}"))
        + "log: {level: INFO}\n"
}

async fn refused(vigie: &Vigie, reason: &str) -> f64 {
    vigie.metrics().await.value("lb_refused_requests_total", &[("reason", reason)]).unwrap_or(0.0)
}

/// A connection on which a request was served.
async fn served(vigie: &Vigie, from: &str) -> Option<Client> {
    let from: IpAddr = from.parse().unwrap();
    let mut client = Client::connect_from(from, vigie.web()).await.unwrap();
    let answer = client.get(HOST, "/").await.unwrap();
    match answer.status {
        200 => Some(client),
        503 => {
            assert_eq!((answer.get("retry-after"), answer.keeps_alive()), (Some("5"), false));
            assert!(client.closes_within(PATIENCE).await);
            None
        }
        status => panic!("{status}"),
    }
}

#[tokio::test]
async fn an_entry_point_takes_so_many_connections() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::with(&web("limits: {connections: 20}"), &app("", &[origin.url()])).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(served(&vigie, "127.0.0.1").await.expect("there is room"));
    }
    let began = tokio::time::Instant::now();
    for _ in 0..5 {
        assert!(served(&vigie, "127.0.0.1").await.is_none(), "one too many");
    }
    assert_eq!(refused(&vigie, "connection_limit").await, 5.0);
    // Who speaks something else, or nothing, finds the connection closed; soon.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        client.send(bytes).await.unwrap();
        let said = client.rest().await.unwrap_or_default();
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 503 ") && bytes.starts_with(b"PRI"),
            "{said:?}"
        );
    }
    // Those inside go on, and the operator's entry point is another one.
    for client in &mut open {
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
    }
    let lines = vigie.words().lines().filter(|line| line.contains("connections are refused")).count();
    let most = began.elapsed().as_secs() as usize + 1;
    assert!((1..=most).contains(&lines), "at most one a second: {lines}\n{}", vigie.words());
    // Each that goes leaves room for one.
    drop(open.pop());
    let room = eventually(PATIENCE, async || {
        served(&vigie, "127.0.0.1").await.map(|client| open.push(client)).is_some()
    });
    assert!(room.await);
    assert!(served(&vigie, "127.0.0.1").await.is_none());
}

#[tokio::test]
async fn a_client_takes_so_many_connections() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::with(&web("limits: {connectionsPerClient: 3}"), &app("", &[origin.url()])).await;
    let mut greedy = Vec::new();
    for _ in 0..3 {
        greedy.push(served(&vigie, "127.0.0.2").await.expect("there is room"));
    }
    let h2 = H2Client::connect(vigie.web()).await.unwrap();
    assert_eq!(h2.get(HOST, "/").await.unwrap().status, 200);
    for _ in 0..3 {
        assert!(served(&vigie, "127.0.0.2").await.is_none());
        let other = served(&vigie, "127.0.0.1").await;
        assert!(other.is_some(), "another client is not concerned");
        drop(other);
    }
    assert_eq!(refused(&vigie, "client_connection_limit").await, 3.0);
    greedy.clear();
    assert!(eventually(PATIENCE, async || served(&vigie, "127.0.0.2").await.is_some()).await);
}

/// Two workers and many clients at once: never one too many, and every seat is given back.
#[tokio::test]
async fn the_limits_are_exact() {
    let gate = Gate::closed();
    let held = gate.clone();
    let origin = Origin::with("origin", move |_| Script::echo().gated(&held)).await;
    let limits = "limits: {connections: 40, connectionsPerClient: 10}";
    let vigie = Vigie::with(&web(limits), &app("", &[origin.url()])).await;
    for round in 1..=2 {
        let mut requests = tokio::task::JoinSet::new();
        for number in 0..120 {
            let address = vigie.web();
            let from: IpAddr = [127, 0, 0, 2 + number % 6].into();
            requests.spawn(async move {
                let mut client = Client::connect_from(from, address).await.unwrap();
                client.get(HOST, "/").await.unwrap().status
            });
        }
        let refusals = async || {
            refused(&vigie, "connection_limit").await + refused(&vigie, "client_connection_limit").await
        };
        assert!(eventually(PATIENCE, async || refusals().await == 80.0 * f64::from(round)).await);
        (0..40).for_each(|_| gate.let_one_pass());
        let statuses = requests.join_all().await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 40);
        vigie.until_metric("traefik_open_connections", &[("entrypoint", "web")], 0.0).await;
    }
}

/// Behind a proxy that is trusted to say who the client is, that client is counted; of IPv6 its network.
#[tokio::test]
async fn the_client_of_a_trusted_proxy_is_counted() {
    let origin = Origin::start("origin").await;
    let options = "limits: {connectionsPerClient: 2}, proxyProtocol: {trustedIPs: [127.0.0.1/32]}";
    let vigie = Vigie::with(&web(options), &app("", &[origin.url()])).await;
    let mut open = Vec::new();
    for (family, source, status) in [
        ("TCP4", "192.0.2.1", 200),
        ("TCP4", "192.0.2.1", 200),
        ("TCP4", "192.0.2.1", 503),
        ("TCP4", "192.0.2.2", 200),
        ("TCP6", "2001:db8::1", 200),
        ("TCP6", "2001:db8::2:1", 200),
        ("TCP6", "2001:db8::3", 503),
        ("TCP6", "2001:db8:0:1::1", 200),
    ] {
        let to = if family == "TCP4" { "192.0.2.9" } else { "2001:db8::9" };
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let head = format!("PROXY {family} {source} {to} 1000 80\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(head).await.unwrap();
        assert_eq!(client.response("GET").await.unwrap().status, status, "{source}");
        open.push(client);
    }
    // Without a header it is the proxy itself.
    assert!(served(&vigie, "127.0.0.1").await.is_some());
}

#[tokio::test]
async fn over_tls_a_connection_too_many_is_closed() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "site");
    let origin = Origin::start("origin").await;
    let tls = "tls: {certificates: [{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}]}\n";
    let limited = STATIC_TLS.replace("websecure: {", "websecure: {limits: {connections: 1}, ");
    let vigie = Vigie::over(files, &limited, &format!("{}{tls}", app("", &[origin.url()]))).await;
    let connect = async || {
        let mut client = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await?;
        client.get(HOST, "/").await.map(|answer| (client, answer.status))
    };
    let (first, status) = connect().await.unwrap();
    assert_eq!(status, 200);
    assert!(connect().await.is_err());
    drop(first);
    assert!(eventually(PATIENCE, async || connect().await.is_ok()).await);
}

/// This test's own descriptors: a socket for each client.
fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    assert!(maximum.is_none_or(|most| most >= 12_000), "`ulimit -Hn` must be at least 12000 for this test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_leave_a_new_client_unaffected() {
    raise_own_limit();
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let resident =
        async || vigie.metrics().await.value("process_resident_memory_bytes", &[]).expect("shown on Linux");
    vigie.get("/").await;
    let before = resident().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut more = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let address = vigie.web();
            more.spawn(async move {
                let mut client = Client::connect(address).await.unwrap();
                assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
                client
            });
        }
        idle.extend(more.join_all().await);
    }
    vigie.until_metric("traefik_open_connections", &[("entrypoint", "web")], 10_000.0).await;
    for _ in 0..20 {
        let began = tokio::time::Instant::now();
        assert_eq!(vigie.get("/new").await.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    let each = (resident().await - before) / 10_000.0;
    assert!(each < 4096.0, "{each} bytes for an idle connection");
    // And all are alive still.
    for client in idle.iter_mut().step_by(500) {
        assert_eq!(client.get(HOST, "/again").await.unwrap().status, 200);
    }
}

/// A proxy that may open 150 descriptors, with its addresses.
async fn short_of_descriptors(origin: &Origin) -> (VigieProcess, BTreeMap<String, SocketAddr>, Files) {
    let files = Files::new();
    files.write(
        "dynamic.yml",
        &app("healthCheck: {path: /health, interval: 200ms, timeout: 1s}", &[origin.url()]),
    );
    let text =
        format!("{STATIC}log: {{level: INFO}}\n").replace("{dir}", &files.path().display().to_string());
    let file = files.write("vigie.yml", &text);
    let mut shell = std::process::Command::new("sh");
    let line = format!("ulimit -n 150; exec {} --configFile={}", binary().display(), file.display());
    let (process, addresses) = Vigie::spawn(shell.args(["-c", &line])).await;
    (process, addresses, files)
}

/// Accepting pauses, idle connections make room, and when the crowd is gone all is as before.
#[tokio::test]
async fn without_descriptors_accepting_pauses_and_recovers() {
    let origin = Origin::start("origin").await;
    let (process, addresses, _files) = short_of_descriptors(&origin).await;
    let (web, admin) = (addresses["web"], addresses["traefik"]);
    let mut crowd = Vec::new();
    for _ in 0..300 {
        let mut client = Client::connect(web).await.unwrap();
        // Heads that never end: these are not idle, nobody may close them before their time.
        let _ = client.send("GET / HT").await;
        crowd.push(client);
    }
    let said = "no file descriptors left for clients";
    assert!(eventually(PATIENCE, async || process.stdout().contains(said)).await, "{}", process.stdout());
    drop(crowd);
    let recovered = eventually(PATIENCE, async || {
        let answer = async { Client::connect(web).await?.get(HOST, "/").await };
        answer.await.is_ok_and(|answer| answer.status == 200)
    });
    assert!(recovered.await, "{}", process.stdout());
    let page = lb_testkit::get(admin, "localhost", "/metrics").await.unwrap();
    let has = |start: &str, value: &str| {
        page.text().lines().any(|line| line.starts_with(start) && line.ends_with(value))
    };
    assert!(!has("instance_health", " 0"), "health checks had descriptors of their own");
    let counted =
        page.text().lines().find(|line| line.contains("reason=\"no_descriptor\"")).map(str::to_owned);
    assert!(counted.is_some(), "{}", page.text());
}

/// Who connects and says nothing makes room long before a greeting is overdue.
#[tokio::test]
async fn the_silent_do_not_keep_the_last_descriptors() {
    const BEFORE_GREETINGS_ARE_OVERDUE: Duration = Duration::from_secs(8);
    let origin = Origin::start("origin").await;
    let (process, addresses, _files) = short_of_descriptors(&origin).await;
    let web = addresses["web"];
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(Client::connect(web).await.unwrap());
    }
    let answered = async { Client::connect(web).await?.get(HOST, "/").await };
    let answered = tokio::time::timeout(BEFORE_GREETINGS_ARE_OVERDUE, answered).await;
    assert_eq!(answered.expect("in time").unwrap().status, 200, "{}", process.stdout());
}
