//! Against change: reloads, upgrades and operators lose nothing.

pub(crate) mod dynasty;
mod operator;
mod quarantine;
mod reload;
mod removed;
mod rollout;
mod sent;
mod systemd;
mod udp;
mod upgrade;
mod upgrade_http3;
