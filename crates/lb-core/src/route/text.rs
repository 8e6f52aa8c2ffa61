//! Texts as the table hashes and compares them: without loops and calls where they are short.

/// A text with its end in two words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t> {
    pub(super) bytes: &'t [u8],
    pub(super) end: [u64; 2],
}

/// Length up to which [`Text::end`] and the length tell the whole text.
pub(super) const SHORT: usize = 16;

impl<'t> Text<'t> {
    #[inline]
    pub(super) fn new(bytes: &'t [u8]) -> Self {
        let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        let end = if let Some(last) = bytes.last_chunk() {
            words(last)
        } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            [u64::from_le_bytes(*first), u64::from_le_bytes(*last)] // they may overlap
        } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            [half(first), half(last)]
        } else {
            [bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)), 0]
        };
        Self { bytes, end }
    }

    /// Keys come from the configuration, only look-ups come from strangers, so the hash needs no secret.
    /// As in wyhash, wide multiplications fold 16 bytes each; the last 16 may overlap those before.
    #[inline]
    pub(super) fn hash(self, salt: u64) -> u64 {
        let mut state = ODD[1] ^ ((self.bytes.len() as u64) << 32) ^ salt;
        if self.bytes.len() > SHORT {
            let (blocks, _) = self.bytes[..self.bytes.len() - 1].as_chunks::<16>();
            for block in blocks {
                state = fold(words(block), state);
            }
        }
        fold(self.end, state)
    }
}

/// Odd numbers with as many ones as zeros.
pub(super) const ODD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

#[inline]
fn fold([low, high]: [u64; 2], state: u64) -> u64 {
    let product = u128::from(low ^ ODD[0]) * u128::from(high ^ state);
    (product >> 64) as u64 ^ product as u64
}

#[inline]
pub(super) fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let bits = u128::from_le_bytes(*bytes);
    [bits as u64, (bits >> 64) as u64]
}

/// Where the first slash at or after `from` is. Eight bytes are looked at together: the number of rounds
/// of a loop over a few bytes cannot be predicted.
#[inline]
pub(super) fn slash_from(path: &[u8], from: usize) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let rest = path.get(from..)?;
    let first = rest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let zero_at_slash = first ^ (ONES * u64::from(b'/'));
    // The lowest bit set here is in the first byte that is zero.
    let found = zero_at_slash.wrapping_sub(ONES) & !zero_at_slash & (ONES << 7);
    let at = match found {
        0 => rest.iter().position(|byte| *byte == b'/')?,
        found => found.trailing_zeros() as usize / 8,
    };
    Some(from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_of_one_length_differ_in_their_ends() {
        for length in 1..=SHORT {
            let text = vec![b'x'; length];
            for at in 0..length {
                let mut other = text.clone();
                other[at] = b'y';
                assert_ne!(Text::new(&text).end, Text::new(&other).end, "{at} of {length}");
            }
        }
    }

    #[test]
    fn the_hash_depends_on_every_byte_and_on_the_owner() {
        for length in 1..70 {
            let text = vec![b'x'; length];
            let hash = Text::new(&text).hash(1);
            assert_ne!(hash, Text::new(&text).hash(2));
            assert_ne!(hash, Text::new(&text[1..]).hash(1));
            for at in 0..length {
                let mut other = text.clone();
                other[at] = b'y';
                assert_ne!(hash, Text::new(&other).hash(1), "{at} of {length}");
            }
        }
    }

    #[test]
    fn slashes_are_found_near_and_far() {
        for length in 0..30 {
            for from in 0..=length + 1 {
                for slash in (0..length).map(Some).chain([None]) {
                    let mut path = vec![b'.'; length]; // next to a slash in ASCII
                    if let Some(slash) = slash {
                        path[slash..].fill(b'/');
                    }
                    let expected = (from..length).find(|at| path[*at] == b'/');
                    assert_eq!(slash_from(&path, from), expected, "{path:?} from {from}");
                }
            }
        }
    }
}
