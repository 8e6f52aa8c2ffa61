//! HTTP/3 from clients: one connection, a task for each stream.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_http1::{Framing, Head};
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::time::{Instant, timeout};

use super::frame::{Code, Frames};
use super::link::{Fault, Link, protocol};
use super::qpack::SectionError;
use super::stream::{Begun, H3Sink, H3Source};
use super::words::Words;
use super::{control, convert};
use crate::deadline::Deadline;
use crate::entrypoint::Connection;
use crate::http::body::{Fill, Sink, Source};
use crate::http::downstream::Downstream;
use crate::http::h1::H1;
use crate::http::h1_serve::{LAME_DUCK, head_timeout};
use crate::http::handle::handle;
use crate::http::normalise::without_aliases;
use crate::http::pace::{Pace, too_slow};
use crate::http::streams::{EARLY, Open, admit, framing, has_no_body, is_worn, linger, refuse};
use crate::worker::{Watch, Worker};

/// Above every stream of a client: a GOAWAY that refuses none yet (RFC 9114 section 5.2).
const NO_STREAM_YET: u64 = (1 << 62) - 4;
/// While a request is under way the client is asked this often whether it is still there: either side gives up a silent
/// connection, and an answer may take long. Chosen; less than any client's idle timeout that is in use. More often where
/// `idleTimeout` is short.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long requests that were sent before GOAWAY came are still taken: two round trips, but as long as over HTTP/1.1 and
/// no longer than this. Chosen.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// For a stream that everybody gives room for.
const SAYING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may wait for its acknowledgement, at the least; see `listen::LEAST_STALL`.
const LEAST_STALL: Duration = Duration::from_secs(60);

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOAWAY is said: what the client sent before it knew is served.
    Leaving,
    /// From this stream on requests are rejected, so that the client repeats them elsewhere.
    Closing(u64),
}

enum Event {
    Stream(Result<(SendStream, RecvStream), ConnectionError>),
    /// The client has closed our control stream.
    Deaf,
    Quiet,
    Leave,
    Over,
    Time,
}

pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    quic: quinn::Connection,
    mut watch: Watch,
) {
    let link = Rc::new(Link::new(worker, connection, quic));
    let worker = &link.worker;
    let config = &link.connection.entry.config;
    let idle = config.idle_timeout;
    let keep_alive = idle.map_or(KEEP_ALIVE, |idle| KEEP_ALIVE.min(idle / 3));
    // RFC 9114 section 6.2: every client gives room for it.
    let Ok(Ok(words)) = timeout(SAYING_TIMEOUT, link.quic.open_uni()).await else {
        link.fail(protocol(Code::StreamCreationError));
        return;
    };
    let mut words = Words::new(words, config.http.max_header_bytes);
    tokio::task::spawn_local(control::serve(Rc::clone(&link)));
    let opened = Instant::now();
    let mut worn = false;
    let mut phase = Phase::Open;
    let mut next_stream = 0;
    let mut deadline = Deadline::default();
    deadline.set(opened, idle);
    let mut accept = pin!(link.quic.accept_bi());
    let mut quiet = pin!(link.ended.notified());
    loop {
        let event = poll_fn(|cx| {
            watch.register(cx.waker());
            if worker.is_over() {
                return Poll::Ready(Event::Over);
            }
            if phase == Phase::Open && (worn || worker.is_draining()) {
                return Poll::Ready(Event::Leave);
            }
            if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
                return Poll::Ready(Event::Stream(accepted));
            }
            if words.poll(cx).is_ready() {
                return Poll::Ready(Event::Deaf);
            }
            if quiet.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Quiet);
            }
            deadline.poll(cx).map(|()| Event::Time)
        })
        .await;
        let busy = link.tally.open() > 0;
        match (event, phase) {
            (Event::Stream(Err(error)), _) => {
                lost(&link, &error);
                break;
            }
            (Event::Deaf, _) => {
                // RFC 9114 section 6.2.1.
                link.fail(protocol(Code::ClosedCriticalStream));
                break;
            }
            (Event::Stream(Ok((mut send, mut recv))), Phase::Closing(from)) if id(&send) >= from => {
                accept.set(link.quic.accept_bi());
                // RFC 9114 section 5.2; it fails where the client was faster.
                let _ = send.reset(Code::RequestRejected.into());
                let _ = recv.stop(Code::RequestRejected.into());
            }
            (Event::Stream(Ok((send, recv))), _) => {
                accept.set(link.quic.accept_bi());
                next_stream = next_stream.max(id(&send) + 4);
                if !busy && phase == Phase::Open {
                    deadline.set(Instant::now(), Some(keep_alive));
                }
                worn = is_worn(config, next_stream / 4, opened);
                let (link, guard) = (Rc::clone(&link), Open::new(&link.tally));
                // Boxed here: on its way into a task a future is copied several times, and this one is large.
                tokio::task::spawn_local(Box::pin(stream(link, guard, send, recv)));
            }
            (Event::Quiet, _) => {
                quiet.set(link.ended.notified());
                match phase {
                    Phase::Closing(_) if !busy => break,
                    Phase::Open if !busy => deadline.set(Instant::now(), idle),
                    _ => {}
                }
            }
            (Event::Time, Phase::Open | Phase::Closing(_)) if busy => {
                words.nothing();
                deadline.set(Instant::now(), Some(keep_alive));
            }
            (Event::Leave, _) | (Event::Time, Phase::Open) => {
                phase = Phase::Leaving;
                words.goaway(NO_STREAM_YET);
                let patience = (2 * link.quic.rtt()).clamp(LAME_DUCK, LAST_REQUESTS);
                deadline.set(Instant::now(), Some(patience));
            }
            (Event::Time, Phase::Leaving) if busy => {
                phase = Phase::Closing(next_stream);
                words.goaway(next_stream);
                deadline.set(Instant::now(), Some(keep_alive));
            }
            (Event::Time, Phase::Leaving | Phase::Closing(_)) | (Event::Over, _) => break,
        }
    }
    link.quic.close(Code::NoError.into(), b"");
    // What drives the connection has to say that before this thread may end.
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

fn id(stream: &SendStream) -> u64 {
    quinn::VarInt::from(stream.id()).into_inner()
}

/// The connection has ended by itself.
fn lost(link: &Link, error: &ConnectionError) {
    if let ConnectionError::TransportError(_) = error {
        link.worker.refused(
            &link.connection,
            "quic_protocol",
            format_args!("QUIC connection ended by an error: {error}"),
        );
    }
}

/// One stream, to the acknowledgement of its answer: until then the connection must not be closed.
async fn stream(link: Rc<Link>, guard: Open, send: SendStream, recv: RecvStream) {
    let opened = Instant::now();
    let source = H3Source::new(Frames::new(recv), Rc::clone(&link));
    let sink = H3Sink::new(send);
    let (reset, acknowledged) = serve_stream(&link, source, sink).await;
    if let Some(acknowledged) = acknowledged {
        let idle = link.connection.entry.config.idle_timeout;
        let _ = timeout(idle.unwrap_or(LEAST_STALL).max(LEAST_STALL), acknowledged).await;
    }
    guard.close(reset && opened.elapsed() < EARLY);
    if let Some(abuse) = link.tally.abuse() {
        link.fail(Fault(Code::ExcessiveLoad, abuse));
    }
    if link.tally.open() == 0 {
        link.ended.notify_one();
    }
}

type Stopped = Pin<Box<dyn Future<Output = bool>>>;

/// Returns whether the client gave the stream up, and what is ready once it has all of the answer.
async fn serve_stream(link: &Rc<Link>, mut source: H3Source, mut sink: H3Sink) -> (bool, Option<Stopped>) {
    let Link { worker, connection, .. } = &**link;
    let most = connection.entry.config.http.max_header_bytes;
    let patience = head_timeout(connection).unwrap_or(Duration::MAX);
    let section = match timeout(patience, source.head(most)).await {
        Ok(Some(begun)) => begun,
        Ok(None) => {
            sink.reset(Code::RequestIncomplete);
            return (true, None);
        }
        Err(_) => {
            worker.metrics.refused(connection.entry.label, "head_timeout");
            source.stop(Code::RequestIncomplete);
            sink.reset(Code::RequestIncomplete);
            return (false, None);
        }
    };
    let mut x = worker.exchange(&connection.peer);
    let read = match section {
        Begun::Refused(status, reason) => Err((status, reason)),
        Begun::Section(section) => match convert::request_head(&section, most, &mut x.head) {
            Ok(true) => Ok(()),
            Ok(false) => Err((400, "http3_malformed")),
            Err(SectionError::TooLarge) => Err((431, "head_too_large")),
            Err(SectionError::Broken) => {
                link.fail(protocol(Code::DecompressionFailed));
                worker.give_exchange(x);
                return (false, None);
            }
        },
    };
    let held = link.tally.hold(x.head.memory_bytes());
    let admitted = match read {
        Err(refusal) => Err(refusal),
        Ok(()) if held.is_none() => Err((431, "http3_large_heads")),
        Ok(()) => {
            let ends = has_no_body(&x.head, |cx| source.poll_bodiless(cx)).await;
            let framing = framing(&mut x.head, ends);
            admit(&x.head, framing)
        }
    };
    let least = connection.entry.least;
    let mut client = Client {
        is_head: x.head.method() == "HEAD",
        gone: Gone::Unknown(None),
        sends: match admitted {
            Ok(Framing::Length(length)) => {
                source.expect(Some(length));
                Pace::new(least)
            }
            // Without a length it may be a conversation, in which both are silent when they like.
            _ => Pace::default(),
        },
        takes: Pace::new(least),
        source,
        sink,
        link,
    };
    let whole = match admitted {
        Ok(framing) => handle(worker, connection, &mut x, &mut client, framing).await,
        Err(refusal) => refuse(worker, connection, &mut x, &mut client, refusal).await,
    };
    worker.give_exchange(x);
    drop(held);
    if whole && !client.source.has_ended() {
        // Nobody waits for the rest.
        client.sends = Pace::default();
        Box::pin(linger(&mut client)).await;
    }
    // RFC 9114 section 4.1: the rest of the request is not wanted, the answer stands.
    client.source.stop(Code::NoError);
    let acknowledged = client.sink.is_whole().then(|| client.sink.stopped());
    (client.gone.is_known(), acknowledged)
}

/// Whether the client still wants its answer.
enum Gone {
    Unknown(Option<Stopped>),
    /// It has all of it.
    Served,
    Known,
}

impl Gone {
    fn is_known(&self) -> bool {
        matches!(self, Self::Known)
    }
}

/// The client of one stream.
struct Client<'a> {
    source: H3Source,
    sink: H3Sink,
    is_head: bool,
    gone: Gone,
    link: &'a Link,
    sends: Pace,
    takes: Pace,
}

impl Source for Client<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let filled = self.source.poll_fill(cx);
        let filled = self.sends.watch(cx, filled);
        if self.sends.is_over() {
            too_slow(&self.link.worker, &self.link.connection, "slow_body");
            return filled;
        }
        if matches!(filled, Poll::Ready(Err(_))) {
            self.gone = Gone::Known;
        }
        filled
    }

    fn data(&self) -> &[u8] {
        self.source.data()
    }

    fn consume(&mut self, count: usize) {
        self.sends.moved(count);
        self.source.consume(count);
    }

    fn trailers(&self) -> Option<&Head> {
        let http = &self.link.connection.entry.config.http;
        without_aliases(self.source.trailers(), http.alias_headers, http.only_underscores)
    }
}

impl Sink for Client<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.sink.poll_send(cx, data);
        if let Poll::Ready(Ok(count)) = sent {
            self.takes.moved(count);
        }
        self.taking(cx, sent)
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        self.sink.finish(trailers, self.link.most_section.get())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.sink.poll_flush(cx);
        self.taking(cx, flushed)
    }
}

impl Client<'_> {
    /// Watches how the client takes the answer.
    fn taking<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let sent = self.takes.watch(cx, sent);
        if self.takes.is_over() {
            too_slow(&self.link.worker, &self.link.connection, "slow_reader");
            self.link.tally.stalled();
        }
        sent
    }
}

impl Downstream for Client<'_> {
    fn respond(&mut self, head: &mut Head, framing: Framing) -> io::Result<()> {
        let ends = self.is_head || framing == Framing::Empty;
        let queued = self.sink.respond(head, (!ends).then_some(framing), self.link.most_section.get());
        if queued.is_err() {
            tracing::debug!(client = %self.link.connection.client, status = head.status(),
                "an answer is cut off: its head is larger than the client takes");
        }
        queued
    }

    fn inform(&mut self, head: &Head) -> io::Result<()> {
        // One that the client does not take is left out: the answer does not need it.
        match self.sink.head(head, self.link.most_section.get()) {
            Ok(()) => self.sink.try_flush(),
            Err(_) => Ok(()),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let stopped = match &mut self.gone {
                Gone::Known => return Poll::Ready(()),
                Gone::Served => return Poll::Pending,
                Gone::Unknown(stopped) => stopped.get_or_insert_with(|| self.sink.stopped()),
            };
            self.gone = match std::task::ready!(stopped.as_mut().poll(cx)) {
                true => Gone::Known,
                false => Gone::Served,
            };
        }
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        None
    }

    fn abort(&mut self) {
        self.sink.reset(if self.takes.is_over() { Code::ExcessiveLoad } else { Code::InternalError });
    }
}
