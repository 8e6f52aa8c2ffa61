//! Traefik YAML read into a checked configuration, with every problem located.
//!
//! A file goes through three steps: text becomes a tree in which everything has a place (`document`),
//! the tree is read the way Traefik's decoder reads it (`decode`), and what was read is checked against
//! what Vigie can do (`statics`, `dynamics`, `middlewares`). Nothing stops at the first problem.

pub mod acme;
pub mod docker;
pub mod dynamic;
pub mod kv;
pub mod remote;
pub mod static_config;
pub mod telemetry;

mod composite;
mod decode;
mod directory;
mod document;
mod duration;
mod dynamics;
mod find;
mod load;
mod merge;
mod middlewares;
mod net;
mod pem;
mod problem;
mod quarantine;
mod size;
mod sources;
mod statics;
pub mod suggest;
pub mod tcp;
#[cfg(test)]
mod testing;
mod udp;

pub use directory::is_configuration;
pub use document::{defines_nothing, read_bytes, read_string};
pub use duration::{duration, show as show_duration};
pub use dynamic::Config;
pub use load::{
    Context, LastGood, Loaded, Places, find_dynamic, load_dynamic, load_static, parse_answer, parse_dynamic,
    parse_static,
};
pub use problem::{Kind, Problem, Problems, Scope, Severity};
pub use quarantine::{DEFAULT_CERTIFICATE, Object, Reasons, Settled, settle};
pub use sources::{Settings, StaticSource, explain_options};
pub use static_config::StaticConfig;
