//! What problems look like to the person who wrote the file.

use lb_config::{Context, Loaded, Problems, parse_dynamic, parse_static};

/// Every problem of a dynamic file, or of the load it was refused with.
fn dynamic(text: &str) -> String {
    let context =
        Context { entry_points: Some(["web", "websecure"].map(str::to_owned).into()), ..Context::default() };
    let problems = match parse_dynamic("shop.yml", text, "file", &context) {
        Ok(Loaded { problems, .. }) | Err(Problems(problems)) => problems,
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn static_file(text: &str) -> String {
    let problems = match parse_static("vigie.yml", text) {
        Ok((_, warnings)) => warnings,
        Err(Problems(problems)) => problems,
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn all_problems_come_in_one_go_each_with_its_place_and_a_way_out() {
    let text = r"http:
  routers:
    api:
      rule: Host(`a.test`)
      entryPoints: [web, websecrue]
      service: pyaments
    old:
      rule: HostBAD(`a.test`)
      service: users
      middlewares: [auth, 'limit@file', there@docker]
  services:
    payments:
      loadBalancer:
        servers:
          - url: 127.0.0.1:3001
    users:
      loadBalancer:
        servers:
          - url: http://127.0.0.1:3002
        healthCheck:
          interval: 5s
          timeout: 10s
        strategy: leastconn
";
    assert_eq!(
        dynamic(text),
        r"shop.yml:5:26: http.routers.api.entryPoints[1]: no entry point is called `websecrue`
  hint: did you mean `websecure`? known entry points: web, websecure
shop.yml:6:16: http.routers.api.service: no service is called `pyaments`
  hint: did you mean `payments`? known services: payments, users
shop.yml:8:13: http.routers.old.rule: unknown matcher `HostBAD`
  hint: did you mean `Host`?
shop.yml:10:21: http.routers.old.middlewares[0]: no middleware is called `auth`
  hint: there are no middlewares
shop.yml:10:27: http.routers.old.middlewares[1]: no middleware is called `limit`
  hint: there are no middlewares
shop.yml:10:41: http.routers.old.middlewares[2]: no middleware is called `there@docker`
  hint: the provider `docker` is not switched on: add `providers.docker`
shop.yml:15:18: http.services.payments.loadBalancer.servers[0].url: `127.0.0.1:3001` has no scheme
  hint: write `http://127.0.0.1:3001`, `https://...` or `h2c://...`
shop.yml:22:20: warning: http.services.users.loadBalancer.healthCheck.timeout: 10s is longer than the interval of 5s
  hint: lower the timeout or raise the interval
shop.yml:23:19: http.services.users.loadBalancer.strategy: `leastconn` is not a known value
  hint: did you mean `leastConn`? known values: wrr, leastConn, p2c, hrw, leasttime
"
    );
}

#[test]
fn a_static_file_is_checked_as_thoroughly() {
    let text = r"entryPoints:
  web:
    address: :80
    http:
      redirections:
        entryPoint:
          to: websecrue
  websecure:
    adress: :443
    http3: {advertisedPort: 70000}
  dns:
    address: :53/sctp
  again:
    address: '[::]:80'
    transport:
      respondingTimeouts:
        readTimeout: 10d
providers:
  nomad: {}
  file: {}
spiffe: {}
ping:
  entryPoint: metrics
log:
  level: verbose
htpp: {}
";
    assert_eq!(
        static_file(text),
        r"vigie.yml:7:15: entryPoints.web.http.redirections.entryPoint.to: no entry point is called `websecrue`
  hint: did you mean `websecure`? known entry points: web, websecure, dns, again
vigie.yml:9:5: entryPoints.websecure: `address` is missing
  hint: write `address: :80`
vigie.yml:9:5: entryPoints.websecure.adress: there is no key `adress` here
  hint: did you mean `address`? known keys: address, asDefault, reusePort, allowACMEByPass, transport, proxyProtocol, forwardedHeaders, http, http2, limits, http3, udp and 1 more
vigie.yml:10:29: entryPoints.websecure.http3.advertisedPort: 70000 is out of range
  hint: allowed: from 0 to 65535
vigie.yml:12:14: entryPoints.dns.address: `sctp` is not a protocol
  hint: write `/tcp`, `/udp` or leave it out
vigie.yml:14:14: entryPoints.again.address: the entry point `web` has the same address
vigie.yml:17:22: entryPoints.again.transport.respondingTimeouts.readTimeout: `10d` has a unit that does not exist
  hint: write seconds as a whole number, or a unit: `300ms`, `10s`, `1m30s`
vigie.yml:19:3: providers.nomad: `nomad` is not supported yet
vigie.yml:20:9: providers.file: cannot be a standalone element: `{}` is empty
  hint: remove the key, or write at least one option
vigie.yml:21:1: spiffe: `spiffe` is not supported yet
vigie.yml:23:15: ping.entryPoint: no entry point is called `metrics`
  hint: known entry points: again, dns, web, websecure
vigie.yml:25:10: warning: log.level: `verbose` is not a known value; `ERROR` is used
  hint: known values: TRACE, DEBUG, INFO, WARN, ERROR, FATAL, PANIC
vigie.yml:26:1: warning: htpp: the top-level key `htpp` is ignored
"
    );
}

#[test]
fn the_shape_of_a_file_is_checked_before_anything_is_loaded() {
    let text = r"http:
  routers:
    a: {rule: Host(`a`), servce: s, Rule: Host(`b`)}
    b: [rule]
  services:
    s:
      loadBalancer:
        servers: {url: http://a}
        passHostHeader: yes
        healthCheck: {}
        responseForwarding: {flushInterval: soon}
  middlewares:
    m: {rateLimit: {average: many, burst: 1.5}}
    n: {plugin: {}, headers: {frameDeny: true}}
udp:
  routers: {}
extra: 1
http: {}
";
    assert_eq!(
        dynamic(text),
        r"shop.yml:3:26: http.routers.a.servce: there is no key `servce` here
  hint: did you mean `service`? known keys: rule, ruleSyntax, service, parentRefs, entryPoints, middlewares, priority, tls, observability
shop.yml:3:37: http.routers.a.Rule: `Rule` is the same key as `rule`
  hint: upper and lower case do not matter; keep one, written `rule`
shop.yml:4:8: http.routers.b: expected a map, found a list
shop.yml:8:18: http.services.s.loadBalancer.servers: expected a list, found a map
  hint: put `- ` before the element; in TOML its header is `[[...]]`
shop.yml:9:25: http.services.s.loadBalancer.passHostHeader: expected `true` or `false`, found `yes`
  hint: write `true` or `false`
shop.yml:10:22: http.services.s.loadBalancer.healthCheck: cannot be a standalone element: `{}` is empty
  hint: remove the key, or write at least one option
shop.yml:11:45: http.services.s.loadBalancer.responseForwarding.flushInterval: `soon` is not a length of time
  hint: write seconds as a whole number, or a unit: `300ms`, `10s`, `1m30s`
shop.yml:13:30: http.middlewares.m.rateLimit.average: expected a whole number, found `many`
shop.yml:13:43: http.middlewares.m.rateLimit.burst: expected a whole number, found `1.5`
shop.yml:14:8: http.middlewares.n: a middleware can be of one kind only
  hint: declare one middleware for each kind; a `chain` combines them
shop.yml:14:9: http.middlewares.n.plugin: `plugin` is not supported yet
shop.yml:16:12: udp.routers: cannot be a standalone element: `{}` is empty
  hint: remove the key, or write at least one option
shop.yml:17:1: warning: extra: the top-level key `extra` is ignored
shop.yml:18:1: the key `http` is given twice
  hint: it was first given in line 1; remove one of the two
"
    );
}

#[test]
fn places_inside_a_value_follow_quotes_lists_and_aliases() {
    let rule = |written: &str| {
        let text = format!(
            "x: &r {{rule: Host(`a`), service: api@internal}}\nhttp:\n  routers:\n    r:\n      rule: {written}\n      service: api@internal\n"
        );
        let problems = dynamic(&text);
        let place: Vec<&str> = problems.lines().last().unwrap_or("").splitn(4, ':').collect();
        problems.lines().find(|line| line.contains(".rule:")).map_or_else(
            || format!("{place:?}"),
            |line| line.split(": ").next().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(rule("Nope(`a`)"), "shop.yml:5:13");
    assert_eq!(rule("Path(`/`) && Nope(`a`)"), "shop.yml:5:26");
    assert_eq!(rule("'Path(`/`) && Nope(`a`)'"), "shop.yml:5:27");
    assert_eq!(rule("\"Path(`/é`) && Nope(`a`)\""), "shop.yml:5:28");
    // Where text and file differ, the value as a whole is meant.
    assert_eq!(rule("\"Path(`/\\u00e9`) && Nope(`a`)\""), "shop.yml:5:13");
    assert_eq!(rule("|-\n        Path(`/`) &&\n        Nope(`a`)"), "shop.yml:6:9");
    let text = "http: {middlewares: {l: {ipAllowList: {sourceRange: '10.0.0.1, nope'}}}}";
    assert!(dynamic(text).starts_with("shop.yml:1:64: "), "{}", dynamic(text));
    let text = "a: &a [nope]\nhttp: {middlewares: {l: {ipAllowList: {sourceRange: *a}}}}";
    assert!(
        dynamic(text).contains("shop.yml:1:8: http.middlewares.l.ipAllowList.sourceRange[0]: "),
        "{}",
        dynamic(text)
    );
}
