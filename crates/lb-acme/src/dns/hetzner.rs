//! `hetzner`: the DNS of its Cloud API (<https://docs.hetzner.cloud/reference/cloud#dns>).

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Patience, Zoned, bearer, below, encoded, quoted, understood};
use super::variables::{Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};
use crate::http::printable;

const BASE_URL: &str = "https://api.hetzner.cloud/v1";
const DEFAULTS: Defaults = Defaults { least_ttl_seconds: 60, ..Defaults::of(&["HETZNER"]) };

pub(super) struct Hetzner {
    api: Api,
    ttl_seconds: u32,
    timing: Timing,
}

/// What goes on behind the answer to a change.
#[derive(Deserialize)]
struct Started {
    action: Task,
}

#[derive(Deserialize)]
struct Task {
    id: u64,
    status: String,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    message: String,
}

impl Hetzner {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let Some(token) = variables.find(&["HETZNER_API_TOKEN"])? else {
            if variables.find(&["HETZNER_API_KEY"])?.is_some() {
                let instead = "is of the older DNS Console, which is not supported: move the zone to the Cloud \
                               Console and set HETZNER_API_TOKEN";
                return Err(Lacking::bad("HETZNER_API_KEY", instead).into());
            }
            return Err(Lacking::Missing("HETZNER_API_TOKEN".to_owned()).into());
        };
        let api = Api::new(BASE_URL, common.http_timeout)?.with("authorization", bearer(token.reveal()));
        let timing = common.timing;
        Ok((Self { api, ttl_seconds: common.ttl_seconds, timing }, timing))
    }

    async fn end(&self, mut task: Task) -> Result<(), ProviderError> {
        let patience = Patience::new(self.timing);
        while task.status == "running" {
            patience.pause().await?;
            let answered: Started = self.api.get(&format!("/actions/{}", task.id)).await?;
            task = answered.action;
        }
        if task.status == "success" {
            return Ok(());
        }
        let why = task.error.map(|fault| format!(": {}", printable(&fault.message))).unwrap_or_default();
        Err(ProviderError::Refused(format!("the change of the zone has failed{why}")))
    }
}

impl Zoned for Hetzner {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.api.send(Method::GET, &format!("/zones/{}", encoded(name)), None).await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let name = encoded(below(&record.fqdn, zone, "@"));
        let records = json!([{ "value": quoted(&record.value) }]);
        let (what, body) = match action {
            Action::Present => ("add_records", json!({ "ttl": self.ttl_seconds, "records": records })),
            Action::CleanUp => ("remove_records", json!({ "records": records })),
        };
        let path = format!("/zones/{}/rrsets/{name}/TXT/actions/{what}", encoded(zone));
        let answer = self.api.send(Method::POST, &path, Some(body)).await?;
        let started: Started = understood(&answer)?;
        self.end(started.action).await
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
            if told.header("authorization") != "Bearer t0ken" {
                return told.refuse(401);
            }
            let value = told.body["records"][0]["value"].as_str().unwrap_or_default();
            let action = |id: u64, status: &str, error: &str| {
                json!({ "action": { "id": id, "status": status, "error": { "code": "c", "message": error } } })
            };
            match told.line.as_str() {
                "GET /zones/b.test" => told.json(200, json!({ "zone": { "id": 42, "name": "b.test" } })),
                "POST /zones/b.test/rrsets/_acme-challenge.a/TXT/actions/add_records" => {
                    assert_eq!(told.body["ttl"], 120);
                    theirs.add(value);
                    told.json(201, action(if value == "\"bad\"" { 2 } else { 1 }, "running", ""))
                }
                "POST /zones/b.test/rrsets/_acme-challenge.a/TXT/actions/remove_records" => {
                    theirs.remove(value);
                    told.json(201, action(1, "success", ""))
                }
                "GET /actions/1" => told.json(200, action(1, "success", "")),
                "GET /actions/2" => told.json(200, action(2, "error", "no\nroom")),
                _ => told.refuse(404),
            }
        })
        .await;
        let of = |token| {
            let set = [("HETZNER_API_TOKEN", token), ("HETZNER_POLLING_INTERVAL", "0")];
            let mut hetzner = variables(&set, Hetzner::open).unwrap().0;
            hetzner.api.base_url = server.url();
            hetzner
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
        let failed = of("t0ken").act(Action::Present, &record("a.b.test", "bad")).await.unwrap_err();
        assert_eq!(failed.to_string(), "the change of the zone has failed: no room");
    }

    #[test]
    fn a_key_of_the_older_api_is_told_from_a_token() {
        let told = |set: &[(&str, &str)]| variables(set, Hetzner::open).err().unwrap().to_string();
        assert_eq!(told(&[]), "the environment lacks HETZNER_API_TOKEN");
        assert!(told(&[("HETZNER_API_KEY", "k")]).starts_with("HETZNER_API_KEY is of the older DNS Console"));
    }
}
