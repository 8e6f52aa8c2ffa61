//! HTTP/1.1 as bytes and decisions, without I/O: strict heads, framing, chunked.
//!
//! The crate turns bytes into a [`Head`] and back, says how long a body is ([`Framing`]), undoes the
//! chunked coding ([`ChunkedDecoder`]) and knows the fields that belong to one connection only
//! ([`remove_hop_by_hop`]). It neither reads nor writes sockets and keeps no time: the caller does.
//!
//! What two parsers could read differently is refused, never repaired (RFC 9112 section 11.2).

mod chars;
mod chunked;
mod connection;
mod field;
mod framing;
mod head;
mod lines;
mod parse;
mod reason;
mod target;
mod write;

pub use chars::{is_field_value, is_token};
pub use chunked::{Chunk, ChunkError, ChunkedDecoder, is_allowed_trailer};
pub use connection::{
    connection_tokens, expects_continue, keep_alive, keep_alive_timeout, list, remove_hop_by_hop,
    wants_upgrade,
};
pub use field::FieldName;
pub use framing::{Framing, FramingError, request_framing, response_framing};
pub use head::{Head, Version};
pub use parse::{HeadError, Limits, Parsed, parse_request, parse_response, validate_request};
pub use reason::standard_reason;
pub use target::{is_authority, is_target};
pub use write::{write_chunk_start, write_last_chunk, write_request, write_response};
