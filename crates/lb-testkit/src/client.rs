//! A client that sends exactly the bytes it is given and believes nothing it is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::certificates::server_name;
use crate::message::{BodyReader, Framing, Response, fill, head_end, parse_response_head, response_framing};
use crate::stream::Stream;
use crate::{Fault, patiently};

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// Received and not yet consumed.
    buffer: Vec<u8>,
    body: Option<BodyReader>,
}

/// One GET on a connection of its own.
///
/// # Errors
/// When there is no well-formed response in time.
pub async fn get(address: SocketAddr, host: &str, target: &str) -> anyhow::Result<Response> {
    Client::connect(address).await?.get(host, target).await
}

impl Client {
    /// # Errors
    /// When nothing accepts the connection in time.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let tcp = patiently("connect", async { Ok(TcpStream::connect(address).await?) }).await?;
        tcp.set_nodelay(true)?;
        Ok(Self::over(Stream::Plain(tcp)))
    }

    /// Connects from a given local address (such as 127.0.0.2), for what depends on the client's.
    ///
    /// # Errors
    /// When nothing accepts the connection in time.
    pub async fn connect_from(local: std::net::IpAddr, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()
        } else {
            tokio::net::TcpSocket::new_v6()
        }?;
        socket.bind(SocketAddr::new(local, 0))?;
        let tcp = patiently("connect", async { Ok(socket.connect(address).await?) }).await?;
        tcp.set_nodelay(true)?;
        Ok(Self::over(Stream::Plain(tcp)))
    }

    /// # Errors
    /// When the connection or the handshake fails.
    pub async fn connect_tls(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self::over(tls(address, config, name).await?))
    }

    fn over(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new(), body: None }
    }

    /// Protocol agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.alpn()
    }

    /// The rustls connection of a TLS client, for what was negotiated.
    pub fn tls(&self) -> Option<&rustls::ClientConnection> {
        match &self.stream {
            Stream::Tls(tls) => match tls.as_ref() {
                TlsStream::Client(client) => Some(client.get_ref().1),
                TlsStream::Server(_) => None,
            },
            Stream::Plain(_) => None,
        }
    }

    /// # Errors
    /// When this end has no address any more.
    pub fn local_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.stream.tcp().local_addr()?)
    }

    /// # Errors
    /// When the peer does not take the bytes in time.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        patiently("send", async {
            self.stream.write_all(bytes.as_ref()).await?;
            Ok(self.stream.flush().await?)
        })
        .await
    }

    /// Sends bytes in pieces of `size`, with a pause after each.
    ///
    /// # Errors
    /// When the peer does not take a piece in time.
    pub async fn trickle(
        &mut self,
        bytes: impl AsRef<[u8]>,
        size: usize,
        pause: Duration,
    ) -> anyhow::Result<()> {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece).await?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Ends the sending direction.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.stream.reset();
    }

    /// One GET over this connection.
    ///
    /// # Errors
    /// When there is no well-formed response in time.
    pub async fn get(&mut self, host: &str, target: &str) -> anyhow::Result<Response> {
        self.request("GET", host, target, &[], None).await
    }

    /// One request with further fields and, where there is one, a body of known length.
    ///
    /// # Errors
    /// When there is no well-formed response in time.
    pub async fn request(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<Response> {
        self.send(request_bytes(method, host, target, fields, body)).await?;
        self.response(method).await
    }

    /// The next response, body included. `method` is that of its request: HEAD has no body.
    ///
    /// # Errors
    /// When there is no well-formed response in time.
    pub async fn response(&mut self, method: &str) -> anyhow::Result<Response> {
        let mut response = self.head(method).await?;
        if response.status == 101 {
            return Ok(response);
        }
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend(piece);
        }
        response.body = body;
        response.trailers = self.trailers();
        Ok(response)
    }

    /// The next response's head alone, after any interim ones; [`piece`](Self::piece) reads on.
    ///
    /// # Errors
    /// When there is no well-formed head in time.
    pub async fn head(&mut self, method: &str) -> anyhow::Result<Response> {
        let mut informational = Vec::new();
        loop {
            let mut head = self.any_head().await?;
            let framing = response_framing(&head, method)?;
            if matches!(head.status, 100..=199) && head.status != 101 {
                informational.push(head);
                continue;
            }
            head.until_close = framing == Framing::UntilClose;
            head.informational = informational;
            self.body = Some(BodyReader::new(framing));
            return Ok(head);
        }
    }

    /// The next head, interim or final; nothing is known about a body after it.
    ///
    /// # Errors
    /// When there is no well-formed head in time.
    pub async fn any_head(&mut self) -> anyhow::Result<Response> {
        let end = patiently("response head", async {
            loop {
                if let Some(end) = head_end(&self.buffer) {
                    return Ok(end);
                }
                if !fill(&mut self.stream, &mut self.buffer).await? {
                    match self.buffer.len() {
                        0 => bail!(Fault::NoAnswer),
                        n => bail!(Fault::Truncated(format!("{n} bytes into a head"))),
                    }
                }
            }
        })
        .await?;
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        parse_response_head(&head).with_context(|| String::from_utf8_lossy(&head).into_owned())
    }

    /// The next piece of the body as it arrives; `None` at its end.
    ///
    /// # Errors
    /// When the body is cut short, malformed or late.
    pub async fn piece(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(body) = &mut self.body else { return Ok(None) };
        patiently("response body", body.piece(&mut self.stream, &mut self.buffer)).await
    }

    fn trailers(&mut self) -> crate::message::Fields {
        self.body.take().map(|body| body.trailers).unwrap_or_default()
    }

    /// Exactly `count` bytes, whatever they mean: what follows a 101.
    ///
    /// # Errors
    /// When the connection ends before, or nothing comes in time.
    pub async fn bytes(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        patiently("bytes", async {
            while self.buffer.len() < count {
                ensure!(
                    fill(&mut self.stream, &mut self.buffer).await?,
                    "ended after {} bytes",
                    self.buffer.len()
                );
            }
            Ok(self.buffer.drain(..count).collect())
        })
        .await
    }

    /// Everything until the peer closes. A reset is an error.
    ///
    /// # Errors
    /// When the peer resets, or does not close in time.
    pub async fn rest(&mut self) -> anyhow::Result<Vec<u8>> {
        patiently("end of the connection", async {
            while fill(&mut self.stream, &mut self.buffer).await? {}
            Ok(std::mem::take(&mut self.buffer))
        })
        .await
    }

    /// Whether the peer ends the connection within `length`, by FIN or RST, without a further byte.
    pub async fn closes_within(&mut self, length: Duration) -> bool {
        match tokio::time::timeout(length, fill(&mut self.stream, &mut self.buffer)).await {
            Ok(Ok(more)) => !more,
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }
}

pub(crate) fn request_bytes(
    method: &str,
    host: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

pub(crate) async fn tls(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: &str,
) -> anyhow::Result<Stream> {
    patiently("TLS handshake", async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(config).connect(server_name(name), tcp).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
    })
    .await
}
