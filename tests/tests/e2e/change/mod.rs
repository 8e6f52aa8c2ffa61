//! Against change: reloads, upgrades and operators lose nothing.

mod quarantine;
mod reload;
