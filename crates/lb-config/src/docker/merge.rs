//! Many containers' parts as one.

use std::collections::BTreeMap;

use crate::document::Position;
use crate::dynamic::{Config, Service};
use crate::dynamics::Draft;
use crate::problem::{Kind, quoted};
use crate::tcp;
use crate::udp::UdpService;

/// Puts what each container defines into `merged`, in their order.
pub(super) fn merge<'a>(merged: &mut Draft<'a>, parts: Vec<Draft<'a>>, last: &Config) {
    let mut merging = Merging { parts, taken: BTreeMap::new() };
    merging.kind(merged, Kind::Router, last, |c| &c.routers, |c| &mut c.routers, &|a, b| a == b, &|_, _| ());
    merging.kind(merged, Kind::Service, last, |c| &c.services, |c| &mut c.services, &is_same_service, &join);
    merging.kind(
        merged,
        Kind::Middleware,
        last,
        |c| &c.middlewares,
        |c| &mut c.middlewares,
        &|a, b| a == b,
        &|_, _| (),
    );
    merging.kind(
        merged,
        Kind::TcpRouter,
        last,
        |c| &c.tcp.routers,
        |c| &mut c.tcp.routers,
        &|a, b| a == b,
        &|_, _| (),
    );
    merging.kind(
        merged,
        Kind::TcpService,
        last,
        |c| &c.tcp.services,
        |c| &mut c.tcp.services,
        &is_same_tcp_service,
        &join_tcp,
    );
    merging.kind(
        merged,
        Kind::TcpMiddleware,
        last,
        |c| &c.tcp.middlewares,
        |c| &mut c.tcp.middlewares,
        &|a, b| a == b,
        &|_, _| (),
    );
    merging.kind(
        merged,
        Kind::UdpRouter,
        last,
        |c| &c.udp.routers,
        |c| &mut c.udp.routers,
        &|a, b| a == b,
        &|_, _| (),
    );
    // Labels say nothing of a service but its server.
    merging.kind(
        merged,
        Kind::UdpService,
        last,
        |c| &c.udp.services,
        |c| &mut c.udp.services,
        &|_, _| true,
        &join_udp,
    );
    merging.rest(merged);
}

/// All but the servers.
fn is_same_tcp_service(one: &tcp::Service, other: &tcp::Service) -> bool {
    let without = |service: &tcp::Service| match service {
        tcp::Service::LoadBalancer(balancer) => {
            tcp::Service::LoadBalancer(tcp::LoadBalancer { servers: Vec::new(), ..balancer.clone() })
        }
        weighted => weighted.clone(),
    };
    without(one) == without(other)
}

fn join_tcp(into: &mut tcp::Service, from: &tcp::Service) {
    let (tcp::Service::LoadBalancer(into), tcp::Service::LoadBalancer(from)) = (into, from) else { return };
    for server in &from.servers {
        if !into.servers.iter().any(|known| known.address == server.address) {
            into.servers.push(server.clone());
        }
    }
}

/// All but the servers.
fn is_same_service(one: &Service, other: &Service) -> bool {
    let without = |service: &Service| Service { servers: Vec::new(), ..service.clone() };
    without(one) == without(other)
}

/// The servers of both, each once.
fn join(into: &mut Service, from: &Service) {
    for server in &from.servers {
        if !into.servers.iter().any(|known| known.url == server.url) {
            into.servers.push(server.clone());
        }
    }
}

fn join_udp(into: &mut UdpService, from: &UdpService) {
    let (UdpService::LoadBalancer { servers: into }, UdpService::LoadBalancer { servers: from }) =
        (into, from)
    else {
        return;
    };
    for server in from {
        if !into.contains(server) {
            into.push(server.clone());
        }
    }
}

struct Merging<'a> {
    parts: Vec<Draft<'a>>,
    /// Which container's definition of an object is used (its references count).
    taken: BTreeMap<(Kind, String), usize>,
}

impl<'a> Merging<'a> {
    #[expect(clippy::too_many_arguments, reason = "the differences between the kinds, named once")]
    fn kind<T: Clone>(
        &mut self,
        merged: &mut Draft<'a>,
        kind: Kind,
        last: &Config,
        all: fn(&Config) -> &BTreeMap<String, T>,
        place: fn(&mut Config) -> &mut BTreeMap<String, T>,
        is_same: &dyn Fn(&T, &T) -> bool,
        join: &dyn Fn(&mut T, &T),
    ) {
        let mut definitions: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
        for (index, part) in self.parts.iter().enumerate().filter(|(_, part)| !part.report.is_refused()) {
            for name in all(&part.config).keys() {
                definitions.entry(name).or_default().push(index);
            }
        }
        let mut objects: Vec<(String, T, usize)> = Vec::new();
        for (name, indices) in definitions {
            let of = |index: usize| &all(&self.parts[index].config)[name];
            let first = indices[0];
            let differ = indices.iter().any(|index| !is_same(of(first), of(*index)));
            let known = all(last).get(name);
            let chosen = if differ {
                indices.iter().copied().find(|index| known.is_some_and(|last| is_same(last, of(*index))))
            } else {
                Some(first)
            };
            let Some(chosen) = chosen else {
                self.conflict(merged, kind, name, &indices);
                continue;
            };
            let mut object = of(chosen).clone();
            for &index in &indices {
                if is_same(of(chosen), of(index)) {
                    join(&mut object, of(index));
                } else {
                    self.waits(merged, kind, name, index, chosen);
                }
            }
            objects.push((name.clone(), object, chosen));
        }
        for (name, object, chosen) in objects {
            self.taken.insert((kind, name.clone()), chosen);
            place(&mut merged.config).insert(name, object);
        }
    }

    fn defined_at(&self, part: usize, kind: Kind, name: &str) -> Option<Position> {
        self.parts[part].defined.get(&kind)?.get(name).copied()
    }

    fn container(&self, part: usize, kind: Kind, name: &str) -> String {
        let at = self.defined_at(part, kind, name);
        at.map_or_else(String::new, |at| self.parts[part].files.name(at.file).to_owned())
    }

    /// Nobody knows which is meant.
    fn conflict(&self, merged: &Draft<'a>, kind: Kind, name: &str, parts: &[usize]) {
        let containers: Vec<_> = parts.iter().map(|part| self.container(*part, kind, name)).collect();
        let bare = name.split_once('@').map_or(name, |(name, _)| name);
        let message =
            format!("the {kind} {} is defined differently by {}", quoted(bare), containers.join(", "));
        let hint = "give all of them the same labels, or other names".to_owned();
        let reason = format!("{kind} defined multiple times with different configurations in {containers:?}");
        if let Some(at) = self.defined_at(parts[0], kind, name) {
            merged.report.error_on(kind, name, at, "", message, Some(hint), Some(reason));
        }
    }

    /// Another definition is in force.
    fn waits(&self, merged: &Draft<'a>, kind: Kind, name: &str, part: usize, chosen: usize) {
        let Some(at) = self.defined_at(part, kind, name) else { return };
        let bare = name.split_once('@').map_or(name, |(name, _)| name);
        let message = format!(
            "the {kind} {} is defined differently by {}, which is in force; this definition waits until that one is gone",
            quoted(bare),
            self.container(chosen, kind, name)
        );
        merged.report.lacking(at, "", message);
    }

    /// References, names, what is broken, certificates.
    fn rest(self, merged: &mut Draft<'a>) {
        let Self { parts, taken } = self;
        for (index, part) in parts.into_iter().enumerate() {
            let refused = part.report.is_refused();
            let uses = |object: &(Kind, String)| taken.get(object) == Some(&index);
            merged.references.extend(part.references.into_iter().filter(|reference| uses(reference.from())));
            for (object, reasons) in part.report.broken() {
                if !taken.contains_key(&object) {
                    reasons.into_iter().for_each(|why| merged.report.disable(object.0, &object.1, why));
                }
            }
            for (kind, names) in part.defined {
                for (name, at) in names {
                    let object = (kind, name);
                    if refused && !taken.contains_key(&object) {
                        let container = part.files.name(at.file);
                        merged.report.disable(kind, &object.1, format!("{container} has labels in error"));
                    }
                    let known = merged.defined.entry(kind).or_default();
                    if taken.get(&object) == Some(&index) || !known.contains_key(&object.1) {
                        known.insert(object.1, at);
                    }
                }
            }
            if !refused && merged.config.tls.default_certificate.is_none() {
                merged.config.tls = part.config.tls;
            }
        }
    }
}
