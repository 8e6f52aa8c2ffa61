//! QUIC connections of an entry point with `http3`, beside the TCP ones on the same port.
//!
//! One socket and one quinn endpoint for each entry point, on one worker: it reads datagrams and knows by their
//! connection id, never by the address they come from, which connection they are for. So clients may move to another
//! address, and no worker ever gets another's packets, as several sockets on one port would have it. Everything that
//! costs more than reading belongs to the connection and runs on the worker that the balancer chooses: handshake,
//! encryption, sending, requests.

mod accept;
mod bind;
mod hello;
mod port;
mod socket;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Entry;
use crate::worker::Worker;

pub(crate) use accept::{Arriving, Receiver, serve};
pub use port::Datagrams;
pub(crate) use port::{Beginning, Port, beside, share_out};

/// Time for the last packets of connections that are closed. Chosen.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Begins to receive; `acceptors` has who is to be told to stop.
pub(crate) fn start(
    worker: &Rc<Worker>,
    entries: &[Arc<Entry>],
    beginnings: Vec<(usize, Beginning)>,
    acceptors: &mut Vec<(Rc<Notify>, JoinHandle<()>)>,
) -> Vec<Rc<Receiver>> {
    let mut receivers = Vec::new();
    for (entry, beginning) in beginnings {
        match Receiver::new(worker, Arc::clone(&entries[entry]), beginning) {
            Ok(receiver) => {
                let (receiver, stop) = (Rc::new(receiver), Rc::new(Notify::new()));
                let accept = accept::accept(Rc::clone(worker), Rc::clone(&receiver), Rc::clone(&stop));
                acceptors.push((stop, tokio::task::spawn_local(accept)));
                receivers.push(receiver);
            }
            Err(error) => {
                let name = &entries[entry].config.name;
                tracing::error!(entryPointName = %name, %error, "the socket for HTTP/3 cannot be used");
            }
        }
    }
    receivers
}

/// Tells the clients of what is left on this worker that it ends.
pub(crate) async fn end(worker: &Worker, receivers: &[Rc<Receiver>]) {
    if receivers.is_empty() && worker.connections() == 0 {
        return;
    }
    worker.end();
    // Those whose handshake goes on.
    receivers.iter().for_each(|receiver| receiver.close());
    tokio::time::sleep(LAST_WORDS).await;
}
