//! Entry points: listening sockets, and what happens to a connection before its first request.

pub(crate) mod balancer;
pub(crate) mod descriptors;
pub(crate) mod greet;
pub(crate) mod inherit;
pub(crate) mod listen;
pub(crate) mod proxy_protocol;
pub(crate) mod quic;
pub(crate) mod seats;

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::static_config::EntryPoint;
use lb_observe::metrics::{LabelId, OpenConnection};

use crate::http::forwarded::{ForwardedSettings, Peer};
use crate::http::normalise::Policy;
use crate::http::pace::Least;
use crate::report::Reports;
use crate::tls::Proof;
use crate::upstream::private::Private;
use crate::worker::Slot;

/// One entry point as the workers see it.
pub(crate) struct Entry {
    /// Its place in the static configuration, and in every snapshot.
    pub(crate) index: usize,
    pub(crate) config: EntryPoint,
    pub(crate) label: LabelId,
    pub(crate) policy: Policy,
    pub(crate) forwarded: ForwardedSettings,
    pub(crate) seats: seats::Seats,
    pub(crate) least: Least,
    /// Clients that were refused, and connections ended, for what they sent.
    pub(crate) refused: Reports,
    /// `Alt-Svc` of answers over TLS: where HTTP/3 is spoken.
    pub(crate) alt_svc: Option<Box<str>>,
    /// `None`: no names are validated over TLS here.
    pub(crate) validations: Option<Arc<Validations>>,
}

/// The handshake that an ACME authority expects when it validates the name, if that is under way (RFC 8737).
pub type Validations = dyn Fn(&str) -> Option<Arc<rustls::ServerConfig>> + Send + Sync;

/// One client connection, for as long as it lasts.
pub(crate) struct Connection {
    pub(crate) entry: Arc<Entry>,
    /// The TCP peer, or who the PROXY protocol says it is.
    pub(crate) client: SocketAddr,
    pub(crate) peer: Rc<Peer>,
    /// Its `X-Forwarded-*` are believed.
    pub(crate) trusted: bool,
    pub(crate) tls: Option<TlsInfo>,
    /// Where its worker finds it, if one task does all that it does: HTTP/1.1.
    pub(crate) slot: Option<Slot>,
    /// Counts it as open, if a client did open it.
    pub(crate) _open: Option<OpenConnection>,
    /// Counts against the limits of the entry point.
    pub(crate) _seat: Option<seats::Seat>,
    /// Connections to servers that nobody else may use.
    pub(crate) private: OnceCell<Box<Private>>,
}

/// What the handshake settled.
pub(crate) struct TlsInfo {
    /// Name of the TLS options it was accepted with.
    pub(crate) options: Arc<str>,
    /// What these, as they were then, have made the client show.
    pub(crate) proof: Proof,
    pub(crate) label: LabelId,
    /// `1.2` or `1.3`.
    pub(crate) version: &'static str,
    pub(crate) cipher: String,
    pub(crate) client_subject: Option<String>,
}
