//! Which bytes may stand where: the character classes of RFC 9110 and RFC 3986.

const fn class(members: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < members.len() {
        table[members[i] as usize] = true;
        i += 1;
    }
    table
}

/// `tchar`, RFC 9110 section 5.6.2.
static TOKEN: [bool; 256] = class(b"!#$%&'*+-.^_`|~");

/// `unreserved`, `sub-delims` and `%`: what a `reg-name` is made of, RFC 3986 section 3.2.2.
static REG_NAME: [bool; 256] = class(b"-._~!$&'()*+,;=%");

/// Visible ASCII without `#`. RFC 3986 is narrower, but browsers send `|`, `{`, `"` and their like raw,
/// and no two parsers disagree about where a target with them ends.
static TARGET: [bool; 256] = class(b"!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~");

pub(crate) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

pub(crate) fn is_reg_name_byte(byte: u8) -> bool {
    REG_NAME[usize::from(byte)]
}

pub(crate) fn is_target_byte(byte: u8) -> bool {
    TARGET[usize::from(byte)]
}

/// Whether `text` is a `token` (RFC 9110 section 5.6.2): what methods and field names are made of.
pub fn is_token(text: &str) -> bool {
    is_token_bytes(text.as_bytes())
}

pub(crate) fn is_token_bytes(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `value` may stand in a field: no control byte but tab. Bytes from 0x80 on are `obs-text`, hence allowed.
pub fn is_field_value(value: &[u8]) -> bool {
    find_control(value).is_none()
}

pub(crate) fn is_ows(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Without the optional white space around it, RFC 9110 section 5.6.3.
pub(crate) fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_ows(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_ows(*last)
    {
        value = rest;
    }
    value
}

const ONES: u64 = u64::from_le_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);

/// Where the first byte stands that ends or spoils a field value: 0x00 to 0x1f without tab, or 0x7f.
///
/// Eight bytes at a time.
pub(crate) fn find_control(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if let Some(at) = control_in(*word) {
            return Some(index * 8 + at);
        }
    }
    match bytes.last_chunk::<8>() {
        _ if tail.is_empty() => None,
        // It begins with bytes of the word before, where there is none.
        Some(last) => control_in(*last).map(|at| bytes.len() - 8 + at),
        None => tail.iter().position(|&byte| is_control(byte)),
    }
}

/// The zero-byte test of "Hacker's Delight" section 6-1: a borrow can flag a byte wrongly only above one that is
/// flagged rightly, so the lowest flag is always true.
#[inline]
fn control_in(word: [u8; 8]) -> Option<usize> {
    let x = u64::from_le_bytes(word);
    let below_space = x.wrapping_sub(ONES * 0x20) & !x;
    let delete = x ^ (ONES * 0x7f);
    let delete = delete.wrapping_sub(ONES) & !delete;
    let flags = (below_space | delete) & HIGHS;
    if flags == 0 {
        return None;
    }
    let first = (flags.trailing_zeros() / 8) as usize;
    if word[first] != b'\t' {
        return Some(first);
    }
    // A tab, or a byte flagged above it: the few bytes left are looked at one by one.
    word[first..].iter().position(|&byte| is_control(byte)).map(|offset| first + offset)
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_byte_is_found_wherever_it_stands() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=255_u8 {
                    let mut bytes = vec![b'\t'; length];
                    bytes[at] = byte;
                    let expected = is_control(byte).then_some(at);
                    assert_eq!(find_control(&bytes), expected, "{byte:#x} at {at} of {length}");
                    bytes.fill(0xff);
                    bytes[at] = byte;
                    assert_eq!(find_control(&bytes), expected, "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert_eq!(find_control(b"\x1f\x7f\x00"), Some(0));
        assert_eq!(find_control(b"abc\tdef\x7f\x00"), Some(7));
    }

    #[test]
    fn classes_have_the_members_of_their_rfc() {
        let members = |test: fn(u8) -> bool| -> String {
            let bytes = (0..=255_u8).filter(|&byte| !byte.is_ascii_alphanumeric() && test(byte));
            bytes.map(char::from).collect()
        };
        assert_eq!(members(is_token_byte), "!#$%&'*+-.^_`|~");
        assert_eq!(members(is_reg_name_byte), "!$%&'()*+,-.;=_~");
        assert_eq!(members(is_target_byte), "!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
    }

    #[test]
    fn only_surrounding_white_space_is_trimmed() {
        assert_eq!(trim_ows(b" \t a \t b\t "), b"a \t b");
        assert_eq!(trim_ows(b" \t "), b"");
    }
}
