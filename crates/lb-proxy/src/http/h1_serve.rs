//! HTTP/1.1 from clients: one connection, its requests one after the other.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_http1::{Framing, Head, Limits, Version};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::h1::{H1, ReadHead};
use super::handle::{SHED_RETRY_AFTER, handle};
use super::local::Local;
use super::normalise::without_aliases;
use super::pace::{Pace, too_slow};
use super::streams::is_worn;
use crate::deadline::Deadline;
use crate::entrypoint::Connection;
use crate::worker::{Watch, Worker};

/// A request's rest up to this size is read and thrown away to keep the connection (Go does the same).
const DISCARD_BYTES: u64 = 256 * 1024;
/// How long a closed connection is still read, so that the client sees the answer before a reset.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// A complete head must arrive in this time, or in the entry point's `readTimeout` when that is less.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// No longer head is waited for while memory is short: a buffer that has not grown. Chosen.
const LONG_HEAD: usize = crate::buffers::SMALL;
/// How long an idle connection is kept when draining begins. A request may be on its way already: closing at
/// once would lose it, and this lets it come and be told that the connection ends. Chosen.
pub(crate) const LAME_DUCK: Duration = Duration::from_millis(500);

/// How often to look whether a client is still there of which nothing more is read. Chosen.
const LOOKS: Duration = Duration::from_millis(250);

/// Serves requests until the connection ends.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` holds each argument twice")]
pub(crate) fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    mut h1: H1,
    mut watch: Watch,
) -> impl Future<Output = ()> {
    async move {
        let mut deadline = Deadline::default();
        let opened = Instant::now();
        let mut served = 0_u64;
        loop {
            let config = &connection.entry.config;
            // The end of a request has just looked at the clock.
            let (now, patience) = match served {
                0 => (opened, head_timeout(&connection)),
                _ => (Instant::from_std(worker.recently()), config.idle_timeout),
            };
            deadline.set(now, patience);
            if !idle(&worker, &mut watch, &mut h1, &mut deadline).await {
                break;
            }
            served += 1;
            let last = is_worn(&connection.entry.config, served, opened);
            // Boxed, so that an idle connection is no larger than what it waits for.
            let next = Box::pin(serve_one(&worker, &connection, &mut h1, &mut deadline, last)).await;
            match next {
                Next::Request => {}
                Next::Close => break,
                Next::Linger => {
                    Box::pin(linger(&mut h1)).await;
                    return;
                }
                Next::Abort => return,
            }
        }
        if !h1.ends_by_itself() {
            let _ = Box::pin(tokio::time::timeout(LINGER, poll_fn(|cx| h1.stream.poll_shutdown(cx)))).await;
        }
    }
}

pub(super) fn head_timeout(connection: &Connection) -> Option<Duration> {
    Some(connection.entry.config.read_timeout.map_or(HEAD_TIMEOUT, |timeout| timeout.min(HEAD_TIMEOUT)))
}

/// Waits for the next request; false when the connection is to be closed instead.
async fn idle(worker: &Worker, watch: &mut Watch, h1: &mut H1, deadline: &mut Deadline) -> bool {
    let mut ending = false;
    poll_fn(|cx| {
        watch.register(cx.waker());
        match h1.poll_idle(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(true),
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => {}
        }
        if worker.is_draining() && !ending {
            ending = true;
            deadline.set(Instant::now(), Some(LAME_DUCK));
        }
        if worker.sheds_one() {
            return Poll::Ready(false);
        }
        deadline.poll(cx).map(|()| false)
    })
    .await
}

/// What came of waiting for a head.
enum Waited {
    Read(Result<bool, ReadHead>),
    /// No whole head in time.
    InVain,
    /// Memory is too short for one so long.
    TooLong,
}

enum Next {
    Request,
    Close,
    /// Close, but read on for a while: the client is still sending.
    Linger,
    /// The client must notice that something is missing.
    Abort,
}

#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` holds each argument twice")]
fn serve_one(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    h1: &mut H1,
    deadline: &mut Deadline,
    last: bool,
) -> impl Future<Output = Next> {
    async move {
        let mut x = worker.exchange(&connection.peer);
        deadline.clear();
        let read = {
            let limits = Limits {
                max_head_bytes: connection.entry.config.http.max_header_bytes + 4096,
                max_fields: super::MAX_REQUEST_FIELDS,
            };
            let mut armed = false;
            poll_fn(|cx| {
                if let Poll::Ready(read) = h1.poll_head(cx, &mut x.head, &limits, lb_http1::parse_request) {
                    return Poll::Ready(Waited::Read(read));
                }
                // An idle connection holds less than a head that does not end.
                if h1.buffered().len() > LONG_HEAD && worker.is_shedding() {
                    return Poll::Ready(Waited::TooLong);
                }
                if !armed {
                    // Nearly every head is there at once and needs no deadline.
                    armed = true;
                    deadline.set(Instant::now(), head_timeout(connection));
                }
                deadline.poll(cx).map(|()| Waited::InVain)
            })
            .await
        };
        deadline.clear();
        let framing = match read {
            Waited::Read(Ok(true)) => {
                x.head.make_origin_form();
                lb_http1::request_framing(&mut x.head).map_err(|error| (error.status(), error.label()))
            }
            Waited::Read(Ok(false)) => return Next::Close,
            Waited::Read(Err(ReadHead::Malformed(error))) => Err((error.status(), error.label())),
            Waited::Read(Err(ReadHead::Io)) => return Next::Abort,
            Waited::Read(Err(ReadHead::Truncated)) => return Next::Close,
            Waited::InVain => Err((408, "head_timeout")),
            Waited::TooLong => Err((503, "memory_head")),
        };
        let framing = match framing {
            Ok(framing) => framing,
            Err((status, reason)) => {
                Box::pin(refuse(worker, connection, h1, status, reason)).await;
                worker.give_exchange(x);
                return Next::Linger;
            }
        };
        h1.expect_body(framing);
        let mut client = Client {
            worker,
            // What follows a CONNECT is meant for a tunnel: it is no request.
            close: last || !lb_http1::keep_alive(&x.head) || x.head.method() == "CONNECT",
            http10: x.head.version() == Version::Http10,
            is_head: x.head.method() == "HEAD",
            awaits_continue: framing.has_body() && lb_http1::expects_continue(&x.head),
            request: framing,
            aborted: false,
            answered: false,
            connection,
            sends: if framing.has_body() { Pace::new(connection.entry.least) } else { Pace::default() },
            takes: Pace::new(connection.entry.least),
            looks: None,
            h1,
        };
        let whole = handle(worker, connection, &mut x, &mut client, framing).await;
        let Client { close, aborted, .. } = client;
        worker.give_exchange(x);
        if aborted || !whole {
            return Next::Abort;
        }
        if !h1.body_is_read() {
            if close || !Box::pin(discard(h1)).await {
                return Next::Linger;
            }
            return Next::Request;
        }
        match close {
            false => Next::Request,
            true if h1.buffered().is_empty() => Next::Close,
            // Pipelined behind the last request: unread, it would reset the connection.
            true => Next::Linger,
        }
    }
}

/// Answers what is no request, and says the connection ends.
async fn refuse(worker: &Worker, connection: &Connection, h1: &mut H1, status: u16, reason: &'static str) {
    worker.refused(connection, reason, format_args!("request refused: {status}"));
    let text = lb_http1::standard_reason(status);
    let mut local = Local::bare(status)
        .with("Content-Type", "text/plain; charset=utf-8")
        .with("Connection", "close")
        .body(format!("{status} {text}").into_bytes());
    if status == 503 {
        local = local.with("Retry-After", SHED_RETRY_AFTER);
    }
    let mut head = Head::new();
    local.write_head(&mut head);
    h1.queue_head(&head, lb_http1::write_response, Framing::Empty);
    h1.queue(|output| output.extend_from_slice(&local.body));
    let _ = tokio::time::timeout(LINGER, poll_fn(|cx| h1.poll_flush(cx))).await;
}

/// Reads and drops what is left of a request; false when that is too much or takes too long.
pub(super) async fn discard(source: &mut impl Source) -> bool {
    let mut left = DISCARD_BYTES;
    let read = poll_fn(|cx| {
        loop {
            match std::task::ready!(source.poll_fill(cx)) {
                Ok(Fill::End) => return Poll::Ready(true),
                Ok(Fill::Data) => {
                    let count = source.data().len();
                    if count as u64 > left {
                        return Poll::Ready(false);
                    }
                    left -= count as u64;
                    source.consume(count);
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    });
    tokio::time::timeout(LINGER, read).await.unwrap_or(false)
}

/// Ends our side, then reads until the client ends its own: closing with unread bytes would reset
/// the connection and take the answer with it (RFC 9112 section 9.6).
async fn linger(h1: &mut H1) {
    h1.forget_input();
    let end = async {
        let _ = poll_fn(|cx| h1.stream.poll_shutdown(cx)).await;
        let mut scratch = vec![0; 4096];
        while let Ok(1..) = poll_fn(|cx| h1.stream.poll_read(cx, &mut scratch)).await {}
    };
    let _ = tokio::time::timeout(LINGER, end).await;
}

/// The client of one request.
struct Client<'a> {
    worker: &'a Worker,
    h1: &'a mut H1,
    request: Framing,
    close: bool,
    http10: bool,
    is_head: bool,
    /// The client holds its body back; after a final answer it may never send it.
    awaits_continue: bool,
    aborted: bool,
    answered: bool,
    connection: &'a Connection,
    sends: Pace,
    takes: Pace,
    /// When to look whether it is still there, once nothing it sends is read.
    looks: Option<Box<Interval>>,
}

impl Client<'_> {
    /// Watches how the client takes the answer.
    fn taking<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let polled = self.takes.watch(cx, polled);
        if self.takes.is_over() && polled.is_ready() {
            too_slow(self.worker, self.connection, "slow_reader");
        }
        polled
    }
}

impl Source for Client<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let filled = self.h1.poll_fill(cx);
        if self.awaits_continue {
            // It waits for us.
            return filled;
        }
        let filled = self.sends.watch(cx, filled);
        if self.sends.is_over() {
            too_slow(self.worker, self.connection, "slow_body");
        }
        filled
    }

    fn data(&self) -> &[u8] {
        self.h1.data()
    }

    fn consume(&mut self, count: usize) {
        // It has not waited.
        self.awaits_continue = false;
        self.sends.moved(count);
        self.h1.consume(count);
    }

    fn trailers(&self) -> Option<&Head> {
        let http = &self.connection.entry.config.http;
        without_aliases(self.h1.trailers(), http.alias_headers, http.only_underscores)
    }
}

impl Sink for Client<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.h1.poll_send(cx, data);
        if let Poll::Ready(Ok(count)) = sent {
            self.takes.moved(count);
        }
        self.taking(cx, sent)
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        self.h1.finish(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.h1.poll_flush(cx);
        self.taking(cx, flushed)
    }
}

impl Downstream for Client<'_> {
    fn respond(&mut self, head: &mut Head, framing: Framing) -> io::Result<()> {
        self.answered = true;
        let framing = match framing {
            // RFC 9112 section 7.1: HTTP/1.0 knows no chunks; the end of the connection ends the body.
            Framing::Chunked | Framing::UntilClose if self.http10 => Framing::UntilClose,
            Framing::UntilClose if head.status() != 101 => Framing::Chunked,
            framing => framing,
        };
        if head.status() == 101 {
            self.h1.queue_head(head, lb_http1::write_response, Framing::UntilClose);
            return Ok(());
        }
        if framing == Framing::UntilClose {
            self.close = true;
        }
        let may_have_body = !self.is_head && !matches!(head.status(), 204 | 304);
        if framing == Framing::Empty && may_have_body && !head.contains("content-length") {
            // HTTP/2 has other ways to say so: here it would last until the connection ends.
            head.append("Content-Length", b"0");
        }
        let discardable = matches!(self.request, Framing::Length(0..=DISCARD_BYTES)) && !self.awaits_continue;
        if !self.h1.body_is_read() && !discardable {
            self.close = true;
        }
        if framing == Framing::Chunked && !self.is_head {
            head.append("Transfer-Encoding", b"chunked");
        }
        if self.request == Framing::Chunked {
            // Both may now say something when they like.
            self.sends = Pace::default();
        }
        // Our own, which say so: a server's is about its connection and not about this one. And memory that is short is
        // not kept for who has just been refused.
        self.close |= (matches!(head.status(), 408 | 421) && head.contains("connection"))
            || (head.status() == 503 && self.worker.is_shedding());
        // Asked as late as possible: draining may have begun while the server worked.
        self.close |= self.worker.is_draining();
        if self.close {
            head.set("Connection", b"close");
        } else if self.http10 {
            head.set("Connection", b"keep-alive");
        }
        let framing = if self.is_head { Framing::Empty } else { framing };
        self.h1.queue_head(head, lb_http1::write_response, framing);
        Ok(())
    }

    fn inform(&mut self, head: &Head) -> io::Result<()> {
        self.awaits_continue &= head.status() != 100;
        // RFC 9110 section 15.2: HTTP/1.0 clients know no interim answers.
        if !self.http10 {
            self.h1.queue(|output| lb_http1::write_response(head, output));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // What does not go at once goes with the rest.
            let _ = self.h1.poll_flush(&mut cx);
        }
        Ok(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closed = self.h1.poll_closed(cx);
        if closed.is_ready() || !self.h1.is_full() {
            return closed;
        }
        // The server does not take what is there, and so nobody reads on to the end.
        let looks = self.looks.get_or_insert_with(|| {
            let mut looks = Box::new(tokio::time::interval(LOOKS));
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            looks
        });
        while looks.poll_tick(cx).is_ready() {
            if self.h1.is_broken_off(self.answered) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        Some(self.h1)
    }

    fn abort(&mut self) {
        self.aborted = true;
        // What came of the answer goes out, so that the client sees it broken off rather than never begun.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.h1.poll_flush(&mut cx);
        if self.h1.ends_by_close() || self.takes.is_over() {
            // An orderly end would make the part look whole: RFC 9112 section 8. And what nobody takes is not kept
            // by the system either.
            self.h1.stream.reset_on_drop();
        }
    }
}
