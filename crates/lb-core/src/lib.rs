//! Decisions of the load balancer, pure: balancing, routing, health, breaker, limits.
//!
//! No sockets, no clock, no randomness: time and random numbers are arguments.

pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod client_hello;
mod comparison;
pub mod encoding;
pub mod health;
pub mod in_flight;
pub mod net;
pub mod operator;
pub mod proxy_header;
pub mod rate_limit;
pub mod resend;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod sniff;
pub mod sticky;
mod syntax;
pub mod uri;

#[cfg(test)]
mod testing;
