//! The spans of one request, open ones and those that have ended.

use super::context::{Context, SpanId};
use super::propagation::Received;
use crate::otlp::{ITEM, wire};

/// Who a span is about. The numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// A span that has not ended.
#[derive(Debug)]
pub struct Span {
    id: SpanId,
    parent: Option<SpanId>,
    kind: Kind,
    name: String,
    start: u64,
    failed: bool,
    /// Why; empty where nothing is to be said.
    reason: &'static str,
    /// Encoded.
    attributes: Vec<u8>,
}

/// One request as a trace: spans within spans.
#[derive(Debug)]
pub struct Trace {
    root: Context,
    received: Option<Received>,
    /// `received` is from Vigie itself.
    is_part: bool,
    /// Each one within that before it.
    open: Vec<Span>,
    ended: Vec<u8>,
    count: u64,
}

/// The field of attributes in a span.
const ATTRIBUTE: u32 = 9;
/// In `flags` of a span: whether its parent is remote is known, and that it is.
const KNOWN_REMOTE: u32 = 0x100;
const REMOTE: u32 = 0x200;

impl Trace {
    pub(super) fn new(root: Context, received: Option<Received>) -> Self {
        Self { root, received, is_part: false, open: Vec::new(), ended: Vec::new(), count: 0 }
    }

    /// For what goes on beside it: its spans are within the last one that is open here.
    pub fn beside(&self) -> Self {
        let around = match (self.open.last(), &self.received) {
            (Some(span), _) => span.id,
            (None, Some(received)) => received.context.span,
            (None, None) => self.root.span,
        };
        let context = Context { span: around, ..self.root };
        let received = Received { context, state: self.state().into() };
        Self { is_part: true, ..Self::new(context, Some(received)) }
    }

    /// Of the request's own span.
    pub fn context(&self) -> Context {
        self.root
    }

    /// Whether spans are wanted. All else does nothing otherwise.
    pub fn is_sampled(&self) -> bool {
        self.root.is_sampled()
    }

    pub(super) fn state(&self) -> &str {
        self.received.as_ref().map_or("", |received| &received.state)
    }

    /// How many spans are open; see [`close_to`](Self::close_to).
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Begins a span within the last one that is open, at `start`, in nanoseconds since 1970.
    pub fn open(&mut self, id: SpanId, kind: Kind, name: &str, start: u64) -> &mut Span {
        let parent = match self.open.last() {
            Some(span) => Some(span.id),
            None => self.received.as_ref().map(|received| received.context.span),
        };
        let attributes = Vec::with_capacity(512);
        let name = name.to_owned();
        self.open.push_mut(Span { id, parent, kind, name, start, failed: false, reason: "", attributes })
    }

    /// The request's own span, as long as it is open.
    pub fn root(&mut self) -> Option<&mut Span> {
        self.open.first_mut()
    }

    /// The last one that is open.
    pub fn last(&mut self) -> Option<&mut Span> {
        self.open.last_mut()
    }

    /// Ends open spans, the last one first, until `depth` are left.
    pub fn close_to(&mut self, depth: usize, end: u64) {
        while self.open.len() > depth {
            let Some(span) = self.open.pop() else { return };
            let is_root = self.open.is_empty();
            let remote = if is_root && self.received.is_some() && !self.is_part { REMOTE } else { 0 };
            let flags = u32::from(self.root.known_flags()) | KNOWN_REMOTE | remote;
            let (trace, state) = (self.root.trace, self.received.as_ref().map_or("", |r| &r.state));
            wire::message(&mut self.ended, ITEM, |out| {
                wire::bytes(out, 1, &trace.0);
                wire::bytes(out, 2, &span.id.0);
                if !state.is_empty() {
                    wire::bytes(out, 3, state.as_bytes());
                }
                if let Some(parent) = span.parent {
                    wire::bytes(out, 4, &parent.0);
                }
                wire::bytes(out, 5, span.name.as_bytes());
                wire::uint(out, 6, span.kind as u64);
                wire::fixed64(out, 7, span.start);
                wire::fixed64(out, 8, end.max(span.start));
                out.extend_from_slice(&span.attributes);
                wire::message(out, 15, |out| {
                    if !span.reason.is_empty() {
                        wire::bytes(out, 2, span.reason.as_bytes());
                    }
                    if span.failed {
                        wire::uint(out, 3, 2);
                    }
                });
                wire::fixed32(out, 16, flags);
            });
            self.count += 1;
        }
    }

    /// The spans that have ended, and how many.
    pub(super) fn ended(&self) -> (&[u8], u64) {
        (&self.ended, self.count)
    }
}

impl Span {
    pub fn text(&mut self, key: &str, value: impl AsRef<[u8]>) {
        wire::text_attribute(&mut self.attributes, ATTRIBUTE, key, value.as_ref());
    }

    pub fn int(&mut self, key: &str, value: i64) {
        wire::int_attribute(&mut self.attributes, ATTRIBUTE, key, value);
    }

    pub fn list<'a>(&mut self, key: &str, values: impl Iterator<Item = &'a [u8]>) {
        wire::list_attribute(&mut self.attributes, ATTRIBUTE, key, values);
    }

    /// Marks it as one that went wrong.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    pub fn fail_with(&mut self, reason: &'static str) {
        (self.failed, self.reason) = (true, reason);
    }
}
