//! `scaleway`: its API for domains (<https://www.scaleway.com/en/developers/api/domains-and-dns/>).

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, below, encoded, form, quoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.scaleway.com/domain/v2beta1";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 60,
    least_ttl_seconds: 60,
    timeout: Duration::from_secs(120),
    interval: Duration::from_secs(10),
    ..Defaults::of(&["SCALEWAY", "SCW"])
};

pub(super) struct Scaleway {
    api: Api,
    project: Option<String>,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Listed {
    dns_zones: Vec<Kept>,
}

#[derive(Deserialize)]
struct Kept {
    domain: String,
    #[serde(default)]
    subdomain: String,
}

impl Kept {
    fn name(&self) -> String {
        match self.subdomain.as_str() {
            "" => self.domain.clone(),
            subdomain => format!("{subdomain}.{}", self.domain),
        }
    }
}

impl Scaleway {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let key = variables.require(&["SCW_SECRET_KEY", "SCALEWAY_API_TOKEN"])?;
        let project = variables.text(&["SCW_PROJECT_ID", "SCALEWAY_PROJECT_ID"])?;
        let api = Api::new(BASE_URL, common.http_timeout)?.with("x-auth-token", key);
        Ok((Self { api, project, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for Scaleway {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        let mut query = vec![("dns_zones", name)];
        query.extend(self.project.as_deref().map(|project| ("project_id", project)));
        let listed: Listed = self.api.get(&format!("/dns-zones?{}", form(&query))).await?;
        Ok(listed.dns_zones.iter().map(Kept::name).find(|known| known.eq_ignore_ascii_case(name)))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (name, data) = (below(&record.fqdn, zone, ""), quoted(&record.value));
        let change = match action {
            Action::Present => {
                let new = json!({ "name": name, "type": "TXT", "data": data, "ttl": self.ttl_seconds });
                json!({ "add": { "records": [new] } })
            }
            Action::CleanUp => {
                json!({ "delete": { "id_fields": { "name": name, "type": "TXT", "data": data } } })
            }
        };
        let path = format!("/dns-zones/{}/records", encoded(zone));
        let changes = json!({ "changes": [change], "disallow_new_zone_creation": true });
        self.api.send(Method::PATCH, &path, Some(changes)).await.map(drop)
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
            if told.header("x-auth-token") != "t0ken" {
                return told.refuse(401);
            }
            match told.line.as_str() {
                "GET /dns-zones?dns_zones=a.b.test&project_id=p%201" => {
                    told.json(200, json!({ "dns_zones": [{ "domain": "b.test", "subdomain": "a" }] }))
                }
                "PATCH /dns-zones/a.b.test/records" => {
                    let change = &told.body["changes"][0];
                    let new = &change["add"]["records"][0];
                    if let Some(data) = new["data"].as_str() {
                        assert_eq!((&new["name"], &new["ttl"]), (&json!("_acme-challenge"), &json!(60)));
                        theirs.add(data);
                    } else {
                        let which = &change["delete"]["id_fields"];
                        assert_eq!(
                            (&which["name"], &which["type"]),
                            (&json!("_acme-challenge"), &json!("TXT"))
                        );
                        theirs.remove(which["data"].as_str().unwrap());
                    }
                    told.json(200, json!({ "records": [] }))
                }
                line if line.starts_with("GET /dns-zones?") => told.json(200, json!({ "dns_zones": [] })),
                _ => told.refuse(404),
            }
        })
        .await;
        let of = |key| {
            let set = [("SCW_SECRET_KEY", key), ("SCW_PROJECT_ID", "p 1")];
            let mut scaleway = variables(&set, Scaleway::open).unwrap().0;
            scaleway.api.base_url = server.url();
            scaleway
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
    }
}
