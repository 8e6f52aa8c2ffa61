//! Frames of HTTP/3 (RFC 9114 section 7) on one stream: heads of frames decided, payloads passed on as they come.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, VarInt};

/// RFC 9114 section 7.2.
pub(super) mod kind {
    pub(in super::super) const DATA: u64 = 0x0;
    pub(in super::super) const HEADERS: u64 = 0x1;
    pub(in super::super) const CANCEL_PUSH: u64 = 0x3;
    pub(in super::super) const SETTINGS: u64 = 0x4;
    pub(in super::super) const PUSH_PROMISE: u64 = 0x5;
    pub(in super::super) const GOAWAY: u64 = 0x7;
    pub(in super::super) const MAX_PUSH_ID: u64 = 0xd;
    /// PRIORITY_UPDATE: RFC 9218 section 7.2.
    const PRIORITY: u64 = 0xf_0700;
    const PRIORITY_OF_PUSH: u64 = 0xf_0701;
    /// Of the form that everybody ignores: section 7.2.8.
    pub(in super::super) const RESERVED: u64 = 0x21;

    /// Whether it belongs to the control stream, or to none of a client's.
    pub(in super::super) fn is_of_control(kind: u64) -> bool {
        matches!(
            kind,
            CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID | PRIORITY..=PRIORITY_OF_PUSH
        )
    }

    /// Of HTTP/2, and never to be seen here: section 7.2.8.
    pub(in super::super) fn is_forbidden(kind: u64) -> bool {
        matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
    }
}

/// Why a stream or a connection ends: RFC 9114 section 8.1, RFC 9204 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0x100,
    InternalError = 0x102,
    StreamCreationError = 0x103,
    ClosedCriticalStream = 0x104,
    FrameUnexpected = 0x105,
    FrameError = 0x106,
    ExcessiveLoad = 0x107,
    IdError = 0x108,
    SettingsError = 0x109,
    MissingSettings = 0x10a,
    RequestRejected = 0x10b,
    RequestIncomplete = 0x10d,
    MessageError = 0x10e,
    DecompressionFailed = 0x200,
    EncoderStreamError = 0x201,
    DecoderStreamError = 0x202,
}

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Why no more can be read.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client has reset the stream, or its connection is gone.
    Gone,
    /// In the middle of a frame.
    Short,
}

impl From<ReadError> for Ended {
    fn from(_: ReadError) -> Self {
        Self::Gone
    }
}

/// The largest head of a frame: two integers of eight bytes.
const HEAD: usize = 16;

/// A stream from the client, as frames.
pub(super) struct Frames {
    stream: RecvStream,
    chunk: Bytes,
    /// Of a head that has come in part.
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the payload still to come, or in `chunk`.
    left: u64,
    ended: bool,
}

impl Frames {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, chunk: Bytes::new(), head: [0; HEAD], have: 0, left: 0, ended: false }
    }

    /// Kind and length of the next frame, whose predecessor was read to its end; `None` at the end of the stream.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<(u64, u64)>, Ended>> {
        loop {
            while self.have < HEAD
                && let Some(&byte) = self.chunk.first()
            {
                self.chunk.advance(1);
                self.head[self.have] = byte;
                self.have += 1;
                let read = &self.head[..self.have];
                if let Some((kind, rest)) = varint(read)
                    && let Some((length, _)) = varint(rest)
                {
                    self.have = 0;
                    self.left = length;
                    return Poll::Ready(Ok(Some((kind, length))));
                }
            }
            if !ready!(self.poll_chunk(cx))? {
                let whole = self.have == 0;
                return Poll::Ready(if whole { Ok(None) } else { Err(Ended::Short) });
            }
        }
    }

    /// One integer that is no frame: the kind of a stream. `None` at the end of the stream.
    pub(super) fn poll_varint(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u64>, Ended>> {
        loop {
            while let Some(&byte) = self.chunk.first() {
                self.chunk.advance(1);
                self.head[self.have] = byte;
                self.have += 1;
                if let Some((number, _)) = varint(&self.head[..self.have]) {
                    self.have = 0;
                    return Poll::Ready(Ok(Some(number)));
                }
            }
            if !ready!(self.poll_chunk(cx))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// The next byte outside of any frame, or `None` at the end of the stream.
    pub(super) fn poll_byte(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u8>, Ended>> {
        if self.chunk.is_empty() && !ready!(self.poll_chunk(cx))? {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(self.chunk.get_u8())))
    }

    /// Makes bytes of the payload available in [`payload`](Self::payload); false at its end.
    pub(super) fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ended>> {
        while self.left > 0 {
            if !self.chunk.is_empty() {
                return Poll::Ready(Ok(true));
            }
            if !ready!(self.poll_chunk(cx))? {
                return Poll::Ready(Err(Ended::Short));
            }
        }
        Poll::Ready(Ok(false))
    }

    pub(super) fn payload(&self) -> &[u8] {
        let end = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.chunk.len());
        &self.chunk[..end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        self.left -= count as u64;
    }

    /// Asks the client to send no more.
    pub(super) fn stop(&mut self, code: Code) {
        // It fails where there is nothing more to come.
        let _ = self.stream.stop(code.into());
    }

    /// False at the end of the stream.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ended>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        // It holds nothing between two looks.
        match ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx))? {
            Some(chunk) => {
                self.chunk = chunk.bytes;
                Poll::Ready(Ok(true))
            }
            None => {
                self.ended = true;
                Poll::Ready(Ok(false))
            }
        }
    }
}

/// The integer that `bytes` begin with, and what follows: RFC 9000 section 16.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let number = number[1..].iter().fold(u64::from(first & 0x3f), |sum, byte| sum << 8 | u64::from(*byte));
    Some((number, rest))
}

/// Appends an integer; no larger one than 62 bits can be said.
pub(super) fn put_varint(number: u64, output: &mut Vec<u8>) {
    match number {
        0..0x40 => output.push(number as u8),
        0x40..0x4000 => output.extend_from_slice(&(number as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => output.extend_from_slice(&(number as u32 | 0x8000_0000).to_be_bytes()),
        _ => output.extend_from_slice(&(number | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Appends a whole frame, its payload written by `payload`.
pub(super) fn put_frame(kind: u64, output: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    put_varint(kind, output);
    let at = output.len();
    payload(output);
    let mut length = Vec::with_capacity(8);
    put_varint((output.len() - at) as u64, &mut length);
    output.splice(at..at, length);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 appendix A.1.
    #[test]
    fn integers_are_those_of_the_specification() {
        for (bytes, number) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(varint(bytes), Some((number, &[][..])));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
            let mut written = Vec::new();
            put_varint(number, &mut written);
            assert_eq!(written, bytes);
        }
        assert_eq!(varint(&[0x40, 0x25, 7]), Some((37, &[7][..])));
    }

    #[test]
    fn a_frame_says_how_long_it_is() {
        let mut output = b"before".to_vec();
        put_frame(kind::HEADERS, &mut output, |output| output.extend_from_slice(&[7; 100]));
        assert_eq!(output[6..9], [1, 0x40, 100]);
        assert_eq!(output.len(), 6 + 3 + 100);
    }
}
