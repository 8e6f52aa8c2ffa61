//! Certificates for the tests of this module.

use std::sync::Arc;

use lb_config::dynamic::{KeyPair, Pem, ServersTransport, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, ServerConfig,
    ServerConnection,
};
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Ecdsa,
    Rsa,
}

pub(super) fn pem(text: &str) -> Pem {
    Pem(Arc::from(text.as_bytes()))
}

fn key(kind: Key) -> rcgen::KeyPair {
    match kind {
        Key::Ecdsa => rcgen::KeyPair::generate().unwrap(),
        Key::Rsa => rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let (uris, names): (Vec<String>, Vec<String>) =
        names.iter().map(|&name| name.to_owned()).partition(|name| name.contains("://"));
    let mut params = CertificateParams::new(names).unwrap();
    params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
    params.distinguished_name.push(DnType::CommonName, names_first(&params));
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    params.serial_number = Some([1, 2, 3].to_vec().into());
    params
}

fn names_first(params: &CertificateParams) -> String {
    match params.subject_alt_names.first() {
        Some(SanType::DnsName(name)) => name.to_string(),
        _ => "no name".to_owned(),
    }
}

/// A self-signed certificate for these names.
pub(super) fn pair(names: &[&str], kind: Key) -> KeyPair {
    let key = key(kind);
    let certificate = params(names).self_signed(&key).unwrap();
    KeyPair {
        cert: pem(&certificate.pem()),
        key: pem(&key.serialize_pem()),
        origin: format!("{}.pem", names[0]),
    }
}

/// A self-signed certificate as `openssl req -x509` makes it: marked as an authority.
pub(super) fn authority_pair(names: &[&str]) -> KeyPair {
    let key = key(Key::Ecdsa);
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    KeyPair { cert: pem(&certificate.pem()), key: pem(&key.serialize_pem()), origin: "authority.pem".into() }
}

/// An authority that issues certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    pub(super) pem: Pem,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = key(Key::Ecdsa);
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: pem(&certificate.pem()), issuer: Issuer::new(params, key) }
    }

    /// A certificate for a server or a client; names with `://` become URIs.
    pub(super) fn issue(&self, names: &[&str]) -> KeyPair {
        self.issue_for(names, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// A certificate for these purposes.
    pub(super) fn issue_for(&self, names: &[&str], purposes: &[ExtendedKeyUsagePurpose]) -> KeyPair {
        let key = key(Key::Ecdsa);
        let mut params = params(names);
        params.extended_key_usages = purposes.to_vec();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        KeyPair { cert: pem(&certificate.pem()), key: pem(&key.serialize_pem()), origin: "issued.pem".into() }
    }

    /// Somebody with a certificate of this authority, who is none, but issues certificates all the same.
    pub(super) fn pretender(&self) -> Self {
        let key = key(Key::Ecdsa);
        let params = params(&["pretender.test"]);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: pem(&certificate.pem()), issuer: Issuer::new(params, key) }
    }
}

/// A transport that sets nothing.
pub(crate) fn transport() -> ServersTransport {
    ServersTransport {
        server_name: None,
        insecure_skip_verify: false,
        root_cas: Vec::new(),
        certificates: Vec::new(),
        max_idle_conns_per_host: None,
        dial_timeout: None,
        response_header_timeout: None,
        idle_conn_timeout: None,
        read_idle_timeout: None,
        ping_timeout: None,
        disable_http2: false,
        min_version: None,
        max_version: None,
        cipher_suites: Vec::new(),
        peer_cert_uri: None,
    }
}

/// Options that set nothing.
pub(super) fn options() -> TlsOptions {
    TlsOptions {
        min_version: None,
        max_version: None,
        cipher_suites: Vec::new(),
        curve_preferences: Vec::new(),
        client_auth: None,
        sni_strict: false,
        alpn_protocols: Vec::new(),
        disable_session_tickets: false,
    }
}

/// What a handshake agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) version: ProtocolVersion,
    pub(super) suite: CipherSuite,
    pub(super) alpn: Option<String>,
    pub(super) kind: HandshakeKind,
    /// Common name of the server's certificate.
    pub(super) server_cn: String,
    /// Number of certificates the client showed.
    pub(super) client_chain: usize,
}

/// Shakes hands in memory, session tickets included; the error is that of the side that found fault.
pub(super) fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> Result<Agreed, rustls::Error> {
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if wire.is_empty() && answer.is_empty() {
            break;
        }
    }
    let leaf = &client.peer_certificates().unwrap()[0];
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    Ok(Agreed {
        version: client.protocol_version().unwrap(),
        suite: client.negotiated_cipher_suite().unwrap().suite(),
        alpn: client.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap()),
        kind: client.handshake_kind().unwrap(),
        server_cn: leaf.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned(),
        client_chain: server.peer_certificates().map_or(0, <[_]>::len),
    })
}
