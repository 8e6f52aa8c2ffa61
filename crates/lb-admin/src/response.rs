//! An answer before it is put on the wire.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, compressed; as it is where that fails.
    #[must_use]
    pub fn gzipped(mut self) -> Self {
        if let Ok(body) = gzip(&self.body) {
            self.body = body;
            return self.with("Content-Encoding", "gzip").with("Vary", "Accept-Encoding");
        }
        self
    }

    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::new(status, value.to_string()).with("Content-Type", "application/json")
    }

    /// An error of the API, with Traefik's odd content type.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::new(status, json!({ "message": message }).to_string() + "\n")
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("X-Content-Type-Options", "nosniff")
    }

    pub(crate) fn page_not_found() -> Self {
        Self::new(404, "404 page not found\n")
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("X-Content-Type-Options", "nosniff")
    }
}

pub(crate) fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
    compressed.write_all(body)?;
    compressed.finish()
}
