//! `linode`: its API, version 4 (<https://techdocs.akamai.com/linode-api>).

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{Api, Zoned, bearer, below, understood, unquoted};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const BASE_URL: &str = "https://api.linode.com/v4";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 300,
    least_ttl_seconds: 300,
    timeout: Duration::from_secs(120),
    interval: Duration::from_secs(15),
    ..Defaults::of(&["LINODE"])
};

pub(super) struct Linode {
    api: Api,
    ttl_seconds: u32,
}

pub(super) struct Zone {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
}

#[derive(Deserialize)]
struct Domain {
    id: u64,
    domain: String,
}

#[derive(Deserialize)]
struct Kept {
    id: u64,
    name: String,
    target: String,
}

impl Linode {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let token = variables.require(&["LINODE_TOKEN"])?;
        let api = Api::new(BASE_URL, common.http_timeout)?.with("authorization", bearer(token.reveal()));
        Ok((Self { api, ttl_seconds: common.ttl_seconds }, common.timing))
    }

    /// A page holds at most 500; what is asked for has few.
    async fn list<T: DeserializeOwned>(&self, path: &str, filter: Value) -> Result<Vec<T>, ProviderError> {
        let filter = filter.to_string();
        let path = format!("{path}?page_size=500");
        let answer = self.api.send_with(&[("x-filter", &filter)], Method::GET, &path, None).await?;
        understood(&answer).map(|page: Page<T>| page.data)
    }
}

impl Zoned for Linode {
    type Zone = Zone;

    async fn zone(&self, name: &str) -> Result<Option<Zone>, ProviderError> {
        let domains: Vec<Domain> = self.list("/domains", json!({ "domain": name })).await?;
        let found = domains.into_iter().find(|domain| domain.domain.eq_ignore_ascii_case(name));
        Ok(found.map(|Domain { id, domain }| Zone { id, name: domain }))
    }

    async fn change(&self, action: Action, zone: &Zone, record: &Record) -> Result<(), ProviderError> {
        let (name, value) = (below(&record.fqdn, &zone.name, ""), &record.value);
        let records = format!("/domains/{}/records", zone.id);
        if action == Action::Present {
            let new = json!({ "type": "TXT", "name": name, "target": value, "ttl_sec": self.ttl_seconds });
            return self.api.send(Method::POST, &records, Some(new)).await.map(drop);
        }
        let kept: Vec<Kept> = self.list(&records, json!({ "type": "TXT", "name": name })).await?;
        let is_ours = |kept: &&Kept| kept.name == name && unquoted(&kept.target) == value;
        for Kept { id, .. } in kept.iter().filter(is_ours) {
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
                "GET /domains?page_size=500" => {
                    let has = told.header("x-filter") == r#"{"domain":"b.test"}"#;
                    let domains = if has { json!([{ "id": 7, "domain": "b.test" }]) } else { json!([]) };
                    told.json(200, json!({ "data": domains, "page": 1, "pages": 1 }))
                }
                "POST /domains/7/records" => {
                    assert_eq!(told.body["name"], "_acme-challenge.a");
                    assert_eq!((&told.body["type"], &told.body["ttl_sec"]), (&json!("TXT"), &json!(300)));
                    told.json(200, json!({ "id": theirs.add(told.value("target")) }))
                }
                "GET /domains/7/records?page_size=500" => {
                    assert_eq!(told.header("x-filter"), r#"{"name":"_acme-challenge.a","type":"TXT"}"#);
                    let mut list = theirs
                        .list(|id, text| json!({ "id": id, "name": "_acme-challenge.a", "target": text }));
                    // Should the filter be passed over.
                    list.push(json!({ "id": 9999, "name": "else", "target": "one" }));
                    told.json(200, json!({ "data": list }))
                }
                line => match line.strip_prefix("DELETE /domains/7/records/") {
                    Some(id) => told.json(theirs.remove_id(id), json!({})),
                    None => told.refuse(404),
                },
            }
        })
        .await;
        let of = |token| {
            let mut linode = variables(&[("LINODE_TOKEN", token)], Linode::open).unwrap().0;
            linode.api.base_url = server.url();
            linode
        };
        two_of_one_name(&of("t0ken"), &of("wr0ng"), &kept).await;
    }

    #[test]
    fn a_ttl_that_the_provider_does_not_take_is_refused() {
        let opened = variables(&[("LINODE_TOKEN", "t"), ("LINODE_TTL", "60")], Linode::open);
        let told = opened.err().unwrap().to_string();
        assert_eq!(told, "LINODE_TTL is less than 300, the least that the provider takes");
    }
}
