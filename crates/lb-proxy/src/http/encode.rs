//! An answer's body through an encoder on its way to the client.

use std::io::{self, Write as _};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use brotli::CompressorWriter as Brotli;
use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;
use lb_core::encoding::Encoding;
use lb_http1::{Framing, Head};
use zstd::stream::write::Encoder as Zstd;

use super::body::{Fill, Sink, Source};
use super::downstream::Downstream;
use super::grpc_web::Frames;
use super::h1::H1;
use crate::middleware::Form;

/// So much is encoded at a time, and so much before others get their turn: at 60 MB/s and more that is about a
/// millisecond. Chosen.
const PIECE: usize = 16 * 1024;
const TURN: usize = 64 * 1024;

/// Chosen by measurement of JSON: speed and size about those of Traefik's encoder, 450 KiB of memory.
const GZIP_LEVEL: u32 = 5;
/// Windows are small so that memory is: 860 KiB here, where Traefik's defaults would take 40 MiB.
const BROTLI_QUALITY: i32 = 3;
const BROTLI_WINDOW_BITS: i32 = 16;
/// Traefik's level, with a window of 256 KiB instead of its 8 MiB: about 1 MiB of memory.
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW_BITS: u32 = 18;

/// What middlewares have decided about the form of an answer's body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Encode {
    /// By `compress`. An announced length below `min` is not worth it.
    Compressed { encoding: Encoding, min: u64 },
    /// By `grpcWeb`, whose head the answer has already.
    Web(Form),
}

impl Encode {
    /// Whether there is something to encode, now that the whole head is known.
    pub(super) fn suits(self, head: &Head, framing: Framing) -> bool {
        let Self::Compressed { min, .. } = self else { return true };
        let enough = match framing {
            Framing::Empty => false,
            Framing::Length(length) => length >= min,
            // Nobody knows; to wait for more would hold back what is there. As by Traefik.
            Framing::Chunked | Framing::UntilClose => true,
        };
        // A middleware nearer to the client may have had its say since.
        enough && !head.contains("content-encoding")
    }
}

/// The client, behind an encoder.
pub(super) struct Encoded<'a> {
    down: &'a mut dyn Downstream,
    encoder: Encoder,
    /// Encoded bytes that the client has not taken yet begin here.
    at: usize,
    /// Bytes the client has taken.
    pub(super) sent: u64,
    /// Bytes of the body still announced by the server.
    left: Option<u64>,
    /// Something went in since the last flush.
    unflushed: bool,
    /// Encoded since others had their turn.
    spent: usize,
    ending: Ending,
}

/// How far the end of the body has come.
enum Ending {
    None,
    /// The encoder has ended; what it left goes out, then the end itself.
    Due(Option<Box<Head>>),
    Said,
}

impl<'a> Encoded<'a> {
    /// Makes `head` the one of the encoded answer.
    pub(super) fn begin(
        down: &'a mut dyn Downstream,
        head: &mut Head,
        framing: Framing,
        encode: Encode,
    ) -> io::Result<Self> {
        let left = if let Framing::Length(length) = framing { Some(length) } else { None };
        let encoder = match encode {
            Encode::Compressed { encoding, .. } => {
                let encoder = Encoder::new(encoding, left)?;
                // RFC 9110 section 14.3: ranges would be of other bytes.
                head.remove("accept-ranges");
                head.set("Content-Encoding", encoding.name().as_bytes());
                weaken(head);
                encoder
            }
            Encode::Web(form) => Encoder::Web(Frames::new(form)),
        };
        head.remove("content-length");
        let ending = Ending::None;
        Ok(Self { down, encoder, at: 0, sent: 0, left, unflushed: false, spent: 0, ending })
    }

    /// Ready when the client has taken all that is encoded.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = self.encoder.out();
        while self.at < out.len() {
            let count = ready!(self.down.poll_send(cx, &out[self.at..]))?;
            self.at += count;
            self.sent += count as u64;
        }
        out.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}

/// The encoded bytes are others than the server's: RFC 9110 section 8.8.1 allows the same strong validator for the same
/// bytes only. With it a client could continue one form with the rest of the other.
fn weaken(head: &mut Head) {
    let Some(tag) = head.get("etag").filter(|tag| tag.starts_with(b"\"")) else { return };
    let weak = [b"W/", tag].concat();
    head.set("ETag", &weak);
}

impl Sink for Encoded<'_> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.left.is_some_and(|left| data.len() as u64 > left) {
            return Poll::Ready(Err(io::Error::other("body longer than announced")));
        }
        ready!(self.poll_drain(cx))?;
        if self.spent >= TURN {
            self.spent = 0;
            // Others are those as well whose sockets have something to say; to wake ourselves would come before them.
            return pin!(tokio::task::yield_now()).poll(cx).map(|()| Ok(0));
        }
        let count = data.len().min(PIECE);
        self.encoder.write(&data[..count])?;
        self.spent += count;
        self.unflushed = true;
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(io::Error::other("body shorter than announced"));
        }
        let trailers = self.encoder.finish(trailers)?;
        self.unflushed = false;
        self.ending = Ending::Due(trailers.map(|trailers| Box::new(trailers.clone())));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.unflushed) {
            self.encoder.flush()?;
        }
        ready!(self.poll_drain(cx))?;
        if let Ending::Due(trailers) = &self.ending {
            self.down.finish(trailers.as_deref())?;
            self.ending = Ending::Said;
        }
        self.down.poll_flush(cx)
    }
}

impl Source for Encoded<'_> {
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

impl Downstream for Encoded<'_> {
    fn respond(&mut self, head: &mut Head, _: Framing) -> io::Result<()> {
        // How long it becomes is known when it ends.
        self.down.respond(head, Framing::Chunked)
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
        // Without the encoder's end: decoders notice, whatever the connection says.
        self.down.abort();
    }
}

/// Freed with its answer.
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<Brotli<Vec<u8>>>),
    Zstd(Zstd<'static, Vec<u8>>),
    Web(Frames),
    Finished(Vec<u8>),
}

impl Encoder {
    fn new(encoding: Encoding, length: Option<u64>) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Encoding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW_BITS,
                    size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(Brotli::with_params(Vec::new(), 4096, &params)))
            }
            Encoding::Zstd => {
                let mut encoder = Zstd::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW_BITS)?;
                // Tables are no larger than that needs.
                encoder.set_pledged_src_size(length)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// What has been encoded and not been taken out.
    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Web(frames) => &mut frames.out,
            Self::Finished(out) => out,
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
            Self::Web(frames) => {
                frames.write(data);
                Ok(())
            }
            Self::Finished(_) => Err(io::Error::other("written behind the end")),
        }
    }

    /// All that went in can be decoded from what has come out.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Web(frames) => {
                frames.flush();
                Ok(())
            }
            Self::Finished(_) => Ok(()),
        }
    }

    /// Returns the trailers that are still to be sent.
    fn finish<'t>(&mut self, mut trailers: Option<&'t Head>) -> io::Result<Option<&'t Head>> {
        *self = Self::Finished(match std::mem::replace(self, Self::Finished(Vec::new())) {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Web(frames) => frames.end(trailers.take()),
            Self::Finished(out) => out,
        });
        Ok(trailers)
    }
}
