//! What compiling a configuration finds, and whether it may come into force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lb_config::{Config, Problem, Problems, Scope, Severity, StaticConfig};
use lb_control::Candidate;
use lb_core::balance::{MemberSpec, Service, Settings};
use lb_proxy::{Failure, Publisher};

/// What was left out of the configuration in force because it does not compile.
#[derive(Clone, Default)]
pub(crate) struct LeftOut(Arc<Mutex<Vec<Failure>>>);

impl LeftOut {
    pub(crate) fn load(&self) -> Vec<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self, failures: Vec<Failure>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failures;
    }
}

/// Compiles and publishes. At start what does not compile is left out, as in Traefik. Later a
/// configuration that would lose something that works is refused as a whole.
pub(crate) fn publish(
    publisher: &Publisher,
    left_out: &LeftOut,
    candidate: &Candidate,
) -> Result<(), Problems> {
    let compiled = publisher.compile(&candidate.config, &candidate.services);
    let known = left_out.load();
    let fresh: Vec<_> = compiled.failures().iter().filter(|failure| !known.contains(failure)).collect();
    if candidate.generation > 1 && !fresh.is_empty() {
        return Err(Problems(fresh.into_iter().map(problem).collect()));
    }
    for failure in fresh {
        tracing::error!(kind = failure.kind.word(), name = %failure.name, "{}", failure.message);
    }
    left_out.store(compiled.failures().to_vec());
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

fn problem(failure: &Failure) -> Problem {
    Problem {
        severity: Severity::Error,
        scope: Scope::Object { kind: failure.kind, name: failure.name.clone() },
        file: "dynamic configuration".to_owned(),
        line: 0,
        column: 0,
        key: format!("{} {}", failure.kind.word(), failure.name),
        message: failure.message.clone(),
        hint: None,
    }
}
