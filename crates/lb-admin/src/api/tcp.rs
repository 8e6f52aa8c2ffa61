//! TCP routers, services and middlewares: `/api/tcp/...`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use lb_config::tcp::{HealthCheck, LoadBalancer, Middleware, ProxyVersion, Router, Service};
use lb_config::{Config, Kind};
use lb_core::health::Status;
use serde_json::{Map, Value};

use super::object::Object;
use super::router::{default_entry_points, syntax, tls};
use super::{Model, duration, list, provider};
use crate::Response;
use crate::operator;
use crate::query::Query;

struct Named<'m, T> {
    name: &'m str,
    /// `None`: it is broken, and cannot be read.
    config: Option<&'m T>,
    kind: Kind,
    status: &'static str,
}

/// Those of one kind.
fn named<'m, T>(
    model: &'m Model<'_>,
    kind: Kind,
    of: impl Fn(&'m Config) -> &'m BTreeMap<String, T>,
) -> Vec<Named<'m, T>> {
    let (all, unfit) = (of(&model.view.config), of(&model.view.left_out));
    let written = all.iter().map(|(name, config)| Named {
        name: name.as_str(),
        config: Some(config),
        kind,
        status: model.status(kind, name),
    });
    let left_out = model.left_out(kind, |name| all.contains_key(name));
    let left_out = left_out.map(|name| Named { name, config: unfit.get(name), kind, status: "disabled" });
    let mut named: Vec<_> = written.chain(left_out).collect();
    named.sort_by(|a, b| a.name.cmp(b.name));
    named
}

fn routers<'m>(model: &'m Model<'_>) -> Vec<Named<'m, Router>> {
    named(model, Kind::TcpRouter, |config| &config.tcp.routers)
}

fn services<'m>(model: &'m Model<'_>) -> Vec<Named<'m, Service>> {
    named(model, Kind::TcpService, |config| &config.tcp.services)
}

fn middlewares<'m>(model: &'m Model<'_>) -> Vec<Named<'m, Middleware>> {
    named(model, Kind::TcpMiddleware, |config| &config.tcp.middlewares)
}

impl<T> Named<'_, T> {
    /// What all kinds have in common, behind what they are.
    fn state(&self, object: Object, model: &Model<'_>, used_by: &[&str]) -> Object {
        object
            .list("error", model.errors(self.kind, self.name))
            .set("status", self.status)
            .flag("stale", model.is_stale(self.kind, self.name))
            .list("usedBy", used_by)
    }

    fn full(&self, object: Object, kind: &str) -> Object {
        object.set("name", self.name).set("provider", provider(self.name)).text("type", kind)
    }

    fn is_wanted(&self, query: &Query, text: &str) -> bool {
        list::has_status(query, self.status) && list::is_sought(query, &[self.name, text])
    }
}

/// Without the provider when that is the user's own, as people write it.
fn short<'s>(name: &'s str, user: &str) -> &'s str {
    name.rsplit_once('@').filter(|(_, of)| *of == provider(user)).map_or(name, |(short, _)| short)
}

fn entry_points<'m>(model: &'m Model<'_>, router: &'m Router) -> Vec<&'m str> {
    match &router.entry_points[..] {
        [] => default_entry_points(&model.view.static_config).collect(),
        named => named.iter().map(String::as_str).collect(),
    }
}

fn router_body(model: &Model<'_>, named: &Named<'_, Router>) -> Object {
    let Some(router) = named.config else { return named.state(Object::new(), model, &[]) };
    let mut using = entry_points(model, router);
    let object = Object::new()
        .list("entryPoints", &using)
        .list("middlewares", &router.middlewares)
        .set("service", short(&router.service, named.name))
        .set("rule", router.rule_text.as_str())
        .text("ruleSyntax", syntax(&model.view.static_config, &router.rule_syntax))
        .number("priority", router.priority)
        .some(
            "tls",
            router.tls.as_ref().map(|written| {
                let mut shown = tls(&written.terminated, "", provider(named.name));
                if let Value::Object(shown) = &mut shown {
                    shown.insert("passthrough".to_owned(), written.passthrough.into());
                }
                shown
            }),
        );
    using.sort_unstable();
    named.state(object, model, &[]).list("using", &using)
}

fn router_full(model: &Model<'_>, named: &Named<'_, Router>) -> Value {
    let priority = named.config.map_or(0, |router| router.priority);
    named.full(router_body(model, named), "").set("priorityStr", priority.to_string()).build()
}

/// For each service or middleware, the routers that name it, those that are left out included, sorted.
type Users<'m> = HashMap<&'m str, Vec<&'m str>>;

fn users_of_services<'m>(model: &'m Model<'_>) -> Users<'m> {
    users(model, |router| std::slice::from_ref(&router.service))
}

fn users_of_middlewares<'m>(model: &'m Model<'_>) -> Users<'m> {
    users(model, |router| &router.middlewares)
}

fn users<'m>(model: &'m Model<'_>, names: impl Fn(&'m Router) -> &'m [String]) -> Users<'m> {
    let mut users = Users::new();
    for Named { name, config, .. } in routers(model) {
        for used in config.map(&names).unwrap_or_default() {
            let of = users.entry(used).or_default();
            if of.last() != Some(&name) {
                of.push(name);
            }
        }
    }
    users
}

fn service_kind(service: &Service) -> &'static str {
    match service {
        Service::LoadBalancer(_) => "loadBalancer",
        Service::Weighted(_) => "weighted",
    }
}

fn service_body(model: &Model<'_>, named: &Named<'_, Service>, users: &Users<'_>) -> Object {
    let object = match named.config {
        None => Object::new(),
        Some(Service::LoadBalancer(balancer)) => Object::new().set("loadBalancer", load_balancer(balancer)),
        Some(Service::Weighted(weighted)) => {
            let child = |child: &lb_config::tcp::WeightedChild| {
                Object::new().set("name", child.written.as_str()).set("weight", child.weight).build()
            };
            let children: Vec<_> = weighted.services.iter().map(child).collect();
            let object = Object::new().set("services", children);
            let object = if weighted.health_check { object.set("healthCheck", Map::new()) } else { object };
            Object::new().set("weighted", object.build())
        }
    };
    let live = model.view.tcp.get(named.name).map(|live| {
        let status = |out| if out { "DOWN" } else { "UP" };
        let servers = live.servers();
        let servers = servers.map(|(server, _)| {
            (server.url().to_owned(), status(server.status() == Status::Unhealthy).into())
        });
        Value::Object(servers.collect())
    });
    let users = users.get(named.name).map_or(&[][..], Vec::as_slice);
    named.state(object, model, users).object("serverStatus", live.unwrap_or_else(|| Map::new().into()))
}

fn service_full(model: &Model<'_>, named: &Named<'_, Service>, users: &Users<'_>) -> Value {
    let kind = named.config.map(|config| service_kind(config).to_ascii_lowercase());
    let details = model.view.tcp.get(named.name).map(|live| {
        let servers = live.servers();
        let servers =
            servers.map(|(server, weight)| operator::server(model.view, named.name, server, weight).build());
        servers.collect::<Vec<_>>()
    });
    let object = named.full(service_body(model, named, users), &kind.unwrap_or_default());
    object.some("serverDetails", details).build()
}

fn load_balancer(config: &LoadBalancer) -> Value {
    let server = |server: &lb_config::tcp::Server| {
        Object::new().set("address", server.address.as_str()).flag("tls", server.tls).build()
    };
    let object = match &config.servers[..] {
        [] => Object::new(),
        servers => Object::new().set("servers", servers.iter().map(server).collect::<Vec<_>>()),
    };
    let delay = config
        .termination_delay
        .map(|delay| delay.map_or(-1, |delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)));
    object
        .text("serversTransport", config.servers_transport.as_deref().unwrap_or_default())
        .some(
            "proxyProtocol",
            config.proxy_protocol.map(|version| {
                Object::new().set("version", if version == ProxyVersion::V1 { 1 } else { 2 }).build()
            }),
        )
        .some("terminationDelay", delay)
        .some("healthCheck", config.health_check.as_ref().map(health_check))
        .build()
}

fn health_check(check: &HealthCheck) -> Value {
    let unhealthy = Some(check.unhealthy_interval).filter(|interval| *interval != check.interval);
    Object::new()
        .some("port", check.port)
        .text("send", &check.send)
        .text("expect", &check.expect)
        .duration("interval", check.interval)
        .some("unhealthyInterval", unhealthy.map(duration::go_duration))
        .duration("timeout", check.timeout)
        .build()
}

fn middleware_kind(middleware: &Middleware) -> &'static str {
    match middleware {
        Middleware::InFlightConn { .. } => "inFlightConn",
        Middleware::IpAllowList { is_white_list: true, .. } => "ipWhiteList",
        Middleware::IpAllowList { .. } => "ipAllowList",
    }
}

fn middleware_body(model: &Model<'_>, named: &Named<'_, Middleware>, users: &Users<'_>) -> Object {
    let object = match named.config {
        None => Object::new(),
        Some(middleware) => {
            let options = match middleware {
                Middleware::InFlightConn { amount } => Object::new().set("amount", *amount),
                Middleware::IpAllowList { source_range, .. } => {
                    let texts: Vec<_> = source_range.iter().map(ToString::to_string).collect();
                    Object::new().list("sourceRange", &texts)
                }
            };
            Object::new().set(middleware_kind(middleware), options.build())
        }
    };
    named.state(object, model, users.get(named.name).map_or(&[][..], Vec::as_slice))
}

fn middleware_full(model: &Model<'_>, named: &Named<'_, Middleware>, users: &Users<'_>) -> Value {
    let kind = named.config.map(|config| middleware_kind(config).to_ascii_lowercase());
    named.full(middleware_body(model, named, users), &kind.unwrap_or_default()).build()
}

/// A list, sorted by what all kinds have: `more` compares by what they have besides.
fn page<'m, T>(
    query: &Query,
    mut wanted: Vec<Named<'m, T>>,
    more: impl Fn(&str, &T, &T) -> Ordering,
    show: impl Fn(&Named<'m, T>) -> Value,
) -> Response {
    let by = query.get("sortBy").unwrap_or("name");
    list::sort(
        &mut wanted,
        query,
        |named| named.name,
        |a, b| match by {
            "provider" => provider(a.name).cmp(provider(b.name)),
            "status" => a.status.cmp(b.status),
            // Of those that cannot be read nothing is known: they come first.
            _ => match (a.config, b.config) {
                (Some(a), Some(b)) => more(by, a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            },
        },
    );
    list::page(wanted, query, |named| show(&named))
}

/// `/api/tcp/<kind>`; `None`: there is no such kind.
pub(super) fn list(model: &Model<'_>, kind: &str, query: &Query) -> Option<Response> {
    Some(match kind {
        "routers" => {
            let mut wanted = routers(model);
            wanted.retain(|named| {
                let router = named.config;
                let asks = |key, is: &dyn Fn(&Router, &str) -> bool| {
                    query.get(key).is_none_or(|name| router.is_some_and(|router| is(router, name)))
                };
                named.is_wanted(query, router.map_or("", |router| &router.rule_text))
                    && router.map_or(query.get("serviceName").is_none(), |router| {
                        list::is_of_service(query, named.name, &router.service)
                    })
                    && asks("middlewareName", &|router, name| router.middlewares.iter().any(|m| m == name))
            });
            let more = |by: &str, a: &Router, b: &Router| match by {
                "priority" => a.priority.cmp(&b.priority),
                "rule" => a.rule_text.cmp(&b.rule_text),
                "service" => a.service.cmp(&b.service),
                "entryPoints" => entry_points(model, a).len().cmp(&entry_points(model, b).len()),
                _ => Ordering::Equal,
            };
            page(query, wanted, more, |named| router_full(model, named))
        }
        "services" => {
            let mut wanted = services(model);
            wanted.retain(|named| named.is_wanted(query, ""));
            let servers = |service: &Service| match service {
                Service::LoadBalancer(balancer) => balancer.servers.len(),
                Service::Weighted(_) => 0,
            };
            let more = |by: &str, a: &Service, b: &Service| match by {
                "type" => service_kind(a).cmp(service_kind(b)),
                "servers" => servers(a).cmp(&servers(b)),
                _ => Ordering::Equal,
            };
            let users = users_of_services(model);
            page(query, wanted, more, |named| service_full(model, named, &users))
        }
        "middlewares" => {
            let mut wanted = middlewares(model);
            wanted.retain(|named| named.is_wanted(query, ""));
            let more = |by: &str, a: &Middleware, b: &Middleware| match by {
                "type" => middleware_kind(a).cmp(middleware_kind(b)),
                _ => Ordering::Equal,
            };
            let users = users_of_middlewares(model);
            page(query, wanted, more, |named| middleware_full(model, named, &users))
        }
        _ => return None,
    })
}

/// `/api/tcp/<kind>/<name>`.
pub(super) fn one(model: &Model<'_>, kind: &str, name: &str) -> Option<Value> {
    match kind {
        "routers" => {
            routers(model).iter().find(|named| named.name == name).map(|named| router_full(model, named))
        }
        "services" => services(model)
            .iter()
            .find(|named| named.name == name)
            .map(|named| service_full(model, named, &users_of_services(model))),
        _ => middlewares(model)
            .iter()
            .find(|named| named.name == name)
            .map(|named| middleware_full(model, named, &users_of_middlewares(model))),
    }
}

/// For `/api/rawdata`: routers, middlewares, services.
pub(super) fn all<'m>(model: &'m Model<'_>) -> [(&'static str, Vec<(&'m str, Object)>); 3] {
    let (of_services, of_middlewares) = (users_of_services(model), users_of_middlewares(model));
    [
        ("tcpRouters", routers(model).iter().map(|named| (named.name, router_body(model, named))).collect()),
        (
            "tcpMiddlewares",
            middlewares(model)
                .iter()
                .map(|named| (named.name, middleware_body(model, named, &of_middlewares)))
                .collect(),
        ),
        (
            "tcpServices",
            services(model)
                .iter()
                .map(|named| (named.name, service_body(model, named, &of_services)))
                .collect(),
        ),
    ]
}

/// Of routers, services and middlewares.
pub(super) fn statuses(model: &Model<'_>) -> [Vec<&'static str>; 3] {
    [
        routers(model).iter().map(|named| named.status).collect(),
        services(model).iter().map(|named| named.status).collect(),
        middlewares(model).iter().map(|named| named.status).collect(),
    ]
}
