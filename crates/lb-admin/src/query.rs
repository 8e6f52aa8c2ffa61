//! Percent-decoding of paths and queries.

/// Decoded parameters of a query, in order.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        // What Go cannot read is left out by it.
        let readable = |pair: &&str| !pair.is_empty() && !pair.contains(';') && has_whole_escapes(pair);
        let pairs = raw.split('&').filter(readable).map(|pair| {
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

fn has_whole_escapes(text: &str) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    text.split('%').skip(1).all(|rest| {
        let rest = rest.as_bytes();
        is_digit(rest.first()) && is_digit(rest.get(1))
    })
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
        let query = Query::parse("search=%zz&page=1;per_page=2&search=x&status=%4");
        assert_eq!(["search", "page", "status"].map(|name| query.get(name)), [Some("x"), None, None]);
    }
}
