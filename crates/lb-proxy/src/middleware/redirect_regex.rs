//! `redirectRegex`: to wherever the address that was asked for becomes by search and replace.

use lb_config::dynamic as config;
use lb_core::rewrite::TooMany;

use super::redirect::{asked_for, redirection};
use super::{Step, go_url};
use crate::exchange::Exchange;
use crate::http::local::Local;

/// The scheme is that of the connection, whatever `X-Forwarded-Proto` says, and the host stands as the client sent it.
pub(super) fn on_request(redirect: &config::RedirectRegex, x: &Exchange) -> Step {
    let scheme = if x.peer.secure { "https" } else { "http" };
    let host = x.head.get_str("host").unwrap_or_default();
    let address = format!("{scheme}://{host}{}", asked_for(x));
    let replaced = match redirect.rewrite.apply(&address) {
        Ok(Some(replaced)) => replaced,
        Ok(None) => return Step::Next,
        // RFC 9110 section 15.5.15.
        Err(TooMany) => return Step::Respond(Local::status_text(414)),
    };
    match go_url::normalised(&replaced) {
        // As Traefik answers.
        Err(_) => Step::Respond(Local::status_text(502)),
        Ok(_) if replaced == address => Step::Next,
        Ok(location) => redirection(x, redirect.permanent, location),
    }
}

#[cfg(test)]
mod tests {
    use lb_core::rewrite::Rewrite;

    use super::*;
    use crate::http::forwarded::Peer;

    fn answer(regex: &str, replacement: &str, permanent: bool, method: &str, target: &str) -> Step {
        let rewrite = Rewrite::new(regex, replacement).unwrap();
        let peer = Peer::new([192, 0, 2, 1].into(), false);
        let mut x = Exchange::new(std::rc::Rc::new(peer), tokio::time::Instant::now().into_std());
        x.head.set_method(method);
        x.head.set_target(target);
        x.head.append("Host", b"A.test:8080");
        x.head.append("X-Forwarded-Proto", b"https");
        on_request(&config::RedirectRegex { rewrite, permanent }, &x)
    }

    #[test]
    fn the_whole_address_is_rewritten() {
        let (regex, replacement) = ("^http://(.*)/old/(.*)$", "https://${1}/new/$2");
        for (permanent, method, status) in
            [(false, "GET", 302), (false, "HEAD", 307), (true, "GET", 301), (true, "PUT", 308)]
        {
            let step = answer(regex, replacement, permanent, method, "/old/x?a=b");
            let Step::Respond(local) = step else { panic!("{method}") };
            assert_eq!((local.status, &*local.headers[0].1), (status, "https://A.test:8080/new/x?a=b"));
        }
        assert!(matches!(answer(regex, replacement, false, "GET", "/new/x"), Step::Next));
        assert!(matches!(answer("^(.*)$", "$1", false, "GET", "/old/x"), Step::Next), "it is there already");
        let step = answer(regex, "http://[", false, "GET", "/old/x");
        assert!(matches!(step, Step::Respond(local) if local.status == 502));
    }
}
