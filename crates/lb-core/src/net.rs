//! Networks as clients are compared with them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// An address, or a network in CIDR notation. What holds nothing but IPv4 addresses written as IPv6 ones
/// (`::ffff:10.0.0.0/104`; RFC 4291 section 2.5.5.2) is the IPv4 network: clients' addresses are taken so, too.
pub fn network(text: &str) -> Option<IpNet> {
    let network = match text.split_once('/') {
        None => text.parse::<IpAddr>().ok()?.into(),
        // The parser of `IpNet` takes `010.0.0.0/8`, which some systems read as 8.0.0.0: RFC 6943 section 3.1.1.
        Some((address, length)) => {
            let digits = length.bytes().all(|byte| byte.is_ascii_digit());
            IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| digits)?).ok()?
        }
    };
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let mapped = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    Some(mapped.map_or(network, IpNet::V4).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_addresses_written_as_ipv6_are_ipv4() {
        for (text, meant) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("::1", Some("::1/128")),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:0:0/95", Some("::fffe:0:0/95")),
            ("::10.0.0.0/104", Some("::a00:0/104")),
            ("::/0", Some("::/0")),
            ("10.0.0.0/33", None),
            ("010.0.0.0/8", None),
            ("010.0.0.1", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/255.0.0.0", None),
            ("fe80::1%eth0/64", None),
            ("example.com", None),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), meant, "{text}");
        }
    }
}
