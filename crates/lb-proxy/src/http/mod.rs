//! HTTP towards clients: one request from its head to the record of its end.

pub(crate) mod alias;
mod around;
mod asking;
mod authorize;
pub(crate) mod body;
mod buffering;
mod compose;
pub(crate) mod cookie;
pub(crate) mod downstream;
pub(crate) mod encode;
mod farewell;
pub(crate) mod forwarded;
pub(crate) mod grpc_web;
pub(crate) mod h1;
pub(crate) mod h1_serve;
pub(crate) mod h2_convert;
pub(crate) mod h2_gather;
pub(crate) mod h2_meter;
pub(crate) mod h2_serve;
pub(crate) mod h2_sieve;
pub(crate) mod h2_stream;
pub(crate) mod h3;
pub(crate) mod handle;
mod internally;
pub(crate) mod layers;
pub(crate) mod local;
pub(crate) mod mirror;
pub(crate) mod normalise;
pub(crate) mod pace;
mod pages;
pub(crate) mod record;
pub(crate) mod replay;
mod sniff;
mod spool;
mod streams;
pub(crate) mod traced;
pub(crate) mod tunnel;

use lb_http1::Limits;

/// What a server may send as one head. Go's client, and so Traefik, stops at 10 MiB; 1 MiB is chosen.
pub(crate) const RESPONSE_LIMITS: Limits = Limits { max_head_bytes: 1024 * 1024, max_fields: 1024 };

/// Fields in one request's head; chosen, Traefik has no such limit.
pub(crate) const MAX_REQUEST_FIELDS: usize = 256;
