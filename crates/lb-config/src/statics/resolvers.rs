//! `certificatesResolvers`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

use super::{dns_challenge, require_entry_point, text};
use crate::acme::{Challenge, Eab, KeyType, Resolver};
use crate::decode::{Block, Enabled, Field};
use crate::pem;
use crate::problem::quoted;

/// Let's Encrypt, and Traefik's other defaults (reference 1.10).
const CA_SERVER: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STORAGE: &str = "acme.json";
const CERTIFICATES_DURATION_HOURS: i64 = 2160;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(120);
const CLIENT_RESPONSE_HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(30);

const KEY_TYPES: [(&str, KeyType); 6] = [
    ("EC256", KeyType::Ec256),
    ("EC384", KeyType::Ec384),
    ("RSA2048", KeyType::Rsa2048),
    ("RSA3072", KeyType::Rsa3072),
    ("RSA4096", KeyType::Rsa4096),
    ("RSA8192", KeyType::Rsa8192),
];

/// The resolvers, and the names of all that are written, also of those that are refused.
pub(super) fn read<'a>(
    root: &Block<'a>,
    entry_points: &[&str],
) -> (BTreeMap<String, Resolver>, Vec<&'a str>) {
    let (mut resolvers, mut names) = (BTreeMap::new(), Vec::new());
    let Some(field) = root.take("certificatesResolvers") else { return (resolvers, names) };
    for (entry, field) in field.objects() {
        let name: &str = &entry.key;
        names.push(name);
        if name.is_empty() || name.contains('@') {
            field.error_at_key(format!("{} cannot be the name of a resolver", quoted(name)), None);
            continue;
        }
        let Some(block) = field.object() else { continue };
        let acme = if block.take_unlisted("tailscale").is_some() {
            block.unsupported(&["tailscale"]);
            block.take("acme")
        } else {
            block.require("acme", "write how certificates are ordered: `acme: {tlsChallenge: {}}`")
        };
        let resolver = acme.and_then(|field| field.object()).and_then(|acme| resolver(acme, entry_points));
        block.finish();
        resolvers.extend(resolver.map(|resolver| (name.to_owned(), resolver)));
    }
    (resolvers, names)
}

fn resolver(block: Block<'_>, entry_points: &[&str]) -> Option<Resolver> {
    let timeout = |key, default| {
        block.take(key).and_then(|field: Field<'_>| field.positive_duration()).unwrap_or(default)
    };
    let client_timeout = timeout("clientTimeout", CLIENT_TIMEOUT);
    let client_response_header_timeout =
        timeout("clientResponseHeaderTimeout", CLIENT_RESPONSE_HEADER_TIMEOUT);
    if client_timeout < client_response_header_timeout {
        block.error(
            "`clientTimeout` is shorter than `clientResponseHeaderTimeout`, which is a part of it".to_owned(),
            Some("make `clientTimeout` the longer one".to_owned()),
        );
    }
    let hours = block.take("certificatesDuration").and_then(|field| field.integer(1..=i64::from(u32::MAX)));
    let hours = hours.unwrap_or(CERTIFICATES_DURATION_HOURS).unsigned_abs();
    let flag = |key| block.take(key).and_then(|field: Field<'_>| field.boolean()).unwrap_or(false);
    let resolver = Resolver {
        email: text(&block, "email").unwrap_or_default(),
        ca_server: block
            .take_word("caServer")
            .and_then(|field| ca_server(&field))
            .unwrap_or_else(|| CA_SERVER.to_owned()),
        ca_certificates: block
            .take("caCertificates")
            .map(|field| pem::certificate_list(&field))
            .unwrap_or_default(),
        ca_system_cert_pool: flag("caSystemCertPool"),
        ca_server_name: text(&block, "caServerName"),
        preferred_chain: text(&block, "preferredChain"),
        profile: text(&block, "profile"),
        email_addresses: block
            .take("emailAddresses")
            .map(|field| field.texts().iter().map(|text| text.value.to_owned()).collect())
            .unwrap_or_default(),
        disable_common_name: flag("disableCommonName"),
        storage: storage(&block),
        key_type: block
            .take_word("keyType")
            .and_then(|field| field.choice(&KEY_TYPES))
            .unwrap_or(KeyType::Rsa4096),
        eab: block.take("eab").and_then(|field| field.object()).and_then(eab),
        certificates_duration: Duration::from_secs(hours * 3600),
        client_timeout,
        client_response_header_timeout,
        certificate_timeout: timeout("certificateTimeout", CERTIFICATE_TIMEOUT),
        challenge: challenge(&block, entry_points)?,
    };
    block.finish();
    Some(resolver)
}

/// The one challenge of a resolver. Traefik prefers DNS, then HTTP, then TLS where several are named.
fn challenge(block: &Block<'_>, entry_points: &[&str]) -> Option<Challenge> {
    let dns = block.take("dnsChallenge");
    let (http, tls) = (block.take("httpChallenge"), block.take("tlsChallenge"));
    if let Some(dns) = dns.as_ref().and_then(|field| field.block()) {
        for other in http.iter().chain(&tls) {
            let message = "is not used: there is a `dnsChallenge`".to_owned();
            other.warn_at_key(message, Some("keep one".to_owned()));
        }
        return dns_challenge::read(dns).map(Challenge::Dns);
    }
    if let Some(http) = http.as_ref().and_then(|field| field.block()) {
        if let Some(tls) = tls {
            tls.warn_at_key(
                "is not used: there is an `httpChallenge`".to_owned(),
                Some("keep one".to_owned()),
            );
        }
        let field = http.require("entryPoint", "name the entry point that the authority reaches at port 80");
        let delay = delay(&http);
        http.finish();
        let field = field?;
        let entry_point = field.string()?;
        require_entry_point(&field, &entry_point, entry_points);
        return Some(Challenge::Http { entry_point, delay });
    }
    match tls.map(|field| field.enabled()) {
        Some(Enabled::Plain) => Some(Challenge::Tls { delay: Duration::ZERO }),
        Some(Enabled::With(tls)) => {
            let delay = delay(&tls);
            tls.finish();
            Some(Challenge::Tls { delay })
        }
        // What is wrong with that is told.
        None if dns.is_some() || http.is_some() => None,
        Some(Enabled::Off) | None => {
            block.error(
                "there is no challenge".to_owned(),
                Some(
                    "write `tlsChallenge: {}`, `httpChallenge: {entryPoint: web}` or `dnsChallenge: {provider: rfc2136}`"
                        .to_owned(),
                ),
            );
            None
        }
    }
}

fn delay(block: &Block<'_>) -> Duration {
    block.take("delay").and_then(|field| field.duration()).unwrap_or_default()
}

fn ca_server(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    // RFC 8555 section 6.1.
    let Some(rest) = text.value.strip_prefix("https://") else {
        let hint = format!("write the URL of its directory, such as `{CA_SERVER}`");
        text.error(format!("{} is no `https` URL", text.quoted()), Some(hint));
        return None;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control()) || host.contains('@') {
        text.error(format!("{} is no URL", text.quoted()), None);
        return None;
    }
    // The first protocol of Let's Encrypt is no more; as in Traefik, files that still name it mean the second one.
    Some(text.value.replacen(
        "https://acme-v01.api.letsencrypt.org",
        "https://acme-v02.api.letsencrypt.org",
        1,
    ))
}

fn storage(block: &Block<'_>) -> PathBuf {
    let Some(field) = block.take("storage") else { return PathBuf::from(STORAGE) };
    let path = field.string().unwrap_or_default();
    if path.is_empty() {
        field.error("names no file".to_owned(), Some("write `storage: acme.json`".to_owned()));
    }
    PathBuf::from(path)
}

/// The key itself is never repeated in a message.
fn eab(block: Block<'_>) -> Option<Eab> {
    let kid = block.require("kid", "write the key's id").and_then(|field| field.string());
    let hmac = block.require("hmacEncoded", "write the key as the authority shows it").and_then(|field| {
        let text = field.text()?;
        let decoded = URL_SAFE.decode(text.value).or_else(|_| URL_SAFE_NO_PAD.decode(text.value)).ok();
        if decoded.is_none() {
            text.error("the key is not base64 as URLs have it", None);
        }
        decoded
    });
    block.finish();
    Some(Eab { kid: kid?, hmac: hmac? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problem, Problems, parse_static};

    const WEB: &str = "entryPoints: {web: {address: ':80'}}\n";

    fn read(acme: &str) -> Resolver {
        let text = format!("{WEB}certificatesResolvers: {{le: {{acme: {acme}}}}}");
        let (config, problems) = parse_static("vigie.yml", &text).unwrap_or_else(|p| panic!("{p}"));
        assert!(problems.is_empty(), "{problems:?}");
        config.certificates_resolvers["le"].clone()
    }

    fn told(resolvers: &str) -> Vec<String> {
        let problems = match parse_static("vigie.yml", &format!("{WEB}certificatesResolvers: {resolvers}")) {
            Ok((_, problems)) | Err(Problems(problems)) => problems,
        };
        problems.iter().map(|p: &Problem| format!("{}: {}", p.key, p.message)).collect()
    }

    #[test]
    fn what_is_not_said_is_as_in_traefik() {
        let resolver = read("{tlsChallenge: {}}");
        assert_eq!(resolver.ca_server, CA_SERVER);
        assert_eq!(resolver.storage, PathBuf::from("acme.json"));
        assert_eq!(resolver.key_type, KeyType::Rsa4096);
        assert_eq!(resolver.certificates_duration, Duration::from_secs(90 * 24 * 3600));
        assert_eq!(resolver.client_timeout, Duration::from_secs(120));
        assert_eq!(resolver.challenge, Challenge::Tls { delay: Duration::ZERO });
        assert!(resolver.email.is_empty() && resolver.eab.is_none() && !resolver.ca_system_cert_pool);
    }

    #[test]
    fn every_option_is_read() {
        let resolver = read(
            "{email: a@b.c, caServer: 'https://acme-v01.api.letsencrypt.org/directory', storage: /x/acme.json, \
             keyType: EC384, certificatesDuration: 24, clientTimeout: 10s, clientResponseHeaderTimeout: 5s, \
             certificateTimeout: 1m, preferredChain: Root, profile: tlsserver, emailAddresses: [m@b.c], \
             disableCommonName: true, caServerName: ca.test, caSystemCertPool: true, \
             eab: {kid: k, hmacEncoded: 'AQID'}, httpChallenge: {entryPoint: web, delay: 2s}}",
        );
        assert_eq!(resolver.ca_server, CA_SERVER, "its old URL leads to the new one");
        assert_eq!((resolver.email.as_str(), resolver.key_type), ("a@b.c", KeyType::Ec384));
        assert_eq!(resolver.certificates_duration, Duration::from_secs(24 * 3600));
        assert_eq!(resolver.client_response_header_timeout, Duration::from_secs(5));
        assert_eq!(resolver.eab, Some(Eab { kid: "k".to_owned(), hmac: vec![1, 2, 3] }));
        assert!(!format!("{:?}", resolver.eab).contains("hmac: "), "secrets are not printed");
        assert_eq!(
            resolver.challenge,
            Challenge::Http { entry_point: "web".to_owned(), delay: Duration::from_secs(2) }
        );
    }

    #[test]
    fn a_resolver_that_is_refused_is_told_once() {
        let refused = "{le: {acme: {dnsChallenge: {provider: nobody}}}}";
        let text = "entryPoints: {web: {address: ':443', http: {tls: {certResolver: le}}}}\n";
        let problems = parse_static("vigie.yml", &format!("{text}certificatesResolvers: {refused}"));
        let problems = problems.unwrap_err().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(told("{le: {tailscale: {}}}").len(), 1);
    }

    #[test]
    fn what_cannot_work_is_told_with_a_way_out() {
        for (resolvers, expected) in [
            ("{le: {}}", "certificatesResolvers.le: `acme` is missing"),
            ("{le: {acme: {}}}", "certificatesResolvers.le.acme: there is no challenge"),
            ("{le: {tailscale: {}}}", "`tailscale` is not supported yet"),
            ("{le: {acme: {httpChallenge: {entryPoint: wbe}}}}", "no entry point is called `wbe`"),
            ("{le: {acme: {httpChallenge: {delay: 1s}}}}", "`entryPoint` is missing"),
            (
                "{le: {acme: {tlsChallenge: {}, httpChallenge: {entryPoint: web}}}}",
                "tlsChallenge: is not used",
            ),
            ("{le: {acme: {tlsChallenge: {}, keyType: RSA1024}}}", "keyType: "),
            ("{le: {acme: {tlsChallenge: {}, storage: ''}}}", "storage: names no file"),
            ("{le: {acme: {tlsChallenge: {}, caServer: 'http://ca'}}}", "is no `https` URL"),
            ("{le: {acme: {tlsChallenge: {}, clientTimeout: 5s}}}", "`clientTimeout` is shorter than"),
            ("{le: {acme: {tlsChallenge: {}, eab: {kid: k, hmacEncoded: '+/+'}}}}", "the key is not base64"),
            ("{le: {acme: {tlsChallenge: {}, certificatesDuration: 0}}}", "certificatesDuration: "),
            ("{le: {acme: {tlsChallenge: {}, emial: a}}}", "there is no key `emial` here"),
            ("{'a@b': {acme: {tlsChallenge: {}}}}", "cannot be the name of a resolver"),
            (
                "{le: {acme: {tlsChallenge: {}, dnsChallenge: {provider: exec}}}}",
                "tlsChallenge: is not used: there is a `dnsChallenge`",
            ),
        ] {
            let told = told(resolvers).join("\n");
            assert!(told.contains(expected), "{resolvers}: {told}");
        }
    }
}
