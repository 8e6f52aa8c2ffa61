//! Socket activation: listening sockets that systemd has bound (sd_listen_fds(3)).

use std::net::TcpListener;

use anyhow::Context as _;
use lb_proxy::Inherited;
use rustix::io::{FdFlags, fcntl_setfd};

/// The sockets that were passed; none where nobody did. Their names say which entry point each is for.
pub(crate) fn sockets() -> anyhow::Result<Vec<Inherited>> {
    let passed = sd_listen_fds::get().context("the sockets of the service manager")?;
    let inherited = passed.into_iter().map(|(name, socket)| {
        let socket = TcpListener::from(socket);
        // What an upgrade hands over it hands over by itself.
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        Ok(Inherited { entry_point: name.unwrap_or_default(), configured: None, socket })
    });
    inherited.collect()
}
