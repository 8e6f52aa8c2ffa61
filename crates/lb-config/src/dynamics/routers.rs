//! `http.routers`.

use std::collections::BTreeSet;
use std::sync::Arc;

use lb_core::route::{Rule, Syntax};

use super::Draft;
use crate::decode::{Block, Enabled, Field, Text};
use crate::dynamic::{Domain, Observability, Router, RouterTls, TraceVerbosity};
use crate::problem::{Kind, quoted};
use crate::suggest;

/// The highest priority a file may give: above are the internal routers (reference 2.1).
pub(super) const MAX_PRIORITY: i64 = i64::MAX - 1000;

impl<'a> Draft<'a> {
    pub(super) fn router(&mut self, name: &str, field: &Field<'a>) -> Option<Router> {
        let block = field.object()?;
        let written = block.require("rule", "write a rule such as ``Host(`example.com`)``");
        let (rule_syntax, syntax) = self.syntax(&block);
        let rule = written.and_then(|field| read_rule(&field, syntax));
        // Without one there must be routers that name this one as their parent, which only all of them know.
        let service = match block.take("service") {
            Some(field) => self.reference(Kind::Router, name, Kind::Service, &field),
            None => Some(String::new()),
        };
        let parents = block
            .take("parentRefs")
            .map(|field| self.references(Kind::Router, name, Kind::Router, &field))
            .unwrap_or_default();
        if !parents.is_empty() {
            refuse_roots_keys(&block);
        }
        let entry_points =
            block.take("entryPoints").map(|field| self.entry_points(&field)).unwrap_or_default();
        let middlewares = block
            .take("middlewares")
            .map(|field| self.references(Kind::Router, name, Kind::Middleware, &field))
            .unwrap_or_default();
        let priority = block.take("priority").and_then(|field| field.integer(i64::MIN..=MAX_PRIORITY));
        let tls = block.take("tls").and_then(|field| router_tls(&field));
        if let Some((tls, TlsFields { options: Some(options), .. })) = &tls
            && tls.options != "default"
        {
            self.refer(Kind::Router, name, Kind::TlsOptions, &tls.options, options.clone());
        }
        if let Some((tls, TlsFields { cert_resolver: Some(resolver), .. })) = &tls {
            self.resolver(resolver, tls);
        }
        let named_options = tls.as_ref().and_then(|(_, fields)| fields.options.clone());
        let tls = tls.map(|(tls, _)| RouterTls {
            options: if tls.options == "default" { tls.options } else { self.qualify(&tls.options) },
            ..tls
        });
        let observability = block.take("observability").and_then(|field| observability(&field));
        block.finish();

        let (rule_text, rule) = rule?;
        if let Some((tls, field)) = tls.as_ref().zip(named_options)
            && rule.hosts().is_empty()
            && parents.is_empty()
            && !self.is_of_an_entry_point(&tls.options, &entry_points)
        {
            warn_without_host(&field);
        }
        let priority = match priority {
            None | Some(0) => i64::try_from(rule_text.len()).unwrap_or(MAX_PRIORITY),
            Some(priority) => priority,
        };
        Some(Router {
            rule: Arc::new(rule),
            rule_text,
            rule_syntax,
            entry_points,
            middlewares,
            service: service?,
            parents,
            priority,
            tls,
            observability: observability.unwrap_or_default(),
        })
    }

    /// Whether connections at one of these entry points have the TLS options anyway.
    fn is_of_an_entry_point(&self, options: &str, entry_points: &[String]) -> bool {
        let known = &self.context.entry_point_tls_options;
        let default = self.context.default_entry_points.iter().filter(|_| entry_points.is_empty());
        let bare = options.split_once('@').map_or(options, |(name, _)| name);
        let mut named = entry_points.iter().chain(default).filter_map(|name| known.get(name));
        options == "default" || named.any(|named| named == options || named == bare)
    }

    /// `ruleSyntax` as written, and what it means.
    pub(super) fn syntax(&self, block: &Block<'a>) -> (String, Syntax) {
        let Some(text) = block.take("ruleSyntax").and_then(|field| field.text()) else {
            return (String::new(), self.context.rule_syntax);
        };
        let syntax = match text.value {
            "" => self.context.rule_syntax,
            "v2" => Syntax::V2,
            "v3" => Syntax::V3,
            other => {
                text.warn(format!("{} is read as `v3`", quoted(other)), Some("remove it".to_owned()));
                Syntax::V3
            }
        };
        (text.value.to_owned(), syntax)
    }

    /// A resolver that is named must exist.
    pub(super) fn know_resolver(&self, name: &Text<'a>) {
        if let Some(known) = &self.context.cert_resolvers
            && !known.contains_key(name.value)
        {
            let hint = suggest::hint(name.value, "resolvers", known.keys().map(String::as_str));
            let message = format!("no certificate resolver is called {}", quoted(name.value));
            name.field.report.tolerated(name.start(), &name.field.path(), message, Some(hint));
        }
    }

    /// Without its resolver a router serves the certificates that are there, as Traefik does.
    pub(super) fn resolver(&self, field: &Field<'a>, tls: &RouterTls) {
        let tolerated = |message, hint| field.report.tolerated(field.at(), &field.path(), message, hint);
        if let Some(text) = field.text() {
            self.know_resolver(&text);
        }
        let resolver = tls.cert_resolver.as_ref().zip(self.context.cert_resolvers.as_ref());
        if resolver.is_none_or(|(name, known)| known.get(name).copied().unwrap_or(true)) {
            return;
        }
        let names = tls.domains.iter().flat_map(|domain| std::iter::once(&domain.main).chain(&domain.sans));
        for name in names.filter(|name| name.starts_with("*.")) {
            let message =
                format!("no certificate is ordered for {}: a wildcard needs `dnsChallenge`", quoted(name));
            let hint = "give the resolver a `dnsChallenge`, or list the names themselves".to_owned();
            tolerated(message, Some(hint));
        }
    }

    /// Those that exist; a router left with none cannot be loaded.
    pub(super) fn entry_points(&self, field: &Field<'a>) -> Vec<String> {
        self.known_entry_points(field, &self.context.entry_points)
    }

    /// The same of one protocol; `None` accepts every name.
    pub(super) fn known_entry_points(
        &self,
        field: &Field<'a>,
        names: &Option<BTreeSet<String>>,
    ) -> Vec<String> {
        let texts = field.texts();
        let mut known = Vec::with_capacity(texts.len());
        for text in &texts {
            let exists = names.as_ref().is_none_or(|names| names.contains(text.value));
            if exists {
                if !known.iter().any(|name| name == text.value) {
                    known.push(text.value.to_owned());
                }
                continue;
            }
            let names = names.iter().flatten().map(String::as_str);
            field.report.tolerated(
                text.start(),
                &text.field.path(),
                format!("no entry point is called {}", quoted(text.value)),
                Some(suggest::hint(text.value, "entry points", names)),
            );
        }
        if known.is_empty() && !texts.is_empty() {
            for text in &texts {
                let reason = format!("entryPoint {:?} doesn't exist", text.value);
                field.report.disable_current(reason);
            }
            field.report.disable_current("no valid entryPoint for this router".to_owned());
        }
        known
    }
}

/// What a connection is to have is decided before there is a request.
fn warn_without_host(options: &Field<'_>) {
    let message =
        "cannot be applied: the rule names no host, by which the TLS options of a connection are chosen";
    let hint = "name the host in the rule, or write the options at the entry point (`http.tls.options`)";
    options.warn(message.to_owned(), Some(hint.to_owned()));
}

fn read_rule(field: &Field<'_>, syntax: Syntax) -> Option<(String, Rule)> {
    let text = field.text()?;
    match Rule::parse_as(text.value, syntax) {
        Ok(rule) => {
            if let Some(name) = template_of_v2(text.value).filter(|_| syntax == Syntax::V3) {
                let message = format!(
                    "`{{{name}...}}` is a template of Traefik v2, here plain text that no request has"
                );
                let hint = "write an expression, such as HostRegexp(`^[a-z]+\\.example\\.com$`), or set `ruleSyntax: v2`";
                field.warn(message, Some(hint.to_owned()));
            }
            for host in rule.hosts() {
                if let Some(bare) = bare_host(&host) {
                    let message = format!(
                        "no request has the host {}: it has neither scheme, port nor path",
                        quoted(&host)
                    );
                    field.warn(message, Some(format!("write Host({})", quoted(bare))));
                }
            }
            Some((text.value.to_owned(), rule))
        }
        Err(error) => {
            let reason = format!("error while parsing rule {}: {error}", text.value);
            let hint = error.hint.or_else(|| is_of_v1(text.value).then(|| OF_V1.to_owned()));
            field.report.error_because(text.at(error.at), &field.path(), error.message, hint, Some(reason));
            None
        }
    }
}

const OF_V1: &str =
    "rules of Traefik v1 are no more: write such as ``Host(`example.com`) && PathPrefix(`/api`)``";

/// `Host:example.com;PathPrefix:/api`
fn is_of_v1(rule: &str) -> bool {
    rule.split_once(':').is_some_and(|(matcher, _)| matcher.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// A host without what only its URL has; `None` where it has nothing of that.
fn bare_host(host: &str) -> Option<&str> {
    let (_, after) = host.split_once("://").unwrap_or(("", host));
    let end = after.find(['/', ':']).unwrap_or(after.len());
    (end < host.len() && host.parse::<std::net::Ipv6Addr>().is_err()).then_some(&after[..end])
}

/// The name in the first `{name}` or `{name:expression}` that a host or path has.
fn template_of_v2(rule: &str) -> Option<&str> {
    const MATCHERS: [&str; 4] = ["Host(", "HostRegexp(", "Path(", "PathPrefix("];
    rule.match_indices('{').find_map(|(at, _)| {
        let (before, after) = (&rule[..at], &rule[at + 1..]);
        let value = before.rfind(['`', '"'])?;
        let is_named = MATCHERS.iter().any(|matcher| before[..value].trim_end().ends_with(matcher));
        // Of expressions: `\p{Greek}`.
        let is_class = [r"\p", r"\P", r"\x"].iter().any(|class| before.ends_with(class));
        let (name, _) = after.split_once([':', '}'])?;
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (is_named && !is_class && is_name).then_some(name)
    })
}

/// What only a router that entry points lead to can say.
fn refuse_roots_keys(block: &Block<'_>) {
    for (key, traefik) in [("tls", "TLS"), ("observability", "Observability"), ("entryPoints", "Entrypoints")]
    {
        let Some(field) = block.take_unlisted(key) else { continue };
        let is_said = match key {
            "tls" => !matches!(field.enabled(), Enabled::Off),
            "entryPoints" => !field.texts().is_empty(),
            _ => true,
        };
        if is_said {
            let reason = format!("non-root router cannot have {traefik} configuration");
            let message = format!("a router with `parentRefs` cannot have {}", quoted(key));
            let hint = "write it at the router that is its root".to_owned();
            field.report.error_because(field.at(), &field.path(), message, Some(hint), Some(reason));
        }
    }
}

/// Where a `tls` names things that must exist.
#[derive(Default)]
pub(crate) struct TlsFields<'a> {
    pub(crate) options: Option<Field<'a>>,
    pub(crate) cert_resolver: Option<Field<'a>>,
}

/// A router's or an entry point's `tls`; `None` when switched off.
pub(crate) fn router_tls<'a>(field: &Field<'a>) -> Option<(RouterTls, TlsFields<'a>)> {
    let plain = RouterTls { options: "default".to_owned(), ..RouterTls::default() };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some((plain, TlsFields::default())),
        Enabled::With(block) => block,
    };
    let tls = router_tls_of(&block);
    block.finish();
    Some(tls)
}

/// What a block `tls` says, whoever else looks into it.
pub(super) fn router_tls_of<'a>(block: &Block<'a>) -> (RouterTls, TlsFields<'a>) {
    let options = block.take("options");
    let name = options.as_ref().and_then(|field| field.string()).filter(|name| !name.is_empty());
    let resolver = block.take_word("certResolver");
    let cert_resolver = resolver.as_ref().and_then(|field| field.string());
    let domains = block.take("domains").map(|field| domains(&field)).unwrap_or_default();
    let fields = TlsFields { options: options.filter(|_| name.is_some()), cert_resolver: resolver };
    let options = name.unwrap_or_else(|| "default".to_owned());
    (RouterTls { options, cert_resolver, domains }, fields)
}

fn domains(field: &Field<'_>) -> Vec<Domain> {
    field.list().iter().filter_map(Field::object).filter_map(domain).collect()
}

/// `main` and `sans`. Without `main` the certificate is in the name of the first of `sans`, as in Traefik.
pub(super) fn domain(block: Block<'_>) -> Option<Domain> {
    let main = block.take("main").and_then(|field| field.string());
    let sans = block.take("sans").map(|field| field.texts()).unwrap_or_default();
    let mut sans: Vec<String> = sans.iter().map(|text| text.value.to_owned()).collect();
    let main = match main {
        Some(main) if !main.is_empty() || sans.is_empty() => Some(main),
        _ if !sans.is_empty() => Some(sans.remove(0)),
        _ => {
            block.error("`main` is missing".to_owned(), Some("write `main: example.com`".to_owned()));
            None
        }
    };
    block.finish();
    main.map(|main| Domain { main, sans })
}

/// A router's or an entry point's `observability`.
pub(crate) fn observability(field: &Field<'_>) -> Option<Observability> {
    const VERBOSITIES: [(&str, TraceVerbosity); 2] =
        [("minimal", TraceVerbosity::Minimal), ("detailed", TraceVerbosity::Detailed)];
    let block = field.block()?;
    let flag = |key| block.take(key).and_then(|field| field.boolean());
    let observability = Observability {
        access_logs: flag("accessLogs"),
        metrics: flag("metrics"),
        tracing: flag("tracing"),
        trace_verbosity: block.take_word("traceVerbosity").and_then(|field| field.choice(&VERBOSITIES)),
    };
    block.finish();
    Some(observability)
}

#[cfg(test)]
mod tests {
    use super::template_of_v2;
    use crate::testing::{disabled, problems};
    use lb_core::route::Syntax;

    use crate::{Context, Kind, Loaded, parse_dynamic};

    fn with(router: &str) -> String {
        format!(
            "http: {{services: {{s: {{loadBalancer: {{servers: [{{url: 'http://a'}}]}}}}}}, routers: {{r: {router}}}}}\n\
             tls: {{options: {{strict: {{minVersion: VersionTLS13}}}}}}"
        )
    }

    fn load(router: &str) -> Loaded {
        let context = Context {
            entry_points: Some(["web".to_owned()].into()),
            cert_resolvers: Some([("le".to_owned(), false), ("dns".to_owned(), true)].into()),
            ..Context::default()
        };
        parse_dynamic("a.yml", &with(router), "file", &context).unwrap()
    }

    #[test]
    fn hosts_that_are_urls_and_rules_of_v1_are_told() {
        for (rule, expected) in [
            ("Host(`https://a.test/x`)", "neither scheme, port nor path (write Host(`a.test`))"),
            ("Host(`a.test:8080`) || Path(`/`)", "no request has the host `a.test:8080`"),
            ("Host(`a.test/x`)", "(write Host(`a.test`))"),
            ("Host:a.test;PathPrefix:/x", "rules of Traefik v1 are no more"),
            ("PathPrefixStrip(`/x`)", "the middleware `stripPrefix`"),
            ("Host(‘a.test’)", "use back-ticks"),
        ] {
            let problems = load(&format!("{{rule: '{rule}', service: s}}")).problems;
            assert_eq!(problems.len(), 1, "{rule}: {problems:?}");
            assert!(problems[0].line().contains(expected), "{rule}: {problems:?}");
        }
        for rule in ["Host(`a.test`)", "Host(`*.a.test`)", "Host(`::1`)", "!Host(`a:1`)", "Host(`a_b.test.`)"]
        {
            assert!(load(&format!("{{rule: '{rule}', service: s}}")).problems.is_empty(), "{rule}");
        }
    }

    #[test]
    fn tls_options_that_nobody_can_be_given_are_warned_of() {
        let of_entry_point = Context {
            default_entry_points: ["web".to_owned()].into(),
            entry_point_tls_options: [("web".to_owned(), "strict".to_owned())].into(),
            ..Context::default()
        };
        let warning = "http.routers.r.tls.options: cannot be applied: the rule names no host";
        for (rule, options, context, warned) in [
            ("Path(`/`)", "strict", &Context::default(), true),
            ("!Host(`a.test`)", "strict@file", &Context::default(), true),
            ("HostRegexp(`.`)", "strict", &Context::default(), true),
            ("Host(`a.test`) || Path(`/`)", "strict", &Context::default(), false),
            ("Path(`/`)", "default", &Context::default(), false),
            ("Path(`/`)", "strict", &of_entry_point, false),
        ] {
            let router = with(&format!("{{rule: '{rule}', service: s, tls: {{options: {options}}}}}"));
            let problems = parse_dynamic("a.yml", &router, "file", context).unwrap().problems;
            let told = problems.iter().any(|problem| !problem.is_error() && problem.line().contains(warning));
            assert_eq!((told, problems.len()), (warned, usize::from(warned)), "{rule}: {problems:?}");
        }
    }

    #[test]
    fn a_router_takes_the_length_of_its_rule_as_priority() {
        for (router, priority) in [
            ("{rule: 'Host(`a.test`)', service: s}", 14),
            ("{RULE: 'Host(`a.test`)', Service: s@file, priority: 0}", 14),
            ("{rule: 'Host(`a.test`)', service: s, priority: -7}", -7),
            ("{rule: 'Host(`a.test`)', service: s, priority: 9223372036854774807}", i64::MAX - 1000),
        ] {
            let loaded = load(router);
            assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
            assert_eq!(loaded.config.routers["r@file"].priority, priority, "{router}");
            assert_eq!(loaded.config.routers["r@file"].service, "s@file");
        }
    }

    #[test]
    fn a_template_of_the_older_syntax_is_told_from_an_expression() {
        for (rule, name) in [
            ("HostRegexp(`{sub:[a-z]+}.a.test`)", Some("sub")),
            ("Host(`a.test`) && PathPrefix(`/items/{id}`)", Some("id")),
            ("HostRegexp(`^\\p{Greek}{2,3}\\.a\\.test$`) || PathRegexp(`^/{a}`)", None),
            ("Header(`X-A`, `{a}`) && Query(`q`, `{a:b}`)", None),
        ] {
            assert_eq!(template_of_v2(rule), name, "{rule}");
        }
        let rule = "rule: 'HostRegexp(`{sub:[a-z]+}.a.test`)', service: s";
        let told = problems(&with(&format!("{{{rule}}}")));
        assert!(
            told[0].starts_with("~http.routers.r.rule: `{sub...}` is a template of Traefik v2"),
            "{told:?}"
        );
        assert_eq!(problems(&with(&format!("{{{rule}, ruleSyntax: v2}}"))), [""; 0]);
    }

    #[test]
    fn a_rule_is_read_in_the_syntax_that_the_router_or_the_static_file_names() {
        let v2 = Context { rule_syntax: Syntax::V2, ..Context::default() };
        for (context, syntax, reads_v2, warns) in [
            (&Context::default(), "", false, false),
            (&Context::default(), "ruleSyntax: v2", true, false),
            (&Context::default(), "ruleSyntax: V2", false, true),
            (&v2, "", true, false),
            (&v2, "ruleSyntax: ''", true, false),
            (&v2, "ruleSyntax: v3", false, false),
            (&v2, "ruleSyntax: v4", false, true),
        ] {
            let text = with(&format!("{{rule: 'Host(`a`, `b`)', service: s, {syntax}}}"));
            let loaded = parse_dynamic("a.yml", &text, "file", context).unwrap();
            let router = loaded.config.routers.get("r@file");
            assert_eq!(router.is_some(), reads_v2, "{syntax}: {:?}", loaded.problems);
            assert_eq!(loaded.problems.iter().any(|problem| !problem.is_error()), warns, "{syntax}");
            let written = syntax.strip_prefix("ruleSyntax: ").unwrap_or_default().replace('\'', "");
            assert!(router.is_none_or(|router| router.rule_syntax == written));
        }
    }

    #[test]
    fn tls_is_switched_on_by_its_presence() {
        for (tls, options) in [
            ("true", Some("default")),
            ("{}", Some("default")),
            ("{options: strict}", Some("strict@file")),
            ("{options: strict@file}", Some("strict@file")),
            ("{options: default}", Some("default")),
            ("false", None),
            ("~", None),
        ] {
            let loaded = load(&format!("{{rule: 'Host(`a`)', service: s, tls: {tls}}}"));
            assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
            let tls_options = loaded.config.routers["r@file"].tls.as_ref().map(|tls| tls.options.as_str());
            assert_eq!(tls_options, options, "{tls}");
        }
        assert_eq!(
            problems(&with("{rule: 'Host(`a`)', service: s, tls: {options: stricd}}")),
            ["http.routers.r.tls.options: no TLS options are called `stricd`"]
        );
    }

    #[test]
    fn an_unknown_entry_point_costs_the_router_only_when_none_is_left() {
        let loaded = load("{rule: 'Path(`/`)', service: s, entryPoints: 'web, nope'}");
        assert_eq!(loaded.config.routers["r@file"].entry_points, ["web"]);
        assert!(loaded.disabled.is_empty());
        assert_eq!(loaded.problems.len(), 1);
        let loaded = load("{rule: 'Path(`/`)', service: s, entryPoints: [nope]}");
        assert_eq!(disabled(&loaded, Kind::Router), ["r@file"]);
        assert_eq!(loaded.problems.len(), 1, "told once");
    }

    #[test]
    fn a_resolver_must_exist_and_costs_nothing_but_the_certificate() {
        for (tls, expected) in [
            ("{certResolver: le}", None),
            ("{certResolver: le, domains: [{main: a.test, sans: [b.test]}]}", None),
            ("{certResolver: ''}", None),
            ("{certResolver: lee}", Some("no certificate resolver is called `lee`")),
            ("{certResolver: le, domains: [{main: a.test, sans: ['*.a.test']}]}", Some("for `*.a.test`")),
            ("{certResolver: dns, domains: [{main: a.test, sans: ['*.a.test']}]}", None),
        ] {
            let loaded = load(&format!("{{rule: 'Host(`a`)', service: s, tls: {tls}}}"));
            assert!(loaded.config.routers.contains_key("r@file") && loaded.disabled.is_empty());
            let told: Vec<_> = loaded.problems.iter().map(|problem| problem.message.as_str()).collect();
            match expected {
                None => assert!(told.is_empty(), "{told:?}"),
                Some(expected) => assert!(told[0].contains(expected), "{told:?}"),
            }
        }
    }

    #[test]
    fn without_main_the_first_of_sans_is_in_its_place() {
        let with = |domain: &str| {
            load(&format!(
                "{{rule: 'Host(`a`)', service: s, tls: {{certResolver: le, domains: [{domain}]}}}}"
            ))
        };
        for domain in ["{sans: [b.test, c.test]}", "{main: '', sans: [b.test, c.test]}"] {
            let loaded = with(domain);
            let tls = loaded.config.routers["r@file"].tls.as_ref().unwrap();
            assert_eq!(
                (tls.domains[0].main.as_str(), &tls.domains[0].sans[..]),
                ("b.test", &["c.test".to_owned()][..])
            );
            assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        }
        assert_eq!(with("{}").problems[0].message, "`main` is missing");
    }

    #[test]
    fn no_parents_are_as_good_as_none_named() {
        let loaded = load("{rule: 'Path(`/`)', service: s, parentRefs: []}");
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    }

    #[test]
    fn what_makes_no_router() {
        for (router, expected) in [
            ("{service: s}", "http.routers.r: `rule` is missing"),
            ("{rule: 'Path(`/`)'}", "http.routers.r: the router has no `service`"),
            (
                "{rule: \"Path(`\\u001bapi`)\", service: s}",
                "http.routers.r.rule: the path `\\u{1b}api` does not start with `/`",
            ),
            ("{rule: 'Path(`/`)', service: ''}", "http.routers.r.service: names no service"),
            ("{rule: 'Path(`/`)', service: s, priority: 9223372036854774808}", "expected a whole number"),
            (
                "{rule: 'Header(`a`, `b`)', service: s, ruleSyntax: v2}",
                "http.routers.r.rule: the v2 syntax has no matcher `Header`",
            ),
            ("{rule: 'Path(`/`)', service: s, parentRefs: [a]}", "no router is called `a`"),
        ] {
            let found = problems(&with(router)).join("\n");
            assert!(found.contains(expected) || found.contains("out of range"), "{router}: {found}");
        }
    }
}
