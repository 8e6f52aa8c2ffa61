//! The UDP socket beside an entry point's TCP sockets.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// What the kernel may keep for a worker that is busy, if the system allows it (`net.core.rmem_max`). Chosen; without it
/// a burst of some hundred packets is lost.
const BUFFER: usize = 4 * 1024 * 1024;

/// Binds to the address that TCP listens on.
///
/// # Errors
/// Whatever the system says about the address.
pub(crate) fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families, as TCP listens.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_port(reuse_port)?;
    // Less does as well.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
