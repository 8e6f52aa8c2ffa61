//! One flat JSON object per request, its keys in Go's order so that lines compare with Traefik's.

use super::field::{Field, FieldSet, REDACTED};
use super::{Entry, FieldMode, Headers, Shared};
use crate::civil::Clocks;
use crate::text::{Json, push_canonical_header_name, push_display, push_integer, push_ip};

pub(super) fn write(shared: &Shared, entry: &Entry<'_>, count: u64, clocks: &mut Clocks, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut line = Line { kept: shared.fields, out };
    client(&mut line, entry);
    sizes_and_times(&mut line, entry);
    request(&mut line, shared, entry, count);
    target(&mut line, entry);
    if let Some(trace) = &entry.trace {
        line.text(Field::SpanId, &trace.span.to_string());
    }
    // Go prints the zone of the host here; a balancer's host runs on UTC or its logs cannot be compared.
    let start = clocks.start.at(entry.start);
    for field in [Field::StartLocal, Field::StartUtc] {
        line.value(field, |out| {
            out.push(b'"');
            start.push_rfc3339_nanos(out);
            out.push(b'"');
        });
    }
    if let Some(tls) = entry.tls {
        line.text(Field::TlsCipher, tls.cipher);
        if let Some(subject) = tls.client_subject {
            line.text(Field::TlsClientSubject, subject);
        }
        line.text(Field::TlsVersion, tls.version);
    }
    if let Some(trace) = &entry.trace {
        line.text(Field::TraceId, &trace.trace.to_string());
    }
    headers(shared, "downstream_", entry.downstream_headers, line.out);
    line.text(Field::EntryPointName, entry.entry_point);
    line.out.extend_from_slice(b"\"level\":\"info\",\"msg\":\"\",");
    headers(shared, "origin_", entry.origin_headers, line.out);
    headers(shared, "request_", entry.request_headers, line.out);
    // Whatever `fields` says, and once more: so has Traefik it.
    if let Some(trace) = &entry.trace {
        line.out.extend_from_slice(format!("\"span_id\":\"{}\",", trace.span).as_bytes());
    }
    line.out.extend_from_slice(b"\"time\":\"");
    clocks.end.at(entry.start + entry.duration).push_rfc3339(line.out);
    if let Some(trace) = &entry.trace {
        line.out.extend_from_slice(format!("\",\"trace_id\":\"{}", trace.trace).as_bytes());
    }
    line.out.extend_from_slice(b"\"}\n");
}

struct Line<'o> {
    kept: FieldSet,
    out: &'o mut Vec<u8>,
}

impl Line<'_> {
    fn value(&mut self, field: Field, write: impl FnOnce(&mut Vec<u8>)) {
        if self.kept.keeps(field) {
            self.out.extend_from_slice(field.key().as_bytes());
            write(self.out);
            self.out.push(b',');
        }
    }

    fn text(&mut self, field: Field, text: &str) {
        self.value(field, |out| Json(out).string(text.as_bytes()));
    }

    fn integer(&mut self, field: Field, number: impl itoa::Integer) {
        self.value(field, |out| push_integer(out, number));
    }
}

fn client(line: &mut Line<'_>, entry: &Entry<'_>) {
    let ip = entry.client.ip().to_canonical();
    line.value(Field::ClientAddr, |out| {
        let brackets = ip.is_ipv6();
        out.extend_from_slice(if brackets { b"\"[" } else { b"\"" });
        push_ip(out, ip);
        out.extend_from_slice(if brackets { b"]:" } else { b":" });
        push_integer(out, entry.client.port());
        out.push(b'"');
    });
    line.value(Field::ClientHost, |out| match entry.client_host {
        Some(host) => Json(out).string(host.as_bytes()),
        None => {
            out.push(b'"');
            push_ip(out, ip);
            out.push(b'"');
        }
    });
    line.value(Field::ClientPort, |out| {
        out.push(b'"');
        push_integer(out, entry.client.port());
        out.push(b'"');
    });
    line.text(Field::ClientUsername, entry.client_username.unwrap_or("-"));
}

fn sizes_and_times(line: &mut Line<'_>, entry: &Entry<'_>) {
    line.integer(Field::DownstreamContentSize, entry.response_bytes);
    line.integer(Field::DownstreamStatus, entry.status);
    line.integer(Field::Duration, entry.duration.as_nanos());
    let (status, bytes, spent) = entry
        .origin
        .map_or((0, 0, std::time::Duration::ZERO), |origin| (origin.status, origin.bytes, origin.duration));
    if bytes != entry.response_bytes && entry.response_bytes != 0 {
        line.value(Field::GzipRatio, |out| push_display(out, bytes as f64 / entry.response_bytes as f64));
    }
    line.integer(Field::OriginContentSize, bytes);
    line.integer(Field::OriginDuration, spent.as_nanos());
    line.integer(Field::OriginStatus, status);
    line.integer(Field::Overhead, entry.duration.saturating_sub(spent).as_nanos());
}

fn request(line: &mut Line<'_>, shared: &Shared, entry: &Entry<'_>, count: u64) {
    let (host, port) = split_host(entry.host);
    line.text(Field::RequestAddr, entry.host);
    line.integer(Field::RequestContentSize, entry.request_bytes);
    line.integer(Field::RequestCount, count);
    line.text(Field::RequestHost, host);
    line.text(Field::RequestMethod, entry.method);
    line.text(Field::RequestPath, shared.path(entry));
    line.text(Field::RequestPort, port);
    line.text(Field::RequestProtocol, entry.protocol);
    line.text(Field::RequestScheme, entry.scheme);
    line.integer(Field::RetryAttempts, entry.retry_attempts);
}

fn target(line: &mut Line<'_>, entry: &Entry<'_>) {
    for (field, text) in [
        (Field::RouterName, entry.router),
        (Field::ServiceAddr, entry.service_addr),
        (Field::ServiceName, entry.service),
        (Field::ServiceUrl, entry.service_url),
    ] {
        if let Some(text) = text {
            line.text(field, text);
        }
    }
}

/// Host and port, `-` without a port; brackets of an IPv6 address are taken off with one, as Go does.
fn split_host(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => {
            (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
        }
        _ => (host, "-"),
    }
}

/// Kept headers as `<prefix><Canonical-Name>`; several lines of a name are one value.
fn headers(shared: &Shared, prefix: &str, headers: Option<Headers<'_>>, out: &mut Vec<u8>) {
    let Some(headers) = headers else { return };
    let mut lines: Vec<(&str, &[u8], FieldMode)> = Vec::new();
    headers(&mut |name, value| match shared.headers.mode(name) {
        FieldMode::Drop => {}
        mode => lines.push((name, value, mode)),
    });
    for (at, (name, _, mode)) in lines.iter().enumerate() {
        if lines[..at].iter().any(|(earlier, ..)| earlier.eq_ignore_ascii_case(name)) {
            continue;
        }
        out.push(b'"');
        out.extend_from_slice(prefix.as_bytes());
        push_canonical_header_name(out, name);
        out.extend_from_slice(b"\":");
        let mut json = Json(out);
        if *mode == FieldMode::Redact {
            json.string(REDACTED);
        } else {
            json.joined(
                lines[at..].iter().filter(|(n, ..)| n.eq_ignore_ascii_case(name)).map(|(_, value, _)| *value),
            );
        }
        out.push(b',');
    }
}
