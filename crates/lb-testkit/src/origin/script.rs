//! What an HTTP/1.1 origin does with one request, as a list of steps.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::message::Fields;

/// One exchange, seen from the origin. Built by a constructor, refined by `delayed`, `then_close`, ...
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Reads the request's body to its end.
    ReadBody,
    Pause(Duration),
    /// Waits until the test lets one pass.
    Gate(Gate),
    Send(Vec<u8>),
    /// Sends a 200 whose body describes the request.
    Echo,
    /// Sends back whatever comes, until the client closes.
    EchoBytes,
    /// Keeps the connection open and silent.
    Hang,
    /// Ends the connection with FIN.
    Close,
    /// Ends the connection with RST.
    Reset,
}

/// Holds answers back until the test lets them go, one by one. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// The one that has waited longest goes on, or the next that comes.
    pub fn let_one_pass(&self) {
        self.0.add_permits(1);
    }

    pub(super) async fn pass(&self) {
        self.0.acquire().await.expect("a gate is never taken down").forget();
    }
}

impl Script {
    /// The whole body is read, then a 200 with `body` is sent.
    pub fn text(body: impl AsRef<[u8]>) -> Self {
        Self::answer(200, &[], body)
    }

    pub fn status(status: u16) -> Self {
        Self::answer(status, &[], "")
    }

    /// A response with a `Content-Length` where the status allows one.
    pub fn answer(status: u16, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        Self { steps: vec![Step::ReadBody, Step::Send(response(status, fields, body.as_ref()))] }
    }

    /// A 200 whose JSON body describes the request: `origin`, `method`, `target`, `head` (verbatim),
    /// `fields` (list of pairs), `body`, `trailers`, `connection`, `peer`, `server_name`.
    pub fn echo() -> Self {
        Self { steps: vec![Step::ReadBody, Step::Echo] }
    }

    /// Bytes as they are, after the request's body; anything but a response if need be.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { steps: vec![Step::ReadBody, Step::Send(bytes.as_ref().to_vec())] }
    }

    /// A chunked body, one chunk per part, with a pause before each.
    pub fn chunked(parts: &[&str], pause: Duration) -> Self {
        Self::chunked_with(&[], parts, pause, &[])
    }

    /// A chunked body with trailers.
    pub fn trailers(parts: &[&str], trailers: &[(&str, &str)]) -> Self {
        let names: Vec<_> = trailers.iter().map(|&(name, _)| name).collect();
        Self::chunked_with(&[("Trailer", &names.join(", "))], parts, Duration::ZERO, trailers)
    }

    pub fn chunked_with(
        fields: &[(&str, &str)],
        parts: &[&str],
        pause: Duration,
        trailers: &[(&str, &str)],
    ) -> Self {
        let fields = [fields, &[("Transfer-Encoding", "chunked")]].concat();
        let mut steps = vec![Step::ReadBody, Step::Send(head(200, &fields))];
        for part in parts {
            steps.push(Step::Pause(pause));
            steps.push(Step::Send(format!("{:x}\r\n{part}\r\n", part.len()).into_bytes()));
        }
        steps.push(Step::Send(format!("0\r\n{}\r\n", lines(trailers)).into_bytes()));
        Self { steps }
    }

    /// Server-sent events, one by one, with a pause before each.
    pub fn server_sent_events(events: &[&str], pause: Duration) -> Self {
        let events: Vec<_> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let parts: Vec<_> = events.iter().map(String::as_str).collect();
        let fields = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")];
        Self::chunked_with(&fields, &parts, pause, &[])
    }

    /// Takes the request and never answers.
    pub fn hang() -> Self {
        Self { steps: vec![Step::ReadBody, Step::Hang] }
    }

    /// Closes after the request without a byte of answer: FIN.
    pub fn no_answer() -> Self {
        Self { steps: vec![Step::ReadBody, Step::Close] }
    }

    /// Resets the connection after the request without a byte of answer.
    pub fn reset() -> Self {
        Self { steps: vec![Step::ReadBody, Step::Reset] }
    }

    /// Resets the connection inside the response's head.
    pub fn reset_in_head() -> Self {
        let start = b"HTTP/1.1 200 OK\r\nContent-Le".to_vec();
        Self { steps: vec![Step::ReadBody, Step::Send(start), settle(), Step::Reset] }
    }

    /// Promises `promised` bytes, sends `body` and resets.
    pub fn reset_in_body(promised: usize, body: &str) -> Self {
        Self::cut_in_body(promised, body, Step::Reset)
    }

    /// Promises `promised` bytes, sends `body` and closes in good order.
    pub fn close_in_body(promised: usize, body: &str) -> Self {
        Self::cut_in_body(promised, body, Step::Close)
    }

    fn cut_in_body(promised: usize, body: &str, end: Step) -> Self {
        let mut start = head(200, &[("Content-Length", &promised.to_string())]);
        start.extend_from_slice(body.as_bytes());
        Self { steps: vec![Step::ReadBody, Step::Send(start), settle(), end] }
    }

    /// A body without length that ends with the connection.
    pub fn until_close(body: &str) -> Self {
        let mut bytes = head(200, &[("Connection", "close")]);
        bytes.extend_from_slice(body.as_bytes());
        Self { steps: vec![Step::ReadBody, Step::Send(bytes), Step::Close] }
    }

    /// Answers before the request's body has come, and never reads it.
    pub fn early(status: u16) -> Self {
        let bytes = response(status, &[("Connection", "close")], b"early");
        // Closing with unread bytes would send RST and could destroy the answer on its way.
        Self { steps: vec![Step::Send(bytes), Step::Pause(Duration::from_millis(200)), Step::Close] }
    }

    /// Answers before the request's body has come, then reads it and keeps the connection.
    pub fn early_then_read(status: u16) -> Self {
        Self { steps: vec![Step::Send(response(status, &[], b"early")), Step::ReadBody] }
    }

    /// 101, then every byte comes back, as a WebSocket echo server does.
    pub fn upgrade_echo(protocol: &str) -> Self {
        let bytes = head(101, &[("Connection", "Upgrade"), ("Upgrade", protocol)]);
        Self { steps: vec![Step::Send(bytes), Step::EchoBytes] }
    }

    /// Waits before anything else is done.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.steps.insert(0, Step::Pause(delay));
        self
    }

    /// Waits at `gate` before anything else is done.
    #[must_use]
    pub fn gated(mut self, gate: &Gate) -> Self {
        self.steps.insert(0, Step::Gate(gate.clone()));
        self
    }

    /// Sends an interim response (100, 103, ...) first, before the request's body is read.
    #[must_use]
    pub fn after_informational(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        self.steps.insert(0, Step::Send(head(status, fields)));
        self
    }

    /// Closes after the answer without having announced it: a race for the next request.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.steps.push(Step::Close);
        self
    }

    /// Sends further bytes after the answer, which nobody asked for.
    #[must_use]
    pub fn then_send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Send(bytes.as_ref().to_vec()));
        self
    }

    #[must_use]
    pub fn then_pause(mut self, pause: Duration) -> Self {
        self.steps.push(Step::Pause(pause));
        self
    }

    #[must_use]
    pub fn then_hang(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    #[must_use]
    pub fn then_reset(mut self) -> Self {
        self.steps.push(Step::Reset);
        self
    }
}

/// Lets the bytes sent so far arrive before a reset overtakes them.
fn settle() -> Step {
    Step::Pause(Duration::from_millis(50))
}

fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

fn head(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let reason =
        http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or_default();
    format!("HTTP/1.1 {status} {reason}\r\n{}\r\n", lines(fields)).into_bytes()
}

pub(super) fn response(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let mut fields = fields.to_vec();
    if !matches!(status, 100..=199 | 204 | 304) {
        fields.push(("Content-Length", &length));
    }
    let mut bytes = head(status, &fields);
    bytes.extend_from_slice(body);
    bytes
}

/// A request as the origin received it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    /// The head's bytes up to and including the empty line; empty over HTTP/2.
    pub head: Vec<u8>,
    /// Empty until a script has read it.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Which connection of the origin it came over, counted from 1.
    pub connection: usize,
    /// `address:port` of the peer.
    pub peer: String,
    /// The name a TLS client asked for.
    pub server_name: Option<String>,
}

impl Request {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn to_json(&self, origin: &str) -> serde_json::Value {
        use crate::message::lossy;
        let pairs = |fields: &Fields| -> Vec<(String, String)> {
            fields.0.iter().map(|(name, value)| (name.clone(), lossy(value))).collect()
        };
        serde_json::json!({
            "origin": origin,
            "method": self.method,
            "target": self.target,
            "version": self.version,
            "head": lossy(&self.head),
            "fields": pairs(&self.fields),
            "body": lossy(&self.body),
            "trailers": pairs(&self.trailers),
            "connection": self.connection,
            "peer": self.peer,
            "server_name": self.server_name,
        })
    }
}
