//! Query parameters, read as Go's `url.ParseQuery` reads them, without building a map.
//!
//! Pairs are separated by `&`; a pair with a `;` or a broken escape does not exist.

use smallvec::SmallVec;

/// Whether the parameter `key` occurs with exactly this value.
pub(super) fn any_value_is(query: &str, key: &str, value: &str) -> bool {
    pairs(query).any(|(raw_key, raw_value)| decodes_to(raw_key, key) && decodes_to(raw_value, value))
}

/// Whether `test` holds for any decoded value of the parameter `key`.
pub(super) fn any_value(query: &str, key: &str, test: impl Fn(&[u8]) -> bool) -> bool {
    pairs(query).any(|(raw_key, raw_value)| {
        // Long values leave the stack; everyday ones do not.
        let decoded = || decode(raw_value).collect::<Option<SmallVec<[u8; 256]>>>();
        decodes_to(raw_key, key) && decoded().is_some_and(|value| test(&value))
    })
}

/// Whether `test` holds for the first value of the parameter `key` that can be decoded.
pub(super) fn first_value(query: &str, key: &str, test: impl Fn(&[u8]) -> bool) -> bool {
    let mut values = pairs(query)
        .filter(|(raw_key, _)| decodes_to(raw_key, key))
        .filter_map(|(_, raw_value)| decode(raw_value).collect::<Option<SmallVec<[u8; 256]>>>());
    values.next().is_some_and(|value| test(&value))
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decodes_to(raw: &str, plain: &str) -> bool {
    decode(raw).eq(plain.bytes().map(Some))
}

/// The bytes behind a raw key or value; `None` stands for a broken escape.
fn decode(raw: &str) -> impl Iterator<Item = Option<u8>> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = raw.bytes();
    std::iter::from_fn(move || {
        Some(match bytes.next()? {
            b'+' => Some(b' '),
            b'%' => bytes
                .next()
                .and_then(hex)
                .zip(bytes.next().and_then(hex))
                .map(|(high, low)| (high * 16 + low) as u8),
            byte => Some(byte),
        })
    })
}
