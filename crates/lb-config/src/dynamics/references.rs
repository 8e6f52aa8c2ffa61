//! Who names whom, and what becomes of objects that name something missing or broken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Draft, layers};
use crate::decode::Field;
use crate::docker::LABELLED;
use crate::document::Position;
use crate::dynamic::Config;
use crate::load::FILE;
use crate::problem::{Kind, Problem, Scope, printable, quoted};
use crate::statics::{PROVIDERS, REMOTE};
use crate::suggest;

/// One object names another.
pub(crate) struct Reference<'a> {
    from: (Kind, String),
    to: (Kind, String),
    at: Position,
    /// The field that names it.
    field: Field<'a>,
    /// `to` must have a health check.
    probed: bool,
}

impl Reference<'_> {
    /// Who names the other.
    pub(crate) fn from(&self) -> &(Kind, String) {
        &self.from
    }

    pub(super) fn place(&self) -> (Position, String) {
        (self.at, self.field.path())
    }

    /// From a router to its parent: the two names.
    pub(super) fn layers(&self) -> Option<(&str, &str)> {
        (self.to.0 == Kind::Router).then_some((&self.from.1, &self.to.1))
    }
}

/// The provider of what exists without being configured.
const INTERNAL: &str = "internal";

/// Middlewares that exist without being configured (reference 1.5).
const INTERNAL_MIDDLEWARES: [&str; 2] = ["dashboard_redirect", "dashboard_stripprefix"];

impl<'a> Draft<'a> {
    /// The name in `field`, qualified, remembered as a reference.
    pub(crate) fn reference(
        &mut self,
        kind: Kind,
        from: &str,
        to: Kind,
        field: &Field<'a>,
    ) -> Option<String> {
        let text = field.text()?;
        if text.value.is_empty() {
            text.error(format!("names no {to}"), None);
            return None;
        }
        Some(self.push_reference(kind, from, to, text.value, text.start(), text.field.clone()))
    }

    pub(crate) fn references(&mut self, kind: Kind, from: &str, to: Kind, field: &Field<'a>) -> Vec<String> {
        let texts = field.texts();
        texts
            .iter()
            .map(|text| self.push_reference(kind, from, to, text.value, text.start(), text.field.clone()))
            .collect()
    }

    pub(crate) fn refer(&mut self, kind: Kind, from: &str, to: Kind, name: &str, field: Field<'a>) {
        self.push_reference(kind, from, to, name, field.at(), field);
    }

    /// The service that was referred to last must have a health check.
    pub(crate) fn needs_health_check(&mut self) {
        if let Some(last) = self.references.last_mut() {
            last.probed = true;
        }
    }

    fn push_reference(
        &mut self,
        kind: Kind,
        from: &str,
        to: Kind,
        name: &str,
        at: Position,
        field: Field<'a>,
    ) -> String {
        let name = self.qualify(name);
        self.references.push(Reference {
            from: (kind, from.to_owned()),
            to: (to, name.clone()),
            at,
            field,
            probed: false,
        });
        name
    }
}

/// What a check takes out of a configuration.
#[derive(Default)]
pub(crate) struct Removed {
    pub(crate) waiting: Config,
    pub(crate) unfit: Config,
}

/// Reports references to nothing and cycles, and takes out of the configuration whatever uses
/// a broken object, directly or not.
///
/// What is right in itself comes back as `waiting`: with an older version of what it uses it may still work.
pub(crate) fn check(draft: &mut Draft<'_>) -> Removed {
    report_dangling(draft);
    report_cycles(draft, &[Kind::Middleware, Kind::Service]);
    report_cycles(draft, &[Kind::TcpService]);
    report_cycles(draft, &[Kind::UdpService]);
    report_unprobed(draft);
    layers::report(draft);
    let broken: HashSet<_> = draft.report.broken_names().into_iter().collect();
    spread(draft);
    check_entry_points(draft);
    let (mut waiting, mut unfit) = (Config::default(), Config::default());
    for (kind, name) in draft.report.broken_names() {
        let keep = !broken.contains(&(kind, name.clone()));
        let (from, to) = (&mut draft.config, if keep { &mut waiting } else { &mut unfit });
        match kind {
            Kind::Router => take(&mut from.routers, name, Some(&mut to.routers)),
            Kind::Service => {
                take(&mut from.composites, name.clone(), keep.then_some(&mut to.composites));
                take(&mut from.services, name, keep.then_some(&mut to.services));
            }
            Kind::Middleware => take(&mut from.middlewares, name, keep.then_some(&mut to.middlewares)),
            Kind::ServersTransport => take(&mut from.servers_transports, name, None),
            Kind::TlsOptions => take(&mut from.tls.options, name, None),
            Kind::TcpRouter => take(&mut from.tcp.routers, name, Some(&mut to.tcp.routers)),
            Kind::TcpService => take(&mut from.tcp.services, name, keep.then_some(&mut to.tcp.services)),
            Kind::TcpMiddleware => take(&mut from.tcp.middlewares, name, None),
            Kind::TcpServersTransport => take(&mut from.tcp.servers_transports, name, None),
            Kind::UdpRouter => take(&mut from.udp.routers, name, Some(&mut to.udp.routers)),
            Kind::UdpService => take(&mut from.udp.services, name, keep.then_some(&mut to.udp.services)),
            Kind::Certificate | Kind::File => {}
        }
    }
    Removed { waiting, unfit }
}

fn take<T>(from: &mut BTreeMap<String, T>, name: String, to: Option<&mut BTreeMap<String, T>>) {
    if let (Some(object), Some(to)) = (from.remove(&name), to) {
        to.insert(name, object);
    }
}

fn report_dangling(draft: &Draft<'_>) {
    let mut known = Known::default();
    for Reference { from, to, at, field, .. } in &draft.references {
        let (kind, name) = (to.0, to.1.as_str());
        if exists(draft, kind, name) {
            continue;
        }
        let (message, hint) = if draft.report.is_full() {
            (String::new(), None)
        } else {
            let (message, hint) = nothing_called(draft, &mut known, kind, name);
            (message, Some(hint))
        };
        let reason = match kind {
            Kind::Router => format!("parent router {name:?} does not exist"),
            Kind::Middleware | Kind::TcpMiddleware => missing_middleware(name),
            Kind::ServersTransport | Kind::TcpServersTransport => {
                format!("servers transport not found {name}")
            }
            Kind::TlsOptions => format!("building router handler: unknown TLS options: {name}"),
            Kind::TcpService => format!("the service {name:?} does not exist"),
            _ => format!("the {kind} {name:?} does not exist"),
        };
        draft.report.error_on(from.0, &from.1, *at, &field.path(), message, hint, Some(reason));
    }
}

/// Names of what is defined, sorted, without their provider; gathered when the first hint needs them.
type Known<'d> = BTreeMap<Kind, BTreeSet<&'d str>>;

/// The message and hint for a name that does not exist.
fn nothing_called<'d>(
    draft: &'d Draft<'_>,
    known: &mut Known<'d>,
    kind: Kind,
    name: &str,
) -> (String, String) {
    let (bare, provider) = name.rsplit_once('@').unwrap_or((name, draft.provider));
    let are = if kind == Kind::TlsOptions { "are" } else { "is" };
    if provider == draft.provider {
        let names = known.entry(kind).or_insert_with(|| {
            let defined = draft.defined.get(&kind).into_iter().flatten();
            defined.map(|(name, _)| name.split_once('@').map_or(name.as_str(), |(name, _)| name)).collect()
        });
        let hint = suggest::hint(bare, plural(kind), names.iter().copied());
        (format!("no {kind} {are} called {}", quoted(bare)), hint)
    } else {
        let hint = if provider == INTERNAL {
            let names = draft.context.internal_services.iter().map(String::as_str);
            suggest::hint(bare, "internal services", names)
        } else if LABELLED.contains(&provider) || provider == FILE || REMOTE.contains(&provider) {
            format!("the provider {} is not switched on: add `providers.{provider}`", quoted(provider))
        } else if PROVIDERS.contains(&provider) {
            format!("the provider {} is not supported yet; define it in a file", quoted(provider))
        } else {
            let running = draft.context.providers.iter().map(String::as_str);
            suggest::hint(provider, "providers", running.chain([INTERNAL]))
        };
        (format!("no {kind} {are} called {}", quoted(name)), hint)
    }
}

/// As Traefik words it.
fn missing_middleware(name: &str) -> String {
    format!("middleware {name:?} does not exist")
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Router => "routers",
        Kind::Service => "services",
        Kind::Middleware => "middlewares",
        Kind::ServersTransport => "servers transports",
        Kind::TlsOptions => "TLS options",
        Kind::TcpRouter => "TCP routers",
        Kind::TcpService => "TCP services",
        Kind::TcpMiddleware => "TCP middlewares",
        Kind::TcpServersTransport => "TCP servers transports",
        Kind::UdpRouter => "UDP routers",
        Kind::UdpService => "UDP services",
        Kind::Certificate => "certificates",
        Kind::File => "files",
    }
}

/// Whether the target is known to exist, or belongs to a provider that only the merge can ask.
fn exists(draft: &Draft<'_>, kind: Kind, name: &str) -> bool {
    let Some((bare, provider)) = name.rsplit_once('@') else { return true };
    if provider == draft.provider {
        return draft.defined.get(&kind).is_some_and(|defined| defined.contains_key(name));
    }
    match (provider, kind) {
        (INTERNAL, Kind::Service) => draft.context.internal_services.contains(bare),
        (INTERNAL, Kind::Middleware) => INTERNAL_MIDDLEWARES.contains(&bare),
        (INTERNAL, Kind::ServersTransport | Kind::TcpServersTransport) => bare == "default",
        _ => draft.context.providers.contains(provider),
    }
}

/// Chains of a cycle that its message shows; chosen.
const SHOWN: usize = 8;

/// Services that mind the health of others which have none to mind.
fn report_unprobed(draft: &Draft<'_>) {
    for Reference { from, to, at, field, probed } in &draft.references {
        let config = &draft.config;
        let known = match to.0 {
            Kind::TcpService => config.tcp.services.get(&to.1).map(crate::tcp::Service::is_probed),
            _ => config.is_probed(&to.1),
        };
        if !probed || known != Some(false) {
            continue;
        }
        let written = field.string().unwrap_or_default();
        let hint = "give it a `healthCheck`, or remove that of this service".to_owned();
        // As Traefik words it, for services of every kind.
        let reason = format!(
            "cannot register {written} as updater for {}: healthCheck not enabled in config for this WRR service",
            from.1
        );
        let message = format!("{} has no health check", quoted(&written));
        // Traefik asks for it only where the mirroring is itself part of what has a health check.
        if config.composites.get(&from.1).is_some_and(|composite| composite.mirrored().is_some()) {
            draft.report.within(from.0, &from.1, || {
                draft.report.warn(*at, &field.path(), message, Some(hint));
            });
            continue;
        }
        draft.report.error_on(from.0, &from.1, *at, &field.path(), message, Some(hint), Some(reason));
    }
}

/// Chains and services that contain themselves, services by way of `errors` too. The one that closes the circle is
/// broken, so `spread` reaches the others.
fn report_cycles(draft: &Draft<'_>, kinds: &[Kind]) {
    let mut next: HashMap<(Kind, &str), Vec<&Reference<'_>>> = HashMap::new();
    for reference in &draft.references {
        let Reference { from, to, .. } = reference;
        if kinds.contains(&from.0) && kinds.contains(&to.0) {
            next.entry((from.0, &from.1)).or_default().push(reference);
        }
    }
    let mut starts: Vec<_> = next.keys().copied().collect();
    starts.sort_unstable();
    let mut done: HashSet<(Kind, &str)> = HashSet::new();
    for start in starts {
        if done.contains(&start) {
            continue;
        }
        // Depth first, without recursion: a chain of ten thousand chains must not use up the stack.
        let mut path = vec![(start, 0)];
        let mut on_path = HashSet::from([start]);
        while let Some((object, step)) = path.last_mut() {
            let Some(reference) = next.get(object).and_then(|references| references.get(*step)) else {
                let (object, _) = (*object, path.pop());
                on_path.remove(&object);
                done.insert(object);
                continue;
            };
            *step += 1;
            let target = (reference.to.0, reference.to.1.as_str());
            if on_path.contains(&target) {
                let from = path.iter().position(|(object, _)| *object == target).unwrap_or(0);
                let circle = &path[from..];
                let mut names: Vec<_> = circle.iter().map(|(object, _)| *object).take(SHOWN).collect();
                names.push(if circle.len() > SHOWN { (target.0, "...") } else { target });
                let chains = circle.iter().all(|((kind, _), _)| *kind == Kind::Middleware);
                let what = if chains { "chain" } else { "service" };
                let shown: Vec<_> = names.iter().map(|(_, name)| *name).collect();
                let message = format!("the {what} contains itself: {}", quoted(&shown.join(" > ")));
                let (kind, name) = &reference.from;
                let circle: Vec<_> = names.iter().map(|(of, name)| format!("{of}:{name}")).collect();
                let (of, target) = target;
                let circle = circle.join("->");
                let reason = format!("could not instantiate {of} {target}: recursion detected in {circle}");
                let key = reference.field.path();
                draft.report.error_on(*kind, name, reference.at, &key, message, None, Some(reason));
            } else if !done.contains(&target) && next.contains_key(&target) {
                on_path.insert(target);
                path.push((target, 0));
            }
        }
    }
}

/// Disables what uses something broken, until nothing changes.
fn spread(draft: &Draft<'_>) {
    let mut queue: Vec<(Kind, String)> = draft.report.broken_names();
    if queue.is_empty() {
        return;
    }
    let mut users: HashMap<&(Kind, String), Vec<&(Kind, String)>> = HashMap::new();
    // A router whose parent is broken is not: the parent's last good version may lead to it, or another parent.
    for reference in draft.references.iter().filter(|reference| reference.to.0 != Kind::Router) {
        users.entry(&reference.to).or_default().push(&reference.from);
    }
    while let Some(broken) = queue.pop() {
        for (kind, name) in users.get(&broken).into_iter().flatten().copied() {
            if !draft.report.is_broken(*kind, name) {
                queue.push((*kind, name.clone()));
            }
            let cause = draft.report.first_reason(broken.0, &broken.1);
            let reason = cause.unwrap_or_else(|| format!("the {} {:?} is broken", broken.0, broken.1));
            draft.report.disable(*kind, name, reason);
        }
    }
}

/// Reports the middlewares that entry points put before their routers and that do not exist, and
/// disables the routers to which only entry points with a missing or broken one lead.
fn check_entry_points(draft: &Draft<'_>) {
    let context = draft.context;
    let mut known = Known::default();
    let mut problems: Vec<(&str, Problem)> = Vec::new();
    // Why nothing gets through an entry point.
    let mut blocked: BTreeMap<&str, String> = BTreeMap::new();
    for (entry_point, middlewares) in &context.entry_point_middlewares {
        for (name, place) in middlewares {
            let name = draft.qualify(name);
            let reason = if exists(draft, Kind::Middleware, &name) {
                draft.report.first_reason(Kind::Middleware, &name)
            } else {
                let (message, hint) = nothing_called(draft, &mut known, Kind::Middleware, &name);
                problems.push((
                    entry_point,
                    Problem {
                        scope: Scope::Object { kind: Kind::Middleware, name: name.clone() },
                        line: place.line,
                        column: place.column,
                        key: printable(&place.key),
                        ..Problem::whole_file(&context.static_file, message, Some(hint))
                    },
                ));
                Some(missing_middleware(&name))
            };
            if let Some(reason) = reason {
                blocked.entry(entry_point).or_insert(reason);
            }
        }
    }
    if blocked.is_empty() {
        return;
    }
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let roots = draft.config.routers.iter().filter(|(_, router)| router.parents.is_empty());
    for (name, router) in roots {
        let by_default = router.entry_points.is_empty();
        let own = router.entry_points.iter();
        let default = context.default_entry_points.iter().filter(|_| by_default);
        let entry_points: Vec<&str> = own.chain(default).map(String::as_str).collect();
        let reasons: Vec<&String> = entry_points.iter().filter_map(|name| blocked.get(name)).collect();
        used.extend(&entry_points);
        if reasons.len() == entry_points.len()
            && let Some(reason) = reasons.first()
        {
            draft.report.disable(Kind::Router, name, (*reason).clone());
        }
    }
    // Where no router is attached nothing is lost, and the file may just be empty yet.
    for (entry_point, problem) in problems {
        if used.contains(entry_point) {
            draft.report.elsewhere(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::static_config::Place;
    use crate::testing::{disabled, load, problems};
    use crate::{Context, Kind, parse_dynamic};

    const SERVICE: &str = "services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}";

    #[test]
    fn what_uses_a_broken_object_is_left_out_with_it() {
        let loaded = load(&format!(
            "http: {{{SERVICE}, middlewares: {{bad: {{retry: {{attempts: 0}}}}, inner: {{chain: {{middlewares: bad}}}}, \
             outer: {{chain: {{middlewares: [inner@file]}}}}, fine: {{addPrefix: {{prefix: /x}}}}}}, \
             routers: {{r: {{rule: 'Path(`/`)', service: s, middlewares: outer}}, \
             ok: {{rule: 'Path(`/`)', service: s, middlewares: fine}}}}}}"
        ));
        assert_eq!(disabled(&loaded, Kind::Middleware), ["bad@file", "inner@file", "outer@file"]);
        assert_eq!(disabled(&loaded, Kind::Router), ["r@file"]);
        assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
        assert_eq!(loaded.disabled[&(Kind::Router, "r@file".to_owned())], ["0 is out of range"]);
        assert!(loaded.config.routers.contains_key("ok@file"));
        assert_eq!(loaded.config.middlewares.len(), 1);
        assert!(loaded.strict().is_err());
    }

    #[test]
    fn chains_in_a_circle_are_found_once() {
        let text = "http: {middlewares: {a: {chain: {middlewares: b}}, b: {chain: {middlewares: c}}, \
                    c: {chain: {middlewares: [a]}}, me: {chain: {middlewares: me}}}}";
        let loaded = load(text);
        assert_eq!(disabled(&loaded, Kind::Middleware), ["a@file", "b@file", "c@file", "me@file"]);
        assert_eq!(
            problems(text),
            [
                "http.middlewares.c.chain.middlewares[0]: the chain contains itself: `a@file > b@file > c@file > a@file`",
                "http.middlewares.me.chain.middlewares: the chain contains itself: `me@file > me@file`",
            ]
        );
    }

    #[test]
    fn a_long_row_of_chains_needs_no_stack() {
        let mut text = "http: {middlewares: {m0: {addPrefix: {prefix: /}}".to_owned();
        for n in 1..20_000 {
            text += &format!(",\n m{n}: {{chain: {{middlewares: m{}}}}}", n - 1);
        }
        assert!(load(&(text + "\n }}")).problems.is_empty());
    }

    #[test]
    fn names_of_other_providers() {
        let text = "\
http:
  routers:
    r: {rule: 'Host(`a`)', service: s@docker, middlewares: [a@docker, b@fil], tls: {options: x@docker}}
    i: {rule: 'Path(`/`)', service: apy@internal, middlewares: dashboard_redirect@internal}
    j: {rule: 'Path(`/`)', service: api@internal, middlewares: c@file}
  services:
    s: {loadBalancer: {servers: [], serversTransport: t@nomad}}
  middlewares:
    c: {chain: {middlewares: [u@docker]}}
";
        let told = |context: &Context| {
            let loaded = parse_dynamic("a.yml", text, "file", context).unwrap();
            loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let docker = "the provider `docker` is not switched on: add `providers.docker`";
        assert_eq!(
            told(&Context::default()),
            format!(
                "\
a.yml:3:37: http.routers.r.service: no service is called `s@docker`
  hint: {docker}
a.yml:3:61: http.routers.r.middlewares[0]: no middleware is called `a@docker`
  hint: {docker}
a.yml:3:71: http.routers.r.middlewares[1]: no middleware is called `b@fil`
  hint: did you mean `file`? known providers: file, internal
a.yml:3:94: http.routers.r.tls.options: no TLS options are called `x@docker`
  hint: {docker}
a.yml:4:37: http.routers.i.service: no service is called `apy@internal`
  hint: did you mean `api`? known internal services: acme-http, api, dashboard, noop, ping, prometheus, rest
a.yml:7:55: http.services.s.loadBalancer.serversTransport: no servers transport is called `t@nomad`
  hint: the provider `nomad` is not supported yet; define it in a file
a.yml:9:31: http.middlewares.c.chain.middlewares[0]: no middleware is called `u@docker`
  hint: {docker}"
            )
        );
        // What a provider that runs has only the merge can ask.
        let with_docker =
            Context { providers: ["docker", "file"].map(str::to_owned).into(), ..Context::default() };
        assert!(!told(&with_docker).contains("@docker"));
        let without_api = Context { internal_services: ["noop".to_owned()].into(), ..Context::default() };
        let text = "http: {routers: {r: {rule: 'Path(`/`)', service: api@internal}}}";
        let loaded = parse_dynamic("a.yml", text, "file", &without_api).unwrap();
        assert_eq!(
            loaded.disabled[&(Kind::Router, "r@file".to_owned())],
            ["the service \"api@internal\" does not exist"]
        );
    }

    #[test]
    fn what_entry_points_put_before_their_routers_must_exist() {
        let routers = "services: {s: {loadBalancer: {servers: []}}}, routers: {\
                       web: {rule: 'Path(`/a`)', service: s, entryPoints: web}, \
                       both: {rule: 'Path(`/b`)', service: s, entryPoints: [web, other]}, \
                       other: {rule: 'Path(`/c`)', service: s, entryPoints: other}, \
                       default: {rule: 'Path(`/d`)', service: s}}";
        let place = Place { line: 3, column: 20, key: "entryPoints.web.http.middlewares[0]".to_owned() };
        let context = |middleware: &str| Context {
            static_file: "vigie.yml".to_owned(),
            providers: ["docker", "file"].map(str::to_owned).into(),
            default_entry_points: ["web".to_owned()].into(),
            entry_point_middlewares: [("web".to_owned(), vec![(middleware.to_owned(), place.clone())])]
                .into(),
            ..Context::default()
        };
        let load = |middleware: &str, text: &str| {
            parse_dynamic("a.yml", &format!("http: {{{text}}}"), "file", &context(middleware)).unwrap()
        };
        let auth = "middlewares: {auth: {addPrefix: {prefix: /}}}";
        let lost = ["default@file", "web@file"];
        for (middleware, middlewares, disabled_routers, reason) in [
            ("auth@file", auth, [].as_slice(), None),
            ("auth", auth, &[], None),
            ("auth@docker", auth, &[], None), // that provider may have it
            ("auth@swarm", auth, &lost, Some("middleware \"auth@swarm\" does not exist")),
            ("auht@file", auth, &lost, Some("middleware \"auht@file\" does not exist")),
            ("auht", auth, &lost, Some("middleware \"auht@file\" does not exist")),
            ("auth", "middlewares: {auth: {retry: {attempts: 0}}}", &lost, Some("0 is out of range")),
        ] {
            let loaded = load(middleware, &format!("{routers}, {middlewares}"));
            assert_eq!(disabled(&loaded, Kind::Router), disabled_routers, "{middleware} {middlewares}");
            assert_eq!(loaded.config.routers.len(), 4 - disabled_routers.len());
            let why = loaded.disabled.get(&(Kind::Router, "web@file".to_owned()));
            assert_eq!(why.map(|reasons| reasons.join("; ")).as_deref(), reason);
            assert_eq!(loaded.problems.len(), usize::from(reason.is_some()), "{:?}", loaded.problems);
        }
        let problem = load("auht", &format!("{routers}, {auth}")).problems.remove(0);
        assert_eq!(
            problem.to_string(),
            "vigie.yml:3:20: entryPoints.web.http.middlewares[0]: no middleware is called `auht`\n  \
             hint: did you mean `auth`? known middlewares: auth"
        );
        assert!(load("auht", SERVICE).problems.is_empty(), "nothing is attached");
    }

    /// The wording of Traefik 3.7.15, observed through its API.
    #[test]
    fn reasons_are_those_of_traefik() {
        let text = "http: {routers: {a: {rule: 'Path(`/`)', service: nope}, b: {rule: 'Path(`/`)', service: s, middlewares: nope}, \
             c: {rule: 'Path(`/`)', service: s, tls: {options: nope}}, d: {rule: 'Path(`/`)', service: t}, \
             e: {rule: 'Path(`/`)', service: s, middlewares: c1}, h: {rule: 'Path(`/`)', service: s, entryPoints: nope}}, \
             services: {s: {loadBalancer: {servers: []}}, t: {loadBalancer: {servers: [], serversTransport: nope}}}, \
             middlewares: {c1: {chain: {middlewares: c2}}, c2: {chain: {middlewares: c1}}}}
tcp: {routers: {t: {rule: 'HostSNI(`*`)', service: nope}}}
udp: {routers: {u: {service: nope}}}";
        let context = Context { entry_points: Some(["web".to_owned()].into()), ..Context::default() };
        let loaded = parse_dynamic("a.yml", text, "file", &context).unwrap();
        let reasons = |name: &str| loaded.disabled[&(Kind::Router, name.to_owned())].join("; ");
        for (router, reason) in [
            ("a@file", "the service \"nope@file\" does not exist"),
            ("b@file", "middleware \"nope@file\" does not exist"),
            ("c@file", "building router handler: unknown TLS options: nope@file"),
            ("d@file", "servers transport not found nope@file"),
            ("h@file", "entryPoint \"nope\" doesn't exist; no valid entryPoint for this router"),
        ] {
            assert_eq!(reasons(router), reason);
        }
        let disabled = |kind, name: &str| loaded.disabled[&(kind, name.to_owned())].join("; ");
        assert_eq!(disabled(Kind::TcpRouter, "t@file"), "the service \"nope@file\" does not exist");
        assert_eq!(disabled(Kind::UdpRouter, "u@file"), "the UDP service \"nope@file\" does not exist");
        let circle = "could not instantiate middleware c1@file: recursion detected in \
                      middleware:c1@file->middleware:c2@file->middleware:c1@file";
        assert_eq!(reasons("e@file"), circle);
    }
}
