//! Live services for a checked configuration, with everything the previous ones know.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use lb_config::{Config, dynamic};
use lb_core::balance::{self, MemberSpec};
use lb_core::health::{self, PassiveSettings, Thresholds};

/// The services of one configuration, by qualified name.
pub type Services = HashMap<String, Arc<balance::Service>>;

/// Builds them all. Nothing that `previous` shares changes by it.
pub(crate) fn build(config: &Config, previous: &Services, now: Instant) -> Services {
    let service = |(name, service): (&String, &dynamic::Service)| {
        let before = previous.get(name).map(Arc::as_ref);
        let members: Vec<_> = service
            .servers
            .iter()
            .map(|server| MemberSpec { url: server.url.clone(), weight: server.weight })
            .collect();
        let mut built = balance::Service::new(name, settings(service), &members, before, now);
        let limits: Vec<_> = service.servers.iter().map(|server| server.max_connections).collect();
        if limits.iter().any(Option::is_some) {
            built = built.with_max_connections(&limits);
        }
        (name.clone(), Arc::new(built))
    };
    config.services.iter().map(service).collect()
}

/// As [`build`], of the load balancers of `tcp`, which take turns.
pub(crate) fn build_tcp(config: &Config, previous: &Services, now: Instant) -> Services {
    let service = |(name, service): (&String, &lb_config::tcp::LoadBalancer)| {
        let before = previous.get(name).map(Arc::as_ref);
        let member = |server: &lb_config::tcp::Server| MemberSpec { url: server.address.clone(), weight: 1 };
        let members: Vec<_> = service.servers.iter().map(member).collect();
        let active = service.health_check.as_ref().map(|_| health::Settings::default());
        let settings = balance::Settings { active, ..balance::Settings::default() };
        (name.clone(), Arc::new(balance::Service::new(name, settings, &members, before, now)))
    };
    config.tcp.load_balancers().map(service).collect()
}

fn settings(service: &dynamic::Service) -> balance::Settings {
    let check = service.health_check.as_ref();
    balance::Settings {
        strategy: service.strategy,
        sticky: service.cookie().is_some(),
        degraded_weight: check.map_or(1.0, |check| check.degraded_weight),
        active: check.map(|check| health::Settings {
            thresholds: Thresholds {
                healthy: at_least_one(check.healthy_threshold),
                unhealthy: at_least_one(check.unhealthy_threshold),
            },
            start_period: check.start_period,
            start_unhealthy: check.start_unhealthy,
        }),
        passive: service.passive_health_check.as_ref().map(|check| PassiveSettings {
            failure_window: check.failure_window,
            max_failed_attempts: at_least_one(check.max_failed_attempts),
        }),
        outlier: service.outlier_detection,
        slow_start: service.slow_start,
        panic_threshold: service.panic_threshold,
    }
}

/// A checked configuration holds no zero here.
fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}
