//! HTTP/3 from clients (RFC 9114), on the QUIC streams of the quinn crate.
//!
//! The h3 crate is used by the tests only: as a server it keeps heads and unknown frames of any announced length in
//! memory, panics on more than 24,576 fields, repairs heads that RFC 9114 calls malformed, and does not tell that the
//! client wants no answer any more. What a proxy needs of the protocol is small: see docs/adr.

mod control;
mod convert;
mod frame;
mod huffman;
mod link;
mod qpack;
pub(crate) mod serve;
mod static_table;
mod stream;
mod words;

/// `H3_NO_ERROR`: RFC 9114 section 8.1.
pub(crate) const NO_ERROR: u32 = frame::Code::NoError as u32;
