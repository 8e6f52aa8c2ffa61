//! The PROXY protocol, versions 1 and 2: who the client of the balancer in front of us is.
//!
//! Only the parser: which peers may send a header is the entry point's business. Section numbers are those of
//! `proxy-protocol.txt` (HAProxy, revision of 2020/03/05). TLVs are stepped over; their optional checksum is
//! not verified, TCP has one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Perhaps a header: more bytes will tell.
    Partial,
    /// Not a header. The bytes belong to TLS or HTTP.
    None,
    Complete {
        /// Length of the header; what follows belongs to TLS or HTTP.
        consumed: usize,
        /// `None` where the sender speaks for itself (`LOCAL`, `UNKNOWN`) or names no TCP address (UNIX sockets,
        /// datagrams): the peer of the socket is the client (sections 2.1 and 2.2).
        source: Option<SocketAddr>,
        destination: Option<SocketAddr>,
    },
}

/// The bytes begin like a header and go on like none. The only safe answer is to close (section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a PROXY v1 line has no CRLF within {V1_MAX_BYTES} bytes")]
    UnterminatedLine,
    #[error("a PROXY v1 line does not read `PROXY TCP4|TCP6 source destination port port`")]
    MalformedLine,
    #[error("a PROXY v2 header has version {0}")]
    UnknownVersion(u8),
    #[error("a PROXY v2 header has the unassigned command {0}")]
    UnknownCommand(u8),
    #[error("a PROXY v2 header has the unassigned family and transport {0:#04x}")]
    UnknownFamily(u8),
    #[error("a PROXY v2 header of {0} bytes is too short for its addresses")]
    TooShort(usize),
    #[error("a PROXY v2 header of {0} bytes is longer than {V2_MAX_BYTES}")]
    TooLong(usize),
}

const V1_PREFIX: &[u8] = b"PROXY ";
/// Section 2.1: the longest line, CRLF included.
const V1_MAX_BYTES: usize = 107;
/// Section 2.2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
/// Chosen: addresses take at most 216 bytes, the rest leaves room for the TLVs of cloud balancers and of a
/// client certificate's names. The format would allow 64 KiB, which nobody sends.
pub(crate) const V2_MAX_BYTES: usize = 4096;

/// Reads the header at the start of `bytes`. Call it again with more bytes while it answers
/// [`Header::Partial`]; it never needs more than [`V2_MAX_BYTES`].
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, Error> {
    let begins_with = |prefix: &[u8]| {
        let len = bytes.len().min(prefix.len());
        bytes[..len] == prefix[..len]
    };
    if bytes.is_empty() {
        Ok(Header::Partial)
    } else if begins_with(V1_PREFIX) {
        if bytes.len() < V1_PREFIX.len() { Ok(Header::Partial) } else { parse_v1(bytes) }
    } else if begins_with(V2_SIGNATURE) {
        parse_v2(bytes)
    } else {
        Ok(Header::None)
    }
}

/// Section 2.1.
fn parse_v1(bytes: &[u8]) -> Result<Header, Error> {
    let window = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() < V1_MAX_BYTES { Ok(Header::Partial) } else { Err(Error::UnterminatedLine) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Error::MalformedLine)?;
    let line = str::from_utf8(line).map_err(|_| Error::MalformedLine)?;
    let mut words = line.split(' ').skip(1);
    let mut next = || words.next().ok_or(Error::MalformedLine);
    let family = next()?;
    let consumed = end + 1;
    if family == "UNKNOWN" {
        // "The receiver must ignore anything presented before the CRLF."
        return Ok(Header::Complete { consumed, source: None, destination: None });
    }
    let mut address = || match family {
        "TCP4" => next()?.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Error::MalformedLine),
        "TCP6" => next()?.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Error::MalformedLine),
        _ => Err(Error::MalformedLine),
    };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(Error::MalformedLine);
    }
    Ok(Header::Complete {
        consumed,
        source: Some(SocketAddr::new(source, source_port)),
        destination: Some(SocketAddr::new(destination, destination_port)),
    })
}

/// Decimal digits only: `parse` alone would take a plus sign.
fn port(word: &str) -> Result<u16, Error> {
    let canonical = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| canonical).ok_or(Error::MalformedLine)
}

/// Section 2.2.
fn parse_v2(bytes: &[u8]) -> Result<Header, Error> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else {
        return Ok(Header::Partial);
    };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 15, fixed[13]);
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let consumed = V2_FIXED_BYTES + len;
    if version != 2 {
        return Err(Error::UnknownVersion(version));
    }
    if command > 1 {
        return Err(Error::UnknownCommand(command));
    }
    // Values of either half that are not assigned "must be rejected as invalid by receivers".
    let addresses_len = match (family >> 4, family & 15) {
        (_, 3..) => return Err(Error::UnknownFamily(family)),
        (0, _) => 0,
        (1, _) => 12,
        (2, _) => 36,
        (3, _) => 216,
        _ => return Err(Error::UnknownFamily(family)),
    };
    if consumed > V2_MAX_BYTES {
        return Err(Error::TooLong(consumed));
    }
    // LOCAL (command 0): a health check of the sender; "must ignore the address block".
    let local = command == 0;
    if len < addresses_len && !local {
        return Err(Error::TooShort(consumed));
    }
    let Some(addresses) = rest.get(..len) else {
        return Ok(Header::Partial);
    };
    const TCP_OVER_IPV4: u8 = 0x11;
    const TCP_OVER_IPV6: u8 = 0x21;
    let (source, destination) = match family {
        _ if local => (None, None),
        TCP_OVER_IPV4 => endpoints::<4>(addresses),
        TCP_OVER_IPV6 => endpoints::<16>(addresses),
        _ => (None, None),
    };
    Ok(Header::Complete { consumed, source, destination })
}

/// Source and destination address of `N` bytes each, then their ports.
fn endpoints<const N: usize>(block: &[u8]) -> (Option<SocketAddr>, Option<SocketAddr>)
where
    IpAddr: From<[u8; N]>,
{
    let endpoint = |address_at: usize, port_at: usize| {
        let address = block.get(address_at..)?.first_chunk::<N>()?;
        let port = block.get(port_at..)?.first_chunk::<2>()?;
        Some(SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port)))
    };
    (endpoint(0, 2 * N), endpoint(N, 2 * N + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(consumed: usize, source: &str, destination: &str) -> Result<Header, Error> {
        let address = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Ok(Header::Complete { consumed, source: address(source), destination: address(destination) })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &len, body].concat()
    }

    const BODY4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xc0, 0x01, 0x01, 0xbb];

    #[test]
    fn version_1_lines() {
        let rows: [(&str, Result<Header, Error>); 15] = [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.7 49153 443\r\nGET",
                complete(45, "192.0.2.1:49153", "198.51.100.7:443"),
            ),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", complete(32, "[2001:db8::1]:1", "[::1]:2")),
            ("PROXY UNKNOWN\r\n", complete(15, "", "")),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", complete(43, "", "")),
            ("PROXY TCP4 2001:db8::1 ::1 1 2\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.1 198.51.100.7 49153\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.1 198.51.100.7 49153 443 5\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4  192.0.2.1 198.51.100.7 49153 443\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.01 198.51.100.7 49153 443\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.1 198.51.100.7 +9153 443\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.1 198.51.100.7 049 443\r\n", Err(Error::MalformedLine)),
            ("PROXY TCP4 192.0.2.1 198.51.100.7 49153 443\n", Err(Error::MalformedLine)),
            ("PROXY UDP4 192.0.2.1 198.51.100.7 49153 443\r\n", Err(Error::MalformedLine)),
            ("PROXY \r\n", Err(Error::MalformedLine)),
        ];
        for (line, expected) in rows {
            assert_eq!(parse(line.as_bytes()), expected, "{line:?}");
        }
        let endless = [V1_PREFIX, &[b'a'; 200]].concat();
        assert_eq!(parse(&endless), Err(Error::UnterminatedLine));
        assert_eq!(parse(&endless[..V1_MAX_BYTES - 1]), Ok(Header::Partial));
    }

    #[test]
    fn version_2_headers() {
        let body6 = [[0x20; 16], [0x30; 16]].concat();
        let body6 = [&body6[..], &[0, 1, 0, 2]].concat();
        let with_tlvs = [&BODY4[..], &[0x04, 0, 2, 9, 9]].concat();
        let rows: [(&str, Vec<u8>, Result<Header, Error>); 14] = [
            ("TCP4", v2(0x21, 0x11, &BODY4), complete(28, "192.0.2.1:49153", "198.51.100.7:443")),
            ("TLVs", v2(0x21, 0x11, &with_tlvs), complete(33, "192.0.2.1:49153", "198.51.100.7:443")),
            (
                "TCP6",
                v2(0x21, 0x21, &body6),
                complete(
                    52,
                    "[2020:2020:2020:2020:2020:2020:2020:2020]:1",
                    "[3030:3030:3030:3030:3030:3030:3030:3030]:2",
                ),
            ),
            ("UNIX", v2(0x21, 0x31, &[b'/'; 216]), complete(232, "", "")),
            ("UDP4", v2(0x21, 0x12, &BODY4), complete(28, "", "")),
            ("UNSPEC", v2(0x21, 0x00, b"tlvs"), complete(20, "", "")),
            ("LOCAL", v2(0x20, 0x11, &BODY4), complete(28, "", "")),
            ("LOCAL without addresses", v2(0x20, 0x00, &[]), complete(16, "", "")),
            ("version 1 in binary", v2(0x11, 0x11, &BODY4), Err(Error::UnknownVersion(1))),
            ("unassigned command", v2(0x22, 0x11, &BODY4), Err(Error::UnknownCommand(2))),
            ("unassigned family", v2(0x21, 0x41, &BODY4), Err(Error::UnknownFamily(0x41))),
            ("unassigned transport", v2(0x21, 0x13, &BODY4), Err(Error::UnknownFamily(0x13))),
            ("short", v2(0x21, 0x21, &BODY4), Err(Error::TooShort(28))),
            ("long", v2(0x21, 0x11, &[0; 4081]), Err(Error::TooLong(4097))),
        ];
        for (name, mut bytes, expected) in rows {
            bytes.extend_from_slice(b"\x16\x03\x01"); // the payload is left alone
            assert_eq!(parse(&bytes), expected, "{name}");
        }
    }

    #[test]
    fn a_header_may_arrive_byte_by_byte() {
        let headers = [
            b"PROXY TCP4 192.0.2.1 198.51.100.7 49153 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(0x21, 0x11, &BODY4),
            v2(0x20, 0x00, &[1, 2, 3]),
        ];
        for header in headers {
            for len in 0..header.len() {
                assert_eq!(parse(&header[..len]), Ok(Header::Partial), "{len} bytes of {header:?}");
            }
            assert!(
                matches!(parse(&header), Ok(Header::Complete { consumed, .. }) if consumed == header.len())
            );
        }
    }

    #[test]
    fn other_protocols_are_left_alone() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PROXYv3", b"\x16\x03\x01", b"\r\n\r\n\0\r\nQUOT", b"proxy TCP4 "]
        {
            assert_eq!(parse(bytes), Ok(Header::None), "{bytes:?}");
        }
    }
}
