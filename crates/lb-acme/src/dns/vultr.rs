//! `vultr`: its API, version 2 (<https://www.vultr.com/api/>).

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, Zoned, bearer, below, encoded, quoted, unquoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.vultr.com/v2";
const DEFAULTS: Defaults = Defaults::of(&["VULTR"]);

pub(super) struct Vultr {
    api: Api,
    ttl_seconds: u32,
}

#[derive(Deserialize)]
struct Page {
    records: Vec<Kept>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize)]
struct Kept {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    data: String,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    links: Links,
}

#[derive(Default, Deserialize)]
struct Links {
    #[serde(default)]
    next: String,
}

impl Vultr {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let key = variables.require(&["VULTR_API_KEY"])?;
        let api = Api::new(BASE_URL, common.http_timeout)?.with("authorization", bearer(key.reveal()));
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }
}

impl Zoned for Vultr {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        self.api.send(Method::GET, &format!("/domains/{}", encoded(name)), None).await?;
        Ok(Some(name.to_owned()))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let (name, value) = (below(&record.fqdn, zone, ""), &record.value);
        let records = format!("/domains/{}/records", encoded(zone));
        if action == Action::Present {
            let new = json!({ "type": "TXT", "name": name, "data": quoted(value), "ttl": self.ttl_seconds });
            return self.api.send(Method::POST, &records, Some(new)).await.map(drop);
        }
        let (mut ours, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("{records}?per_page=500&cursor={}", encoded(&cursor));
            let page: Page = self.api.get(&path).await?;
            let is_ours =
                |kept: &Kept| kept.kind == "TXT" && kept.name == name && unquoted(&kept.data) == value;
            ours.extend(page.records.into_iter().filter(is_ours).map(|kept| kept.id));
            cursor = page.meta.links.next;
            if cursor.is_empty() {
                break;
            }
        }
        for id in ours {
            self.api.send(Method::DELETE, &format!("{records}/{}", encoded(&id)), None).await?;
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
                "GET /domains/b.test" => told.json(200, json!({ "domain": { "domain": "b.test" } })),
                "POST /domains/b.test/records" => {
                    assert_eq!(told.body["name"], "_acme-challenge.a");
                    assert_eq!((&told.body["type"], &told.body["ttl"]), (&json!("TXT"), &json!(120)));
                    told.json(201, json!({ "record": { "id": theirs.add(told.value("data")).to_string() } }))
                }
                "GET /domains/b.test/records?per_page=500&cursor=" => {
                    let other = json!({ "id": "9999", "type": "TXT", "name": "else", "data": "\"one\"" });
                    told.json(200, json!({ "records": [other], "meta": { "links": { "next": "p2" } } }))
                }
                "GET /domains/b.test/records?per_page=500&cursor=p2" => {
                    let list = theirs.list(|id, data| {
                        let id = id.to_string();
                        json!({ "id": id, "type": "TXT", "name": "_acme-challenge.a", "data": data })
                    });
                    told.json(200, json!({ "records": list, "meta": { "links": { "next": "" } } }))
                }
                line => match line.strip_prefix("DELETE /domains/b.test/records/") {
                    Some(id) => told.json(theirs.remove_id(id), json!({})),
                    None => told.refuse(404),
                },
            }
        })
        .await;
        let of = |key| {
            let mut vultr = variables(&[("VULTR_API_KEY", key)], Vultr::open).unwrap().0;
            vultr.api.base_url = server.url();
            vultr
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
    }
}
