//! Percent-decoding of paths and queries.

/// Decoded parameters of a query, in order.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value; an empty one counts as absent, as in Traefik.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }
}

/// A segment of a path: `%2F` is a slash, `+` is a plus.
pub(crate) fn decode_segment(raw: &str) -> String {
    decode(raw, false)
}

fn decode(raw: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = (byte == b'%').then(|| {
            let mut ahead = bytes.clone();
            let digits = [ahead.next(), ahead.next()].map(|b| b.and_then(|b| char::from(b).to_digit(16)));
            match digits {
                [Some(high), Some(low)] => Some(((high << 4 | low) as u8, ahead)),
                _ => None,
            }
        });
        match escaped.flatten() {
            Some((decoded, ahead)) => {
                out.push(decoded);
                bytes = ahead;
            }
            None if byte == b'+' && plus_is_space => out.push(b' '),
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_junk_is_kept() {
        for (raw, decoded) in [
            ("app@file", "app@file"),
            ("a%2Fb%40docker", "a/b@docker"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%2540", "%40"),
            ("%ff", "\u{fffd}"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(decode_segment(raw), decoded);
        }
        let query = Query::parse("search=a+b%26c&page=&page=2&flag");
        assert_eq!(["search", "page", "flag"].map(|name| query.get(name)), [Some("a b&c"), None, None]);
    }
}
