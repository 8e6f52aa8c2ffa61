//! Questions to OCSP responders, and what may be believed of their answers: RFC 6960. Bytes in, decisions out.

use rustls::sign::CertifiedKey;
use sha1::{Digest, Sha1};
use x509_parser::asn1_rs::{Any, Class, FromDer as _};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{ASN1Time, X509Certificate};

use super::algorithms::provider;

/// `id-pkix-ocsp-basic`, RFC 6960 section 4.2.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
/// `AlgorithmIdentifier` of SHA-1, which every responder knows (RFC 5019 section 2.1.1). It only names the issuer.
const SHA1: &[u8] = &[0x30, 9, 6, 5, 0x2b, 14, 3, 2, 26, 5, 0];

/// Seconds that a responder's clock may be ahead. Chosen.
const SKEW: i64 = 300;
/// Seconds that an answer counts which does not say until when (RFC 6960 section 4.2.2.1). Chosen: a refresh may fail once.
const UNSAID: i64 = 2 * 3600;

/// Why an answer is not shown to clients.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    #[error("the certificate is revoked")]
    Revoked,
    #[error("the responder does not know the certificate")]
    Unknown,
    /// RFC 6960 section 4.2.1: 1 malformed request, 2 internal error, 3 try later, 5 signature required, 6 unauthorized.
    #[error("the responder refuses to answer, with status {0}")]
    Refused(u8),
    #[error("the answer is not about this certificate")]
    Other,
    #[error("the answer is out of date, or from the future")]
    Stale,
    #[error("the answer is not signed by the certificate's issuer, or by whom that has asked to")]
    Signature,
    #[error("the answer is no OCSP response")]
    Malformed,
}

/// What to ask of one certificate.
#[derive(Debug)]
pub(super) struct Question {
    /// As in the certificate.
    pub(super) responder: String,
    /// DER of the `OCSPRequest`.
    pub(super) request: Vec<u8>,
    /// Content of the `CertID` behind its hash algorithm.
    identity: Vec<u8>,
    issuer: Vec<u8>,
}

impl Question {
    /// `None`: the certificate names no responder. An error where its issuer is not in the chain.
    pub(super) fn of(key: &CertifiedKey) -> Option<Result<Self, &'static str>> {
        let (_, leaf) = X509Certificate::from_der(key.cert.first()?).ok()?;
        let responder = responder(&leaf)?;
        let Some(issuer_der) = key.cert.get(1) else {
            return Some(Err("the chain lacks the certificate of the issuer"));
        };
        let Ok((_, issuer)) = X509Certificate::from_der(issuer_der) else {
            return Some(Err("the certificate of the issuer cannot be read"));
        };
        if issuer.subject().as_raw() != leaf.issuer().as_raw() {
            return Some(Err("the second certificate of the chain is not that of the issuer"));
        }
        let name = tlv(4, &Sha1::digest(leaf.issuer().as_raw()));
        let public_key = tlv(4, &Sha1::digest(&issuer.public_key().subject_public_key.data));
        let identity = [name, public_key, tlv(2, leaf.raw_serial())].concat();
        let certificate = tlv(0x30, &[SHA1, &identity].concat());
        // OCSPRequest, TBSRequest, requestList, Request.
        let request = (0..4).fold(certificate, |inner, _| tlv(0x30, &inner));
        Some(Ok(Self { responder, request, identity, issuer: issuer_der.to_vec() }))
    }

    /// Unix time until which `answer` may be shown to clients.
    pub(super) fn check(&self, answer: &[u8], now: i64) -> Result<i64, OcspError> {
        use OcspError::Malformed;
        let (_, issuer) = X509Certificate::from_der(&self.issuer).map_err(|_| Malformed)?;
        let mut response = Reader(Reader(answer).take(0x30)?);
        match response.take(10)? {
            [0] => {}
            [status] => return Err(OcspError::Refused(*status)),
            _ => return Err(Malformed),
        }
        let mut bytes = Reader(Reader(response.take(0xa0)?).take(0x30)?);
        if bytes.take(6)? != BASIC {
            return Err(Malformed);
        }
        let signed = Signed::read(Reader(bytes.take(4)?).take(0x30)?)?;
        self.check_signature(&signed, &issuer, now)?;
        let mut data = Reader(Reader(signed.data).take(0x30)?);
        data.take_if(0xa0)?; // version
        data.any()?; // responderID
        data.take(0x18)?; // producedAt
        let mut singles = Reader(data.take(0x30)?);
        while !singles.0.is_empty() {
            let mut single = Reader(singles.take(0x30)?);
            let mut id = Reader(single.take(0x30)?);
            id.take(0x30)?; // SHA-1, as asked: with another hash the rest would differ
            if id.0 != self.identity {
                continue;
            }
            let (status, _) = single.any()?;
            match status {
                0x80 => {}
                0xa1 => return Err(OcspError::Revoked),
                _ => return Err(OcspError::Unknown),
            }
            let since = single.time()?;
            let until = match single.take_if(0xa0)? {
                Some(time) => Reader(time).time()?,
                None => now + UNSAID,
            };
            return if since <= now + SKEW && now < until { Ok(until) } else { Err(OcspError::Stale) };
        }
        Err(OcspError::Other)
    }

    /// By the issuer, or by a responder that the issuer has signed for just this (RFC 6960 section 4.2.2.2).
    fn check_signature(
        &self,
        signed: &Signed<'_>,
        issuer: &X509Certificate<'_>,
        now: i64,
    ) -> Result<(), OcspError> {
        if signed.is_by(issuer.public_key().raw) {
            return Ok(());
        }
        let delegate = || -> Option<()> {
            let mut certificates = Reader(Reader(signed.rest).take_if(0xa0).ok()??);
            let mut certificates = Reader(certificates.take(0x30).ok()?);
            while !certificates.0.is_empty() {
                let before = certificates.0;
                let content = certificates.take(0x30).ok()?;
                let (_, delegate) = X509Certificate::from_der(before).ok()?;
                let is_asked =
                    delegate.extended_key_usage().ok()?.is_some_and(|usage| usage.value.ocsp_signing);
                let is_valid = delegate.validity().is_valid_at(ASN1Time::from_timestamp(now).ok()?);
                if is_asked
                    && is_valid
                    && delegate.issuer().as_raw() == issuer.subject().as_raw()
                    && Signed::read(content).ok()?.is_by(issuer.public_key().raw)
                    && signed.is_by(delegate.public_key().raw)
                {
                    return Some(());
                }
            }
            None
        };
        delegate().ok_or(OcspError::Signature)
    }
}

/// The URL of the responder that a certificate names.
fn responder(certificate: &X509Certificate<'_>) -> Option<String> {
    let access =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => Some(access),
            _ => None,
        })?;
    access.accessdescs.iter().find_map(|description| match &description.access_location {
        GeneralName::URI(url) if description.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP => {
            Some((*url).to_owned())
        }
        _ => None,
    })
}

/// What certificates and OCSP responses have in common: data, algorithm, signature.
struct Signed<'a> {
    /// With its head: what is signed.
    data: &'a [u8],
    /// Content of the `AlgorithmIdentifier`.
    algorithm: &'a [u8],
    signature: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(content: &'a [u8]) -> Result<Self, OcspError> {
        let mut reader = Reader(content);
        reader.take(0x30)?;
        let data = &content[..content.len() - reader.0.len()];
        let algorithm = reader.take(0x30)?;
        let signature = bits(reader.take(3)?)?;
        Ok(Self { data, algorithm, signature, rest: reader.0 })
    }

    /// `key` is a `SubjectPublicKeyInfo`.
    fn is_by(&self, key: &[u8]) -> bool {
        let parts = || -> Result<_, OcspError> {
            let mut info = Reader(Reader(key).take(0x30)?);
            Ok((info.take(0x30)?, bits(info.take(3)?)?))
        };
        let Ok((key_algorithm, key)) = parts() else { return false };
        let known = provider().signature_verification_algorithms.all.iter();
        known
            .filter(|known| known.signature_alg_id().as_ref() == self.algorithm)
            .filter(|known| known.public_key_alg_id().as_ref() == key_algorithm)
            .any(|known| known.verify_signature(key, self.data, self.signature).is_ok())
    }
}

/// Of a BIT STRING that is whole bytes.
fn bits(content: &[u8]) -> Result<&[u8], OcspError> {
    content.strip_prefix(&[0]).ok_or(OcspError::Malformed)
}

/// DER, element by element.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// First byte and content of the next element.
    fn any(&mut self) -> Result<(u8, &'a [u8]), OcspError> {
        let (rest, any) = Any::from_der(self.0).map_err(|_| OcspError::Malformed)?;
        let tag = u8::try_from(any.tag().0).ok().filter(|tag| *tag < 31).ok_or(OcspError::Malformed)?;
        let class = match any.class() {
            Class::Universal => 0,
            Class::Application => 0x40,
            Class::ContextSpecific => 0x80,
            Class::Private => 0xc0,
        };
        let constructed = if any.header.is_constructed() { 0x20 } else { 0 };
        self.0 = rest;
        Ok((class | constructed | tag, any.data))
    }

    fn take(&mut self, head: u8) -> Result<&'a [u8], OcspError> {
        self.take_if(head)?.ok_or(OcspError::Malformed)
    }

    fn take_if(&mut self, head: u8) -> Result<Option<&'a [u8]>, OcspError> {
        if self.0.first() != Some(&head) {
            return Ok(None);
        }
        self.any().map(|(_, content)| Some(content))
    }

    fn time(&mut self) -> Result<i64, OcspError> {
        let (rest, time) = ASN1Time::from_der(self.0).map_err(|_| OcspError::Malformed)?;
        self.0 = rest;
        Ok(time.timestamp())
    }
}

/// An element of DER.
fn tlv(head: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![head];
    match u8::try_from(length) {
        Ok(short) if short < 128 => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    // Made by OpenSSL 3: a certificate with its issuer, the question that OpenSSL asks of it, the answer of its
    // responder, and the answer for another certificate of the issuer.
    const LEAF: &str = "MIIBnzCCAUagAwIBAgICEAEwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHVGVzdCBDQTAeFw0yNjExMjMwMjU3MDFaFw0yNjEyMTMw\
         MjU3MDFaMBExDzANBgNVBAMMBmEudGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJpTuN5SYWnm01B5C8xYT5cFqOMS5Lrp\
         gGO+mAAvnAcbWjqfExpOqhwiRQYYL1nlUezeUQUtA6Y9EwlEXsquEnmjgYwwgYkwEQYDVR0RBAowCIIGYS50ZXN0MDQGCCsGAQUF\
         BwEBBCgwJjAkBggrBgEFBQcwAYYYaHR0cDovL29jc3AuZXhhbXBsZS5jb20vMB0GA1UdDgQWBBT7tOcQhDs+X6sYzUk0Epgq7BL8\
         rzAfBgNVHSMEGDAWgBT4fRBlValMGWR2pzhElrSf3Qt85zAKBggqhkjOPQQDAgNHADBEAiAMTQuY5a0kQ7ia6pKKK1V3Tdw25Ziw\
         39YBNZK9sFbFGAIgLCGB0qIiZq017mNesqm3UEgSH/MezwENyCC+QTPxZGg=";
    const ISSUER: &str = "MIIBijCCAS+gAwIBAgIUCxDhlEdRWTlwL0ZPQT1yGomjY8UwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHVGVzdCBDQTAeFw0yNjEx\
         MjMwMjU3MDFaFw0yNjEyMjMwMjU3MDFaMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARVViGK\
         E9JFvpMs51T3+nicM/J4mmCet7mHSelcPnM5TjoJ0PXj1XWAWNrjrfLCYijKg2/VA5WO5XqwtTgCsheRo2MwYTAdBgNVHQ4EFgQU\
         +H0QZVWpTBlkdqc4RJa0n90LfOcwHwYDVR0jBBgwFoAU+H0QZVWpTBlkdqc4RJa0n90LfOcwDwYDVR0TAQH/BAUwAwEB/zAOBgNV\
         HQ8BAf8EBAMCAoQwCgYIKoZIzj0EAwIDSQAwRgIhAPfgmy+KGJXUp2azF27Yy/0Q9kZBDdF6EIiC9CVwPasiAiEA1F9mw4YAMAex\
         3HqcMs6NyIOO63OCjGkd9EVvHjo08eA=";
    const REQUEST: &str =
        "MEMwQTA/MD0wOzAJBgUrDgMCGgUABBS/cFLIucD3YMiRI+CZgV6ywDlCJgQU+H0QZVWpTBlkdqc4RJa0n90LfOcCAhAB";
    const GOOD: &str = "MIIBAQoBAKCB+zCB+AYJKwYBBQUHMAEBBIHqMIHnMIGOoRQwEjEQMA4GA1UEAwwHVGVzdCBDQRgPMjAyNjExMjMwMzAwNDFaMGUw\
         YzA7MAkGBSsOAwIaBQAEFL9wUsi5wPdgyJEj4JmBXrLAOUImBBT4fRBlValMGWR2pzhElrSf3Qt85wICEAGAABgPMjAyNjExMjMw\
         MzAwNDFaoBEYDzIwMjYxMTI0MDMwMDQxWjAKBggqhkjOPQQDAgNIADBFAiEAzWIKZqPoh7Mhbd30Qq/2f9g/3dBAB9f526/dYqkU\
         1xkCIA19cvaxaapK4JRU3Aa7AjGrRXDi2gTu6LQzLsbg7dGT";
    const OF_ANOTHER: &str = "MIIBFAoBAKCCAQ0wggEJBgkrBgEFBQcwAQEEgfswgfgwgZ+hFDASMRAwDgYDVQQDDAdUZXN0IENBGA8yMDI2MTEyMzAzMDA0MVow\
         djB0MDswCQYFKw4DAhoFAAQUv3BSyLnA92DIkSPgmYFessA5QiYEFPh9EGVVqUwZZHanOESWtJ/dC3znAgIQAqERGA8yMDI2MDEw\
         MTAwMDAwMFoYDzIwMjYxMTIzMDMwMDQxWqARGA8yMDI2MTEyNDAzMDA0MVowCgYIKoZIzj0EAwIDSAAwRQIgThLqEaZBwj8mjMUK\
         +2iuHBqGpVrZVIirfdJXgIEud2cCIQDSmcpg+gShMaHgukd081s8GMTaTP+8l6mqMqLARKxJLQ==";
    /// `thisUpdate` of the answer; it counts for a day.
    const SINCE: i64 = 1795402841;

    fn bytes(text: &str) -> Vec<u8> {
        STANDARD.decode(text).unwrap()
    }

    fn key(chain: &[&str]) -> CertifiedKey {
        let chain = chain.iter().map(|text| CertificateDer::from(bytes(text))).collect();
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let key = PrivateKeyDer::try_from(key).unwrap();
        CertifiedKey::new(chain, provider().key_provider.load_private_key(key).unwrap())
    }

    fn question() -> Question {
        Question::of(&key(&[LEAF, ISSUER])).unwrap().unwrap()
    }

    #[test]
    fn the_question_is_that_of_openssl() {
        let question = question();
        assert_eq!(question.request, bytes(REQUEST));
        assert_eq!(question.responder, "http://ocsp.example.com/");
        assert!(Question::of(&key(&[ISSUER])).is_none(), "it names no responder");
        for chain in [&[LEAF][..], &[LEAF, LEAF]] {
            assert!(Question::of(&key(chain)).unwrap().is_err());
        }
    }

    #[test]
    fn an_answer_counts_for_its_time() {
        let question = question();
        let check = |now| question.check(&bytes(GOOD), now);
        let until = SINCE + 24 * 3600;
        assert_eq!((check(SINCE), check(until - 1), check(SINCE - SKEW)), (Ok(until), Ok(until), Ok(until)));
        assert_eq!((check(until), check(SINCE - SKEW - 1)), (Err(OcspError::Stale), Err(OcspError::Stale)));
    }

    #[test]
    fn what_cannot_be_believed() {
        let question = question();
        assert_eq!(question.check(&bytes(OF_ANOTHER), SINCE), Err(OcspError::Other));
        assert_eq!(question.check(&[0x30, 3, 10, 1, 3], SINCE), Err(OcspError::Refused(3)));
        let good = bytes(GOOD);
        for length in 0..good.len() {
            assert!(question.check(&good[..length], SINCE).is_err(), "{length} bytes");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bent = good.clone();
                bent[at] ^= 1 << bit;
                assert!(question.check(&bent, SINCE).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}
