//! HTTP/2 frame by frame: what no library would send.

use std::net::SocketAddr;
use std::time::Duration;

use lb_testkit::Client;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Error codes of RFC 9113 section 7.
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const COMPRESSION_ERROR: u32 = 9;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) fn frame(frame_type: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a test's frame is small").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([frame_type, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block of literals, neither indexed nor compressed (RFC 7541 section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, 0x7f, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 section 5.1, with the bits above the prefix clear.
fn length(block: &mut Vec<u8>, prefix: usize, mut value: usize) {
    if value < prefix {
        block.push(value as u8);
        return;
    }
    block.push(prefix as u8);
    value -= prefix;
    while value >= 128 {
        block.push((value % 128) as u8 | 128);
        value /= 128;
    }
    block.push(value as u8);
}

pub(super) fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]
}

/// How a stream, or the connection, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A head with this status; `None` where it takes more than our few lines to read it.
    Answered(Option<u16>),
    Reset(u32),
    /// GOAWAY with an error.
    Gone(u32),
    Closed,
    Silence,
}

pub(super) struct Frames {
    pub(super) client: Client,
}

impl Frames {
    /// A connection with these SETTINGS.
    pub(super) async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let mut client = Client::connect(address).await.expect("it listens");
        client.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.expect("it reads");
        Self { client }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.client.send(bytes).await
    }

    /// A head in one frame, which ends the stream.
    pub(super) async fn request(&mut self, stream: u32, fields: &[(&str, &str)]) -> anyhow::Result<()> {
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))).await
    }

    async fn next(&mut self) -> anyhow::Result<(u8, u8, u32, Vec<u8>)> {
        let head = self.client.bytes(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok((head[3], head[4], stream, self.client.bytes(length).await?))
    }

    /// Waits until everything before was looked at.
    pub(super) async fn ping(&mut self) -> anyhow::Result<()> {
        const ACK: u8 = 1;
        self.send(frame(PING, 0, 0, &[0; 8])).await?;
        loop {
            match self.next().await? {
                (PING, ACK, ..) => return Ok(()),
                (GOAWAY, ..) => anyhow::bail!("the connection ends"),
                _ => {}
            }
        }
    }

    /// Reads DATA until so many streams have ended or the connection has; how many have, and how many bytes came.
    pub(super) async fn drain(&mut self, streams: usize) -> (usize, usize) {
        let (mut ended, mut bytes) = (0, 0);
        while ended < streams
            && let Ok((frame_type, flags, _, payload)) = self.next().await
        {
            if frame_type == DATA {
                ended += usize::from(flags & END_STREAM != 0);
                bytes += payload.len();
            }
        }
        (ended, bytes)
    }

    /// Reads until `stream` is answered or ends, or the connection does.
    pub(super) async fn end(&mut self, stream: u32, within: Duration) -> End {
        let reading = async {
            loop {
                let Ok((frame_type, _, on, payload)) = self.next().await else { return End::Closed };
                let code = |at: usize| {
                    payload
                        .get(at..at + 4)
                        .map_or(0, |code| u32::from_be_bytes(code.try_into().expect("four bytes")))
                };
                match frame_type {
                    HEADERS if on == stream => return End::Answered(status(&payload)),
                    RST_STREAM if on == stream => return End::Reset(code(0)),
                    // The first GOAWAY of an orderly end says NO_ERROR.
                    GOAWAY if code(4) != 0 => return End::Gone(code(4)),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(within, reading).await.unwrap_or(End::Silence)
    }
}

/// `:status`, which comes first: from the static table, or as digits in HPACK's Huffman code.
fn status(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => Some(INDEXED[usize::from(index - 0x88)]),
        // Literal, name at index 8 of the static table.
        [0x48, 0x03, a, b, c, ..] => std::str::from_utf8(&[*a, *b, *c]).ok()?.parse().ok(),
        [0x48, header, rest @ ..] if header & 0x80 != 0 => {
            let mut bits = rest
                .iter()
                .take(usize::from(header & 0x7f))
                .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1));
            let mut status = 0;
            for _ in 0..3 {
                let mut code = (0..5).try_fold(0, |code, _| Some(code << 1 | bits.next()?))?;
                // RFC 7541 appendix B: 0, 1 and 2 have five bits, the other digits six.
                let digit = if code < 3 {
                    code
                } else {
                    code = code << 1 | bits.next()?;
                    code.checked_sub(0x19)? + 3
                };
                status = status * 10 + u16::from(digit);
            }
            Some(status)
        }
        _ => None,
    }
}
