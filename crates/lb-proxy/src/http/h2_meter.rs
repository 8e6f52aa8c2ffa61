//! Floods of HTTP/2 frames that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA, unknown ones.
//!
//! Each is answered or ignored at once and costs no memory, only time (CVE-2019-9512, 9515 and kin). What a
//! client spends on them is weighed against what it sends and gets besides; h2 itself bounds
//! endless CONTINUATION and streams reset before they were accepted. It does not bound the time that one head
//! may take, so heads that have begun and not ended are seen here as well.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9113 section 3.4.
pub(super) const PREFACE_BYTES: usize = 24;
/// RFC 9113 section 4.1.
pub(super) const HEADER_BYTES: usize = 9;
/// RFC 9113 section 4.2: what we allow, having said nothing else.
pub(super) const MAX_PAYLOAD_BYTES: usize = 16_384;
/// What a client may spend before it is compared: a PING every ten seconds fills it in a week. As nginx has it.
const FREE_BYTES: u64 = 1024 * 1024;
/// How many times what is useful the rest may be: a client may well send two WINDOW_UPDATEs for a DATA frame of
/// one byte. Chosen.
const TIMES_USEFUL: u64 = 8;

/// RFC 9113 section 6.4.
const RESET_BYTES: u64 = 13;
/// RFC 9113 sections 6.1, 6.2 and 6.10.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_HEADERS: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EmptyData,
    Priority,
    Reset,
    Settings,
    Ping,
    WindowUpdate,
    Unknown,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::EmptyData,
        Self::Priority,
        Self::Reset,
        Self::Settings,
        Self::Ping,
        Self::WindowUpdate,
        Self::Unknown,
    ];

    /// `None` for frames that carry a message.
    fn of(frame_type: u8, payload: u64) -> Option<Self> {
        Some(match frame_type {
            DATA if payload == 0 => Self::EmptyData,
            DATA | HEADERS | CONTINUATION => return None,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            6 => Self::Ping,
            8 => Self::WindowUpdate,
            _ => Self::Unknown,
        })
    }

    fn label(self) -> &'static str {
        match self {
            Self::EmptyData => "http2_data_flood",
            Self::Priority => "http2_priority_flood",
            Self::Reset => "http2_reset_flood",
            Self::Settings => "http2_settings_flood",
            Self::Ping => "http2_ping_flood",
            Self::WindowUpdate => "http2_window_update_flood",
            Self::Unknown => "http2_unknown_flood",
        }
    }

    /// Bytes we send back for each one.
    fn answered_with(self) -> u64 {
        match self {
            Self::Settings => 9,
            Self::Ping => 17,
            _ => 0,
        }
    }
}

/// What one connection has spent on what.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    spent: [Cell<u64>; Kind::ALL.len()],
    /// Payload that came, and all that was sent.
    useful: Cell<u64>,
    /// Sent, but only because of what was spent.
    answers: Cell<u64>,
    flood: Cell<bool>,
    /// Heads that have begun, and whether the last has not ended yet.
    heads: Cell<u64>,
    in_head: Cell<bool>,
    last: Cell<u8>,
}

impl Meter {
    /// What the connection is flooded with, as metrics and logs call it.
    pub(crate) fn flood(&self) -> Option<&'static str> {
        if !self.flood.get() {
            return None;
        }
        Kind::ALL.into_iter().max_by_key(|kind| self.spent[*kind as usize].get()).map(Kind::label)
    }

    /// Which head has begun and not ended, if any: they are counted.
    pub(crate) fn unfinished_head(&self) -> Option<u64> {
        self.in_head.get().then(|| self.heads.get())
    }

    /// Whether the head that has begun and not ended takes more than one frame.
    pub(crate) fn unfinished_head_is_long(&self) -> bool {
        self.in_head.get() && self.last.get() == CONTINUATION
    }

    /// Which of its own limits h2 has found exceeded. It keeps that to itself, but few frames can be the cause.
    pub(crate) fn excess(&self) -> &'static str {
        let resets = self.spent[Kind::Reset as usize].get() / RESET_BYTES;
        if self.last.get() == CONTINUATION {
            "http2_continuation_flood"
        } else if self.last.get() == DATA {
            "http2_data_flood"
        } else if resets >= self.heads.get() / 2 {
            "http2_rapid_reset"
        } else {
            // Streams that are in error, so that we reset them (CVE-2025-8671).
            "http2_made_reset"
        }
    }

    fn received(&self, frame_type: u8, payload: u64) {
        let Some(kind) = Kind::of(frame_type, payload) else {
            add(&self.useful, payload);
            return;
        };
        add(&self.spent[kind as usize], HEADER_BYTES as u64 + payload);
        add(&self.answers, kind.answered_with());
        let spent: u64 = self.spent.iter().map(Cell::get).sum();
        if spent > FREE_BYTES {
            let useful = self.useful.get().saturating_sub(self.answers.get());
            self.flood.set(spent - FREE_BYTES > useful.saturating_mul(TIMES_USEFUL));
        }
    }
}

fn add(counter: &Cell<u64>, bytes: u64) {
    counter.set(counter.get().saturating_add(bytes));
}

/// Where one frame ends and the next begins, over reads of any size.
#[derive(Debug)]
struct Frames {
    /// Of the preface, or of the payload of the frame whose header was seen.
    skip: usize,
    header: [u8; HEADER_BYTES],
    seen: usize,
    /// The payload that is skipped is the end of a head.
    ends_head: bool,
}

impl Frames {
    fn new() -> Self {
        Self { skip: PREFACE_BYTES, header: [0; HEADER_BYTES], seen: 0, ends_head: false }
    }

    fn read(&mut self, mut bytes: &[u8], meter: &Meter) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.ends_head && self.skip == 0 {
                self.ends_head = false;
                meter.in_head.set(false);
            }
            let taken = (HEADER_BYTES - self.seen).min(bytes.len());
            if taken == 0 {
                return;
            }
            self.header[self.seen..self.seen + taken].copy_from_slice(&bytes[..taken]);
            self.seen += taken;
            bytes = &bytes[taken..];
            if let (HEADER_BYTES, [a, b, c, frame_type, flags, ..]) = (self.seen, self.header) {
                self.seen = 0;
                meter.last.set(frame_type);
                if frame_type == HEADERS {
                    add(&meter.heads, 1);
                    meter.in_head.set(true);
                }
                self.ends_head = matches!(frame_type, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                // h2 refuses larger ones, which are another matter.
                meter.received(frame_type, self.skip.min(MAX_PAYLOAD_BYTES) as u64);
            }
        }
    }
}

/// A stream whose frames are counted. In a flood it reads no more: whoever polls it is to look at the meter.
pub(crate) struct Metered<S> {
    inner: S,
    frames: Frames,
    meter: Rc<Meter>,
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, meter: &Rc<Meter>) -> Self {
        Self { inner, frames: Frames::new(), meter: Rc::clone(meter) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.meter.flood.get() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        this.frames.read(&buf.filled()[before..], &this.meter);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        add(&self.meter.useful, count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        add(&self.meter.useful, count as u64);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(frame_type: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([frame_type, 0, 0, 0, 0, 0]);
        frame.resize(HEADER_BYTES + payload, 0);
        frame
    }

    /// What a connection on which these frames come, so often, in reads of this size, is flooded with.
    fn flooded(frames: &[(u8, usize)], times: usize, read: usize) -> Option<&'static str> {
        let mut bytes = PREFACE.to_vec();
        for _ in 0..times {
            bytes.extend(frames.iter().flat_map(|(frame_type, payload)| frame(*frame_type, *payload)));
        }
        let (mut frames, meter) = (Frames::new(), Meter::default());
        bytes.chunks(read).for_each(|read| frames.read(read, &meter));
        meter.flood()
    }

    #[test]
    fn a_flood_is_known_by_what_it_is_made_of() {
        for (frame_type, payload, label) in [
            (0, 0, "http2_data_flood"),
            (2, 5, "http2_priority_flood"),
            (3, 4, "http2_reset_flood"),
            (4, 6, "http2_settings_flood"),
            (6, 8, "http2_ping_flood"),
            (8, 4, "http2_window_update_flood"),
            (0x77, 0, "http2_unknown_flood"),
        ] {
            // Reads that end anywhere in a frame.
            assert_eq!(flooded(&[(frame_type, payload)], 120_000, 1000), Some(label));
            assert_eq!(flooded(&[(frame_type, payload)], 50_000, 1000), None, "{label}");
        }
    }

    #[test]
    fn a_head_is_unfinished_until_its_last_byte() {
        let head = |frame_type, flags| {
            let mut frame = frame(frame_type, 3);
            frame[4] = flags;
            frame
        };
        let bytes =
            [PREFACE, &head(HEADERS, 0), &head(CONTINUATION, 0), &head(CONTINUATION, END_HEADERS)].concat();
        for read in 1..=bytes.len() {
            let (mut frames, meter) = (Frames::new(), Meter::default());
            for bytes in bytes.chunks(read) {
                assert!(meter.unfinished_head().is_none_or(|head| head == 1));
                frames.read(bytes, &meter);
            }
            assert_eq!(meter.unfinished_head(), None, "in reads of {read} bytes");
            frames.read(&head(HEADERS, END_HEADERS)[..11], &meter);
            assert_eq!(meter.unfinished_head(), Some(2));
        }
    }

    #[test]
    fn an_upload_of_small_messages_is_none() {
        assert_eq!(flooded(&[(0, 5), (8, 4)], 120_000, 1000), None);
        assert_eq!(flooded(&[(1, 20), (3, 4)], 120_000, 1000), None);
    }

    #[test]
    fn answers_to_a_flood_do_not_excuse_it() {
        let (mut frames, meter) = (Frames::new(), Meter::default());
        frames.read(PREFACE, &meter);
        for _ in 0..120_000 {
            frames.read(&frame(6, 8), &meter);
            add(&meter.useful, Kind::Ping.answered_with());
        }
        assert_eq!(meter.flood(), Some("http2_ping_flood"));
    }
}
