//! The floor of a comparison: bytes in, bytes out, nothing parsed.
//!
//! One upstream connection per client connection, one buffer each way. No proxy that understands
//! HTTP can be cheaper on the same runtime; the distance to it is the price of understanding.

use lb_bench::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Chosen: one read holds a whole small exchange, and a large body takes few.
const BUFFER_BYTES: usize = 16 * 1024;

fn main() -> anyhow::Result<()> {
    let args = Args::from_env()?;
    let (listen, upstream) = (args.address("listen")?, args.address("upstream")?);
    lb_bench::run(async move {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(async move {
                client.set_nodelay(true)?;
                let server = TcpStream::connect(upstream).await?;
                server.set_nodelay(true)?;
                relay(client, server).await
            });
        }
    })
}

async fn relay(mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(copy(from_client, to_server), copy(from_server, to_client))?;
    Ok(())
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            read => to.write_all(&buffer[..read]).await?,
        }
    }
}
