//! What compiling a configuration finds, and whether it may come into force.

use std::collections::HashMap;
use std::sync::Arc;

use lb_config::{Config, Kind, Problem, Problems, Scope, Severity, StaticConfig};
use lb_control::Candidate;
use lb_core::balance::{MemberSpec, Service, Settings};
use lb_proxy::{Failure, Publisher};

/// Compiles and publishes; refuses with everything that does not compile and is not known not to.
pub(crate) fn publish(publisher: &Publisher, candidate: &Candidate) -> Result<(), Problems> {
    let compiled = publisher.compile(&candidate.config, &candidate.services, &candidate.tcp);
    let known = |failure: &&Failure| !candidate.left_out.contains_key(&(failure.kind, failure.name.clone()));
    let fresh: Vec<_> = compiled.failures().iter().filter(known).map(problem).collect();
    if !fresh.is_empty() {
        return Err(Problems(fresh));
    }
    publisher.publish(compiled);
    Ok(())
}

/// What only compiling finds: a key that does not fit its certificate, TLS options that nothing can
/// speak, a middleware that an entry point asks for and nobody defines.
pub(crate) fn compile_problems(config: &StaticConfig, dynamic: &Config) -> Vec<Problem> {
    let now = tokio::time::Instant::now().into_std();
    let live: HashMap<_, _> = dynamic
        .services
        .iter()
        .map(|(name, service)| {
            let member = |server: &lb_config::dynamic::Server| MemberSpec {
                url: server.url.clone(),
                weight: server.weight,
            };
            let members: Vec<_> = service.servers.iter().map(member).collect();
            (name.clone(), Arc::new(Service::new(name, Settings::default(), &members, None, now)))
        })
        .collect();
    lb_proxy::check(&Arc::new(config.clone()), dynamic, &live).iter().map(problem).collect()
}

/// The same where the static configuration is not known: all but what depends on it.
pub(crate) fn compile_problems_without_static(dynamic: &Config) -> Vec<Problem> {
    let Ok((config, _)) = lb_config::parse_static("", "") else { return Vec::new() };
    let mut dynamic = dynamic.clone();
    dynamic.routers.values_mut().for_each(|router| router.entry_points.clear());
    dynamic.tcp.routers.values_mut().for_each(|router| router.entry_points.clear());
    dynamic.udp.routers.values_mut().for_each(|router| router.entry_points.clear());
    let routers = [Kind::Router, Kind::TcpRouter, Kind::UdpRouter];
    let mut found = compile_problems(&config, &dynamic);
    found.retain(|problem| !matches!(problem.scope, Scope::Object { kind, .. } if routers.contains(&kind)));
    found
}

const SAME_KEY: &str =
    "of a pair `openssl x509 -noout -pubkey -in CERT` and `openssl pkey -pubout -in KEY` print the same";

fn problem(failure: &Failure) -> Problem {
    let object = || format!("{} {}", failure.kind.word(), failure.name);
    let (key, message) = match (failure.kind, failure.message.split_once(": ")) {
        // These name their key.
        (Kind::Certificate | Kind::TlsOptions, Some((key, message))) => (key.to_owned(), message),
        _ => (object(), &*failure.message),
    };
    let is_mismatch = message.ends_with("the private key does not belong to the certificate");
    Problem {
        severity: Severity::Error,
        scope: Scope::Object { kind: failure.kind, name: failure.name.clone() },
        file: "dynamic configuration".to_owned(),
        line: 0,
        column: 0,
        key,
        message: message.to_owned(),
        hint: is_mismatch.then(|| SAME_KEY.to_owned()),
    }
}
