//! End-to-end scenarios: the real binary between origins and clients on real sockets of loopback.
//!
//! Three suites are folders of their own: [`hostile`] (against bytes), [`faults`] (against failing parts) and
//! [`change`] (against reloads, upgrades and operators): `cargo nextest run -p lb-e2e hostile::`.
//!
//! One binary, so that it is linked once; one module per feature. `cargo nextest run -p lb-e2e` runs each
//! test in a process of its own. Nothing has a fixed port, and nothing sleeps: tests wait for conditions.

mod harness;

mod acme;
mod admin;
mod balance;
mod buffering;
mod change;
mod check;
mod composites;
mod compress;
mod content_type;
mod demo;
mod docker;
mod endurance;
mod error_pages;
mod estates;
mod faults;
mod forward_auth;
mod grpc_web;
mod health;
mod hostile;
mod house;
mod http2_servers;
mod http3;
mod identity;
mod interop;
mod layers;
mod middlewares;
mod monitoring;
mod observe;
mod programs;
mod reload;
mod remote;
mod rewrites;
mod routing;
mod rule_syntax;
mod shutdown;
mod sources;
mod streams;
mod tcp;
mod telemetry;
mod templates;
mod timeline;
mod tls;
mod verify;
