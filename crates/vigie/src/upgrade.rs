//! Upgrade of Vigie itself: a new process takes over the listening sockets and what is known of the servers.
//!
//! The two share every socket for a moment, so no connection is refused and none is lost in a queue. In turn, over
//! a pair of Unix sockets:
//!
//! 1. the running process starts the new one with its own command line, and offers its listening sockets;
//! 2. the new one loads, compiles and binds everything, accepts nothing yet, and says that it is **ready**;
//! 3. the running one tells what it knows of the servers at this moment: **go**;
//! 4. the new one accepts connections and says that it is **serving**;
//! 5. the running one stops accepting, and drains.
//!
//! Until 4 whatever goes wrong ends the new process, with which nobody has a connection before 3.

mod control;
mod live;
mod ongoing;
mod predecessor;
mod successor;
mod wire;

pub(crate) use control::{Requests, command};
pub(crate) use ongoing::Upgrades;
pub(crate) use predecessor::Predecessor;
pub(crate) use successor::Launch;
