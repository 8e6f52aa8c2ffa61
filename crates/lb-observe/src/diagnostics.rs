//! What Vigie says about itself: `tracing` events as the lines that Traefik's `log` block describes.
//!
//! Lines go through the same writer as the access log, so that a full disk or a stuck pipe stops nobody.

use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::otlp::Queue;
use crate::sink::{Buffer, Sink, SinkSettings};
use crate::text::Json;

/// Traefik's keys under `log`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
    /// Colours are used on a terminal only.
    pub no_color: bool,
    /// `None` is standard output.
    pub file_path: Option<PathBuf>,
    /// Where everything goes as well.
    pub otlp: Option<Arc<Queue>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Common,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("the thread that writes the log cannot be started")]
    Thread(#[source] io::Error),
    #[error("another tracing subscriber is installed already")]
    Installed,
}

/// Keeps the log alive; dropping it writes out what is left, so it belongs in `main`.
#[derive(Debug)]
pub struct Diagnostics {
    sink: Sink,
    is_a_file: bool,
}

impl Diagnostics {
    /// Opens the file anew, as after its rotation.
    pub fn reopen(&self) {
        self.sink.reopen();
    }

    /// Lines lost because the file could not be written, for
    /// [`Metrics::follow_log`](crate::metrics::Metrics::follow_log).
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.sink.dropped()
    }

    /// Waits until everything said before is written; false when that took longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.sink.flush(patience)
    }

    /// What says that another log is in trouble. What keeps that one from being written, a full disk, may keep ours
    /// as well, if it is a file.
    pub fn report(&self) -> fn(&str) {
        if self.is_a_file {
            |message| {
                tracing::error!("{message}");
                let _ = writeln!(io::stderr(), "{message}");
            }
        } else {
            |message| tracing::error!("{message}")
        }
    }
}

/// Installs the subscriber of the process.
///
/// # Errors
/// [`InitError`], when there is one already or no thread to be had.
pub fn init(settings: Settings) -> Result<Diagnostics, InitError> {
    let (subscriber, diagnostics) = subscriber(settings).map_err(InitError::Thread)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::Installed)?;
    Ok(diagnostics)
}

fn subscriber(settings: Settings) -> io::Result<(impl Subscriber + Send + Sync, Diagnostics)> {
    let is_a_file = settings.file_path.is_some();
    let color = !settings.no_color && !is_a_file && io::stdout().is_terminal();
    let sink = Sink::start(SinkSettings {
        name: "log",
        path: settings.file_path,
        buffers: 1,
        dropped: Default::default(),
        report: |message| {
            // The log itself is what fails, and without standard error there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{message}");
        },
    })?;
    let lines = Lines {
        buffer: sink.buffer(0),
        format: settings.format,
        color,
        caller: settings.level >= Level::DEBUG,
        otlp: settings.otlp,
    };
    Ok((
        Registry::default().with(lines.with_filter(targets(settings.level))),
        Diagnostics { sink, is_a_file },
    ))
}

/// Our own crates at `level`; libraries only from `WARN` on, because their details drown ours, and h2 only from
/// `ERROR` on: what a client did wrong is said by us, once.
fn targets(level: Level) -> Targets {
    let ours = LevelFilter::from_level(level);
    let others = if level == Level::TRACE { ours } else { ours.min(LevelFilter::WARN) };
    let h2 = if level == Level::TRACE { ours } else { LevelFilter::ERROR };
    Targets::new()
        .with_default(others)
        .with_target("h2", h2)
        .with_target("lb_", ours)
        .with_target("vigie", ours)
}

struct Lines {
    buffer: Buffer,
    format: Format,
    color: bool,
    /// Traefik names the line of code at debug level.
    caller: bool,
    otlp: Option<Arc<Queue>>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // Formatted outside the buffer: a value whose Debug logs must not meet our own lock.
        let mut fields = Fields { format: self.format, message: String::new(), out: Vec::new() };
        event.record(&mut fields);
        if self.caller
            && let (Some(file), Some(line)) = (metadata.file(), metadata.line())
        {
            fields.text("caller", &format!("{file}:{line}"));
        }
        let now = SystemTime::now();
        if let Some(queue) = &self.otlp {
            let mut fields = Fields { format: Format::Json, message: String::new(), out: Vec::new() };
            event.record(&mut fields);
            let mut line = format!("{{\"level\":\"{}\",", long_name(*metadata.level())).into_bytes();
            line.extend_from_slice(&fields.out);
            line.extend_from_slice(b"\"message\":");
            Json(&mut line).string(fields.message.as_bytes());
            line.push(b'}');
            queue.put_line(0, now, &line);
        }
        self.buffer.append(|out, clocks| {
            let now = clocks.start.at(now);
            match self.format {
                Format::Json => {
                    out.extend_from_slice(b"{\"level\":\"");
                    out.extend_from_slice(long_name(*metadata.level()).as_bytes());
                    out.extend_from_slice(b"\",");
                    out.extend_from_slice(&fields.out);
                    out.extend_from_slice(b"\"time\":\"");
                    now.push_rfc3339(out);
                    out.extend_from_slice(b"\",\"message\":");
                    Json(out).string(fields.message.as_bytes());
                    out.extend_from_slice(b"}\n");
                }
                Format::Common => {
                    let (name, color) = short_name(*metadata.level());
                    now.push_rfc3339(out);
                    out.push(b' ');
                    if self.color {
                        out.extend_from_slice(color.as_bytes());
                    }
                    out.extend_from_slice(name.as_bytes());
                    if self.color {
                        out.extend_from_slice(b"\x1b[0m");
                    }
                    out.push(b' ');
                    crate::text::push_line(out, &fields.message);
                    out.extend_from_slice(&fields.out);
                    out.push(b'\n');
                }
            }
        });
    }
}

fn long_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// Three letters, and the ANSI colour that zerolog's console uses.
fn short_name(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::TRACE => ("TRC", "\x1b[34m"),
        Level::DEBUG => ("DBG", ""),
        Level::INFO => ("INF", "\x1b[32m"),
        Level::WARN => ("WRN", "\x1b[33m"),
        Level::ERROR => ("ERR", "\x1b[31m"),
    }
}

/// Fields as `"key":value,` or as ` key=value`.
struct Fields {
    format: Format,
    message: String,
    out: Vec<u8>,
}

impl Fields {
    /// A number or a boolean.
    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        match self.format {
            Format::Json => {
                Json(&mut self.out).string(name.as_bytes());
                crate::text::push_display(&mut self.out, format_args!(":{value},"));
            }
            Format::Common => crate::text::push_display(&mut self.out, format_args!(" {name}={value}")),
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        if name == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        match self.format {
            Format::Json => {
                Json(&mut self.out).string(name.as_bytes());
                self.out.push(b':');
                Json(&mut self.out).string(value.as_bytes());
                self.out.push(b',');
            }
            Format::Common => {
                crate::text::push_display(&mut self.out, format_args!(" {name}="));
                let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\\');
                let bare = !value.is_empty() && value.chars().all(is_plain);
                if bare {
                    self.out.extend_from_slice(value.as_bytes())
                } else {
                    Json(&mut self.out).string(value.as_bytes())
                }
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        if value.is_finite() {
            self.plain(field.name(), value)
        } else {
            self.text(field.name(), &value.to_string())
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.text(field.name(), &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(level: Level, format: Format, say: impl FnOnce()) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/vigie.log");
        let settings = Settings { level, format, no_color: true, file_path: Some(path.clone()), otlp: None };
        let (subscriber, diagnostics) = subscriber(settings).unwrap();
        tracing::subscriber::with_default(subscriber, say);
        drop(diagnostics);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn json_lines_hold_level_time_message_and_fields() {
        let text = logged(Level::INFO, Format::Json, || {
            let error = InitError::Thread(io::Error::other("no \"memory\""));
            let error: &(dyn Error + 'static) = &error;
            tracing::warn!(
                error,
                providerName = "file",
                tries = 3,
                healthy = false,
                ratio = f64::NAN,
                "it\nbroke"
            );
            tracing::debug!("too quiet");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "it\nbroke");
        assert_eq!(line["error"], "the thread that writes the log cannot be started: no \"memory\"");
        assert_eq!((&line["providerName"], &line["tries"]), (&"file".into(), &3.into()));
        assert_eq!((&line["healthy"], &line["ratio"]), (&false.into(), &"NaN".into()));
        assert_eq!(line["time"].as_str().unwrap().len(), "2026-01-02T15:04:05Z".len());
    }

    #[test]
    fn common_lines_are_one_line_each() {
        let text = logged(Level::INFO, Format::Common, || {
            tracing::error!(
                serviceName = "api@file",
                error = "two words\nand lines",
                "first\nsecond\u{9b}2J"
            );
        });
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{time}");
        assert_eq!(rest, "ERR first\\nsecond\\x9b2J serviceName=api@file error=\"two words\\nand lines\"\n");
    }

    #[test]
    fn libraries_are_heard_from_warn_on() {
        let text = logged(Level::DEBUG, Format::Common, || {
            tracing::debug!(target: "h2::codec", "noise");
            tracing::warn!(target: "h2::codec", "noise");
            tracing::warn!(target: "rustls", "trouble");
            tracing::debug!("ours");
        });
        assert!(
            !text.contains("noise") && text.contains("trouble") && text.contains("ours caller="),
            "{text}"
        );
    }
}
