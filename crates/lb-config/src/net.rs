//! Addresses, networks and URLs as the files write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::decode::{Field, Text};
use crate::dynamic::Scheme;
use crate::problem::quoted;

/// `10.0.0.0/8`, or a single address.
pub(crate) fn network(text: &Text<'_>) -> Option<IpNet> {
    let parsed = lb_core::net::network(text.value);
    if parsed.is_none() {
        let hint = if text.value.contains(',') {
            "give each network an element of its own"
        } else {
            "write an address or a network, `192.0.2.7` or `192.0.2.0/24`"
        }
        .to_owned();
        text.error(format!("{} is not a network", quoted(text.value)), Some(hint));
    }
    parsed
}

pub(crate) fn networks(field: &Field<'_>) -> Vec<IpNet> {
    field.texts().iter().filter_map(network).collect()
}

/// Why an entry point's address cannot be used, and the way out.
type Refusal = (String, Option<String>);

/// Whether a [`listen_address`] is for UDP.
pub(crate) fn is_udp(text: &str) -> bool {
    text.rsplit_once('/').is_some_and(|(_, protocol)| protocol.eq_ignore_ascii_case("udp"))
}

/// `[host]:port[/tcp|/udp]`; without a host every address of the machine, IPv6 and IPv4.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, Refusal> {
    let shape = || Some("write `:80`, `127.0.0.1:80` or `[::1]:80`".to_owned());
    let (address, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "udp" => {}
        _ => {
            let message = format!("{} is not a protocol", quoted(protocol));
            return Err((message, Some("write `/tcp`, `/udp` or leave it out".to_owned())));
        }
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err((format!("{} has no port", quoted(text)), shape()));
    };
    let port = match port {
        "http" => 80,
        "https" => 443,
        _ => port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit())).ok_or_else(
            || {
                let hint = if port.starts_with('$') {
                    "variables are not replaced in static files: use flags, or variables such as \
                     `TRAEFIK_ENTRYPOINTS_WEB_ADDRESS`"
                } else {
                    "ports go from 0 to 65535"
                };
                (format!("{} is not a port", quoted(port)), Some(hint.to_owned()))
            },
        )?,
    };
    let ip = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None if host.is_empty() => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        None if host.eq_ignore_ascii_case("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match ip {
        Some(ip) => Ok(SocketAddr::new(ip, port)),
        None => Err((format!("{} is not an IP address", quoted(host)), shape())),
    }
}

/// `host:port` of a server; the host without brackets.
pub(crate) fn host_port(text: &str) -> Result<(String, u16), Refusal> {
    let hint = || Some("write `192.0.2.7:5432`, `[::1]:5432` or `db.example.com:5432`".to_owned());
    if text.contains("://") {
        return Err((format!("{} is a URL, not an address", quoted(text)), hint()));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err((format!("{} has no port", quoted(text)), hint()));
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let Some(port) = port.parse().ok().filter(|port| digits && *port > 0) else {
        return Err((format!("{} is not a port", quoted(port)), Some("ports go from 1 to 65535".to_owned())));
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => Some(v6).filter(|v6| v6.parse::<Ipv6Addr>().is_ok()),
        // As to Go, which dials this machine.
        None if host.is_empty() => Some("localhost"),
        None => Some(host).filter(|host| host.len() <= 253 && host.chars().all(fits)),
    };
    match host {
        Some(host) => Ok((host.to_owned(), port)),
        None => Err((format!("{} is not the address of a server", quoted(text)), hint())),
    }
}

/// A server's URL taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    /// What follows `?` or `#` and is never used.
    pub(crate) ignored: bool,
}

/// The URL without what stands before its host, and that: a user, perhaps with a password.
pub(crate) fn split_user(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, _) = rest[..end].rsplit_once('@')?;
    Some((format!("{scheme}://{}", &rest[user.len() + 1..]), user))
}

pub(crate) fn server_url(url: &str) -> Result<ServerUrl, Refusal> {
    let hint = |example: &str| Some(format!("write {}, `https://...` or `h2c://...`", quoted(example)));
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err((format!("{} has no scheme", quoted(url)), hint(&format!("http://{url}"))));
    };
    let hint = || hint("http://192.0.2.7:3000");
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        "h2c" => (Scheme::H2c, 80),
        _ => return Err((format!("the scheme {} cannot be used for a server", quoted(scheme)), hint())),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let path_end = rest.find(['?', '#']).unwrap_or(rest.len());
    let path = &rest[..path_end];
    if authority.contains(',') {
        let hint = "give each server an element of its own".to_owned();
        return Err((format!("{} is more than one server", quoted(url)), Some(hint)));
    }
    if authority.contains('@') {
        // The URL is not repeated: it holds a password.
        return Err(("a user and password in a server's URL are not supported".to_owned(), None));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, after)) = bracketed.split_once(']') else {
                return Err((format!("{} has a `[` without `]`", quoted(url)), hint()));
            };
            if host.parse::<Ipv6Addr>().is_err() {
                return Err((format!("{} is not an IPv6 address", quoted(host)), hint()));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err((format!("{} is not a server's address", quoted(authority)), hint())),
            }
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let host_fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(host_fits) {
        return Err((format!("{} is not a host", quoted(host)), hint()));
    }
    let port = if port.is_empty() {
        default_port
    } else {
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        port.parse().ok().filter(|port| digits && *port > 0).ok_or_else(|| {
            (format!("{} is not a port", quoted(port)), Some("ports go from 1 to 65535".to_owned()))
        })?
    };
    if path.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
        return Err((format!("{} is not a path", quoted(path)), Some("percent-encode it".to_owned())));
    }
    Ok(ServerUrl {
        scheme,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
        ignored: path_end < rest.len(),
    })
}

/// `404` or `500-599`, both ends included.
pub(crate) fn status_range(text: &Text<'_>) -> Option<(u16, u16)> {
    let status = |s: &str| s.trim().parse::<u16>().ok().filter(|status| (100..=999).contains(status));
    let range = match text.value.split_once('-') {
        Some((low, high)) => status(low).zip(status(high)),
        None => status(text.value).map(|status| (status, status)),
    };
    let hint = || Some("write a status like `404` or a range like `500-599`".to_owned());
    match range {
        Some((low, high)) if low <= high => return range,
        Some(_) => text.error(format!("the range {} is upside down", quoted(text.value)), hint()),
        None => text.error(format!("{} is not a status", quoted(text.value)), hint()),
    }
    None
}

pub(crate) fn status_ranges(field: &Field<'_>) -> Vec<(u16, u16)> {
    field.texts().into_iter().flat_map(Text::split_commas).filter_map(|text| status_range(&text)).collect()
}

/// RFC 9110 section 5.6.2: what names of fields, methods and cookies are made of.
pub(crate) fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        for (text, address) in [
            (":80", "[::]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:443", "[::1]:443"),
            (":80/tcp", "[::]:80"),
            (":80/TCP", "[::]:80"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            (":https", "[::]:443"),
        ] {
            assert_eq!(listen_address(text).map(|a| a.to_string()), Ok(address.to_owned()), "{text}");
        }
        for text in [
            "",
            "80",
            ":",
            ":80x",
            "::1:80",
            ":+80",
            ":99999",
            "127.0.0.1",
            "example.com:80",
            ":80/sctp",
            ":80/x",
        ] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn server_urls() {
        let read = |url| {
            server_url(url).map(|u| {
                format!(
                    "{:?} {} {} {}{}",
                    u.scheme,
                    u.host,
                    u.port,
                    u.path,
                    if u.ignored { " +" } else { "" }
                )
            })
        };
        for (url, parts) in [
            ("http://127.0.0.1:3000", "Http 127.0.0.1 3000 "),
            ("HTTP://a", "Http a 80 "),
            ("https://a.test/base/", "Https a.test 443 /base/"),
            ("h2c://[::1]:9", "H2c ::1 9 "),
            ("http://[::1]", "Http ::1 80 "),
            ("http://a?x=1", "Http a 80  +"),
            ("http://a_b:1/p#f", "Http a_b 1 /p +"),
        ] {
            assert_eq!(read(url), Ok(parts.to_owned()), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:1",
            "ftp://a",
            "http://",
            "http://[::1",
            "http://[x]",
            "http://[::1]x",
            "http://a:0",
            "http://a:x",
            "http://a:70000",
            "http://a b",
            "http://u:p@a",
            "http://a/ b",
            "http:///x",
            "http://a:1,http://b:2",
            "unix:///var/run/x",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
        assert!(!format!("{:?}", server_url("http://user:secret@a")).contains("secret"));
    }
}
