//! The head of a request, from a field section to what HTTP/2 makes of its own: the rules are the same, and so is the
//! code that has them.

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use lb_http1::{Head, Version};

use super::qpack::{self, SectionError};
use crate::http::h2_convert::{self, Line, is_connection_specific};

/// A client's request into `head`. False when it is malformed (RFC 9114 section 4.1.2) or cannot be said in HTTP/1.1.
///
/// # Errors
/// When the section cannot be read or is too large.
pub(super) fn request_head(section: &[u8], most: usize, head: &mut Head) -> Result<bool, SectionError> {
    let mut request = Pseudo::default();
    let mut fields = HeaderMap::new();
    let mut count = 0;
    let mut sound = true;
    qpack::decode(section, most, |name, value| {
        count += 1;
        // A few more than are served: the refusal says that they are too many. A map takes no more than 24,576.
        if sound && count <= 2 * crate::http::MAX_REQUEST_FIELDS {
            sound = match name.split_first() {
                // RFC 9114 section 4.3: before all others.
                Some((b':', name)) => fields.is_empty() && request.take(name, value),
                _ => regular(name, value, &mut fields),
            };
        }
    })?;
    let Pseudo { method: Some(method), scheme: Some(_), authority, path: Some(path) } = &request else {
        return Ok(false);
    };
    let authority = authority.as_ref().map(Authority::as_str);
    let line = Line { version: Version::Http3, method: method.as_str(), target: path, authority };
    // RFC 9114 section 4.4: CONNECT has neither scheme nor path, and is not offered.
    Ok(sound && method != Method::CONNECT && h2_convert::fill(line, &fields, head))
}

/// Trailers, without what they must not carry; `None` when they are malformed.
///
/// # Errors
/// When the section cannot be read or is too large.
pub(super) fn trailers(section: &[u8], most: usize) -> Result<Option<Head>, SectionError> {
    let mut fields = HeaderMap::new();
    let mut sound = true;
    qpack::decode(section, most, |name, value| {
        // RFC 9114 section 4.3: no pseudo-header is valid here, and none is a field name.
        sound = sound && fields.len() < crate::http::MAX_REQUEST_FIELDS && regular(name, value, &mut fields);
    })?;
    Ok(if sound { h2_convert::trailers(&fields) } else { None })
}

/// Takes in a field that is no pseudo-header; false if it makes the message malformed.
fn regular(name: &[u8], value: &[u8], fields: &mut HeaderMap) -> bool {
    if is_connection_specific(name, value) {
        return false;
    }
    // Upper case is malformed, too: RFC 9114 section 4.2.
    match (HeaderName::from_lowercase(name), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => fields.try_append(name, value).is_ok(),
        _ => false,
    }
}

/// RFC 9114 section 4.3.1.
#[derive(Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<String>,
}

impl Pseudo {
    /// False if there is no such pseudo-header in requests, not twice, or not with this value. `:protocol` is not
    /// offered (RFC 9220).
    fn take(&mut self, name: &[u8], value: &[u8]) -> bool {
        match name {
            b"method" => once(&mut self.method, Method::from_bytes(value).ok()),
            b"scheme" => once(&mut self.scheme, Scheme::try_from(value).ok()),
            b"authority" => once(&mut self.authority, Authority::try_from(value).ok()),
            b"path" => once(&mut self.path, String::from_utf8(value.to_vec()).ok()),
            _ => false,
        }
    }
}

fn once<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    place.is_none() && {
        *place = value;
        place.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x?y")];

    fn read(fields: &[(&str, &str)]) -> Option<Head> {
        let mut section = Vec::new();
        qpack::begin(&mut section);
        for (name, value) in fields {
            qpack::field(&mut section, name.as_bytes(), value.as_bytes());
        }
        let mut head = Head::new();
        request_head(&section, 1 << 20, &mut head).unwrap().then_some(head)
    }

    fn with(more: &[(&str, &str)]) -> Option<Head> {
        read(&[&GET[..], more].concat())
    }

    #[test]
    fn a_request_is_read() {
        let head =
            with(&[("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]).unwrap();
        assert_eq!((head.method(), head.target(), head.version().as_str()), ("GET", "/x?y", "HTTP/3.0"));
        assert_eq!(head.get_str("host"), Some("a.test"));
        assert_eq!(head.get_str("accept"), Some("*/*"));
        assert_eq!(head.get_str("cookie"), Some("a=1; b=2"));
    }

    /// Of a path and query nothing is dropped before it is judged.
    #[test]
    fn a_target_stays_as_it_is() {
        let read = |path| read(&GET.map(|(name, text)| (name, if name == ":path" { path } else { text })));
        for path in ["/a?\"<>{}|", "*", "/%zz", "/a\"b"] {
            assert_eq!(read(path).unwrap().target(), path);
        }
        assert!(read("/a#b").is_none());
    }

    #[test]
    fn the_host_may_stand_in_either_place_but_not_differ() {
        let without: Vec<_> = GET.iter().filter(|(name, _)| *name != ":authority").copied().collect();
        let head = read(&[&without[..], &[("host", "b.test")]].concat()).unwrap();
        assert_eq!(head.get_str("host"), Some("b.test"));
        assert!(with(&[("host", "A.test")]).is_some());
        assert!(with(&[("host", "b.test")]).is_none());
        assert!(with(&[("host", "a.test"), ("host", "a.test")]).is_none());
    }

    #[test]
    fn malformed_requests_are_told_apart() {
        for (fields, what) in [
            (&[("connection", "close")][..], "of one connection"),
            (&[("transfer-encoding", "chunked")], "no place for chunks"),
            (&[("upgrade", "websocket")], "no upgrade"),
            (&[("keep-alive", "5")], "keep-alive"),
            (&[("proxy-connection", "close")], "proxy-connection"),
            (&[("te", "gzip")], "te"),
            (&[("X-Upper", "1")], "upper case"),
            (&[("x y", "1")], "a space in a name"),
            (&[("", "1")], "no name"),
            (&[("x", "a\r\nb: c")], "line ends"),
            (&[("x", "a\0")], "a nul"),
            (&[("x", " padded")], "spaces around"),
            (&[(":method", "GET")], "twice"),
            (&[(":path", "/")], "twice"),
            (&[(":status", "200")], "of an answer"),
            (&[(":protocol", "websocket")], "extended CONNECT"),
            (&[(":unknown", "1")], "unknown"),
            (&[("accept", "*/*"), (":unknown", "1")], "late"),
        ] {
            assert!(with(fields).is_none(), "{what}: {fields:?}");
        }
        for missing in [":method", ":scheme", ":path"] {
            let fields: Vec<_> = GET.iter().filter(|(name, _)| *name != missing).copied().collect();
            assert!(read(&fields).is_none(), "without {missing}");
        }
        let late = [GET[0], GET[1], GET[2], ("accept", "*/*"), GET[3]];
        assert!(read(&late).is_none(), "a pseudo-header behind a field");
        for (name, value) in
            [(":path", ""), (":path", "x y"), (":authority", ""), (":authority", "a b"), (":method", "")]
        {
            let fields = GET.map(|(other, text)| (other, if other == name { value } else { text }));
            assert!(read(&fields).is_none(), "{name}: {value:?}");
        }
    }

    /// The map of the http crate panics on more than it has room for.
    #[test]
    fn very_many_fields_are_no_trouble() {
        let many: Vec<_> = (0..60_000).map(|n| format!("x-{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        let mut section = Vec::new();
        qpack::begin(&mut section);
        GET.iter().chain(&many).for_each(|(name, value)| {
            qpack::field(&mut section, name.as_bytes(), value.as_bytes());
        });
        let mut head = Head::new();
        assert_eq!(request_head(&section, 1 << 30, &mut head), Ok(true));
        assert!(head.len() > crate::http::MAX_REQUEST_FIELDS);
        assert_eq!(request_head(&section, 1 << 20, &mut head), Err(SectionError::TooLarge));
    }

    #[test]
    fn trailers_are_fields() {
        let read = |fields: &[(&str, &str)]| {
            let mut section = Vec::new();
            qpack::begin(&mut section);
            fields.iter().for_each(|(name, value)| {
                qpack::field(&mut section, name.as_bytes(), value.as_bytes());
            });
            trailers(&section, 1000).unwrap()
        };
        assert_eq!(read(&[("grpc-status", "0")]).unwrap().get_str("grpc-status"), Some("0"));
        assert!(!read(&[("content-length", "5")]).unwrap().contains("content-length"));
        assert!(read(&[(":path", "/")]).is_none());
        assert!(read(&[("connection", "close")]).is_none());
    }
}
