//! The reference replica: an API server that implements the health protocol Vigie understands.
//!
//! `/live` says that the process answers, `/ready` whether it should get traffic now, `/health` how
//! well it is, in JSON: `healthy`, `degraded` (works, but give it less) or `unhealthy` (503). Every other path
//! is the API: it answers with the replica's name.
//!
//! What the answers depend on is a [`Condition`]: a [`Simulation`] that `/fail` breaks and mends, or, with the feature
//! `real`, a PostgreSQL, a Redis and the process itself.

mod control;
mod health;
#[cfg(feature = "real")]
pub mod real;
mod simulation;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use control::ControlError;
pub use health::{Check, Dependency, Importance, Status, Vitals};
pub use simulation::Simulation;

use health::overall;

/// Chosen: a demonstration may ask for a slow answer, not for one that outlives it.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// What a replica depends on, and how it is.
pub trait Condition: Send + Sync + 'static {
    /// Looks at everything, however long it takes.
    fn checks(&self) -> impl Future<Output = Vec<Check>> + Send;

    /// What `/fail` plays with, if nothing of it is real.
    fn simulation(&self) -> Option<&Simulation> {
        None
    }
}

/// One replica: its name, how it is, what it has done.
#[derive(Debug)]
pub struct Replica<C> {
    name: HeaderValue,
    started: Instant,
    requests: AtomicU64,
    condition: C,
    crash: Notify,
}

impl<C: Condition> Replica<C> {
    /// `name` is sent in `X-Replica`; characters that a header field cannot carry are left out.
    pub fn new(name: &str, condition: C) -> Self {
        let visible: String = name.chars().filter(char::is_ascii_graphic).collect();
        Self {
            name: HeaderValue::from_str(&visible).unwrap_or_else(|_| HeaderValue::from_static("replica")),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            condition,
            crash: Notify::new(),
        }
    }

    pub fn name(&self) -> &str {
        self.name.to_str().unwrap_or_default()
    }

    /// API requests answered so far; health checks and `/fail` do not count.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Ends when `/fail?crash` was asked for: whoever serves the replica then lets it die.
    pub async fn crashed(&self) {
        self.crash.notified().await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let simulation = self.condition.simulation();
        let mut response = match (parts.uri.path(), simulation) {
            ("/fail", Some(simulation)) => self.fail(simulation, query),
            (_, Some(simulation)) if !simulation.is_live() => {
                text(StatusCode::INTERNAL_SERVER_ERROR, "beyond help\n".to_owned())
            }
            ("/live", _) => json(StatusCode::OK, &json!({"status": "alive"})),
            ("/ready", _) => self.ready().await,
            ("/health", _) => self.health().await,
            (path, _) => {
                self.requests.fetch_add(1, Ordering::Relaxed);
                // An API reads what it is sent; the proxy in front sees an ordinary exchange.
                if let Err(error) = drain(body).await {
                    tracing::debug!(%error, "request body ended early");
                }
                if simulation.is_some() {
                    tokio::time::sleep(pause(query)).await;
                }
                self.api(&parts.method, path)
            }
        };
        response.headers_mut().insert("x-replica", self.name.clone());
        response
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let checks = self.condition.checks().await;
        let reasons: Vec<_> =
            checks.iter().filter(|check| check.forbids_traffic()).map(Check::reason).collect();
        if reasons.is_empty() {
            json(StatusCode::OK, &json!({"status": "ready"}))
        } else {
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reasons": reasons}))
        }
    }

    async fn health(&self) -> Response<Full<Bytes>> {
        let checks = self.condition.checks().await;
        let status = overall(&checks);
        let reasons: Vec<_> =
            checks.iter().filter(|check| check.status != Status::Healthy).map(Check::reason).collect();
        let body = json!({
            "status": status.as_str(),
            "name": self.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "checks": checks.iter().map(|check| (check.name.clone(), check.to_json())).collect::<serde_json::Map<_, _>>(),
            "reasons": reasons,
        });
        let code = if status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        json(code, &body)
    }

    fn fail(&self, simulation: &Simulation, query: &str) -> Response<Full<Bytes>> {
        if query == "crash" {
            self.crash.notify_one();
            return text(StatusCode::OK, format!("{} dies now\n", self.name()));
        }
        match simulation.control(query) {
            Ok(state) => text(StatusCode::OK, format!("{state}\n")),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }

    fn api(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if *method == Method::TRACE || *method == Method::CONNECT {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            return response;
        }
        match path {
            "/" => text(StatusCode::OK, format!("{}\n", self.name())),
            path => text(StatusCode::OK, format!("{} {method} {path}\n", self.name())),
        }
    }
}

/// Serves `replica` until the future is dropped, which ends its connections too.
pub async fn serve<C: Condition>(listener: TcpListener, replica: Arc<Replica<C>>) {
    serve_until(listener, replica, std::future::pending()).await;
}

/// Serves `replica` until `stop`, finishes what is under way then, and ends.
pub async fn serve_until<C: Condition>(
    listener: TcpListener,
    replica: Arc<Replica<C>>,
    stop: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let finish = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Collects what has ended, so that the set does not grow.
            _ = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut stop => break,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of files, most likely: waiting lets others end.
                tracing::warn!(%error, replica = replica.name(), "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "client left before it was served");
            continue;
        }
        let replica = Arc::clone(&replica);
        let watcher = finish.watcher();
        connections.spawn(async move {
            let service = service_fn(|request| async { Ok::<_, Infallible>(replica.answer(request).await) });
            let mut http = hyper::server::conn::http1::Builder::new();
            let connection = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, replica = replica.name(), "connection ended early");
            }
        });
    }
    drop(listener);
    finish.shutdown().await;
}

/// Reads a body to its end and keeps nothing of it.
async fn drain(mut body: Incoming) -> Result<(), hyper::Error> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// `?ms=250`: how long the API takes to answer.
fn pause(query: &str) -> Duration {
    let wanted = query.split('&').find_map(|word| word.strip_prefix("ms=")?.parse().ok());
    wanted.map_or(Duration::ZERO, |ms| Duration::from_millis(ms).min(LONGEST_ANSWER))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, "application/json", format!("{body}\n"))
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Status and body of one request over a real socket.
    async fn ask(replica: &Arc<Replica<Simulation>>, target: &str) -> (u16, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::clone(replica)));
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        server.abort();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-replica: api-1"), "{head}");
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// `/live`, `/ready` and `/health` after each control: what an orchestrator would see.
    #[tokio::test]
    async fn the_three_endpoints_follow_what_fails() {
        let replica = Arc::new(Replica::simulated("api-1"));
        for (control, live, ready, health, status) in [
            ("", 200, 200, 200, "healthy"),
            ("database=1", 200, 503, 503, "unhealthy"),
            ("database=0&redis=1", 200, 503, 200, "degraded"),
            ("redis=0&database_ms=150", 200, 200, 200, "degraded"),
            ("database_ms=600", 200, 200, 503, "unhealthy"),
            ("database_ms=1&memory=86", 200, 200, 200, "degraded"),
            ("memory=94", 200, 200, 200, "degraded"),
            ("memory=95", 200, 503, 200, "degraded"),
            ("memory=96", 200, 503, 503, "unhealthy"),
            ("memory=10&cpu=81", 200, 200, 200, "degraded"),
            ("reset", 200, 200, 200, "healthy"),
        ] {
            assert_eq!(ask(&replica, &format!("/fail?{control}")).await.0, 200, "{control}");
            assert_eq!(ask(&replica, "/live").await.0, live, "{control}");
            assert_eq!(ask(&replica, "/ready").await.0, ready, "{control}");
            let (code, body) = ask(&replica, "/health").await;
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((code, body["status"].as_str()), (health, Some(status)), "{control}: {body}");
            assert_eq!(body["reasons"].as_array().unwrap().is_empty(), status == "healthy", "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_under_way_is_finished_before_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let replica = Arc::new(Replica::simulated("api-1"));
        let stop = Arc::new(Notify::new());
        let served = tokio::spawn({
            let (replica, stop) = (Arc::clone(&replica), Arc::clone(&stop));
            async move { serve_until(listener, replica, stop.notified()).await }
        });
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /slow?ms=200 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        while replica.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.notify_one();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("api-1 GET /slow\n"), "{answer}");
        served.await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn the_api_tells_who_answered() {
        let replica = Arc::new(Replica::simulated("api-1"));
        assert_eq!(ask(&replica, "/").await, (200, "api-1\n".to_owned()));
        assert_eq!(ask(&replica, "/users/7?ms=5").await, (200, "api-1 GET /users/7\n".to_owned()));
        assert_eq!(replica.requests(), 2);
        ask(&replica, "/fail?live=0").await;
        assert_eq!(ask(&replica, "/").await.0, 500);
        assert_eq!(ask(&replica, "/fail?live=1").await.0, 200);
        assert_eq!(ask(&replica, "/").await.0, 200);
    }

    #[tokio::test]
    async fn a_wrong_control_changes_nothing_and_names_the_right_ones() {
        let replica = Arc::new(Replica::simulated("api-1"));
        let (code, body) = ask(&replica, "/fail?database=1&datbase=1").await;
        assert_eq!(code, 400);
        assert!(body.contains("`datbase`") && body.contains("database, database_ms, redis"), "{body}");
        assert_eq!(ask(&replica, "/health").await.0, 200);
    }
}
