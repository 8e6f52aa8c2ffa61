//! Connections to sources, and HTTP/1.1 over them, one request each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lb_config::remote::Endpoint;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answers::SourceError;

/// How long an endpoint may take to accept a connection before the next one is tried; chosen.
const CONNECT: Duration = Duration::from_secs(5);
/// Of the body of an answer that is not 200; chosen, enough for a sentence.
const REFUSAL: u64 = 4096;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Several addresses of one source.
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    /// Asked now.
    at: usize,
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoints {
    pub(super) fn new(all: Vec<Endpoint>, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { all, at: 0, tls }
    }

    /// A connection to the first that accepts one, beginning with the one that is asked now.
    pub(super) async fn connect(&mut self) -> Result<(Box<dyn Stream>, Endpoint), SourceError> {
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..self.all.len() {
            let endpoint = self.all[self.at].clone();
            match self.dial(&endpoint).await {
                Ok(stream) => return Ok((stream, endpoint)),
                Err(failure) => error = failure,
            }
            self.next();
        }
        Err(SourceError::Connect(error))
    }

    /// The one that is asked now is no use.
    pub(super) fn next(&mut self) {
        self.at = (self.at + 1) % self.all.len();
    }

    pub(super) async fn dial(&self, endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
        let connect = async {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            stream.set_nodelay(true)?;
            let Some(config) = &self.tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
            Ok(Box::new(connector.connect(name, stream).await?) as Box<dyn Stream>)
        };
        timeout(CONNECT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends one request on a connection of its own. `Host` is the endpoint's unless the request has one.
    pub(super) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, SourceError> {
        let (stream, endpoint) = self.connect().await?;
        let default_port = if self.tls.is_some() { 443 } else { 80 };
        let host = match endpoint.to_string() {
            host if endpoint.port == default_port => {
                host.rsplit_once(':').map_or(host.clone(), |(host, _)| host.to_owned())
            }
            host => host,
        };
        let headers = request.headers_mut();
        // Hosts and addresses are checked to be nothing else.
        if let Ok(host) = host.parse() {
            headers.entry(HOST).or_insert(host);
        }
        headers.entry(USER_AGENT).or_insert(hyper::header::HeaderValue::from_static("vigie"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender, or with the source; what it has to say, the request is told.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        Ok(Answer { response, _sender: sender })
    }
}

/// An answer whose body may be still under way.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// Dropping it would end the connection.
    _sender: SendRequest<Full<Bytes>>,
}

impl Answer {
    /// The body, of at most `limit` bytes.
    pub(super) async fn collect(self, limit: u64) -> Result<Bytes, SourceError> {
        let Self { response, _sender } = self;
        let mut body = response.into_body();
        if body.size_hint().lower() > limit {
            return Err(SourceError::TooLong(limit));
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                whole.extend_from_slice(data);
            }
            if whole.len() as u64 > limit {
                return Err(SourceError::TooLong(limit));
            }
        }
        Ok(whole.freeze())
    }

    /// What an answer means that is none.
    pub(super) async fn refusal(self) -> SourceError {
        let status = self.response.status();
        let body = self.collect(REFUSAL).await.unwrap_or_default();
        SourceError::Status { status, message: String::from_utf8_lossy(&body).into_owned() }
    }
}
