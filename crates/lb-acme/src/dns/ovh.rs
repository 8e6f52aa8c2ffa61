//! `ovh`: its API (<https://help.ovhcloud.com/csm/en-api-getting-started-ovhcloud-api>).

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::Method;
use lb_config::dynamic::Secret;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{Api, bearer, below, encoded, no_zone, token, understood};
use super::aws::hex;
use super::lookup::suffixes;
use super::variables::{Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};
use crate::http::Answer;

/// Name, URL of the API, and of what gives tokens.
const ENDPOINTS: [(&str, &str, &str); 7] = [
    ("ovh-eu", "https://eu.api.ovh.com/1.0", "https://www.ovh.com/auth/oauth2/token"),
    ("ovh-ca", "https://ca.api.ovh.com/1.0", "https://ca.ovh.com/auth/oauth2/token"),
    ("ovh-us", "https://api.us.ovhcloud.com/1.0", "https://us.ovhcloud.com/auth/oauth2/token"),
    ("kimsufi-eu", "https://eu.api.kimsufi.com/1.0", ""),
    ("kimsufi-ca", "https://ca.api.kimsufi.com/1.0", ""),
    ("soyoustart-eu", "https://eu.api.soyoustart.com/1.0", ""),
    ("soyoustart-ca", "https://ca.api.soyoustart.com/1.0", ""),
];
const DEFAULTS: Defaults = Defaults { http_timeout: Duration::from_secs(180), ..Defaults::of(&["OVH"]) };

/// Rights are mostly given to create, delete and refresh only, and not to look. So the zone is found by trying, and
/// what was created is remembered.
pub(super) struct Ovh {
    api: Api,
    credentials: Credentials,
    ttl_seconds: u32,
    created: Mutex<Vec<Created>>,
}

enum Credentials {
    Application { key: String, secret: Secret, consumer: Secret },
    Token(Secret),
    Client { api: Box<Api>, id: String, secret: Secret, token: OnceCell<Secret> },
}

struct Created {
    fqdn: String,
    value: String,
    zone: String,
    id: u64,
}

impl Ovh {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let endpoint = variables.text(&["OVH_ENDPOINT"])?.unwrap_or_else(|| "ovh-eu".to_owned());
        let known = ENDPOINTS.iter().find(|(name, ..)| *name == endpoint);
        let (url, tokens) = match known {
            Some((_, url, tokens)) => ((*url).to_owned(), *tokens),
            None if endpoint.contains('/') => (super::base_url("OVH_ENDPOINT", &endpoint)?, ""),
            None => {
                let names = "is neither a URL nor one of ovh-eu, ovh-ca, ovh-us, kimsufi-eu, kimsufi-ca, \
                             soyoustart-eu, soyoustart-ca";
                return Err(Lacking::bad("OVH_ENDPOINT", names).into());
            }
        };
        let (credentials, secrets) = credentials(variables, tokens, common.http_timeout)?;
        let api = Api::new(&url, common.http_timeout)?.keeping(&secrets);
        let ttl_seconds = common.ttl_seconds;
        Ok((Self { api, credentials, ttl_seconds, created: Mutex::default() }, common.timing))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        match action {
            Action::Present => self.present(record).await,
            Action::CleanUp => self.clean_up(record).await,
        }
    }

    async fn present(&self, record: &Record) -> Result<(), ProviderError> {
        #[derive(Deserialize)]
        struct Answered {
            id: u64,
        }
        let mut refusals = Vec::new();
        let names = suffixes(&record.fqdn).map(|name| name.trim_end_matches('.'));
        for zone in names.filter(|name| name.contains('.')) {
            let new = json!({
                "fieldType": "TXT", "subDomain": below(&record.fqdn, zone, ""), "target": record.value,
                "ttl": self.ttl_seconds,
            });
            let path = format!("/domain/zone/{}/record", encoded(zone));
            match self.ask(Method::POST, &path, Some(new)).await {
                Ok(answer) => {
                    let Answered { id } = understood(&answer)?;
                    self.created.lock().push(Created {
                        fqdn: record.fqdn.clone(),
                        value: record.value.clone(),
                        zone: zone.to_owned(),
                        id,
                    });
                    return self.refresh(zone).await;
                }
                Err(ProviderError::Api { status: 404, .. }) => {}
                // Rights may be given for one zone alone.
                Err(error @ ProviderError::Api { status: 400 | 403, .. }) => {
                    refusals.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(no_zone(record, &refusals))
    }

    async fn clean_up(&self, record: &Record) -> Result<(), ProviderError> {
        let ours = {
            let mut created = self.created.lock();
            let is_it = |created: &Created| created.fqdn == record.fqdn && created.value == record.value;
            created.iter().position(is_it).map(|index| created.swap_remove(index))
        };
        let Some(Created { zone, id, .. }) = ours else { return Ok(()) };
        let path = format!("/domain/zone/{}/record/{id}", encoded(&zone));
        self.ask(Method::DELETE, &path, None).await?;
        self.refresh(&zone).await
    }

    /// Changes are not published before.
    async fn refresh(&self, zone: &str) -> Result<(), ProviderError> {
        let path = format!("/domain/zone/{}/refresh", encoded(zone));
        self.ask(Method::POST, &path, None).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, ProviderError> {
        match &self.credentials {
            Credentials::Application { key, secret, consumer } => {
                // Theirs: it is signed, and our clock may be wrong.
                let time = self.api.get::<u64>("/auth/time").await?.to_string();
                let text = body.as_ref().map(Value::to_string).unwrap_or_default();
                let url = format!("{}{path}", self.api.base_url);
                let signature =
                    signature([secret.reveal(), consumer.reveal(), method.as_str(), &url, &text, &time]);
                let headers = [
                    ("x-ovh-application", key.as_str()),
                    ("x-ovh-consumer", consumer.reveal()),
                    ("x-ovh-timestamp", &time),
                    ("x-ovh-signature", &signature),
                ];
                self.api.send_with(&headers, method, path, body).await
            }
            Credentials::Token(token) => {
                self.api.send_with(&[("authorization", token.reveal())], method, path, body).await
            }
            Credentials::Client { api, id, secret, token: kept } => {
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", id),
                    ("client_secret", secret.reveal()),
                    ("scope", "all"),
                ];
                let token = kept.get_or_try_init(|| token(api, &form)).await?;
                self.api.send_with(&[("authorization", token.reveal())], method, path, body).await
            }
        }
    }
}

/// The credentials, and what of them no message may show.
fn credentials(
    variables: &Variables<'_>,
    tokens: &str,
    timeout: Duration,
) -> Result<(Credentials, Vec<Secret>), ProviderError> {
    let application = variables.text(&["OVH_APPLICATION_KEY"])?;
    let client = variables.text(&["OVH_CLIENT_ID"])?;
    match (variables.find(&["OVH_ACCESS_TOKEN"])?, application, client) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            let one =
                "OVH_APPLICATION_KEY, OVH_CLIENT_ID and OVH_ACCESS_TOKEN are three ways: set one of them";
            Err(ProviderError::Refused(one.to_owned()))
        }
        (Some(token), ..) => Ok((Credentials::Token(bearer(token.reveal())), vec![token])),
        (_, Some(key), _) => {
            let secret = variables.require(&["OVH_APPLICATION_SECRET"])?;
            let consumer = variables.require(&["OVH_CONSUMER_KEY"])?;
            let secrets = vec![secret.clone(), consumer.clone()];
            Ok((Credentials::Application { key, secret, consumer }, secrets))
        }
        (.., Some(id)) => {
            let secret = variables.require(&["OVH_CLIENT_SECRET"])?;
            if tokens.is_empty() {
                let why = "is of an API that gives no tokens: set OVH_APPLICATION_KEY";
                return Err(Lacking::bad("OVH_ENDPOINT", why).into());
            }
            let api = Box::new(Api::new(tokens, timeout)?.keeping(std::slice::from_ref(&secret)));
            let secrets = vec![secret.clone()];
            Ok((Credentials::Client { api, id, secret, token: OnceCell::new() }, secrets))
        }
        (None, None, None) => {
            let either = "OVH_APPLICATION_KEY, OVH_APPLICATION_SECRET and OVH_CONSUMER_KEY".to_owned();
            Err(Lacking::Missing(either).into())
        }
    }
}

/// Of application's secret, consumer's key, method, URL, body and time.
fn signature(parts: [&str; 6]) -> String {
    format!("$1${}", hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, parts.join("+").as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Kept, Server, Told, record, variables};

    /// Computed with sha1sum, as the guide of the API says.
    #[test]
    fn a_signature_is_as_the_guide_says() {
        let parts = [
            "EgWIz07P0HYwtQDs",
            "MtSwSrPpNjqfVSmJhLbPyr2i45lSwPU1",
            "GET",
            "https://eu.api.ovh.com/1.0/domains/",
            "",
            "1366560945",
        ];
        assert_eq!(signature(parts), "$1$9a6bc34335812d25724c162bca10008b3df6c00e");
    }

    /// With the rights that guides advise: nothing may be read.
    async fn api(kept: &Kept) -> Server {
        let theirs = kept.clone();
        Server::start(move |request| {
            let told = Told::of(request);
            if told.line == "GET /1.0/auth/time" {
                return (200, "1366560945".to_owned());
            }
            if told.line == "POST /token" {
                assert_eq!(
                    told.text,
                    "grant_type=client_credentials&client_id=id&client_secret=s%26&scope=all"
                );
                return told.json(200, json!({ "access_token": "t0ken", "token_type": "Bearer" }));
            }
            let (method, path) = told.line.split_once(' ').unwrap();
            let url = format!("http://{}{path}", told.header("host"));
            let ours = signature(["s3cret", "c0nsumer", method, &url, &told.text, "1366560945"]);
            let headers = ["x-ovh-signature", "x-ovh-application", "x-ovh-consumer", "x-ovh-timestamp"];
            let signed = headers.map(|name| told.header(name)) == [&ours, "k3y", "c0nsumer", "1366560945"];
            if !signed && told.header("authorization") != "Bearer t0ken" {
                return (403, format!("no {}", told.header("x-ovh-consumer")));
            }
            if let Some(id) = told.line.strip_prefix("DELETE /1.0/domain/zone/b.test/record/") {
                return told.json(theirs.remove_id(id), json!(null));
            }
            match told.line.as_str() {
                "POST /1.0/domain/zone/b.test/record" => {
                    assert_eq!(told.body["subDomain"], "_acme-challenge.a");
                    assert_eq!((&told.body["fieldType"], &told.body["ttl"]), (&json!("TXT"), &json!(120)));
                    told.json(200, json!({ "id": theirs.add(told.value("target")) }))
                }
                "POST /1.0/domain/zone/b.test/refresh" => told.json(200, json!(null)),
                line if line.starts_with("POST ") => told.json(404, json!({ "message": "no service" })),
                _ => told.json(403, json!({ "message": "This call has not been granted" })),
            }
        })
        .await
    }

    fn open(server: &Server, set: &[(&str, &str)]) -> Ovh {
        let endpoint = format!("{}/1.0", server.url());
        variables(&[&[("OVH_ENDPOINT", endpoint.as_str())], set].concat(), Ovh::open).unwrap().0
    }

    const KEYS: [(&str, &str); 3] = [
        ("OVH_APPLICATION_KEY", "k3y"),
        ("OVH_APPLICATION_SECRET", "s3cret"),
        ("OVH_CONSUMER_KEY", "c0nsumer"),
    ];

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        kept.add("other");
        let server = api(&kept).await;
        let of_client = {
            let mut ovh = open(&server, &[("OVH_ACCESS_TOKEN", "x")]);
            let api = Api::new(&format!("{}/token", server.url()), Duration::from_secs(9)).unwrap();
            let (api, id, secret) = (Box::new(api), "id".to_owned(), Secret::new("s&"));
            ovh.credentials = Credentials::Client { api, id, secret, token: OnceCell::new() };
            ovh
        };
        for ovh in [open(&server, &KEYS), open(&server, &[("OVH_ACCESS_TOKEN", "t0ken")]), of_client] {
            let [one, two] = ["one", "two"].map(|value| record("a.b.test", value));
            for (action, record, expected) in [
                (Action::Present, &one, &["other", "one"][..]),
                (Action::Present, &two, &["other", "one", "two"]),
                (Action::CleanUp, &one, &["other", "two"]),
                (Action::CleanUp, &two, &["other"]),
                (Action::CleanUp, &two, &["other"]),
            ] {
                ovh.act(action, record).await.unwrap();
                assert_eq!(kept.values(), expected);
            }
        }
        let refreshed = |told: &&String| told.starts_with("POST /1.0/domain/zone/b.test/refresh");
        assert_eq!(server.told().iter().filter(refreshed).count(), 3 * 4);
        assert_eq!(server.told().iter().filter(|told| told.starts_with("POST /token")).count(), 1);
    }

    #[tokio::test]
    async fn a_refusal_is_told_without_secrets() {
        let server = api(&Kept::default()).await;
        let wrong = [KEYS[0], KEYS[1], ("OVH_CONSUMER_KEY", "wr0ng")];
        for (keys, domain, expected) in [
            (
                &KEYS,
                "a.test",
                "the account has no zone that _acme-challenge.a.test is in, or the credentials may not see it",
            ),
            (
                &wrong,
                "a.b.test",
                "the account has no zone that _acme-challenge.a.b.test is in, or the credentials may not see it: \
                 the API answers 403, the credentials are not enough for this: no ***",
            ),
        ] {
            let failed = open(&server, keys).act(Action::Present, &record(domain, "v")).await.unwrap_err();
            assert_eq!(failed.to_string(), expected);
        }
    }

    #[test]
    fn one_way_to_show_who_asks() {
        let of = |set: &[(&str, &str)]| variables(set, Ovh::open).map(|(ovh, _)| ovh.api.base_url);
        assert_eq!(of(&KEYS).unwrap(), "https://eu.api.ovh.com/1.0");
        let client = [("OVH_CLIENT_ID", "i"), ("OVH_CLIENT_SECRET", "s"), ("OVH_ENDPOINT", "ovh-us")];
        assert_eq!(of(&client).unwrap(), "https://api.us.ovhcloud.com/1.0");
        for (set, expected) in [
            (
                &[][..],
                "the environment lacks OVH_APPLICATION_KEY, OVH_APPLICATION_SECRET and OVH_CONSUMER_KEY",
            ),
            (&KEYS[..2], "the environment lacks OVH_CONSUMER_KEY"),
            (&[KEYS[0], client[0]], "OVH_APPLICATION_KEY, OVH_CLIENT_ID and OVH_ACCESS_TOKEN are three ways"),
            (
                &[client[0], client[1], ("OVH_ENDPOINT", "kimsufi-eu")],
                "OVH_ENDPOINT is of an API that gives no",
            ),
            (&[("OVH_ENDPOINT", "ovh-xx")], "OVH_ENDPOINT is neither a URL nor one of"),
        ] {
            let told = of(set).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{told}");
        }
    }
}
