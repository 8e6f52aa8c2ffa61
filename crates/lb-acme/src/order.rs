//! One order, from names to a certificate with its key.

use std::time::Duration;

use aws_lc_rs::rsa::KeySize;
use lb_config::acme::{Challenge, KeyType, Resolver};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::time::{Instant, sleep};

use crate::answers::{Answers, InPlace};
use crate::certificate;
use crate::client::{Authorization, Client, Error, Order};
use crate::jws::rsa_pkcs8;

/// For the authority to look at the answer to one challenge. Chosen: Let's Encrypt looks from several places at once
/// and takes seconds.
const VALIDATION: Duration = Duration::from_secs(60);
/// Between two looks at what the authority is doing, doubled each time, unless it says how long. Chosen.
const POLL: Duration = Duration::from_millis(250);
const LONGEST_POLL: Duration = Duration::from_secs(5);
/// What fits into a common name: RFC 5280 appendix A.1.
const COMMON_NAME: usize = 64;

/// PEM, both.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Orders a certificate for `names`, the first of which is the main one.
pub(crate) async fn obtain(
    client: &mut Client<'_>,
    names: &[String],
    resolver: &Resolver,
    answers: &Answers,
) -> Result<Issued, Error> {
    let (url, order) = client.new_order(names, resolver.profile.as_deref()).await?;
    for authorization in &order.authorizations {
        validate(client, authorization, &resolver.challenge, answers).await?;
    }
    let (kind, params) = (resolver.key_type, request(names, resolver)?);
    // RSA keys take up to seconds.
    let made = tokio::task::spawn_blocking(move || {
        let key = new_key(kind)?;
        let request = params.serialize_request(&key).map_err(|error| Error::Ours(error.to_string()))?;
        Ok::<_, Error>((key.serialize_pem(), request.der().to_vec()))
    });
    let (key, request) = made.await.map_err(|error| Error::Ours(error.to_string()))??;
    client.finalize(&order, &request).await?;
    let issued = issued(client, &url, resolver.certificate_timeout).await?;
    let (chain, alternates) = client.chain(&issued).await?;
    let chain = match &resolver.preferred_chain {
        Some(issuer) => preferred(client, issuer, chain, alternates).await?,
        None => chain,
    };
    Ok(Issued { chain, key })
}

async fn validate(
    client: &mut Client<'_>,
    url: &str,
    challenge: &Challenge,
    answers: &Answers,
) -> Result<(), Error> {
    let (authorization, _): (Authorization, _) = client.get(url).await?;
    // One of an earlier order.
    if authorization.status == "valid" {
        return Ok(());
    }
    let (kind, delay) = match challenge {
        Challenge::Http { delay, .. } => ("http-01", *delay),
        Challenge::Tls { delay } => ("tls-alpn-01", *delay),
    };
    let name = authorization.identifier.value.to_ascii_lowercase();
    let offer = authorization.challenges.iter().find(|offer| offer.kind == kind);
    let offer = offer.ok_or_else(|| Error::Ours(format!("the authority offers no {kind} for {name}")))?;
    if offer.token.is_empty() || !offer.token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        return Err(Error::Protocol("a token that is none".to_owned()));
    }
    let proof = client.authorization(&offer.token);
    let _in_place: InPlace = match challenge {
        Challenge::Http { .. } => answers.put_http(&offer.token, proof),
        Challenge::Tls { .. } => answers.put_tls(&name, &proof).map_err(Error::Ours)?,
    };
    sleep(delay).await;
    client.ready(offer).await?;
    let mut pause = Pause::until(VALIDATION, "a validation");
    loop {
        let (now, after): (Authorization, _) = client.get(url).await?;
        match now.status.as_str() {
            "valid" => return Ok(()),
            "pending" | "processing" => pause.wait(after).await?,
            _ => {
                let error = now.challenges.into_iter().find_map(|offer| offer.error);
                let problem = error.ok_or_else(|| Error::Ours(format!("{name} is not validated")))?;
                return Err(Error::Refused { problem, retry_after: None });
            }
        }
    }
}

/// Waits for the certificate; returns where it is.
async fn issued(client: &mut Client<'_>, url: &str, limit: Duration) -> Result<String, Error> {
    let mut pause = Pause::until(limit, "a certificate (`certificateTimeout`)");
    loop {
        let (order, after): (Order, _) = client.get(url).await?;
        match (order.status.as_str(), order.certificate) {
            ("valid", Some(certificate)) => return Ok(certificate),
            ("ready" | "processing" | "pending", _) => pause.wait(after).await?,
            (status, _) => {
                return Err(match order.error {
                    Some(problem) => Error::Refused { problem, retry_after: None },
                    None => Error::Protocol(format!("the order is {status:?}")),
                });
            }
        }
    }
}

/// The chain that this issuer ends; the one that the authority prefers, if there is none.
async fn preferred(
    client: &mut Client<'_>,
    issuer: &str,
    first: String,
    alternates: Vec<String>,
) -> Result<String, Error> {
    const CHAINS: usize = 8;
    if certificate::last_issuer(&first).as_deref() == Some(issuer) {
        return Ok(first);
    }
    for url in alternates.iter().take(CHAINS) {
        let (chain, _) = client.chain(url).await?;
        if certificate::last_issuer(&chain).as_deref() == Some(issuer) {
            return Ok(chain);
        }
    }
    tracing::warn!(preferredChain = issuer, "The authority has no such chain, its own choice is taken");
    Ok(first)
}

fn request(names: &[String], resolver: &Resolver) -> Result<CertificateParams, Error> {
    let ours = |error: rcgen::Error| Error::Ours(error.to_string());
    let mut params = CertificateParams::new(names).map_err(ours)?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(main) =
        names.first().filter(|main| !resolver.disable_common_name && main.len() <= COMMON_NAME)
    {
        params.distinguished_name.push(DnType::CommonName, main.as_str());
    }
    for address in &resolver.email_addresses {
        let address = Ia5String::try_from(address.as_str()).map_err(ours)?;
        params.subject_alt_names.push(SanType::Rfc822Name(address));
    }
    Ok(params)
}

fn new_key(kind: KeyType) -> Result<KeyPair, Error> {
    let size = match kind {
        KeyType::Ec256 => return generated(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)),
        KeyType::Ec384 => return generated(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)),
        KeyType::Rsa2048 => KeySize::Rsa2048,
        KeyType::Rsa3072 => KeySize::Rsa3072,
        KeyType::Rsa4096 => KeySize::Rsa4096,
        KeyType::Rsa8192 => KeySize::Rsa8192,
    };
    let pkcs8 = rsa_pkcs8(size).ok_or_else(|| Error::Ours("no RSA key can be made".to_owned()))?;
    let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8);
    generated(KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_RSA_SHA256))
}

fn generated(key: Result<KeyPair, rcgen::Error>) -> Result<KeyPair, Error> {
    key.map_err(|error| Error::Ours(error.to_string()))
}

/// Growing pauses, up to a limit.
struct Pause {
    next: Duration,
    limit: Duration,
    end: Instant,
    what: &'static str,
}

impl Pause {
    fn until(limit: Duration, what: &'static str) -> Self {
        Self { next: POLL, limit, end: Instant::now() + limit, what }
    }

    async fn wait(&mut self, wanted: Option<Duration>) -> Result<(), Error> {
        let pause = wanted.unwrap_or(self.next);
        if Instant::now() + pause > self.end {
            return Err(Error::Late(self.limit, self.what));
        }
        sleep(pause).await;
        self.next = (self.next * 2).min(LONGEST_POLL);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_type_but_the_slowest_can_be_made_and_used() {
        for (kind, label) in [
            (KeyType::Ec256, "PRIVATE KEY"),
            (KeyType::Ec384, "PRIVATE KEY"),
            (KeyType::Rsa2048, "PRIVATE KEY"),
            (KeyType::Rsa3072, "PRIVATE KEY"),
        ] {
            let key = new_key(kind).unwrap();
            assert!(key.serialize_pem().contains(label));
            CertificateParams::new(["a.test".to_owned()]).unwrap().serialize_request(&key).unwrap();
        }
    }
}
