//! Waiting for a condition instead of sleeping.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Polls `condition` until it holds; `false` when `deadline` has passed without.
///
/// ```ignore
/// assert!(eventually(Duration::from_secs(5), async || origin.requests() > 3).await);
/// ```
pub async fn eventually(deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address of loopback for programs that cannot bind port 0, or that come back where they were.
///
/// Its port is below those that Linux gives to clients and to port 0 (32,768 and up unless told otherwise), so nobody
/// takes it while nobody listens; sixteen of them are this process's own before it meets those of another one.
///
/// # Panics
/// When nothing is free.
pub fn reserve_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = 10_000..32_768;
    let first = std::process::id().wrapping_mul(16);
    (0..ports.len())
        .map(|_| {
            let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = ports.start + next % (ports.end - ports.start);
            SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).expect("it is in the range")))
        })
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("loopback has a free port")
}
