//! `digitalocean`: its API, version 2 (<https://docs.digitalocean.com/reference/api>).

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, bearer, below, encoded, unquoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.digitalocean.com";
const DEFAULTS: Defaults =
    Defaults { ttl_seconds: 30, interval: Duration::from_secs(5), ..Defaults::of(&["DO"]) };

pub(super) struct DigitalOcean {
    api: Api,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Listed {
    domain_records: Vec<Kept>,
}

#[derive(Deserialize)]
struct Kept {
    id: u64,
    data: String,
}

impl DigitalOcean {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let token = variables.require(&["DO_AUTH_TOKEN"])?;
        let url = variables.text(&["DO_API_URL"])?;
        let url = super::base_url("DO_API_URL", url.as_deref().unwrap_or(BASE_URL))?;
        let api = Api::new(&url, common.http_timeout)?.with("authorization", bearer(token.reveal()));
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for DigitalOcean {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.api.send(Method::GET, &format!("/v2/domains/{}", encoded(name)), None).await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (fqdn, value) = (&record.fqdn, &record.value);
        let records = format!("/v2/domains/{}/records", encoded(zone));
        if action == Action::Present {
            let new = json!({
                "type": "TXT", "name": below(fqdn, zone, "@"), "data": value, "ttl": self.ttl_seconds,
            });
            return self.api.send(Method::POST, &records, Some(new)).await.map(drop);
        }
        let name = encoded(fqdn.trim_end_matches('.'));
        let Listed { domain_records } =
            self.api.get(&format!("{records}?type=TXT&name={name}&per_page=200")).await?;
        for Kept { id, .. } in domain_records.iter().filter(|kept| unquoted(&kept.data) == value) {
            self.api.send(Method::DELETE, &format!("{records}/{id}"), None).await?;
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
            if told.header("authorization") != "Bearer t0ken" {
                return told.refuse(401);
            }
            match told.line.as_str() {
                "GET /v2/domains/b.test" => told.json(200, json!({ "domain": { "name": "b.test" } })),
                "POST /v2/domains/b.test/records" => {
                    assert_eq!(told.body["name"], "_acme-challenge.a");
                    assert_eq!((&told.body["type"], &told.body["ttl"]), (&json!("TXT"), &json!(30)));
                    told.json(201, json!({ "domain_record": { "id": theirs.add(told.value("data")) } }))
                }
                "GET /v2/domains/b.test/records?type=TXT&name=_acme-challenge.a.b.test&per_page=200" => {
                    let list = theirs.list(|id, data| json!({ "id": id, "type": "TXT", "data": data }));
                    told.json(200, json!({ "domain_records": list }))
                }
                line => match line.strip_prefix("DELETE /v2/domains/b.test/records/") {
                    Some(id) => told.json(theirs.remove_id(id), json!({})),
                    None => told.refuse(404),
                },
            }
        })
        .await;
        let url = server.url();
        let of = |token| {
            variables(&[("DO_AUTH_TOKEN", token), ("DO_API_URL", url.as_str())], DigitalOcean::open).unwrap()
        };
        two_of_one_name(&of("t0ken").0, &of("wr0ng").0, &kept).await;
        let timing = of("t0ken").1;
        assert_eq!((timing.timeout.as_secs(), timing.interval.as_secs()), (60, 5));
    }
}
