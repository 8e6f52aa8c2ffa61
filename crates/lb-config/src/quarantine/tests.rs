use super::*;
use crate::static_config::Place;
use crate::{parse_dynamic, testing::load};

/// What is in force after these files, one after the other, each as YAML of one line.
fn follow(texts: &[&str]) -> Settled {
    follow_in(&Context::default(), texts)
}

fn follow_in(context: &Context, texts: &[&str]) -> Settled {
    let mut settled = Settled::default();
    for text in texts {
        let loaded =
            parse_dynamic("a.yml", text, "file", context).unwrap_or_else(|problems| panic!("{problems}"));
        settled = settle([("file", &loaded)].into_iter(), &Reasons::new(), &settled.config, context);
        assert_complete(&settled.config);
    }
    settled
}

#[track_caller]
fn assert_complete(config: &Config) {
    for object in objects(config) {
        for target in references(config, &object) {
            assert!(has(config, &target), "{object:?} refers to {target:?}");
        }
    }
}

fn names(reasons: &Reasons) -> Vec<String> {
    reasons.keys().map(|(kind, name)| format!("{kind} {}", name.trim_end_matches("@file"))).collect()
}

fn server(settled: &Settled, service: &str) -> String {
    settled.config.services[&format!("{service}@file")].servers[0].url.clone()
}

fn prefix(settled: &Settled, middleware: &str) -> String {
    match &settled.config.middlewares[&format!("{middleware}@file")] {
        Middleware::AddPrefix { prefix } => prefix.clone(),
        other => panic!("{other:?}"),
    }
}

const GOOD: &str = "http: {routers: {r: {rule: 'Path(`/old`)', service: s, middlewares: m}, o: {rule: 'Path(`/o`)', service: s}}, \
                    services: {s: {loadBalancer: {servers: [{url: 'http://old'}]}}}, middlewares: {m: {addPrefix: {prefix: /old}}}}";

#[test]
fn a_broken_object_keeps_its_version_in_force_and_the_rest_moves_on() {
    let better = GOOD.replace("Path(`/o`)", "Path(`/new`)").replace("http://old", "http://new");
    for (from, to, stale) in [
        ("Path(`/old`)", "Paht(`/old`)", "router r"),
        ("service: s, middlewares", "service: t, middlewares", "router r"),
        ("middlewares: m}", "middlewares: n}", "router r"),
        ("service: s, middlewares", "service: s, rulle: 5, middlewares", "router r"),
        ("addPrefix: {prefix: /old}", "retry: {attempts: 0}", "middleware m"),
    ] {
        let text = better.replace(from, to);
        assert_ne!(text, better, "{from}");
        let settled = follow(&[GOOD, &text]);
        assert_eq!(names(&settled.stale), [stale], "{text}");
        assert!(settled.disabled.is_empty(), "{:?}", settled.disabled);
        assert_eq!(settled.config.routers["r@file"].rule_text, "Path(`/old`)");
        assert_eq!(settled.config.routers["r@file"].middlewares, ["m@file"]);
        assert_eq!(settled.config.routers["o@file"].rule_text, "Path(`/new`)");
        assert_eq!(
            (server(&settled, "s"), prefix(&settled, "m")),
            ("http://new".to_owned(), "/old".to_owned())
        );
        // What is mended is as new.
        let mended = follow(&[GOOD, &text, &better]);
        assert!(mended.stale.is_empty() && mended.disabled.is_empty());
        assert_eq!(mended.config, load(&better).config);
    }
}

#[test]
fn a_broken_service_keeps_its_servers() {
    let text = GOOD.replace("http://old", "ftp://x").replace("prefix: /old", "prefix: /new");
    let settled = follow(&[GOOD, &text]);
    assert_eq!(names(&settled.stale), ["service s"]);
    assert_eq!((server(&settled, "s"), prefix(&settled, "m")), ("http://old".to_owned(), "/new".to_owned()));
    let reason = &settled.stale[&(Kind::Service, "s@file".to_owned())][0];
    assert!(
        reason.starts_with("a.yml:1:") && reason.contains("http.services.s.loadBalancer.servers[0].url: "),
        "{reason}"
    );
}

#[test]
fn what_an_old_router_needs_stays_although_it_was_removed() {
    let router = |rest: &str| {
        format!("http: {{routers: {{r: {{rule: 'Path(`/new`)', service: s, middlewares: m}}}}{rest}}}")
    };
    let service = ", services: {s: {loadBalancer: {servers: [{url: 'http://new'}]}}}";
    // The middleware is gone: the router would be served without it.
    let settled = follow(&[GOOD, &router(service)]);
    assert_eq!(names(&settled.stale), ["router r", "middleware m"]);
    assert_eq!(settled.config.routers["r@file"].rule_text, "Path(`/old`)");
    assert_eq!((server(&settled, "s"), prefix(&settled, "m")), ("http://new".to_owned(), "/old".to_owned()));
    let reason = &settled.stale[&(Kind::Middleware, "m@file".to_owned())];
    assert_eq!(*reason, ["removed, but the router r@file still needs it"]);
    // And the service as well.
    let settled = follow(&[GOOD, &router("")]);
    assert_eq!(names(&settled.stale), ["router r", "service s", "middleware m"]);
    assert_eq!(server(&settled, "s"), "http://old");
    // As long as it lasts, and no longer.
    let settled = follow(&[GOOD, &router(""), &router(""), &router("")]);
    assert_eq!(server(&settled, "s"), "http://old");
    let settled =
        follow(&[GOOD, &router(""), "http: {routers: {x: {rule: 'Path(`/`)', service: api@internal}}}"]);
    assert!(
        settled.stale.is_empty()
            && settled.config.services.is_empty()
            && settled.config.middlewares.is_empty()
    );
}

#[test]
fn nothing_new_may_use_what_only_stays_for_something_old() {
    let text =
        "http: {routers: {r: {rule: 'Path(`/new`)', service: s}, n: {rule: 'Path(`/n`)', service: s}}}";
    let settled = follow(&[GOOD, text]);
    assert_eq!(names(&settled.stale), ["router r", "service s", "middleware m"]);
    assert_eq!(names(&settled.disabled), ["router n"]);
    assert!(!settled.config.routers.contains_key("n@file"));
}

#[test]
fn without_a_version_in_force_an_object_and_its_users_are_left_out() {
    let bad = "http: {routers: {a: {rule: 'Path(`/a`)', service: s, middlewares: c}, b: {rule: 'Path(`/b`)', service: s}}, \
               services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}, \
               middlewares: {c: {chain: {middlewares: d}}, d: {ipAllowList: {sourceRange: [nonsense]}}}}";
    let settled = follow(&[bad]);
    assert_eq!(names(&settled.disabled), ["router a", "middleware c", "middleware d"]);
    assert!(settled.stale.is_empty());
    assert_eq!(settled.config, load(bad).config);
    // A middleware added to a router that had none: the router goes on without it, as it was.
    let settled = follow(&[
        GOOD,
        &GOOD
            .replace("middlewares: m}", "middlewares: [m, x]}")
            .replace("m: {", "x: {retry: {attempts: 0}}, m: {"),
    ]);
    assert_eq!(
        (names(&settled.stale), names(&settled.disabled)),
        (vec!["router r".to_owned()], vec!["middleware x".to_owned()])
    );
    assert_eq!(settled.config.routers["r@file"].middlewares, ["m@file"]);
}

#[test]
fn transports_options_and_chains_are_followed() {
    let text = "http: {routers: {r: {rule: 'Host(`a`)', service: s, middlewares: c, tls: {options: t}}}, \
                services: {s: {loadBalancer: {servers: [{url: 'http://a'}], serversTransport: st}}}, \
                serversTransports: {st: {serverName: old}}, \
                middlewares: {c: {chain: {middlewares: [a, b]}}, a: {addPrefix: {prefix: /a}}, b: {addPrefix: {prefix: /b}}}}\n\
                tls: {options: {t: {minVersion: VersionTLS13}}}";
    for (from, to, stale) in [
        ("serverName: old", "maxIdleConnsPerHost: x", vec!["servers transport st"]),
        ("minVersion: VersionTLS13", "minVersion: VersionTLS99", vec!["TLS options t"]),
        ("serversTransports: {st: {serverName: old}}, ", "", vec!["service s", "servers transport st"]),
        (
            "b: {addPrefix: {prefix: /b}}",
            "z: {addPrefix: {prefix: /z}}",
            vec!["middleware b", "middleware c"],
        ),
        ("{options: {t: {minVersion: VersionTLS13}}}", "{options: {}}", vec!["router r", "TLS options t"]),
    ] {
        let new = text.replace(from, to).replace("options: {}", "certificates: []");
        assert_ne!(new, text, "{from}");
        let settled = follow(&[text, &new]);
        assert_eq!(names(&settled.stale), stale, "{new}");
        assert!(settled.disabled.is_empty(), "{:?}", settled.disabled);
        assert_eq!(settled.config.servers_transports["st@file"].server_name.as_deref(), Some("old"));
    }
}

#[test]
fn pages_that_a_middleware_needs_stay() {
    let text = "http: {routers: {r: {rule: 'Host(`a`)', service: s, middlewares: e}}, \
                services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}, p: {loadBalancer: {servers: [{url: 'http://p'}]}}}, \
                middlewares: {e: {errors: {status: 404, service: p}}}}";
    let gone = text.replace(", p: {loadBalancer: {servers: [{url: 'http://p'}]}}", "");
    assert_ne!(gone, text);
    let settled = follow(&[text, &gone]);
    assert_eq!(names(&settled.stale), ["service p", "middleware e"]);
    let settled = follow(&[&gone]);
    assert_eq!(names(&settled.disabled), ["router r", "middleware e"]);
}

#[test]
fn services_of_services_are_kept_whole() {
    let leaf = |url: &str| format!("{{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}");
    let weighted = |child: &str| format!("{{weighted: {{services: [{{name: {child}}}]}}}}");
    let text = |services: &[(&str, String)]| {
        let services: Vec<_> = services.iter().map(|(name, service)| format!("{name}: {service}")).collect();
        let router = "routers: {r: {rule: 'Path(`/`)', service: a}}";
        format!("http: {{{router}, services: {{{}}}}}", services.join(", "))
    };
    let old = text(&[("a", weighted("b")), ("b", leaf("http://old"))]);
    // A broken child keeps its version, a child that is gone stays for a parent that cannot move on.
    for (new, stale) in [
        (text(&[("a", weighted("b")), ("b", leaf("ftp://new"))]), vec!["service b"]),
        (text(&[("a", weighted("c")), ("b", leaf("http://old"))]), vec!["service a"]),
        (text(&[("a", weighted("c"))]), vec!["service a", "service b"]),
        (text(&[("a", leaf("ftp://new"))]), vec!["service a", "service b"]),
    ] {
        let settled = follow(&[&old, &new]);
        assert_eq!(names(&settled.stale), stale, "{new}");
        assert!(settled.disabled.is_empty(), "{:?}", settled.disabled);
        assert_eq!(server(&settled, "b"), "http://old");
        assert!(settled.config.composites.contains_key("a@file") && settled.config.services.len() == 1);
    }
    // From one kind to the other, and back.
    let settled = follow(&[&old, &text(&[("a", leaf("http://new")), ("b", weighted("a"))]), &old]);
    assert_eq!((settled.config.services.len(), settled.config.composites.len()), (1, 1));
    // `b` keeps its old version, which leads to `a`, whose new one leads to `b`.
    let first = text(&[("a", leaf("http://old")), ("b", weighted("a"))]);
    let second = text(&[("a", weighted("b")), ("b", weighted("nope"))]);
    let settled = follow(&[&first, &second]);
    assert_eq!(names(&settled.stale), ["service a", "service b"]);
    assert_eq!(server(&settled, "a"), "http://old");
}

#[test]
fn old_and_new_chains_make_no_circle() {
    let chains = |a: &str, b: &str| {
        format!(
            "http: {{middlewares: {{a: {{chain: {{middlewares: {a}}}}}, b: {b}, m: {{addPrefix: {{prefix: /}}}}}}}}"
        )
    };
    // `b` keeps its old version, which leads to `a`, whose new one leads to `b`.
    let settled =
        follow(&[&chains("m", "{chain: {middlewares: a}}"), &chains("b", "{retry: {attempts: 0}}")]);
    assert_eq!(names(&settled.stale), ["middleware a", "middleware b"]);
    assert!(coiled(&settled.config).is_empty());
}

#[test]
fn a_middleware_of_an_entry_point_stays_when_it_is_removed() {
    let context = Context {
        entry_point_middlewares: [("web".to_owned(), vec![("m@file".to_owned(), Place::default())])].into(),
        default_entry_points: ["web".to_owned()].into(),
        ..Context::default()
    };
    let without =
        GOOD.replace(", middlewares: {m: {addPrefix: {prefix: /old}}}", "").replace(", middlewares: m}", "}");
    let settled = follow_in(&context, &[GOOD, &without.replace("/old", "/new")]);
    assert_eq!(names(&settled.stale), ["middleware m"]);
    assert_eq!(
        (settled.config.routers["r@file"].rule_text.as_str(), settled.disabled.len()),
        ("Path(`/new`)", 0)
    );
    // Without one in force nothing is let through.
    let settled = follow_in(&context, &[&without]);
    assert!(settled.config.routers.is_empty());
    assert_eq!(names(&settled.disabled), ["router o", "router r"]);
    // Without a provider in its name it is that of each router.
    let context = Context {
        entry_point_middlewares: [("web".to_owned(), vec![("m".to_owned(), Place::default())])].into(),
        ..context
    };
    let parse = |provider: &str, text: &str| parse_dynamic("x.yml", text, provider, &context).unwrap();
    let (file, docker) = (parse("file", GOOD), parse("docker", &without));
    let parts = [("file", &file), ("docker", &docker)].into_iter();
    let settled = settle(parts, &Reasons::new(), &Config::default(), &context);
    assert_eq!(settled.config.routers.keys().collect::<Vec<_>>(), ["o@file", "r@file"]);
}

#[test]
fn providers_lean_on_each_other() {
    let context = Context { providers: ["docker", "file"].map(str::to_owned).into(), ..Context::default() };
    let parse = |provider: &str, text: &str| parse_dynamic("x.yml", text, provider, &context).unwrap();
    let file = parse("file", "http: {routers: {r: {rule: 'Path(`/`)', service: s@docker}}}");
    let docker = parse("docker", "http: {services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}}");
    let gone = parse("docker", "{}");
    let settle = |parts: &[(&str, &Loaded)], last: &Config| {
        settle(parts.iter().copied(), &Reasons::new(), last, &context)
    };
    let first = settle(&[("file", &file)], &Config::default());
    assert_eq!(names(&first.disabled), ["router r"]);
    let both = settle(&[("docker", &docker), ("file", &file)], &first.config);
    assert!(both.config.routers.contains_key("r@file") && both.disabled.is_empty());
    let after = settle(&[("docker", &gone), ("file", &file)], &both.config);
    assert_eq!(after.stale.len(), 2, "{:?}", after.stale);
    // Its containers are gone, and with them its servers: 503 at once, and back when one starts.
    let mut without = both.config.clone();
    without.services.get_mut("s@docker").unwrap().servers.clear();
    assert_eq!(after.config, without);
    let back = settle(&[("docker", &docker), ("file", &file)], &after.config);
    assert_eq!(back.config, both.config);
    // What stays for one is not there for another.
    let router = "{rule: 'Path(`/`)', service: s@docker}";
    let more = parse("file", &format!("http: {{routers: {{r: {router}, a: {router}, z: {router}}}}}"));
    let after = settle(&[("docker", &gone), ("file", &more)], &both.config);
    assert_eq!(names(&after.disabled), ["router a", "router z"]);
    assert_eq!(after.config, without);
}

#[test]
fn a_build_that_fails_sends_an_object_back() {
    let loaded = load(&GOOD.replace("/old", "/new"));
    let old = follow(&[GOOD]);
    let spoilt = Reasons::from([((Kind::Middleware, "m@file".to_owned()), vec!["no".to_owned()])]);
    let settled = settle([("file", &loaded)].into_iter(), &spoilt, &old.config, &Context::default());
    assert_eq!(prefix(&settled, "m"), "/old");
    assert_eq!(settled.config.routers["r@file"].rule_text, "Path(`/new`)");
    assert_eq!(settled.stale, spoilt);
    let settled = settle([("file", &loaded)].into_iter(), &spoilt, &Config::default(), &Context::default());
    assert_eq!(names(&settled.disabled), ["router r", "middleware m"]);
}

#[test]
fn whatever_is_left_out_says_where_its_fault_lies() {
    let text = "http:
  routers:
    dangling: {rule: 'Path(`/`)', service: nope}
    user: {rule: 'Path(`/u`)', service: s, middlewares: outer}
  middlewares:
    outer: {chain: {middlewares: inner}}
    inner: {retry: {attempts: 0}}
  services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}";
    let disabled = follow(&[text]).disabled;
    let place = |name: &str| disabled.iter().find(|((_, known), _)| known == name).unwrap().1.join(" ");
    assert!(
        place("dangling@file").starts_with(
            "the service \"nope@file\" does not exist a.yml:3:44: http.routers.dangling.service: "
        ),
        "{disabled:?}"
    );
    for name in ["user@file", "outer@file", "inner@file"] {
        assert!(
            place(name).starts_with("a.yml:7:31: http.middlewares.inner.retry.attempts: "),
            "{disabled:?}"
        );
    }
}

#[test]
fn certificates_are_known_by_their_files() {
    use crate::dynamic::{KeyPair, Pem};
    let pair = |origin: &str, content: &str| {
        let pem = || Pem(content.as_bytes().into());
        KeyPair { cert: pem(), key: pem(), origin: origin.to_owned() }
    };
    let tls = |pairs: &[KeyPair]| Config {
        tls: Tls { certificates: pairs.to_vec(), ..Tls::default() },
        ..Config::default()
    };
    let (a, b) = (pair("a.pem", "1"), pair("b.pem", "1"));
    let after = |now: Config, broken: &str| {
        let part = Loaded {
            disabled: [((Kind::Certificate, broken.to_owned()), vec!["bad".to_owned()])].into(),
            ..loaded(now)
        };
        settle(
            [("file", &part)].into_iter(),
            &Reasons::new(),
            &tls(&[a.clone(), b.clone()]),
            &Context::default(),
        )
    };
    let newer = pair("b.pem", "2");
    let settled = after(tls(std::slice::from_ref(&newer)), "a.pem");
    assert_eq!(settled.config.tls.certificates, [newer.clone(), a.clone()]);
    assert_eq!(names(&settled.stale), ["certificate a.pem"]);
    // Its file has a new name, too: the old one stays until the new one can be read.
    assert_eq!(
        after(tls(std::slice::from_ref(&newer)), "c.pem").config.tls.certificates,
        [newer.clone(), a.clone()]
    );
    // Nothing was there before.
    let settled = after(tls(&[a.clone(), newer.clone()]), "c.pem");
    assert_eq!(
        (settled.config.tls.certificates, names(&settled.disabled)),
        (vec![a.clone(), newer], vec!["certificate c.pem".to_owned()])
    );

    let default =
        Config { tls: Tls { default_certificate: Some(a.clone()), ..Tls::default() }, ..Config::default() };
    let spoilt =
        Reasons::from([((Kind::Certificate, DEFAULT_CERTIFICATE.to_owned()), vec!["bad".to_owned()])]);
    let part =
        loaded(Config { tls: Tls { default_certificate: Some(b), ..Tls::default() }, ..Config::default() });
    let settled = settle([("file", &part)].into_iter(), &spoilt, &default, &Context::default());
    assert_eq!(settled.config, default);
}

#[test]
fn broken_default_options_let_nobody_in() {
    let bad = "tls: {options: {default: {cipherSuites: [nonsense]}}}";
    assert!(follow(&[bad]).config.tls.refuse_default);
    let good = "tls: {options: {default: {sniStrict: true}}}";
    let settled = follow(&[good, bad]);
    assert!(settled.config.tls.options["default"].sni_strict && !settled.config.tls.refuse_default);
    assert!(!follow(&[bad, good]).config.tls.refuse_default);
}

#[test]
fn a_long_row_of_chains_falls_in_one_go() {
    let mut text = "http: {middlewares: {m0: {retry: {attempts: 0}}".to_owned();
    for n in 1..20_000 {
        text += &format!(",\n m{n}: {{chain: {{middlewares: m{}}}}}", n - 1);
    }
    assert_eq!(follow(&[&(text + "\n }}")]).disabled.len(), 20_000);
}

fn loaded(config: Config) -> Loaded {
    Loaded { config, ..load("{}") }
}

/// Its address may be another's soon.
#[test]
fn what_is_kept_of_a_task_or_container_that_is_gone_has_no_servers() {
    let context = Context { providers: ["swarm", "file"].map(str::to_owned).into(), ..Context::default() };
    let parse = |provider: &str, text: &str| parse_dynamic("x.yml", text, provider, &context).unwrap();
    let address = "{s: {loadBalancer: {servers: [{address: '10.0.0.1:1'}]}}}";
    let swarm = parse(
        "swarm",
        &format!(
            "http: {{services: {{s: {{loadBalancer: {{servers: [{{url: 'http://10.0.0.1'}}]}}}}}}}}\n\
             tcp: {{services: {address}}}\nudp: {{services: {address}}}"
        ),
    );
    let file = parse(
        "file",
        "http: {routers: {r: {rule: 'Path(`/`)', service: s@swarm}}}\n\
         tcp: {routers: {r: {rule: 'HostSNI(`*`)', service: s@swarm}}}\nudp: {routers: {r: {service: s@swarm}}}",
    );
    let settle = |swarm: &Loaded, last: &Config| {
        settle([("swarm", swarm), ("file", &file)].into_iter(), &Reasons::new(), last, &context).config
    };
    let servers = |config: &Config| {
        let tcp::Service::LoadBalancer(tcp) = &config.tcp.services["s@swarm"] else { panic!() };
        let UdpService::LoadBalancer { servers: udp } = &config.udp.services["s@swarm"] else { panic!() };
        [config.services["s@swarm"].servers.len(), tcp.servers.len(), udp.len()]
    };
    let before = settle(&swarm, &Config::default());
    assert_eq!(servers(&before), [1, 1, 1]);
    assert_eq!(servers(&settle(&parse("swarm", "{}"), &before)), [0, 0, 0]);
}
