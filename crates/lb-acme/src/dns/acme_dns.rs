//! `acme-dns`: a name server for nothing but challenges (<https://github.com/acme-dns/acme-dns>), to which the names'
//! `_acme-challenge` is an alias.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Method;
use lb_config::read_string;
use serde::Deserialize;
use serde_json::json;

use super::api::Api;
use super::variables::Variables;
use super::{Action, INTERVAL, ProviderError, Record, TIMEOUT, Timing};

pub(super) struct AcmeDns {
    api: Api,
    storage: PathBuf,
}

/// As lego keeps them, by name; older versions with capital letters.
#[derive(Deserialize)]
struct Account {
    #[serde(alias = "FullDomain")]
    fulldomain: String,
    #[serde(alias = "SubDomain")]
    subdomain: String,
    #[serde(alias = "Username")]
    username: String,
    #[serde(alias = "Password")]
    password: String,
}

impl AcmeDns {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let base_url = variables.require(&["ACME_DNS_API_BASE"])?;
        let base_url = super::base_url("ACME_DNS_API_BASE", base_url.reveal())?;
        let storage = PathBuf::from(variables.require(&["ACME_DNS_STORAGE_PATH"])?.reveal());
        let timing = Timing { timeout: TIMEOUT, interval: INTERVAL, sequence: None };
        Ok((Self { api: Api::new(&base_url, super::HTTP_TIMEOUT)?, storage }, timing))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        // It keeps the last two records and forgets the older ones by itself.
        if action == Action::CleanUp {
            return Ok(());
        }
        let account = self.account(&record.domain)?;
        let headers = [("x-api-user", account.username.as_str()), ("x-api-key", &account.password)];
        let body = json!({ "subdomain": account.subdomain, "txt": record.value });
        self.api.send_with(&headers, Method::POST, "/update", Some(body)).await.map(drop)
    }

    fn account(&self, domain: &str) -> Result<Account, ProviderError> {
        let path = &self.storage;
        let refused = |reason: String| ProviderError::Refused(format!("{path:?}: {reason}"));
        let text = read_string(path).map_err(|error| refused(error.to_string()))?;
        let accounts: Result<BTreeMap<String, Account>, _> = serde_json::from_str(&text);
        // An error of the parser may repeat what it has read.
        let accounts =
            accounts.map_err(|error| refused(format!("line {} is no account of acme-dns", error.line())))?;
        let known = accounts.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(domain));
        let missing = || {
            let base = &self.api.base_url;
            let register = format!(
                "it has no account for {domain}: register one (POST {base}/register), keep what is answered there under \
                 that name, and make _acme-challenge.{domain} an alias (CNAME) of its `fulldomain`"
            );
            refused(register)
        };
        let account = known.map(|(_, account)| account).ok_or_else(missing)?;
        tracing::debug!(domain, alias = account.fulldomain, "The account of acme-dns is known");
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Server, record, variables};

    #[tokio::test]
    async fn the_record_goes_to_the_account_of_the_name() {
        let server = Server::start(|_| (200, r#"{"txt":"v"}"#.to_owned())).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");
        let accounts = r#"{"a.test": {"fulldomain": "x.auth.test", "subdomain": "x", "username": "u", "password": "p",
                "allowfrom": [], "server_url": "https://auth.test"},
            "b.test": {"FullDomain": "y.auth.test", "SubDomain": "y", "Username": "u", "Password": "p"}}"#;
        std::fs::write(&path, accounts).unwrap();
        let (base, path) = (server.url(), path.display().to_string());
        let set = [("ACME_DNS_API_BASE", base.as_str()), ("ACME_DNS_STORAGE_PATH", path.as_str())];
        let provider = variables(&set, AcmeDns::open).unwrap().0;
        provider.act(Action::Present, &record("a.test", "value")).await.unwrap();
        provider.act(Action::CleanUp, &record("a.test", "value")).await.unwrap();
        provider.act(Action::Present, &record("b.test", "value")).await.unwrap();
        let told = server.told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("POST /update ") && told[0].contains("x-api-key: p\r\n"), "{told:?}");
        assert!(told[0].ends_with(r#"{"subdomain":"x","txt":"value"}"#), "{told:?}");
        assert!(told[1].contains(r#""subdomain":"y""#));
        let failed = provider.act(Action::Present, &record("c.test", "v")).await.unwrap_err().to_string();
        assert!(failed.contains("no account for c.test") && failed.contains("/register"), "{failed}");
        std::fs::write(&path, r#"{"a.test": "secret"}"#).unwrap();
        let failed = provider.act(Action::Present, &record("a.test", "v")).await.unwrap_err().to_string();
        assert!(failed.ends_with("line 1 is no account of acme-dns"), "{failed}");
    }
}
