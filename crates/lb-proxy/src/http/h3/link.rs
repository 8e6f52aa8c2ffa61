//! What the tasks of one connection share, and how any of them ends it.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

use super::frame::Code;
use crate::entrypoint::Connection;
use crate::http::streams::Tally;
use crate::worker::Worker;

pub(super) struct Link {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Rc<Connection>,
    pub(super) quic: quinn::Connection,
    pub(super) tally: Rc<Tally>,
    /// A stream has ended, which somebody may wait for.
    pub(super) ended: Notify,
    /// The largest field section that the client takes: RFC 9114 section 4.2.2.
    pub(super) most_section: Cell<u64>,
    failed: Cell<bool>,
}

/// A connection that is to end, with the reason that metrics and logs have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) Code, pub(super) &'static str);

/// The client does not keep to the protocol.
pub(super) fn protocol(code: Code) -> Fault {
    Fault(code, "http3_protocol")
}

impl Link {
    pub(super) fn new(worker: Rc<Worker>, connection: Rc<Connection>, quic: quinn::Connection) -> Self {
        let tally = Rc::new(Tally::new(["http3_rapid_reset", "http3_stalled"]));
        let (ended, most_section) = (Notify::new(), Cell::new(u64::MAX));
        Self { worker, connection, quic, tally, ended, most_section, failed: Cell::new(false) }
    }

    /// Ends the connection, once: RFC 9114 section 8.
    pub(super) fn fail(&self, Fault(code, reason): Fault) {
        if self.failed.replace(true) || self.quic.close_reason().is_some() {
            return;
        }
        self.worker.refused(
            &self.connection,
            reason,
            format_args!("HTTP/3 connection ended by an error: {code:?}"),
        );
        self.quic.close(code.into(), b"");
    }
}
