//! An HTTP/2 origin, over TLS or with prior knowledge (h2c).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::HeaderMap;
use rustls::ServerConfig;

use super::listener::{Listener, Serve, Tally};
use super::script::Request;
use crate::eventually::reserve_address;
use crate::message::Fields;
use crate::stream::Stream;

/// What an HTTP/2 origin does with one request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    /// Sent as one DATA frame each (or more, should they be long), `pause` before each.
    pub parts: Vec<Bytes>,
    pub pause: Duration,
    pub trailers: Vec<(String, String)>,
    /// Interim responses, before the request's body is read.
    pub informational: Vec<u16>,
    /// Before anything else.
    pub delay: Duration,
    /// Whether the request's body is read to its end before the answer.
    pub reads_body: bool,
    /// In place of the end of the stream.
    pub reset: Option<Reason>,
    /// Whether the body is replaced by a description of the request ([`Script::echo`](super::Script::echo)).
    pub echo: bool,
}

impl Answer {
    pub fn text(body: &str) -> Self {
        Self {
            status: 200,
            fields: Vec::new(),
            parts: vec![Bytes::copy_from_slice(body.as_bytes())],
            pause: Duration::ZERO,
            trailers: Vec::new(),
            informational: Vec::new(),
            delay: Duration::ZERO,
            reads_body: true,
            reset: None,
            echo: false,
        }
    }

    pub fn echo() -> Self {
        Self { echo: true, ..Self::text("") }
    }
}

type Choose = dyn Fn(&Request) -> Answer + Send + Sync;

/// An HTTP/2 origin on loopback. It lives until it is dropped.
pub struct H2Origin {
    shared: Arc<Shared>,
    listener: Listener,
}

struct Shared {
    name: String,
    choose: Box<Choose>,
    /// Streams that a connection may have at once.
    most: u32,
    tally: Tally,
}

impl H2Origin {
    /// h2c with prior knowledge.
    pub async fn start(name: &str, choose: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::launch(name, None, u32::MAX, Box::new(choose)).await
    }

    /// The same, with at most so many streams on a connection.
    pub async fn with_streams(
        name: &str,
        most: u32,
        choose: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::launch(name, None, most, Box::new(choose)).await
    }

    /// Over TLS; `config` must offer `h2` by ALPN.
    pub async fn tls(
        name: &str,
        config: Arc<ServerConfig>,
        choose: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::launch(name, Some(config), u32::MAX, Box::new(choose)).await
    }

    async fn launch(name: &str, tls: Option<Arc<ServerConfig>>, most: u32, choose: Box<Choose>) -> Self {
        let shared = Arc::new(Shared { name: name.to_owned(), choose, most, tally: Tally::default() });
        let listener = Listener::start(reserve_address(), Arc::clone(&shared), tls).await;
        Self { shared, listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// `h2c://127.0.0.1:port` or `https://127.0.0.1:port`, as a configuration wants it.
    pub fn url(&self) -> String {
        self.listener.url().replace("http://", "h2c://")
    }

    pub fn requests(&self) -> usize {
        self.shared.tally.requests()
    }

    pub fn connections(&self) -> usize {
        self.shared.tally.connections()
    }

    pub fn open_connections(&self) -> usize {
        self.shared.tally.open()
    }

    pub fn seen(&self) -> Vec<Request> {
        self.shared.tally.seen()
    }

    /// Closes the listener and every connection, as a killed process would.
    pub async fn stop(&mut self) {
        self.listener.stop().await;
    }

    /// Listens again, on the same port.
    pub async fn restart(&mut self) {
        self.listener.restart(Arc::clone(&self.shared)).await;
    }
}

impl Serve for Shared {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn serve(self: Arc<Self>, stream: Stream, connection: usize) {
        let peer = stream.tcp().peer_addr().map(|address| address.to_string()).unwrap_or_default();
        let server_name = stream.server_name().map(str::to_owned);
        let mut builder = h2::server::Builder::new();
        if self.most < u32::MAX {
            builder.max_concurrent_streams(self.most);
        }
        let Ok(mut connections) = builder.handshake::<_, Bytes>(stream).await else { return };
        // Streams live and die with their connection's task.
        let mut streams = tokio::task::JoinSet::new();
        while let Some(Ok((request, respond))) = connections.accept().await {
            let (parts, body) = request.into_parts();
            let request = Request {
                method: parts.method.to_string(),
                target: parts.uri.path_and_query().map_or_else(|| "*".to_owned(), ToString::to_string),
                version: "HTTP/2".to_owned(),
                fields: fields(parts.uri.authority().map(|authority| authority.as_str()), &parts.headers),
                connection,
                peer: peer.clone(),
                server_name: server_name.clone(),
                ..Request::default()
            };
            streams.spawn(Arc::clone(&self).answer(request, body, respond));
        }
    }
}

/// The fields, with the authority first and under the name that HTTP/1.1 gives it.
fn fields(authority: Option<&str>, headers: &HeaderMap) -> Fields {
    let host = authority.map(|authority| ("host".to_owned(), authority.as_bytes().to_vec()));
    let rest = headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    Fields(host.into_iter().chain(rest).collect())
}

fn header_map(fields: &[(String, String)]) -> HeaderMap {
    let parsed = fields.iter().map(|(name, value)| {
        let name: http::HeaderName = name.parse().expect("a test's field name is valid");
        (name, value.parse::<http::HeaderValue>().expect("a test's field value is valid"))
    });
    parsed.collect()
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        mut request: Request,
        mut body: h2::RecvStream,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let number = self.tally.request(request.clone());
        let answer = (self.choose)(&request);
        tokio::time::sleep(answer.delay).await;
        for &status in &answer.informational {
            let mut interim = http::Response::new(());
            *interim.status_mut() = http::StatusCode::from_u16(status).expect("a test's status is valid");
            respond.send_informational(interim)?;
        }
        if answer.reads_body {
            while let Some(part) = body.data().await {
                let part = part?;
                body.flow_control().release_capacity(part.len())?;
                request.body.extend_from_slice(&part);
            }
            if let Some(trailers) = body.trailers().await? {
                request.trailers = fields(None, &trailers);
            }
            self.tally.update(number, &request);
        }
        let parts =
            if answer.echo { vec![request.to_json(&self.name).to_string().into()] } else { answer.parts };
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(answer.status).expect("a test's status is valid");
        *response.headers_mut() = header_map(&answer.fields);
        let bodiless = request.method == "HEAD" || matches!(answer.status, 204 | 304);
        let ends = bodiless || parts.iter().all(Bytes::is_empty) && answer.trailers.is_empty();
        let mut stream = respond.send_response(response, ends && answer.reset.is_none())?;
        if ends && answer.reset.is_none() {
            return Ok(());
        }
        let last = parts.len().saturating_sub(1);
        for (index, part) in parts.into_iter().enumerate() {
            tokio::time::sleep(answer.pause).await;
            let end = index == last && answer.trailers.is_empty() && answer.reset.is_none();
            stream.send_data(part, end)?;
        }
        if let Some(reason) = answer.reset {
            tokio::time::sleep(Duration::from_millis(50)).await; // lets the frames so far go out
            stream.send_reset(reason);
        } else if !answer.trailers.is_empty() {
            stream.send_trailers(header_map(&answer.trailers))?;
        }
        Ok(())
    }
}
