//! Dials a server by address or name, as Go does: requests reach what Traefik would reach, and as soon.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::resolve::resolve;

/// The other family of addresses is tried as well after this long: Go's, and RFC 8305 section 5 allows it.
const FALLBACK_DELAY: Duration = Duration::from_millis(300);

/// How often a dial that does not get on asks whether its server is still wanted; chosen.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What `reach` brings within `by`, and while the server is wanted: a host that has gone without a word is asked again
/// and again by TCP, and once probes or a reload have taken the server out nobody has to wait for it.
pub(crate) async fn while_wanted<T>(
    reach: impl Future<Output = io::Result<T>>,
    by: Option<Instant>,
    is_wanted: impl Fn() -> bool,
) -> io::Result<T> {
    let mut reach = pin!(reach);
    loop {
        let look = Instant::now() + LOOK_AGAIN;
        match timeout_at(by.map_or(look, |by| by.min(look)), reach.as_mut()).await {
            Ok(reached) => return reached,
            Err(_) if is_wanted() && by.is_none_or(|by| Instant::now() < by) => {}
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Connects to one of the addresses of `host`. `by` only divides the time among them; the caller keeps it.
///
/// # Errors
/// The name has no address, or why none of them takes a connection.
pub async fn dial(host: &str, port: u16, by: Option<Instant>) -> io::Result<TcpStream> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return TcpStream::connect((address, port)).await;
    }
    let addresses = resolve(host, port).await?;
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    either(&first, &others, by).await
}

/// One of `first`, or of `others` when those take their time: IPv6 that leads nowhere is common.
async fn either(first: &[SocketAddr], others: &[SocketAddr], by: Option<Instant>) -> io::Result<TcpStream> {
    let mut wanted = pin!(in_turn(first, by));
    if others.is_empty() {
        return wanted.await;
    }
    match timeout(FALLBACK_DELAY, &mut wanted).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => return in_turn(others, by).await.map_err(|_| error),
        Err(_) => {}
    }
    let mut fallback = pin!(in_turn(others, by));
    tokio::select! {
        done = &mut wanted => match done {
            Ok(stream) => Ok(stream),
            Err(error) => fallback.await.map_err(|_| error),
        },
        done = &mut fallback => match done {
            Ok(stream) => Ok(stream),
            Err(_) => wanted.await,
        },
    }
}

/// The first of the addresses that takes a connection. Each gets its share of the time that is left, as by Go's dialler:
/// one that is silent must not use up that of the others.
async fn in_turn(addresses: &[SocketAddr], by: Option<Instant>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = (addresses.len() - tried) as u32;
        let connect = TcpStream::connect(address);
        let connected = match by {
            Some(by) => {
                let share = by.saturating_duration_since(Instant::now()) / left;
                timeout(share, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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

#[cfg(test)]
pub(super) mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    pub(crate) async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A full backlog lets handshakes run into nothing, as a firewall does that drops them.
    async fn silent() -> (SocketAddr, Socket, TcpStream) {
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let fills_the_backlog = TcpStream::connect(address).await.unwrap();
        (address, silent, fills_the_backlog)
    }

    #[tokio::test]
    async fn a_silent_address_leaves_time_for_the_next() {
        let (silent_at, ..) = &silent().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let by = Instant::now() + Duration::from_secs(1);
        let stream = in_turn(&[*silent_at, listener.local_addr().unwrap()], Some(by)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let error =
            in_turn(&[*silent_at], Some(Instant::now() + Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_other_family_is_tried_when_the_first_takes_its_time_or_fails() {
        let (silent_at, ..) = &silent().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let by = Some(Instant::now() + Duration::from_secs(30));
        for (first, others) in [(*silent_at, open), (refusing, open), (open, *silent_at)] {
            let began = Instant::now();
            let stream = either(&[first], &[others], by).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), open);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
        assert!(either(&[refusing], &[refusing], by).await.is_err());
    }

    #[tokio::test]
    async fn names_and_addresses_are_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", "127.0.0.1"] {
            dial(host, port, None).await.unwrap();
        }
        assert!(dial("nobody.invalid", port, None).await.is_err());
    }
}
