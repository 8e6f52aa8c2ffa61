//! `digestAuth`: RFC 7616 with MD5 and `qop=auth`, which is what Traefik and `htdigest` have.
//!
//! A nonce carries its number, signed with a key of this middleware, so that those handed out need no memory. Only what
//! somebody has used who knows a password is remembered: how far the client has counted on it. When those become too
//! many the oldest goes, and with it the right to use any as old, so that nothing that was sent counts twice.

mod params;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_config::dynamic as config;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use self::params::Params;
use super::{Build, Middleware, Step, auth, kept};
use crate::exchange::Exchange;
use crate::http::normalise::{Policy, normalise_target, split_target};

/// Nonces in use that are remembered, of one middleware of one router. Chosen: as many as Traefik does.
const MOST_IN_USE: usize = 1000;

const TAG_BYTES: usize = 12;

pub(crate) struct DigestAuth {
    options: config::DigestAuth,
    state: Arc<State>,
}

/// What stays while the options do.
struct State {
    key: hmac::Key,
    opaque: String,
    began: Instant,
    /// Stands in for the hash of who is not a user.
    dummy: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Nonces in use, with how far their clients have counted, and when the request came that did so last.
    counts: BTreeMap<Nonce, (u64, Instant)>,
    /// Those up to this one are worth nothing, unless they are in use.
    ended: Option<Nonce>,
}

/// Nanoseconds since the beginning, then a random number: in the order in which they were made.
type Nonce = u128;

/// How the use of a nonce is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    First,
    Replayed,
    /// The client may try again with another one, without asking its user.
    Stale,
}

impl DigestAuth {
    pub(crate) fn new(options: &config::DigestAuth, build: &Build<'_>) -> Result<Self, String> {
        let previous = match build.previous {
            Some(Middleware::DigestAuth(before)) => Some((&before.state, &before.options)),
            _ => None,
        };
        let (mut secret, mut random) = ([0; 32], [0; 28]);
        let filled = aws_lc_rs::rand::fill(&mut secret).and_then(|()| aws_lc_rs::rand::fill(&mut random));
        filled.map_err(|_| "the system has no randomness".to_owned())?;
        let state = kept(previous, options, || State {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            opaque: STANDARD.encode(&random[..12]),
            began: build.now,
            dummy: hex(&random[12..]),
            seen: Mutex::default(),
        });
        Ok(Self { options: options.clone(), state })
    }

    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        let params = x.head.get("authorization").and_then(Params::read);
        let Some(params) = params else { return self.refuse(x.started, false) };
        let user = params.get("username");
        if user.is_empty() || user.chars().any(char::is_control) {
            return self.refuse(x.started, false);
        }
        x.user = Some(user.to_owned());
        let options = &self.options;
        match self.judge(&params, x) {
            Some(Use::First) => auth::let_in(x, user, options.header_field.as_deref(), options.remove_header),
            Some(Use::Stale) => self.refuse(x.started, true),
            Some(Use::Replayed) | None => self.refuse(x.started, false),
        }
    }

    /// `None` where no right password stands behind it.
    fn judge(&self, params: &Params, x: &Exchange) -> Option<Use> {
        let algorithm = params.find("algorithm").unwrap_or("MD5");
        let fits =
            params.get("opaque") == self.state.opaque && algorithm == "MD5" && params.get("qop") == "auth";
        if !fits || !is_asked_for(params.get("uri"), x) {
            return None;
        }
        let known = self.options.users.get(&format!("{}:{}", params.get("username"), self.options.realm));
        let secret = known.unwrap_or(&self.state.dummy);
        let asked = md5(&[x.head.method(), params.get("uri")]);
        let [nonce, count, own] = ["nonce", "nc", "cnonce"].map(|name| params.get(name));
        let expected = md5(&[secret, nonce, count, own, "auth", &asked]);
        let right = bool::from(expected.as_bytes().ct_eq(params.get("response").as_bytes()));
        if !right || known.is_none() {
            return None;
        }
        let count = u64::from_str_radix(count, 16).ok()?;
        Some(match self.state.verified(nonce) {
            Some(nonce) => self.state.seen.lock().count(nonce, count, x.started),
            None => Use::Stale,
        })
    }

    fn refuse(&self, now: Instant, stale: bool) -> Step {
        let nonce = self.state.nonce(now, fastrand::u64(..));
        let challenge = format!(
            "Digest realm=\"{}\", nonce=\"{nonce}\", opaque=\"{}\", {}algorithm=\"MD5\", qop=\"auth\"",
            self.options.realm,
            self.state.opaque,
            if stale { "stale=\"true\", " } else { "" },
        );
        auth::refuse(challenge)
    }
}

impl State {
    /// A new nonce, as it is sent.
    fn nonce(&self, now: Instant, random: u64) -> String {
        let passed = now.saturating_duration_since(self.began).as_nanos() as u64; // five centuries fit
        let nonce = (Nonce::from(passed) << 64 | Nonce::from(random)).to_be_bytes();
        let tag = hmac::sign(&self.key, &nonce);
        STANDARD.encode([&nonce[..], &tag.as_ref()[..TAG_BYTES]].concat())
    }

    /// The nonce, if it is one of ours.
    fn verified(&self, nonce: &str) -> Option<Nonce> {
        let bytes = STANDARD.decode(nonce).ok()?;
        let (nonce, tag) = bytes.split_first_chunk()?;
        let expected = hmac::sign(&self.key, nonce);
        let ours = bool::from(expected.as_ref()[..TAG_BYTES].ct_eq(tag));
        ours.then_some(Nonce::from_be_bytes(*nonce))
    }
}

impl Seen {
    /// Takes note of a use by the request of that time. The client has to count upwards.
    fn count(&mut self, nonce: Nonce, count: u64, request: Instant) -> Use {
        match self.counts.get_mut(&nonce) {
            // A `retry` before this middleware shows it the same request again.
            Some(last) if *last == (count, request) => {}
            Some((before, _)) if count == *before => return Use::Replayed,
            // Out of order, as requests under way at the same time may be.
            Some((before, _)) if count < *before => return Use::Stale,
            Some(last) => *last = (count, request),
            None if self.ended.is_some_and(|ended| nonce <= ended) => return Use::Stale,
            None => {
                self.counts.insert(nonce, (count, request));
                if self.counts.len() > MOST_IN_USE {
                    self.ended = self.counts.pop_first().map(|(oldest, _)| oldest).or(self.ended);
                }
            }
        }
        Use::First
    }
}

/// Whether the client has signed the target of its request. Clients that leave the query out are known.
fn is_asked_for(uri: &str, x: &Exchange) -> bool {
    const POLICY: Policy = Policy { sanitize_path: true, encode_query_semicolons: false };
    let target = x.head.target();
    if uri == target {
        return true;
    }
    // RFC 7616 section 3.4: as in the request line, which may have been a whole URL.
    let (_, rest) = uri.split_once("://").unwrap_or(("", uri));
    let path = if rest.len() < uri.len() { rest.find('/').map_or("/", |at| &rest[at..]) } else { uri };
    // Both in one spelling: ours may have been changed from what the client wrote.
    let normal = |target: &str| {
        let changed = normalise_target(target.as_bytes(), &POLICY).ok()?;
        Some(changed.unwrap_or_else(|| target.to_owned()))
    };
    let (Some(signed), Some(asked)) = (normal(path), normal(target)) else { return false };
    signed == asked || (!signed.contains('?') && signed == split_target(&asked).0)
}

/// As hexadecimal digits, of the parts with `:` between them.
fn md5(parts: &[&str]) -> String {
    let mut digest = Md5::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            digest.update(":");
        }
        digest.update(part);
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        text
    })
}

#[cfg(test)]
mod tests;
