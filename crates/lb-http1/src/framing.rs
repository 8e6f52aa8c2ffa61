//! Where a body ends: RFC 9112 section 6.3, without its leniencies.

use crate::chars::is_token_bytes;
use crate::head::{Head, Version};

/// How the length of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, whatever the fields say.
    Empty,
    /// The body has this many bytes, perhaps none.
    Length(u64),
    Chunked,
    /// The body ends with the connection; responses only.
    UntilClose,
}

impl Framing {
    /// Whether bytes of a body may follow the head.
    pub fn has_body(self) -> bool {
        !matches!(self, Self::Empty | Self::Length(0))
    }
}

/// Why the length of a body is not certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("malformed Content-Length")]
    InvalidLength,
    #[error("more than one Content-Length")]
    RepeatedLength,
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("malformed Transfer-Encoding")]
    InvalidEncoding,
    #[error("unknown transfer coding")]
    UnknownEncoding,
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    EncodingInHttp10,
}

impl FramingError {
    /// What a client is answered: 400 or 501.
    pub fn status(&self) -> u16 {
        match self {
            // RFC 9112 section 6.1.
            Self::UnknownEncoding => 501,
            _ => 400,
        }
    }

    /// For metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::InvalidLength => "content_length",
            Self::RepeatedLength => "repeated_content_length",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::InvalidEncoding => "transfer_encoding",
            Self::UnknownEncoding => "unknown_transfer_coding",
            Self::EncodingInHttp10 => "transfer_encoding_in_http10",
        }
    }
}

/// The framing of a request body, whatever protocol it came over. A Content-Length is left without needless zeros: to some
/// parsers they mean octal digits.
///
/// # Errors
/// The request is to be refused and, over HTTP/1, the connection closed.
pub fn request_framing(head: &mut Head) -> Result<Framing, FramingError> {
    Ok(declared(head)?.unwrap_or(Framing::Empty))
}

/// The framing of the body of an HTTP/1 response to a request with this method; Content-Length as in [`request_framing`].
///
/// After a 2xx to CONNECT and after 101 it is `Empty`: what follows is no body but the tunnel.
///
/// # Errors
/// The response cannot be passed on; the connection to the server is to be closed.
pub fn response_framing(head: &mut Head, request_method: &str) -> Result<Framing, FramingError> {
    let declared = declared(head)?;
    let never_has_body = matches!(head.status(), 100..=199 | 204 | 304)
        || request_method == "HEAD"
        || (request_method == "CONNECT" && matches!(head.status(), 200..=299));
    Ok(if never_has_body { Framing::Empty } else { declared.unwrap_or(Framing::UntilClose) })
}

fn declared(head: &mut Head) -> Result<Option<Framing>, FramingError> {
    if let Some(coding) = head.get("transfer-encoding") {
        // RFC 9112 section 6.1 on both: such a message may be an attempt at smuggling.
        if head.contains("content-length") {
            return Err(FramingError::LengthAndEncoding);
        }
        if head.version() != Version::Http11 {
            return Err(FramingError::EncodingInHttp10);
        }
        if head.count("transfer-encoding") > 1 {
            return Err(FramingError::InvalidEncoding);
        }
        return match coding {
            coding if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            coding if is_token_bytes(coding) => Err(FramingError::UnknownEncoding),
            // Also lists: chunked twice, chunked not last, chunked behind a coding that is not undone here.
            _ => Err(FramingError::InvalidEncoding),
        };
    }
    let mut lengths = head.get_all("content-length");
    let digits = match (lengths.next(), lengths.next()) {
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(FramingError::RepeatedLength),
        (Some(digits), None) => digits,
    };
    let length = parse_length(digits).ok_or(FramingError::InvalidLength)?;
    if let [b'0', _, ..] = digits {
        drop(lengths);
        head.set("content-length", length.to_string().as_bytes());
    }
    Ok(Some(Framing::Length(length)))
}

/// The value of a Content-Length: `1*DIGIT`, neither sign nor list nor white space. `None` also beyond what 63 bits hold:
/// many servers count in signed numbers, where it would be another length.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let length = digits.iter().try_fold(0_i64, |length, digit| {
        let value = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(value)
    })?;
    Some(length.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head of this version with these fields, written `name: value` and joined with `|`.
    fn head(version: Version, fields: &str) -> Head {
        let mut head = Head::new();
        head.set_version(version);
        for field in fields.split('|').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(':').unwrap();
            head.append(name, value.trim_matches(' ').as_bytes());
        }
        head
    }

    fn show(result: Result<Framing, FramingError>) -> String {
        match result {
            Ok(framing) => format!("{framing:?}"),
            Err(error) => format!("{} {}", error.status(), error.label()),
        }
    }

    #[test]
    fn a_request_body_has_one_certain_length_or_is_refused() {
        for (fields, expected) in [
            ("", "Empty"),
            ("Content-Length: 0", "Length(0)"),
            ("Content-Length: 0042", "Length(42)"),
            ("Content-Length: 9223372036854775807", "Length(9223372036854775807)"),
            ("Content-Length: 9223372036854775808", "400 content_length"),
            ("Content-Length: 18446744073709551621", "400 content_length"),
            ("Content-Length: 99999999999999999999999", "400 content_length"),
            ("Content-Length:", "400 content_length"),
            ("Content-Length: +1", "400 content_length"),
            ("Content-Length: -1", "400 content_length"),
            ("Content-Length: 0x1", "400 content_length"),
            ("Content-Length: 1 1", "400 content_length"),
            ("Content-Length: 1,1", "400 content_length"),
            ("Content-Length: 1.0", "400 content_length"),
            ("Content-Length: \u{661}", "400 content_length"),
            ("Content-Length: 1|content-length: 1", "400 repeated_content_length"),
            ("Content-Length: 1|Content-Length: 2", "400 repeated_content_length"),
            ("Transfer-Encoding: chunked", "Chunked"),
            ("transfer-encoding: CHUNKED", "Chunked"),
            ("Transfer-Encoding: chunked|Content-Length: 1", "400 length_and_encoding"),
            ("Content-Length: 1|Transfer-Encoding: x", "400 length_and_encoding"),
            ("Transfer-Encoding: chunked|Transfer-Encoding: chunked", "400 transfer_encoding"),
            ("Transfer-Encoding: chunked, chunked", "400 transfer_encoding"),
            ("Transfer-Encoding: gzip, chunked", "400 transfer_encoding"),
            ("Transfer-Encoding: chunked, identity", "400 transfer_encoding"),
            ("Transfer-Encoding: chunked;q=1", "400 transfer_encoding"),
            ("Transfer-Encoding: ,chunked", "400 transfer_encoding"),
            ("Transfer-Encoding:\tchunked", "400 transfer_encoding"), // not from a parser, which trims
            ("Transfer-Encoding: \"chunked\"", "400 transfer_encoding"),
            ("Transfer-Encoding:", "400 transfer_encoding"),
            ("Transfer-Encoding: gzip", "501 unknown_transfer_coding"),
            ("Transfer-Encoding: xchunked", "501 unknown_transfer_coding"),
        ] {
            assert_eq!(show(request_framing(&mut head(Version::Http11, fields))), expected, "{fields}");
        }
        let old = |fields| show(request_framing(&mut head(Version::Http10, fields)));
        assert_eq!(old("Content-Length: 3"), "Length(3)");
        assert_eq!(old("Transfer-Encoding: chunked"), "400 transfer_encoding_in_http10");
    }

    #[test]
    fn a_length_has_one_spelling() {
        for (digits, expected) in [("0", "0"), ("00", "0"), ("05", "5"), ("0000042", "42"), ("10", "10")] {
            let fields = format!("a: 1|Content-Length: {digits}|b: 2");
            let mut request = head(Version::Http11, &fields);
            let mut response = request.clone();
            assert!(request_framing(&mut request).is_ok() && response_framing(&mut response, "HEAD").is_ok());
            for head in [request, response] {
                let written: Vec<_> =
                    head.iter().map(|(name, value)| (name, str::from_utf8(value).unwrap())).collect();
                assert_eq!(written, [("a", "1"), ("Content-Length", expected), ("b", "2")]);
            }
        }
    }

    #[test]
    fn a_response_body_depends_on_the_request_and_the_status() {
        for (method, status, fields, expected) in [
            ("GET", 200, "", "UntilClose"),
            ("GET", 200, "Content-Length: 5", "Length(5)"),
            ("GET", 200, "Transfer-Encoding: chunked", "Chunked"),
            ("GET", 200, "Content-Length: 5|Transfer-Encoding: chunked", "400 length_and_encoding"),
            ("HEAD", 200, "Content-Length: 5", "Empty"),
            ("HEAD", 200, "Transfer-Encoding: chunked", "Empty"),
            ("HEAD", 200, "Content-Length: x", "400 content_length"),
            ("GET", 100, "", "Empty"),
            ("GET", 101, "", "Empty"),
            ("GET", 204, "Content-Length: 5", "Empty"),
            ("GET", 205, "", "UntilClose"),
            ("GET", 304, "Content-Length: 5", "Empty"),
            ("CONNECT", 200, "", "Empty"),
            ("CONNECT", 299, "Transfer-Encoding: chunked", "Empty"),
            ("CONNECT", 400, "Content-Length: 5", "Length(5)"),
        ] {
            let mut head = head(Version::Http11, fields);
            head.set_status(status);
            assert_eq!(show(response_framing(&mut head, method)), expected, "{method} {status} {fields}");
        }
    }

    #[test]
    fn a_declared_length_of_zero_is_no_body() {
        let bodies =
            [Framing::Empty, Framing::Length(0), Framing::Length(1), Framing::Chunked, Framing::UntilClose];
        assert_eq!(bodies.map(Framing::has_body), [false, false, true, true, true]);
    }
}
