//! Sticky cookies, name and value exactly as Traefik makes them, so that clients keep their server
//! when Traefik is replaced.
//!
//! A value is a hash of the server's URL: it names a server without showing it, and holds no secret.
//! Whether the server it names may be used is decided by [`balance`](crate::balance).

use sha1::Digest;
use sha1::Sha1;
use sha2::Sha256;

/// Name of the cookie when the user chose none: `_` and 5 hex digits of the SHA-1 of the qualified
/// service name (`app@file`).
pub fn cookie_name(service: &str) -> String {
    let hash = Sha1::new().chain_update("_TRAEFIK_BACKEND_").chain_update(service).finalize();
    let mut name = String::from("_");
    push_hex(&hash[..3], &mut name);
    name.truncate(6);
    name
}

/// A name chosen by the user, with `_` for each character that RFC 9110 section 5.6.2 keeps out of tokens.
pub fn sanitize_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii() && is_token(c as u8) { c } else { '_' }).collect()
}

/// Value that names a server: 16 hex digits of the SHA-256 of its URL as configured (or of the name of a
/// child service as written).
pub fn cookie_value(url: &str) -> String {
    let mut value = String::with_capacity(16);
    push_hex(&Sha256::digest(url)[..8], &mut value);
    value
}

/// Values that older versions of Traefik gave out: the URL itself, its FNV-1 hash, and the hash of that hash.
pub fn legacy_values(url: &str) -> [String; 3] {
    let once = fnv1_hex(url);
    let twice = fnv1_hex(&once);
    [url.to_owned(), once, twice]
}

/// Finds a cookie in the value of one `Cookie` field.
///
/// As Go does: pairs with a malformed name or value are passed over, quotes around a value are dropped,
/// the first match wins.
pub fn find_cookie<'a>(header: &'a [u8], name: &str) -> Option<&'a str> {
    header.split(|&b| b == b';').find_map(|pair| {
        let pair = trim(pair);
        let equals = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        if trim(&pair[..equals]) != name.as_bytes() {
            return None;
        }
        let value = pair.get(equals + 1..).unwrap_or_default();
        let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
        let valid = |b: &u8| matches!(b, 0x20..0x7f) && !matches!(b, b'"' | b';' | b'\\');
        // All bytes are ASCII here, so this cannot fail.
        value.iter().all(valid).then(|| str::from_utf8(value).ok())?
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    None,
    Lax,
    Strict,
}

/// Everything of a `Set-Cookie` field but the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    /// A token: from [`cookie_name`] or [`sanitize_name`].
    pub name: String,
    /// Empty omits the attribute. Bytes that RFC 6265 section 4.1.1 keeps out of a path are dropped.
    pub path: String,
    /// Omitted when it is no domain name and no IPv4 address; a leading dot is dropped.
    pub domain: Option<String>,
    /// Seconds; `None` omits the attribute: the cookie lives until the browser closes.
    pub max_age: Option<u64>,
    pub http_only: bool,
    pub secure: bool,
    pub same_site: Option<SameSite>,
}

impl SetCookie {
    /// Value of the `Set-Cookie` field that gives out `value`, attributes in the order of Go's net/http.
    pub fn header_value(&self, value: &str) -> String {
        let mut out = format!("{}={value}", self.name);
        let path: String = self.path.chars().filter(|c| matches!(c, ' '..='~') && *c != ';').collect();
        if !path.is_empty() {
            out.push_str("; Path=");
            out.push_str(&path);
        }
        if let Some(domain) = self.domain.as_deref().and_then(cookie_domain) {
            out.push_str("; Domain=");
            out.push_str(domain);
        }
        if let Some(seconds) = self.max_age {
            out.push_str(&format!("; Max-Age={seconds}"));
        }
        if self.http_only {
            out.push_str("; HttpOnly");
        }
        if self.secure {
            out.push_str("; Secure");
        }
        out.push_str(match self.same_site {
            None => "",
            Some(SameSite::None) => "; SameSite=None",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
        });
        out
    }
}

/// The domain as it may stand in a cookie, by the rules of Go's net/http.
fn cookie_domain(domain: &str) -> Option<&str> {
    if domain.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(domain);
    }
    let bare = domain.strip_prefix('.').unwrap_or(domain);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // One dot at the end is the root.
    let is_name = bare.len() <= 255 && bare.strip_suffix('.').unwrap_or(bare).split('.').all(label);
    (is_name && bare.bytes().any(|b| b.is_ascii_alphabetic())).then_some(bare)
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&b)
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

fn push_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// FNV-1 (multiply, then xor; not 1a) of 64 bits, without leading zeros, as Traefik prints it.
fn fnv1_hex(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_traefiks() {
        // Computed with Python's hashlib and a plain FNV-1, after Traefik's sticky.go and cookie.go.
        assert_eq!(cookie_name("app@file"), "_fb0b0");
        assert_eq!(cookie_name("api@docker"), "_d70db");
        assert_eq!(cookie_name("default-whoami-80@kubernetes"), "_1682a");
        for (url, value, once, twice) in [
            ("http://10.0.0.1:8080", "cc3dd0c247d6ff41", "b0139f9bf96a2faf", "4e414402b31ab6ea"),
            ("http://127.0.0.1:9001", "b52e7b55edbbb02e", "6332e82f448a3f0e", "ad31e66993bac777"),
            ("https://api.example.com", "137b9e5e4e13211c", "58a4beb39d5cacb5", "952e2d80448a8397"),
            ("http://[::1]:80/base", "54b1286a495debdf", "43cef128793592ba", "c82a68771b1e08a5"),
            ("wrr-child@file", "eee4082f9680fc99", "daf0291544f0e1e5", "48f8f13065fc8ca1"),
        ] {
            assert_eq!(cookie_value(url), value);
            assert_eq!(legacy_values(url), [url, once, twice]);
        }
    }

    #[test]
    fn a_chosen_name_becomes_a_token() {
        assert_eq!(sanitize_name("lb"), "lb");
        assert_eq!(sanitize_name("my cookie=é;"), "my_cookie___");
        assert_eq!(sanitize_name("!#$%&'*+-.^`|~_Z9"), "!#$%&'*+-.^`|~_Z9");
    }

    #[test]
    fn a_cookie_is_found_as_go_finds_it() {
        let rows: &[(&[u8], Option<&str>)] = &[
            (b"lb=abc", Some("abc")),
            (b"a=1; lb=abc; b=2", Some("abc")),
            (b"a=1;lb=abc", Some("abc")),
            (b"  lb=abc\t", Some("abc")),
            (b"lb =abc", Some("abc")),
            (b"lb=\"abc\"", Some("abc")),
            (b"lb=\"", None),
            (b"lb=first; lb=second", Some("first")),
            (b"lb=b\xe9d; lb=second", Some("second")), // malformed: passed over
            (b"lb=a\\b; lb=second", Some("second")),
            (b"lb=", Some("")),
            (b"lb", Some("")),
            (b"lb=a=b", Some("a=b")),
            (b"LB=abc", None), // names are case-sensitive
            (b"xlb=abc; lbx=abc", None),
            (b"", None),
            (b";;=;", None),
        ];
        for (header, expected) in rows {
            assert_eq!(find_cookie(header, "lb"), *expected, "{}", header.escape_ascii());
        }
    }

    #[test]
    fn attributes_come_in_traefiks_order() {
        let plain = SetCookie {
            name: "lb".into(),
            path: "/".into(),
            domain: None,
            max_age: None,
            http_only: false,
            secure: false,
            same_site: None,
        };
        assert_eq!(plain.header_value("v"), "lb=v; Path=/");
        assert_eq!(SetCookie { path: String::new(), ..plain.clone() }.header_value("v"), "lb=v");
        let full = SetCookie {
            domain: Some(".example.com".into()),
            max_age: Some(42),
            http_only: true,
            secure: true,
            same_site: Some(SameSite::Lax),
            ..plain.clone()
        };
        let expected = "lb=v; Path=/; Domain=example.com; Max-Age=42; HttpOnly; Secure; SameSite=Lax";
        assert_eq!(full.header_value("v"), expected);
        let odd = SetCookie {
            path: "/a;b\r\n".into(),
            domain: Some("a b".into()),
            max_age: Some(0),
            same_site: Some(SameSite::None),
            ..plain.clone()
        };
        assert_eq!(odd.header_value("v"), "lb=v; Path=/ab; Max-Age=0; SameSite=None");
    }

    #[test]
    fn only_a_domain_goes_into_domain() {
        for ok in ["example.com", "example.com.", "a-b.example", "10.0.0.1", "localhost"] {
            assert_eq!(cookie_domain(ok), Some(ok));
        }
        for bad in ["", ".", "a..b", "a..", "-a.b", "a-.b", "under_score.com", "1.2", "::1", "a;b", "a\r\nb"]
        {
            assert_eq!(cookie_domain(bad), None, "{bad}");
        }
    }
}
