//! The `tls` section: certificates, stores, options.

use super::Draft;
use super::routers::domain;
use crate::decode::{Block, Field, Text};
use crate::dynamic::{ClientAuth, ClientAuthType, GeneratedCertificate, KeyPair, TlsOptions, TlsVersion};
use crate::pem::{self, INLINE};
use crate::problem::{Kind, quoted};
use crate::quarantine::DEFAULT_CERTIFICATE;
use crate::suggest;

/// TLS 1.2 suites that can be offered.
const CIPHER_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Suites that Traefik knows and rustls leaves out for their weakness.
const WEAK_SUITES: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// TLS 1.3 suites, always all offered, and a signal that is not a suite.
const FIXED_SUITES: [&str; 4] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_FALLBACK_SCSV"];

/// Spellings of key exchange groups, the canonical one first, and whether they can be offered.
const CURVES: [(&str, &str, bool); 7] = [
    ("CurveP256", "secp256r1", true),
    ("CurveP384", "secp384r1", true),
    ("CurveP521", "secp521r1", false),
    ("X25519", "x25519", true),
    ("X25519MLKEM768", "x25519mlkem768", true),
    ("SecP256r1MLKEM768", "secp256r1mlkem768", true),
    ("SecP384r1MLKEM1024", "secp384r1mlkem1024", false),
];

impl<'a> Draft<'a> {
    pub(super) fn read_tls(&mut self, block: &Block<'a>) {
        if let Some(certificates) = block.take("certificates") {
            for field in certificates.list() {
                self.certificate(&field);
            }
        }
        if let Some(stores) = block.take("stores") {
            for (entry, field) in stores.objects() {
                self.store(&entry.key, &field);
            }
        }
        self.objects(
            block,
            "options",
            Kind::TlsOptions,
            |_, _, field| tls_options(field),
            |config| &mut config.tls.options,
        );
    }

    /// One that cannot be read is left out; nothing else suffers (reference 2.14).
    fn certificate(&mut self, field: &Field<'a>) {
        let name = self.certificate_name(field);
        let pair = self.object(Kind::Certificate, &name, |_| {
            let block = field.object()?;
            let pair = pem::key_pair(&block);
            let stores = block.take("stores").map(|field| field.texts()).unwrap_or_default();
            block.finish();
            for store in stores.iter().filter(|store| store.value != "default") {
                store.warn(
                    format!("the store {} is never used", quoted(store.value)),
                    Some("only the store `default` is; remove `stores`".to_owned()),
                );
            }
            let wanted = stores.is_empty() || stores.iter().any(|store| store.value == "default");
            pair.filter(|_| wanted)
        });
        self.defined.entry(Kind::Certificate).or_default().insert(name.clone(), field.at());
        let pair =
            pair.map(|pair| if pair.origin == INLINE { KeyPair { origin: name, ..pair } } else { pair });
        if let Some(pair) = pair
            && !self.config.tls.certificates.contains(&pair)
        {
            self.config.tls.certificates.push(pair);
        }
    }

    /// Certificates have no names of their own: their file is what stays the same when the list changes.
    fn certificate_name(&self, field: &Field<'_>) -> String {
        match field.peek("certFile") {
            Some(path) if !pem::is_inline(path) && !path.is_empty() => path.to_owned(),
            _ => format!("{INLINE} {}:{}", self.files.name(field.at().file), field.path()),
        }
    }

    fn store(&mut self, name: &str, field: &Field<'a>) {
        let Some(block) = field.object() else { return };
        if name != "default" {
            block.warn(
                format!("the store {} is never used", quoted(name)),
                Some("only the store `default` is".to_owned()),
            );
        }
        if let Some(certificate) = block.take("defaultCertificate") {
            let defined = self.defined.entry(Kind::Certificate).or_default();
            defined.insert(DEFAULT_CERTIFICATE.to_owned(), certificate.at());
            let pair = self.object(Kind::Certificate, DEFAULT_CERTIFICATE, |_| {
                let block = certificate.block()?;
                let pair = pem::key_pair(&block);
                block.finish();
                pair
            });
            if name == "default" && self.config.tls.default_certificate.is_none() {
                self.config.tls.default_certificate = pair;
            } else if name == "default" && pair != self.config.tls.default_certificate {
                certificate.warn_at_key("another file defined the default certificate".to_owned(), None);
            }
        }
        if let Some(generated) = block.take("defaultGeneratedCert") {
            let read = self.generated_certificate(&generated);
            if name == "default" && self.config.tls.default_generated.is_none() {
                self.config.tls.default_generated = read;
            }
        }
        block.finish();
    }
}

impl<'a> Draft<'a> {
    /// A default certificate that a resolver orders. What is wrong with it costs nothing else.
    fn generated_certificate(&self, field: &Field<'a>) -> Option<GeneratedCertificate> {
        let block = field.block()?;
        let resolver = block.take_word("resolver").and_then(|field| field.text());
        let domain = block.take("domain").and_then(|field| field.object()).and_then(domain);
        block.finish();
        let (Some(resolver), Some(domain)) = (resolver, domain) else {
            let hint = "write `resolver: NAME` and `domain: {main: example.com}`".to_owned();
            let message = "the certificate needs a resolver and a domain".to_owned();
            field.report.tolerated(field.at(), &field.path(), message, Some(hint));
            return None;
        };
        self.know_resolver(&resolver);
        Some(GeneratedCertificate { resolver: resolver.value.to_owned(), domain })
    }
}

fn tls_options(field: &Field<'_>) -> Option<TlsOptions> {
    let block = field.object()?;
    let min_version = block.take("minVersion").and_then(|field| tls_min_version(&field));
    let max_version = block.take("maxVersion").and_then(|field| tls_max_version(&field));
    check_version_order(&block, min_version, max_version);
    let options = TlsOptions {
        min_version,
        max_version,
        cipher_suites: block.take("cipherSuites").map(|field| cipher_suites(&field)).unwrap_or_default(),
        curve_preferences: block.take("curvePreferences").map(|field| curves(&field)).unwrap_or_default(),
        client_auth: block.take("clientAuth").and_then(|field| client_auth(&field)),
        sni_strict: block.take("sniStrict").and_then(|field| field.boolean()).unwrap_or(false),
        alpn_protocols: block.take("alpnProtocols").map(|field| alpn_protocols(&field)).unwrap_or_default(),
        disable_session_tickets: block
            .take("disableSessionTickets")
            .and_then(|field| field.boolean())
            .unwrap_or(false),
    };
    block.without_effect(&["preferServerCipherSuites"], "the server's order always decides");
    block.finish();
    Some(options)
}

fn tls_version(text: &Text<'_>) -> Option<Option<TlsVersion>> {
    match text.value {
        "VersionTLS10" | "VersionTLS11" => Some(None),
        "VersionTLS12" => Some(Some(TlsVersion::Tls12)),
        "VersionTLS13" => Some(Some(TlsVersion::Tls13)),
        _ => {
            text.unknown_word(["VersionTLS12", "VersionTLS13"]);
            None
        }
    }
}

/// TLS 1.0 and 1.1 cannot be spoken: as a minimum they are as good as 1.2.
pub(crate) fn tls_min_version(field: &Field<'_>) -> Option<TlsVersion> {
    let text = field.text().filter(|text| !text.value.is_empty())?;
    match tls_version(&text)? {
        Some(version) => Some(version),
        None => {
            let message = format!("{} is not offered any more; the minimum is TLS 1.2", quoted(text.value));
            text.warn(message, Some("write `VersionTLS12`".to_owned()));
            Some(TlsVersion::Tls12)
        }
    }
}

pub(crate) fn tls_max_version(field: &Field<'_>) -> Option<TlsVersion> {
    let text = field.text().filter(|text| !text.value.is_empty())?;
    let version = tls_version(&text)?;
    if version.is_none() {
        let message = format!("{} is not offered any more", quoted(text.value));
        text.error(message, Some("remove it, or write `VersionTLS12`".to_owned()));
    }
    version
}

pub(super) fn check_version_order(block: &Block<'_>, min: Option<TlsVersion>, max: Option<TlsVersion>) {
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        block.error("`minVersion` is newer than `maxVersion`".to_owned(), Some("swap them".to_owned()));
    }
}

/// Those that can be offered, by their IANA names.
pub(super) fn cipher_suites(field: &Field<'_>) -> Vec<String> {
    let texts = field.texts();
    let mut suites: Vec<String> = Vec::new();
    for text in &texts {
        let name = match text.value {
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => CIPHER_SUITES[2],
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => CIPHER_SUITES[5],
            name => name,
        };
        if CIPHER_SUITES.contains(&name) {
            suites.push(name.to_owned());
        } else if FIXED_SUITES.contains(&name) {
            text.warn(format!("{} cannot be chosen; TLS 1.3 offers all its suites", quoted(name)), None);
        } else if WEAK_SUITES.contains(&name) {
            text.warn(format!("{} is weak and never offered", quoted(name)), Some("remove it".to_owned()));
        } else {
            text.error(
                format!("no cipher suite is called {}", quoted(name)),
                Some(suggest::hint(name, "cipher suites", CIPHER_SUITES)),
            );
        }
    }
    let tls12_named = texts.iter().any(|text| !FIXED_SUITES.contains(&text.value));
    if suites.is_empty() && tls12_named {
        field.error("none of these cipher suites can be offered".to_owned(), None);
    }
    suites
}

fn curves(field: &Field<'_>) -> Vec<String> {
    let texts = field.texts();
    let mut curves: Vec<String> = Vec::new();
    for text in &texts {
        let named = |spelling: &str| spelling == text.value || spelling.to_ascii_lowercase() == text.value;
        match CURVES.iter().find(|(name, alias, _)| named(name) || named(alias)) {
            Some((name, _, true)) => curves.push((*name).to_owned()),
            Some((name, _, false)) => text.warn(format!("{} cannot be offered", quoted(name)), None),
            None => text.error(
                format!("no curve is called {}", quoted(text.value)),
                Some(suggest::hint(text.value, "curves", CURVES.iter().map(|(name, _, _)| *name))),
            ),
        }
    }
    if curves.is_empty() && !texts.is_empty() {
        field.error("none of these curves can be offered".to_owned(), None);
    }
    curves
}

fn alpn_protocols(field: &Field<'_>) -> Vec<String> {
    let mut protocols = Vec::new();
    for text in field.texts() {
        // RFC 7301 section 3.1: 1 to 255 bytes.
        if text.value.is_empty() || text.value.len() > 255 {
            text.error("an ALPN protocol has 1 to 255 bytes", None);
        } else {
            protocols.push(text.value.to_owned());
        }
    }
    protocols
}

fn client_auth(field: &Field<'_>) -> Option<ClientAuth> {
    const TYPES: [(&str, ClientAuthType); 5] = [
        ("NoClientCert", ClientAuthType::NoClientCert),
        ("RequestClientCert", ClientAuthType::RequestClientCert),
        ("RequireAnyClientCert", ClientAuthType::RequireAnyClientCert),
        ("VerifyClientCertIfGiven", ClientAuthType::VerifyClientCertIfGiven),
        ("RequireAndVerifyClientCert", ClientAuthType::RequireAndVerifyClientCert),
    ];
    let block = field.block()?;
    let ca_files = block.take("caFiles");
    let ca = ca_files.as_ref().map(pem::certificate_list).unwrap_or_default();
    let kind_field = block.take_word("clientAuthType");
    let kind = match &kind_field {
        Some(field) => field.choice(&TYPES),
        None if ca_files.is_some() => Some(ClientAuthType::RequireAndVerifyClientCert),
        None => Some(ClientAuthType::NoClientCert),
    };
    let verifies = [ClientAuthType::VerifyClientCertIfGiven, ClientAuthType::RequireAndVerifyClientCert];
    if kind.is_some_and(|kind| verifies.contains(&kind)) && ca_files.is_none() {
        block.error(
            "`caFiles` is missing".to_owned(),
            Some("name the CAs that sign client certificates".to_owned()),
        );
    }
    block.finish();
    Some(ClientAuth { ca, kind: kind? })
}

#[cfg(test)]
mod tests {
    use crate::dynamic::{ClientAuthType, TlsVersion};
    use crate::testing::{load, problems};

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    fn options(text: &str) -> Vec<String> {
        problems(&format!("tls: {{options: {{x: {text}}}}}"))
    }

    #[test]
    fn options_are_qualified_except_the_default() {
        let loaded = load(
            "tls: {options: {default: {clientAuth: {clientAuthType: ''}}, x: {minVersion: VersionTLS13, curvePreferences: [secp256r1, X25519]}}}",
        );
        assert_eq!(loaded.config.tls.options.keys().collect::<Vec<_>>(), ["default", "x@file"]);
        let x = &loaded.config.tls.options["x@file"];
        assert_eq!(x.min_version, Some(TlsVersion::Tls13));
        assert_eq!(x.curve_preferences, ["CurveP256", "X25519"]);
    }

    #[test]
    fn a_misspelt_option_is_never_ignored() {
        for (text, expected) in [
            ("{minVersion: TLS13}", "minVersion: `TLS13` is not a known value"),
            ("{maxVersion: VersionTLS11}", "maxVersion: `VersionTLS11` is not offered any more"),
            (
                "{minVersion: VersionTLS13, maxVersion: VersionTLS12}",
                ": `minVersion` is newer than `maxVersion`",
            ),
            ("{cipherSuites: [TLS_NOPE]}", "cipherSuites[0]: no cipher suite is called `TLS_NOPE`"),
            (
                "{cipherSuites: TLS_RSA_WITH_RC4_128_SHA}",
                "cipherSuites: none of these cipher suites can be offered",
            ),
            ("{curvePreferences: [p256]}", "curvePreferences[0]: no curve is called `p256`"),
            (
                "{clientAuth: {clientAuthType: RequireAndVerifyClientCert}}",
                "clientAuth: `caFiles` is missing",
            ),
            (
                "{clientAuth: {clientAuthType: Require}}",
                "clientAuth.clientAuthType: `Require` is not a known value",
            ),
            (
                "{clientAuth: {caFiles: /does/not/exist}}",
                "clientAuth.caFiles: `/does/not/exist` does not exist",
            ),
        ] {
            let found = options(text);
            assert!(
                found.iter().any(|problem| problem.contains(expected) && !problem.starts_with('~')),
                "{found:?}"
            );
        }
        assert_eq!(
            options("{minVersion: VersionTLS10}"),
            ["~tls.options.x.minVersion: `VersionTLS10` is not offered any more; the minimum is TLS 1.2"]
        );
        assert_eq!(options("{preferServerCipherSuites: true}").len(), 1);
    }

    #[test]
    fn certificates_come_from_files_or_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
        std::fs::write(&cert, CERT).unwrap();
        std::fs::write(&key, KEY).unwrap();
        let inline = |pem: &str| pem.replace('\n', "\\n");
        let text = format!(
            "tls:\n  certificates:\n  - {{certFile: {}, keyFile: {}}}\n  - {{certFile: \"{}\", keyFile: \"{}\"}}\n  \
             options: {{m: {{clientAuth: {{caFiles: {}}}}}}}\n",
            cert.display(),
            key.display(),
            inline(CERT),
            inline(KEY),
            cert.display(),
        );
        let loaded = load(&text);
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let origins: Vec<_> =
            loaded.config.tls.certificates.iter().map(|pair| pair.origin.as_str()).collect();
        assert_eq!(origins, [cert.to_str().unwrap(), "<inline> a.yml:tls.certificates[1]"]);
        assert_eq!(loaded.files, [cert, key]);
        let auth = loaded.config.tls.options["m@file"].client_auth.as_ref().unwrap();
        assert_eq!((auth.ca.len(), auth.kind), (1, ClientAuthType::RequireAndVerifyClientCert));
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_left_out_alone() {
        let swapped = format!("{{certFile: {KEY:?}, keyFile: {CERT:?}}}");
        let loaded = load(&format!("tls: {{certificates: [{swapped}, {{certFile: /does/not/exist}}]}}"));
        let messages: Vec<_> = loaded.problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect();
        assert_eq!(
            messages,
            [
                "tls.certificates[0].certFile: holds no certificate",
                "tls.certificates[0].keyFile: holds no private key",
                "tls.certificates[1]: `keyFile` is missing",
                "tls.certificates[1].certFile: `/does/not/exist` does not exist",
            ]
        );
        assert_eq!(loaded.config.tls.certificates, []);
        assert_eq!(loaded.disabled.len(), 2);
    }

    #[test]
    fn only_the_default_store_counts() {
        let found = problems("tls: {stores: {default: {}, other: {}}}");
        assert_eq!(found, ["~tls.stores.other: the store `other` is never used"]);
    }

    #[test]
    fn a_default_certificate_may_be_ordered() {
        let text =
            |generated: &str| format!("tls: {{stores: {{default: {{defaultGeneratedCert: {generated}}}}}}}");
        let loaded = load(&text("{resolver: le, domain: {main: a.test, sans: [b.test]}}"));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let generated = loaded.config.tls.default_generated.unwrap();
        assert_eq!((generated.resolver.as_str(), generated.domain.main.as_str()), ("le", "a.test"));
        let found = problems(&text("{resolver: le}"));
        assert_eq!(
            found,
            ["tls.stores.default.defaultGeneratedCert: the certificate needs a resolver and a domain"]
        );
    }
}
