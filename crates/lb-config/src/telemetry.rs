//! Telemetry that leaves the process: where to, and what of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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

/// Where metrics go beside `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct MetricExports {
    /// Requests to Vigie's own services are counted as well.
    pub add_internals: bool,
    pub otlp: Option<OtlpMetrics>,
    pub statsd: Option<Datagrams>,
    pub datadog: Option<Datagrams>,
    pub influxdb: Option<Influx>,
}

/// `metrics.statsD` and `metrics.datadog`.
#[derive(Clone, Debug)]
pub struct Datagrams {
    pub to: DatagramAddress,
    pub prefix: String,
    pub push: Push,
}

/// Who takes the lines of StatsD and Datadog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramAddress {
    Udp {
        /// Without brackets.
        host: String,
        port: u16,
    },
    /// A socket in the file system, of which `None` may be either kind.
    Unix { path: PathBuf, kind: Option<UnixKind> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixKind {
    Datagram,
    Stream,
}

/// `metrics.influxDB2`.
#[derive(Clone, Debug)]
pub struct Influx {
    /// Where and how: its path has organisation and bucket, its fields the token.
    pub receiver: Otlp,
    pub labels: BTreeMap<String, String>,
    pub push: Push,
}

/// `metrics.otlp`.
#[derive(Clone, Debug)]
pub struct OtlpMetrics {
    pub service_name: String,
    pub resource_attributes: BTreeMap<String, String>,
    pub push: Push,
    /// Upper bounds in seconds, ascending.
    pub boundaries: Vec<f64>,
    pub otlp: Otlp,
}

/// `otlp` of `log` and `accessLog`.
#[derive(Clone, Debug)]
pub struct OtlpLogs {
    pub service_name: String,
    pub resource_attributes: BTreeMap<String, String>,
    pub otlp: Otlp,
}

/// What every exporter of metrics has.
#[derive(Clone, Debug)]
pub struct Push {
    pub interval: Duration,
    pub entry_points: bool,
    pub routers: bool,
    pub services: bool,
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
