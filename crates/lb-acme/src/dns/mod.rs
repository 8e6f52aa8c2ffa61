//! Validation by records in the DNS (DNS-01, RFC 8555 section 8.4): who sets them, and when they can be seen.

mod acme_dns;
mod aliases;
mod api;
mod aws;
mod aws_keys;
mod azure_dns;
mod cloudflare;
mod desec;
mod digitalocean;
mod duckdns;
mod exec;
mod gandiv5;
mod gcloud;
mod godaddy;
mod hetzner;
mod http_request;
mod ionos;
mod linode;
mod lookup;
mod message;
mod ovh;
mod porkbun;
mod propagation;
mod rfc2136;
mod route53;
mod scaleway;
#[cfg(test)]
mod testing;
mod tsig;
mod variables;
mod vultr;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_config::acme::{DnsChallenge, DnsProvider};

pub use aliases::{AliasError, Aliases};

use crate::http::HttpError;
use api::Zoned as _;
use lookup::DnsError;
use propagation::Propagation;
use tsig::TsigError;
use variables::{Lacking, Variables};

/// Lego's defaults, where a provider has none of its own.
const TIMEOUT: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(2);
const TTL_SECONDS: u32 = 120;

/// One record that shows that a name is ours.
#[derive(Clone)]
pub(crate) struct Record {
    /// The name that is validated; without the `*.` of a wildcard.
    pub(super) domain: String,
    pub(super) token: String,
    pub(super) authorization: String,
    /// Where the record goes, aliases followed, with a final dot.
    fqdn: String,
    value: String,
}

/// How long is waited for records, and how often is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timing {
    timeout: Duration,
    interval: Duration,
    /// For a provider that keeps one record at a time: the pause between two.
    sequence: Option<Duration>,
}

impl Timing {
    /// As the variables that begin so have it.
    fn of(
        variables: &Variables<'_>,
        prefixes: &[&str],
        timeout: Duration,
        interval: Duration,
    ) -> Result<Self, Lacking> {
        let seconds = |end: &str, default| {
            let names: Vec<_> = prefixes.iter().map(|prefix| format!("{prefix}_{end}")).collect();
            variables.seconds(&names, default)
        };
        let timeout = seconds("PROPAGATION_TIMEOUT", timeout)?;
        Ok(Self { timeout, interval: seconds("POLLING_INTERVAL", interval)?, sequence: None })
    }
}

/// Why a record is not set, or a provider cannot be used.
#[derive(Debug, thiserror::Error)]
enum ProviderError {
    #[error("{0}")]
    Lacking(#[from] Lacking),
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("{0}")]
    Dns(#[from] DnsError),
    #[error("{0}")]
    Tsig(#[from] TsigError),
    #[error("{0:?} cannot be run: {1}")]
    Run(PathBuf, std::io::Error),
    /// `told` is punctuated to follow the status.
    #[error("the API answers {status}{told}")]
    Api { status: u16, told: String },
    #[error("{0}")]
    Refused(String),
}

/// What a provider is asked to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Present,
    CleanUp,
}

impl Action {
    /// As programs and servers are told.
    fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::CleanUp => "cleanup",
        }
    }
}

/// For a request to a provider's API: lego's.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// A URL that paths are added to, without a final slash. It is not repeated: it may hold a secret.
fn base_url(variable: &'static str, text: &str) -> Result<String, Lacking> {
    let url = text.parse::<http::Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let bad = || Lacking::bad(variable, "is no URL that begins with http:// or https://");
    let authority = url.as_ref().and_then(|url| url.authority()).ok_or_else(bad)?;
    if authority.as_str().contains('@') {
        let elsewhere = "has a user name, for which there are other variables";
        return Err(Lacking::bad(variable, elsewhere));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Sets records and takes them away.
struct Provider {
    name: &'static str,
    kind: Kind,
    timing: Timing,
}

/// Each provider has a module with a type of its name, `open` and `act`.
macro_rules! providers {
    ($($name:ident: $module:ident,)*) => {
        enum Kind {
            $($name(Box<$module::$name>),)*
        }

        impl Provider {
            fn open(provider: DnsProvider, variables: &Variables<'_>) -> Result<Self, ProviderError> {
                let (kind, timing) = match provider {
                    $(DnsProvider::$name => {
                        let (provider, timing) = $module::$name::open(variables)?;
                        (Kind::$name(Box::new(provider)), timing)
                    })*
                };
                Ok(Self { name: provider.name(), kind, timing })
            }

            async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
                match &self.kind {
                    $(Kind::$name(provider) => provider.act(action, record).await,)*
                }
            }
        }
    };
}

providers! {
    AcmeDns: acme_dns,
    AzureDns: azure_dns,
    Cloudflare: cloudflare,
    DeSec: desec,
    DigitalOcean: digitalocean,
    DuckDns: duckdns,
    Exec: exec,
    GandiV5: gandiv5,
    GCloud: gcloud,
    GoDaddy: godaddy,
    Hetzner: hetzner,
    HttpReq: http_request,
    Ionos: ionos,
    Linode: linode,
    Ovh: ovh,
    Porkbun: porkbun,
    Rfc2136: rfc2136,
    Route53: route53,
    Scaleway: scaleway,
    Vultr: vultr,
}

/// What keeps a provider from working, as far as that can be said without asking anybody.
///
/// # Errors
/// In words for the operator.
pub fn check(provider: DnsProvider) -> Result<(), String> {
    open(provider).map(drop)
}

fn open(provider: DnsProvider) -> Result<Provider, String> {
    let environment = |name: &str| std::env::var(name).ok();
    Provider::open(provider, &Variables(&environment))
        .map_err(|error| format!("{}: {error}", provider.name()))
}

/// A resolver's DNS challenge for one order. Variables, and the files that they name, are read anew for each.
pub(crate) struct Dns {
    provider: Arc<Provider>,
    propagation: Propagation,
}

impl Dns {
    pub(crate) fn open(challenge: &DnsChallenge) -> Result<Self, String> {
        let provider = Arc::new(open(challenge.provider)?);
        Ok(Self { provider, propagation: Propagation::new(challenge) })
    }

    /// Where the provider keeps one record at a time: the pause between two names.
    pub(crate) fn sequence(&self) -> Option<Duration> {
        self.provider.timing.sequence
    }

    pub(crate) async fn record(&self, domain: &str, token: &str, authorization: String) -> Record {
        let fqdn = self.propagation.recursive.follow(&format!("_acme-challenge.{domain}.")).await;
        let value = URL_SAFE_NO_PAD.encode(digest(&SHA256, authorization.as_bytes()));
        Record { domain: domain.to_owned(), token: token.to_owned(), authorization, fqdn, value }
    }

    /// Sets the records; they are there as long as somebody holds what is returned.
    pub(crate) async fn present(&self, records: Vec<Record>) -> Result<Presented, String> {
        let provider = Arc::clone(&self.provider);
        let mut presented = Presented { provider, records: Vec::with_capacity(records.len()) };
        for record in records {
            let (provider, domain) = (self.provider.name, record.domain.clone());
            // It may be there even if the answer gets lost.
            presented.records.push(record);
            let Some(record) = presented.records.last() else { continue };
            if let Err(error) = self.provider.act(Action::Present, record).await {
                let reason = format!("{provider} does not set the record for {domain}: {error}");
                presented.clean_up().await;
                return Err(reason);
            }
            tracing::info!(
                provider,
                domain,
                record = record.fqdn.trim_end_matches('.'),
                "A DNS record is set"
            );
        }
        Ok(presented)
    }

    /// Returns when the records can be seen.
    pub(crate) async fn wait(&self, presented: &Presented) -> Result<(), String> {
        self.propagation.wait(&presented.records, &self.provider.timing).await
    }
}

/// Records that are set. They are taken away by [`clean_up`](Self::clean_up), and in the background if this is dropped
/// before: an order may be given up anywhere.
pub(crate) struct Presented {
    provider: Arc<Provider>,
    records: Vec<Record>,
}

impl Presented {
    /// A record that cannot be taken away harms nobody: it is told in the log.
    pub(crate) async fn clean_up(mut self) {
        while let Some(record) = self.records.last() {
            take_away(&self.provider, record).await;
            self.records.pop();
        }
    }
}

async fn take_away(provider: &Provider, record: &Record) {
    if let Err(error) = provider.act(Action::CleanUp, record).await {
        tracing::warn!(provider = provider.name, domain = record.domain, %error, "A DNS record is left behind");
    }
}

impl Drop for Presented {
    fn drop(&mut self) {
        let (provider, records) = (Arc::clone(&self.provider), std::mem::take(&mut self.records));
        if !records.is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                for record in records {
                    take_away(&provider, &record).await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    /// Enough for each provider but `acme-dns`, which has no times, and `gcloud`, which needs a key.
    fn environment(name: &str) -> Option<String> {
        let credentials = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_TENANT_ID",
            "CF_DNS_API_TOKEN",
            "DESEC_TOKEN",
            "DO_AUTH_TOKEN",
            "DUCKDNS_TOKEN",
            "EXEC_PATH",
            "GANDIV5_PERSONAL_ACCESS_TOKEN",
            "GODADDY_API_KEY",
            "GODADDY_API_SECRET",
            "HETZNER_API_TOKEN",
            "IONOS_API_KEY",
            "LINODE_TOKEN",
            "OVH_ACCESS_TOKEN",
            "PORKBUN_API_KEY",
            "PORKBUN_SECRET_API_KEY",
            "RFC2136_NAMESERVER",
            "SCW_SECRET_KEY",
            "VULTR_API_KEY",
        ];
        match name {
            "HTTPREQ_ENDPOINT" => Some("https://hook.test".to_owned()),
            _ => credentials.contains(&name).then(|| "x".to_owned()),
        }
    }

    #[tokio::test]
    async fn records_are_taken_away_also_when_nobody_waits_for_that() {
        let server = testing::Server::start(|_| (200, String::new())).await;
        let endpoint = server.url();
        let open = |variables: &Variables<'_>| Provider::open(DnsProvider::HttpReq, variables);
        let provider = testing::variables(&[("HTTPREQ_ENDPOINT", &endpoint)], open).unwrap();
        let records = ["one", "two"].map(|value| testing::record("a.test", value)).to_vec();
        let mut cleaning = Box::pin(Presented { provider: Arc::new(provider), records }.clean_up());
        // Begun, and given up.
        std::future::poll_fn(|context| {
            assert!(cleaning.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(cleaning);
        let both = async {
            while !["one", "two"].iter().all(|value| server.told().iter().any(|told| told.contains(value))) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(9), both).await.unwrap();
    }

    #[test]
    fn times_are_those_of_the_documentation() {
        let text = include_str!("../../../../docs/acme-dns.md");
        let (_, table) = text.split_once("| provider | begins with |").unwrap();
        for (name, provider) in DnsProvider::ALL {
            if matches!(provider, DnsProvider::AcmeDns | DnsProvider::GCloud) {
                continue;
            }
            let start = format!("| `{name}` |");
            let row = table.lines().find(|line| line.starts_with(&start)).expect(name);
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let seconds = |index: usize| Duration::from_secs(cells[index].parse().unwrap());
            let timing = Provider::open(*provider, &Variables(&environment)).map(|provider| provider.timing);
            let Timing { timeout, interval, .. } = timing.unwrap();
            assert_eq!((timeout, interval), (seconds(4), seconds(5)), "{name}");
        }
    }
}
