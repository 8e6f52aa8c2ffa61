//! One request on its way through the data plane.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_http1::Framing;

use crate::entrypoint::{Connection, Entry};
use crate::exchange::Exchange;
use crate::http::record::Outcome;
use crate::snapshot::Service;
use crate::worker::Worker;

/// All that a request is, handed on as one from step to step; `'r` is its router's.
pub(crate) struct Passage<'a, 'r, D> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) connection: &'a Connection,
    pub(crate) x: &'a mut Exchange,
    /// The client, or what stands in for it.
    pub(crate) down: &'a mut D,
    /// How the end of the request's body is known.
    pub(crate) framing: Framing,
    pub(crate) patience: Patience,
    pub(crate) outcome: &'a mut Outcome<'r>,
    /// The router's service as a reload has it that came while the request waited for room.
    /// `None`: it keeps to the version it has.
    pub(crate) renewed: Option<&'r OnceCell<Arc<Service>>>,
}

/// Limits of the client's side that matter while forwarding.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// When the request's body must have arrived.
    pub(crate) read_by: Option<tokio::time::Instant>,
    /// When the answer must have been sent.
    pub(crate) write_by: Option<tokio::time::Instant>,
}

impl Patience {
    /// What the entry point allows a request whose head came at `started`.
    pub(crate) fn new(entry: &Entry, started: Instant) -> Self {
        let after =
            |timeout: Option<Duration>| started.checked_add(timeout?).map(tokio::time::Instant::from_std);
        Self { read_by: after(entry.config.read_timeout), write_by: after(entry.config.write_timeout) }
    }
}
