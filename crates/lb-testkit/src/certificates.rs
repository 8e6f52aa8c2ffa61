//! Certificates made on the spot: an authority, what it issues, and rustls configurations from both.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate authority that exists for one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate with its private key.
#[derive(Clone, Debug)]
pub struct Certified {
    pub certificate_pem: String,
    pub key_pem: String,
    authority: CertificateDer<'static>,
}

impl Authority {
    pub fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params.self_signed(&key).expect("the parameters are valid");
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for DNS names (`*.example.com` as well) and IP addresses.
    pub fn issue(&self, names: &[&str]) -> Certified {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        self.sign(
            CertificateParams::new(names).expect("valid names"),
            &common_name,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client certificate whose subject is `common_name`.
    pub fn issue_client(&self, common_name: &str) -> Certified {
        self.sign(CertificateParams::default(), common_name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// As [`issue`](Self::issue), with parameters of the test's own (dates, serial number, ...).
    pub fn issue_with(&self, params: CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are valid");
        Certified {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            authority: self.der.clone(),
        }
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Certified {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        self.issue_with(params)
    }

    /// Trusts this authority alone and offers `alpn` (`&["h2"]`, `&["http/1.1"]`, `&[]`).
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client(alpn, None)
    }

    /// As [`client_config`](Self::client_config), showing a client certificate when asked.
    pub fn client_config_with(&self, alpn: &[&str], identity: &Certified) -> Arc<ClientConfig> {
        self.client(alpn, Some(identity))
    }

    fn client(&self, alpn: &[&str], identity: Option<&Certified>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions")
            .with_root_certificates(self.roots());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(own.chain(), own.key())
                .expect("certificate and key belong together"),
        };
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("the authority's certificate is valid");
        roots
    }
}

impl Certified {
    /// Writes `<stem>.crt` and `<stem>.key` and returns both paths.
    pub fn write(&self, directory: &Path, stem: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) =
            (directory.join(format!("{stem}.crt")), directory.join(format!("{stem}.key")));
        std::fs::write(&certificate, &self.certificate_pem).expect("the directory is writable");
        std::fs::write(&key, &self.key_pem).expect("the directory is writable");
        (certificate, key)
    }

    pub fn server_config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        self.server(alpn, None)
    }

    /// Accepts only clients with a certificate of `authority`.
    pub fn server_config_requiring(&self, alpn: &[&str], authority: &Authority) -> Arc<ServerConfig> {
        self.server(alpn, Some(authority))
    }

    fn server(&self, alpn: &[&str], clients: Option<&Authority>) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider)
                    .build()
                    .expect("there is a root"),
            ),
        };
        let mut config =
            builder.with_single_cert(self.chain(), self.key()).expect("certificate and key belong together");
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let own = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).expect("made by us");
        vec![own, self.authority.clone()]
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("made by us")
    }
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// `name` as rustls wants it; an address is a name too.
pub(crate) fn server_name(name: &str) -> rustls::pki_types::ServerName<'static> {
    match name.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => name.to_owned().try_into().expect("a valid server name"),
    }
}
