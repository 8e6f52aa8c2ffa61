//! What leaves the process as OTLP: messages of OpenTelemetry in Protocol Buffers, and where they wait to be sent.
//!
//! Knows no sockets: whoever sends them takes them from a [`Queue`].

mod queue;
pub(crate) mod wire;

pub use queue::Queue;

/// One attribute value of a resource, in the order of [`resource`].
pub enum Value<'a> {
    Text(&'a str),
    Int(i64),
}

/// A resource: what all telemetry of this process has in common.
pub fn resource<'a>(attributes: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attributes {
        match value {
            Value::Text(text) => wire::text_attribute(&mut out, 1, key, text.as_bytes()),
            Value::Int(number) => wire::int_attribute(&mut out, 1, key, number),
        }
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

/// The field of spans, of records and of metrics in their scope.
pub(crate) const ITEM: u32 = 2;
