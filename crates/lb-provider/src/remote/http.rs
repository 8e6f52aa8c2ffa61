//! `providers.http`: an endpoint that is asked for a configuration again and again.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use lb_config::remote::HttpSource;
use rustls::ClientConfig;
use tokio::time::{sleep, timeout};

use super::answers::SourceError;
use super::web::Endpoints;
use super::{Change, Content};

pub(super) struct Http {
    settings: HttpSource,
    endpoints: Endpoints,
}

impl Http {
    pub(super) fn new(settings: HttpSource, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { endpoints: Endpoints::new(vec![settings.endpoint.clone()], tls), settings }
    }

    pub(super) async fn look(&mut self) -> Result<Content, SourceError> {
        let limit = self.settings.poll_timeout;
        timeout(limit, self.get()).await.unwrap_or(Err(SourceError::Timeout(limit)))
    }

    async fn get(&mut self) -> Result<Content, SourceError> {
        let mut request = Request::new(Full::<Bytes>::default());
        // What was read as an endpoint is a path, and as a field's name and value is one.
        if let Ok(target) = self.settings.path_and_query.parse() {
            *request.uri_mut() = target;
        }
        for (name, value) in &self.settings.headers.0 {
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes()))
            {
                request.headers_mut().insert(name, value);
            }
        }
        let answer = self.endpoints.send(request).await?;
        if answer.response.status() != StatusCode::OK {
            return Err(answer.refusal().await);
        }
        Ok(Content::Text(answer.collect(self.settings.max_body_bytes).await?))
    }

    pub(super) async fn change(&mut self) -> Result<Change, SourceError> {
        sleep(self.settings.poll_interval).await;
        Ok(Change::Due)
    }
}
