//! `buffering`: the request's body is read to its end before a server gets it, the answer's before the client gets it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use lb_config::dynamic::{BodyLimits, Buffering};
use lb_core::resend::Answered;
use lb_http1::{Framing, Head};

use super::around::{asked, behind, keep_body, without_body};
use super::body::{Fill, Sink, Source};
use super::downstream::{Downstream, Unkept};
use super::h1::H1;
use super::handle::{self, Passed, Reply};
use super::local::{Local, decimal};
use super::replay::Replay;
use super::spool::Spool;
use crate::forward::{self, Answer, Delivered};
use crate::passage::Passage;
use crate::snapshot::Route;
use crate::upstream::failure::{Cause, Failure};

/// How often a request is sent again, as Traefik has it.
const MOST_RETRIES: u32 = 10;

/// What is behind the middleware at `at`, and what comes of it, whole.
pub(super) async fn buffered<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    (at, options): (usize, &Buffering),
) -> Passed<'r> {
    if let Err(lost) = keep_request(p, &options.request).await {
        return Passed { reply: lost.reply(p), reached: at, failure: None };
    }
    let is_idempotent = forward::is_idempotent(p.x.head.method());
    let saved = (options.retry.is_some() || is_idempotent).then(|| p.x.head.clone());
    let held = (p.x.permits.len(), p.x.breakers.len());
    let mut tries = 1;
    loop {
        let mut passed = behind(p, route, at + 1).await;
        let server =
            asked(p.x, p.outcome.route.unwrap_or(route)).and_then(|service| passed.reply.server(service));
        let broken_off = keep_answer(p, &mut passed, &options.response).await;
        let service = asked(p.x, p.outcome.route.unwrap_or(route)).map(Arc::clone);
        if let (Some(failure), Some(service), Some(endpoint)) = (broken_off, &service, p.outcome.endpoint)
            && failure.blames_server()
        {
            p.worker.upstream_failed(service, endpoint, failure);
        }
        let Some(saved) = &saved else { return passed };
        let status = p.x.response.status();
        let wanted = match (&options.retry, broken_off) {
            (Some(condition), _) => {
                condition.holds(&Answered { attempts: tries, status, method: saved.method() })
            }
            // The client has nothing of it: as good as one that has not begun (RFC 9110 section 9.2.2).
            (None, Some(failure)) => {
                server.into_iter().for_each(|server| p.x.tried_in_vain(server));
                failure.may_retry(is_idempotent, true)
                    && service.as_ref().is_some_and(|service| forward::has_another(p, service))
            }
            (None, None) => false,
        };
        let again = wanted
            && !matches!(passed.reply, Reply::Gone)
            && status != 101
            && tries <= MOST_RETRIES
            && service.is_none_or(|service| p.worker.may_retry(&service, p.x.tries, &status));
        if !again {
            return passed;
        }
        if let Some(server) = server {
            p.x.tried_in_vain(server);
        }
        passed.reply.discard(p);
        // As with `retry`: limits and breakers that are behind count each try for itself.
        p.x.settle(held, p.worker.now());
        tries += 1;
        p.x.head.clone_from(saved);
        p.x.drop_answer();
        p.down.rewind();
    }
}

/// Why there is no whole body.
enum Lost {
    RequestTooLarge,
    AnswerTooLarge,
    /// The client's body cannot be had.
    Request(Unkept),
    /// The client has left while the answer came.
    Gone,
    Server(Failure),
    /// The file cannot be written or read.
    File(io::Error),
}

impl Lost {
    /// What the client gets for it, the head included.
    fn reply<'r, D>(self, p: &mut Passage<'_, '_, D>) -> Reply<'r> {
        let status = match self {
            Self::Gone => return Reply::Gone,
            Self::Request(unkept) => {
                p.x.encode = None;
                return without_body(p, unkept).map_or(Reply::Gone, Reply::Local);
            }
            Self::RequestTooLarge => 413,
            Self::AnswerTooLarge => 500,
            Self::Server(failure) => failure.status(),
            Self::File(error) => {
                p.worker.cannot_keep(&error);
                500
            }
        };
        // It was about another body.
        p.x.encode = None;
        let local = Local::status_text(status);
        local.write_head(&mut p.x.response);
        Reply::Local(local.body)
    }
}

/// Reads the request's body, if that was not done already, and says how long it is.
async fn keep_request(p: &mut Passage<'_, '_, Replay<'_>>, limits: &BodyLimits) -> Result<(), Lost> {
    if !p.framing.has_body() {
        return Ok(());
    }
    let most = limits.max_bytes.unwrap_or(u64::MAX);
    if matches!(p.framing, Framing::Length(length) if length > most) {
        return Err(Lost::RequestTooLarge);
    }
    let fits = keep_body(p, limits.mem_bytes, most).await.map_err(Lost::Request)?;
    let length = p.down.ahead();
    p.outcome.request_bytes = length;
    if !fits {
        return Err(Lost::RequestTooLarge);
    }
    // All of it has come: how fast a server takes it is another matter.
    p.patience.read_by = None;
    if p.down.trailers().is_none() {
        // As by Traefik, servers get no chunks.
        p.framing = if length == 0 { Framing::Empty } else { Framing::Length(length) };
        p.x.head.remove("transfer-encoding");
        if length > 0 {
            let mut digits = [0; 20];
            p.x.head.set("Content-Length", decimal(length, &mut digits));
        }
    }
    Ok(())
}

/// Reads the answer's body into the reply; returns how it broke off, if its server has done that.
async fn keep_answer<D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    passed: &mut Passed<'_>,
    limits: &BodyLimits,
) -> Option<Failure> {
    let kept = match &mut passed.reply {
        Reply::Answer(answer) if p.x.response.status() != 101 && answer.framing.has_body() => {
            gather(p, answer, limits).await
        }
        // Another `buffering` behind this one has read it.
        Reply::Whole(whole) if limits.max_bytes.is_some_and(|most| whole.spool.len() > most) => {
            Err(Lost::AnswerTooLarge)
        }
        // As by Traefik, whoever has answered.
        Reply::Local(body) if limits.max_bytes.is_some_and(|most| body.len() as u64 > most) => {
            Err(Lost::AnswerTooLarge)
        }
        _ => return None,
    };
    match kept {
        Ok(whole) => {
            if let Reply::Answer(answer) = std::mem::replace(&mut passed.reply, Reply::Whole(Box::new(whole)))
            {
                answer.release(p.worker, p.connection);
            }
            None
        }
        Err(lost) => {
            let broken_off = if let Lost::Server(failure) = &lost { Some(*failure) } else { None };
            passed.failure = broken_off.or(passed.failure);
            if matches!(lost, Lost::AnswerTooLarge) && p.outcome.asked.is_some() {
                let answer = (p.x.response.status(), passed.reply.body_bytes());
                p.x.replaced.get_or_insert(answer);
            }
            passed.reply = lost.reply(p);
            broken_off
        }
    }
}

async fn gather<D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    answer: &mut Answer<'_>,
    limits: &BodyLimits,
) -> Result<Whole, Lost> {
    // So much at least, which tells the type of a body.
    let spool = Spool::new(limits.mem_bytes.max(lb_core::sniff::MOST_BYTES));
    let most = limits.max_bytes.unwrap_or(u64::MAX);
    if matches!(answer.framing, Framing::Length(length) if length > most) {
        return Err(Lost::AnswerTooLarge);
    }
    let mut gathering = Gathering { down: &mut *p.down, spool, trailers: None, most, lost: None };
    let (delivered, _) = answer.deliver(&mut gathering, p.patience).await;
    let Gathering { spool, trailers, lost, .. } = gathering;
    p.outcome.request_bytes = p.outcome.request_bytes.max(answer.request.bytes);
    if p.outcome.is_grpc {
        p.outcome.note_grpc(p.x, answer.up_trailers());
    }
    match (delivered, lost) {
        (Delivered::Whole, _) => {}
        (_, Some(lost)) => return Err(lost),
        (Delivered::Truncated, None) => return Err(Lost::Server(Failure::sent(Cause::Closed))),
        (Delivered::ServerRemoved, None) => return Err(Lost::Server(Failure::sent(Cause::Removed))),
        (Delivered::ClientGone | Delivered::ClientSlow, None) => return Err(Lost::Gone),
    }
    if trailers.is_some() {
        // RFC 9112 section 7.1.2: they come behind chunks only.
        p.x.response.remove("content-length");
    } else {
        let mut digits = [0; 20];
        p.x.response.set("Content-Length", decimal(spool.len(), &mut digits));
    }
    let service = Arc::clone(&answer.endpoint.service);
    Ok(Whole { spool, trailers, service, server: answer.picked.index() })
}

/// An answer's body, all of it.
pub(super) struct Whole {
    spool: Spool,
    trailers: Option<Head>,
    /// Whose server's, and the server's index.
    pub(super) service: Arc<str>,
    pub(super) server: usize,
}

impl Whole {
    pub(super) fn bytes(&self) -> u64 {
        self.spool.len()
    }

    pub(super) fn framing(&self) -> Framing {
        if self.trailers.is_some() { Framing::Chunked } else { Framing::Length(self.spool.len()) }
    }

    /// How the body begins; none of it is taken.
    pub(super) async fn first_bytes(&mut self) -> io::Result<&[u8]> {
        poll_fn(|cx| self.spool.poll_read(cx)).await?;
        Ok(self.spool.data())
    }
}

/// Sends an answer that was read to its end.
pub(super) async fn send<D: Downstream>(p: &mut Passage<'_, '_, D>, whole: &mut Whole) -> bool {
    let Passage { worker, connection, x, down, outcome, patience, .. } = p;
    outcome.status = x.response.status();
    handle::advertise(connection, x);
    if !x.response.contains("date") {
        worker.with_date(|date| x.response.append("Date", date.as_bytes()));
    }
    let (mut sent, mut unreadable) = (0, false);
    let sending = async {
        down.respond(&mut x.response, whole.framing())?;
        poll_fn(|cx| {
            while ready!(whole.spool.poll_read(cx)).inspect_err(|_| unreadable = true)? {
                let count = ready!(down.poll_send(cx, whole.spool.data()))?;
                whole.spool.consume(count);
                sent += count as u64;
            }
            Poll::Ready(down.finish(whole.trailers.as_ref()))
        })
        .await?;
        poll_fn(|cx| down.poll_flush(cx)).await
    };
    let result: io::Result<()> = match patience.write_by {
        Some(by) => tokio::time::timeout_at(by, sending).await.unwrap_or_else(|elapsed| Err(elapsed.into())),
        None => sending.await,
    };
    outcome.response_bytes = sent;
    if let Err(error) = &result {
        if unreadable {
            worker.cannot_keep(error);
        } else if error.kind() != io::ErrorKind::TimedOut {
            outcome.status = 499;
        }
        down.abort();
    }
    result.is_ok()
}

/// The client of an answer that it does not get yet.
struct Gathering<'a> {
    down: &'a mut dyn Downstream,
    spool: Spool,
    trailers: Option<Head>,
    most: u64,
    lost: Option<Lost>,
}

impl Gathering<'_> {
    fn lose<T>(&mut self, lost: Lost) -> Poll<io::Result<T>> {
        self.lost = Some(lost);
        Poll::Ready(Err(io::ErrorKind::Other.into()))
    }
}

impl Source for Gathering<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        self.down.poll_fill(cx)
    }

    fn data(&self) -> &[u8] {
        self.down.data()
    }

    fn consume(&mut self, count: usize) {
        self.down.consume(count);
    }

    fn trailers(&self) -> Option<&Head> {
        self.down.trailers()
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        self.down.read_ahead(cx);
    }
}

impl Sink for Gathering<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.spool.len() + data.len() as u64 > self.most {
            return self.lose(Lost::AnswerTooLarge);
        }
        match ready!(self.spool.poll_write(cx, data)) {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => self.lose(Lost::File(error)),
        }
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        self.trailers = trailers.cloned();
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.spool.poll_moved(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.lose(Lost::File(error)),
        }
    }
}

impl Downstream for Gathering<'_> {
    fn respond(&mut self, _: &mut Head, _: Framing) -> io::Result<()> {
        Ok(())
    }

    fn inform(&mut self, head: &Head) -> io::Result<()> {
        self.down.inform(head)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.down.poll_gone(cx)
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        None
    }

    fn abort(&mut self) {}
}
