//! What operators want of servers, kept for the life of the process.
//!
//! Orders are keyed by service name and server URL, or address of a TCP server: no address is a URL, so that services
//! of HTTP and of TCP may have one name. A reload that keeps the server keeps its state; one that
//! removes the server keeps the order, so that a server which comes back is not used against the operator's
//! will. The one way an order ends by itself is the deadline of a drain: it becomes maintenance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use lb_core::balance::Server;
use lb_core::health::AdminState;
use lb_core::operator::OperatorState;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::services::Services;
use crate::state::StateWatch;

/// The orders in force; a cheap handle.
#[derive(Clone, Debug)]
pub struct Operators(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: StateWatch,
    /// By service, then by URL. A server that is ready again has no order.
    orders: Mutex<BTreeMap<String, BTreeMap<String, Order>>>,
    changed: Notify,
    /// Tells the health checks that one is wanted now.
    hurry: Arc<Notify>,
}

#[derive(Debug)]
struct Order {
    told: OperatorState,
    /// The moment of [`OperatorState::until`] on a clock that nobody sets.
    expires: Option<Instant>,
    /// As last seen: what is in flight on a server that a reload removed.
    server: Option<Arc<Server>>,
}

impl Order {
    fn new(told: OperatorState, server: Option<Arc<Server>>) -> Self {
        let left = told.until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
        let expires = left.and_then(|left| Instant::now().checked_add(left));
        Self { told, expires, server }
    }
}

impl Operators {
    pub(crate) fn new(state: StateWatch, hurry: Arc<Notify>) -> Self {
        Self(Arc::new(Inner { state, orders: Mutex::default(), changed: Notify::new(), hurry }))
    }

    /// Puts an order in force for all requests that choose a server from now on, and returns the state before.
    /// The same order again changes at most its deadline and its author. `None`: there is no such server,
    /// and nothing is known of it.
    pub fn set(&self, mut told: OperatorState) -> Option<AdminState> {
        let mut orders = self.0.orders.lock();
        let known = orders.get(&told.service).and_then(|orders| orders.get(&told.url));
        let state = self.0.state.load();
        let find = |services| find(services, &told.service, &told.url);
        let server = find(&state.services).or_else(|| find(&state.tcp));
        let server = server.or_else(|| known.and_then(|order| order.server.clone()));
        if server.is_none() && known.is_none() {
            return None;
        }
        let previous = known.map_or(AdminState::Ready, |order| order.told.state);
        if let Some(known) = known.filter(|known| known.told.state == told.state) {
            told.since = known.told.since;
        }
        info!(
            service = told.service,
            server = told.url,
            previous = previous.word(),
            state = told.state.word(),
            until = told.until.map(lb_observe::rfc3339),
            by = told.by,
            "An operator sets the state of a server"
        );
        if let Some(server) = &server {
            server.set_admin_state(told.state);
            if told.state == AdminState::Ready {
                server.want_probe();
                self.0.hurry.notify_waiters();
            }
        }
        if told.state == AdminState::Ready {
            forget(&mut orders, &told);
        } else {
            insert(&mut orders, Order::new(told, server));
        }
        drop(orders);
        self.0.changed.notify_one();
        Some(previous)
    }

    /// Every order in force, with the server where one is or was: what the API shows, and what another process
    /// is to take over with [`restore`](Self::restore).
    pub fn all(&self) -> Vec<(OperatorState, Option<Arc<Server>>)> {
        let orders = self.0.orders.lock();
        orders.values().flat_map(BTreeMap::values).map(|o| (o.told.clone(), o.server.clone())).collect()
    }

    /// Takes over the orders of another process, for servers that need not be known yet.
    pub fn restore(&self, orders: impl IntoIterator<Item = OperatorState>) {
        let mut known = self.0.orders.lock();
        for told in orders.into_iter().filter(|told| told.state != AdminState::Ready) {
            insert(&mut known, Order::new(told, None));
        }
        drop(known);
        let state = self.0.state.load();
        self.apply(&state.services, &state.tcp);
        self.0.changed.notify_one();
    }

    /// Makes the servers of a configuration be as they were ordered to: before it is published, and again
    /// after that for orders that came in between.
    pub(crate) fn apply(&self, http: &Services, tcp: &Services) {
        let mut orders = self.0.orders.lock();
        for (name, service) in http.iter().chain(tcp) {
            let mut of_service = orders.get_mut(name);
            for (server, _) in service.servers() {
                let order = of_service.as_mut().and_then(|orders| orders.get_mut(server.url()));
                let state = order.as_ref().map_or(AdminState::Ready, |order| order.told.state);
                if server.admin_state() != state {
                    server.set_admin_state(state);
                }
                if let Some(order) = order {
                    order.server = Some(Arc::clone(server));
                }
            }
        }
    }

    /// Ends drains whose deadline has come. Never ends by itself; may be dropped at any time.
    pub(crate) async fn supervise(&self) {
        loop {
            let next = self.expire(Instant::now());
            let changed = self.0.changed.notified();
            match next {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Returns when the next drain ends.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut orders = self.0.orders.lock();
        let mut next: Option<Instant> = None;
        for order in orders.values_mut().flat_map(BTreeMap::values_mut) {
            let Some(at) = order.expires else { continue };
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            (order.expires, order.told.until) = (None, None);
            order.told.state = AdminState::Maintenance;
            order.told.since = SystemTime::now();
            if let Some(server) = &order.server {
                server.set_admin_state(AdminState::Maintenance);
            }
            info!(
                service = order.told.service,
                server = order.told.url,
                previous = AdminState::Drain.word(),
                state = AdminState::Maintenance.word(),
                by = order.told.by,
                "The deadline of a drain is over: clients with a cookie move on"
            );
        }
        next
    }
}

fn find(services: &Services, service: &str, url: &str) -> Option<Arc<Server>> {
    let mut servers = services.get(service)?.servers();
    servers.find(|(server, _)| server.url() == url).map(|(server, _)| Arc::clone(server))
}

fn insert(orders: &mut BTreeMap<String, BTreeMap<String, Order>>, order: Order) {
    let of_service = orders.entry(order.told.service.clone()).or_default();
    of_service.insert(order.told.url.clone(), order);
}

fn forget(orders: &mut BTreeMap<String, BTreeMap<String, Order>>, told: &OperatorState) {
    if let Some(of_service) = orders.get_mut(&told.service) {
        of_service.remove(&told.url);
        if of_service.is_empty() {
            orders.remove(&told.service);
        }
    }
}

#[cfg(test)]
mod tests;
