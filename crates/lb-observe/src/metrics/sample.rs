//! What one request adds to the metrics.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::label::{LabelId, Snapshot};

/// One finished request. Nothing in it comes from the client as text: every label stays bounded. Only `headerLabels` let
/// clients choose values, and those are bounded in number.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// `None`: a copy for a mirror, which no client has sent.
    pub entry_point: Option<LabelId>,
    /// `None`: no router matched.
    pub router: Option<LabelId>,
    /// The router's service; `None`: no router matched, or it has none that counts.
    pub service: Option<LabelId>,
    /// False: a middleware answered. Such a request counts for the router, not for the service.
    pub reached_service: bool,
    /// The server that answered last; `None`: no server was reached.
    pub server: Option<LabelId>,
    pub method: Method,
    pub protocol: Protocol,
    /// Status that the client got.
    pub status: u16,
    /// For gRPC: `Grpc-Status`, and `Some(2)` (unknown) when the server sent none.
    pub grpc_status: Option<u8>,
    /// From [`super::Metrics::tls`], `None` without TLS.
    pub tls: Option<LabelId>,
    /// From [`super::Metrics::headers`].
    pub headers: Option<LabelId>,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The part spent in the service, retries included; counted only if it was reached.
    pub service_duration: Duration,
    /// Body bytes as the client sent and received them.
    pub request_bytes: u64,
    pub response_bytes: u64,
}

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

labelled! {
    /// A method as metrics name it: Traefik's list, anything else is one value.
    Method {
        Get => "GET", Head => "HEAD", Post => "POST", Put => "PUT", Patch => "PATCH", Delete => "DELETE",
        Connect => "CONNECT", Options => "OPTIONS", Trace => "TRACE", Pri => "PRI",
        Extension => "EXTENSION_METHOD",
    }
}

labelled! {
    /// How client and server talk, as Traefik's `protocol` label says it.
    Protocol {
        Http => "http", WebSocket => "websocket", Sse => "sse", Grpc => "grpc", GrpcWeb => "grpc-web",
    }
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 section 9.1).
    pub fn of(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PRI" => Self::Pri,
            _ => Self::Extension,
        }
    }
}

/// What distinguishes two series; everything that the scrape shows is an aggregate over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) entry_point: Option<LabelId>,
    pub(super) router: Option<LabelId>,
    pub(super) service: Option<LabelId>,
    pub(super) reached_service: bool,
    pub(super) server: Option<LabelId>,
    pub(super) tls: Option<LabelId>,
    pub(super) headers: Option<LabelId>,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u8>,
    pub(super) method: Method,
    pub(super) protocol: Protocol,
}

impl Key {
    pub(super) fn of(sample: &Sample) -> Self {
        Self {
            entry_point: sample.entry_point,
            router: sample.router,
            service: sample.service,
            reached_service: sample.reached_service,
            server: sample.server,
            tls: sample.tls,
            headers: sample.headers,
            status: sample.status,
            // gRPC defines 0 to 16; a server must not be able to open 255 series with more.
            grpc_status: sample.grpc_status.map(|code| if code > 16 { 2 } else { code }),
            method: sample.method,
            protocol: sample.protocol,
        }
    }

    /// The same request without the labels that are dead, so that no aggregate ever decreases.
    pub(super) fn left(self, labels: &Snapshot) -> Self {
        let left = |id: Option<LabelId>| id.and_then(|id| labels.heir(id));
        Self { router: left(self.router), service: left(self.service), server: left(self.server), ..self }
    }

    /// Traefik's `code`: the gRPC status where there is one.
    pub(super) fn code(self) -> u16 {
        self.grpc_status.map_or(self.status, u16::from)
    }
}

impl Hash for Key {
    /// Three words instead of eleven fields: this runs for each request.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let small = u64::from(self.status) << 24
            | u64::from(self.grpc_status.unwrap_or(u8::MAX)) << 16
            | (self.method as u64) << 8
            | u64::from(self.reached_service) << 7
            | self.protocol as u64;
        state.write_u64(LabelId::bits(self.entry_point) << 32 | LabelId::bits(self.router));
        state.write_u64(LabelId::bits(self.service) << 32 | LabelId::bits(self.server));
        let texts = LabelId::bits(self.tls).rotate_right(24) ^ LabelId::bits(self.headers).rotate_left(33);
        state.write_u64(texts ^ small);
    }
}
