//! Which client certificates are accepted: `clientAuth` of `tls.options`.
//!
//! webpki verifies chains. Beside them stand two kinds of certificates that it has no notion of, and that Go, and so
//! Traefik, accepts: those that `caFiles` lists themselves, and those of X.509 version 1, which `openssl x509 -req`
//! makes unless told otherwise.

use std::sync::Arc;

use lb_config::dynamic::{ClientAuth, ClientAuthType};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as PeerError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::certificates::chain;
use super::client::{check_validity, parse};
use super::server::OptionsError;

type CountedVerifier = (Arc<dyn ClientCertVerifier>, usize);

/// How client certificates are treated, and how many of the configured authorities cannot be read; `None` if clients
/// are not asked for any.
pub(super) fn client_verifier(
    auth: Option<&ClientAuth>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<CountedVerifier>, OptionsError> {
    let Some(auth) = auth else {
        return Ok(None);
    };
    let (mandatory, verified) = match auth.kind {
        ClientAuthType::NoClientCert => return Ok(None),
        ClientAuthType::RequestClientCert => (false, false),
        ClientAuthType::RequireAnyClientCert => (true, false),
        ClientAuthType::VerifyClientCertIfGiven => (false, true),
        ClientAuthType::RequireAndVerifyClientCert => (true, true),
    };
    let (trusted, ignored) = match verified.then(|| Trusted::read(auth, provider)).transpose()? {
        Some((trusted, ignored)) => (Some(trusted), ignored),
        None => (None, 0),
    };
    let algorithms = provider.signature_verification_algorithms;
    Ok(Some((Arc::new(Verifier { mandatory, trusted, algorithms }), ignored)))
}

/// What a client has shown of itself, or has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
    Nothing,
    /// Some certificate, and that it has the key.
    Certificate,
    /// One that an authority of `caFiles` vouches for.
    Vouched,
}

impl Proof {
    /// What no client is accepted without.
    pub(crate) fn wanted(kind: ClientAuthType) -> Self {
        Self::given(kind, kind.requires_certificate())
    }

    /// What a client was accepted with.
    pub(super) fn given(kind: ClientAuthType, certificate: bool) -> Self {
        use ClientAuthType::{RequireAndVerifyClientCert, VerifyClientCertIfGiven};
        match kind {
            _ if !certificate => Self::Nothing,
            RequireAndVerifyClientCert | VerifyClientCertIfGiven => Self::Vouched,
            _ => Self::Certificate,
        }
    }
}

#[derive(Debug)]
struct Verifier {
    mandatory: bool,
    /// `None`: any certificate will do, as long as the client has its key.
    trusted: Option<Trusted>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// `caFiles`
#[derive(Debug)]
struct Trusted {
    /// Every certificate of the files. Listing one is to trust it, whoever has signed it.
    listed: Vec<CertificateDer<'static>>,
    /// Their subjects, which tell clients what certificate to choose.
    hints: Vec<DistinguishedName>,
    /// Verifies chains to those of them that [may sign others](is_authority); `None` without any.
    chains: Option<Arc<dyn ClientCertVerifier>>,
}

impl Trusted {
    fn read(auth: &ClientAuth, provider: &Arc<CryptoProvider>) -> Result<(Self, usize), OptionsError> {
        let mut listed = Vec::new();
        let mut readable = RootCertStore::empty();
        let mut ignored = 0;
        for pem in &auth.ca {
            let certificates = chain(&pem.0)?;
            let (added, unreadable) = readable.add_parsable_certificates(certificates.iter().cloned());
            if added == 0 {
                return Err(OptionsError::NoUsableAuthority);
            }
            ignored += unreadable;
            listed.extend(certificates);
        }
        let hints = readable.subjects();
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(listed.iter().filter(|one| is_authority(one)).cloned());
        let chains = if authorities.is_empty() && !listed.is_empty() {
            None
        } else {
            let authorities = Arc::new(authorities);
            Some(WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(provider)).build()?)
        };
        Ok((Self { listed, hints, chains }, ignored))
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<ClientCertVerified, Error> {
        let parsed = parse(certificate)?;
        if self.listed.iter().any(|listed| listed == certificate) {
            check_validity(certificate, now)?;
            check_usage(&parsed)?;
            return Ok(ClientCertVerified::assertion());
        }
        if parsed.version() == X509Version::V1 {
            check_validity(certificate, now)?;
            let mut issuers =
                self.listed.iter().filter(|one| is_authority(one) && check_validity(one, now).is_ok());
            return match issuers.any(|issuer| is_issued_directly(certificate, &parsed, issuer, algorithms)) {
                true => Ok(ClientCertVerified::assertion()),
                false => Err(Error::InvalidCertificate(PeerError::UnknownIssuer)),
            };
        }
        match &self.chains {
            Some(chains) => chains.verify_client_cert(certificate, intermediates, now),
            None => Err(Error::InvalidCertificate(PeerError::UnknownIssuer)),
        }
    }
}

/// Whether a listed certificate may sign others, or stands for itself alone. Version 1 cannot say so; there it takes a
/// certificate that has signed itself, for the holder of a listed one must not be able to make more of them.
pub(super) fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = parse(certificate) else { return false };
    if certificate.version() != X509Version::V3 {
        return certificate.subject().as_raw() == certificate.issuer().as_raw();
    }
    // RFC 5280 sections 4.2.1.3 and 4.2.1.9.
    let usage = certificate.key_usage();
    certificate.is_ca() && usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// `extendedKeyUsage`, where it stands, has to allow for clients: RFC 5280 section 4.2.1.12.
fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) if usage.value.client_auth || usage.value.any => Ok(()),
        Ok(Some(_)) => Err(Error::InvalidCertificate(PeerError::InvalidPurpose)),
        Err(_) => Err(Error::InvalidCertificate(PeerError::BadEncoding)),
    }
}

/// Whether `issuer` has signed `certificate`, which is of version 1.
///
/// Only right under an authority: version 1 cannot say that a certificate is none, so one in between could be
/// anybody's. That such a certificate has no extensions leaves nothing to heed, but an authority that constrains names
/// expects them to be said where it can look.
fn is_issued_directly(
    der: &CertificateDer<'_>,
    certificate: &X509Certificate<'_>,
    issuer: &CertificateDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok(issuer) = parse(issuer) else { return false };
    let Some([_, signed_with, _]) = elements(der) else { return false };
    let key = issuer.public_key();
    certificate.extensions().is_empty()
        // RFC 5280 section 4.1.1.2.
        && certificate.signature_algorithm == certificate.tbs_certificate.signature
        && certificate.issuer().as_raw() == issuer.subject().as_raw()
        && matches!(issuer.name_constraints(), Ok(None))
        && check_usage(&issuer).is_ok()
        && algorithms.all.iter().any(|algorithm| {
            *algorithm.signature_alg_id() == *signed_with
                && verifies(*algorithm, key, certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
        })
}

/// Whether the signature is by this key and algorithm.
fn verifies(
    algorithm: &dyn SignatureVerificationAlgorithm,
    key: &SubjectPublicKeyInfo<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    elements(key.raw).is_some_and(|[kind, _]| *algorithm.public_key_alg_id() == *kind)
        && algorithm.verify_signature(&key.subject_public_key.data, message, signature).is_ok()
}

/// The contents of the elements of a DER sequence that has just so many.
fn elements<const COUNT: usize>(sequence: &[u8]) -> Option<[&[u8]; COUNT]> {
    let (_, sequence) = Any::from_der(sequence).ok()?;
    let mut rest = sequence.data;
    let mut elements = [&[][..]; COUNT];
    for element in &mut elements {
        let (after, found) = Any::from_der(rest).ok()?;
        (rest, *element) = (after, found.data);
    }
    rest.is_empty().then_some(elements)
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.as_ref().map_or(&[], |trusted| &trusted.hints)
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.trusted {
            Some(trusted) => trusted.verify(end_entity, intermediates, now, &self.algorithms),
            None => Ok(ClientCertVerified::assertion()),
        }
    }

    // That the client has the key is proven with the key alone: webpki would hold it against the certificate around it
    // that it has version 1.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(cert)?;
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let (_, candidates) = known.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let key = certificate.public_key();
        // A scheme of TLS 1.2 leaves open which curve it is about: RFC 8446 section 4.2.3.
        match candidates.iter().any(|algorithm| verifies(*algorithm, key, message, dss.signature())) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(Error::InvalidCertificate(PeerError::BadSignature)),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(cert)?;
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use lb_config::dynamic::Pem;
    use rcgen::ExtendedKeyUsagePurpose;
    use rustls_pki_types::pem::PemObject;

    use super::super::algorithms::provider;
    use super::super::testing::{Authority, Key, authority_pair, pair, pem};
    use super::*;

    /// Made by `openssl ca`, the last without extensions; valid from 2020 to 2120.
    const VERSION_1_AUTHORITY: &str = include_str!("../../testdata/version1-authority.pem");
    /// The same authority with a name constraint.
    const VERSION_1_CONSTRAINED: &str = include_str!("../../testdata/version1-constrained-authority.pem");
    const VERSION_1_CLIENT: &str = include_str!("../../testdata/version1-client.pem");

    /// In 2027.
    const NOW: u64 = 1_800_000_000;

    fn verified(listed: &Pem, certificate: &Pem, seconds: u64) -> Result<(), Error> {
        let auth = ClientAuth { ca: vec![listed.clone()], kind: ClientAuthType::RequireAndVerifyClientCert };
        let (verifier, ignored) = client_verifier(Some(&auth), provider()).unwrap().unwrap();
        assert_eq!(ignored, 0);
        let certificate = CertificateDer::from_pem_slice(&certificate.0).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier.verify_client_cert(&certificate, &[], now).map(|_| ())
    }

    #[test]
    fn what_is_listed_is_accepted_while_it_is_valid_and_signs_nothing() {
        let authority = Authority::new("authority");
        let issued = authority.issue(&["c.test"]);
        let (alone, as_openssl) = (pair(&["c.test"], Key::Rsa), authority_pair(&["c.test"]));
        let version_1 = pem(VERSION_1_CLIENT);
        for certificate in [&issued.cert, &alone.cert, &as_openssl.cert, &version_1] {
            assert_eq!(verified(certificate, certificate, NOW), Ok(()));
            assert_eq!(
                verified(certificate, certificate, 0),
                Err(Error::InvalidCertificate(PeerError::NotValidYet))
            );
            let ours = verified(&authority.pem, certificate, NOW);
            assert_eq!(ours.is_ok(), certificate == &issued.cert);
        }
        // Nor does it vouch for others.
        let signs = |pem: &str| is_authority(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
        assert!(signs(VERSION_1_AUTHORITY) && !signs(VERSION_1_CLIENT));
        let pretender = authority.pretender();
        assert_eq!(verified(&pretender.pem, &pretender.pem, NOW), Ok(()));
        assert_eq!(
            verified(&pretender.pem, &pretender.issue(&["c.test"]).cert, NOW),
            Err(Error::InvalidCertificate(PeerError::UnknownIssuer))
        );
    }

    #[test]
    fn proof_is_as_good_as_the_options_it_was_given_under() {
        use ClientAuthType::*;
        use Proof::*;
        for (kind, wanted, given) in [
            (NoClientCert, Nothing, Certificate),
            (RequestClientCert, Nothing, Certificate),
            (RequireAnyClientCert, Certificate, Certificate),
            (VerifyClientCertIfGiven, Nothing, Vouched),
            (RequireAndVerifyClientCert, Vouched, Vouched),
        ] {
            assert_eq!(Proof::wanted(kind), wanted, "{kind:?}");
            assert_eq!([true, false].map(|shown| Proof::given(kind, shown)), [given, Nothing], "{kind:?}");
        }
        assert!(Nothing < Certificate && Certificate < Vouched);
    }

    #[test]
    fn a_listed_certificate_for_servers_only_is_no_client() {
        let purposes = [ExtendedKeyUsagePurpose::ServerAuth];
        let server = Authority::new("authority").issue_for(&["c.test"], &purposes).cert;
        assert_eq!(
            verified(&server, &server, NOW),
            Err(Error::InvalidCertificate(PeerError::InvalidPurpose))
        );
    }

    #[test]
    fn version_1_is_accepted_right_under_an_authority() {
        let (authority, client) = (pem(VERSION_1_AUTHORITY), pem(VERSION_1_CLIENT));
        assert_eq!(verified(&authority, &client, NOW), Ok(()));
        let rows = [
            (&authority, 0, PeerError::NotValidYet),
            (&authority, 5_000_000_000, PeerError::Expired),
            // One of the same name with another key.
            (&Authority::new("authority").pem, NOW, PeerError::UnknownIssuer),
            (&pem(VERSION_1_CONSTRAINED), NOW, PeerError::UnknownIssuer),
        ];
        for (authority, now, expected) in rows {
            assert_eq!(verified(authority, &client, now), Err(Error::InvalidCertificate(expected)));
        }
        let mut forged = CertificateDer::from_pem_slice(&client.0).unwrap().to_vec();
        let at = forged.windows(6).position(|bytes| bytes == b"client").unwrap();
        forged[at] = b'C';
        let auth = ClientAuth { ca: vec![authority], kind: ClientAuthType::RequireAndVerifyClientCert };
        let (verifier, _) = client_verifier(Some(&auth), provider()).unwrap().unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
        assert!(verifier.verify_client_cert(&forged.into(), &[], now).is_err());
    }
}
