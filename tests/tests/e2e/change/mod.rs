//! Against change: reloads, upgrades and operators lose nothing.

mod dynasty;
mod operator;
mod quarantine;
mod reload;
mod removed;
mod systemd;
mod upgrade;
mod upgrade_http3;
