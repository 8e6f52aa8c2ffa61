//! As much of the Docker Engine API as the provider asks for, with containers that are origins on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lb_testkit::Origin;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// A daemon that can be taken away and brought back.
pub(crate) struct Engine {
    socket: PathBuf,
    shared: Arc<Shared>,
    serving: Option<JoinSet<()>>,
}

struct Shared {
    containers: Mutex<BTreeMap<String, Container>>,
    events: broadcast::Sender<String>,
    /// Paths that were asked for.
    asked: Mutex<Vec<String>>,
}

#[derive(Clone)]
pub(crate) struct Container {
    labels: BTreeMap<String, String>,
    port: u16,
    status: &'static str,
    health: Option<&'static str>,
    /// What is said when it is looked at; `None`: what there is to say.
    refusal: Option<Refusal>,
}

/// How looking at one container ends.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    Status500,
    /// What is no container.
    Rubbish,
    /// The connection.
    Broken,
    /// Never.
    Silence,
}

impl Container {
    /// A running container whose only port is that of `origin`.
    pub(crate) fn of(origin: &Origin, labels: &[(&str, &str)]) -> Self {
        let port = origin.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { labels, port, status: "running", health: None, refusal: None }
    }

    /// Listed as the others are, and not to be looked at.
    pub(crate) fn refusing(self, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..self }
    }

    /// With a health check that says so.
    pub(crate) fn health(self, health: &'static str) -> Self {
        Self { health: Some(health), ..self }
    }
}

impl Engine {
    pub(crate) fn start(directory: &Path) -> Self {
        let shared = Shared {
            containers: Mutex::default(),
            events: broadcast::channel(64).0,
            asked: Mutex::default(),
        };
        let mut engine =
            Self { socket: directory.join("docker.sock"), shared: Arc::new(shared), serving: None };
        engine.resume();
        engine
    }

    /// Refuses connections, and breaks those there are.
    pub(crate) fn stop(&mut self) {
        self.serving = None;
        std::fs::remove_file(&self.socket).expect("it was there");
    }

    pub(crate) fn resume(&mut self) {
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        let shared = Arc::clone(&self.shared);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Dropped with this task, as all connections are then.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        self.serving = Some(serving);
    }

    /// Puts a container there, or another one in its place, and says so.
    pub(crate) fn run(&self, name: &str, container: Container) {
        let health = container.health;
        self.put(name, container);
        self.say(
            "container",
            name,
            &health.map_or("start".to_owned(), |health| format!("health_status: {health}")),
        );
    }

    /// As [`run`](Self::run), in silence.
    pub(crate) fn put(&self, name: &str, container: Container) {
        self.shared.containers.lock().unwrap().insert(name.to_owned(), container);
    }

    /// The container has stopped.
    pub(crate) fn die(&self, name: &str) {
        self.shared.containers.lock().unwrap().get_mut(name).expect("it is there").status = "exited";
        self.say("container", name, "die");
    }

    /// A signal was sent to a container, which goes on.
    pub(crate) fn signal(&self, name: &str, signal: u8) {
        let actor = json!({ "ID": name, "Attributes": { "signal": signal.to_string() } });
        self.tell(&json!({ "Type": "container", "Action": "kill", "Actor": actor }));
    }

    fn say(&self, kind: &str, id: &str, action: &str) {
        self.tell(&json!({ "Type": kind, "Action": action, "Actor": { "ID": id } }));
    }

    fn tell(&self, event: &Value) {
        // Nobody need listen.
        let _ = self.shared.events.send(event.to_string() + "\n");
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(path)).count()
    }
}

async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(first)) = lines.next_line().await {
        while let Ok(Some(line)) = lines.next_line().await
            && !line.is_empty()
        {}
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        shared.asked.lock().unwrap().push(path.clone());
        if path.starts_with("/events") {
            let mut events = shared.events.subscribe();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            if write.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            while let Ok(event) = events.recv().await {
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                if write.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
            return;
        }
        let no_layer = json!({ "message": "no layer" }).to_string();
        let (status, body) = match (shared.refusal(&path), shared.answer(&path)) {
            (Some(Refusal::Status500), _) => ("500 Internal Server Error", no_layer),
            (Some(Refusal::Rubbish), _) => ("200 OK", json!({ "Id": null }).to_string()),
            (Some(Refusal::Broken), _) => return,
            (Some(Refusal::Silence), _) => std::future::pending().await,

            (None, Some(value)) => ("200 OK", value.to_string()),
            (None, None) => ("404 Not Found", json!({ "message": "No such container" }).to_string()),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        if write.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Shared {
    fn refusal(&self, path: &str) -> Option<Refusal> {
        let name = path.strip_prefix("/containers/")?.strip_suffix("/json")?;
        self.containers.lock().unwrap().get(name)?.refusal
    }

    fn answer(&self, path: &str) -> Option<Value> {
        let containers = self.containers.lock().unwrap();
        if path.starts_with("/containers/json") {
            let listed = |(name, container): (&String, &Container)| json!({ "Id": name, "Names": [format!("/{name}")], "Labels": container.labels, "State": container.status });
            return Some(containers.iter().map(listed).collect());
        }
        let name = path.strip_prefix("/containers/")?.strip_suffix("/json")?;
        let Container { labels, port, status, health, .. } = containers.get(name)?;
        let ports = json!({ format!("{port}/tcp"): null });
        Some(json!({
            "Id": name,
            "Name": format!("/{name}"),
            "State": { "Status": status, "Health": health.map(|health| json!({ "Status": health })) },
            "Config": { "Labels": labels },
            "HostConfig": { "NetworkMode": "net" },
            "NetworkSettings": { "Ports": ports, "Networks": { "net": { "IPAddress": "127.0.0.1" } } },
        }))
    }
}
