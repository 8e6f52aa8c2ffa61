//! For the tests of providers.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::api::{Zoned, quoted, unquoted};
use super::message::{self, IN};
use super::variables::Variables;
use super::{Action, Record};

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
            'accept: while let Ok((mut stream, _)) = listener.accept().await {
                let (mut text, mut piece) = (String::new(), [0; 4096]);
                while !is_whole(&text) {
                    let Ok(length @ 1..) = stream.read(&mut piece).await else { continue 'accept };
                    text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
                }
                let (status, mut body) = answer(&text);
                if status == 204 {
                    body.clear();
                }
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

/// What an API was asked.
pub(super) struct Told {
    /// Method and path.
    pub(super) line: String,
    head: String,
    /// JSON, or null.
    pub(super) body: Value,
    /// The same, whatever it is.
    pub(super) text: String,
}

impl Told {
    pub(super) fn of(request: &str) -> Self {
        let (head, text) = request.split_once("\r\n\r\n").unwrap();
        let (line, head) = head.split_once(" HTTP/1.1\r\n").unwrap();
        let body = serde_json::from_str(text).unwrap_or_default();
        Self { line: line.to_owned(), head: head.to_owned(), body, text: text.to_owned() }
    }

    /// Empty where there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.head.lines().filter_map(|line| line.split_once(": "));
        found
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }

    /// A text of the body.
    pub(super) fn value(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap()
    }

    pub(super) fn json(&self, status: u16, body: Value) -> (u16, String) {
        (status, body.to_string())
    }

    /// Repeats what it was told, as an API may that is not careful.
    pub(super) fn refuse(&self, status: u16) -> (u16, String) {
        (status, json!({ "message": "no", "request": self.head }).to_string())
    }
}

/// The texts of one name, as a provider keeps them: with an id, and with or without quotes.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Texts>>);

#[derive(Default)]
struct Texts {
    last: u64,
    all: Vec<(u64, String)>,
}

impl Kept {
    pub(super) fn add(&self, text: &str) -> u64 {
        let Texts { last, all } = &mut *self.0.lock();
        *last += 1;
        all.push((*last, text.to_owned()));
        *last
    }

    pub(super) fn remove(&self, text: &str) {
        self.0.lock().all.retain(|(_, known)| known != text);
    }

    /// The status of the answer.
    pub(super) fn remove_id(&self, id: &str) -> u16 {
        let texts = &mut self.0.lock().all;
        let before = texts.len();
        texts.retain(|(known, _)| known.to_string() != id);
        if texts.len() < before { 204 } else { 404 }
    }

    pub(super) fn replace(&self, texts: &Value) {
        self.clear();
        for text in texts.as_array().unwrap() {
            self.add(text.as_str().unwrap());
        }
    }

    pub(super) fn clear(&self) {
        self.0.lock().all.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().all.is_empty()
    }

    pub(super) fn list<T>(&self, each: impl Fn(u64, &str) -> T) -> Vec<T> {
        self.0.lock().all.iter().map(|(id, text)| each(*id, text)).collect()
    }

    /// Without quotes.
    pub(super) fn values(&self) -> Vec<String> {
        self.list(|_, text| unquoted(text).to_owned())
    }
}

/// `example.com` and `*.example.com` need two records of one name at once, and there may be one of somebody else.
/// The account has a zone above `a.b.test`; `stranger` has wrong credentials with `wr0ng` in them.
pub(super) async fn two_of_one_name(provider: &impl Zoned, stranger: &impl Zoned, kept: &Kept) {
    kept.add(&quoted("other"));
    let [one, two] = ["one", "two"].map(|value| record("a.b.test", value));
    for (action, record, expected) in [
        (Action::Present, &one, &["other", "one"][..]),
        (Action::Present, &two, &["other", "one", "two"]),
        (Action::CleanUp, &one, &["other", "two"]),
        (Action::CleanUp, &two, &["other"]),
        (Action::CleanUp, &two, &["other"]),
    ] {
        provider.act(action, record).await.unwrap();
        assert_eq!(kept.values(), expected, "{action:?} {}", record.value);
    }
    let elsewhere = provider.act(Action::Present, &record("a.test", "v")).await.unwrap_err().to_string();
    assert!(
        elsewhere.starts_with("the account has no zone that _acme-challenge.a.test is in"),
        "{elsewhere}"
    );
    let refused = stranger.act(Action::Present, &one).await.unwrap_err().to_string();
    assert!(refused.contains("the API answers 401, it does not accept the credentials: "), "{refused}");
    assert!(!refused.contains("wr0ng"), "{refused}");
    assert_eq!(kept.values(), ["other"]);
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
