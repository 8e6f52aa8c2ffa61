use std::rc::Rc;

use lb_config::Context;
use lb_core::balance::{MemberSpec, Settings};

use super::*;
use crate::exchange::Exchange;
use crate::http::forwarded::Peer;
use crate::middleware::Step;

struct Setup {
    fixed: Fixed,
}

impl Setup {
    fn new(static_text: &str) -> Self {
        let (config, _) = lb_config::parse_static("vigie.yml", static_text).unwrap();
        let metrics = lb_observe::metrics::Metrics::new(lb_observe::metrics::Settings::default(), 1);
        Self { fixed: Fixed { config: Arc::new(config), metrics } }
    }

    fn build(&self, dynamic: &str, previous: Option<&Snapshot>) -> (Snapshot, Vec<Failure>) {
        let context = Context::from(&*self.fixed.config);
        let config = Arc::new(lb_config::parse_dynamic("d.yml", dynamic, "file", &context).unwrap().config);
        let now = tokio::time::Instant::now().into_std();
        let member = MemberSpec { url: "http://192.0.2.1".to_owned(), weight: 1 };
        let live = |name: &String| {
            LiveService::new(name, Settings::default(), std::slice::from_ref(&member), None, now)
        };
        let live = config.services.keys().map(|name| (name.clone(), Arc::new(live(name)))).collect();
        Snapshot::build(&self.fixed, &config, (&live, &HashMap::new()), previous, now)
    }

    fn entry(&self, name: &str) -> usize {
        self.fixed.config.entry_points.iter().position(|entry| entry.name == name).unwrap()
    }

    /// What each entry point serves: `router [middlewares]`, with `+` for those that are not named.
    fn served(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        for (entry, routes) in self.fixed.config.entry_points.iter().zip(&snapshot.entry_points) {
            for (index, how) in [(&routes.plain, "plain"), (&routes.secure, "tls")] {
                let line = |route: &Route| {
                    let more = "+".repeat(route.middlewares.len() - route.names.len());
                    format!("{} {how}: {} [{}]{more}", entry.name, route.name, route.names.join(" "))
                };
                lines.extend(index.routes().iter().map(|route| line(&route.value)));
            }
        }
        lines.sort();
        lines
    }

    /// Whether the only router of an entry point lets a request pass.
    fn passes(&self, snapshot: &Snapshot, entry: &str) -> bool {
        let entry = &snapshot.entry_points[self.entry(entry)];
        let mut routes = entry.plain.routes().iter().chain(entry.secure.routes());
        let route = &routes.next().unwrap().value;
        assert!(routes.next().is_none());
        let now = tokio::time::Instant::now().into_std();
        let mut x = Exchange::new(Rc::new(Peer::new([192, 0, 2, 1].into(), false)), now);
        x.head.set_target("/");
        route.middlewares.iter().all(|middleware| matches!(middleware.on_request(&mut x), Step::Next))
    }
}

const SERVICE: &str = "services: {s: {loadBalancer: {servers: [{url: 'http://192.0.2.1'}]}}}";

#[test]
fn entry_points_treat_internal_routers_as_any_other() {
    let setup = Setup::new(
        "entryPoints:\n\
         \x20 web: {address: ':80', http: {middlewares: [deny@file], redirections: {entryPoint: {to: sec}}}}\n\
         \x20 sec: {address: ':443', http: {tls: {}, redirections: {entryPoint: {to: ':9443'}}}}\n\
         \x20 strict: {address: ':81', http: {encodedCharacters: {allowEncodedSlash: false}}}\n\
         \x20 traefik: {address: ':8080', http: {middlewares: [both@file]}}\n\
         ping: {entryPoint: sec}\n\
         metrics: {prometheus: {entryPoint: strict}}\n\
         api: {insecure: true}\n\
         providers: {file: {filename: d.yml}}",
    );
    let dynamic = "http: {middlewares: {deny: {ipAllowList: {sourceRange: [10.0.0.0/8]}}, \
                   auth: {basicAuth: {users: ['u:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=']}}, \
                   both: {chain: {middlewares: [deny, auth]}}}}";
    let (snapshot, failures) = setup.build(dynamic, None);
    assert_eq!(failures, []);
    assert_eq!(
        setup.served(&snapshot),
        [
            "sec tls: health@internal []",
            "sec tls: ping@internal []",
            "sec tls: sec-to-9443@internal []+",
            "strict plain: prometheus@internal []+",
            "traefik plain: api@internal [deny@file auth@file]",
            "traefik plain: dashboard@internal [deny@file auth@file]",
            "web plain: web-to-sec@internal [deny@file]+",
        ]
    );
    assert!(!setup.passes(&snapshot, "web"), "denied before it is redirected");
    let of = |name: &str| &snapshot.routes[name];
    assert_eq!((of("ping@internal").access_log, of("ping@internal").metrics), (false, false));
    assert_eq!((of("web-to-sec@internal").access_log, of("web-to-sec@internal").metrics), (true, true));
    assert_eq!(of("ping@internal").tls_options.as_deref(), Some("default"));
}

#[test]
fn an_internal_router_is_left_out_rather_than_served_without_what_its_entry_point_asks_for() {
    let setup = Setup::new(
        "entryPoints:\n\
         \x20 web: {address: ':80', http: {middlewares: [ours], redirections: {entryPoint: {to: ':443'}}}}\n\
         \x20 tls: {address: ':443', http: {tls: {options: mtls@file}}}\n\
         \x20 traefik: {address: ':8080', http: {middlewares: [auth@file]}}\n\
         ping: {entryPoint: tls}\n\
         api: {insecure: true}\n\
         providers: {file: {filename: d.yml}}",
    );
    // A name without a provider is one of the router's own.
    let dynamic = format!(
        "http: {{routers: {{r: {{rule: 'Path(`/`)', service: s, entryPoints: [tls, web]}}}}, {SERVICE}, \
         middlewares: {{ours: {{addPrefix: {{prefix: /x}}}}}}}}"
    );
    let (snapshot, mut failures) = setup.build(&dynamic, None);
    assert_eq!(setup.served(&snapshot), ["web plain: web-r@file [ours@file]"]);
    failures.sort_by(|a, b| a.name.cmp(&b.name));
    let failures: Vec<_> = failures.iter().map(|f| (f.kind, f.name.as_str(), f.message.as_str())).collect();
    assert_eq!(
        failures,
        [
            (lb_config::Kind::Middleware, "auth@file", "middleware \"auth@file\" does not exist"),
            (
                lb_config::Kind::TlsOptions,
                "mtls@file",
                "unknown TLS options: mtls@file, named by the entry point tls",
            ),
            (lb_config::Kind::Middleware, "ours@internal", "middleware \"ours@internal\" does not exist"),
        ]
    );
}

#[test]
fn tls_options_of_an_entry_point_without_a_provider_are_those_of_the_routers_own() {
    let setup = Setup::new(
        "entryPoints:\n\
         \x20 web: {address: ':443', http: {tls: {options: strict}}}\n\
         ping: {entryPoint: web}\n\
         providers: {file: {filename: d.yml}}",
    );
    let dynamic = |options: &str| {
        format!(
            "http: {{routers: {{r: {{rule: 'Host(`a.test`)', service: s}}}}, {SERVICE}}}\ntls: {{options: {options}}}"
        )
    };
    let (snapshot, failures) = setup.build(&dynamic("{strict: {minVersion: VersionTLS13}}"), None);
    assert_eq!(failures, []);
    let served = ["web tls: health@internal []", "web tls: ping@internal []", "web tls: r@file []"];
    assert_eq!(setup.served(&snapshot), served);
    for name in [Some("a.test"), Some("other.test"), None] {
        let profile = snapshot.entry_points[0].profile(name).unwrap();
        assert_eq!(profile.name, "strict@file", "{name:?}");
    }
    for route in snapshot.routes.values() {
        assert_eq!(route.tls_options.as_deref(), Some("strict@file"), "{}", route.name);
    }
    let (_, failures) = setup.build(&dynamic("{other: {}}"), None);
    let failures: Vec<_> = failures.iter().map(|f| (f.kind, f.name.as_str(), f.message.as_str())).collect();
    let unknown = (
        lb_config::Kind::TlsOptions,
        "strict@file",
        "unknown TLS options: strict@file, named by the entry point web",
    );
    assert!(failures.contains(&unknown), "{failures:?}");
}

#[test]
fn a_router_has_one_state_wherever_entry_points_leave_it_as_it_is() {
    let setup = Setup::new(
        "entryPoints:\n\
         \x20 a: {address: ':1', http: {sanitizePath: true}}\n\
         \x20 b: {address: ':2'}\n\
         \x20 before: {address: ':3', http: {middlewares: [add@file]}}\n\
         \x20 tls: {address: ':4', http: {tls: {}}}\n\
         \x20 encoded: {address: ':5', http: {encodedCharacters: {allowEncodedSlash: true}}}\n\
         \x20 seen: {address: ':6', observability: {tracing: true}}\n\
         providers: {file: {filename: d.yml}}",
    );
    let dynamic = |router: &str| {
        format!(
            "http: {{routers: {{{router}: {{rule: 'Path(`/`)', service: s, middlewares: [limit]}}}}, {SERVICE}, \
             middlewares: {{limit: {{rateLimit: {{average: 1, period: 1h, burst: 1}}}}, \
             add: {{addPrefix: {{prefix: /x}}}}}}}}"
        )
    };
    let (first, failures) = setup.build(&dynamic("r"), None);
    assert_eq!(failures, []);
    assert_eq!(
        setup.served(&first),
        [
            "a plain: r@file [limit@file]",
            "b plain: r@file [limit@file]",
            "before plain: before-r@file [add@file limit@file]",
            "encoded plain: encoded-r@file [limit@file]+",
            "seen plain: seen-r@file [limit@file]",
            "tls tls: tls-r@file [limit@file]",
        ]
    );
    let all =
        |snapshot| ["a", "b", "before", "tls", "encoded", "seen"].map(|entry| setup.passes(snapshot, entry));
    assert_eq!(all(&first), [true, false, true, true, true, true]);
    let (second, _) = setup.build(&dynamic("r"), Some(&first));
    assert_eq!(all(&second), [false; 6], "a reload refills nothing");
    let (other, _) = setup.build(&dynamic("other"), Some(&second));
    assert_eq!(all(&other), [true, false, true, true, true, true], "routers share nothing");
}

#[test]
fn the_state_goes_with_a_router_to_another_entry_point() {
    let setup = Setup::new(
        "entryPoints:\n\
         \x20 a: {address: ':1', http: {encodedCharacters: {allowEncodedSlash: true}}}\n\
         \x20 b: {address: ':2'}\n\
         providers: {file: {filename: d.yml}}",
    );
    let on = |entry: &str| {
        format!(
            "http: {{routers: {{r: {{rule: 'Path(`/`)', service: s, entryPoints: [{entry}], \
             middlewares: [limit, other]}}}}, {SERVICE}, middlewares: {{\
             limit: {{rateLimit: {{average: 1, period: 1h, burst: 1}}}}, \
             other: {{rateLimit: {{average: 1, period: 1h, burst: 9}}}}}}}}"
        )
    };
    let (first, _) = setup.build(&on("a"), None);
    assert!(setup.passes(&first, "a"));
    let (second, _) = setup.build(&on("b"), Some(&first));
    assert_eq!(setup.served(&second), ["b plain: r@file [limit@file other@file]"]);
    assert!(!setup.passes(&second, "b"));
}

#[test]
fn an_auth_server_lives_on_while_it_is_reached_the_same_way() {
    let setup = Setup::new(
        "entryPoints: {a: {address: ':1'}, b: {address: ':2'}}\nproviders: {file: {filename: d.yml}}",
    );
    let with = |auth: &str| {
        format!(
            "http: {{routers: {{r: {{rule: 'Path(`/`)', service: s, middlewares: [auth]}}}}, {SERVICE}, \
             middlewares: {{auth: {{forwardAuth: {{address: 'https://192.0.2.9/{auth}}}}}}}}}"
        )
    };
    let server = |snapshot: &Snapshot| {
        let endpoint = &snapshot.auth_servers["auth@file"].endpoint;
        assert!(snapshot.endpoints.contains(&endpoint.id), "its connections are kept");
        Arc::clone(endpoint)
    };
    let (first, failures) = setup.build(&with("', authResponseHeaders: X-A"), None);
    assert!(failures.is_empty(), "{failures:?}");
    let (same, _) = setup.build(&with("', authResponseHeaders: X-B"), Some(&first));
    assert_eq!(server(&same).id, server(&first).id);
    let (other, _) = setup.build(&with("', tls: {insecureSkipVerify: true}"), Some(&same));
    assert_ne!(server(&other).id, server(&same).id);
    same.retire_for(&other);
    assert!(server(&same).is_retired() && !server(&other).is_retired());
}

/// Each of them would be one call inside another for every request. Whoever is built first, from whatever end.
#[test]
fn what_is_inside_each_other_has_an_end() {
    use std::fmt::Write as _;

    let setup = Setup::new("entryPoints: {web: {address: ':80'}}\nproviders: {file: {filename: d.yml}}");
    for count in [30, 40, 500] {
        let (mut routers, mut services) = (String::new(), String::new());
        for at in 0..count {
            let (parent, more) = match at {
                0 => ("top".to_owned(), ""),
                _ => (format!("m{:03}", at - 1), if at + 1 == count { ", service: s" } else { "" }),
            };
            // Those in the middle are reached from aside, the last of them first.
            let aside = count - at;
            let _ = write!(
                routers,
                "m{at:03}: {{rule: 'Path(`/`)', parentRefs: [{parent}, a{aside:03}]{more}}}, \
                 a{aside:03}: {{rule: 'Path(`/{at}`)'}}, b{aside:03}: {{rule: 'Path(`/{at}`)', service: w{at:03}}}, "
            );
            let (inner, middlewares) = match count - at {
                1 => ("s".to_owned(), ""),
                left => (format!("w{:03}", at + 1), if left % 2 == 0 { ", middlewares: [m]" } else { "" }),
            };
            let _ =
                write!(services, "w{at:03}: {{weighted: {{services: [{{name: {inner}}}]}}{middlewares}}}, ");
        }
        let (snapshot, failures) = setup.build(
            &format!(
                "http: {{routers: {{{routers} top: {{rule: 'Path(`/`)'}}}}, middlewares: {{m: {{addPrefix: {{prefix: /}}}}}}, \
                 services: {{{services} s: {{loadBalancer: {{servers: [{{url: 'http://192.0.2.1'}}]}}}}}}}}"
            ),
            None,
        );
        let deepest = snapshot.composites.values().map(|composite| composite.height).max();
        assert!(deepest.is_some_and(|deepest| deepest <= 32), "{count}: {deepest:?}");
        for kind in [lb_config::Kind::Router, lb_config::Kind::Service] {
            let is_too_deep =
                |failure: &&Failure| failure.kind == kind && failure.message.starts_with("more than 32");
            assert_eq!(
                failures.iter().any(|failure| is_too_deep(&failure)),
                count > 30,
                "{count} {kind} {failures:?}"
            );
        }
    }
}

#[test]
fn chains_that_grow_without_end_are_refused_at_once() {
    let setup = Setup::new("entryPoints: {web: {address: ':80'}}");
    let chains = |levels: usize, members: usize| {
        let chain = |level: usize| {
            let next = format!("m{}", level + 1);
            format!("m{level}: {{chain: {{middlewares: [{}]}}}}, ", vec![next; members].join(", "))
        };
        format!(
            "http: {{{SERVICE}, routers: {{r: {{rule: Path(`/`), service: s, middlewares: [m0]}}}}, \
             middlewares: {{{}m{levels}: {{addPrefix: {{prefix: /x}}}}}}}}",
            (0..levels).map(chain).collect::<String>()
        )
    };
    for (levels, members, expected) in [
        (32, 1, None),
        (33, 1, Some("middleware \"m0@file\": more than 32 chains inside each other")),
        (30, 2, Some("middleware \"m0@file\": a chain of more than 1000 middlewares")),
    ] {
        let (_, failures) = setup.build(&chains(levels, members), None);
        let told = failures.first().map(|failure| failure.message.as_str());
        assert_eq!(told, expected, "{levels} levels of {members}");
    }
}

#[test]
fn routers_behind_each_other_in_many_ways_are_refused_at_once() {
    let setup = Setup::new("entryPoints: {web: {address: ':80'}}");
    let mut routers = "a0: {rule: Path(`/`)}, b0: {rule: Path(`/`)}, ".to_owned();
    for level in 1..40 {
        let above = level - 1;
        for side in ["a", "b"] {
            let service = if level == 39 { ", service: s" } else { "" };
            routers.push_str(&format!(
                "{side}{level}: {{rule: Path(`/`), parentRefs: [a{above}, b{above}]{service}}}, "
            ));
        }
    }
    let (snapshot, failures) = setup.build(&format!("http: {{{SERVICE}, routers: {{{routers}}}}}"), None);
    assert!(setup.served(&snapshot).is_empty());
    assert!(failures.iter().any(|failure| failure.message == "more than 32 routers behind each other"));
}
