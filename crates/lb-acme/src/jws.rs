//! The account's key and what it signs: JSON web signatures as RFC 8555 section 6.2 has them.
//!
//! RSA only: the accounts of Traefik's `acme.json` have RSA keys, in PKCS#1.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_config::acme::Eab;
use serde_json::{Value, json};
use x509_parser::asn1_rs::{Any, FromDer, OctetString, Sequence};
use x509_parser::public_key::RSAPublicKey;

/// The size of new keys; Traefik's.
const SIZE: KeySize = KeySize::Rsa4096;

/// The key cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's private key cannot be used")]
pub(crate) struct BadKey;

/// The private key of an account.
pub(crate) struct AccountKey {
    pair: RsaKeyPair,
    /// As the file has it.
    pkcs1: Vec<u8>,
    /// `e` and `n`.
    public: (String, String),
}

/// Who signs: the key itself, before the account has an address.
#[derive(Clone, Copy)]
pub(crate) enum Signer<'a> {
    Key,
    Account(&'a str),
}

impl AccountKey {
    /// Takes up to seconds: not for a thread that has others waiting.
    pub(crate) fn generate() -> Result<Self, BadKey> {
        Self::from_pkcs8(&rsa_pkcs8(SIZE).ok_or(BadKey)?)
    }

    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, BadKey> {
        Self::from_pkcs1(inner_key(pkcs8).ok_or(BadKey)?)
    }

    pub(crate) fn from_pkcs1(pkcs1: Vec<u8>) -> Result<Self, BadKey> {
        let pair = RsaKeyPair::from_der(&pkcs1).map_err(|_| BadKey)?;
        let (_, public) = RSAPublicKey::from_der(pair.public_key().as_ref()).map_err(|_| BadKey)?;
        let number = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            URL_SAFE_NO_PAD.encode(&bytes[zeros..])
        };
        let public = (number(public.exponent), number(public.modulus));
        Ok(Self { pair, pkcs1, public })
    }

    pub(crate) fn pkcs1(&self) -> &[u8] {
        &self.pkcs1
    }

    fn jwk(&self) -> Value {
        let (e, n) = &self.public;
        json!({ "e": e, "kty": "RSA", "n": n })
    }

    /// RFC 7638: the digest of the key's required members in alphabetical order.
    fn thumbprint(&self) -> String {
        let (e, n) = &self.public;
        let text = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
    }

    /// What proves that whoever answers a challenge holds this key (RFC 8555 section 8.1).
    pub(crate) fn authorization(&self, token: &str) -> String {
        format!("{token}.{}", self.thumbprint())
    }

    /// `payload` signed for `url`; without one it is a request to read (POST-as-GET).
    pub(crate) fn sign(
        &self,
        signer: Signer<'_>,
        url: &str,
        nonce: &str,
        payload: Option<&Value>,
    ) -> Result<String, BadKey> {
        let mut protected = json!({ "alg": "RS256", "nonce": nonce, "url": url });
        match signer {
            Signer::Key => protected["jwk"] = self.jwk(),
            Signer::Account(url) => protected["kid"] = url.into(),
        }
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = payload.map(|payload| URL_SAFE_NO_PAD.encode(payload.to_string())).unwrap_or_default();
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let input = format!("{protected}.{payload}");
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
            .map_err(|_| BadKey)?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(json!({ "protected": protected, "payload": payload, "signature": signature }).to_string())
    }

    /// Says that the account belongs to an agreement made elsewhere (RFC 8555 section 7.3.4).
    pub(crate) fn bind(&self, eab: &Eab, url: &str) -> Value {
        let protected = json!({ "alg": "HS256", "kid": eab.kid, "url": url });
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = URL_SAFE_NO_PAD.encode(self.jwk().to_string());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &eab.hmac);
        let signature = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        json!({ "protected": protected, "payload": payload, "signature": URL_SAFE_NO_PAD.encode(signature) })
    }
}

/// A new RSA key in PKCS#8.
pub(crate) fn rsa_pkcs8(size: KeySize) -> Option<Vec<u8>> {
    let pair = RsaKeyPair::generate(size).ok()?;
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().ok()?;
    Some(der.as_ref().to_vec())
}

/// The PKCS#1 key in a PKCS#8 one: RFC 5208 section 5.
fn inner_key(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let (_, info) = Sequence::from_der(pkcs8).ok()?;
    let (rest, _version) = Any::from_der(&info.content).ok()?;
    let (rest, _algorithm) = Any::from_der(rest).ok()?;
    let (_, key) = OctetString::from_der(rest).ok()?;
    Some(key.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn what_is_signed_verifies_and_the_key_survives_the_file() {
        let pkcs8 = rsa_pkcs8(KeySize::Rsa2048).unwrap();
        let key = AccountKey::from_pkcs8(&pkcs8).unwrap();
        let again = AccountKey::from_pkcs1(key.pkcs1().to_vec()).unwrap();
        assert_eq!(again.thumbprint(), key.thumbprint());
        let text = key.sign(Signer::Account("https://ca/1"), "https://ca/x", "n0", Some(&json!({}))).unwrap();
        let parts: Value = serde_json::from_str(&text).unwrap();
        let part = |name: &str| parts[name].as_str().unwrap().to_owned();
        let signature = URL_SAFE_NO_PAD.decode(part("signature")).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public_key());
        let signed = format!("{}.{}", part("protected"), part("payload"));
        public.verify(signed.as_bytes(), &signature).unwrap();
        let protected = URL_SAFE_NO_PAD.decode(part("protected")).unwrap();
        let protected: Value = serde_json::from_slice(&protected).unwrap();
        assert_eq!((&protected["kid"], &protected["nonce"]), (&json!("https://ca/1"), &json!("n0")));
        assert!(protected.get("jwk").is_none());
    }

    #[test]
    fn a_thumbprint_is_that_of_the_standard() {
        // RFC 7638 section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4\
                 n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zg\
                 dAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCu\
                 r-kEgU8awapJzKnqDKgw";
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let key = AccountKey { pair, pkcs1: Vec::new(), public: ("AQAB".to_owned(), n.to_owned()) };
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(AccountKey::from_pkcs1(b"MII".to_vec()).is_err());
    }
}
