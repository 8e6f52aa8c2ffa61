//! Forwarding: one request to one of a service's servers, and its answer back.
//!
//! One task does everything: it writes the request on, copies its body while it waits for the
//! answer, and copies the answer back, in both directions at once where both have something to say.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lb_core::balance::{CookieMatch, Pick, Picked, Service as LiveService};
use lb_core::health::Outcome;
use lb_core::sticky;
use lb_http1::{Framing, Head};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::http::body::{Fill, Pump, PumpError, Source};
use crate::http::downstream::Downstream;
use crate::http::h1::H1;
use crate::http::{forwarded, traced};
use crate::lasting::Lease;
use crate::passage::{Passage, Patience};
use crate::snapshot::Service;
use crate::upstream::Endpoint;
use crate::upstream::acquire;
use crate::upstream::failure::{self, Cause, Failure};
use crate::upstream::private::Private;
use crate::upstream::refused;
use crate::upstream::room;
use crate::upstream::up::{Up, may_switch};
use crate::worker::Worker;

/// RFC 9110 section 10.1.1 lets a proxy answer 100 by itself; Traefik's backends get this long first.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a request looks for another connection to the same server because the last one was ending: many may have to
/// share the next one, which may end before it has come to all of them. As Go's client has it.
const WENT_AWAY: u8 = 6;

/// So much of an answer's body is read only to keep its connection; chosen, beyond it a new one costs less.
const MOST_DISCARDED: usize = 64 * 1024;

/// An answer whose head has arrived in [`Exchange::response`].
pub(crate) struct Answer<'a> {
    pub(crate) up: Up,
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) picked: Picked,
    pub(crate) framing: Framing,
    /// The request's body, perhaps still on its way.
    pub(crate) request: Pump,
    request_dead: bool,
    /// For how long the connection outlives the answer, at most.
    lasts: Option<Duration>,
    lease: Lease,
}

/// How one service answered: an answer, nothing to ask, nobody with room, or a failure.
pub(crate) enum Called<'a> {
    Answer(Answer<'a>),
    NoServer,
    Busy,
    Failed(Failure, Option<&'a Arc<Endpoint>>),
}

/// Asks the service's servers until one answers or no further try is safe.
pub(crate) async fn call<'a, D: Downstream>(p: &mut Passage<'_, 'a, D>, service: &'a Service) -> Called<'a> {
    let worker = p.worker;
    let mut service = p.renewed.and_then(|renewed| renewed.get(&service.name)).unwrap_or(service);
    let upgrade = lb_http1::wants_upgrade(&p.x.head).map(Box::<str>::from);
    let cookie = service.sticky.as_ref().and_then(|cookie| {
        let mut lines = p.x.head.get_all("cookie");
        lines.find_map(|line| sticky::find_cookie(line, &cookie.name)).map(Box::<str>::from)
    });
    if p.x.logged.is_none() && worker.access_log.as_ref().is_some_and(|log| log.keeps_request_headers()) {
        p.x.logged = Some(Box::new(p.x.head.clone()));
    }
    prepare(p.x, upgrade.as_deref(), p.framing);
    // RFC 9112 section 3.2: every HTTP/1.1 request names a host, also for a client that has not.
    let is_nameless = p.x.head.get("host").is_none_or(<[u8]>::is_empty);
    let mut target = target_to_prefix(service, &p.x.head);
    // What a retry middleware has led here begins anew.
    p.x.kept = Vec::new();
    let mut last: Option<(Failure, &Arc<Endpoint>)> = None;
    let mut new_round = false;
    let mut refusals = 0;
    loop {
        let picked = {
            let pick = Pick {
                client: p.x.peer.ip,
                sticky: cookie.as_deref(),
                random: worker.random(),
                tried: &p.x.tried,
            };
            // Nobody passes those who wait already.
            let free = service.queue.is_none() || service.live.queued() == 0;
            let picked = match (free.then(|| service.live.pick(&pick)).flatten(), &service.queue) {
                (Some(picked), _) => picked,
                (None, None) => return Called::NoServer,
                // Boxed: rare, and others need not make room for it.
                (None, Some(queue)) => {
                    let follows = pick.tried.is_empty()
                        && p.renewed.is_some_and(|renewed| renewed.get(&service.name).is_none());
                    match Box::pin(room::wait(worker, service, queue, &pick, follows, p.down)).await {
                        Ok((picked, None)) => picked,
                        Ok((picked, Some(newer))) => {
                            if let Some(renewed) = p.renewed {
                                service = renewed.put(service, newer);
                                target = target_to_prefix(service, &p.x.head);
                            }
                            picked
                        }
                        Err(no_room) => return no_room.called(last),
                    }
                }
            };
            // Those whose answers are judged are left to the judge.
            if service.judged { picked } else { prefer_awake(worker, &service.live, picked, &pick) }
        };
        let index = picked.index();
        let is_tried = p.x.tried.contains(&index);
        if let Some((failure, endpoint)) = last.take()
            && (is_tried || !worker.may_ask_again(service, p.x.tries, failure))
        {
            return Called::Failed(failure, Some(endpoint));
        }
        if is_tried && p.x.tried.len() > 1 {
            // A retry middleware begins another round, with anyone but the last.
            p.x.tried.drain(..p.x.tried.len() - 1);
            new_round = true;
            continue;
        }
        if std::mem::take(&mut new_round) {
            p.x.tried.clear();
        }
        let endpoint = &service.endpoints[index];
        if is_nameless || !service.pass_host_header {
            p.x.head.set("Host", endpoint.authority.as_bytes());
        }
        if let Some(target) = &target {
            let prefix = endpoint.path_prefix.as_deref().unwrap_or_default();
            p.x.head.set_target(&format!("{prefix}{target}"));
        }
        p.x.tries += 1;
        traced::ask(worker, p.x, endpoint, Some(&service.name));
        // In a block: nothing of it is held while the next try waits.
        let Failed { mut failure, repeatable } = {
            let tried = attempt(p, endpoint, Some(picked), upgrade.is_some()).await;
            traced::answered(worker, p.x, &tried);
            match tried {
                Ok(answer) => {
                    observe(worker, service, index, &answer.picked, p.x);
                    stick(p.x, service, endpoint, answer.picked.by_cookie());
                    return Called::Answer(answer);
                }
                Err(failed) => failed,
            }
        };
        // Also where it was an earlier try that took it.
        failure.body_begun |= !p.x.kept.is_empty();
        if failure.blames_server() {
            worker.upstream_failed(service, endpoint, failure);
            if service.judged {
                worker.judge(service, index, Outcome::GatewayFailure, worker.now());
            } else if failure.is_of_connecting()
                && let Some((server, _)) = service.live.servers().nth(index)
            {
                server.rest(worker.now());
            }
        }
        p.x.tried_in_vain(index);
        // Not one byte of the client's body may be lost between two tries.
        if !(repeatable && failure.may_retry(is_idempotent(p.x.head.method()), repeatable)) {
            return Called::Failed(failure, Some(endpoint));
        }
        let more = p.x.tried.len() < service.endpoints.len();
        if !more || endpoint.is_retired() {
            if let Some(newer) = with_others(p, service) {
                service = newer;
                target = target_to_prefix(service, &p.x.head);
            } else if !more {
                if failure.cause != Cause::Refused || !refused::pause(worker, &mut refusals).await {
                    return Called::Failed(failure, Some(endpoint));
                }
                p.x.tried.retain(|tried| *tried != index);
            }
        }
        last = Some((failure, endpoint));
    }
}

/// Whether a server is left that was not tried in vain, also one that a reload has brought.
pub(crate) fn has_another<D>(p: &mut Passage<'_, '_, D>, service: &Service) -> bool {
    let service = p.renewed.and_then(|renewed| renewed.get(&service.name)).unwrap_or(service);
    p.x.tried.len() < service.endpoints.len() || with_others(p, service).is_some()
}

/// Who can be asked instead, if a reload has brought servers that were not tried: the service as it is now, or the one that
/// the router leads to now. What has been replaced or renamed is no reason to fail.
fn with_others<'a, D>(p: &mut Passage<'_, 'a, D>, service: &Service) -> Option<&'a Service> {
    let is_tried = |endpoint: &Arc<Endpoint>| {
        p.x.tried.iter().any(|&index| service.endpoints[index].url == endpoint.url)
    };
    let newer = p.worker.with_snapshot(|snapshot| {
        let led_to = p.outcome.route.and_then(|route| snapshot.led_to(&route.name));
        let mut known = snapshot.service(&service.name).into_iter().chain(led_to);
        known.find(|newer| !newer.endpoints.iter().all(is_tried)).map(Arc::clone)
    })?;
    let tried: SmallVec<[usize; 4]> =
        (0..newer.endpoints.len()).filter(|&index| is_tried(&newer.endpoints[index])).collect();
    let newer = p.renewed?.put(service, newer);
    p.x.tried = tried;
    Some(newer)
}

/// The target as it came, where a server may want a prefix before it.
fn target_to_prefix(service: &Service, head: &Head) -> Option<Box<str>> {
    service.endpoints.iter().any(|e| e.path_prefix.is_some()).then(|| head.target().into())
}

/// `picked`, or another server that was not tried yet while that one takes no connections.
pub(crate) fn prefer_awake(
    worker: &Worker,
    service: &LiveService,
    picked: Picked,
    pick: &Pick<'_>,
) -> Picked {
    if !picked.server().is_resting(worker.recently()) {
        return picked;
    }
    let mut passed: SmallVec<[usize; 4]> = pick.tried.into();
    passed.push(picked.index());
    while let Some(other) = service.pick(&Pick { tried: &passed, ..*pick }) {
        if passed.contains(&other.index()) {
            break;
        }
        if !other.server().is_resting(worker.recently()) {
            return other;
        }
        passed.push(other.index());
    }
    picked
}

/// RFC 9110 section 9.2.2.
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Makes the client's head the one that servers get: RFC 9110 section 7.6.1.
fn prepare(x: &mut Exchange, upgrade: Option<&str>, framing: Framing) {
    let trailers = x
        .head
        .get_all("te")
        .any(|line| line.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers")));
    lb_http1::remove_hop_by_hop(&mut x.head);
    if trailers {
        // RFC 9110 section 10.1.4: it speaks to the next server only.
        x.head.set("Te", b"trailers");
        x.head.append("Connection", b"TE");
    }
    if let Some(protocol) = upgrade {
        x.head.append("Connection", b"Upgrade");
        x.head.append("Upgrade", protocol.as_bytes());
    }
    match framing {
        Framing::Chunked => x.head.append("Transfer-Encoding", b"chunked"),
        // RFC 9110 section 8.6: some servers answer 411 otherwise.
        Framing::Empty if matches!(x.head.method(), "POST" | "PUT" | "PATCH") => {
            x.head.set("Content-Length", b"0")
        }
        _ => {}
    }
    let peer = Rc::clone(&x.peer);
    if x.append_forwarded_for {
        forwarded::append_forwarded_for(&mut x.head, &peer);
    }
}

fn observe(worker: &Rc<Worker>, service: &Service, index: usize, picked: &Picked, x: &Exchange) {
    picked.server().awake();
    if service.live.compares_times() {
        picked.server().record_first_byte(worker.now().saturating_duration_since(x.started));
    }
    if service.judged {
        worker.judge(service, index, Outcome::of_status(x.response.status()), worker.now());
    }
}

/// Sets the sticky cookie when the client was not already pinned to this server.
fn stick(x: &mut Exchange, service: &Service, endpoint: &Endpoint, matched: CookieMatch) {
    let Some(cookie) = &service.sticky else { return };
    if matched != CookieMatch::Current {
        let value =
            crate::http::cookie::set_cookie(cookie).header_value(&sticky::cookie_value(&endpoint.url));
        crate::http::cookie::put_first(&mut x.response, std::iter::once(value));
    }
}

pub(crate) struct Failed {
    pub(crate) failure: Failure,
    /// Nothing of the client's body is missing, though some of it may be in [`Exchange::kept`], and no interim answer has
    /// said that somebody is at work on it, unless the method may be repeated: the request can be sent again.
    repeatable: bool,
}

/// One try on one server, of `picked`: connect or reuse, send, wait for the head of the answer.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` holds each argument twice")]
pub(crate) fn attempt<'a, D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    endpoint: &'a Arc<Endpoint>,
    mut picked: Option<Picked>,
    upgrade: bool,
) -> impl Future<Output = Result<Answer<'a>, Failed>> {
    async move {
        let mut fresh = false;
        let mut went_away = 0;
        loop {
            let outages = picked.as_ref().map_or(0, |picked| picked.server().outages());
            let private = Private::of(p.connection, &p.x.head);
            let reused = if fresh {
                None
            } else {
                let once = !is_idempotent(p.x.head.method());
                acquire::reuse(p.worker, endpoint, outages, upgrade, private, once).await
            };
            let was_reused = reused.is_some();
            let up = match reused {
                Some(up) => up,
                // Boxed: rare, and large beside everything else that a request keeps while it waits.
                None => match Box::pin(acquire::open(p.worker, endpoint, picked.as_ref(), upgrade)).await {
                    Ok(up) => up,
                    Err(failure) if failure.cause == Cause::WentAway && went_away < WENT_AWAY => {
                        went_away += 1;
                        continue;
                    }
                    Err(failure) => return Err(Failed { failure, repeatable: true }),
                },
            };
            match converse(p, endpoint, up).await {
                Ok(Conversed { up, framing, request, request_dead, lasts, lease }) => {
                    let Some(picked) = picked.take() else {
                        return Err(Failed { failure: Failure::sent(Cause::Closed), repeatable: false });
                    };
                    return Ok(Answer { up, endpoint, picked, framing, request, request_dead, lasts, lease });
                }
                Err(failed)
                    if failed.repeatable
                        && failed.failure.cause == Cause::WentAway
                        && went_away < WENT_AWAY =>
                {
                    went_away += 1;
                }
                // A pooled connection that the server had already given up: the same server, a new one.
                Err(failed)
                    if was_reused
                        && failed.repeatable
                        && !matches!(failed.failure.cause, Cause::Removed | Cause::Refused)
                        && failed.failure.may_retry(is_idempotent(p.x.head.method()), true) =>
                {
                    fresh = true;
                }
                Err(failed) => return Err(failed),
            }
        }
    }
}

struct Conversed {
    up: Up,
    framing: Framing,
    request: Pump,
    request_dead: bool,
    lasts: Option<Duration>,
    lease: Lease,
}

/// Sends the request and waits for the head of the final answer.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` holds each argument twice")]
fn converse<D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    endpoint: &Arc<Endpoint>,
    mut up: Up,
) -> impl Future<Output = Result<Conversed, Failed>> {
    async move {
        let Passage { worker, connection, x, down, framing, patience, .. } = p;
        let has_body = framing.has_body();
        up.begin(&mut x.head, *framing, endpoint)
            .map_err(|cause| Failed { failure: Failure::unsent(cause), repeatable: true })?;
        // For a server that leaves requests out (RFC 9113 section 8.7), or a method that may be repeated.
        let keeps = matches!(up, Up::H2(_)) || is_idempotent(x.head.method()) || !x.kept.is_empty();
        let mut request = match has_body && keeps {
            true => Pump::keeping(std::mem::take(&mut x.kept)),
            false => Pump::default(),
        };
        let mut request_dead = false;
        let mut deadline = Deadline::default();
        let mut expects_continue = has_body && lb_http1::expects_continue(&x.head);
        if expects_continue {
            deadline.set(Instant::now(), Some(CONTINUE_TIMEOUT));
        } else if has_body {
            deadline.set_at(patience.read_by);
        }
        let mut lease = Lease::new(worker, connection.slot);
        let mut waiting = false;
        let mut interim_bytes = 0;
        let status = poll_fn(|cx| {
            loop {
                if !request.is_done() && !request_dead {
                    match request.poll(cx, &mut **down, &mut up) {
                        Poll::Ready(Ok(())) | Poll::Pending => {}
                        Poll::Ready(Err(PumpError::Source(error))) => {
                            return Poll::Ready(Err(failure::client_body(&error)));
                        }
                        // The server may have answered before it closed; that answer counts.
                        Poll::Ready(Err(PumpError::Sink)) => request_dead = true,
                    }
                }
                if expects_continue && request.bytes > 0 {
                    // The client did not wait.
                    expects_continue = false;
                    deadline.set_at(patience.read_by);
                }
                if (request.is_done() || request_dead) && !waiting {
                    waiting = true;
                    deadline.clear();
                    if let Some(timeout) = endpoint.transport.settings.response_header_timeout {
                        deadline.set(Instant::now(), Some(timeout));
                    }
                }
                match up.poll_head(cx, &mut x.response, &x.head) {
                    Poll::Ready(Ok(found)) => {
                        let status = x.response.status();
                        if status == 101 && !(request.is_done() && may_switch(&x.head, &x.response)) {
                            tracing::debug!("a server switches protocols unasked");
                            return Poll::Ready(Err(Failure::sent(Cause::Malformed)));
                        }
                        if !(100..200).contains(&status) || status == 101 {
                            return Poll::Ready(Ok(found));
                        }
                        interim_bytes += wire_size(&x.response);
                        if interim_bytes > crate::http::RESPONSE_LIMITS.max_head_bytes {
                            tracing::debug!("a server sends interim answers without end");
                            return Poll::Ready(Err(Failure::sent(Cause::Malformed)));
                        }
                        if status == 100 && expects_continue {
                            expects_continue = false;
                            deadline.set_at(patience.read_by);
                        }
                        // RFC 9110 section 15.2: interim answers go on to the client.
                        lb_http1::remove_hop_by_hop(&mut x.response);
                        x.response.remove("content-length");
                        let _ = down.inform(&x.response);
                        x.response.clear();
                        continue;
                    }
                    Poll::Ready(Err(failure)) => {
                        let untold = request_dead && !failure.unsent;
                        return Poll::Ready(Err(if untold { Failure::sent(Cause::Closed) } else { failure }));
                    }
                    Poll::Pending => {}
                }
                if down.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Failure::sent(Cause::ClientGone)));
                }
                if lease.poll_over(cx, endpoint).is_ready() {
                    return Poll::Ready(Err(Failure::sent(Cause::Removed)));
                }
                if deadline.poll(cx).is_ready() {
                    if waiting {
                        return Poll::Ready(Err(Failure::sent(Cause::HeadTimeout)));
                    }
                    if expects_continue {
                        expects_continue = false;
                        deadline.set_at(patience.read_by);
                        let mut head = Head::new();
                        head.set_status(100);
                        let _ = down.inform(&head);
                        continue;
                    }
                    return Poll::Ready(Err(Failure::sent(Cause::ClientTimeout)));
                }
                return Poll::Pending;
            }
        })
        .await;
        // Whoever fails afterwards, this much has come.
        p.outcome.request_bytes = request.bytes;
        match status {
            Ok((framing, lasts)) => {
                request.keep_no_more();
                Ok(Conversed { up, framing, request, request_dead, lasts, lease })
            }
            Err(failure) => {
                let failure = Failure { body_begun: request.bytes > 0, ..failure };
                let kept = request.into_kept();
                // What an interim answer has said may be said again by another server, but not without end.
                let harmless = failure.cause == Cause::Closed && is_idempotent(x.head.method());
                let repeatable = (interim_bytes == 0 || harmless) && (!failure.body_begun || kept.is_some());
                x.kept = kept.unwrap_or_default();
                // The part of a head that has come is not the beginning of another server's.
                x.response.clear();
                Err(Failed { failure, repeatable })
            }
        }
    }
}

/// Sends on what there is of the request's body, while somebody wants it. The end, if it is one for the answer as well.
fn send_request<D: Downstream>(
    cx: &mut Context<'_>,
    request: &mut Pump,
    request_dead: &mut bool,
    down: &mut D,
    up: &mut Up,
) -> Option<Delivered> {
    if request.is_done() || *request_dead {
        return None;
    }
    match request.poll(cx, down, up) {
        Poll::Ready(Err(PumpError::Source(error))) => {
            let slow = error.kind() == io::ErrorKind::TimedOut;
            Some(if slow { Delivered::ClientSlow } else { Delivered::ClientGone })
        }
        Poll::Ready(Err(PumpError::Sink)) => {
            *request_dead = true;
            None
        }
        Poll::Ready(Ok(())) | Poll::Pending => None,
    }
}

/// Bytes of an interim answer, about: all those before one final answer are limited as one head is.
fn wire_size(head: &Head) -> usize {
    const STATUS_LINE: usize = 32;
    head.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() + STATUS_LINE
}

/// What tells a tunnel that its server is gone.
pub(crate) type Held = (Lease, Arc<Endpoint>);

/// How the copy of an answer's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    Whole,
    /// The server broke off.
    Truncated,
    ClientGone,
    /// The entry point's `readTimeout` or `writeTimeout` is over, or its `limits.minBodyRate` not kept.
    ClientSlow,
    /// A reload removed the server, and its `drainTimeout` is over.
    ServerRemoved,
}

impl Answer<'_> {
    /// Copies the body of the answer to the client, and what is left of the request to the server.
    /// Returns the bytes delivered as well.
    pub(crate) async fn deliver<D: Downstream>(
        &mut self,
        down: &mut D,
        patience: Patience,
    ) -> (Delivered, u64) {
        let mut response = Pump::default();
        let mut deadline = Deadline::default();
        let Self { up, endpoint, request, request_dead, lease, .. } = self;
        let delivered = poll_fn(|cx| {
            if let Some(ended) = send_request(cx, request, request_dead, down, up) {
                return Poll::Ready(ended);
            }
            match response.poll(cx, up, down) {
                Poll::Ready(Ok(())) => Poll::Ready(Delivered::Whole),
                Poll::Ready(Err(PumpError::Source(error))) => {
                    tracing::debug!(%error, "the server broke its answer off");
                    Poll::Ready(Delivered::Truncated)
                }
                Poll::Ready(Err(PumpError::Sink)) => Poll::Ready(Delivered::ClientGone),
                Poll::Pending => {
                    if down.poll_gone(cx).is_ready() {
                        return Poll::Ready(Delivered::ClientGone);
                    }
                    if lease.poll_over(cx, endpoint).is_ready() {
                        return Poll::Ready(Delivered::ServerRemoved);
                    }
                    let read_by = patience.read_by.filter(|_| !request.is_done() && !*request_dead);
                    deadline.set_at(patience.write_by.into_iter().chain(read_by).min());
                    deadline.poll(cx).map(|()| Delivered::ClientSlow)
                }
            }
        })
        .await;
        (delivered, response.bytes)
    }

    /// The first bytes of the body, as soon as there are some; empty without any, or none within the time that they may
    /// take. Meanwhile the server goes on getting what is left of the request.
    ///
    /// # Errors
    /// The answer ended, and how.
    pub(crate) async fn first_bytes<D: Downstream>(
        &mut self,
        down: &mut D,
        within: Duration,
    ) -> Result<&[u8], Delivered> {
        let Self { up, endpoint, request, request_dead, lease, .. } = self;
        let begun = poll_fn(|cx| {
            if let Some(ended) = send_request(cx, request, request_dead, down, up) {
                return Poll::Ready(Err(ended));
            }
            match up.poll_fill(cx) {
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Delivered::Truncated)),
                Poll::Pending if down.poll_gone(cx).is_ready() => Poll::Ready(Err(Delivered::ClientGone)),
                Poll::Pending => lease.poll_over(cx, endpoint).map(|()| Err(Delivered::ServerRemoved)),
            }
        });
        // In vain is no failure: whoever delivers the body goes on waiting.
        tokio::time::timeout(within, begun).await.unwrap_or(Ok(()))?;
        Ok(self.up.data())
    }

    /// Gives the server's connection back for the next request, if nothing of this one is left on it.
    pub(crate) fn release(self, worker: &Worker, client: &Connection) {
        let Self { up, endpoint, picked, request, lasts, .. } = self;
        if let Up::H1(connection) = up
            && let Some(lasts) = lasts
            && request.is_done()
            && connection.is_reusable()
        {
            let (outages, now) = (picked.server().outages(), Instant::from_std(worker.recently()));
            match client.private.get() {
                Some(private) => private.give(endpoint, outages, (connection, lasts), now),
                None => worker.pools.give(endpoint, outages, (connection, lasts), now),
            }
        }
    }

    /// Lets go of an answer that the client does not get: the connection is kept where the rest of the body has come.
    pub(crate) fn discard(mut self, worker: &Worker, client: &Connection) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut left = MOST_DISCARDED;
        loop {
            match self.up.poll_fill(&mut cx) {
                Poll::Ready(Ok(Fill::End)) => return self.release(worker, client),
                Poll::Ready(Ok(Fill::Data)) if self.up.data().len() <= left => {
                    let count = self.up.data().len();
                    left -= count;
                    self.up.consume(count);
                }
                _ => return,
            }
        }
    }

    /// Trailers of the answer, once its body was read.
    pub(crate) fn up_trailers(&self) -> Option<&Head> {
        self.up.trailers()
    }

    /// Nothing that the server sent is still to be passed on.
    pub(crate) fn is_passed_on(&self) -> bool {
        self.up.data().is_empty()
    }

    /// The server's connection after a 101, and what has to live as long.
    pub(crate) fn into_tunnel(self) -> Option<(Box<H1>, Picked, Held)> {
        match self.up {
            Up::H1(connection) => Some((connection, self.picked, (self.lease, Arc::clone(self.endpoint)))),
            Up::H2(_) => None,
        }
    }
}
