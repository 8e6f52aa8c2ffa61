//! Against change: reloads, upgrades and operators lose nothing.

mod dynasty;
mod quarantine;
mod reload;
mod systemd;
mod upgrade;
