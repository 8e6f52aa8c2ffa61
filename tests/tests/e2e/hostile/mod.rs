//! Against hostile bytes: whatever arrives, nothing gets through that two parsers could read differently,
//! and nobody else notices.

mod answers;
mod connections;
mod floods;
mod frames;
mod framing;
mod http3;
mod leftovers;
mod memory;
mod slow;
mod streams;
mod tls;
mod trust;

use std::net::SocketAddr;

use lb_testkit::Client;

/// What comes back for `bytes` until the connection is closed.
async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> anyhow::Result<String> {
    let mut client = Client::connect(address).await?;
    client.send(bytes).await?;
    Ok(String::from_utf8_lossy(&client.rest().await?).into_owned())
}

/// Status of each answer in `text`, whose bodies hold no status lines.
fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}
