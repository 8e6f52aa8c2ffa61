//! Services and their servers: `/api/http/services`.

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::time::Duration;

use lb_config::Kind;
use lb_config::dynamic::{
    self, HealthCheck, OutlierDetection, ProbeMode, Queue, RetryBudget, SameSite, SlowStart, StickyCookie,
    Strategy,
};
use lb_core::health::Status;
use serde_json::{Map, Value};

use super::object::Object;
use super::{Model, composite, header_map, internal, list, provider};
use crate::query::Query;
use crate::{Response, operator};

struct Service<'m> {
    name: &'m str,
    config: Written<'m>,
    status: &'static str,
}

#[derive(Clone, Copy)]
enum Written<'m> {
    LoadBalancer(&'m dynamic::Service),
    Composite(&'m dynamic::Composite),
    /// Internal, or left out because it is broken.
    Nowhere,
}

fn services<'m>(model: &'m Model<'_>) -> Vec<Service<'m>> {
    let config = &model.view.config.services;
    let composites = &model.view.config.composites;
    let load_balancers = config.iter().map(|(name, service)| (name, Written::LoadBalancer(service)));
    let composed = composites.iter().map(|(name, composite)| (name, Written::Composite(composite)));
    let written = load_balancers.chain(composed).map(|(name, config)| Service {
        name,
        config,
        status: model.status(Kind::Service, name),
    });
    let own = internal::services(&model.view.static_config).into_iter();
    let own = own.map(|name| Service { name, config: Written::Nowhere, status: "enabled" });
    let left_out =
        model.left_out(Kind::Service, |name| config.contains_key(name) || composites.contains_key(name));
    let left_out = left_out.map(|name| Service { name, config: Written::Nowhere, status: "disabled" });
    let mut services: Vec<_> = written.chain(own).chain(left_out).collect();
    services.sort_by(|a, b| a.name.cmp(b.name));
    services
}

impl Service<'_> {
    /// As Traefik shows them: as they are written, so without their own provider.
    fn middlewares<'m>(&self, model: &'m Model<'_>) -> Vec<&'m str> {
        let own = |name: &'m String| match name.rsplit_once('@') {
            Some((bare, of)) if of == provider(self.name) => bare,
            _ => name,
        };
        model.view.config.middlewares_of(self.name).iter().map(own).collect()
    }

    fn kind(&self) -> String {
        self.shape().map_or_else(String::new, |(kind, _)| kind.to_ascii_lowercase())
    }

    /// The key of its kind, and what is under it.
    fn shape(&self) -> Option<(&'static str, Value)> {
        match self.config {
            Written::LoadBalancer(config) => Some(("loadBalancer", load_balancer(config))),
            Written::Composite(config) => Some(composite::body(config)),
            Written::Nowhere => None,
        }
    }

    fn servers(&self) -> usize {
        match self.config {
            Written::LoadBalancer(config) => config.servers.len(),
            Written::Composite(_) | Written::Nowhere => 0,
        }
    }

    fn body(&self, model: &Model<'_>, used_by: &[&str]) -> Object {
        let object = match self.shape() {
            Some((kind, shape)) => Object::new().set(kind, shape),
            None => Object::new(),
        };
        object
            .list("middlewares", &self.middlewares(model))
            .list("error", model.errors(Kind::Service, self.name))
            .set("status", self.status)
            .flag("stale", model.is_stale(Kind::Service, self.name))
            .list("usedBy", used_by)
            .object(
                "serverStatus",
                self.live(model, |live| {
                    let status = |out| if out { "DOWN" } else { "UP" };
                    live.servers()
                        .enumerate()
                        .map(|(index, (server, _))| {
                            let out = server.status() == Status::Unhealthy || live.is_ejected(index);
                            (server.url().to_owned(), status(out).into())
                        })
                        .collect()
                }),
            )
    }

    fn live(
        &self,
        model: &Model<'_>,
        show: impl FnOnce(&lb_core::balance::Service) -> Map<String, Value>,
    ) -> Value {
        model.view.services.get(self.name).map(|live| show(live)).unwrap_or_default().into()
    }

    /// Beyond Traefik: which of the services that it is made of are up.
    fn child_status(&self, model: &Model<'_>) -> Option<Value> {
        match self.config {
            Written::Composite(config) => Some(composite::child_status(config, model.view)),
            Written::LoadBalancer(_) | Written::Nowhere => None,
        }
    }

    fn full(&self, model: &Model<'_>, used_by: &[&str]) -> Value {
        self.body(model, used_by)
            .set("name", self.name)
            .set("provider", provider(self.name))
            .text("type", &self.kind())
            .some("childStatus", self.child_status(model))
            .some("serverDetails", model.view.services.get(self.name).map(|live| details(model, live)))
            .flag("panic", model.view.services.get(self.name).is_some_and(|live| live.panics()))
            .build()
    }
}

/// Beyond Traefik: what the dashboard shows of each server.
fn details(model: &Model<'_>, service: &lb_core::balance::Service) -> Vec<Value> {
    let details = service.servers().enumerate().map(|(index, (server, weight))| {
        operator::server(model.view, service.name(), server, weight)
            .flag("ejected", service.is_ejected(index))
            .some("slowStartPercent", service.slow_start_percent(index))
            .build()
    });
    details.collect()
}

fn load_balancer(config: &dynamic::Service) -> Value {
    let server = |server: &dynamic::Server| {
        Object::new()
            .set("url", server.url.as_str())
            .some("weight", Some(server.weight).filter(|weight| *weight != 1))
            .flag("preservePath", server.preserve_path)
            .some("maxConnections", server.max_connections.map(std::num::NonZeroU32::get))
            .build()
    };
    // `None` is written as a negative interval; Go prints it as it was written, we know its meaning only.
    let flush = match config.flush_interval {
        Some(Duration::ZERO) => None,
        Some(interval) => Some(super::duration::go_duration(interval)),
        None => Some("-1s".to_owned()),
    };
    let transport = Some(&config.servers_transport).filter(|name| *name != "default@internal");
    // Five minutes go without saying.
    let drain_timeout = match config.drain_timeout {
        Some(timeout) if timeout == Duration::from_secs(300) => None,
        Some(timeout) => Some(super::duration::go_duration(timeout)),
        None => Some("none".into()),
    };
    let object = match &config.servers[..] {
        [] => Object::new(),
        servers => Object::new().set("servers", servers.iter().map(server).collect::<Vec<_>>()),
    };
    object
        .some(
            "sticky",
            config.sticky.as_ref().map(|cookie| Object::new().set("cookie", sticky(cookie)).build()),
        )
        .set("strategy", strategy(config.strategy))
        .some("healthCheck", config.health_check.as_ref().map(health_check))
        .some(
            "passiveHealthCheck",
            config.passive_health_check.as_ref().map(|check| {
                Object::new()
                    .duration("failureWindow", check.failure_window)
                    .number("maxFailedAttempts", check.max_failed_attempts)
                    .build()
            }),
        )
        .some("slowStart", config.slow_start.as_ref().map(slow_start))
        .some("outlierDetection", config.outlier_detection.as_ref().map(outlier_detection))
        .number("panicThreshold", config.panic_threshold)
        .set("passHostHeader", config.pass_host_header)
        .set("responseForwarding", Object::new().some("flushInterval", flush).build())
        .some("serversTransport", transport.map(String::as_str))
        .some("queue", Some(config.queue).filter(|queue| *queue != Queue::default()).map(queue))
        .some(
            "retryBudget",
            Some(config.retry_budget).filter(|budget| *budget != RetryBudget::default()).map(retry_budget),
        )
        .some("drainTimeout", drain_timeout)
        .build()
}

fn queue(queue: Queue) -> Value {
    Object::new().set("size", queue.size).duration("timeout", queue.timeout).build()
}

fn retry_budget(budget: RetryBudget) -> Value {
    Object::new().set("percent", budget.percent).set("minRetriesPerSecond", budget.min_per_second).build()
}

fn slow_start(slow_start: &SlowStart) -> Value {
    Object::new()
        .duration("duration", slow_start.duration)
        .set("aggression", slow_start.aggression)
        .set("minWeightPercent", slow_start.min_weight_percent)
        .build()
}

fn outlier_detection(detection: &OutlierDetection) -> Value {
    let in_a_row =
        |limit: Option<NonZeroU32>| -> Value { limit.map_or("off".into(), |limit| limit.get().into()) };
    Object::new()
        .set("consecutive5xx", in_a_row(detection.consecutive_5xx))
        .set("consecutiveGatewayFailure", in_a_row(detection.consecutive_gateway_failure))
        .duration("interval", detection.interval)
        .duration("baseEjectionTime", detection.base_ejection_time)
        .duration("maxEjectionTime", detection.max_ejection_time)
        .set("maxEjectionPercent", detection.max_ejection_percent)
        .build()
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::RoundRobin => "wrr",
        Strategy::LeastConnections => "leastConn",
        Strategy::PowerOfTwoChoices => "p2c",
        Strategy::HighestRandomWeight => "hrw",
        Strategy::LeastTime => "leasttime",
    }
}

pub(super) fn sticky(cookie: &StickyCookie) -> Value {
    let same_site = cookie.same_site.map(|same_site| match same_site {
        SameSite::None => "none",
        SameSite::Lax => "lax",
        SameSite::Strict => "strict",
    });
    Object::new()
        .set("name", cookie.name.as_str())
        .flag("secure", cookie.secure)
        .flag("httpOnly", cookie.http_only)
        .some("sameSite", same_site)
        // 0 is what remains of a negative one.
        .some(
            "maxAge",
            cookie.max_age.map(|age| if age == 0 { -1 } else { i64::try_from(age).unwrap_or(i64::MAX) }),
        )
        .set("path", cookie.path.as_str())
        .text("domain", cookie.domain.as_deref().unwrap_or_default())
        .build()
}

fn health_check(check: &HealthCheck) -> Value {
    let mode = match check.mode {
        ProbeMode::Http => "http",
        ProbeMode::Grpc => "grpc",
    };
    let unless = |value: u32, default: u32| Some(value).filter(|value| *value != default);
    Object::new()
        .set("mode", mode)
        .text("path", &check.path)
        .text("scheme", check.scheme.as_deref().unwrap_or_default())
        .some("method", Some(check.method.as_str()).filter(|method| *method != "GET"))
        .some("status", check.status)
        .some("port", check.port)
        .duration("interval", check.interval)
        .some(
            "unhealthyInterval",
            Some(check.unhealthy_interval).filter(|i| *i != check.interval).map(super::duration::go_duration),
        )
        .duration("timeout", check.timeout)
        .text("hostname", check.hostname.as_deref().unwrap_or_default())
        .object("headers", header_map(&check.headers))
        .set("followRedirects", check.follow_redirects)
        .some("healthyThreshold", unless(check.healthy_threshold, 1))
        .some("unhealthyThreshold", unless(check.unhealthy_threshold, 1))
        .some(
            "startPeriod",
            Some(check.start_period)
                .filter(|period| *period != Duration::ZERO)
                .map(super::duration::go_duration),
        )
        .flag("startUnhealthy", check.start_unhealthy)
        .some("degraded", Some(false).filter(|_| !check.degraded))
        .some(
            "degradedWeight",
            Some(check.degraded_weight).filter(|share| (*share - 0.5).abs() > f64::EPSILON),
        )
        .build()
}

pub(super) fn list(model: &Model<'_>, query: &Query) -> Response {
    let mut wanted = services(model);
    wanted
        .retain(|service| list::has_status(query, service.status) && list::is_sought(query, &[service.name]));
    let by = query.get("sortBy").unwrap_or("name");
    list::sort(
        &mut wanted,
        query,
        |service| service.name,
        |a, b| match by {
            "type" => a.kind().cmp(&b.kind()),
            "servers" => a.servers().cmp(&b.servers()),
            "provider" => provider(a.name).cmp(provider(b.name)),
            "status" => a.status.cmp(b.status),
            _ => Ordering::Equal,
        },
    );
    let users = model.users(|router| vec![router.service]);
    let used_by = |name| users.get(name).map_or(&[][..], Vec::as_slice);
    list::page(wanted, query, |service| service.full(model, used_by(service.name)))
}

pub(super) fn one(model: &Model<'_>, name: &str) -> Option<Value> {
    let service = services(model).into_iter().find(|service| service.name == name)?;
    let users = model.users(|router| vec![router.service]);
    Some(service.full(model, users.get(name).map_or(&[][..], Vec::as_slice)))
}

pub(super) fn all<'m>(model: &'m Model<'_>) -> Vec<(&'m str, Object)> {
    let users = model.users(|router| vec![router.service]);
    let used_by = |name| users.get(name).map_or(&[][..], Vec::as_slice);
    services(model).iter().map(|service| (service.name, service.body(model, used_by(service.name)))).collect()
}

pub(super) fn statuses(model: &Model<'_>) -> Vec<&'static str> {
    services(model).iter().map(|service| service.status).collect()
}
