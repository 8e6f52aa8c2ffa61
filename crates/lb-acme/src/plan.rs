//! What to order, and when: decided from what routers want and what there is.
//!
//! A certificate counts for a name until it is time to renew it. What is wanted and not counted for is ordered anew,
//! so a renewal asks for the names that are wanted now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use lb_config::StaticConfig;
use lb_config::acme::Challenge;
use lb_config::dynamic::{Config, Domain};

use crate::certificate::Validity;

/// The names of one certificate, in lower case, the main one first.
pub(crate) type Names = Vec<String>;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// How long before its end a certificate is renewed: as Traefik has it by `certificatesDuration` (reference 1.10), but
/// never more than a third of the time the certificate is valid. Otherwise short-lived ones would be renewed on and on.
pub(crate) fn renewal(validity: &Validity, certificates_duration: Duration) -> SystemTime {
    let before = match certificates_duration {
        long if long >= 365 * DAY => 120 * DAY,
        long if long >= 90 * DAY => 30 * DAY,
        long if long >= 30 * DAY => 10 * DAY,
        long if long >= 6 * DAY => 2 * DAY,
        long if long >= DAY => 6 * HOUR,
        _ => 20 * MINUTE,
    };
    let valid = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    validity.not_after - before.min(valid / 3)
}

/// The pause after so many failures in a row. Let's Encrypt bears with five failed validations of a name in an hour;
/// this comes to four in the first one, and two a day in the end.
pub(crate) fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => MINUTE,
        2 => 5 * MINUTE,
        3 => 30 * MINUTE,
        4 => HOUR,
        5 => 2 * HOUR,
        6 => 4 * HOUR,
        7 => 8 * HOUR,
        _ => 12 * HOUR,
    }
}

/// What routers want of one resolver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Each set once, whatever the order of its names.
    pub(crate) sets: Vec<Names>,
    /// Names that no certificate can be ordered for: the router that wants it, and why not.
    pub(crate) impossible: BTreeMap<String, (String, &'static str)>,
}

impl Wanted {
    /// What `who` wants on one certificate, unless that is `known`.
    fn add(&mut self, who: &str, set: Names, by: Option<&Challenge>, known: &mut BTreeSet<BTreeSet<String>>) {
        let mut clean = Names::new();
        for asked in set {
            let asked = asked.trim_end_matches('.').to_ascii_lowercase();
            // As certificates have it.
            let asked = asked.parse::<std::net::IpAddr>().map_or(asked, |address| address.to_string());
            if let Some(why) = impossible(&asked, by) {
                self.impossible.insert(asked, (who.to_owned(), why));
            } else if !clean.contains(&asked) {
                clean.push(asked);
            }
        }
        // Authorities refuse names that a wildcard of the same order covers.
        let all = clean.clone();
        clean.retain(|name| !all.iter().any(|wildcard| is_below(name, wildcard)));
        if !clean.is_empty() && known.insert(key(&clean)) {
            self.sets.push(clean);
        }
    }
}

/// Whether the wildcard covers the name.
fn is_below(name: &str, wildcard: &str) -> bool {
    let parent = name.split_once('.').map(|(_, parent)| parent);
    name != wildcard && wildcard.strip_prefix("*.").is_some_and(|of| Some(of) == parent)
}

fn names(domain: &Domain) -> Names {
    std::iter::once(&domain.main).chain(&domain.sans).cloned().collect()
}

/// The names that the routers of `config` want of `resolver`: `tls.domains`, else the hosts of the rule. Those of the
/// entry point count for routers without TLS of their own.
pub(crate) fn wanted(resolver: &str, fixed: &StaticConfig, config: &Config) -> Wanted {
    let defaults = lb_config::Context::from(fixed).default_entry_points;
    let by = fixed.certificates_resolvers.get(resolver).map(|resolver| &resolver.challenge);
    let mut wanted = Wanted::default();
    let mut known = BTreeSet::new();
    let generated =
        config.tls.default_generated.as_ref().filter(|_| config.tls.default_certificate.is_none());
    if let Some(generated) = generated.filter(|generated| generated.resolver == resolver) {
        wanted.add("the default certificate", names(&generated.domain), by, &mut known);
    }
    // Those behind others have no TLS of their own.
    for (name, router) in config.routers.iter().filter(|(_, router)| router.parents.is_empty()) {
        let attached = fixed.entry_points.iter().filter(|entry| match router.entry_points.is_empty() {
            true => defaults.contains(&entry.name),
            false => router.entry_points.contains(&entry.name),
        });
        for entry in attached {
            let Some(tls) = router.tls.as_ref().or(entry.http.tls.as_ref()) else { continue };
            if tls.cert_resolver.as_deref() != Some(resolver) {
                continue;
            }
            if tls.domains.is_empty() {
                wanted.add(name, router.rule.hosts(), by, &mut known);
            }
            tls.domains.iter().for_each(|domain| wanted.add(name, names(domain), by, &mut known));
        }
    }
    for (name, router) in &config.tcp.routers {
        let Some(tls) = router.tls.as_ref().filter(|tls| !tls.passthrough).map(|tls| &tls.terminated) else {
            continue;
        };
        if tls.cert_resolver.as_deref() == Some(resolver) {
            if tls.domains.is_empty() {
                wanted.add(name, router.rule.hosts(), by, &mut known);
            }
            tls.domains.iter().for_each(|domain| wanted.add(name, names(domain), by, &mut known));
        }
    }
    // What a wildcard of another certificate covers needs none of its own, as in Traefik.
    let wildcards: Vec<String> =
        wanted.sets.iter().flatten().filter(|name| name.starts_with("*.")).cloned().collect();
    if !wildcards.is_empty() {
        let below = |name: &String| wildcards.iter().any(|wildcard| is_below(name, wildcard));
        wanted.sets.retain(|set| !set.iter().all(below));
    }
    wanted
}

/// Why no certificate can be ordered for this name.
fn impossible(name: &str, by: Option<&Challenge>) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let over_dns = by.is_some_and(Challenge::proves_wildcards);
    let host = name.strip_prefix("*.").unwrap_or(name);
    if host != name && !over_dns {
        // No other challenge can show that a wildcard is ours: RFC 8555 section 7.1.3.
        return Some("a wildcard needs a resolver with `dnsChallenge`");
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        // RFC 8738 section 7.
        return over_dns.then_some("an address cannot be validated by `dnsChallenge`");
    }
    (host.is_empty() || !host.bytes().all(plain)).then_some("it is no name of a host")
}

/// A set whatever the order of its names.
pub(crate) fn key(names: &[String]) -> BTreeSet<String> {
    names.iter().cloned().collect()
}

/// When the certificate for `names` is to be ordered: at once, or when the first of its names has only certificates
/// that are to be renewed. `until` says of each certificate how long it counts.
pub(crate) fn due<'v>(
    names: &[String],
    certificates: impl Iterator<Item = (&'v Validity, SystemTime)> + Clone,
) -> SystemTime {
    let counted = |name: &String| {
        let covering = certificates.clone().filter(|(validity, _)| validity.covers(name));
        covering.map(|(_, until)| until).max().unwrap_or(SystemTime::UNIX_EPOCH)
    };
    names.iter().map(counted).min().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether others cover each name of `all[index]` for longer: it need not be shown any more.
pub(crate) fn is_superseded(all: &[&Validity], index: usize) -> bool {
    let own = all[index];
    own.names.iter().all(|name| {
        all.iter().enumerate().any(|(other, validity)| {
            let longer = (validity.not_after, index) > (own.not_after, other);
            other != index && longer && validity.covers(name)
        })
    })
}

#[cfg(test)]
mod tests {
    use lb_config::{Context, parse_dynamic, parse_static};

    use super::*;

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + days as u32 * DAY
    }

    fn validity(names: &[&str], from: u64, to: u64) -> Validity {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Validity { names, not_before: at(from), not_after: at(to) }
    }

    #[test]
    fn certificates_are_renewed_as_by_traefik_but_not_before_two_thirds_of_their_life() {
        let hours = |count: u32| count * HOUR;
        for (from, to, duration, expected) in [
            (0, 90, 90 * DAY, at(60)),
            (0, 400, 365 * DAY, at(280)),
            (0, 30, 30 * DAY, at(20)),
            (0, 7, 6 * DAY, at(5)),
            (0, 6, 90 * DAY, at(4)),
            (0, 2, DAY, at(2) - hours(6)),
            (0, 1, hours(1), at(1) - 20 * MINUTE),
        ] {
            assert_eq!(renewal(&validity(&[], from, to), duration), expected, "{to} {duration:?}");
        }
    }

    #[test]
    fn failures_stay_below_the_limits_of_authorities() {
        let tries: Vec<Duration> = (1..=8).map(backoff).collect();
        let first_hour = tries.iter().scan(Duration::ZERO, |at, pause| {
            *at += *pause;
            Some(*at)
        });
        assert_eq!(first_hour.take_while(|at| *at < HOUR).count() + 1, 4);
        assert!(tries.is_sorted());
    }

    fn wants(routers: &str) -> Wanted {
        wants_with(routers, "")
    }

    fn wants_with(routers: &str, more: &str) -> Wanted {
        let fixed = "entryPoints: {web: {address: ':80'}, \
             secure: {address: ':443', http: {tls: {certResolver: le, domains: [{main: E.test, sans: [f.test]}]}}}}\n\
             certificatesResolvers: {le: {acme: {tlsChallenge: {}}}, other: {acme: {tlsChallenge: {}}}}";
        let (fixed, _) = parse_static("vigie.yml", fixed).unwrap();
        let text = format!(
            "http: {{services: {{s: {{loadBalancer: {{servers: []}}}}}}, routers: {{{routers}}}}}\n{more}"
        );
        let loaded = parse_dynamic("d.yml", &text, "file", &Context::from(&fixed)).unwrap();
        wanted("le", &fixed, &loaded.config)
    }

    #[test]
    fn names_come_from_domains_else_from_the_rule() {
        let own = "entryPoints: [web], service: s, tls: {certResolver: le";
        for (routers, expected) in [
            (
                format!("a: {{rule: 'Host(`B.test`) && Path(`/`) || Host(`a.test`)', {own}}}}}"),
                "b.test a.test",
            ),
            (
                format!(
                    "a: {{rule: 'Host(`a`)', {own}, domains: [{{main: x.test, sans: [y.test, x.test.]}}]}}}}"
                ),
                "x.test y.test",
            ),
            (
                format!(
                    "a: {{rule: 'Host(`a`) || Host(`b`)', {own}}}}}, b: {{rule: 'Host(`b`) || Host(`a`)', {own}}}}}, c: {{rule: 'Host(`c`)', {own}}}}}"
                ),
                "a b, c",
            ),
            (format!("a: {{rule: '!Host(`a`) && Path(`/`)', {own}}}}}"), ""),
            (
                format!("a: {{rule: 'Host(`a`)', {own}, domains: [{{main: '2001:DB8:0::1'}}]}}}}"),
                "2001:db8::1",
            ),
            (
                "a: {rule: 'Host(`a`)', service: s, entryPoints: [web], tls: {certResolver: other}}"
                    .to_owned(),
                "",
            ),
            ("a: {rule: 'Host(`a`)', service: s, entryPoints: [web], tls: {}}".to_owned(), ""),
            ("a: {rule: 'Host(`a`)', service: s, entryPoints: [web]}".to_owned(), ""),
            // On the entry point with a resolver, by default.
            ("a: {rule: 'Host(`a`)', service: s}".to_owned(), "e.test f.test"),
            ("a: {rule: 'Host(`a`)', service: s, tls: {}}".to_owned(), ""),
        ] {
            let found = wants(&routers);
            let sets: Vec<_> = found.sets.iter().map(|set| set.join(" ")).collect();
            assert_eq!(sets.join(", "), expected, "{routers}");
        }
        let generated = |resolver: &str| {
            let store =
                format!("{{defaultGeneratedCert: {{resolver: {resolver}, domain: {{main: d.test}}}}}}");
            wants_with(
                "a: {rule: 'Host(`a`)', service: s, entryPoints: [web]}",
                &format!("tls: {{stores: {{default: {store}}}}}"),
            )
            .sets
        };
        assert_eq!(generated("le"), [["d.test"]]);
        assert!(generated("other").is_empty());
        let tcp = |tls: &str| {
            let router =
                format!("r: {{rule: 'HostSNI(`a.test`) || HostSNI(`b.test`)', service: s, tls: {{{tls}}}}}");
            let web = "a: {rule: 'Host(`a`)', service: s, entryPoints: [web]}";
            let service = "services: {s: {loadBalancer: {servers: []}}}";
            wants_with(web, &format!("tcp: {{{service}, routers: {{{router}}}}}")).sets
        };
        assert_eq!(tcp("certResolver: le"), [["a.test", "b.test"]]);
        assert_eq!(tcp("certResolver: le, domains: [{main: c.test}]"), [["c.test"]]);
        assert!(tcp("certResolver: le, passthrough: true").is_empty());
        let found = wants(&format!("a: {{rule: 'Host(`*.a.test`) || Host(`a.test`)', {own}}}}}"));
        assert_eq!(found.sets, [["a.test"]]);
        assert_eq!(found.impossible["*.a.test"].0, "a@file");
        let impossible = |name| super::impossible(name, None).is_some();
        assert!(impossible("a b") && impossible("") && impossible("*.a") && !impossible("::1"));
    }

    #[test]
    fn wildcards_are_ordered_over_dns_and_cover_others() {
        for (routers, expected) in [
            (
                "a: {rule: 'Host(`x.a.test`)', T, domains: [{main: a.test, sans: ['*.A.test']}]}}",
                "a.test *.a.test",
            ),
            // A name that the wildcard covers would be refused beside it, and needs no certificate of its own.
            (
                "a: {rule: 'Host(`x`)', T, domains: [{main: '*.a.test', sans: [b.a.test, a.test]}]}}",
                "*.a.test a.test",
            ),
            (
                "a: {rule: 'Host(`b.a.test`)', T}}, b: {rule: 'Host(`b.a.test`) || Host(`c.b.a.test`)', T}}, \
                 c: {rule: 'Host(`x`)', T, domains: [{main: '*.a.test'}]}}",
                "b.a.test c.b.a.test, *.a.test",
            ),
            ("a: {rule: 'Host(`x`)', T, domains: [{main: '*.*.test', sans: [192.0.2.1, '*.']}]}}", ""),
        ] {
            let fixed = "entryPoints: {web: {address: ':80'}}\n\
                 certificatesResolvers: {dns: {acme: {dnsChallenge: {provider: exec}}}}";
            let (fixed, _) = parse_static("vigie.yml", fixed).unwrap();
            let routers = routers.replace('T', "service: s, tls: {certResolver: dns");
            let text = format!(
                "http: {{services: {{s: {{loadBalancer: {{servers: []}}}}}}, routers: {{{routers}}}}}"
            );
            let loaded = parse_dynamic("d.yml", &text, "file", &Context::from(&fixed)).unwrap();
            let sets: Vec<_> =
                wanted("dns", &fixed, &loaded.config).sets.iter().map(|set| set.join(" ")).collect();
            assert_eq!(sets.join(", "), expected, "{routers}");
        }
    }

    #[test]
    fn an_order_is_due_when_a_name_has_no_certificate_that_counts() {
        let (both, wild) = (validity(&["a.test", "b.test"], 0, 9), validity(&["*.test"], 0, 9));
        let due = |names: &[&str], known: &[(&Validity, u64)]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            super::due(&names, known.iter().map(|(validity, until)| (*validity, at(*until))))
        };
        assert_eq!(due(&["a.test"], &[]), at(0));
        assert_eq!(due(&["a.test", "b.test"], &[(&both, 5)]), at(5));
        assert_eq!(due(&["a.test", "b.test"], &[(&both, 5), (&wild, 7)]), at(7));
        assert_eq!(due(&["a.test", "x.b.test"], &[(&both, 5), (&wild, 7)]), at(0));
    }

    #[test]
    fn the_certificate_that_ends_last_is_shown() {
        let (old, new) = (validity(&["a", "b"], 0, 9), validity(&["a"], 5, 14));
        let rest = validity(&["b"], 5, 14);
        assert!(!is_superseded(&[&old, &new], 0), "nothing else is for b");
        assert!(is_superseded(&[&old, &new, &rest], 0));
        assert!(!is_superseded(&[&old, &new, &rest], 1));
        let twin = old.clone();
        assert_eq!(
            [0, 1].map(|index| is_superseded(&[&old, &twin], index)),
            [false, true],
            "one of two stays"
        );
    }
}
