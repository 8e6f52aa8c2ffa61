//! One order, from names to a certificate with its key.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rsa::KeySize;
use lb_config::acme::{Challenge, KeyType, Resolver};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::time::{Instant, sleep};

use crate::answers::Answers;
use crate::certificate::{self, Validity};
use crate::client::{Authorization, ChallengeOffer, Client, Error, Order};
use crate::dns::Dns;
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
    match &resolver.challenge {
        Challenge::Http { delay, .. } => {
            for authorization in &order.authorizations {
                let Some(open) = Open::look(client, authorization, "http-01").await? else { continue };
                let _in_place = answers.put_http(&open.token, open.proof(client));
                sleep(*delay).await;
                open.confirm(client).await?;
            }
        }
        Challenge::Tls { delay } => {
            for authorization in &order.authorizations {
                let Some(open) = Open::look(client, authorization, "tls-alpn-01").await? else { continue };
                let _in_place = answers.put_tls(&open.name, &open.proof(client)).map_err(Error::Ours)?;
                sleep(*delay).await;
                open.confirm(client).await?;
            }
        }
        Challenge::Dns(challenge) => {
            let dns = Dns::open(challenge).map_err(Error::Ours)?;
            validate_by_dns(client, &order.authorizations, &dns).await?;
        }
    }
    let (kind, params) = (resolver.key_type, request(names, resolver)?);
    // RSA keys take up to seconds.
    let made = tokio::task::spawn_blocking(move || {
        let key = new_key(kind)?;
        let request = params.serialize_request(&key).map_err(|error| Error::Ours(error.to_string()))?;
        Ok::<_, Error>((key.serialize_pem(), key.subject_public_key_info(), request.der().to_vec()))
    });
    let (key, public, request) = made.await.map_err(|error| Error::Ours(error.to_string()))??;
    client.finalize(&order, &request).await?;
    let issued = issued(client, &url, resolver.certificate_timeout).await?;
    let (chain, alternates) = client.chain(&issued).await?;
    let chain = match &resolver.preferred_chain {
        Some(issuer) => preferred(client, issuer, chain, alternates).await?,
        None => chain,
    };
    match Validity::unfit(chain.as_bytes(), names, &public, SystemTime::now()) {
        Some(reason) => Err(Error::Ours(reason)),
        None => Ok(Issued { chain, key }),
    }
}

/// Sets all records, waits for them once, and has them looked at; one after the other where the provider needs that.
async fn validate_by_dns(client: &mut Client<'_>, authorizations: &[String], dns: &Dns) -> Result<(), Error> {
    let mut all = Vec::new();
    for authorization in authorizations {
        all.extend(Open::look(client, authorization, "dns-01").await?);
    }
    let at_once = if dns.sequence().is_some() { 1 } else { all.len().max(1) };
    for (index, some) in all.chunks(at_once).enumerate() {
        if index > 0 {
            sleep(dns.sequence().unwrap_or_default()).await;
        }
        let mut records = Vec::new();
        for open in some {
            records.push(dns.record(&open.name, &open.token, open.proof(client)).await);
        }
        let presented = dns.present(records).await.map_err(Error::Ours)?;
        let validated: Result<(), Error> = async {
            dns.wait(&presented).await.map_err(Error::Ours)?;
            for open in some {
                open.confirm(client).await?;
            }
            Ok(())
        }
        .await;
        presented.clean_up().await;
        validated?;
    }
    Ok(())
}

/// A name that is to be validated.
struct Open {
    /// Of the authorization.
    url: String,
    /// In lower case; without the `*.` of a wildcard (RFC 8555 section 7.1.4).
    name: String,
    token: String,
    challenge: ChallengeOffer,
}

impl Open {
    /// `None`: it is validated already, for an earlier order.
    async fn look(client: &mut Client<'_>, url: &str, kind: &str) -> Result<Option<Self>, Error> {
        let (authorization, _): (Authorization, _) = client.get(url).await?;
        if authorization.status == "valid" {
            return Ok(None);
        }
        let name = authorization.identifier.value.to_ascii_lowercase();
        let offer = authorization.challenges.into_iter().find(|offer| offer.kind == kind);
        let challenge =
            offer.ok_or_else(|| Error::Ours(format!("the authority offers no {kind} for {name}")))?;
        let token = challenge.token.clone();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            return Err(Error::Protocol("a token that is none".to_owned()));
        }
        Ok(Some(Self { url: url.to_owned(), name, token, challenge }))
    }

    fn proof(&self, client: &Client<'_>) -> String {
        client.authorization(&self.token)
    }

    /// Says that the answer is in place, and waits for the authority to see it.
    async fn confirm(&self, client: &mut Client<'_>) -> Result<(), Error> {
        client.ready(&self.challenge).await?;
        let mut pause = Pause::until(VALIDATION, "a validation");
        loop {
            let (now, after): (Authorization, _) = client.get(&self.url).await?;
            match now.status.as_str() {
                "valid" => return Ok(()),
                "pending" | "processing" => pause.wait(after).await?,
                _ => {
                    let error = now.challenges.into_iter().find_map(|offer| offer.error);
                    let problem =
                        error.ok_or_else(|| Error::Ours(format!("{} is not validated", self.name)))?;
                    return Err(Error::Refused { problem, retry_after: None });
                }
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
