//! Messages of the DNS (RFC 1035), as much of them as challenges need: questions, updates (RFC 2136) and what is
//! answered. Bytes in, values out, no I/O.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Types of records: RFC 1035 section 3.2.2, RFC 3596, RFC 6891, RFC 8945.
pub(super) const A: u16 = 1;
pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const TXT: u16 = 16;
pub(super) const AAAA: u16 = 28;
const OPT: u16 = 41;
pub(super) const TSIG: u16 = 250;

pub(super) const IN: u16 = 1;
const NONE: u16 = 254;
pub(super) const ANY: u16 = 255;

/// What fits into a datagram almost everywhere (RFC 9715).
const DATAGRAM: u16 = 1232;
/// RFC 1035 section 2.3.4.
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: u8 = 63;
pub(super) const HEADER: usize = 12;

/// Codes of answers that are spoken of here: RFC 1035 section 4.1.1.
pub(super) const NO_ERROR: u8 = 0;
pub(super) const NO_NAME: u8 = 3;

/// What a code means.
pub(super) fn code(code: u8) -> String {
    let known = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    let update = ["YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"];
    let name = known.iter().chain(&update).nth(usize::from(code));
    name.map_or_else(|| format!("code {code}"), |name| (*name).to_owned())
}

/// An answer, as far as it is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: u16,
    pub(super) is_truncated: bool,
    pub(super) code: u8,
    /// Name and type that were asked for; `None`: it does not say.
    pub(super) question: Option<(String, u16)>,
    pub(super) records: Vec<Record>,
    pub(super) signature: Option<Signature>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    /// Seconds.
    pub(super) ttl: u32,
    pub(super) data: Data,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(std::net::IpAddr),
    Alias(String),
    NameServer(String),
    Authority,
    Text(Vec<u8>),
    Other,
}

/// The TSIG record that ends a message (RFC 8945 section 4.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// Where the record begins.
    pub(super) at: usize,
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: Vec<u8>,
    pub(super) original_id: u16,
    pub(super) error: u16,
    pub(super) other: Vec<u8>,
}

pub(super) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

/// Asks for the records of a name. `None`: it is no name.
pub(super) fn question(id: u16, name: &str, kind: u16, recursive: bool) -> Option<Vec<u8>> {
    let flags = if recursive { 0x0100 } else { 0 };
    let mut message = header(id, flags, [1, 0, 0, 1]);
    put_name(&mut message, name)?;
    put(&mut message, &[kind, IN]);
    // Answers may be larger than 512 bytes: RFC 6891 section 6.1.2.
    message.push(0);
    put(&mut message, &[OPT, DATAGRAM, 0, 0, 0]);
    Some(message)
}

/// Adds a text to a name of a zone (`ttl` in seconds), or takes away just this text: RFC 2136 sections 2.5.1, 2.5.4.
pub(super) fn update(id: u16, zone: &str, name: &str, text: &str, ttl: Option<u32>) -> Option<Vec<u8>> {
    const UPDATE: u16 = 5 << 11;
    let mut message = header(id, UPDATE, [1, 0, 1, 0]);
    put_name(&mut message, zone)?;
    put(&mut message, &[SOA, IN]);
    put_name(&mut message, name)?;
    put(&mut message, &[TXT, if ttl.is_some() { IN } else { NONE }]);
    message.extend(ttl.unwrap_or(0).to_be_bytes());
    let strings = text.as_bytes().chunks(usize::from(u8::MAX));
    let data: Vec<u8> =
        strings.flat_map(|part| std::iter::once(part.len() as u8).chain(part.iter().copied())).collect();
    put(&mut message, &[u16::try_from(data.len()).ok()?]);
    message.extend(data);
    Some(message)
}

pub(super) fn put(message: &mut Vec<u8>, numbers: &[u16]) {
    message.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
}

/// A name without compression; its final dot may be left out.
pub(super) fn put_name(message: &mut Vec<u8>, name: &str) -> Option<()> {
    let name = name.strip_suffix('.').unwrap_or(name);
    // A backslash stands for bytes that no name of ours has, see `Reader::name`.
    if name.len() + 2 > LONGEST_NAME || name.contains('\\') || !name.is_ascii() {
        return None;
    }
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LONGEST_LABEL).contains(length))?;
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    Some(())
}

/// Reads an answer. `None`: it is none, or one that is broken.
pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
    const RESPONSE: u16 = 0x8000;
    const TRUNCATED: u16 = 0x0200;
    let mut reader = Reader { bytes, at: 0 };
    let (id, flags) = (reader.u16()?, reader.u16()?);
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
    if flags & RESPONSE == 0 {
        return None;
    }
    let is_truncated = flags & TRUNCATED != 0;
    let mut question = None;
    for _ in 0..counts[0] {
        let name = reader.name()?;
        question = Some((name, reader.u16()?));
        reader.u16()?;
    }
    let (mut records, mut signature) = (Vec::new(), None);
    // What is truncated is asked for again, over TCP.
    let counts = if is_truncated { [0; 4] } else { counts };
    for (section, count) in counts.into_iter().enumerate().skip(1) {
        for _ in 0..count {
            let at = reader.at;
            let name = reader.name()?;
            let (kind, _class) = (reader.u16()?, reader.u16()?);
            let ttl = u32::from(reader.u16()?) << 16 | u32::from(reader.u16()?);
            let length = usize::from(reader.u16()?);
            let end = reader.at.checked_add(length).filter(|end| *end <= bytes.len())?;
            if section == 1 {
                records.push(Record { name, ttl, data: reader.data(kind, end)? });
            } else if kind == TSIG {
                signature = Some(reader.signature(at)?);
            }
            reader.at = end;
        }
    }
    Some(Answer { id, is_truncated, code: (flags & 15) as u8, question, records, signature })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// In lower case and with a final dot. Pointers lead back only, so it comes to an end.
    fn name(&mut self) -> Option<String> {
        const POINTER: u8 = 0xc0;
        let mut name = String::new();
        let mut from = Reader { bytes: self.bytes, at: self.at };
        let mut jumped = false;
        loop {
            let start = from.at;
            let length = from.u8()?;
            if length & POINTER == POINTER {
                let target = usize::from(length & !POINTER) << 8 | usize::from(from.u8()?);
                if !jumped {
                    self.at = from.at;
                    jumped = true;
                }
                if target >= start {
                    return None;
                }
                from.at = target;
                continue;
            }
            if length == 0 {
                break;
            }
            if length > LONGEST_LABEL {
                return None;
            }
            for &byte in from.take(usize::from(length))? {
                match byte {
                    b'.' | b'\\' => name.push_str(&format!("\\{byte:03}")),
                    _ if byte.is_ascii_graphic() => name.push(char::from(byte.to_ascii_lowercase())),
                    _ => name.push_str(&format!("\\{byte:03}")),
                }
            }
            name.push('.');
            if name.len() > 4 * LONGEST_NAME {
                return None;
            }
        }
        if !jumped {
            self.at = from.at;
        }
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    fn data(&mut self, kind: u16, end: usize) -> Option<Data> {
        Some(match kind {
            A => {
                Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(self.bytes.get(self.at..end)?).ok()?).into())
            }
            AAAA => Data::Address(
                Ipv6Addr::from(<[u8; 16]>::try_from(self.bytes.get(self.at..end)?).ok()?).into(),
            ),
            CNAME => Data::Alias(self.name()?),
            NS => Data::NameServer(self.name()?),
            SOA => Data::Authority,
            TXT => {
                let mut text = Vec::new();
                while self.at < end {
                    let length = usize::from(self.u8()?);
                    text.extend(self.take(length)?);
                }
                Data::Text(text)
            }
            _ => Data::Other,
        })
    }

    fn signature(&mut self, at: usize) -> Option<Signature> {
        self.name()?;
        let time = self.take(6)?.iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
        let fudge = self.u16()?;
        let length = usize::from(self.u16()?);
        let mac = self.take(length)?.to_vec();
        let (original_id, error) = (self.u16()?, self.u16()?);
        let length = usize::from(self.u16()?);
        let other = self.take(length)?.to_vec();
        Some(Signature { at, time, fudge, mac, original_id, error, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::answered;

    #[test]
    fn what_is_answered_is_read() {
        let pointer = vec![0xc0, 12];
        let mut bytes = answered(
            7,
            "A.Test",
            TXT,
            &[
                (CNAME, pointer.clone()),
                (NS, [vec![2, b'n', b'.'], pointer].concat()),
                (TXT, b"\x02ab\x01c".to_vec()),
                (A, vec![192, 0, 2, 7]),
                (SOA, vec![0; 22]),
                (99, vec![1]),
            ],
        );
        let answer = super::answer(&bytes).unwrap();
        assert_eq!((answer.id, answer.code, answer.is_truncated), (7, NO_ERROR, false));
        assert_eq!(answer.question, Some(("a.test.".to_owned(), TXT)));
        let data: Vec<_> = answer.records.into_iter().map(|record| (record.name, record.data)).collect();
        let expected = [
            Data::Alias("a.test.".to_owned()),
            Data::NameServer("n\\046.a.test.".to_owned()),
            Data::Text(b"abc".to_vec()),
            Data::Address([192, 0, 2, 7].into()),
            Data::Authority,
            Data::Other,
        ];
        assert_eq!(data, expected.map(|data| ("a.test.".to_owned(), data)));
        // However it ends, it is read or refused, and so is what somebody has changed.
        for end in 0..bytes.len() {
            assert_eq!(super::answer(&bytes[..end]), None, "{end}");
        }
        for at in 0..bytes.len() {
            for byte in [0, 1, 0xc0, 0xff] {
                let before = std::mem::replace(&mut bytes[at], byte);
                let _ = super::answer(&bytes);
                bytes[at] = before;
            }
        }
    }

    #[test]
    fn names_that_lead_in_circles_or_have_no_end_are_refused() {
        for name in [&[0xc0, 12][..], &[1, b'a', 0xc0, 12], &[0xc0, 14, 0xc0, 12], &[0x40, 0], &[0xc0]] {
            let mut message = header(1, 0x8000, [1, 0, 0, 0]);
            message.extend(name);
            message.extend([0; 4]);
            assert_eq!(answer(&message), None, "{name:?}");
        }
        let mut message = Vec::new();
        for name in ["a..b", "\\046.test", "ä.test", &"a".repeat(64), &"a.".repeat(130)] {
            assert_eq!(put_name(&mut message, name), None, "{name}");
        }
        assert_eq!(question(1, ".", SOA, true).unwrap()[HEADER..][..5], [0, 0, 6, 0, 1]);
    }

    #[test]
    fn random_bytes_are_no_answer_or_a_short_one() {
        let mut bytes = [0; 64];
        for _ in 0..20_000 {
            aws_lc_rs::rand::fill(&mut bytes).unwrap();
            (bytes[2], bytes[4], bytes[6], bytes[8], bytes[10]) = (0x80, 0, 0, 0, 0);
            let _ = answer(&bytes);
        }
    }

    #[test]
    fn an_update_adds_one_text_and_takes_just_this_away() {
        let long = "x".repeat(300);
        let add = update(9, "test.", "a.test.", &long, Some(60)).unwrap();
        assert_eq!(add[2..4], [0x28, 0], "opcode 5");
        assert_eq!(add[4..12], [0, 1, 0, 0, 0, 1, 0, 0]);
        let data = [[1, 46, 255].as_slice(), &[b'x'; 255], &[45], &[b'x'; 45]].concat();
        assert!(add.ends_with(&[[0, 0, 0, 60].as_slice(), &data].concat()));
        let remove = update(9, "test.", "a.test.", "v", None).unwrap();
        assert!(remove.ends_with(&[0, 16, 0, 254, 0, 0, 0, 0, 0, 2, 1, b'v']));
    }

    #[test]
    fn codes_have_their_names() {
        assert_eq!([0, 3, 5, 9, 15].map(code), ["NOERROR", "NXDOMAIN", "REFUSED", "NOTAUTH", "code 15"]);
    }
}
