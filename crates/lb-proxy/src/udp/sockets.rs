//! Bound sockets: one per worker, or those of the process that this one follows.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use crate::entrypoint::listen::is_no_ipv6;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Bytes of datagrams that may wait for a worker: the kernel drops what comes beyond. Chosen; its default takes less than 300
/// short ones.
const BUFFER: usize = 4 * 1024 * 1024;

/// Whether it is a socket for datagrams.
pub(crate) fn is_for_datagrams(socket: &impl AsFd) -> bool {
    SockRef::from(socket).r#type().is_ok_and(|kind| kind == Type::DGRAM)
}

/// Binds one socket per worker. As with TCP, another program on the same address is told so, unless `reuse_port`.
///
/// # Errors
/// Whatever the system says about the address.
pub(crate) fn bind(address: SocketAddr, reuse_port: bool, workers: usize) -> io::Result<Vec<UdpSocket>> {
    if !reuse_port {
        drop(open(address, false)?);
    }
    let first = open(address, true)?;
    // Port 0 asks for any free port: all workers must then share the one that was given.
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(open(address, true)?);
    }
    Ok(sockets)
}

/// Goes on with bound sockets, with neither more nor fewer of them: with another number the kernel would give clients to
/// others than those who have their flows.
///
/// # Errors
/// Whatever the system says about one of them.
pub(crate) fn adopt(sockets: Vec<UdpSocket>) -> io::Result<Vec<UdpSocket>> {
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        enlarge(&SockRef::from(socket));
    }
    Ok(sockets)
}

fn open(address: SocketAddr, share: bool) -> io::Result<UdpSocket> {
    match open_exactly(address, share) {
        // `:53` means every address; a machine without IPv6 has only those of IPv4.
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_no_ipv6(&error) => {
            open_exactly(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), share)
        }
        opened => opened,
    }
}

fn open_exactly(address: SocketAddr, share: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families, as Go listens.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_port(share)?;
    enlarge(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// As far as the system allows (`net.core.rmem_max`).
fn enlarge(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(BUFFER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_had_by_one_program_only() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), false, 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert!(sockets.iter().all(is_for_datagrams));
        let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
        let room = |socket: &UdpSocket| SockRef::from(socket).recv_buffer_size().unwrap();
        assert!(sockets.iter().all(|socket| room(socket) > room(&plain)));
        let before = room(&plain);
        assert!(room(&adopt(vec![plain]).unwrap()[0]) > before, "of an older version");
        assert_eq!(bind(address, false, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(!is_for_datagrams(&std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    }
}
