//! Against change: reloads, upgrades and operators lose nothing.

pub(crate) mod dynasty;
mod operator;
mod quarantine;
mod reload;
mod removed;
mod rollout;
mod systemd;
mod udp;
mod upgrade;
