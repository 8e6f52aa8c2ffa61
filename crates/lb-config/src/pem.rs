//! Certificates and keys: from a file or written in place, read and checked to be PEM.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::{Error, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::decode::{Block, Field, Text};
use crate::document::read_text;
use crate::dynamic::{KeyPair, Pem};
use crate::problem::quoted;

/// Stands for the file of what is written in place.
pub(crate) const INLINE: &str = "<inline>";

pub(crate) fn is_inline(value: &str) -> bool {
    value.contains("-----BEGIN")
}

/// Content of a "file or content" value: a value that names a file stands for what is in it.
fn content(text: &Text<'_>) -> Option<(Pem, String)> {
    if is_inline(text.value) {
        return Some((Pem(Arc::from(text.value.as_bytes())), INLINE.to_owned()));
    }
    if text.value.is_empty() {
        text.error("names no file", None);
        return None;
    }
    let path = Path::new(text.value);
    // Noted even when it cannot be read: creating it changes the outcome.
    text.field.report.note_read(path);
    match read_text(path) {
        Ok(pem) => Some((Pem(Arc::from(pem.as_bytes())), text.value.to_owned())),
        Err(problem) => {
            let hint = "name a PEM file (relative to the working directory) or write the PEM text itself";
            text.error(format!("{} {}", quoted(text.value), problem.message), Some(hint.to_owned()));
            None
        }
    }
}

const SWAPPED: &str = "the files of certificate and key may be swapped";

fn has(pem: &Pem, words: &str) -> bool {
    pem.0.windows(words.len()).any(|window| window == words.as_bytes())
}

/// Says which file it is about, unless it is none.
fn from(origin: &str, message: &str) -> String {
    if origin == INLINE { message.to_owned() } else { format!("{} {message}", quoted(origin)) }
}

/// One or more certificates.
fn certificates(text: &Text<'_>) -> Option<(Pem, String)> {
    let (pem, origin) = content(text)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem.0) {
        if let Err(error) = certificate {
            let message = match error {
                Error::MissingSectionEnd { .. } => {
                    "ends in the middle of a certificate: `-----END CERTIFICATE-----` is missing".to_owned()
                }
                error => format!("not valid PEM: {error}"),
            };
            text.error(from(&origin, &message), None);
            return None;
        }
        count += 1;
    }
    if count == 0 {
        let hint = if has(&pem, "PRIVATE KEY-----") {
            SWAPPED
        } else {
            "it should have a part that starts with `-----BEGIN CERTIFICATE-----`"
        };
        text.error(from(&origin, "holds no certificate"), Some(hint.to_owned()));
        return None;
    }
    Some((pem, origin))
}

/// A list of certificates, each from a file or in place.
pub(crate) fn certificate_list(field: &Field<'_>) -> Vec<Pem> {
    field.texts().iter().filter_map(certificates).map(|(pem, _)| pem).collect()
}

/// `certFile` and `keyFile` of a block.
pub(crate) fn key_pair(block: &Block<'_>) -> Option<KeyPair> {
    pair(block, "certFile", "keyFile")
}

/// The same under other keys.
pub(crate) fn pair(block: &Block<'_>, cert: &'static str, key: &'static str) -> Option<KeyPair> {
    let cert = block.require(cert, "name a PEM file with the certificate chain");
    let key = block.require(key, "name a PEM file with the private key");
    let cert = cert.and_then(|field| field.text()).and_then(|text| certificates(&text));
    let key = key.and_then(|field| field.text()).and_then(|text| {
        let (pem, origin) = content(&text)?;
        match PrivateKeyDer::from_pem_slice(&pem.0) {
            Ok(_) => Some(pem),
            Err(_) => {
                let (message, hint) = if has(&pem, "ENCRYPTED") {
                    ("holds an encrypted private key", "decrypt it: `openssl pkey -in KEY -out PLAIN`")
                } else if has(&pem, "BEGIN CERTIFICATE-----") {
                    ("holds no private key", SWAPPED)
                } else {
                    ("holds no private key", "PKCS#8, PKCS#1 and SEC1 keys in PEM are read")
                };
                text.error(from(&origin, message), Some(hint.to_owned()));
                None
            }
        }
    });
    let ((cert, origin), key) = cert.zip(key)?;
    Some(KeyPair { cert, key, origin })
}
