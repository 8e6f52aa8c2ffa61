//! `httpreq`: an HTTP server sets the record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use lb_config::dynamic::Secret;
use serde_json::json;

use super::api::Api;
use super::variables::{Lacking, Variables};
use super::{Action, INTERVAL, ProviderError, Record, TIMEOUT, Timing};

pub(super) struct HttpReq {
    api: Api,
    /// Of the endpoint, with its question mark.
    query: String,
    is_raw: bool,
}

impl HttpReq {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let endpoint = variables.require(&["HTTPREQ_ENDPOINT"])?;
        let endpoint = endpoint.reveal();
        let (endpoint, query) = endpoint.split_at(endpoint.find('?').unwrap_or(endpoint.len()));
        let endpoint = super::base_url("HTTPREQ_ENDPOINT", endpoint)?;
        let is_raw = match variables.text(&["HTTPREQ_MODE"])?.as_deref() {
            None => false,
            Some("RAW") => true,
            Some(_) => {
                return Err(Lacking::bad("HTTPREQ_MODE", "is neither `RAW` nor empty").into());
            }
        };
        let user = variables.find(&["HTTPREQ_USERNAME"])?.zip(variables.find(&["HTTPREQ_PASSWORD"])?);
        let timeout = variables.seconds(&["HTTPREQ_HTTP_TIMEOUT"], super::HTTP_TIMEOUT)?;
        let mut api = Api::new(&endpoint, timeout)?;
        if let Some((user, password)) = user {
            let pair = STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal()));
            api = api.with("authorization", Secret::new(&format!("Basic {pair}"))).keeping(&[password]);
        }
        let timing = Timing::of(variables, &["HTTPREQ"], TIMEOUT, INTERVAL)?;
        Ok((Self { api, query: query.to_owned(), is_raw }, timing))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        let body = match self.is_raw {
            true => json!({
                "domain": record.domain, "token": record.token, "keyAuth": record.authorization,
            }),
            false => json!({ "fqdn": record.fqdn, "value": record.value }),
        };
        let path = format!("/{}{}", action.word(), self.query);
        self.api.send(Method::POST, &path, Some(body)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::{Server, record, variables};

    #[tokio::test]
    async fn a_server_is_told_what_to_do() {
        let server = Server::start(|request| match request.starts_with("POST /x/present") {
            true => (200, String::new()),
            false => (409, "no such\nzone".to_owned()),
        })
        .await;
        let endpoint = format!("{}/x/", server.url());
        let set =
            [("HTTPREQ_ENDPOINT", endpoint.as_str()), ("HTTPREQ_USERNAME", "u"), ("HTTPREQ_PASSWORD", "p")];
        let provider = variables(&set, HttpReq::open).unwrap().0;
        provider.act(Action::Present, &record("a.test", "value")).await.unwrap();
        let failed = provider.act(Action::CleanUp, &record("a.test", "value")).await.unwrap_err().to_string();
        assert_eq!(failed, "the API answers 409: no such zone");
        let told = server.told();
        assert!(told[0].contains("\r\nauthorization: Basic dTpw\r\n"), "{told:?}");
        assert!(told[0].ends_with(r#"{"fqdn":"_acme-challenge.a.test.","value":"value"}"#), "{told:?}");
        assert!(told[1].starts_with("POST /x/cleanup HTTP/1.1\r\n"), "{told:?}");

        let endpoint = format!("{endpoint}?key=s3cret");
        let set = [("HTTPREQ_ENDPOINT", endpoint.as_str()), ("HTTPREQ_MODE", "RAW")];
        let provider = variables(&set, HttpReq::open).unwrap().0;
        provider.act(Action::Present, &record("a.test", "value")).await.unwrap();
        let told = server.told();
        assert!(told[2].starts_with("POST /x/present?key=s3cret HTTP/1.1\r\n"), "{told:?}");
        assert!(told[2].contains(r#""domain":"a.test""#) && told[2].contains(r#""keyAuth":"token.thumb""#));
        assert!(!told[2].contains("authorization:"));
    }

    #[test]
    fn an_endpoint_is_a_url() {
        for (endpoint, expected) in [
            ("ftp://a", "HTTPREQ_ENDPOINT is no URL that begins with http:// or https://"),
            ("http://u:secret@a", "HTTPREQ_ENDPOINT has a user name, for which there are other variables"),
        ] {
            let opened = variables(&[("HTTPREQ_ENDPOINT", endpoint)], HttpReq::open);
            assert_eq!(opened.err().unwrap().to_string(), expected);
        }
    }
}
