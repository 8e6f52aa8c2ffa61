//! `passTLSClientCert`: what servers are told of the certificates that the client has shown.

use std::cell::OnceCell;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lb_config::dynamic::{ClientCertInfo, DistinguishedName, PassTlsClientCert};
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Oid, Tag, oid};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::path::escape_except;
use super::{Step, go_url};
use crate::exchange::Exchange;

/// The certificates of one connection, its client's own first.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    chain: Vec<CertificateDer<'static>>,
    /// Made when a request first needs them; they stay the same for every other one of the connection.
    pem: OnceCell<String>,
    facts: OnceCell<Vec<Facts>>,
}

/// What `info` may ask for.
#[derive(Clone, Debug, Default)]
struct Facts {
    subject: Vec<Attribute>,
    issuer: Vec<Attribute>,
    serial_number: String,
    not_before: i64,
    not_after: i64,
    sans: Vec<String>,
}

type Attribute = (Kind, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    DomainComponent,
    Country,
    Province,
    Locality,
    Organization,
    OrganizationalUnit,
    SerialNumber,
    CommonName,
}

/// In the order in which they are sent.
const KINDS: [(Kind, &str, Oid<'static>); 8] = [
    (Kind::DomainComponent, "DC", oid!(0.9.2342.19200300.100.1.25)),
    (Kind::Country, "C", oid!(2.5.4.6)),
    (Kind::Province, "ST", oid!(2.5.4.8)),
    (Kind::Locality, "L", oid!(2.5.4.7)),
    (Kind::Organization, "O", oid!(2.5.4.10)),
    (Kind::OrganizationalUnit, "OU", oid!(2.5.4.11)),
    (Kind::SerialNumber, "SN", oid!(2.5.4.5)),
    (Kind::CommonName, "CN", oid!(2.5.4.3)),
];

pub(super) fn on_request(options: &PassTlsClientCert, x: &mut Exchange) -> Step {
    let Some(certificates) = &x.peer.certificates else { return Step::Next };
    if options.pem {
        x.head.set("X-Forwarded-Tls-Client-Cert", certificates.pem().as_bytes());
    }
    if let Some(wanted) = &options.info {
        let info: Vec<_> = certificates.facts().iter().map(|facts| facts.text(wanted)).collect();
        x.head.set("X-Forwarded-Tls-Client-Cert-Info", query_escape(&info.join(",")).as_bytes());
    }
    Step::Next
}

impl Certificates {
    /// `None` without any.
    pub(crate) fn new(chain: Option<&[CertificateDer<'static>]>) -> Option<Box<Self>> {
        let chain = chain?.to_vec();
        (!chain.is_empty()).then(|| Box::new(Self { chain, pem: OnceCell::new(), facts: OnceCell::new() }))
    }

    fn pem(&self) -> &str {
        self.pem.get_or_init(|| {
            let encoded: Vec<_> = self.chain.iter().map(|one| STANDARD.encode(one)).collect();
            encoded.join(",")
        })
    }

    fn facts(&self) -> &[Facts] {
        self.facts.get_or_init(|| self.chain.iter().map(Facts::read).collect())
    }
}

impl Facts {
    /// Nothing of a certificate that cannot be read, which a verified one always can.
    fn read(der: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let validity = certificate.validity();
        Self {
            subject: attributes(certificate.subject()),
            issuer: attributes(certificate.issuer()),
            serial_number: certificate.tbs_certificate.serial.to_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            sans: sans(&certificate),
        }
    }

    fn text(&self, wanted: &ClientCertInfo) -> String {
        let mut parts = Vec::new();
        let mut part = |name: &str, value: &str| {
            if !value.is_empty() {
                parts.push(format!("{name}=\"{value}\""));
            }
        };
        part("Subject", &name(&self.subject, wanted.subject.as_ref()));
        part("Issuer", &name(&self.issuer, wanted.issuer.as_ref()));
        if wanted.serial_number {
            part("SerialNumber", &self.serial_number);
        }
        // Go prints the time as a number without a sign, wrapped before 1970.
        if wanted.not_before {
            part("NB", &(self.not_before as u64).to_string());
        }
        if wanted.not_after {
            part("NA", &(self.not_after as u64).to_string());
        }
        if wanted.sans {
            part("SAN", &self.sans.join(","));
        }
        parts.join(";")
    }
}

/// The attributes that are asked for, as `C=FR,O=a,O=b`.
fn name(attributes: &[Attribute], wanted: Option<&DistinguishedName>) -> String {
    let Some(wanted) = wanted else { return String::new() };
    let mut text = String::new();
    for (kind, label, _) in KINDS {
        let (is_wanted, has_one) = match kind {
            Kind::DomainComponent => (wanted.domain_component, false),
            Kind::Country => (wanted.country, false),
            Kind::Province => (wanted.province, false),
            Kind::Locality => (wanted.locality, false),
            Kind::Organization => (wanted.organization, false),
            Kind::OrganizationalUnit => (wanted.organizational_unit, false),
            Kind::SerialNumber => (wanted.serial_number, true),
            Kind::CommonName => (wanted.common_name, true),
        };
        if !is_wanted {
            continue;
        }
        let values = || attributes.iter().filter(|(of, _)| *of == kind).map(|(_, value)| value.as_str());
        // Of several common names or serial numbers Go knows the last one.
        let skipped = if has_one { values().count().saturating_sub(1) } else { 0 };
        for value in values().skip(skipped).filter(|value| !value.is_empty() || kind == Kind::DomainComponent)
        {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(label);
            text.push('=');
            text.push_str(value);
        }
    }
    text
}

fn attributes(name: &X509Name<'_>) -> Vec<Attribute> {
    let known = |attribute: &AttributeTypeAndValue<'_>| {
        let (kind, ..) = KINDS.into_iter().find(|(.., oid)| oid == attribute.attr_type())?;
        Some((kind, text(attribute)?))
    };
    name.iter_attributes().filter_map(known).collect()
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    let data = attribute.as_slice();
    match value.tag() {
        // Latin-1, as Go takes it.
        Tag::T61String => Some(data.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units: Vec<_> =
                data.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
            Some(String::from_utf16_lossy(&units))
        }
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(data).ok().map(str::to_owned)
        }
        _ => None,
    }
}

/// DNS names, then mail addresses, IP addresses, URIs.
fn sans(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut kinds: [Vec<String>; 4] = Default::default();
    for name in &extension.value.general_names {
        let (kind, value) = match name {
            GeneralName::DNSName(name) => (0, (*name).to_owned()),
            GeneralName::RFC822Name(address) => (1, (*address).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(address) => (2, address.to_canonical().to_string()),
                None => continue,
            },
            GeneralName::URI(uri) => (3, go_url::normalised(uri).unwrap_or_else(|_| (*uri).to_owned())),
            _ => continue,
        };
        kinds[kind].push(value);
    }
    kinds.concat()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str) -> String {
    escape_except(text.as_bytes(), b"-._~ ").replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::forwarded::Peer;

    fn certificate() -> CertificateDer<'static> {
        use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, SanType};
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "a+b \"é\"");
        params
            .distinguished_name
            .push(DnType::OrganizationName, DnValue::BmpString("Vigie, SA".try_into().unwrap()));
        params.distinguished_name.push(DnType::CountryName, "FR");
        params.distinguished_name.push(DnType::from_oid(&[0, 9, 2342, 19200300, 100, 1, 25]), "org");
        params.distinguished_name.push(DnType::from_oid(&[2, 5, 4, 5]), "17");
        params.subject_alt_names = vec![
            SanType::URI("https://a.test/x y".try_into().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::Rfc822Name("a@b.test".try_into().unwrap()),
            SanType::DnsName("*.a.test".try_into().unwrap()),
        ];
        params.serial_number = Some(rcgen::SerialNumber::from(0x0123_4567_89ab_cdef_u64));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2050, 1, 1);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn certificates_are_passed_on_as_by_traefik() {
        let all = DistinguishedName {
            country: true,
            province: true,
            locality: true,
            organization: true,
            organizational_unit: true,
            common_name: true,
            serial_number: true,
            domain_component: true,
        };
        let info = ClientCertInfo {
            not_after: true,
            not_before: true,
            sans: true,
            serial_number: true,
            subject: Some(all),
            issuer: Some(DistinguishedName { country: true, ..DistinguishedName::default() }),
        };
        let chain = [certificate(), certificate()];
        let ask = |chain: &[CertificateDer<'static>], options: &PassTlsClientCert| {
            let mut peer = Peer::new([192, 0, 2, 1].into(), true);
            peer.certificates = Certificates::new(Some(chain));
            let mut x = Exchange::new(std::rc::Rc::new(peer), tokio::time::Instant::now().into_std());
            x.head.append("X-Forwarded-Tls-Client-Cert-Info", b"as a trusted proxy has it");
            assert!(matches!(on_request(options, &mut x), Step::Next));
            let get = |name| x.head.get_str(name).map(str::to_owned);
            (get("x-forwarded-tls-client-cert"), get("x-forwarded-tls-client-cert-info"))
        };
        let (pem, told) = ask(&chain, &PassTlsClientCert { pem: true, info: Some(info) });
        let encoded = chain.each_ref().map(|one| STANDARD.encode(one));
        assert_eq!(pem, Some(encoded.join(",")));
        let expected = "Subject%3D%22DC%3Dorg%2CC%3DFR%2CO%3DVigie%2C+SA%2CSN%3D17%2CCN%3Da%2Bb+%22%C3%A9%22%22%3B\
                        Issuer%3D%22C%3DFR%22%3BSerialNumber%3D%2281985529216486895%22%3B\
                        NB%3D%221577836800%22%3BNA%3D%222524608000%22%3B\
                        SAN%3D%22%2A.a.test%2Ca%40b.test%2C2001%3Adb8%3A%3A1%2Chttps%3A%2F%2Fa.test%2Fx%2520y%22";
        assert_eq!(told, Some(format!("{expected}%2C{expected}")));

        let trusted = Some("as a trusted proxy has it".to_owned());
        let nothing = PassTlsClientCert { pem: false, info: None };
        assert_eq!(ask(&chain, &nothing), (None, trusted.clone()));
        let everything = PassTlsClientCert { pem: true, info: Some(ClientCertInfo::default()) };
        assert_eq!(ask(&[], &everything), (None, trusted), "without a certificate nothing changes");
        assert_eq!(ask(&chain[..1], &everything).1.as_deref(), Some(""));
    }

    #[test]
    fn queries_are_escaped_as_by_go() {
        assert_eq!(query_escape("a b+c*d~é/"), "a+b%2Bc%2Ad~%C3%A9%2F");
    }
}
