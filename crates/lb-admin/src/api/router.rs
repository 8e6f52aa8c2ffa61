//! Routers: `/api/http/routers`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use lb_config::Kind;
use lb_config::dynamic::{self, Observability, RouterTls, TraceVerbosity};
use lb_config::static_config::{EntryPoint, StaticConfig};
use lb_core::route::{Rule, Syntax};
use serde_json::Value;

use super::object::Object;
use super::{Model, internal, list, provider};
use crate::Response;
use crate::query::Query;

/// A router as it is in force: with the defaults that its entry point adds.
pub(super) struct Router<'v> {
    pub(super) name: Cow<'v, str>,
    entry_points: Vec<Cow<'v, str>>,
    /// Qualified names.
    middlewares: Vec<Cow<'v, str>>,
    /// Qualified; empty for one that was left out.
    pub(super) service: &'v str,
    rule: Cow<'v, str>,
    /// Of those that somebody wrote.
    parsed: Option<&'v Rule>,
    rule_syntax: &'v str,
    /// Empty for those that entry points lead to.
    parents: Vec<Cow<'v, str>>,
    priority: i64,
    tls: Option<&'v RouterTls>,
    /// Not that of its entry point.
    has_own_tls: bool,
    observability: Observability,
    status: &'static str,
    /// Its last good version, kept because the newest is broken.
    stale: bool,
    errors: Vec<Cow<'v, str>>,
}

pub(super) fn resolve<'v>(model: &Model<'v>) -> Vec<Router<'v>> {
    let view = model.view;
    let written = view.config.routers.iter().flat_map(|(name, router)| configured(model, name, router));
    let own = internal::routers(&view.static_config).into_iter().map(|router| {
        let entry_point =
            view.static_config.entry_points.iter().find(|ep| router.entry_points.first() == Some(&ep.name));
        let before = Before::new(entry_point, &router.name);
        let lack = before.lack(model);
        Router {
            name: router.name.into(),
            entry_points: router.entry_points.into_iter().map(Cow::from).collect(),
            service: router.service,
            rule: router.rule.into(),
            parsed: None,
            rule_syntax: "default",
            parents: Vec::new(),
            priority: router.priority,
            observability: before.observability,
            tls: before.tls,
            has_own_tls: false,
            middlewares: before.middlewares,
            status: if lack.is_some() { "disabled" } else { "enabled" },
            stale: false,
            errors: cows(lack.unwrap_or_default()),
        }
    });
    let left_out = model.left_out(Kind::Router, |name| view.config.routers.contains_key(name));
    let left_out = left_out.flat_map(|name| {
        if let Some(router) = view.left_out.routers.get(name) {
            return configured(model, name, router);
        }
        vec![Router {
            name: name.into(),
            entry_points: Vec::new(),
            middlewares: Vec::new(),
            service: "",
            rule: "".into(),
            parsed: None,
            rule_syntax: "",
            parents: Vec::new(),
            priority: 0,
            tls: None,
            has_own_tls: false,
            observability: Observability::default(),
            status: "disabled",
            stale: false,
            errors: cows(model.errors(Kind::Router, name)),
        }]
    });
    let mut routers: Vec<_> = written.chain(own).chain(left_out).collect();
    routers.sort_by(|a, b| a.name.cmp(&b.name));
    warn_of_disputes(&mut routers);
    warn_of_options_without_a_host(&mut routers, &view.static_config);
    routers
}

fn cows<'v>(texts: &[&'v str]) -> Vec<Cow<'v, str>> {
    texts.iter().map(|text| Cow::from(*text)).collect()
}

/// What a connection is to have is decided before there is a request: without a host nobody knows. Those of its entry
/// point it has anyway.
fn warn_of_options_without_a_host(routers: &mut [Router<'_>], fixed: &StaticConfig) {
    for router in routers.iter_mut().filter(|router| router.status != "disabled" && router.has_own_tls) {
        let options = router.tls_options();
        let bare = options.split_once('@').map_or(options, |(name, _)| name);
        let is_its = |entry: &EntryPoint| {
            entry.http.tls.as_ref().is_some_and(|tls| tls.options == options || tls.options == bare)
        };
        let at = |entry: &&EntryPoint| router.entry_points.iter().any(|name| *name == entry.name);
        let is_unbound = router.parsed.is_some_and(|rule| rule.hosts().is_empty());
        if !is_unbound || options.is_empty() || fixed.entry_points.iter().filter(at).any(is_its) {
            continue;
        }
        let rule = &router.rule;
        let words = format!("no domain found in rule {rule}, the TLS option {options} cannot be applied");
        router.status = "warning";
        router.errors.push(words.into());
    }
}

/// A connection has one set of TLS options, chosen by its host: where routers of an entry point want different ones, all
/// of them get the default ones, as in Traefik.
fn warn_of_disputes(routers: &mut [Router<'_>]) {
    let is_served = |router: &&Router<'_>| router.status != "disabled" && router.tls.is_some();
    let mut all: Vec<_> = routers.iter().filter(is_served).map(Router::tls_options).collect();
    all.sort_unstable();
    all.dedup();
    if all.len() < 2 {
        return;
    }
    // Entry point and host to options; `None` where two routers disagree.
    let mut wanted: HashMap<(&str, String), Option<&str>> = HashMap::new();
    for router in routers.iter().filter(is_served) {
        for place in router.places() {
            let options = router.tls_options();
            let known = wanted.entry(place).or_insert(Some(options));
            *known = known.filter(|known| *known == options);
        }
    }
    let is_disputed = |router: &Router<'_>| {
        is_served(&router)
            && router.places().iter().any(|place| wanted.get(place).is_some_and(Option::is_none))
    };
    let disputed: Vec<_> = routers.iter().map(is_disputed).collect();
    for (router, _) in routers.iter_mut().zip(disputed).filter(|(_, is_disputed)| *is_disputed) {
        router.status = "warning";
        router.errors.push(
            "router's TLSOptions configuration is conflicting with other routers on the same entrypoint and host, default TLS \
             options will be used instead"
                .into(),
        );
    }
}

/// One router; more when an entry point with settings of its own is among several: as in Traefik the copy
/// for that entry point is a router by itself, `<entry point>-<router>`.
fn configured<'v>(model: &Model<'v>, written: &'v str, router: &'v dynamic::Router) -> Vec<Router<'v>> {
    let fixed = &*model.view.static_config;
    let entry_points: Vec<Cow<'v, str>> = match &router.entry_points[..] {
        [] => default_entry_points(fixed).map(Cow::from).collect(),
        named => named.iter().map(|name| name.as_str().into()).collect(),
    };
    let settings = |name: &str| {
        fixed.entry_points.iter().find(|ep| ep.name == name).filter(|ep| fixed.shapes_routers(ep))
    };
    let single =
        |name: Cow<'v, str>, entry_points: Vec<Cow<'v, str>>, entry_point: Option<&'v EntryPoint>| {
            let mut before = Before::new(entry_point, &name);
            if router.tls.is_some() {
                before.tls = router.tls.as_ref();
            }
            let lack = before.lack(model);
            let (own, default) = (router.observability, before.observability);
            before.middlewares.extend(router.middlewares.iter().map(|m| qualified(m, &name)));
            Router {
                middlewares: before.middlewares,
                entry_points,
                service: &router.service,
                rule: router.rule_text.as_str().into(),
                parsed: Some(&router.rule),
                rule_syntax: syntax(fixed, &router.rule_syntax),
                parents: router.parents.iter().flat_map(|parent| names(model, parent)).collect(),
                priority: router.priority,
                tls: before.tls,
                has_own_tls: router.tls.is_some(),
                observability: own.or(default),
                status: if lack.is_some() { "disabled" } else { model.status(Kind::Router, written) },
                stale: model.is_stale(Kind::Router, written),
                // What its own options lack is told of the router.
                errors: cows(
                    lack.filter(|reasons| !reasons.is_empty())
                        .unwrap_or_else(|| model.errors(Kind::Router, written)),
                ),
                name,
            }
        };
    if !router.parents.is_empty() {
        return vec![single(written.into(), Vec::new(), None)];
    }
    let (mut apart, together): (Vec<_>, Vec<_>) =
        entry_points.into_iter().partition(|entry_point| settings(entry_point).is_some());
    let mut routers = Vec::new();
    if together.is_empty() && apart.len() == 1 {
        let entry_point = settings(&apart[0]);
        routers.push(single(written.into(), apart, entry_point));
    } else {
        for entry_point in apart.drain(..) {
            let settings = settings(&entry_point);
            routers.push(single(format!("{entry_point}-{written}").into(), vec![entry_point], settings));
        }
        if !together.is_empty() || routers.is_empty() {
            routers.push(single(written.into(), together, None));
        }
    }
    routers
}

/// A router's name, or those of its copies.
fn names<'v>(model: &Model<'v>, router: &'v str) -> Vec<Cow<'v, str>> {
    let written = model.view.config.routers.get(router).filter(|router| router.parents.is_empty());
    let copies = written.map(|written| configured(model, router, written));
    let mut names: Vec<_> = copies.into_iter().flatten().map(|copy| copy.name).collect();
    if names.is_empty() {
        names.push(router.into());
    }
    names.sort();
    names
}

/// The syntax of a rule: what its router names, or else the static file.
pub(super) fn syntax<'w>(fixed: &StaticConfig, written: &'w str) -> &'w str {
    match fixed.core.default_rule_syntax {
        _ if !written.is_empty() => written,
        Some(Syntax::V2) => "v2",
        Some(Syntax::V3) => "v3",
        None => "",
    }
}

/// What a router gets from its entry point.
struct Before<'v> {
    /// Qualified names.
    middlewares: Vec<Cow<'v, str>>,
    tls: Option<&'v RouterTls>,
    observability: Observability,
}

impl<'v> Before<'v> {
    fn new(entry_point: Option<&'v EntryPoint>, router: &str) -> Self {
        let http = entry_point.map(|entry_point| &entry_point.http);
        Self {
            middlewares: http
                .map_or(&[][..], |http| &http.middlewares)
                .iter()
                .map(|m| qualified(m, router))
                .collect(),
            tls: http.and_then(|http| http.tls.as_ref()),
            observability: entry_point.and_then(|entry_point| entry_point.observability).unwrap_or_default(),
        }
    }

    /// Why the router is left out, if something of this is missing.
    fn lack<'m>(&self, model: &'m Model<'v>) -> Option<&'m [&'v str]> {
        let config = &model.view.config;
        if let Some(missing) = self.middlewares.iter().find(|name| !config.middlewares.contains_key(&***name))
        {
            return Some(model.errors(Kind::Middleware, missing));
        }
        let options = self.tls.map_or("", |tls| &tls.options);
        let known = matches!(options, "" | "default") || config.tls.options.contains_key(options);
        (!known).then(|| model.errors(Kind::TlsOptions, options))
    }
}

/// Entry points name middlewares of the router's own provider, unless they say which.
fn qualified<'v>(middleware: &'v str, router: &str) -> Cow<'v, str> {
    if middleware.contains('@') {
        middleware.into()
    } else {
        format!("{middleware}@{}", provider(router)).into()
    }
}

/// Where routers attach that name no entry point.
pub(super) fn default_entry_points(fixed: &StaticConfig) -> impl Iterator<Item = &str> {
    let chosen = fixed.entry_points.iter().any(|entry_point| entry_point.as_default);
    let is_default = move |as_default: bool, name: &str| if chosen { as_default } else { name != "traefik" };
    fixed.entry_points.iter().filter(move |ep| is_default(ep.as_default, &ep.name)).map(|ep| ep.name.as_str())
}

impl Router<'_> {
    fn tls_options(&self) -> &str {
        self.tls.map(|tls| &*tls.options).filter(|options| *options != "default").unwrap_or_default()
    }

    /// Each entry point with each host.
    fn places(&self) -> Vec<(&str, String)> {
        let hosts = self.parsed.map(Rule::hosts).unwrap_or_default();
        let at =
            |host: String| self.entry_points.iter().map(move |entry_point| (&**entry_point, host.clone()));
        hosts.into_iter().flat_map(at).collect()
    }

    pub(super) fn middlewares(&self) -> Vec<&str> {
        self.middlewares.iter().map(|name| &**name).collect()
    }

    /// Without the provider when that is the router's own, as people write it.
    fn service_text(&self) -> &str {
        match self.service.rsplit_once('@') {
            Some((name, of)) if of == provider(&self.name) && of != "internal" => name,
            _ => self.service,
        }
    }

    fn body(&self) -> Object {
        let mut using = self.entry_points.to_vec();
        using.sort();
        let own = if self.has_own_tls { provider(&self.name) } else { "" };
        Object::new()
            .list("entryPoints", &self.entry_points)
            .list("middlewares", &self.middlewares)
            .text("service", self.service_text())
            .text("rule", &self.rule)
            .text("ruleSyntax", self.rule_syntax)
            .list("parentRefs", &self.parents)
            .number("priority", self.priority)
            .some("tls", self.tls.map(|tls| self::tls(tls, "default", own)))
            .some("observability", self.parents.is_empty().then(|| observability(self.observability)))
            .list("error", &self.errors)
            .set("status", self.status)
            .flag("stale", self.stale)
            .list("using", &using)
    }

    fn full(&self) -> Value {
        self.body()
            .set("name", &*self.name)
            .set("provider", provider(&self.name))
            .set("priorityStr", self.priority.to_string())
            .build()
    }

    fn is_wanted(&self, query: &Query) -> bool {
        let middleware =
            query.get("middlewareName").is_none_or(|name| self.middlewares.iter().any(|m| m == name));
        list::is_of_service(query, &self.name, self.service)
            && middleware
            && list::has_status(query, self.status)
            && list::is_sought(query, &[&self.name, &self.rule])
    }
}

/// What is not said is on.
pub(super) fn observability(settings: Observability) -> Value {
    let detailed = settings.trace_verbosity == Some(TraceVerbosity::Detailed);
    Object::new()
        .set("accessLogs", settings.access_logs.unwrap_or(true))
        .set("metrics", settings.metrics.unwrap_or(true))
        .set("tracing", settings.tracing.unwrap_or(true))
        .set("traceVerbosity", if detailed { "detailed" } else { "minimal" })
        .build()
}

/// `tls` of routers, which have options always, and of entry points, which may leave them open. Options of the provider
/// `own` go without it, as people write them.
pub(super) fn tls(tls: &RouterTls, unnamed: &str, own: &str) -> Value {
    let domain = |domain: &dynamic::Domain| {
        Object::new().text("main", &domain.main).list("sans", &domain.sans).build()
    };
    let options = match tls.options.rsplit_once('@') {
        Some((name, provider)) if provider == own => name,
        None if tls.options.is_empty() || tls.options == "default" => unnamed,
        _ => &tls.options,
    };
    let object = Object::new()
        .text("options", options)
        .text("certResolver", tls.cert_resolver.as_deref().unwrap_or_default());
    match &tls.domains[..] {
        [] => object.build(),
        domains => object.set("domains", domains.iter().map(domain).collect::<Vec<_>>()).build(),
    }
}

pub(super) fn list(model: &Model<'_>, query: &Query) -> Response {
    let mut wanted: Vec<_> = model.routers().iter().filter(|router| router.is_wanted(query)).collect();
    let by = query.get("sortBy").unwrap_or("name");
    list::sort(
        &mut wanted,
        query,
        |router| &router.name,
        |a, b| match by {
            "provider" => provider(&a.name).cmp(provider(&b.name)),
            "priority" => a.priority.cmp(&b.priority),
            "status" => a.status.cmp(b.status),
            "rule" => a.rule.cmp(&b.rule),
            "service" => a.service_text().cmp(b.service_text()),
            "entryPoints" => a.entry_points.len().cmp(&b.entry_points.len()),
            _ => Ordering::Equal,
        },
    );
    list::page(wanted, query, Router::full)
}

pub(super) fn one(model: &Model<'_>, name: &str) -> Option<Value> {
    model.routers().iter().find(|router| router.name == name).map(Router::full)
}

pub(super) fn all<'m>(model: &'m Model<'_>) -> Vec<(&'m str, Object)> {
    model.routers().iter().map(|router| (&*router.name, router.body())).collect()
}

pub(super) fn statuses(model: &Model<'_>) -> Vec<&'static str> {
    model.routers().iter().map(|router| router.status).collect()
}
