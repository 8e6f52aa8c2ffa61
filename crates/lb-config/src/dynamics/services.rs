//! `http.services`.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use lb_core::balance::Strategy;

use super::composites::COMPOSITES;
use super::{Draft, health, limits, outliers, sticky};
use crate::composite::Composite;
use crate::decode::{Block, Field};
use crate::dynamic::{Server, Service};
use crate::net::{server_url, split_user};
use crate::problem::{Kind, quoted};

/// `responseForwarding.flushInterval` when absent (reference 2.5).
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// `drainTimeout` when absent: the deregistration delay of AWS load balancers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// A heavier server is refused; chosen, so that a full cycle of weighted turns stays small.
const MAX_WEIGHT: i64 = 65_535;

const STRATEGIES: [(&str, Strategy); 5] = [
    ("wrr", Strategy::RoundRobin),
    ("leastConn", Strategy::LeastConnections),
    ("p2c", Strategy::PowerOfTwoChoices),
    ("hrw", Strategy::HighestRandomWeight),
    ("leasttime", Strategy::LeastTime),
];

impl<'a> Draft<'a> {
    /// A service that combines others takes its own place in the configuration.
    pub(super) fn service(&mut self, name: &str, field: &Field<'a>) -> Option<Service> {
        let block = field.object()?;
        let load_balancer = block.take("loadBalancer");
        let mut kinds = COMPOSITES.map(|kind| (kind, block.take(kind)));
        let composites = kinds.iter().filter(|(_, field)| field.is_some()).count();
        if usize::from(load_balancer.is_some()) + composites > 1 {
            block.error(
                "a service can be of one kind only".to_owned(),
                Some("declare two services and let one refer to the other".to_owned()),
            );
        }
        let middlewares = block
            .take("middlewares")
            .map(|field| self.references(Kind::Service, name, Kind::Middleware, &field))
            .unwrap_or_default();
        // A key that does not exist is likely to be the kind, misspelt.
        if load_balancer.is_none() && composites == 0 && block.left_over().is_empty() {
            block.error(
                "the service has no kind".to_owned(),
                Some("give it a `loadBalancer` with `servers`".to_owned()),
            );
        }
        block.finish();
        if let Some((kind, field)) = kinds.iter_mut().find_map(|(kind, field)| Some((*kind, field.take()?))) {
            let block = field.block()?;
            let composite = self.composite(name, kind, &block);
            block.finish();
            let composite = composite.map(|composite| Composite { middlewares, ..composite });
            self.config.composites.extend(composite.map(|composite| (name.to_owned(), composite)));
            return None;
        }
        let load_balancer = load_balancer?.block()?;
        let service = self.load_balancer(name, &load_balancer);
        load_balancer.finish();
        service.map(|service| Service { middlewares, ..service })
    }

    fn load_balancer(&mut self, name: &str, block: &Block<'a>) -> Option<Service> {
        let max_connections = block.take("maxConnections").and_then(|field| limits::max_connections(&field));
        let servers = block.take("servers").map(|field| servers(&field, max_connections)).unwrap_or_default();
        let queue = block.take("queue").map(|field| limits::queue(&field, &servers)).unwrap_or_default();
        let retry_budget =
            block.take("retryBudget").map(|field| limits::retry_budget(&field)).unwrap_or_default();
        let strategy =
            block.take_word("strategy").map_or(Some(Strategy::RoundRobin), |field| field.choice(&STRATEGIES));
        let sticky = block.take("sticky").and_then(|field| sticky::read(&field, name));
        if sticky.is_some() && strategy == Some(Strategy::HighestRandomWeight) {
            block.warn(
                "the strategy `hrw` takes no notice of the sticky cookie, and sets none".to_owned(),
                Some("remove `sticky`, or choose another strategy".to_owned()),
            );
        }
        let health_check = block.take("healthCheck").and_then(|field| health::active(&field));
        let passive_health_check = block.take("passiveHealthCheck").and_then(|field| health::passive(&field));
        let slow_start = block.take("slowStart").and_then(|field| outliers::slow_start(&field));
        let outlier_detection = block.take("outlierDetection").and_then(|field| outliers::detection(&field));
        let panic_threshold = block.take("panicThreshold").and_then(|field| outliers::percent(&field, 0));
        let pass_host_header = block.take("passHostHeader").and_then(|field| field.boolean());
        let forwarding = block.take("responseForwarding").and_then(|field| field.block());
        let flush_interval =
            forwarding.as_ref().and_then(|block| block.take("flushInterval")).and_then(|f| f.span());
        if let Some(forwarding) = forwarding {
            forwarding.finish();
        }
        let transport = block
            .take_word("serversTransport")
            .and_then(|field| self.reference(Kind::Service, name, Kind::ServersTransport, &field));
        let drain_timeout = block.take("drainTimeout").and_then(|field| field.duration_or_none());
        Some(Service {
            middlewares: Vec::new(),
            servers,
            strategy: strategy?,
            sticky,
            health_check,
            passive_health_check,
            slow_start,
            outlier_detection,
            panic_threshold: panic_threshold.unwrap_or(0),
            pass_host_header: pass_host_header.unwrap_or(true),
            // A negative interval flushes after every write.
            flush_interval: flush_interval.map_or(Some(FLUSH_INTERVAL), |span| span.to_duration()),
            servers_transport: transport.unwrap_or_else(|| "default@internal".to_owned()),
            retry_budget,
            queue,
            drain_timeout: drain_timeout.unwrap_or(Some(DRAIN_TIMEOUT)),
        })
    }
}

fn servers(field: &Field<'_>, max_connections: Option<NonZeroU32>) -> Vec<Server> {
    let mut urls = HashSet::new();
    let mut servers = Vec::new();
    for field in field.list() {
        let Some(block) = field.object() else { continue };
        if let Some(server) = server(&block, max_connections) {
            if !urls.insert(server.url.clone()) {
                block.warn(
                    format!("the server {} is listed twice", quoted(&server.url)),
                    Some("give one of them a `weight` instead".to_owned()),
                );
            }
            servers.push(server);
        }
        block.finish();
    }
    servers
}

fn server(block: &Block<'_>, max_connections: Option<NonZeroU32>) -> Option<Server> {
    let url = block.require("url", "write `url: http://192.0.2.7:3000`").and_then(|field| field.text());
    let weight = block.take("weight").map_or(Some(1), |field| weight(&field));
    let preserve_path = block.take("preservePath").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(fenced) = block.take_unlisted("fenced")
        && fenced.boolean() == Some(true)
    {
        fenced.error(
            "fenced servers are not supported yet".to_owned(),
            Some("drain the server instead".to_owned()),
        );
    }
    let own = block.take("maxConnections").and_then(|field| limits::max_connections(&field));
    let url = url?;
    let address = match split_user(url.value) {
        Some((address, _)) => {
            // As Traefik, which sends them to nobody. Here they are not shown either.
            url.warn(
                "the user and password before the host are not used",
                Some("remove them; the middleware `headers` can send an `Authorization`".to_owned()),
            );
            address
        }
        None => url.value.to_owned(),
    };
    match server_url(&address) {
        Ok(parts) => {
            if parts.ignored {
                url.warn("what follows `?` or `#` is not used", Some("remove it".to_owned()));
            }
            Some(Server {
                url: address,
                scheme: parts.scheme,
                host: parts.host,
                port: parts.port,
                path: parts.path,
                preserve_path,
                weight: weight?,
                max_connections: own.or(max_connections),
            })
        }
        Err((message, hint)) => {
            url.error(message, hint);
            None
        }
    }
}

/// 0 and less take a server out (reference 2.5).
pub(super) fn weight(field: &Field<'_>) -> Option<u32> {
    let weight = field.integer(i64::MIN..=MAX_WEIGHT)?;
    if weight < 0 {
        field.warn("a negative weight means 0".to_owned(), Some("write 0".to_owned()));
    }
    u32::try_from(weight.max(0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, load_balancer, load_balancer_problems, problems};

    #[test]
    fn an_empty_balancer_has_traefiks_defaults() {
        let service = load_balancer("{servers: []}").unwrap();
        assert_eq!(
            service,
            Service {
                middlewares: vec![],
                servers: vec![],
                strategy: Strategy::RoundRobin,
                sticky: None,
                health_check: None,
                passive_health_check: None,
                slow_start: None,
                outlier_detection: None,
                panic_threshold: 0,
                pass_host_header: true,
                flush_interval: Some(Duration::from_millis(100)),
                servers_transport: "default@internal".to_owned(),
                retry_budget: Default::default(),
                queue: Default::default(),
                drain_timeout: Some(DRAIN_TIMEOUT),
            }
        );
        for (text, expected) in
            [("none", None), ("0s", Some(Duration::ZERO)), ("1h", Some(DRAIN_TIMEOUT * 12))]
        {
            let service = load_balancer(&format!("{{servers: [], drainTimeout: {text}}}")).unwrap();
            assert_eq!(service.drain_timeout, expected, "{text}");
        }
        let service =
            load_balancer("{servers: [], responseForwarding: {flushInterval: -1}, strategy: leastConn}");
        let service = service.unwrap();
        assert_eq!((service.flush_interval, service.strategy), (None, Strategy::LeastConnections));
    }

    #[test]
    fn an_empty_word_is_as_good_as_absent() {
        let service = load_balancer(
            "{servers: [], strategy: '', serversTransport: '', healthCheck: {path: /, mode: ''}}",
        );
        let service = service.unwrap();
        assert_eq!(
            (service.strategy, &*service.servers_transport),
            (Strategy::RoundRobin, "default@internal")
        );
        assert!(service.health_check.is_some());
    }

    #[test]
    fn what_takes_no_notice_of_cookies_sets_none() {
        for (strategy, sets_it) in [("hrw", false), ("p2c", true)] {
            let text = format!("{{servers: [], strategy: {strategy}, sticky: {{cookie: {{}}}}}}");
            let service = load_balancer(&text).unwrap();
            assert_eq!((service.sticky.is_some(), service.cookie().is_some()), (true, sets_it), "{strategy}");
        }
    }

    #[test]
    fn servers_keep_their_url_as_written() {
        let service = load_balancer(
            "{servers: [{url: 'http://A.test/base', preservePath: true, weight: '3'}, {url: 'h2c://[::1]', weight: -1}]}",
        )
        .unwrap();
        assert_eq!(service.servers[0].url, "http://A.test/base");
        assert_eq!((service.servers[0].port, service.servers[0].weight), (80, 3));
        assert_eq!((service.servers[1].host.as_str(), service.servers[1].weight), ("::1", 0));
    }

    #[test]
    fn a_user_in_a_url_is_neither_used_nor_shown() {
        let balancer = "{servers: [{url: 'http://user:secret@[::1]:8080/p@q'}]}";
        assert_eq!(load_balancer(balancer).unwrap().servers[0].url, "http://[::1]:8080/p@q");
        let problems = load_balancer_problems(balancer);
        assert_eq!(problems, ["~servers[0].url: the user and password before the host are not used"]);
        assert!(
            load_balancer_problems("{servers: [{url: 'http://user:secret@'}]}")
                .iter()
                .all(|p| !p.contains("secret"))
        );
    }

    #[test]
    fn an_empty_map_is_a_list_without_servers() {
        assert!(load_balancer("{servers: {}}").unwrap().servers.is_empty());
    }

    #[test]
    fn what_makes_no_balancer() {
        for (balancer, expected) in [
            ("{servers: [{url: a}]}", "servers[0].url: `a` has no scheme"),
            ("{servers: [{weight: 2}]}", "servers[0]: `url` is missing"),
            ("{servers: [{}]}", "servers[0]: `url` is missing"),
            ("{servers: [http://a]}", "servers[0]: expected a map, found a single value"),
            ("{servers: [], drainTimeout: forever}", "drainTimeout: `forever` is not a length of time"),
            ("{servers: [], drainTimeout: -1s}", "drainTimeout: a length of time cannot be negative"),
            ("{servers: [], strategy: WRR}", "strategy: `WRR` is not a known value"),
            ("{servers: [{url: 'http://a', weight: 70000}]}", "servers[0].weight: 70000 is out of range"),
            ("{servers: [], serversTransport: t}", "serversTransport: no servers transport is called `t`"),
            (
                "{servers: [{url: 'http://a'}, {url: 'http://a'}]}",
                "~servers[1]: the server `http://a` is listed twice",
            ),
            (
                "{servers: [], strategy: hrw, sticky: {cookie: {}}}",
                "~loadBalancer: the strategy `hrw` takes no notice of the sticky cookie, and sets none",
            ),
            (
                "{servers: [{url: 'http://a', fenced: true}, {url: 'http://b', fenced: false}]}",
                "servers[0].fenced: fenced servers are not supported yet",
            ),
        ] {
            assert_eq!(load_balancer_problems(balancer), [expected], "{balancer}");
        }
    }

    #[test]
    fn services_of_any_kind_have_middlewares() {
        let with = |more: &str| {
            format!(
                "http: {{middlewares: {{m: {{addPrefix: {{prefix: /}}}}, e: {{errors: {{service: s, status: ['500']}}}}}}, \
                 services: {{a: {{loadBalancer: {{servers: []}}}}, s: {{loadBalancer: {{servers: []}}, middlewares: [m, m@file]}}, \
                 w: {{weighted: {{services: [{{name: a}}]}}, middlewares: m}}{more}}}}}"
            )
        };
        let loaded = load(&with(", v: {weighted: {services: [{name: a}, {name: w}, {name: s}]}}"));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert_eq!(loaded.config.middlewares_of("s@file"), ["m@file", "m@file"]);
        assert_eq!(loaded.config.middlewares_of("w@file"), ["m@file"]);
        assert_eq!(
            problems(&with(", v: {weighted: {services: [{name: s}]}}").replace("[m, m@file]", "[e]")),
            ["http.middlewares.e.errors.service: the service contains itself: `s@file > e@file > s@file`"]
        );
    }

    #[test]
    fn a_service_has_one_kind() {
        for (service, expected) in [
            ("{}", "http.services.x: the service has no kind"),
            ("{loadBalancr: 5}", "http.services.x.loadBalancr: there is no key `loadBalancr` here"),
            (
                "{loadBalancer: {servers: []}, middlewares: [m]}",
                "http.services.x.middlewares[0]: no middleware is called `m`",
            ),
        ] {
            assert_eq!(problems(&format!("http: {{services: {{x: {service}}}}}")), [expected]);
        }
        let both = problems("http: {services: {x: {loadBalancer: {servers: []}, failover: {service: a}}}}");
        assert_eq!(both[0], "http.services.x: a service can be of one kind only");
    }
}
