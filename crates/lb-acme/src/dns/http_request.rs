//! `httpreq`: an HTTP server sets the record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, header};
use lb_config::dynamic::Secret;
use serde_json::json;

use super::variables::{Lacking, Variables};
use super::{Action, INTERVAL, ProviderError, Record, TIMEOUT, Timing};
use crate::http::{Http, said};

pub(super) struct HttpReq {
    http: Http,
    /// Without a final slash.
    endpoint: String,
    is_raw: bool,
    authorization: Option<Secret>,
}

impl HttpReq {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let endpoint = variables.require(&["HTTPREQ_ENDPOINT"])?;
        let endpoint = super::base_url("HTTPREQ_ENDPOINT", endpoint.reveal())?;
        let is_raw = match variables.text(&["HTTPREQ_MODE"])?.as_deref() {
            None => false,
            Some("RAW") => true,
            Some(_) => {
                return Err(Lacking::bad("HTTPREQ_MODE", "is neither `RAW` nor empty").into());
            }
        };
        let user = variables.find(&["HTTPREQ_USERNAME"])?.zip(variables.find(&["HTTPREQ_PASSWORD"])?);
        let authorization = user.map(|(user, password)| {
            let pair = STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal()));
            Secret::new(&format!("Basic {pair}"))
        });
        let timeout = variables.seconds(&["HTTPREQ_HTTP_TIMEOUT"], super::HTTP_TIMEOUT)?;
        let timing = Timing::of(variables, &["HTTPREQ"], TIMEOUT, INTERVAL)?;
        let provider = Self { http: Http::of_provider(timeout)?, endpoint, is_raw, authorization };
        Ok((provider, timing))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        let body = match self.is_raw {
            true => json!({
                "domain": record.domain, "token": record.token, "keyAuth": record.authorization,
            }),
            false => json!({ "fqdn": record.fqdn, "value": record.value }),
        };
        let url = format!("{}/{}", self.endpoint, action.word());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.reveal());
        }
        let request = request
            .body(body.to_string())
            .map_err(|_| ProviderError::Refused(format!("{url:?} is no URL")))?;
        let answer = self.http.request(request).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(ProviderError::Refused(format!("{url} answers {}{}", answer.status.as_u16(), said(&answer.body))))
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
        assert_eq!(failed, format!("{}/x/cleanup answers 409: no such zone", server.url()));
        let told = server.told();
        assert!(told[0].contains("\r\nauthorization: Basic dTpw\r\n"), "{told:?}");
        assert!(told[0].ends_with(r#"{"fqdn":"_acme-challenge.a.test.","value":"value"}"#), "{told:?}");
        assert!(told[1].starts_with("POST /x/cleanup HTTP/1.1\r\n"), "{told:?}");

        let set = [("HTTPREQ_ENDPOINT", endpoint.as_str()), ("HTTPREQ_MODE", "RAW")];
        let provider = variables(&set, HttpReq::open).unwrap().0;
        provider.act(Action::Present, &record("a.test", "value")).await.unwrap();
        let told = server.told();
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
