//! An HTTP/3 client, by the h3 crate, which shares no code with the proxy beyond QUIC itself.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Buf as _, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::message::{Fields, Response};
use crate::patiently;

/// A stream to drive by hand.
pub type H3Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// One HTTP/3 connection; streams share it.
pub struct H3Client {
    send: Mutex<SendRequest<OpenStreams, Bytes>>,
    quic: quinn::Connection,
    driver: JoinHandle<()>,
    endpoint: quinn::Endpoint,
}

/// A QUIC connection that speaks nothing yet, to say anything over; `config` must offer `h3` by ALPN. The endpoint must
/// live as long.
///
/// # Errors
/// When there is no connection in time.
pub async fn quic(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> anyhow::Result<(quinn::Endpoint, quinn::Connection)> {
    let local = SocketAddr::new(address.ip(), 0);
    let endpoint = quinn::Endpoint::client(local)?;
    let crypto = QuicClientConfig::try_from(Arc::clone(config))?;
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(config, address, name)?;
    let connection = patiently("QUIC handshake", async { Ok(connecting.await?) }).await?;
    Ok((endpoint, connection))
}

impl H3Client {
    /// `config` must offer `h3` by ALPN.
    ///
    /// # Errors
    /// When there is no HTTP/3 connection in time.
    pub async fn connect(address: SocketAddr, config: Arc<ClientConfig>, name: &str) -> anyhow::Result<Self> {
        let (endpoint, quic) = quic(address, &config, name).await?;
        let connection = h3_quinn::Connection::new(quic.clone());
        let (mut driver, send) =
            patiently("HTTP/3", async { Ok(h3::client::new(connection).await?) }).await?;
        let driver = tokio::spawn(async move {
            let _ = std::future::poll_fn(|cx| driver.poll_close(cx)).await;
        });
        Ok(Self { send: Mutex::new(send), quic, driver, endpoint })
    }

    /// # Errors
    /// When there is no complete response in time.
    pub async fn get(&self, authority: &str, target: &str) -> anyhow::Result<Response> {
        self.request("GET", authority, target, &[], None).await
    }

    /// # Errors
    /// When there is no complete response in time.
    pub async fn request(
        &self,
        method: &str,
        authority: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<Response> {
        let mut request = Request::builder().method(method).uri(format!("https://{authority}{target}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let stream = self.open(request.body(())?).await?;
        let body = body.map(Bytes::copy_from_slice);
        patiently("HTTP/3 response", async {
            let (mut send, mut receive) = stream.split();
            let sending = async {
                if let Some(body) = body {
                    // An early answer may leave the rest unwanted.
                    let _ = send.send_data(body).await;
                }
                let _ = send.finish().await;
            };
            let (response, ()) = tokio::join!(collect(&mut receive), sending);
            response
        })
        .await
    }

    /// A stream whose head is sent, to drive by hand.
    ///
    /// # Errors
    /// When the connection takes no further stream in time.
    pub async fn open(&self, request: Request<()>) -> anyhow::Result<H3Stream> {
        let mut send = self.send.lock().await;
        patiently("a stream", async { Ok(send.send_request(request).await?) }).await
    }

    /// The connection below.
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Goes on from another port, as behind a network that gives addresses anew.
    ///
    /// # Errors
    /// When there is none.
    pub fn move_away(&self) -> anyhow::Result<()> {
        let local = self.endpoint.local_addr()?;
        Ok(self.endpoint.rebind(std::net::UdpSocket::bind(SocketAddr::new(local.ip(), 0))?)?)
    }
}

impl Drop for H3Client {
    fn drop(&mut self) {
        self.driver.abort();
        self.quic.close(0x100_u32.into(), b"");
    }
}

/// Reads a response to its end.
///
/// # Errors
/// When it does not come to one.
pub async fn collect<S: h3::quic::RecvStream>(
    stream: &mut RequestStream<S, Bytes>,
) -> anyhow::Result<Response> {
    let mut informational = Vec::new();
    let mut response = loop {
        let head = stream.recv_response().await?;
        let response = Response {
            status: head.status().as_u16(),
            version: "HTTP/3".to_owned(),
            fields: fields(head.headers()),
            ..Response::default()
        };
        if !head.status().is_informational() {
            break Response { informational, ..response };
        }
        informational.push(response);
    };
    while let Some(mut part) = stream.recv_data().await.context("HTTP/3 body")? {
        let part = part.copy_to_bytes(part.remaining());
        response.body.extend_from_slice(&part);
    }
    if let Some(trailers) = stream.recv_trailers().await? {
        response.trailers = fields(&trailers);
    }
    Ok(response)
}

fn fields(headers: &HeaderMap) -> Fields {
    Fields(headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect())
}
