//! Replaces an answer by a page of another service, for `errors`.

use std::borrow::Cow;
use std::mem;

use lb_http1::{Framing, Head};

use super::asking::Asking;
use super::compose::Walk;
use super::downstream::Downstream;
use super::handle::{Passed, Reply, answered};
use super::replay::Replay;
use super::traced;
use crate::composite::Node;
use crate::exchange::Exchange;
use crate::forward;
use crate::middleware::Errors;
use crate::passage::Passage;

/// A request before anything behind the middleware saw it.
pub(super) struct Before {
    asked: Head,
    detect_type: bool,
    /// Spans that are open.
    outer: usize,
}

impl Before {
    pub(super) fn of(x: &Exchange) -> Self {
        Self { asked: x.head.clone(), detect_type: x.detect_type, outer: traced::outer(x) }
    }
}

/// `passed` as the client gets it.
pub(super) async fn replace<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    errors: &'r Errors,
    before: &Before,
    passed: Passed<'r>,
) -> Passed<'r> {
    let original = p.x.response.status();
    let status = errors.replaces(&p.x.response).filter(|_| !matches!(passed.reply, Reply::Gone));
    let Some(status) = status else { return passed };
    let Passed { reply, reached, failure } = passed;
    let replaced = p.outcome.asked.map(|_| p.x.replaced.unwrap_or((original, reply.body_bytes())));
    reply.discard(p);
    p.x.drop_answer();
    p.x.replaced = replaced;
    p.x.detect_type = before.detect_type;
    traced::leave(p.x, before.outer);
    let page = errors.request(&before.asked, p.x.peer.secure, status, original);
    let reply = Box::pin(show(p, errors, page, status)).await;
    Passed { reply, reached, failure }
}

/// Asks for the page, as if the client had, and puts everything back in its place but the answer.
async fn show<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    errors: &'r Errors,
    page: Head,
    status: u16,
) -> Reply<'r> {
    let request = mem::replace(&mut p.x.head, page);
    let kept = (mem::take(&mut p.x.tried), mem::take(&mut p.x.tries), p.x.append_forwarded_for);
    p.x.append_forwarded_for = false;
    let composed = mem::take(&mut p.x.composed);
    let request_bytes = p.outcome.request_bytes;
    let reply = ask(p, errors).await;
    p.x.composed = composed;
    (p.x.tried, p.x.tries, p.x.append_forwarded_for) = kept;
    p.x.head = request;
    p.outcome.request_bytes = request_bytes;
    errors.count(if matches!(reply, Reply::Answer(_)) { "served" } else { "failed" });
    if matches!(reply, Reply::Gone) {
        return reply;
    }
    // The page may have been one without a body, and so may what the client gets: no length is to promise one.
    let bodyless = matches!(status, 204 | 304);
    if bodyless || matches!(p.x.response.status(), 204 | 304) {
        p.x.response.remove("content-length");
    }
    p.x.response.set_status(status);
    match reply {
        Reply::Answer(answer) if bodyless || p.x.head.method() == "HEAD" => {
            answer.discard(p.worker, p.connection);
            Reply::Local(Cow::Borrowed(b""))
        }
        Reply::Local(body) => {
            if status != 503 {
                p.x.response.remove("retry-after");
            }
            Reply::Local(if bodyless { Cow::Borrowed(b"") } else { body })
        }
        reply => reply,
    }
}

/// Sends the request for the page, which has no body.
async fn ask<'r, D: Downstream>(p: &mut Passage<'_, 'r, D>, errors: &'r Errors) -> Reply<'r> {
    let mut asking = Asking::new(&mut *p.down, &[]);
    let mut down = Replay::new(&mut asking);
    let Passage { worker, connection, patience, .. } = *p;
    let (x, outcome) = (&mut *p.x, &mut *p.outcome);
    let framing = Framing::Empty;
    let mut p = Passage { worker, connection, x, down: &mut down, framing, patience, outcome, renewed: None };
    match &errors.pages {
        Node::Service(pages) => {
            pages.retries.budget.deposit(worker.now());
            let called = forward::call(&mut p, pages).await;
            answered(&mut p, pages, called).0
        }
        pages => {
            let root = if let Node::Composite(pages) = pages { Some(pages) } else { None };
            Walk { router: "", reached: 0, root }.through(&mut p, pages).await.reply
        }
    }
}
