//! Metrics for StatsD, Datadog and InfluxDB. Names and tags are those of Traefik 3.7.15 after the same requests.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use lb_testkit::{Files, Origin, PATIENCE, Script, eventually};
use rustix::process::Signal;

use crate::harness::{Protocol, STATIC, Vigie, app};

/// A socket that others send datagrams to, and its address.
fn listener() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// Adds what has come to the sums: of counters their values, of durations how many there were.
fn receive(socket: &UdpSocket, sums: &mut BTreeMap<String, f64>) {
    let mut buffer = [0; 2048];
    while let Ok(length) = socket.recv(&mut buffer) {
        for line in std::str::from_utf8(&buffer[..length]).unwrap().lines() {
            let (name, rest) = line.split_once(':').unwrap();
            let mut parts = rest.split('|');
            let value: f64 = parts.next().unwrap().parse().unwrap();
            let kind = parts.next().unwrap();
            let parts: Vec<_> = parts.collect();
            let rate = parts
                .iter()
                .find_map(|part| part.strip_prefix('@'))
                .map_or(1.0, |rate| rate.parse().unwrap());
            let tags = parts.iter().find(|part| part.starts_with('#')).copied().unwrap_or_default();
            let counts = if kind == "c" { value } else { 1.0_f64 / rate };
            *sums.entry(format!("{name}|{kind}{tags}")).or_default() += counts;
        }
    }
}

#[tokio::test]
async fn datagrams_say_what_has_happened() {
    let server = Origin::with("api", |_| Script::text("hello")).await;
    let ((statsd, to_statsd), (datadog, to_datadog)) = (listener(), listener());
    let keys = "pushInterval: 100ms, addRoutersLabels: true";
    let text = STATIC.replace(
        "prometheus: {addRoutersLabels: true}",
        &format!("statsD: {{address: '{to_statsd}', {keys}}}, datadog: {{address: '{to_datadog}', prefix: lb, {keys}}}"),
    );
    let mut vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    let (mut plain, mut tagged) = (BTreeMap::new(), BTreeMap::new());
    for pushed in [3.0, 5.0] {
        for _ in 0..if pushed == 3.0 { 3 } else { 2 } {
            assert_eq!(Protocol::Http1.get(vigie.web(), "/").await.status, 200);
        }
        if pushed == 5.0 {
            vigie.signal(Signal::TERM);
            vigie.ended(PATIENCE).await;
        }
        let all = eventually(PATIENCE, async || {
            receive(&statsd, &mut plain);
            receive(&datadog, &mut tagged);
            let request = "code:200";
            plain.get("traefik.router.request.total|c") == Some(&pushed)
                && tagged.iter().any(|(name, sum)| {
                    name.starts_with("lb.service.request.total|c")
                        && name.ends_with(request)
                        && *sum == pushed
                })
        });
        assert!(all.await, "{plain:#?}\n{tagged:#?}");
    }
    assert_eq!(plain["traefik.entrypoint.request.total|c"], 5.0);
    assert_eq!(plain["traefik.entrypoint.request.duration|ms"], 5.0);
    assert_eq!(plain["traefik.service.responses.bytes.total|c"], 25.0);
    assert_eq!(plain["traefik.config.reload.total|c"], 1.0);
    let tags = "method:GET,protocol:http,code:200";
    for name in [
        format!("lb.entrypoint.request.duration|h#entrypoint:web,{tags}"),
        format!("lb.router.request.total|c#router:app@file,service:app@file,{tags}"),
        format!("lb.service.request.duration|h#service:app@file,{tags}"),
    ] {
        assert_eq!(tagged.get(&name), Some(&5.0), "{name} in {tagged:#?}");
    }
}

/// An agent's socket may be of either kind, and `unix` does not say which.
#[tokio::test]
async fn datadog_is_reached_by_sockets_of_the_file_system() {
    let server = Origin::with("api", |_| Script::text("hello")).await;
    let files = Files::new();
    let at = |name: &str| files.path().join(name);
    let datagrams = UnixDatagram::bind(at("datagrams")).unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    let streams = UnixListener::bind(at("streams")).unwrap();
    let started = async |scheme: &str, socket: &str| {
        let datadog =
            format!("datadog: {{address: '{scheme}://{}', pushInterval: 50ms}}", at(socket).display());
        let text = STATIC.replace("prometheus: {addRoutersLabels: true}", &datadog);
        Vigie::with(&text, &app("", &[server.url()])).await
    };
    let fits = |text: &[u8]| std::str::from_utf8(text).unwrap().contains("traefik.config.reload.total:1");
    let mut buffer = [0; 2048];
    for scheme in ["unix", "unixgram"] {
        let _vigie = started(scheme, "datagrams").await;
        let mut length = 0;
        while !fits(&buffer[..length]) {
            length = datagrams.recv(&mut buffer).unwrap();
        }
    }
    for scheme in ["unix", "unixstream"] {
        let _vigie = started(scheme, "streams").await;
        let mut text = Vec::new();
        // A connection for each push.
        while !fits(&text) {
            let (mut stream, _) = streams.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_to_end(&mut text).unwrap();
        }
    }
}

#[tokio::test]
async fn influxdb_gets_lines() {
    let server = Origin::with("api", |_| Script::text("hello")).await;
    let database = Origin::with("influxdb", |_| Script::status(204)).await;
    let text = STATIC.replace(
        "prometheus: {",
        &format!(
            "influxDB2: {{address: '{}', token: secret, org: o, bucket: b, pushInterval: 100ms, \
             additionalLabels: {{zone: a}}}}, prometheus: {{",
            database.url()
        ),
    );
    let vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    for _ in 0..3 {
        Protocol::Http1.get(vigie.web(), "/").await;
    }
    let series =
        "traefik.entrypoint.requests.total,code=200,entrypoint=web,method=GET,protocol=http,zone=a count=";
    let lines = || -> Vec<String> {
        let texts = database.seen().into_iter().map(|request| String::from_utf8(request.body).unwrap());
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let counted = eventually(PATIENCE, async || {
        let counts = lines()
            .into_iter()
            .filter_map(|line| Some(line.strip_prefix(series)?.split(' ').next()?.parse::<u64>().unwrap()));
        counts.sum::<u64>() == 3
    });
    assert!(counted.await, "{:#?}", lines());
    let durations =
        "traefik.service.request.duration,code=200,method=GET,protocol=http,service=app@file,zone=a p50=";
    assert!(
        lines().iter().any(|line| line.starts_with(durations) && line.contains(",p99=")),
        "{:#?}",
        lines()
    );
    let asked = database.last();
    assert_eq!(asked.target, "/api/v2/write?bucket=b&org=o&precision=ns");
    assert_eq!(asked.get("authorization"), Some("Token secret"));
    // Nobody waits for a database that is away.
    drop(database);
    tokio::time::timeout(Duration::from_secs(5), Protocol::Http1.get(vigie.web(), "/")).await.unwrap();
}
