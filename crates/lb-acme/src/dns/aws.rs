//! Requests to AWS as it wants them: signatures, version 4
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>), and what of XML its
//! answers need.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use lb_config::dynamic::Secret;

/// What proves who asks.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    /// Of keys that are good for a while only.
    pub(super) session: Option<Secret>,
}

/// What is signed of a request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// Without characters that need an escape.
    pub(super) path: &'a str,
    /// Pairs in the order of their names, encoded.
    pub(super) query: &'a str,
    pub(super) body: &'a str,
}

/// The headers that show that the holder of the keys asks, now.
pub(super) fn sign(
    keys: &Keys,
    region: &str,
    service: &str,
    asked: &Asked<'_>,
    now: SystemTime,
) -> Vec<(&'static str, String)> {
    // `20150830T123600Z` of `2015-08-30T12:36:00Z`.
    let time: String =
        lb_observe::rfc3339(now).split('.').next().unwrap_or_default().replace(['-', ':', 'Z'], "") + "Z";
    let date = time.get(..8).unwrap_or_default();
    let mut headers = vec![("x-amz-date", time.clone())];
    headers
        .extend(keys.session.as_ref().map(|session| ("x-amz-security-token", session.reveal().to_owned())));
    let mut canonical = format!("{}\n{}\n{}\nhost:{}\n", asked.method, asked.path, asked.query, asked.host);
    let mut names = "host".to_owned();
    for (name, value) in &headers {
        canonical += &format!("{name}:{value}\n");
        names += &format!(";{name}");
    }
    canonical += &format!("\n{names}\n{}", hex(digest(&SHA256, asked.body.as_bytes()).as_ref()));
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text =
        format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let first = format!("AWS4{}", keys.secret.reveal()).into_bytes();
    let key = scope.split('/').fold(first, |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    let id = &keys.id;
    headers.push((
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"),
    ));
    headers
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands in the elements of this name. Those of AWS have no attributes, and none of their own name in them.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, from) = rest.split_once(&open)?;
        let (inner, behind) = from.split_once(&close)?;
        rest = behind;
        Some(inner)
    })
}

pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    elements(text, name).next().map(str::trim)
}

const ESCAPES: [(&str, &str); 5] =
    [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&apos;")];

pub(super) fn escaped(text: &str) -> String {
    ESCAPES.iter().fold(text.to_owned(), |text, (plain, escape)| text.replace(plain, escape))
}

pub(super) fn unescaped(text: &str) -> String {
    // The ampersand last, in case there is one before `lt;`.
    let text = text.replace("&#34;", "\"").replace("&#39;", "'");
    ESCAPES.iter().rev().fold(text, |text, (plain, escape)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn texts_survive_xml() {
        for text in ["\"a & b\"", "&lt;", "<'>", "&amp;quot;"] {
            assert_eq!(unescaped(&escaped(text)), text);
        }
        assert_eq!(unescaped("&#34;v&quot;"), "\"v\"");
        assert_eq!(elements("<A>1</A><B><A>2</A></B><A>", "A").collect::<Vec<_>>(), ["1", "2"]);
    }

    /// Of AWS's own suite of tests: get-vanilla, get-vanilla-query-order-key-case, post-vanilla, post-sts-header-before.
    #[test]
    fn signatures_are_those_that_aws_has_published() {
        const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        for (method, query, session, expected) in [
            ("GET", "", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            (
                "GET",
                "Param1=value1&Param2=value2",
                None,
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            ("POST", "", None, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            ("POST", "", Some(SESSION), "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"),
        ] {
            let keys = Keys {
                id: "AKIDEXAMPLE".to_owned(),
                secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
                session: session.map(Secret::new),
            };
            let asked = Asked { method, host: "example.amazonaws.com", path: "/", query, body: "" };
            // 2015-08-30T12:36:00Z, with a fraction that is not signed.
            let now = UNIX_EPOCH + Duration::from_millis(1_440_938_160_500);
            let headers = sign(&keys, "us-east-1", "service", &asked, now);
            assert_eq!(headers[0], ("x-amz-date", "20150830T123600Z".to_owned()));
            let (_, authorization) = headers.last().unwrap();
            let scope = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date";
            assert!(authorization.starts_with(scope), "{authorization}");
            assert!(authorization.ends_with(&format!(", Signature={expected}")), "{authorization}");
        }
    }
}
