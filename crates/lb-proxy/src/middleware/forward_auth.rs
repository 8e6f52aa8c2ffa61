//! `forwardAuth`: what an auth server is asked, and what its answer means for the request. Who carries it there is
//! [`authorize`](crate::http::authorize).

mod location;
mod question;

use std::sync::Arc;
use std::time::Duration;

use lb_config::dynamic as config;
use lb_core::route::go_regex;
use lb_http1::Head;
use lb_observe::metrics::{Kind, LabelId, Metrics};
use regex::Regex;

use super::Build;
use crate::exchange::Exchange;
use crate::http::forwarded::reads_as;
use crate::report::Report;
use crate::snapshot::AuthServer;

pub(crate) struct ForwardAuth {
    pub(crate) options: config::ForwardAuth,
    pub(crate) server: Arc<AuthServer>,
    /// Names of `authResponseHeaders` in lower case.
    granted: Vec<String>,
    granted_like: Option<Regex>,
    name: String,
    pub(super) label: LabelId,
    metrics: Metrics,
    failed: Report,
}

/// A cookie on its way from an auth server to the client, and the middleware that wants it there.
pub(crate) struct AuthCookie {
    of: LabelId,
    line: Box<[u8]>,
}

impl ForwardAuth {
    /// # Errors
    /// Nobody was compiled who could be asked.
    pub(crate) fn new(options: &config::ForwardAuth, build: &Build<'_>) -> Result<Self, String> {
        let server = build.auth_server.clone().ok_or("the auth server is missing")?;
        let regex = options.auth_response_headers_regex.as_deref().map(go_regex).transpose()?;
        let mut granted: Vec<String> = Vec::new();
        for name in options.auth_response_headers.iter().map(|name| name.to_ascii_lowercase()) {
            if !is_never_granted(name.as_bytes()) && !granted.contains(&name) {
                granted.push(name);
            }
        }
        Ok(Self {
            granted,
            granted_like: regex,
            name: build.name.to_owned(),
            label: build.metrics.label(Kind::Middleware, build.name),
            metrics: build.metrics.clone(),
            failed: Report::default(),
            options: options.clone(),
            server,
        })
    }

    /// A 2xx: the request may go on, with what the auth server says about it.
    pub(crate) fn grant(&self, x: &mut Exchange, answer: &Head) {
        // Nor may the client say it in a spelling that the server takes for the same field.
        let imitates = |name: &[u8]| self.granted.iter().any(|granted| reads_as(name, granted.as_bytes()));
        let is_like = |name: &str| self.granted_like.as_ref().is_some_and(|like| like.is_match(name));
        x.head.retain(|name, _| {
            let imitated = imitates(name.as_bytes())
                || (self.granted_like.is_some() && (is_like(&canonical(name)) || is_like(&unfolded(name))));
            !imitated || is_never_granted(name.as_bytes())
        });
        for (name, value) in answer.iter() {
            let listed = || self.granted.iter().any(|granted| granted.eq_ignore_ascii_case(name));
            let alike = || {
                is_like(&canonical(name)) && !is_never_granted(name.as_bytes()) && !is_of_the_connection(name)
            };
            if listed() || alike() {
                x.head.append(name, value);
            }
        }
        if let Some(field) = &self.options.header_field
            && let Some(user) = answer.get_str(&field.to_ascii_lowercase())
        {
            x.user = Some(user.to_owned());
        }
        let wanted = |line: &[u8]| {
            self.options.add_auth_cookies_to_response.iter().any(|name| name.as_bytes() == cookie_name(line))
        };
        let lines = answer.get_all("set-cookie").filter(|line| wanted(line));
        x.auth_cookies.extend(lines.map(|line| AuthCookie { of: self.label, line: line.into() }));
    }

    /// Puts the cookies of the auth server on the answer, in place of the service's own of that name.
    pub(super) fn on_response(&self, x: &mut Exchange) {
        let Exchange { auth_cookies, response, .. } = x;
        if auth_cookies.is_empty() {
            return;
        }
        let own: Vec<AuthCookie> = auth_cookies.extract_if(.., |cookie| cookie.of == self.label).collect();
        response.retain(|name, line| {
            let replaced = || own.iter().any(|cookie| cookie_name(&cookie.line) == cookie_name(line));
            !(name.eq_ignore_ascii_case("set-cookie") && replaced())
        });
        own.iter().for_each(|cookie| response.append("Set-Cookie", &cookie.line));
    }

    /// Anything but a 2xx, with a body of so many bytes, is the answer that the client gets: makes its head of `answer`.
    /// False: it has no body.
    pub(crate) fn deny(&self, x: &mut Exchange, answer: &mut Head, body: usize) -> bool {
        let signin = self.options.auth_signin_url.as_deref().filter(|_| answer.status() == 401);
        if let Some(signin) = signin {
            x.response.clear();
            x.response.set_status(302);
            x.response.append("Location", signin.as_bytes());
            x.response.append("Content-Length", b"0");
            return false;
        }
        lb_http1::remove_hop_by_hop(answer);
        answer.remove("trailer");
        if !self.options.preserve_location_header
            && let Some(written) = answer.get_str("location").filter(|written| !written.is_empty())
        {
            let endpoint = &self.server.endpoint;
            let base = (endpoint.scheme, endpoint.authority.as_str(), self.options.target.as_str());
            let absolute = location::absolute(written, base);
            answer.set("Location", absolute.as_bytes());
        }
        let bodyless = matches!(answer.status(), 204 | 304);
        if bodyless {
            answer.remove("content-length");
        } else if !(self.options.preserve_request_method && x.head.method() == "HEAD") {
            answer.set("Content-Length", body.to_string().as_bytes());
        }
        std::mem::swap(&mut x.response, answer);
        !bodyless
    }

    pub(crate) fn count(&self, outcome: &'static str, took: Option<Duration>) {
        self.metrics.forward_auth(self.label, outcome, took);
    }

    /// No usable answer: nobody gets through.
    pub(crate) fn tell_failure(&self, reason: &str, now: std::time::Instant) {
        if let Some(requests) = self.failed.count(now) {
            tracing::error!(middlewareName = %self.name, url = %self.options.address, requests, reason,
                "the auth server gives no usable answer: requests are answered 500");
        }
    }
}

/// What says where a request goes and how long it is, and what forwarding itself says to the server.
fn is_never_granted(name: &[u8]) -> bool {
    const NAMES: [&str; 8] =
        ["connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];
    NAMES.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
}

/// Of an answer's fields, those that concern the connection to the auth server.
fn is_of_the_connection(name: &str) -> bool {
    ["keep-alive", "proxy-authenticate", "proxy-connection"].iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// As Go's `http.Header` spells it, and so as regular expressions for Traefik expect it.
fn canonical(name: &str) -> String {
    let mut start = true;
    let spell = |c: char| {
        let spelt = if start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        start = c == '-';
        spelt
    };
    name.chars().map(spell).collect()
}

/// The name for which a server may take this one; see [`reads_as`].
fn unfolded(name: &str) -> String {
    canonical(&name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

fn cookie_name(line: &[u8]) -> &[u8] {
    let pair = line.split(|byte| *byte == b';').next().unwrap_or_default();
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::rc::Rc;
    use std::time::Instant;

    use super::*;
    use crate::http::forwarded::Peer;
    use crate::middleware::Middleware;

    pub(crate) fn auth(options: &str) -> ForwardAuth {
        let text = format!(
            "http: {{middlewares: {{a: {{forwardAuth: {{address: 'http://auth:9/v?x=1', {options}}}}}}}}}"
        );
        let loaded =
            lb_config::parse_dynamic("d.yml", &text, "file", &lb_config::Context::default()).unwrap();
        let config = &loaded.config.middlewares["a@file"];
        let config::Middleware::ForwardAuth(options) = config else { panic!("{:?}", loaded.problems) };
        let metrics = Metrics::new(lb_observe::metrics::Settings::default(), 1);
        let label = metrics.label(Kind::Middleware, "a@file");
        let server = Arc::new(AuthServer::new(options, label, None, now()));
        let auth_server = Some(server);
        let build =
            Build { name: "a@file", previous: None, metrics: &metrics, now: now(), auth_server, pages: None };
        match Middleware::compile(config, &build) {
            Ok(Middleware::ForwardAuth(auth)) => *auth,
            other => panic!("{:?}", other.err()),
        }
    }

    pub(crate) fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        fields.iter().for_each(|(name, value)| head.append(name, value.as_bytes()));
        head
    }

    pub(crate) fn texts(head: &Head) -> Vec<String> {
        head.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    pub(crate) fn exchange(fields: &[(&str, &str)]) -> Exchange {
        let mut x = Exchange::new(Rc::new(Peer::new([192, 0, 2, 7].into(), false)), now());
        x.head = head(fields);
        x.head.set_method("POST");
        x.head.set_target("/a?b");
        x
    }

    #[test]
    fn nobody_imitates_what_the_auth_server_says() {
        let sent = [
            ("Host", "h"),
            ("X-User", "evil"),
            ("x_user", "evil"),
            ("X.Role", "evil"),
            ("Content-Length", "3"),
        ];
        let answer = head(&[
            ("x-user", "alice"),
            ("X-User", "bob"),
            ("Content-Length", "9"),
            ("Y", "1"),
            ("Connection", "x"),
        ]);
        for (options, expected) in [
            (
                "authResponseHeaders: [X-User, x-role, x-user]",
                &["Host: h", "Content-Length: 3", "x-user: alice", "X-User: bob"][..],
            ),
            (
                "authResponseHeadersRegex: '^X-'",
                &["Host: h", "Content-Length: 3", "x-user: alice", "X-User: bob"],
            ),
            (
                "authResponseHeadersRegex: '.*'",
                &["Host: h", "Content-Length: 3", "x-user: alice", "X-User: bob", "Y: 1"],
            ),
            (
                "authResponseHeaders: [X-Role]",
                &["Host: h", "X-User: evil", "x_user: evil", "Content-Length: 3"],
            ),
        ] {
            let mut x = exchange(&sent);
            auth(options).grant(&mut x, &answer);
            assert_eq!(texts(&x.head), expected, "{options}");
        }
    }

    #[test]
    fn cookies_of_the_auth_server_replace_those_of_the_service() {
        let auth = auth("addAuthCookiesToResponse: [sess], headerField: x-user");
        let mut x = exchange(&[]);
        auth.grant(
            &mut x,
            &head(&[("Set-Cookie", "sess=new; Path=/"), ("Set-Cookie", "other=1"), ("X-User", "al")]),
        );
        x.response = head(&[("Set-Cookie", "sess=old"), ("Set-Cookie", "keep=1")]);
        auth.on_response(&mut x);
        assert_eq!(texts(&x.response), ["Set-Cookie: keep=1", "Set-Cookie: sess=new; Path=/"]);
        assert_eq!(x.user.as_deref(), Some("al"));
        assert!(x.auth_cookies.is_empty());
    }

    #[test]
    fn a_refusal_is_passed_on_without_what_concerns_one_connection() {
        let refused = |options: &str, status, fields: &[(&str, &str)]| {
            let (mut x, mut answer) = (exchange(&[]), head(fields));
            answer.set_status(status);
            let body = auth(options).deny(&mut x, &mut answer, 2);
            (x.response.status(), texts(&x.response), body)
        };
        let fields = [
            ("WWW-Authenticate", "Basic"),
            ("Connection", "x"),
            ("X", "1"),
            ("Transfer-Encoding", "chunked"),
        ];
        let lines = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<Vec<_>>();
        assert_eq!(
            refused("", 401, &fields),
            (401, lines(&["WWW-Authenticate: Basic", "Content-Length: 2"]), true)
        );
        assert_eq!(
            refused("authSigninURL: 'https://in/'", 401, &fields),
            (302, lines(&["Location: https://in/", "Content-Length: 0"]), false)
        );
        assert_eq!(
            refused("authSigninURL: 'https://in/'", 403, &[]),
            (403, lines(&["Content-Length: 2"]), true)
        );
        assert_eq!(refused("", 304, &[("Content-Length", "9")]), (304, lines(&[]), false));
        let location = [("Location", "/in")];
        let expected = lines(&["Location: http://auth:9/in", "Content-Length: 2"]);
        assert_eq!(refused("", 302, &location), (302, expected, true));
        let expected = lines(&["Location: /in", "Content-Length: 2"]);
        assert_eq!(refused("preserveLocationHeader: true", 302, &location), (302, expected, true));
    }
}
