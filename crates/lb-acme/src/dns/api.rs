//! What the HTTP APIs of DNS providers have in common: whose zone a name is in, requests, and what refusals mean.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::lookup::suffixes;
use super::{Action, ProviderError, Record, Timing};
use crate::http::{Answer, Http, said};

/// Pauses before a request is sent again to an API that wants fewer of them. Chosen.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// The longest pause that an API may ask for. Chosen.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a change is tried that others are in the way of. Chosen.
const TRIES: usize = 3;
/// The shortest time between two looks whether a change is done. Chosen.
const LEAST: Duration = Duration::from_millis(10);
/// The shortest header of a request that may be a secret: bytes. Chosen: shorter ones are dates and numbers.
const SECRET: usize = 20;
/// Route 53 says with these, and status 400, that it wants fewer requests.
const BUSY: [&str; 2] = ["<Code>Throttling</Code>", "<Code>PriorRequestNotComplete</Code>"];

/// A provider that keeps zones.
pub(super) trait Zoned {
    /// What its API calls a zone.
    type Zone;

    /// The zone of this name, without a final dot; `None` if the account has none. A refusal that may mean the same
    /// (400, 403, 404, 422) is as good.
    async fn zone(&self, name: &str) -> Result<Option<Self::Zone>, ProviderError>;

    /// Adds a record to the others of its name, or takes it away from them.
    async fn change(&self, action: Action, zone: &Self::Zone, record: &Record) -> Result<(), ProviderError>;

    /// In the longest zone that the record's name is in.
    async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        let mut refusals = Vec::new();
        let names = suffixes(&record.fqdn).map(|name| name.trim_end_matches('.'));
        for name in names.filter(|name| name.contains('.')) {
            match self.zone(name).await {
                Ok(Some(zone)) => {
                    for _ in 1..TRIES {
                        match self.change(action, &zone, record).await {
                            // Somebody else has changed what we have read.
                            Err(ProviderError::Api { status: 409 | 412, .. }) => {}
                            changed => return changed,
                        }
                    }
                    return self.change(action, &zone, record).await;
                }
                Ok(None) | Err(ProviderError::Api { status: 404, .. }) => {}
                Err(error @ ProviderError::Api { status: 400 | 403 | 422, .. }) => {
                    refusals.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(no_zone(record, &refusals))
    }
}

/// With what the API has said of each name that may have been one.
pub(super) fn no_zone(record: &Record, refusals: &[ProviderError]) -> ProviderError {
    let name = record.fqdn.trim_end_matches('.');
    let mut told = format!("the account has no zone that {name} is in, or the credentials may not see it");
    let mut refusals: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    refusals.dedup();
    for (index, refusal) in refusals.iter().enumerate() {
        told += if index == 0 { ": " } else { "; " };
        told += refusal;
    }
    ProviderError::Refused(told)
}

/// The name below a zone; `apex` is what the API calls the zone's own name.
pub(super) fn below<'a>(fqdn: &'a str, zone: &str, apex: &'a str) -> &'a str {
    let name = fqdn.trim_end_matches('.');
    let end = name.len().saturating_sub(zone.trim_end_matches('.').len());
    name.get(..end).map(|name| name.trim_end_matches('.')).filter(|name| !name.is_empty()).unwrap_or(apex)
}

/// A text as it stands in a zone file.
pub(super) fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}

pub(super) fn unquoted(text: &str) -> &str {
    text.trim_matches('"')
}

/// The texts of a name after the action; `None` where there is nothing to do.
pub(super) fn changed(mut texts: Vec<String>, action: Action, value: &str) -> Option<Vec<String>> {
    let is_there = texts.iter().any(|text| unquoted(text) == value);
    match action {
        Action::Present => texts.push(quoted(value)),
        Action::CleanUp => texts.retain(|text| unquoted(text) != value),
    }
    (is_there == (action == Action::CleanUp)).then_some(texts)
}

/// As a part of a path or of a query: RFC 3986 section 2.1.
pub(super) fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A query, or a form as `application/x-www-form-urlencoded`.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

pub(super) fn bearer(token: &str) -> Secret {
    Secret::new(&format!("Bearer {token}"))
}

/// The API at one URL, to which paths are added.
pub(super) struct Api {
    http: Http,
    pub(super) base_url: String,
    /// Sent with each request.
    headers: Vec<(&'static str, Secret)>,
    /// What no message may show.
    secrets: Vec<Secret>,
    pauses: [Duration; 4],
}

impl Api {
    pub(super) fn new(base_url: &str, timeout: Duration) -> Result<Self, ProviderError> {
        let http = Http::of_provider(timeout)?;
        let base_url = base_url.trim_end_matches('/').to_owned();
        Ok(Self { http, base_url, headers: Vec::new(), secrets: Vec::new(), pauses: PAUSES })
    }

    /// With a header in each request that proves who we are.
    pub(super) fn with(mut self, header: &'static str, value: Secret) -> Self {
        self.headers.push((header, value.clone()));
        self.keeping(&[value])
    }

    /// Secrets that are sent in another way.
    pub(super) fn keeping(mut self, secrets: &[Secret]) -> Self {
        self.secrets.extend(secrets.iter().cloned());
        self
    }

    /// With the port, as it stands in `Host`.
    pub(super) fn host(&self) -> &str {
        let host = self.base_url.split_once("://").map_or("", |(_, rest)| rest);
        host.split('/').next().unwrap_or_default()
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ProviderError> {
        understood(&self.request(Method::GET, path, &[], String::new()).await?)
    }

    /// Whatever is answered, it is done.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, ProviderError> {
        self.send_with(&[], method, path, body).await
    }

    pub(super) async fn send_with(
        &self,
        headers: &[(&str, &str)],
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, ProviderError> {
        let json = [(header::CONTENT_TYPE.as_str(), "application/json")];
        let headers = if body.is_some() { [&json, headers].concat() } else { headers.to_vec() };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.request(method, path, &headers, body).await
    }

    /// # Errors
    /// Each status but 2xx is one.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, ProviderError> {
        let mut pauses = self.pauses.iter();
        loop {
            let mut request = Request::builder()
                .method(method.clone())
                .uri(format!("{}{path}", self.base_url))
                .header(header::ACCEPT, "application/json");
            for (name, value) in &self.headers {
                request = request.header(*name, value.reveal());
            }
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(body.clone()).map_err(|_| {
                ProviderError::Refused("the credentials or the name cannot be sent".to_owned())
            })?;
            let answer = self.http.request(request).await?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            match pauses.next() {
                Some(pause) if is_busy(&answer) => {
                    let pause = answer.retry_after().unwrap_or(*pause).min(LONGEST_PAUSE);
                    tracing::debug!(?pause, "The API of the DNS provider wants fewer requests");
                    sleep(pause).await;
                }
                _ => return Err(self.refused(&answer, headers)),
            }
        }
    }

    /// Without what the API may repeat of secrets: those that are known from the start, and what else was sent in headers,
    /// such as keys of a session and granted tokens.
    fn refused(&self, answer: &Answer, headers: &[(&str, &str)]) -> ProviderError {
        let meaning = match answer.status {
            StatusCode::UNAUTHORIZED => ", it does not accept the credentials",
            StatusCode::FORBIDDEN => ", the credentials are not enough for this",
            _ if is_busy(answer) => ", it wants fewer requests",
            _ => "",
        };
        let mut body = String::from_utf8_lossy(&answer.body).into_owned();
        let sent = headers.iter().map(|(_, value)| *value).filter(|value| value.len() >= SECRET);
        let secrets = self.secrets.iter().map(Secret::reveal).filter(|secret| !secret.is_empty());
        for secret in secrets.chain(sent) {
            body = body.replace(secret, "***");
            // Of `Bearer x` the token alone.
            if let Some((_, token)) = secret.split_once(' ').filter(|(_, token)| !token.is_empty()) {
                body = body.replace(token, "***");
            }
        }
        let told = said(body.as_bytes());
        ProviderError::Api { status: answer.status.as_u16(), told: format!("{meaning}{told}") }
    }
}

fn is_busy(answer: &Answer) -> bool {
    let says = |code: &str| answer.body.windows(code.len()).any(|bytes| bytes == code.as_bytes());
    answer.status == StatusCode::TOO_MANY_REQUESTS
        || (answer.status == StatusCode::BAD_REQUEST && BUSY.into_iter().any(says))
}

pub(super) fn understood<T: DeserializeOwned>(answer: &Answer) -> Result<T, ProviderError> {
    serde_json::from_slice(&answer.body).map_err(|_| not_understood())
}

pub(super) fn not_understood() -> ProviderError {
    ProviderError::Refused("the API's answer is not understood".to_owned())
}

/// A token for what a form shows (RFC 6749 section 4.4, RFC 7523).
pub(super) async fn token(api: &Api, pairs: &[(&str, &str)]) -> Result<Secret, ProviderError> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: String,
    }
    let headers = [(header::CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")];
    let answer = api.request(Method::POST, "", &headers, form(pairs)).await?;
    let granted: Granted = understood(&answer)?;
    Ok(bearer(&granted.access_token))
}

/// For a change that goes on behind the API's answer.
pub(super) struct Patience {
    began: Instant,
    timing: Timing,
}

impl Patience {
    pub(super) fn new(timing: Timing) -> Self {
        Self { began: Instant::now(), timing }
    }

    /// The pause before the next look.
    pub(super) async fn pause(&self) -> Result<(), ProviderError> {
        let Timing { timeout, interval, .. } = self.timing;
        if self.began.elapsed() >= timeout {
            return Err(ProviderError::Refused(format!(
                "the change of the zone is not done after {timeout:?}"
            )));
        }
        sleep(interval.max(LEAST)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::dns::testing::{Server, Told, record};

    #[test]
    fn names_are_told_apart_from_their_zones() {
        for (fqdn, zone, expected) in [
            ("_acme-challenge.a.b.test.", "b.test", "_acme-challenge.a"),
            ("_acme-challenge.a.b.test.", "b.test.", "_acme-challenge.a"),
            ("b.test.", "b.test", "@"),
        ] {
            assert_eq!(below(fqdn, zone, "@"), expected);
        }
        assert_eq!(encoded("_a-b.c/d e&\u{e9}"), "_a-b.c%2Fd%20e%26%C3%A9");
    }

    #[test]
    fn other_texts_of_a_name_stay() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (before, action, after) in [
            (&["\"o\""][..], Action::Present, Some(&["\"o\"", "\"v\""][..])),
            (&["\"o\"", "v"], Action::Present, None),
            (&["\"o\"", "\"v\""], Action::CleanUp, Some(&["\"o\""])),
            (&["v"], Action::CleanUp, Some(&[])),
            (&["\"o\""], Action::CleanUp, None),
        ] {
            assert_eq!(changed(texts(before), action, "v"), after.map(texts), "{before:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_without_secrets() {
        let server = Server::start(|request| match request.lines().next() {
            Some("GET /401 HTTP/1.1") => (401, "no token t0ken,\nno 'Bearer t0ken'".to_owned()),
            Some("GET /403 HTTP/1.1") => (403, String::new()),
            Some("GET /echo HTTP/1.1") => {
                (409, ["x-date", "x-session"].map(|name| Told::of(request).header(name).to_owned()).join(" "))
            }
            Some("GET /long HTTP/1.1") => (409, "x".repeat(497) + "t0ken"),
            _ => (200, "<html>".to_owned()),
        })
        .await;
        let api =
            Api::new(&server.url(), Duration::from_secs(9)).unwrap().with("authorization", bearer("t0ken"));
        for (path, expected) in [
            ("/401", "the API answers 401, it does not accept the credentials: no token ***, no '***'"),
            ("/403", "the API answers 403, the credentials are not enough for this"),
            ("/html", "the API's answer is not understood"),
            ("/ ", "the credentials or the name cannot be sent"),
        ] {
            assert_eq!(api.get::<Value>(path).await.unwrap_err().to_string(), expected);
        }
        let headers = [("x-date", "20150830T123600Z"), ("x-session", "a-session-of-20-bytes")];
        let failed = api.request(Method::GET, "/echo", &headers, String::new()).await.err().unwrap();
        assert_eq!(failed.to_string(), "the API answers 409: 20150830T123600Z ***");
        // A message ends somewhere, but not within a secret.
        let failed = api.get::<Value>("/long").await.unwrap_err().to_string();
        assert!(failed.ends_with("x***"), "{failed}");
    }

    #[tokio::test]
    async fn an_api_that_wants_fewer_requests_is_asked_again() {
        let asked = AtomicUsize::new(0);
        let server = Server::start(move |request| match request.starts_with("GET /always") {
            true => (429, "slow down".to_owned()),
            false => match asked.fetch_add(1, Ordering::Relaxed) {
                0 => (429, String::new()),
                1 => (400, "<Error><Code>Throttling</Code></Error>".to_owned()),
                _ => (200, "7".to_owned()),
            },
        })
        .await;
        let mut api = Api::new(&server.url(), Duration::from_secs(9)).unwrap();
        api.pauses = [Duration::ZERO; 4];
        assert_eq!(api.get::<u32>("/").await.unwrap(), 7);
        assert_eq!(server.told().len(), 3);
        let failed = api.get::<u32>("/always").await.unwrap_err().to_string();
        assert_eq!(failed, "the API answers 429, it wants fewer requests: slow down");
        assert_eq!(server.told().len(), 3 + 1 + PAUSES.len());
    }

    struct Account(u16);

    impl Zoned for Account {
        type Zone = String;

        async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
            match (self.0, name) {
                (200, "b.test") => Ok(Some(name.to_owned())),
                (200, _) => Ok(None),
                (status, _) => Err(ProviderError::Api { status, told: format!(" to {name}") }),
            }
        }

        async fn change(&self, _: Action, zone: &String, _: &Record) -> Result<(), ProviderError> {
            Err(ProviderError::Refused(zone.clone()))
        }
    }

    #[tokio::test]
    async fn the_zone_is_the_longest_that_the_account_has() {
        let lacks =
            |name| format!("the account has no zone that {name} is in, or the credentials may not see it");
        let ours = "_acme-challenge.a.b.test";
        for (status, domain, expected) in [
            (200, "a.b.test", "b.test".to_owned()),
            (200, "a.test", lacks("_acme-challenge.a.test")),
            (404, "a.b.test", lacks(ours)),
            (
                403,
                "a.b.test",
                format!(
                    "{}: the API answers 403 to {ours}; the API answers 403 to a.b.test; \
                     the API answers 403 to b.test",
                    lacks(ours)
                ),
            ),
            (401, "a.b.test", format!("the API answers 401 to {ours}")),
        ] {
            let acted = Account(status).act(Action::Present, &record(domain, "v")).await;
            assert_eq!(acted.unwrap_err().to_string(), expected);
        }
    }
}
