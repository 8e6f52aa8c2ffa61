//! What is asked of the Docker Engine API, over a Unix socket, TCP or TLS.
//!
//! All are GETs: the list of containers, one container, the stream of events; in a swarm services, tasks and nodes. Paths carry no version, so any daemon
//! answers in its own, and the fields that are read have been there for ten years (Podman's socket has them too).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lb_config::static_config::{Credentials, DockerEndpoint, Orchestrator};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// A longer answer is refused: chosen, ten thousand containers take some 20 MiB.
const LONGEST_ANSWER: usize = 128 * 1024 * 1024;
/// A longer event is refused; chosen, they carry the labels of their container.
const LONGEST_EVENT: usize = 4 * 1024 * 1024;

/// Why the daemon did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot be reached: {0}")]
    Connect(std::io::Error),
    #[error("does not speak TLS as it should: {0}")]
    Name(rustls::pki_types::InvalidDnsNameError),
    #[error("has broken the connection: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered `GET {path}` with status {status}: {message}")]
    Status { path: String, status: StatusCode, message: String },
    #[error("gave an answer that is too long or broken: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("gave an answer that is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("did not answer within {0:?}")]
    Timeout(Duration),
    #[error("has ended the stream of events")]
    Ended,
}

impl ClientError {
    /// What was asked for does not exist, or no longer.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::NOT_FOUND, .. })
    }

    /// The answer was read to its end: another question may follow on the connection.
    pub(super) fn ends_answer(&self) -> bool {
        matches!(self, Self::Status { .. } | Self::Json(_))
    }
}

/// Knows how to connect.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) endpoint: DockerEndpoint,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) credentials: Option<Credentials>,
    pub(super) timeout: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// A connection for one question after another.
    pub(super) async fn connect(&self) -> Result<Connection, ClientError> {
        self.within(async {
            let stream: Box<dyn Stream> = match &self.endpoint {
                DockerEndpoint::Unix(path) => {
                    Box::new(UnixStream::connect(path).await.map_err(ClientError::Connect)?)
                }
                DockerEndpoint::Tcp { host, port, tls } => {
                    let stream =
                        TcpStream::connect((host.as_str(), *port)).await.map_err(ClientError::Connect)?;
                    match &self.tls {
                        Some(config) if *tls => {
                            let name = ServerName::try_from(host.clone()).map_err(ClientError::Name)?;
                            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                            Box::new(connector.connect(name, stream).await.map_err(ClientError::Connect)?)
                        }
                        _ => Box::new(stream),
                    }
                }
            };
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends with the sender, or with the daemon; what it has to say, the requests are told.
            tokio::spawn(connection);
            Ok(Connection { sender, client: self.clone() })
        })
        .await
    }

    async fn within<T>(&self, what: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        timeout(self.timeout, what).await.unwrap_or(Err(ClientError::Timeout(self.timeout)))
    }

    /// The stream of what happens to containers and networks, and in a swarm to services and nodes.
    pub(super) async fn events(&self, orchestrator: Orchestrator) -> Result<Events, ClientError> {
        let path = match orchestrator {
            // {"type":["container","network"]}
            Orchestrator::Docker => {
                "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D"
            }
            // {"type":["container","service","node"]}
            Orchestrator::Swarm => {
                "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22service%22%2C%22node%22%5D%7D"
            }
        };
        let mut connection = self.connect().await?;
        let response = self.within(connection.send(path)).await?;
        Ok(Events { body: response.into_body(), buffer: BytesMut::new(), _connection: connection })
    }
}

pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    client: Client,
}

impl Connection {
    pub(super) async fn list(&mut self) -> Result<Vec<Listed>, ClientError> {
        self.get("/containers/json?all=1").await
    }

    pub(super) async fn inspect(&mut self, id: &str) -> Result<Inspected, ClientError> {
        self.get(&format!("/containers/{id}/json")).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let client = self.client.clone();
        let body = client.within(async {
            let response = self.send(path).await?;
            let body = Limited::new(response.into_body(), LONGEST_ANSWER);
            Ok(body.collect().await.map_err(ClientError::Body)?.to_bytes())
        });
        Ok(serde_json::from_slice(&body.await?)?)
    }

    async fn send(&mut self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let host = match &self.client.endpoint {
            DockerEndpoint::Unix(_) => "docker".to_owned(),
            DockerEndpoint::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            DockerEndpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
        };
        let mut request = Request::get(path).header(HOST, host).header(USER_AGENT, "vigie");
        if let Some(Credentials { user, password }) = &self.client.credentials {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            request = request.header(AUTHORIZATION, format!("Basic {encoded}"));
        }
        // The path is made of constants and of what names a container: a name that is no URI does not exist.
        let Ok(request) = request.body(Empty::new()) else {
            let (status, message) = (StatusCode::NOT_FOUND, "not a path".to_owned());
            return Err(ClientError::Status { path: path.to_owned(), status, message });
        };
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), 64 * 1024).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let Refusal { message } = serde_json::from_slice(&body).unwrap_or_default();
        Err(ClientError::Status { path: path.to_owned(), status, message })
    }
}

/// What the daemon says as it happens.
pub(super) struct Events {
    body: Incoming,
    buffer: BytesMut,
    /// Dropping it would end the stream.
    _connection: Connection,
}

impl Events {
    /// The next event; there is always one more, or an error. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.buffer.len() > LONGEST_EVENT {
                return Err(ClientError::Body("an event that does not end".into()));
            }
            let frame = self.body.frame().await.ok_or(ClientError::Ended)??;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "Type", default)]
    pub(super) kind: String,
    #[serde(rename = "Action", default)]
    pub(super) action: String,
    #[serde(rename = "Actor", default)]
    pub(super) actor: Actor,
}

impl Event {
    /// `docker stop` and `docker kill`: the signal was sent, whatever the container makes of it. Images may name
    /// another signal to stop (`STOPSIGNAL`), and these four are the ones in use.
    pub(super) fn is_told_to_stop(&self) -> bool {
        let signal = self.actor.attributes.as_ref().and_then(|attributes| attributes.get("signal"));
        // INT, QUIT, KILL, TERM.
        let ends = signal.is_some_and(|signal| ["2", "3", "9", "15"].contains(&signal.as_str()));
        self.kind == "container" && self.action == "kill" && ends
    }
}

/// What an event is about.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Actor {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    #[serde(rename = "Attributes", default)]
    pub(super) attributes: Option<std::collections::BTreeMap<String, String>>,
}

/// A container in the list: enough to see whether it is worth a closer look.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    pub(super) labels: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    pub(super) state: Option<String>,
}

impl Listed {
    /// Without the leading `/`; links of others to it are names as well, with one more slash in them.
    pub(super) fn name(&self) -> String {
        let names = self.names.iter().flatten().map(|name| name.trim_start_matches('/'));
        names.min_by_key(|name| name.matches('/').count()).unwrap_or(&self.id).to_owned()
    }
}

/// A container looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: InspectedState,
    pub(super) config: InspectedConfig,
    pub(super) host_config: HostConfig,
    pub(super) network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedState {
    pub(super) status: String,
    #[serde(default)]
    pub(super) health: Option<InspectedHealth>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedHealth {
    pub(super) status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InspectedConfig {
    #[serde(default)]
    pub(super) labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostConfig {
    #[serde(default)]
    pub(super) network_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    /// By `8000/tcp`.
    #[serde(default)]
    pub(super) ports: Option<std::collections::BTreeMap<String, Option<Vec<Binding>>>>,
    #[serde(default)]
    pub(super) networks: Option<std::collections::BTreeMap<String, Option<Network>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Binding {
    #[serde(default)]
    pub(super) host_ip: String,
    #[serde(default)]
    pub(super) host_port: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Network {
    #[serde(rename = "IPAddress", default)]
    pub(super) v4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    pub(super) v6: String,
}
