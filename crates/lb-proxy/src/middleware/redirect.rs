//! `redirectScheme`: the same place under another scheme.

use std::borrow::Cow;

use lb_config::dynamic as config;

use super::Step;
use crate::exchange::Exchange;
use crate::http::local::Local;
use crate::http::normalise::split_target;

pub(crate) struct RedirectScheme {
    scheme: String,
    /// With the colon; empty where the scheme implies it.
    port: String,
    permanent: bool,
}

impl RedirectScheme {
    pub(crate) fn new(options: &config::RedirectScheme) -> Self {
        let port = match (options.scheme.as_str(), options.port.as_deref()) {
            (_, None | Some("")) | ("http", Some("80")) | ("https", Some("443")) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        Self { scheme: options.scheme.clone(), port, permanent: options.permanent }
    }

    pub(crate) fn on_request(&self, x: &Exchange) -> Step {
        let authority = x.head.get_str("host").unwrap_or_default();
        let host = without_port(authority);
        let current = current_scheme(x);
        let implied = match &authority[host.len()..] {
            ":80" => current == "http",
            ":443" => current == "https",
            _ => false,
        };
        let target = asked_for(x);
        let location = format!("{}://{host}{}{target}", self.scheme, self.port);
        let authority = if implied { host } else { authority };
        if location == format!("{current}://{authority}{target}") {
            return Step::Next;
        }
        redirection(x, self.permanent, location)
    }
}

/// The path and query to give back to the client: the query as it came.
pub(super) fn asked_for(x: &Exchange) -> Cow<'_, str> {
    let target = x.head.target();
    // A prefix may have been stripped down to nothing, which leaves as `/`.
    let slash = if matches!(target.as_bytes(), [] | [b'?', ..]) { "/" } else { "" };
    match &x.raw_query {
        Some(query) => {
            let (path, _) = split_target(target);
            Cow::Owned(format!("{slash}{path}?{query}"))
        }
        None if slash.is_empty() => Cow::Borrowed(target),
        None => Cow::Owned(format!("{slash}{target}")),
    }
}

pub(super) fn redirection(x: &Exchange, permanent: bool, location: String) -> Step {
    let status = match (permanent, x.head.method()) {
        (false, "GET") => 302,
        (false, _) => 307,
        (true, "GET") => 301,
        (true, _) => 308,
    };
    Step::Respond(Local::status_text(status).with("Location", location))
}

/// What the client used, as far as those before us tell.
fn current_scheme(x: &Exchange) -> &'static str {
    let says = |names: [&[u8]; 2]| {
        x.head
            .get("x-forwarded-proto")
            .is_some_and(|proto| names.iter().any(|name| proto.eq_ignore_ascii_case(name)))
    };
    match (says([b"https", b"wss"]), says([b"http", b"ws"])) {
        (true, _) => "https",
        (_, true) => "http",
        _ if x.peer.secure => "https",
        _ => "http",
    }
}

/// The host without its port, IPv6 brackets kept.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            if host.starts_with('[') && !host.ends_with(']') { authority } else { host }
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_already_is_not_redirected() {
        let rows = [
            ("a.test", true, "", false),
            ("a.test:443", true, "", false),
            ("a.test:8443", true, "", true),
            ("a.test", false, "", true),
            ("a.test:443", false, "", true),
            ("a.test", false, "HTTPS", false),
            ("a.test", true, "ws", true),
        ];
        let redirect = RedirectScheme { scheme: "https".into(), port: String::new(), permanent: false };
        for (host, secure, proto, redirected) in rows {
            let peer = crate::http::forwarded::Peer::new([192, 0, 2, 1].into(), secure);
            let mut x = Exchange::new(std::rc::Rc::new(peer), tokio::time::Instant::now().into_std());
            x.head.set_method("GET");
            x.head.set_target("/x?a&b");
            x.raw_query = Some("a;b".to_owned());
            x.head.append("Host", host.as_bytes());
            x.head.append("X-Forwarded-Proto", proto.as_bytes());
            let step = redirect.on_request(&x);
            match step {
                Step::Respond(local) if redirected => {
                    assert_eq!(local.headers[0].1, "https://a.test/x?a;b", "{host}");
                }
                Step::Next => assert!(!redirected, "{host} {secure} {proto}"),
                _ => panic!("{host} {secure} {proto}"),
            }
        }
    }

    #[test]
    fn a_path_stripped_to_nothing_is_a_slash() {
        let redirect = RedirectScheme { scheme: "https".into(), port: String::new(), permanent: false };
        for (target, location) in [("/x", "https://a.test/"), ("/x?a=b", "https://a.test/?a=b")] {
            let peer = crate::http::forwarded::Peer::new([192, 0, 2, 1].into(), false);
            let mut x = Exchange::new(std::rc::Rc::new(peer), tokio::time::Instant::now().into_std());
            x.head.set_method("GET");
            x.head.set_target(target);
            x.head.strip_target("/x".len());
            x.head.append("Host", b"a.test");
            let Step::Respond(local) = redirect.on_request(&x) else { panic!("{target}") };
            assert_eq!(local.headers[0].1, location);
        }
    }

    #[test]
    fn the_port_is_dropped_and_brackets_stay() {
        assert_eq!(without_port("a.test:8080"), "a.test");
        assert_eq!(without_port("a.test"), "a.test");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
