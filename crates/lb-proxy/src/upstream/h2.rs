//! HTTP/2 towards servers: one stream per request on connections that the requests of a worker share, as many of
//! them as the server's limit of streams makes necessary.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use lb_config::dynamic::{Scheme, ServersTransport};
use lb_http1::{Framing, Head};
use lb_observe::metrics::OpenConnection;
use tokio::time::Instant;

use super::Endpoint;
use super::failure::{Cause, Failure};
use crate::http::body::{Fill, Sink, Source};
use crate::http::h2_convert;
use crate::http::h2_gather::Gathered;
use crate::http::h2_sieve::Sieve;
use crate::http::h2_stream::{H2Sink, H2Source};
use crate::stream::Stream;

/// Bytes of one answer that a server may send ahead of its client. Chosen: at a round trip of 1 ms it allows 250 MB/s,
/// and thousands of clients that read slowly are held with hundreds of MiB.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection, which must not run out: clients that take nothing would stop the answers
/// of all others (RFC 9113 section 5.2.2). As Go's client has it.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// What waits in memory for a server that does not read, per stream, however much its windows allow. As towards clients.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that were given up and are remembered for a second: what a server had sent on them is still on its way. On any
/// others it is answered with another reset, and some servers count those. Chosen.
const MOST_GIVEN_UP: usize = 1000;

/// How many streams a server takes before it has said so: only then is a connection shared, or the first requests would
/// wait behind each other, or be too many for it (RFC 9113 section 5.1.2).
const UNKNOWN: usize = 0;
/// A server has so long to say it, as for a TLS handshake; less where `responseHeaderTimeout` is less.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that had no answer for so long, while nothing at all came on its connection, takes that with it when it is
/// given up: the machine may have gone without a word, and TCP hopes for a quarter of an hour. Chosen; less where
/// `responseHeaderTimeout` is less.
const SILENCE: Duration = Duration::from_secs(5);

/// A connection that several requests share.
pub(crate) struct Shared {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    /// It takes no more requests; those under way go on.
    closed: Cell<bool>,
    /// How often something has come from the server.
    reads: Cell<u64>,
    /// From when on a connection without a sign of life is suspect.
    silence: Duration,
    streams: Cell<usize>,
    /// Requests that it has refused in a row.
    refusals: Cell<u32>,
    /// When a sweep first saw it without streams, and every sweep since.
    idle_since: Cell<Option<Instant>>,
}

impl State {
    /// Again, and there is no other request that could be too many: perhaps another connection is better off.
    fn refused(&self) {
        let in_a_row = self.refusals.get().saturating_add(1);
        self.refusals.set(in_a_row);
        if in_a_row > 1 && self.streams.get() == 1 {
            tracing::debug!("an HTTP/2 connection to a server refuses all requests: it takes no more");
            self.closed.set(true);
        }
    }
}

impl Shared {
    /// Ready when the server's settings are known. `counted` lasts as long as the connection.
    pub(crate) async fn handshake(
        stream: Stream,
        settings: &ServersTransport,
        counted: OpenConnection,
    ) -> Result<Self, Failure> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(UNKNOWN)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(MOST_GIVEN_UP)
            // By default so many resets, over the whole life of the connection, would end it: clients that leave must not
            // take the requests of all others along.
            .max_local_error_reset_streams(None)
            .max_header_list_size(crate::http::RESPONSE_LIMITS.max_head_bytes as u32);
        let output = Gathered::new(stream, Sieve::default());
        let (sender, mut connection) = builder
            .handshake::<_, Bytes>(output.clone())
            .await
            .map_err(|_| Failure::unsent(Cause::Closed))?;
        let settled = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if sender.current_max_send_streams() != UNKNOWN => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        });
        let patience =
            settings.response_header_timeout.map_or(SETTINGS_TIMEOUT, |most| most.min(SETTINGS_TIMEOUT));
        match tokio::time::timeout(patience, settled).await {
            Ok(true) => {}
            Ok(false) => return Err(Failure::unsent(Cause::Closed)),
            Err(_) => return Err(Failure::unsent(Cause::ConnectTimeout)),
        }
        output.hold();
        let silence = settings.response_header_timeout.map_or(SILENCE, |timeout| timeout.min(SILENCE));
        let state = Rc::new(State { silence, ..State::default() });
        let ping =
            settings.read_idle_timeout.and_then(|idle| connection.ping_pong().map(|pings| (pings, idle)));
        let ping_timeout = settings.ping_timeout;
        let (connected, driving) = (Rc::clone(&state), Rc::clone(&state));
        tokio::task::spawn_local(async move {
            let pings = async {
                match ping {
                    Some((pings, idle)) => keep_alive(pings, idle, ping_timeout).await,
                    None => std::future::pending().await,
                }
            };
            let driven = poll_fn(|cx| {
                // Streams are opened under the limit that they have seen.
                output.hold_settings();
                let mut driven = Pin::new(&mut connection).poll(cx);
                if driven.is_pending() && output.let_settings_go() {
                    driven = Pin::new(&mut connection).poll(cx);
                }
                driving.reads.set(output.reads());
                if driven.is_pending() {
                    // A failure shows when h2 reads or writes next.
                    let _ = output.poll_push(cx);
                }
                driven
            });
            tokio::select! {
                ended = driven => if let Err(error) = ended {
                    tracing::debug!(%error, "HTTP/2 connection to a server ended");
                },
                () = pings => tracing::debug!("HTTP/2 connection to a server does not answer pings"),
            }
            connected.closed.set(true);
            drop(counted);
        });
        Ok(Self { sender, state })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state.streams.get() == 0
    }

    /// How many streams the server takes on it at a time.
    pub(crate) fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Whether it has had no stream for so long, as far as this was asked.
    pub(crate) fn has_idled(&self, now: Instant, timeout: Option<Duration>) -> bool {
        let since = &self.state.idle_since;
        since.set(self.is_idle().then(|| since.get().unwrap_or(now)));
        since.get().zip(timeout).is_some_and(|(since, timeout)| now.duration_since(since) > timeout)
    }

    /// A place for one more stream, while the server takes more: beyond its limit a request would wait for
    /// whatever is under way, for as long as that takes.
    pub(crate) fn place(&self) -> Option<Place> {
        let streams = &self.state.streams;
        if self.is_closed() || streams.get() >= self.most_streams() {
            return None;
        }
        streams.set(streams.get() + 1);
        self.state.idle_since.set(None);
        Some(Place { sender: self.sender.clone(), state: Rc::clone(&self.state) })
    }
}

/// One stream's place on a connection.
pub(crate) struct Place {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

impl Place {
    /// `None` when the connection takes no more.
    pub(crate) async fn ready(mut self) -> Option<H2> {
        if poll_fn(|cx| self.sender.poll_ready(cx)).await.is_err() {
            self.state.closed.set(true);
            return None;
        }
        let begun = (Instant::now(), self.state.reads.get());
        Some(H2 { place: self, begun, response: None, sink: None, source: None, framing: Framing::Empty })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get() - 1);
    }
}

/// Ends when a ping was not answered in time.
async fn keep_alive(mut pings: h2::PingPong, idle: Duration, timeout: Option<Duration>) {
    loop {
        tokio::time::sleep(idle).await;
        let answered = pings.ping(h2::Ping::opaque());
        match timeout {
            Some(timeout) => match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(_)) => {}
                _ => return,
            },
            None => {
                if answered.await.is_err() {
                    return;
                }
            }
        }
    }
}

/// One stream.
pub(crate) struct H2 {
    place: Place,
    /// When, and how often something had come from the server until then.
    begun: (Instant, u64),
    response: Option<ResponseFuture>,
    sink: Option<H2Sink>,
    source: Option<H2Source>,
    framing: Framing,
}

impl Drop for H2 {
    fn drop(&mut self) {
        let state = &self.place.state;
        let (begun, reads) = self.begun;
        if self.response.is_some() && state.reads.get() == reads && begun.elapsed() >= state.silence {
            tracing::debug!("an HTTP/2 connection to a server is silent: it takes no more requests");
            state.closed.set(true);
        }
    }
}

impl H2 {
    pub(crate) fn begin(
        &mut self,
        head: &mut Head,
        framing: Framing,
        endpoint: &Endpoint,
    ) -> Result<(), Cause> {
        let scheme = if endpoint.scheme == Scheme::Https { "https" } else { "http" };
        let request: Request<()> = h2_convert::request(head, scheme).ok_or(Cause::Unsayable)?;
        let (response, stream): (ResponseFuture, SendStream<Bytes>) =
            self.place.sender.send_request(request, !framing.has_body()).map_err(|_| Cause::Closed)?;
        self.response = Some(response);
        self.sink = framing.has_body().then(|| H2Sink::new(stream, framing, head));
        Ok(())
    }

    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
        method: &str,
    ) -> Poll<Result<Framing, Failure>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(Failure::sent(Cause::Closed)));
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            return Poll::Ready(match h2_convert::response_head(&interim, head) {
                true => Ok(Framing::Empty),
                false => Err(too_many_fields()),
            });
        }
        match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(answer) => {
                let (parts, body): (_, RecvStream) = answer.into_parts();
                if !h2_convert::response_head(&http::Response::from_parts(parts, ()), head) {
                    return Poll::Ready(Err(too_many_fields()));
                }
                // HTTP/1.1 clients get what this says: it must be as certain as from an HTTP/1.1 server.
                self.framing = match lb_http1::response_framing(head, method) {
                    Ok(Framing::Length(1..)) if body.is_end_stream() => {
                        return Poll::Ready(Err(Failure::sent(Cause::Malformed)));
                    }
                    Ok(_) if body.is_end_stream() => Framing::Empty,
                    Ok(Framing::UntilClose) => Framing::Chunked,
                    Ok(framing) => framing,
                    Err(error) => {
                        tracing::debug!(%error, "a server's answer cannot be framed");
                        return Poll::Ready(Err(Failure::sent(Cause::Malformed)));
                    }
                };
                self.source = (self.framing != Framing::Empty).then(|| H2Source::new(body));
                self.response = None;
                self.place.state.refusals.set(0);
                Poll::Ready(Ok(self.framing))
            }
            Err(error) => {
                tracing::debug!(%error, "HTTP/2 server gave no answer");
                // RFC 9113 section 8.7: a stream that the server refused, or did not take before its
                // GOAWAY, was not processed, and may be sent again.
                Poll::Ready(Err(match error.reason() {
                    _ if error.is_remote() && error.is_go_away() => Failure::unsent(Cause::WentAway),
                    Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => {
                        self.place.state.refused();
                        Failure::unsent(Cause::Refused)
                    }
                    _ => Failure::sent(Cause::Closed),
                }))
            }
        }
    }
}

fn too_many_fields() -> Failure {
    tracing::debug!("a server's answer has too many fields");
    Failure::sent(Cause::Malformed)
}

impl Source for H2 {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        match &mut self.source {
            Some(source) => source.poll_fill(cx),
            None => Poll::Ready(Ok(Fill::End)),
        }
    }

    fn data(&self) -> &[u8] {
        self.source.as_ref().map_or(&[], Source::data)
    }

    fn consume(&mut self, count: usize) {
        if let Some(source) = &mut self.source {
            source.consume(count);
        }
    }

    fn trailers(&self) -> Option<&Head> {
        self.source.as_ref().and_then(Source::trailers)
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if let Some(source) = &mut self.source {
            source.read_ahead(cx);
        }
    }
}

impl Sink for H2 {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.sink {
            Some(sink) => sink.poll_send(cx, data),
            None => Poll::Ready(Err(io::Error::other("body longer than announced"))),
        }
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.finish(trailers))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use lb_observe::metrics::{Kind, Metrics};
    use tokio::io::Interest;
    use tokio::net::TcpStream;
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// SETTINGS with one of them: RFC 9113 section 6.5.2.
    fn settings(which: u8, value: u32) -> Vec<u8> {
        [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, which][..], &value.to_be_bytes()].concat()
    }

    /// A connection to a server that has said this, the server, and what says when more has come: who waits for that has
    /// their turn before the connection.
    async fn connected(said: &[u8]) -> (Shared, std::net::TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let arrivals = TcpStream::from_std(client.try_clone().unwrap()).unwrap();
        let client = Stream::Plain(TcpStream::from_std(client).unwrap());
        let metrics = Metrics::new(Default::default(), 1);
        let counted = metrics.shard(0).connection(metrics.label(Kind::Service, "a"));
        server.write_all(said).unwrap();
        let shared =
            Shared::handshake(client, &crate::tls::testing::transport(), counted).await.ok().unwrap();
        arrivals.readable().await.unwrap();
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        arrivals.try_io(Interest::READABLE, nothing).unwrap_err();
        (shared, server, arrivals)
    }

    /// RFC 9113 section 5.1.2: the server has no room for any more, but did not say so before the request had its place.
    #[tokio::test]
    async fn a_new_limit_does_not_keep_a_request_that_had_its_place() {
        const MAX_CONCURRENT_STREAMS: u8 = 3;
        let test = async {
            let (shared, mut server, arrivals) = connected(&settings(MAX_CONCURRENT_STREAMS, 100)).await;
            server.write_all(&settings(MAX_CONCURRENT_STREAMS, 0)).unwrap();
            arrivals.readable().await.unwrap();
            let mut stream = shared.place().unwrap().ready().await.unwrap();
            let _asked = stream.place.sender.send_request(Request::new(()), true).unwrap();
            yield_now().await;
            assert!(shared.place().is_none(), "the limit is known");
            server.set_nonblocking(true).unwrap();
            let mut sent = Vec::new();
            let _ = server.read_to_end(&mut sent);
            let mut frames = sent.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            let mut kinds = Vec::new();
            while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = frames {
                kinds.push(*kind);
                frames = &rest[u32::from_be_bytes([0, *high, *middle, *low]) as usize..];
            }
            assert!(kinds.contains(&1), "no HEADERS: {kinds:?}");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_waits_for_a_server_that_does_not_read_is_bounded() {
        const INITIAL_WINDOW_SIZE: u8 = 4;
        let test = async {
            let window = [&[0, 0, 4, 8, 0, 0, 0, 0, 0][..], &(1_u32 << 30).to_be_bytes()].concat();
            let said = [settings(INITIAL_WINDOW_SIZE, 1 << 30), window].concat();
            let (shared, _server, _) = connected(&said).await;
            let mut stream = shared.place().unwrap().ready().await.unwrap();
            let (_asked, mut body) = stream.place.sender.send_request(Request::new(()), false).unwrap();
            body.reserve_capacity(1 << 20);
            yield_now().await;
            assert_eq!(body.capacity(), SEND_BUFFER);
        };
        LocalSet::new().run_until(test).await;
    }
}
