//! `duckdns`: one text for each name below duckdns.org (<https://www.duckdns.org/spec.jsp>).

use http::Method;
use lb_config::dynamic::Secret;

use super::api::{Api, form};
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, TIMEOUT, Timing};
use crate::http::said;

const BASE_URL: &str = "https://www.duckdns.org";
const DEFAULTS: Defaults = Defaults::of(&["DUCKDNS"]);

pub(super) struct DuckDns {
    api: Api,
    token: Secret,
}

impl DuckDns {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let token = variables.require(&["DUCKDNS_TOKEN"])?;
        let sequence = Some(variables.seconds(&["DUCKDNS_SEQUENCE_INTERVAL"], TIMEOUT)?);
        let api = Api::new(BASE_URL, common.http_timeout)?.keeping(std::slice::from_ref(&token));
        Ok((Self { api, token }, Timing { sequence, ..common.timing }))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        let domain = account(&record.fqdn).ok_or_else(|| {
            let name = record.fqdn.trim_end_matches('.');
            ProviderError::Refused(format!("{name} is not below a name of duckdns.org"))
        })?;
        let mut query =
            vec![("domains", domain), ("token", self.token.reveal()), ("txt", record.value.as_str())];
        if action == Action::CleanUp {
            query.push(("clear", "true"));
        }
        let path = format!("/update?{}", form(&query));
        let answer = self.api.request(Method::GET, &path, &[], String::new()).await?;
        if answer.body.starts_with(b"OK") {
            return Ok(());
        }
        let why = "the API refuses the token, or the name is not of its account";
        Err(ProviderError::Refused(format!("{why}{}", said(&answer.body))))
    }
}

/// The name that an account has: the one right below duckdns.org.
fn account(fqdn: &str) -> Option<&str> {
    let name = fqdn.trim_end_matches('.').strip_suffix(".duckdns.org")?;
    name.rsplit('.').next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dns::testing::{Server, record, variables};

    #[tokio::test]
    async fn the_text_of_a_name_is_set_and_cleared() {
        let server = Server::start(|request| match request.lines().next().unwrap() {
            "GET /update?domains=shop&token=t%2B0&txt=value HTTP/1.1"
            | "GET /update?domains=shop&token=t%2B0&txt=value&clear=true HTTP/1.1" => (200, "OK".to_owned()),
            _ => (200, "KO".to_owned()),
        })
        .await;
        let of = |token| {
            let (mut duckdns, timing) = variables(&[("DUCKDNS_TOKEN", token)], DuckDns::open).unwrap();
            duckdns.api.base_url = server.url();
            (duckdns, timing)
        };
        let (duckdns, timing) = of("t+0");
        // One text at a time: names follow each other.
        assert_eq!(timing.sequence, Some(Duration::from_secs(60)));
        for domain in ["shop.duckdns.org", "www.shop.duckdns.org"] {
            for action in [Action::Present, Action::CleanUp] {
                duckdns.act(action, &record(domain, "value")).await.unwrap();
            }
        }
        let told = |failed: Result<(), ProviderError>| failed.unwrap_err().to_string();
        let failed = told(of("other").0.act(Action::Present, &record("shop.duckdns.org", "value")).await);
        assert_eq!(failed, "the API refuses the token, or the name is not of its account: KO");
        let failed = told(duckdns.act(Action::Present, &record("a.test", "value")).await);
        assert_eq!(failed, "_acme-challenge.a.test is not below a name of duckdns.org");
        assert_eq!(account("duckdns.org."), None);
        assert_eq!(account("_acme-challenge.evilduckdns.org."), None);
    }
}
