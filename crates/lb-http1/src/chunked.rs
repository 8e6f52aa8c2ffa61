//! The chunked coding, undone: RFC 9112 section 7.1.

use crate::chars::find_control;
use crate::head::Head;
use crate::parse::{HeadError, Limits, Parsed, parse_trailers};

/// Undoes the chunked coding of one body, in pieces of any size.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    max_trailer_bytes: usize,
    /// Trailer lines received so far, while they are incomplete.
    pending: Vec<u8>,
    trailers: Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a chunk size.
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind the size, in blanks: RFC 9112 section 7.1.1 has them before an extension, and old servers pad with them.
    Padding {
        size: u64,
        len: u16,
    },
    /// Behind the size, in extensions that mean nothing to us.
    Extension {
        size: u64,
        len: u16,
    },
    /// The LF that ends the size line.
    SizeLf {
        size: u64,
    },
    /// This much data of the chunk is still to come; never zero.
    Data {
        left: u64,
    },
    /// The CRLF behind the data.
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// What one call of [`ChunkedDecoder::next`] found at the start of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// `consumed` bytes of framing, which is all there was: go on with more.
    Partial { consumed: usize },
    /// Data, perhaps only a part of a chunk, never empty: `input[start..consumed]`.
    Data { consumed: usize, start: usize },
    /// The body is over; the bytes behind `consumed` belong to the next message.
    End { consumed: usize },
}

/// Why a chunked body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("malformed chunk size")]
    Size,
    #[error("malformed or oversized chunk extension")]
    Extension,
    #[error("chunk not followed by CRLF")]
    Terminator,
    #[error("bad trailers: {0}")]
    Trailers(HeadError),
}

impl ChunkError {
    /// What a client is answered if nothing was answered before: 400 or 431.
    pub fn status(&self) -> u16 {
        match self {
            Self::Trailers(error) => error.status(),
            _ => 400,
        }
    }

    /// For metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Size => "chunk_size",
            Self::Extension => "chunk_extension",
            Self::Terminator => "chunk_terminator",
            Self::Trailers(_) => "trailers",
        }
    }
}

/// As many as a `u64` has; more, even zeros, are an attempt to confuse.
const MAX_SIZE_DIGITS: u8 = 16;

/// Chosen, with the blanks before it. Bounds what a sender can make us read per byte of data.
const MAX_EXTENSION_BYTES: u16 = 256;

/// Chosen.
const MAX_TRAILERS: usize = 64;

impl ChunkedDecoder {
    /// `max_trailer_bytes` counts from the last chunk to the end of the empty line.
    pub fn new(max_trailer_bytes: usize) -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            max_trailer_bytes,
            pending: Vec::new(),
            trailers: Head::new(),
        }
    }

    /// Whether the body ends within these pieces, which come next.
    pub fn ends_within<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut ahead = self.clone();
        for mut piece in pieces {
            loop {
                match ahead.next(piece) {
                    Ok(Chunk::Data { consumed, .. }) => piece = &piece[consumed..],
                    Ok(Chunk::Partial { .. }) => break,
                    Ok(Chunk::End { .. }) => return true,
                    Err(_) => return false,
                }
            }
        }
        false
    }

    /// Reads on from the start of `input`, which begins where the previous call stopped consuming.
    ///
    /// # Errors
    /// The body is broken: what was read of it is not the whole, and the connection is to be closed.
    pub fn next(&mut self, input: &[u8]) -> Result<Chunk, ChunkError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Data { left } => {
                    let available = input.len() - at;
                    if available == 0 {
                        break;
                    }
                    let taken = usize::try_from(left).map_or(available, |left| left.min(available));
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Chunk::Data { consumed: at + taken, start: at });
                }
                State::Trailers => return self.read_trailers(input, at),
                State::End => return Ok(Chunk::End { consumed: at }),
                State::Extension { size, len } => {
                    let rest = &input[at..];
                    let found = find_control(rest);
                    let taken = found.unwrap_or(rest.len());
                    let len = usize::from(len) + taken;
                    let len = u16::try_from(len).ok().filter(|&len| len <= MAX_EXTENSION_BYTES);
                    let len = len.ok_or(ChunkError::Extension)?;
                    at += taken;
                    match found.map(|found| rest[found]) {
                        None => {
                            self.state = State::Extension { size, len };
                            break;
                        }
                        Some(b'\r') => self.state = State::SizeLf { size },
                        Some(_) => return Err(ChunkError::Extension),
                    }
                    at += 1;
                }
                _ => {
                    let Some(&byte) = input.get(at) else { break };
                    self.state = self.step(byte)?;
                    at += 1;
                }
            }
        }
        Ok(Chunk::Partial { consumed: at })
    }

    /// The fields behind the last chunk, once the body is over, without those that may not stand there.
    pub fn trailers(&self) -> &Head {
        &self.trailers
    }

    /// Whether the body was read to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    /// One byte of framing.
    fn step(&self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::Size { digits: 1.., size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { digits: 1.., size }, b';') => Ok(State::Extension { size, len: 0 }),
            (State::Size { digits: 1.., size }, b' ' | b'\t') => Ok(State::Padding { size, len: 1 }),
            (State::Padding { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Padding { size, len }, b';') => Ok(State::Extension { size, len }),
            (State::Padding { len: MAX_EXTENSION_BYTES, .. }, _) => Err(ChunkError::Extension),
            (State::Padding { size, len }, b' ' | b'\t') => Ok(State::Padding { size, len: len + 1 }),
            (State::Size { digits, size }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(ChunkError::Size)?;
                if digits == MAX_SIZE_DIGITS {
                    return Err(ChunkError::Size);
                }
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::SizeLf { .. } | State::Padding { .. }, _) => Err(ChunkError::Size),
            _ => Err(ChunkError::Terminator),
        }
    }

    fn read_trailers(&mut self, input: &[u8], at: usize) -> Result<Chunk, ChunkError> {
        let rest = &input[at..];
        if self.pending.is_empty() && rest.starts_with(b"\r\n") {
            self.state = State::End;
            return Ok(Chunk::End { consumed: at + 2 });
        }
        if rest.is_empty() {
            return Ok(Chunk::Partial { consumed: at });
        }
        let before = self.pending.len();
        let taken = rest.len().min(self.max_trailer_bytes.saturating_sub(before));
        self.pending.extend_from_slice(&rest[..taken]);
        let limits = Limits { max_head_bytes: self.max_trailer_bytes, max_fields: MAX_TRAILERS };
        match parse_trailers(&self.pending, &mut self.trailers, &limits).map_err(ChunkError::Trailers)? {
            Parsed::Partial => Ok(Chunk::Partial { consumed: at + taken }),
            Parsed::Complete(end) => {
                self.pending = Vec::new();
                self.state = State::End;
                self.trailers.retain(|name, _| is_allowed_trailer(name));
                Ok(Chunk::End { consumed: at + end - before })
            }
        }
    }
}

/// RFC 9110 section 6.5.1: nothing that frames, routes, authenticates, modifies or describes the message may come after
/// it, since whoever acted on the head has acted already.
pub fn is_allowed_trailer(name: &str) -> bool {
    const FORBIDDEN: [&str; 42] = [
        "accept-encoding",
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "retry-after",
        "set-cookie",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-real-ip",
    ];
    // CGI and its heirs make `_` of a hyphen, some servers of every other special character as well.
    let begins_as = |canonical: &str| {
        name.len() >= canonical.len()
            && name.bytes().zip(canonical.bytes()).all(|(byte, expected)| match expected {
                b'-' => !byte.is_ascii_alphanumeric(),
                letter => byte.eq_ignore_ascii_case(&letter),
            })
    };
    !begins_as("x-forwarded-")
        && !FORBIDDEN.iter().any(|forbidden| name.len() == forbidden.len() && begins_as(forbidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, the trailers and what follows, or how it failed. Fed in pieces of `piece` bytes.
    fn decode(bytes: &[u8], piece: usize) -> String {
        let mut decoder = ChunkedDecoder::new(60);
        let mut data = String::new();
        let (mut at, mut end) = (0, piece.min(bytes.len()));
        loop {
            match decoder.next(&bytes[at..end]) {
                Ok(Chunk::Data { consumed, start }) => {
                    assert!(start < consumed);
                    data += str::from_utf8(&bytes[at + start..at + consumed]).unwrap();
                    at += consumed;
                }
                Ok(Chunk::Partial { consumed }) => {
                    at += consumed;
                    assert_eq!(at, end);
                    if end == bytes.len() {
                        return format!("{data}...");
                    }
                    end = (end + piece).min(bytes.len());
                }
                Ok(Chunk::End { consumed }) => {
                    at += consumed;
                    assert!(decoder.is_done());
                    assert_eq!(decoder.next(&bytes[at..]), Ok(Chunk::End { consumed: 0 }));
                    for (name, value) in decoder.trailers().iter() {
                        data += &format!(" [{name}={}]", str::from_utf8(value).unwrap());
                    }
                    return format!("{data} + {}", bytes[at..].escape_ascii());
                }
                Err(error) => return format!("{} {error}", error.status()),
            }
        }
    }

    #[test]
    fn bodies_are_decoded_however_they_arrive() {
        for (bytes, expected) in [
            ("0\r\n\r\n", " + "),
            ("3\r\nabc\r\n0\r\n\r\nGET /", "abc + GET /"),
            ("000A\r\n0123456789\r\n1\r\n!\r\n000\r\n\r\n", "0123456789! + "),
            ("3;a=b;c=\"d;\te\"\r\nabc\r\n0;x\r\n\r\n", "abc + "),
            ("1 ;x\r\na\r\n2 \t \r\nbc\r\n0 \r\n\r\n", "abc + "),
            ("1\r\na\r\n0\r\nA: 1\r\nb:2 \r\n\r\nx", "a [A=1] [b=2] + x"),
            ("0\r\nHost: a\r\nX-Forwarded-For: 1\r\nGrpc-Status: 0\r\n\r\n", " [Grpc-Status=0] + "),
            ("5\r\nab", "ab..."),
            ("0\r\n", "..."),
            ("0\r\n\r", "..."),
            ("0\r\nA: 1\r\n", "..."),
        ] {
            for piece in 1..=bytes.len() {
                assert_eq!(decode(bytes.as_bytes(), piece), expected, "{bytes:?} by {piece}");
                let ends = ChunkedDecoder::new(60).ends_within(bytes.as_bytes().chunks(piece));
                assert_eq!(ends, !expected.ends_with("..."), "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn broken_chunks_are_refused_however_they_arrive() {
        let long_padding = format!("1{}\r\n", " ".repeat(257));
        let long_extension = format!("1;{}\r\n", "x".repeat(257));
        let long_trailers = format!("0\r\nA: {}\r\n\r\n", "x".repeat(60));
        for (bytes, expected) in [
            ("\r\n", "400 malformed chunk size"),
            ("g\r\n", "400 malformed chunk size"),
            ("+1\r\n", "400 malformed chunk size"),
            ("-1\r\n", "400 malformed chunk size"),
            ("0x1\r\n", "400 malformed chunk size"),
            (" 1\r\n", "400 malformed chunk size"),
            ("1 1\r\n", "400 malformed chunk size"),
            ("1 \n", "400 malformed chunk size"),
            ("1 \x0b\r\n", "400 malformed chunk size"),
            (long_padding.as_str(), "400 malformed or oversized chunk extension"),
            ("1_0\r\n", "400 malformed chunk size"),
            (";a\r\n", "400 malformed chunk size"),
            ("1\n", "400 malformed chunk size"),
            ("1\r1", "400 malformed chunk size"),
            ("1\r\r\n", "400 malformed chunk size"),
            ("00000000000000001\r\n", "400 malformed chunk size"),
            ("10000000000000000\r\n", "400 malformed chunk size"),
            ("1;a\nb\r\n", "400 malformed or oversized chunk extension"),
            ("1;a\0\r\n", "400 malformed or oversized chunk extension"),
            ("1;a\r\r\n", "400 malformed chunk size"),
            (long_extension.as_str(), "400 malformed or oversized chunk extension"),
            ("1\r\nab\r\n", "400 chunk not followed by CRLF"),
            ("1\r\na\n", "400 chunk not followed by CRLF"),
            ("1\r\na\r1", "400 chunk not followed by CRLF"),
            ("0\r\n\n", "400 bad trailers: line feed without carriage return"),
            ("0\r\nA : 1\r\n", "400 bad trailers: white space before the colon of a field"),
            ("0\r\nA\r\n", "400 bad trailers: invalid field name"),
            (long_trailers.as_str(), "431 bad trailers: head too large"),
        ] {
            for piece in 1..=bytes.len() {
                assert_eq!(decode(bytes.as_bytes(), piece), expected, "{bytes:?} by {piece}");
            }
        }
        assert_eq!(decode(b"ffffffffffffffff\r\nabc", 3), "abc...");
    }

    #[test]
    fn trailers_that_look_like_a_field_of_the_head_are_not_allowed() {
        for name in [
            "X-Forwarded-For",
            "x_forwarded_for",
            "X.Forwarded-Anything",
            "Content_Length",
            "x_real_ip",
            "Host",
        ] {
            assert!(!is_allowed_trailer(name), "{name}");
        }
        for name in ["X-Sum", "Grpc-Status", "Hosts", "Contents-Length", "X-Forward", "X"] {
            assert!(is_allowed_trailer(name), "{name}");
        }
    }
}
