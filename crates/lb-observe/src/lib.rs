//! What operators see: metrics, the access log, diagnostics.
//!
//! Knows no sockets. The data plane records, a scrape or a writer thread does the rest: nothing here
//! makes a request wait for a disk or for a reader.

pub mod access_log;
pub mod diagnostics;
pub mod metrics;
pub mod otlp;
pub mod trace;

mod civil;
mod sink;
mod text;

pub use civil::rfc3339;
