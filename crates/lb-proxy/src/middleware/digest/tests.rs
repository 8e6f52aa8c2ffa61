use std::time::Duration;

use lb_observe::metrics::Metrics;

use super::*;
use crate::http::forwarded::Peer;

/// MD5 of `test:traefik:test`.
const HASH: &str = "a2688e031edb4be6a3797f3882655c05";

struct Setup {
    metrics: Metrics,
    now: Instant,
}

impl Setup {
    fn new() -> Self {
        Self {
            metrics: Metrics::new(lb_observe::metrics::Settings::default(), 1),
            now: tokio::time::Instant::now().into_std(),
        }
    }

    fn auth(&self, hash: &str, previous: Option<&Middleware>) -> Middleware {
        let users = BTreeMap::from([("test:traefik".to_owned(), hash.to_owned())]);
        let options = config::DigestAuth {
            users,
            realm: "traefik".to_owned(),
            header_field: Some("X-User".to_owned()),
            remove_header: true,
        };
        let (auth_server, pages) = (None, None);
        let build =
            Build { name: "auth@file", previous, metrics: &self.metrics, now: self.now, auth_server, pages };
        Middleware::DigestAuth(Box::new(DigestAuth::new(&options, &build).unwrap()))
    }
}

fn exchange(target: &str, fields: &[(&str, &str)]) -> Exchange {
    let peer = Peer::new([192, 0, 2, 1].into(), false);
    let mut x = Exchange::new(std::rc::Rc::new(peer), tokio::time::Instant::now().into_std());
    x.head.set_method("GET");
    x.head.set_target(target);
    for (name, value) in fields {
        x.head.append(name, value.as_bytes());
    }
    x
}

/// Nonce and opaque of a challenge, and whether it says that the last nonce was stale.
fn challenge(step: Step) -> (String, String, bool) {
    let Step::Respond(local) = step else { panic!("it is let in") };
    assert_eq!((local.status, &*local.body), (401, &b"401 Unauthorized\n"[..]));
    let text = &local.headers[0].1;
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let stale = if text.contains("stale=") { "stale=\"true\", " } else { "" };
    let (nonce, opaque) = (value("nonce"), value("opaque"));
    let expected = format!(
        "Digest realm=\"traefik\", nonce=\"{nonce}\", opaque=\"{opaque}\", {stale}algorithm=\"MD5\", qop=\"auth\""
    );
    assert_eq!(*text, expected);
    (nonce, opaque, !stale.is_empty())
}

/// What a client that knows `hash` answers.
fn answer(challenge: &(String, String, bool), user: &str, hash: &str, uri: &str, count: &str) -> String {
    let (nonce, opaque, _) = challenge;
    let response = md5(&[hash, nonce, count, "own", "auth", &md5(&["GET", uri])]);
    format!(
        "Digest username=\"{user}\", realm=\"traefik\", nonce=\"{nonce}\", uri=\"{uri}\", qop=auth, nc={count}, \
         cnonce=\"own\", response=\"{response}\", opaque=\"{opaque}\""
    )
}

#[test]
fn who_knows_the_password_is_let_in() {
    let setup = Setup::new();
    let auth = setup.auth(HASH, None);
    let asked = challenge(auth.on_request(&mut exchange("/x", &[])));
    let field = answer(&asked, "test", HASH, "/x", "00000001");
    let fields = [("Authorization", field.as_str()), ("X_User", "root"), ("X-User", "root")];
    let mut x = exchange("/x", &fields);
    assert!(matches!(auth.on_request(&mut x), Step::Next));
    assert_eq!(x.user.as_deref(), Some("test"));
    let left: Vec<_> = x.head.iter().collect();
    assert_eq!(left, [("X-User", &b"test"[..])]);
}

#[test]
fn nobody_else_is() {
    let setup = Setup::new();
    let auth = setup.auth(HASH, None);
    let refused = |edit: &dyn Fn(String) -> String, user: &str, hash: &str, uri: &str| {
        let asked = challenge(auth.on_request(&mut exchange("/x", &[])));
        let field = edit(answer(&asked, user, hash, uri, "00000001"));
        let mut x = exchange("/x", &[("Authorization", &field)]);
        let (.., stale) = challenge(auth.on_request(&mut x));
        assert_eq!(x.user.as_deref(), Some(user).filter(|user| !user.is_empty()));
        stale
    };
    let as_is = |field| field;
    assert!(!refused(&as_is, "test", &HASH.replace('a', "b"), "/x"));
    // Whoever there is no hash of has no empty one.
    for hash in ["", HASH] {
        assert!(!refused(&as_is, "nobody", hash, "/x"));
        assert!(!refused(&as_is, "", hash, "/x"));
    }
    assert!(!refused(&as_is, "test", HASH, "/y"));
    for (from, to) in [
        ("qop=auth", "qop=auth-int"),
        ("opaque=\"", "opaque=\"A"),
        ("nc=00000001", "nc=00000002"),
        ("nc=00000001", "nc=x"),
        ("qop=auth", "algorithm=SHA-256, qop=auth"),
        ("response=\"", "response=\"0"),
    ] {
        assert!(!refused(&|field| field.replace(from, to), "test", HASH, "/x"), "{to}");
    }
    // Another method was signed.
    let asked = challenge(auth.on_request(&mut exchange("/x", &[])));
    let mut x = exchange("/x", &[("Authorization", &answer(&asked, "test", HASH, "/x", "1"))]);
    x.head.set_method("DELETE");
    challenge(auth.on_request(&mut x));
}

#[test]
fn what_was_sent_once_counts_once() {
    let setup = Setup::new();
    let auth = setup.auth(HASH, None);
    let asked = challenge(auth.on_request(&mut exchange("/x", &[])));
    let used = |asked: &(String, String, bool), count: &str| {
        let field = answer(asked, "test", HASH, "/x", count);
        match auth.on_request(&mut exchange("/x", &[("Authorization", &field)])) {
            Step::Next => "in",
            step if challenge_is_stale(&step) => "stale",
            _ => "refused",
        }
    };
    for (count, expected) in [
        ("00000001", "in"),
        ("00000001", "refused"),
        ("00000003", "in"),
        ("00000002", "stale"),
        ("00000004", "in"),
        ("0000000A", "in"),
        ("00000001", "stale"),
    ] {
        assert_eq!(used(&asked, count), expected, "{count}");
    }
    // One that we have never made, with a right password: the client may try again by itself.
    let (nonce, opaque, _) = &asked;
    for foreign in ["AAAAAAAAAAAAAAAA", &nonce.replace(&nonce[..1], "9"), ""] {
        assert_eq!(used(&(foreign.to_owned(), opaque.clone(), false), "00000001"), "stale", "{foreign}");
    }
}

fn challenge_is_stale(step: &Step) -> bool {
    matches!(step, Step::Respond(local) if local.headers[0].1.contains("stale=\"true\""))
}

#[test]
fn a_reload_that_leaves_the_options_leaves_the_nonces() {
    let setup = Setup::new();
    let first = setup.auth(HASH, None);
    let asked = challenge(first.on_request(&mut exchange("/x", &[])));
    let used = |auth: &Middleware, count: &str| {
        let field = answer(&asked, "test", HASH, "/x", count);
        matches!(auth.on_request(&mut exchange("/x", &[("Authorization", &field)])), Step::Next)
    };
    assert!(used(&first, "00000001"));
    let second = setup.auth(HASH, Some(&first));
    assert!(!used(&second, "00000001"));
    assert!(used(&second, "00000002"));
    let other = setup.auth(&HASH.replace('a', "b"), Some(&second));
    let (_, opaque, _) = challenge(other.on_request(&mut exchange("/x", &[])));
    assert_ne!(opaque, asked.1);
}

#[test]
fn memory_is_bounded_and_forgets_nothing_that_matters() {
    let mut seen = Seen::default();
    let first = tokio::time::Instant::now().into_std();
    let mut requests = (1..).map(|n| first + Duration::from_nanos(n));
    let mut used = |nonce, count| seen.count(nonce, count, requests.next().unwrap());
    let many = MOST_IN_USE as Nonce;
    for nonce in 1..=many {
        assert_eq!(used(nonce * 2, 1), Use::First);
    }
    assert_eq!(used(many * 2 + 1, 1), Use::First);
    assert_eq!(used(2, 2), Use::Stale, "the oldest has made room");
    assert_eq!(used(1, 1), Use::Stale, "and what is as old");
    assert_eq!(used(3, 1), Use::First, "what is younger may be used for the first time");
    assert_eq!(used(3, 1), Use::Stale, "which makes it the oldest");
    assert_eq!(seen.counts.len(), MOST_IN_USE);
}

#[test]
fn a_retry_shows_the_same_request_again() {
    let setup = Setup::new();
    let auth = setup.auth(HASH, None);
    let asked = challenge(auth.on_request(&mut exchange("/x", &[])));
    let mut x = exchange("/x", &[("Authorization", &answer(&asked, "test", HASH, "/x", "1"))]);
    let saved = x.head.clone();
    for _ in 0..2 {
        x.head.clone_from(&saved);
        assert!(matches!(auth.on_request(&mut x), Step::Next));
    }
}

#[test]
fn the_target_has_to_be_the_signed_one() {
    for (target, uri, right) in [
        ("/x?a=b", "/x?a=b", true),
        ("/x?a=b", "/x", true),
        ("/x?a=b", "/x?a=c", false),
        ("/x", "/x?a=b", false),
        ("/x/y", "/x", false),
        ("/a-b/c?d&e", "/%61%2db//c?d;e", true),
        ("/x", "http://a.test/x", true),
        ("/", "http://a.test", true),
        ("/x", "", false),
        ("/x", "*", false),
    ] {
        assert_eq!(is_asked_for(uri, &exchange(target, &[])), right, "{target} {uri}");
    }
}

#[test]
fn nonces_are_ordered_and_signed() {
    let setup = Setup::new();
    let Middleware::DigestAuth(auth) = setup.auth(HASH, None) else { unreachable!() };
    let nonce = |seconds, random| auth.state.nonce(setup.now + Duration::from_secs(seconds), random);
    let verified = |nonce: &str| auth.state.verified(nonce);
    assert!(verified(&nonce(1, u64::MAX)).unwrap() < verified(&nonce(2, 0)).unwrap());
    let forged = nonce(1, 0).replacen('A', "B", 1);
    assert_eq!(verified(&forged), None);
    let Middleware::DigestAuth(other) = setup.auth(HASH, None) else { unreachable!() };
    assert_eq!(other.state.verified(&nonce(1, 0)), None);
}
