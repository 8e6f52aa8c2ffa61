//! Requests to the authority and to DNS providers, each on a connection of its own: an order is a dozen of them, every
//! other month.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use lb_config::acme::Resolver;
use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust::Verifier;

/// The longest answer: chains of certificates have some 10 KiB. Chosen.
const LONGEST: usize = 1 << 20;
/// To open a connection, TLS included. Chosen.
const CONNECT: Duration = Duration::from_secs(30);
/// The longest pause that an authority may ask for: Let's Encrypt asks for up to a week. Chosen.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 24 * 3600);

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
        let pause = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()?,
        };
        Some(pause.min(LONGEST_PAUSE))
    }
}

impl Http {
    pub(crate) fn new(resolver: &Resolver) -> Result<Self, HttpError> {
        let is_system = resolver.ca_certificates.is_empty() || resolver.ca_system_cert_pool;
        let mut roots = if is_system { system() } else { RootCertStore::empty() };
        let mut listed = Vec::new();
        for pem in &resolver.ca_certificates {
            for certificate in CertificateDer::pem_slice_iter(&pem.0) {
                let certificate = certificate.map_err(|error| HttpError::Authorities(error.to_string()))?;
                listed.push(certificate.clone());
                roots.add(certificate).map_err(|error| HttpError::Authorities(error.to_string()))?;
            }
        }
        let (timeout, head_timeout) = (resolver.client_timeout, resolver.client_response_header_timeout);
        let server_name = resolver.ca_server_name.clone();
        Ok(Self { tls: tls(roots, listed)?, server_name, timeout, head_timeout })
    }

    /// For the API of a DNS provider.
    pub(crate) fn of_provider(timeout: Duration) -> Result<Self, HttpError> {
        Ok(Self { tls: tls(system(), Vec::new())?, server_name: None, timeout, head_timeout: timeout })
    }

    /// To the authority.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<String>,
    ) -> Result<Answer, HttpError> {
        // RFC 8555 section 6.1.
        let no_url = || HttpError::Url(url.to_owned());
        if !url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            return Err(no_url());
        }
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/jose+json");
        }
        self.request(request.body(body.unwrap_or_default()).map_err(|_| no_url())?).await
    }

    /// To whatever the URL names.
    pub(crate) async fn request(&self, request: Request<String>) -> Result<Answer, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let late = || HttpError::Late { host: host.clone(), limit: self.timeout };
        tokio::time::timeout(self.timeout, self.exchange(request, &host))
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, mut request: Request<String>, host: &str) -> Result<Answer, HttpError> {
        let uri = request.uri().clone();
        let no_url = || HttpError::Url(uri.to_string());
        let authority = uri.authority().ok_or_else(no_url)?.as_str().to_owned();
        let stream = match uri.scheme_str() {
            Some("https") => self.connect(host, uri.port_u16().unwrap_or(443)).await?,
            Some("http") => Box::new(tcp(host, uri.port_u16().unwrap_or(80)).await?),
            _ => return Err(no_url()),
        };
        let broken = |error: &dyn std::fmt::Display| HttpError::Broken(host.to_owned(), error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = path.parse().map_err(|_| no_url())?;
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| broken(&error));
        let headers = request.headers_mut();
        headers.insert(header::HOST, value(&authority)?);
        headers.insert(header::USER_AGENT, value(concat!("vigie/", env!("CARGO_PKG_VERSION")))?);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let request = request.map(|body| Full::new(Bytes::from(body)));
        let limit = self.head_timeout;
        let answered = async {
            let response = tokio::time::timeout(limit, sender.send_request(request)).await;
            let response = response.map_err(|_| HttpError::Late { host: host.to_owned(), limit })?;
            let (head, body) = response.map_err(|error| broken(&error))?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(|error| broken(&error))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        // The connection is worked on here, so nothing of it is left when this future is dropped. How it ends says
        // nothing of an answer that is whole.
        let (mut answered, mut connection) = (pin!(answered), pin!(connection));
        tokio::select! {
            answer = &mut answered => answer,
            _ = &mut connection => answered.await,
        }
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, HttpError> {
        let name = self.server_name.as_deref().unwrap_or(bare(host)).to_owned();
        let failed = |error| HttpError::Connect(format!("{host}:{port}"), error);
        let name = ServerName::try_from(name).map_err(|error| failed(std::io::Error::other(error)))?;
        let stream = tcp(host, port).await?;
        let connected = tokio::time::timeout(CONNECT, self.tls.connect(name, stream)).await;
        let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        connected.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(failed)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The address in the brackets of a URL.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Tries every address in turn.
async fn tcp(host: &str, port: u16) -> Result<TcpStream, HttpError> {
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect((bare(host), port))).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected.map_err(|error| HttpError::Connect(format!("{host}:{port}"), error))
}

/// The authorities that the system trusts.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn tls(roots: RootCertStore, listed: Vec<CertificateDer<'static>>) -> Result<TlsConnector, HttpError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Authorities(error.to_string()))?;
    let builder = if listed.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let web = web.map_err(|error| HttpError::Authorities(error.to_string()))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { web, listed }))
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What others say goes into our log: one line, of no length.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 500;
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text that came with a refusal, behind a colon.
pub(crate) fn said(body: &[u8]) -> String {
    let text = printable(String::from_utf8_lossy(body).trim());
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_authority_makes_us_wait_for_ever() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            Answer { status: StatusCode::OK, headers, body: Bytes::new() }.retry_after()
        };
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        for far in ["18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(asked(far), Some(LONGEST_PAUSE));
        }
        assert_eq!(asked("Thu, 01 Jan 1970 00:00:00 GMT"), None);
        assert_eq!(asked("soon"), None);
    }
}
