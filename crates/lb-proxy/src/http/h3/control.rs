//! The streams that a client opens beside its requests: RFC 9114 section 6.2, RFC 9204 section 4.2.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use super::frame::{Code, Ended, Frames, kind, varint};
use super::link::{Fault, Link, protocol};
use super::words::MAX_FIELD_SECTION_SIZE;

/// Kinds of streams.
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// A frame on the control stream that is kept to be read. SETTINGS have some ten bytes each. Chosen.
const MOST_BYTES: u64 = 4 * 1024;
/// Frames on the control stream, and instructions on those of QPACK: so many, and so many for each request, which may have
/// its priority changed (RFC 9218) and is cancelled once. Chosen.
const FREE_FRAMES: u64 = 1000;
const FRAMES_OF_REQUEST: u64 = 16;

/// Serves these streams until the connection ends.
pub(super) async fn serve(link: Rc<Link>) {
    let seen = Rc::new(Cell::new(0_u8));
    while let Ok(stream) = link.quic.accept_uni().await {
        let (link, seen) = (Rc::clone(&link), Rc::clone(&seen));
        tokio::task::spawn_local(async move {
            if let Err(fault) = read(Frames::new(stream), &link, &seen).await {
                link.fail(fault);
            }
        });
    }
}

/// Reads one stream to the end of its connection.
async fn read(mut stream: Frames, link: &Link, seen: &Cell<u8>) -> Result<(), Fault> {
    // A stream may end before it says what it is: section 6.2.
    let Ok(Some(kind)) = poll_fn(|cx| stream.poll_varint(cx)).await else { return Ok(()) };
    if matches!(kind, CONTROL | ENCODER | DECODER) && seen.replace(seen.get() | 1 << kind) & 1 << kind != 0 {
        // Section 6.2.1, and RFC 9204 section 4.2: one of each.
        return Err(protocol(Code::StreamCreationError));
    }
    let ended = match kind {
        CONTROL => control(&mut stream, link).await,
        ENCODER => {
            instructions(&mut stream, link, Code::EncoderStreamError, |byte| {
                // "Set Dynamic Table Capacity" to the only one that there is: RFC 9204 section 4.3.1.
                byte == 0x20
            })
            .await
        }
        // "Stream Cancellation": RFC 9204 section 4.4.2. The rest is about tables that we do not keep.
        DECODER => {
            instructions(&mut stream, link, Code::DecoderStreamError, |byte| byte & 0xc0 == 0x40).await
        }
        // Section 6.2.2: only servers push.
        PUSH => return Err(protocol(Code::StreamCreationError)),
        _ => {
            stream.stop(Code::StreamCreationError);
            return Ok(());
        }
    };
    match ended {
        Ok(()) => Err(protocol(Code::ClosedCriticalStream)),
        Err(Why::Fault(fault)) => Err(fault),
        // A reset is the end as well; of a connection that is gone nobody is told.
        Err(Why::Ended(Ended::Gone)) => Err(protocol(Code::ClosedCriticalStream)),
        Err(Why::Ended(Ended::Short)) => Err(protocol(Code::FrameError)),
    }
}

enum Why {
    Ended(Ended),
    Fault(Fault),
}

impl From<Ended> for Why {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

fn fault<T>(code: Code) -> Result<T, Why> {
    Err(Why::Fault(protocol(code)))
}

/// Whether that many are more than so many requests are a reason for.
fn is_excess(count: u64, requests: u64) -> bool {
    count > FREE_FRAMES.saturating_add(FRAMES_OF_REQUEST.saturating_mul(requests))
}

async fn control(stream: &mut Frames, link: &Link) -> Result<(), Why> {
    let mut first = true;
    let (mut goaway, mut max_push) = (u64::MAX, 0);
    for count in 1.. {
        if is_excess(count, link.tally.opened()) {
            break;
        }
        let Some((kind, length)) = poll_fn(|cx| stream.poll_frame(cx)).await? else { return Ok(()) };
        // Section 6.2.1.
        if first != (kind == kind::SETTINGS) {
            return fault(if first { Code::MissingSettings } else { Code::FrameUnexpected });
        }
        first = false;
        match kind {
            kind::SETTINGS => settings(&payload(stream, length).await?, link)?,
            kind::GOAWAY => {
                // Of pushes, of which there are none; section 7.2.6 has it fall only.
                let id = integer(&payload(stream, length).await?)?;
                if id > goaway {
                    return fault(Code::IdError);
                }
                goaway = id;
            }
            kind::MAX_PUSH_ID => {
                let id = integer(&payload(stream, length).await?)?;
                if id < max_push {
                    return fault(Code::IdError);
                }
                max_push = id;
            }
            // Section 7.2.3: there is no push to cancel.
            kind::CANCEL_PUSH => return fault(Code::IdError),
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE => return fault(Code::FrameUnexpected),
            kind if kind::is_forbidden(kind) => return fault(Code::FrameUnexpected),
            _ => {
                payload(stream, length).await?;
            }
        }
    }
    Err(Why::Fault(Fault(Code::ExcessiveLoad, "http3_control")))
}

async fn payload(stream: &mut Frames, length: u64) -> Result<Vec<u8>, Why> {
    if length > MOST_BYTES {
        return Err(Why::Fault(Fault(Code::ExcessiveLoad, "http3_control")));
    }
    let mut bytes = Vec::new();
    while poll_fn(|cx| stream.poll_payload(cx)).await? {
        bytes.extend_from_slice(stream.payload());
        let count = stream.payload().len();
        stream.consume(count);
    }
    Ok(bytes)
}

fn integer(payload: &[u8]) -> Result<u64, Why> {
    match varint(payload) {
        Some((number, [])) => Ok(number),
        _ => fault(Code::FrameError),
    }
}

/// Section 7.2.4: each at most once, and none that HTTP/2 has had. Beside the size of heads they are about pushes and
/// tables, which there are none of.
fn settings(mut payload: &[u8], link: &Link) -> Result<(), Why> {
    let mut known = Vec::new();
    while !payload.is_empty() {
        let Some((id, rest)) = varint(payload) else { return fault(Code::FrameError) };
        let Some((value, rest)) = varint(rest) else { return fault(Code::FrameError) };
        payload = rest;
        if matches!(id, 0x2..=0x5) || known.contains(&id) {
            return fault(Code::SettingsError);
        }
        known.push(id);
        if id == MAX_FIELD_SECTION_SIZE {
            link.most_section.set(value);
        }
    }
    Ok(())
}

/// Reads instructions of a stream of QPACK that may only say one thing, by its first byte.
async fn instructions(
    stream: &mut Frames,
    link: &Link,
    code: Code,
    may: impl Fn(u8) -> bool,
) -> Result<(), Why> {
    for count in 1.. {
        if is_excess(count, link.tally.opened()) {
            break;
        }
        let Some(first) = poll_fn(|cx| stream.poll_byte(cx)).await? else { return Ok(()) };
        if !may(first) {
            return fault(code);
        }
        // The number behind it (a stream's) goes on while its bytes say so.
        if first & 0x3f == 0x3f {
            let mut more = true;
            for _ in 0..10 {
                let Some(byte) = poll_fn(|cx| stream.poll_byte(cx)).await? else { return Ok(()) };
                more = byte & 0x80 != 0;
                if !more {
                    break;
                }
            }
            if more {
                return fault(code);
            }
        }
    }
    Err(Why::Fault(Fault(Code::ExcessiveLoad, "http3_control")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_life_with_priorities_is_no_abuse() {
        assert!(!is_excess(1000, 0) && is_excess(1001, 0));
        assert!(!is_excess(2_000_000, 1_000_000));
    }
}
