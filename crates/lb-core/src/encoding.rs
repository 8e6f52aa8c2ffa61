//! Content codings: which one an answer is compressed with (RFC 9110 section 12.5.3).

/// A content coding that answers can be compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    Brotli,
    Zstd,
}

impl Encoding {
    /// In the order in which Traefik prefers them.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// As `Accept-Encoding` and `Content-Encoding` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Which codings are offered, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub encodings: Vec<Encoding>,
    /// For clients that do not say what they take, and for `*`.
    pub default: Option<Encoding>,
}

impl Offer {
    /// The coding for a client that sent these `Accept-Encoding` lines; `None`: as it is.
    ///
    /// The highest weight wins; among equals `*`, then the order of the offer, then `identity`.
    pub fn choose<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) -> Option<Encoding> {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return self.default;
        }
        let mut weights = Weights::default();
        lines.flat_map(|line| line.split(|byte| *byte == b',')).for_each(|item| weights.read(item));
        let listed = self
            .encodings
            .iter()
            .filter_map(|encoding| Some((weights.of[*encoding as usize]?, Some(*encoding))))
            .filter(|(weight, _)| *weight > 0);
        // What was refused by name is not meant by `*`.
        let any = weights.any.filter(|weight| *weight > 0).and_then(|weight| {
            let mut offered = self.default.iter().chain(&self.encodings);
            let chosen = offered.find(|encoding| weights.of[**encoding as usize] != Some(0))?;
            Some((weight, Some(*chosen)))
        });
        let identity = weights.identity.map(|weight| (weight, None));
        // `max_by_key` takes the last of equals.
        let best = identity.into_iter().chain(listed.rev()).chain(any).max_by_key(|(weight, _)| *weight);
        best.and_then(|(_, encoding)| encoding)
    }
}

/// What a client says of each coding, in thousandths.
#[derive(Default)]
struct Weights {
    of: [Option<u16>; Encoding::ALL.len()],
    any: Option<u16>,
    identity: Option<u16>,
}

impl Weights {
    fn read(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let slot = match name {
            b"*" => &mut self.any,
            _ if name.eq_ignore_ascii_case(b"identity") => &mut self.identity,
            _ => {
                let mut known = Encoding::ALL.into_iter();
                match known.find(|encoding| name.eq_ignore_ascii_case(encoding.name().as_bytes())) {
                    Some(encoding) => &mut self.of[encoding as usize],
                    None => return,
                }
            }
        };
        let quality = parts.find_map(|part| match part {
            [b'q' | b'Q', rest @ ..] => rest.trim_ascii_start().strip_prefix(b"="),
            _ => None,
        });
        // Who says it in a way that nobody understands has not asked for it.
        let weight = quality.map_or(1000, |text| thousandths(text.trim_ascii()).unwrap_or(0));
        // Said twice, the first counts.
        slot.get_or_insert(weight);
    }
}

/// RFC 9110 section 12.4.2, any number of digits; more than 1 is 1.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    if whole.iter().any(|digit| *digit != b'0') {
        return Some(1000);
    }
    let digit = |at: usize| u16::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    let value = digit(0) * 100 + digit(1) * 10 + digit(2);
    // However little, it is not nothing.
    let more = fraction.iter().any(|digit| *digit != b'0');
    Some(value.max(u16::from(more)))
}

#[cfg(test)]
mod tests {
    use super::Encoding::{Brotli, Gzip, Zstd};
    use super::*;

    fn choose(encodings: &[Encoding], default: Option<Encoding>, lines: &[&str]) -> Option<Encoding> {
        let offer = Offer { encodings: encodings.to_vec(), default };
        offer.choose(lines.iter().map(|line| line.as_bytes()))
    }

    /// Every row was compared with Traefik 3.7, but for the two that are marked.
    #[test]
    fn the_highest_weight_wins_then_the_order_of_the_offer() {
        for (accepted, ours, with_default) in [
            ("gzip, deflate, br, zstd", Some(Gzip), Some(Zstd)),
            ("br, gzip", Some(Gzip), Some(Brotli)),
            ("br;q=1, gzip;q=0.5", Some(Brotli), Some(Brotli)),
            ("gzip;q=0, br", Some(Brotli), Some(Brotli)),
            ("gzip; q=0.2 , br ;q=0.9", Some(Brotli), Some(Brotli)),
            ("br;q=0.5", Some(Brotli), Some(Brotli)),
            ("*", Some(Gzip), Some(Brotli)),
            ("gzip;q=0.5, *;q=1", Some(Gzip), Some(Brotli)),
            ("*;q=0.5, gzip;q=0.2", Some(Gzip), Some(Brotli)),
            ("*, br;q=0", Some(Gzip), Some(Zstd)), // Traefik sends what was refused
            ("GZIP", Some(Gzip), Some(Gzip)),      // Traefik does not know it
            ("identity, gzip", Some(Gzip), Some(Gzip)),
            ("identity, gzip;q=0.5", None, None),
            ("identity;q=0.5, zstd;q=0.4", None, None),
            ("*;q=0", None, None),
            ("identity;q=0", None, None),
            ("identity", None, None),
            ("deflate", None, None),
            ("x-gzip", None, None),
            ("gzip;q=0", None, None),
            ("gzip;q=abc", None, None),
            ("", None, None),
        ] {
            assert_eq!(choose(&Encoding::ALL, None, &[accepted]), ours, "{accepted}");
            let other = choose(&[Zstd, Brotli, Gzip], Some(Brotli), &[accepted]);
            assert_eq!(other, with_default, "{accepted}");
        }
    }

    #[test]
    fn a_client_that_says_nothing_gets_the_default() {
        assert_eq!(choose(&Encoding::ALL, None, &[]), None);
        assert_eq!(choose(&Encoding::ALL, Some(Zstd), &[]), Some(Zstd));
        assert_eq!(choose(&[Gzip], None, &["br", "gzip;q=0.1"]), Some(Gzip));
        assert_eq!(choose(&[Gzip], None, &["br, zstd"]), None);
    }

    #[test]
    fn weights_are_thousandths() {
        let of = |text: &str| thousandths(text.as_bytes());
        assert_eq!(["1", "1.000", "0.5", "0.123", "0", "0.", ".5"].map(of), {
            [Some(1000), Some(1000), Some(500), Some(123), Some(0), Some(0), Some(500)]
        });
        assert_eq!(["7", "0.0001", "", ".", "-1", "1e3"].map(of), {
            [Some(1000), Some(1), None, None, None, None]
        });
    }
}
