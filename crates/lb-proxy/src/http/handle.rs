//! One request, whatever protocol brought it: normalise and refuse, route, middlewares, service,
//! and the same way back.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use lb_core::route::{self, routing_path};
use lb_http1::{FieldName, Framing, Head, Version};

use super::alias::KnownAliases;
use super::buffering::{self, Whole};
use super::downstream::Downstream;
use super::encode::Encoded;
use super::local::{Local, whole_seconds};
use super::normalise::{self, canonical_host, split_target};
use super::record::{Outcome, record};
use super::{around, compose, farewell, forwarded, internally, sniff, traced, tunnel};
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::forward::{self, Answer, Called, Delivered};
use crate::middleware::{Middleware, Step};
use crate::passage::{Passage, Patience, Renewed};
use crate::snapshot::{Route, Service, Target};
use crate::upstream::failure::{Cause, Failure};
use crate::worker::Worker;

/// Seconds after which a client may try again that was refused because memory is short. Chosen.
pub(super) const SHED_RETRY_AFTER: &str = "5";

const DATE: FieldName = FieldName::new("Date");
const ALT_SVC: FieldName = FieldName::new("Alt-Svc");

/// What is to be sent to the client; its head is in [`Exchange::response`].
pub(super) enum Reply<'a> {
    Local(Cow<'static, [u8]>),
    Answer(Answer<'a>),
    /// A server's answer, read to its end.
    Whole(Box<Whole>),
    /// There is nobody to answer to.
    Gone,
}

impl Reply<'_> {
    /// How long its body is, as far as that is known.
    pub(super) fn body_bytes(&self) -> u64 {
        match self {
            Self::Local(body) => body.len() as u64,
            Self::Answer(answer) => match answer.framing {
                Framing::Length(length) => length,
                _ => 0,
            },
            Self::Whole(whole) => whole.bytes(),
            Self::Gone => 0,
        }
    }

    /// Lets go of it for another one: its server's connection is kept where the rest of the body has come.
    pub(super) fn discard<D>(self, p: &Passage<'_, '_, D>) {
        if let Self::Answer(answer) = self {
            answer.discard(p.worker, p.connection);
        }
    }

    /// Index of the server that it is from, if that is one of `service`.
    pub(super) fn server(&self, service: &Service) -> Option<usize> {
        let (name, server) = match self {
            Self::Answer(answer) => (&answer.endpoint.service, answer.picked.index()),
            Self::Whole(whole) => (&whole.service, whole.server),
            Self::Local(_) | Self::Gone => return None,
        };
        (*name == service.name).then_some(server)
    }
}

/// How one pass through the chain ended, and how far into it the request got.
pub(super) struct Passed<'a> {
    pub(super) reply: Reply<'a>,
    pub(super) reached: usize,
    pub(super) failure: Option<Failure>,
}

/// Serves one request whose head is in `x.head`. Returns whether the client got a whole answer.
pub(crate) async fn handle<D: Downstream>(
    worker: &Rc<Worker>,
    connection: &Connection,
    x: &mut Exchange,
    down: &mut D,
    framing: Framing,
) -> bool {
    x.started = worker.now();
    let patience = Patience::new(&connection.entry, x.started);
    let renewed = Renewed::default();
    let mut outcome = Outcome::new(worker, x);
    let mut p = Passage {
        worker,
        connection,
        x,
        down,
        framing,
        patience,
        outcome: &mut outcome,
        renewed: Some(&renewed),
    };
    if let Some(aliases) = &worker.aliases {
        // Boxed: others need not make room for it.
        Box::pin(find_alias(worker, aliases, connection, p.x)).await;
    }
    // From here on by way of `p`, so that nothing is kept twice.
    let admitted = admit(p.worker, p.connection, p.x);
    if let Some(tracer) = &p.worker.tracer {
        traced::begin(tracer, p.worker, p.connection, p.x, (admitted.as_deref().ok(), p.framing));
    }
    let whole = match &admitted {
        Ok(route) => {
            p.outcome.route = Some(route);
            run(&mut p, route).await
        }
        Err(local) => {
            local.write_head(&mut p.x.response);
            send_local(&mut p, &local.body).await
        }
    };
    record(p.worker, p.connection, p.x, p.outcome);
    if p.x.composed.is_some() {
        compose::end(p.worker, p.connection, p.x, p.outcome.status == 499);
    }
    whole
}

/// Sends what has come of the request, and keeps the connection to the server for the next one.
pub(super) async fn send<D: Downstream>(p: &mut Passage<'_, '_, D>, reply: &mut Reply<'_>) -> bool {
    if p.x.encode.is_some() {
        // Boxed: others need not make room for it.
        return Box::pin(send_encoded(p, reply)).await;
    }
    match reply {
        Reply::Local(body) => send_local(p, body).await,
        Reply::Answer(_) if p.x.response.status() == 101 => Box::pin(switch_protocols(p, reply)).await,
        Reply::Answer(answer) => {
            // Boxed: others need not make room for it.
            if p.x.detect_type && !Box::pin(sniff::detect(p, answer)).await {
                p.down.abort();
                return false;
            }
            let whole = send_answer(p, answer).await;
            if whole && let Reply::Answer(answer) = std::mem::replace(reply, Reply::Gone) {
                answer.release(p.worker, p.connection);
            }
            whole
        }
        Reply::Whole(whole) => {
            Box::pin(sniff::detect_whole(p, whole)).await;
            Box::pin(buffering::send(p, whole)).await
        }
        Reply::Gone => {
            p.outcome.status = 499;
            p.down.abort();
            false
        }
    }
}

/// Sends it through an encoder, if it turns out to have a body that is worth it.
async fn send_encoded<D: Downstream>(p: &mut Passage<'_, '_, D>, reply: &mut Reply<'_>) -> bool {
    let framing = match reply {
        Reply::Local(body) => Framing::Length(body.len() as u64),
        Reply::Answer(answer) => answer.framing,
        Reply::Whole(whole) => whole.framing(),
        Reply::Gone => Framing::Empty,
    };
    if let Reply::Answer(answer) = reply
        && p.x.detect_type
        && !sniff::detect(p, answer).await
    {
        p.down.abort();
        return false;
    }
    if let Reply::Whole(whole) = reply {
        sniff::detect_whole(p, whole).await;
    }
    let Passage { worker, connection, framing: asked, patience, renewed, .. } = *p;
    let encode =
        p.x.encode
            .take()
            .filter(|encode| !matches!(reply, Reply::Gone) && encode.suits(&p.x.response, framing));
    let begun = encode.map(|encode| Encoded::begin(p.down, &mut p.x.response, framing, encode));
    let mut encoded = match begun {
        Some(Ok(encoded)) => encoded,
        None => return Box::pin(send(p, reply)).await,
        Some(Err(error)) => {
            tracing::warn!(%error, "an answer cannot be compressed");
            return Box::pin(send(p, reply)).await;
        }
    };
    let (x, outcome) = (&mut *p.x, &mut *p.outcome);
    let mut p =
        Passage { worker, connection, x, down: &mut encoded, framing: asked, patience, outcome, renewed };
    let whole = match reply {
        Reply::Local(body) => send_local(&mut p, body).await,
        Reply::Answer(answer) => send_answer(&mut p, answer).await,
        Reply::Whole(whole) => buffering::send(&mut p, whole).await,
        Reply::Gone => false,
    };
    p.x.origin_bytes = Some(p.outcome.response_bytes);
    p.outcome.response_bytes = p.down.sent;
    if whole && let Reply::Answer(answer) = std::mem::replace(reply, Reply::Gone) {
        answer.release(worker, connection);
    }
    whole
}

async fn find_alias(worker: &Worker, aliases: &KnownAliases, connection: &Connection, x: &mut Exchange) {
    let host = canonical_host(x.head.get_str("host").unwrap_or_default());
    x.alias = aliases.of(&host, &worker.metrics, connection.entry.label).await;
}

/// Normalises the request, refuses what must not be routed, and finds its router.
fn admit(worker: &Worker, connection: &Connection, x: &mut Exchange) -> Result<Arc<Route>, Box<Local>> {
    let entry = &connection.entry;
    if x.head.method() == "CONNECT" {
        return Err(Box::new(Local::bare(501)));
    }
    if x.head.method() == "OPTIONS" && x.head.target() == "*" {
        return Err(Box::new(Local::bare(200)));
    }
    let http = &entry.config.http;
    if normalise::alias_headers(&mut x.head, http.alias_headers, http.only_underscores).is_err() {
        worker.metrics.refused(entry.label, "alias_header");
        return Err(Box::new(Local::plain(400, "Bad Request")));
    }
    match normalise::normalise_target(x.head.target_bytes(), &entry.policy) {
        Ok(None) => {}
        Ok(Some(target)) => {
            let (_, query) = split_target(x.head.target());
            if !entry.policy.encode_query_semicolons && query.contains(';') {
                x.raw_query = Some(query.to_owned());
            }
            x.head.set_target(&target);
        }
        Err(_) => {
            worker.metrics.refused(entry.label, "target");
            return Err(Box::new(Local::bare(400)));
        }
    }
    x.append_forwarded_for = !entry.config.not_append_x_forwarded_for;
    let peer = Rc::clone(&x.peer);
    forwarded::inbound(&mut x.head, &peer, connection.trusted, &entry.forwarded);
    let found = worker.with_snapshot(|snapshot| {
        let routes = &snapshot.entry_points[entry.index];
        let index = if connection.tls.is_some() { &routes.secure } else { &routes.plain };
        index.find(&Query::new(x)).cloned()
    });
    let Some(route) = found else { return Err(Box::new(Local::plain(404, "404 page not found"))) };
    if let (Some(tls), Some(wanted)) = (&connection.tls, &route.tls_options)
        && (**wanted != *tls.options || tls.proof < route.proof)
    {
        // RFC 9110 section 15.5.20: this connection was not accepted under that router's options, or they have
        // become stricter since.
        return Err(Box::new(Local::plain(421, "Misdirected Request")));
    }
    if worker.is_shedding() && !matches!(route.target, Target::Internal(_)) {
        worker.metrics.refused(entry.label, "memory");
        return Err(Box::new(Local::plain(503, "Service Unavailable").with("Retry-After", SHED_RETRY_AFTER)));
    }
    Ok(route)
}

/// A request as rules see it.
pub(super) struct Query<'a> {
    head: &'a Head,
    host: Cow<'a, str>,
    alias: Option<&'a str>,
    path: Cow<'a, str>,
    query: &'a str,
    client: std::net::IpAddr,
}

impl<'a> Query<'a> {
    pub(super) fn new(x: &'a Exchange) -> Self {
        let head = &x.head;
        let (path, query) = split_target(head.target());
        let host = canonical_host(head.get_str("host").unwrap_or_default());
        Self { head, host, alias: x.alias.as_deref(), path: routing_path(path), query, client: x.peer.ip }
    }
}

impl route::Request for Query<'_> {
    fn host(&self) -> &str {
        &self.host
    }

    fn alias(&self) -> Option<&str> {
        self.alias
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn method(&self) -> &str {
        self.head.method()
    }

    fn query(&self) -> &str {
        self.query
    }

    fn client(&self) -> std::net::IpAddr {
        self.client
    }

    fn any_header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        // The host is no header to rules, as in Go.
        name != "host" && self.head.get_all(name).any(test)
    }
}

/// Runs the chain and sends what comes of it.
async fn run<'r, D: Downstream>(p: &mut Passage<'_, 'r, D>, route: &'r Route) -> bool {
    let at = route.middlewares.iter().position(Middleware::wraps);
    if at.is_some() || route.target.wraps() {
        // Boxed: others need not make room for it.
        return Box::pin(around::run(p, route, at)).await;
    }
    let passed = pass(p, route, 0).await;
    // Moved, so that its place is not kept beside `pass`.
    let mut passed = passed;
    unwind(p.x, &route.middlewares[..passed.reached]);
    send(p, &mut passed.reply).await
}

/// The chain from `from` on, then the service.
pub(super) async fn pass<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    route: &'r Route,
    from: usize,
) -> Passed<'r> {
    let chain = &route.middlewares;
    if let Some((reached, body)) = ask(p.worker, p.x, route, from..chain.len()).await {
        return Passed { reply: Reply::Local(body), reached, failure: None };
    }
    complete_path(p.x);
    let service = match &route.target {
        Target::Internal(internal) => {
            // Boxed: what an operator asks, and not to be in the way of what clients ask.
            let local = Box::pin(internally::respond(p, *internal)).await;
            local.write_head(&mut p.x.response);
            return Passed { reply: Reply::Local(local.body), reached: chain.len(), failure: None };
        }
        // Never: `layers` has led the request on.
        Target::Composite(_) | Target::Within(_) | Target::Children(_) => {
            return Passed { reply: Reply::Gone, reached: from, failure: None };
        }
        Target::Service(service) => service,
    };
    // Without middlewares nothing has happened since.
    let asked = if chain.is_empty() { p.x.started } else { p.worker.now() };
    if p.outcome.asked.is_none() {
        p.outcome.asked = Some(asked);
        service.retries.budget.deposit(asked);
    }
    let called = forward::call(p, service).await;
    let (reply, failure) = answered(p, service, called);
    Passed { reply, reached: route.middlewares.len(), failure }
}

/// A stripped prefix was perhaps all of the path.
pub(super) fn complete_path(x: &mut Exchange) {
    if x.head.target_bytes().first() != Some(&b'/') {
        let target = format!("/{}", x.head.target());
        x.head.set_target(&target);
    }
}

/// What the client gets of how a service has answered; its head is in [`Exchange::response`].
pub(super) fn answered<'r, D>(
    p: &mut Passage<'_, 'r, D>,
    service: &Service,
    called: Called<'r>,
) -> (Reply<'r>, Option<Failure>) {
    match called {
        Called::Answer(answer) => {
            p.outcome.endpoint = Some(answer.endpoint);
            p.outcome.origin_status = p.x.response.status();
            let upgrade = (p.x.response.status() == 101)
                .then(|| p.x.response.get("upgrade").map(<[u8]>::to_vec))
                .flatten();
            lb_http1::remove_hop_by_hop(&mut p.x.response);
            if matches!(p.x.response.status(), 101 | 204) {
                // RFC 9110 section 8.6: there is none, and one would mislead lenient clients.
                p.x.response.remove("content-length");
            }
            if let Some(protocol) = upgrade {
                p.x.response.append("Connection", b"Upgrade");
                p.x.response.append("Upgrade", &protocol);
            }
            (Reply::Answer(answer), None)
        }
        Called::NoServer => {
            p.outcome.origin_status = 503;
            (Reply::Local(unavailable(&mut p.x.response, service.retry_after)), None)
        }
        Called::Busy => {
            let wait = service.queue.as_ref().map_or(1, |queue| whole_seconds(queue.settings.timeout));
            let local = Local::status_text(503).with("Retry-After", wait.to_string());
            local.write_head(&mut p.x.response);
            p.outcome.origin_status = 503;
            (Reply::Local(local.body), None)
        }
        Called::Failed(failure, endpoint) => {
            p.outcome.endpoint = endpoint.map(|endpoint| &**endpoint);
            p.outcome.origin_status = failure.status();
            let local = Local::status_text(failure.status());
            local.write_head(&mut p.x.response);
            let reply =
                if failure.cause == Cause::ClientGone { Reply::Gone } else { Reply::Local(local.body) };
            (reply, Some(failure))
        }
    }
}

/// The answer where there is nobody to ask, for now: its head into `response`, its body returned.
pub(super) fn unavailable(response: &mut Head, retry_after: u64) -> Cow<'static, [u8]> {
    let local = Local::plain(503, "no available server").with("Retry-After", retry_after.to_string());
    local.write_head(response);
    local.body
}

/// Shows the request to the middlewares in `range` in order; the position of the one that ends it and the body of its answer,
/// whose head is in [`Exchange::response`].
pub(super) async fn ask(
    worker: &Worker,
    x: &mut Exchange,
    route: &Route,
    range: Range<usize>,
) -> Option<(usize, Cow<'static, [u8]>)> {
    for (at, middleware) in route.middlewares[..range.end].iter().enumerate().skip(range.start) {
        traced::enter(worker, x, route, at);
        let mut step = middleware.on_request(x);
        loop {
            step = match step {
                Step::Next => break,
                Step::Respond(local) => {
                    local.write_head(&mut x.response);
                    traced::refused(x, middleware);
                    return Some((at, local.body));
                }
                Step::Answered(body) => {
                    traced::refused(x, middleware);
                    return Some((at, body));
                }
                Step::Wait(delay) => {
                    Box::pin(tokio::time::sleep(delay)).await;
                    break;
                }
                Step::Later(later) => later.await,
                Step::Check(check) => {
                    let (check, checked) = check.run().await;
                    middleware.on_checked(x, &check, checked)
                }
            };
        }
    }
    None
}

pub(super) fn unwind(x: &mut Exchange, chain: &[Middleware]) {
    for middleware in chain.iter().rev() {
        middleware.on_response(x);
    }
}

/// Says where HTTP/3 is spoken, on every answer over TLS, as Traefik does.
pub(super) fn advertise(connection: &Connection, x: &mut Exchange) {
    if let Some(alt_svc) = &connection.entry.alt_svc
        && connection.tls.is_some()
        && x.head.version() != Version::Http3
    {
        x.response.append_named(ALT_SVC, alt_svc.as_bytes());
    }
}

/// Sends an answer of our own.
async fn send_local<D: Downstream>(p: &mut Passage<'_, '_, D>, body: &[u8]) -> bool {
    let Passage { worker, connection, x, down, outcome, .. } = p;
    outcome.status = x.response.status();
    worker.with_date(|date| x.response.set("Date", date.as_bytes()));
    advertise(connection, x);
    if x.detect_type {
        sniff::name(&mut x.response, body);
    }
    let bodyless = x.head.method() == "HEAD" || body.is_empty() || matches!(outcome.status, 204 | 304);
    let framing = if bodyless { Framing::Empty } else { Framing::Length(body.len() as u64) };
    if down.respond(&mut x.response, framing).is_err() {
        return false;
    }
    let mut sent = if bodyless { body.len() } else { 0 };
    let written = std::future::poll_fn(|cx| {
        while sent < body.len() {
            match std::task::ready!(down.poll_send(cx, &body[sent..])) {
                Ok(count) => sent += count,
                Err(error) => return std::task::Poll::Ready(Err(error)),
            }
        }
        std::task::Poll::Ready(down.finish(None))
    })
    .await;
    if !bodyless {
        outcome.response_bytes = sent as u64;
    }
    written.is_ok() && std::future::poll_fn(|cx| down.poll_flush(cx)).await.is_ok()
}

/// Sends a server's answer.
async fn send_answer<D: Downstream>(p: &mut Passage<'_, '_, D>, answer: &mut Answer<'_>) -> bool {
    let Passage { worker, connection, x, down, patience, outcome, .. } = p;
    outcome.status = x.response.status();
    // `writeTimeout` is for the whole answer: what cannot be ended is not begun.
    if patience.write_by.is_some_and(|by| tokio::time::Instant::now() >= by) {
        down.abort();
        return false;
    }
    if !x.response.contains("date") {
        worker.with_date(|date| x.response.append_named(DATE, date.as_bytes()));
    }
    advertise(connection, x);
    let framing = answer.framing;
    if down.respond(&mut x.response, framing).is_err() {
        down.abort();
        return false;
    }
    let (delivered, bytes) = answer.deliver(&mut **down, *patience).await;
    outcome.response_bytes = bytes;
    // The answer may be a page, whose own request has none.
    outcome.request_bytes = outcome.request_bytes.max(answer.request.bytes);
    if outcome.is_grpc {
        outcome.note_grpc(x, answer.up_trailers());
    }
    match delivered {
        Delivered::Whole => true,
        Delivered::ServerRemoved if answer.is_passed_on() => farewell::end(x, &mut **down, outcome).await,
        Delivered::Truncated | Delivered::ClientSlow | Delivered::ServerRemoved => {
            // The client must not take a part for the whole: its connection is cut.
            down.abort();
            false
        }
        Delivered::ClientGone => {
            outcome.status = 499;
            down.abort();
            false
        }
    }
}

/// After a 101 the two connections are one: bytes pass until either side ends.
async fn switch_protocols<D: Downstream>(p: &mut Passage<'_, '_, D>, reply: &mut Reply<'_>) -> bool {
    let Passage { worker, x, down, outcome, .. } = p;
    outcome.status = x.response.status();
    let tunnel = match std::mem::replace(reply, Reply::Gone) {
        Reply::Answer(answer) => answer.into_tunnel(),
        _ => None,
    };
    let Some((mut server, picked, held)) = tunnel else {
        down.abort();
        return false;
    };
    if down.respond(&mut x.response, Framing::UntilClose).is_err() {
        return false;
    }
    let Some(client) = down.tunnel() else {
        down.abort();
        return false;
    };
    let (up, back) = tunnel::run(client, &mut server, worker, held).await;
    (outcome.request_bytes, outcome.response_bytes) = (up, back);
    drop(picked);
    false
}
