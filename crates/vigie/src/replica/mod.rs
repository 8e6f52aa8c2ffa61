//! The reference replica: an API server that implements the health protocol Vigie understands.
//!
//! `/live` says that the process answers, `/ready` whether it should get traffic now, `/health` how
//! well it is, in JSON: `healthy`, `degraded` (works, but give it less) or `unhealthy` (503). Its
//! dependencies are simulated; `/fail` breaks and mends them, so that a demonstration or a test can
//! play any day of production. Every other path is the API: it answers with the replica's name.

mod control;
mod health;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use control::ControlError;
pub use health::{Dependency, Importance, Status};

use health::{Check, Vitals, overall};

/// Chosen: a demonstration may ask for a slow answer, not for one that outlives it.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// One replica: its name, what it depends on, and the state that `/fail` changes.
#[derive(Debug)]
pub struct Replica {
    name: HeaderValue,
    started: Instant,
    requests: AtomicU64,
    state: Mutex<State>,
    crash: Notify,
}

/// What a health check looks at. Kept apart from [`Replica`] so that it is read in one step.
#[derive(Clone, Debug)]
struct State {
    dependencies: Vec<Dependency>,
    vitals: Vitals,
    /// Off: `/live` and everything else answer 500, as a process does that is beyond help.
    live: bool,
}

impl Replica {
    /// `name` is sent in `X-Replica`; characters that a header field cannot carry are left out.
    pub fn new(name: &str, dependencies: Vec<Dependency>) -> Self {
        let visible: String = name.chars().filter(char::is_ascii_graphic).collect();
        Self {
            name: HeaderValue::from_str(&visible).unwrap_or_else(|_| HeaderValue::from_static("replica")),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            state: Mutex::new(State { dependencies, vitals: Vitals::default(), live: true }),
            crash: Notify::new(),
        }
    }

    /// With the two dependencies of the reference system: a database and a Redis.
    pub fn with_defaults(name: &str) -> Self {
        Self::new(name, vec![Dependency::database(), Dependency::redis()])
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

    /// Changes the simulation as `/fail?<query>` does.
    ///
    /// # Errors
    /// When a word is unknown or its value is not what it takes; then nothing has changed.
    pub fn control(&self, query: &str) -> Result<(), ControlError> {
        let mut state = self.state();
        let changed = control::apply(&state, query)?;
        *state = changed;
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is replaced whole, so a panic elsewhere cannot have left it half changed.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks every dependency, as long as each takes.
    async fn checks(&self) -> (State, Vec<Check>) {
        let state = self.state().clone();
        let mut checks = Vec::with_capacity(state.dependencies.len() + 2);
        for dependency in &state.dependencies {
            checks.push(dependency.check().await);
        }
        checks.extend(state.vitals.checks());
        (state, checks)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let mut response = match parts.uri.path() {
            _ if !self.state().live && parts.uri.path() != "/fail" => {
                text(StatusCode::INTERNAL_SERVER_ERROR, "beyond help\n".to_owned())
            }
            "/live" => json(StatusCode::OK, &json!({"status": "alive"})),
            "/ready" => self.ready().await,
            "/health" => self.health().await,
            "/fail" => self.fail(query),
            path => {
                self.requests.fetch_add(1, Ordering::Relaxed);
                // An API reads what it is sent; the proxy in front sees an ordinary exchange.
                if let Err(error) = drain(body).await {
                    tracing::debug!(%error, "request body ended early");
                }
                tokio::time::sleep(pause(query)).await;
                self.api(&parts.method, path)
            }
        };
        response.headers_mut().insert("x-replica", self.name.clone());
        response
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let (_, checks) = self.checks().await;
        let reasons: Vec<_> =
            checks.iter().filter(|check| check.forbids_traffic()).map(Check::reason).collect();
        if reasons.is_empty() {
            json(StatusCode::OK, &json!({"status": "ready"}))
        } else {
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reasons": reasons}))
        }
    }

    async fn health(&self) -> Response<Full<Bytes>> {
        let (_, checks) = self.checks().await;
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

    fn fail(&self, query: &str) -> Response<Full<Bytes>> {
        if query == "crash" {
            self.crash.notify_one();
            return text(StatusCode::OK, format!("{} dies now\n", self.name()));
        }
        match self.control(query) {
            Ok(()) => text(StatusCode::OK, format!("{}\n", control::describe(&self.state()))),
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
pub async fn serve(listener: TcpListener, replica: Arc<Replica>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Collects what has ended, so that the set does not grow.
            _ = connections.join_next(), if !connections.is_empty() => continue,
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
        connections.spawn(async move {
            let service = service_fn(|request| async { Ok::<_, Infallible>(replica.answer(request).await) });
            let mut http = hyper::server::conn::http1::Builder::new();
            let served = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
            if let Err(error) = served {
                tracing::debug!(%error, replica = replica.name(), "connection ended early");
            }
        });
    }
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
    async fn ask(replica: &Arc<Replica>, target: &str) -> (u16, String) {
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
        let replica = Arc::new(Replica::with_defaults("api-1"));
        for (control, live, ready, health, status) in [
            ("", 200, 200, 200, "healthy"),
            ("database=1", 200, 503, 503, "unhealthy"),
            ("database=0&redis=1", 200, 503, 200, "degraded"),
            ("redis=0&database_ms=150", 200, 200, 200, "degraded"),
            ("database_ms=600", 200, 200, 503, "unhealthy"),
            ("database_ms=1&memory=86", 200, 200, 200, "degraded"),
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
    async fn the_api_tells_who_answered() {
        let replica = Arc::new(Replica::with_defaults("api-1"));
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
        let replica = Arc::new(Replica::with_defaults("api-1"));
        let (code, body) = ask(&replica, "/fail?database=1&datbase=1").await;
        assert_eq!(code, 400);
        assert!(body.contains("`datbase`") && body.contains("database, database_ms, redis"), "{body}");
        assert_eq!(ask(&replica, "/health").await.0, 200);
    }
}
