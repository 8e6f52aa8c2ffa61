//! The access log: Traefik's formats, filters and field names.
//!
//! A worker formats a line into its own buffer; one thread writes all buffers out. A slow or full disk
//! costs lines (counted), never requests.

mod clf;
mod field;
mod json;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::civil::Clocks;
use crate::otlp::Queue;
use crate::sink::{Buffer, Sink, SinkSettings};
use crate::trace;
use clf::Columns;
use field::{FieldSet, HeaderModes};

/// Traefik's keys under `accessLog`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `None` is standard output.
    pub file_path: Option<PathBuf>,
    pub format: Format,
    pub filters: Filters,
    pub fields: Fields,
    /// Where lines go in JSON instead, and whether they go here as well.
    pub otlp: Option<(Arc<Queue>, bool)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Common,
    GenericClf,
    Json,
}

/// OR-ed; none set keeps every line.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Inclusive ranges.
    pub status_codes: Vec<(u16, u16)>,
    pub retry_attempts: bool,
    /// Keeps what took longer.
    pub min_duration: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Fields {
    pub default_mode: FieldMode,
    /// Keys in lower case.
    pub names: BTreeMap<String, FieldMode>,
    pub headers_default_mode: FieldMode,
    /// Keys in lower case.
    pub headers: BTreeMap<String, FieldMode>,
    /// Anything but `Keep` takes the query out of `RequestPath`.
    pub query_parameters: FieldMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldMode {
    Keep,
    Drop,
    /// Of headers: `REDACTED` instead of the value. Elsewhere as `Drop`.
    Redact,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            default_mode: FieldMode::Keep,
            names: BTreeMap::new(),
            headers_default_mode: FieldMode::Drop,
            headers: BTreeMap::new(),
            query_parameters: FieldMode::Keep,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file_path: None,
            format: Format::Common,
            filters: Filters::default(),
            fields: Fields::default(),
            otlp: None,
        }
    }
}

/// Calls its argument with name and value of each header line, in order:
/// `&|each| head.iter().for_each(|(name, value)| each(name, value))`.
pub type Headers<'a> = &'a dyn Fn(&mut dyn FnMut(&'a str, &'a [u8]));

/// One finished request.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub start: SystemTime,
    pub duration: Duration,
    pub entry_point: &'a str,
    /// Qualified; `None`: no router matched.
    pub router: Option<&'a str>,
    pub service: Option<&'a str>,
    /// URL of the server that was chosen last.
    pub service_url: Option<&'a str>,
    /// Its `host:port`.
    pub service_addr: Option<&'a str>,
    /// The TCP peer, or who the PROXY protocol says it is.
    pub client: SocketAddr,
    /// `X-Forwarded-For` as it stands after trust filtering; `None`: the peer's address.
    pub client_host: Option<&'a str>,
    pub client_username: Option<&'a str>,
    /// The Host as received, port included.
    pub host: &'a str,
    pub method: &'a str,
    /// With the query, as routers saw it.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'a str,
    /// `http` or `https`, `ws` or `wss`.
    pub scheme: &'a str,
    /// Body bytes received.
    pub request_bytes: u64,
    /// `None`: no service was reached.
    pub origin: Option<Origin>,
    /// What the client got.
    pub status: u16,
    pub response_bytes: u64,
    pub retry_attempts: u32,
    /// Of the request's own span, where requests are traced.
    pub trace: Option<trace::Context>,
    pub tls: Option<Tls<'a>>,
    /// Only read where [`Shard::keeps_request_headers`] says so, `None` otherwise.
    pub request_headers: Option<Headers<'a>>,
    /// These two: only where [`Shard::keeps_response_headers`] says so.
    pub origin_headers: Option<Headers<'a>>,
    pub downstream_headers: Option<Headers<'a>>,
}

/// The response at the service level; one that we made there (502, 504) counts.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub status: u16,
    pub bytes: u64,
    pub duration: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// `1.2`, `1.3`.
    pub version: &'a str,
    /// IANA name.
    pub cipher: &'a str,
    /// Subject of the client certificate.
    pub client_subject: Option<&'a str>,
}

/// The log of the process. Dropping it writes out what is left.
#[derive(Debug)]
pub struct AccessLog {
    sink: Sink,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    format: Format,
    filters: Filters,
    fields: FieldSet,
    headers: HeaderModes,
    keep_query: bool,
    otlp: Option<(Arc<Queue>, bool)>,
    /// `RequestCount`: over all workers, filtered lines included.
    requests: AtomicU64,
}

/// The log as one worker writes it.
#[derive(Clone, Debug)]
pub struct Shard {
    shared: Arc<Shared>,
    worker: usize,
    buffer: Buffer,
}

impl AccessLog {
    /// Starts the writer; `dropped` counts lost lines ([`crate::metrics::Metrics::access_log_dropped`]). A file that
    /// cannot be opened is no error: it is retried, and `report` is told.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn open(
        settings: Settings,
        workers: usize,
        dropped: Arc<AtomicU64>,
        report: fn(&str),
    ) -> io::Result<Self> {
        let sink = Sink::start(SinkSettings {
            name: "access log",
            path: settings.file_path,
            buffers: workers,
            dropped,
            report,
        })?;
        let shared = Arc::new(Shared {
            format: settings.format,
            filters: settings.filters,
            fields: FieldSet::new(&settings.fields),
            headers: HeaderModes::new(&settings.fields),
            otlp: settings.otlp,
            keep_query: settings.fields.query_parameters == FieldMode::Keep,
            requests: AtomicU64::new(0),
        });
        Ok(Self { sink, shared })
    }

    /// The handle of worker `index`; indexes past the last share a buffer.
    pub fn shard(&self, index: usize) -> Shard {
        Shard { shared: Arc::clone(&self.shared), worker: index, buffer: self.sink.buffer(index) }
    }

    /// Opens the file anew, as after its rotation.
    pub fn reopen(&self) {
        self.sink.reopen();
    }

    /// Waits until every line written before is in the file; false when that took longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.sink.flush(patience)
    }
}

impl Shard {
    /// Writes the line unless filters say otherwise. Never waits.
    pub fn write(&self, entry: &Entry<'_>) {
        let count = self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.shared.filters.keep(entry) {
            return;
        }
        if let Some((queue, is_dual)) = &self.shared.otlp {
            let mut line = Vec::new();
            json::write(&self.shared, entry, count, &mut Clocks::default(), &mut line);
            queue.put_line(self.worker, entry.start, &line);
            if !is_dual {
                return;
            }
        }
        self.buffer.append(|out, clocks| match self.shared.format {
            Format::Json => json::write(&self.shared, entry, count, clocks, out),
            Format::Common => clf::write(&self.shared, entry, count, Columns::All, clocks, out),
            Format::GenericClf => clf::write(&self.shared, entry, count, Columns::Generic, clocks, out),
        });
    }

    pub fn keeps_request_headers(&self) -> bool {
        match self.shared.format {
            _ if self.shared.otlp.is_some() => self.shared.headers.keeps_any(),
            Format::Json => self.shared.headers.keeps_any(),
            Format::Common | Format::GenericClf => {
                clf::HEADERS.iter().any(|name| self.shared.headers.keeps(name))
            }
        }
    }

    pub fn keeps_response_headers(&self) -> bool {
        let is_json = self.shared.format == Format::Json || self.shared.otlp.is_some();
        is_json && self.shared.headers.keeps_any()
    }
}

impl Shared {
    fn path<'a>(&self, entry: &Entry<'a>) -> &'a str {
        if self.keep_query { entry.path } else { entry.path.split('?').next().unwrap_or(entry.path) }
    }
}

impl Filters {
    fn keep(&self, entry: &Entry<'_>) -> bool {
        if self.status_codes.is_empty() && !self.retry_attempts && self.min_duration.is_none() {
            return true;
        }
        self.status_codes.iter().any(|(from, to)| (*from..=*to).contains(&entry.status))
            || (self.retry_attempts && entry.retry_attempts > 0)
            || self.min_duration.is_some_and(|least| entry.duration > least)
    }
}

#[cfg(test)]
mod tests;
