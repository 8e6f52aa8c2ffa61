//! `cloudflare`: its API, version 4 (<https://developers.cloudflare.com/api>).

use std::fmt::Write as _;
use std::time::Duration;

use http::{Method, Request, header};
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{Zoned, encoded, quoted};
use super::variables::{Common, Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};
use crate::http::{Http, printable};

const BASE_URL: &str = "https://api.cloudflare.com/client/v4";
const DEFAULTS: Defaults =
    Defaults { timeout: Duration::from_secs(120), ..Defaults::of(&["CLOUDFLARE", "CF"]) };
/// A record that is there already: left behind by an order that was cut off.
const IDENTICAL: [u64; 2] = [81057, 81058];

pub(super) struct Cloudflare {
    http: Http,
    base_url: String,
    credentials: Credentials,
    ttl_seconds: u32,
}

enum Credentials {
    /// One for zones, one for their records; mostly the same.
    Tokens { zones: Secret, records: Secret },
    /// The older way.
    Key { email: String, key: Secret },
}

#[derive(Clone, Copy)]
enum For {
    Zones,
    Records,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    errors: Vec<Fault>,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Kept {
    id: String,
    #[serde(default)]
    content: String,
}

impl Cloudflare {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let email = variables.text(&["CLOUDFLARE_EMAIL", "CF_API_EMAIL"])?;
        let key = variables.find(&["CLOUDFLARE_API_KEY", "CF_API_KEY"])?;
        let records = variables.find(&["CLOUDFLARE_DNS_API_TOKEN", "CF_DNS_API_TOKEN"])?;
        let zones = variables.find(&["CLOUDFLARE_ZONE_API_TOKEN", "CF_ZONE_API_TOKEN"])?;
        let credentials = match (email, key, records) {
            (Some(email), Some(key), _) => Credentials::Key { email, key },
            (_, _, Some(records)) => {
                Credentials::Tokens { zones: zones.unwrap_or_else(|| records.clone()), records }
            }
            _ => {
                let either = "CF_DNS_API_TOKEN, or CF_API_EMAIL and CF_API_KEY".to_owned();
                return Err(Lacking::Missing(either).into());
            }
        };
        let base_url = variables.text(&["CLOUDFLARE_BASE_URL", "CF_BASE_URL"])?;
        let base_url = super::base_url("CLOUDFLARE_BASE_URL", base_url.as_deref().unwrap_or(BASE_URL))?;
        let Common { ttl_seconds, http_timeout, timing } = DEFAULTS.read(variables)?;
        let provider = Self { http: Http::of_provider(http_timeout)?, base_url, credentials, ttl_seconds };
        Ok((provider, timing))
    }

    /// What is answered; `None` where there was nothing to do.
    async fn ask<T: DeserializeOwned>(
        &self,
        what: For,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Option<T>, ProviderError> {
        let url = format!("{}{path}", self.base_url);
        let mut request = Request::builder().method(method).uri(&url);
        request = match &self.credentials {
            Credentials::Tokens { zones, records } => {
                let token = if matches!(what, For::Zones) { zones } else { records };
                request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
            }
            Credentials::Key { email, key } => {
                request.header("X-Auth-Email", email).header("X-Auth-Key", key.reveal())
            }
        };
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(|body| body.to_string()).unwrap_or_default());
        let request =
            request.map_err(|_| ProviderError::Refused("a token that cannot be sent".to_owned()))?;
        let answer = self.http.request(request).await?;
        let status = answer.status.as_u16();
        let garbage = || ProviderError::Refused(format!("the API's answer ({status}) is not understood"));
        let Answer { success, errors, result } =
            serde_json::from_slice(&answer.body).map_err(|_| garbage())?;
        if success {
            return serde_json::from_value(result).map(Some).map_err(|_| garbage());
        }
        if errors.iter().any(|fault| IDENTICAL.contains(&fault.code)) {
            return Ok(None);
        }
        let mut told = format!("the API answers {status}");
        for Fault { code, message } in errors.iter().take(4) {
            let _ = write!(told, "; {} ({code})", printable(message));
        }
        Err(ProviderError::Refused(told))
    }
}

impl Zoned for Cloudflare {
    /// Its id.
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        let path = format!("/zones?name={}&per_page=50", encoded(name));
        let zones: Vec<Zone> = self.ask(For::Zones, Method::GET, &path, None).await?.unwrap_or_default();
        let found = zones.iter().find(|zone| zone.name.eq_ignore_ascii_case(name));
        found.map(|zone| plain(&zone.id).map(ToOwned::to_owned)).transpose()
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (name, value) = (record.fqdn.trim_end_matches('.'), &record.value);
        let records = format!("/zones/{zone}/dns_records");
        match action {
            Action::Present => {
                // A text stands in quotes.
                let new =
                    json!({ "type": "TXT", "name": name, "content": quoted(value), "ttl": self.ttl_seconds });
                self.ask::<Value>(For::Records, Method::POST, &records, Some(new)).await.map(drop)
            }
            Action::CleanUp => {
                let path = format!("{records}?type=TXT&name={}&per_page=100", encoded(name));
                let kept: Vec<Kept> =
                    self.ask(For::Records, Method::GET, &path, None).await?.unwrap_or_default();
                for Kept { id, .. } in kept.iter().filter(|kept| kept.content.trim_matches('"') == value) {
                    let path = format!("{records}/{}", plain(id)?);
                    self.ask::<Value>(For::Records, Method::DELETE, &path, None).await?;
                }
                Ok(())
            }
        }
    }
}

/// An id goes into a path as it is.
fn plain(id: &str) -> Result<&str, ProviderError> {
    let is_plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    is_plain
        .then_some(id)
        .ok_or_else(|| ProviderError::Refused("the API names an id that is none".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Server, record, variables};

    const ZONE: &str = r#"{"success":true,"result":[{"id":"z1","name":"b.test"}]}"#;
    const NOTHING: &str = r#"{"success":true,"errors":[],"result":[]}"#;

    fn answer(request: &str) -> (u16, String) {
        let line = request.lines().next().unwrap_or_default();
        let path = line.trim_end_matches(" HTTP/1.1");
        let kept = r#"{"success":true,"result":[{"id":"r1","content":"\"value\""},{"id":"r2","content":"\"other\""}]}"#;
        match path {
            "GET /c/zones?name=b.test&per_page=50" => (200, ZONE.to_owned()),
            _ if path.starts_with("GET /c/zones?name=") => (200, NOTHING.to_owned()),
            "POST /c/zones/z1/dns_records" if request.contains("\\\"twice\\\"") => (
                400,
                r#"{"success":false,"errors":[{"code":81058,"message":"An identical record already exists."}]}"#.to_owned(),
            ),
            "POST /c/zones/z1/dns_records" if request.contains("\\\"bad\\\"") => {
                (403, r#"{"success":false,"errors":[{"code":10000,"message":"Authentication\nerror"}]}"#.to_owned())
            }
            "POST /c/zones/z1/dns_records" => (200, r#"{"success":true,"result":{"id":"r1"}}"#.to_owned()),
            "GET /c/zones/z1/dns_records?type=TXT&name=_acme-challenge.a.b.test&per_page=100" => (200, kept.to_owned()),
            "DELETE /c/zones/z1/dns_records/r1" => (200, r#"{"success":true,"result":{"id":"r1"}}"#.to_owned()),
            _ => (404, "<html>".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_record_is_set_and_only_this_taken_away() {
        let server = Server::start(answer).await;
        let base = format!("{}/c", server.url());
        let set = [
            ("CLOUDFLARE_BASE_URL", base.as_str()),
            ("CF_DNS_API_TOKEN", "t-records"),
            ("CF_ZONE_API_TOKEN", "t-zones"),
        ];
        let provider = variables(&set, Cloudflare::open).unwrap().0;
        provider.act(Action::Present, &record("a.b.test", "value")).await.unwrap();
        provider.act(Action::CleanUp, &record("a.b.test", "value")).await.unwrap();
        let told = server.told();
        let line = |text: &String| text.lines().next().unwrap_or_default().replace(" HTTP/1.1", "");
        let lines: Vec<_> = told.iter().map(line).collect();
        let zones = ["_acme-challenge.a.b.test", "a.b.test", "b.test"]
            .map(|name| format!("GET /c/zones?name={name}&per_page=50"));
        assert_eq!(lines[..3], zones);
        assert_eq!(lines[3], "POST /c/zones/z1/dns_records");
        assert_eq!(lines.last().unwrap(), "DELETE /c/zones/z1/dns_records/r1");
        assert!(told[0].contains("authorization: Bearer t-zones\r\n"), "{told:?}");
        assert!(told[3].contains("authorization: Bearer t-records\r\n"), "{told:?}");
        let body = r#"{"content":"\"value\"","name":"_acme-challenge.a.b.test","ttl":120,"type":"TXT"}"#;
        assert!(told[3].ends_with(body), "{}", told[3]);

        provider.act(Action::Present, &record("a.b.test", "twice")).await.unwrap();
        let failed = provider.act(Action::Present, &record("a.b.test", "bad")).await.unwrap_err().to_string();
        assert_eq!(failed, "the API answers 403; Authentication error (10000)");
        let failed = provider.act(Action::Present, &record("a.test", "v")).await.unwrap_err().to_string();
        assert!(failed.starts_with("the account has no zone that _acme-challenge.a.test is in"), "{failed}");
    }

    #[test]
    fn either_tokens_or_the_older_key() {
        let open = |set: &[(&str, &str)]| {
            variables(set, Cloudflare::open)
                .map(|(provider, _)| matches!(provider.credentials, Credentials::Key { .. }))
        };
        assert!(!open(&[("CF_DNS_API_TOKEN", "t")]).unwrap());
        assert!(open(&[("CF_API_EMAIL", "a@b.c"), ("CLOUDFLARE_API_KEY", "k")]).unwrap());
        let told = open(&[("CF_API_KEY", "k")]).unwrap_err().to_string();
        assert_eq!(told, "the environment lacks CF_DNS_API_TOKEN, or CF_API_EMAIL and CF_API_KEY");
    }
}
