//! What Vigie says on its control stream (RFC 9114 section 6.2.1). It leaves as the client gives room for it: nothing
//! waits for that, neither requests nor answers under way.

use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::SendStream;

use super::frame::{kind, put_frame, put_varint};

/// `SETTINGS_MAX_FIELD_SECTION_SIZE`: RFC 9114 section 7.2.4.1.
pub(super) const MAX_FIELD_SECTION_SIZE: u64 = 0x6;

pub(super) struct Words {
    stream: SendStream,
    queued: Vec<u8>,
}

impl Words {
    /// Begins with the kind of the stream and the settings.
    pub(super) fn new(stream: SendStream, max_header_bytes: usize) -> Self {
        let mut queued = vec![0];
        put_frame(kind::SETTINGS, &mut queued, |settings| {
            put_varint(MAX_FIELD_SECTION_SIZE, settings);
            put_varint(max_header_bytes as u64, settings);
        });
        Self { stream, queued }
    }

    /// RFC 9114 section 5.2: no request from this stream on is served.
    pub(super) fn goaway(&mut self, from: u64) {
        put_frame(kind::GOAWAY, &mut self.queued, |payload| put_varint(from, payload));
    }

    /// A frame that everybody ignores (section 7.2.8), and has to acknowledge. None where words wait already.
    pub(super) fn nothing(&mut self) {
        if self.queued.is_empty() {
            put_frame(kind::RESERVED, &mut self.queued, |_| {});
        }
    }

    /// Sends what there is room for. Ready when the client wants to hear no more, which it must not.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.queued.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.queued) {
                Poll::Ready(Ok(count)) => drop(self.queued.drain(..count)),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}
