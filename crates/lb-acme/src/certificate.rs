//! What a certificate says: for which names it is, and from when to when.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The first certificate of a chain, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// In lower case; wildcards among them.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    /// Of the first one in PEM; `None`: no certificate that can be read.
    pub fn of(pem: &[u8]) -> Option<Self> {
        Self::of_der(&CertificateDer::from_pem_slice(pem).ok()?)
    }

    /// `None`: no certificate that can be read.
    pub fn of_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = Vec::new();
        let alternatives = certificate.subject_alternative_name().ok()?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
        let validity = certificate.validity();
        let (not_before, not_after) =
            (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
        Some(Self { names, not_before, not_after })
    }

    /// Why a certificate that has just been issued for `names` and `key` (DER of the public one) is not the one that was
    /// asked for, or would have to be ordered again at once.
    pub(crate) fn unfit(pem: &[u8], names: &[String], key: &[u8], now: SystemTime) -> Option<String> {
        let validity = Self::of(pem);
        let (Some(validity), Ok(der)) = (validity, CertificateDer::from_pem_slice(pem)) else {
            return Some("the authority's certificate cannot be read".to_owned());
        };
        if let Some(name) = names.iter().find(|name| !validity.covers(name)) {
            return Some(format!("the authority's certificate is not for {name}"));
        }
        if validity.not_after <= now {
            let end = lb_observe::rfc3339(validity.not_after);
            return Some(format!(
                "the authority's certificate has ended at {end}: is the clock of this machine right?"
            ));
        }
        let is_ours = X509Certificate::from_der(&der).is_ok_and(|(_, leaf)| leaf.public_key().raw == key);
        (!is_ours).then(|| "the authority's certificate is for another key".to_owned())
    }

    pub fn covers(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names
            .iter()
            .any(|known| known == name || known.strip_prefix("*.").is_some_and(|k| Some(k) == parent))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// Common name of the issuer of the last certificate of a chain.
pub(crate) fn last_issuer(chain: &str) -> Option<String> {
    let der = CertificateDer::pem_slice_iter(chain.as_bytes()).filter_map(Result::ok).last()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let name = certificate.issuer().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_what_was_asked_for_is_told() {
        let [ours, theirs] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
        let names = ["a.test", "*.b.test"].map(str::to_owned);
        let certificate = |names: &[String], key: &rcgen::KeyPair| {
            rcgen::CertificateParams::new(names).unwrap().self_signed(key).unwrap().pem()
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let far = UNIX_EPOCH + Duration::from_secs(200_000_000_000);
        let key = rcgen::PublicKeyData::subject_public_key_info(&ours);
        for (pem, now, expected) in [
            (certificate(&names, &ours), now, None),
            (certificate(&names[1..], &ours), now, Some("the authority's certificate is not for a.test")),
            (certificate(&names, &theirs), now, Some("the authority's certificate is for another key")),
            (certificate(&names, &ours), far, Some("is the clock of this machine right?")),
            ("garbage".to_owned(), now, Some("the authority's certificate cannot be read")),
        ] {
            let unfit = Validity::unfit(pem.as_bytes(), &names, &key, now);
            match expected {
                Some(expected) => {
                    assert!(unfit.as_ref().is_some_and(|told| told.contains(expected)), "{unfit:?}")
                }
                None => assert_eq!(unfit, None),
            }
        }
    }
}
