//! `rfc2136`: a name server that takes updates, such as BIND, Knot or PowerDNS.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::lookup::{self, DnsError};
use super::message::{self, NO_ERROR};
use super::tsig::{Key, TsigError};
use super::variables::{Lacking, Variables};
use super::{Action, INTERVAL, ProviderError, Record, TIMEOUT, TTL_SECONDS, Timing};

const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 53;
/// Lego's; RFC 8945 section 6 would have hmac-sha256.
const ALGORITHM: &str = "hmac-sha1";

/// Newer versions of lego call it `dnsupdate`; either prefix is read with either name.
macro_rules! names {
    ($name:literal) => {
        [concat!("RFC2136_", $name), concat!("DNSUPDATE_", $name)]
    };
}

pub(super) struct Rfc2136 {
    server: (String, u16),
    key: Option<Key>,
    ttl_seconds: u32,
    patience: Duration,
}

impl Rfc2136 {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let server = variables.require(&names!("NAMESERVER"))?;
        let bad = || Lacking::bad("RFC2136_NAMESERVER", "is no `host` or `host:port`");
        let server = host_port(server.reveal()).ok_or_else(bad)?;
        let name = variables.text(&names!("TSIG_KEY"))?;
        let secret = variables.find(&names!("TSIG_SECRET"))?;
        let algorithm = variables.text(&names!("TSIG_ALGORITHM"))?;
        if variables.find(&names!("TSIG_FILE"))?.is_some() {
            let instead = "is not read: set RFC2136_TSIG_KEY, RFC2136_TSIG_SECRET and RFC2136_TSIG_ALGORITHM";
            return Err(Lacking::bad("RFC2136_TSIG_FILE", instead).into());
        }
        let key = match (name, secret) {
            (Some(name), Some(secret)) => {
                Some(Key::new(&name, algorithm.as_deref().unwrap_or(ALGORITHM), &secret)?)
            }
            (None, None) => None,
            (Some(_), None) => return Err(Lacking::Missing(names!("TSIG_SECRET").join(" or ")).into()),
            (None, Some(_)) => return Err(Lacking::Missing(names!("TSIG_KEY").join(" or ")).into()),
        };
        let timing = Timing::of(variables, &["RFC2136", "DNSUPDATE"], TIMEOUT, INTERVAL)?;
        let ttl_seconds = variables.number(&names!("TTL"), TTL_SECONDS)?;
        let patience = variables.seconds(&names!("DNS_TIMEOUT"), PATIENCE)?.max(Duration::from_secs(1));
        Ok((Self { server, key, ttl_seconds, patience }, timing))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        let server = self.address().await?;
        let zone = lookup::zone_at(server, &record.fqdn, self.patience).await?;
        let ttl = (action == Action::Present).then_some(self.ttl_seconds);
        let update = message::update(lookup::id(), &zone, &record.fqdn, &record.value, ttl);
        let no_name = || DnsError::Name(record.fqdn.clone());
        let update = update.ok_or_else(no_name)?;
        let Some(key) = &self.key else {
            let heard = lookup::exchange(server, &update, self.patience).await?;
            return accepted(server, heard.answer.code);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signed = key.sign(update, now).ok_or_else(no_name)?;
        let heard = lookup::exchange(server, &signed.message, self.patience).await?;
        match key.verify(&signed, &heard.bytes, &heard.answer) {
            // A refusal without a signature may be believed: at worst the order is tried again.
            Err(TsigError::Unsigned) if heard.answer.code != NO_ERROR => {}
            verified => verified?,
        }
        accepted(server, heard.answer.code)
    }

    async fn address(&self) -> Result<SocketAddr, DnsError> {
        let (host, port) = &self.server;
        let failed = |reason: String| DnsError::Io(host.clone(), reason);
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        let address = found.map_err(|error| failed(error.to_string()))?.next();
        address.ok_or_else(|| failed("it has no address".to_owned()))
    }
}

fn accepted(server: SocketAddr, code: u8) -> Result<(), ProviderError> {
    if code == NO_ERROR {
        return Ok(());
    }
    Err(DnsError::Code(server.to_string(), message::code(code)).into())
}

/// `host`, `host:port`, `::1` or `[::1]:port`.
fn host_port(text: &str) -> Option<(String, u16)> {
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let found = match text.rsplit_once(':') {
        _ if text.parse::<std::net::Ipv6Addr>().is_ok() => (text.to_owned(), PORT),
        Some((host, port)) if !port.ends_with(']') => (bare(host), port.parse().ok()?),
        _ => (bare(text), PORT),
    };
    Some(found).filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::testing::variables;

    #[test]
    fn a_name_server_is_a_host_with_or_without_a_port() {
        for (text, expected) in [
            ("ns.test", Some(("ns.test", 53))),
            ("192.0.2.1:5353", Some(("192.0.2.1", 5353))),
            ("::1", Some(("::1", 53))),
            ("[::1]", Some(("::1", 53))),
            ("[::1]:54", Some(("::1", 54))),
            ("a:b", None),
            (":53", None),
        ] {
            assert_eq!(host_port(text), expected.map(|(host, port)| (host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn half_a_key_is_none() {
        let open = |set: &[(&str, &str)]| {
            let all = [&[("RFC2136_NAMESERVER", "ns.test")], set].concat();
            variables(&all, Rfc2136::open).map(|(provider, _)| provider.key.is_some())
        };
        assert!(!open(&[]).unwrap());
        assert!(open(&[("RFC2136_TSIG_KEY", "k."), ("RFC2136_TSIG_SECRET", "YQ==")]).unwrap());
        for (set, expected) in [
            (
                &[("RFC2136_TSIG_KEY", "k")][..],
                "the environment lacks RFC2136_TSIG_SECRET or DNSUPDATE_TSIG_SECRET",
            ),
            (
                &[("DNSUPDATE_TSIG_SECRET", "YQ==")],
                "the environment lacks RFC2136_TSIG_KEY or DNSUPDATE_TSIG_KEY",
            ),
            (&[("RFC2136_TSIG_FILE", "/x")], "RFC2136_TSIG_FILE is not read"),
            (&[("RFC2136_TTL", "1h")], "RFC2136_TTL is no whole number"),
            (
                &[("RFC2136_TSIG_KEY", "k"), ("RFC2136_TSIG_SECRET", "secret!")],
                "the key's secret is not base64",
            ),
        ] {
            let told = open(set).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{told}");
        }
    }
}
