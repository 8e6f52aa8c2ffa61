//! Traefik's names for versions, cipher suites and groups, mapped to what rustls speaks.
//!
//! Traefik inherits from Go what rustls has left out on purpose: CBC, RC4, 3DES, RSA key exchange, P-521. Asking for
//! those is not an error, they are dropped and reported. A name that Go does not know either is one.

use std::fmt;
use std::sync::{Arc, LazyLock};

use lb_config::dynamic::TlsVersion;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

/// The library's choice of algorithms, for everything that configures none, with the cipher suites in our order.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        order(&mut provider.cipher_suites);
        Arc::new(provider)
    });
    &PROVIDER
}

/// Whether the processor does AES itself. Where it does not, ChaCha20 may be cheaper, and clients decide.
pub(super) fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// AES-128 first, as Go and so Traefik have it. AES-256 comes with SHA-384, for which few processors have instructions:
/// without, it took 13 % of a handshake (`perf record -e cpu-clock`).
fn order(suites: &mut [SupportedCipherSuite]) {
    suites.sort_by_key(|suite| {
        let cipher = match suite.suite().as_str().unwrap_or_default() {
            name if name.contains("AES_128") => 0,
            name if name.contains("AES_256") => 1,
            _ => 2,
        };
        (suite.tls13().is_none(), cipher)
    });
}

/// Whether a client that offers these would rather have ChaCha20 than AES: it has no AES in its processor. Go asks the
/// same.
pub(super) fn prefers_chacha(offered: &[CipherSuite]) -> bool {
    let first = offered.iter().filter_map(CipherSuite::as_str).find_map(|name| {
        let chacha = name.contains("CHACHA20");
        (chacha || name.contains("_GCM_")).then_some(chacha)
    });
    first == Some(true)
}

/// Algorithms and versions that a configuration asks for.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Known names that rustls does not speak.
    pub(super) dropped: Vec<Dropped>,
}

/// A name that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    CipherSuite(String),
    Curve(String),
    /// None of the cipher suites is left for TLS 1.2, so only TLS 1.3 is spoken.
    Tls12,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CipherSuite(name) => write!(f, "the cipher suite {name} is not supported and left out"),
            Self::Curve(name) => write!(f, "the curve {name} is not supported and left out"),
            Self::Tls12 => {
                f.write_str("no configured cipher suite works with TLS 1.2: only TLS 1.3 is spoken")
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectionError {
    #[error("there is no cipher suite called `{0}`")]
    UnknownCipherSuite(String),
    #[error("there is no curve called `{0}`")]
    UnknownCurve(String),
    #[error("minVersion is above maxVersion")]
    NoVersion,
    #[error("none of the configured cipher suites is supported, and maxVersion excludes TLS 1.3")]
    NoCipherSuite,
    #[error("none of the configured curves is supported")]
    NoCurve,
}

/// What to use for these names; empty lists and `None` stand for the library's choice.
pub(super) fn select(
    cipher_suites: &[String],
    curves: &[String],
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
) -> Result<Selection, SelectionError> {
    let mut dropped = Vec::new();
    let (min, max) = (min.unwrap_or(TlsVersion::Tls12), max.unwrap_or(TlsVersion::Tls13));
    let mut versions = Vec::new();
    if max >= TlsVersion::Tls13 {
        versions.push(&version::TLS13);
    }
    if min <= TlsVersion::Tls12 {
        versions.push(&version::TLS12);
    }
    if min > max {
        return Err(SelectionError::NoVersion);
    }
    if cipher_suites.is_empty() && curves.is_empty() {
        return Ok(Selection { provider: Arc::clone(provider()), versions, dropped });
    }

    let mut provider = CryptoProvider::clone(provider());
    if !cipher_suites.is_empty() {
        // The suites of TLS 1.3 cannot be configured, in Go as here: they stay.
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        for name in cipher_suites {
            match cipher_suite_called(name) {
                Named::Supported(suite) if provider.cipher_suites.contains(&suite) => {}
                Named::Supported(suite) => provider.cipher_suites.push(suite),
                Named::Unsupported => dropped.push(Dropped::CipherSuite(name.clone())),
                Named::Unknown => return Err(SelectionError::UnknownCipherSuite(name.clone())),
            }
        }
        // In Go, too, the order in which they are named says nothing.
        order(&mut provider.cipher_suites);
        if provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()) && min <= TlsVersion::Tls12 {
            if max < TlsVersion::Tls13 {
                return Err(SelectionError::NoCipherSuite);
            }
            versions.retain(|version| version.version == rustls::ProtocolVersion::TLSv1_3);
            dropped.push(Dropped::Tls12);
        }
    }
    if !curves.is_empty() {
        provider.kx_groups.clear();
        for name in curves {
            match curve_called(name) {
                Named::Supported(group) if provider.kx_groups.iter().any(|g| g.name() == group.name()) => {}
                Named::Supported(group) => provider.kx_groups.push(group),
                Named::Unsupported => dropped.push(Dropped::Curve(name.clone())),
                Named::Unknown => return Err(SelectionError::UnknownCurve(name.clone())),
            }
        }
        if provider.kx_groups.is_empty() {
            return Err(SelectionError::NoCurve);
        }
    }
    Ok(Selection { provider: Arc::new(provider), versions, dropped })
}

enum Named<T> {
    Supported(T),
    Unsupported,
    Unknown,
}

/// Go's names (reference 2.14).
fn cipher_suite_called(name: &str) -> Named<SupportedCipherSuite> {
    use cipher_suite::*;
    Named::Supported(match name {
        "TLS_AES_128_GCM_SHA256" => TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_RSA_WITH_RC4_128_SHA"
        | "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
        | "TLS_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_RSA_WITH_AES_256_CBC_SHA"
        | "TLS_RSA_WITH_AES_128_CBC_SHA256"
        | "TLS_RSA_WITH_AES_128_GCM_SHA256"
        | "TLS_RSA_WITH_AES_256_GCM_SHA384"
        | "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
        | "TLS_ECDHE_RSA_WITH_RC4_128_SHA"
        | "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"
        | "TLS_FALLBACK_SCSV" => return Named::Unsupported,
        _ => return Named::Unknown,
    })
}

/// Go's names and those of the standards, each also in lower case (reference 2.14).
fn curve_called(name: &str) -> Named<&'static dyn SupportedKxGroup> {
    Named::Supported(match name.to_ascii_lowercase().as_str() {
        "x25519" => kx_group::X25519,
        "curvep256" | "secp256r1" => kx_group::SECP256R1,
        "curvep384" | "secp384r1" => kx_group::SECP384R1,
        "x25519mlkem768" => kx_group::X25519MLKEM768,
        "secp256r1mlkem768" => kx_group::SECP256R1MLKEM768,
        "curvep521" | "secp521r1" | "secp384r1mlkem1024" => return Named::Unsupported,
        _ => return Named::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Number of TLS 1.2 suites, groups, versions, then what was dropped.
    fn selected(
        ciphers: &str,
        curves: &str,
        min: Option<TlsVersion>,
        max: Option<TlsVersion>,
    ) -> Result<(usize, usize, usize, Vec<String>), SelectionError> {
        let selection = select(&names(ciphers), &names(curves), min, max)?;
        let suites = selection.provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
        let dropped = selection.dropped.iter().map(ToString::to_string).collect();
        Ok((suites, selection.provider.kx_groups.len(), selection.versions.len(), dropped))
    }

    #[test]
    fn names_select_or_drop_or_fail() {
        use TlsVersion::{Tls12, Tls13};
        const GCM: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        const CBC: &str = "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA";
        let dropped = |what: &[&str]| what.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let no_cbc = format!("the cipher suite {CBC} is not supported and left out");
        let no_tls12 = "no configured cipher suite works with TLS 1.2: only TLS 1.3 is spoken";
        let no_p521 = "the curve CurveP521 is not supported and left out";
        let both = format!("{GCM} {CBC} {GCM}");
        let rows = [
            ("", "", None, None, Ok((6, 4, 2, dropped(&[])))),
            ("", "", Some(Tls13), None, Ok((6, 4, 1, dropped(&[])))),
            ("", "", None, Some(Tls12), Ok((6, 4, 1, dropped(&[])))),
            ("", "", Some(Tls13), Some(Tls12), Err(SelectionError::NoVersion)),
            (both.as_str(), "", None, None, Ok((1, 4, 2, dropped(&[&no_cbc])))),
            (CBC, "", None, None, Ok((0, 4, 1, dropped(&[&no_cbc, no_tls12])))),
            (CBC, "", Some(Tls13), None, Ok((0, 4, 1, dropped(&[&no_cbc])))),
            (CBC, "", None, Some(Tls12), Err(SelectionError::NoCipherSuite)),
            ("TLS_AES_128_GCM_SHA256", "", None, None, Ok((0, 4, 1, dropped(&[no_tls12])))),
            ("TLS_NOPE", "", None, None, Err(SelectionError::UnknownCipherSuite("TLS_NOPE".into()))),
            ("", "CurveP521 secp256r1 CurveP256 x25519", None, None, Ok((6, 2, 2, dropped(&[no_p521])))),
            ("", "X25519MLKEM768 SecP256r1MLKEM768", None, None, Ok((6, 2, 2, dropped(&[])))),
            ("", "CurveP521", None, None, Err(SelectionError::NoCurve)),
            ("", "P256", None, None, Err(SelectionError::UnknownCurve("P256".into()))),
        ];
        for (ciphers, curves, min, max, expected) in rows {
            assert_eq!(
                selected(ciphers, curves, min, max),
                expected,
                "{ciphers} / {curves} / {min:?} to {max:?}"
            );
        }
    }

    #[test]
    fn suites_come_in_our_order() {
        for ciphers in ["", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] {
            let suites = select(&names(ciphers), &[], None, None).unwrap().provider.cipher_suites.clone();
            let names: Vec<_> = suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
            assert_eq!(
                names[..4],
                [
                    "TLS13_AES_128_GCM_SHA256",
                    "TLS13_AES_256_GCM_SHA384",
                    "TLS13_CHACHA20_POLY1305_SHA256",
                    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
                ]
            );
        }
    }

    #[test]
    fn curves_keep_their_order() {
        let selection = select(&[], &names("secp384r1 X25519"), None, None).unwrap();
        let order: Vec<_> = selection.provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(order, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
    }
}
