//! The data plane: entry points, TLS, HTTP, middlewares, upstream connections.
//!
//! One single-threaded runtime per worker, each with its own listening sockets, buffers and upstream
//! connections; nothing on a request's way takes a contended lock. What is served is a [`Snapshot`],
//! compiled by [`Publisher::publish`] and replaced as a whole.

mod buffers;
mod composite;
mod deadline;
mod entrypoint;
mod exchange;
mod forward;
mod http;
mod l4;
mod lasting;
mod middleware;
mod passage;
mod proxy;
mod pump;
mod report;
mod snapshot;
mod stream;
mod tcp;
mod tls;
mod udp;
mod upstream;
mod worker;

pub use entrypoint::Validations;
pub use entrypoint::inherit::Inherited;
pub use entrypoint::quic::Datagrams;
pub use http::alias::{Alias, Aliases};
pub use proxy::{BindError, Compiled, Proxy, Publisher, Settings, check};
pub use snapshot::{Failure, Internal, Snapshot};
pub use tls::{TicketKey, client_tls, take_over_ticket_keys, ticket_keys};
/// OCSP responses, for whoever fetches them.
pub mod ocsp {
    pub use crate::tls::staples::{Certificate, OcspError, Stapling, served};
}
pub use upstream::dial;
pub use worker::{InternalRequest, InternalResponse, Internals};
