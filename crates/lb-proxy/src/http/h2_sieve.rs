//! DATA frames of HTTP/2 before h2 sees them: those without a byte are left out, small ones that follow each other on a
//! stream become one.
//!
//! Where a frame ends means nothing (RFC 9113 section 8.1), but h2 keeps some 256 bytes for each one that nobody has read
//! yet, ends the connection when these are too many, and ends it also for the 101st frame without a byte in its life.
//! A server of many tiny messages would take along the requests of all others on its connection.
//!
//! SETTINGS may wait here until h2 has opened the streams that it was asked for before: it would leave them unopened, for
//! as long as the server likes, where a new limit of streams has no room for them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::h2_meter::{CONTINUATION, DATA, END_HEADERS, HEADER_BYTES, HEADERS, MAX_PAYLOAD_BYTES};

/// What h2 counts as small. A larger payload is not worth moving.
pub(super) const SMALL: usize = 256;

/// RFC 9113 sections 6.1 and 6.6.
const END_STREAM: u8 = 1;
const PUSH_PROMISE: u8 = 5;
/// RFC 9113 section 6.5.
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// What one connection receives.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    /// Of what is no frame, or of the payload behind a header that has passed.
    skip: usize,
    /// A header that has come in part, and how much of that has passed: the rest waits here.
    header: [u8; HEADER_BYTES],
    seen: usize,
    passed: usize,
    /// Nothing may come between the frames of one head (RFC 9113 section 4.3): h2 is to see what does.
    in_head: bool,
    /// The next SETTINGS are to wait.
    holds: bool,
    /// From such SETTINGS on.
    held: Vec<u8>,
}

/// A DATA frame that the next one may join.
struct Open {
    at: usize,
    length: usize,
    stream: [u8; 4],
}

impl Sieve {
    /// For bytes of which so many come before the first frame.
    pub(crate) fn behind(preface: usize) -> Self {
        Self { skip: preface, ..Self::default() }
    }

    /// The next SETTINGS wait for [`Self::let_go`].
    pub(crate) fn hold_settings(&mut self) {
        self.holds = true;
    }

    /// No SETTINGS are to wait any more. Returns whether some did, which are to be read now.
    pub(crate) fn let_go(&mut self) -> bool {
        self.holds = false;
        !self.held.is_empty()
    }

    /// What has come, or what was held.
    fn poll_more<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(stream).poll_read(cx, buf);
        }
        if self.holds {
            // Whoever holds it reads again.
            return Poll::Pending;
        }
        let count = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..count]);
        self.held.drain(..count);
        Poll::Ready(Ok(()))
    }

    /// Reads from `stream` what is left of its frames.
    pub(crate) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            let waiting = &self.header[self.passed..self.seen];
            if buf.remaining() <= waiting.len() {
                let count = buf.remaining();
                buf.put_slice(&waiting[..count]);
                self.passed += count;
                return Poll::Ready(Ok(()));
            }
            buf.put_slice(waiting);
            let before = buf.filled().len();
            let read = self.poll_more(stream, cx, buf);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buf.set_filled(start);
                return read;
            }
            if buf.filled().len() == before {
                // The end; h2 is to see what it cuts off.
                self.passed = self.seen;
                return Poll::Ready(Ok(()));
            }
            // Looked at once more, with what follows.
            self.seen = self.passed;
            let kept = self.sift(&mut buf.filled_mut()[start..]);
            buf.set_filled(start + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Moves what passes to the beginning; returns how much that is.
    fn sift(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        let mut open: Option<Open> = None;
        while at < bytes.len() {
            let skipped = self.skip.min(bytes.len() - at);
            if skipped > 0 {
                self.skip -= skipped;
                pass(bytes, &mut at, &mut kept, skipped);
                continue;
            }
            let is_whole = self.seen == 0;
            let taken = (HEADER_BYTES - self.seen).min(bytes.len() - at);
            self.header[self.seen..self.seen + taken].copy_from_slice(&bytes[at..at + taken]);
            self.seen += taken;
            if self.seen < HEADER_BYTES {
                // One of a frame that may have to be left out waits for the rest of it.
                let waits =
                    is_whole && !self.in_head && self.header[..self.seen.min(4)].iter().all(|b| *b == 0);
                self.passed = if waits { 0 } else { self.seen };
                if !waits {
                    pass(bytes, &mut at, &mut kept, taken);
                }
                return kept;
            }
            let [high, middle, low, kind, flags, stream @ ..] = self.header;
            if self.holds && kind == SETTINGS && flags & ACK == 0 && !self.in_head {
                self.seen -= taken;
                self.passed = self.seen;
                self.held.extend_from_slice(&bytes[at..]);
                return kept;
            }
            (self.seen, self.passed) = (0, 0);
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            // On stream 0 it is an error, and padding counts for the windows.
            let is_data = is_whole
                && !self.in_head
                && kind == DATA
                && flags & !END_STREAM == 0
                && stream != [0; 4]
                && bytes.len() - at - HEADER_BYTES >= length;
            if is_data && length == 0 && flags == 0 {
                at += HEADER_BYTES;
                continue;
            }
            if let Some(before) = &mut open
                && is_data
                && before.stream == stream
                && length < SMALL
                && before.length + length <= MAX_PAYLOAD_BYTES
            {
                at += HEADER_BYTES;
                pass(bytes, &mut at, &mut kept, length);
                before.length += length;
                let [_, header @ ..] = (before.length as u32).to_be_bytes();
                bytes[before.at..before.at + 3].copy_from_slice(&header);
                bytes[before.at + 4] = flags;
                if flags != 0 {
                    open = None;
                }
                continue;
            }
            open = (is_data && flags == 0).then_some(Open { at: kept, length, stream });
            if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
                self.in_head = flags & END_HEADERS == 0;
            }
            pass(bytes, &mut at, &mut kept, taken);
            self.skip = length;
        }
        kept
    }
}

fn pass(bytes: &mut [u8], at: &mut usize, kept: &mut usize, count: usize) {
    if at != kept {
        bytes.copy_within(*at..*at + count, *kept);
    }
    *at += count;
    *kept += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"first";

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
        [&length[..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// What is left of frames behind a preface, read into buffers of this size.
    fn sieved(frames: &[Vec<u8>], room: usize) -> Vec<u8> {
        let bytes = [PREFACE, &frames.concat()].concat();
        let (mut left, mut sieve, mut passed) = (&bytes[..], Sieve::behind(PREFACE.len()), Vec::new());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            let mut room = vec![0; room];
            let mut buf = ReadBuf::new(&mut room);
            assert!(matches!(sieve.poll_read(&mut left, &mut cx, &mut buf), Poll::Ready(Ok(()))));
            if buf.filled().is_empty() {
                return passed.strip_prefix(PREFACE).unwrap().to_vec();
            }
            passed.extend_from_slice(buf.filled());
        }
    }

    #[test]
    fn empty_data_is_left_out_and_small_data_joined() {
        let large = [7; 300];
        let frames = [
            frame(DATA, 0, 1, b""),
            frame(DATA, 0, 1, b"a"),
            frame(DATA, 0, 1, b""),
            frame(DATA, 0, 1, b"bc"),
            frame(DATA, 0, 3, b"d"),
            frame(DATA, 0, 1, b"e"),
            frame(DATA, 0, 1, &large),
            frame(DATA, 0, 1, b"f"),
            frame(DATA, END_STREAM, 1, b""),
            frame(DATA, END_STREAM, 3, b""),
            frame(DATA, 0, 0, b""),
            frame(DATA, 8, 5, b"\0"),
            frame(HEADERS, 0, 5, b"x"),
            frame(DATA, 0, 1, b""),
            frame(CONTINUATION, END_HEADERS, 5, b""),
            frame(DATA, 0, 1, b""),
        ];
        let expected = [
            frame(DATA, 0, 1, b"abc"),
            frame(DATA, 0, 3, b"d"),
            frame(DATA, 0, 1, b"e"),
            frame(DATA, END_STREAM, 1, &[&large[..], b"f"].concat()),
            frame(DATA, END_STREAM, 3, b""),
            frame(DATA, 0, 0, b""),
            frame(DATA, 8, 5, b"\0"),
            frame(HEADERS, 0, 5, b"x"),
            frame(DATA, 0, 1, b""),
            frame(CONTINUATION, END_HEADERS, 5, b""),
        ];
        assert_eq!(sieved(&frames, 1 << 16), expected.concat());
    }

    #[test]
    fn no_frame_becomes_larger_than_allowed() {
        let many = vec![frame(DATA, 0, 1, &[7; 200]); 100];
        let left = sieved(&many, 1 << 16);
        let [_, high, low, ..] = left[..] else { panic!("nothing") };
        assert_eq!(u16::from_be_bytes([high, low]), 200 * 81);
        assert_eq!(left.len(), 2 * HEADER_BYTES + 200 * 100);
    }

    /// Frames, with those of DATA that follow each other on a stream as one.
    fn meaning(mut bytes: &[u8]) -> Vec<(u8, u8, u8, Vec<u8>)> {
        let mut frames: Vec<(u8, u8, u8, Vec<u8>)> = Vec::new();
        while let [_, high, low, kind, flags, _, _, _, stream, rest @ ..] = bytes {
            let (payload, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            bytes = rest;
            let is_data = *kind == DATA && *flags & !END_STREAM == 0 && *stream != 0;
            match frames.last_mut() {
                Some((DATA, joined, on, before)) if is_data && *joined == 0 && on == stream => {
                    before.extend_from_slice(payload);
                    *joined = *flags;
                }
                _ if is_data && *flags == 0 && payload.is_empty() => {}
                _ => frames.push((*kind, *flags, *stream, payload.to_vec())),
            }
        }
        assert!(bytes.is_empty(), "whole frames only: {bytes:?}");
        frames
    }

    #[test]
    fn reads_may_end_anywhere() {
        let frames = [
            frame(4, 0, 0, &[0; 6]),
            frame(HEADERS, END_HEADERS, 1, b"head"),
            frame(DATA, 0, 1, b""),
            frame(DATA, 0, 1, b"abc"),
            frame(DATA, 0, 1, b""),
            frame(DATA, 0, 1, b""),
            frame(DATA, 0, 1, b"d"),
            frame(DATA, 8, 1, &[1, b'e', 0]),
            frame(DATA, 0, 3, &[9; 300]),
            frame(DATA, 0, 3, b"f"),
            frame(6, 0, 0, &[0; 8]),
            frame(DATA, END_STREAM, 3, b""),
            frame(DATA, 0, 1, b""),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"trailers"),
        ];
        let expected = meaning(&frames.concat());
        for room in 1..400 {
            assert_eq!(meaning(&sieved(&frames, room)), expected, "in buffers of {room} bytes");
        }
    }

    #[test]
    fn whatever_comes_means_the_same_behind_it() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let any = random.usize(1..30);
            let frames: Vec<_> = (0..any)
                .map(|_| {
                    let kind = random.choice([DATA, DATA, DATA, DATA, HEADERS, CONTINUATION, 6]).unwrap();
                    let flags =
                        if kind == DATA { [0, 0, END_STREAM, 8] } else { [END_HEADERS, END_HEADERS, 5, 0] };
                    let length = random.choice([0, 0, 1, 3, 255, 256, 300]).unwrap();
                    let payload: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
                    frame(kind, random.choice(flags).unwrap(), random.u8(0..4), &payload)
                })
                .collect();
            let left = sieved(&frames, random.usize(1..2000));
            assert_eq!(meaning(&left), meaning(&frames.concat()));
            // And what is no frame at all passes as it may.
            let rubbish: Vec<u8> = (0..any * 20).map(|_| random.u8(0..3)).collect();
            assert!(sieved(std::slice::from_ref(&rubbish), any).len() <= rubbish.len());
        }
    }

    #[test]
    fn settings_wait_until_they_are_let_go() {
        let before = [frame(SETTINGS, ACK, 0, b""), frame(HEADERS, END_HEADERS, 1, &[SETTINGS; 20])].concat();
        let settings = frame(SETTINGS, 0, 0, &[7; 6]);
        let behind =
            [settings.clone(), frame(DATA, 0, 1, b"d"), settings, frame(DATA, END_STREAM, 1, b"")].concat();
        let bytes = [before.clone(), behind].concat();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for room in 1..bytes.len() {
            let (mut left, mut sieve, mut passed) = (&bytes[..], Sieve::default(), Vec::new());
            sieve.hold_settings();
            let mut room = vec![0; room];
            loop {
                let mut buf = ReadBuf::new(&mut room);
                if sieve.poll_read(&mut left, &mut cx, &mut buf).is_pending() {
                    assert!(passed.starts_with(&before) && passed.len() < before.len() + HEADER_BYTES);
                    assert!(sieve.let_go());
                } else if buf.filled().is_empty() {
                    break;
                }
                passed.extend_from_slice(buf.filled());
            }
            assert!(passed == bytes && !sieve.let_go(), "in buffers of {} bytes", room.len());
        }
    }

    #[test]
    fn what_is_cut_off_is_seen_to_be() {
        let cut = frame(DATA, 0, 1, b"")[..4].to_vec();
        assert_eq!(
            sieved(&[frame(DATA, 0, 1, b"a"), cut.clone()], 100),
            [frame(DATA, 0, 1, b"a"), cut].concat()
        );
    }
}
