//! TLS towards clients: the options of `tls.options` made into rustls configurations.
//!
//! A connection is sniffed for its server name, the entry point maps the name to a profile, the profile hands out the
//! configuration for the handshake. What client certificates a session was opened with decides whether it may be
//! resumed, see [`tickets`]: where they are verified never, because neither the expiry of the certificate nor
//! its authority would be looked at again.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lb_config::dynamic::{ClientAuthType, Tls, TlsOptions};
use lb_config::{DEFAULT_CERTIFICATE, Kind};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError,
};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};

use super::algorithms::{self, Dropped, SelectionError};
use super::certificates::{CertInfo, CertificateError, Certificates, IsDefault};
use super::client_auth::{Proof, client_verifier};
use super::staples::stapled;
use super::tickets::{self, Class};
use crate::report::Report;

/// The fatal alert `unrecognized_name` as it goes over the wire when [`TlsProfile::config_for`] has nothing for the
/// client: RFC 6066 section 3, RFC 5246 section 7.2. rustls itself would say `access_denied`.
pub(crate) const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The fatal alert `protocol_version`, for clients that speak nothing above TLS 1.1: RFC 8446 appendix D.2. rustls
/// would say `handshake_failure`, since they do not send an extension that it looks for first.
pub(crate) const PROTOCOL_VERSION: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];

/// Sessions of TLS 1.2 clients without tickets, of each profile. The library's own default: such clients are rare, and
/// an entry takes some 200 bytes.
const CACHED_SESSIONS: usize = 256;

/// Tickets sent after each TLS 1.3 handshake. One, as Go and so Traefik do: resuming brings the next one, so a client
/// never runs out unless it opens connections in parallel; a second would cost each handshake another encryption and
/// some 200 bytes.
const TICKETS: usize = 1;

/// The options that apply where none are named.
const DEFAULT: &str = "default";

/// What could not be used as configured. The rest of the table works without it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TlsProblem {
    #[error("tls.certificates: {origin}: {cause}")]
    Certificate { origin: String, cause: CertificateError },
    #[error("tls.stores.default.defaultCertificate: {origin}: {cause}; a self-signed one is shown")]
    DefaultCertificate { origin: String, cause: CertificateError },
    /// Routers that use these options must not serve, nor may their hosts be served under others.
    #[error("tls.options.{name}: {cause}")]
    BrokenOptions { name: String, cause: OptionsError },
    #[error("tls.options.{name}: {what}")]
    Adjusted { name: String, what: Dropped },
    #[error("tls.options.{name}.clientAuth.caFiles: {count} certificates cannot be read and are ignored")]
    IgnoredAuthorities { name: String, count: usize },
}

/// Why options cannot be used at all.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error("clientAuth.caFiles: {0}")]
    Authority(#[from] CertificateError),
    #[error("clientAuth.caFiles: no certificate in it can be used")]
    NoUsableAuthority,
    #[error("clientAuth: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("{0}")]
    Rejected(#[from] rustls::Error),
}

/// Certificates and options of one snapshot, shared by all entry points.
#[derive(Debug)]
pub(crate) struct TlsTable {
    certificates: Arc<Certificates>,
    /// With `default` among them.
    entries: BTreeMap<String, Entry>,
    default: Arc<TlsProfile>,
}

#[derive(Clone, Debug)]
struct Entry {
    options: TlsOptions,
    outcome: Result<Arc<TlsProfile>, OptionsError>,
    adjustments: Vec<TlsProblem>,
}

impl TlsProblem {
    /// The object that does not work at all; `None` where it does in a lesser way.
    pub(crate) fn broken(&self) -> Option<(Kind, &str)> {
        match self {
            Self::Certificate { origin, .. } => Some((Kind::Certificate, origin)),
            Self::DefaultCertificate { .. } => Some((Kind::Certificate, DEFAULT_CERTIFICATE)),
            Self::BrokenOptions { name, .. } => Some((Kind::TlsOptions, name)),
            Self::Adjusted { .. } | Self::IgnoredAuthorities { .. } => None,
        }
    }
}

/// Options ready for handshakes.
#[derive(Debug)]
pub(crate) struct TlsProfile {
    /// `default` or a qualified name.
    pub(crate) name: String,
    /// For the handshake, whatever name the client sends. Prefer [`Self::config_for`] where
    /// [`Self::depends_on_hello`].
    pub(crate) config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    client_auth: ClientAuthType,
    service: Service,
    refused: Report,
}

/// Which clients a profile serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Everyone,
    /// Those whose name a certificate covers (`sniStrict`).
    KnownNames,
    /// Nobody: it stands for broken options.
    Nobody,
}

impl TlsTable {
    /// Builds the table for `tls`. What is configured as in `previous` is taken over from it: certificates are not
    /// parsed again, and unchanged options keep their `Arc<ServerConfig>` unless a certificate has changed.
    ///
    /// Problems are reported on each build for as long as they last.
    pub(crate) fn build(tls: &Tls, previous: Option<&TlsTable>) -> (TlsTable, Vec<TlsProblem>) {
        let certificates = Certificates::build(tls, previous.map(|table| &table.certificates));
        let mut problems: Vec<_> = certificates
            .failures()
            .map(|(pair, cause, IsDefault(is_default))| {
                let (origin, cause) = (pair.origin.clone(), cause.clone());
                if is_default {
                    TlsProblem::DefaultCertificate { origin, cause }
                } else {
                    TlsProblem::Certificate { origin, cause }
                }
            })
            .collect();

        let entry = |name: &str, options: &TlsOptions| {
            let old = previous.and_then(|table| table.entries.get(name));
            if let Some(old) = old
                && old.options == *options
                && previous.is_some_and(|table| Arc::ptr_eq(&table.certificates, &certificates))
            {
                return old.clone();
            }
            let mut adjustments = Vec::new();
            let old = old.and_then(|old| Some((&old.options, old.outcome.as_ref().ok()?.as_ref())));
            let outcome =
                TlsProfile::build(name, options, &certificates, old, &mut adjustments).map(Arc::new);
            Entry { options: options.clone(), outcome, adjustments }
        };
        let mut entries: BTreeMap<_, _> =
            tls.options.iter().map(|(name, options)| (name.clone(), entry(name, options))).collect();
        let default_entry =
            entries.entry(DEFAULT.to_owned()).or_insert_with(|| entry(DEFAULT, &library_options()));
        let default = match &default_entry.outcome {
            Ok(profile) if !tls.refuse_default => Arc::clone(profile),
            _ => Arc::new(TlsProfile::for_nobody()),
        };
        for (name, entry) in &entries {
            problems.extend(entry.adjustments.iter().cloned());
            if let Err(cause) = &entry.outcome {
                problems.push(TlsProblem::BrokenOptions { name: name.clone(), cause: cause.clone() });
            }
        }
        (TlsTable { certificates, entries, default }, problems)
    }

    /// The profile called `name`; `None` if there is none or its options are broken: routers that use it must not
    /// serve, and connections for their hosts must be closed. `default` always exists; if its options are broken it
    /// [serves nobody](TlsProfile::serves_nobody).
    pub(crate) fn options(&self, name: &str) -> Option<Arc<TlsProfile>> {
        if name == DEFAULT {
            return Some(Arc::clone(&self.default));
        }
        self.entries.get(name)?.outcome.as_ref().ok().map(Arc::clone)
    }

    #[cfg(test)]
    pub(crate) fn fallback(&self) -> &Arc<TlsProfile> {
        &self.default
    }

    /// The same, for whoever fetches OCSP responses.
    pub(crate) fn keys(&self) -> Vec<Arc<CertifiedKey>> {
        self.certificates.keys()
    }

    /// Every certificate in use, for metrics; the default one last.
    pub(crate) fn certificates_not_after(&self) -> Vec<CertInfo> {
        self.certificates.infos()
    }
}

/// What Traefik uses where nothing is configured.
fn library_options() -> TlsOptions {
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

impl TlsProfile {
    fn build(
        name: &str,
        options: &TlsOptions,
        certificates: &Arc<Certificates>,
        previous: Option<(&TlsOptions, &TlsProfile)>,
        adjustments: &mut Vec<TlsProblem>,
    ) -> Result<Self, OptionsError> {
        let selection = algorithms::select(
            &options.cipher_suites,
            &options.curve_preferences,
            options.min_version,
            options.max_version,
        )?;
        let adjusted = |what| TlsProblem::Adjusted { name: name.to_owned(), what };
        adjustments.extend(selection.dropped.into_iter().map(adjusted));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&selection.provider))
            .with_protocol_versions(&selection.versions)?;
        let resolver =
            Arc::new(ByName { certificates: Arc::clone(certificates), strict: options.sni_strict });
        let mut config = match client_verifier(options.client_auth.as_ref(), &selection.provider)? {
            None => builder.with_no_client_auth(),
            Some((verifier, ignored)) => {
                if ignored > 0 {
                    adjustments
                        .push(TlsProblem::IgnoredAuthorities { name: name.to_owned(), count: ignored });
                }
                builder.with_client_cert_verifier(verifier)
            }
        }
        .with_cert_resolver(resolver);

        config.alpn_protocols = if options.alpn_protocols.is_empty() {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        } else {
            options.alpn_protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect()
        };
        config.ignore_client_order = algorithms::has_aes();
        // Early data can be replayed, and a proxy cannot know which requests that would hurt: RFC 8470.
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let class = session_class(options);
        if let Some(class) = class {
            config.session_storage =
                previous.filter(|(previous, _)| session_class(previous) == Some(class)).map_or_else(
                    || ServerSessionMemoryCache::new(CACHED_SESSIONS) as Arc<_>,
                    |(_, previous)| Arc::clone(&previous.config.session_storage),
                );
            config.ticketer = tickets::ticketer(class);
            config.send_tls13_tickets = TICKETS;
        }
        Ok(Self {
            name: name.to_owned(),
            config: Arc::new(config),
            certificates: Arc::clone(certificates),
            client_auth: options.client_auth.as_ref().map_or(ClientAuthType::NoClientCert, |auth| auth.kind),
            service: if options.sni_strict { Service::KnownNames } else { Service::Everyone },
            refused: Report::default(),
        })
    }

    /// Stands for broken options: serving their hosts under laxer ones could let in whom they were meant to keep out.
    pub(crate) fn for_nobody() -> Self {
        let config = ServerConfig::builder_with_provider(Arc::clone(algorithms::provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .expect("the default provider has suites for every version")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(OneOf(Vec::new())));
        Self {
            name: DEFAULT.to_owned(),
            config: Arc::new(config),
            certificates: Arc::default(),
            client_auth: ClientAuthType::NoClientCert,
            service: Service::Nobody,
            refused: Report::default(),
        }
    }

    /// Says why a client certificate is refused, if that is why the handshake failed: the client is told no more than
    /// that it is.
    pub(crate) fn report(&self, failure: &io::Error, entry_point: &str, client: SocketAddr, now: Instant) {
        let cause = failure.get_ref().and_then(|cause| cause.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(reason)) = cause
            && let Some(refused) = self.refused.count(now)
        {
            tracing::warn!(entryPointName = entry_point, tlsOptions = %self.name, %client, %reason, refused,
                "client certificates are refused");
        }
    }

    /// What a client of this handshake has shown of itself, with or without a certificate.
    pub(crate) fn proof(&self, certificate: bool) -> Proof {
        Proof::given(self.client_auth, certificate)
    }

    /// Whether every handshake fails, because the options are broken.
    pub(crate) fn serves_nobody(&self) -> bool {
        self.service == Service::Nobody
    }

    /// Whether [`Self::config_for`] can answer anything but [`Self::config`].
    pub(crate) fn depends_on_hello(&self) -> bool {
        self.service != Service::Everyone || self.certificates.knows_addresses()
    }

    /// The configuration for a client that asks for `server_name` and has connected to `local`. A client that sends
    /// no name gets the certificate for `local` if there is one.
    ///
    /// `None`: nothing to show it; answer [`UNRECOGNIZED_NAME`] and close.
    pub(crate) fn config_for(&self, server_name: Option<&str>, local: IpAddr) -> Option<Arc<ServerConfig>> {
        if self.serves_nobody() {
            return None;
        }
        let covered = match server_name {
            Some(name) => self.service == Service::Everyone || self.certificates.covers_name(name),
            None => match self.certificates.for_address(local) {
                Some(keys) => {
                    // Made for this connection: such clients are rare, and all it shares is behind `Arc`s.
                    let mut config = ServerConfig::clone(&self.config);
                    config.cert_resolver = Arc::new(OneOf(keys.to_vec()));
                    return Some(Arc::new(config));
                }
                None => self.service == Service::Everyone,
            },
        };
        covered.then(|| Arc::clone(&self.config))
    }
}

/// `config` for a client that offers these cipher suites: those in whose processors ChaCha20 is cheaper get it.
pub(crate) fn config_for_suites(config: Arc<ServerConfig>, offered: &[CipherSuite]) -> Arc<ServerConfig> {
    if config.ignore_client_order && algorithms::prefers_chacha(offered) {
        // Made for this connection: such clients are rare, and all it shares is behind `Arc`s.
        let mut config = ServerConfig::clone(&config);
        config.ignore_client_order = false;
        return Arc::new(config);
    }
    config
}

/// The sessions that options allow to be resumed, if any.
fn session_class(options: &TlsOptions) -> Option<Class> {
    if options.disable_session_tickets {
        return None;
    }
    match options.client_auth.as_ref().map(|auth| auth.kind) {
        None | Some(ClientAuthType::NoClientCert) => Some(Class::Anonymous),
        Some(ClientAuthType::RequestClientCert) => Some(Class::Requested),
        Some(ClientAuthType::RequireAnyClientCert) => Some(Class::Required),
        Some(ClientAuthType::VerifyClientCertIfGiven | ClientAuthType::RequireAndVerifyClientCert) => None,
    }
}

/// Picks the certificate by server name.
#[derive(Debug)]
struct ByName {
    certificates: Arc<Certificates>,
    strict: bool,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named =
            hello.server_name().and_then(|name| self.certificates.for_name(name, hello.signature_schemes()));
        let key = if named.is_some() || self.strict { named } else { self.certificates.default_key() };
        key.map(stapled)
    }
}

/// Shows one of these certificates, whatever the server name.
#[derive(Debug)]
struct OneOf(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for OneOf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let verifiable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(verifiable).or_else(|| self.0.first()).map(Arc::clone).map(stapled)
    }
}

#[cfg(test)]
mod tests {
    use lb_config::dynamic::{ClientAuth, KeyPair, ServersTransport, TlsVersion};
    use rustls::crypto::CryptoProvider;
    use rustls::sign::SingleCertAndKey;
    use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};

    use super::super::client::{Anything, client_config};
    use super::super::testing::{self, Authority, Key, handshake, pair, transport};
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn tls(certificates: Vec<KeyPair>, options: Vec<(&str, TlsOptions)>) -> Tls {
        let options = options.into_iter().map(|(name, options)| (name.to_owned(), options)).collect();
        Tls { certificates, options, ..Tls::default() }
    }

    fn auth(kind: ClientAuthType, ca: Vec<lb_config::dynamic::Pem>) -> TlsOptions {
        TlsOptions { client_auth: Some(ClientAuth { ca, kind }), ..library_options() }
    }

    /// A client that believes everything.
    fn client(certificates: Vec<KeyPair>) -> Arc<ClientConfig> {
        let transport = ServersTransport { insecure_skip_verify: true, certificates, ..transport() };
        client_config(&transport, true).unwrap()
    }

    /// A client that shows this certificate and signs with this key, whether they belong together or not.
    fn presenting(pair: &KeyPair) -> Arc<ClientConfig> {
        let chain = vec![CertificateDer::from_pem_slice(&pair.cert.0).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&pair.key.0).unwrap();
        let key = algorithms::provider().key_provider.load_private_key(key).unwrap();
        let shown = CertifiedKey::new(chain, key);
        let anything = Anything(algorithms::provider().signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(Arc::clone(algorithms::provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anything))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        config.into()
    }

    fn table(tls: &Tls) -> TlsTable {
        let (table, problems) = TlsTable::build(tls, None);
        assert!(problems.is_empty(), "{problems:?}");
        table
    }

    #[test]
    fn a_handshake_shows_the_certificate_for_the_name() {
        let table = table(&tls(vec![pair(&["a.test"], Key::Rsa), pair(&["a.test"], Key::Ecdsa)], vec![]));
        let profile = table.fallback();
        for (name, expected) in [("a.test", "a.test"), ("b.test", "VIGIE DEFAULT CERT")] {
            let done =
                handshake(&client(vec![]), &profile.config_for(Some(name), LOCAL).unwrap(), name).unwrap();
            assert_eq!(done.server_cn, expected, "{name}");
            assert_eq!(done.version, ProtocolVersion::TLSv1_3);
            assert_eq!(done.alpn.as_deref(), Some("h2"));
        }
    }

    #[test]
    fn aes_128_is_preferred_unless_the_client_would_rather_have_chacha() {
        use rustls::crypto::aws_lc_rs::cipher_suite::*;
        let table = table(&tls(vec![], vec![]));
        let (aes128, aes256, chacha) =
            (TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256);
        for (offered, expected) in [
            (vec![aes256, chacha, aes128], if algorithms::has_aes() { aes128 } else { aes256 }),
            (vec![aes256, chacha], aes256),
            (vec![chacha, aes256, aes128], chacha),
        ] {
            let offers: Vec<_> = offered.iter().map(|suite| suite.suite()).collect();
            let provider =
                CryptoProvider { cipher_suites: offered, ..algorithms::provider().as_ref().clone() };
            let anything = Anything(provider.signature_verification_algorithms);
            let client = ClientConfig::builder_with_provider(provider.into())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(anything))
                .with_no_client_auth();
            let config = config_for_suites(Arc::clone(&table.fallback().config), &offers);
            let done = handshake(&client.into(), &config, "a.test").unwrap();
            assert_eq!(done.suite, expected.suite(), "{offers:?}");
        }
    }

    #[test]
    fn a_client_without_server_name_gets_the_certificate_of_the_address() {
        let table = table(&tls(vec![pair(&["address.test", "127.0.0.1"], Key::Ecdsa)], vec![]));
        let profile = table.fallback();
        assert!(profile.depends_on_hello());
        for (local, expected) in [("127.0.0.1", "address.test"), ("127.0.0.2", "VIGIE DEFAULT CERT")] {
            let config = profile.config_for(None, local.parse().unwrap()).unwrap();
            // An address is never sent as a server name: RFC 6066 section 3.
            let done = handshake(&client(vec![]), &config, "127.0.0.1").unwrap();
            assert_eq!(done.server_cn, expected, "{local}");
        }
    }

    #[test]
    fn strict_profiles_refuse_names_without_certificate() {
        let strict = TlsOptions { sni_strict: true, ..library_options() };
        let table = table(&tls(vec![pair(&["a.test"], Key::Ecdsa)], vec![("default", strict)]));
        let profile = table.options("default").unwrap();
        let rows = [(Some("a.test"), true), (Some("b.test"), false), (None, false)];
        for (name, served) in rows {
            assert_eq!(profile.config_for(name, LOCAL).is_some(), served, "{name:?}");
        }
        assert!(handshake(&client(vec![]), &profile.config, "b.test").is_err());
    }

    #[test]
    fn client_certificates_are_asked_for_as_configured() {
        use ClientAuthType::*;
        let (good, bad) = (Authority::new("good"), Authority::new("bad"));
        let rows = [
            // none, from a foreign authority, from ours
            (NoClientCert, [true, true, true]),
            (RequestClientCert, [true, true, true]),
            (RequireAnyClientCert, [false, true, true]),
            (VerifyClientCertIfGiven, [true, false, true]),
            (RequireAndVerifyClientCert, [false, false, true]),
        ];
        for (kind, expected) in rows {
            let options = auth(kind, vec![good.pem.clone()]);
            let tls12 = TlsOptions { max_version: Some(TlsVersion::Tls12), ..options.clone() };
            for options in [options, tls12] {
                let table = table(&tls(vec![], vec![("o", options.clone())]));
                let config = table.options("o").unwrap().config.clone();
                let shown = [vec![], vec![bad.issue(&["c.test"])], vec![good.issue(&["c.test"])]];
                let accepted = shown.map(|pairs| handshake(&client(pairs), &config, "a.test").is_ok());
                // A client whose certificate fits no hint of the server sends it all the same.
                assert_eq!(accepted, expected, "{kind:?}, at most {:?}", options.max_version);
            }
        }
    }

    #[test]
    fn a_client_certificate_of_version_1_proves_its_key() {
        use ClientAuthType::*;
        let client_pem = testing::pem(include_str!("../../testdata/version1-client.pem"));
        let authority = testing::pem(include_str!("../../testdata/version1-authority.pem"));
        let shown = KeyPair { cert: client_pem.clone(), key: client_pem, origin: "version 1".into() };
        let stolen = KeyPair { key: pair(&["thief.test"], Key::Ecdsa).key, ..shown.clone() };
        for kind in
            [RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert]
        {
            for max_version in [TlsVersion::Tls12, TlsVersion::Tls13] {
                let options =
                    TlsOptions { max_version: Some(max_version), ..auth(kind, vec![authority.clone()]) };
                let table = table(&tls(vec![], vec![("o", options)]));
                let config = &table.options("o").unwrap().config;
                let done = handshake(&presenting(&shown), config, "a.test").unwrap();
                assert_eq!(done.client_chain, 1, "{kind:?}, {max_version:?}");
                let refused = handshake(&presenting(&stolen), config, "a.test").unwrap_err();
                let expected = rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature);
                assert_eq!(refused, expected, "{kind:?}, {max_version:?}");
            }
        }
    }

    #[test]
    fn sessions_resume_within_their_class_and_over_reloads() {
        use ClientAuthType::*;
        let authority = Authority::new("ca");
        let mut config = tls(
            vec![pair(&["a.test"], Key::Ecdsa)],
            vec![
                ("plain", library_options()),
                ("other", TlsOptions { sni_strict: true, ..library_options() }),
                ("request", auth(RequestClientCert, vec![])),
                ("any", auth(RequireAnyClientCert, vec![])),
                ("verify", auth(RequireAndVerifyClientCert, vec![authority.pem.clone()])),
                ("off", TlsOptions { disable_session_tickets: true, ..library_options() }),
            ],
        );
        for max_version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            for options in config.options.values_mut() {
                options.max_version = Some(max_version);
            }
            let before = table(&config);
            let mut reloaded = config.clone();
            reloaded.certificates.push(pair(&["b.test"], Key::Ecdsa));
            let (after, _) = TlsTable::build(&reloaded, Some(&before));
            let rows = [
                ("plain", "plain", true),
                ("plain", "other", true),
                ("plain", "request", false),
                ("plain", "any", false),
                ("plain", "verify", false),
                ("plain", "off", false),
                ("request", "request", true),
                ("request", "any", false),
                ("any", "any", true),
                ("any", "plain", false),
                ("verify", "verify", false),
                ("verify", "plain", false),
                ("off", "off", false),
            ];
            for (first, second, resumes) in rows {
                for table in [&before, &after] {
                    let client = client(vec![authority.issue(&["c.test"])]);
                    let kind = |table: &TlsTable, name: &str| {
                        handshake(&client, &table.options(name).unwrap().config, "a.test").unwrap().kind
                    };
                    assert_ne!(kind(&before, first), HandshakeKind::Resumed);
                    let resumed = kind(table, second) == HandshakeKind::Resumed;
                    assert_eq!(resumed, resumes, "{first} to {second}, {max_version:?}");
                }
            }
        }
    }

    #[test]
    fn unchanged_options_keep_their_configuration() {
        let config = tls(
            vec![pair(&["a.test"], Key::Ecdsa)],
            vec![("o", TlsOptions { sni_strict: true, ..library_options() })],
        );
        let first = table(&config);
        let same = |a: &TlsTable, b: &TlsTable, name: &str| {
            Arc::ptr_eq(&a.options(name).unwrap().config, &b.options(name).unwrap().config)
        };
        let (second, _) = TlsTable::build(&config.clone(), Some(&first));
        assert!(same(&first, &second, "o") && same(&first, &second, "default"));

        let mut changed = config.clone();
        changed.options.insert("o".into(), TlsOptions { sni_strict: false, ..library_options() });
        let (third, _) = TlsTable::build(&changed, Some(&second));
        assert!(!same(&second, &third, "o") && same(&second, &third, "default"));

        changed.certificates.push(pair(&["b.test"], Key::Ecdsa));
        let (fourth, _) = TlsTable::build(&changed, Some(&third));
        assert!(!same(&third, &fourth, "o"));
    }

    #[test]
    fn broken_options_are_named_and_serve_nobody() {
        let nonsense = testing::pem("nonsense");
        let unknown = TlsOptions { cipher_suites: vec!["TLS_NOPE".into()], ..library_options() };
        let config = tls(
            vec![KeyPair { key: nonsense.clone(), ..pair(&["a.test"], Key::Ecdsa) }],
            vec![
                ("default", auth(ClientAuthType::RequireAndVerifyClientCert, vec![nonsense])),
                ("a", unknown),
                ("b", auth(ClientAuthType::RequireAndVerifyClientCert, vec![])),
                (
                    "c",
                    TlsOptions {
                        curve_preferences: vec!["CurveP521".into(), "X25519".into()],
                        ..library_options()
                    },
                ),
            ],
        );
        let (first, problems) = TlsTable::build(&config, None);
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "tls.certificates: a.test.pem: the key file contains no unencrypted private key",
                "tls.options.a: there is no cipher suite called `TLS_NOPE`",
                "tls.options.b: clientAuth: no root trust anchors were provided",
                "tls.options.c: the curve CurveP521 is not supported and left out",
                "tls.options.default: clientAuth.caFiles: the certificate file contains no certificate",
            ]
        );
        assert!(first.options("a").is_none() && first.options("nope").is_none());
        assert!(first.fallback().serves_nobody() && first.fallback().depends_on_hello());
        assert!(first.fallback().config_for(Some("a.test"), LOCAL).is_none());
        assert!(handshake(&client(vec![]), &first.fallback().config, "a.test").is_err());

        let (second, again) = TlsTable::build(&config, Some(&first));
        assert_eq!(again.len(), problems.len());
        let (third, none) = TlsTable::build(&tls(vec![], vec![]), Some(&second));
        assert!(none.is_empty() && !third.fallback().serves_nobody());
    }
}
