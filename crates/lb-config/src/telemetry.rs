//! Telemetry that leaves the process: where to, and what of it.

use std::collections::BTreeMap;
use std::fmt;

use crate::dynamic::ServersTransport;

/// `tracing`.
#[derive(Clone, Debug)]
pub struct Tracing {
    pub service_name: String,
    pub resource_attributes: BTreeMap<String, String>,
    /// Lower case.
    pub captured_request_headers: Vec<String>,
    pub captured_response_headers: Vec<String>,
    pub safe_query_params: Vec<String>,
    /// From 0 to 1: the share of the requests without a parent that are followed.
    pub sample_rate: f64,
    pub add_internals: bool,
    pub otlp: Otlp,
}

/// One receiver of OTLP.
#[derive(Clone)]
pub struct Otlp {
    pub protocol: OtlpProtocol,
    pub host: String,
    pub port: u16,
    /// How to speak TLS; `None`: in the clear.
    pub tls: Option<ServersTransport>,
    /// More fields of each request, perhaps with a password.
    pub headers: Vec<(String, String)>,
    /// As the file writes it, for messages.
    pub endpoint_text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protocol Buffers as the body of a POST to this path.
    Http {
        path: String,
    },
    Grpc,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.endpoint_text)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}
