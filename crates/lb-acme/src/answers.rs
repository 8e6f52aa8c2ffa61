//! What the data plane answers while a name is being validated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::PrivateKeyDer;

/// The protocol of validation over TLS (RFC 8737 section 6.2).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// The answers to challenges under way; clones share them.
#[derive(Clone, Default)]
pub struct Answers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By token.
    http: RwLock<HashMap<String, String>>,
    /// By name in lower case.
    tls: RwLock<HashMap<String, Arc<ServerConfig>>>,
    /// How many there are in `tls`: handshakes look here first.
    tls_count: AtomicUsize,
}

/// One answer, in place until it is dropped.
pub(crate) struct InPlace {
    answers: Answers,
    what: What,
}

enum What {
    Http(String),
    Tls(String),
}

impl Answers {
    /// The body for `/.well-known/acme-challenge/<token>`, if that is expected.
    pub fn http(&self, token: &str) -> Option<String> {
        self.0.http.read().get(token).cloned()
    }

    /// The configuration for a handshake of the authority's for this name, if one is expected.
    pub fn tls(&self, name: &str) -> Option<Arc<ServerConfig>> {
        if self.0.tls_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.0.tls.read().get(name).cloned()
    }

    pub(crate) fn put_http(&self, token: &str, authorization: String) -> InPlace {
        self.0.http.write().insert(token.to_owned(), authorization);
        InPlace { answers: self.clone(), what: What::Http(token.to_owned()) }
    }

    pub(crate) fn put_tls(&self, name: &str, authorization: &str) -> Result<InPlace, String> {
        let config = validation(name, authorization)?;
        // An address is asked for by its name in the reverse DNS: RFC 8738 section 6.
        let asked = name.parse().map_or_else(|_| name.to_owned(), reverse);
        let mut known = self.0.tls.write();
        known.insert(asked.clone(), Arc::new(config));
        self.0.tls_count.store(known.len(), Ordering::Release);
        Ok(InPlace { answers: self.clone(), what: What::Tls(asked) })
    }
}

fn reverse(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        std::net::IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        let Inner { http, tls, tls_count } = &*self.answers.0;
        match &self.what {
            What::Http(token) => drop(http.write().remove(token)),
            What::Tls(name) => {
                let mut known = tls.write();
                known.remove(name);
                tls_count.store(known.len(), Ordering::Release);
            }
        }
    }
}

/// A handshake that shows the digest of the authorization: RFC 8737 section 3.
fn validation(name: &str, authorization: &str) -> Result<ServerConfig, String> {
    let text = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new([name.to_owned()]).map_err(text)?;
    params.distinguished_name = DistinguishedName::new();
    let digest = digest(&SHA256, authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate().map_err(text)?;
    let certificate = params.self_signed(&key).map_err(text)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let text = |error: rustls::Error| error.to_string();
    let key = provider.key_provider.load_private_key(key).map_err(text)?;
    // Unchecked: by design it has a critical extension that nobody but the authority understands.
    let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(text)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_as_long_as_somebody_holds_it() {
        let answers = Answers::default();
        let (first, second) =
            (answers.put_http("a", "a.x".to_owned()), answers.put_http("b", "b.x".to_owned()));
        assert_eq!((answers.http("a").as_deref(), answers.http("b").as_deref()), (Some("a.x"), Some("b.x")));
        drop(first);
        assert_eq!((answers.http("a"), answers.http("b").as_deref()), (None, Some("b.x")));
        drop(second);
        let held = answers.clone().put_tls("a.test", "t.x").unwrap();
        let config = answers.tls("a.test").unwrap();
        assert_eq!(config.alpn_protocols, [ACME_TLS]);
        assert!(answers.tls("b.test").is_none());
        drop(held);
        assert!(answers.tls("a.test").is_none());
    }

    #[test]
    fn addresses_are_asked_for_by_their_reverse_names() {
        let answers = Answers::default();
        let _held = answers.put_tls("192.0.2.7", "t.x").unwrap();
        assert!(answers.tls("7.2.0.192.in-addr.arpa").is_some());
        assert!(reverse("2001:db8::1".parse().unwrap()).starts_with("1.0.0.0."));
    }
}
