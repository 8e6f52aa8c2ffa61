//! `tracing`, and the `otlp` blocks wherever they are.

use std::collections::BTreeMap;

use super::transport;
use crate::decode::{Block, Enabled, Field};
use crate::dynamic::Scheme;
use crate::net::{is_token, server_url};
use crate::problem::quoted;
use crate::telemetry::{Otlp, OtlpProtocol, Tracing};

/// Defaults of reference 1.9.
const SERVICE_NAME: &str = "traefik";
const HTTP_ENDPOINT: &str = "https://localhost:4318";
const GRPC_ENDPOINT: &str = "localhost:4317";

pub(super) fn tracing(field: &Field<'_>) -> Option<Tracing> {
    const PATH: &str = "/v1/traces";
    let mut tracing = Tracing {
        service_name: SERVICE_NAME.to_owned(),
        resource_attributes: BTreeMap::new(),
        captured_request_headers: Vec::new(),
        captured_response_headers: Vec::new(),
        safe_query_params: Vec::new(),
        sample_rate: 1.0,
        add_internals: false,
        otlp: plain(PATH),
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(tracing),
        Enabled::With(block) => block,
    };
    (tracing.service_name, tracing.resource_attributes) = resource(&block);
    // Deprecated by Traefik; the newer key wins.
    for (name, value) in
        block.take_unlisted("globalAttributes").map(|field| texts(&field)).unwrap_or_default()
    {
        tracing.resource_attributes.entry(name).or_insert(value);
    }
    for (key, place) in [
        ("capturedRequestHeaders", &mut tracing.captured_request_headers),
        ("capturedResponseHeaders", &mut tracing.captured_response_headers),
    ] {
        *place = block.take(key).map(|field| header_names(&field)).unwrap_or_default();
    }
    if let Some(field) = block.take("safeQueryParams") {
        tracing.safe_query_params = field.texts().iter().map(|text| text.value.to_owned()).collect();
    }
    if let Some(field) = block.take("sampleRate")
        && let Some(rate) = field.float(f64::MIN..=f64::MAX)
    {
        tracing.sample_rate = rate.clamp(0.0, 1.0);
        if tracing.sample_rate != rate {
            let hint = "`1` is all of them, `0.05` one of twenty".to_owned();
            field.warn(format!("a share is from 0 to 1; {} is used", tracing.sample_rate), Some(hint));
        }
    }
    tracing.add_internals = block.take("addInternals").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(field) = block.take("otlp") {
        tracing.otlp = otlp(&field, PATH).unwrap_or(tracing.otlp);
    }
    block.finish();
    Some(tracing)
}

/// `serviceName` and `resourceAttributes`, which every signal has.
pub(super) fn resource(block: &Block<'_>) -> (String, BTreeMap<String, String>) {
    let name = super::text(block, "serviceName").unwrap_or_else(|| SERVICE_NAME.to_owned());
    let attributes = block.take("resourceAttributes").map(|field| texts(&field)).unwrap_or_default();
    (name, attributes)
}

/// A map of texts, whose keys may have dots.
fn texts(field: &Field<'_>) -> BTreeMap<String, String> {
    let read =
        |(entry, field): (&crate::document::Entry, Field<'_>)| Some((entry.key.to_string(), field.string()?));
    field.map().into_iter().filter_map(read).collect()
}

fn header_names(field: &Field<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for text in field.texts() {
        if is_token(text.value) {
            names.push(text.value.to_ascii_lowercase());
        } else {
            text.error(format!("{} is not the name of a header", quoted(text.value)), None);
        }
    }
    names
}

/// Where an `otlp` sends to; `None` when it is switched off, or not understood.
pub(super) fn otlp(field: &Field<'_>, path: &str) -> Option<Otlp> {
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(plain(path)),
        Enabled::With(block) => block,
    };
    let otlp = receiver(&block, path);
    block.finish();
    otlp
}

/// What `http` and `grpc` of an `otlp` say.
fn receiver(block: &Block<'_>, path: &str) -> Option<Otlp> {
    let (http, grpc) = (block.take("http"), block.take("grpc"));
    let grpc = grpc.filter(|field| !matches!(field.enabled(), Enabled::Off));
    match (grpc, http) {
        (Some(grpc), http) => {
            if let Some(http) = http {
                http.warn_at_key("has no effect: `grpc` is there as well, and wins".to_owned(), None);
            }
            over(&grpc, path, true)
        }
        (None, Some(http)) => over(&http, path, false),
        (None, None) => Some(plain(path)),
    }
}

fn plain(path: &str) -> Otlp {
    Otlp {
        protocol: OtlpProtocol::Http { path: path.to_owned() },
        host: "localhost".to_owned(),
        port: 4318,
        tls: Some(transport::plain(false)),
        headers: Vec::new(),
        endpoint_text: HTTP_ENDPOINT.to_owned(),
    }
}

fn over(field: &Field<'_>, path: &str, grpc: bool) -> Option<Otlp> {
    let mut otlp = plain(path);
    if grpc {
        otlp.protocol = OtlpProtocol::Grpc;
        otlp.endpoint_text = GRPC_ENDPOINT.to_owned();
        otlp.port = 4317;
        otlp.tls = Some(transport::plain(true));
    }
    let block = match field.enabled() {
        Enabled::Off | Enabled::Plain => return Some(otlp),
        Enabled::With(block) => block,
    };
    if let Some(tls) = block.take("tls").and_then(|field| field.block()) {
        otlp.tls = Some(transport::read(&tls, transport::plain(grpc)));
        tls.finish();
        if grpc && let Some(insecure) = block.take("insecure").filter(|field| field.boolean() == Some(true)) {
            let hint = "remove one of them".to_owned();
            insecure.error("`tls` and `insecure` exclude each other".to_owned(), Some(hint));
        }
    } else if grpc && block.take("insecure").and_then(|field| field.boolean()) == Some(true) {
        otlp.tls = None;
    }
    otlp.headers = block.take("headers").map(|field| headers(&field)).unwrap_or_default();
    if let Some(endpoint) = block.take_word("endpoint") {
        otlp.endpoint_text = endpoint.string()?;
        if grpc { grpc_endpoint(&endpoint, &mut otlp)? } else { http_endpoint(&endpoint, &mut otlp)? }
    }
    block.finish();
    Some(otlp)
}

fn http_endpoint(field: &Field<'_>, otlp: &mut Otlp) -> Option<()> {
    let hint = || Some("write `http://collector:4318` or `https://collector:4318`".to_owned());
    let text = field.text()?;
    let parts = match server_url(text.value) {
        Ok(parts) if parts.scheme != Scheme::H2c && !parts.ignored => parts,
        Ok(_) => {
            field.error(format!("{} is not where OTLP can be sent over HTTP", text.quoted()), hint());
            return None;
        }
        Err((message, _)) => {
            field.error(message, hint());
            return None;
        }
    };
    if parts.scheme == Scheme::Http {
        otlp.tls = None;
    }
    (otlp.host, otlp.port) = (parts.host, parts.port);
    if !parts.path.is_empty() {
        otlp.protocol = OtlpProtocol::Http { path: parts.path };
    }
    Some(())
}

fn grpc_endpoint(field: &Field<'_>, otlp: &mut Otlp) -> Option<()> {
    let text = field.text()?;
    // A host and a port, as Traefik has it.
    let parts = server_url(&format!("http://{}", text.value)).ok();
    let parts = parts.filter(|parts| parts.path.is_empty() && !parts.ignored);
    match parts.filter(|parts| text.value.ends_with(&format!(":{}", parts.port))) {
        Some(parts) => (otlp.host, otlp.port) = (parts.host, parts.port),
        None => {
            let hint = "write `collector:4317`, without a scheme".to_owned();
            field.error(format!("{} is not a host and a port", text.quoted()), Some(hint));
            return None;
        }
    }
    Some(())
}

fn headers(field: &Field<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (entry, field) in field.map() {
        let Some(value) = field.string() else { continue };
        if !is_token(&entry.key) {
            field.error_at_key(format!("{} is not the name of a header", quoted(&entry.key)), None);
        } else if value.chars().any(|c| c.is_control()) {
            // The value is not repeated: it may be a password.
            field.error("has a character that no header may have".to_owned(), None);
        } else {
            headers.push((entry.key.to_string(), value));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problems, parse_static};

    fn read(text: &str) -> Result<Tracing, Vec<String>> {
        match parse_static("vigie.yml", &format!("tracing: {text}")) {
            Ok((config, warnings)) if warnings.is_empty() => Ok(config.tracing.unwrap()),
            Ok((_, problems)) | Err(Problems(problems)) => {
                Err(problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect())
            }
        }
    }

    #[test]
    fn defaults_are_those_of_traefik() {
        for text in ["{}", "true", "{otlp: {}}", "{otlp: {http: {}}}"] {
            let tracing = read(text).unwrap();
            assert_eq!(tracing.service_name, "traefik", "{text}");
            assert_eq!((tracing.sample_rate, tracing.add_internals), (1.0, false));
            let Otlp { protocol, host, port, tls, .. } = tracing.otlp;
            assert_eq!(protocol, OtlpProtocol::Http { path: "/v1/traces".to_owned() });
            assert_eq!((host.as_str(), port, tls.is_some()), ("localhost", 4318, true));
        }
        let grpc = read("{otlp: {grpc: {}}}").unwrap().otlp;
        assert_eq!((grpc.protocol, grpc.port, grpc.tls.is_some()), (OtlpProtocol::Grpc, 4317, true));
        assert!(parse_static("vigie.yml", "tracing: false").unwrap().0.tracing.is_none());
    }

    #[test]
    fn keys_are_read() {
        let tracing = read(
            "{serviceName: shop, resourceAttributes: {deployment.environment.name: prod}, \
             globalAttributes: {team: blue}, capturedRequestHeaders: 'X-Want, Accept', \
             capturedResponseHeaders: [X-Answer], safeQueryParams: [page], sampleRate: 0.5, addInternals: true, \
             otlp: {http: {endpoint: 'http://[::1]:9/a/b', headers: {Authorization: secret}}}}",
        )
        .unwrap();
        assert_eq!(tracing.service_name, "shop");
        assert_eq!(tracing.resource_attributes["deployment.environment.name"], "prod");
        assert_eq!(tracing.resource_attributes["team"], "blue");
        assert_eq!(tracing.captured_request_headers, ["x-want", "accept"]);
        assert_eq!(tracing.captured_response_headers, ["x-answer"]);
        assert_eq!((tracing.sample_rate, tracing.add_internals), (0.5, true));
        assert_eq!(tracing.safe_query_params, ["page"]);
        let otlp = &tracing.otlp;
        assert_eq!(otlp.protocol, OtlpProtocol::Http { path: "/a/b".to_owned() });
        assert_eq!((otlp.host.as_str(), otlp.port, otlp.tls.is_some()), ("::1", 9, false));
        assert_eq!(otlp.headers, [("Authorization".to_owned(), "secret".to_owned())]);
        assert!(!format!("{tracing:?}").contains("secret"));
        let grpc = read("{otlp: {grpc: {endpoint: 'c:7', insecure: true}}}").unwrap().otlp;
        assert_eq!((grpc.host.as_str(), grpc.port, grpc.tls.is_some()), ("c", 7, false));
        let tls =
            read("{otlp: {grpc: {endpoint: 'c:7', tls: {insecureSkipVerify: true}}}}").unwrap().otlp.tls;
        assert!(tls.unwrap().insecure_skip_verify);
    }

    #[test]
    fn problems_are_told() {
        for (text, expected) in [
            ("{otlp: {http: {endpoint: 'c:4318'}}}", "tracing.otlp.http.endpoint: `c:4318` has no scheme"),
            (
                "{otlp: {http: {endpoint: 'h2c://c'}}}",
                "tracing.otlp.http.endpoint: `h2c://c` is not where OTLP can be sent over HTTP",
            ),
            (
                "{otlp: {grpc: {endpoint: 'http://c:4317'}}}",
                "tracing.otlp.grpc.endpoint: `http://c:4317` is not a host and a port",
            ),
            ("{otlp: {grpc: {endpoint: c}}}", "tracing.otlp.grpc.endpoint: `c` is not a host and a port"),
            (
                "{otlp: {grpc: {insecure: true, tls: {insecureSkipVerify: true}}}}",
                "tracing.otlp.grpc.insecure: `tls` and `insecure` exclude each other",
            ),
            (
                "{otlp: {http: {}, grpc: {}}}",
                "tracing.otlp.http: has no effect: `grpc` is there as well, and wins",
            ),
            (
                "{otlp: {http: {headers: {'a b': c}}}}",
                "tracing.otlp.http.headers.a b: `a b` is not the name of a header",
            ),
            ("{sampleRate: 2}", "tracing.sampleRate: a share is from 0 to 1; 1 is used"),
            ("{sampleRate: much}", "tracing.sampleRate: expected a number, found `much`"),
            (
                "{capturedRequestHeaders: ['a b']}",
                "tracing.capturedRequestHeaders[0]: `a b` is not the name of a header",
            ),
            ("{zipkin: {}}", "tracing.zipkin: there is no key `zipkin` here"),
        ] {
            assert_eq!(read(text).unwrap_err(), [expected], "{text}");
        }
    }
}
