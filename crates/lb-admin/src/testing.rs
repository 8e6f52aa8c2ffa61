//! A balancer's state from a few lines of YAML.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_config::{Context, Reasons};
use lb_core::balance::{MemberSpec, Service, Settings};
use lb_core::health;
use lb_observe::metrics::Metrics;

use crate::{Admin, Fault, Internal, Response, View};

pub(crate) const STATIC: &str = "
entryPoints:
  dns: {address: ':53/udp'}
  web: {address: ':80', http: {redirections: {entryPoint: {to: websecure}}}}
  websecure:
    address: ':443'
    asDefault: true
    http: {tls: {}, middlewares: [secure@file]}
    transport: {respondingTimeouts: {readTimeout: 90s}}
api: {insecure: true}
ping: {terminatingStatusCode: 410}
metrics: {prometheus: {}}
accessLog: {format: json}
providers: {file: {filename: dynamic.yml}}
";

pub(crate) const DYNAMIC: &str = "
http:
  routers:
    app: {rule: Host(`a.test`), service: app, middlewares: [auth]}
    low: {rule: PathPrefix(`/low`), service: app, priority: -5, entryPoints: [web, websecure]}
    ops: {rule: Host(`ops.test`), service: api@internal, entryPoints: [web]}
    broken: {rule: Hots(`a.test`), service: app}
  services:
    app:
      loadBalancer:
        sticky: {cookie: {name: stick, secure: true}}
        healthCheck: {path: /ready, interval: 10s, headers: {X-Token: hunter2, X-Name: lb}}
        servers: [{url: 'http://10.0.0.1:80'}, {url: 'http://10.0.0.2:80', weight: 3}]
    idle: {loadBalancer: {servers: [{url: 'http://10.0.0.9:80'}]}}
  middlewares:
    auth: {basicAuth: {users: ['bob:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=']}}
    limit: {rateLimit: {average: 100, burst: 50}}
    secure: {headers: {stsSeconds: 60, frameDeny: true}}
    retry: {retry: {attempts: 3, initialInterval: 100ms}}
";

pub(crate) fn started() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_308_356)
}

/// Every server of every service is live and healthy.
pub(crate) fn view() -> View {
    view_of(DYNAMIC)
}

pub(crate) fn view_of(dynamic: &str) -> View {
    let (static_config, _) = lb_config::parse_static("traefik.yml", STATIC).unwrap();
    let loaded =
        lb_config::parse_dynamic("dynamic.yml", dynamic, "file", &Context::from(&static_config)).unwrap();
    // As the control plane has them.
    let mut left_out = loaded.unfit.clone();
    left_out.routers.extend(loaded.waiting.routers.clone());
    left_out.tcp.routers.extend(loaded.waiting.tcp.routers.clone());
    left_out.udp.routers.extend(loaded.waiting.udp.routers.clone());
    let services: HashMap<_, _> = loaded
        .config
        .services
        .keys()
        .map(|name| (name.clone(), Arc::new(live(&loaded.config, name))))
        .collect();
    #[expect(clippy::disallowed_methods, reason = "only handed on, never compared")]
    let now = std::time::Instant::now();
    let tcp = loaded.config.tcp.load_balancers().map(|(name, balancer)| {
        let member = |server: &lb_config::tcp::Server| MemberSpec { url: server.address.clone(), weight: 1 };
        let members: Vec<_> = balancer.servers.iter().map(member).collect();
        (name.clone(), Arc::new(Service::new(name, Settings::default(), &members, None, now)))
    });
    let tcp = Arc::new(tcp.collect());
    View {
        static_config: Arc::new(static_config),
        faults: Fault::of_load(&loaded.disabled, &Reasons::new(), loaded.problems.iter()),
        config: Arc::new(loaded.config),
        left_out: Arc::new(left_out),
        services: Arc::new(services),
        tcp,
        loaded_at: Some(started()),
        standing: Vec::new(),
        stale: Vec::new(),
        draining: false,
        shedding: false,
        certificates: Vec::new(),
        now: started() + Duration::from_secs(61),
    }
}

/// With its entry points changed to these.
pub(crate) fn with_entry_points(entry_points: &str) -> View {
    let text =
        format!("entryPoints: {{{entry_points}}}\napi: {{insecure: true}}\nping: {{entryPoint: secure}}\n");
    let mut view = view();
    view.static_config = Arc::new(lb_config::parse_static("traefik.yml", &text).unwrap().0);
    view
}

pub(crate) fn live(config: &lb_config::Config, name: &str) -> Service {
    let service = &config.services[name];
    let members: Vec<_> = service
        .servers
        .iter()
        .map(|server| MemberSpec { url: server.url.clone(), weight: server.weight })
        .collect();
    let settings = Settings {
        active: Some(health::Settings::default()),
        outlier: service.outlier_detection,
        slow_start: service.slow_start,
        panic_threshold: service.panic_threshold,
        ..Settings::default()
    };
    #[expect(clippy::disallowed_methods, reason = "only handed on, never compared")]
    let now = std::time::Instant::now();
    Service::new(name, settings, &members, None, now)
}

pub(crate) fn ask(service: Internal, target: &str, view: &View) -> Response {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let metrics = Metrics::new(lb_observe::metrics::Settings::default(), 1);
    Admin::new(metrics, "1.2.3", started()).respond(service, "GET", path, query, view)
}

pub(crate) fn api(target: &str, view: &View) -> serde_json::Value {
    let response = ask(Internal::Api, target, view);
    assert_eq!(response.status, 200, "{target}: {}", String::from_utf8_lossy(&response.body));
    serde_json::from_slice(&response.body).unwrap()
}
