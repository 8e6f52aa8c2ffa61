//! One request, whatever protocol brought it: normalise and refuse, route, middlewares, service,
//! and the same way back.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::dynamic::Retry;
use lb_core::route::{self, routing_path};
use lb_http1::{Framing, Head};

use super::downstream::Downstream;
use super::local::{Local, whole_seconds};
use super::normalise::{self, canonical_host, split_target};
use super::record::{Outcome, record};
use super::replay::Replay;
use super::{farewell, forwarded, internally, tunnel};
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::forward::{self, Answer, Called, Delivered, Patience};
use crate::middleware::{Middleware, Step};
use crate::snapshot::{Route, Target};
use crate::upstream::failure::{Cause, Failure};
use crate::worker::Worker;

/// Seconds after which a client may try again that was refused because memory is short. Chosen.
const SHED_RETRY_AFTER: &str = "5";

/// What is to be sent to the client; its head is in [`Exchange::response`].
enum Reply<'a> {
    Local(Cow<'static, [u8]>),
    Answer(Answer<'a>),
    /// There is nobody to answer to.
    Gone,
}

/// How one pass through the chain ended, and how far into it the request got.
struct Passed<'a> {
    reply: Reply<'a>,
    reached: usize,
    failure: Option<Failure>,
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
    let mut outcome = Outcome::new(worker, x);
    let route = match admit(worker, connection, x) {
        Ok(route) => route,
        Err(local) => {
            local.write_head(&mut x.response);
            let whole = send_local(worker, x, down, &local.body, &mut outcome).await;
            record(worker, connection, x, &outcome);
            return whole;
        }
    };
    outcome.route = Some(&route);
    let whole = run(worker, connection, x, &route, down, framing, &mut outcome).await;
    record(worker, connection, x, &outcome);
    whole
}

async fn send<D: Downstream>(
    worker: &Rc<Worker>,
    connection: &Connection,
    x: &mut Exchange,
    down: &mut D,
    reply: Reply<'_>,
    outcome: &mut Outcome<'_>,
) -> bool {
    match reply {
        Reply::Local(body) => send_local(worker, x, down, &body, outcome).await,
        Reply::Answer(answer) => {
            let patience = connection.entry.patience(x.started);
            send_answer(worker, x, down, answer, patience, outcome).await
        }
        Reply::Gone => {
            outcome.status = 499;
            down.abort();
            false
        }
    }
}

/// Normalises the request, refuses what must not be routed, and finds its router.
fn admit(worker: &Worker, connection: &Connection, x: &mut Exchange) -> Result<Arc<Route>, Box<Local>> {
    let entry = &connection.entry;
    if x.head.method() == "CONNECT" {
        return Err(Box::new(Local::plain(501, "Not Implemented")));
    }
    if x.head.method() == "OPTIONS" && x.head.target() == "*" {
        return Err(Box::new(Local::bare(200)));
    }
    if normalise::alias_headers(&mut x.head, entry.config.http.alias_headers).is_err() {
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
        index.find(&Query::new(&x.head, x.peer.ip)).cloned()
    });
    let Some(route) = found else { return Err(Box::new(Local::plain(404, "404 page not found"))) };
    if let (Some(tls), Some(wanted)) = (&connection.tls, &route.tls_options)
        && **wanted != *tls.options
    {
        // RFC 9110 section 15.5.20: this connection was not accepted under that router's options.
        return Err(Box::new(Local::plain(421, "Misdirected Request")));
    }
    if worker.is_shedding() && !matches!(route.target, Target::Internal(_)) {
        worker.metrics.refused(entry.label, "memory");
        return Err(Box::new(Local::plain(503, "Service Unavailable").with("Retry-After", SHED_RETRY_AFTER)));
    }
    Ok(route)
}

/// A request as rules see it.
struct Query<'a> {
    head: &'a Head,
    host: Cow<'a, str>,
    path: Cow<'a, str>,
    query: &'a str,
    client: std::net::IpAddr,
}

impl<'a> Query<'a> {
    fn new(head: &'a Head, client: std::net::IpAddr) -> Self {
        let (path, query) = split_target(head.target());
        let host = canonical_host(head.get_str("host").unwrap_or_default());
        Self { head, host, path: routing_path(path), query, client }
    }
}

impl route::Request for Query<'_> {
    fn host(&self) -> &str {
        &self.host
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

/// Runs the chain, again from behind a retry middleware as often as that one says, and sends what comes of it.
async fn run<'a, D: Downstream>(
    worker: &Rc<Worker>,
    connection: &Connection,
    x: &mut Exchange,
    route: &'a Route,
    down: &mut D,
    framing: Framing,
    outcome: &mut Outcome<'a>,
) -> bool {
    let chain = &route.middlewares;
    let retry = chain.iter().enumerate().find_map(|(at, middleware)| match middleware {
        Middleware::Retry(retry) => Some((at, retry)),
        _ => None,
    });
    let Some((at, retry)) = retry else {
        let passed = pass(worker, connection, x, route, 0, down, framing, outcome).await;
        unwind(x, &chain[..passed.reached]);
        return send(worker, connection, x, down, passed.reply, outcome).await;
    };
    // Up to the retry middleware once, what is behind it as often as needed.
    if let Some((reached, body)) = ask(x, &chain[..at], 0).await {
        unwind(x, &chain[..reached]);
        return send_local(worker, x, down, &body, outcome).await;
    }
    if !framing.has_body() || retry.status.is_empty() || !may_repeat(retry, x.head.method()) {
        return Box::pin(attempts(worker, connection, x, route, (at, retry), down, framing, outcome)).await;
    }
    // When a status comes the body is gone, so it is kept. Rare enough to have its own allocation.
    Box::pin(async {
        if lb_http1::expects_continue(&x.head) {
            let mut head = Head::new();
            head.set_status(100);
            let _ = down.inform(&head);
            x.head.remove("expect");
        }
        let read = Replay::read(down, retry.max_request_body_bytes);
        let read = match connection.entry.patience(x.started).read_by {
            Some(by) => tokio::time::timeout_at(by, read).await.unwrap_or(Err(Cause::ClientTimeout)),
            None => read.await,
        };
        match read {
            Ok(mut replay) => {
                attempts(worker, connection, x, route, (at, retry), &mut replay, framing, outcome).await
            }
            Err(cause) => {
                let local = Local::status_text(Failure::unsent(cause).status());
                local.write_head(&mut x.response);
                unwind(x, &chain[..at]);
                send_local(worker, x, down, &local.body, outcome).await
            }
        }
    })
    .await
}

/// The methods for which a status makes a retry.
fn may_repeat(retry: &Retry, method: &str) -> bool {
    retry.retry_non_idempotent_method || !matches!(method, "POST" | "PATCH" | "LOCK")
}

/// What is behind the retry middleware at `at`, until it is answered well or no try is left.
#[expect(clippy::too_many_arguments, reason = "a try needs all that a request is")]
async fn attempts<'a, D: Downstream>(
    worker: &Rc<Worker>,
    connection: &Connection,
    x: &mut Exchange,
    route: &'a Route,
    (at, retry): (usize, &Retry),
    down: &mut D,
    framing: Framing,
    outcome: &mut Outcome<'a>,
) -> bool {
    let chain = &route.middlewares;
    let held = (x.permits.len(), x.breakers.len());
    let saved = x.head.clone();
    let began = worker.now();
    let mut tries = 1;
    loop {
        let passed = pass(worker, connection, x, route, at + 1, down, framing, outcome).await;
        unwind(x, &chain[(at + 1).min(passed.reached)..passed.reached]);
        let by_error = passed.failure.filter(|failure| {
            let harmless = failure.unsent || forward::is_idempotent(saved.method());
            harmless && failure.blames_server() && !retry.disable_retry_on_network_error
        });
        // Whoever answered: a server, or Vigie for it.
        let by_status = !matches!(passed.reply, Reply::Gone)
            && x.response.status() != 101
            && may_repeat(retry, saved.method())
            && retry.status.iter().any(|(from, to)| (*from..=*to).contains(&x.response.status()));
        let late = retry.timeout.is_some_and(|most| worker.now().duration_since(began) >= most);
        let repeatable = match by_error {
            // Of a body that was not kept nothing is missing only while nothing was sent.
            Some(failure) if failure.unsent => true,
            _ => (by_error.is_some() || by_status) && (!framing.has_body() || down.keeps_body()),
        };
        let allowed = || match (&route.target, by_error) {
            (Target::Service(service), Some(failure)) => {
                worker.may_retry(service, x.tries, &failure.reason())
            }
            (Target::Service(service), None) => worker.may_retry(service, x.tries, &x.response.status()),
            (Target::Internal(_), _) => true,
        };
        if !repeatable || late || tries >= retry.attempts || !allowed() {
            unwind(x, &chain[..at]);
            return send(worker, connection, x, down, passed.reply, outcome).await;
        }
        if let Reply::Answer(answer) = &passed.reply {
            x.tried_in_vain(answer.picked.index());
        }
        drop(passed);
        // The limits and breakers that are behind the retry count each try for itself.
        x.settle(held, worker.now());
        let delay =
            lb_core::backoff::delay(tries - 1, retry.attempts, retry.initial_interval, worker.random());
        if !delay.is_zero() {
            Box::pin(tokio::time::sleep(delay)).await;
        }
        tries += 1;
        x.head.clone_from(&saved);
        x.response.clear();
        down.rewind();
    }
}

/// The chain from `from` on, then the service.
#[expect(clippy::too_many_arguments, reason = "a pass needs all that a request is")]
async fn pass<'a, D: Downstream>(
    worker: &Rc<Worker>,
    connection: &Connection,
    x: &mut Exchange,
    route: &'a Route,
    from: usize,
    down: &mut D,
    framing: Framing,
    outcome: &mut Outcome<'a>,
) -> Passed<'a> {
    let chain = &route.middlewares;
    if let Some((reached, body)) = ask(x, chain, from).await {
        return Passed { reply: Reply::Local(body), reached, failure: None };
    }
    let reached = chain.len();
    if x.head.target_bytes().first() != Some(&b'/') {
        // A stripped prefix was all of the path.
        let target = format!("/{}", x.head.target());
        x.head.set_target(&target);
    }
    let service = match &route.target {
        Target::Internal(internal) => {
            let patience = connection.entry.patience(x.started);
            // Boxed: what an operator asks, and not to be in the way of what clients ask.
            let local = Box::pin(internally::respond(worker, x, *internal, down, framing, patience)).await;
            local.write_head(&mut x.response);
            return Passed { reply: Reply::Local(local.body), reached, failure: None };
        }
        Target::Service(service) => service,
    };
    // Without middlewares nothing has happened since.
    let asked = if chain.is_empty() { x.started } else { worker.now() };
    if outcome.asked.is_none() {
        outcome.asked = Some(asked);
        service.retries.budget.deposit(asked);
    }
    let patience = connection.entry.patience(x.started);
    let called = forward::call(worker, x, service, down, framing, patience).await;
    match called {
        Called::Answer(answer) => {
            outcome.endpoint = Some(answer.endpoint);
            outcome.origin_status = x.response.status();
            let upgrade =
                (x.response.status() == 101).then(|| x.response.get("upgrade").map(<[u8]>::to_vec)).flatten();
            lb_http1::remove_hop_by_hop(&mut x.response);
            if x.response.status() == 204 {
                // RFC 9110 section 8.6: there is none, and one would mislead lenient clients.
                x.response.remove("content-length");
            }
            if let Some(protocol) = upgrade {
                x.response.append("Connection", b"Upgrade");
                x.response.append("Upgrade", &protocol);
            }
            Passed { reply: Reply::Answer(answer), reached, failure: None }
        }
        Called::NoServer => {
            let local =
                Local::plain(503, "no available server").with("Retry-After", service.retry_after.to_string());
            local.write_head(&mut x.response);
            outcome.origin_status = 503;
            Passed { reply: Reply::Local(local.body), reached, failure: None }
        }
        Called::Busy => {
            let wait = service.queue.as_ref().map_or(1, |queue| whole_seconds(queue.settings.timeout));
            let local = Local::status_text(503).with("Retry-After", wait.to_string());
            local.write_head(&mut x.response);
            outcome.origin_status = 503;
            Passed { reply: Reply::Local(local.body), reached, failure: None }
        }
        Called::Failed(failure, endpoint) => {
            outcome.endpoint = endpoint.map(|endpoint| &**endpoint);
            outcome.origin_status = failure.status();
            let local = Local::status_text(failure.status());
            local.write_head(&mut x.response);
            let reply =
                if failure.cause == Cause::ClientGone { Reply::Gone } else { Reply::Local(local.body) };
            Passed { reply, reached, failure: Some(failure) }
        }
    }
}

/// Shows the request to the middlewares in order; the position of the one that ends it and the body of its answer,
/// whose head is in [`Exchange::response`].
async fn ask(x: &mut Exchange, chain: &[Middleware], from: usize) -> Option<(usize, Cow<'static, [u8]>)> {
    for (at, middleware) in chain.iter().enumerate().skip(from) {
        let mut step = middleware.on_request(x);
        loop {
            step = match step {
                Step::Next => break,
                Step::Respond(local) => {
                    local.write_head(&mut x.response);
                    return Some((at, local.body));
                }
                Step::Answered(body) => return Some((at, body)),
                Step::Wait(delay) => {
                    Box::pin(tokio::time::sleep(delay)).await;
                    break;
                }
                Step::Check(check) => {
                    let (check, passed) = check.run().await;
                    middleware.on_checked(x, &check, passed)
                }
            };
        }
    }
    None
}

fn unwind(x: &mut Exchange, chain: &[Middleware]) {
    for middleware in chain.iter().rev() {
        middleware.on_response(x);
    }
}

/// Sends an answer of our own.
async fn send_local<D: Downstream>(
    worker: &Worker,
    x: &mut Exchange,
    down: &mut D,
    body: &[u8],
    outcome: &mut Outcome<'_>,
) -> bool {
    outcome.status = x.response.status();
    worker.with_date(|date| x.response.set("Date", date.as_bytes()));
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
async fn send_answer<D: Downstream>(
    worker: &Rc<Worker>,
    x: &mut Exchange,
    down: &mut D,
    mut answer: Answer<'_>,
    patience: Patience,
    outcome: &mut Outcome<'_>,
) -> bool {
    outcome.status = x.response.status();
    if outcome.status == 101 {
        return Box::pin(switch_protocols(worker, x, down, answer, outcome)).await;
    }
    if !x.response.contains("date") {
        worker.with_date(|date| x.response.append("Date", date.as_bytes()));
    }
    let framing = answer.framing;
    if down.respond(&mut x.response, framing).is_err() {
        down.abort();
        return false;
    }
    let (delivered, bytes) = answer.deliver(down, patience).await;
    outcome.response_bytes = bytes;
    outcome.request_bytes = answer.request.bytes;
    if outcome.is_grpc {
        outcome.note_grpc(x, answer.up_trailers());
    }
    match delivered {
        Delivered::Whole => {
            answer.release(worker);
            true
        }
        Delivered::ServerRemoved if answer.is_passed_on() => farewell::end(x, down, outcome).await,
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
async fn switch_protocols<D: Downstream>(
    worker: &Rc<Worker>,
    x: &mut Exchange,
    down: &mut D,
    answer: Answer<'_>,
    outcome: &mut Outcome<'_>,
) -> bool {
    let Some((mut server, picked, held)) = answer.into_tunnel() else {
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

impl crate::entrypoint::Entry {
    /// What the entry point allows a request whose head came at `started`.
    fn patience(&self, started: Instant) -> Patience {
        let after =
            |timeout: Option<Duration>| started.checked_add(timeout?).map(tokio::time::Instant::from_std);
        Patience { read_by: after(self.config.read_timeout), write_by: after(self.config.write_timeout) }
    }
}
