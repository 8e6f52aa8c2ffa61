//! What leaves the process as OTLP: messages of OpenTelemetry in Protocol Buffers, and where they wait to be sent.
//!
//! Knows no sockets: whoever sends them takes them from a [`Queue`].

mod metrics;
mod queue;
pub(crate) mod wire;

use crate::trace;

pub(crate) use metrics::metrics;
pub use queue::{Queue, split};

/// The value of an attribute.
#[derive(Debug)]
pub enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Float(f64),
}

/// A resource: what all telemetry of this process has in common.
pub fn resource<'a>(attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attributes {
        attribute(&mut out, 1, key, &value);
    }
    out
}

/// A request to export `items`, spans, metrics or records of a log, each already a field of its own: the three have one
/// shape, request { resource { .. }, scope { name, items } }.
pub fn request(resource: &[u8], scope: &str, items: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    wire::bytes(&mut head, 1, resource);
    let mut scope_head = Vec::new();
    wire::message(&mut scope_head, 1, |out| wire::bytes(out, 1, scope.as_bytes()));
    wire::begin(&mut head, 2, scope_head.len() + items.len());
    head.extend_from_slice(&scope_head);
    let mut out = Vec::with_capacity(head.len() + items.len() + 16);
    wire::begin(&mut out, 1, head.len() + items.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(items);
    out
}

/// What a receiver says it has refused of what it took.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    pub count: u64,
    /// Cut short: it goes into a line of the log.
    pub reason: String,
}

/// What the answer to a request says, which has one shape for all signals: answer { partial { count, reason } }. `None`
/// where all was taken, or where nothing of it can be understood.
pub fn rejected(answer: &[u8]) -> Option<Rejected> {
    const LONGEST: usize = 200;
    let partial = wire::fields(answer).find_map(|(field, value)| match value {
        wire::Field::Bytes(bytes) if field == 1 => Some(bytes),
        _ => None,
    })?;
    let mut rejected = Rejected { count: 0, reason: String::new() };
    for (field, value) in wire::fields(partial) {
        match (field, value) {
            // A signed number in the specification.
            (1, wire::Field::Number(count)) => rejected.count = count.cast_signed().max(0).cast_unsigned(),
            (2, wire::Field::Bytes(text)) => {
                rejected.reason = String::from_utf8_lossy(text).chars().take(LONGEST).collect();
            }
            _ => {}
        }
    }
    (rejected.count > 0 || !rejected.reason.is_empty()).then_some(rejected)
}

/// One line of a log: an object in JSON.
#[derive(Debug)]
pub struct Line<'a> {
    /// Nanoseconds since 1970.
    pub at: u64,
    pub json: &'a [u8],
}

/// The lines that [`Queue::put_line`] has put into a batch.
pub fn lines(batch: &[u8]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut rest = batch;
    while !rest.is_empty() {
        let (item, behind) = rest.split_at(wire::first_end(rest));
        rest = behind;
        let content = wire::content(item);
        if let Some((at, json)) = content.split_first_chunk() {
            lines.push(Line { at: u64::from_le_bytes(*at), json });
        }
    }
    lines
}

/// One record of a log.
#[derive(Debug)]
pub struct Record<'a> {
    pub at: u64,
    /// OpenTelemetry's severity numbers: 1 trace, 5 debug, 9 info, 13 warn, 17 error.
    pub severity: u8,
    pub severity_text: &'a str,
    pub body: &'a str,
    pub attributes: Vec<(&'a str, Value<'a>)>,
    /// Ids in hexadecimal of the trace and the span that it belongs to.
    pub trace: Option<(&'a str, &'a str)>,
}

/// Appends a record as a field of its own.
pub fn record(out: &mut Vec<u8>, record: &Record<'_>) {
    wire::message(out, ITEM, |out| {
        wire::fixed64(out, 1, record.at);
        wire::uint(out, 2, u64::from(record.severity));
        wire::bytes(out, 3, record.severity_text.as_bytes());
        wire::message(out, 5, |out| wire::bytes(out, 1, record.body.as_bytes()));
        record.attributes.iter().for_each(|(key, value)| attribute(out, 6, key, value));
        if let Some((trace, span)) = record.trace.and_then(|(trace, span)| trace::ids(trace, span)) {
            wire::bytes(out, 9, &trace);
            wire::bytes(out, 10, &span);
        }
        wire::fixed64(out, 11, record.at);
    });
}

fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &Value<'_>) {
    match value {
        Value::Text(text) => wire::text_attribute(out, field, key, text.as_bytes()),
        Value::Int(number) => wire::int_attribute(out, field, key, *number),
        Value::Float(number) => wire::double_attribute(out, field, key, *number),
    }
}

/// The field of spans, of records and of metrics in their scope.
pub(crate) const ITEM: u32 = 2;
