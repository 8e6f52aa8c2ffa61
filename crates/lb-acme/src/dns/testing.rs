//! For the tests of providers.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::Record;
use super::message::{self, IN};
use super::variables::Variables;

pub(super) fn record(domain: &str, value: &str) -> Record {
    Record {
        domain: domain.to_owned(),
        token: "token".to_owned(),
        authorization: "token.thumb".to_owned(),
        fqdn: format!("_acme-challenge.{domain}."),
        value: value.to_owned(),
    }
}

/// Opens something in an environment of these variables.
pub(super) fn variables<T>(set: &[(&str, &str)], open: impl FnOnce(&Variables<'_>) -> T) -> T {
    let of = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    open(&Variables(&of))
}

/// An HTTP server that remembers what it was told, one request for each connection.
pub(super) struct Server {
    address: std::net::SocketAddr,
    told: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut text, mut piece) = (String::new(), [0; 4096]);
                while !is_whole(&text) {
                    let length = stream.read(&mut piece).await.unwrap();
                    text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
                }
                let (status, body) = answer(&text);
                heard.lock().push(text);
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(head.as_bytes()).await.unwrap();
            }
        });
        Self { address, told, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().clone()
    }
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with records of these types and data; their names are that of the question.
pub(super) fn answered(id: u16, name: &str, kind: u16, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut message = message::header(id, 0x8180, [1, records.len() as u16, 0, 0]);
    message::put_name(&mut message, name).unwrap();
    message::put(&mut message, &[kind, IN]);
    for (kind, data) in records {
        message::put(&mut message, &[0xc00c, *kind, IN, 0, 60, data.len() as u16]);
        message.extend(data);
    }
    message
}

/// A name server that knows the records of each name and type, each time it is asked. Over UDP it says only that there
/// are some, so that it is asked again over TCP.
pub(super) struct NameServer {
    pub(super) address: std::net::SocketAddr,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl NameServer {
    pub(super) async fn start(
        records: impl Fn(&str, u16) -> Vec<(u16, Vec<u8>)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let over_udp = tokio::spawn(async move {
            let mut bytes = [0; 1024];
            loop {
                let (length, client) = socket.recv_from(&mut bytes).await.unwrap();
                let (id, name, kind) = asked(&bytes[..length]);
                // Answers to others go before: they must not be taken for ours.
                let mut other = answered(id ^ 1, &name, kind, &[]);
                socket.send_to(&other, client).await.unwrap();
                other = answered(id, "else.test", kind, &[]);
                socket.send_to(&other, client).await.unwrap();
                let mut truncated = answered(id, &name.to_uppercase(), kind, &[]);
                truncated[2] |= 2;
                socket.send_to(&truncated, client).await.unwrap();
            }
        });
        let over_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut bytes).await.unwrap();
                let (id, name, kind) = asked(&bytes);
                let answer = answered(id, &name, kind, &records(&name, kind));
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { address, tasks: [over_udp, over_tcp] }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

/// The question, read as that of an answer.
fn asked(bytes: &[u8]) -> (u16, String, u16) {
    let mut bytes = bytes.to_vec();
    bytes[2] |= 0x80;
    let message = message::answer(&bytes).unwrap();
    let (name, kind) = message.question.unwrap();
    (message.id, name, kind)
}
