//! The control plane: merges providers, publishes snapshots, probes servers.
//!
//! [`Control`] is the only writer of the configuration in force. It never touches a request: what it
//! builds is published by the closure it is given, and what it observes goes into the live state that
//! `lb-core` shares between successive configurations.

mod control;
mod operator;
mod probe;
mod quarantine;
mod services;
mod state;
mod tcp_probe;
#[cfg(test)]
mod testing;
mod upkeep;

pub use control::{Candidate, Control, Reading, Settings};
pub use operator::Operators;
pub use probe::{Client, ClientTls, Dial, probe_once};
pub use services::Services;
pub use state::{ProviderState, Refusal, State, StateWatch};
