//! What listens where on this machine, as far as `/proc` tells: the reason for many a refused connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// TCP sockets that take connections; empty where there is no `/proc`.
pub(crate) fn sockets() -> Vec<SocketAddr> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    tables.iter().flatten().flat_map(|table| parse(table)).collect()
}

/// The lines of `/proc/net/tcp` or `tcp6` in state LISTEN (proc(5)).
fn parse(table: &str) -> Vec<SocketAddr> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let (address, port) = local.split_once(':')?;
        // Each 32 bits as this machine orders them.
        let word = |at: usize| {
            let digits = address.get(at * 8..at * 8 + 8)?;
            u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
        };
        let ip: IpAddr = if address.len() == 8 {
            Ipv4Addr::from(word(0)?).into()
        } else {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == "0A").then_some(SocketAddr::new(ip, port))
    };
    table.lines().filter_map(line).collect()
}

/// Whether the address is one of this machine's: only those can be bound.
pub(crate) fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Why `address`, one of this machine's, refuses connections, and what to do about it.
pub(crate) fn explain(sockets: &[SocketAddr], address: SocketAddr) -> (String, String) {
    let port = address.port();
    let mut bound: Vec<IpAddr> =
        sockets.iter().filter(|socket| socket.port() == port).map(SocketAddr::ip).collect();
    bound.sort_unstable();
    bound.dedup();
    if bound.is_empty() {
        return (
            format!("nothing listens on port {port} of this machine"),
            "start the service, or mend the port of the URL".to_owned(),
        );
    }
    let bound: Vec<_> = bound.iter().map(IpAddr::to_string).collect();
    let (bound, ip) = (bound.join(", "), address.ip());
    let every = if address.is_ipv6() { "[::]" } else { "0.0.0.0" };
    (
        format!("port {port} of this machine is bound to {bound} only, not to {ip}"),
        format!("bind the service to {ip} or {every}, or write {bound} into the URL"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0BBA 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
";
    const TABLE6: &str = "  sl  local_address remote_address st
   0: 0000000000000000FFFF00000100007F:59D9 00000000000000000000000000000000:0000 0A 0:0
   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_read() {
        let told = |table| parse(table).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(TABLE), ["127.0.0.1:3001"]);
        assert_eq!(told(TABLE6), ["127.0.0.1:23001", "[::]:80"]);
    }

    #[test]
    fn a_service_on_another_address_is_told_from_none() {
        let sockets = ["127.0.0.1:3001".parse().unwrap()];
        let (problem, hint) = explain(&sockets, "192.0.2.5:3001".parse().unwrap());
        assert_eq!(problem, "port 3001 of this machine is bound to 127.0.0.1 only, not to 192.0.2.5");
        assert_eq!(hint, "bind the service to 192.0.2.5 or 0.0.0.0, or write 127.0.0.1 into the URL");
        assert!(explain(&sockets, "127.0.0.1:3002".parse().unwrap()).0.starts_with("nothing listens"));
    }

    #[test]
    fn this_machine_has_loopback_and_nothing_reserved() {
        assert!(is_here(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_here([192, 0, 2, 77].into()));
    }
}
