//! TLS on both sides: which certificate and options a client gets, and how servers are verified.
//!
//! Everything is built with the snapshot and shared by all workers; what has not changed keeps its identity over a
//! reload, so sessions stay resumable. The module opens no socket.

pub(crate) mod algorithms;
pub(crate) mod certificates;
pub(crate) mod client;
mod client_auth;
mod ocsp;
pub(crate) mod server;
pub(crate) mod staples;
mod ticket_keys;
mod tickets;

pub(crate) use certificates::subject;
pub(crate) use client::client_config;
pub use client::client_tls;
pub(crate) use client_auth::Proof;
pub use ticket_keys::TicketKey;
pub use tickets::{take_over_ticket_keys, ticket_keys};

pub(crate) use server::{PROTOCOL_VERSION, TlsProfile, TlsTable, UNRECOGNIZED_NAME, config_for_suites};

#[cfg(test)]
pub(crate) mod testing;
