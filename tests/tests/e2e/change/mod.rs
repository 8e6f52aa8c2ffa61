//! Against change: reloads, upgrades and operators lose nothing.
