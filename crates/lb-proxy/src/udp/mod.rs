//! UDP: datagrams of one client go to one server, and its answers back, for as long as either has something to say.
//!
//! Each worker has its own socket on each entry point for UDP; the kernel gives all datagrams of one client to the same.
//! So a worker's flows are its own, and no lock is taken but where a flow begins.

mod flows;
mod picker;
mod sockets;

pub(crate) use flows::{Relay, most_flows};
pub(crate) use picker::UdpTable;
pub(crate) use sockets::{adopt, bind, is_for_datagrams};
