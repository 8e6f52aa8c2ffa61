//! gRPC-Web towards the client, gRPC towards the server: what `grpcWeb` does with bodies, piece by piece as they come.
//!
//! Trailers become the last frame of the body, since scripts in browsers cannot see trailers; with `-text` both bodies
//! are base64.

use std::io;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_http1::{Framing, Head};

use super::around::{behind, chain};
use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::h1::H1;
use super::handle::{Passed, Reply};
use super::replay::Replay;
use crate::middleware::{Form, GrpcWeb, Middleware, Step};
use crate::passage::Passage;
use crate::snapshot::Route;

/// So much is turned into base64, or back, at a time. Chosen; a multiple of 3 and of 4.
const PIECE: usize = 12 * 1024;

/// First byte of a frame with trailers: the highest bit says that it has no message.
const TRAILERS: u8 = 0x80;

/// The form of a request that its router's chain will translate, should it come to that.
pub(super) fn asked(route: &Route, head: &Head) -> Option<Form> {
    let is_there = route.middlewares.iter().any(|middleware| matches!(middleware, Middleware::GrpcWeb(_)));
    is_there.then(|| Form::of(head)).flatten()
}

/// Runs a chain for a client that speaks gRPC-Web.
pub(super) async fn run<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, D>,
    route: &'r Route,
    at: Option<usize>,
    form: Form,
) -> bool {
    let Passage { worker, connection, mut framing, patience, renewed, .. } = *p;
    if form == Form::Text && framing.has_body() {
        // It becomes shorter.
        framing = Framing::Chunked;
        p.x.head.remove("content-length");
    }
    let (x, outcome) = (&mut *p.x, &mut *p.outcome);
    let mut web = Web::new(&mut *p.down, form);
    let mut p = Passage { worker, connection, x, down: &mut web, framing, patience, outcome, renewed };
    chain(&mut p, route, at, true).await
}

/// The middleware at `at`, and what is behind it.
pub(super) async fn stage<'r, D: Downstream>(
    p: &mut Passage<'_, 'r, Replay<'_, D>>,
    route: &'r Route,
    (at, web): (usize, &GrpcWeb),
) -> Passed<'r> {
    let (form, step) = web.on_request(p.x);
    if let Step::Respond(local) = step {
        local.write_head(&mut p.x.response);
        return Passed { reply: Reply::Local(local.body), reached: at, failure: None };
    }
    let passed = behind(p, route, at + 1).await;
    if let Some(form) = form {
        web.on_response(p.x, form);
    }
    passed
}

/// The client, behind the translation.
pub(super) struct Web<'a> {
    down: &'a mut dyn Downstream,
    decoder: Option<Decoder>,
    answer: Answer,
    /// Bytes for the client; those before `at` were taken.
    out: Vec<u8>,
    at: usize,
    /// Bytes that do not make a group of base64 yet.
    rest: Vec<u8>,
    ended: bool,
}

/// What is done with the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing: it is not gRPC.
    Plain,
    Translated(Form),
}

impl<'a> Web<'a> {
    fn new(down: &'a mut dyn Downstream, form: Form) -> Self {
        let decoder = (form == Form::Text).then(Decoder::default);
        let (out, rest) = (Vec::new(), Vec::new());
        Self { down, decoder, answer: Answer::Plain, out, at: 0, rest, ended: false }
    }

    /// Ready when the client has taken all that is translated.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.out.len() {
            self.at += ready!(self.down.poll_send(cx, &self.out[self.at..]))?;
        }
        self.out.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }

    /// Encodes `data` behind what is left over; all of it where `last` is set.
    fn encode(&mut self, data: &[u8], last: bool) {
        self.rest.extend_from_slice(data);
        let whole = if last { self.rest.len() } else { self.rest.len() / 3 * 3 };
        let mut text = std::mem::take(&mut self.out);
        let begin = text.len();
        text.resize(begin + whole.div_ceil(3) * 4, 0);
        // There is room for it.
        let written = STANDARD.encode_slice(&self.rest[..whole], &mut text[begin..]).unwrap_or(0);
        text.truncate(begin + written);
        self.out = text;
        self.rest.drain(..whole);
    }
}

/// Trailers as the last frame of a body has them: names in lower case, in order.
fn trailer_frame(trailers: Option<&Head>) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = trailers
        .into_iter()
        .flat_map(Head::iter)
        .map(|(name, value)| [name.to_ascii_lowercase().as_bytes(), b": ", value, b"\r\n"].concat())
        .collect();
    lines.sort();
    let block = lines.concat();
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[TRAILERS], &length[..], &block].concat()
}

impl Sink for Web<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        if self.answer != Answer::Translated(Form::Text) {
            return self.down.poll_send(cx, data);
        }
        let count = data.len().min(PIECE);
        self.encode(&data[..count], false);
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        match self.answer {
            Answer::Plain => self.down.finish(trailers),
            Answer::Translated(form) => {
                let frame = trailer_frame(trailers);
                match form {
                    Form::Binary => self.out.extend_from_slice(&frame),
                    Form::Text => self.encode(&frame, true),
                }
                self.ended = true;
                Ok(())
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            // What has come must not wait for what comes: a body may have several padded parts.
            self.encode(&[], true);
        }
        ready!(self.poll_drain(cx))?;
        if std::mem::take(&mut self.ended) {
            self.down.finish(None)?;
        }
        self.down.poll_flush(cx)
    }
}

impl Source for Web<'_> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let Some(decoder) = &mut self.decoder else { return self.down.poll_fill(cx) };
        while decoder.data().is_empty() {
            match ready!(self.down.poll_fill(cx))? {
                Fill::Data => {
                    let taken = decoder.decode(self.down.data())?;
                    self.down.consume(taken);
                }
                Fill::End => {
                    decoder.end()?;
                    return Poll::Ready(Ok(Fill::End));
                }
            }
        }
        Poll::Ready(Ok(Fill::Data))
    }

    fn data(&self) -> &[u8] {
        self.decoder.as_ref().map_or_else(|| self.down.data(), Decoder::data)
    }

    fn consume(&mut self, count: usize) {
        match &mut self.decoder {
            Some(decoder) => decoder.at += count,
            None => self.down.consume(count),
        }
    }

    fn trailers(&self) -> Option<&Head> {
        self.down.trailers()
    }
}

impl Downstream for Web<'_> {
    fn respond(&mut self, head: &mut Head, framing: Framing) -> io::Result<()> {
        match Form::of_answer(head) {
            Some(form) => {
                self.answer = Answer::Translated(form);
                head.remove("content-length");
                self.down.respond(head, Framing::Chunked)
            }
            None => self.down.respond(head, framing),
        }
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

    fn abort(&mut self) {
        // Without the last frame: the client notices.
        self.down.abort();
    }
}

/// Base64 on its way to the server. Padding may come in the middle, where the client has begun another part.
#[derive(Default)]
struct Decoder {
    /// A group that is not whole yet.
    group: Vec<u8>,
    out: Vec<u8>,
    at: usize,
}

impl Decoder {
    fn data(&self) -> &[u8] {
        &self.out[self.at..]
    }

    /// Takes some of `text`; what was decoded before must have been consumed.
    fn decode(&mut self, text: &[u8]) -> io::Result<usize> {
        self.out.clear();
        self.at = 0;
        let taken = text.len().min(PIECE);
        // Line ends mean nothing, as to Go's decoder.
        self.group.extend(text[..taken].iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        let whole = self.group.len() / 4 * 4;
        let mut text: &[u8] = &self.group[..whole];
        while !text.is_empty() {
            let padded = text.chunks_exact(4).position(|group| group[3] == b'=');
            let (part, rest) = text.split_at(padded.map_or(text.len(), |at| (at + 1) * 4));
            if STANDARD.decode_vec(part, &mut self.out).is_err() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the body is not base64"));
            }
            text = rest;
        }
        self.group.drain(..whole);
        Ok(taken)
    }

    fn end(&self) -> io::Result<()> {
        match &*self.group {
            [] => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the body ends within a group of base64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(parts: &[&str]) -> Result<Vec<u8>, String> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for part in parts {
            let mut text = part.as_bytes();
            while !text.is_empty() {
                let taken = decoder.decode(text).map_err(|error| error.to_string())?;
                all.extend_from_slice(decoder.data());
                text = &text[taken..];
            }
        }
        decoder.end().map_err(|error| error.to_string())?;
        Ok(all)
    }

    #[test]
    fn base64_is_decoded_however_it_comes() {
        for (parts, expected) in [
            (&["aGVsbG8="][..], Ok("hello")),
            (&["a", "GVs", "bG8="], Ok("hello")),
            (&["aGU=bGxv"], Ok("hello")),
            (&["aGU=", "bGxv"], Ok("hello")),
            (&["aGVs\r\nbG8="], Ok("hello")),
            (&[], Ok("")),
            (&["aGVsb"], Err("the body ends within a group of base64")),
            (&["!!!!"], Err("the body is not base64")),
            (&["a=GV"], Err("the body is not base64")),
        ] {
            let expected = expected.map(|text| text.as_bytes().to_vec()).map_err(str::to_owned);
            assert_eq!(decoded(parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn trailers_make_a_frame() {
        let mut trailers = Head::new();
        trailers.append("X-Trail", b"two");
        trailers.append("Grpc-Status", b"0");
        assert_eq!(trailer_frame(Some(&trailers)), b"\x80\x00\x00\x00\x1egrpc-status: 0\r\nx-trail: two\r\n");
        assert_eq!(trailer_frame(None), b"\x80\x00\x00\x00\x00");
    }
}
