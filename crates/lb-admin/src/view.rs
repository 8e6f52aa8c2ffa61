//! The state of the balancer at the moment of a request, as the binary gathers it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use lb_config::{Config, Kind, Problem, Reasons, Scope, StaticConfig};
use lb_core::balance::Service;

use crate::operator::Standing;

/// What is in force and how it is doing.
#[derive(Clone, Debug)]
pub struct View {
    pub static_config: Arc<StaticConfig>,
    /// All providers merged.
    pub config: Arc<Config>,
    /// Routers that were left out, as far as they can be read.
    pub left_out: Arc<Config>,
    /// Live services by qualified name.
    pub services: Arc<HashMap<String, Arc<Service>>>,
    /// Those of `tcp`.
    pub tcp: Arc<HashMap<String, Arc<Service>>>,
    /// What operators want of servers, but for those that are ready.
    pub standing: Vec<Standing>,
    /// Objects that were left out, or that work but should not be as they are.
    pub faults: Vec<Fault>,
    /// When the configuration came into force; `None`: there is none yet.
    pub loaded_at: Option<SystemTime>,
    /// Providers whose newest configuration was refused, so that an older one runs.
    pub stale: Vec<LoadError>,
    /// Termination was asked for; requests are still served.
    pub draining: bool,
    /// Memory is short; new requests are refused.
    pub shedding: bool,
    /// Certificates that cannot be had from an authority: what is wrong, and when it is tried again.
    pub certificates: Vec<String>,
    pub now: SystemTime,
}

/// What is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// `name@provider`.
    pub name: String,
    pub trouble: Trouble,
    pub message: String,
}

/// What a fault has done to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It works, though perhaps not as meant.
    Warning,
    /// Its newest version is broken, its last good one is in force.
    Quarantined,
    /// It does not work.
    Disabled,
}

impl Fault {
    /// What was left out, what is in quarantine, and what is in use although `problems` has errors of it: a router with
    /// one unknown entry point among others.
    pub fn of_load<'p>(
        disabled: &Reasons,
        quarantined: &Reasons,
        problems: impl Iterator<Item = &'p Problem>,
    ) -> Vec<Self> {
        let mut faults = Vec::new();
        for (reasons, trouble) in [(disabled, Trouble::Disabled), (quarantined, Trouble::Quarantined)] {
            for ((kind, name), messages) in reasons {
                let fault = |message: &String| Self {
                    kind: *kind,
                    name: name.clone(),
                    trouble,
                    message: message.clone(),
                };
                faults.extend(messages.iter().map(fault));
            }
        }
        for problem in problems.filter(|problem| problem.is_error()) {
            let Scope::Object { kind, name } = &problem.scope else { continue };
            let object = (*kind, name.clone());
            if !disabled.contains_key(&object) && !quarantined.contains_key(&object) {
                let (kind, name) = object;
                faults.push(Self { kind, name, trouble: Trouble::Warning, message: problem.line() });
            }
        }
        faults
    }
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    pub provider: String,
    pub at: SystemTime,
    /// All problems, one or two lines each.
    pub message: String,
}

impl LoadError {
    /// What has happened, in short.
    pub fn words(&self) -> &'static str {
        match self.provider.as_str() {
            // Containers are never refused as a whole.
            "docker" | "swarm" => "the daemon cannot be asked, what it said last is in force",
            "file" => "the newest configuration was refused",
            _ => "it cannot be asked, or what it says is refused; what it said last is in force",
        }
    }
}

impl View {
    /// The newest refusal that still stands.
    pub fn last_error(&self) -> Option<&LoadError> {
        self.stale.iter().max_by_key(|error| error.at)
    }
}
