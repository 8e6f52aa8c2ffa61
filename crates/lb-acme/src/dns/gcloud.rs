//! `gcloud`: the API of Google Cloud DNS (<https://cloud.google.com/dns/docs/reference/rest/v1>), for a service account.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use lb_config::dynamic::Secret;
use lb_config::read_string;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{Api, Patience, Zoned, changed, encoded, form, token, understood};
use super::variables::{Defaults, Lacking, Variables};
use super::{Action, ProviderError, Record, Timing};
use crate::http::Answer;

const BASE_URL: &str = "https://dns.googleapis.com/dns/v1";
const SCOPE: &str = "https://www.googleapis.com/auth/ndev.clouddns.readwrite";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The longest that Google takes.
const VALID_SECONDS: u64 = 3600;
const DEFAULTS: Defaults = Defaults {
    timeout: Duration::from_secs(180),
    interval: Duration::from_secs(5),
    ..Defaults::of(&["GCE"])
};

pub(super) struct GCloud {
    api: Api,
    login: Api,
    account: Account,
    key: RsaKeyPair,
    token: OnceCell<Secret>,
    zone: Option<String>,
    may_be_private: bool,
    ttl_seconds: u32,
    timing: Timing,
}

/// As Google's console has it downloaded.
#[derive(Deserialize)]
struct Account {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    project_id: String,
    #[serde(default)]
    private_key_id: String,
    private_key: String,
    client_email: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct Zones {
    #[serde(default, rename = "managedZones")]
    zones: Vec<Zone>,
}

#[derive(Deserialize)]
struct Zone {
    name: String,
    #[serde(rename = "dnsName")]
    dns_name: String,
    #[serde(default)]
    visibility: String,
}

#[derive(Deserialize)]
struct Sets {
    #[serde(default)]
    rrsets: Vec<Set>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Set {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    ttl: u32,
    rrdatas: Vec<String>,
}

#[derive(Deserialize)]
struct Change {
    id: String,
    status: String,
}

impl GCloud {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        if variables.text(&["GCE_IMPERSONATE_SERVICE_ACCOUNT"])?.is_some() {
            return Err(Lacking::bad("GCE_IMPERSONATE_SERVICE_ACCOUNT", "is not supported").into());
        }
        let mut account = account(variables)?;
        if let Some(project) = variables.text(&["GCE_PROJECT"])? {
            account.project_id = project;
        }
        if account.project_id.is_empty() {
            return Err(Lacking::Missing("GCE_PROJECT".to_owned()).into());
        }
        let bad_key =
            || ProviderError::Refused("the private key of the service account cannot be used".into());
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(account.private_key.as_bytes()).map_err(|_| bad_key())?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| bad_key())?;
        let provider = Self {
            api: Api::new(BASE_URL, common.http_timeout)?,
            login: Api::new(&super::base_url("token_uri", &account.token_uri)?, common.http_timeout)?,
            account,
            key,
            token: OnceCell::new(),
            zone: variables.text(&["GCE_ZONE_ID"])?,
            may_be_private: variables.flag("GCE_ALLOW_PRIVATE_ZONE", false)?,
            ttl_seconds: common.ttl_seconds,
            timing: common.timing,
        };
        Ok((provider, common.timing))
    }

    /// RFC 7523 section 2.1.
    async fn grant(&self) -> Result<Secret, ProviderError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": self.account.private_key_id });
        let claims = json!({
            "iss": self.account.client_email, "scope": SCOPE, "aud": self.account.token_uri, "iat": now,
            "exp": now + VALID_SECONDS,
        });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let text = format!("{}.{}", encode(&head), encode(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| ProviderError::Refused("the key of the service account cannot sign".to_owned()))?;
        let assertion = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
        token(&self.login, &[("grant_type", GRANT), ("assertion", &assertion)]).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, ProviderError> {
        let token = self.token.get_or_try_init(|| self.grant()).await?;
        let path = format!("/projects/{}/managedZones{path}", encoded(&self.account.project_id));
        self.api.send_with(&[("authorization", token.reveal())], method, &path, body).await
    }
}

/// Of the variables, or of the file that Google's own tools look for.
fn account(variables: &Variables<'_>) -> Result<Account, ProviderError> {
    let text = match variables.find(&["GCE_SERVICE_ACCOUNT"])? {
        Some(text) => text,
        None => {
            let missing = || Lacking::Missing("GCE_SERVICE_ACCOUNT or GCE_SERVICE_ACCOUNT_FILE".to_owned());
            let path = variables.text(&["GOOGLE_APPLICATION_CREDENTIALS"])?.ok_or_else(missing)?;
            let text = read_string(path.as_ref());
            Secret::new(&text.map_err(|error| ProviderError::Refused(format!("{path:?}: {error}")))?)
        }
    };
    // An error of the parser may repeat what it has read.
    let account: Option<Account> = serde_json::from_str(text.reveal()).ok();
    account.filter(|account| account.kind == "service_account").ok_or_else(|| {
        ProviderError::Refused(
            "what GCE_SERVICE_ACCOUNT has is no key of a service account, in JSON".to_owned(),
        )
    })
}

impl Zoned for GCloud {
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        if let Some(zone) = &self.zone {
            return Ok(Some(zone.clone()));
        }
        let dns_name = format!("{name}.");
        let answer = self.ask(Method::GET, &format!("?{}", form(&[("dnsName", &dns_name)])), None).await?;
        let Zones { zones } = understood(&answer)?;
        let is_it = |zone: &Zone| {
            zone.dns_name.eq_ignore_ascii_case(&dns_name)
                && (self.may_be_private || zone.visibility != "private")
        };
        Ok(zones.into_iter().find(is_it).map(|zone| zone.name))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let zone = encoded(zone);
        let query = form(&[("name", &record.fqdn), ("type", "TXT")]);
        let answer = self.ask(Method::GET, &format!("/{zone}/rrsets?{query}"), None).await?;
        let Sets { rrsets } = understood(&answer)?;
        let texts = rrsets.iter().flat_map(|set| set.rrdatas.clone()).collect();
        let Some(rrdatas) = changed(texts, action, &record.value) else { return Ok(()) };
        let (name, kind) = (record.fqdn.clone(), "TXT".to_owned());
        let new = Set { name, kind, ttl: self.ttl_seconds, rrdatas };
        let additions: Vec<_> = Some(new).into_iter().filter(|set| !set.rrdatas.is_empty()).collect();
        // What is deleted must be there just so, or the change fails.
        let change = json!({ "additions": additions, "deletions": rrsets });
        let answer = self.ask(Method::POST, &format!("/{zone}/changes"), Some(change)).await?;
        let mut change: Change = understood(&answer)?;
        let patience = Patience::new(self.timing);
        // Nobody waits for a record to be gone.
        while action == Action::Present && change.status != "done" {
            patience.pause().await?;
            let path = format!("/{zone}/changes/{}", encoded(&change.id));
            change = understood(&self.ask(Method::GET, &path, None).await?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;
    use crate::dns::testing::{Kept, Server, Told, record, two_of_one_name, variables};

    /// An account, and the key that its signatures are checked with.
    fn service_account(server: &str) -> (Value, Vec<u8>) {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let account = json!({
            "type": "service_account", "project_id": "p1", "private_key_id": "k1",
            "private_key": format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n"),
            "client_email": "vigie@p1.iam.gserviceaccount.com", "token_uri": format!("{server}/token"),
        });
        (account, pair.public_key().as_ref().to_vec())
    }

    /// As Cloud DNS: what is deleted must be there just so.
    fn cloud_dns(told: &Told, theirs: &Kept) -> (u16, String) {
        if told.header("authorization") != "Bearer t0ken" {
            return told.refuse(401);
        }
        let set = |texts: Vec<Value>| json!([{ "name": "_acme-challenge.a.b.test.", "type": "TXT", "ttl": 120, "rrdatas": texts }]);
        let now = || if theirs.is_empty() { json!([]) } else { set(theirs.list(|_, text| json!(text))) };
        let path = told.line.replace("/projects/p1/managedZones", "");
        match path.as_str() {
            "GET ?dnsName=b.test." => told.json(
                200,
                json!({ "managedZones": [
                    { "name": "inner", "dnsName": "b.test.", "visibility": "private" },
                    { "name": "outer", "dnsName": "b.test.", "visibility": "public" },
                ] }),
            ),
            "GET /outer/rrsets?name=_acme-challenge.a.b.test.&type=TXT" => {
                told.json(200, json!({ "rrsets": now() }))
            }
            "POST /outer/changes" => {
                assert_eq!(told.body["deletions"], now());
                let new = &told.body["additions"];
                theirs.replace(if new == &json!([]) { new } else { &new[0]["rrdatas"] });
                assert_eq!(new, &now());
                told.json(200, json!({ "id": "7", "status": "pending" }))
            }
            "GET /outer/changes/7" => told.json(200, json!({ "id": "7", "status": "done" })),
            line if line.starts_with("GET ?") => told.json(200, json!({})),
            _ => told.refuse(404),
        }
    }

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        let (theirs, key) = (kept.clone(), std::sync::Arc::new(parking_lot::Mutex::new(Vec::new())));
        let public = std::sync::Arc::clone(&key);
        let server = Server::start(move |request| {
            let told = Told::of(request);
            if told.line != "POST /token" {
                return cloud_dns(&told, &theirs);
            }
            let assertion = told
                .text
                .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=");
            let (text, signature) = assertion.unwrap().rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.lock().clone());
            public.verify(text.as_bytes(), &signature).unwrap();
            let part = |index| {
                let part = URL_SAFE_NO_PAD.decode(text.split('.').nth(index).unwrap()).unwrap();
                serde_json::from_slice::<Value>(&part).unwrap()
            };
            assert_eq!(part(0), json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }));
            let claims = part(1);
            if claims["iss"] != "vigie@p1.iam.gserviceaccount.com" {
                return told.refuse(401);
            }
            assert_eq!(claims["scope"], SCOPE);
            assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
            told.json(200, json!({ "access_token": "t0ken" }))
        })
        .await;
        let (account, public) = service_account(&server.url());
        *key.lock() = public;
        let mut stranger = account.clone();
        stranger["client_email"] = json!("wr0ng@p1.iam.gserviceaccount.com");
        let of = |account: &Value| {
            let text = account.to_string();
            let set = [("GCE_SERVICE_ACCOUNT", text.as_str()), ("GCE_POLLING_INTERVAL", "0")];
            let mut gcloud = variables(&set, GCloud::open).unwrap().0;
            gcloud.api.base_url = server.url();
            gcloud
        };
        let gcloud = of(&account);
        two_of_one_name(&gcloud, &of(&stranger), &kept).await;
        kept.clear();
        for (action, left) in [(Action::Present, &["v"][..]), (Action::CleanUp, &[])] {
            gcloud.act(action, &record("a.b.test", "v")).await.unwrap();
            assert_eq!(kept.values(), left);
        }
    }

    #[test]
    fn an_account_is_json_with_a_key() {
        let told = |set: &[(&str, &str)]| variables(set, GCloud::open).err().unwrap().to_string();
        let bad =
            r#"{"type":"service_account","private_key":"x","client_email":"e","token_uri":"https://t"}"#;
        let user =
            r#"{"type":"authorized_user","private_key":"x","client_email":"e","token_uri":"https://t"}"#;
        for (set, expected) in [
            (&[][..], "the environment lacks GCE_SERVICE_ACCOUNT or GCE_SERVICE_ACCOUNT_FILE"),
            (&[("GCE_SERVICE_ACCOUNT", "s3cret")], "what GCE_SERVICE_ACCOUNT has is no key"),
            (&[("GCE_SERVICE_ACCOUNT", user)], "what GCE_SERVICE_ACCOUNT has is no key"),
            (&[("GCE_SERVICE_ACCOUNT", bad)], "the environment lacks GCE_PROJECT"),
            (
                &[("GCE_SERVICE_ACCOUNT", bad), ("GCE_PROJECT", "p")],
                "the private key of the service account cannot be used",
            ),
            (&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/x")], "\"/nowhere/x\": No such file"),
        ] {
            assert!(told(set).starts_with(expected), "{}", told(set));
        }
    }
}
