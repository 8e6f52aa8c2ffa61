//! What holds for any text that is read as a configuration. The time it takes is bounded by libFuzzer's
//! `-timeout`, its memory by `-rss_limit_mb`.

use lb_config::dynamic::Config;
use lb_config::{Context, Kind, Loaded, Problem, Problems, Scope, parse_dynamic, parse_static};

/// More problems are counted, not listed.
const MOST: usize = 1_001;

pub(crate) fn check(name: &str, text: &str) {
    let read = || parse_dynamic(name, text, "file", &Context::default());
    match read() {
        Ok(loaded) => {
            places(&loaded.problems, name, text);
            runnable(&loaded.config);
            tcp_runnable(&loaded.config);
            accounted(&loaded);
            let again = read().expect("it was accepted a moment ago");
            assert_eq!((&again.problems, &again.disabled), (&loaded.problems, &loaded.disabled));
            assert!(again.config == loaded.config, "two readings of one file differ");
        }
        Err(problems) => {
            refused(&problems, name, text);
            assert_eq!(read().err().as_ref(), Some(&problems));
        }
    }
    match parse_static(name, text) {
        Ok((config, warnings)) => {
            places(&warnings, name, text);
            assert!(!warnings.iter().any(Problem::is_error), "accepted with {warnings:?}");
            // What a dynamic file may refer to is known by now.
            let context = Context::from(&config);
            let names = context.entry_points.as_ref().expect("a static file names its entry points");
            assert!(context.default_entry_points.iter().all(|name| names.contains(name)));
        }
        Err(problems) => refused(&problems, name, text),
    }
}

fn refused(problems: &Problems, name: &str, text: &str) {
    assert!(problems.errors() > 0, "refused without an error");
    places(&problems.0, name, text);
}

/// Each problem names a place that is there, in words that stay on their line.
fn places(problems: &[Problem], name: &str, text: &str) {
    assert!(problems.len() <= MOST, "{} problems", problems.len());
    // A carriage return alone breaks lines for YAML and for some editors, for TOML and for others it does not.
    let lines: Vec<&str> = text.split('\n').collect();
    let shorter = text.replace("\r\n", "\n");
    let shorter: Vec<&str> = shorter.split(['\n', '\r']).collect();
    let is_place = |line: u32, column: u32| {
        [&lines, &shorter].into_iter().any(|lines| {
            let end = lines.get(line as usize - 1).map(|line| line.chars().count() + 1);
            end.is_some_and(|end| (1..=end).contains(&(column as usize)))
        })
    };
    for problem in problems {
        let Problem { file, line, column, key, message, hint, .. } = problem;
        assert!(!message.is_empty());
        for words in [key, message].into_iter().chain(hint) {
            assert!(!words.contains(char::is_control), "{words:?}");
        }
        if file != name {
            continue; // a certificate or a list of users
        }
        // The whole file, or a place in it; its end is one too.
        assert!((*line, *column) == (0, 0) || (*line > 0 && is_place(*line, *column)), "{problem}");
    }
}

/// Nothing in a configuration refers to what is not there.
fn runnable(config: &Config) {
    for (name, router) in &config.routers {
        let service = &router.service;
        let leads_on = service.is_empty();
        let there =
            leads_on || config.services.contains_key(service) || config.composites.contains_key(service);
        assert!(there || service.ends_with("@internal"), "{name}: {service}");
        for middleware in &router.middlewares {
            assert!(config.middlewares.contains_key(middleware), "{name}: {middleware}");
        }
        if let Some(tls) = &router.tls {
            assert!(tls.options == "default" || config.tls.options.contains_key(&tls.options), "{name}");
        }
        assert_eq!(router.rule.as_str(), router.rule_text);
    }
    for (name, composite) in &config.composites {
        for child in composite.children() {
            let there =
                config.services.contains_key(&child.name) || config.composites.contains_key(&child.name);
            assert!(there, "{name}: {}", child.name);
        }
    }
    for (name, service) in &config.services {
        let transport = &service.servers_transport;
        let there = config.servers_transports.contains_key(transport) || transport == "default@internal";
        assert!(there, "{name}: {transport}");
        for server in &service.servers {
            assert!(!server.host.is_empty() && server.port > 0, "{name}: {server:?}");
        }
    }
}

/// The same for `tcp`.
fn tcp_runnable(config: &Config) {
    let tcp = &config.tcp;
    for (name, router) in &tcp.routers {
        assert!(tcp.services.contains_key(&router.service), "{name}: {}", router.service);
        for middleware in &router.middlewares {
            assert!(tcp.middlewares.contains_key(middleware), "{name}: {middleware}");
        }
        if let Some(tls) = router.tls.as_ref().filter(|tls| !tls.passthrough) {
            let options = &tls.terminated.options;
            assert!(options == "default" || config.tls.options.contains_key(options), "{name}");
        }
        assert!(router.tls.is_some() || !router.rule.names_host(), "{name}");
    }
    for (name, service) in &tcp.services {
        for child in service.children() {
            assert!(tcp.services.contains_key(&child.name), "{name}: {}", child.name);
        }
    }
    for (name, balancer) in tcp.load_balancers() {
        if let Some(transport) = &balancer.servers_transport {
            assert!(tcp.servers_transports.contains_key(transport), "{name}: {transport}");
        }
        for server in &balancer.servers {
            assert!(!server.host.is_empty() && server.port > 0, "{name}: {server:?}");
        }
    }
}

/// What was left out is not there, and each error of an object that is left out says which.
fn accounted(loaded: &Loaded) {
    let Config { routers, services, composites, middlewares, servers_transports, tls, tcp, udp } =
        &loaded.config;
    for (kind, name) in loaded.disabled.keys() {
        let there = match kind {
            Kind::Router => routers.contains_key(name),
            Kind::Service => services.contains_key(name) || composites.contains_key(name),
            Kind::Middleware => middlewares.contains_key(name),
            Kind::ServersTransport => servers_transports.contains_key(name),
            Kind::TlsOptions => tls.options.contains_key(name),
            Kind::TcpRouter => tcp.routers.contains_key(name),
            Kind::TcpService => tcp.services.contains_key(name),
            Kind::TcpMiddleware => tcp.middlewares.contains_key(name),
            Kind::TcpServersTransport => tcp.servers_transports.contains_key(name),
            Kind::UdpRouter => udp.routers.contains_key(name),
            Kind::UdpService => udp.services.contains_key(name),
            // Neither has a name by which it could be found.
            Kind::Certificate | Kind::File => false,
        };
        assert!(!there, "{kind} {name} is disabled and in use");
    }
    for problem in loaded.problems.iter().filter(|problem| problem.is_error()) {
        assert_ne!(problem.scope, Scope::File, "{problem}");
    }
}
