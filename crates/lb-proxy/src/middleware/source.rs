//! Whom a request comes from: the key that limits count by.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use lb_config::dynamic::{IpStrategy, SourceCriterion};

use crate::exchange::Exchange;

/// The client's address as `ipStrategy` finds it; `None` where the field holds none.
pub(super) fn client_ip(x: &Exchange, strategy: &IpStrategy) -> Option<IpAddr> {
    let ip = if believes_field(strategy) { address(entry(x, strategy)?)? } else { x.peer.ip };
    Some(match (ip, strategy.ipv6_subnet) {
        (IpAddr::V6(ip), Some(bits)) if strategy.excluded_ips.is_empty() || strategy.depth > 0 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
        (ip, _) => ip,
    })
}

fn believes_field(strategy: &IpStrategy) -> bool {
    strategy.depth > 0 || !strategy.excluded_ips.is_empty()
}

/// What `X-Forwarded-For` holds where `depth` or `excludedIPs` make one look, be it an address or not.
fn entry<'a>(x: &'a Exchange, strategy: &IpStrategy) -> Option<&'a str> {
    // From the right; what stands there was added by the proxy before us.
    let mut entries = forwarded_for(x)?.rsplit(',').map(str::trim);
    if strategy.depth > 0 {
        return entries.nth(strategy.depth - 1);
    }
    let known = |ip: IpAddr| strategy.excluded_ips.iter().any(|net| net.contains(&ip));
    // An entry that is no address cannot be excluded: it ends the search.
    entries.find(|entry| !entry.is_empty() && !address(entry).is_some_and(known))
}

/// An entry of `X-Forwarded-For`; some proxies write the port as well, or the zone (RFC 4007 section 11), which says
/// nothing to anybody else. An IPv4 address in IPv6 notation counts as what it is.
fn address(entry: &str) -> Option<IpAddr> {
    let read = |text: &str| {
        text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    let unzoned = || {
        let (address, zone) = entry.split_once('%')?;
        let port = zone.find(']').map_or("", |end| &zone[end..]);
        read(&format!("{address}{port}")).filter(IpAddr::is_ipv6)
    };
    Some(read(entry).or_else(unzoned)?.to_canonical())
}

fn forwarded_for(x: &Exchange) -> Option<&str> {
    x.head.get_str("x-forwarded-for")
}

/// The key of a limit. As in Traefik, requests without what the criterion looks for share the empty key, and text that
/// is no address counts as it stands.
pub(super) fn key<'a>(x: &'a Exchange, criterion: &SourceCriterion) -> Cow<'a, str> {
    match criterion {
        SourceCriterion::Ip(strategy) if *strategy == IpStrategy::default() => Cow::Borrowed(&x.peer.ip_text),
        SourceCriterion::Ip(strategy) => match client_ip(x, strategy) {
            Some(ip) => Cow::Owned(ip.to_string()),
            None => Cow::Borrowed(entry(x, strategy).unwrap_or_default()),
        },
        SourceCriterion::Header(name) => Cow::Borrowed(x.head.get_str(name).unwrap_or_default()),
        SourceCriterion::Host => Cow::Borrowed(x.head.get_str("host").unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::http::forwarded::Peer;

    fn exchange(forwarded: &str) -> Exchange {
        let peer = Peer::new("192.0.2.1".parse().unwrap(), false);
        let now = tokio::time::Instant::now().into_std();
        let mut x = Exchange::new(Rc::new(peer), now);
        if !forwarded.is_empty() {
            x.head.append("X-Forwarded-For", forwarded.as_bytes());
        }
        x
    }

    fn found(forwarded: &str, strategy: IpStrategy) -> String {
        client_ip(&exchange(forwarded), &strategy).map_or_else(|| "-".to_owned(), |ip| ip.to_string())
    }

    #[test]
    fn where_no_address_is_found_limits_still_have_a_key() {
        let depth = IpStrategy { depth: 2, ..IpStrategy::default() };
        let excluded =
            IpStrategy { excluded_ips: vec!["12.0.0.0/8".parse().unwrap()], ..IpStrategy::default() };
        for (strategy, rows) in [
            (depth, [("", ""), ("10.0.0.1", ""), (", 10.0.0.1", ""), ("unknown, 10.0.0.1", "unknown")]),
            (excluded, [("", ""), (" ,", ""), ("12.0.0.1, 12.0.0.2", ""), ("unknown, 12.0.0.1", "unknown")]),
        ] {
            for (forwarded, expected) in rows {
                let criterion = SourceCriterion::Ip(strategy.clone());
                assert_eq!(key(&exchange(forwarded), &criterion), expected, "{strategy:?}, {forwarded:?}");
            }
        }
        // Spellings of one address are one source.
        let depth = SourceCriterion::Ip(IpStrategy { depth: 1, ..IpStrategy::default() });
        assert_eq!(key(&exchange("2001:DB8:0::1"), &depth), "2001:db8::1");
    }

    #[test]
    fn the_strategy_finds_the_client() {
        let depth = |depth| IpStrategy { depth, ..IpStrategy::default() };
        let list = "10.0.0.1, 11.0.0.1,12.0.0.1";
        assert_eq!(found(list, IpStrategy::default()), "192.0.2.1");
        assert_eq!(found(list, depth(1)), "12.0.0.1");
        assert_eq!(found(list, depth(3)), "10.0.0.1");
        assert_eq!(found(list, depth(4)), "-");
        assert_eq!(found("", depth(1)), "-");
        let excluded = |nets: &[&str]| IpStrategy {
            excluded_ips: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ..IpStrategy::default()
        };
        assert_eq!(found(list, excluded(&["12.0.0.0/8"])), "11.0.0.1");
        assert_eq!(found(list, excluded(&["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"])), "-");
        assert_eq!(found("10.0.0.1, x, 12.0.0.1", excluded(&["12.0.0.0/8"])), "-");
        assert_eq!(found("10.0.0.1, 12.0.0.1,", excluded(&["12.0.0.0/8"])), "10.0.0.1");
        assert_eq!(found("10.0.0.1:80", depth(1)), "10.0.0.1");
        assert_eq!(found("::ffff:10.0.0.1", depth(1)), "10.0.0.1");
        assert_eq!(found("[2001:db8::1]:80", depth(1)), "2001:db8::1");
        assert_eq!(found("fe80::1%eth0", depth(1)), "fe80::1");
        assert_eq!(found("[fe80::1%eth0]:80", depth(1)), "fe80::1");
        assert_eq!(found("10.0.0.1%eth0", depth(1)), "-");
        assert_eq!(found("%eth0", depth(1)), "-");
        let subnet = IpStrategy { depth: 1, ipv6_subnet: Some(64), ..IpStrategy::default() };
        assert_eq!(found("2001:db8:1:2:3:4:5:6", subnet), "2001:db8:1:2::");
    }
}
