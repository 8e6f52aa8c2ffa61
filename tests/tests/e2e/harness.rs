//! A running Vigie with its files, and the words in which scenarios are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use lb_testkit::{Client, Files, H2Client, PATIENCE, Response, VigieProcess, eventually, get};
use rustix::process::Signal;

/// Two workers, an entry point for traffic, one for the operator, and a watched file.
pub(crate) const STATIC: &str = "
core: {workers: 2}
entryPoints:
  web: {address: '127.0.0.1:0'}
  traefik: {address: '127.0.0.1:0'}
providers: {file: {filename: '{dir}/dynamic.yml'}}
api: {insecure: true}
ping: {}
metrics: {prometheus: {addRoutersLabels: true}}
";

/// As [`STATIC`], with a second entry point that speaks TLS.
pub(crate) const STATIC_TLS: &str = "
core: {workers: 2}
entryPoints:
  web: {address: '127.0.0.1:0'}
  websecure: {address: '127.0.0.1:0', http: {tls: {}}}
  traefik: {address: '127.0.0.1:0'}
providers: {file: {filename: '{dir}/dynamic.yml'}}
api: {insecure: true}
ping: {}
metrics: {prometheus: {addRoutersLabels: true}}
";

/// The name under which [`app`] is asked for; its router takes every host.
pub(crate) const HOST: &str = "app.example.com";

/// A dynamic configuration: every request goes to the service `app` with these servers. `balancer` holds
/// further lines of its `loadBalancer`, `router` of the router.
pub(crate) fn app_with(router: &str, balancer: &str, urls: &[String]) -> String {
    let indented = |text: &str| -> String {
        text.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("        {line}\n")).collect()
    };
    let servers: String = urls.iter().map(|url| format!("          - {}\n", server(url))).collect();
    format!(
        "http:\n  routers:\n    app:\n        rule: PathPrefix(`/`)\n        service: app\n{}  services:\n    app:\n      \
         loadBalancer:\n{}        servers:\n{servers}",
        indented(router),
        indented(balancer)
    )
}

/// `url` alone, or what was written as a flow mapping already.
fn server(url: &str) -> String {
    if url.starts_with('{') { url.to_owned() } else { format!("{{url: '{url}'}}") }
}

pub(crate) fn app(balancer: &str, urls: &[String]) -> String {
    app_with("", balancer, urls)
}

/// A server with a weight, for [`app`].
pub(crate) fn weighted(url: &str, weight: u32) -> String {
    format!("{{url: '{url}', weight: {weight}}}")
}

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vigie-e2e"))
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// A configuration of the repository with every address, say, replaced by one of this test's.
pub(crate) fn shipped(name: &str, replacements: &[(&str, &str)]) -> String {
    let path = repository().join(name);
    let mut text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (from, to) in replacements {
        assert!(text.contains(from), "{name} no longer contains {from:?}");
        text = text.replace(from, to);
    }
    text
}

pub(crate) struct Vigie {
    pub(crate) process: VigieProcess,
    pub(crate) files: Files,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Vigie {
    /// With [`STATIC`] and this dynamic configuration.
    pub(crate) async fn start(dynamic: &str) -> Self {
        Self::with(STATIC, dynamic).await
    }

    /// `{dir}` in either text is the directory of the files. `dynamic` is written to `dynamic.yml`.
    pub(crate) async fn with(static_text: &str, dynamic: &str) -> Self {
        Self::over(Files::new(), static_text, dynamic).await
    }

    /// As [`with`](Self::with), in a directory that holds something already.
    pub(crate) async fn over(files: Files, static_text: &str, dynamic: &str) -> Self {
        let dir = files.path().display().to_string();
        files.write("dynamic.yml", &dynamic.replace("{dir}", &dir));
        Self::launch(files, static_text).await
    }

    /// Writes only the static file.
    pub(crate) async fn launch(files: Files, static_text: &str) -> Self {
        Self::launch_in(files, static_text, &[]).await
    }

    /// As [`launch`](Self::launch), with these variables.
    pub(crate) async fn launch_in(files: Files, static_text: &str, variables: &[(&str, &str)]) -> Self {
        let dir = files.path().display().to_string();
        let file = files.write("vigie.yml", &static_text.replace("{dir}", &dir));
        let mut command = Command::new(binary());
        command.arg(format!("--configFile={}", file.display())).current_dir(&dir);
        command.envs(variables.iter().copied());
        let (process, addresses) = Self::spawn(&mut command).await;
        Self { process, files, addresses }
    }

    /// Starts any command line that serves, and waits for its report.
    pub(crate) async fn spawn(command: &mut Command) -> (VigieProcess, BTreeMap<String, SocketAddr>) {
        let mut process = VigieProcess::spawn(command).expect("the binary can be started");
        let mut addresses = None;
        let pid = process.pid();
        let reported = eventually(PATIENCE, async || {
            addresses = report(&process.stderr());
            addresses.is_some() || !alive(pid)
        });
        reported.await;
        let Some(addresses) = addresses else {
            let ended = process.stop(PATIENCE).await;
            panic!("no start-up report ({ended:?}):\n{}\n{}", process.stderr(), process.stdout());
        };
        (process, addresses)
    }

    /// Where an entry point really listens.
    pub(crate) fn address(&self, entry_point: &str) -> SocketAddr {
        match self.addresses.get(entry_point) {
            Some(address) => *address,
            None => panic!("no entry point {entry_point} in {:?}", self.addresses),
        }
    }

    pub(crate) fn web(&self) -> SocketAddr {
        self.address("web")
    }

    pub(crate) fn websecure(&self) -> SocketAddr {
        self.address("websecure")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("traefik")
    }

    /// Replaces the dynamic configuration in one step.
    pub(crate) fn write(&self, dynamic: &str) {
        let dir = self.files.path().display().to_string();
        self.files.write("dynamic.yml", &dynamic.replace("{dir}", &dir));
    }

    /// One GET of `path` on a connection of its own; whatever the answer.
    pub(crate) async fn get(&self, path: &str) -> Response {
        get(self.web(), HOST, path).await.expect("an answer")
    }

    /// JSON of the API, the probes and the like.
    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        get(self.admin(), "localhost", path).await.expect("an answer").json()
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let entry_point = if self.addresses.contains_key("metrics") { "metrics" } else { "traefik" };
        let response = get(self.address(entry_point), "localhost", "/metrics").await.expect("an answer");
        assert_eq!(response.status, 200);
        Metrics::parse(response.text())
    }

    /// Waits until an answer to a GET of `/` satisfies `wanted`.
    pub(crate) async fn until(&self, what: &str, mut wanted: impl FnMut(&Response) -> bool) {
        let mut last = None;
        let held = eventually(PATIENCE, async || match get(self.web(), HOST, "/").await {
            Ok(response) => {
                let held = wanted(&response);
                last = Some(response);
                held
            }
            Err(_) => false,
        });
        if !held.await {
            panic!("{what}: not within {PATIENCE:?}; last {last:?}\n{}", self.words());
        }
    }

    /// Waits until the metric has this value.
    pub(crate) async fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = None;
        let held = eventually(PATIENCE, async || {
            last = self.metrics().await.value(name, labels);
            last == Some(value)
        });
        assert!(held.await, "{name}{labels:?} is {last:?}, not {value}\n{}", self.words());
    }

    /// Waits until the process has said `text` on stderr or stdout.
    pub(crate) async fn until_said(&self, text: &str) {
        let said = eventually(PATIENCE, async || self.words().contains(text)).await;
        assert!(said, "not a word of {text:?} in:\n{}", self.words());
    }

    /// Everything the process has written.
    pub(crate) fn words(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.process.stdout(), self.process.stderr())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("the process runs");
    }

    /// Waits for the end that something else has caused.
    pub(crate) async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        self.process.ended(deadline).await.expect("it ends in time")
    }
}

pub(crate) fn alive(pid: u32) -> bool {
    // A process that has ended and was not waited for is a zombie: state `Z`.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

/// Entry points with their addresses, from a complete start-up report.
fn report(stderr: &str) -> Option<BTreeMap<String, SocketAddr>> {
    // The report is one write, the end of its last line another.
    let complete = stderr.ends_with('\n').then_some(stderr)?;
    let mut lines =
        complete.lines().skip_while(|line| !(line.starts_with("vigie ") && line.contains(" worker")));
    lines.next()?;
    let rows = lines.map_while(|line| line.strip_prefix("  "));
    let addresses: BTreeMap<_, _> = rows
        .filter_map(|row| {
            let mut words = row.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// What a client of Vigie speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];

    /// A new connection, without TLS.
    pub(crate) async fn connect(self, address: SocketAddr) -> Connection {
        match self {
            Self::Http1 => Connection::Http1(Client::connect(address).await.expect("it listens")),
            Self::Http2 => Connection::Http2(H2Client::connect(address).await.expect("it speaks h2c")),
        }
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(self, address: SocketAddr, path: &str) -> Response {
        self.connect(address).await.request("GET", path, &[], None).await
    }
}

pub(crate) enum Connection {
    Http1(Client),
    Http2(H2Client),
}

impl Connection {
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Response {
        self.ask(method, HOST, path, fields, body).await.expect("an answer")
    }

    pub(crate) async fn ask(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<Response> {
        match self {
            Self::Http1(client) => client.request(method, host, path, fields, body).await,
            Self::Http2(client) => client.request(method, host, path, fields, body).await,
        }
    }
}

/// Which origin's echo this is.
pub(crate) fn origin(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()["origin"].as_str().expect("an echo").to_owned()
}

/// A page of `/metrics`, read.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    pub(crate) fn parse(page: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let mut rest = labels.strip_suffix('}').expect("closed labels");
            let mut labels = BTreeMap::new();
            while let Some((label, after)) = rest.split_once("=\"") {
                let end = after.find('"').expect("a quoted value");
                labels.insert(label.trim_start_matches(',').to_owned(), after[..end].to_owned());
                rest = &after[end + 1..];
            }
            (name.to_owned(), labels, value.parse().expect("a number"))
        };
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(sample).collect())
    }

    fn matching(
        &self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> impl Iterator<Item = &(String, BTreeMap<String, String>, f64)> {
        self.0.iter().filter(move |(n, has, _)| {
            n == name && labels.iter().all(|(label, value)| has.get(*label).is_some_and(|v| v == value))
        })
    }

    /// The sum of all series with these labels; `None` without any.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).map(|(_, _, value)| *value).reduce(|a, b| a + b)
    }

    /// Values of one label over the series with the others.
    pub(crate) fn labels(&self, name: &str, label: &str) -> Vec<String> {
        let mut values: Vec<_> =
            self.matching(name, &[]).filter_map(|(_, labels, _)| labels.get(label).cloned()).collect();
        values.sort();
        values.dedup();
        values
    }
}
