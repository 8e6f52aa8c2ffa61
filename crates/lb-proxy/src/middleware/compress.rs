//! `compress`: which answers are compressed, and how; [`Encoded`](crate::http::encode::Encoded) does it.

use lb_config::dynamic as config;
use lb_core::encoding::Offer;
use lb_http1::Head;

use super::Step;
use crate::exchange::Exchange;
use crate::http::encode::Encode;

pub(crate) struct Compress {
    offer: Offer,
    min: u64,
    excluded: Vec<Vec<u8>>,
    included: Vec<Vec<u8>>,
}

impl Compress {
    pub(crate) fn new(options: &config::Compress) -> Self {
        let essences =
            |types: &[String]| types.iter().map(|written| essence(written.as_bytes()).to_vec()).collect();
        Self {
            offer: options.offer.clone(),
            min: options.min_response_body_bytes,
            excluded: essences(&options.excluded_content_types),
            included: essences(&options.included_content_types),
        }
    }

    /// Chooses as the request is here: what comes behind may change what the server sees of it.
    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        // A try before this one may have left it.
        x.encode = None;
        let kind = x.head.get("content-type").map(essence).unwrap_or_default();
        let spared = x.head.method() == "HEAD" || is_grpc(kind) || is_among(&self.excluded, kind);
        x.encodings.push(if spared { None } else { self.offer.choose(x.head.get_all("accept-encoding")) });
        Step::Next
    }

    pub(crate) fn on_response(&self, x: &mut Exchange) {
        let Some(Some(encoding)) = x.encodings.pop() else { return };
        vary(&mut x.response);
        if x.encode.is_none() && self.suits(&x.response) {
            x.encode = Some(Encode::Compressed { encoding, min: self.min });
        }
    }

    fn suits(&self, head: &Head) -> bool {
        let kind = head.get("content-type").map(essence).unwrap_or_default();
        let wanted = if self.included.is_empty() {
            !is_among(&self.excluded, kind)
        } else {
            is_among(&self.included, kind)
        };
        wanted && !is_grpc(kind) && may_be_encoded(head)
    }
}

/// Whether the body may get another form on its way.
fn may_be_encoded(head: &Head) -> bool {
    // These say something of exactly the bytes that the server sent: RFC 9110 section 14.4, RFC 9530.
    const OF_THESE_BYTES: [&str; 5] =
        ["content-range", "content-digest", "repr-digest", "digest", "content-md5"];
    !matches!(head.status(), 100..=199 | 204..=206 | 304)
        && !head.contains("content-encoding")
        && !OF_THESE_BYTES.iter().any(|name| head.contains(name))
        // RFC 9111 section 5.2.2.6.
        && !lb_http1::list(head, "cache-control").any(|word| word.eq_ignore_ascii_case("no-transform"))
}

/// Says that the answer depends on what the client takes: RFC 9110 section 12.5.5.
fn vary(head: &mut Head) {
    let is_said = |name: &str| name == "*" || name.eq_ignore_ascii_case("accept-encoding");
    if !lb_http1::list(head, "vary").any(is_said) {
        head.append("Vary", b"Accept-Encoding");
    }
}

/// A media type without its parameters.
fn essence(kind: &[u8]) -> &[u8] {
    kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn is_among(types: &[Vec<u8>], kind: &[u8]) -> bool {
    types.iter().any(|one| kind.eq_ignore_ascii_case(one))
}

/// gRPC compresses by itself, message by message.
fn is_grpc(kind: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let (start, rest) = kind.split_at(kind.len().min(GRPC.len()));
    start.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+', ..])
}

#[cfg(test)]
mod tests {
    use lb_core::encoding::Encoding;

    use super::*;

    fn compress(excluded: &[&str], included: &[&str]) -> Compress {
        let owned = |types: &[&str]| types.iter().map(|kind| (*kind).to_owned()).collect();
        Compress::new(&config::Compress {
            offer: Offer { encodings: Encoding::ALL.to_vec(), default: None },
            min_response_body_bytes: 1024,
            excluded_content_types: owned(excluded),
            included_content_types: owned(included),
        })
    }

    fn head(status: u16, fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        head.set_status(status);
        fields.iter().for_each(|(name, value)| head.append(name, value.as_bytes()));
        head
    }

    #[test]
    fn what_must_stay_as_it_is_stays() {
        let all = compress(&[], &[]);
        for (status, name, value, expected) in [
            (200, "Content-Type", "text/html", true),
            (404, "Content-Type", "image/png", true),
            (500, "Cache-Control", "no-store, max-age=0", true),
            (200, "Content-Encoding", "gzip", false),
            (200, "Content-Encoding", "identity", false),
            (200, "Cache-Control", "no-store, No-Transform", false),
            (200, "Content-Digest", "sha-256=:AAAA:", false),
            (206, "Content-Type", "text/html", false),
            (416, "Content-Range", "bytes */10", false),
            (204, "Content-Type", "text/html", false),
            (304, "Content-Type", "text/html", false),
            (101, "Upgrade", "websocket", false),
            (200, "Content-Type", "application/grpc", false),
            (200, "Content-Type", "Application/GRPC+proto", false),
            (200, "Content-Type", "application/grpc-web", true),
        ] {
            assert_eq!(all.suits(&head(status, &[(name, value)])), expected, "{status} {name}: {value}");
        }
    }

    /// Compared with Traefik, but for an answer without a type where types are named: there gzip guesses one, br and
    /// zstd compress it.
    #[test]
    fn types_are_compared_without_parameters_and_case() {
        let excluding = compress(&["text/html; charset=utf-8", "Text/Event-Stream"], &[]);
        let including = compress(&[], &["application/json"]);
        for (kind, excluded, included) in [
            ("text/html", false, false),
            ("TEXT/HTML;charset=UTF-8", false, false),
            ("text/event-stream", false, false),
            ("application/json; charset=utf-8", true, true),
            ("text/plain", true, false),
        ] {
            let head = head(200, &[("Content-Type", kind)]);
            assert_eq!((excluding.suits(&head), including.suits(&head)), (excluded, included), "{kind}");
        }
        let typeless = head(200, &[]);
        assert_eq!((excluding.suits(&typeless), including.suits(&typeless)), (true, false));
    }

    #[test]
    fn vary_is_said_once() {
        for (before, expected) in [
            (&[][..], &["Accept-Encoding"][..]),
            (&["Origin"], &["Origin", "Accept-Encoding"]),
            (&["origin, accept-encoding"], &["origin, accept-encoding"]),
            (&["*"], &["*"]),
        ] {
            let mut head = head(200, &[]);
            before.iter().for_each(|value| head.append("Vary", value.as_bytes()));
            vary(&mut head);
            let after: Vec<_> = head.get_all("vary").map(String::from_utf8_lossy).collect();
            assert_eq!(after, expected);
        }
    }
}
