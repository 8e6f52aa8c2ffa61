//! HTTP/1.1 as the tests read it: strictly, and independently of the proxy's own parser.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Fault;

/// Fields in the order of the wire, names as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl Fields {
    /// The only value of `name`, whatever its case; panics when there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.all(name).into_iter();
        let first = all.next();
        assert!(all.next().is_none(), "{name} occurs more than once");
        first
    }

    /// Every value of `name`, in order. Values that are not UTF-8 are shown as such.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let matching = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        matching.map(|(_, value)| std::str::from_utf8(value).unwrap_or("(not UTF-8)")).collect()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }
}

/// A response as it came over the wire.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    /// Empty over HTTP/2.
    pub reason: String,
    /// `HTTP/1.1`, `HTTP/1.0` or `HTTP/2`.
    pub version: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Interim responses (1xx) that came before, 101 excepted.
    pub informational: Vec<Response>,
    /// The head's bytes up to and including the empty line; empty over HTTP/2.
    pub head: Vec<u8>,
    /// The body ended with the connection: no length, not chunked.
    pub until_close: bool,
}

impl Response {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Whether the connection carries another request after this response.
    pub fn keeps_alive(&self) -> bool {
        let kept = match self.version.as_str() {
            "HTTP/1.0" => self.fields.has_token("connection", "keep-alive"),
            _ => !self.fields.has_token("connection", "close"),
        };
        kept && !self.until_close
    }
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Splits off the first head: `None` while its empty line has not come.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Start line and fields of a complete head.
pub(crate) fn parse_head(head: &[u8]) -> anyhow::Result<(String, Fields)> {
    let head = head.strip_suffix(b"\r\n\r\n").context("a head ends with an empty line")?;
    let mut lines = split_lines(head)?.into_iter();
    let start = lines.next().context("a head has a start line")?;
    let start = std::str::from_utf8(start).context("start line")?.to_owned();
    Ok((start, parse_fields(lines)?))
}

pub(crate) fn parse_response_head(head: &[u8]) -> anyhow::Result<Response> {
    let (start, fields) = parse_head(head)?;
    let (version, rest) = start.split_once(' ').with_context(|| format!("status line `{start}`"))?;
    // RFC 9112 section 4: the space after the code stays even where the reason is empty.
    let (code, reason) = rest.split_once(' ').with_context(|| format!("status line `{start}`"))?;
    ensure!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "version of status line `{start}`");
    ensure!(code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()), "code of status line `{start}`");
    Ok(Response {
        status: code.parse()?,
        reason: reason.to_owned(),
        version: version.to_owned(),
        fields,
        head: head.to_vec(),
        ..Response::default()
    })
}

fn split_lines(bytes: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    for line in &lines {
        ensure!(!line.contains(&b'\r') && !line.contains(&b'\n'), "bare CR or LF in {:?}", lossy(line));
    }
    Ok(lines)
}

fn parse_fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<Fields> {
    let mut fields = Fields::default();
    for line in lines {
        let colon =
            line.iter().position(|&b| b == b':').with_context(|| format!("no colon in {:?}", lossy(line)))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        ensure!(!name.is_empty() && name.iter().all(|&b| is_token(b)), "field name {:?}", lossy(name));
        ensure!(
            value.iter().all(|&b| b == b'\t' || b >= b' ' && b != 0x7f),
            "field value {:?}",
            lossy(value)
        );
        fields.0.push((String::from_utf8(name.to_vec())?, value.to_vec()));
    }
    Ok(fields)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Framing by the fields alone; `None` when they say nothing.
pub(crate) fn framing(fields: &Fields) -> anyhow::Result<Option<Framing>> {
    let lengths = fields.all("content-length");
    let codings = fields.all("transfer-encoding");
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(None),
        ([length], []) => {
            ensure!(length.bytes().all(|b| b.is_ascii_digit()), "Content-Length `{length}`");
            Ok(Some(Framing::Length(length.parse().with_context(|| format!("Content-Length `{length}`"))?)))
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        _ => bail!("ambiguous framing: Content-Length {lengths:?}, Transfer-Encoding {codings:?}"),
    }
}

pub(crate) fn response_framing(response: &Response, method: &str) -> anyhow::Result<Framing> {
    let said = framing(&response.fields)?;
    match response.status {
        100..=199 | 204 => {
            ensure!(said.is_none(), "RFC 9110 section 8.6: a {} has no framing field", response.status);
            Ok(Framing::Length(0))
        }
        304 => Ok(Framing::Length(0)),
        _ if method == "HEAD" => Ok(Framing::Length(0)),
        _ => Ok(said.unwrap_or(Framing::UntilClose)),
    }
}

/// Reads more bytes behind `buffer`; `false` at the end of the stream.
pub(crate) async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> std::io::Result<bool> {
    Ok(stream.read_buf(buffer).await? > 0)
}

/// Takes one piece of a body out of `buffer`, reading more where needed: `None` at its end.
#[derive(Debug)]
pub(crate) struct BodyReader {
    framing: Framing,
    /// Bytes left of the length, or of the current chunk.
    rest: usize,
    started: bool,
    ended: bool,
    pub(crate) trailers: Fields,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let rest = if let Framing::Length(length) = framing { length } else { 0 };
        Self { framing, rest, started: false, ended: false, trailers: Fields::default() }
    }

    pub(crate) async fn piece(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        if self.framing == Framing::UntilClose {
            if buffer.is_empty() && !fill(stream, buffer).await? {
                self.ended = true;
                return Ok(None);
            }
            return Ok(Some(std::mem::take(buffer)));
        }
        if self.rest == 0 && !(self.framing == Framing::Chunked && self.next_chunk(stream, buffer).await?) {
            self.ended = true;
            return Ok(None);
        }
        if buffer.is_empty() && !fill(stream, buffer).await? {
            bail!(Fault::Truncated(format!("{} bytes before its body", self.rest)));
        }
        let taken: Vec<u8> = buffer.drain(..self.rest.min(buffer.len())).collect();
        self.rest -= taken.len();
        Ok(Some(taken))
    }

    /// Reads the line that starts a chunk; `false` at the last one, whose trailers are read too.
    async fn next_chunk(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<bool> {
        if self.started {
            let end = self.line(stream, buffer).await?;
            ensure!(end.is_empty(), "{:?} where a chunk ends", lossy(&end));
        }
        self.started = true;
        let size = self.line(stream, buffer).await?;
        let digits = std::str::from_utf8(&size)?;
        let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(valid, "chunk size `{digits}`");
        self.rest = usize::from_str_radix(digits, 16)?;
        if self.rest > 0 {
            return Ok(true);
        }
        let mut lines = Vec::new();
        loop {
            let line = self.line(stream, buffer).await?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        self.trailers = parse_fields(lines.iter().map(Vec::as_slice))?;
        Ok(false)
    }

    async fn line(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
    ) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = buffer.drain(..at + 2).take(at).collect();
                ensure!(!line.contains(&b'\n'), "bare LF in {:?}", lossy(&line));
                return Ok(line);
            }
            ensure!(fill(stream, buffer).await?, Fault::Truncated("inside the chunked coding".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_head_is_read_strictly() {
        let good = parse_response_head(b"HTTP/1.1 200 OK\r\nA: b \r\nEmpty:\r\n\r\n").unwrap();
        assert_eq!((good.status, good.reason.as_str(), good.get("a")), (200, "OK", Some("b")));
        for bad in [
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnothing\r\n\r\n",
        ] {
            assert!(parse_response_head(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn framing_is_never_guessed() {
        let of = |fields: &str| {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            response_framing(&parse_response_head(head.as_bytes()).unwrap(), "GET").ok()
        };
        assert_eq!(of("Content-Length: 3\r\n"), Some(Framing::Length(3)));
        assert_eq!(of("Transfer-Encoding: chunked\r\n"), Some(Framing::Chunked));
        assert_eq!(of(""), Some(Framing::UntilClose));
        assert_eq!(of("Content-Length: 3\r\nContent-Length: 3\r\n"), None);
        assert_eq!(of("Content-Length: +3\r\n"), None);
        assert_eq!(of("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), None);
        assert_eq!(of("Transfer-Encoding: gzip, chunked\r\n"), None);
    }

    #[tokio::test]
    async fn chunks_and_trailers_are_read_however_the_bytes_arrive() {
        let wire = b"3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\nnext";
        for split in 0..wire.len() {
            let (head, mut tail) = wire.split_at(split);
            let (mut buffer, mut reader) = (head.to_vec(), BodyReader::new(Framing::Chunked));
            let mut body = Vec::new();
            while let Some(piece) = reader.piece(&mut tail, &mut buffer).await.unwrap() {
                body.extend(piece);
            }
            buffer.extend_from_slice(tail);
            assert_eq!(
                (body.as_slice(), reader.trailers.get("x-sum"), buffer.as_slice()),
                (&b"abcd"[..], Some("4"), &b"next"[..])
            );
        }
    }
}
