//! Opening a connection to a server: resolve, dial, TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic::Scheme;
use rustls::pki_types::ServerName;
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Endpoint;
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

/// Connects within `dialTimeout`. `http1_only` is for upgrades, which HTTP/2 servers refuse.
pub(crate) async fn connect(endpoint: &Endpoint, http1_only: bool) -> Result<(Stream, Spoken), Failure> {
    let settings = &endpoint.transport.settings;
    let tcp = match settings.dial_timeout {
        Some(timeout) => {
            tokio::time::timeout(timeout, dial(endpoint)).await.unwrap_or_else(|_| Err(timed_out()))
        }
        None => dial(endpoint).await,
    };
    let tcp = tcp.map_err(|error| {
        tracing::debug!(url = %endpoint.url, %error, "cannot connect");
        let cause = match error.kind() {
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ if is_shortage(&error) => Cause::Shortage,
            _ => Cause::Connect,
        };
        Failure::unsent(cause)
    })?;
    match endpoint.scheme {
        Scheme::Http => Ok((Stream::Plain(tcp), Spoken::Http1)),
        Scheme::H2c => Ok((Stream::Plain(tcp), if http1_only { Spoken::Http1 } else { Spoken::Http2 })),
        Scheme::Https => secure(endpoint, tcp, http1_only).await,
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = match endpoint.address {
        Some(address) => TcpStream::connect(address).await?,
        None => {
            let by = endpoint.transport.settings.dial_timeout.map(|timeout| Instant::now() + timeout);
            let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await?;
            dial_first(&found.collect::<Vec<_>>(), by).await?
        }
    };
    stream.set_nodelay(true)?;
    // A server that vanished without a word is noticed even while nothing is said to it.
    socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

/// The first of the addresses that takes a connection. Each gets its share of the time that is left, as by Go's dialler:
/// one that is silent must not use up that of the others.
async fn dial_first(addresses: &[SocketAddr], by: Option<Instant>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = (addresses.len() - tried) as u32;
        let connect = TcpStream::connect(address);
        let connected = match by {
            Some(by) => {
                let share = by.saturating_duration_since(Instant::now()) / left;
                tokio::time::timeout(share, connect).await.unwrap_or_else(|_| Err(timed_out()))
            }
            None => connect.await,
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn secure(endpoint: &Endpoint, tcp: TcpStream, http1_only: bool) -> Result<(Stream, Spoken), Failure> {
    let transport = &endpoint.transport;
    let http1_only = http1_only || transport.settings.disable_http2;
    let config = if http1_only { &transport.tls_http1 } else { &transport.tls_any };
    let name = transport.settings.server_name.as_deref().unwrap_or(&endpoint.host);
    let (Ok(config), Ok(name)) = (config, ServerName::try_from(name.to_owned())) else {
        return Err(Failure::unsent(Cause::Tls));
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, connector.connect(name, tcp)).await {
        Ok(Ok(stream)) => {
            let spoken = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Spoken::Http2,
                _ => Spoken::Http1,
            };
            Ok((Stream::Server(Box::new(stream)), spoken))
        }
        Ok(Err(error)) => {
            tracing::warn!(url = %endpoint.url, %error, "TLS handshake with the server failed");
            let cause = if error.kind() == io::ErrorKind::InvalidData { Cause::Tls } else { Cause::Connect };
            Err(Failure::unsent(cause))
        }
        Err(_) => Err(Failure::unsent(Cause::ConnectTimeout)),
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A full backlog lets handshakes run into nothing, as a firewall does that drops them.
    #[tokio::test]
    async fn a_silent_address_leaves_time_for_the_next() {
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        silent.listen(0).unwrap();
        let silent_at = silent.local_addr().unwrap().as_socket().unwrap();
        let _fills_the_backlog = TcpStream::connect(silent_at).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let by = Instant::now() + Duration::from_secs(1);
        let stream = dial_first(&[silent_at, listener.local_addr().unwrap()], Some(by)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let error =
            dial_first(&[silent_at], Some(Instant::now() + Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
