//! `porkbun`: its API, version 3 (<https://porkbun.com/api/json/v3/documentation>).

use std::time::Duration;

use http::Method;
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, Zoned, below, encoded, understood, unquoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};
use crate::http::Answer;

const BASE_URL: &str = "https://api.porkbun.com/api/json/v3";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 300,
    least_ttl_seconds: 300,
    timeout: Duration::from_secs(10 * 60),
    interval: Duration::from_secs(10),
    ..Defaults::of(&["PORKBUN"])
};

pub(super) struct Porkbun {
    api: Api,
    key: Secret,
    secret: Secret,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Listed {
    records: Vec<Kept>,
}

#[derive(Deserialize)]
struct Kept {
    id: String,
    content: String,
}

impl Porkbun {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let key = variables.require(&["PORKBUN_API_KEY"])?;
        let secret = variables.require(&["PORKBUN_SECRET_API_KEY"])?;
        let api = Api::new(BASE_URL, common.http_timeout)?.keeping(&[key.clone(), secret.clone()]);
        Ok((Self { api, key, secret, ttl_seconds: common.ttl_seconds }, common.timing))
    }

    /// Each request is a POST that says in its body who asks.
    async fn ask(&self, path: &str, mut body: Value) -> Result<Answer, ProviderError> {
        body["apikey"] = self.key.reveal().into();
        body["secretapikey"] = self.secret.reveal().into();
        self.api.send(Method::POST, path, Some(body)).await
    }

    async fn list(&self, zone: &str, name: &str) -> Result<Vec<Kept>, ProviderError> {
        let path = format!("/dns/retrieveByNameType/{}/TXT/{}", encoded(zone), encoded(name));
        understood(&self.ask(&path, json!({})).await?).map(|listed: Listed| listed.records)
    }
}

impl Zoned for Porkbun {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.list(name, "_acme-challenge").await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (name, value) = (below(&record.fqdn, zone, ""), &record.value);
        let domain = encoded(zone);
        if action == Action::Present {
            let ttl = self.ttl_seconds.to_string();
            let new = json!({ "type": "TXT", "name": name, "content": value, "ttl": ttl });
            return self.ask(&format!("/dns/create/{domain}"), new).await.map(drop);
        }
        let kept = self.list(zone, name).await?;
        for Kept { id, .. } in kept.iter().filter(|kept| unquoted(&kept.content) == value) {
            self.ask(&format!("/dns/delete/{domain}/{}", encoded(id)), json!({})).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Kept, Server, Told, two_of_one_name, variables};

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        let theirs = kept.clone();
        let server = Server::start(move |request| {
            let told = Told::of(request);
            if (told.value("apikey"), told.value("secretapikey")) != ("k3y", "t0ken") {
                return (401, told.text);
            }
            match told.line.as_str() {
                "POST /dns/retrieveByNameType/b.test/TXT/_acme-challenge" => {
                    told.json(200, json!({ "status": "SUCCESS", "records": [] }))
                }
                "POST /dns/retrieveByNameType/b.test/TXT/_acme-challenge.a" => {
                    let list = theirs.list(|id, text| json!({ "id": id.to_string(), "content": text }));
                    told.json(200, json!({ "status": "SUCCESS", "records": list }))
                }
                "POST /dns/create/b.test" => {
                    assert_eq!((told.value("name"), told.value("ttl")), ("_acme-challenge.a", "300"));
                    assert_eq!(told.value("type"), "TXT");
                    told.json(200, json!({ "status": "SUCCESS", "id": theirs.add(told.value("content")) }))
                }
                line => match line.strip_prefix("POST /dns/delete/b.test/") {
                    Some(id) => told.json(theirs.remove_id(id), json!({ "status": "SUCCESS" })),
                    None => told.json(400, json!({ "status": "ERROR", "message": "Invalid domain." })),
                },
            }
        })
        .await;
        let of = |secret| {
            let set = [("PORKBUN_API_KEY", "k3y"), ("PORKBUN_SECRET_API_KEY", secret)];
            let mut porkbun = variables(&set, Porkbun::open).unwrap().0;
            porkbun.api.base_url = server.url();
            porkbun
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
    }
}
