//! The state of the balancer at the moment of a request, as the binary gathers it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use lb_config::{Config, Kind, Problem, Scope, Severity, StaticConfig};
use lb_core::balance::Service;

use crate::operator::Standing;

/// What is in force and how it is doing.
#[derive(Clone, Debug)]
pub struct View {
    pub static_config: Arc<StaticConfig>,
    /// All providers merged.
    pub config: Arc<Config>,
    /// Live services by qualified name.
    pub services: Arc<HashMap<String, Arc<Service>>>,
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
    /// From what a load left out (`lb_config::Loaded::disabled`) and what it warns about.
    pub fn of_load(disabled: &BTreeMap<(Kind, String), Vec<String>>, problems: &[Problem]) -> Vec<Self> {
        let left_out = disabled.iter().flat_map(|((kind, name), messages)| {
            messages.iter().map(|message| Self {
                kind: *kind,
                name: name.clone(),
                trouble: Trouble::Disabled,
                message: message.clone(),
            })
        });
        let warned = problems.iter().filter_map(|problem| match &problem.scope {
            Scope::Object { kind, name } if problem.severity == Severity::Warning => Some(Self {
                kind: *kind,
                name: name.clone(),
                trouble: Trouble::Warning,
                message: problem.message.clone(),
            }),
            _ => None,
        });
        left_out.chain(warned).collect()
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

impl View {
    /// The newest refusal that still stands.
    pub fn last_error(&self) -> Option<&LoadError> {
        self.stale.iter().max_by_key(|error| error.at)
    }
}
