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
    /// `None`: the request keeps to the version of its service that it has.
    pub(crate) renewed: Option<&'r Renewed>,
}

/// Services as reloads have them that came while the request waited for their room, or was on servers that failed: one, or
/// more where a retry led to another one, or there were several reloads.
#[derive(Default)]
pub(crate) struct Renewed(OnceCell<Box<Renewal>>);

struct Renewal {
    /// Name of the service that had been asked.
    instead_of: Arc<str>,
    service: Arc<Service>,
    more: Renewed,
}

impl Renewed {
    /// The last version of this service, or of the one that has its place.
    pub(crate) fn get(&self, name: &str) -> Option<&Service> {
        let Renewal { instead_of, service, more } = &**self.0.get()?;
        match **instead_of == *name {
            true => more.get(&service.name).or(Some(service)),
            false => more.get(name),
        }
    }

    pub(crate) fn put(&self, before: &Service, newer: Arc<Service>) -> &Service {
        match self.0.get() {
            Some(known) => known.more.put(before, newer),
            None => {
                let instead_of = Arc::clone(&before.name);
                let renewal = || Box::new(Renewal { instead_of, service: newer, more: Self::default() });
                &self.0.get_or_init(renewal).service
            }
        }
    }
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
