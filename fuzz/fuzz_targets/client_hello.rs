//! The first flight of a TLS client, as the entry point reads it to choose options and certificate.
#![no_main]

use lb_core::client_hello::{self, Read};
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

#[derive(Debug, PartialEq)]
enum Outcome {
    /// Server name and offered protocols.
    Hello(Option<String>, Vec<Vec<u8>>),
    Incomplete,
    Refused,
}

fn accept(bytes: &[u8], piece: usize) -> Outcome {
    let mut acceptor = Acceptor::default();
    for piece in bytes.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            match acceptor.read_tls(&mut rest as &mut dyn std::io::Read) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Outcome::Refused,
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let name = hello.server_name().map(str::to_ascii_lowercase);
                    let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                    return Outcome::Hello(name, protocols);
                }
                Err((_, mut alert)) => {
                    let mut sent = Vec::new();
                    alert.write_all(&mut sent).expect("a Vec takes every byte");
                    // A fatal alert or nothing, and little of it.
                    assert!(sent.is_empty() || (sent[0] == 21 && sent.len() <= 14), "{sent:?}");
                    return Outcome::Refused;
                }
            }
        }
    }
    Outcome::Incomplete
}

fuzz_target!(|bytes: &[u8]| {
    let whole = accept(bytes, usize::MAX);
    for piece in [1, 100] {
        let pieces = accept(bytes, piece);
        // A refusal may come before the bytes that would complete the hello, or the other way about.
        assert_eq!(pieces, whole, "in pieces of {piece}");
    }
    // TCP routers are asked by what this says, before anybody answers; it reads what rustls would not answer as well.
    let own = client_hello::read(bytes);
    for end in [bytes.len() / 3, bytes.len() / 2] {
        let part = client_hello::read(&bytes[..end]);
        assert!(part == Read::Partial || part == own, "{end} of {}", bytes.len());
    }
    // It is the stricter one: what is malformed names nobody.
    if let (Outcome::Hello(name, protocols), Read::Hello(own)) = (&whole, own) {
        assert_eq!(&own.alpn, protocols);
        assert!(name.as_ref().is_none_or(|name| *name == own.server_name), "{name:?} {own:?}");
    }
    if let Outcome::Hello(Some(name), _) = whole {
        // What profiles and certificates are looked up with is a DNS name: nothing that a rule, a log line
        // or a path could take for something else.
        assert!(!name.is_empty() && name.len() <= 253, "{name:?}");
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._*".contains(&byte);
        assert!(name.bytes().all(plain), "{name:?}");
        assert!(!name.contains("..") && !name.starts_with('.'), "{name:?}");
    }
});
