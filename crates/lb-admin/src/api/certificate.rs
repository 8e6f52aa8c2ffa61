//! The certificates of the default store: `/api/certificates`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_config::dynamic::{KeyPair, Tls};
use lb_observe::rfc3339;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;

use super::list;
use super::object::Object;
use crate::Response;
use crate::query::Query;

/// As Traefik has it.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is shown of one, as Traefik names it.
struct Certificate {
    common_name: String,
    issuer_name: String,
    issuer_organization: String,
    names: Vec<String>,
    not_after: SystemTime,
    /// SHA-256 of all of it, in hexadecimal digits: its name.
    fingerprint: String,
    status: &'static str,
    /// The rest.
    object: Object,
}

pub(super) fn list(tls: &Tls, now: SystemTime, query: &Query) -> Response {
    let mut certificates = all(tls, now);
    certificates.retain(|certificate| {
        let Certificate { common_name, issuer_name, issuer_organization, .. } = certificate;
        let mut texts = vec![common_name.as_str(), issuer_name, issuer_organization];
        texts.extend(certificate.names.iter().map(String::as_str));
        list::is_sought(query, &texts) && list::has_status(query, certificate.status)
    });
    list::sort(
        &mut certificates,
        query,
        |certificate| &certificate.common_name,
        |a, b| match query.get("sortBy") {
            Some("status") => a.status.cmp(b.status),
            Some("issuer") => a.issuer().cmp(b.issuer()),
            Some("validUntil") => a.not_after.cmp(&b.not_after),
            _ => a.common_name.cmp(&b.common_name),
        },
    );
    list::page(certificates, query, Certificate::build)
}

pub(super) fn one(tls: &Tls, now: SystemTime, fingerprint: &str) -> Option<Value> {
    let found = all(tls, now).into_iter().find(|certificate| certificate.fingerprint == fingerprint);
    found.map(Certificate::build)
}

/// `enabled`, `warning` within 30 days of its end, or `disabled` after it: for the overview.
pub(super) fn statuses(tls: &Tls, now: SystemTime) -> Vec<&'static str> {
    let status = |certificate: Certificate| match certificate.status {
        "expired" => "disabled",
        status => status,
    };
    all(tls, now).into_iter().map(status).collect()
}

/// Each once. What cannot be read is told as a broken object, and is not in the configuration.
fn all(tls: &Tls, now: SystemTime) -> Vec<Certificate> {
    let mut seen = HashSet::new();
    let pairs = tls.certificates.iter().chain(&tls.default_certificate);
    pairs
        .filter_map(|pair| Certificate::read(pair, now))
        .filter(|certificate| seen.insert(certificate.fingerprint.clone()))
        .collect()
}

impl Certificate {
    fn read(pair: &KeyPair, now: SystemTime) -> Option<Self> {
        let pem = x509_parser::pem::Pem::iter_from_buffer(&pair.cert.0)
            .find_map(|pem| pem.ok().filter(|pem| pem.label == "CERTIFICATE"))?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
        let [not_before, not_after] = [certificate.validity().not_before, certificate.validity().not_after]
            .map(|time| UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or(0)));
        let status = match not_after.duration_since(now) {
            Err(_) => "expired",
            Ok(left) if left < EXPIRES_SOON => "warning",
            Ok(_) => "enabled",
        };
        let mut names = names(&certificate);
        names.sort();
        let (subject, issuer) = (certificate.subject(), certificate.issuer());
        let common_name = attribute(subject, &oid::OID_X509_COMMON_NAME);
        let (issuer_name, issuer_organization) = (
            attribute(issuer, &oid::OID_X509_COMMON_NAME),
            attribute(issuer, &oid::OID_X509_ORGANIZATION_NAME),
        );
        let (key_type, key_size) = key(certificate.public_key().parsed().ok());
        let fingerprint = sha256(&pem.contents);
        let object = Object::new()
            .set("name", fingerprint.as_str())
            .set("sans", names.clone())
            .set("notAfter", rfc3339(not_after))
            .set("notBefore", rfc3339(not_before))
            .set("serialNumber", certificate.tbs_certificate.serial.to_string())
            .set("commonName", common_name.as_str())
            .text("issuerOrg", &issuer_organization)
            .text("issuerCN", &issuer_name)
            .text("issuerCountry", &attribute(issuer, &oid::OID_X509_COUNTRY_NAME))
            .text("organization", &attribute(subject, &oid::OID_X509_ORGANIZATION_NAME))
            .text("country", &attribute(subject, &oid::OID_X509_COUNTRY_NAME))
            .set("version", format!("v{}", certificate.version().0 + 1))
            .set("keyType", key_type)
            .number("keySize", key_size)
            .set("signatureAlgorithm", signature(&certificate))
            .set("certFingerprint", fingerprint.as_str())
            .set("publicKeyFingerprint", sha256(certificate.public_key().raw))
            .set("status", status);
        Some(Self {
            common_name,
            issuer_name,
            issuer_organization,
            names,
            not_after,
            fingerprint,
            status,
            object,
        })
    }

    /// Who is sorted by.
    fn issuer(&self) -> &str {
        if self.issuer_organization.is_empty() { &self.issuer_name } else { &self.issuer_organization }
    }

    fn build(self) -> Value {
        self.object.build()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// Of several names the last, of anything else the first, as by Go; or nothing.
fn attribute(name: &X509Name<'_>, kind: &oid::Oid<'static>) -> String {
    let mut all = name.iter_by_oid(kind);
    let chosen = if *kind == oid::OID_X509_COMMON_NAME { all.last() } else { all.next() };
    chosen.and_then(|attribute| attribute.as_str().ok()).unwrap_or_default().to_owned()
}

/// Its kind and its size in bits, 0 where Traefik shows none.
fn key(key: Option<PublicKey<'_>>) -> (&'static str, i64) {
    match key {
        Some(PublicKey::RSA(key)) => ("RSA", key.key_size().try_into().unwrap_or(0)),
        // Of P-521 the point has whole bytes.
        Some(PublicKey::EC(point)) => ("ECDSA", point.key_size().min(521).try_into().unwrap_or(0)),
        _ => ("Unknown", 0),
    }
}

/// As Go's `x509.SignatureAlgorithm` prints itself.
fn signature(certificate: &X509Certificate<'_>) -> &'static str {
    let algorithm = &certificate.signature_algorithm;
    let known = [
        (&oid::OID_PKCS1_SHA1WITHRSA, "SHA1-RSA"),
        (&oid::OID_PKCS1_SHA256WITHRSA, "SHA256-RSA"),
        (&oid::OID_PKCS1_SHA384WITHRSA, "SHA384-RSA"),
        (&oid::OID_PKCS1_SHA512WITHRSA, "SHA512-RSA"),
        (&oid::OID_SIG_ECDSA_WITH_SHA256, "ECDSA-SHA256"),
        (&oid::OID_SIG_ECDSA_WITH_SHA384, "ECDSA-SHA384"),
        (&oid::OID_SIG_ECDSA_WITH_SHA512, "ECDSA-SHA512"),
        (&oid::OID_SIG_ED25519, "Ed25519"),
    ];
    if let Some((_, name)) = known.iter().find(|(known, _)| **known == algorithm.algorithm) {
        return name;
    }
    match SignatureAlgorithm::try_from(algorithm) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => match parameters.hash_algorithm_oid() {
            hash if *hash == oid::OID_NIST_HASH_SHA384 => "SHA384-RSAPSS",
            hash if *hash == oid::OID_NIST_HASH_SHA512 => "SHA512-RSAPSS",
            _ => "SHA256-RSAPSS",
        },
        _ => "0",
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use lb_config::dynamic::Pem;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair as Key};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn tls(now: SystemTime) -> Tls {
        let pair = |cn: &str, names: &[&str], days: i32| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = DistinguishedName::new();
            // Of two names the last counts, of two organisations the first.
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "nobody");
            params.distinguished_name.push(DnType::CommonName, cn);
            if cn != "b.test" {
                params.distinguished_name.push(DnType::OrganizationName, format!("{cn} and sons"));
                params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "others");
            }
            params.not_before = (now - 100 * DAY).into();
            params.not_after = (now - 100 * DAY + DAY * (100 + days).unsigned_abs()).into();
            let key = Key::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let [cert, key] =
                [certificate.pem(), key.serialize_pem()].map(|pem| Pem(pem.into_bytes().into()));
            KeyPair { cert, key, origin: cn.to_owned() }
        };
        let twice = pair("a.test", &["www.a.test", "192.0.2.1", "a.test"], 90);
        Tls {
            certificates: vec![pair("c.test", &[], -1), twice.clone(), pair("b.test", &[], 10)],
            default_certificate: Some(twice),
            ..Tls::default()
        }
    }

    #[test]
    fn certificates_are_shown_once_with_what_becomes_of_them() {
        let now = UNIX_EPOCH + 20_000 * DAY;
        let tls = tls(now);
        let seen = |query: &str| -> Vec<Value> {
            let response = list(&tls, now, &Query::parse(query));
            serde_json::from_slice(&response.body).unwrap()
        };
        let names = |query: &str| -> Vec<String> {
            seen(query).iter().map(|one| one["commonName"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(""), ["a.test", "b.test", "c.test"]);
        assert_eq!(names("sortBy=validUntil"), ["c.test", "b.test", "a.test"]);
        assert_eq!(names("status=warning"), ["b.test"]);
        assert_eq!(names("sortBy=issuer&direction=desc"), ["c.test", "b.test", "a.test"]);
        assert_eq!(names("search=c.test+c.test"), [""; 0]);
        assert_eq!(names("search=192.0"), ["a.test"]);
        assert_eq!(names("search=C.TEST+and"), ["c.test"]);
        assert_eq!(statuses(&tls, now), ["disabled", "enabled", "warning"]);
        let first = &seen("")[0];
        assert_eq!(first["sans"], serde_json::json!(["192.0.2.1", "a.test", "www.a.test"]));
        assert_eq!((&first["keyType"], &first["keySize"]), (&"ECDSA".into(), &256.into()));
        assert_eq!((&first["signatureAlgorithm"], &first["version"]), (&"ECDSA-SHA256".into(), &"v3".into()));
        assert_eq!(
            (&first["organization"], &first["status"]),
            (&"a.test and sons".into(), &"enabled".into())
        );
        assert_eq!(one(&tls, now, first["name"].as_str().unwrap()).as_ref(), Some(first));
        assert_eq!(one(&tls, now, "abc"), None);
    }
}
