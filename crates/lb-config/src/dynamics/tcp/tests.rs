use super::*;
use crate::tcp::{HealthCheck, KeepAlive, LoadBalancer, ProxyVersion, Server, ServersTransport, Service};
use crate::testing::{disabled, load, problems};
use crate::{Context, Loaded, parse_dynamic, parse_static};
use lb_core::route::Syntax;
use std::time::Duration;

const SERVICE: &str = "services: {s: {loadBalancer: {servers: [{address: 'a:1'}]}}}";

fn router(text: &str) -> Router {
    let mut loaded = load(&format!("tcp: {{{SERVICE}, routers: {{r: {text}}}}}"));
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    loaded.config.tcp.routers.remove("r@file").unwrap()
}

fn balancer(text: &str) -> LoadBalancer {
    let mut loaded = load(&format!("tcp: {{services: {{x: {{loadBalancer: {text}}}}}}}"));
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    match loaded.config.tcp.services.remove("x@file") {
        Some(Service::LoadBalancer(balancer)) => balancer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn routers_have_traefiks_defaults() {
    let plain = router("{rule: HostSNI(`*`), service: s}");
    assert_eq!((plain.priority, &*plain.service, plain.tls), (-1, "s@file", None));
    let passing = router("{rule: HostSNI(`a.test`), service: s, tls: {passthrough: true}, priority: 7}");
    assert_eq!((passing.priority, passing.tls.unwrap().passthrough), (7, true));
    let ended = router("{rule: 'HostSNI(`a.test`)', service: s, tls: {}}").tls.unwrap();
    assert_eq!((ended.passthrough, &*ended.terminated.options), (false, "default"));
}

#[test]
fn rules_are_in_the_syntax_that_is_named() {
    let v2 = Context { rule_syntax: Syntax::V2, ..Context::default() };
    for (context, syntax, reads_v2) in [
        (&Context::default(), "", false),
        (&Context::default(), "ruleSyntax: v2", true),
        (&v2, "", true),
        (&v2, "ruleSyntax: v3", false),
    ] {
        let router = format!("{{rule: 'HostSNI(`a`, `b`)', service: s, tls: {{}}, {syntax}}}");
        let text = format!("tcp: {{{SERVICE}, routers: {{r: {router}}}}}");
        let loaded = parse_dynamic("a.yml", &text, "file", context).unwrap();
        let router = loaded.config.tcp.routers.get("r@file");
        assert_eq!(router.is_some(), reads_v2, "{syntax}: {:?}", loaded.problems);
        let written = syntax.strip_prefix("ruleSyntax: ").unwrap_or_default();
        assert!(router.is_none_or(|router| router.rule_syntax == written));
    }
}

#[test]
fn balancers_and_transports_have_traefiks_defaults() {
    let plain = balancer("{servers: [{address: '[::1]:5432', tls: true}]}");
    let server = Server { address: "[::1]:5432".into(), host: "::1".into(), port: 5432, tls: true };
    assert_eq!(
        plain,
        LoadBalancer {
            servers: vec![server],
            servers_transport: None,
            proxy_protocol: None,
            termination_delay: None,
            health_check: None,
        }
    );
    let here = &balancer("{servers: [{address: ':5432'}]}").servers[0];
    assert_eq!((&*here.host, here.port, &*here.address), ("localhost", 5432, ":5432"));
    let old = balancer("{servers: [], proxyProtocol: {version: 1}, terminationDelay: -1, healthCheck: {}}");
    assert_eq!((old.proxy_protocol, old.termination_delay), (Some(ProxyVersion::V1), Some(None)));
    let check = balancer("{servers: [], healthCheck: {send: PING, expect: PONG, interval: 3s, port: 9}}");
    let seconds = Duration::from_secs;
    assert_eq!(
        check.health_check.unwrap(),
        HealthCheck {
            port: Some(9),
            send: "PING".into(),
            expect: "PONG".into(),
            interval: seconds(3),
            unhealthy_interval: seconds(3),
            timeout: seconds(5),
        }
    );
    let loaded = load(
        "tcp: {serversTransports: {a: {}, b: {dialTimeout: 0, dialKeepAlive: -1, terminationDelay: 1s, \
         proxyProtocol: {}, tls: {insecureSkipVerify: true, serverName: n}}}}",
    );
    let transports = loaded.config.tcp.servers_transports;
    assert_eq!(transports["a@file"], ServersTransport::default());
    let b = &transports["b@file"];
    assert_eq!((b.dial_timeout, b.dial_keep_alive), (None, KeepAlive::Off));
    assert_eq!((b.termination_delay, b.proxy_protocol), (Some(Some(seconds(1))), Some(ProxyVersion::V2)));
    assert!(b.tls.insecure_skip_verify && b.tls.server_name.as_deref() == Some("n"));
    let (config, warnings) =
        parse_static("vigie.yml", "tcpServersTransport: {dialTimeout: 3s, terminationDelay: 0}").unwrap();
    assert!(warnings.iter().all(|warning| !warning.is_error()));
    let of_all = config.tcp_servers_transport;
    assert_eq!(
        (of_all.dial_timeout, of_all.termination_delay),
        (Some(seconds(3)), Some(Some(Duration::ZERO)))
    );
}

#[test]
fn what_cannot_work_is_told_with_its_place() {
    for (text, expected) in [
        (
            "routers: {r: {rule: HostSNI(`a`), service: s}}",
            "tcp.routers.r.rule: the rule names a host, which only clients with TLS do",
        ),
        ("routers: {r: {rule: Host(`a`), service: s}}", "tcp.routers.r.rule: unknown matcher `Host`"),
        (
            "routers: {r: {rule: HostSNI(`*`), service: t}}",
            "tcp.routers.r.service: no TCP service is called `t`",
        ),
        ("routers: {r: {service: s}}", "tcp.routers.r: `rule` is missing"),
        (
            "routers: {r: {rule: HostSNI(`*`), service: s, middlewares: [m]}}",
            "tcp.routers.r.middlewares[0]: no TCP middleware is called `m`",
        ),
        (
            "routers: {r: {rule: HostSNI(`*`), service: s, tls: {options: o}}}",
            "tcp.routers.r.tls.options: no TLS options are called `o`",
        ),
        ("services: {x: {}}", "tcp.services.x: the service has no kind"),
        ("services: {x: {weighted: {services: [{name: x}]}}}", "the service contains itself"),
        (
            "services: {x: {weighted: {healthCheck: {}, services: [{name: s}]}}}",
            "tcp.services.x.weighted.services[0].name: `s` has no health check",
        ),
        (
            "services: {x: {loadBalancer: {servers: [{address: 'http://a:1'}]}}}",
            "tcp.services.x.loadBalancer.servers[0].address: `http://a:1` is a URL, not an address",
        ),
        (
            "services: {x: {loadBalancer: {servers: [{address: a}]}}}",
            "tcp.services.x.loadBalancer.servers[0].address: `a` has no port",
        ),
        (
            "services: {x: {loadBalancer: {servers: [], proxyProtocol: {version: 3}}}}",
            "tcp.services.x.loadBalancer.proxyProtocol.version: 3 is out of range",
        ),
        (
            "services: {x: {loadBalancer: {servers: [], serversTransport: t}}}",
            "no TCP servers transport is called `t`",
        ),
        ("middlewares: {m: {}}", "tcp.middlewares.m: the middleware has no kind"),
        (
            "middlewares: {m: {ipAllowList: {sourceRange: []}}}",
            "tcp.middlewares.m.ipAllowList.sourceRange: the list is empty",
        ),
        (
            "middlewares: {m: {inFlightConn: {amount: -1}}}",
            "tcp.middlewares.m.inFlightConn.amount: -1 is out of range",
        ),
        ("serversTransports: {t: {dialTimeout: x}}", "tcp.serversTransports.t.dialTimeout: `x`"),
        ("routers: {}", "tcp.routers: cannot be a standalone element"),
        ("routerz: {a: {}}", "tcp.routerz: there is no key `routerz` here"),
    ] {
        let services = if text.starts_with("services: {") {
            text.replacen("services: {", "services: {s: {loadBalancer: {servers: [{address: 'a:1'}]}}, ", 1)
        } else {
            format!("{SERVICE}, {text}")
        };
        let found = problems(&format!("tcp: {{{services}}}"));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{text}: {found:?}");
    }
}

/// Reference 2.12: that server is skipped.
#[test]
fn a_bad_address_costs_no_other_server() {
    let text = "tcp: {services: {x: {loadBalancer: {servers: [{address: a}, {address: 'b:1'}]}}}}";
    let loaded = load(text);
    assert_eq!(problems(text), ["tcp.services.x.loadBalancer.servers[0].address: `a` has no port"]);
    let Service::LoadBalancer(balancer) = &loaded.config.tcp.services["x@file"] else { panic!() };
    assert_eq!(balancer.servers.len(), 1);
}

#[test]
fn one_broken_router_leaves_the_others_alone() {
    let text = format!(
        "tcp: {{{SERVICE}, middlewares: {{m: {{ipAllowList: {{sourceRange: [x]}}}}}}, routers: {{\
         good: {{rule: HostSNI(`*`), service: s}}, bad: {{rule: HostSNI(`*`), service: s, middlewares: [m]}}}}}}"
    );
    let loaded: Loaded = load(&text);
    assert_eq!(disabled(&loaded, Kind::TcpRouter), ["bad@file"]);
    assert!(loaded.config.tcp.routers.contains_key("good@file"));
    // What is right in itself may work with an older middleware.
    assert!(loaded.waiting.tcp.routers.contains_key("bad@file"));
}
