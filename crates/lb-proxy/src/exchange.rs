//! One request and its answer, as everything on the way sees them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::encoding::Encoding;
use lb_core::in_flight::Permit;
use lb_http1::Head;
use smallvec::SmallVec;

use crate::composite::Composed;
use crate::http::encode::Encode;
use crate::http::forwarded::Peer;
use crate::http::traced::Traced;
use crate::middleware::{AuthCookie, NamedBreaker};

/// Heads larger than this give their memory back. Chosen.
const KEEP_HEAD_BYTES: usize = 16 * 1024;

/// Pooled by the worker: its heads keep their buffers from one request to the next.
pub(crate) struct Exchange {
    /// The request: as received, then as the middlewares leave it.
    pub(crate) head: Head,
    /// The answer on its way to the client.
    pub(crate) response: Head,
    pub(crate) peer: Rc<Peer>,
    /// When the head was complete.
    pub(crate) started: Instant,
    /// The user basicAuth saw, for the access log, whether let in or not.
    pub(crate) user: Option<String>,
    /// Held until the exchange ends.
    pub(crate) permits: SmallVec<[Permit; 1]>,
    /// Breakers on the way, with the status that passed each; told when the exchange ends.
    pub(crate) breakers: SmallVec<[(Arc<NamedBreaker>, u16); 1]>,
    /// What auth servers want the client to keep.
    pub(crate) auth_cookies: Vec<AuthCookie>,
    /// The client's target, host and `X-Forwarded-For`, kept for the access log because middlewares rewrite the head.
    pub(crate) original_target: String,
    pub(crate) original_host: String,
    pub(crate) original_forwarded_for: String,
    /// The query as it came, where normalising changed its `;`: a redirect gives it back to the client.
    pub(crate) raw_query: Option<String>,
    /// What the host is an alias of, where rules are to see that.
    pub(crate) alias: Option<Arc<str>>,
    /// The request as middlewares left it, for the access log where that has header fields: servers get others.
    pub(crate) logged: Option<Box<Head>>,
    /// The client's `Origin`, for the CORS fields of the answer.
    pub(crate) origin: String,
    /// Servers asked so far.
    pub(crate) tries: u32,
    /// Servers asked in vain, by index: another try goes to others while there are any.
    pub(crate) tried: SmallVec<[usize; 4]>,
    /// The beginning of the body, which a try that failed has taken from the client.
    pub(crate) kept: Vec<u8>,
    /// What a request for a service of services, or one that several routers have led on, is about; others have none.
    pub(crate) composed: Option<Box<Composed>>,
    /// Off where the entry point or a middleware says that servers get no `X-Forwarded-For`.
    pub(crate) append_forwarded_for: bool,
    /// What each `compress` on the way has chosen for the client.
    pub(crate) encodings: SmallVec<[Option<Encoding>; 1]>,
    /// In which form the answer's body is to be sent.
    pub(crate) encode: Option<Encode>,
    /// Bytes of the answer's body as the server sent it, where the client gets another form.
    pub(crate) origin_bytes: Option<u64>,
    /// Status and bytes of the service's answer, where a middleware has put another one in its place.
    pub(crate) replaced: Option<(u16, u64)>,
    /// A `contentType` on the way wants the answer's type named.
    pub(crate) detect_type: bool,
    /// Where requests are traced.
    pub(crate) trace: Option<Box<Traced>>,
}

impl Exchange {
    pub(crate) fn new(peer: Rc<Peer>, started: Instant) -> Self {
        Self {
            head: Head::new(),
            response: Head::new(),
            peer,
            started,
            user: None,
            permits: SmallVec::new(),
            breakers: SmallVec::new(),
            auth_cookies: Vec::new(),
            original_target: String::new(),
            original_host: String::new(),
            original_forwarded_for: String::new(),
            raw_query: None,
            alias: None,
            logged: None,
            origin: String::new(),
            tries: 0,
            tried: SmallVec::new(),
            kept: Vec::new(),
            composed: None,
            append_forwarded_for: true,
            encodings: SmallVec::new(),
            encode: None,
            origin_bytes: None,
            replaced: None,
            detect_type: false,
            trace: None,
        }
    }

    /// Makes a used one new, whoever it served before.
    pub(crate) fn reset(&mut self, peer: &Rc<Peer>) {
        self.head.clear();
        self.response.clear();
        if !Rc::ptr_eq(&self.peer, peer) {
            self.peer = Rc::clone(peer);
        }
        self.user = None;
        self.permits.clear();
        self.breakers.clear();
        self.auth_cookies.clear();
        self.original_target.clear();
        self.original_host.clear();
        self.original_forwarded_for.clear();
        self.raw_query = None;
        self.alias = None;
        self.logged = None;
        self.origin.clear();
        self.tries = 0;
        self.tried.clear();
        self.composed = None;
        self.append_forwarded_for = true;
        self.encodings.clear();
        self.encode = None;
        self.origin_bytes = None;
        self.replaced = None;
        self.detect_type = false;
        self.trace = None;
    }

    /// Gives back what the next request is not to find large, nor to be counted for.
    pub(crate) fn put_away(&mut self) {
        for head in [&mut self.head, &mut self.response] {
            head.clear();
            head.shrink_to(KEEP_HEAD_BYTES);
        }
        self.kept = Vec::new();
    }

    /// Drops the answer, for another one to take its place.
    pub(crate) fn drop_answer(&mut self) {
        self.response.clear();
        self.encode = None;
        self.replaced = None;
    }

    /// Remembers the server of a try that failed.
    pub(crate) fn tried_in_vain(&mut self, server: usize) {
        if !self.tried.contains(&server) {
            self.tried.push(server);
        }
    }

    /// Tells every breaker on the way what came of it, and lets the next request in.
    pub(crate) fn complete(&mut self, now: Instant) -> Duration {
        self.settle((0, 0), now);
        now.saturating_duration_since(self.started)
    }

    /// The same for the permits and breakers beyond the first ones: a try has ended that will be repeated.
    pub(crate) fn settle(&mut self, (permits, breakers): (usize, usize), now: Instant) {
        for (breaker, status) in self.breakers.drain(breakers..) {
            breaker.record(status, now.saturating_duration_since(self.started), now);
        }
        self.permits.truncate(permits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_head_is_not_kept_for_the_next_request() {
        let peer = Rc::new(Peer::new([192, 0, 2, 1].into(), false));
        let mut x = Exchange::new(peer, tokio::time::Instant::now().into_std());
        for head in [&mut x.head, &mut x.response] {
            (0..200).for_each(|_| head.append("x", &[b'a'; 4000]));
        }
        x.put_away();
        assert!(x.head.memory_bytes() <= KEEP_HEAD_BYTES && x.response.memory_bytes() <= KEEP_HEAD_BYTES);
    }
}
