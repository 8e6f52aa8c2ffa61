//! Origins, clients and a whole proxy on real sockets, for tests only.
//!
//! Everything listens on port 0 of loopback and gives its address back. What judges the proxy shares
//! no code with it: the HTTP/1.1 parser here is its own, strict, and small. Nothing waits for ever:
//! each call that may wait fails after [`PATIENCE`]. As in any test, wrong use panics.

mod certificates;
mod client;
mod eventually;
mod fault;
mod files;
mod h2_client;
mod h3_client;
mod load;
mod message;
mod origin;
mod process;
mod stream;

use std::time::Duration;

pub use certificates::{Authority, Certified};
pub use client::{Client, get};
pub use eventually::{eventually, reserve_address};
pub use fault::Fault;
pub use files::Files;
pub use h2_client::H2Client;
pub use h3_client::{H3Client, H3Stream, collect, quic};
pub use load::{Failure, Load, Report, Running};
pub use message::{Fields, Response};
pub use origin::{Answer, Gate, H2Origin, Origin, Request, Script};
pub use process::VigieProcess;

/// How long any one step of a test may take before it has failed. Chosen: far above what a loaded
/// machine needs, far below what a person waits.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// `future`, or the fault that `what` was waited for in vain.
pub(crate) async fn patiently<T>(
    what: &str,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Timeout(what.to_owned()).into()),
    }
}
