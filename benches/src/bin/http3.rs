//! A client of HTTP/3: connections that each keep so many requests under way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::Request;
use lb_bench::{Args, Tally};
use quinn::Endpoint;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

struct Plan {
    address: SocketAddr,
    name: String,
    connections: usize,
    streams: usize,
    length: Duration,
}

fn main() -> anyhow::Result<()> {
    let args = Args::from_env()?;
    let plan = Plan {
        address: args.address("target")?,
        name: args.text("name")?.to_owned(),
        connections: args.parse("connections")?,
        streams: args.parse("streams")?,
        length: Duration::from_secs_f64(args.parse("seconds")?),
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(args.text("ca")?).context("ca=")?)?;
    // One key exchange for every peer: who offers more would be measured doing more.
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let mut tls = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    lb_bench::run(LocalSet::new().run_until(run(plan, config)))
}

async fn run(plan: Plan, config: quinn::ClientConfig) -> anyhow::Result<()> {
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    endpoint.set_default_client_config(config);
    let mut clients = Vec::new();
    for _ in 0..plan.connections {
        let quic = endpoint.connect(plan.address, &plan.name)?.await.context("handshake")?;
        let (mut driver, client) = h3::client::new(h3_quinn::Connection::new(quic)).await?;
        spawn_local(async move { poll_fn(|cx| driver.poll_close(cx)).await });
        clients.push(client);
    }
    let request = Request::get(format!("https://{}/", plan.name)).body(())?;
    let tally = Rc::new(RefCell::new(Tally::default()));
    let (start, length) = (Instant::now(), plan.length);
    let mut workers = Vec::new();
    for client in &clients {
        for _ in 0..plan.streams {
            let (mut client, request, tally) = (client.clone(), request.clone(), Rc::clone(&tally));
            workers.push(spawn_local(async move {
                while start.elapsed() < length {
                    let began = Instant::now();
                    let outcome = exchange(&mut client, request.clone()).await;
                    match outcome {
                        Ok(()) => tally.borrow_mut().succeed(began.elapsed()),
                        Err(error) => {
                            tally.borrow_mut().fail(format!("{error:#}"));
                            return;
                        }
                    }
                }
            }));
        }
    }
    for worker in workers {
        worker.await?;
    }
    Ok(tally.take().print(start.elapsed())?)
}

async fn exchange(client: &mut SendRequest<OpenStreams, Bytes>, request: Request<()>) -> anyhow::Result<()> {
    let mut stream = client.send_request(request).await?;
    stream.finish().await?;
    let status = stream.recv_response().await?.status();
    let mut length = 0;
    while let Some(part) = stream.recv_data().await? {
        length += part.remaining();
    }
    if status != 200 || length < 1024 {
        bail!("unexpected answer: {status} with {length} bytes");
    }
    Ok(())
}
