//! Origins on loopback and configurations for them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_config::dynamic::{self, HealthCheck, Pem, ProbeMode, Scheme, Server, ServersTransport, Strategy};
use lb_config::{Config, Loaded};
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::probe::Client;

pub(crate) type Body = BoxBody<Bytes, Infallible>;
type Answer = dyn Fn(&Parts) -> Response<Body> + Send + Sync;

/// A server whose answer can be changed at any time.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Arc<Answer>>>,
    seen: Arc<Mutex<Vec<Parts>>>,
    _accepting: JoinSet<()>,
}

#[derive(Clone)]
pub(crate) enum Speaks {
    Http1,
    H2c,
    Tls(Arc<rustls::ServerConfig>),
}

impl Origin {
    pub(crate) async fn start(
        speaks: Speaks,
        answer: impl Fn(&Parts) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Arc<Answer>>> = Arc::new(Mutex::new(Arc::new(answer)));
        let seen = Arc::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, speaks, Arc::clone(&answer), Arc::clone(&seen)));
        Self { address, answer, seen, _accepting: accepting }
    }

    pub(crate) fn now_answers(&self, answer: impl Fn(&Parts) -> Response<Body> + Send + Sync + 'static) {
        *self.answer.lock() = Arc::new(answer);
    }

    pub(crate) fn seen(&self) -> Vec<Parts> {
        self.seen.lock().clone()
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    answer: Arc<Mutex<Arc<Answer>>>,
    seen: Arc<Mutex<Vec<Parts>>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(welcome(stream, speaks.clone(), Arc::clone(&answer), Arc::clone(&seen)));
    }
}

async fn welcome(
    stream: TcpStream,
    speaks: Speaks,
    answer: Arc<Mutex<Arc<Answer>>>,
    seen: Arc<Mutex<Vec<Parts>>>,
) {
    match speaks {
        Speaks::Http1 => serve(stream, false, answer, seen).await,
        Speaks::H2c => serve(stream, true, answer, seen).await,
        Speaks::Tls(config) => {
            // A client that does not trust us goes away.
            let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            serve(stream, http2, answer, seen).await;
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    answer: Arc<Mutex<Arc<Answer>>>,
    seen: Arc<Mutex<Vec<Parts>>>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, seen) = (Arc::clone(&answer.lock()), Arc::clone(&seen));
        async move {
            let (parts, _) = request.into_parts();
            let response = answer(&parts);
            seen.lock().push(parts);
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the client's business.
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

pub(crate) fn status(status: u16) -> Response<Body> {
    Response::builder().status(status).body(Empty::new().boxed()).unwrap()
}

pub(crate) fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into()).boxed()).unwrap()
}

pub(crate) fn json(code: u16, body: &str) -> Response<Body> {
    with(code, &[("content-type", "application/json; charset=utf-8")], body.to_owned())
}

/// A head, and a body that never comes.
pub(crate) fn stalls(code: u16, content_type: &str) -> Response<Body> {
    let never = Never.boxed();
    Response::builder().status(code).header("content-type", content_type).body(never).unwrap()
}

struct Never;

impl hyper::body::Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

/// A HealthCheckResponse; `None` leaves the message out.
pub(crate) fn grpc(serving: Option<u8>, status: &'static str) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    let frame = serving.map_or(Bytes::new(), |serving| vec![0, 0, 0, 0, 2, 8, serving].into());
    let body = Full::new(frame).with_trailers(async move { Some(Ok(trailers)) });
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

/// A certificate authority of one certificate, for `localhost` and a URI.
pub(crate) struct Identity {
    pub(crate) pem: Pem,
    key: rcgen::KeyPair,
    cert: rcgen::Certificate,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { pem: Pem(cert.pem().into_bytes().into()), key, cert }
    }

    /// TLS as a server with this certificate.
    pub(crate) fn server(&self) -> Speaks {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![self.cert.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Speaks::Tls(Arc::new(config))
    }
}

/// Trusts that certificate and no other.
pub(crate) fn trusting(identity: &Identity) -> ServersTransport {
    let root_cas = vec![identity.pem.clone()];
    ServersTransport { root_cas, server_name: Some("localhost".to_owned()), ..transport() }
}

/// Probes at a time.
pub(crate) const PROBES: usize = 3;

/// As the data plane would make it.
pub(crate) fn client() -> Client {
    let dial = |host: String, port, _| -> Pin<Box<dyn Future<Output = _> + Send>> {
        Box::pin(async move { TcpStream::connect((host, port)).await })
    };
    Client { tls: Arc::new(client_tls), dial: Arc::new(dial), probes: Arc::new(Semaphore::new(PROBES)) }
}

/// Of a transport only what these tests are about.
fn client_tls(transport: &ServersTransport) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for pem in &transport.root_cas {
        for certificate in CertificateDer::pem_slice_iter(&pem.0) {
            roots.add(certificate.unwrap()).unwrap();
        }
    }
    if roots.is_empty() {
        return Err("no certificate authority".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    if !transport.disable_http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// Everything as Traefik has it when nothing is written, but quick.
pub(crate) fn health_check() -> HealthCheck {
    HealthCheck {
        mode: ProbeMode::Http,
        path: "/health".to_owned(),
        scheme: None,
        method: "GET".to_owned(),
        status: None,
        port: None,
        interval: Duration::from_millis(50),
        unhealthy_interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        hostname: None,
        headers: Vec::new(),
        follow_redirects: true,
        healthy_threshold: 1,
        unhealthy_threshold: 1,
        start_period: Duration::ZERO,
        start_unhealthy: false,
        degraded: true,
        degraded_weight: 0.5,
    }
}

pub(crate) fn transport() -> ServersTransport {
    ServersTransport {
        server_name: None,
        insecure_skip_verify: false,
        root_cas: Vec::new(),
        certificates: Vec::new(),
        max_idle_conns_per_host: Some(2),
        dial_timeout: None,
        response_header_timeout: None,
        idle_conn_timeout: None,
        read_idle_timeout: None,
        ping_timeout: None,
        disable_http2: false,
        min_version: None,
        max_version: None,
        cipher_suites: Vec::new(),
        peer_cert_uri: None,
    }
}

/// The server at `http://127.0.0.1:80` and the like.
pub(crate) fn server(url: &str) -> Server {
    let (scheme, address) = url.split_once("://").unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => Scheme::H2c,
    };
    Server {
        url: url.to_owned(),
        scheme,
        host: host.to_owned(),
        port: port.parse().unwrap(),
        path: String::new(),
        preserve_path: false,
        weight: 1,
        max_connections: None,
    }
}

/// A service `name` of these servers.
pub(crate) fn config(name: &str, urls: &[&str], check: Option<HealthCheck>) -> Config {
    let service = dynamic::Service {
        servers: urls.iter().map(|url| server(url)).collect(),
        strategy: Strategy::RoundRobin,
        sticky: None,
        health_check: check,
        middlewares: Vec::new(),
        passive_health_check: None,
        slow_start: None,
        outlier_detection: None,
        panic_threshold: 0,
        pass_host_header: true,
        flush_interval: None,
        servers_transport: "default@internal".to_owned(),
        retry_budget: Default::default(),
        queue: Default::default(),
        drain_timeout: None,
    };
    Config { services: BTreeMap::from([(name.to_owned(), service)]), ..Config::default() }
}

pub(crate) fn loaded(config: Config) -> Loaded {
    Loaded {
        config,
        problems: Vec::new(),
        disabled: Default::default(),
        waiting: Config::default(),
        unfit: Config::default(),
        stale_files: Default::default(),
        places: Default::default(),
        files: Vec::new(),
    }
}

/// Waits for a condition, for long enough on a busy machine.
pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        sleep(Duration::from_millis(1)).await;
    }
}
