//! `desec`: the API of deSEC, version 1 (<https://desec.readthedocs.io/en/latest/>).

use std::time::Duration;

use http::Method;
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, below, changed, encoded};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://desec.io/api/v1";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 3600,
    timeout: Duration::from_secs(120),
    interval: Duration::from_secs(4),
    ..Defaults::of(&["DESEC"])
};

pub(super) struct DeSec {
    api: Api,
    ttl_seconds: u32,
}

#[derive(Default, Deserialize)]
struct Set {
    records: Vec<String>,
}

impl DeSec {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let token = variables.require(&["DESEC_TOKEN"])?;
        let authorization = Secret::new(&format!("Token {}", token.reveal()));
        let api = Api::new(BASE_URL, common.http_timeout)?.with("authorization", authorization);
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for DeSec {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.api.send(Method::GET, &format!("/domains/{}/", encoded(name)), None).await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let name = below(&record.fqdn, zone, "");
        let sets = format!("/domains/{}/rrsets/", encoded(zone));
        let path = format!("{sets}{}/TXT/", if name.is_empty() { "@".to_owned() } else { encoded(name) });
        let set = match self.api.get::<Set>(&path).await {
            Err(ProviderError::Api { status: 404, .. }) => Set::default(),
            set => set?,
        };
        let Some(texts) = changed(set.records, action, &record.value) else { return Ok(()) };
        // Without texts it is deleted.
        let new = json!([{ "subname": name, "type": "TXT", "ttl": self.ttl_seconds, "records": texts }]);
        self.api.send(Method::PUT, &sets, Some(new)).await.map(drop)
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
            if told.header("authorization") != "Token t0ken" {
                return told.refuse(401);
            }
            match told.line.as_str() {
                "GET /domains/b.test/" => told.json(200, json!({ "name": "b.test" })),
                "GET /domains/b.test/rrsets/_acme-challenge.a/TXT/" if !theirs.is_empty() => {
                    told.json(200, json!({ "ttl": 3600, "records": theirs.list(|_, text| json!(text)) }))
                }
                "PUT /domains/b.test/rrsets/" => {
                    let new = &told.body[0];
                    assert_eq!((&new["subname"], &new["type"]), (&json!("_acme-challenge.a"), &json!("TXT")));
                    assert_eq!(new["ttl"], 3600);
                    theirs.replace(&new["records"]);
                    told.json(200, json!([]))
                }
                _ => told.refuse(404),
            }
        })
        .await;
        let of = |token| {
            let mut desec = variables(&[("DESEC_TOKEN", token)], DeSec::open).unwrap().0;
            desec.api.base_url = server.url();
            desec
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
        kept.clear();
        for (action, left) in [(Action::Present, &["v"][..]), (Action::CleanUp, &[])] {
            of("t0ken").act(action, &record("a.b.test", "v")).await.unwrap();
            assert_eq!(kept.values(), left);
        }
    }
}
