//! PROXY protocol: any bytes a trusted balancer might send, or somebody who pretends to be one.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;

use proxy_protocol::{Error, Header, V2_MAX_BYTES, parse};

// The file as it stands: lb-proxy as a whole would bring the C of a TLS library along.
#[path = "../../crates/lb-proxy/src/entrypoint/proxy_protocol.rs"]
mod proxy_protocol;

/// What the connection task sees: the bytes come in pieces, and the first answer that is final counts.
fn in_pieces(bytes: &[u8], piece: usize) -> Result<Header, Error> {
    let mut end = 0;
    loop {
        end = (end + piece).min(bytes.len());
        match parse(&bytes[..end]) {
            Ok(Header::Partial) if end < bytes.len() => {}
            answer => return answer,
        }
    }
}

fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut block = [octets(source.ip()), octets(destination.ip())].concat();
    block.extend(source.port().to_be_bytes());
    block.extend(destination.port().to_be_bytes());
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    bytes.extend([family, 0, block.len() as u8]);
    bytes.extend(block);
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    for piece in [1, 7] {
        assert_eq!(in_pieces(bytes, piece), whole, "in pieces of {piece}");
    }
    // Never waits for more than it says it needs: the caller's buffer is finite.
    assert!(whole != Ok(Header::Partial) || bytes.len() < V2_MAX_BYTES);
    let Ok(Header::Complete { consumed, source, destination }) = whole else { return };
    assert!(consumed <= bytes.len() && consumed <= V2_MAX_BYTES);
    // What follows the header has no say in it.
    assert_eq!(parse(&bytes[..consumed]), whole);
    assert_eq!(source.is_some(), destination.is_some());
    let (Some(source), Some(destination)) = (source, destination) else { return };
    assert_eq!(source.is_ipv4(), destination.is_ipv4());
    // Written again, in either version, it names the same two ends.
    for again in [v1(source, destination), v2(source, destination)] {
        let (source, destination) = (Some(source), Some(destination));
        assert_eq!(parse(&again), Ok(Header::Complete { consumed: again.len(), source, destination }));
    }
});
