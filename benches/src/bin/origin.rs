//! The origin behind every proxy of a comparison: HTTP/1.1 keep-alive at the least cost.
//!
//! It answers 1 KiB to any path, `/size/N` with N bytes and `/echo` with the request head it
//! received (by which the harness checks that every proxy adds the same fields). An upgrade is granted
//! and every byte after it sent back. Request bodies are read and thrown away. No pipelining, no strictness: it only ever talks to proxies under test.

use std::sync::Arc;

use lb_bench::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Chosen: holds a head in one read and streams a body in few.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> anyhow::Result<()> {
    let args = Args::from_env()?;
    let listen = args.address("listen")?;
    lb_bench::run(async move {
        let listener = TcpListener::bind(listen).await?;
        let small: Arc<[u8]> = [response_head(1024), vec![b'x'; 1024]].concat().into();
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            // A proxy that resets its connection is its own affair.
            tokio::spawn(serve(socket, Arc::clone(&small)));
        }
    })
}

fn response_head(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

async fn serve(mut socket: TcpStream, small: Arc<[u8]>) -> std::io::Result<()> {
    // Small while idle: thousands of connections wait here at once.
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        let read = socket.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
        else {
            if filled == buffer.len() {
                buffer.resize(filled * 2, 0);
            }
            continue;
        };
        let head = &buffer[..end];
        let target = head.split(|&b| b == b' ').nth(1).unwrap_or_default();
        let size = target.strip_prefix(b"/size/").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
        let echo = target.starts_with(b"/echo").then(|| [response_head(end), head.to_vec()].concat());
        let Request { body, close, upgrade } = Request::of(head);
        if upgrade {
            let rest = buffer[end..filled].to_vec();
            return echo_bytes(socket, &rest).await;
        }
        discard(&mut socket, body, &buffer[end..filled]).await?;
        if close {
            // The whole answer again, with the field that lets the client expect the end.
            let head = response_head(1024);
            let answer =
                [&head[..head.len() - 2], b"Connection: close\r\n\r\n", &small[head.len()..]].concat();
            socket.write_all(&answer).await?;
            return socket.shutdown().await;
        }
        match (echo, size) {
            (Some(echo), _) => socket.write_all(&echo).await?,
            (None, Some(size)) => send(&mut socket, size).await?,
            (None, None) => socket.write_all(&small).await?,
        }
        filled = 0;
    }
}

/// Any client of ours sends the sample key of RFC 6455 section 1.3; this is its answer.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn echo_bytes(mut socket: TcpStream, first: &[u8]) -> std::io::Result<()> {
    socket.write_all(SWITCHING).await?;
    socket.write_all(first).await?;
    let mut buffer = vec![0; 4096];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            read => socket.write_all(&buffer[..read]).await?,
        }
    }
}

async fn send(socket: &mut TcpStream, mut size: usize) -> std::io::Result<()> {
    static BLOCK: [u8; BUFFER_BYTES] = [b'x'; BUFFER_BYTES];
    socket.write_all(&response_head(size)).await?;
    while size > 0 {
        let part = size.min(BUFFER_BYTES);
        socket.write_all(&BLOCK[..part]).await?;
        size -= part;
    }
    Ok(())
}

/// What a request head says about the bytes after it.
struct Request {
    body: Body,
    /// Asked for by the client of the byte relay; the other peers keep their connections to the origin.
    close: bool,
    upgrade: bool,
}

enum Body {
    Length(usize),
    Chunked,
}

impl Request {
    fn of(head: &[u8]) -> Self {
        let mut request = Self { body: Body::Length(0), close: false, upgrade: false };
        for line in head.split(|&b| b == b'\n') {
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                request.body = Body::Length(length.unwrap_or(0));
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                request.body = Body::Chunked;
            } else if name.eq_ignore_ascii_case(b"connection") {
                request.close = value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                request.upgrade = true;
            }
        }
        request
    }
}

/// Reads a request body to its end; `first` came together with the head.
async fn discard(socket: &mut TcpStream, body: Body, first: &[u8]) -> std::io::Result<()> {
    match body {
        Body::Length(length) if length <= first.len() => Ok(()),
        Body::Length(length) => {
            let mut rest = length - first.len();
            let mut block = vec![0; BUFFER_BYTES];
            while rest > 0 {
                let want = rest.min(BUFFER_BYTES);
                match socket.read(&mut block[..want]).await? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    read => rest -= read,
                }
            }
            Ok(())
        }
        Body::Chunked => {
            // The last chunk is told from data by its place, so the chunks must be walked.
            let mut chunks = Chunks::default();
            let mut ended = chunks.walk(first);
            let mut block = vec![0; BUFFER_BYTES];
            while !ended {
                match socket.read(&mut block).await? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    read => ended = chunks.walk(&block[..read]),
                }
            }
            Ok(())
        }
    }
}

/// Just enough of the chunked coding to find its end; trailers are not expected.
#[derive(Default)]
struct Chunks {
    size_line: Vec<u8>,
    /// Bytes of data and its CR LF still to come.
    rest: usize,
}

impl Chunks {
    fn walk(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let Some((&byte, after)) = bytes.split_first() else { break };
            bytes = after;
            self.size_line.push(byte);
            if self.size_line.ends_with(b"0\r\n\r\n") {
                return true;
            }
            if byte == b'\n' && !self.size_line.starts_with(b"0\r") {
                let digits = self.size_line.iter().copied().take_while(u8::is_ascii_hexdigit);
                let size = digits.fold(0, |n, d| n * 16 + char::from(d).to_digit(16).unwrap_or(0) as usize);
                self.size_line.clear();
                self.rest = size + 2;
            }
        }
        false
    }
}
