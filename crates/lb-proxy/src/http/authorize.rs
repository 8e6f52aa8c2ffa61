//! Asks the server of a `forwardAuth` whether a request may go on.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use lb_core::balance::Pick;
use lb_http1::Framing;

use super::asking::Asking;
use super::body::{Fill, Source};
use super::downstream::Downstream;
use super::local::Local;
use super::traced;
use crate::exchange::Exchange;
use crate::forward;
use crate::middleware::ForwardAuth;
use crate::passage::{Passage, Patience};
use crate::upstream::failure::Cause;

/// Traefik's, for all of it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the request ends here: the body of the answer, whose head is in [`Exchange::response`]. `None`: there is nobody
/// to answer to.
pub(super) type Refusal = Option<Cow<'static, [u8]>>;

enum Heard {
    /// A whole answer, with this body.
    Answer(Vec<u8>),
    TooLarge,
    Failed(&'static str),
    ClientGone,
}

/// Asks, with `body` as the request's. An auth server that cannot be asked lets nobody through.
pub(super) async fn authorize<D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    auth: &ForwardAuth,
    body: &[u8],
) -> Result<(), Refusal> {
    let worker = p.worker;
    let began = worker.now();
    let mut asked = worker.exchange(&p.x.peer);
    auth.question(p.x, &mut asked.head, body.len());
    // For the time being the trace is about this.
    asked.trace = p.x.trace.take();
    let depth = traced::depth(&asked);
    let heard = tokio::time::timeout(TIMEOUT, ask(p, auth, body, &mut asked)).await;
    let heard = heard.unwrap_or(Heard::Failed("timeout"));
    traced::give_up(worker, &mut asked, depth, 504);
    p.x.trace = asked.trace.take();
    let now = worker.now();
    let count = |outcome| auth.count(outcome, Some(now.saturating_duration_since(began)));
    let verdict = match heard {
        Heard::Answer(_) if (200..300).contains(&asked.response.status()) => {
            count("allowed");
            auth.grant(p.x, &asked.response);
            Ok(())
        }
        Heard::Answer(body) => {
            count("denied");
            let has_body = auth.deny(p.x, &mut asked.response, body.len());
            Err(Some(if has_body { body.into() } else { b"".into() }))
        }
        Heard::TooLarge => {
            count("too_large");
            traced::failed(p.x, "The auth server's answer is too large");
            Err(Some(refuse(p.x, 401)))
        }
        Heard::Failed(reason) => {
            count("error");
            traced::failed(p.x, "The auth server cannot be asked");
            auth.tell_failure(reason, now);
            Err(Some(refuse(p.x, 500)))
        }
        Heard::ClientGone => Err(None),
    };
    worker.give_exchange(asked);
    verdict
}

/// An answer of our own, without a body.
pub(super) fn refuse(x: &mut Exchange, status: u16) -> Cow<'static, [u8]> {
    let local = Local::bare(status);
    local.write_head(&mut x.response);
    local.body
}

async fn ask<D: Downstream>(
    p: &mut Passage<'_, '_, D>,
    auth: &ForwardAuth,
    body: &[u8],
    asked: &mut Exchange,
) -> Heard {
    let Passage { worker, connection, x, down, outcome, .. } = p;
    let pick = Pick { client: x.peer.ip, sticky: None, random: 0, tried: &[] };
    let mut down = Asking::new(&mut **down, body);
    let mut question = Passage {
        worker,
        connection,
        x: asked,
        down: &mut down,
        framing: if body.is_empty() { Framing::Empty } else { Framing::Length(body.len() as u64) },
        patience: Patience { read_by: None, write_by: None },
        outcome,
        renewed: None,
    };
    let endpoint = &auth.server.endpoint;
    let mut is_first = true;
    let mut answer = loop {
        let picked = auth.server.live.pick(&pick);
        traced::ask(worker, question.x, endpoint, None);
        let answer = forward::attempt(&mut question, endpoint, picked, false).await;
        traced::answered(worker, question.x, &answer);
        // What was sent of the body belongs to no server of the service.
        question.outcome.request_bytes = 0;
        match answer {
            Ok(answer) => break answer,
            Err(failed) if failed.failure.cause == Cause::ClientGone => return Heard::ClientGone,
            // A kept connection that the server was about to close: the body is still all there.
            Err(failed)
                if is_first
                    && matches!(failed.failure.cause, Cause::Closed | Cause::WentAway | Cause::Refused)
                    && (failed.failure.unsent || forward::is_idempotent(question.x.head.method())) =>
            {
                is_first = false;
                question.x.kept = Vec::new();
                question.down.rewind();
            }
            Err(failed) => return Heard::Failed(failed.failure.reason()),
        }
    };
    let most = auth.options.max_response_body_bytes;
    let mut kept = Vec::new();
    let read = poll_fn(|cx| {
        if question.down.poll_gone(cx).is_ready() {
            return Poll::Ready(Some(Heard::ClientGone));
        }
        loop {
            match ready!(answer.up.poll_fill(cx)) {
                Ok(Fill::End) => return Poll::Ready(None),
                Ok(Fill::Data) => {
                    let count = answer.up.data().len();
                    if count > most - kept.len() {
                        return Poll::Ready(Some(Heard::TooLarge));
                    }
                    kept.extend_from_slice(answer.up.data());
                    answer.up.consume(count);
                }
                Err(_) => return Poll::Ready(Some(Heard::Failed("truncated"))),
            }
        }
    })
    .await;
    if let Some(trouble) = read {
        return trouble;
    }
    answer.release(worker, connection);
    Heard::Answer(kept)
}
