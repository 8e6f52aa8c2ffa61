//! The way to a server: dial, PROXY protocol, PostgreSQL's question, TLS.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_config::tcp::{KeepAlive, ProxyVersion};
use lb_core::proxy_header;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::greet::{POSTGRES_SSL, POSTGRES_YES};
use super::{Server, Service};
use crate::stream::Stream;
use crate::upstream::{dial, while_wanted};

/// As for HTTP servers.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a server has to know before the client's bytes.
pub(super) struct Introduction {
    pub(super) client: SocketAddr,
    /// Where the client connected to.
    pub(super) local: SocketAddr,
    /// The client has asked for TLS as PostgreSQL's do, and what follows is for the server.
    pub(super) asks_postgres: bool,
}

/// A connection on which nothing of the client's was sent; given up once the server is not wanted any more.
///
/// # Errors
/// With a word for the metric.
pub(super) async fn connect(
    service: &Service,
    server: &Server,
    introduction: &Introduction,
    is_wanted: impl Fn() -> bool,
) -> Result<Stream, (&'static str, io::Error)> {
    let settings = &service.transport.settings;
    let by = settings.dial_timeout.map(|limit| Instant::now() + limit);
    let reach = reach(service, server, introduction, by);
    let tcp = while_wanted(reach, by, &is_wanted).await.map_err(|error| ("connect", error))?;
    if !server.tls {
        return Ok(Stream::Plain(tcp));
    }
    let broken = |error: io::Error| ("tls", error);
    let config = service.transport.tls().map_err(|reason| broken(io::Error::other(reason.to_owned())))?;
    let name = settings.tls.server_name.as_ref().unwrap_or(&server.host);
    let name = ServerName::try_from(name.clone()).map_err(|error| broken(io::Error::other(error)))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let by = Instant::now() + TLS_HANDSHAKE_TIMEOUT;
    let stream = while_wanted(connector.connect(name, tcp), Some(by), is_wanted).await.map_err(broken)?;
    Ok(Stream::Server(Box::new(stream)))
}

async fn reach(
    service: &Service,
    server: &Server,
    introduction: &Introduction,
    by: Option<Instant>,
) -> io::Result<TcpStream> {
    let settings = &service.transport.settings;
    let mut tcp = match server.socket {
        Some(address) => TcpStream::connect(address).await?,
        None => dial(&server.host, server.port, by).await?,
    };
    tcp.set_nodelay(true)?;
    match settings.dial_keep_alive {
        KeepAlive::Every(every) => {
            // The system counts in seconds.
            let every = every.max(Duration::from_secs(1));
            SockRef::from(&tcp)
                .set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every))?;
        }
        KeepAlive::System => SockRef::from(&tcp).set_keepalive(true)?,
        KeepAlive::Off => {}
    }
    let Introduction { client, local, asks_postgres } = *introduction;
    match service.proxy_protocol {
        Some(ProxyVersion::V1) => tcp.write_all(&proxy_header::v1(client, local)).await?,
        Some(ProxyVersion::V2) => tcp.write_all(&proxy_header::v2(client, local)).await?,
        None => {}
    }
    if asks_postgres {
        tcp.write_all(&POSTGRES_SSL).await?;
        let mut answer = [0];
        let mut stream = Stream::Plain(tcp);
        let count = poll_fn(|cx| stream.poll_read(cx, &mut answer)).await?;
        let Stream::Plain(back) = stream else { return Err(io::ErrorKind::Unsupported.into()) };
        if count == 0 || answer != POSTGRES_YES {
            return Err(io::Error::other("the server does not speak TLS"));
        }
        tcp = back;
    }
    Ok(tcp)
}
