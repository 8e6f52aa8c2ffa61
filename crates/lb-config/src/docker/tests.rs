use super::*;
use crate::docker::{Addresses, Port};
use crate::static_config::Orchestrator;
use crate::udp::UdpService;

/// A running container at `10.0.0.N`, `N` being the last figure of its name, that exposes port 80.
fn container(name: &str, labels: &[(&str, &str)]) -> Container {
    let number = name.chars().last().and_then(|c| c.to_digit(10)).unwrap_or(1);
    let address = Addresses { v4: format!("10.0.0.{number}").parse().ok(), v6: None };
    Container {
        id: format!("id-{name}"),
        name: name.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        is_running: true,
        networks: [("net".to_owned(), address)].into(),
        ports: vec![Port { number: 80, is_tcp: true, bindings: Vec::new() }],
        ..Container::default()
    }
}

fn load(containers: &[Container]) -> Loaded {
    load_containers(containers, &ContainerSettings::default(), &Config::default(), &Context::default())
}

fn with(containers: &[Container], change: impl FnOnce(&mut ContainerSettings)) -> Loaded {
    let mut settings = ContainerSettings::default();
    change(&mut settings);
    load_containers(containers, &settings, &Config::default(), &Context::default())
}

/// `router: rule -> service, ...; service: servers; ...`
fn show(loaded: &Loaded) -> String {
    let routers = loaded.config.routers.iter();
    let routers = routers.map(|(name, router)| format!("{name}: {} -> {}", router.rule_text, router.service));
    let services = loaded.config.services.iter().map(|(name, service)| {
        let weighted = |server: &crate::dynamic::Server| match server.weight {
            1 => server.url.clone(),
            weight => format!("{} x{weight}", server.url),
        };
        format!("{name}: [{}]", service.servers.iter().map(weighted).collect::<Vec<_>>().join(", "))
    });
    routers.chain(services).collect::<Vec<_>>().join("; ")
}

fn told(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_container_without_labels_gets_a_service_and_a_router() {
    let loaded = load(&[container("web_1", &[])]);
    assert_eq!(
        show(&loaded),
        "web-1@docker: Host(`web-1`) -> web-1@docker; web-1@docker: [http://10.0.0.1:80]"
    );
    assert!(told(&loaded).is_empty());
    assert_eq!(show(&load(&[])), "");
}

#[test]
fn labels_say_what_yaml_says() {
    let loaded = load(&[container(
        "web1",
        &[
            ("traefik.http.routers.API.rule", "PathPrefix(`/api`)"),
            ("traefik.http.routers.api.EntryPoints", "web, websecure"),
            ("traefik.http.routers.api.middlewares", "strip,auth@file"),
            ("traefik.http.routers.api.tls", "true"),
            ("traefik.http.routers.api.tls.domains[0].main", "example.com"),
            ("traefik.http.routers.api.tls.domains[0].sans", "a.example.com,b.example.com"),
            ("traefik.http.routers.api.priority", "42"),
            ("traefik.http.middlewares.strip.stripprefix.prefixes", "/api"),
            ("traefik.http.middlewares.h.headers.customrequestheaders.X-Foo", "bar"),
            ("traefik.http.services.app.loadbalancer.server.port", "3000"),
            ("traefik.http.services.app.loadbalancer.server.weight", "3"),
            ("traefik.http.services.app.loadbalancer.sticky.cookie.name", "c"),
            ("traefik.http.services.app.loadbalancer.healthcheck.path", "/health"),
            ("traefik.http.services.app.loadbalancer.healthcheck.headers.X-Probe", "1"),
        ],
    )]);
    // `auth@file` is for the merge to find.
    let problems = told(&loaded);
    assert!(problems.is_empty(), "{problems:?}");
    // The spelling of the first label, in their order.
    assert_eq!(
        show(&loaded),
        "API@docker: PathPrefix(`/api`) -> app@docker; app@docker: [http://10.0.0.1:3000 x3]"
    );
    let router = &loaded.config.routers["API@docker"];
    assert_eq!(router.entry_points, ["web", "websecure"]);
    assert_eq!(router.middlewares, ["strip@docker", "auth@file"]);
    assert_eq!(router.priority, 42);
    let domains = &router.tls.as_ref().unwrap().domains;
    assert_eq!((&*domains[0].main, domains[0].sans.len()), ("example.com", 2));
    let service = &loaded.config.services["app@docker"];
    assert_eq!(service.sticky.as_ref().unwrap().name, "c");
    assert!(service.health_check.is_some());
    assert_eq!(loaded.config.middlewares.len(), 2);
}

#[test]
fn who_is_used() {
    let enabled = |value: &str| container("a1", &[("traefik.enable", value)]);
    let names = |loaded: Loaded| loaded.config.services.keys().cloned().collect::<Vec<_>>().join(" ");
    for (value, by_default, used) in
        [("true", false, true), ("false", true, false), ("1", false, true), ("maybe", true, false)]
    {
        let loaded = with(&[enabled(value)], |settings| settings.exposed_by_default = by_default);
        assert_eq!(!names(loaded).is_empty(), used, "{value}");
    }
    assert_eq!(names(with(&[container("a1", &[])], |settings| settings.exposed_by_default = false)), "");
    let two = [container("a1", &[("tier", "api")]), container("b2", &[("tier", "web")])];
    let constraints = Constraints::parse("Label(`tier`,`api`)").unwrap();
    assert_eq!(names(with(&two, |settings| settings.constraints = Some(constraints))), "a1@docker");

    let stopped = Container { is_running: false, ..container("a1", &[]) };
    let starting = Container { is_healthy: Some(false), ..container("b2", &[]) };
    let well = Container { is_healthy: Some(true), ..container("c3", &[]) };
    let all = [stopped.clone(), starting, well];
    assert_eq!(names(load(&all)), "c3@docker");
    let empty = with(&all, |settings| settings.allow_empty_services = true);
    assert_eq!(
        show(&empty),
        "b2@docker: Host(`b2`) -> b2@docker; c3@docker: Host(`c3`) -> c3@docker; b2@docker: []; \
         c3@docker: [http://10.0.0.3:80]"
    );
    let labels = [("traefik.docker.allownonrunning".to_owned(), "true".to_owned())].into();
    let kept = load(&[Container { labels, ..stopped }]);
    assert_eq!(show(&kept), "a1@docker: Host(`a1`) -> a1@docker; a1@docker: []");
}

#[test]
fn containers_of_one_service_are_its_servers() {
    let labels = [
        ("traefik.http.routers.web.rule", "PathPrefix(`/`)"),
        ("traefik.http.services.web.loadbalancer.server.port", "80"),
    ];
    let three: Vec<_> = ["c3", "a1", "b2"].map(|name| container(name, &labels)).into();
    let loaded = load(&three);
    assert_eq!(
        show(&loaded),
        "web@docker: PathPrefix(`/`) -> web@docker; \
         web@docker: [http://10.0.0.1:80, http://10.0.0.2:80, http://10.0.0.3:80]"
    );
    assert!(told(&loaded).is_empty());
    // Those of Compose have their name from it.
    let compose = [("com.docker.compose.service", "api"), ("com.docker.compose.project", "shop")];
    let scaled: Vec<_> = ["shop-api-1", "shop-api-2"].map(|name| container(name, &compose)).into();
    assert_eq!(
        show(&load(&scaled)),
        "api-shop@docker: Host(`api-shop`) -> api-shop@docker; \
         api-shop@docker: [http://10.0.0.1:80, http://10.0.0.2:80]"
    );
}

#[test]
fn ports_schemes_and_urls() {
    const SERVER: &str = "traefik.http.services.s.loadbalancer.server";
    let url = |labels: &[(&str, &str)], change: &dyn Fn(&mut Container)| {
        let labels: Vec<(String, &str)> =
            labels.iter().map(|(key, value)| (format!("{SERVER}.{key}"), *value)).collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let mut container = container("a1", &labels);
        change(&mut container);
        let loaded = with(&[container], |settings| settings.use_bind_port_ip = true);
        let service = loaded.config.services.values().next();
        match service {
            Some(service) => service.servers.iter().map(|server| server.url.clone()).collect(),
            None => told(&loaded).join("; "),
        }
    };
    let nothing = |_: &mut Container| {};
    let port = |number, is_tcp, binding: Option<&str>| {
        let bindings = binding.map(|address| (address.to_owned(), 8080)).into_iter().collect();
        Port { number, is_tcp, bindings }
    };
    assert_eq!(url(&[("port", "81")], &nothing), "http://10.0.0.1:81");
    assert_eq!(url(&[("scheme", "h2c"), ("port", "")], &nothing), "h2c://10.0.0.1:80");
    assert_eq!(url(&[("url", "http://b:81/x")], &nothing), "http://b:81/x");
    let several = |c: &mut Container| {
        c.ports = vec![port(9000, true, None), port(53, false, None), port(8080, true, None)]
    };
    assert_eq!(url(&[], &several), "http://10.0.0.1:8080");
    let v6 = |c: &mut Container| {
        c.networks = [("n".to_owned(), Addresses { v4: None, v6: "fd00::1".parse().ok() })].into();
    };
    assert_eq!(url(&[], &v6), "http://[fd00::1]:80");
    for (binding, expected) in [
        ("192.0.2.1", "http://192.0.2.1:8080"),
        ("0.0.0.0", "http://10.0.0.1:80"),
        ("", "http://10.0.0.1:80"),
    ] {
        assert_eq!(url(&[], &|c: &mut Container| c.ports = vec![port(80, true, Some(binding))]), expected);
    }
    for (labels, change, expected) in [
        (
            &[("url", "http://b"), ("port", "80")][..],
            &nothing as &dyn Fn(&mut Container),
            "leaves nothing to `port`",
        ),
        (&[("port", "http")], &nothing, "`http` is not a port"),
        (&[("weight", "1")], &|c: &mut Container| c.ports.clear(), "port is missing"),
        (&[("weight", "1")], &|c: &mut Container| c.networks.clear(), "the container has no address"),
    ] {
        let told = url(labels, change);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn routers_find_their_service() {
    let labels = |more: &[(&'static str, &'static str)]| {
        let mut labels = vec![
            ("traefik.http.services.a.loadbalancer.server.port", "1"),
            ("traefik.http.services.b.loadbalancer.server.port", "2"),
        ];
        labels.extend(more);
        labels
    };
    let loaded = load(&[container("web1", &labels(&[]))]);
    assert_eq!(show(&loaded), "a@docker: [http://10.0.0.1:1]; b@docker: [http://10.0.0.1:2]");
    assert!(told(&loaded)[0].contains("there is no router, and several services"));
    let loaded = load(&[container(
        "web1",
        &labels(&[
            ("traefik.http.routers.x.rule", "Path(`/x`)"),
            ("traefik.http.routers.y.rule", "Path(`/y`)"),
            ("traefik.http.routers.y.service", "b"),
        ]),
    )]);
    assert!(show(&loaded).starts_with("y@docker: Path(`/y`) -> b@docker; a@docker"), "{}", show(&loaded));
    let problem = &told(&loaded)[0];
    assert!(
        problem.starts_with("container web1: traefik.http.routers.x.rule: the router `x` names no service"),
        "{problem}"
    );
    // The rule of a router that has none.
    let loaded = load(&[container("web1", &[("traefik.http.routers.x.entrypoints", "web")])]);
    assert!(show(&loaded).starts_with("x@docker: Host(`web1`) -> web1@docker"), "{}", show(&loaded));
}

#[test]
fn problems_name_the_container_and_the_label() {
    let loaded = load(&[
        container(
            "bad1",
            &[
                ("traefik.http.routers.R.Rule", "Hots(`a`)"),
                ("traefik.http.routers.r.entryPoint", "web"),
                ("traefik.http.middlewares.m.ratelimit.averge", "5"),
                ("traefik.http.middlewares.n.addprefix", "true"),
                ("traefik.htpp.routers.r.rule", "x"),
                ("traefik.tcp.routers.t.priorty", "1"),
            ],
        ),
        container("good2", &[]),
    ]);
    let problems = told(&loaded).join("\n");
    for expected in [
        "container bad1: traefik.http.routers.R.Rule: ",
        "container bad1: traefik.http.routers.r.entryPoint: there is no key `entryPoint` here\n  hint: did you mean `entryPoints`?",
        "container bad1: traefik.http.middlewares.m.ratelimit.averge: there is no key `averge` here\n  hint: did you mean `average`?",
        "container bad1: traefik.http.middlewares.n.addprefix: expected a map, found a single value",
        "container bad1: warning: traefik.htpp.routers.r.rule: the label is ignored",
        "container bad1: traefik.tcp.routers.t.priorty: there is no key `priorty` here",
    ] {
        assert!(problems.contains(expected), "{expected}\n\n{problems}");
    }
    let disabled: Vec<_> = loaded.disabled.keys().map(|(_, name)| name.as_str()).collect();
    assert_eq!(disabled, ["R@docker", "m@docker", "n@docker", "t@docker"]);
    // The service that nothing is wrong with stays, and so does the other container.
    assert_eq!(loaded.config.services.keys().collect::<Vec<_>>(), ["bad1@docker", "good2@docker"]);
}

#[test]
fn what_labels_cannot_say() {
    for (label, expected) in [
        ("http.serversTransports.t.serverName", "`serversTransports` cannot be set by labels"),
        ("http.services.s.weighted.services[0].name", "`weighted` cannot be set by labels"),
        ("http.services.s.loadbalancer.servers[0].url", "a container is its own only server"),
        ("http.routers.r..rule", "the name of the label has an empty part"),
        ("http.nope.x", "there is no key `nope` here"),
    ] {
        let label = format!("traefik.{label}");
        let problems = told(&load(&[container("a1", &[(&label, "x")])])).join("\n");
        assert!(problems.contains(expected) && problems.contains(&label), "{label}: {problems}");
    }
}

#[test]
fn one_containers_mistake_spoils_no_other() {
    let port = ("traefik.http.services.s.loadbalancer.server.port", "80");
    let rule = ("traefik.http.routers.r.rule", "Path(`/`)");
    let good = container("good1", &[port, rule]);
    let bad = container("bad2", &[port, rule, ("traefik.http.services.s.loadbalancer.strategy", "worst")]);
    let refused =
        container("bad3", &[port, ("traefik.http.routers.r.rule", "Path(`/x`)"), ("traefik.http.x", "y")]);
    let loaded = load(&[good, bad.clone(), refused]);
    assert_eq!(show(&loaded), "r@docker: Path(`/`) -> s@docker; s@docker: [http://10.0.0.1:80]");
    assert!(loaded.disabled.is_empty(), "{:?}", loaded.disabled);
    assert_eq!(loaded.problems.len(), 2, "{:?}", told(&loaded));
    // Alone it takes its router along.
    let alone = load(&[bad]);
    assert_eq!(show(&alone), "");
    let disabled: Vec<_> = alone.disabled.keys().map(|(kind, name)| format!("{kind} {name}")).collect();
    assert_eq!(disabled, ["router r@docker", "service s@docker"]);
}

#[test]
fn different_definitions_are_dropped_unless_one_is_in_force() {
    let labels = |rule: &'static str, path: &'static str| {
        [
            ("traefik.http.routers.r.rule", rule),
            ("traefik.http.services.s.loadbalancer.server.port", "80"),
            ("traefik.http.services.s.loadbalancer.healthcheck.path", path),
        ]
    };
    let old =
        [container("old1", &labels("Path(`/a`)", "/h")), container("old2", &labels("Path(`/a`)", "/h"))];
    let new = container("new3", &labels("Path(`/b`)", "/i"));
    let all = [old[0].clone(), old[1].clone(), new.clone()];
    let loaded = load(&all);
    assert_eq!(show(&loaded), "");
    let problems = told(&loaded).join("\n");
    assert!(
        problems.contains(
            "the service `s` is defined differently by container new3, container old1, container old2\n  hint: give all"
        ),
        "{problems}"
    );
    let reasons = loaded.disabled.values().flatten().cloned().collect::<Vec<_>>().join("\n");
    assert!(reasons.contains("router defined multiple times with different configurations in"), "{reasons}");
    // As in a rolling update: what runs goes on, and the newcomer follows when it is alone.
    let before = load(&old);
    let settings = ContainerSettings::default();
    let during = load_containers(&all, &settings, &before.config, &Context::default());
    assert_eq!(
        show(&during),
        "r@docker: Path(`/a`) -> s@docker; s@docker: [http://10.0.0.1:80, http://10.0.0.2:80]"
    );
    assert!(told(&during).join("\n").contains("this definition waits until that one is gone"));
    let after = load_containers(&[new], &settings, &during.config, &Context::default());
    assert_eq!(show(&after), "r@docker: Path(`/b`) -> s@docker; s@docker: [http://10.0.0.3:80]");
    assert!(told(&after).is_empty());
}

/// `router: rule -> service; service: servers` of `tcp`.
fn show_tcp(loaded: &Loaded) -> String {
    let routers = loaded.config.tcp.routers.iter();
    let routers = routers.map(|(name, router)| format!("{name}: {} -> {}", router.rule_text, router.service));
    let services = loaded.config.tcp.load_balancers().map(|(name, balancer)| {
        let servers: Vec<_> = balancer.servers.iter().map(|server| server.address.clone()).collect();
        format!("{name}: [{}]", servers.join(", "))
    });
    routers.chain(services).collect::<Vec<_>>().join("; ")
}

#[test]
fn tcp_alone_makes_no_http() {
    let labels = [
        ("traefik.tcp.routers.t.rule", "HostSNI(`*`)"),
        ("traefik.tcp.routers.t.middlewares", "few"),
        ("traefik.tcp.middlewares.few.inflightconn.amount", "5"),
        ("traefik.tcp.services.db.loadbalancer.server.port", "5432"),
    ];
    let loaded = load(&[container("db1", &labels), container("db2", &labels)]);
    assert_eq!(show(&loaded), "");
    assert!(told(&loaded).is_empty(), "{:?}", told(&loaded));
    let expected = "t@docker: HostSNI(`*`) -> db@docker; db@docker: [10.0.0.1:5432, 10.0.0.2:5432]";
    assert_eq!(show_tcp(&loaded), expected);
    assert!(loaded.config.tcp.middlewares.contains_key("few@docker"));
}

#[test]
fn tcp_middlewares_alone_make_no_server() {
    let few = ("traefik.tcp.middlewares.few.inflightconn.amount", "5");
    let loaded = load(&[container("web1", &[few])]);
    assert_eq!(show(&loaded), "web1@docker: Host(`web1`) -> web1@docker; web1@docker: [http://10.0.0.1:80]");
    assert_eq!(show_tcp(&loaded), "");
    assert!(told(&loaded).is_empty() && loaded.config.tcp.middlewares.contains_key("few@docker"));
}

#[test]
fn tcp_labels_leave_out_what_is_clear_and_say_what_is_not() {
    let loaded = load(&[container("db1", &[("traefik.tcp.routers.t.rule", "HostSNI(`*`)")])]);
    assert_eq!(show_tcp(&loaded), "t@docker: HostSNI(`*`) -> db1@docker; db1@docker: [10.0.0.1:80]");
    for (labels, expected) in [
        (&[("traefik.tcp.services.s.loadbalancer.server.port", "x")][..], "`x` is not a port"),
        (&[("traefik.tcp.services.s.weighted.services[0].name", "x")], "`weighted` cannot be set by labels"),
        (
            &[("traefik.tcp.services.s.loadbalancer.servers[0].address", "a:1")],
            "a container is its own only server",
        ),
        (
            &[("traefik.tcp.serverstransports.t.dialtimeout", "1s")],
            "`serversTransports` cannot be set by labels",
        ),
        (&[("traefik.tcp.routers.t.service", "s")], "`rule` is missing"),
        (
            &[
                ("traefik.tcp.services.a.loadbalancer.server.port", "1"),
                ("traefik.tcp.services.b.loadbalancer.server.port", "2"),
                ("traefik.tcp.routers.t.rule", "HostSNI(`*`)"),
            ],
            "the router `t` names no service, and the container has several",
        ),
    ] {
        let loaded = load(&[container("db1", labels)]);
        assert!(told(&loaded).join("\n").contains(expected), "{expected}: {:?}", told(&loaded));
    }
}

/// A task of the service `shop_web`.
fn task(slot: usize, labels: &[(&str, &str)]) -> Container {
    let container = container(&format!("shop_web.{slot}"), labels);
    Container { service: Some("shop_web".to_owned()), ports: Vec::new(), ..container }
}

#[test]
fn the_tasks_of_a_service_are_its_servers() {
    let swarm = |labels: &[(&str, &str)]| {
        let tasks: Vec<_> = (1..4).map(|slot| task(slot, labels)).collect();
        with(&tasks, |settings| settings.orchestrator = Orchestrator::Swarm)
    };
    let port = ("traefik.http.services.web.loadbalancer.server.port", "80");
    let loaded = swarm(&[port]);
    assert_eq!(
        show(&loaded),
        "shop-web@swarm: Host(`shop-web`) -> web@swarm; \
         web@swarm: [http://10.0.0.1:80, http://10.0.0.2:80, http://10.0.0.3:80]"
    );
    assert!(told(&loaded).is_empty());
    // Nothing is exposed, and it is told once.
    let [missing] = told(&swarm(&[])).try_into().expect("one problem");
    assert!(missing.contains("service shop_web: warning: port is missing"), "{missing}");
    let wrong =
        told(&swarm(&[port, ("traefik.http.routers.a.rul", "x"), ("traefik.http.routers.b.rul", "x")]));
    assert_eq!(
        wrong.iter().filter(|told| told.contains("there is no key `rul` here")).count(),
        2,
        "{wrong:?}"
    );
    let both = swarm(&[port, ("traefik.docker.network", "net"), ("traefik.swarm.network", "net")]);
    let expected = "service shop_web: traefik.docker.network: `traefik.swarm.network` is there as well\n  \
                    hint: keep the labels that begin with `traefik.swarm`";
    assert_eq!((show(&both).as_str(), told(&both)), ("", vec![expected.to_owned()]));
}

#[test]
fn the_network_of_a_task_is_named_by_either_label() {
    let mut task = task(1, &[]);
    let address = Addresses { v4: "10.0.9.9".parse().ok(), v6: None };
    task.networks.insert("apart".to_owned(), address);
    let address =
        |container: &Container| container.address(&ContainerSettings::default()).unwrap().0.to_string();
    for label in ["traefik.swarm.network", "traefik.docker.network"] {
        task.labels = [(label.to_owned(), "net".to_owned())].into();
        assert_eq!(address(&task), "10.0.0.1", "{label}");
    }
    // A container is in no swarm.
    let alone = Container { service: None, ..task.clone() };
    let labels = [("traefik.swarm.network".to_owned(), "net".to_owned())].into();
    assert_eq!(address(&Container { labels, ..alone }), "10.0.9.9");
}

#[test]
fn either_label_leaves_balancing_to_the_swarm() {
    let is_balanced =
        |name: &str, value: &str| is_balanced_by_swarm(&[(name.to_owned(), value.to_owned())].into());
    assert!(is_balanced("traefik.swarm.lbswarm", "true") && is_balanced("traefik.docker.LBSwarm", "1"));
    assert!(!is_balanced("traefik.swarm.lbswarm", "false") && !is_balanced("traefik.enable", "true"));
}

/// `router -> service; service: servers` of `udp`.
fn show_udp(loaded: &Loaded) -> String {
    let routers = loaded.config.udp.routers.iter();
    let routers = routers.map(|(name, router)| format!("{name} -> {}", router.service));
    let services = loaded.config.udp.services.iter().map(|(name, service)| {
        let UdpService::LoadBalancer { servers } = service else { panic!("{name}") };
        let servers: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
        format!("{name}: [{}]", servers.join(", "))
    });
    routers.chain(services).collect::<Vec<_>>().join("; ")
}

#[test]
fn udp_labels_make_routers_and_servers() {
    let labels = [
        ("traefik.udp.routers.dns.entrypoints", "dns"),
        ("traefik.udp.routers.dns.service", "dns"),
        ("traefik.UDP.Services.dns.LoadBalancer.Server.Port", "5353"),
    ];
    let loaded = load(&[container("dns1", &labels), container("dns2", &labels)]);
    assert!(told(&loaded).is_empty(), "{:?}", told(&loaded));
    assert_eq!(show(&loaded), "", "UDP alone makes no HTTP");
    assert_eq!(show_udp(&loaded), "dns@docker -> dns@docker; dns@docker: [10.0.0.1:5353, 10.0.0.2:5353]");
    assert_eq!(loaded.config.udp.routers["dns@docker"].entry_points, ["dns"]);
    let stopped = Container { is_running: false, ..container("dns2", &labels) };
    let loaded = load(&[container("dns1", &labels), stopped]);
    assert_eq!(show_udp(&loaded), "dns@docker -> dns@docker; dns@docker: [10.0.0.1:5353]");
}

/// The port is the lowest for UDP, or that for TCP where nobody has said `/udp`.
#[test]
fn udp_labels_leave_out_what_is_clear_and_say_what_is_not() {
    let labels =
        [("traefik.udp.routers.dns.entrypoints", "dns"), ("traefik.tcp.routers.t.rule", "HostSNI(`*`)")];
    let mut exposing = container("dns1", &labels);
    assert_eq!(show_udp(&load(&[exposing.clone()])), "dns@docker -> dns1@docker; dns1@docker: [10.0.0.1:80]");
    exposing.ports.push(Port { number: 5353, is_tcp: false, bindings: vec![("192.0.2.7".to_owned(), 53)] });
    let loaded = load(&[exposing.clone()]);
    assert_eq!(show_udp(&loaded), "dns@docker -> dns1@docker; dns1@docker: [10.0.0.1:5353]");
    assert_eq!(show_tcp(&loaded), "t@docker: HostSNI(`*`) -> dns1@docker; dns1@docker: [10.0.0.1:80]");
    let bound = with(&[exposing], |settings| settings.use_bind_port_ip = true);
    assert_eq!(show_udp(&bound), "dns@docker -> dns1@docker; dns1@docker: [192.0.2.7:53]");
    for (labels, expected) in [
        (&[("traefik.udp.services.s.loadbalancer.server.port", "0")][..], "`0` is not a port"),
        (&[("traefik.udp.services.s.weighted.services[0].name", "x")], "`weighted` cannot be set by labels"),
        (
            &[("traefik.udp.services.s.loadbalancer.servers[0].address", "a:1")],
            "a container is its own only server",
        ),
        (&[("traefik.udp.routers.r.rule", "x")], "there is no key `rule` here"),
        (
            &[
                ("traefik.udp.services.a.loadbalancer.server.port", "1"),
                ("traefik.udp.services.b.loadbalancer.server.port", "2"),
                ("traefik.udp.routers.r.entrypoints", "dns"),
            ],
            "the router `r` names no service, and the container has several",
        ),
    ] {
        let loaded = load(&[container("dns1", labels)]);
        assert!(told(&loaded).join("\n").contains(expected), "{expected}: {:?}", told(&loaded));
    }
}
