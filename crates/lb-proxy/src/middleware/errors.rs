//! `errors`: which answers get another page, and how it is asked for. Who gets it is [`pages`](crate::http::pages).

use std::fmt::Write;

use lb_config::dynamic as config;
use lb_http1::Head;
use lb_observe::metrics::{Kind, LabelId, Metrics};

use super::Build;
use crate::composite::Node;

/// Fields about the request's own body, and those that ask for less than a whole page: the page replaces something else.
const NOT_OF_THE_PAGE: [&str; 9] = [
    "content-length",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "trailer",
];

pub(crate) struct Errors {
    options: config::Errors,
    pub(crate) pages: Node,
    pub(super) label: LabelId,
    metrics: Metrics,
}

impl Errors {
    /// # Errors
    /// There is no such service.
    pub(crate) fn new(options: &config::Errors, build: &Build<'_>) -> Result<Self, String> {
        let pages =
            build.pages.clone().ok_or_else(|| format!("the service {:?} does not exist", options.service))?;
        let label = build.metrics.label(Kind::Middleware, build.name);
        Ok(Self { options: options.clone(), pages, label, metrics: build.metrics.clone() })
    }

    /// The status that the client gets if this answer is one to be replaced. Interim answers and a switch of protocols
    /// are none, nor is gRPC, which has its own way to say what went wrong.
    pub(crate) fn replaces(&self, answer: &Head) -> Option<u16> {
        replaces(&self.options, answer)
    }

    /// The request for the page, in place of `asked`, which was answered with `original`.
    pub(crate) fn request(&self, asked: &Head, secure: bool, status: u16, original: u16) -> Head {
        request(&self.options, asked, secure, status, original)
    }

    pub(crate) fn count(&self, outcome: &'static str) {
        self.metrics.error_page(self.label, outcome);
    }
}

fn replaces(options: &config::Errors, answer: &Head) -> Option<u16> {
    let status = answer.status();
    let within = |(low, high): &(u16, u16)| (*low..=*high).contains(&status);
    let is_grpc = || answer.get("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
    if status < 200 || !options.status.iter().any(within) || is_grpc() {
        return None;
    }
    let rewritten = options.status_rewrites.iter().find(|(range, _)| within(range));
    Some(rewritten.map_or(status, |(_, to)| *to))
}

fn request(options: &config::Errors, asked: &Head, secure: bool, status: u16, original: u16) -> Head {
    let mut page = Head::new();
    page.set_method("GET");
    let query = options.query.strip_prefix('/').unwrap_or(&options.query);
    let target =
        query.replace("{status}", &status.to_string()).replace("{originalStatus}", &original.to_string());
    let url = if target.contains("{url}") { escaped(&url(asked, secure)) } else { String::new() };
    page.set_target(&format!("/{}", target.replace("{url}", &url)));
    if let Some(host) = asked.get("host") {
        page.append("Host", host);
    }
    let chosen = |name: &str| match &options.error_request_headers {
        Some(listed) => listed.iter().any(|known| known.eq_ignore_ascii_case(name)),
        None => true,
    };
    for (name, value) in asked.iter() {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if chosen(name) && !is("host") && !NOT_OF_THE_PAGE.iter().any(|other| is(other)) {
            page.append(name, value);
        }
    }
    lb_http1::remove_hop_by_hop(&mut page);
    page
}

/// What the client has asked for.
fn url(asked: &Head, secure: bool) -> String {
    let scheme = match asked.get("x-forwarded-proto") {
        Some(b"https" | b"wss") => "https",
        None if secure => "https",
        _ => "http",
    };
    format!("{scheme}://{}{}", asked.get_str("host").unwrap_or_default(), asked.target())
}

/// As Go's `url.QueryEscape`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            // Into a String it does not fail.
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::forward_auth::tests::{head, texts};

    fn errors(options: &str) -> config::Errors {
        let text = format!(
            "http: {{services: {{p: {{loadBalancer: {{servers: []}}}}}}, \
             middlewares: {{e: {{errors: {{service: p, {options}}}}}}}}}"
        );
        let loaded =
            lb_config::parse_dynamic("d.yml", &text, "file", &lb_config::Context::default()).unwrap();
        let config::Middleware::Errors(options) = &loaded.config.middlewares["e@file"] else {
            panic!("{:?}", loaded.problems)
        };
        options.clone()
    }

    #[test]
    fn listed_statuses_are_replaced_and_perhaps_rewritten() {
        let errors =
            errors("status: ['100-199', '404', 500-599], statusRewrites: {500-502: 418, '404': 410}");
        let replaced = |status, kind| {
            let mut answer = head(&[("Content-Type", kind)]);
            answer.set_status(status);
            replaces(&errors, &answer)
        };
        for (status, expected) in
            [(200, None), (404, Some(410)), (502, Some(418)), (503, Some(503)), (101, None), (103, None)]
        {
            assert_eq!(replaced(status, "text/html"), expected, "{status}");
        }
        assert_eq!(replaced(503, "application/grpc"), None);
    }

    #[test]
    fn a_page_is_asked_for_in_the_words_of_the_request() {
        let mut asked = head(&[
            ("Host", "a.test"),
            ("Cookie", "a=b"),
            ("Content-Length", "3"),
            ("Range", "bytes=0-1"),
            ("If-None-Match", "x"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("X-A", "1"),
        ]);
        asked.set_method("POST");
        asked.set_target("/x%20y?a=b&c");
        let request = |options: &str| {
            let page = super::request(&errors(&format!("status: 404, {options}")), &asked, true, 410, 404);
            (format!("{} {}", page.method(), page.target()), texts(&page))
        };
        let (line, fields) = request("query: '/{status}?o={originalStatus}&u={url}'");
        assert_eq!(line, "GET /410?o=404&u=https%3A%2F%2Fa.test%2Fx%2520y%3Fa%3Db%26c");
        assert_eq!(fields, ["Host: a.test", "Cookie: a=b", "X-A: 1"]);
        assert_eq!(request("errorRequestHeaders: [x-a]").1, ["Host: a.test", "X-A: 1"]);
        assert_eq!(request("errorRequestHeaders: []"), ("GET /".to_owned(), vec!["Host: a.test".to_owned()]));
        assert_eq!(request("query: '{status}.html'").0, "GET /410.html");
    }
}
