//! Asks the API of a running Vigie, for commands.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use lb_config::StaticConfig;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::http::ask_once;
use crate::options::Options;

/// One request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is smaller, or it is none of ours.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where the API is and what opens it, as far as the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Address of the API, such as http://127.0.0.1:8080, or http://USER:PASSWORD@HOST:PORT where it is behind
    /// `basicAuth`. Default: the entry point `traefik` of the static configuration.
    #[arg(long, value_name = "URL", env = "VIGIE_API_ADDRESS")]
    address: Option<String>,
    /// File with the token. Default: $VIGIE_API_TOKEN, then the static configuration.
    #[arg(long = "tokenfile", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct ApiClient {
    /// `host:port`.
    authority: String,
    /// Before `/api`.
    base_path: String,
    /// Of the field `Authorization`.
    authorization: Option<String>,
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refused {
    message: String,
}

impl ApiClient {
    /// To change something. Reads the static configuration where the command line leaves something open.
    pub(crate) fn new(target: &Target, options: &Options) -> anyhow::Result<Self> {
        let client = Self::open(target, options, true)?;
        anyhow::ensure!(
            client.authorization.is_some(),
            "there is no token: set `api.token` or `api.tokenFile` of the static \
            configuration, or give --tokenFile=FILE"
        );
        Ok(client)
    }

    /// As [`new`](Self::new), but it is fine to have nothing to show: `api.insecure` lets everybody read.
    pub(crate) fn for_reading(target: &Target, options: &Options) -> anyhow::Result<Self> {
        Self::open(target, options, false)
    }

    fn open(target: &Target, options: &Options, to_change: bool) -> anyhow::Result<Self> {
        let mut token = match &target.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                Some(text.with_context(|| format!("cannot read {}", file.display()))?.trim().to_owned())
            }
            None => std::env::var("VIGIE_API_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        let mut address = target.address.clone();
        let is_named = address.is_some();
        let static_config = || {
            let hint =
                "name the API with --address=URL and its token with --tokenFile=FILE or $VIGIE_API_TOKEN";
            match options.static_config().context(hint) {
                Ok((config, _)) => Ok(Some(config)),
                Err(_) if is_named && !to_change => Ok(None),
                Err(error) => Err(error),
            }
        };
        if (!is_named || token.is_none())
            && let Some(config) = static_config()?
        {
            if address.is_none() {
                address = Some(address_in(&config)?);
            }
            let api = config.api.as_ref();
            token = token
                .or_else(|| api.and_then(|api| api.token.as_ref()).map(|token| token.reveal().to_owned()));
        }
        let address = address.unwrap_or_default();
        let Some(rest) = address.strip_prefix("http://") else {
            bail!("{address:?} is no address that this command can ask: write http://HOST:PORT");
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(format!("Basic {}", STANDARD.encode(user))), authority),
            None => (None, authority),
        };
        let authorization = user.or_else(|| token.map(|token| format!("Bearer {token}")));
        let authority = if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
        let base_path = match path.trim_matches('/') {
            "" => String::new(),
            path => format!("/{path}"),
        };
        Ok(Self { authority, base_path, authorization })
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// # Errors
    /// [`Refused`] when Vigie answers that it will not; anything else when there is no answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let asked = self.exchange(method, path, body);
        let answered = tokio::time::timeout(TIMEOUT, asked).await;
        let nobody = || format!("no answer from http://{}", self.authority);
        let (status, bytes) = answered.map_err(anyhow::Error::from).flatten().with_context(nobody)?;
        let parsed = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        match parsed["message"].as_str() {
            // Whatever else listens there may answer 200 to anything: then nothing has been done.
            _ if status == 200 && (parsed.is_object() || parsed.is_array()) => Ok(parsed),
            Some(message) => Err(Refused { message: message.to_owned() }.into()),
            None => Err(self.stranger(&format!("answers {status}")).into()),
        }
    }

    /// What answers is no Vigie.
    pub(crate) fn stranger(&self, does: &str) -> Refused {
        let message =
            format!("http://{} {does}, but not as the API of Vigie: is the address right?", self.authority);
        Refused { message }
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Bytes)> {
        let stream = TcpStream::connect(&self.authority).await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_path))
            .header("Host", &self.authority)
            .header("Connection", "close");
        let request = self
            .authorization
            .iter()
            .fold(request, |request, shown| request.header("Authorization", shown))
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?;
        ask_once(stream, request, MAX_ANSWER).await
    }
}

fn has_port(authority: &str) -> bool {
    authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn address_in(config: &StaticConfig) -> anyhow::Result<String> {
    let file = &config.file;
    let api = config.api.as_ref().filter(|api| api.insecure || api.token.is_some());
    let api = api.with_context(|| {
        format!("{file} serves no API on the entry point `traefik`: set `api.token`, or give --address=URL")
    })?;
    let entry = config.entry_points.iter().find(|entry| entry.name == "traefik");
    let mut address = entry.context("there is no entry point `traefik`")?.address;
    if address.port() == 0 {
        bail!("the entry point `traefik` of {file} takes any free port: give --address=URL");
    }
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(format!("http://{address}{}", api.base_path.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn client(static_text: &str, address: Option<&str>) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("vigie.yml");
        std::fs::write(&file, static_text).unwrap();
        let target = Target { address: address.map(str::to_owned), token_file: None };
        let client =
            ApiClient::new(&target, &Options { config_file: Some(file.clone()), ..Options::default() });
        let shown = client.map(|client| {
            let authorization = client.authorization.unwrap_or_default().replace("Bearer ", "");
            format!("{}{} {authorization}", client.authority, client.base_path)
        });
        shown.map_err(|error| format!("{error:#}").replace(&file.display().to_string(), "vigie.yml"))
    }

    #[test]
    fn address_and_token_come_from_the_static_configuration() {
        let api = format!("api: {{token: '{TOKEN}', basePath: /ops/}}");
        let on = |address: &str| format!("entryPoints: {{traefik: {{address: '{address}'}}}}\n{api}");
        assert_eq!(client(&api, None), Ok(format!("127.0.0.1:8080/ops {TOKEN}")));
        assert_eq!(client(&on("192.0.2.1:81"), None), Ok(format!("192.0.2.1:81/ops {TOKEN}")));
        assert_eq!(client(&on("[::1]:81"), None), Ok(format!("[::1]:81/ops {TOKEN}")));
        assert_eq!(client(&on(":81"), Some("http://lb.test/")), Ok(format!("lb.test:80 {TOKEN}")));
        assert_eq!(client(&on(":81"), Some("http://[::1]")), Ok(format!("[::1]:80 {TOKEN}")));
        assert_eq!(client(&on(":81"), Some("http://a:b@lb.test:81")), Ok("lb.test:81 Basic YTpi".to_owned()));
        for (text, address, expected) in [
            ("api: {}", None, "vigie.yml serves no API on the entry point `traefik`"),
            ("api: {insecure: true}", None, "there is no token"),
            (&*on("127.0.0.1:0"), None, "the entry point `traefik` of vigie.yml takes any free port"),
            (&*on(":81"), Some("https://lb.test"), "\"https://lb.test\" is no address"),
            ("api: {tokn: x}", None, "name the API with --address=URL and its token"),
        ] {
            let told = client(text, address).unwrap_err();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }
}
