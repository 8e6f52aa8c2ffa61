//! `gandiv5`: the API of LiveDNS (<https://api.gandi.net/docs/livedns/>).

use std::time::Duration;

use http::Method;
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, bearer, below, changed, encoded};
use super::variables::{Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.gandi.net/v5/livedns";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 300,
    least_ttl_seconds: 300,
    timeout: Duration::from_secs(20 * 60),
    interval: Duration::from_secs(20),
    http_timeout: Duration::from_secs(10),
    ..Defaults::of(&["GANDIV5"])
};

pub(super) struct GandiV5 {
    api: Api,
    ttl_seconds: u32,
}

#[derive(Default, Deserialize)]
struct Set {
    rrset_values: Vec<String>,
}

impl GandiV5 {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let token = variables.find(&["GANDIV5_PERSONAL_ACCESS_TOKEN"])?;
        let key = variables.find(&["GANDIV5_API_KEY"])?;
        let authorization = match (token, key) {
            (Some(token), _) => bearer(token.reveal()),
            (None, Some(key)) => Secret::new(&format!("Apikey {}", key.reveal())),
            (None, None) => {
                return Err(Lacking::Missing("GANDIV5_PERSONAL_ACCESS_TOKEN".to_owned()).into());
            }
        };
        let api = Api::new(BASE_URL, common.http_timeout)?.with("authorization", authorization);
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for GandiV5 {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.api.send(Method::GET, &format!("/domains/{}", encoded(name)), None).await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let name = encoded(below(&record.fqdn, zone, "@"));
        let path = format!("/domains/{}/records/{name}/TXT", encoded(zone));
        let set = match self.api.get::<Set>(&path).await {
            Err(ProviderError::Api { status: 404, .. }) => Set::default(),
            set => set?,
        };
        let Some(texts) = changed(set.rrset_values, action, &record.value) else { return Ok(()) };
        if texts.is_empty() {
            return self.api.send(Method::DELETE, &path, None).await.map(drop);
        }
        let new = json!({ "rrset_ttl": self.ttl_seconds, "rrset_values": texts });
        self.api.send(Method::PUT, &path, Some(new)).await.map(drop)
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
            if !matches!(told.header("authorization"), "Bearer t0ken" | "Apikey k3y") {
                return told.refuse(401);
            }
            let set = "/domains/b.test/records/_acme-challenge.a/TXT";
            match told.line.split_once(' ').unwrap() {
                ("GET", "/domains/b.test") => told.json(200, json!({ "fqdn": "b.test" })),
                ("GET", path) if path == set && theirs.is_empty() => told.refuse(404),
                ("GET", path) if path == set => {
                    let values = theirs.list(|_, text| json!(text));
                    told.json(200, json!({ "rrset_ttl": 300, "rrset_values": values }))
                }
                ("PUT", path) if path == set => {
                    assert_eq!(told.body["rrset_ttl"], 300);
                    theirs.replace(&told.body["rrset_values"]);
                    told.json(201, json!({ "message": "DNS Record Created" }))
                }
                ("DELETE", path) if path == set => {
                    theirs.replace(&json!([]));
                    (204, String::new())
                }
                // Of a token that is for some domains only.
                _ => told.refuse(403),
            }
        })
        .await;
        let of = |variable, value| {
            let mut gandi = variables(&[(variable, value)], GandiV5::open).unwrap().0;
            gandi.api.base_url = server.url();
            gandi
        };
        let token = "GANDIV5_PERSONAL_ACCESS_TOKEN";
        two_of_one_name(&of(token, "t0ken"), &of(token, "wr0ng"), &kept).await;
        kept.clear();
        let gandi = of("GANDIV5_API_KEY", "k3y");
        for (action, left) in [(Action::Present, &["v"][..]), (Action::CleanUp, &[])] {
            gandi.act(action, &record("a.b.test", "v")).await.unwrap();
            assert_eq!(kept.values(), left);
        }
    }
}
