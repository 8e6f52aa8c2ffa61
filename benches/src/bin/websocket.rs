//! A client of upgraded connections: sends a message, waits for its echo, again and again.
//!
//! What a proxy pays after a 101 is bytes in and bytes out, so the messages are frames in form only.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lb_bench::{Args, Tally};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::Instant;

const HANDSHAKE: &[u8] = b"GET /socket HTTP/1.1\r\nHost: bench.example.com\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn main() -> anyhow::Result<()> {
    let args = Args::from_env()?;
    let (target, connections) = (args.address("target")?, args.parse("connections")?);
    let length = Duration::from_secs_f64(args.parse("seconds")?);
    let bytes: usize = args.parse("bytes")?;
    // A masked text frame (RFC 6455 section 5.2) of the size asked for, its mask included.
    ensure!((6..=131).contains(&bytes), "bytes={bytes}: 6 to 131");
    let mut message = vec![b'x'; bytes];
    message[..2].copy_from_slice(&[0x81, 0x80 | (bytes - 6) as u8]);
    lb_bench::run(LocalSet::new().run_until(run(target, connections, length, message.into())))
}

async fn run(
    target: SocketAddr,
    connections: usize,
    length: Duration,
    message: Rc<[u8]>,
) -> anyhow::Result<()> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(upgrade(target).await?);
    }
    let tally = Rc::new(RefCell::new(Tally::default()));
    let start = Instant::now();
    let workers: Vec<_> = open
        .into_iter()
        .map(|mut socket| {
            let (tally, message) = (Rc::clone(&tally), Rc::clone(&message));
            tokio::task::spawn_local(async move {
                let mut echo = vec![0; message.len()];
                while start.elapsed() < length {
                    let began = Instant::now();
                    let outcome = exchange(&mut socket, &message, &mut echo).await;
                    let mut tally = tally.borrow_mut();
                    match outcome {
                        Ok(()) => tally.succeed(began.elapsed()),
                        Err(error) => return tally.fail(format!("{error:#}")),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await?;
    }
    Ok(tally.take().print(start.elapsed())?)
}

async fn upgrade(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    socket.write_all(HANDSHAKE).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Byte by byte: what follows the head must stay in the socket.
        head.push(socket.read_u8().await.context("no answer to the upgrade")?);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        bail!("no upgrade: {}", String::from_utf8_lossy(&head));
    }
    Ok(socket)
}

async fn exchange(socket: &mut TcpStream, message: &[u8], echo: &mut [u8]) -> anyhow::Result<()> {
    socket.write_all(message).await?;
    socket.read_exact(echo).await?;
    ensure!(echo == message, "the echo differs");
    Ok(())
}
