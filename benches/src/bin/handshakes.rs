//! A client that spends its time on TLS handshakes: connect, one request, close, again.
//!
//! wrk resumes sessions whenever a server lets it, so full and resumed handshakes are told apart
//! here: `sessions=full` keeps no session; with `sessions=resumed` each connection offers what its
//! predecessor was given, and a server that declines it has made an error.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lb_bench::{Args, Tally};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

struct Target {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
    kind: HandshakeKind,
}

fn main() -> anyhow::Result<()> {
    let args = Args::from_env()?;
    let seconds = Duration::from_secs_f64(args.parse("seconds")?);
    let connections: usize = args.parse("connections")?;
    let name = ServerName::try_from(args.text("name")?.to_owned())?;
    let resumed = match args.text("sessions")? {
        "full" => false,
        "resumed" => true,
        other => bail!("sessions={other}: full or resumed"),
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(args.text("ca")?).context("ca=")?)?;
    // One key exchange for every peer: who offers more would be measured doing more.
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let address = args.address("target")?;
    let kind = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let targets = (0..connections).map(|_| {
        let mut own = config.clone();
        if resumed {
            own.resumption = Resumption::in_memory_sessions(8);
        }
        Target { address, name: name.clone(), tls: Arc::new(own).into(), kind }
    });
    lb_bench::run(LocalSet::new().run_until(run(targets.collect(), seconds)))
}

async fn run(targets: Vec<Target>, length: Duration) -> anyhow::Result<()> {
    for target in targets.iter().filter(|target| target.kind == HandshakeKind::Resumed) {
        exchange(target).await.context("first handshake")?;
    }
    let tally = Rc::new(RefCell::new(Tally::default()));
    let start = Instant::now();
    let workers: Vec<_> = targets
        .into_iter()
        .map(|target| {
            let tally = Rc::clone(&tally);
            tokio::task::spawn_local(async move {
                while start.elapsed() < length {
                    let began = Instant::now();
                    let outcome = exchange(&target).await;
                    let mut tally = tally.borrow_mut();
                    match outcome {
                        Ok(kind) if kind == target.kind => tally.succeed(began.elapsed()),
                        Ok(kind) => tally.fail(format!("handshake was {kind:?}")),
                        Err(error) => tally.fail(format!("{error:#}")),
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

async fn exchange(target: &Target) -> anyhow::Result<HandshakeKind> {
    let socket = TcpStream::connect(target.address).await?;
    socket.set_nodelay(true)?;
    let mut stream = target.tls.connect(target.name.clone(), socket).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example.com\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(4096);
    if let Err(error) = stream.read_to_end(&mut answer).await {
        // A server may close without close_notify; what counts is the answer.
        if error.kind() != std::io::ErrorKind::UnexpectedEof {
            return Err(error.into());
        }
    }
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    if !answer.starts_with(b"HTTP/1.1 200 ") || answer.len() < head_end + 4 + 1024 {
        bail!("unexpected answer: {}", String::from_utf8_lossy(&answer[..answer.len().min(60)]));
    }
    stream.get_ref().1.handshake_kind().context("no handshake")
}
