//! The header of the PROXY protocol as it is written towards servers.
//!
//! Section numbers are those of `proxy-protocol.txt` (HAProxy, revision of 2020/03/05).

use std::net::{IpAddr, SocketAddr};

/// The sender speaks for itself (section 2.1).
pub const UNKNOWN_V1: &[u8] = b"PROXY UNKNOWN\r\n";
/// The same in version 2: the command LOCAL, no addresses (section 2.2).
pub const LOCAL_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 1, one line of text.
pub fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, from, to) = match families(source, destination) {
        (from @ IpAddr::V4(_), to) => ("TCP4", from, to),
        (from, to) => ("TCP6", from, to),
    };
    format!("PROXY {family} {} {} {} {}\r\n", from, to, source.port(), destination.port()).into_bytes()
}

/// Version 2, binary.
pub fn v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let mut addresses = Vec::with_capacity(36);
    let (from, to) = families(source, destination);
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    // Version 2, command PROXY; TCP over IPv4 or IPv6.
    header.extend([0x21, if from.is_ipv4() { 0x11 } else { 0x21 }]);
    header.extend((addresses.len() as u16).to_be_bytes()); // 12 or 36
    header.extend(addresses);
    header
}

/// Both of one family: IPv4 where both are.
fn families(source: SocketAddr, destination: SocketAddr) -> (IpAddr, IpAddr) {
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => (from, to),
        (from, to) => (mapped(from), mapped(to)),
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_both_ends() {
        let [a, b, c] = ["192.0.2.1:49153", "[::ffff:198.51.100.7]:443", "[2001:db8::1]:9"];
        let [a, b, c] = [a, b, c].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(v1(a, b), b"PROXY TCP4 192.0.2.1 198.51.100.7 49153 443\r\n");
        assert_eq!(v1(c, a), b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 9 49153\r\n");
        let four =
            [SIGNATURE, &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0xc0, 1, 1, 0xbb]].concat();
        assert_eq!(v2(a, b), four);
        let six = v2(a, c);
        assert_eq!((six.len(), six[13], six[15]), (52, 0x21, 36));
        assert_eq!(six[48..], [0xc0, 1, 0, 9]);
    }
}
