//! HTTP/2 from clients: one connection, a task for each stream.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::Request;
use lb_http1::{Framing, Head};
use tokio::time::Instant;

use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::h1::H1;
use super::h1_serve::head_timeout;
use super::h2_convert;
use super::h2_gather::Gathered;
use super::h2_meter::{Meter, Metered, PREFACE_BYTES};
use super::h2_sieve::Sieve;
use super::h2_stream::{H2Sink, H2Source, to_io};
use super::handle::handle;
use super::normalise::without_aliases;
use super::pace::{Pace, too_slow};
use super::streams::{EARLY, Open, Tally, admit, framing, has_no_body, is_worn, linger, refuse};
use crate::deadline::Deadline;
use crate::entrypoint::Connection;
use crate::stream::{Prefixed, Stream};
use crate::worker::{Watch, Worker};

/// Bytes a client may send ahead of us, per stream and per connection. Chosen.
pub(crate) const STREAM_WINDOW: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What frames of DATA may take in memory beside their payload: until it is read, h2 counts each for what it has less than
/// 256 bytes. So many that one stream may fill its window with frames of 32 bytes, since gRPC sends each message in one of
/// its own; by default 2,100 of them, come at once, would end the connection. Chosen.
const DATA_FRAME_BUDGET: usize = STREAM_WINDOW as usize * 8;
/// What waits in memory for a slow client, per stream. Chosen.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams a client opened and reset again before we looked (CVE-2023-44487). Chosen.
const MAX_PENDING_RESETS: usize = 20;
/// A whole preface must come in this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle client may take to agree to the end of its connection.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    stream: Prefixed<Stream>,
    mut watch: Watch,
) {
    let config = Rc::clone(&connection);
    let config = &config.entry.config;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(config.http2_max_concurrent_streams)
        .max_header_list_size(u32::try_from(config.http.max_header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    let meter = Rc::new(Meter::default());
    let output = Gathered::new(Metered::new(stream, &meter), Sieve::behind(PREFACE_BYTES));
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, builder.handshake::<_, Bytes>(output.clone()));
    let mut h2 = match handshake.await {
        Ok(Ok(h2)) => h2,
        Ok(Err(error)) => {
            worker.metrics.refused(connection.entry.label, "http2_preface");
            tracing::debug!(%error, "HTTP/2 handshake failed");
            return;
        }
        Err(_) => {
            worker.metrics.refused(connection.entry.label, "http2_preface");
            return;
        }
    };
    output.hold();
    let mut head_deadline = Deadline::default();
    let mut timed_head = None;
    let mut deadline = Deadline::default();
    deadline.set(Instant::now(), config.idle_timeout);
    let tally = Rc::new(Tally::new(["http2_rapid_reset", "http2_stalled"]));
    let opened = Instant::now();
    let mut closing = false;
    let mut takes = Pace::new(connection.entry.least);
    // Something that h2 has written waits for the client to take it: perhaps the rest of answers whose tasks have ended.
    let mut blocked = false;
    loop {
        let accepted = poll_fn(|cx| {
            watch.register(cx.waker());
            let worn = is_worn(config, tally.opened(), opened);
            if !closing && (worn || worker.is_draining() || (tally.open() == 0 && worker.sheds_one())) {
                closing = true;
                // RFC 9113 section 6.8: GOAWAY, then the open streams finish.
                h2.graceful_shutdown();
                deadline.set(Instant::now(), Some(CLOSING_TIMEOUT));
            }
            let accepted = h2.poll_accept(cx);
            let abuse = meter.flood().or_else(|| tally.abuse());
            if let Some(abuse) = abuse {
                return Poll::Ready(Err(abuse));
            }
            if let Poll::Ready(accepted) = accepted {
                return Poll::Ready(Ok(accepted));
            }
            if let Some(head) = meter.unfinished_head() {
                if meter.unfinished_head_is_long() && worker.is_shedding() {
                    return Poll::Ready(Err("memory_head"));
                }
                if timed_head != Some(head) {
                    timed_head = Some(head);
                    head_deadline.set(Instant::now(), head_timeout(&connection));
                }
                if head_deadline.poll(cx).is_ready() {
                    return Poll::Ready(Err("head_timeout"));
                }
            }
            if deadline.poll(cx).is_ready() {
                let idle = tally.open() == 0 && !blocked;
                if idle && closing {
                    // It answers neither GOAWAY nor PING.
                    return Poll::Ready(Ok(None));
                }
                if idle {
                    closing = true;
                    h2.graceful_shutdown();
                }
                deadline
                    .set(Instant::now(), if closing { Some(CLOSING_TIMEOUT) } else { config.idle_timeout });
                if deadline.poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                if let Poll::Ready(accepted) = h2.poll_accept(cx) {
                    return Poll::Ready(Ok(accepted));
                }
            }
            // A failure shows when h2 reads or writes next.
            let pushed = output.poll_push(cx);
            blocked = pushed.is_pending();
            takes.moved(output.written());
            let _ = takes.watch(cx, pushed);
            if takes.is_over() { Poll::Ready(Err("http2_stalled")) } else { Poll::Pending }
        })
        .await;
        let (request, respond) = match accepted {
            Ok(Some(Ok(stream))) => stream,
            Ok(Some(Err(error))) => {
                if !error.is_io() {
                    let reason = kind(&error, &meter);
                    worker.refused(
                        &connection,
                        reason,
                        format_args!("HTTP/2 connection ended by an error: {error}"),
                    );
                }
                return;
            }
            Ok(None) => return,
            Err(reason) => {
                worker.refused(
                    &connection,
                    reason,
                    format_args!("HTTP/2 connection ended: it only causes work"),
                );
                // RFC 9113 section 7: the peer generates excessive load.
                h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                let farewell = poll_fn(|cx| {
                    let closed = h2.poll_closed(cx);
                    let _ = output.poll_push(cx);
                    closed
                });
                let _ = tokio::time::timeout(CLOSING_TIMEOUT, farewell).await;
                return;
            }
        };
        deadline.set(Instant::now(), config.idle_timeout);
        let guard = Open::new(&tally);
        let (worker, connection) = (Rc::clone(&worker), Rc::clone(&connection));
        // Boxed here: on its way into a task a future is copied several times, and this one is large.
        tokio::task::spawn_local(Box::pin(async move {
            let opened = Instant::now();
            let reset = serve_stream(&worker, &connection, guard.tally(), request, respond).await;
            guard.close(reset && opened.elapsed() < EARLY);
        }));
    }
}

/// What h2 has ended a connection for, as metrics and logs call it.
fn kind(error: &h2::Error, meter: &Meter) -> &'static str {
    if error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
        meter.excess()
    } else {
        "http2_protocol"
    }
}

/// Returns whether the client gave the stream up.
async fn serve_stream(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    tally: &Tally,
    request: Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
) -> bool {
    let mut x = worker.exchange(&connection.peer);
    let sayable = h2_convert::request_head(&request, &mut x.head);
    let mut source = H2Source::new(request.into_body());
    let held = tally.hold(x.head.memory_bytes());
    let ends =
        source.has_ended() || (held.is_some() && has_no_body(&x.head, |cx| source.poll_bodiless(cx)).await);
    let framing = framing(&mut x.head, ends);
    let mut client = Client {
        source,
        respond,
        sink: None,
        is_head: x.head.method() == "HEAD",
        gone: false,
        worker,
        connection,
        tally,
        // Without a length it may be a conversation, in which both are silent when they like.
        sends: match framing {
            Ok(Framing::Length(_)) => Pace::new(connection.entry.least),
            _ => Pace::default(),
        },
        takes: Pace::new(connection.entry.least),
    };
    let admitted = match sayable {
        _ if held.is_none() => Err((431, "http2_large_heads")),
        false => Err((400, "http2_malformed")),
        true => admit(&x.head, framing),
    };
    let whole = match admitted {
        Ok(framing) => handle(worker, connection, &mut x, &mut client, framing).await,
        Err(refusal) => refuse(worker, connection, &mut x, &mut client, refusal).await,
    };
    worker.give_exchange(x);
    let gone = client.gone;
    if whole && !client.source.has_ended() {
        // Nobody waits for the rest.
        client.sends = Pace::default();
        Box::pin(linger(&mut client)).await;
    }
    // A client that still sends is told to stop, once the answer is out: dropping the stream makes h2
    // say NO_ERROR (RFC 9113 section 8.1), where a reset of our own would overtake the answer.
    gone
}

/// The client of one stream.
struct Client<'a> {
    source: H2Source,
    respond: SendResponse<Bytes>,
    sink: Option<H2Sink>,
    is_head: bool,
    /// The client has reset the stream, or is gone altogether.
    gone: bool,
    worker: &'a Worker,
    connection: &'a Connection,
    tally: &'a Tally,
    sends: Pace,
    takes: Pace,
}

impl Source for Client<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let filled = self.source.poll_fill(cx);
        let filled = self.sends.watch(cx, filled);
        if self.sends.is_over() {
            too_slow(self.worker, self.connection, "slow_body");
            return filled;
        }
        self.gone |= matches!(filled, Poll::Ready(Err(_)));
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
        let http = &self.connection.entry.config.http;
        without_aliases(self.source.trailers(), http.alias_headers, http.only_underscores)
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        self.source.read_ahead(cx);
    }
}

impl Sink for Client<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(sink) = &mut self.sink else {
            return Poll::Ready(Err(io::Error::other("body longer than announced")));
        };
        let sent = sink.poll_send(cx, data);
        if let Poll::Ready(Ok(count)) = sent {
            self.takes.moved(count);
        }
        let sent = self.takes.watch(cx, sent);
        if self.takes.is_over() {
            too_slow(self.worker, self.connection, "slow_reader");
            self.tally.stalled();
        }
        sent
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.finish(trailers))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Downstream for Client<'_> {
    fn respond(&mut self, head: &mut Head, framing: Framing) -> io::Result<()> {
        let ends = self.is_head || framing == Framing::Empty;
        let stream = self.respond.send_response(h2_convert::response(head), ends).map_err(to_io)?;
        self.sink = (!ends).then(|| H2Sink::new(stream, framing, head));
        Ok(())
    }

    fn inform(&mut self, head: &Head) -> io::Result<()> {
        self.respond.send_informational(h2_convert::response(head)).map_err(to_io)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.sink {
            Some(sink) => sink.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(drop),
        };
        self.gone |= reset.is_ready();
        reset
    }

    fn tunnel(&mut self) -> Option<&mut H1> {
        None
    }

    fn abort(&mut self) {
        let reason =
            if self.takes.is_over() { h2::Reason::ENHANCE_YOUR_CALM } else { h2::Reason::INTERNAL_ERROR };
        match &mut self.sink {
            Some(sink) => sink.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}
