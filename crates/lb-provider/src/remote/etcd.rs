//! `providers.etcd`: keys of etcd v3, over its JSON gateway, which listens where gRPC does.
//!
//! A watch tells of changes; a look every half minute finds out about connections that have died without a word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use lb_config::kv::concerns;
use lb_config::remote::KvSource;
use lb_config::static_config::Credentials;
use rustls::ClientConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use super::answers::SourceError;
use super::web::{Answer, Endpoints};
use super::{Change, Content, LONGEST_ANSWER};

/// Time between two looks that nothing asked for; chosen.
const RESYNC: Duration = Duration::from_secs(30);
/// For each answer; chosen.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A longer message of a watch is refused: etcd takes no value above 1.5 MiB, and a transaction has 128 of them.
const LONGEST_EVENT: usize = 512 * 1024 * 1024;

pub(super) struct Etcd {
    settings: KvSource<Option<Credentials>>,
    pub(super) endpoints: Endpoints,
    token: Option<HeaderValue>,
    watch: Option<Watch>,
    next_look: Instant,
}

struct Watch {
    answer: Answer,
    buffer: BytesMut,
    /// So much of it holds no end of a message.
    searched: usize,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
}

/// Both in base64.
#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Authenticated {
    token: String,
}

impl Etcd {
    pub(super) fn new(settings: KvSource<Option<Credentials>>, tls: Option<Arc<ClientConfig>>) -> Self {
        let endpoints = Endpoints::new(settings.endpoints.clone(), tls);
        Self { settings, endpoints, token: None, watch: None, next_look: Instant::now() }
    }

    pub(super) async fn look(&mut self) -> Result<Content, SourceError> {
        let looked = timeout(TIMEOUT, self.range()).await.unwrap_or(Err(SourceError::Timeout(TIMEOUT)));
        if looked.is_err() {
            // A token may have expired, and a watch on a member that is no use is none.
            (self.watch, self.token) = (None, None);
        }
        self.next_look = Instant::now() + RESYNC;
        looked
    }

    async fn range(&mut self) -> Result<Content, SourceError> {
        if let (None, Some(credentials)) = (&self.token, &self.settings.options) {
            let Credentials { user, password } = credentials;
            let question = json!({ "name": user, "password": password });
            let Authenticated { token } = self.ask("/v3/auth/authenticate", &question).await?;
            self.token = HeaderValue::from_str(&token).ok();
        }
        // Every key that begins with the root and a slash; `0` follows the slash.
        let root = &self.settings.root;
        let (key, range_end) = (STANDARD.encode(format!("{root}/")), STANDARD.encode(format!("{root}0")));
        if self.watch.is_none() {
            // Before the look, so that nothing happens unnoticed between the two.
            let question = json!({ "create_request": { "key": key, "range_end": range_end } });
            let answer = self.send("/v3/watch", &question).await?;
            let mut watch = Watch { answer, buffer: BytesMut::new(), searched: 0 };
            watch.next().await?;
            self.watch = Some(watch);
        }
        let found: Range = self.ask("/v3/kv/range", &json!({ "key": key, "range_end": range_end })).await?;
        let mut pairs = BTreeMap::new();
        for Pair { key, value } in found.kvs {
            if let Ok(key) = String::from_utf8(STANDARD.decode(key)?)
                && concerns(&key, &self.settings.root)
            {
                pairs.insert(key, STANDARD.decode(value)?);
            }
        }
        Ok(Content::Keys(pairs))
    }

    pub(super) async fn change(&mut self) -> Result<Change, SourceError> {
        let Some(watch) = &mut self.watch else { return Ok(Change::Due) };
        tokio::select! {
            told = watch.next() => {
                if told.is_err() {
                    self.watch = None;
                }
                told.map(|()| Change::Told)
            }
            () = sleep_until(self.next_look) => Ok(Change::Due),
        }
    }

    async fn ask<T: DeserializeOwned>(&mut self, path: &str, question: &Value) -> Result<T, SourceError> {
        let answer = self.send(path, question).await?;
        Ok(serde_json::from_slice(&answer.collect(LONGEST_ANSWER).await?)?)
    }

    async fn send(&mut self, path: &str, question: &Value) -> Result<Answer, SourceError> {
        let mut request = Request::new(Full::from(question.to_string()));
        *request.method_mut() = hyper::Method::POST;
        if let Ok(target) = path.parse() {
            *request.uri_mut() = target;
        }
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        let answer = self.endpoints.send(request).await?;
        if answer.response.status() == StatusCode::OK { Ok(answer) } else { Err(answer.refusal().await) }
    }
}

impl Watch {
    /// Waits for a message that ends no watch. May be dropped and called again.
    async fn next(&mut self) -> Result<(), SourceError> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let told: Value = serde_json::from_slice(&line)?;
                let why = [&told["error"]["message"], &told["result"]["cancel_reason"]];
                return match why.into_iter().find_map(Value::as_str) {
                    Some(why) => Err(SourceError::NoWatch(why.to_owned())),
                    None if told["error"].is_object() || told["result"]["canceled"] == true => {
                        Err(SourceError::Ended)
                    }
                    None => Ok(()),
                };
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST_EVENT {
                return Err(SourceError::TooLong(LONGEST_EVENT as u64));
            }
            let frame = self.answer.response.body_mut().frame().await.ok_or(SourceError::Ended)??;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
