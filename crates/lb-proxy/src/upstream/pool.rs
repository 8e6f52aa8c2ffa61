//! The connections one worker keeps open to servers between requests.

use std::cell::RefCell;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::Endpoint;
use super::h2::{Place, Shared};
use crate::http::h1::H1;

#[derive(Default)]
pub(crate) struct Pools {
    by_endpoint: RefCell<FxHashMap<u64, Pool>>,
}

#[derive(Default)]
struct Pool {
    /// Of the server, when it was last looked at.
    outages: u32,
    /// The longest idle first: the next one is taken from the end, where connections are warm.
    idle: Vec<(Box<H1>, Instant)>,
    idle_timeout: Option<Duration>,
    /// HTTP/2 connections; later ones are there because the earlier ones were full.
    shared: Vec<Shared>,
}

impl Pool {
    /// Lets go of what is from before the server's last outage: its machine may have gone without a word, and a request
    /// would be lost there or wait for as long as TCP hopes. Streams under way keep their connection.
    fn since(&mut self, outages: u32) -> &mut Self {
        if outages > self.outages {
            self.outages = outages;
            self.idle.clear();
            self.shared.clear();
        }
        self
    }
}

impl Pools {
    /// An idle HTTP/1.1 connection that looks alive, from after so many outages of the server.
    pub(crate) fn take(&self, endpoint: &Endpoint, outages: u32, now: Instant) -> Option<Box<H1>> {
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.get_mut(&endpoint.id)?.since(outages);
        while let Some((connection, since)) = pool.idle.pop() {
            let expired = pool.idle_timeout.is_some_and(|timeout| now.duration_since(since) > timeout);
            if !expired && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a clean connection for later, up to `maxIdleConnsPerHost`.
    pub(crate) fn give(&self, endpoint: &Endpoint, outages: u32, mut connection: Box<H1>, now: Instant) {
        if endpoint.is_retired() {
            return;
        }
        let settings = &endpoint.transport.settings;
        let Some(most) = settings.max_idle_conns_per_host else { return };
        connection.release();
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default().since(outages);
        pool.idle_timeout = settings.idle_conn_timeout;
        if pool.idle.len() < most {
            pool.idle.push((connection, now));
        }
    }

    /// A place on a shared HTTP/2 connection that has room.
    pub(crate) fn place(&self, endpoint: &Endpoint, outages: u32) -> Option<Place> {
        let mut pools = self.by_endpoint.borrow_mut();
        let shared = &mut pools.get_mut(&endpoint.id)?.since(outages).shared;
        shared.retain(|shared| !shared.is_closed());
        shared.iter().find_map(Shared::place)
    }

    pub(crate) fn share(&self, endpoint: &Endpoint, outages: u32, shared: Shared) {
        let mut pools = self.by_endpoint.borrow_mut();
        let pool = pools.entry(endpoint.id).or_default().since(outages);
        pool.idle_timeout = endpoint.transport.settings.idle_conn_timeout;
        pool.shared.push(shared);
    }

    /// Drops every idle connection: their descriptors are needed elsewhere.
    pub(crate) fn drop_idle(&self) {
        self.by_endpoint.borrow_mut().values_mut().for_each(|pool| {
            pool.idle.clear();
            pool.shared.retain(|shared| !shared.is_idle());
        });
    }

    /// Drops what has idled too long or died, and pools of servers that are gone.
    pub(crate) fn sweep(&self, now: Instant, is_current: impl Fn(u64) -> bool) {
        self.by_endpoint.borrow_mut().retain(|id, pool| {
            if !is_current(*id) {
                return false;
            }
            let timeout = pool.idle_timeout;
            pool.idle.retain(|(connection, since)| {
                timeout.is_none_or(|timeout| now.duration_since(*since) <= timeout) && connection.is_quiet()
            });
            pool.shared.retain(|shared| !shared.is_closed() && !shared.has_idled(now, timeout));
            true
        });
    }
}
