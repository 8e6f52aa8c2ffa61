//! Signatures of transactions with a shared secret (RFC 8945).

use aws_lc_rs::hmac;
use lb_config::dynamic::Secret;

use super::message::{ANY, Answer, HEADER, Signature, TSIG, put_name};

/// How far the clocks may be apart, in seconds: RFC 8945 section 10.
const FUDGE: u16 = 300;

/// A key that a name server knows, too.
pub(super) struct Key {
    name: String,
    algorithm: String,
    key: hmac::Key,
}

/// What is needed to believe the answer.
pub(super) struct Signed {
    pub(super) message: Vec<u8>,
    mac: Vec<u8>,
}

/// Why a signature is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TsigError {
    #[error("{0:?} is no algorithm: hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384 and hmac-sha512 are")]
    Algorithm(String),
    #[error("{0:?} is no name of a key")]
    Name(String),
    #[error("the key's secret is not base64")]
    Secret,
    #[error("the name server does not know the key (BADKEY)")]
    UnknownKey,
    #[error("the name server has another secret for the key, or another algorithm (BADSIG)")]
    WrongSecret,
    #[error("the clocks of this machine and of the name server are more than five minutes apart (BADTIME)")]
    Clocks,
    #[error("the name server's answer is not signed as it must be")]
    Unsigned,
}

impl Key {
    /// `secret` in base64, as name servers have it in their files.
    pub(super) fn new(name: &str, algorithm: &str, secret: &Secret) -> Result<Self, TsigError> {
        use base64::Engine as _;
        let algorithm = algorithm.trim_end_matches('.').to_ascii_lowercase();
        let hash = match algorithm.as_str() {
            "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "hmac-sha224" => hmac::HMAC_SHA224,
            "hmac-sha256" => hmac::HMAC_SHA256,
            "hmac-sha384" => hmac::HMAC_SHA384,
            "hmac-sha512" => hmac::HMAC_SHA512,
            _ => return Err(TsigError::Algorithm(algorithm)),
        };
        let name = name.to_ascii_lowercase();
        put_name(&mut Vec::new(), &name).ok_or_else(|| TsigError::Name(name.clone()))?;
        let secret = base64::engine::general_purpose::STANDARD.decode(secret.reveal().trim());
        let secret = secret.map_err(|_| TsigError::Secret)?;
        Ok(Self { name, algorithm, key: hmac::Key::new(hash, &secret) })
    }

    /// Signs at `now`, in seconds.
    pub(super) fn sign(&self, mut message: Vec<u8>, now: u64) -> Option<Signed> {
        let id = [*message.first()?, *message.get(1)?];
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&message);
        context.update(&self.variables(now, FUDGE, 0, &[])?);
        let mac = context.sign().as_ref().to_vec();
        put_name(&mut message, &self.name)?;
        for number in [TSIG, ANY, 0, 0] {
            message.extend(number.to_be_bytes());
        }
        let mut data = Vec::new();
        put_name(&mut data, &self.algorithm)?;
        data.extend(&now.to_be_bytes()[2..]);
        data.extend(FUDGE.to_be_bytes());
        data.extend(u16::try_from(mac.len()).ok()?.to_be_bytes());
        data.extend(&mac);
        data.extend(id);
        // No error, nothing else.
        data.extend([0; 4]);
        message.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        message.extend(data);
        let additional = u16::from_be_bytes([message[10], message[11]]) + 1;
        message[10..12].copy_from_slice(&additional.to_be_bytes());
        Some(Signed { message, mac })
    }

    /// Whether `bytes`, read as `answer`, are what the other side has answered to `asked`.
    pub(super) fn verify(&self, asked: &Signed, bytes: &[u8], answer: &Answer) -> Result<(), TsigError> {
        const BADSIG: u16 = 16;
        const BADKEY: u16 = 17;
        const BADTIME: u16 = 18;
        let signature = answer.signature.as_ref().ok_or(TsigError::Unsigned)?;
        // The first two come without a signature: RFC 8945 section 5.3.2.
        match signature.error {
            BADSIG => return Err(TsigError::WrongSecret),
            BADKEY => return Err(TsigError::UnknownKey),
            BADTIME => return Err(TsigError::Clocks),
            _ => {}
        }
        let Signature { at, time, fudge, mac, original_id, error, other } = signature;
        let digested = || {
            let mut message = bytes.get(..*at)?.to_vec();
            let additional = u16::from_be_bytes([*message.get(10)?, *message.get(11)?]).checked_sub(1)?;
            message[..2].copy_from_slice(&original_id.to_be_bytes());
            message[10..HEADER].copy_from_slice(&additional.to_be_bytes());
            let mut digested = u16::try_from(asked.mac.len()).ok()?.to_be_bytes().to_vec();
            digested.extend(&asked.mac);
            digested.extend(message);
            digested.extend(self.variables(*time, *fudge, *error, other)?);
            Some(digested)
        };
        let digested = digested().ok_or(TsigError::Unsigned)?;
        hmac::verify(&self.key, &digested, mac).map_err(|_| TsigError::Unsigned)
    }

    /// RFC 8945 section 4.3.3.
    fn variables(&self, time: u64, fudge: u16, error: u16, other: &[u8]) -> Option<Vec<u8>> {
        let mut variables = Vec::new();
        put_name(&mut variables, &self.name)?;
        variables.extend(ANY.to_be_bytes());
        variables.extend([0; 4]);
        put_name(&mut variables, &self.algorithm)?;
        variables.extend(&time.to_be_bytes()[2..]);
        variables.extend(fudge.to_be_bytes());
        variables.extend(error.to_be_bytes());
        variables.extend(u16::try_from(other.len()).ok()?.to_be_bytes());
        variables.extend(other);
        Some(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::{answer, update};

    fn key(name: &str, algorithm: &str, secret: &str) -> Result<Key, TsigError> {
        Key::new(name, algorithm, &Secret::new(secret))
    }

    #[test]
    fn only_the_holder_of_the_secret_is_believed() {
        let ours = key("Key.Test.", "HMAC-SHA256.", "c2VjcmV0").unwrap();
        let asked = ours.sign(update(3, "t.", "a.t.", "v", Some(1)).unwrap(), 1_000).unwrap();
        assert_eq!(asked.message[10..12], [0, 1]);
        // The other side signs over what it was asked, too.
        let theirs = |secret| {
            let key = key("key.test", "hmac-sha256", secret).unwrap();
            let mut plain = vec![0, 3, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let mut digested = (asked.mac.len() as u16).to_be_bytes().to_vec();
            digested.extend(&asked.mac);
            digested.extend(&plain);
            digested.extend(key.variables(1_001, FUDGE, 0, &[]).unwrap());
            let mac = hmac::sign(&key.key, &digested);
            // As `sign` puts it, with another signature.
            let mut signed = key.sign(std::mem::take(&mut plain), 1_001).unwrap();
            let at = signed.message.windows(32).position(|bytes| bytes == signed.mac).unwrap();
            signed.message[at..at + 32].copy_from_slice(mac.as_ref());
            signed.message
        };
        for (secret, expected) in [("c2VjcmV0", Ok(())), ("b3RoZXI=", Err(TsigError::Unsigned))] {
            let bytes = theirs(secret);
            assert_eq!(ours.verify(&asked, &bytes, &answer(&bytes).unwrap()), expected);
        }
        let mut bytes = theirs("c2VjcmV0");
        bytes[3] = 5;
        assert_eq!(ours.verify(&asked, &bytes, &answer(&bytes).unwrap()), Err(TsigError::Unsigned));
        let unsigned = [0, 3, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(ours.verify(&asked, &unsigned, &answer(&unsigned).unwrap()), Err(TsigError::Unsigned));
    }

    #[test]
    fn keys_that_cannot_be_used_are_told() {
        assert_eq!(key("k", "hmac-md5", "YQ==").err(), Some(TsigError::Algorithm("hmac-md5".to_owned())));
        assert_eq!(key("k", "hmac-sha1", "%").err(), Some(TsigError::Secret));
        assert_eq!(key("a..b", "hmac-sha1", "YQ==").err(), Some(TsigError::Name("a..b".to_owned())));
    }
}
