//! `dnsChallenge` of a resolver.

use std::time::Duration;

use crate::acme::{DnsChallenge, DnsProvider};
use crate::decode::{Block, Field, Text};
use crate::net::host_port;

pub(super) fn read(block: Block<'_>) -> Option<DnsChallenge> {
    let provider = block.require("provider", "name who sets the record, such as `rfc2136`");
    let provider = provider.and_then(|field| provider_called(&field.text()?));
    let resolvers = block.take("resolvers").map(|field| field.texts()).unwrap_or_default();
    let resolvers = resolvers.iter().filter_map(name_server).collect();
    let delay = |block: &Block<'_>, key| block.take(key).and_then(|field: Field<'_>| field.duration());
    let flag = |block: &Block<'_>, key| {
        block.take(key).and_then(|field: Field<'_>| field.boolean()).unwrap_or(false)
    };
    // The older names of Traefik; what is under `propagation` counts.
    let mut before = delay(&block, "delayBeforeCheck");
    let mut disabled = flag(&block, "disablePropagationCheck");
    let (mut without_authoritative, mut recursive) = (false, false);
    if let Some(propagation) = block.take("propagation").and_then(|field| field.block()) {
        before = delay(&propagation, "delayBeforeChecks").or(before);
        disabled |= flag(&propagation, "disableChecks");
        without_authoritative = flag(&propagation, "disableANSChecks");
        recursive = flag(&propagation, "requireAllRNS");
        propagation.finish();
    }
    block.finish();
    Some(DnsChallenge {
        provider: provider?,
        resolvers,
        delay: before.unwrap_or(Duration::ZERO),
        check_authoritative: !disabled && !without_authoritative,
        check_recursive: !disabled && recursive,
    })
}

fn provider_called(text: &Text<'_>) -> Option<DnsProvider> {
    // Lego knows these by two names.
    let name = match text.value {
        "acmedns" => "acme-dns",
        "dnsupdate" => "rfc2136",
        "linodev4" => "linode",
        name => name,
    };
    let found = DnsProvider::ALL.iter().find(|(known, _)| *known == name);
    if found.is_none() {
        let known: Vec<_> = DnsProvider::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
        let hint = format!(
            "there are {}; for any other DNS `exec` runs a program and `httpreq` asks an HTTP server to set the record",
            known.join(", ")
        );
        text.error(format!("there is no DNS provider {}", text.quoted()), Some(hint));
    }
    found.map(|(_, provider)| *provider)
}

/// `host` or `host:port`.
fn name_server(text: &Text<'_>) -> Option<(String, u16)> {
    const PORT: u16 = 53;
    if let Ok(address) = text.value.parse::<std::net::IpAddr>() {
        return Some((address.to_string(), PORT));
    }
    let has_port = text.value.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let with_port = if has_port { text.value.to_owned() } else { format!("{}:{PORT}", text.value) };
    match host_port(&with_port) {
        Ok(server) => Some(server),
        Err((message, _)) => {
            let hint = "write `1.1.1.1:53`, `[2606:4700:4700::1111]:53` or `dns.example.com`".to_owned();
            text.error(message, Some(hint));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::Challenge;
    use crate::{Problem, Problems, parse_static};

    fn read(dns: &str) -> Result<DnsChallenge, String> {
        let text = format!("certificatesResolvers: {{le: {{acme: {{dnsChallenge: {dns}}}}}}}");
        let told = |problems: &[Problem]| {
            let lines = problems.iter().map(|p| format!("{}: {} ({:?})", p.key, p.message, p.hint));
            lines.collect::<Vec<_>>().join("\n")
        };
        match parse_static("vigie.yml", &text) {
            Ok((config, problems)) if problems.is_empty() => {
                match config.certificates_resolvers["le"].challenge.clone() {
                    Challenge::Dns(dns) => Ok(dns),
                    other => Err(format!("{other:?}")),
                }
            }
            Ok((_, problems)) | Err(Problems(problems)) => Err(told(&problems)),
        }
    }

    #[test]
    fn keys_are_traefiks() {
        let plain = DnsChallenge {
            provider: DnsProvider::Rfc2136,
            resolvers: Vec::new(),
            delay: Duration::ZERO,
            check_authoritative: true,
            check_recursive: false,
        };
        let resolvers = [("1.1.1.1", 53), ("9.9.9.9", 5353), ("::1", 53), ("::1", 54), ("dns.test", 53)];
        let resolvers = resolvers.map(|(host, port)| (host.to_owned(), port)).to_vec();
        let seconds = Duration::from_secs;
        for (written, expected) in [
            ("{provider: rfc2136}", plain.clone()),
            ("{provider: dnsupdate}", plain.clone()),
            ("{provider: acmedns}", DnsChallenge { provider: DnsProvider::AcmeDns, ..plain.clone() }),
            ("{provider: linodev4}", DnsChallenge { provider: DnsProvider::Linode, ..plain.clone() }),
            (
                "{provider: rfc2136, resolvers: [1.1.1.1, '9.9.9.9:5353', '::1', '[::1]:54', dns.test]}",
                DnsChallenge { resolvers, ..plain.clone() },
            ),
            (
                "{provider: rfc2136, delayBeforeCheck: 3, disablePropagationCheck: true}",
                DnsChallenge { delay: seconds(3), check_authoritative: false, ..plain.clone() },
            ),
            (
                "{provider: rfc2136, delayBeforeCheck: 3, propagation: {delayBeforeChecks: 4s, requireAllRNS: true}}",
                DnsChallenge { delay: seconds(4), check_recursive: true, ..plain.clone() },
            ),
            (
                "{provider: rfc2136, propagation: {disableANSChecks: true}}",
                DnsChallenge { check_authoritative: false, ..plain.clone() },
            ),
            (
                "{provider: rfc2136, propagation: {disableChecks: true, requireAllRNS: true}}",
                DnsChallenge { check_authoritative: false, ..plain.clone() },
            ),
        ] {
            assert_eq!(read(written), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_cannot_work_is_told_with_a_way_out() {
        for (written, expected) in [
            ("{resolvers: [1.1.1.1]}", "`provider` is missing"),
            (
                "{provider: namecheap}",
                "there is no DNS provider `namecheap` (Some(\"there are `acme-dns`, `azuredns`",
            ),
            ("{provider: namecheap}", "`exec` runs a program and `httpreq` asks an HTTP server"),
            ("{provider: exec, resolvers: ['a b']}", "is not the address of a server"),
            ("{provider: exec, resolvers: ['1.1.1.1:dns']}", "`dns` is not a port"),
            ("{provider: exec, propagation: {delay: 1}}", "there is no key `delay` here"),
        ] {
            let told = read(written).unwrap_err();
            assert!(told.contains(expected), "{written}: {told}");
        }
        for (name, provider) in DnsProvider::ALL {
            assert_eq!(read(&format!("{{provider: {name}}}")).unwrap().provider, *provider);
        }
    }
}
