//! Whoever receives OTLP, over HTTP or gRPC: one connection, kept while it is good.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, TE, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_config::telemetry::{Otlp, OtlpProtocol};
use lb_observe::otlp::{self, Rejected};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// Of an answer, which says little. Chosen.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Statuses after which the same may be sent again, as OTLP has them.
const HTTP_AGAIN: [u16; 4] = [429, 502, 503, 504];
const PROTOBUF: &str = "application/x-protobuf";
const NO_STATUS: &str = "answered without a gRPC status";
const GRPC_AGAIN: [&str; 7] = ["1", "4", "8", "10", "11", "14", "15"];

/// Why something was not received.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) may_repeat: bool,
    /// How long the receiver wants to be left alone.
    pub(super) after: Option<Duration>,
}

impl Failed {
    fn new(reason: String, may_repeat: bool) -> Self {
        Self { reason, may_repeat, after: None }
    }
}

type Body = Result<Collected<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

pub(super) struct Receiver {
    otlp: Otlp,
    tls: Option<Arc<ClientConfig>>,
    path: String,
    authority: String,
    /// Of what goes over HTTP.
    content_type: &'static str,
    link: Option<Link>,
}

/// An open connection. Whatever works on it ends when this is dropped, even while the other side takes nothing.
struct Link {
    sender: Sender,
    work: AbortHandle,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Link {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Receiver {
    /// `service` is the last part of its name in gRPC.
    ///
    /// # Errors
    /// Why TLS cannot be spoken.
    pub(super) fn new(otlp: &Otlp, service: &str) -> Result<Self, String> {
        let tls = otlp.tls.as_ref().map(lb_proxy::client_tls).transpose()?;
        let host = if otlp.host.contains(':') { format!("[{}]", otlp.host) } else { otlp.host.clone() };
        let path = match &otlp.protocol {
            OtlpProtocol::Http { path } => path.clone(),
            OtlpProtocol::Grpc => format!("/opentelemetry.proto.collector.{service}/Export"),
        };
        Ok(Self {
            tls,
            path,
            authority: format!("{host}:{}", otlp.port),
            otlp: otlp.clone(),
            content_type: PROTOBUF,
            link: None,
        })
    }

    /// For something else than OTLP.
    pub(super) fn taking(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    /// As the configuration names it.
    pub(super) fn endpoint(&self) -> &str {
        &self.otlp.endpoint_text
    }

    /// Sends one request of OTLP; one that takes too long ends its connection. What was taken may not be all of it.
    pub(super) async fn send_within(
        &mut self,
        timeout: Duration,
        message: Bytes,
    ) -> Result<Option<Rejected>, Failed> {
        tokio::time::timeout(timeout, self.send(message)).await.unwrap_or_else(|_| {
            self.hang_up();
            Err(Failed::new(format!("no answer within {timeout:?}"), true))
        })
    }

    /// The next thing is sent over another connection.
    fn hang_up(&mut self) {
        self.link = None;
    }

    /// Sends one request of OTLP and waits until it was taken.
    async fn send(&mut self, message: Bytes) -> Result<Option<Rejected>, Failed> {
        let is_grpc = self.otlp.protocol == OtlpProtocol::Grpc;
        let message = match self.content_type {
            // As Traefik sends it.
            PROTOBUF => gzip(&message).map_err(|error| Failed::new(error.to_string(), false))?,
            _ => message,
        };
        let is_used = self.link.is_some();
        let mut answered = self.exchange(message.clone(), is_grpc).await;
        if answered.is_err() {
            self.hang_up();
            if is_used {
                // Receivers end connections that have been idle: no trouble yet.
                answered = self.exchange(message, is_grpc).await;
            }
        }
        let (head, body) = answered.map_err(|reason| {
            self.hang_up();
            Failed::new(reason, true)
        })?;
        let status = head.status();
        if !status.is_success() {
            let may_repeat = HTTP_AGAIN.contains(&status.as_u16());
            let reason = format!("answered with status {}", status.as_u16());
            let after = head.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(Failed { reason, may_repeat, after: after.map(Duration::from_secs) });
        }
        let Ok(body) = body else {
            // The head has said that it was taken.
            self.hang_up();
            return if is_grpc { Err(Failed::new(NO_STATUS.to_owned(), true)) } else { Ok(None) };
        };
        let trailers = body.trailers().cloned();
        let message = body.to_bytes();
        if !is_grpc {
            let is_otlp = head.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROTOBUF);
            return Ok(is_otlp.then(|| otlp::rejected(&message)).flatten());
        }
        let field = |name: &str| {
            let found = trailers.as_ref().and_then(|trailers| trailers.get(name));
            found.or_else(|| head.headers().get(name)).and_then(|value| value.to_str().ok())
        };
        match field("grpc-status") {
            Some("0") => Ok(unframed(&message).as_deref().and_then(otlp::rejected)),
            Some(code) => {
                let message = field("grpc-message").unwrap_or_default();
                let may_repeat = GRPC_AGAIN.contains(&code);
                Err(Failed::new(format!("answered with gRPC status {code}: {message}"), may_repeat))
            }
            None => Err(Failed::new(NO_STATUS.to_owned(), true)),
        }
    }

    /// The head of an answer, and its body if it came to its end.
    async fn exchange(&mut self, message: Bytes, is_grpc: bool) -> Result<(Response<()>, Body), String> {
        let request = self.request(message, is_grpc)?;
        let response = self.link().await?.send(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        Ok((Response::from_parts(head, ()), Limited::new(body, LONGEST_ANSWER).collect().await))
    }

    fn request(&self, message: Bytes, is_grpc: bool) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::post(match (is_grpc, &self.tls) {
            (false, _) => self.path.clone(),
            (true, None) => format!("http://{}{}", self.authority, self.path),
            (true, Some(_)) => format!("https://{}{}", self.authority, self.path),
        });
        request = request.header(USER_AGENT, concat!("vigie/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.otlp.headers {
            request = request.header(name, value);
        }
        let request = if is_grpc {
            // A message is behind a byte that says that it is compressed, and four with its length.
            let mut framed = BytesMut::with_capacity(message.len() + 5);
            framed.put_u8(1);
            framed.put_u32(u32::try_from(message.len()).map_err(|_| "too much at once".to_owned())?);
            framed.extend_from_slice(&message);
            let request = request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
            let request = request.header("grpc-encoding", "gzip");
            request.body(Full::new(framed.freeze()))
        } else {
            let mut request = request.header(CONTENT_TYPE, self.content_type).header(HOST, &self.authority);
            if self.content_type == PROTOBUF {
                request = request.header(CONTENT_ENCODING, "gzip");
            }
            request.body(Full::new(message))
        };
        request.map_err(|error| error.to_string())
    }

    /// The connection, a new one if need be.
    async fn link(&mut self) -> Result<&mut Link, String> {
        let kept = match self.link.take() {
            Some(mut link) => link.is_good().await.then_some(link),
            None => None,
        };
        let link = match kept {
            Some(link) => link,
            None => self.connect().await?,
        };
        Ok(self.link.insert(link))
    }

    async fn connect(&self) -> Result<Link, String> {
        let Otlp { host, port, protocol, .. } = &self.otlp;
        let stream = lb_proxy::dial(host, *port, None).await.map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return Link::over(stream, protocol).await };
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        Link::over(stream.map_err(|error| error.to_string())?, protocol).await
    }
}

impl Link {
    async fn over<S>(stream: S, protocol: &OtlpProtocol) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        if *protocol == OtlpProtocol::Grpc {
            let handshake = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = handshake.map_err(|error| chain(&error))?;
            let work = tokio::spawn(connection).abort_handle();
            return Ok(Self { sender: Sender::Http2(sender), work });
        }
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| chain(&error))?;
        let work = tokio::spawn(connection).abort_handle();
        Ok(Self { sender: Sender::Http1(sender), work })
    }

    async fn is_good(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}

fn gzip(message: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message)?;
    encoder.finish().map(Bytes::from)
}

/// The message in an answer of gRPC. Servers compress it as the request was, whatever the client says it takes.
fn unframed(body: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (head, message) = body.split_at_checked(5)?;
    if head[0] == 0 {
        return Some(message.into());
    }
    let mut plain = Vec::new();
    GzDecoder::new(message).take(LONGEST_ANSWER as u64).read_to_end(&mut plain).ok()?;
    Some(plain.into())
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_grpc_are_read_whether_they_are_compressed_or_not() {
        let framed = |flag: u8, message: &[u8]| [&[flag, 0, 0, 0, message.len() as u8][..], message].concat();
        let text = b"all but two";
        let packed = gzip(text).unwrap();
        assert_eq!(unframed(&framed(0, text)).as_deref(), Some(&text[..]));
        assert_eq!(unframed(&framed(1, &packed)).as_deref(), Some(&text[..]));
        assert_eq!(unframed(&framed(1, text)), None);
        assert_eq!(unframed(b"\0\0"), None);
        let bomb = gzip(&vec![0; 10 << 20]).unwrap();
        assert_eq!(unframed(&framed(1, &bomb)).map(|plain| plain.len()), Some(LONGEST_ANSWER));
    }
}
