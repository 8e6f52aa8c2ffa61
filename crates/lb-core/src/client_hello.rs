//! What a TLS client says first, read without answering: the name it wants and the protocols it offers.
//!
//! Only what routing needs is looked at; whoever answers the handshake reads all of it, and more strictly.
//! Any version is read, since the server behind may speak what we do not. RFC 8446 sections 4.1.2 and 5.1.

/// A handshake message is not longer than this, as Go and rustls have it, and nothing that clients send comes near.
pub const MOST_BYTES: usize = 64 * 1024;

/// First byte of a record that carries a handshake.
pub const HANDSHAKE: u8 = 0x16;
/// First byte of a hello of SSL 2, which no one answers any more.
pub const SSL2: u8 = 0x80;

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_2: u16 = 0x0303;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case; empty when it names none.
    pub server_name: String,
    pub alpn: Vec<Vec<u8>>,
    /// It speaks nothing above TLS 1.1.
    pub is_old: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// More bytes are needed.
    Partial,
    Hello(ClientHello),
    /// No client hello, whatever follows.
    Other,
}

/// Reads the hello at the start of `bytes`, which may be spread over records.
pub fn read(bytes: &[u8]) -> Read {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(whole) = message_length(&message) {
            match whole {
                None => return Read::Other,
                Some(length) if message.len() >= length => {
                    return hello(&message[4..length]).map_or(Read::Other, Read::Hello);
                }
                Some(_) => {}
            }
        }
        match rest.first() {
            None => break,
            Some(&HANDSHAKE) => {}
            Some(_) => return Read::Other,
        }
        if rest.get(1).is_some_and(|major| *major != 3) {
            return Read::Other;
        }
        let Some((header, body)) = rest.split_at_checked(5) else { break };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // An empty one carries nothing, and a row of them would go on for ever.
        if length == 0 {
            return Read::Other;
        }
        let part = &body[..length.min(body.len())];
        message.extend_from_slice(part);
        if part.len() < length {
            // What there is may tell already that it is something else.
            if message_length(&message) == Some(None) {
                return Read::Other;
            }
            break;
        }
        rest = &body[length..];
    }
    if bytes.len() >= MOST_BYTES { Read::Other } else { Read::Partial }
}

/// Length of the message with its header; `Some(None)`: it is no client hello.
fn message_length(message: &[u8]) -> Option<Option<usize>> {
    if *message.first()? != CLIENT_HELLO {
        return Some(None);
    }
    let [_, a, b, c] = *message.first_chunk()?;
    let length = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
    Some((length <= MOST_BYTES).then_some(length))
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    /// What follows its length of one byte.
    fn vector8(&mut self) -> Option<Rest<'a>> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length).map(Rest)
    }

    /// What follows its length of two bytes.
    fn vector16(&mut self) -> Option<Rest<'a>> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Rest)
    }
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut rest = Rest(body);
    let version = rest.u16()?;
    rest.take(32)?; // random
    rest.vector8()?; // session
    rest.vector16()?; // cipher suites
    rest.vector8()?; // compression
    let mut hello = ClientHello { is_old: version < TLS_1_2, ..ClientHello::default() };
    if rest.0.is_empty() {
        return Some(hello); // extensions are younger than TLS
    }
    let mut extensions = rest.vector16()?;
    let (mut named, mut offered) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = extensions.vector16()?;
        match kind {
            // Twice is forbidden (section 4.2): a server behind might take the other one.
            SERVER_NAME if std::mem::replace(&mut named, true) => return None,
            ALPN if std::mem::replace(&mut offered, true) => return None,
            SERVER_NAME => hello.server_name = server_name(&mut data)?,
            ALPN => {
                let mut protocols = data.vector16()?;
                while !protocols.0.is_empty() {
                    hello.alpn.push(protocols.vector8()?.0.to_vec());
                }
            }
            // It alone counts where it stands (section 4.2.1).
            SUPPORTED_VERSIONS => hello.is_old = false,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 section 3.
fn server_name(data: &mut Rest<'_>) -> Option<String> {
    let mut names = data.vector16()?;
    let mut found = None;
    while !names.0.is_empty() {
        let kind = *names.take(1)?.first()?;
        let name = names.vector16()?.0;
        if kind == HOST_NAME {
            let name = str::from_utf8(name).ok().filter(|name| name.is_ascii() && found.is_none())?;
            found = Some(name.to_ascii_lowercase());
        }
    }
    Some(found.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u16(length: usize) -> [u8; 2] {
        (length as u16).to_be_bytes()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &u16(data.len()), data].concat()
    }

    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16(extensions.len()));
        body.extend(extensions);
        [&[CLIENT_HELLO, 0][..], &u16(body.len()), &body].concat()
    }

    fn records(message: &[u8], most: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1][..], &u16(part.len()), part].concat();
        message.chunks(most).flat_map(record).collect()
    }

    fn sample() -> Vec<u8> {
        let name = b"Db.Example.com";
        let name = [&[HOST_NAME][..], &u16(name.len()), name].concat();
        let names = extension(SERVER_NAME, &[&u16(name.len())[..], &name].concat());
        let protocols = extension(ALPN, b"\0\x0a\x04mqtt\x02h2\x01a");
        message(&[extension(43, &[2, 3, 4]), names, protocols].concat())
    }

    fn expected() -> ClientHello {
        let alpn = vec![b"mqtt".to_vec(), b"h2".to_vec(), b"a".to_vec()];
        ClientHello { server_name: "db.example.com".to_owned(), alpn, is_old: false }
    }

    #[test]
    fn a_hello_may_come_in_pieces_and_in_many_records() {
        for most in [1, 5, 60, 4096] {
            let bytes = records(&sample(), most);
            for end in 0..bytes.len() {
                assert_eq!(
                    read(&bytes[..end]),
                    Read::Partial,
                    "{end} of {} in records of {most}",
                    bytes.len()
                );
            }
            assert_eq!(read(&bytes), Read::Hello(expected()));
            assert_eq!(read(&[&bytes[..], b"more"].concat()), Read::Hello(expected()));
        }
    }

    #[test]
    fn hellos_without_extensions_name_nobody() {
        assert_eq!(read(&records(&message(&[]), 99)), Read::Hello(ClientHello::default()));
        let mut old = message(&[]);
        old.truncate(old.len() - 2);
        old[3] -= 2;
        assert_eq!(read(&records(&old, 99)), Read::Hello(ClientHello::default()));
    }

    #[test]
    fn clients_that_speak_nothing_above_1_1_are_known() {
        let versions = extension(SUPPORTED_VERSIONS, &[2, 3, 4]);
        for (version, extensions, expected) in [
            (1, &[][..], true),
            (2, &[], true),
            (3, &[], false),
            (1, &versions, false),
            (3, &versions, false),
        ] {
            let mut message = message(extensions);
            message[5] = version;
            let Read::Hello(hello) = read(&records(&message, 99)) else { panic!("no hello") };
            assert_eq!(hello.is_old, expected, "3.{version} {extensions:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_told_at_once() {
        let cut = |mut message: Vec<u8>| {
            *message.last_mut().unwrap() = 200; // a protocol longer than the list
            message.remove(message.len() - 2);
            message[3] -= 1;
            message
        };
        let name = extension(SERVER_NAME, b"\0\x04\0\0\x01a");
        let names = extension(SERVER_NAME, b"\0\x08\0\0\x01a\0\0\x01b");
        for bytes in [
            records(&message(&[name.clone(), name].concat()), 99),
            records(&message(&names), 99),
            b"GET / HTTP/1.1".to_vec(),
            vec![HANDSHAKE, 2],
            vec![HANDSHAKE, 3, 1, 0, 0],
            vec![HANDSHAKE, 3, 1, 0, 9, 2],
            vec![HANDSHAKE, 3, 1, 0, 9, CLIENT_HELLO, 9, 0, 0],
            records(&cut(sample()), 4096),
        ] {
            assert_eq!(read(&bytes), Read::Other, "{bytes:?}");
        }
        let endless = vec![0; 3 * MOST_BYTES];
        let endless = records(&[&[CLIENT_HELLO, 0, 0xff, 0xf0][..], &endless].concat(), 1);
        assert_eq!(read(&endless[..MOST_BYTES]), Read::Other);
    }

    /// Whatever the bytes: no panic, and more of them never turn an answer round.
    #[test]
    fn single_bytes_may_be_anything() {
        let bytes = records(&sample(), 50);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let whole = read(&changed);
                for end in 0..changed.len() {
                    let part = read(&changed[..end]);
                    assert!(part == Read::Partial || part == whole, "{at} {value} {end}");
                }
            }
        }
    }
}
