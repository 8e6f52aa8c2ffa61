//! Upgrade of Vigie under HTTP/3: connections of the old process go on while the new one reads the port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use lb_testkit::{Authority, Gate, H3Client, Origin, PATIENCE, Script, collect, eventually};
use rustls::ClientConfig;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};

use super::dynasty::Dynasty;
use crate::harness::{HOST, STATIC_TLS, app};

fn megabyte() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

async fn dynasty(server: &Origin) -> (Dynasty, Arc<ClientConfig>) {
    dynasty_with("", server).await
}

async fn dynasty_with(entry_point: &str, server: &Origin) -> (Dynasty, Arc<ClientConfig>) {
    let authority = Authority::new("authority");
    let site = authority.issue(&[HOST]);
    // Beside the other files, which the dynasty makes a directory for.
    let keys = lb_testkit::Files::new();
    site.write(keys.path(), "site");
    let dir = keys.path().display().to_string();
    let tls = format!("tls:\n  certificates: [{{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}}]\n");
    let own = format!("http3: {{}}, {entry_point}http: {{tls: {{}}}}");
    let statics = STATIC_TLS.replace("http: {tls: {}}", &own);
    let dynasty = Dynasty::found(&statics, &format!("{}{tls}", app("", &[server.url()]))).await;
    // The files are read again by each process.
    std::mem::forget(keys);
    (dynasty, authority.client_config(&["h3"]))
}

/// What is under way is finished, both ways and over several upgrades; meanwhile there are packets of three processes on
/// one port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_are_finished_by_the_process_that_has_them() {
    let server = Origin::start("api").await;
    let gate = Gate::closed();
    server.on("/slow", Script::text(megabyte()).gated(&gate));
    let (mut vigie, config) = dynasty(&server).await;
    let address = vigie.websecure();
    let connect = async || H3Client::connect(address, Arc::clone(&config), HOST).await.unwrap();
    let mut under_way = Vec::new();
    for generation in 0..3 {
        let client = connect().await;
        let request = http::Request::post(format!("https://{HOST}/slow")).body(()).unwrap();
        let mut stream = client.open(request).await.unwrap();
        stream.send_data(Bytes::from_static(b"begun")).await.unwrap();
        let reached = eventually(PATIENCE, async || server.open_connections() > generation);
        assert!(reached.await);
        under_way.push((client, stream));
        if generation < 2 {
            vigie.upgrade().await;
        }
        assert_eq!(connect().await.get(HOST, "/").await.unwrap().status, 200, "generation {generation}");
    }
    let big = megabyte();
    for (_, stream) in &mut under_way {
        stream.send_data(Bytes::from(big.clone())).await.unwrap();
        stream.finish().await.unwrap();
        gate.let_one_pass();
        let answer = tokio::time::timeout(PATIENCE, collect(stream)).await.unwrap().unwrap();
        assert!(answer.body == big);
    }
    let whole = |seen: &lb_testkit::Request| seen.target == "/slow" && seen.body.len() == big.len() + 5;
    assert_eq!(server.seen().iter().filter(|seen| whole(seen)).count(), 3);
    vigie.until_alone().await;
    let (client, _) = under_way.pop().unwrap();
    assert_eq!(client.get(HOST, "/").await.unwrap().status, 200, "the newest one's goes on");
    vigie.stop().await;
}

/// Clients that do as RFC 9114 section 5.2 says, and open another connection once they are told to, lose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_lose_nothing() {
    let server = Origin::start("api").await;
    let (mut vigie, config) = dynasty(&server).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stop, done, config) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&config));
        let address = vigie.websecure();
        load.spawn(async move {
            let mut client = H3Client::connect(address, Arc::clone(&config), HOST).await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                let request = http::Request::get(format!("https://{HOST}/")).body(()).unwrap();
                // What could not be begun is begun elsewhere.
                let Ok(mut stream) = client.open(request).await else {
                    client = H3Client::connect(address, Arc::clone(&config), HOST).await.unwrap();
                    continue;
                };
                let _ = stream.finish().await;
                match tokio::time::timeout(PATIENCE, collect(&mut stream)).await.expect("in time") {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    // And so is what is rejected.
                    Err(error) if is_repeatable(&error) => {
                        client = H3Client::connect(address, Arc::clone(&config), HOST).await.unwrap();
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    for turn in 0..4 {
        let before = done.load(Ordering::Relaxed);
        vigie.upgrade().await;
        let goes_on = eventually(PATIENCE, async || done.load(Ordering::Relaxed) > before + 50);
        assert!(goes_on.await, "upgrade {turn}\n{}", vigie.words());
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert_eq!(vigie.metric("lb_upgrades_total").await, Some(4.0));
    vigie.until_alone().await;
    vigie.stop().await;
}

/// A client that proves its address (RFC 9000 section 8.1.2) to the process that has asked for it, which another one follows
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_their_way_in_are_let_in() {
    let server = Origin::start("api").await;
    let (mut vigie, config) = dynasty_with("limits: {connections: 100}, ", &server).await;
    let (asked, (open, gate)) = (Arc::new(Notify::new()), oneshot::channel());
    let path = held_up(vigie.websecure(), Arc::clone(&asked), gate).await;
    let client = tokio::spawn(async move {
        let client = H3Client::connect(path, config, HOST).await?;
        client.get(HOST, "/").await
    });
    tokio::time::timeout(PATIENCE, asked.notified()).await.unwrap();
    vigie.upgrade().await;
    open.send(()).unwrap();
    assert_eq!(client.await.unwrap().unwrap().status, 200);
    vigie.until_alone().await;
    vigie.stop().await;
}

/// A path to `server` on which nothing of the client's gets through between the server's first packet and the gate.
async fn held_up(server: SocketAddr, asked: Arc<Notify>, gate: oneshot::Receiver<()>) -> SocketAddr {
    let [front, back] =
        [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    let address = front.local_addr().unwrap();
    back.connect(server).await.unwrap();
    tokio::spawn(async move {
        let (mut ahead, mut behind) = ([0; 2048], [0; 2048]);
        let (mut gate, mut client, mut told) = (Some(gate), None, false);
        loop {
            tokio::select! {
                received = front.recv_from(&mut ahead) => {
                    let (length, from) = received.unwrap();
                    client = Some(from);
                    if told && let Some(gate) = gate.take() {
                        let _ = gate.await;
                    }
                    // Nobody may be there any more.
                    let _ = back.send(&ahead[..length]).await;
                }
                Ok(length) = back.recv(&mut behind) => {
                    let _ = front.send_to(&behind[..length], client.unwrap()).await;
                    told = true;
                    asked.notify_one();
                }
            }
        }
    });
    address
}

/// Rejected behind GOAWAY, or begun on a connection that was closed with `H3_NO_ERROR` before.
fn is_repeatable(error: &anyhow::Error) -> bool {
    let text = format!("{error:?}");
    text.contains("H3_REQUEST_REJECTED") || text.contains("H3_NO_ERROR")
}
