//! One request on a connection of its own, and its answer.
//!
//! A probe opens a new connection each time: a server that no longer accepts any is down, however well it
//! still serves an old one. Nothing outlives the call: dropping the future closes the connection and ends
//! the tasks that drove it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use lb_config::dynamic::Scheme;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::target::Target;
use super::tls::{Tls, TlsError};

/// Heads of answers may be as large as those to requests, or a server that serves well would be out.
const MAX_FIELDS: usize = 1024;
const MAX_HEAD_BYTES: usize = 1024 * 1024;

/// The start of the answer and as much of the rest as was asked for.
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    /// `None`: not asked for, too large, or not there in time.
    pub(crate) body: Option<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// What the probe speaks once connected over TLS; plain connections go by their scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speak {
    /// Whatever was negotiated.
    Http,
    /// HTTP/2 always.
    Grpc,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("no answer in time")]
    TimedOut,
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("`{0}` is no name a certificate can carry; set `serverName`")]
    ServerName(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("no valid answer")]
    Http(#[source] hyper::Error),
}

/// Sends `request` to `target`; the head of the answer must be there by `deadline`. `wanted` says from the
/// head how many bytes of body are worth waiting for, and even those no longer than `deadline`.
pub(crate) async fn send(
    target: &Target,
    speak: Speak,
    tls: &Tls,
    request: Request<Full<Bytes>>,
    deadline: Instant,
    wanted: impl FnOnce(&response::Parts) -> usize,
) -> Result<Answer, ExchangeError> {
    let in_time = |_| ExchangeError::TimedOut;
    let connect = tls.dial(&target.host, target.port, deadline);
    let stream = timeout_at(deadline, connect).await.map_err(in_time)?.map_err(ExchangeError::Connect)?;
    // A failure to set it only delays the probe.
    let _ = stream.set_nodelay(true);
    if target.scheme != Scheme::Https {
        let http2 = target.scheme == Scheme::H2c || speak == Speak::Grpc;
        return converse(stream, http2, request, deadline, wanted).await;
    }
    let config = match speak {
        Speak::Http => tls.http()?,
        Speak::Grpc => tls.grpc()?,
    };
    let handshake = secure(stream, config, tls.transport().server_name.as_deref().unwrap_or(&target.host));
    let stream = timeout_at(deadline, handshake).await.map_err(in_time)??;
    let http2 = speak == Speak::Grpc || stream.get_ref().1.alpn_protocol() == Some(b"h2");
    converse(stream, http2, request, deadline, wanted).await
}

async fn secure(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ExchangeError> {
    let name =
        ServerName::try_from(name.to_owned()).map_err(|_| ExchangeError::ServerName(name.to_owned()))?;
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(ExchangeError::Handshake)
}

async fn converse(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    mut request: Request<Full<Bytes>>,
    deadline: Instant,
    wanted: impl FnOnce(&response::Parts) -> usize,
) -> Result<Answer, ExchangeError> {
    let io = TokioIo::new(io);
    if http2 {
        let tasks = TasksOwner(Tasks::default());
        let handshake = hyper::client::conn::http2::handshake(tasks.0.clone(), io);
        let (mut sender, connection) = timeout_at(deadline, handshake)
            .await
            .map_err(|_| ExchangeError::TimedOut)?
            .map_err(ExchangeError::Http)?;
        // HTTP/2 says the authority in the URI alone (RFC 9113 section 8.3.1).
        request.headers_mut().remove(http::header::HOST);
        *request.version_mut() = http::Version::HTTP_2;
        drive(connection, answer(sender.send_request(request), deadline, wanted)).await
    } else {
        // Names of fields as Go spells them, which is all that some servers know.
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.title_case_headers(true).max_headers(MAX_FIELDS).max_buf_size(MAX_HEAD_BYTES);
        let (mut sender, connection) = builder.handshake(io).await.map_err(ExchangeError::Http)?;
        // Origin form (RFC 9112 section 3.2.1).
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
        drive(connection, answer(sender.send_request(request), deadline, wanted)).await
    }
}

/// Polls the connection beside the exchange, and no longer.
async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    exchange: impl Future<Output = T>,
) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        done = &mut exchange => done,
        // The connection is over; what it has delivered, an error included, is still in the exchange.
        _ = &mut connection => exchange.await,
    }
}

async fn answer(
    response: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
    deadline: Instant,
    wanted: impl FnOnce(&response::Parts) -> usize,
) -> Result<Answer, ExchangeError> {
    let response = timeout_at(deadline, response)
        .await
        .map_err(|_| ExchangeError::TimedOut)?
        .map_err(ExchangeError::Http)?;
    let (head, body) = response.into_parts();
    let limit = wanted(&head);
    let (body, trailers) = if limit == 0 {
        (None, None)
    } else {
        timeout_at(deadline, read(body, limit)).await.ok().flatten().unzip()
    };
    Ok(Answer { head, body, trailers: trailers.flatten() })
}

/// The whole body and its trailers, unless it is broken or longer than `limit`.
async fn read(mut body: Incoming, limit: usize) -> Option<(Bytes, Option<HeaderMap>)> {
    if body.size_hint().lower() > limit as u64 {
        return None;
    }
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) if bytes.len() + data.len() > limit => return None,
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Some((bytes.into(), trailers))
}

/// Runs what hyper's HTTP/2 client spawns.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Ends them with the probe; the tasks hold the executor themselves, so its last reference is not enough.
struct TasksOwner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.0.lock().spawn(future);
    }
}

impl Drop for TasksOwner {
    fn drop(&mut self) {
        self.0.0.lock().abort_all();
    }
}
