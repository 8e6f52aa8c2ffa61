//! One HTTP/1.1 connection, either side: heads and bodies over a stream and borrowed buffers.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use lb_http1::{Chunk, ChunkedDecoder, Framing, Head, HeadError, Limits, Parsed};
use lb_observe::metrics::OpenConnection;

use super::body::{Fill, Sink, Source};
use crate::buffers::{Buffers, SMALL};
use crate::stream::Stream;

/// Up to this many bytes wait in the output buffer for the next flush; larger pieces go out vectored.
const COALESCE: usize = 4096;
/// The same for chunked bodies, where a copy saves the system call for the closing CRLF.
const COALESCE_CHUNKED: usize = 16 * 1024;
/// Trailers are part of what a stranger can make grow. Chosen.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Why no head arrived.
#[derive(Debug)]
pub(crate) enum ReadHead {
    /// The connection broke.
    Io,
    /// The stream ended inside a head.
    Truncated,
    Malformed(HeadError),
}

pub(crate) struct H1 {
    pub(crate) stream: Stream,
    buffers: Rc<Buffers>,
    /// Borrowed while bytes are expected; empty when idle.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read took all there was: only a new event can bring more.
    drained: bool,
    eof: bool,
    reading: Reading,
    output: Vec<u8>,
    written: usize,
    writing: Writing,
    /// The last answer ended with its head, whatever that says of a body.
    ended_with_head: bool,
    /// Counts a connection to a server as open.
    pub(crate) counted: Option<OpenConnection>,
}

/// The body being read.
enum Reading {
    None,
    Length(u64),
    /// So many decoded bytes wait at `start`.
    Chunked {
        decoder: Box<ChunkedDecoder>,
        decoded: usize,
        /// Its end is known to be there.
        is_whole: bool,
    },
    Ended(Box<ChunkedDecoder>),
    UntilClose,
}

/// The body being written.
#[derive(Clone, Copy, Debug)]
enum Writing {
    None,
    Length(u64),
    /// Bytes still owed to the chunk whose size line is out.
    Chunked {
        owed: usize,
    },
    UntilClose,
}

impl H1 {
    pub(crate) fn new(stream: Stream, buffers: Rc<Buffers>) -> Self {
        Self {
            stream,
            buffers,
            input: Vec::new(),
            start: 0,
            end: 0,
            drained: false,
            eof: false,
            reading: Reading::None,
            output: Vec::new(),
            written: 0,
            writing: Writing::None,
            ended_with_head: false,
            counted: None,
        }
    }

    /// Bytes that were read but belong to no message yet.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Starts with bytes that were read to find out what is spoken; `input` is a buffer of the pool.
    pub(crate) fn with_input(stream: Stream, buffers: Rc<Buffers>, input: Vec<u8>, end: usize) -> Self {
        let mut connection = Self::new(stream, buffers);
        connection.drained = end < input.len();
        (connection.input, connection.end) = (input, end);
        connection
    }

    /// Nothing of a message is left unread or unsent, and the peer keeps the connection open.
    pub(crate) fn is_reusable(&self) -> bool {
        self.body_is_read() && !self.eof && self.start == self.end && self.written == self.output.len()
    }

    /// Closing the socket says all there is to say: nothing is unread, which would make it a reset, and
    /// there is no TLS to end first.
    pub(crate) fn ends_by_itself(&self) -> bool {
        matches!(self.stream, Stream::Plain(_)) && self.start == self.end && self.drained
    }

    pub(crate) fn body_is_read(&self) -> bool {
        matches!(self.reading, Reading::None | Reading::Length(0) | Reading::Ended(_))
    }

    /// The body being written has no end but that of the connection.
    pub(crate) fn ends_by_close(&self) -> bool {
        matches!(self.writing, Writing::UntilClose)
    }

    /// Ready once the next bytes are there. Without buffered bytes it holds no buffer while it waits.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start < self.end || self.eof {
            return Poll::Ready(Ok(()));
        }
        // A read rather than a look at the socket: rustls may hold decrypted bytes of which the socket
        // knows nothing.
        let read = self.poll_read_more(cx);
        if read.is_pending() {
            self.release();
        }
        read.map_ok(drop)
    }

    /// Ready when the peer has ended its side or broken the connection.
    ///
    /// What it sends meanwhile (a pipelined request) is kept, as far as the buffer goes; from then on nothing tells but
    /// [`is_broken_off`](Self::is_broken_off).
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_full() {
            match self.poll_read_more(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// What was read waits to be taken, and no more is read until then.
    pub(crate) fn is_full(&self) -> bool {
        self.start < self.end && (!self.body_is_read() || self.end - self.start == self.input.len())
    }

    /// Whether the peer has gone before the end of the body that is being read; between bodies, whether it has gone.
    /// Only a reset says that nobody is left where the body may be there as a whole behind what is read, or the peer is
    /// `answered`, and so need not send the rest.
    pub(crate) fn is_broken_off(&mut self, answered: bool) -> bool {
        let missing = match &mut self.reading {
            Reading::Length(left) if !answered => left.saturating_sub((self.end - self.start) as u64),
            Reading::Chunked { decoder, decoded, is_whole } if !answered && !*is_whole => {
                if let Some(rest) = self.stream.rest() {
                    let read = &self.input[self.start + *decoded..self.end];
                    *is_whole = decoder.ends_within([read, &*rest]);
                    return !*is_whole;
                }
                0
            }
            Reading::Length(_) | Reading::Chunked { .. } => 0,
            Reading::None | Reading::Ended(_) | Reading::UntilClose => u64::MAX,
        };
        self.stream.ends_before(missing)
    }

    /// To be told of each answer of a server.
    pub(crate) fn ends_with_head(&mut self, ended: bool) {
        self.ended_with_head = ended;
    }

    /// Whether the body of the last answer may still come, though it has none: some programs answer HEAD as they answer
    /// GET, against RFC 9110 section 9.3.2.
    pub(crate) fn may_go_on(&self) -> bool {
        self.ended_with_head
    }

    /// Whether the server has said something more on an idle connection, or has ended it, as the system knows it now.
    pub(crate) fn has_more(&self) -> bool {
        self.stream.has_more()
    }

    /// Whether an idle connection is still usable, as far as the last events tell. No system call.
    pub(crate) fn is_quiet(&self) -> bool {
        self.start == self.end && !self.eof && self.stream.is_quiet()
    }

    /// Reads one head. `Ok(false)`: the stream ended cleanly before its first byte.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
        limits: &Limits,
        parse: fn(&[u8], &mut Head, &Limits) -> Result<Parsed, HeadError>,
    ) -> Poll<Result<bool, ReadHead>> {
        loop {
            if self.start < self.end {
                match parse(&self.input[self.start..self.end], head, limits) {
                    Ok(Parsed::Complete(used)) => {
                        self.start += used;
                        return Poll::Ready(Ok(true));
                    }
                    Ok(Parsed::Partial) => {}
                    Err(error) => return Poll::Ready(Err(ReadHead::Malformed(error))),
                }
            }
            match ready!(self.poll_read_more(cx)) {
                Ok(0) if self.start == self.end => return Poll::Ready(Ok(false)),
                Ok(0) => return Poll::Ready(Err(ReadHead::Truncated)),
                Ok(_) => {}
                Err(_) => return Poll::Ready(Err(ReadHead::Io)),
            }
        }
    }

    /// Declares how the body behind the head just read is framed.
    pub(crate) fn expect_body(&mut self, framing: Framing) {
        self.reading = match framing {
            Framing::Empty | Framing::Length(0) => Reading::None,
            Framing::Length(length) => Reading::Length(length),
            Framing::Chunked => {
                let decoder = Box::new(ChunkedDecoder::new(MAX_TRAILER_BYTES));
                Reading::Chunked { decoder, decoded: 0, is_whole: false }
            }
            Framing::UntilClose => Reading::UntilClose,
        };
    }

    /// Queues a head and declares how the body behind it is framed.
    pub(crate) fn queue_head(&mut self, head: &Head, write: fn(&Head, &mut Vec<u8>), framing: Framing) {
        self.queue(|output| write(head, output));
        self.writing = match framing {
            Framing::Empty | Framing::Length(0) => Writing::None,
            Framing::Length(length) => Writing::Length(length),
            Framing::Chunked => Writing::Chunked { owed: 0 },
            Framing::UntilClose => Writing::UntilClose,
        };
    }

    /// Queues bytes outside any body (an interim response, an error).
    pub(crate) fn queue(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.output.capacity() == 0 {
            self.output = self.buffers.output();
        }
        write(&mut self.output);
    }

    /// Gives the buffers back; what is still to be read or sent keeps its own.
    pub(crate) fn release(&mut self) {
        self.release_input();
        if self.written == self.output.len() && self.output.capacity() > 0 {
            self.written = 0;
            self.buffers.give_output(std::mem::take(&mut self.output));
        }
    }

    /// Drops what was read and is nobody's any more.
    pub(crate) fn forget_input(&mut self) {
        self.start = self.end;
        self.release_input();
    }

    fn release_input(&mut self) {
        if self.start == self.end && !self.input.is_empty() {
            (self.start, self.end) = (0, 0);
            self.buffers.give_input(std::mem::take(&mut self.input));
        }
    }

    /// A read would find nothing, which is known without a buffer for it. Not of TLS, which may hold bytes of which
    /// the socket knows nothing.
    fn is_dry(&self) -> bool {
        self.drained && matches!(self.stream, Stream::Plain(_)) && self.stream.is_quiet()
    }

    /// One read into the free part of the buffer, which grows when it is full of one unfinished head.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.is_dry() && self.stream.poll_readable(cx)?.is_pending() {
            self.release_input();
            return Poll::Pending;
        }
        if self.input.is_empty() {
            self.input = self.buffers.input();
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            let bulk = match self.reading {
                Reading::Length(left) => left > SMALL as u64,
                Reading::Chunked { .. } | Reading::UntilClose => true,
                Reading::None | Reading::Ended(_) => false,
            };
            if bulk && !self.drained && self.input.len() == SMALL {
                // The last read filled the buffer: more is waiting than it holds.
                let small = std::mem::replace(&mut self.input, self.buffers.large_input());
                self.buffers.give_input(small);
            }
        } else if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                // Three times a small one is never the size of a large one: those are counted.
                let mut grown = vec![0; self.input.len() * 3];
                grown[..self.end].copy_from_slice(&self.input);
                self.buffers.give_input(std::mem::replace(&mut self.input, grown));
            }
        }
        let free = &mut self.input[self.end..];
        let room = free.len();
        let Poll::Ready(count) = self.stream.poll_read(cx, free)? else {
            // Whoever waits holds no buffer.
            self.drained = true;
            self.release_input();
            return Poll::Pending;
        };
        self.drained = count < room;
        self.eof = count == 0;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Sends the queue, then as much of `data` as goes; returns how much of `data` went.
    fn poll_write_out(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let queued = self.output.len() - self.written;
            let count = if queued == 0 {
                ready!(self.stream.poll_write(cx, data))?
            } else {
                let slices = [IoSlice::new(&self.output[self.written..]), IoSlice::new(data)];
                ready!(self.stream.poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if count < queued {
                self.written += count;
                continue;
            }
            self.output.clear();
            self.written = 0;
            if count > queued {
                return Poll::Ready(Ok(count - queued));
            }
        }
    }
}

impl Source for H1 {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        loop {
            match &mut self.reading {
                Reading::None | Reading::Ended(_) => return Poll::Ready(Ok(Fill::End)),
                Reading::Length(0) => {
                    self.reading = Reading::None;
                    return Poll::Ready(Ok(Fill::End));
                }
                Reading::Length(_) | Reading::UntilClose if self.start < self.end => {
                    return Poll::Ready(Ok(Fill::Data));
                }
                Reading::Length(_) | Reading::UntilClose => {}
                Reading::Chunked { decoder, decoded, .. } => {
                    if *decoded > 0 {
                        return Poll::Ready(Ok(Fill::Data));
                    }
                    match decoder.next(&self.input[self.start..self.end]) {
                        Ok(Chunk::Data { consumed, start }) => {
                            *decoded = consumed - start;
                            self.start += start;
                            return Poll::Ready(Ok(Fill::Data));
                        }
                        Ok(Chunk::Partial { consumed }) => self.start += consumed,
                        Ok(Chunk::End { consumed }) => {
                            self.start += consumed;
                            if let Reading::Chunked { decoder, .. } =
                                std::mem::replace(&mut self.reading, Reading::None)
                            {
                                self.reading = Reading::Ended(decoder);
                            }
                            return Poll::Ready(Ok(Fill::End));
                        }
                        Err(error) => {
                            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                        }
                    }
                }
            }
            if ready!(self.poll_read_more(cx))? == 0 {
                if matches!(self.reading, Reading::UntilClose) {
                    self.reading = Reading::None;
                    return Poll::Ready(Ok(Fill::End));
                }
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn data(&self) -> &[u8] {
        let available = &self.input[self.start..self.end];
        match &self.reading {
            Reading::Length(left) => {
                &available[..available.len().min(usize::try_from(*left).unwrap_or(usize::MAX))]
            }
            Reading::Chunked { decoded, .. } => &available[..*decoded],
            Reading::UntilClose => available,
            Reading::None | Reading::Ended(_) => &[],
        }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        match &mut self.reading {
            Reading::Length(left) => *left -= count as u64,
            Reading::Chunked { decoded, .. } => *decoded -= count,
            Reading::None | Reading::Ended(_) | Reading::UntilClose => {}
        }
    }

    fn trailers(&self) -> Option<&Head> {
        match &self.reading {
            Reading::Ended(decoder) => Some(decoder.trailers()).filter(|trailers| !trailers.is_empty()),
            _ => None,
        }
    }
}

impl Sink for H1 {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let queued = self.output.len() - self.written;
        match &mut self.writing {
            // The head promised no (more) body: RFC 9112 section 6.3 leaves no place for these bytes.
            Writing::None => Poll::Ready(Err(io::Error::other("body longer than announced"))),
            Writing::Length(left) => {
                if data.len() as u64 > *left {
                    return Poll::Ready(Err(io::Error::other("body longer than announced")));
                }
                let sent = if queued + data.len() <= COALESCE {
                    self.queue(|output| output.extend_from_slice(data));
                    data.len()
                } else {
                    ready!(self.poll_write_out(cx, data))?
                };
                if let Writing::Length(left) = &mut self.writing {
                    *left -= sent as u64;
                }
                Poll::Ready(Ok(sent))
            }
            Writing::Chunked { owed: 0 } if queued + data.len() <= COALESCE_CHUNKED => {
                self.queue(|output| {
                    lb_http1::write_chunk_start(data.len(), output);
                    output.extend_from_slice(data);
                    output.extend_from_slice(b"\r\n");
                });
                Poll::Ready(Ok(data.len()))
            }
            Writing::Chunked { owed } => {
                if *owed == 0 {
                    *owed = data.len();
                    self.queue(|output| lb_http1::write_chunk_start(data.len(), output));
                }
                let Writing::Chunked { owed } = self.writing else { return Poll::Pending };
                let sent = ready!(self.poll_write_out(cx, &data[..data.len().min(owed)]))?;
                let owed = owed - sent;
                self.writing = Writing::Chunked { owed };
                if owed == 0 {
                    self.queue(|output| output.extend_from_slice(b"\r\n"));
                }
                Poll::Ready(Ok(sent))
            }
            Writing::UntilClose if queued + data.len() <= COALESCE => {
                self.queue(|output| output.extend_from_slice(data));
                Poll::Ready(Ok(data.len()))
            }
            Writing::UntilClose => self.poll_write_out(cx, data),
        }
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        match std::mem::replace(&mut self.writing, Writing::None) {
            Writing::Length(left) if left > 0 => Err(io::Error::other("body shorter than announced")),
            Writing::Chunked { .. } => {
                self.queue(|output| lb_http1::write_last_chunk(trailers, output));
                Ok(())
            }
            Writing::None | Writing::Length(_) | Writing::UntilClose => Ok(()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let count = ready!(self.stream.poll_write(cx, &self.output[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        if !self.output.is_empty() {
            self.written = 0;
            self.buffers.give_output(std::mem::take(&mut self.output));
        }
        self.stream.poll_flush(cx)
    }
}

impl Drop for H1 {
    fn drop(&mut self) {
        if !self.input.is_empty() {
            self.buffers.give_input(std::mem::take(&mut self.input));
        }
        self.buffers.give_output(std::mem::take(&mut self.output));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::yield_now;

    use super::*;

    /// What a client sends of a body, read in the middle of it and not read on, and the client, which has ended its
    /// direction.
    async fn ended(framing: Framing, read: &str, unread: &str) -> (H1, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Stream::Plain(listener.accept().await.unwrap().0);
        let mut h1 = H1::new(stream, Rc::new(Buffers::default()));
        h1.expect_body(framing);
        client.write_all(read.as_bytes()).await.unwrap();
        poll_fn(|cx| match h1.poll_closed(cx) {
            Poll::Pending if h1.is_full() => Poll::Ready(()),
            other => other,
        })
        .await;
        client.write_all(unread.as_bytes()).await.unwrap();
        assert!(!h1.is_broken_off(false), "it may send more");
        client.shutdown().await.unwrap();
        while !h1.stream.ends_before(u64::MAX) {
            yield_now().await;
        }
        (h1, client)
    }

    #[tokio::test]
    async fn who_has_ended_before_the_body_did_is_gone() {
        for (framing, read, unread, missing) in [
            (Framing::Length(10), "hello", "worl", true),
            (Framing::Length(10), "hello", "world", false),
            (Framing::Chunked, "5\r\nhello\r\n", "5\r\nworl", true),
            (Framing::Chunked, "5\r\nhel", "lo\r\n0\r\n", true),
            (Framing::Chunked, "5\r\nhel", "lo\r\n0\r\n\r\n", false),
            (Framing::Chunked, "5\r\nhello\r\n0\r\na: b\r\n\r\n", "", false),
        ] {
            let (mut h1, _client) = ended(framing, read, unread).await;
            for _ in 0..2 {
                assert_eq!(h1.is_broken_off(false), missing, "{framing:?} {read:?} {unread:?}");
            }
        }
    }

    #[tokio::test]
    async fn who_is_answered_is_gone_only_with_a_reset() {
        for (framing, read) in [(Framing::Length(10), "hello"), (Framing::Chunked, "5\r\nhello\r\n")] {
            let (mut h1, client) = ended(framing, read, "").await;
            assert!(!h1.is_broken_off(true), "{framing:?}");
            socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            assert!(h1.is_broken_off(true), "{framing:?}");
        }
    }
}
