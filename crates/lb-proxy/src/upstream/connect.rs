//! Opening a connection to a server: resolve, dial, TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic::Scheme;
use rustls::pki_types::ServerName;
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Endpoint;
use super::dial;
use super::failure::{Cause, Failure};
use crate::entrypoint::descriptors::is_shortage;
use crate::stream::Stream;

/// Traefik gives every TLS handshake towards a server this long.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// As Traefik's dialler has it.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(30));

/// What the server agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// Connects within `dialTimeout`, and while the server is wanted. `http1_only` is for upgrades, which HTTP/2 servers
/// refuse.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    http1_only: bool,
    is_wanted: impl Fn() -> bool,
) -> Result<(Stream, Spoken), Failure> {
    let by = endpoint.transport.settings.dial_timeout.map(|timeout| Instant::now() + timeout);
    let tcp = dial::while_wanted(reach(endpoint, by), by, &is_wanted).await.map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ if is_shortage(&error) => {
                tracing::debug!(url = %endpoint.url, %error, "no descriptor for a connection");
                return Failure::unsent(Cause::Shortage);
            }
            _ => Cause::Connect,
        };
        tell(endpoint, "the server cannot be reached", &error);
        Failure::unsent(cause)
    })?;
    match endpoint.scheme {
        Scheme::Http => Ok((Stream::Plain(tcp), Spoken::Http1)),
        Scheme::H2c => Ok((Stream::Plain(tcp), if http1_only { Spoken::Http1 } else { Spoken::Http2 })),
        Scheme::Https => secure(endpoint, tcp, http1_only, is_wanted).await,
    }
}

fn tell(endpoint: &Endpoint, what: &str, error: &io::Error) {
    if let Some(tries) = endpoint.unconnected.count(Instant::now().into_std()) {
        tracing::warn!(url = %endpoint.url, %error, tries, "{what}");
    }
}

async fn reach(endpoint: &Endpoint, by: Option<Instant>) -> io::Result<TcpStream> {
    let stream = match endpoint.address {
        Some(address) => TcpStream::connect(address).await?,
        None => dial::dial(&endpoint.host, endpoint.port, by).await?,
    };
    stream.set_nodelay(true)?;
    // A server that vanished without a word is noticed even while nothing is said to it.
    socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

async fn secure(
    endpoint: &Endpoint,
    tcp: TcpStream,
    http1_only: bool,
    is_wanted: impl Fn() -> bool,
) -> Result<(Stream, Spoken), Failure> {
    let transport = &endpoint.transport;
    let http1_only = http1_only || transport.settings.disable_http2;
    let config = if http1_only { &transport.tls_http1 } else { &transport.tls_any };
    let name = transport.settings.server_name.as_deref().unwrap_or(&endpoint.host);
    let (Ok(config), Ok(name)) = (config, ServerName::try_from(name.to_owned())) else {
        return Err(Failure::unsent(Cause::Tls));
    };
    let handshake = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp);
    let by = Instant::now() + TLS_HANDSHAKE_TIMEOUT;
    let stream = dial::while_wanted(handshake, Some(by), is_wanted).await.map_err(|error| {
        tell(endpoint, "TLS handshake with the server failed", &error);
        Failure::unsent(match error.kind() {
            io::ErrorKind::InvalidData => Cause::Tls,
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ => Cause::Connect,
        })
    })?;
    let spoken = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Spoken::Http2,
        _ => Spoken::Http1,
    };
    Ok((Stream::Server(Box::new(stream)), spoken))
}
