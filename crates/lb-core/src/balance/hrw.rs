//! Highest random weight, or rendezvous hashing (Thaler and Ravishankar, 1998), with Traefik's formula:
//! clients keep their server across reloads, across instances, and when Traefik is replaced.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::schedule::{Candidate, Candidates};

/// FNV-1a of 64 bits, over what is written to it.
#[derive(Clone, Copy)]
struct Fnv1a(u64);

impl Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        *self = self.with(text.as_bytes());
        Ok(())
    }
}

impl Fnv1a {
    /// As Go writes an address: an IPv4 client of a dual-stack socket as IPv4.
    fn with_client(mut self, client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                self.with_decimal(a)
                    .with(b".")
                    .with_decimal(b)
                    .with(b".")
                    .with_decimal(c)
                    .with(b".")
                    .with_decimal(d)
            }
            IpAddr::V6(v6) => {
                let _ = write!(self, "{v6}"); // a hash takes anything
                self
            }
        }
    }

    /// What `Display` would write, in a fraction of its time.
    fn with_decimal(self, number: u8) -> Self {
        let digits = [number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit);
        let leading = usize::from(number < 100) + usize::from(number < 10);
        self.with(&digits[leading..])
    }

    fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
    }
}

pub(super) fn choose<'a>(candidates: &Candidates<'a>, client: IpAddr) -> &'a Candidate {
    // The hash covers client and URL; what the URLs have in common is hashed once.
    let common = candidates.common_prefix();
    let seed = Fnv1a(0xcbf2_9ce4_8422_2325).with_client(client).with(common);
    let hashed = candidates.iter().map(|candidate| {
        let hash = seed.with(&candidate.server.url().as_bytes()[common.len()..]);
        (hash.0, candidate)
    });
    let best = if candidates.has_equal_weights() {
        // The score grows with the hash, so the logarithms can be spared.
        highest(hashed)
    } else {
        highest(hashed.map(|(hash, candidate)| (score(hash, candidate.weight), candidate)))
    };
    best.unwrap_or_else(|| candidates.at(0))
}

/// The same among anything that has a name and a weight above 0.
pub(super) fn highest_named<'a, T: Copy>(
    mut named: impl Iterator<Item = (&'a str, u64, T)>,
    client: IpAddr,
) -> Option<T> {
    let seed = Fnv1a(0xcbf2_9ce4_8422_2325).with_client(client);
    let scored = |(name, weight, item): (&str, u64, T)| (score(seed.with(name.as_bytes()).0, weight), item);
    let first = scored(named.next()?);
    Some(named.map(scored).fold(first, |best, next| if next.0 > best.0 { next } else { best }).1)
}

fn score(hash: u64, weight: u64) -> f64 {
    let unit = hash as f64 / 2_f64.powi(64);
    weight as f64 * (1.0 / -unit.ln())
}

/// The first of those with the highest score.
fn highest<'a, S: PartialOrd>(mut scored: impl Iterator<Item = (S, &'a Candidate)>) -> Option<&'a Candidate> {
    let first = scored.next()?;
    Some(scored.fold(first, |best, next| if next.0 > best.0 { next } else { best }).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_hashed_as_it_is_printed() {
        let seed = Fnv1a(1);
        for text in ["0.9.10.99", "100.200.255.1", "2001:db8::1", "::", "::1.2.3.4"] {
            let client: IpAddr = text.parse().unwrap();
            assert_eq!(seed.with_client(client).0, seed.with(client.to_string().as_bytes()).0, "{text}");
        }
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(seed.with_client(mapped).0, seed.with(b"10.0.0.7").0);
    }
}
