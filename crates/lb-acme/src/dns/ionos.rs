//! `ionos`: the API of IONOS hosting (<https://developer.hosting.ionos.com/docs/dns>).

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, encoded, form, unquoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.hosting.ionos.com/dns/v1";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 300,
    least_ttl_seconds: 300,
    timeout: Duration::from_secs(15 * 60),
    ..Defaults::of(&["IONOS"])
};

pub(super) struct Ionos {
    api: Api,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    records: Vec<Kept>,
}

#[derive(Deserialize)]
struct Kept {
    id: String,
    content: String,
}

impl Ionos {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let key = variables.require(&["IONOS_API_KEY"])?;
        let api = Api::new(BASE_URL, common.http_timeout)?.with("x-api-key", key);
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for Ionos {
    /// Its path.
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        let zones: Vec<Zone> = self.api.get("/zones").await?;
        let found = zones.into_iter().find(|zone| zone.name.eq_ignore_ascii_case(name));
        Ok(found.map(|zone| format!("/zones/{}", encoded(&zone.id))))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (name, value) = (record.fqdn.trim_end_matches('.'), &record.value);
        if action == Action::Present {
            let new = json!([{ "name": name, "type": "TXT", "content": value, "ttl": self.ttl_seconds }]);
            return self.api.send(Method::POST, &format!("{zone}/records"), Some(new)).await.map(drop);
        }
        let query = form(&[("recordName", name), ("recordType", "TXT")]);
        let Listed { records } = self.api.get(&format!("{zone}?{query}")).await?;
        for Kept { id, .. } in records.iter().filter(|kept| unquoted(&kept.content) == value) {
            self.api.send(Method::DELETE, &format!("{zone}/records/{}", encoded(id)), None).await?;
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
            if told.header("x-api-key") != "pre.t0ken" {
                return told.refuse(401);
            }
            match told.line.as_str() {
                "GET /zones" => told.json(200, json!([{ "id": "z1", "name": "b.test", "type": "NATIVE" }])),
                "POST /zones/z1/records" => {
                    let new = &told.body[0];
                    assert_eq!(
                        (&new["name"], &new["type"]),
                        (&json!("_acme-challenge.a.b.test"), &json!("TXT"))
                    );
                    assert_eq!(new["ttl"], 300);
                    theirs.add(new["content"].as_str().unwrap());
                    told.json(201, json!([]))
                }
                "GET /zones/z1?recordName=_acme-challenge.a.b.test&recordType=TXT" => {
                    let list = theirs.list(|id, text| json!({ "id": id.to_string(), "content": text }));
                    told.json(200, json!({ "id": "z1", "records": list }))
                }
                line => match line.strip_prefix("DELETE /zones/z1/records/") {
                    Some(id) => told.json(theirs.remove_id(id), json!({})),
                    None => told.refuse(404),
                },
            }
        })
        .await;
        let of = |key| {
            let mut ionos = variables(&[("IONOS_API_KEY", key)], Ionos::open).unwrap().0;
            ionos.api.base_url = server.url();
            ionos
        };
        two_of_one_name(&of("pre.t0ken"), &of("pre.wr0ng"), &kept).await;
    }
}
