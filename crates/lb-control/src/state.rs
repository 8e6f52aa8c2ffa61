//! What is in force, and what each provider last said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use lb_config::{Config, Problem, Problems, Reasons};

use crate::services::Services;

/// The configuration in force with its live state. Immutable; a newer one replaces it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Configurations that came into force so far; 0: none.
    pub generation: u64,
    /// All providers merged.
    pub config: Arc<Config>,
    pub services: Arc<Services>,
    /// Those of `tcp`.
    pub tcp: Arc<Services>,
    /// When this configuration came into force.
    pub loaded_at: Option<SystemTime>,
    /// Objects that are in force in an older version than their provider has, with the reasons.
    pub quarantined: Arc<Reasons>,
    /// Objects that were left out, with reasons as Traefik words them.
    pub disabled: Arc<Reasons>,
    /// The routers among them, as far as they can be read. Only to be shown.
    pub left_out: Arc<Config>,
    /// Every provider that has delivered something, good or not.
    pub providers: BTreeMap<String, ProviderState>,
}

/// What one provider contributes.
#[derive(Clone, Debug, Default)]
pub struct ProviderState {
    /// When its part came into force; `None`: it has none.
    pub loaded_at: Option<SystemTime>,
    /// What its part in force has lost on its way, or is warned about.
    pub problems: Arc<Vec<Problem>>,
    /// Why its newest configuration is not in force; `None` when it is.
    pub refused: Option<Arc<Refusal>>,
}

/// A configuration that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub at: SystemTime,
    pub problems: Problems,
}

impl State {
    /// The providers whose newest configuration is not the one in force, with the reason.
    pub fn stale(&self) -> impl Iterator<Item = (&str, &Refusal)> {
        self.providers.iter().filter_map(|(name, provider)| {
            provider.refused.as_deref().map(|refusal| (name.as_str(), refusal))
        })
    }

    /// The newest refusal that still stands.
    pub fn last_error(&self) -> Option<(&str, &Refusal)> {
        self.stale().max_by_key(|(_, refusal)| refusal.at)
    }
}

/// Reads the newest [`State`] at any time, from any thread.
#[derive(Clone, Debug, Default)]
pub struct StateWatch(Arc<ArcSwap<State>>);

impl StateWatch {
    pub fn load(&self) -> Guard<Arc<State>> {
        self.0.load()
    }

    pub fn load_full(&self) -> Arc<State> {
        self.0.load_full()
    }

    pub(crate) fn store(&self, state: State) {
        self.0.store(Arc::new(state));
    }
}
