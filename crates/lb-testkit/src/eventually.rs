//! Waiting for a condition instead of sleeping.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
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

/// An address of loopback that was free a moment ago, for programs that cannot bind port 0.
///
/// Another program may take it meanwhile; prefer port 0 wherever it can be read back.
pub fn reserve_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address")
}
