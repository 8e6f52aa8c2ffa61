//! A receiver of OTLP that keeps what it gets, decoded by somebody else's code.

use std::collections::BTreeMap;
use std::io::Read as _;

use lb_testkit::{Answer, H2Origin, Origin, PATIENCE, Request, Script, eventually};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

pub(crate) enum Collector {
    Http(Origin),
    Grpc(H2Origin),
}

impl Collector {
    pub(crate) async fn http() -> Self {
        Self::Http(Origin::with("collector", |_| Script::text("")).await)
    }

    pub(crate) async fn grpc() -> Self {
        Self::Grpc(H2Origin::start("collector", taken).await)
    }

    /// The `otlp` that leads here; `more` are further keys.
    pub(crate) fn otlp(&self, more: &str) -> String {
        match self {
            Self::Http(origin) => format!("otlp: {{http: {{endpoint: '{}'{more}}}}}", origin.url()),
            Self::Grpc(origin) => {
                format!("otlp: {{grpc: {{endpoint: '{}', insecure: true{more}}}}}", origin.address())
            }
        }
    }

    /// The same for one that speaks TLS, with these keys of `tls`.
    pub(crate) fn over_tls(&self, tls: &str) -> String {
        match self {
            Self::Http(origin) => format!("otlp: {{http: {{endpoint: '{}', tls: {{{tls}}}}}}}", origin.url()),
            Self::Grpc(origin) => {
                format!("otlp: {{grpc: {{endpoint: '{}', tls: {{{tls}}}}}}}", origin.address())
            }
        }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        match self {
            Self::Http(origin) => origin.seen(),
            Self::Grpc(origin) => origin.seen(),
        }
    }

    /// The messages for `path`.
    fn messages(&self, path: &str) -> Vec<Vec<u8>> {
        // The body comes after the head.
        let mine = |request: &Request| request.path() == path && !request.body.is_empty();
        let body = |request: Request| match self {
            Self::Http(_) => {
                assert_eq!(request.get("content-encoding"), Some("gzip"));
                unpacked(&request.body)
            }
            Self::Grpc(_) => {
                assert_eq!(request.get("grpc-encoding"), Some("gzip"));
                let (head, message) = request.body.split_at(5);
                assert_eq!(head, [&[1][..], &(message.len() as u32).to_be_bytes()].concat());
                unpacked(message)
            }
        };
        self.requests().into_iter().filter(mine).map(body).collect()
    }

    /// Every record of a log so far.
    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        let path = match self {
            Self::Http(_) => "/v1/logs",
            Self::Grpc(_) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        };
        let messages = self.messages(path).into_iter();
        let requests =
            messages.map(|message| ExportLogsServiceRequest::decode(&message[..]).expect("records"));
        let resources = requests.flat_map(|request| request.resource_logs);
        resources.flat_map(|of| of.scope_logs).flat_map(|scope| scope.log_records).collect()
    }

    /// Every metric so far with its resource.
    pub(crate) fn metrics(&self) -> Vec<(Metric, BTreeMap<String, String>)> {
        let path = match self {
            Self::Http(_) => "/v1/metrics",
            Self::Grpc(_) => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        };
        let mut seen = Vec::new();
        for message in self.messages(path) {
            let request = ExportMetricsServiceRequest::decode(&message[..]).expect("metrics");
            for of_resource in request.resource_metrics {
                let resource = attributes(&of_resource.resource.expect("a resource").attributes);
                let scopes = of_resource.scope_metrics.into_iter();
                seen.extend(scopes.flat_map(|scope| scope.metrics).map(|metric| (metric, resource.clone())));
            }
        }
        seen
    }

    /// Every span so far with its resource.
    pub(crate) fn traces(&self) -> Vec<Seen> {
        let path = match self {
            Self::Http(_) => "/v1/traces",
            Self::Grpc(_) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        };
        let mut seen = Vec::new();
        for message in self.messages(path) {
            let request = ExportTraceServiceRequest::decode(&message[..]).expect("spans");
            for of_resource in request.resource_spans {
                let resource = attributes(&of_resource.resource.expect("a resource").attributes);
                for of_scope in of_resource.scope_spans {
                    assert_eq!(of_scope.scope.expect("a scope").name, "vigie");
                    let each = of_scope.spans.into_iter();
                    seen.extend(each.map(|span| Seen {
                        attributes: attributes(&span.attributes),
                        resource: resource.clone(),
                        span,
                    }));
                }
            }
        }
        seen
    }

    /// The spans of the request for `path`, the first one to begin first, when there are `count`.
    pub(crate) async fn spans(&self, path: &str, count: usize) -> Vec<Seen> {
        let mut found = Vec::new();
        let arrived = eventually(PATIENCE, async || {
            let all = self.traces();
            let of = |seen: &Seen| seen.attributes.get("url.path").is_some_and(|value| value == path);
            let trace = all.iter().find(|seen| of(seen)).map(|seen| seen.span.trace_id.clone());
            found = all.into_iter().filter(|seen| Some(&seen.span.trace_id) == trace.as_ref()).collect();
            found.len() == count
        });
        assert!(arrived.await, "not {count} spans of {path}: {found:#?}");
        // Those that began together are within one another, and ended in that order.
        found.reverse();
        found.sort_by_key(|seen| seen.span.start_time_unix_nano);
        found
    }
}

fn unpacked(message: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(message).read_to_end(&mut plain).expect("gzip");
    plain
}

/// How a receiver of gRPC says that it has taken all.
pub(crate) fn taken(_: &Request) -> Answer {
    accepted(b"")
}

/// The same with this answer.
pub(crate) fn accepted(message: &[u8]) -> Answer {
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    Answer {
        fields: vec![("content-type".to_owned(), "application/grpc".to_owned())],
        parts: vec![body.into()],
        trailers: vec![("grpc-status".to_owned(), "0".to_owned())],
        ..Answer::text("")
    }
}

/// One span with what was said around it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) span: Span,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) resource: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each key once; lists joined with `,`.
pub(crate) fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let before = map.insert(pair.key.clone(), shown(pair.value.as_ref()));
        assert_eq!(before, None, "{} twice", pair.key);
    }
    map
}

fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::ArrayValue(list)) => {
            list.values.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(",")
        }
        other => panic!("unexpected value {other:?}"),
    }
}
