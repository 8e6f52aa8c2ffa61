//! The certificates clients may be shown, and the choice among them.
//!
//! By server name in lower case: an exact name before a wildcard for one label, then the default certificate
//! (reference 2.14). Where several certificates cover a name, Traefik's order decides, that of their
//! sorted names read backwards; but unlike Traefik one certificate per key type is kept for each name, so an ECDSA
//! and an RSA certificate serve side by side, whichever the client can verify, ECDSA first for its cost.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use lb_config::dynamic::{GeneratedCertificate, KeyPair, Tls};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use smallvec::SmallVec;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::algorithms::provider;

/// What metrics and the dashboard say about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertInfo {
    /// Subject common name, possibly empty.
    pub(crate) cn: String,
    /// DNS names, sorted and joined with commas.
    pub(crate) sans: String,
    /// Decimal.
    pub(crate) serial: String,
    /// Seconds since 1970.
    pub(crate) not_after_unix: i64,
}

/// Why a certificate and its key cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the certificate file contains no certificate")]
    NoCertificate,
    #[error("the key file contains no unencrypted private key")]
    NoKey,
    #[error("not valid PEM: {0}")]
    Pem(String),
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error(
        "the private key cannot be used: RSA keys have at least 2048 bits, others are of P-256, P-384, P-521 or Ed25519"
    )]
    Unusable,
    #[error("the certificate cannot be read: {0}")]
    X509(String),
}

/// A usable certificate with its names.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) info: CertInfo,
    /// Lower case: common name, DNS names, addresses.
    names: Vec<String>,
}

impl Certificate {
    pub(super) fn load(pair: &KeyPair) -> Result<Self, CertificateError> {
        let key = certified_key(pair)?;
        Self::new(key)
    }

    fn new(key: CertifiedKey) -> Result<Self, CertificateError> {
        let leaf = key.cert.first().ok_or(CertificateError::NoCertificate)?;
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|error| CertificateError::X509(error.to_string()))?;
        let cn = leaf.subject().iter_common_name().last().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
        let cn = cn.to_owned();
        let mut dns_names = Vec::new();
        let mut names = vec![cn.to_ascii_lowercase()];
        let alternatives =
            leaf.subject_alternative_name().map_err(|error| CertificateError::X509(error.to_string()))?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    dns_names.push((*name).to_owned());
                    names.push(name.to_ascii_lowercase());
                }
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        dns_names.sort();
        let info = CertInfo {
            cn,
            sans: dns_names.join(","),
            serial: leaf.tbs_certificate.serial.to_string(),
            not_after_unix: leaf.validity().not_after.timestamp(),
        };
        Ok(Self { key: Arc::new(key), info, names })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// The certificates of one PEM text, in order.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| CertificateError::Pem(error.to_string()))?;
    if chain.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(chain) }
}

pub(super) fn certified_key(pair: &KeyPair) -> Result<CertifiedKey, CertificateError> {
    let chain = chain(&pair.cert.0)?;
    let key = PrivateKeyDer::from_pem_slice(&pair.key.0).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => CertificateError::NoKey,
        error => CertificateError::Pem(error.to_string()),
    })?;
    let key = provider().key_provider.load_private_key(key).map_err(|_| CertificateError::Unusable)?;
    // Not by rustls, which would hold it against a certificate that it has version 1: whoever shows it reads no more of
    // it than its key.
    let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| CertificateError::X509(error.to_string()))?;
    if key.public_key().is_some_and(|public| public.as_ref() != leaf.public_key().raw) {
        return Err(CertificateError::Mismatch);
    }
    Ok(CertifiedKey::new(chain, key))
}

/// Subject of the first certificate of a client, as access logs show it: the attributes in Go's order, escaped by
/// RFC 4514 section 2.4; behind them, the last one first, those that Go has no name for (section 2.5 there).
pub(crate) fn subject(chain: &[CertificateDer<'_>]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let attributes = [
        ("SERIALNUMBER", oid_registry::OID_X509_SERIALNUMBER),
        ("CN", oid_registry::OID_X509_COMMON_NAME),
        ("OU", oid_registry::OID_X509_ORGANIZATIONAL_UNIT),
        ("O", oid_registry::OID_X509_ORGANIZATION_NAME),
        ("POSTALCODE", oid_registry::OID_X509_POSTAL_CODE),
        ("STREET", oid_registry::OID_X509_STREET_ADDRESS),
        ("L", oid_registry::OID_X509_LOCALITY_NAME),
        ("ST", oid_registry::OID_X509_STATE_OR_PROVINCE_NAME),
        ("C", oid_registry::OID_X509_COUNTRY_NAME),
    ];
    let mut text = String::new();
    for (name, oid) in &attributes {
        let values = certificate.subject().iter_by_oid(oid).filter_map(|value| value.as_str().ok());
        for (index, value) in values.enumerate() {
            if !text.is_empty() {
                text.push(if index == 0 { ',' } else { '+' });
            }
            text.push_str(name);
            text.push('=');
            push_escaped(&mut text, value);
        }
    }
    let others: Vec<_> = certificate
        .subject()
        .iter_attributes()
        .filter(|each| attributes.iter().all(|(_, oid)| oid != each.attr_type()))
        .collect();
    for other in others.into_iter().rev() {
        let Ok(value) = other.as_str() else { continue };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&other.attr_type().to_id_string());
        push_encoded(&mut text, value);
    }
    Some(text)
}

/// `value` as `=#` and the hexadecimal digits of its DER: a PrintableString where it can be one, else a UTF8String.
fn push_encoded(text: &mut String, value: &str) {
    let printable = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte));
    let length = value.len();
    let mut encoded = vec![if printable { 0x13 } else { 0x0c }];
    match u8::try_from(length) {
        Ok(short @ ..0x80) => encoded.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            encoded.push(0x80 | bytes.len() as u8);
            encoded.extend_from_slice(bytes);
        }
    }
    encoded.extend_from_slice(value.as_bytes());
    text.push_str("=#");
    encoded.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, character) in value.char_indices() {
        let special = match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            '#' => at == 0,
            ' ' => at == 0 || at == last,
            _ => false,
        };
        if special {
            text.push('\\');
        }
        text.push(character);
    }
}

/// Certificates for one name: at most one per key type, the preferred first.
type Candidates = SmallVec<[Arc<CertifiedKey>; 1]>;

/// All certificates of a snapshot, indexed.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// As configured, to find out what a reload has changed.
    loaded: Vec<Loaded>,
    default_loaded: Option<Loaded>,
    exact: HashMap<String, Candidates>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Candidates>,
    by_address: HashMap<IpAddr, Candidates>,
    default: Option<Arc<Certificate>>,
    default_generated: Option<GeneratedCertificate>,
}

#[derive(Clone, Debug)]
struct Loaded {
    pair: KeyPair,
    outcome: Result<Arc<Certificate>, CertificateError>,
}

impl Certificates {
    /// Loads and indexes the certificates of `tls`. `previous` itself comes back if nothing has changed, and each
    /// pair that has not is not parsed again.
    pub(super) fn build(tls: &Tls, previous: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(previous) = previous
            && previous.loaded.iter().map(|loaded| &loaded.pair).eq(&tls.certificates)
            && previous.default_loaded.as_ref().map(|loaded| &loaded.pair) == tls.default_certificate.as_ref()
            && previous.default_generated == tls.default_generated
        {
            return Arc::clone(previous);
        }
        let known: HashMap<_, _> = previous
            .into_iter()
            .flat_map(|previous| previous.loaded.iter().chain(&previous.default_loaded))
            .map(|loaded| ((&loaded.pair.cert.0, &loaded.pair.key.0), &loaded.outcome))
            .collect();
        let load = |pair: &KeyPair| {
            let outcome = match known.get(&(&pair.cert.0, &pair.key.0)) {
                Some(&outcome) => outcome.clone(),
                None => Certificate::load(pair).map(Arc::new),
            };
            Loaded { pair: pair.clone(), outcome }
        };
        let loaded: Vec<_> = tls.certificates.iter().map(load).collect();
        let default_loaded = tls.default_certificate.as_ref().map(load);
        let configured_default =
            default_loaded.as_ref().and_then(|loaded| loaded.outcome.as_ref().ok()).map(Arc::clone);
        // One that was ordered is among the others, as soon as it is there.
        let generated = tls.default_generated.as_ref().and_then(|wanted| {
            let main = wanted.domain.main.to_ascii_lowercase();
            let all = || std::iter::once(&main).chain(&wanted.domain.sans);
            let mut usable = loaded.iter().filter_map(|loaded| loaded.outcome.as_ref().ok());
            let covers = |names: &[String]| all().all(|name| names.contains(&name.to_ascii_lowercase()));
            usable.rfind(|certificate| covers(&certificate.names)).map(Arc::clone)
        });
        let mut certificates = Self {
            default: configured_default.or(generated).or_else(self_signed),
            default_generated: tls.default_generated.clone(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            by_address: HashMap::new(),
            loaded,
            default_loaded,
        };
        certificates.index();
        Arc::new(certificates)
    }

    fn index(&mut self) {
        let mut usable: Vec<_> =
            self.loaded.iter().filter_map(|loaded| loaded.outcome.as_ref().ok()).collect();
        // Traefik's order. Stable: of two with the same names the first one counts.
        usable.sort_by_cached_key(|certificate| std::cmp::Reverse(certificate.names.join(",")));
        for certificate in usable {
            for name in &certificate.names {
                let candidates = if let Ok(address) = name.parse::<IpAddr>() {
                    self.by_address.entry(address).or_default()
                } else if let Some(parent) = name.strip_prefix("*.") {
                    self.wildcard.entry(parent.to_owned()).or_default()
                } else {
                    self.exact.entry(name.clone()).or_default()
                };
                add(candidates, &certificate.key);
            }
        }
    }

    /// The certificate for a server name; `None` if only the default one is left.
    pub(super) fn for_name(&self, name: &str, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            lower.as_str()
        } else {
            name
        };
        let exact = self.exact.get(name);
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        let verifiable = |candidates: &Candidates| {
            candidates.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
        };
        // A client that can verify none of them is shown one all the same: the handshake must fail for the right
        // reason.
        exact
            .and_then(verifiable)
            .or_else(|| wildcard().and_then(verifiable))
            .or_else(|| exact.or_else(wildcard)?.first().cloned())
    }

    /// The certificate for a client that names no server and has connected to `address`.
    pub(super) fn for_address(&self, address: IpAddr) -> Option<&[Arc<CertifiedKey>]> {
        self.by_address.get(&address.to_canonical()).map(SmallVec::as_slice)
    }

    /// Whether a certificate other than the default one covers this name.
    pub(super) fn covers_name(&self, name: &str) -> bool {
        self.for_name(name, &[]).is_some()
    }

    /// Whether the local address can decide which certificate is shown.
    pub(super) fn knows_addresses(&self) -> bool {
        !self.by_address.is_empty()
    }

    /// Absent only if the system can make no key.
    pub(super) fn default_key(&self) -> Option<Arc<CertifiedKey>> {
        self.default.as_ref().map(|certificate| Arc::clone(&certificate.key))
    }

    /// What could not be loaded and why; the default certificate last.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&KeyPair, &CertificateError, IsDefault)> {
        let listed = self.loaded.iter().map(|loaded| (loaded, IsDefault(false)));
        let default = self.default_loaded.iter().map(|loaded| (loaded, IsDefault(true)));
        listed.chain(default).filter_map(|(loaded, is_default)| {
            Some((&loaded.pair, loaded.outcome.as_ref().err()?, is_default))
        })
    }

    /// All certificates in use, the default one included.
    pub(super) fn infos(&self) -> Vec<CertInfo> {
        self.in_use().map(|certificate| certificate.info.clone()).collect()
    }

    pub(super) fn keys(&self) -> Vec<Arc<CertifiedKey>> {
        self.in_use().map(|certificate| Arc::clone(&certificate.key)).collect()
    }

    fn in_use(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        let listed = self.loaded.iter().filter_map(|loaded| loaded.outcome.as_ref().ok());
        // One that was ordered as the default one is listed already.
        let default = self.default.iter();
        let default = default.filter(|own| {
            let mut listed = self.loaded.iter().filter_map(|loaded| loaded.outcome.as_ref().ok());
            !listed.any(|other| Arc::ptr_eq(own, other))
        });
        listed.chain(default)
    }
}

/// Whether a pair is the default certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsDefault(pub(super) bool);

fn add(candidates: &mut Candidates, key: &Arc<CertifiedKey>) {
    let algorithm = key.key.algorithm();
    if candidates.iter().any(|other| other.key.algorithm() == algorithm) {
        return;
    }
    let at = candidates.iter().take_while(|other| cost(other.key.algorithm()) <= cost(algorithm)).count();
    candidates.insert(at, Arc::clone(key));
}

/// How dear a signature is: an RSA-2048 one costs some ten times an ECDSA P-256 one.
fn cost(algorithm: SignatureAlgorithm) -> u8 {
    match algorithm {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 | SignatureAlgorithm::ED448 => 1,
        _ => 2,
    }
}

/// Shown while no other certificate fits. Made once per process, so a reload changes nothing for clients that have
/// accepted it.
fn self_signed() -> Option<Arc<Certificate>> {
    static CERTIFICATE: LazyLock<Option<Arc<Certificate>>> = LazyLock::new(|| {
        let mut random = [0; 16];
        provider().secure_random.fill(&mut random).ok()?;
        let label = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut parameters = rcgen::CertificateParams::new([format!("{label}.vigie.default")]).ok()?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "VIGIE DEFAULT CERT");
        let key = rcgen::KeyPair::generate().ok()?;
        let certificate = parameters.self_signed(&key).ok()?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).ok()?;
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], key, provider()).ok()?;
        Certificate::new(key).ok().map(Arc::new)
    });
    CERTIFICATE.clone()
}

#[cfg(test)]
mod tests {
    use lb_config::dynamic::Domain;

    use super::super::testing::{self, Key, pair};
    use super::*;

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];
    const BOTH: &[SignatureScheme] =
        &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];

    fn tls(certificates: Vec<KeyPair>) -> Tls {
        Tls { certificates, ..Tls::default() }
    }

    /// Position in the configuration of what is chosen for `name`.
    fn chosen(certificates: &Certificates, name: &str, schemes: &[SignatureScheme]) -> Option<usize> {
        let key = certificates.for_name(name, schemes)?;
        certificates.loaded.iter().position(|loaded| {
            loaded.outcome.as_ref().is_ok_and(|certificate| Arc::ptr_eq(&certificate.key, &key))
        })
    }

    #[test]
    fn exact_names_come_before_wildcards_for_one_label() {
        let certificates = Certificates::build(
            &tls(vec![
                pair(&["*.example.com"], Key::Ecdsa),
                pair(&["a.example.com", "other.test"], Key::Ecdsa),
                pair(&["*.a.example.com"], Key::Ecdsa),
                pair(&["a.example.com"], Key::Ecdsa),
            ]),
            None,
        );
        let rows = [
            ("a.example.com", Some(1)), // "a.example.com,other.test" sorts after "a.example.com"
            ("A.Example.COM", Some(1)),
            ("a.example.com.", Some(1)),
            ("b.example.com", Some(0)),
            ("x.a.example.com", Some(2)),
            ("x.b.example.com", None),
            ("example.com", None),
            ("other.test", Some(1)),
            ("com", None),
            ("", None),
        ];
        for (name, expected) in rows {
            assert_eq!(chosen(&certificates, name, BOTH), expected, "{name}");
            assert_eq!(certificates.covers_name(name), expected.is_some(), "{name}");
        }
    }

    #[test]
    fn the_client_decides_between_ecdsa_and_rsa() {
        let certificates = Certificates::build(
            &tls(vec![
                pair(&["a.test"], Key::Rsa),
                pair(&["a.test"], Key::Ecdsa),
                pair(&["a.test"], Key::Ecdsa),
                pair(&["*.test"], Key::Rsa),
                pair(&["b.test"], Key::Ecdsa),
            ]),
            None,
        );
        let rows = [
            ("a.test", BOTH, Some(1)),
            ("a.test", ECDSA, Some(1)),
            ("a.test", RSA, Some(0)),
            ("b.test", BOTH, Some(4)),
            ("b.test", RSA, Some(3)),   // the wildcard has what the exact name has not
            ("c.test", ECDSA, Some(3)), // nothing fits: shown all the same
        ];
        for (name, schemes, expected) in rows {
            assert_eq!(chosen(&certificates, name, schemes), expected, "{name} {schemes:?}");
        }
    }

    #[test]
    fn addresses_are_matched_without_their_mapping() {
        let certificates =
            Certificates::build(&tls(vec![pair(&["192.0.2.1", "2001:db8::1"], Key::Ecdsa)]), None);
        for (address, expected) in
            [("192.0.2.1", true), ("::ffff:192.0.2.1", true), ("2001:db8::1", true), ("192.0.2.2", false)]
        {
            assert_eq!(certificates.for_address(address.parse().unwrap()).is_some(), expected, "{address}");
        }
        assert!(certificates.knows_addresses());
    }

    #[test]
    fn a_certificate_of_version_1_is_shown_for_its_common_name() {
        let pem = super::super::testing::pem(include_str!("../../testdata/version1-client.pem"));
        let version_1 = KeyPair { cert: pem.clone(), key: pem, origin: "version 1".into() };
        let foreign = KeyPair { key: pair(&["a.test"], Key::Ecdsa).key, ..version_1.clone() };
        let loaded = Certificate::load(&version_1).unwrap();
        assert_eq!(loaded.names, [loaded.info.cn.to_ascii_lowercase()]);
        assert!(matches!(Certificate::load(&foreign), Err(CertificateError::Mismatch)));
        let certificates = Certificates::build(&tls(vec![version_1]), None);
        assert!(certificates.covers_name(&loaded.info.cn));
    }

    #[test]
    fn unusable_pairs_are_named_and_skipped() {
        let good = pair(&["a.test"], Key::Ecdsa);
        let other = pair(&["a.test"], Key::Ecdsa);
        let mismatch = KeyPair { key: other.key.clone(), ..good.clone() };
        let no_key = KeyPair { key: good.cert.clone(), ..good.clone() };
        let no_certificate = KeyPair { cert: testing::pem("nothing"), ..good.clone() };
        let broken = KeyPair {
            cert: testing::pem("-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"),
            ..good.clone()
        };
        let useless = KeyPair {
            key: testing::pem("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"),
            ..good.clone()
        };
        let certificates = Certificates::build(
            &Tls {
                certificates: vec![mismatch.clone(), no_key, no_certificate, broken, useless, good],
                default_certificate: Some(mismatch),
                ..Tls::default()
            },
            None,
        );
        let failures: Vec<_> =
            certificates.failures().map(|(_, error, is_default)| (error.to_string(), is_default.0)).collect();
        assert_eq!(failures[0], ("the private key does not belong to the certificate".into(), false));
        assert_eq!(failures[1], ("the key file contains no unencrypted private key".into(), false));
        assert_eq!(failures[2], ("the certificate file contains no certificate".into(), false));
        assert!(failures[3].0.starts_with("not valid PEM"), "{failures:?}");
        assert!(failures[4].0.contains("RSA keys have at least 2048 bits"), "{failures:?}");
        assert_eq!(failures[5], ("the private key does not belong to the certificate".into(), true));
        assert_eq!(failures.len(), 6);
        assert_eq!(chosen(&certificates, "a.test", BOTH), Some(5));
        assert_eq!(certificates.infos().last().unwrap().cn, "VIGIE DEFAULT CERT");
    }

    #[test]
    fn a_default_certificate_that_is_ordered_is_shown_once_it_is_there() {
        let domain = Domain { main: "D.test".to_owned(), sans: vec!["e.test".to_owned()] };
        let default_generated = Some(GeneratedCertificate { resolver: "le".to_owned(), domain });
        let mut tls = Tls { default_generated, ..tls(vec![pair(&["d.test"], Key::Ecdsa)]) };
        let shown = |certificates: &Certificates| certificates.default.as_ref().unwrap().info.clone();
        let before = Certificates::build(&tls, None);
        assert_eq!(shown(&before).cn, "VIGIE DEFAULT CERT", "not all names");
        tls.certificates.push(pair(&["d.test", "e.test"], Key::Ecdsa));
        let after = Certificates::build(&tls, Some(&before));
        assert_eq!(shown(&after).sans, "d.test,e.test");
        assert_eq!(after.infos().len(), 2, "told once");
        tls.default_certificate = Some(pair(&["own.test"], Key::Ecdsa));
        assert_eq!(shown(&Certificates::build(&tls, Some(&after))).sans, "own.test");
    }

    #[test]
    fn what_has_not_changed_is_kept() {
        let first = tls(vec![pair(&["a.test"], Key::Ecdsa)]);
        let before = Certificates::build(&first, None);
        assert!(Arc::ptr_eq(&before, &Certificates::build(&first.clone(), Some(&before))));

        let mut second = first.clone();
        second.certificates.insert(0, pair(&["b.test"], Key::Ecdsa));
        let after = Certificates::build(&second, Some(&before));
        assert!(!Arc::ptr_eq(&before, &after));
        let key = |certificates: &Certificates| certificates.for_name("a.test", BOTH).unwrap();
        assert!(Arc::ptr_eq(&key(&before), &key(&after)));
        assert!(Arc::ptr_eq(&before.default_key().unwrap(), &after.default_key().unwrap()));
    }

    #[test]
    fn infos_describe_each_certificate() {
        let certificates = Certificates::build(&tls(vec![pair(&["b.test", "*.a.test"], Key::Ecdsa)]), None);
        let infos = certificates.infos();
        let expected = CertInfo {
            cn: "b.test".into(),
            sans: "*.a.test,b.test".into(),
            serial: "66051".into(),
            not_after_unix: 1_893_456_000, // 2030-01-01
        };
        assert_eq!(infos.first(), Some(&expected));
        assert_eq!(infos.len(), 2);
    }

    #[test]
    fn subjects_are_written_as_go_does() {
        use rcgen::DnType;
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "FR"),
            (DnType::OrganizationName, "Vigie, SA"),
            (DnType::OrganizationalUnitName, "#1 \"ops\" "),
            (DnType::CommonName, "a+b"),
            (DnType::StateOrProvinceName, "S"),
            (DnType::LocalityName, "L"),
            (DnType::CustomDnType(vec![2, 5, 4, 17]), "99"),
            (DnType::CustomDnType(vec![2, 5, 4, 9]), "1 Way"),
            (DnType::CustomDnType(vec![2, 5, 4, 5]), "7"),
            (DnType::CustomDnType(vec![2, 5, 4, 42]), "ann"),
            (DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "x@y.z"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let certificate = params.self_signed(&key).unwrap();
        let expected = concat!(
            r#"SERIALNUMBER=7,CN=a\+b,OU=\#1 \"ops\"\ ,O=Vigie\, SA,POSTALCODE=99,STREET=1 Way,L=L,ST=S,C=FR,"#,
            "1.2.840.113549.1.9.1=#0c057840792e7a,2.5.4.42=#1303616e6e",
        );
        assert_eq!(subject(&[certificate.der().clone()]).as_deref(), Some(expected));
        assert_eq!(subject(&[]), None);
        assert_eq!(subject(&[CertificateDer::from(&b"nonsense"[..])]), None);
    }
}
