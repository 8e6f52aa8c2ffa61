//! The TLS settings of a `serversTransport`, as probes use them.

use std::sync::{Arc, OnceLock};

use lb_config::dynamic::{ServersTransport, TlsVersion};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// Settings that become a `ClientConfig` at the first probe that needs one, and at most once:
/// services that speak plain HTTP never pay for reading the system's roots.
#[derive(Debug)]
pub(crate) struct Tls {
    transport: ServersTransport,
    built: OnceLock<Result<Built, TlsError>>,
}

#[derive(Debug)]
struct Built {
    http: Arc<ClientConfig>,
    grpc: Arc<ClientConfig>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the certificate authority in `rootCAs` number {0} cannot be read: {1}")]
    RootCa(usize, String),
    #[error("no certificate authority: the system has none and `rootCAs` names none")]
    NoRoots,
    #[error("the client certificate `{0}` cannot be used: {1}")]
    ClientCertificate(String, String),
    #[error("the TLS settings cannot be used: {0}")]
    Settings(#[from] rustls::Error),
    #[error("the TLS settings cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl Tls {
    pub(crate) fn new(transport: ServersTransport) -> Self {
        Self { transport, built: OnceLock::new() }
    }

    pub(crate) fn transport(&self) -> &ServersTransport {
        &self.transport
    }

    /// Offers HTTP/2 and HTTP/1.1, or HTTP/1.1 alone when the transport disables HTTP/2.
    pub(crate) fn http(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.built().map(|built| Arc::clone(&built.http))
    }

    /// Offers HTTP/2 alone.
    pub(crate) fn grpc(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.built().map(|built| Arc::clone(&built.grpc))
    }

    fn built(&self) -> Result<&Built, TlsError> {
        self.built.get_or_init(|| build(&self.transport)).as_ref().map_err(TlsError::clone)
    }
}

fn build(transport: &ServersTransport) -> Result<Built, TlsError> {
    let provider = Arc::new(provider(&transport.cipher_suites));
    let (min, max) = (transport.min_version, transport.max_version);
    let versions: Vec<_> =
        [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)]
            .into_iter()
            .filter(|(version, _)| {
                min.is_none_or(|min| *version >= min) && max.is_none_or(|max| *version <= max)
            })
            .map(|(_, version)| version)
            .collect();
    let verifier = Arc::new(Verifier::new(transport, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    // Go offers all pairs and lets the server's request choose; rustls takes one, and one is what files hold.
    let mut config = match transport.certificates.first() {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let refused = |error: &dyn std::fmt::Display| {
                TlsError::ClientCertificate(pair.origin.clone(), error.to_string())
            };
            let chain = CertificateDer::pem_slice_iter(&pair.cert.0)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| refused(&error))?;
            let key = PrivateKeyDer::from_pem_slice(&pair.key.0).map_err(|error| refused(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| refused(&error))?
        }
    };
    config.alpn_protocols = if transport.disable_http2 {
        vec![b"http/1.1".to_vec()]
    } else {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    };
    let mut grpc = config.clone();
    grpc.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Built { http: Arc::new(config), grpc: Arc::new(grpc) })
}

/// The library's suites, or those of them that are named.
fn provider(cipher_suites: &[String]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| {
            let ours = format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
            // TLS 1.3 suites cannot be chosen in Traefik either.
            suite.tls13().is_some() || cipher_suites.contains(&ours)
        });
    }
    provider
}

fn roots(transport: &ServersTransport) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if transport.root_cas.is_empty() {
        // Some unreadable files among the system's are none of our business as long as roots are left.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for (number, pem) in transport.root_cas.iter().enumerate() {
        let refused = |error: &dyn std::fmt::Display| TlsError::RootCa(number + 1, error.to_string());
        for certificate in CertificateDer::pem_slice_iter(&pem.0) {
            let certificate = certificate.map_err(|error| refused(&error))?;
            roots.add(certificate).map_err(|error| refused(&error))?;
        }
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

/// Chain and name as usual unless `insecureSkipVerify`; `peerCertURI` in either case, as Traefik does.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    uri: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(transport: &ServersTransport, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let chain = if transport.insecure_skip_verify {
            None
        } else {
            let roots = Arc::new(roots(transport)?);
            Some(WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build()?)
        };
        Ok(Self { chain, uri: transport.peer_cert_uri.clone(), provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        if let Some(uri) = &self.uri {
            let parsed = webpki::EndEntityCert::try_from(end_entity)
                .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
            if !parsed.valid_uri_names().any(|name| name == uri) {
                return Err(rustls::Error::General(format!("the certificate carries no URI `{uri}`")));
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
