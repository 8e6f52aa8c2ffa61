//! From a checked configuration to a snapshot, taking over what lives on.

mod auth_server;
mod chains;
mod layers;
mod service_chains;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lb_config::Kind;
use lb_config::dynamic::{self, Config, RouterTls, ServersTransport};
use lb_config::static_config::{EntryPoint, StaticConfig};
use lb_core::balance::Service as LiveService;
use lb_core::retry::RetryBudget;
use lb_core::route;
use lb_observe::metrics::{self, Metrics};

use super::internal::{self, Internal, InternalRouter};
use super::{AuthServer, EntryRoutes, Queue, Retries, Route, Service, ServiceChain, Snapshot, Target};
use crate::composite::{Composite, Node};
use crate::http::local::whole_seconds;
use crate::l4;
use crate::middleware::{self, Middleware, RedirectScheme};
use crate::report::Report;
use crate::tls::{Proof, TlsTable, client_config};
use crate::udp::UdpTable;
use crate::upstream::{Endpoint, Transport};

/// One object that could not be compiled, and so whatever uses it. Everything else of the configuration is not
/// touched by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: lb_config::Kind,
    /// Qualified name.
    pub name: String,
    pub message: String,
}

/// What stays the same over all snapshots of a process.
pub(crate) struct Fixed {
    pub(crate) config: Arc<StaticConfig>,
    pub(crate) metrics: Metrics,
}

const DEFAULT_TRANSPORT: &str = "default@internal";
const DEFAULT_OPTIONS: &str = "default";

static NEXT_ENDPOINT: AtomicU64 = AtomicU64::new(1);

/// Live services by name.
type Live<'a> = &'a HashMap<String, Arc<LiveService>>;

impl Snapshot {
    /// Compiles `config`, with its live services and those of `tcp`. A broken object is left out and named; the rest works.
    pub(crate) fn build(
        fixed: &Fixed,
        config: &Arc<Config>,
        (live, tcp): (Live<'_>, Live<'_>),
        previous: Option<&Self>,
        now: Instant,
    ) -> (Self, Vec<Failure>) {
        let mut failures = Vec::new();
        let (tls, problems) = TlsTable::build(&config.tls, previous.map(|snapshot| &*snapshot.tls));
        for problem in problems {
            let message = problem.to_string();
            match problem.broken() {
                Some((kind, name)) => failures.push(Failure { kind, name: name.to_owned(), message }),
                None => tracing::warn!("{message}"),
            }
        }
        let mut builder = Builder {
            fixed,
            config,
            live,
            previous,
            now,
            failures,
            tls: Arc::new(tls),
            routes: HashMap::new(),
            services: HashMap::new(),
            auth_servers: HashMap::new(),
            composites: HashMap::new(),
            transports: HashMap::new(),
            endpoints: HashSet::new(),
            layers: layers::Layers::new(config),
            service_chains: HashMap::new(),
            chained: HashMap::new(),
            chaining: Vec::new(),
        };
        builder.transports();
        let internal = internal::routers(&fixed.config);
        let mut entry_points = Vec::with_capacity(fixed.config.entry_points.len());
        let attached = builder.attached(&internal);
        for (entry, routers) in fixed.config.entry_points.iter().zip(attached) {
            entry_points.push(builder.entry_point(entry, routers));
        }
        let (tcp, failed) = l4::build(&l4::Source {
            fixed: &fixed.config,
            metrics: &fixed.metrics,
            config,
            live: tcp,
            tls: &builder.tls,
            http: &entry_points,
            previous: previous.map(|snapshot| &snapshot.tcp),
            now,
        });
        builder.failures.extend(failed);
        let Builder {
            failures,
            tls,
            routes,
            services,
            auth_servers,
            composites,
            transports,
            endpoints,
            service_chains,
            ..
        } = builder;
        let config = Arc::clone(config);
        let udp_entry_points = &fixed.config.udp_entry_points;
        let snapshot = Self {
            udp: UdpTable::build(&config.udp, udp_entry_points, previous.map(|snapshot| &snapshot.udp)),
            config,
            entry_points,
            tls,
            tcp,
            routes,
            services,
            auth_servers,
            composites,
            transports,
            endpoints,
            service_chains,
        };
        (snapshot, failures)
    }
}

pub(super) struct Builder<'a> {
    pub(super) fixed: &'a Fixed,
    pub(super) config: &'a Config,
    live: &'a HashMap<String, Arc<LiveService>>,
    pub(super) previous: Option<&'a Snapshot>,
    now: Instant,
    failures: Vec<Failure>,
    tls: Arc<TlsTable>,
    routes: HashMap<String, Arc<Route>>,
    services: HashMap<String, Arc<Service>>,
    auth_servers: HashMap<String, Arc<AuthServer>>,
    pub(super) composites: HashMap<String, Arc<Composite>>,
    transports: HashMap<String, (ServersTransport, Arc<Transport>)>,
    endpoints: HashSet<u64>,
    layers: layers::Layers<'a>,
    pub(super) service_chains: HashMap<String, Arc<ServiceChain>>,
    /// Services behind their middlewares, as parts of others.
    pub(super) chained: HashMap<String, Node>,
    /// Those under way, one inside the other.
    pub(super) chaining: Vec<String>,
}

/// A router on one entry point.
#[derive(Clone, Copy)]
struct Attached<'a> {
    name: &'a str,
    router: &'a dynamic::Router,
    /// It names, or gets by default, other entry points as well.
    elsewhere: bool,
    internal: Option<&'a InternalRouter>,
}

impl<'a> Builder<'a> {
    pub(super) fn fail(&mut self, kind: Kind, name: &str, message: impl Into<String>) {
        let failure = Failure { kind, name: name.to_owned(), message: message.into() };
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    /// Every transport a service may name, unchanged ones taken over with their TLS sessions.
    fn transports(&mut self) {
        let default = (DEFAULT_TRANSPORT, &self.fixed.config.servers_transport);
        let named = self.config.servers_transports.iter().map(|(name, settings)| (name.as_str(), settings));
        for (name, settings) in std::iter::once(default).chain(named) {
            let kept = self.previous.and_then(|snapshot| snapshot.transports.get(name));
            let transport = match kept {
                Some((before, transport)) if before == settings => Arc::clone(transport),
                _ => {
                    let compile = |h2| client_config(settings, h2).map_err(|error| error.to_string());
                    Arc::new(Transport {
                        settings: settings.clone(),
                        tls_http1: compile(false),
                        tls_any: compile(!settings.disable_http2),
                    })
                }
            };
            if let Err(error) = &transport.tls_any {
                let message = error.clone();
                self.failures.push(Failure { kind: Kind::ServersTransport, name: name.to_owned(), message });
            }
            self.transports.insert(name.to_owned(), (settings.clone(), transport));
        }
    }

    /// Which routers each entry point gets.
    fn attached(&mut self, internal: &'a [InternalRouter]) -> Vec<Vec<Attached<'a>>> {
        let entries = &self.fixed.config.entry_points;
        let explicit = entries.iter().any(|entry| entry.as_default);
        let index: HashMap<&str, usize> =
            entries.iter().enumerate().map(|(at, entry)| (entry.name.as_str(), at)).collect();
        let defaults: Vec<usize> = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| if explicit { entry.as_default } else { entry.name != "traefik" })
            .map(|(at, _)| at)
            .collect();
        let mut attached: Vec<Vec<Attached<'a>>> = vec![Vec::new(); entries.len()];
        let config = self.config;
        for (name, router) in config.routers.iter().filter(|(_, router)| router.parents.is_empty()) {
            if router.entry_points.is_empty() {
                let elsewhere = defaults.len() > 1;
                for at in &defaults {
                    attached[*at].push(Attached { name, router, elsewhere, internal: None });
                }
                continue;
            }
            let known: Vec<usize> =
                router.entry_points.iter().filter_map(|entry| index.get(entry.as_str()).copied()).collect();
            if known.is_empty() {
                // One that is unknown beside others costs nothing (reference 2.1).
                let missing: Vec<_> = router
                    .entry_points
                    .iter()
                    .map(|entry| format!("entryPoint {entry:?} doesn't exist"))
                    .collect();
                self.fail(Kind::Router, name, missing.join("; "));
            }
            let elsewhere = router.entry_points.len() > 1;
            for at in known {
                attached[at].push(Attached { name, router, elsewhere, internal: None });
            }
        }
        for own in internal {
            let InternalRouter { name, router, .. } = own;
            for at in router.entry_points.iter().filter_map(|entry| index.get(entry.as_str())) {
                attached[*at].push(Attached { name, router, elsewhere: false, internal: Some(own) });
            }
        }
        attached
    }

    fn entry_point(&mut self, entry: &EntryPoint, routers: Vec<Attached<'a>>) -> EntryRoutes {
        let mut plain = Vec::new();
        let mut secure = Vec::new();
        // Host to options name; `None` where two routers disagree.
        let mut options: HashMap<String, Option<String>> = HashMap::new();
        let mut built = Vec::with_capacity(routers.len());
        let fallback = self.fallback_options(entry);
        for attached in routers {
            let router = attached.router;
            let tls = Self::wanted_options(entry, attached.name, router, &fallback);
            if let Some(wanted) = tls.as_deref() {
                for host in router.rule.hosts() {
                    options
                        .entry(host)
                        .and_modify(|known| {
                            if known.as_deref() != Some(wanted) {
                                *known = None;
                            }
                        })
                        .or_insert_with(|| Some(wanted.to_owned()));
                }
            }
            if let Some(route) = self.router(Some(entry), attached, tls.as_deref()) {
                built.push((route, router, tls));
            }
        }
        for (route, router, tls) in built {
            let mut route = route;
            if self.fixed.config.core.strict_tls_options
                && tls.is_some()
                && router.rule.hosts().iter().any(|host| options.get(host).is_some_and(Option::is_none))
            {
                let message = "router's TLSOptions configuration is conflicting with other routers on the same \
                               entrypoint and host";
                self.fail(Kind::Router, &route.name, message);
                continue;
            }
            if let (Some(own), Some(this)) = (&tls, Arc::get_mut(&mut route)) {
                let effective =
                    self.effective_options(&this.name, &router.rule.hosts(), own, &options, &fallback);
                let wanted = self.config.tls.options.get(effective);
                let client_auth = wanted.and_then(|options| options.client_auth.as_ref());
                this.proof = client_auth.map_or(Proof::Nothing, |auth| Proof::wanted(auth.kind));
                this.tls_options = Some(effective.into());
            }
            self.routes.insert(route.name.to_string(), Arc::clone(&route));
            let rank = self.rank(&route.name);
            let entry = route::Route {
                rule: Arc::clone(&router.rule),
                priority: router.priority,
                rank,
                value: route,
            };
            if tls.is_some() { secure.push(entry) } else { plain.push(entry) }
        }
        let default_profile = self.tls.options(&fallback);
        // A host that has what others have anyway is named only where a wildcard would give it something else.
        let wildcards = options.iter().any(|(host, name)| {
            host.starts_with("*.") && name.as_deref().is_some_and(|name| name != fallback)
        });
        let profiles = options
            .into_iter()
            .filter_map(|(host, name)| {
                let name = name.as_deref().unwrap_or(&fallback);
                (wildcards || name != fallback).then(|| (host, self.tls.options(name)))
            })
            .collect();
        EntryRoutes {
            plain: route::RouteIndex::build(plain),
            secure: route::RouteIndex::build(secure),
            profiles,
            default_profile,
        }
    }

    /// The options of connections whose server name no router claims, or two dispute: those of the entry point.
    fn fallback_options(&self, entry: &EntryPoint) -> String {
        let own = entry.http.tls.as_ref().map_or(DEFAULT_OPTIONS, options_name);
        let known = &self.config.tls.options;
        // Where they are missing the routers that want them are left out; others still have theirs.
        if known.contains_key(own) {
            return own.to_owned();
        }
        // A name without a provider is for each router one of its own; for nobody's names if only one is called so.
        let is_called_so = |name: &&String| name.split_once('@').is_some_and(|(bare, _)| bare == own);
        let mut called = known.keys().filter(is_called_so);
        called
            .next()
            .filter(|_| called.next().is_none())
            .cloned()
            .unwrap_or_else(|| DEFAULT_OPTIONS.to_owned())
    }

    /// The TLS options that a router asks for by itself, or by its entry point; `None` where it is without TLS.
    fn wanted_options<'e>(
        entry: &'e EntryPoint,
        name: &str,
        router: &'e dynamic::Router,
        fallback: &str,
    ) -> Option<Cow<'e, str>> {
        if let Some(own) = &router.tls {
            return Some(options_name(own).into());
        }
        let of_entry = options_name(entry.http.tls.as_ref()?);
        Some(if of_entry == DEFAULT_OPTIONS || of_entry.contains('@') {
            of_entry.into()
        } else if name.ends_with("@internal") && fallback != DEFAULT_OPTIONS {
            // Nobody can define any for those.
            fallback.to_owned().into()
        } else {
            qualify(of_entry, name).into()
        })
    }

    /// The options a router's connections must have: its own, unless its hosts are disputed or it names none
    /// (reference: both fall back to the default options). Those that require a client certificate are never
    /// given up: rather nobody gets in than everybody.
    fn effective_options<'t>(
        &self,
        router: &str,
        hosts: &[String],
        own: &'t str,
        options: &HashMap<String, Option<String>>,
        fallback: &'t str,
    ) -> &'t str {
        let agreed =
            !hosts.is_empty() && hosts.iter().all(|host| options.get(host).is_some_and(Option::is_some));
        if agreed || own == fallback {
            return own;
        }
        let auth = self.config.tls.options.get(own).and_then(|options| options.client_auth.as_ref());
        if !auth.is_some_and(|auth| auth.kind.requires_certificate()) {
            // A rule that names no host has a problem of its own, with its place.
            if !hosts.is_empty() {
                tracing::warn!(
                    routerName = router,
                    tlsOptions = own,
                    applied = fallback,
                    "the TLS options of this router do not apply: another router of its host wants other TLS options"
                );
            }
            return fallback;
        }
        tracing::warn!(
            routerName = router,
            tlsOptions = own,
            "no connection is sure to have the client certificate that this router requires, others get 421: its rule \
             names no host, or another router of that host wants other TLS options"
        );
        own
    }

    /// On an entry point, or behind another router.
    fn router(
        &mut self,
        entry: Option<&EntryPoint>,
        attached: Attached<'a>,
        options: Option<&str>,
    ) -> Option<Arc<Route>> {
        let Attached { name, router, elsewhere, internal } = attached;
        if let Some(options) = options
            && self.tls.options(options).is_none()
        {
            // Options that are there and broken are told by themselves.
            if !self.config.tls.options.contains_key(options) {
                // What an entry point lacks is no fault of the router, which others may lead to.
                let unknown = format!("unknown TLS options: {options}");
                match (&router.tls, entry) {
                    (None, Some(EntryPoint { name, .. })) => {
                        self.fail(
                            Kind::TlsOptions,
                            options,
                            format!("{unknown}, named by the entry point {name}"),
                        );
                    }
                    _ => self.fail(Kind::Router, name, unknown),
                }
            }
            return None;
        }
        let own = internal.map(|own| own.target);
        let named = || Internal::find(&router.service, &self.fixed.config);
        let target = match own.or_else(|| named().filter(|_| !self.layers.is_parent(name))) {
            Some(internal) => Target::Internal(internal),
            None if self.layers.is_parent(name) => Target::Children(self.children(name)?),
            None if router.service.is_empty() => {
                self.fail(Kind::Router, name, "router has no service and no child routers");
                return None;
            }
            None => match self.node((Kind::Router, name), &router.service)? {
                Node::Service(service) => Target::Service(service),
                Node::Composite(composite) => Target::Composite(composite),
                node @ Node::Chained(_) => Target::Within(node),
            },
        };
        let apart = entry.filter(|entry| elsewhere && self.fixed.config.shapes_routers(entry));
        let shown = apart.map_or_else(|| name.to_owned(), |entry| format!("{}-{name}", entry.name));
        let mut names = Vec::new();
        let before = entry.map_or(&[][..], |entry| &entry.http.middlewares);
        for middleware in before.iter().chain(&router.middlewares) {
            let qualified = qualify(middleware, name);
            if let Err(message) = self.flatten(&qualified, &mut names) {
                // As above: the fault is the entry point's.
                if router.middlewares.contains(middleware) {
                    self.fail(Kind::Router, name, message);
                } else {
                    self.fail(Kind::Middleware, &qualified, message);
                }
                return None;
            }
        }
        // What is of the service comes last, and is the same whichever router leads there.
        let own = names.len();
        let mut shared = None;
        if !self.layers.is_parent(name) && !self.config.middlewares_of(&router.service).is_empty() {
            let chain = self.service_chain(&router.service)?;
            names.extend_from_slice(&chain.names);
            shared = Some(chain);
        }
        // The same router on an entry point before this one, else in the snapshot before.
        let earlier = || self.previous.and_then(|snapshot| snapshot.routes.get(&shown));
        let before = self.routes.get(&shown).or_else(earlier).cloned();
        let mut middlewares = Vec::with_capacity(names.len() + 2);
        middlewares
            .extend(entry.and_then(|entry| entry.http.encoded_characters).map(Middleware::EncodedCharacters));
        for (at, middleware) in names.iter().enumerate() {
            let kept = match at.checked_sub(own) {
                None => before.as_ref().and_then(|route| route.middleware(at, middleware)),
                Some(at) => shared.as_ref().and_then(|chain| chain.middlewares.get(at)),
            };
            middlewares.push(self.middleware((Kind::Router, name), middleware, kept)?);
        }
        let redirect = internal.and_then(|own| own.redirect.as_ref());
        middlewares.extend(redirect.map(|options| Middleware::RedirectScheme(RedirectScheme::new(options))));
        // Redirections are the users' traffic, unlike the other internal routers': logged and counted.
        let users = redirect.is_some() || !matches!(target, Target::Internal(_));
        let observed =
            router.observability.or(entry.and_then(|entry| entry.observability).unwrap_or_default());
        let tracing = self.fixed.config.tracing.as_ref().filter(|tracing| users || tracing.add_internals);
        let tracing = tracing.and_then(|_| observed.traces());
        // A router behind others is shown where the first one is.
        let shows_itself = tracing == Some(dynamic::TraceVerbosity::Detailed)
            || (tracing.is_some() && !router.parents.is_empty());
        Some(Arc::new(Route {
            name: shown.as_str().into(),
            label: self.fixed.metrics.label(metrics::Kind::Router, &shown),
            service: match &target {
                Target::Service(service) => service.label,
                Target::Composite(composite) => composite.label,
                Target::Within(_) => self.fixed.metrics.label(metrics::Kind::Service, &router.service),
                Target::Internal(own) => self.fixed.metrics.label(metrics::Kind::Service, own.name()),
                // As Traefik calls it.
                Target::Children(_) => {
                    self.fixed.metrics.label(metrics::Kind::Service, &format!("{shown}-muxer"))
                }
            },
            middlewares: middlewares.into(),
            access_log: observed.access_logs.unwrap_or(true) && (users || self.logs_internals()),
            metrics: observed.metrics.unwrap_or(true) && (users || self.counts_internals()),
            tracing,
            shown: shows_itself.then(|| {
                let service = match &target {
                    Target::Children(_) => format!("{shown}-muxer"),
                    _ => router.service.clone(),
                };
                Box::new((router.rule_text.clone(), service))
            }),
            target,
            tls_options: None,
            proof: Proof::Nothing,
            names,
        }))
    }

    /// One instance, with its live state taken over from `kept`.
    pub(super) fn middleware(
        &mut self,
        user: (Kind, &str),
        name: &str,
        kept: Option<&Middleware>,
    ) -> Option<Middleware> {
        let (mut pages, mut auth_server) = (None, None);
        match &self.config.middlewares[name] {
            dynamic::Middleware::Errors(errors) => pages = Some(self.part(user, &errors.service)?),
            dynamic::Middleware::ForwardAuth(auth) => auth_server = Some(self.auth_server(name, auth)?),
            _ => {}
        }
        let (metrics, now) = (&self.fixed.metrics, self.now);
        let build = middleware::Build { name, previous: kept, metrics, now, auth_server, pages };
        match Middleware::compile(&self.config.middlewares[name], &build) {
            Ok(compiled) => Some(compiled),
            Err(message) => {
                self.fail(Kind::Middleware, name, message);
                None
            }
        }
    }

    fn logs_internals(&self) -> bool {
        self.fixed.config.access_log.as_ref().is_some_and(|log| log.add_internals)
    }

    fn counts_internals(&self) -> bool {
        self.fixed.config.metrics.as_ref().is_some_and(|metrics| metrics.add_internals)
            || self.fixed.config.metric_exports.add_internals
    }

    /// `user` names it.
    pub(super) fn service(&mut self, user: (Kind, &str), name: &str) -> Option<Arc<Service>> {
        if let Some(service) = self.services.get(name) {
            return Some(Arc::clone(service));
        }
        let (Some(config), Some(live)) = (self.config.services.get(name), self.live.get(name)) else {
            self.fail(user.0, user.1, format!("the service {name:?} does not exist"));
            return None;
        };
        let Some((_, transport)) = self.transports.get(&config.servers_transport) else {
            let message = format!("serversTransport {:?} does not exist", config.servers_transport);
            self.fail(Kind::Service, name, message);
            return None;
        };
        let transport = Arc::clone(transport);
        let before = self.previous.and_then(|snapshot| snapshot.services.get(name));
        let service_label = self.fixed.metrics.label(metrics::Kind::Service, name);
        let shared_name: Arc<str> = name.into();
        // Service::new keeps the order of its members, so an index means the same in both.
        let endpoints: Box<[Arc<Endpoint>]> = config
            .servers
            .iter()
            .map(|server| {
                let kept = before.and_then(|service| {
                    service.endpoints.iter().find(|endpoint| endpoint.is_same(server, &transport))
                });
                kept.map(Arc::clone).unwrap_or_else(|| {
                    let id = NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed);
                    let label = self.fixed.metrics.label(metrics::Kind::Server, &server.url);
                    let service = (Arc::clone(&shared_name), service_label);
                    Arc::new(Endpoint::new(id, server, label, service, Arc::clone(&transport)))
                })
            })
            .collect();
        self.endpoints.extend(endpoints.iter().map(|endpoint| endpoint.id));
        let budget = match before {
            Some(before) => Arc::clone(&before.retries.budget),
            None => Arc::new(RetryBudget::new(self.now)),
        };
        let limited = config.servers.iter().any(|server| server.max_connections.is_some());
        let queue = limited.then(|| {
            self.fixed.metrics.queue(service_label);
            Queue { settings: config.queue, refused: Report::default() }
        });
        let probed = config.health_check.as_ref().map(|check| check.unhealthy_interval);
        let service = Arc::new(Service {
            name: shared_name,
            label: service_label,
            live: Arc::clone(live),
            endpoints,
            sticky: config.cookie().cloned(),
            pass_host_header: config.pass_host_header,
            judged: config.passive_health_check.is_some() || config.outlier_detection.is_some(),
            retries: Retries { settings: config.retry_budget, budget, refused: Report::default() },
            queue,
            retry_after: probed.map_or(1, whole_seconds),
        });
        self.services.insert(name.to_owned(), Arc::clone(&service));
        Some(service)
    }

    /// Place of a router's provider among equal priorities.
    fn rank(&self, name: &str) -> u32 {
        let provider = name.rsplit_once('@').map_or("", |(_, provider)| provider);
        if provider == "internal" {
            return u32::MAX;
        }
        let precedence = &self.fixed.config.providers.precedence;
        precedence.iter().position(|known| known == provider).map_or(u32::MAX - 1, |at| at as u32)
    }
}

fn options_name(tls: &RouterTls) -> &str {
    if tls.options.is_empty() { DEFAULT_OPTIONS } else { &tls.options }
}

/// `name@provider` as it stands, else in the provider of whoever refers to it.
pub(super) fn qualify(name: &str, referrer: &str) -> String {
    if name.contains('@') {
        return name.to_owned();
    }
    match referrer.rsplit_once('@') {
        Some((_, provider)) => format!("{name}@{provider}"),
        None => name.to_owned(),
    }
}
