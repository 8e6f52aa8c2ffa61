//! Protocol Buffers, as far as OTLP needs them, written straight into a buffer: a span costs no tree of objects.

/// A value of up to 7 bits a byte, the lowest first.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

pub(crate) fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

pub(crate) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    fixed64(out, field, value.to_bits());
}

pub(crate) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// The head of a field whose `length` bytes follow.
pub(crate) fn begin(out: &mut Vec<u8>, field: u32, length: usize) {
    tag(out, field, 2);
    varint(out, length as u64);
}

pub(crate) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    begin(out, field, value.len());
    out.extend_from_slice(value);
}

/// A message within a message; its length is known when it is there.
pub(crate) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, 2);
    let start = out.len();
    // One byte is enough for most.
    out.push(0);
    write(out);
    let length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, length as u64);
    out.splice(start..=start, prefix);
}

/// Text in OTLP has to be UTF-8; other bytes become the replacement character.
pub(crate) fn text(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    bytes(out, field, String::from_utf8_lossy(value).as_bytes());
}

pub(crate) fn text_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &[u8]) {
    attribute(out, field, key, |out| text(out, 1, value));
}

pub(crate) fn int_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: i64) {
    attribute(out, field, key, |out| uint(out, 3, value.cast_unsigned()));
}

pub(crate) fn double_attribute(out: &mut Vec<u8>, field: u32, key: &str, value: f64) {
    attribute(out, field, key, |out| double(out, 4, value));
}

pub(crate) fn list_attribute<'a>(
    out: &mut Vec<u8>,
    field: u32,
    key: &str,
    values: impl Iterator<Item = &'a [u8]>,
) {
    attribute(out, field, key, |out| {
        message(out, 5, |out| values.for_each(|value| message(out, 1, |out| text(out, 1, value))));
    });
}

fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    message(out, field, |out| {
        bytes(out, 1, key.as_bytes());
        message(out, 2, value);
    });
}

/// The value of a field that was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// 32 or 64 bits.
    Fixed,
}

/// The fields of a message up to its end, or to where it is none.
pub(super) fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let tag = read_varint(&mut message)?;
        let value = match tag & 7 {
            0 => Field::Number(read_varint(&mut message)?),
            1 => message.split_off(..8).map(|_| Field::Fixed)?,
            2 => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                Field::Bytes(message.split_off(..length)?)
            }
            5 => message.split_off(..4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What is in a field that has a length.
pub(super) fn content(field: &[u8]) -> &[u8] {
    let length = field.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    field.get(1 + length..).unwrap_or_default()
}

/// Where the first field of `bytes` ends, which are fields of a length each; 0 where there is none.
pub(super) fn first_end(bytes: &[u8]) -> usize {
    let (mut length, mut shift) = (0_usize, 0);
    // The tags of items are one byte.
    for (at, byte) in bytes.iter().enumerate().skip(1).take(5) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (at + 1 + length).min(bytes.len());
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_far_as_they_are_some() {
        let mut out = Vec::new();
        uint(&mut out, 1, 150);
        bytes(&mut out, 2, b"ab");
        fixed64(&mut out, 3, 1);
        fixed32(&mut out, 4, 1);
        let read: Vec<_> = fields(&out).collect();
        assert_eq!(read[..2], [(1, Field::Number(150)), (2, Field::Bytes(b"ab"))]);
        assert_eq!(read[2..], [(3, Field::Fixed), (4, Field::Fixed)]);
        for broken in
            [&[0x08][..], &[0x12, 5, b'a'], &[0x0b], &[0x80; 12], &[0x12, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            assert_eq!(fields(broken).count(), 0, "{broken:?}");
        }
    }

    /// The example of the specification of Protocol Buffers, and lengths of one byte and of two.
    #[test]
    fn fields_are_written_as_specified() {
        let mut out = Vec::new();
        uint(&mut out, 1, 150);
        assert_eq!(out, [0x08, 0x96, 0x01]);
        for (length, head) in [(5, &[0x12, 5][..]), (127, &[0x12, 127]), (300, &[0x12, 0xac, 0x02])] {
            let mut out = Vec::new();
            message(&mut out, 2, |out| out.resize(out.len() + length, b'x'));
            assert_eq!((&out[..head.len()], out.len()), (head, head.len() + length));
            assert_eq!(first_end(&out), out.len());
        }
        assert_eq!(first_end(&[]), 0);
    }
}
