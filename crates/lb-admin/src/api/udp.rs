//! UDP routers and services: `/api/udp/routers`, `/api/udp/services`.

use std::cmp::Ordering;

use lb_config::Kind;
use lb_config::dynamic::UdpService;
use serde_json::Value;

use super::object::Object;
use super::{Model, list, provider};
use crate::Response;
use crate::query::Query;

/// A router or a service, as it is shown.
pub(super) struct Shown<'m> {
    pub(super) name: &'m str,
    pub(super) status: &'static str,
    /// The service of a router; empty for services.
    service: &'m str,
    /// `loadbalancer` or `weighted`; empty for routers.
    kind: &'static str,
    /// Of a service; none for routers.
    servers: Option<usize>,
    entry_points: &'m [String],
    body: Object,
}

pub(super) fn routers<'m>(model: &'m Model<'_>) -> Vec<Shown<'m>> {
    let (config, unfit) = (&model.view.config.udp.routers, &model.view.left_out.udp.routers);
    let all: Vec<&str> =
        model.view.static_config.udp_entry_points.iter().map(|entry| entry.name.as_str()).collect();
    let readable = config.iter().chain(unfit.iter().filter(|(name, _)| !config.contains_key(*name)));
    let written = readable.map(|(name, router)| {
        let named: Vec<&str> = router.entry_points.iter().map(String::as_str).collect();
        let status = model.status(Kind::UdpRouter, name);
        let body = Object::new()
            .list("entryPoints", &router.entry_points)
            .text("service", &router.written)
            .list("error", model.errors(Kind::UdpRouter, name))
            .set("status", status)
            .flag("stale", model.is_stale(Kind::UdpRouter, name))
            .list("using", if named.is_empty() { &all } else { &named });
        let service = &router.service;
        Shown { name, status, service, kind: "", servers: None, entry_points: &router.entry_points, body }
    });
    let is_shown = |name: &str| config.contains_key(name) || unfit.contains_key(name);
    let left_out = model.left_out(Kind::UdpRouter, is_shown);
    sorted(written.chain(left_out.map(|name| broken(model, Kind::UdpRouter, name))))
}

pub(super) fn services<'m>(model: &'m Model<'_>) -> Vec<Shown<'m>> {
    let config = &model.view.config.udp;
    let users_of = |name: &str| {
        let routers = config.routers.iter().chain(&model.view.left_out.udp.routers);
        let users = routers.filter(|(_, router)| router.service == name);
        let mut users: Vec<&str> = users.map(|(user, _)| user.as_str()).collect();
        users.sort_unstable();
        users
    };
    let written = config.services.iter().map(|(name, service)| {
        let (key, kind, shape) = shape(service);
        let status = model.status(Kind::UdpService, name);
        let body = Object::new()
            .set(key, shape)
            .list("error", model.errors(Kind::UdpService, name))
            .set("status", status)
            .flag("stale", model.is_stale(Kind::UdpService, name))
            .list("usedBy", &users_of(name));
        let servers = match service {
            UdpService::LoadBalancer { servers } => servers.len(),
            UdpService::Weighted { .. } => 0,
        };
        Shown { name, status, service: "", kind, servers: Some(servers), entry_points: &[], body }
    });
    let left_out = model.left_out(Kind::UdpService, |name| config.services.contains_key(name));
    let left_out = left_out.map(|name| {
        let shown = broken(model, Kind::UdpService, name);
        Shown { servers: Some(0), body: shown.body.list("usedBy", &users_of(name)), ..shown }
    });
    sorted(written.chain(left_out))
}

fn broken<'m>(model: &'m Model<'_>, kind: Kind, name: &'m str) -> Shown<'m> {
    let body = Object::new().list("error", model.errors(kind, name)).set("status", "disabled");
    Shown { name, status: "disabled", service: "", kind: "", servers: None, entry_points: &[], body }
}

fn sorted<'m>(shown: impl Iterator<Item = Shown<'m>>) -> Vec<Shown<'m>> {
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by(|a, b| a.name.cmp(b.name));
    shown
}

/// Key, type and content.
fn shape(service: &UdpService) -> (&'static str, &'static str, Value) {
    let listed = |key: &str, items: Vec<Value>| {
        if items.is_empty() { Object::new().build() } else { Object::new().set(key, items).build() }
    };
    match service {
        UdpService::LoadBalancer { servers } => {
            let server = |address: &str| Object::new().set("address", address).build();
            let servers = servers.iter().map(|one| server(&one.address)).collect();
            ("loadBalancer", "loadbalancer", listed("servers", servers))
        }
        UdpService::Weighted { services } => {
            let child =
                |name: &str, weight: u32| Object::new().set("name", name).set("weight", weight).build();
            let services = services.iter().map(|one| child(&one.written, one.weight)).collect();
            ("weighted", "weighted", listed("services", services))
        }
    }
}

fn full(shown: &Shown<'_>) -> Value {
    shown
        .body
        .clone()
        .set("name", shown.name)
        .set("provider", provider(shown.name))
        .text("type", shown.kind)
        .build()
}

pub(super) fn list(all: &[Shown<'_>], query: &Query) -> Response {
    let wanted = all.iter().filter(|one| {
        (one.servers.is_some() || list::is_of_service(query, one.name, one.service))
            && list::has_status(query, one.status)
            && list::is_sought(query, &[one.name])
    });
    let mut wanted: Vec<_> = wanted.collect();
    let by = query.get("sortBy").unwrap_or("name");
    list::sort(
        &mut wanted,
        query,
        |one| one.name,
        |a, b| match by {
            "provider" => provider(a.name).cmp(provider(b.name)),
            "status" => a.status.cmp(b.status),
            "service" => a.service.cmp(b.service),
            "type" => a.kind.cmp(b.kind),
            "servers" => a.servers.cmp(&b.servers),
            "entryPoints" => a.entry_points.len().cmp(&b.entry_points.len()),
            _ => Ordering::Equal,
        },
    );
    list::page(wanted, query, full)
}

pub(super) fn one(all: &[Shown<'_>], name: &str) -> Option<Value> {
    all.iter().find(|one| one.name == name).map(full)
}

pub(super) fn bodies<'m>(all: &[Shown<'m>]) -> Vec<(&'m str, Object)> {
    all.iter().map(|one| (one.name, one.body.clone())).collect()
}

pub(super) fn statuses(all: &[Shown<'_>]) -> Vec<&'static str> {
    all.iter().map(|one| one.status).collect()
}
