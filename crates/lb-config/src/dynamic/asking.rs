//! Middlewares that ask another server: `forwardAuth`, `errors`.

use super::{Server, ServersTransport};

/// Header names as written; compared whatever their case.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardAuth {
    /// As written, for the API.
    pub address: String,
    pub server: Server,
    /// Path and query of the address.
    pub target: String,
    /// With the middleware's `tls`.
    pub transport: ServersTransport,
    pub trust_forward_header: Option<bool>,
    pub auth_response_headers: Vec<String>,
    /// Compiled and checked when read; kept as text so that two configurations compare.
    pub auth_response_headers_regex: Option<String>,
    /// Empty: all.
    pub auth_request_headers: Vec<String>,
    /// Cookie names.
    pub add_auth_cookies_to_response: Vec<String>,
    pub header_field: Option<String>,
    pub forward_body: bool,
    /// Always a bound, also where Traefik has none.
    pub max_body_bytes: usize,
    pub max_response_body_bytes: usize,
    /// Whether the two bounds were written, for the API.
    pub bounds_written: (bool, bool),
    pub preserve_location_header: bool,
    pub preserve_request_method: bool,
    pub auth_signin_url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// Inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// In the order of the file; the first that fits counts.
    pub status_rewrites: Vec<((u16, u16), u16)>,
    /// Qualified.
    pub service: String,
    pub query: String,
    /// `None`: all.
    pub error_request_headers: Option<Vec<String>>,
}
