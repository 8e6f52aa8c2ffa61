//! Requests as traces: what their spans say, and what servers are told of them.
//!
//! While tracing is off a request has no [`Exchange::trace`], and nothing here does more than look for it. The names and attributes are Traefik's, which are those of OpenTelemetry's
//! semantic conventions.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lb_config::dynamic::{Scheme, TraceVerbosity};
use lb_http1::{Framing, Head};
use lb_observe::trace::{Context, Format, Kind, Span, SpanId, Trace, Tracer, redact, unix_nanos};

use super::normalise::split_target;
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::forward::{Answer, Failed};
use crate::middleware::Middleware;
use crate::snapshot::Route;
use crate::upstream::Endpoint;
use crate::upstream::up::Up;
use crate::worker::Worker;

/// The trace of one request.
pub(crate) struct Traced {
    trace: Trace,
    /// When the request began, by both clocks.
    began: (u64, Instant),
    detailed: bool,
    /// How many spans are around that of the service.
    outer: usize,
    /// Whose span is open.
    service: Option<Arc<str>>,
}

impl Traced {
    pub(super) fn context(&self) -> Context {
        self.trace.context()
    }

    fn at(&self, now: Instant) -> u64 {
        let (wall, began) = self.began;
        let passed = now.saturating_duration_since(began).as_nanos();
        wall.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

/// Begins the trace of a request that was led to `route`, if it is to have one.
pub(super) fn begin(
    tracer: &Tracer,
    worker: &Worker,
    connection: &Connection,
    x: &mut Exchange,
    (route, framing): (Option<&Route>, Framing),
) {
    let verbosity = match route {
        Some(route) => route.tracing,
        None => connection.entry.config.observability.unwrap_or_default().traces(),
    };
    let Some(verbosity) = verbosity else { return };
    let state = all_of(&x.head, "tracestate");
    let field = |name: &str| match &state {
        Some(state) if name == "tracestate" => Some(&**state),
        _ => x.head.get_str(name),
    };
    let mut trace = tracer.begin(field, || worker.random());
    let began = (unix_nanos(SystemTime::now()), x.started);
    let detailed = verbosity == TraceVerbosity::Detailed && trace.is_sampled();
    if trace.is_sampled() {
        let id = trace.context().span;
        let span = trace.open(id, Kind::Server, x.head.method(), began.0);
        describe(span, tracer, connection, x, framing);
    }
    let outer = trace.depth();
    let mut traced = Box::new(Traced { trace, began, detailed, outer, service: None });
    if let Some(route) = route.filter(|_| detailed) {
        traced.enter_router(worker, route, began.0);
    }
    x.trace = Some(traced);
}

/// For a copy of the request: within the span that is open now.
pub(super) fn beside(traced: Option<&Traced>) -> Option<Box<Traced>> {
    let Traced { trace, began, detailed, .. } = traced?;
    Some(Box::new(Traced {
        trace: trace.beside(),
        began: *began,
        detailed: *detailed,
        outer: 0,
        service: None,
    }))
}

/// Hands over the spans of a copy.
pub(super) fn end_copy(worker: &Worker, x: &mut Exchange) {
    if let (Some(tracer), Some(mut traced)) = (&worker.tracer, x.trace.take()) {
        let now = traced.at(worker.now());
        traced.trace.close_to(0, now);
        tracer.submit(&traced.trace);
    }
}

/// A router leads the request on to this one.
#[inline]
pub(super) fn descend(worker: &Worker, x: &mut Exchange, route: &Route) {
    if let Some(traced) = x.trace.as_mut().filter(|traced| traced.detailed) {
        let now = traced.at(worker.now());
        traced.enter_router(worker, route, now);
    }
}

/// The middleware at this place of the chain sees the request next. Its span lasts as long as what is within it.
#[inline]
pub(super) fn enter(worker: &Worker, x: &mut Exchange, route: &Route, at: usize) {
    if let Some(traced) = x.trace.as_mut().filter(|traced| traced.detailed) {
        traced.enter_middleware(worker, route, at);
    }
}

/// This middleware has answered the request itself.
#[inline]
pub(super) fn refused(x: &mut Exchange, middleware: &Middleware) {
    if x.trace.is_some()
        && let Some(reason) = middleware.refusal()
    {
        failed(x, reason);
    }
}

/// The middleware whose span is open could not do its work, or has refused to.
pub(super) fn failed(x: &mut Exchange, reason: &'static str) {
    if let Some(traced) = x.trace.as_mut().filter(|traced| traced.detailed)
        && let Some(span) = traced.trace.last()
    {
        span.fail_with(reason);
    }
}

/// What follows is within `outer` spans again.
#[inline]
pub(super) fn leave(x: &mut Exchange, outer: usize) {
    if let Some(traced) = &mut x.trace {
        (traced.outer, traced.service) = (outer, None);
    }
}

/// The list that several lines of a field are: RFC 9110 section 5.3.
fn all_of(head: &Head, name: &str) -> Option<String> {
    let lines = || head.get_all(name).filter_map(|line| std::str::from_utf8(line).ok());
    (lines().count() > 1).then(|| lines().collect::<Vec<_>>().join(","))
}

/// What a client asks for.
fn describe(span: &mut Span, tracer: &Tracer, connection: &Connection, x: &Exchange, framing: Framing) {
    let head = &x.head;
    let (path, query) = split_target(head.target());
    span.text("http.request.method", head.method());
    let version = head.version().as_str().trim_start_matches("HTTP/");
    span.text(
        "network.protocol.version",
        version.strip_suffix(".0").filter(|v| *v != "1").unwrap_or(version),
    );
    let announced = head.get_str("content-length").and_then(|length| length.parse().ok());
    // As Go says that it does not know.
    let unknown = if framing.has_body() { -1 } else { 0 };
    span.int("http.request.body.size", announced.unwrap_or(unknown));
    span.text("url.path", percent_decoded(path));
    span.text("url.query", redact(query, &tracer.settings().safe_query_params));
    span.text("url.scheme", head.get("x-forwarded-proto").unwrap_or_default());
    span.text("user_agent.original", head.get("user-agent").unwrap_or_default());
    span.text("server.address", head.get("host").unwrap_or_default());
    let peer = connection.client.ip().to_canonical().to_string();
    let port = i64::from(connection.client.port());
    span.text("client.address", &peer);
    span.int("client.port", port);
    span.text("network.peer.address", &peer);
    span.int("network.peer.port", port);
    span.text("entry_point", &connection.entry.config.name);
    capture(span, "http.request.header.", &tracer.settings().captured_request_headers, head);
}

/// Begins the span of a request to a server, and tells that of it. `service` is whose server it is, if it is one.
#[inline]
pub(crate) fn ask(worker: &Worker, x: &mut Exchange, endpoint: &Endpoint, service: Option<&Arc<str>>) {
    if x.trace.is_some() {
        begin_asking(worker, x, endpoint, service);
    }
}

fn begin_asking(worker: &Worker, x: &mut Exchange, endpoint: &Endpoint, service: Option<&Arc<str>>) {
    let (Some(tracer), Some(mut traced)) = (&worker.tracer, x.trace.take()) else { return };
    let id = SpanId::random(&mut || worker.random());
    if traced.trace.is_sampled() {
        let start = traced.at(worker.now());
        if let Some(service) = service.filter(|_| traced.detailed) {
            traced.enter(service, SpanId::random(&mut || worker.random()), start);
        }
        let name = if service.is_some() { "ReverseProxy" } else { "AuthRequest" };
        let span = traced.trace.open(id, Kind::Client, name, start);
        describe_question(span, tracer, &x.head, endpoint);
    }
    if tracer.settings().formats.contains(&Format::W3c) {
        // W3C Trace Context section 3.3: without the parent that it belongs to it does not go on.
        x.head.remove("tracestate");
    }
    tracer.inject(&traced.trace, id, |name, value| x.head.set(name, value.as_bytes()));
    x.trace = Some(traced);
}

fn describe_question(span: &mut Span, tracer: &Tracer, head: &Head, endpoint: &Endpoint) {
    let scheme = if endpoint.scheme == Scheme::Https { "https" } else { "http" };
    let (path, query) = split_target(head.target());
    let query = redact(query, &tracer.settings().safe_query_params);
    let mark = if query.is_empty() { "" } else { "?" };
    span.text("http.request.method", head.method());
    span.text("url.full", format!("{scheme}://{}{path}{mark}{query}", endpoint.authority));
    span.text("url.scheme", scheme);
    span.text("user_agent.original", head.get("user-agent").unwrap_or_default());
    for key in ["network.peer.address", "server.address"] {
        span.text(key, &endpoint.host);
    }
    for key in ["network.peer.port", "server.port"] {
        span.int(key, i64::from(endpoint.port));
    }
    capture(span, "http.request.header.", &tracer.settings().captured_request_headers, head);
}

/// Ends the span of a request to a server, whose answer's head is in [`Exchange::response`].
#[inline]
pub(crate) fn answered(worker: &Worker, x: &mut Exchange, tried: &Result<Answer<'_>, Failed>) {
    if x.trace.is_some() {
        let is_http2 = tried.as_ref().is_ok_and(|answer| matches!(answer.up, Up::H2(_)));
        end_asking(worker, x, is_http2, tried.as_ref().err().map(|failed| failed.failure.status()));
    }
}

/// How many spans are open.
pub(super) fn depth(x: &Exchange) -> usize {
    x.trace.as_ref().map_or(0, |traced| traced.trace.depth())
}

/// Ends the span of a request that nobody waits for any more, if it is open: it is the one beyond `depth` others.
pub(super) fn give_up(worker: &Worker, x: &mut Exchange, depth: usize, status: u16) {
    if self::depth(x) > depth {
        end_asking(worker, x, false, Some(status));
    }
}

/// `failed` is the status that stands for no answer.
fn end_asking(worker: &Worker, x: &mut Exchange, is_http2: bool, failed: Option<u16>) {
    let (Some(tracer), Some(traced)) = (&worker.tracer, &mut x.trace) else { return };
    if !traced.trace.is_sampled() {
        return;
    }
    let end = traced.at(worker.now());
    let status = failed.unwrap_or_else(|| x.response.status());
    if let Some(span) = traced.trace.last() {
        span.text("network.protocol.version", if is_http2 { "2" } else { "1.1" });
        span.int("http.response.status_code", i64::from(status));
        if status >= 400 {
            span.fail();
        }
        if failed.is_none() {
            capture(span, "http.response.header.", &tracer.settings().captured_response_headers, &x.response);
        }
    }
    traced.trace.close_to(traced.trace.depth().saturating_sub(1), end);
}

/// A `retry` begins try number `resend`, from 0 on, around which there are `outer` spans.
pub(super) fn retry(worker: &Worker, x: &mut Exchange, middleware: &str, resend: u32, outer: usize) {
    let Some(traced) = x.trace.as_mut().filter(|traced| traced.detailed) else { return };
    let now = traced.at(worker.now());
    traced.service = None;
    traced.trace.close_to(outer, now);
    let span = traced.trace.open(SpanId::random(&mut || worker.random()), Kind::Internal, "Retry", now);
    span.text("traefik.middleware.name", middleware);
    if resend > 0 {
        span.int("http.request.resend_count", i64::from(resend));
    }
    traced.outer = traced.trace.depth();
}

/// How many spans are around what follows.
pub(super) fn outer(x: &Exchange) -> usize {
    x.trace.as_ref().map_or(0, |traced| traced.outer)
}

impl Traced {
    fn enter_router(&mut self, worker: &Worker, route: &Route, start: u64) {
        let Some(shown) = &route.shown else { return };
        let (rule, service) = &**shown;
        let id = SpanId::random(&mut || worker.random());
        let span = self.trace.open(id, Kind::Internal, "Router", start);
        span.text("traefik.router.name", &*route.name);
        span.text("traefik.service.name", service);
        span.text("http.route", rule);
        self.outer = self.trace.depth();
    }

    fn enter_middleware(&mut self, worker: &Worker, route: &Route, at: usize) {
        let Some(name) = route.middlewares.get(at).and_then(Middleware::span_name) else { return };
        let start = self.at(worker.now());
        let id = SpanId::random(&mut || worker.random());
        let span = self.trace.open(id, Kind::Internal, name, start);
        span.text("traefik.middleware.name", route.middleware_name(at));
        self.outer = self.trace.depth();
    }

    /// Within the span of this service from here on.
    fn enter(&mut self, service: &Arc<str>, id: SpanId, start: u64) {
        if self.service.as_ref().is_some_and(|known| known == service) {
            return;
        }
        self.trace.close_to(self.outer, start);
        self.trace.open(id, Kind::Internal, "Service", start).text("traefik.service.name", &**service);
        self.service = Some(Arc::clone(service));
    }
}

/// Ends the trace with the answer that the client got, and hands it over.
#[inline]
pub(super) fn end(worker: &Worker, x: &mut Exchange, status: u16, now: Instant) {
    if x.trace.is_some() {
        hand_over(worker, x, status, now);
    }
}

fn hand_over(worker: &Worker, x: &mut Exchange, status: u16, now: Instant) {
    let (Some(tracer), Some(mut traced)) = (&worker.tracer, x.trace.take()) else { return };
    if !traced.trace.is_sampled() {
        return;
    }
    if let Some(span) = traced.trace.root() {
        span.int("http.response.status_code", i64::from(status));
        if status >= 500 {
            span.fail();
        }
        capture(span, "http.response.header.", &tracer.settings().captured_response_headers, &x.response);
    }
    let end = traced.at(now);
    traced.trace.close_to(0, end);
    tracer.submit(&traced.trace);
}

fn capture(span: &mut Span, prefix: &str, names: &[String], head: &Head) {
    for name in names {
        if head.contains(name) {
            span.list(&format!("{prefix}{name}"), head.get_all(name));
        }
    }
}

fn percent_decoded(path: &str) -> Cow<'_, [u8]> {
    if !path.contains('%') {
        return path.as_bytes().into();
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        match (byte, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                out.push((high << 4 | low) as u8);
                rest = &behind[2..];
            }
            _ => {
                out.push(byte);
                rest = behind;
            }
        }
    }
    out.into()
}
