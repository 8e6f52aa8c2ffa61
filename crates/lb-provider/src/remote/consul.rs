//! `providers.consul`: keys of Consul, by blocking queries.
//!
//! Each answer says at which index it was true; the next question waits at the server until there is a later one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode};
use lb_config::kv::concerns;
use lb_config::remote::{ConsulOptions, KvSource};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::answers::SourceError;
use super::web::Endpoints;
use super::{Change, Content, LONGEST_ANSWER, encoded};

/// How long the server may keep a question waiting; chosen, half a minute finds out about connections that have died
/// without a word.
const WAIT: Duration = Duration::from_secs(30);
/// For each answer, on top of that: the server adds up to a sixteenth by itself. Chosen.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two questions that are meant to wait: what is between may answer each at once, and so does a server whose
/// index only ever changes. Chosen, half of the quiet that ends a burst.
const PACE: Duration = Duration::from_millis(50);

pub(super) struct Consul {
    settings: KvSource<ConsulOptions>,
    pub(super) endpoints: Endpoints,
    /// Of the last answer.
    index: u64,
    /// What a question was answered with that waited for a change.
    news: Option<Content>,
    /// The next question that waits is not asked before.
    next_wait: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    /// In base64; `null` for an empty one.
    value: Option<String>,
}

impl Consul {
    pub(super) fn new(settings: KvSource<ConsulOptions>, tls: Option<Arc<ClientConfig>>) -> Self {
        let endpoints = Endpoints::new(settings.endpoints.clone(), tls);
        Self { settings, endpoints, index: 0, news: None, next_wait: Instant::now() }
    }

    pub(super) async fn look(&mut self) -> Result<Content, SourceError> {
        match self.news.take() {
            Some(news) => Ok(news),
            None => Ok(self.ask(None).await?.unwrap_or_else(|| Content::Keys(BTreeMap::new()))),
        }
    }

    pub(super) async fn change(&mut self) -> Result<Change, SourceError> {
        loop {
            sleep_until(self.next_wait).await;
            self.next_wait = Instant::now() + PACE;
            if let Some(news) = self.ask(Some(self.index)).await? {
                self.news = Some(news);
                return Ok(Change::Told);
            }
        }
    }

    /// `None`: nothing has changed since `index`.
    async fn ask(&mut self, index: Option<u64>) -> Result<Option<Content>, SourceError> {
        let KvSource { root, options, .. } = &self.settings;
        let mut target = format!("/v1/kv/{}/?recurse=true", encoded(root));
        if let Some(namespace) = &options.namespace {
            target.push_str(&format!("&ns={}", encoded(namespace)));
        }
        if let Some(index) = index {
            target.push_str(&format!("&index={index}&wait={}s", WAIT.as_secs()));
        }
        let mut request = Request::new(Full::<Bytes>::default());
        if let Ok(target) = target.parse() {
            *request.uri_mut() = target;
        }
        if let Some(token) = options.token.as_ref().and_then(|token| HeaderValue::from_str(&token.0).ok()) {
            request.headers_mut().insert("x-consul-token", token);
        }
        let limit = if index.is_some() { WAIT + TIMEOUT } else { TIMEOUT };
        let asked = async {
            let answer = self.endpoints.send(request).await?;
            let headers = answer.response.headers();
            let text = headers.get("x-consul-index").and_then(|index| index.to_str().ok());
            let now = text.and_then(|text| text.parse().ok());
            // No key at all is answered with 404, by Consul only with an index: other things say 404 too.
            let pairs: Vec<Pair> = match (answer.response.status(), now) {
                (StatusCode::OK, Some(_)) => serde_json::from_slice(&answer.collect(LONGEST_ANSWER).await?)?,
                (StatusCode::NOT_FOUND, Some(_)) => Vec::new(),
                _ => return Err(answer.refusal().await),
            };
            Ok((pairs, now))
        };
        let (pairs, now) = timeout(limit, asked).await.unwrap_or(Err(SourceError::Timeout(limit)))?;
        let now: u64 = now.unwrap_or_default();
        let is_new = index != Some(now);
        // One that goes back is to be forgotten, and 0 would not wait.
        self.index = if now < self.index { 1 } else { now.max(1) };
        if !is_new {
            return Ok(None);
        }
        let mut found = BTreeMap::new();
        for Pair { key, value } in pairs {
            if concerns(&key, &self.settings.root) {
                let value = base64::engine::general_purpose::STANDARD.decode(value.unwrap_or_default())?;
                found.insert(key, value);
            }
        }
        Ok(Some(Content::Keys(found)))
    }
}

#[cfg(test)]
mod tests {
    use lb_config::remote::Endpoint;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_answers_at_once_is_not_asked_all_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let server = async {
            let mut questions = 0;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                questions += 1;
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 2\r\n\r\n[]";
                let _ = stream.write_all(answer).await;
                if questions == 5 {
                    return;
                }
            }
        };
        let options = ConsulOptions { token: None, namespace: None };
        let source = KvSource { endpoints: vec![endpoint], root: "traefik".into(), options };
        let mut consul = Consul::new(source, None);
        let began = Instant::now();
        let asking = async {
            consul.look().await.unwrap();
            consul.change().await
        };
        tokio::select! {
            change = asking => panic!("{change:?}"),
            () = server => {}
        }
        // One look, one question at once, and three later.
        assert!(began.elapsed() >= 3 * PACE);
    }
}
