//! Requests to the authority, each on a connection of its own: an order is a dozen of them, every other month.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use lb_config::acme::Resolver;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest answer: chains of certificates have some 10 KiB. Chosen.
const LONGEST: usize = 1 << 20;
/// To open a connection, TLS included. Chosen.
const CONNECT: Duration = Duration::from_secs(30);

/// Why the authority could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0:?} is no URL that can be asked")]
    Url(String),
    #[error("no connection to {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("no answer from {0}: {1}")]
    Broken(String, String),
    #[error("no answer from {host} within {limit:?}")]
    Late { host: String, limit: Duration },
    #[error("caCertificates: {0}")]
    Authorities(String),
}

pub(crate) struct Http {
    tls: TlsConnector,
    server_name: Option<String>,
    timeout: Duration,
    head_timeout: Duration,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the authority wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
    }
}

impl Http {
    pub(crate) fn new(resolver: &Resolver) -> Result<Self, HttpError> {
        let mut roots = RootCertStore::empty();
        if resolver.ca_certificates.is_empty() || resolver.ca_system_cert_pool {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        for pem in &resolver.ca_certificates {
            for certificate in CertificateDer::pem_slice_iter(&pem.0) {
                let certificate = certificate.map_err(|error| HttpError::Authorities(error.to_string()))?;
                roots.add(certificate).map_err(|error| HttpError::Authorities(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            server_name: resolver.ca_server_name.clone(),
            timeout: resolver.client_timeout,
            head_timeout: resolver.client_response_header_timeout,
        })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<String>,
    ) -> Result<Answer, HttpError> {
        let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        let host = host.ok_or_else(|| HttpError::Url(url.to_owned()))?;
        let late = |limit| HttpError::Late { host: host.clone(), limit };
        tokio::time::timeout(self.timeout, self.exchange(method, url, &host, body))
            .await
            .unwrap_or_else(|_| Err(late(self.timeout)))
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        host: &str,
        body: Option<String>,
    ) -> Result<Answer, HttpError> {
        let no_url = || HttpError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        // RFC 8555 section 6.1.
        if uri.scheme_str() != Some("https") {
            return Err(no_url());
        }
        let authority = uri.authority().ok_or_else(no_url)?.as_str().to_owned();
        let stream = self.connect(host, uri.port_u16().unwrap_or(443)).await?;
        let broken = |error: &dyn std::fmt::Display| HttpError::Broken(host.to_owned(), error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("vigie/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/jose+json");
        }
        let request =
            request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|error| broken(&error))?;
        let limit = self.head_timeout;
        let answered = async {
            let response = tokio::time::timeout(limit, sender.send_request(request)).await;
            let response = response.map_err(|_| HttpError::Late { host: host.to_owned(), limit })?;
            let (head, body) = response.map_err(|error| broken(&error))?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(|error| broken(&error))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        // The connection is worked on here, so nothing of it is left when this future is dropped.
        tokio::select! {
            answer = answered => answer,
            Err(error) = connection => Err(broken(&error)),
        }
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, HttpError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let connected = async {
            let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
            // Every address in turn.
            let stream = TcpStream::connect((host, port)).await?;
            self.tls.connect(name, stream).await
        };
        let connected = tokio::time::timeout(CONNECT, connected).await;
        let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        connected.map_err(|error| HttpError::Connect(format!("{host}:{port}"), error))
    }
}
