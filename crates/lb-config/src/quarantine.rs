//! Objects that a new configuration spoils keep their last good version, everything else moves on.
//!
//! What the providers read is laid over what is in force. An object that is broken in itself (a rule that does not
//! parse, a name that nothing has) is replaced by its version in force; one without such a version is left out, and so
//! is whatever uses it, unless that has a version in force itself. An old version brings along what it refers to and
//! the new files no longer have. So a router is never served without one of its middlewares, and never led to a
//! service that is gone.
//!
//! The outcome is complete: everything it refers to is in it. By induction so is what is in force, and an old version
//! can always be completed from there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::docker::LABELLED;
use crate::dynamic::{Composite, Config, KeyPair, Middleware, Tls};
use crate::load::{Context, Loaded};
use crate::merge::merge;
use crate::pem::INLINE;
use crate::problem::{Kind, Scope};
use crate::tcp;
use crate::udp::UdpService;

/// An object's kind and qualified name.
pub type Object = (Kind, String);

/// Why objects are not as the files say.
pub type Reasons = BTreeMap<Object, Vec<String>>;

/// The name of the default certificate among objects; others are called by their files.
pub const DEFAULT_CERTIFICATE: &str = "tls.stores.default.defaultCertificate";

/// What may come into force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// Every provider's part, with old versions where there is no good new one.
    pub config: Config,
    /// Objects in an older version than the files have, and files of which the last good text is used.
    pub stale: Reasons,
    /// Objects that were left out.
    pub disabled: Reasons,
    /// The routers of `disabled`, as far as they can be read. Only to be shown.
    pub left_out: Config,
}

/// Settles what `parts` (by provider) say with `last`, the configuration in force. `spoilt` are objects that turned out
/// not to work when they were built.
pub fn settle<'a>(
    parts: impl Iterator<Item = (&'a str, &'a Loaded)> + Clone,
    spoilt: &Reasons,
    last: &Config,
    context: &Context,
) -> Settled {
    let configs = parts.clone().flat_map(|(name, part)| [(name, &part.config), (name, &part.waiting)]);
    let mut settling = Settling {
        config: merge(configs),
        last,
        context,
        kept: BTreeSet::new(),
        blocked: BTreeMap::new(),
        stale: Reasons::new(),
        disabled: Reasons::new(),
    };
    let mut broken = Reasons::new();
    for (_, part) in parts.clone() {
        settling
            .stale
            .extend(part.stale_files.iter().map(|(file, why)| ((Kind::File, file.clone()), why.clone())));
        for (object, reasons) in &part.disabled {
            if !has(&part.waiting, object) {
                broken.insert(object.clone(), explained(part, object).unwrap_or_else(|| reasons.clone()));
            }
        }
    }
    broken.extend(spoilt.iter().map(|(object, reasons)| (object.clone(), reasons.clone())));
    let (certificates, broken): (Reasons, Reasons) =
        broken.into_iter().partition(|((kind, _), _)| *kind == Kind::Certificate);
    settling.certificates(certificates);
    for (object, reasons) in broken {
        settling.spoil(&object, reasons);
    }
    for (provider, _) in parts.clone() {
        settling.entry_points(provider);
    }
    settling.complete();
    settling.uncoil();
    let Settling { mut config, stale, mut disabled, .. } = settling;
    // Traefik's words first where they differ: its API is asked for them. Then the place.
    for (object, reasons) in parts.clone().flat_map(|(_, part)| &part.disabled) {
        if let Some(known) = disabled.get_mut(object) {
            let new = |words: &&String| !known.iter().any(|line| line.contains(*words));
            let words: Vec<String> = reasons.iter().filter(new).cloned().collect();
            known.splice(0..0, words);
        }
    }
    config.tls.refuse_default = disabled.contains_key(&(Kind::TlsOptions, "default".to_owned()));
    let mut left_out = Config::default();
    let routers = |kind: &Kind| matches!(kind, Kind::Router | Kind::TcpRouter | Kind::UdpRouter);
    for object in disabled.keys().filter(|(kind, _)| routers(kind)) {
        let mut read = parts.clone().flat_map(|(_, part)| [&part.unfit, &part.waiting, &part.config]);
        read.any(|part| copy(part, &mut left_out, object));
    }
    Settled { config, stale, disabled, left_out }
}

/// Problems that are told of one object or file; chosen, nobody reads further.
pub(crate) const TOLD: usize = 8;

/// The problems of one object, with their places.
fn explained(part: &Loaded, object: &Object) -> Option<Vec<String>> {
    let concerns = |scope: &Scope| matches!(scope, Scope::Object { kind, name } if (*kind, name) == (object.0, &object.1));
    let problems = part.problems.iter().filter(|problem| problem.is_error() && concerns(&problem.scope));
    let lines: Vec<_> = problems.map(crate::Problem::line).take(TOLD).collect();
    (!lines.is_empty()).then_some(lines)
}

struct Settling<'a> {
    config: Config,
    last: &'a Config,
    context: &'a Context,
    /// Objects that are gone from the files, here for old versions only: nothing new may use them.
    kept: BTreeSet<Object>,
    /// Entry points that lack a middleware of their own, for routers of which provider, with the reason.
    blocked: BTreeMap<(&'a str, &'a str), String>,
    stale: Reasons,
    disabled: Reasons,
}

impl<'a> Settling<'a> {
    /// The new version of an object does not work: back to the one in force, or out if that does not either.
    fn spoil(&mut self, object: &Object, reasons: Vec<String>) {
        remove(&mut self.config, object);
        if self.stale.remove(object).is_none() && copy(self.last, &mut self.config, object) {
            self.stale.insert(object.clone(), reasons);
        } else {
            self.disabled.insert(object.clone(), reasons);
        }
    }

    /// Brings back what the files no longer have.
    fn keep(&mut self, object: &Object, user: &str) -> bool {
        let kept = copy(self.last, &mut self.config, object);
        if kept {
            self.leave_without_servers(object);
            self.kept.insert(object.clone());
            self.stale.insert(object.clone(), vec![format!("removed, but {user} still needs it")]);
        }
        kept
    }

    /// A container that is gone answers nobody, and its address may be another's soon.
    fn leave_without_servers(&mut self, (kind, name): &Object) {
        if !name.rsplit_once('@').is_some_and(|(_, provider)| LABELLED.contains(&provider)) {
            return;
        }
        let Config { services, tcp, udp, .. } = &mut self.config;
        match kind {
            Kind::Service => {
                services.get_mut(name).into_iter().for_each(|service| service.servers.clear());
            }
            Kind::TcpService => {
                if let Some(tcp::Service::LoadBalancer(balancer)) = tcp.services.get_mut(name) {
                    balancer.servers.clear();
                }
            }
            Kind::UdpService => {
                if let Some(UdpService::LoadBalancer { servers }) = udp.services.get_mut(name) {
                    servers.clear();
                }
            }
            _ => {}
        }
    }

    fn is_old(&self, object: &Object) -> bool {
        self.stale.contains_key(object)
    }

    /// What a middleware of an entry point lacks blocks the entry point, unless the one in force can be kept.
    fn entry_points(&mut self, provider: &'a str) {
        let context = self.context;
        for (entry_point, middlewares) in &context.entry_point_middlewares {
            for (middleware, _) in middlewares {
                let qualified = if middleware.contains('@') {
                    middleware.clone()
                } else {
                    format!("{middleware}@{provider}")
                };
                let object = (Kind::Middleware, qualified);
                if is_internal(&object.1) || has(&self.config, &object) {
                    continue;
                }
                if !self.keep(&object, &format!("the entry point {entry_point}")) {
                    let reason = self.reason(&object);
                    self.blocked.entry((entry_point, provider)).or_insert(reason);
                }
            }
        }
    }

    /// Why there is no such object.
    fn reason(&self, object: &Object) -> String {
        let known = self.disabled.get(object).and_then(|reasons| reasons.first());
        known.cloned().unwrap_or_else(|| match object {
            (Kind::Middleware, name) => format!("middleware {name:?} does not exist"),
            (kind, name) => format!("the {kind} {name:?} does not exist"),
        })
    }

    /// What an object lacks; `None`: nothing.
    fn lack(&self, object: &Object) -> Option<Lack> {
        let old = self.is_old(object);
        if let (Kind::Router, name) = object
            && let Some(router) = self.config.routers.get(name)
            && !self.blocked.is_empty()
            && router.parents.is_empty()
        {
            let defaults = self.context.default_entry_points.iter();
            let entry_points =
                router.entry_points.iter().chain(defaults.filter(|_| router.entry_points.is_empty()));
            let provider = name.rsplit_once('@').map_or("", |(_, provider)| provider);
            let reasons: Vec<_> =
                entry_points.map(|name| self.blocked.get(&(name.as_str(), provider))).collect();
            if let Some(Some(reason)) = reasons.first()
                && reasons.iter().all(Option::is_some)
            {
                return Some(Lack::EntryPoint((*reason).clone()));
            }
        }
        let missing = references(&self.config, object)
            .into_iter()
            .find(|target| !has(&self.config, target) || !old && self.kept.contains(target));
        missing.map(Lack::Object)
    }

    /// Until everything in the configuration finds what it refers to.
    fn complete(&mut self) {
        let mut queue: Vec<Object> =
            objects(&self.config).filter(|object| self.lack(object).is_some()).collect();
        if queue.is_empty() {
            return;
        }
        let mut users: HashMap<Object, Vec<Object>> = HashMap::new();
        for config in [&self.config, self.last] {
            for object in objects(config) {
                for target in references(config, &object) {
                    users.entry(target).or_default().push(object.clone());
                }
            }
        }
        while let Some(object) = queue.pop() {
            if !has(&self.config, &object) {
                continue;
            }
            let Some(lack) = self.lack(&object) else { continue };
            let reason = match &lack {
                Lack::Object(target) if self.is_old(&object) => {
                    if self.keep(target, &format!("the {} {}", object.0, object.1)) {
                        queue.push(target.clone());
                        queue.push(object);
                        continue;
                    }
                    self.reason(target)
                }
                Lack::Object(target) => self.reason(target),
                Lack::EntryPoint(reason) => reason.clone(),
            };
            self.spoil(&object, vec![reason]);
            if !has(&self.config, &object) {
                queue.extend(users.get(&object).into_iter().flatten().cloned());
            }
            queue.push(object);
        }
    }

    /// New and old chains or services together may run in a circle that neither has alone. Then the new ones go back.
    fn uncoil(&mut self) {
        let coils =
            |kind| matches!(kind, Kind::Middleware | Kind::Service | Kind::TcpService | Kind::UdpService);
        let may_coil = |stale: &Reasons| stale.keys().any(|(kind, _)| coils(*kind));
        while may_coil(&self.stale) {
            let coiled = coiled(&self.config);
            let new: Vec<_> = coiled.into_iter().filter(|object| !self.is_old(object)).collect();
            if new.is_empty() {
                return;
            }
            for object in new {
                let what = if object.0 == Kind::Middleware { "chain" } else { "service" };
                self.spoil(&object, vec![format!("the {what} contains itself")]);
            }
            self.complete();
        }
    }

    /// Certificates have no names that others use, and the list may be reordered at will: an old one is known by its
    /// file, one that is written in place by nothing. One that was in force and is nowhere in the files stays while a new one is broken: it is the one that was
    /// to be replaced, or nobody can tell.
    fn certificates(&mut self, broken: Reasons) {
        let Tls { certificates, default_certificate, .. } = &mut self.config.tls;
        for (object, reasons) in broken {
            if object.1 == DEFAULT_CERTIFICATE {
                default_certificate.clone_from(&self.last.tls.default_certificate);
                let known = if default_certificate.is_some() { &mut self.stale } else { &mut self.disabled };
                known.insert(object, reasons);
                continue;
            }
            certificates.retain(|pair| pair.origin != object.1);
            let of_old = self.last.tls.certificates.iter();
            let is_inline = |origin: &str| origin.starts_with(INLINE);
            let is_same = |pair: &&KeyPair| pair.origin == object.1 && !is_inline(&pair.origin);
            let same: Vec<_> = of_old.clone().filter(is_same).cloned().collect();
            let found = if same.is_empty() {
                let is_gone =
                    |origin: &str| is_inline(origin) || certificates.iter().all(|pair| pair.origin != origin);
                of_old.filter(|pair| is_gone(&pair.origin) && !certificates.contains(pair)).cloned().collect()
            } else {
                same
            };
            let known = if found.is_empty() { &mut self.disabled } else { &mut self.stale };
            known.insert(object, reasons);
            certificates.extend(found);
        }
    }
}

enum Lack {
    Object(Object),
    /// Nothing gets through any entry point of this router, for this reason.
    EntryPoint(String),
}

fn is_internal(name: &str) -> bool {
    name.ends_with("@internal")
}

fn has(config: &Config, (kind, name): &Object) -> bool {
    match kind {
        Kind::Router => config.routers.contains_key(name),
        Kind::Service => config.services.contains_key(name) || config.composites.contains_key(name),
        Kind::Middleware => config.middlewares.contains_key(name),
        Kind::ServersTransport => config.servers_transports.contains_key(name),
        Kind::TlsOptions => config.tls.options.contains_key(name),
        Kind::TcpRouter => config.tcp.routers.contains_key(name),
        Kind::TcpService => config.tcp.services.contains_key(name),
        Kind::TcpMiddleware => config.tcp.middlewares.contains_key(name),
        Kind::TcpServersTransport => config.tcp.servers_transports.contains_key(name),
        Kind::UdpRouter => config.udp.routers.contains_key(name),
        Kind::UdpService => config.udp.services.contains_key(name),
        Kind::Certificate | Kind::File => false,
    }
}

fn remove(config: &mut Config, (kind, name): &Object) {
    match kind {
        Kind::Router => drop(config.routers.remove(name)),
        Kind::Service => drop((config.services.remove(name), config.composites.remove(name))),
        Kind::Middleware => drop(config.middlewares.remove(name)),
        Kind::ServersTransport => drop(config.servers_transports.remove(name)),
        Kind::TlsOptions => drop(config.tls.options.remove(name)),
        Kind::TcpRouter => drop(config.tcp.routers.remove(name)),
        Kind::TcpService => drop(config.tcp.services.remove(name)),
        Kind::TcpMiddleware => drop(config.tcp.middlewares.remove(name)),
        Kind::TcpServersTransport => drop(config.tcp.servers_transports.remove(name)),
        Kind::UdpRouter => drop(config.udp.routers.remove(name)),
        Kind::UdpService => drop(config.udp.services.remove(name)),
        Kind::Certificate | Kind::File => {}
    }
}

/// False when `from` has no such object.
fn copy(from: &Config, to: &mut Config, (kind, name): &Object) -> bool {
    fn put<T: Clone>(from: &BTreeMap<String, T>, to: &mut BTreeMap<String, T>, name: &str) -> bool {
        let found = from.get(name);
        to.extend(found.map(|object| (name.to_owned(), object.clone())));
        found.is_some()
    }
    match kind {
        Kind::Router => put(&from.routers, &mut to.routers, name),
        Kind::Service => {
            put(&from.services, &mut to.services, name) || put(&from.composites, &mut to.composites, name)
        }
        Kind::Middleware => put(&from.middlewares, &mut to.middlewares, name),
        Kind::ServersTransport => put(&from.servers_transports, &mut to.servers_transports, name),
        Kind::TlsOptions => put(&from.tls.options, &mut to.tls.options, name),
        Kind::TcpRouter => put(&from.tcp.routers, &mut to.tcp.routers, name),
        Kind::TcpService => put(&from.tcp.services, &mut to.tcp.services, name),
        Kind::TcpMiddleware => put(&from.tcp.middlewares, &mut to.tcp.middlewares, name),
        Kind::TcpServersTransport => put(&from.tcp.servers_transports, &mut to.tcp.servers_transports, name),
        Kind::UdpRouter => put(&from.udp.routers, &mut to.udp.routers, name),
        Kind::UdpService => put(&from.udp.services, &mut to.udp.services, name),
        Kind::Certificate | Kind::File => false,
    }
}

/// Those that others can refer to, and the routers.
fn objects(config: &Config) -> impl Iterator<Item = Object> + '_ {
    fn named<T>(kind: Kind, objects: &BTreeMap<String, T>) -> impl Iterator<Item = Object> + '_ {
        objects.keys().map(move |name| (kind, name.clone()))
    }
    // TLS options and servers transports refer to nothing.
    let services = named(Kind::Service, &config.services).chain(named(Kind::Service, &config.composites));
    let http = services
        .chain(named(Kind::Middleware, &config.middlewares))
        .chain(named(Kind::Router, &config.routers));
    let tcp =
        named(Kind::TcpService, &config.tcp.services).chain(named(Kind::TcpRouter, &config.tcp.routers));
    let udp =
        named(Kind::UdpService, &config.udp.services).chain(named(Kind::UdpRouter, &config.udp.routers));
    http.chain(tcp).chain(udp)
}

/// What an object refers to, without what is built in.
fn references(config: &Config, (kind, name): &Object) -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    let mut add = |kind: Kind, name: &str| {
        if !is_internal(name) {
            found.push((kind, name.to_owned()));
        }
    };
    match kind {
        Kind::Router => {
            let Some(router) = config.routers.get(name) else { return found };
            if !router.service.is_empty() {
                add(Kind::Service, &router.service);
            }
            // One parent will do.
            if !router.parents.iter().any(|parent| config.routers.contains_key(parent)) {
                router.parents.iter().take(1).for_each(|parent| add(Kind::Router, parent));
            }
            router.middlewares.iter().for_each(|middleware| add(Kind::Middleware, middleware));
            if let Some(tls) = router.tls.as_ref().filter(|tls| !matches!(&*tls.options, "" | "default")) {
                add(Kind::TlsOptions, &tls.options);
            }
        }
        Kind::Service => {
            config
                .services
                .get(name)
                .into_iter()
                .for_each(|s| add(Kind::ServersTransport, &s.servers_transport));
            config.middlewares_of(name).iter().for_each(|middleware| add(Kind::Middleware, middleware));
            let children = config.composites.get(name).into_iter().flat_map(Composite::children);
            children.for_each(|child| add(Kind::Service, &child.name));
        }
        Kind::Middleware => match config.middlewares.get(name) {
            Some(Middleware::Chain { middlewares }) => {
                middlewares.iter().for_each(|middleware| add(Kind::Middleware, middleware));
            }
            Some(Middleware::Errors(errors)) => add(Kind::Service, &errors.service),
            _ => {}
        },
        Kind::UdpRouter => {
            config.udp.routers.get(name).into_iter().for_each(|r| add(Kind::UdpService, &r.service));
        }
        Kind::UdpService => {
            let children = config.udp.services.get(name).into_iter().flat_map(|service| service.children());
            children.for_each(|child| add(Kind::UdpService, &child.service));
        }
        Kind::TcpRouter => {
            let Some(router) = config.tcp.routers.get(name) else { return found };
            add(Kind::TcpService, &router.service);
            router.middlewares.iter().for_each(|middleware| add(Kind::TcpMiddleware, middleware));
            let tls = router.tls.as_ref().filter(|tls| !tls.passthrough).map(|tls| &*tls.terminated.options);
            if let Some(options) = tls.filter(|options| *options != "default") {
                add(Kind::TlsOptions, options);
            }
        }
        Kind::TcpService => match config.tcp.services.get(name) {
            Some(tcp::Service::LoadBalancer(balancer)) => {
                balancer.servers_transport.iter().for_each(|name| add(Kind::TcpServersTransport, name));
            }
            Some(tcp::Service::Weighted(weighted)) => {
                weighted.services.iter().for_each(|child| add(Kind::TcpService, &child.name));
            }
            None => {}
        },
        Kind::ServersTransport
        | Kind::TlsOptions
        | Kind::TcpMiddleware
        | Kind::TcpServersTransport
        | Kind::Certificate
        | Kind::File => {}
    }
    found
}

/// Chains and services that contain themselves, and those that lead there: what is left when all whose members are
/// accounted for are struck out, again and again.
fn coiled(config: &Config) -> Vec<Object> {
    type Name<'c> = (Kind, &'c str);
    let chains = config.middlewares.iter().filter_map(|(name, middleware)| match middleware {
        Middleware::Chain { middlewares } => {
            let members: Vec<Name<'_>> = middlewares.iter().map(|m| (Kind::Middleware, m.as_str())).collect();
            Some(((Kind::Middleware, name.as_str()), members))
        }
        Middleware::Errors(errors) => {
            Some(((Kind::Middleware, name.as_str()), vec![(Kind::Service, errors.service.as_str())]))
        }
        _ => None,
    });
    let through = |name: &str| config.middlewares_of(name).iter().map(|m| (Kind::Middleware, m.as_str()));
    let services = config
        .services
        .keys()
        .map(|name| ((Kind::Service, name.as_str()), through(name).collect::<Vec<Name<'_>>>()));
    let composites = config.composites.iter().map(|(name, composite)| {
        let children = composite.children().map(|child| (Kind::Service, child.name.as_str()));
        ((Kind::Service, name.as_str()), children.chain(through(name)).collect::<Vec<Name<'_>>>())
    });
    let udp = config.udp.services.iter().map(|(name, service)| {
        let children = service.children().iter().map(|child| (Kind::UdpService, child.service.as_str()));
        ((Kind::UdpService, name.as_str()), children.collect::<Vec<Name<'_>>>())
    });
    let tcp = config.tcp.services.iter().filter(|(_, service)| !service.children().is_empty());
    let tcp = tcp.map(|(name, service)| {
        let children = service.children().iter().map(|child| (Kind::TcpService, child.name.as_str()));
        ((Kind::TcpService, name.as_str()), children.collect::<Vec<Name<'_>>>())
    });
    let all: HashMap<Name<'_>, Vec<Name<'_>>> =
        chains.chain(services).chain(composites).chain(tcp).chain(udp).collect();
    let mut users: HashMap<Name<'_>, Vec<Name<'_>>> = HashMap::new();
    let mut open: BTreeMap<Name<'_>, usize> = BTreeMap::new();
    for (name, members) in &all {
        let inner = members.iter().filter(|member| all.contains_key(member));
        open.insert(*name, inner.clone().count());
        inner.for_each(|member| users.entry(*member).or_default().push(*name));
    }
    let mut done: Vec<_> = open.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while let Some(name) = done.pop() {
        open.remove(&name);
        for user in users.get(&name).into_iter().flatten() {
            if let Some(count) = open.get_mut(user) {
                *count -= 1;
                if *count == 0 {
                    done.push(*user);
                }
            }
        }
    }
    open.into_keys().map(|(kind, name)| (kind, name.to_owned())).collect()
}

#[cfg(test)]
mod tests;
