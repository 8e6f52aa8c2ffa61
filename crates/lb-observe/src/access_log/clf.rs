//! The Common Log Format as Traefik writes it, and its generic beginning.

use std::borrow::Cow;

use super::field::{Field, REDACTED};
use super::{Entry, FieldMode, Shared};
use crate::civil::Clocks;
use crate::text::{push_integer, push_ip, push_plain};

/// How far a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    All,
    /// Up to the user agent.
    Generic,
}

/// The only headers with a column.
pub(super) const HEADERS: [&str; 2] = ["referer", "user-agent"];

pub(super) fn write(
    shared: &Shared,
    entry: &Entry<'_>,
    count: u64,
    columns: Columns,
    clocks: &mut Clocks,
    out: &mut Vec<u8>,
) {
    let keeps = |field| shared.fields.keeps(field);
    match (keeps(Field::ClientHost), entry.client_host) {
        (false, _) => out.push(b'-'),
        (true, Some(host)) => bare(out, Some(host)),
        (true, None) => push_ip(out, entry.client.ip().to_canonical()),
    }
    out.extend_from_slice(b" - ");
    word(out, entry.client_username.filter(|_| keeps(Field::ClientUsername)));
    out.extend_from_slice(b" [");
    if keeps(Field::StartUtc) || keeps(Field::StartLocal) {
        out.extend_from_slice(clocks.start.at(entry.start).clf());
    } else {
        out.push(b'-');
    }
    out.extend_from_slice(b"] \"");
    bare(out, Some(entry.method).filter(|_| keeps(Field::RequestMethod)));
    out.push(b' ');
    bare(out, Some(shared.path(entry)).filter(|_| keeps(Field::RequestPath)));
    out.push(b' ');
    bare(out, Some(entry.protocol).filter(|_| keeps(Field::RequestProtocol)));
    out.extend_from_slice(b"\" ");
    number(out, Some(u64::from(entry.status)).filter(|_| keeps(Field::DownstreamStatus)));
    out.push(b' ');
    number(out, Some(entry.response_bytes).filter(|_| keeps(Field::DownstreamContentSize)));
    for name in HEADERS {
        out.push(b' ');
        quoted(out, &header(shared, entry, name));
    }
    if columns == Columns::All {
        out.push(b' ');
        number(out, Some(count).filter(|_| keeps(Field::RequestCount)));
        for (field, text) in [(Field::RouterName, entry.router), (Field::ServiceUrl, entry.service_url)] {
            out.push(b' ');
            quoted(out, text.filter(|_| keeps(field)).unwrap_or_default().as_bytes());
        }
        out.push(b' ');
        let millis = if keeps(Field::Duration) { entry.duration.as_millis() } else { 0 };
        push_integer(out, millis);
        out.extend_from_slice(b"ms");
    }
    out.push(b'\n');
}

/// Traefik's dash for what is missing or empty.
fn bare(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) if !text.is_empty() => push_plain(out, text.as_bytes()),
        _ => out.push(b'-'),
    }
}

/// [`bare`] for what may have spaces in it: they would move all columns behind.
fn word(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return out.push(b'-') };
    for (at, part) in text.split(' ').enumerate() {
        if at > 0 {
            out.extend_from_slice(b"\\x20");
        }
        push_plain(out, part.as_bytes());
    }
}

fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if text.is_empty() {
        out.push(b'-');
    }
    push_plain(out, text);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => push_integer(out, number),
        None => out.push(b'-'),
    }
}

fn header<'a>(shared: &Shared, entry: &Entry<'a>, wanted: &str) -> Cow<'a, [u8]> {
    let mode = shared.headers.mode(wanted);
    let Some(headers) = entry.request_headers.filter(|_| mode != FieldMode::Drop) else {
        return Cow::Borrowed(b"");
    };
    let mut joined: Option<Cow<'a, [u8]>> = None;
    headers(&mut |name, value| {
        if name.eq_ignore_ascii_case(wanted) {
            match &mut joined {
                None => joined = Some(Cow::Borrowed(value)),
                Some(joined) => {
                    joined.to_mut().push(b',');
                    joined.to_mut().extend_from_slice(value);
                }
            }
        }
    });
    match joined {
        Some(_) if mode == FieldMode::Redact => Cow::Borrowed(REDACTED),
        joined => joined.unwrap_or_default(),
    }
}
