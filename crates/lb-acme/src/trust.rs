//! Whom to believe to be the authority's server: who shows a certificate of those that are trusted, or one of its own that is listed.
//!
//! webpki accepts no authority as a server, but that is what a self-signed certificate from `openssl req -x509` is, and
//! listing it in `caCertificates` is how one trusts such a server: Go's client does.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) web: Arc<WebPkiServerVerifier>,
    pub(crate) listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.iter().any(|listed| listed == end_entity) {
            return self.web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let unreadable = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = parse_x509_certificate(end_entity).map_err(|_| unreadable())?;
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
        if !now.is_some_and(|now| parsed.validity().is_valid_at(now)) {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::RootCertStore;

    use super::*;

    /// As `openssl req -x509` makes it.
    fn self_signed() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["ca.example.com".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_self_signed_certificate_is_trusted_where_it_is_listed() {
        let (listed, other) = (self_signed(), self_signed());
        let mut roots = RootCertStore::empty();
        roots.add(listed.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = Verifier { web, listed: vec![listed.clone()] };
        let (summer, later) = (1_780_000_000, 1_900_000_000);
        for (certificate, name, at, trusted) in [
            (&listed, "ca.example.com", summer, true),
            (&listed, "other.example.com", summer, false),
            (&listed, "ca.example.com", later, false),
            (&other, "ca.example.com", summer, false),
        ] {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
            let verified = verifier.verify_server_cert(certificate, &[], &name.try_into().unwrap(), &[], now);
            assert_eq!(verified.is_ok(), trusted, "{name} {at}: {verified:?}");
        }
    }
}
