//! `azuredns`: the API of Azure DNS (<https://learn.microsoft.com/en-us/rest/api/dns/>), for a client with a secret.

use std::time::Duration;

use http::Method;
use lb_config::dynamic::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{Api, Zoned, below, encoded, token, understood};
use super::variables::{Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};
use crate::http::Answer;

/// Name, where tokens are given, and the API.
const CLOUDS: [(&str, &str, &str); 3] = [
    ("public", "https://login.microsoftonline.com", "https://management.azure.com"),
    ("usgovernment", "https://login.microsoftonline.us", "https://management.usgovcloudapi.net"),
    ("china", "https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
];
const DEFAULTS: Defaults =
    Defaults { ttl_seconds: 60, timeout: Duration::from_secs(120), ..Defaults::of(&["AZURE"]) };
const SEARCH: &str = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01";

pub(super) struct AzureDns {
    api: Api,
    login: Api,
    id: String,
    secret: Secret,
    scope: String,
    token: OnceCell<Secret>,
    subscription: Option<String>,
    /// What else zones must have, as Kusto writes it.
    filters: Vec<String>,
    zone_name: Option<String>,
    ttl_seconds: u32,
}

pub(super) struct Zone {
    path: String,
    name: String,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    id: String,
}

#[derive(Default, Deserialize)]
struct Set {
    etag: Option<String>,
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(default)]
    metadata: Value,
    #[serde(default, rename = "TXTRecords")]
    records: Vec<Text>,
}

/// One record, which may be of several texts.
#[derive(Deserialize)]
struct Text {
    value: Vec<String>,
}

impl AzureDns {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let cloud = variables.text(&["AZURE_ENVIRONMENT"])?.unwrap_or_else(|| "public".to_owned());
        let known = CLOUDS.iter().find(|(name, ..)| cloud.eq_ignore_ascii_case(name));
        let (_, login, url) = known
            .ok_or_else(|| Lacking::bad("AZURE_ENVIRONMENT", "is none of public, usgovernment and china"))?;
        let method = variables.text(&["AZURE_AUTH_METHOD"])?;
        if method.is_some_and(|method| !method.eq_ignore_ascii_case("env")) {
            let only = "is not supported: only `env`, with AZURE_CLIENT_SECRET, is";
            return Err(Lacking::bad("AZURE_AUTH_METHOD", only).into());
        }
        if variables.flag("AZURE_PRIVATE_ZONE", false)? {
            return Err(Lacking::bad("AZURE_PRIVATE_ZONE", "is not supported").into());
        }
        let id = variables.require(&["AZURE_CLIENT_ID"])?.reveal().to_owned();
        let tenant = variables.require(&["AZURE_TENANT_ID"])?;
        let secret = variables.require(&["AZURE_CLIENT_SECRET"])?;
        let group = variables.text(&["AZURE_RESOURCE_GROUP"])?;
        let group = group.map(|group| format!("where resourceGroup =~ {}", kusto(&group)));
        let filter = variables.text(&["AZURE_SERVICEDISCOVERY_FILTER"])?;
        let login = format!("{login}/{}/oauth2/v2.0/token", encoded(tenant.reveal()));
        let secrets = std::slice::from_ref(&secret);
        let provider = Self {
            api: Api::new(url, common.http_timeout)?,
            login: Api::new(&login, common.http_timeout)?.keeping(secrets),
            id,
            secret,
            scope: format!("{url}/.default"),
            token: OnceCell::new(),
            subscription: variables.text(&["AZURE_SUBSCRIPTION_ID"])?,
            filters: group.into_iter().chain(filter).collect(),
            zone_name: variables.text(&["AZURE_ZONE_NAME"])?,
            ttl_seconds: common.ttl_seconds,
        };
        Ok((provider, common.timing))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        condition: Option<(&str, &str)>,
        body: Option<Value>,
    ) -> Result<Answer, ProviderError> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", self.id.as_str()),
            ("client_secret", self.secret.reveal()),
            ("scope", self.scope.as_str()),
        ];
        let token = self.token.get_or_try_init(|| token(&self.login, &form)).await?;
        let mut headers = vec![("authorization", token.reveal())];
        headers.extend(condition);
        self.api.send_with(&headers, method, path, body).await
    }
}

impl Zoned for AzureDns {
    type Zone = Zone;

    async fn zone(&self, name: &str) -> Result<Option<Zone>, ProviderError> {
        if self.zone_name.as_ref().is_some_and(|only| !only.eq_ignore_ascii_case(name)) {
            return Ok(None);
        }
        let mut query =
            format!("resources | where type =~ 'microsoft.network/dnszones' | where name =~ {}", kusto(name));
        for filter in &self.filters {
            query += &format!(" | {filter}");
        }
        query += " | project id";
        let mut body = json!({ "query": query, "options": { "resultFormat": "objectArray" } });
        if let Some(subscription) = &self.subscription {
            body["subscriptions"] = json!([subscription]);
        }
        let Found { data } = understood(&self.ask(Method::POST, SEARCH, None, Some(body)).await?)?;
        let Some(Resource { id }) = data.into_iter().next() else { return Ok(None) };
        let path: Vec<_> = id.split('/').map(encoded).collect();
        Ok(Some(Zone { path: path.join("/"), name: name.to_owned() }))
    }

    async fn change(&self, action: Action, zone: &Zone, record: &Record) -> Result<(), ProviderError> {
        let name = encoded(below(&record.fqdn, &zone.name, "@"));
        let path = format!("{}/TXT/{name}?api-version=2018-05-01", zone.path);
        let Set { etag, properties } = match self.ask(Method::GET, &path, None, None).await {
            Err(ProviderError::Api { status: 404, .. }) => Set::default(),
            answer => understood(&answer?)?,
        };
        let mut texts: Vec<_> = properties.records.into_iter().map(|text| text.value).collect();
        let before = texts.len();
        texts.retain(|text| text.concat() != record.value);
        match action {
            Action::Present if texts.len() < before => return Ok(()),
            Action::CleanUp if texts.len() == before => return Ok(()),
            Action::Present => texts.push(vec![record.value.clone()]),
            Action::CleanUp => {}
        }
        // Nobody else has changed it in the meantime.
        let condition = etag.as_deref().map_or(("if-none-match", "*"), |etag| ("if-match", etag));
        if texts.is_empty() {
            return self.ask(Method::DELETE, &path, Some(condition), None).await.map(drop);
        }
        let texts: Vec<_> = texts.into_iter().map(|text| json!({ "value": text })).collect();
        let mut new = json!({ "properties": { "TTL": self.ttl_seconds, "TXTRecords": texts } });
        if !properties.metadata.is_null() {
            new["properties"]["metadata"] = properties.metadata;
        }
        self.ask(Method::PUT, &path, Some(condition), Some(new)).await.map(drop)
    }
}

/// A text in the query language.
fn kusto(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::dns::testing::{Kept, Server, Told, record, two_of_one_name, variables};

    const ALL: [(&str, &str); 3] =
        [("AZURE_CLIENT_ID", "id"), ("AZURE_TENANT_ID", "t1"), ("AZURE_CLIENT_SECRET", "s3cret")];

    async fn azure(kept: &Kept) -> Server {
        let (theirs, is_disturbed) = (kept.clone(), AtomicBool::new(false));
        Server::start(move |request| {
            let told = Told::of(request);
            if told.line == "POST /t1/oauth2/v2.0/token" {
                let form = "grant_type=client_credentials&client_id=id&client_secret=s3cret&scope=";
                let scope = "https%3A%2F%2Fmanagement.azure.com%2F.default";
                return match told.text == format!("{form}{scope}") {
                    true => told.json(200, json!({ "access_token": "t0ken" })),
                    false => (401, told.text),
                };
            }
            assert_eq!(told.header("authorization"), "Bearer t0ken");
            let set = "/subscriptions/s/resourceGroups/r%20g/providers/Microsoft.Network/dnszones/b.test/TXT/\
                       _acme-challenge.a?api-version=2018-05-01";
            let etag = format!("e{}", theirs.values().concat());
            let condition = (told.header("if-match"), told.header("if-none-match"));
            let expected = if theirs.is_empty() { ("", "*") } else { (etag.as_str(), "") };
            match told.line.split_once(' ').unwrap() {
                ("POST", SEARCH) => {
                    let query = told.value("query");
                    assert_eq!(told.body["subscriptions"], json!(["s"]));
                    assert!(
                        query.ends_with(" | where resourceGroup =~ 'r g' | where x == 1 | project id"),
                        "{query}"
                    );
                    let id =
                        "/subscriptions/s/resourceGroups/r g/providers/Microsoft.Network/dnszones/b.test";
                    let found = query.contains("| where name =~ 'b.test' |");
                    told.json(200, json!({ "data": if found { json!([{ "id": id }]) } else { json!([]) } }))
                }
                ("GET", path) if path == set && theirs.is_empty() => told.refuse(404),
                ("GET", path) if path == set => {
                    // A long text is in parts.
                    let records = theirs.list(|_, text| json!({ "value": text.split_at(1) }));
                    let properties = json!({ "TTL": 3600, "TXTRecords": records, "metadata": { "k": "v" } });
                    told.json(200, json!({ "etag": etag, "properties": properties }))
                }
                ("PUT", path) if path == set => {
                    assert_eq!(condition, expected);
                    if !is_disturbed.swap(true, Ordering::Relaxed) {
                        return told.refuse(412);
                    }
                    let properties = &told.body["properties"];
                    assert_eq!(properties["TTL"], 60);
                    assert_eq!(properties["metadata"]["k"].is_string(), !theirs.is_empty());
                    let texts = properties["TXTRecords"].as_array().unwrap().iter().map(|record| {
                        record["value"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|part| part.as_str().unwrap())
                            .collect()
                    });
                    theirs.replace(&texts.collect::<Vec<String>>().into());
                    told.json(200, json!({}))
                }
                ("DELETE", path) if path == set => {
                    assert_eq!(condition, expected);
                    theirs.clear();
                    told.json(200, json!({}))
                }
                _ => told.refuse(404),
            }
        })
        .await
    }

    fn open(server: &Server, more: &[(&str, &str)]) -> AzureDns {
        let set = [
            ("AZURE_SUBSCRIPTION_ID", "s"),
            ("AZURE_RESOURCE_GROUP", "r g"),
            ("AZURE_SERVICEDISCOVERY_FILTER", "where x == 1"),
        ];
        let mut azure = variables(&[more, &ALL, &set].concat(), AzureDns::open).unwrap().0;
        azure.login.base_url = azure.login.base_url.replace(CLOUDS[0].1, &server.url());
        azure.api.base_url = server.url();
        azure
    }

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        let server = azure(&kept).await;
        let stranger = open(&server, &[("AZURE_CLIENT_SECRET", "wr0ng")]);
        two_of_one_name(&open(&server, &[]), &stranger, &kept).await;
        kept.clear();
        let azure = open(&server, &[("AZURE_ZONE_NAME", "b.test")]);
        for (action, left) in [(Action::Present, &["v"][..]), (Action::CleanUp, &[])] {
            azure.act(action, &record("a.b.test", "v")).await.unwrap();
            assert_eq!(kept.values(), left);
        }
    }

    #[test]
    fn other_ways_to_show_who_asks_are_refused() {
        let told = |name, value| {
            let opened = variables(&[&[(name, value)], &ALL[..]].concat(), AzureDns::open);
            opened.map(|(azure, _)| azure.api.base_url).unwrap_or_else(|error| error.to_string())
        };
        for (name, value, expected) in [
            ("AZURE_AUTH_METHOD", "ENV", "https://management.azure.com"),
            ("AZURE_ENVIRONMENT", "china", "https://management.chinacloudapi.cn"),
            ("AZURE_ENVIRONMENT", "mars", "AZURE_ENVIRONMENT is none of public, usgovernment and china"),
            ("AZURE_AUTH_METHOD", "msi", "AZURE_AUTH_METHOD is not supported: only `env`"),
            ("AZURE_PRIVATE_ZONE", "true", "AZURE_PRIVATE_ZONE is not supported"),
        ] {
            assert!(told(name, value).starts_with(expected), "{}", told(name, value));
        }
        let lacking = variables(&ALL[..2], AzureDns::open).err().unwrap().to_string();
        assert_eq!(lacking, "the environment lacks AZURE_CLIENT_SECRET");
        assert_eq!(kusto("a'b\\"), "'a\\'b\\\\'");
    }
}
