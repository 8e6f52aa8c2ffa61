//! End-to-end scenarios: the real binary between origins and clients on real sockets of loopback.
//!
//! One binary, so that it is linked once; one module per feature. `cargo nextest run -p lb-e2e` runs each
//! test in a process of its own. Nothing has a fixed port, and nothing sleeps: tests wait for conditions.

mod harness;

mod admin;
mod balance;
mod check;
mod demo;
mod endurance;
mod health;
mod house;
mod interop;
mod middlewares;
mod observe;
mod reload;
mod routing;
mod shutdown;
mod streams;
mod tls;
