//! Between [`Head`] and the `http` types that the h2 crate speaks.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use lb_http1::Head;

use super::{MAX_REQUEST_FIELDS, RESPONSE_LIMITS};

/// Fields that HTTP/2 and HTTP/3 have no place for: RFC 9113 section 8.2.2, RFC 9114 section 4.2. `te` may only say
/// `trailers`. The name is in lower case.
pub(super) fn is_connection_specific(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => true,
        b"te" => value != b"trailers",
        _ => false,
    }
}

/// Values share a buffer up to this size. HPACK's table may keep a field of a few bytes for as long as its connection
/// lasts, and the whole buffer with it. Chosen.
const MOST_SHARED: usize = 8 * 1024;

/// All fields, copied once: each value is a slice of one shared buffer, or has one of its own where they are large.
pub(crate) fn fields(head: &Head) -> HeaderMap {
    let total = head.iter_bytes().map(|(_, value)| value.len()).sum();
    let mut values = Bytes::new();
    if total <= MOST_SHARED {
        let mut buffer = BytesMut::with_capacity(total);
        head.iter_bytes().for_each(|(_, value)| buffer.extend_from_slice(value));
        values = buffer.freeze();
    }
    // What it has no room for it panics on: more than these were refused where they came in.
    let mut map = HeaderMap::with_capacity(head.len().min(RESPONSE_LIMITS.max_fields));
    for (name, value) in head.iter_bytes() {
        let value =
            if total <= MOST_SHARED { values.split_to(value.len()) } else { Bytes::copy_from_slice(value) };
        let Ok(name) = HeaderName::from_bytes(name) else { continue };
        if is_connection_specific(name.as_str().as_bytes(), &value) {
            continue;
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            let _ = map.try_append(name, value);
        }
    }
    map
}

/// What browsers send raw in a query and the `http` crate does not take, percent-encoded.
fn encoded(target: &str) -> Cow<'_, str> {
    if !target.contains(['"', '<', '>']) {
        return Cow::Borrowed(target);
    }
    Cow::Owned(target.replace('"', "%22").replace('<', "%3C").replace('>', "%3E"))
}

/// A request for a server: `host` becomes `:authority`. `None` if the `http` crate cannot say it.
pub(crate) fn request(head: &Head, scheme: &str) -> Option<Request<()>> {
    let authority = head.get_str("host").unwrap_or_default();
    let target = encoded(head.target());
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(&*target).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let mut map = fields(head);
    map.remove(http::header::HOST);
    *request.headers_mut() = map;
    Some(request)
}

/// An answer for a client.
pub(crate) fn response(head: &Head) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields(head);
    response
}

/// A server's answer (interim or final) into `head`. False when it has more fields than one over HTTP/1.1 may have: h2
/// bounds their bytes only, and HPACK makes thousands of a few.
pub(crate) fn response_head<B>(response: &Response<B>, head: &mut Head) -> bool {
    head.clear();
    if response.headers().len() > RESPONSE_LIMITS.max_fields {
        return false;
    }
    head.set_version(lb_http1::Version::Http2);
    head.set_status(response.status().as_u16());
    for (name, value) in response.headers() {
        head.append(name.as_str(), value.as_bytes());
    }
    true
}

/// RFC 9113 section 8.2.1; h2 has seen to the control characters.
fn is_padded(value: &[u8]) -> bool {
    matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// What stands before the fields of a request.
pub(crate) struct Line<'a> {
    pub(crate) version: lb_http1::Version,
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) authority: Option<&'a str>,
}

/// A client's request into `head`. False when it cannot be said in HTTP/1.1.
pub(crate) fn request_head<B>(request: &Request<B>, head: &mut Head) -> bool {
    let uri = request.uri();
    let line = Line {
        version: lb_http1::Version::Http2,
        method: request.method().as_str(),
        target: uri.path_and_query().map_or("", |target| target.as_str()),
        authority: uri.authority().map(|authority| authority.as_str()),
    };
    fill(line, request.headers(), head)
}

/// The same for its parts: `:authority` becomes `host`, several cookies one (RFC 9113 section 8.2.3).
pub(crate) fn fill(line: Line<'_>, fields: &HeaderMap, head: &mut Head) -> bool {
    head.clear();
    head.set_version(line.version);
    head.set_method(line.method);
    // `set_target` would encode what is no target; it must be refused instead.
    if !lb_http1::is_target(line.target) {
        return false;
    }
    head.set_target(line.target);
    if fields.get_all(http::header::HOST).iter().count() > 1 {
        return false;
    }
    if let Some(authority) = line.authority {
        // Host beside :authority must say the same: RFC 9113 section 8.3.1.
        let mut hosts = fields.get_all(http::header::HOST).iter();
        if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
            return false;
        }
        head.append("Host", authority.as_bytes());
    }
    let mut cookies: Vec<u8> = Vec::new();
    for (name, value) in fields {
        if is_padded(value.as_bytes()) {
            return false;
        }
        if name == http::header::HOST && line.authority.is_some() {
            continue;
        }
        if name == http::header::COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
            continue;
        }
        head.append(name.as_str(), value.as_bytes());
    }
    if !cookies.is_empty() {
        head.append("cookie", &cookies);
    }
    true
}

/// Trailers, without what they must not carry (RFC 9110 section 6.5.1); `None` when they are too many.
pub(crate) fn trailers(fields: &HeaderMap) -> Option<Head> {
    if fields.len() > MAX_REQUEST_FIELDS {
        return None;
    }
    let mut head = Head::new();
    for (name, value) in fields {
        if lb_http1::is_allowed_trailer(name.as_str()) {
            head.append(name.as_str(), value.as_bytes());
        }
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a small field of a head with this much beside it keeps that in memory too.
    fn shares(beside: usize) -> bool {
        let mut head = Head::new();
        head.append("location", &vec![b'x'; beside]);
        head.append("date", b"now");
        let mut fields = fields(&head);
        assert_eq!((fields.len(), fields["location"].len()), (2, beside));
        assert_eq!(fields["date"], "now");
        let large = fields.remove("location").map(|value| value.as_bytes().as_ptr_range().end);
        large == Some(fields["date"].as_bytes().as_ptr())
    }

    /// The map of the http crate panics on more than it has room for.
    #[test]
    fn very_many_fields_are_no_trouble() {
        let mut many = HeaderMap::new();
        for _ in 0..30_000 {
            many.append("a", HeaderValue::from_static(""));
        }
        assert!(trailers(&many).is_none());
        let mut head = Head::new();
        (0..30_000).for_each(|n| head.append(&format!("x-{n}"), b""));
        assert!(!fields(&head).is_empty());
        let mut response = Response::new(());
        *response.headers_mut() = many;
        assert!(!response_head(&response, &mut head));
    }

    #[test]
    fn small_fields_do_not_keep_large_ones_in_memory() {
        assert!(shares(100));
        assert!(!shares(MOST_SHARED));
    }
}
