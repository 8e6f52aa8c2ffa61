//! TLS towards servers: a servers transport made into a rustls configuration.
//!
//! Server names are the caller's business (`serverName`, or the host of the URL).

use std::sync::{Arc, LazyLock};

use lb_config::dynamic::ServersTransport;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError as PeerError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::algorithms::{self, SelectionError, provider};
use super::certificates::{CertificateError, certified_key, chain};
use super::client_auth::is_authority;

/// Why a transport cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error("rootCAs: {0}")]
    RootCa(CertificateError),
    #[error("rootCAs: no certificate in it can be used")]
    NoUsableRoot,
    #[error("certificates: {origin}: {cause}")]
    ClientCertificate { origin: String, cause: CertificateError },
    #[error("{0}")]
    Rejected(#[from] Error),
}

/// The configuration for connections to the servers of a transport. Keep it for as long as the transport does not
/// change: sessions are resumed from it. With `alpn_h2` HTTP/2 is offered before HTTP/1.1.
pub(crate) fn client_config(
    transport: &ServersTransport,
    alpn_h2: bool,
) -> Result<Arc<ClientConfig>, TransportError> {
    let selection =
        algorithms::select(&transport.cipher_suites, &[], transport.min_version, transport.max_version)?;
    let verifier = server_verifier(transport)?;
    let builder = ClientConfig::builder_with_provider(selection.provider)
        .with_protocol_versions(&selection.versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut keys = Vec::with_capacity(transport.certificates.len());
    for pair in &transport.certificates {
        let key = certified_key(pair)
            .and_then(ClientKey::new)
            .map_err(|cause| TransportError::ClientCertificate { origin: pair.origin.clone(), cause })?;
        keys.push(key);
    }
    let mut config = if keys.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(ClientKeys(keys)))
    };
    if alpn_h2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// How the servers of a transport are spoken to over TLS, for whoever else speaks to them.
///
/// # Errors
/// Why the transport cannot be used.
pub fn client_tls(transport: &ServersTransport) -> Result<Arc<ClientConfig>, String> {
    client_config(transport, !transport.disable_http2).map_err(|error| error.to_string())
}

/// The system's roots, read once. May be empty, as in a container without certificates: servers are then refused when
/// they are connected to, which is when it matters.
fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(errors = ?found.errors, "no system root certificates found: https servers cannot be verified");
        }
        Arc::new(roots)
    });
    &ROOTS
}

fn server_verifier(transport: &ServersTransport) -> Result<Arc<dyn ServerCertVerifier>, TransportError> {
    let algorithms = provider().signature_verification_algorithms;
    if transport.insecure_skip_verify && transport.peer_cert_uri.is_none() {
        return Ok(Arc::new(Anything(algorithms)));
    }
    let mut pinned = Vec::new();
    let roots = if transport.root_cas.is_empty() {
        Arc::clone(system_roots())
    } else {
        let mut roots = RootCertStore::empty();
        for pem in &transport.root_cas {
            let certificates = chain(&pem.0).map_err(TransportError::RootCa)?;
            let (parsable, _) =
                RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
            if parsable == 0 {
                return Err(TransportError::NoUsableRoot);
            }
            roots.add_parsable_certificates(certificates.iter().filter(|one| is_authority(one)).cloned());
            pinned.extend(certificates);
        }
        Arc::new(roots)
    };
    Ok(Arc::new(Verifier {
        roots,
        pinned,
        check_name: !transport.insecure_skip_verify,
        uri: transport.peer_cert_uri.clone(),
        algorithms,
    }))
}

/// Verifies servers the way Go does where webpki is narrower or has no notion of it.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    /// The certificates of `rootCAs`. webpki accepts no authority as a server, but that is what a self-signed
    /// certificate from `openssl req -x509` is, and listing it is how one trusts such a server.
    pinned: Vec<CertificateDer<'static>>,
    /// Off with `insecureSkipVerify`; the chain is still verified then, for `peerCertURI` would mean nothing without.
    check_name: bool,
    /// `peerCertURI`
    uri: Option<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            check_validity(end_entity, now)?;
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        }
        if self.check_name {
            verify_server_name(&parsed, server_name)?;
        }
        if let Some(uri) = &self.uri {
            check_uri(end_entity, uri)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|_| Error::InvalidCertificate(PeerError::BadEncoding))
}

pub(super) fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = parse(certificate)?;
    let validity = certificate.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return Err(Error::InvalidCertificate(PeerError::NotValidYet));
    }
    if now > validity.not_after.timestamp() {
        return Err(Error::InvalidCertificate(PeerError::Expired));
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the certificate of the server does not contain the URI {0}")]
struct WrongUri(String);

fn check_uri(certificate: &CertificateDer<'_>, expected: &str) -> Result<(), Error> {
    let certificate = parse(certificate)?;
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|_| Error::InvalidCertificate(PeerError::BadEncoding))?;
    let mut names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    if names.any(|name| matches!(name, GeneralName::URI(uri) if *uri == expected)) {
        return Ok(());
    }
    let cause = OtherError(Arc::new(WrongUri(expected.to_owned())));
    Err(Error::InvalidCertificate(PeerError::Other(cause)))
}

/// `insecureSkipVerify`: whoever answers is the server. Its signature is not looked at either: the key would be its
/// own, so that proves nothing, and certificates that webpki cannot read are the reason to set the option.
#[derive(Debug)]
pub(super) struct Anything(pub(super) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[derive(Debug)]
struct ClientKey {
    key: Arc<CertifiedKey>,
    /// DER names of the authorities in the chain.
    issuers: Vec<Vec<u8>>,
}

impl ClientKey {
    fn new(key: CertifiedKey) -> Result<Self, CertificateError> {
        let issuers = key.cert.iter().map(|certificate| {
            let (_, certificate) = X509Certificate::from_der(certificate)
                .map_err(|error| CertificateError::X509(error.to_string()))?;
            Ok(certificate.issuer().as_raw().to_vec())
        });
        Ok(Self { issuers: issuers.collect::<Result<_, _>>()?, key: Arc::new(key) })
    }
}

/// The first certificate the server can verify and whose issuer it names; failing that, the first it can verify.
#[derive(Debug)]
struct ClientKeys(Vec<ClientKey>);

impl ResolvesClientCert for ClientKeys {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let verifiable = || self.0.iter().filter(|key| key.key.key.choose_scheme(schemes).is_some());
        let hinted = |key: &&ClientKey| key.issuers.iter().any(|issuer| hints.contains(&issuer.as_slice()));
        verifiable().find(hinted).or_else(|| verifiable().next()).map(|key| Arc::clone(&key.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use lb_config::dynamic::{ClientAuth, ClientAuthType, KeyPair, Tls, TlsVersion};
    use rustls::ServerConfig;

    use super::super::server::TlsTable;
    use super::super::testing::{self, Authority, Key, authority_pair, handshake, pair, transport};
    use super::*;

    /// A server that shows this certificate.
    fn server(pair: KeyPair) -> Arc<ServerConfig> {
        let tls = Tls { default_certificate: Some(pair), ..Tls::default() };
        Arc::clone(&TlsTable::build(&tls, None).0.fallback().config)
    }

    fn accepts(transport: &ServersTransport, server: &Arc<ServerConfig>, name: &str) -> bool {
        handshake(&client_config(transport, false).unwrap(), server, name).is_ok()
    }

    #[test]
    fn servers_are_verified_as_the_transport_says() {
        const URI: &str = "spiffe://x.test/api";
        let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
        let issued = server(ours.issue(&["a.test", "192.0.2.1", URI]));
        let trusting = ServersTransport { root_cas: vec![foreign.pem, ours.pem], ..transport() };
        let uri = |uri: &str, transport: &ServersTransport| ServersTransport {
            peer_cert_uri: Some(uri.to_owned()),
            ..transport.clone()
        };
        let skipping = ServersTransport { insecure_skip_verify: true, ..transport() };
        let trusting_skipping = ServersTransport { insecure_skip_verify: true, ..trusting.clone() };
        let rows = [
            ("known root", trusting.clone(), "a.test", true),
            ("known root, address", trusting.clone(), "192.0.2.1", true),
            ("known root, wrong name", trusting.clone(), "b.test", false),
            ("system roots", transport(), "a.test", false),
            ("no verification", skipping.clone(), "b.test", true),
            ("right URI", uri(URI, &trusting), "a.test", true),
            ("right URI, wrong name", uri(URI, &trusting), "b.test", false),
            ("wrong URI", uri("spiffe://x.test/other", &trusting), "a.test", false),
            ("right URI, name not verified", uri(URI, &trusting_skipping), "b.test", true),
            (
                "wrong URI, name not verified",
                uri("spiffe://x.test/other", &trusting_skipping),
                "b.test",
                false,
            ),
            ("right URI from a foreigner", uri(URI, &skipping), "a.test", false),
        ];
        for (case, transport, name, expected) in rows {
            assert_eq!(accepts(&transport, &issued, name), expected, "{case}");
        }
    }

    #[test]
    fn a_self_signed_certificate_can_be_its_own_root() {
        for pair in [authority_pair(&["a.test"]), pair(&["a.test"], Key::Rsa)] {
            let transport = ServersTransport { root_cas: vec![pair.cert.clone()], ..transport() };
            let server = server(pair);
            assert!(accepts(&transport, &server, "a.test"));
            assert!(!accepts(&transport, &server, "b.test"));
        }
        // Which makes its holder no authority for others.
        let pretender = Authority::new("authority").pretender();
        let transport = ServersTransport { root_cas: vec![pretender.pem.clone()], ..transport() };
        assert!(!accepts(&transport, &server(pretender.issue(&["a.test"])), "a.test"));
        let expired = authority_pair(&["a.test"]);
        let der = chain(&expired.cert.0).unwrap().remove(0);
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        assert!(check_validity(&der, at(1_800_000_000)).is_ok());
        assert_eq!(
            check_validity(&der, at(1_900_000_000)),
            Err(Error::InvalidCertificate(PeerError::Expired))
        );
        assert_eq!(check_validity(&der, at(0)), Err(Error::InvalidCertificate(PeerError::NotValidYet)));
    }

    #[test]
    fn the_certificate_the_server_asks_for_is_shown() {
        let (first, second) = (Authority::new("first"), Authority::new("second"));
        let mut options = std::collections::BTreeMap::new();
        let auth =
            ClientAuth { ca: vec![second.pem.clone()], kind: ClientAuthType::RequireAndVerifyClientCert };
        let mut with_auth = testing::options();
        with_auth.client_auth = Some(auth);
        options.insert("default".to_owned(), with_auth);
        let (table, _) = TlsTable::build(&Tls { options, ..Tls::default() }, None);
        let transport = ServersTransport {
            insecure_skip_verify: true,
            certificates: vec![first.issue(&["c.test"]), second.issue(&["c.test"])],
            ..transport()
        };
        let client = client_config(&transport, true).unwrap();
        let agreed = handshake(&client, &table.fallback().config, "a.test").unwrap();
        assert_eq!((agreed.client_chain, agreed.alpn.as_deref()), (1, Some("h2")));
    }

    #[test]
    fn broken_transports_say_why() {
        let good = pair(&["a.test"], Key::Ecdsa);
        let nonsense = testing::pem("nonsense");
        let rows = [
            (
                ServersTransport { root_cas: vec![nonsense.clone()], ..transport() },
                "rootCAs: the certificate file contains no certificate",
            ),
            (
                ServersTransport { certificates: vec![KeyPair { key: nonsense, ..good }], ..transport() },
                "certificates: a.test.pem: the key file contains no unencrypted private key",
            ),
            (
                ServersTransport { cipher_suites: vec!["NOPE".into()], ..transport() },
                "there is no cipher suite called `NOPE`",
            ),
            (
                ServersTransport {
                    min_version: Some(TlsVersion::Tls13),
                    max_version: Some(TlsVersion::Tls12),
                    ..transport()
                },
                "minVersion is above maxVersion",
            ),
        ];
        for (transport, expected) in rows {
            assert_eq!(client_config(&transport, true).unwrap_err().to_string(), expected);
        }
        let min_only = ServersTransport { min_version: Some(TlsVersion::Tls13), ..transport() };
        assert!(client_config(&min_only, true).is_ok());
    }
}
