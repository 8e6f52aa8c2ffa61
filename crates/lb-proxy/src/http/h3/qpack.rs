//! Field sections as QPACK writes them (RFC 9204), without the dynamic table.
//!
//! Vigie allows its clients none (`SETTINGS_QPACK_MAX_TABLE_CAPACITY` is 0 where it is not sent) and uses none itself:
//! no section waits for another stream, and a client has nothing to make grow. Strings are read in either form and
//! written plain.

use lb_http1::Head;

use super::huffman;
use super::static_table::TABLE;

/// What a field counts for beside its name and value: RFC 9114 section 4.2.2.
const FIELD_OVERHEAD: usize = 32;

/// Why a section is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionError {
    /// It is no QPACK, or refers to a table that there is not.
    Broken,
    /// Its fields take more than is allowed.
    TooLarge,
}

/// Shows each field of a section to `field`, in order; `most` bounds what they may take (RFC 9114 section 4.2.2).
pub(super) fn decode(
    section: &[u8],
    most: usize,
    mut field: impl FnMut(&[u8], &[u8]),
) -> Result<(), SectionError> {
    let mut input = Input(section);
    // RFC 9204 section 4.5.1: where no insertion is required the base says nothing, but must not be negative.
    let (_, required) = input.integer(8)?;
    let (negative, _) = input.integer(7)?;
    if required != 0 || negative != 0 {
        return Err(SectionError::Broken);
    }
    let (mut name, mut value) = (Vec::new(), Vec::new());
    let mut size = 0;
    while let Some(&first) = input.0.first() {
        let left = most.saturating_sub(size);
        // RFC 9204 sections 4.5.2, 4.5.4 and 4.5.6; the others refer to the dynamic table.
        let (name, value): (&[u8], &[u8]) = if first & 0xc0 == 0xc0 {
            let (name, value) = entry(input.integer(6)?.1)?;
            (name.as_bytes(), value.as_bytes())
        } else if first & 0xd0 == 0x50 {
            let (name, _) = entry(input.integer(4)?.1)?;
            input.string(7, &mut value, left)?;
            (name.as_bytes(), &value)
        } else if first & 0xe0 == 0x20 {
            input.string(3, &mut name, left)?;
            input.string(7, &mut value, left)?;
            (&name, &value)
        } else {
            return Err(SectionError::Broken);
        };
        size += name.len() + value.len() + FIELD_OVERHEAD;
        if size > most {
            return Err(SectionError::TooLarge);
        }
        field(name, value);
    }
    Ok(())
}

fn entry(index: u64) -> Result<(&'static str, &'static str), SectionError> {
    usize::try_from(index).ok().and_then(|index| TABLE.get(index)).copied().ok_or(SectionError::Broken)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The bits before a prefix of so many, and the integer that begins in it: RFC 7541 section 5.1.
    fn integer(&mut self, prefix: u32) -> Result<(u8, u64), SectionError> {
        let (&first, mut rest) = self.0.split_first().ok_or(SectionError::Broken)?;
        let mask = (1_u16 << prefix) - 1;
        let mut number = u64::from(u16::from(first) & mask);
        if number == u64::from(mask) {
            let mut shift = 0;
            loop {
                let (&byte, behind) = rest.split_first().ok_or(SectionError::Broken)?;
                rest = behind;
                // RFC 9204 section 4.1.1: 62 bits are enough for everybody.
                if shift > 56 {
                    return Err(SectionError::Broken);
                }
                number += u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        self.0 = rest;
        Ok(((u16::from(first) >> prefix) as u8, number))
    }

    /// A string whose length begins in a prefix of so many bits, behind the bit that says whether it is coded.
    fn string(&mut self, prefix: u32, text: &mut Vec<u8>, most: usize) -> Result<(), SectionError> {
        let (before, length) = self.integer(prefix)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
        let (raw, rest) = self.0.split_at(length.ok_or(SectionError::Broken)?);
        self.0 = rest;
        text.clear();
        if before & 1 == 0 {
            if raw.len() > most {
                return Err(SectionError::TooLarge);
            }
            text.extend_from_slice(raw);
            return Ok(());
        }
        // No code is shorter than five bits.
        text.reserve((raw.len() * 8 / 5).min(most));
        if huffman::decode(raw, text) { Ok(()) } else { Err(SectionError::Broken) }
    }
}

/// Begins a section.
pub(super) fn begin(section: &mut Vec<u8>) {
    section.extend_from_slice(&[0, 0]);
}

/// `:status`. As the next two it says what was written counts: RFC 9114 section 4.2.2.
pub(super) fn status(section: &mut Vec<u8>, status: u16) -> usize {
    let mut digits = [0; 20];
    let text = crate::http::local::decimal(status.into(), &mut digits);
    field(section, b":status", text)
}

/// One field, its name in lower case.
pub(super) fn field(section: &mut Vec<u8>, name: &[u8], value: &[u8]) -> usize {
    let size = name.len() + value.len() + FIELD_OVERHEAD;
    let mut known = None;
    for (index, (entry_name, entry_value)) in rows(name) {
        if entry_value.as_bytes() == value {
            integer(section, 0xc0, 6, index);
            return size;
        }
        if entry_name.as_bytes() == name && known.is_none() {
            known = Some(index);
        }
    }
    match known {
        Some(index) => integer(section, 0x50, 4, index),
        None => {
            integer(section, 0x20, 3, name.len());
            section.extend_from_slice(name);
        }
    }
    integer(section, 0, 7, value.len());
    section.extend_from_slice(value);
    size
}

/// The rows of the static table with this name, with their index.
fn rows(name: &[u8]) -> impl Iterator<Item = (usize, &'static (&'static str, &'static str))> {
    let first = BY_NAME.partition_point(|&index| TABLE[usize::from(index)].0.as_bytes() < name);
    let rows = BY_NAME[first..].iter().map(|&index| (usize::from(index), &TABLE[usize::from(index)]));
    rows.take_while(move |(_, row)| row.0.as_bytes() == name)
}

/// Indices of the static table in the order of names.
static BY_NAME: [u8; TABLE.len()] = {
    let mut order = [0_u8; TABLE.len()];
    let mut count = 0;
    while count < TABLE.len() {
        let mut at = count;
        while at > 0 && is_less(TABLE[count].0.as_bytes(), TABLE[order[at - 1] as usize].0.as_bytes()) {
            order[at] = order[at - 1];
            at -= 1;
        }
        order[at] = count as u8;
        count += 1;
    }
    order
};

const fn is_less(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return one[at] < other[at];
        }
        at += 1;
    }
    one.len() < other.len()
}

fn integer(section: &mut Vec<u8>, before: u8, prefix: u32, number: usize) {
    let mask = (1 << prefix) - 1;
    if number < mask {
        section.push(before | number as u8);
        return;
    }
    section.push(before | mask as u8);
    let mut rest = number - mask;
    while rest >= 0x80 {
        section.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    section.push(rest as u8);
}

/// All fields of a head that HTTP/3 has a place for (RFC 9114 section 4.2).
pub(super) fn fields(section: &mut Vec<u8>, head: &Head) -> usize {
    let (mut lower, mut size) = (Vec::new(), 0);
    for (name, value) in head.iter_bytes() {
        lower.clear();
        lower.extend_from_slice(name);
        lower.make_ascii_lowercase();
        if !crate::http::h2_convert::is_connection_specific(&lower, value) {
            size += field(section, &lower, value);
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(section: &[u8], most: usize) -> Result<Vec<(String, String)>, SectionError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decode(section, most, |name, value| fields.push((text(name), text(value))))?;
        Ok(fields)
    }

    /// RFC 9204 appendix B.1.
    #[test]
    fn the_example_of_the_specification() {
        let section = b"\x00\x00\x51\x0b/index.html";
        assert_eq!(decoded(section, 1000), Ok(vec![(":path".into(), "/index.html".into())]));
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "x".repeat(3000);
        let rows = [
            (":status", "200"),
            (":status", "418"),
            ("content-type", "text/html; charset=utf-8"),
            ("content-type", "text/none"),
            ("x-frame-options", "deny"),
            ("x-own", ""),
            ("x-a-name-that-is-longer-than-its-prefix", &long),
        ];
        let mut section = Vec::new();
        begin(&mut section);
        for (name, value) in rows {
            field(&mut section, name.as_bytes(), value.as_bytes());
        }
        let expected: Vec<_> =
            rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(decoded(&section, 10_000), Ok(expected));
        let size: usize = rows.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        assert!(decoded(&section, size).is_ok());
        assert_eq!(decoded(&section, size - 1), Err(SectionError::TooLarge));
    }

    #[test]
    fn every_row_of_the_table_is_found() {
        for (index, (name, value)) in TABLE.iter().enumerate() {
            let mut section = Vec::new();
            field(&mut section, name.as_bytes(), value.as_bytes());
            let mut expected = Vec::new();
            integer(&mut expected, 0xc0, 6, index);
            assert_eq!(section, expected, "{name}: {value}");
        }
    }

    #[test]
    fn coded_strings_are_read() {
        let (name, value) = (huffman::encode(b"x-coded"), huffman::encode(b"a value"));
        let mut section = vec![0, 0, 0x28 | name.len() as u8];
        section.extend_from_slice(&name);
        section.push(0x80 | value.len() as u8);
        section.extend_from_slice(&value);
        assert_eq!(decoded(&section, 1000), Ok(vec![("x-coded".into(), "a value".into())]));
    }

    #[test]
    fn what_needs_a_dynamic_table_or_is_cut_short_is_broken() {
        for (section, what) in [
            (&b""[..], "nothing"),
            (b"\x00", "no base"),
            (b"\x01\x00", "an insertion is required"),
            (b"\x00\x80", "a base below nothing"),
            (b"\x00\x00\x80", "dynamic, indexed"),
            (b"\x00\x00\x40\x00", "dynamic, name"),
            (b"\x00\x00\x10", "behind the base"),
            (b"\x00\x00\x00\x00", "name behind the base"),
            (b"\x00\x00\xff\x24", "static 99"),
            (b"\x00\x00\x51", "no value"),
            (b"\x00\x00\x51\x02a", "a short value"),
            (b"\x00\x00\x51\x81\x00", "badly coded"),
            (b"\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "an endless number"),
        ] {
            assert_eq!(decoded(section, 1000), Err(SectionError::Broken), "{what}");
        }
    }

    /// Some bytes of code must not fill the memory.
    #[test]
    fn a_string_is_no_longer_than_allowed() {
        let section = [&[0, 0, 0x51, 0x7f, 0x81, 0x07][..], &[b'a'; 1024]].concat();
        assert_eq!(decoded(&section, 1000), Err(SectionError::TooLarge));
    }
}
