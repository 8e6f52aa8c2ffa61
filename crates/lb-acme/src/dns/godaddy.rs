//! `godaddy`: its API, version 1 (<https://developer.godaddy.com/doc/endpoint/domains>).

use std::time::Duration;

use http::Method;
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, Zoned, below, changed, encoded, unquoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.godaddy.com";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 600,
    least_ttl_seconds: 600,
    timeout: Duration::from_secs(120),
    ..Defaults::of(&["GODADDY"])
};

pub(super) struct GoDaddy {
    api: Api,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Kept {
    data: String,
}

impl GoDaddy {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let key = variables.require(&["GODADDY_API_KEY"])?;
        let secret = variables.require(&["GODADDY_API_SECRET"])?;
        let authorization = Secret::new(&format!("sso-key {}:{}", key.reveal(), secret.reveal()));
        let api = Api::new(BASE_URL, common.http_timeout)?
            .with("authorization", authorization)
            .keeping(&[key, secret]);
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for GoDaddy {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.api.send(Method::GET, &format!("/v1/domains/{}", encoded(name)), None).await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let name = encoded(below(&record.fqdn, zone, "@"));
        let path = format!("/v1/domains/{}/records/TXT/{name}", encoded(zone));
        let kept: Vec<Kept> = self.api.get(&path).await?;
        let texts = kept.into_iter().map(|kept| kept.data).filter(|text| !text.is_empty()).collect();
        let Some(texts) = changed(texts, action, &record.value) else { return Ok(()) };
        if texts.is_empty() {
            return self.api.send(Method::DELETE, &path, None).await.map(drop);
        }
        // This API wants texts without quotes.
        let texts = texts.iter().map(|text| json!({ "data": unquoted(text), "ttl": self.ttl_seconds }));
        self.api.send(Method::PUT, &path, Some(Value::Array(texts.collect()))).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Kept, Server, Told, record, two_of_one_name, variables};

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        let theirs = kept.clone();
        let server = Server::start(move |request| {
            let told = Told::of(request);
            if told.header("authorization") != "sso-key k3y:t0ken" {
                return told.refuse(401);
            }
            match told.line.as_str() {
                "GET /v1/domains/b.test" => told.json(200, json!({ "domain": "b.test" })),
                "GET /v1/domains/b.test/records/TXT/_acme-challenge.a" => {
                    let list = theirs.list(|_, text| json!({ "data": text, "type": "TXT", "ttl": 600 }));
                    told.json(200, json!(list))
                }
                "PUT /v1/domains/b.test/records/TXT/_acme-challenge.a" => {
                    let new = told.body.as_array().unwrap();
                    assert!(new.iter().all(|new| new["ttl"] == 600));
                    theirs.replace(&new.iter().map(|new| new["data"].clone()).collect());
                    (200, String::new())
                }
                "DELETE /v1/domains/b.test/records/TXT/_acme-challenge.a" => {
                    theirs.replace(&json!([]));
                    (204, String::new())
                }
                _ => told.refuse(404),
            }
        })
        .await;
        let of = |secret| {
            let set = [("GODADDY_API_KEY", "k3y"), ("GODADDY_API_SECRET", secret)];
            let mut godaddy = variables(&set, GoDaddy::open).unwrap().0;
            godaddy.api.base_url = server.url();
            godaddy
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
        kept.clear();
        for (action, left) in [(Action::Present, &["v"][..]), (Action::CleanUp, &[])] {
            of("t0ken").act(action, &record("a.b.test", "v")).await.unwrap();
            assert_eq!(kept.values(), left);
        }
    }
}
