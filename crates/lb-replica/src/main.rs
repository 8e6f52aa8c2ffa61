//! The reference replica as a process: `replica --name api-1 --listen 127.0.0.11:3001`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use lb_replica::real::Real;
use lb_replica::{Replica, serve_until};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// An API server that speaks the health protocol Vigie understands: /live, /ready, /health.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Sent in X-Replica, and what the API answers with. In a container that is its id.
    #[arg(long, env = "HOSTNAME", default_value = "replica")]
    name: String,
    #[arg(long, default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
    /// postgres://user:password@host:5432/name
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// redis://:password@host:6379/0
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(terminal).init();
    let options = Options::parse();
    let real = Real::new(&options.database_url, &options.redis_url)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", options.listen))?;
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!(name = options.name, address = %listener.local_addr()?, "the replica answers");
    let stop = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("no new connections; what is under way is finished");
    };
    serve_until(listener, Arc::new(Replica::new(&options.name, real)), stop).await;
    Ok(())
}
