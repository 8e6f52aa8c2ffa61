//! A Consul agent of our own making: the key-value API with blocking queries, as its documentation has them. Consul
//! itself is in no package that the tests could install.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Of requests that are answered.
pub(super) const TOKEN: &str = "hush";

/// Keys, and the index of their last change.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) keys: BTreeMap<String, String>,
    pub(super) index: u64,
}

/// What it keeps over restarts.
pub(super) type Data = Arc<watch::Sender<State>>;

/// Lives until it is dropped, its connections too.
pub(super) struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    pub(super) async fn start(address: SocketAddr, data: Data) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        Self(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&data)));
            }
        }))
    }
}

async fn serve(mut stream: TcpStream, data: Data) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.split(' ').nth(1)?;
    let (path, query) = target.split_once('?')?;
    let prefix = path.strip_prefix("/v1/kv/")?;
    let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(parameter("recurse"), Some("true"), "{target}");
    if !head.to_ascii_lowercase().contains(&format!("x-consul-token: {TOKEN}\r\n")) {
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nPermission denied";
        return stream.write_all(answer.as_bytes()).await.ok();
    }
    let known: Option<u64> = parameter("index").and_then(|index| index.parse().ok());
    if let Some(known) = known {
        let wait = parameter("wait").and_then(|wait| wait.strip_suffix('s')?.parse().ok()).unwrap_or(300);
        let mut changes = data.subscribe();
        let later = changes.wait_for(|state| state.index != known);
        let _ = timeout(Duration::from_secs(wait), later).await;
    }
    let (body, index) = {
        let state = data.borrow();
        let pair = |(key, value): (&String, &String)| serde_json::json!({ "Key": key, "Value": STANDARD.encode(value), "Flags": 0, "ModifyIndex": 1 });
        let below = state.keys.iter().filter(|(key, _)| key.starts_with(prefix));
        (below.map(pair).collect::<Vec<_>>(), state.index)
    };
    let (status, body) = match body.is_empty() {
        true => ("404 Not Found", String::new()),
        false => ("200 OK", serde_json::Value::from(body).to_string()),
    };
    let head =
        format!("HTTP/1.1 {status}\r\nX-Consul-Index: {index}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()
}
