//! The protocol: RFC 8555, as much of it as orders need.
//!
//! Written here because the accounts in Traefik's files have RSA keys and `preferredChain` chooses among several
//! chains, and no maintained client on rustls does either (`instant-acme` signs with P-256 only and reads one chain).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use lb_config::acme::Eab;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::{Answer, Http, HttpError, printable};
use crate::jws::{AccountKey, BadKey, Signer};

/// How often one request is repeated because its nonce is not good any more. Chosen.
const NONCES: usize = 5;

const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Http(#[from] HttpError),
    /// The authority says why.
    #[error("{problem}")]
    Refused { problem: Problem, retry_after: Option<Duration> },
    /// It does not say why, as what is before it does while it is overloaded.
    #[error("the authority answers with status {status}")]
    Status { status: u16, retry_after: Option<Duration> },
    #[error("the authority's answer is not understood: {0}")]
    Protocol(String),
    #[error("{0}")]
    Key(#[from] BadKey),
    #[error("the authority took longer than {0:?} over {1}")]
    Late(Duration, &'static str),
    #[error("{0}")]
    Ours(String),
}

impl Error {
    /// How long the authority wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn is_unknown_account(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.kind == NO_ACCOUNT)
    }
}

/// A problem document: RFC 7807, RFC 8555 section 6.7.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    subproblems: Vec<Subproblem>,
}

#[derive(Clone, Debug, Deserialize)]
struct Subproblem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    detail: String,
    identifier: Option<Identifier>,
}

#[derive(Clone, Debug, Deserialize)]
struct Identifier {
    value: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the authority refuses: {} ({})", printable(&self.detail), printable(&self.kind))?;
        for Subproblem { kind, detail, identifier } in self.subproblems.iter().take(8) {
            let of = identifier.as_ref().map_or("", |identifier| &identifier.value);
            write!(f, "; {}: {} ({})", printable(of), printable(detail), printable(kind))?;
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    external_account_required: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    pub(crate) status: String,
    pub(crate) authorizations: Vec<String>,
    pub(crate) finalize: String,
    pub(crate) certificate: Option<String>,
    pub(crate) error: Option<Problem>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Authorization {
    pub(crate) status: String,
    pub(crate) identifier: AuthorizedName,
    #[serde(default)]
    pub(crate) challenges: Vec<ChallengeOffer>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AuthorizedName {
    pub(crate) value: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChallengeOffer {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) token: String,
    pub(crate) error: Option<Problem>,
}

/// An account that the authority knows, as the file keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) uri: String,
    pub(crate) body: Value,
}

/// One conversation with an authority.
pub(crate) struct Client<'a> {
    http: &'a Http,
    directory: Directory,
    key: &'a AccountKey,
    account: Option<String>,
    nonce: Option<String>,
}

impl<'a> Client<'a> {
    pub(crate) async fn open(http: &'a Http, directory: &str, key: &'a AccountKey) -> Result<Self, Error> {
        let answer = http.send(Method::GET, directory, None).await?;
        let directory = read(&accepted(answer)?)?;
        Ok(Self { http, directory, key, account: None, nonce: None })
    }

    /// Goes on as this account.
    pub(crate) fn use_account(&mut self, uri: &str) {
        self.account = Some(uri.to_owned());
    }

    /// A new account, or the one that the authority knows of this key.
    pub(crate) async fn register(&mut self, email: &str, eab: Option<&Eab>) -> Result<Registration, Error> {
        self.account = None;
        let url = self.directory.new_account.clone();
        let mut payload = json!({ "termsOfServiceAgreed": true });
        if !email.is_empty() {
            payload["contact"] = json!([format!("mailto:{email}")]);
        }
        match eab {
            Some(eab) => payload["externalAccountBinding"] = self.key.bind(eab, &url),
            None if self.directory.meta.external_account_required => {
                return Err(Error::Ours("the authority wants an external account: set `eab`".to_owned()));
            }
            None => {}
        }
        let answer = self.post(&url, Some(&payload)).await?;
        let uri =
            answer.header("location").ok_or_else(|| Error::Protocol("an account without a URL".to_owned()));
        let uri = uri?.to_owned();
        self.account = Some(uri.clone());
        Ok(Registration { uri, body: read(&answer)? })
    }

    pub(crate) async fn new_order(
        &mut self,
        names: &[String],
        profile: Option<&str>,
    ) -> Result<(String, Order), Error> {
        let identifier = |name: &String| match name.parse::<std::net::IpAddr>() {
            Ok(_) => json!({ "type": "ip", "value": name }),
            Err(_) => json!({ "type": "dns", "value": name }),
        };
        let mut payload = json!({ "identifiers": names.iter().map(identifier).collect::<Vec<_>>() });
        if let Some(profile) = profile {
            payload["profile"] = profile.into();
        }
        let url = self.directory.new_order.clone();
        let answer = self.post(&url, Some(&payload)).await?;
        let location =
            answer.header("location").ok_or_else(|| Error::Protocol("an order without a URL".to_owned()))?;
        Ok((location.to_owned(), read(&answer)?))
    }

    /// Reads a resource; with it how long to wait before it is read again.
    pub(crate) async fn get<T: DeserializeOwned>(
        &mut self,
        url: &str,
    ) -> Result<(T, Option<Duration>), Error> {
        let answer = self.post(url, None).await?;
        Ok((read(&answer)?, answer.retry_after()))
    }

    /// Says that the answer to a challenge is in place.
    pub(crate) async fn ready(&mut self, challenge: &ChallengeOffer) -> Result<(), Error> {
        self.post(&challenge.url, Some(&json!({}))).await.map(drop)
    }

    pub(crate) async fn finalize(&mut self, order: &Order, request: &[u8]) -> Result<(), Error> {
        let payload = json!({ "csr": URL_SAFE_NO_PAD.encode(request) });
        self.post(&order.finalize, Some(&payload)).await.map(drop)
    }

    /// The chain as PEM, and where others are.
    pub(crate) async fn chain(&mut self, url: &str) -> Result<(String, Vec<String>), Error> {
        let answer = self.post(url, None).await?;
        let chain = String::from_utf8(answer.body.to_vec());
        let chain = chain.map_err(|_| Error::Protocol("the chain is no text".to_owned()))?;
        let links = answer.headers.get_all("link").iter().filter_map(|link| link.to_str().ok());
        Ok((chain, links.flat_map(|link| link.split(',')).filter_map(alternate).collect()))
    }

    /// What proves to the authority that this account answers.
    pub(crate) fn authorization(&self, token: &str) -> String {
        self.key.authorization(token)
    }

    async fn post(&mut self, url: &str, payload: Option<&Value>) -> Result<Answer, Error> {
        let mut tries = 0;
        loop {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => {
                    let answer = self.http.send(Method::HEAD, &self.directory.new_nonce, None).await?;
                    let nonce = answer.header("replay-nonce").map(str::to_owned);
                    nonce.ok_or_else(|| Error::Protocol("no nonce".to_owned()))?
                }
            };
            let signer = self.account.as_deref().map_or(Signer::Key, Signer::Account);
            let body = self.key.sign(signer, url, &nonce, payload)?;
            let answer = self.http.send(Method::POST, url, Some(body)).await?;
            self.nonce = answer.header("replay-nonce").map(str::to_owned);
            tries += 1;
            match accepted(answer) {
                Err(Error::Refused { problem, .. }) if problem.kind == BAD_NONCE && tries < NONCES => {}
                other => return other,
            }
        }
    }
}

fn accepted(answer: Answer) -> Result<Answer, Error> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let problem = serde_json::from_slice::<Problem>(&answer.body).unwrap_or_default();
    let retry_after = answer.retry_after();
    if problem.kind.is_empty() && problem.detail.is_empty() {
        return Err(Error::Status { status: answer.status.as_u16(), retry_after });
    }
    Err(Error::Refused { problem, retry_after })
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    debug_assert_ne!(answer.status, StatusCode::BAD_REQUEST);
    serde_json::from_slice(&answer.body).map_err(|error| Error::Protocol(error.to_string()))
}

/// The URL of a link to another chain: `<url>;rel="alternate"`.
fn alternate(link: &str) -> Option<String> {
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_alternate = parameters.split(';').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "alternate"
    });
    is_alternate.then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_other_chains_are_found() {
        for (link, url) in [
            (r#"<https://ca/1/alternate>;rel="alternate""#, Some("https://ca/1/alternate")),
            ("<https://ca/2> ; title=\"x\"; rel=alternate", Some("https://ca/2")),
            (r#"<https://ca/dir>;rel="index""#, None),
            ("https://ca", None),
        ] {
            assert_eq!(alternate(link).as_deref(), url, "{link}");
        }
    }

    #[test]
    fn whoever_refuses_may_ask_for_a_pause() {
        for (body, expected) in [
            ("<html>overloaded", "the authority answers with status 503"),
            (r#"{"type": "t", "detail": "d"}"#, "the authority refuses: d (t)"),
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert("retry-after", http::HeaderValue::from_static("3600"));
            let answer = Answer { status: StatusCode::SERVICE_UNAVAILABLE, headers, body: body.into() };
            let error = accepted(answer).err().unwrap();
            assert_eq!(
                (error.to_string().as_str(), error.retry_after()),
                (expected, Some(Duration::from_secs(3600)))
            );
        }
    }

    #[test]
    fn a_problem_is_one_line_with_what_concerns_single_names() {
        let problem: Problem = serde_json::from_value(json!({
            "type": "urn:ietf:params:acme:error:malformed",
            "detail": "two\nlines",
            "subproblems": [{ "type": "t", "detail": "d", "identifier": { "type": "dns", "value": "a.test" } }],
        }))
        .unwrap();
        assert_eq!(
            problem.to_string(),
            "the authority refuses: two lines (urn:ietf:params:acme:error:malformed); a.test: d (t)"
        );
    }
}
