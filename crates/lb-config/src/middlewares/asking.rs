//! Middlewares that ask another server: `forwardAuth`, `errors`.

use super::headers::{names, pattern};
use crate::decode::{Block, Field, Text};
use crate::dynamic::{Errors, ForwardAuth, Middleware, Scheme, Server, ServersTransport};
use crate::dynamics::Draft;
use crate::net::{server_url, status_ranges};
use crate::pem;
use crate::problem::{Kind, quoted};

/// What is kept in memory of a request's body and of the auth server's answer where no bound is written; Traefik's bound
/// for bodies that it keeps for a retry.
const BOUND: usize = 2 * 1024 * 1024;

/// Connections kept idle to an auth server by each worker, as towards servers (reference 1.11).
const IDLE_CONNS: usize = 200;

/// What says where a request goes and how long it is, or concerns one connection only: no auth server can set it.
const NEVER_GRANTED: [&str; 8] =
    ["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

pub(super) fn forward_auth(block: &Block<'_>) -> Option<Middleware> {
    let flag = |key| block.take(key).and_then(|field| field.boolean()).unwrap_or(false);
    let list = |key| block.take(key).map(|field| names(&field)).unwrap_or_default();
    let address = block
        .require("address", "write the URL of the auth server, as `http://auth:9091/verify`")
        .and_then(|field| field.text())
        .and_then(|text| address(&text));
    let mut transport = ServersTransport::with_idle_conns(IDLE_CONNS);
    if let Some(field) = block.take("tls") {
        tls(&field, &mut transport);
    }
    let granted = block.take("authResponseHeaders");
    for text in granted.iter().flat_map(Field::texts) {
        if NEVER_GRANTED.iter().any(|name| text.value.eq_ignore_ascii_case(name)) {
            let message = format!("{} has no effect: no auth server may set it", quoted(text.value));
            text.warn(message, Some("remove it".to_owned()));
        }
    }
    let regex = block.take_word("authResponseHeadersRegex").and_then(|field| field.text());
    let header = block.take_word("headerField");
    let signin = block.take_word("authSigninURL").and_then(|field| field.text());
    if let Some(text) = signin.as_ref().filter(|text| !text.value.chars().all(|c| c.is_ascii_graphic())) {
        text.error("cannot be a `Location`", Some("percent-encode what is not plain ASCII".to_owned()));
    }
    let forward_body = flag("forwardBody");
    let max_body = block.take("maxBodySize");
    let max_response = block.take("maxResponseBodySize");
    let max_body_bytes = max_body.as_ref().and_then(|field| bound(field, forward_body));
    let max_response_body_bytes = max_response.as_ref().and_then(|field| bound(field, true));
    if forward_body && max_body.is_none() {
        let message = format!("`forwardBody` without `maxBodySize`: bodies above {BOUND} bytes get 401");
        block.warn(message, Some("write the largest body that clients send as `maxBodySize`".to_owned()));
    }
    let auth = ForwardAuth {
        trust_forward_header: block.take("trustForwardHeader").and_then(|field| field.boolean()),
        auth_response_headers: granted.as_ref().map(names).unwrap_or_default(),
        auth_response_headers_regex: regex.and_then(|text| pattern(&text)),
        auth_request_headers: list("authRequestHeaders"),
        add_auth_cookies_to_response: list("addAuthCookiesToResponse"),
        header_field: header.as_ref().map(names).unwrap_or_default().into_iter().next(),
        forward_body,
        max_body_bytes: max_body_bytes.unwrap_or(BOUND),
        max_response_body_bytes: max_response_body_bytes.unwrap_or(BOUND),
        bounds_written: (max_body_bytes.is_some(), max_response_body_bytes.is_some()),
        preserve_location_header: flag("preserveLocationHeader"),
        preserve_request_method: flag("preserveRequestMethod"),
        auth_signin_url: signin.map(|text| text.value.to_owned()),
        transport,
        target: address.as_ref()?.1.clone(),
        address: address.as_ref()?.0.url.clone(),
        server: address?.0,
    };
    Some(Middleware::ForwardAuth(Box::new(auth)))
}

/// The server of an auth address, and the path and query to ask it for.
fn address(text: &Text<'_>) -> Option<(Server, String)> {
    let url = text.value;
    let parts = match server_url(url) {
        Ok(parts) => parts,
        Err((message, hint)) => {
            text.error(message, hint);
            return None;
        }
    };
    if parts.scheme == Scheme::H2c {
        let hint = "write `http://` or `https://`".to_owned();
        text.error("the scheme `h2c` cannot be used for an auth server", Some(hint));
        return None;
    }
    let written = url.split('#').next().unwrap_or_default();
    let query = written.split_once('?').map(|(_, query)| query);
    if query.is_some_and(|query| !query.chars().all(|c| c.is_ascii_graphic())) {
        text.error("the query holds what no URL can", Some("percent-encode it".to_owned()));
        return None;
    }
    let path = if parts.path.is_empty() { "/" } else { &parts.path };
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let server = Server {
        url: url.to_owned(),
        scheme: parts.scheme,
        host: parts.host,
        port: parts.port,
        path: String::new(),
        preserve_path: false,
        weight: 1,
        max_connections: None,
    };
    Some((server, target))
}

/// Bytes; `None` for Traefik's negative number, which is no bound at all.
fn bound(field: &Field<'_>, matters: bool) -> Option<usize> {
    let bytes = field.integer(i64::MIN..=i64::MAX)?;
    let bound = usize::try_from(bytes).ok();
    if bound.is_none() && matters {
        let message = format!("what is kept in memory has a bound: {BOUND} bytes are used");
        field.warn(message, Some("write a number of bytes that is enough".to_owned()));
    }
    bound
}

pub(super) fn tls(field: &Field<'_>, transport: &mut ServersTransport) {
    let Some(block) = field.block() else { return };
    if let Some(ca) = block.take("ca") {
        transport.root_cas = pem::certificate_list(&ca);
    }
    if field.peek("cert").or(field.peek("key")).is_some() {
        transport.certificates.extend(pem::pair(&block, "cert", "key"));
    }
    transport.insecure_skip_verify =
        block.take("insecureSkipVerify").and_then(|field| field.boolean()).unwrap_or(false);
    block.without_effect(&["caOptional"], "Traefik v3 does nothing with it either");
    block.finish();
}

pub(super) fn errors<'a>(draft: &mut Draft<'a>, name: &str, block: &Block<'a>) -> Option<Middleware> {
    let status = block.require("status", "list the statuses whose answers get another page");
    let status = status.map(|field| status_ranges(&field)).unwrap_or_default();
    if status.is_empty() && !block.report.is_current_broken() {
        block.error("no status is listed, so it would do nothing".to_owned(), Some("list some".to_owned()));
    }
    let rewrites = block.take("statusRewrites").map(|field| rewrites(&field)).unwrap_or_default();
    let service = block.require("service", "name the service that has the pages").and_then(|field| {
        let service = draft.reference(Kind::Middleware, name, Kind::Service, &field)?;
        if service.ends_with("@internal") {
            field.error("an internal service has no pages".to_owned(), None);
            return None;
        }
        Some(service)
    });
    let query = block.take("query").and_then(|field| field.string()).unwrap_or_default();
    let headers = block.take("errorRequestHeaders").map(|field| names(&field));
    Some(Middleware::Errors(Errors {
        status,
        status_rewrites: rewrites,
        service: service?,
        query,
        error_request_headers: headers,
    }))
}

/// Statuses and ranges of them to the status that clients get.
fn rewrites(field: &Field<'_>) -> Vec<((u16, u16), u16)> {
    let mut rewrites = Vec::new();
    for (entry, field) in field.map() {
        let (low, high) = entry.key.split_once('-').unwrap_or((&entry.key, &entry.key));
        let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=999).contains(status));
        match status(low).zip(status(high)).filter(|(low, high)| low <= high) {
            Some(range) => rewrites.extend(field.u16(200, 599).map(|to| (range, to))),
            None => field.error_at_key(
                format!("{} is no status and no range of them", quoted(&entry.key)),
                Some("write a status like `404` or a range like `500-599`".to_owned()),
            ),
        }
    }
    rewrites
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, middleware, middleware_problems, problems};

    #[test]
    fn an_address_keeps_its_query() {
        for (address, target, host) in [
            ("http://auth:9091/verify?rd=https://login.test/", "/verify?rd=https://login.test/", "auth 9091"),
            ("https://[::1]", "/", "::1 443"),
            ("http://a?x#f", "/?x", "a 80"),
        ] {
            let Ok(Middleware::ForwardAuth(auth)) =
                middleware(&format!("{{forwardAuth: {{address: '{address}'}}}}"))
            else {
                panic!("no auth: {address}")
            };
            assert_eq!(auth.target, target);
            assert_eq!(format!("{} {}", auth.server.host, auth.server.port), host);
            assert_eq!((auth.max_body_bytes, auth.trust_forward_header), (BOUND, None));
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        let auth = |options: &str| format!("{{forwardAuth: {{address: 'http://a', {options}}}}}");
        for (text, expected) in [
            ("{forwardAuth: {trustForwardHeader: true}}", "forwardAuth: `address` is missing"),
            ("{forwardAuth: {address: auth}}", "forwardAuth.address: `auth` has no scheme"),
            (
                "{forwardAuth: {address: 'h2c://a'}}",
                "forwardAuth.address: the scheme `h2c` cannot be used for an auth server",
            ),
            (
                &auth("authResponseHeaders: ['X A']"),
                "forwardAuth.authResponseHeaders[0]: `X A` is not a header name",
            ),
            (
                &auth("authResponseHeaders: content-length"),
                "~forwardAuth.authResponseHeaders: `content-length` has no effect: no auth server may set it",
            ),
            (
                &auth("maxResponseBodySize: -1"),
                "~forwardAuth.maxResponseBodySize: what is kept in memory has a bound: 2097152 bytes are used",
            ),
            (
                &auth("forwardBody: true"),
                "~forwardAuth: `forwardBody` without `maxBodySize`: bodies above 2097152 bytes get 401",
            ),
            (&auth("tls: {cert: x}"), "forwardAuth.tls: `key` is missing"),
            (&auth("authSigninURL: 'http://a b'"), "forwardAuth.authSigninURL: cannot be a `Location`"),
        ] {
            assert_eq!(middleware_problems(text)[0], expected, "{text}");
        }
        let regex = middleware_problems(&auth("authResponseHeadersRegex: '('"));
        assert!(regex[0].contains("is not a regular expression"), "{regex:?}");
    }

    const PAGES: &str = "services: {pages: {loadBalancer: {servers: [{url: 'http://a'}]}}}";

    #[test]
    fn pages_have_a_service_that_exists() {
        let text = format!(
            "http: {{{PAGES}, middlewares: {{x: {{errors: {{status: ['404', 500-599], service: pages, \
             statusRewrites: {{'500': 404, 501-503: 502}}, query: '/{{status}}', errorRequestHeaders: []}}}}}}}}"
        );
        let loaded = load(&text);
        let Middleware::Errors(errors) = &loaded.config.middlewares["x@file"] else { panic!("no errors") };
        assert_eq!(errors.status, [(404, 404), (500, 599)]);
        assert_eq!(errors.status_rewrites, [((500, 500), 404), ((501, 503), 502)]);
        assert_eq!((&*errors.service, &*errors.query), ("pages@file", "/{status}"));
        assert_eq!(errors.error_request_headers, Some(Vec::new()));
        for (options, expected) in [
            ("status: 404, service: pagse", "errors.service: no service is called `pagse`"),
            ("status: 404, service: 'ping@internal'", "errors.service: an internal service has no pages"),
            ("status: 4xx, service: pages", "errors.status: `4xx` is not a status"),
            ("status: [], service: pages", "errors: no status is listed, so it would do nothing"),
            ("status: 404", "errors: `service` is missing"),
            (
                "status: 404, service: pages, statusRewrites: {5xx: 404}",
                "errors.statusRewrites.5xx: `5xx` is no status and no range of them",
            ),
            (
                "status: 404, service: pages, statusRewrites: {'500': 99}",
                "errors.statusRewrites.500: 99 is out of range",
            ),
        ] {
            let told = problems(&format!("http: {{{PAGES}, middlewares: {{x: {{errors: {{{options}}}}}}}}}"));
            assert_eq!(told[0].replacen("http.middlewares.x.", "", 1), expected, "{options}");
        }
    }
}
