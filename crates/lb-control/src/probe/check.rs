//! One probe of one server: what is asked, and what the answer means.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode, response};
use http_body_util::Full;
use lb_config::dynamic::{HealthCheck, ProbeMode, Scheme, Server};
use lb_core::health::Probe;
use tokio::time::Instant;

use super::exchange::{self, Answer, ExchangeError, Speak};
use super::target::{Target, TargetError};
use super::tls::Tls;

/// Largest JSON answer that is read for its `status`: chosen, some twenty times a talkative one.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Go's `net/http`, and with it Traefik, gives up at the tenth.
const MAX_REDIRECTS: usize = 10;
/// Of what a server says of itself so much is passed on: chosen, some lines of a terminal.
const MAX_REASONS_CHARS: usize = 300;

/// An answer that passes.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) probe: Probe,
    /// What the server says of itself.
    pub(crate) reasons: Option<String>,
}

/// Why a server did not pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the check cannot be sent: {0}")]
    Request(#[from] http::Error),
    #[error("answered {status}")]
    Status {
        status: StatusCode,
        /// What the server says of itself.
        reasons: Option<String>,
    },
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
    #[error("gRPC status {0}")]
    Grpc(String),
    #[error("gRPC health `{0}`, not SERVING")]
    NotServing(&'static str),
}

impl Failure {
    /// Nothing was left here to open a connection with, which says nothing about the server.
    pub(crate) fn is_ours(&self) -> bool {
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOBUFS: i32 = 105;
        let Self::Exchange(ExchangeError::Connect(error)) = self else { return false };
        matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
    }

    /// What the server says of itself. Not in [`Failure::line`], since it may be new each time.
    pub(crate) fn reasons(&self) -> Option<&str> {
        let Self::Status { reasons, .. } = self else { return None };
        reasons.as_deref()
    }

    /// This error and its causes in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            line = format!("{line}: {cause}");
            source = cause.source();
        }
        line
    }
}

/// Sends one probe. The whole of it, redirects included, has the check's timeout.
pub(crate) async fn check(server: &Server, check: &HealthCheck, tls: &Tls) -> Result<Passed, Failure> {
    let deadline = Instant::now() + check.timeout;
    let target = Target::new(server, check)?;
    match check.mode {
        ProbeMode::Http => http(target, check, tls, deadline).await,
        ProbeMode::Grpc => {
            let probe = grpc(&target, check, tls, deadline).await?;
            Ok(Passed { probe, reasons: None })
        }
    }
}

async fn http(
    mut target: Target,
    check: &HealthCheck,
    tls: &Tls,
    deadline: Instant,
) -> Result<Passed, Failure> {
    let mut method = Method::from_bytes(check.method.as_bytes()).map_err(http::Error::from)?;
    let mut hostname = check.hostname.as_deref().filter(|name| !name.is_empty());
    let mut headers = headers(check)?;
    for _ in 0..=MAX_REDIRECTS {
        let request = request(&target, method.clone(), hostname, &headers, Bytes::new())?;
        let wanted = |head: &response::Parts| if may_say_more(check, head) { MAX_BODY_BYTES } else { 0 };
        let answer = exchange::send(&target, Speak::Http, tls, request, deadline, wanted).await?;
        let Some(location) = redirect(&answer.head).filter(|_| check.follow_redirects) else {
            return judge(check, &answer);
        };
        let next = target.follow(&location)?;
        if (&next.host, next.port) != (&target.host, target.port) {
            // As Go does: secrets and the chosen host name stay with the server they were meant for.
            hostname = None;
            headers.remove(AUTHORIZATION);
            headers.remove(COOKIE);
        }
        if !matches!(answer.head.status.as_u16(), 307 | 308) && method != Method::HEAD {
            method = Method::GET;
        }
        target = next;
    }
    Err(Failure::TooManyRedirects)
}

fn headers(check: &HealthCheck) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("vigie-health-check"));
    for (name, value) in &check.headers {
        let name = HeaderName::try_from(name.as_str())?;
        // `hostname` is the key that sets it; Go ignores it here, and so do files written for Traefik.
        if name != HOST {
            headers.insert(name, HeaderValue::try_from(value.as_str())?);
        }
    }
    Ok(headers)
}

fn request(
    target: &Target,
    method: Method,
    hostname: Option<&str>,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let length = body.len();
    let authority = hostname.map_or_else(|| target.authority(), str::to_owned);
    let scheme = if target.scheme == Scheme::Https { "https" } else { "http" };
    let uri = http::Uri::builder()
        .scheme(scheme)
        .authority(authority.as_str())
        .path_and_query(target.path.as_str())
        .build()?;
    let mut request =
        Request::builder().method(method).uri(uri).header(HOST, authority).body(Full::new(body))?;
    request.headers_mut().extend(headers.clone());
    // RFC 9110 section 8.6: without it some servers answer 411, and hyper leaves it out.
    if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) && length == 0 {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(request)
}

/// Where Go's client would go: an answer that names no place is the last one. What a URL cannot hold is encoded.
fn redirect(head: &response::Parts) -> Option<String> {
    let location = head.headers.get(LOCATION).filter(|location| !location.is_empty())?;
    let redirects = matches!(head.status.as_u16(), 301..=303 | 307 | 308);
    redirects.then(|| {
        let encoded = |byte: &u8| match byte {
            b' ' | 0x80.. => format!("%{byte:02X}"),
            _ => char::from(*byte).to_string(),
        };
        location.as_bytes().iter().map(encoded).collect()
    })
}

fn passes(check: &HealthCheck, status: StatusCode) -> bool {
    match check.status {
        Some(expected) => status == expected,
        None => status.is_success() || status.is_redirection(),
    }
}

/// Whether the body may say more than the status: that the server is degraded, or why it fails.
fn may_say_more(check: &HealthCheck, head: &response::Parts) -> bool {
    let json = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        value.eq_ignore_ascii_case(b"application/json") || value.to_ascii_lowercase().ends_with(b"+json")
    });
    check.degraded && (passes(check, head.status) || head.status.is_server_error()) && json
}

/// What does not pass by its status has failed, whatever it holds.
fn judge(check: &HealthCheck, answer: &Answer) -> Result<Passed, Failure> {
    // No body means it was not asked for, or could not be read: the status alone decides.
    let body = answer.body.as_deref().unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let reasons = json.as_ref().and_then(reasons);
    let status = answer.head.status;
    if !passes(check, status) {
        return Err(Failure::Status { status, reasons });
    }
    let says_degraded = json
        .as_ref()
        .and_then(|json| json.get("status")?.as_str())
        .is_some_and(|status| status.eq_ignore_ascii_case("degraded"));
    Ok(Passed { probe: if says_degraded { Probe::Degraded } else { Probe::Passed }, reasons })
}

/// The texts in `reasons`, as the replicas of the reference system have them.
fn reasons(json: &serde_json::Value) -> Option<String> {
    let texts: Vec<_> =
        json.get("reasons")?.as_array()?.iter().filter_map(|reason| reason.as_str()).collect();
    let reasons: String = texts.join("; ").chars().take(MAX_REASONS_CHARS).collect();
    (!reasons.is_empty()).then_some(reasons)
}

/// `grpc.health.v1.Health/Check` with an empty service name: the server as a whole.
async fn grpc(target: &Target, check: &HealthCheck, tls: &Tls, deadline: Instant) -> Result<Probe, Failure> {
    let target = Target { path: "/grpc.health.v1.Health/Check".to_owned(), ..target.clone() };
    let mut headers = headers(check)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    let hostname = check.hostname.as_deref().filter(|name| !name.is_empty());
    // Not compressed, zero bytes long: an empty HealthCheckRequest.
    let request = request(&target, Method::POST, hostname, &headers, Bytes::from_static(&[0; 5]))?;
    let answer = exchange::send(&target, Speak::Grpc, tls, request, deadline, |_| MAX_BODY_BYTES).await?;
    if answer.head.status != StatusCode::OK {
        return Err(Failure::Status { status: answer.head.status, reasons: None });
    }
    // An answer without a message carries its status in the head ("Trailers-Only").
    let status = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    let status = status.or_else(|| answer.head.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(other) => return Err(Failure::Grpc(String::from_utf8_lossy(other).into_owned())),
        None if answer.body.is_none() => return Err(ExchangeError::TimedOut.into()),
        None => return Err(Failure::Grpc("missing".to_owned())),
    }
    match answer.body.as_deref().and_then(serving_status) {
        Some(1) => Ok(Probe::Passed),
        Some(0) => Err(Failure::NotServing("UNKNOWN")),
        Some(2) => Err(Failure::NotServing("NOT_SERVING")),
        Some(3) => Err(Failure::NotServing("SERVICE_UNKNOWN")),
        _ => Err(Failure::NotServing("unreadable")),
    }
}

/// Field 1 of a HealthCheckResponse in a gRPC frame. A message this small needs no protobuf library.
fn serving_status(frame: &[u8]) -> Option<u8> {
    let (header, message) = frame.split_at_checked(5)?;
    let length = usize::try_from(u32::from_be_bytes([header[1], header[2], header[3], header[4]])).ok()?;
    match message.get(..length)? {
        _ if header[0] != 0 => None,
        // The default value of an enum is left out.
        [] => Some(0),
        // Field 1 as a varint; all known values fit its first seven bits.
        [0x08, value @ 0..=0x7f, ..] => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_answer_is_read_field_by_field() {
        for (frame, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[1, 0, 0, 0, 2, 8, 1], None), // compressed, which was not asked for
            (&[0, 0, 0, 0, 9, 8, 1], None), // cut
            (&[0, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(serving_status(frame), expected, "{frame:?}");
        }
    }
}
