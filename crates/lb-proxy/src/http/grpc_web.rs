//! gRPC-Web towards the client, gRPC towards the server: what `grpcWeb` does with bodies, piece by piece as they come.
//!
//! Trailers become the last frame of the body, since scripts in browsers cannot see trailers; with `-text` both bodies
//! are base64. Who reads the request, [`Replay`](super::replay::Replay), and who sends the answer,
//! [`Encoded`](super::encode::Encoded), have them translated here.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_http1::{Framing, Head};

use super::around::{behind, without_body};
use super::downstream::Unkept;
use super::handle::{Passed, Reply};
use super::replay::Replay;
use crate::middleware::{Form, GrpcWeb, Step};
use crate::passage::Passage;
use crate::snapshot::Route;
use crate::upstream::failure;

/// So much is decoded at a time. Chosen.
const PIECE: usize = 12 * 1024;

/// First byte of a frame with trailers: the highest bit says that it has no message.
const TRAILERS: u8 = 0x80;

/// The middleware at `at`, and what is behind it.
pub(super) async fn stage<'r>(
    p: &mut Passage<'_, 'r, Replay<'_>>,
    route: &'r Route,
    (at, web): (usize, &GrpcWeb),
) -> Passed<'r> {
    let (form, step) = web.on_request(p.x);
    if let Step::Respond(local) = step {
        local.write_head(&mut p.x.response);
        return Passed { reply: Reply::Local(local.body), reached: at, failure: None };
    }
    if form == Some(Form::Text) && p.framing.has_body() {
        // It becomes shorter.
        p.framing = Framing::Chunked;
        p.x.head.remove("content-length");
        if let Err(error) = p.down.decode_base64().await {
            let unkept = Unkept::Client(failure::client_body(&error).cause);
            let reply = without_body(p, unkept).map_or(Reply::Gone, Reply::Local);
            return Passed { reply, reached: at, failure: None };
        }
    }
    let passed = behind(p, route, at + 1).await;
    if let Some(form) = form {
        web.on_response(p.x, form);
    }
    passed
}

/// A gRPC answer's body as gRPC-Web has it.
pub(super) struct Frames {
    form: Form,
    pub(super) out: Vec<u8>,
    /// Bytes that do not make a group of base64 yet.
    rest: Vec<u8>,
}

impl Frames {
    pub(super) fn new(form: Form) -> Self {
        Self { form, out: Vec::new(), rest: Vec::new() }
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        match self.form {
            Form::Binary => self.out.extend_from_slice(data),
            Form::Text => self.encode(data, false),
        }
    }

    /// What has come must not wait for what comes: a body may have several padded parts.
    pub(super) fn flush(&mut self) {
        self.encode(&[], true);
    }

    /// All of it, with the trailers behind.
    pub(super) fn end(mut self, trailers: Option<&Head>) -> Vec<u8> {
        self.write(&trailer_frame(trailers));
        self.flush();
        self.out
    }

    /// Encodes `data` behind what is left over; all of it where `last` is set.
    fn encode(&mut self, data: &[u8], last: bool) {
        self.rest.extend_from_slice(data);
        let whole = if last { self.rest.len() } else { self.rest.len() / 3 * 3 };
        let begin = self.out.len();
        self.out.resize(begin + whole.div_ceil(3) * 4, 0);
        // There is room for it.
        let written = STANDARD.encode_slice(&self.rest[..whole], &mut self.out[begin..]).unwrap_or(0);
        self.out.truncate(begin + written);
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

/// Base64 on its way to the server. Padding may come in the middle, where the client has begun another part.
#[derive(Default)]
pub(super) struct Decoder {
    /// A group that is not whole yet.
    group: Vec<u8>,
    out: Vec<u8>,
    at: usize,
}

impl Decoder {
    pub(super) fn data(&self) -> &[u8] {
        &self.out[self.at..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.at += count;
    }

    /// Takes some of `text`; what was decoded before must have been consumed.
    pub(super) fn decode(&mut self, text: &[u8]) -> io::Result<usize> {
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

    pub(super) fn end(&self) -> io::Result<()> {
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
