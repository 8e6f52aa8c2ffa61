//! An HTTP/2 client, over TLS or with prior knowledge (h2c).

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::client::tls;
use crate::message::{Fields, Response};
use crate::patiently;
use crate::stream::Stream;

/// One HTTP/2 connection; streams share it.
pub struct H2Client {
    send: SendRequest<Bytes>,
    scheme: &'static str,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl H2Client {
    /// h2c with prior knowledge.
    ///
    /// # Errors
    /// When nothing there speaks HTTP/2 in time.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let tcp = patiently("connect", async { Ok(TcpStream::connect(address).await?) }).await?;
        tcp.set_nodelay(true)?;
        Self::over(Stream::Plain(tcp), "http").await
    }

    /// Over TLS; `config` must offer `h2` by ALPN and the server must take it.
    ///
    /// # Errors
    /// When there is no HTTP/2 connection in time.
    pub async fn connect_tls(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> anyhow::Result<Self> {
        let stream = tls(address, config, name).await?;
        ensure!(stream.alpn() == Some(b"h2"), "ALPN chose {:?}", stream.alpn());
        Self::over(stream, "https").await
    }

    async fn over(stream: Stream, scheme: &'static str) -> anyhow::Result<Self> {
        let handshake = async { Ok(h2::client::handshake(stream).await?) };
        let (send, connection) = patiently("HTTP/2 preface", handshake).await?;
        Ok(Self { send, scheme, driver: tokio::spawn(connection) })
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
        let mut request =
            Request::builder().method(method).uri(format!("{}://{authority}{target}", self.scheme));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = Bytes::copy_from_slice(body.unwrap_or_default());
        let (response, mut stream) = self.open(request.body(())?, body.is_empty()).await?;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        patiently("HTTP/2 response", collect(response)).await
    }

    /// A stream to drive by hand: its response to come, and its sending half unless `ended`.
    ///
    /// # Errors
    /// When the connection takes no further stream in time.
    pub async fn open(
        &self,
        request: Request<()>,
        ended: bool,
    ) -> anyhow::Result<(ResponseFuture, h2::SendStream<Bytes>)> {
        let ready = async { Ok(self.send.clone().ready().await?) };
        let mut send = patiently("room for a stream", ready).await?;
        Ok(send.send_request(request, ended)?)
    }

    /// Whether the connection has ended, by GOAWAY or otherwise.
    pub fn is_closed(&self) -> bool {
        self.driver.is_finished()
    }
}

impl Drop for H2Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn collect(mut coming: ResponseFuture) -> anyhow::Result<Response> {
    let mut informational = Vec::new();
    while let Some(interim) = std::future::poll_fn(|cx| coming.poll_informational(cx)).await {
        let (parts, ()) = interim?.into_parts();
        informational.push(head(parts.status.as_u16(), &parts.headers));
    }
    let (parts, mut body) = coming.await?.into_parts();
    let mut response = head(parts.status.as_u16(), &parts.headers);
    response.informational = informational;
    while let Some(part) = body.data().await {
        let part = part.context("HTTP/2 body")?;
        body.flow_control().release_capacity(part.len())?;
        response.body.extend_from_slice(&part);
    }
    if let Some(trailers) = body.trailers().await? {
        response.trailers = fields(&trailers);
    }
    Ok(response)
}

fn head(status: u16, headers: &HeaderMap) -> Response {
    Response { status, version: "HTTP/2".to_owned(), fields: fields(headers), ..Response::default() }
}

fn fields(headers: &HeaderMap) -> Fields {
    Fields(headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect())
}
