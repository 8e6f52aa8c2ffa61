//! `cloudflare`: its API, version 4 (<https://developers.cloudflare.com/api>).

use std::time::Duration;

use http::Method;
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, bearer, encoded, quoted, unquoted};
use super::variables::{Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.cloudflare.com/client/v4";
const DEFAULTS: Defaults =
    Defaults { timeout: Duration::from_secs(120), ..Defaults::of(&["CLOUDFLARE", "CF"]) };
/// A record that is there already: left behind by an order that was cut off.
const IDENTICAL: [&str; 2] = ["81057", "81058"];

/// One set of credentials for zones, one for their records; mostly the same.
pub(super) struct Cloudflare {
    zones: Api,
    records: Api,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Listed<T> {
    result: Vec<T>,
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
        let email = variables.find(&["CLOUDFLARE_EMAIL", "CF_API_EMAIL"])?;
        let key = variables.find(&["CLOUDFLARE_API_KEY", "CF_API_KEY"])?;
        let records = variables.find(&["CLOUDFLARE_DNS_API_TOKEN", "CF_DNS_API_TOKEN"])?;
        let zones = variables.find(&["CLOUDFLARE_ZONE_API_TOKEN", "CF_ZONE_API_TOKEN"])?;
        let base_url = variables.text(&["CLOUDFLARE_BASE_URL", "CF_BASE_URL"])?;
        let base_url = super::base_url("CLOUDFLARE_BASE_URL", base_url.as_deref().unwrap_or(BASE_URL))?;
        let common = DEFAULTS.read(variables)?;
        let api = |headers: &[(&'static str, Secret)]| {
            let api = Api::new(&base_url, common.http_timeout)?;
            Ok::<_, ProviderError>(
                headers.iter().fold(api, |api, (name, value)| api.with(name, value.clone())),
            )
        };
        let by_token = |token: &Secret| api(&[("authorization", bearer(token.reveal()))]);
        let (zones, records) = match (email, key, records) {
            // The older way.
            (Some(email), Some(key), _) => {
                let headers = [("x-auth-email", email), ("x-auth-key", key)];
                (api(&headers)?, api(&headers)?)
            }
            (_, _, Some(records)) => (by_token(zones.as_ref().unwrap_or(&records))?, by_token(&records)?),
            _ => {
                let either = "CF_DNS_API_TOKEN, or CF_API_EMAIL and CF_API_KEY".to_owned();
                return Err(Lacking::Missing(either).into());
            }
        };
        Ok((Self { zones, records, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for Cloudflare {
    /// The path of its records.
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        let path = format!("/zones?name={}&per_page=50", encoded(name));
        let Listed { result } = self.zones.get::<Listed<Zone>>(&path).await?;
        let found = result.iter().find(|zone| zone.name.eq_ignore_ascii_case(name));
        Ok(found.map(|zone| format!("/zones/{}/dns_records", encoded(&zone.id))))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (name, value) = (record.fqdn.trim_end_matches('.'), &record.value);
        if action == Action::Present {
            // A text stands in quotes.
            let new =
                json!({ "type": "TXT", "name": name, "content": quoted(value), "ttl": self.ttl_seconds });
            return match self.records.send(Method::POST, zone, Some(new)).await {
                Err(ProviderError::Api { told, .. }) if IDENTICAL.iter().any(|code| told.contains(code)) => {
                    Ok(())
                }
                set => set.map(drop),
            };
        }
        let path = format!("{zone}?type=TXT&name={}&per_page=100", encoded(name));
        let Listed { result } = self.records.get::<Listed<Kept>>(&path).await?;
        for Kept { id, .. } in result.iter().filter(|kept| unquoted(&kept.content) == value) {
            self.records.send(Method::DELETE, &format!("{zone}/{}", encoded(id)), None).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Kept, Server, Told, record, two_of_one_name, variables};

    /// It refuses to look for names that are no zones, as to a token that is for some zones only.
    async fn api(kept: &Kept) -> Server {
        let theirs = kept.clone();
        Server::start(move |request| {
            let told = Told::of(request);
            let token = if told.line.contains("/dns_records") { "t-records" } else { "t-zones" };
            let by_key = (told.header("x-auth-email"), told.header("x-auth-key")) == ("a@b.c", "k3y");
            if !by_key && told.header("authorization") != format!("Bearer {token}") {
                return told.refuse(401);
            }
            let done = |result| told.json(200, json!({ "success": true, "errors": [], "result": result }));
            let fault = |status, code, message| {
                told.json(
                    status,
                    json!({ "success": false, "errors": [{ "code": code, "message": message }], "result": null }),
                )
            };
            if let Some(id) = told.line.strip_prefix("DELETE /c/zones/z1/dns_records/") {
                theirs.remove_id(id);
                return done(json!({ "id": id }));
            }
            match told.line.as_str() {
                "GET /c/zones?name=b.test&per_page=50" => done(json!([{ "id": "z1", "name": "b.test" }])),
                "GET /c/zones?name=a.test&per_page=50" => done(json!([])),
                "POST /c/zones/z1/dns_records" => {
                    assert_eq!((&told.body["type"], &told.body["ttl"]), (&json!("TXT"), &json!(120)));
                    assert_eq!(told.value("name"), "_acme-challenge.a.b.test");
                    if theirs.list(|_, text| text == told.value("content")).contains(&true) {
                        return fault(400, 81058, "An identical record already exists.");
                    }
                    done(json!({ "id": theirs.add(told.value("content")).to_string() }))
                }
                "GET /c/zones/z1/dns_records?type=TXT&name=_acme-challenge.a.b.test&per_page=100" => {
                    let list = theirs.list(|id, text| json!({ "id": id.to_string(), "content": text }));
                    done(json!(list))
                }
                _ => fault(403, 9109, "Unauthorized to access requested resource"),
            }
        })
        .await
    }

    fn open(server: &Server, set: &[(&str, &str)]) -> Cloudflare {
        let base = format!("{}/c", server.url());
        variables(&[&[("CLOUDFLARE_BASE_URL", base.as_str())], set].concat(), Cloudflare::open).unwrap().0
    }

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        let server = api(&kept).await;
        let by_key = [("CF_API_EMAIL", "a@b.c"), ("CLOUDFLARE_API_KEY", "k3y")];
        let by_token = [("CF_DNS_API_TOKEN", "t-records"), ("CF_ZONE_API_TOKEN", "t-zones")];
        let wrong = open(&server, &[("CF_DNS_API_TOKEN", "wr0ng")]);
        for set in [by_key, by_token] {
            kept.clear();
            two_of_one_name(&open(&server, &set), &wrong, &kept).await;
        }
        for _ in 0..2 {
            open(&server, &by_token).act(Action::Present, &record("a.b.test", "twice")).await.unwrap();
        }
        assert_eq!(kept.values(), ["other", "twice"]);
    }

    #[test]
    fn either_tokens_or_the_older_key() {
        let told = variables(&[("CF_API_KEY", "k")], Cloudflare::open).err().unwrap().to_string();
        assert_eq!(told, "the environment lacks CF_DNS_API_TOKEN, or CF_API_EMAIL and CF_API_KEY");
    }
}
