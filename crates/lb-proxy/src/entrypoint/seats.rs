//! How many connections an entry point takes, in all and from one client.
//!
//! Exact across workers: one atomic for all, a sharded map for clients, which holds no more than those with an open
//! connection. Entry points without limits touch neither.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use lb_config::static_config::EntryPointLimits;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Entry;

/// How often it is said that connections are refused.
const REPORT: Duration = Duration::from_secs(1);
/// So many who are refused are told why at a time; the rest find their connection closed. Chosen.
const MOST_TOLD: u64 = 256;

pub(crate) struct Seats {
    most: Option<u64>,
    most_per_client: Option<u64>,
    taken: AtomicU64,
    by_client: DashMap<IpAddr, u64>,
    told: AtomicU64,
    reported: Mutex<Option<Instant>>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    EntryPoint,
    Client,
}

impl Full {
    /// For metrics and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::EntryPoint => "connection_limit",
            Self::Client => "client_connection_limit",
        }
    }
}

impl Seats {
    pub(crate) fn new(limits: &EntryPointLimits) -> Self {
        Self {
            most: limits.connections,
            most_per_client: limits.connections_per_client,
            taken: AtomicU64::new(0),
            by_client: DashMap::new(),
            told: AtomicU64::new(0),
            reported: Mutex::default(),
        }
    }

    /// Whether a refusal is to be logged now.
    pub(crate) fn reports(&self) -> bool {
        let mut reported = self.reported.lock();
        let due = reported.is_none_or(|at| at.elapsed() >= REPORT);
        if due {
            *reported = Some(Instant::now());
        }
        due
    }
}

/// One open connection, counted until it is dropped.
pub(crate) struct Seat {
    entry: Arc<Entry>,
    client: Option<IpAddr>,
}

impl Seat {
    /// `Ok(None)` where nothing is limited.
    pub(crate) fn take(entry: &Arc<Entry>, client: IpAddr) -> Result<Option<Self>, Full> {
        let seats = &entry.seats;
        if seats.most.is_none() && seats.most_per_client.is_none() {
            return Ok(None);
        }
        if !add_below(&seats.taken, seats.most.unwrap_or(u64::MAX)) {
            return Err(Full::EntryPoint);
        }
        let mut seat = Self { entry: Arc::clone(entry), client: None };
        if let Some(most) = seats.most_per_client {
            let client = network(client);
            let mut open = seats.by_client.entry(client).or_insert(0);
            if *open >= most {
                return Err(Full::Client);
            }
            *open += 1;
            seat.client = Some(client);
        }
        Ok(Some(seat))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seats = &self.entry.seats;
        seats.taken.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            seats.by_client.remove_if_mut(&client, |_, open| {
                *open -= 1;
                *open == 0
            });
        }
    }
}

/// Somebody who is refused and told why.
pub(crate) struct Told(Arc<Entry>);

impl Told {
    pub(crate) fn one_more(entry: &Arc<Entry>) -> Option<Self> {
        add_below(&entry.seats.told, MOST_TOLD).then(|| Self(Arc::clone(entry)))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.seats.told.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add_below(count: &AtomicU64, most: u64) -> bool {
    let add = |count: u64| (count < most).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

/// One client may have all addresses of an IPv6 network of 64 bits: RFC 6177.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let of = |text: &str| network(text.parse().unwrap());
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }
}
