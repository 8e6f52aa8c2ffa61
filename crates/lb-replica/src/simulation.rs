//! A replica whose dependencies are simulated: `/fail` breaks and mends them, so that a demonstration or a test can play
//! any day of production.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control::{self, ControlError};
use crate::health::{Check, Dependency, Vitals};
use crate::{Condition, Replica};

/// What a simulated dependency takes unless it was told otherwise.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);
/// Simulated, too: a busy test machine must not make replicas ill.
pub(crate) const HEALTHY: Vitals = Vitals { memory_percent: 40, cpu_percent: 10 };

#[derive(Debug)]
pub struct Simulation(Mutex<State>);

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) dependencies: Vec<Simulated>,
    pub(crate) vitals: Vitals,
    /// Off: `/live` and everything else answer 500, as a process does that is beyond help.
    pub(crate) live: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    /// What it stands for.
    pub(crate) real: Dependency,
    pub(crate) failing: bool,
    pub(crate) latency: Duration,
}

impl Simulated {
    /// Takes as long as the dependency would.
    async fn check(&self) -> Check {
        tokio::time::sleep(self.latency).await;
        let outcome = if self.failing { Err("connection refused".to_owned()) } else { Ok(self.latency) };
        self.real.judge(outcome)
    }
}

impl Simulation {
    /// With these dependencies, all well.
    pub fn new(dependencies: impl IntoIterator<Item = Dependency>) -> Self {
        let well = |real| Simulated { real, failing: false, latency: LATENCY };
        let dependencies = dependencies.into_iter().map(well).collect();
        Self(Mutex::new(State { dependencies, vitals: HEALTHY, live: true }))
    }

    /// Changes it as `/fail?<query>` does and describes it then.
    ///
    /// # Errors
    /// When a word is unknown or its value is not what it takes; then nothing has changed.
    pub fn control(&self, query: &str) -> Result<String, ControlError> {
        let mut state = self.state();
        *state = control::apply(&state, query)?;
        Ok(control::describe(&state))
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state().live
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, so a panic elsewhere cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica<Simulation> {
    /// With the two dependencies of the reference system: a database and a Redis.
    pub fn simulated(name: &str) -> Self {
        Self::new(name, Simulation::new([Dependency::database(), Dependency::redis()]))
    }
}

impl Condition for Simulation {
    async fn checks(&self) -> Vec<Check> {
        let state = self.state().clone();
        let mut checks = Vec::with_capacity(state.dependencies.len() + 2);
        for dependency in &state.dependencies {
            checks.push(dependency.check().await);
        }
        checks.extend(state.vitals.judge());
        checks
    }

    fn simulation(&self) -> Option<&Simulation> {
        Some(self)
    }
}
