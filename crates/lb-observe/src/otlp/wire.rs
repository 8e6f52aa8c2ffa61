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
