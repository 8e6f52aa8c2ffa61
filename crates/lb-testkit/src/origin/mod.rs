//! Origins: HTTP/1.1 by scripts that may break every rule, HTTP/2 by the `h2` crate.

mod h2;
mod listener;
mod script;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;

pub use self::h2::{Answer, H2Origin};
pub use self::script::{Gate, Request, Script};

use self::listener::{Listener, Serve, Tally};
use self::script::Step;
use crate::eventually::reserve_address;
use crate::message::{BodyReader, Framing, fill, framing, head_end, parse_head};
use crate::stream::Stream;

type Choose = dyn Fn(&Request) -> Script + Send + Sync;

/// An HTTP/1.1 origin on loopback. It lives until it is dropped.
pub struct Origin {
    shared: Arc<Shared>,
    listener: Listener,
}

struct Shared {
    name: String,
    choose: Box<Choose>,
    /// Scripts set for a path while the origin runs; they win over `choose`.
    by_path: Mutex<HashMap<String, Script>>,
    tally: Tally,
}

impl Origin {
    /// Answers every request with a description of it ([`Script::echo`]).
    pub async fn start(name: &str) -> Self {
        Self::with(name, |_| Script::echo()).await
    }

    /// Does what `choose` says; it sees the head, the body is not read yet.
    pub async fn with(name: &str, choose: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        Self::launch(reserve_address(), name, None, Box::new(choose)).await
    }

    /// As [`with`](Self::with), at an address of the caller's: for a process that comes back where it was.
    pub async fn at(
        address: SocketAddr,
        name: &str,
        choose: impl Fn(&Request) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::launch(address, name, None, Box::new(choose)).await
    }

    /// As [`with`](Self::with), over TLS.
    pub async fn tls(
        name: &str,
        config: Arc<ServerConfig>,
        choose: impl Fn(&Request) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::launch(reserve_address(), name, Some(config), Box::new(choose)).await
    }

    async fn launch(
        address: SocketAddr,
        name: &str,
        tls: Option<Arc<ServerConfig>>,
        choose: Box<Choose>,
    ) -> Self {
        let shared =
            Shared { name: name.to_owned(), choose, by_path: Mutex::default(), tally: Tally::default() };
        let shared = Arc::new(shared);
        let listener = Listener::start(address, Arc::clone(&shared), tls).await;
        Self { shared, listener }
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// `http://127.0.0.1:port` or `https://127.0.0.1:port`, as a configuration wants it.
    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// From now on requests for `path` are served by `script`.
    pub fn on(&self, path: &str, script: Script) {
        self.shared.by_path.lock().expect("no panic under this lock").insert(path.to_owned(), script);
    }

    /// Requests whose head arrived whole, since the start.
    pub fn requests(&self) -> usize {
        self.shared.tally.requests()
    }

    /// Connections accepted since the start.
    pub fn connections(&self) -> usize {
        self.shared.tally.connections()
    }

    pub fn open_connections(&self) -> usize {
        self.shared.tally.open()
    }

    /// The latest requests, oldest first, with what their scripts have read of the bodies.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.tally.seen()
    }

    /// The latest request; panics when none has come.
    pub fn last(&self) -> Request {
        self.seen().pop().expect("a request reached the origin")
    }

    /// Closes the listener and every connection, as a killed process would.
    pub async fn stop(&mut self) {
        self.listener.stop().await;
    }

    /// Listens again, on the same port.
    pub async fn restart(&mut self) {
        self.listener.restart(Arc::clone(&self.shared)).await;
    }
}

impl Serve for Shared {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn serve(self: Arc<Self>, mut stream: Stream, connection: usize) {
        let mut buffer = Vec::new();
        // Errors are the proxy's doing or the script's aim; the test sees them on its own side.
        while let Ok(Some(request)) = self.read_head(&mut stream, &mut buffer, connection).await {
            let set = self.by_path.lock().expect("no panic under this lock").get(request.path()).cloned();
            let script = set.unwrap_or_else(|| (self.choose)(&request));
            match self.play(script, request, &mut stream, &mut buffer).await {
                Ok(End::KeepAlive) => {}
                Ok(End::Close) | Err(_) => return,
                Ok(End::Reset) => return stream.reset(),
            }
        }
    }
}

enum End {
    KeepAlive,
    Close,
    Reset,
}

impl Shared {
    async fn read_head(
        &self,
        stream: &mut Stream,
        buffer: &mut Vec<u8>,
        connection: usize,
    ) -> anyhow::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = head_end(buffer) {
                break end;
            }
            if !fill(stream, buffer).await? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let (start, fields) = parse_head(&head)?;
        let mut words = start.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let request = Request {
            method: word(),
            target: word(),
            version: word(),
            fields,
            head,
            connection,
            peer: stream.tcp().peer_addr()?.to_string(),
            server_name: stream.server_name().map(str::to_owned),
            ..Request::default()
        };
        Ok(Some(request))
    }

    async fn play(
        &self,
        script: Script,
        mut request: Request,
        stream: &mut Stream,
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<End> {
        use tokio::io::AsyncWriteExt as _;
        let number = self.tally.request(request.clone());
        for step in script.steps {
            match step {
                Step::ReadBody => {
                    let framing = framing(&request.fields)?.unwrap_or(Framing::Length(0));
                    let mut reader = BodyReader::new(framing);
                    while let Some(piece) = reader.piece(stream, buffer).await? {
                        request.body.extend(piece);
                    }
                    request.trailers = reader.trailers;
                    self.tally.update(number, &request);
                }
                Step::Pause(length) => {
                    stream.flush().await?;
                    tokio::time::sleep(length).await;
                }
                Step::Gate(gate) => {
                    stream.flush().await?;
                    gate.pass().await;
                }
                Step::Send(bytes) => stream.write_all(&without_body(&request, bytes)).await?,
                Step::Echo => {
                    let body = request.to_json(&self.name).to_string();
                    let bytes =
                        script::response(200, &[("Content-Type", "application/json")], body.as_bytes());
                    stream.write_all(&without_body(&request, bytes)).await?;
                }
                Step::EchoBytes => {
                    stream.flush().await?;
                    loop {
                        stream.write_all(buffer).await?;
                        stream.flush().await?;
                        buffer.clear();
                        if !fill(stream, buffer).await? {
                            return Ok(End::Close);
                        }
                    }
                }
                Step::Hang => {
                    stream.flush().await?;
                    // Until the client gives up; a byte more from it changes nothing.
                    while fill(stream, buffer).await? {
                        buffer.clear();
                    }
                    return Ok(End::Close);
                }
                Step::Close => {
                    stream.shutdown().await?;
                    return Ok(End::Close);
                }
                Step::Reset => return Ok(End::Reset),
            }
        }
        stream.flush().await?;
        Ok(if request.fields.has_token("connection", "close") { End::Close } else { End::KeepAlive })
    }
}

/// A response to HEAD is its head.
fn without_body(request: &Request, mut bytes: Vec<u8>) -> Vec<u8> {
    if request.method == "HEAD"
        && bytes.starts_with(b"HTTP/1.1 ")
        && let Some(end) = head_end(&bytes)
    {
        bytes.truncate(end);
    }
    bytes
}
