//! `route53`: the API of Amazon Route 53 (<https://docs.aws.amazon.com/Route53/latest/APIReference/>).

use std::time::{Duration, SystemTime};

use http::Method;

use super::api::{Api, Patience, Zoned, changed, encoded, form, not_understood};
use super::aws::{Asked, element, elements, escaped, sign, unescaped};
use super::aws_keys::Keyring;
use super::variables::{Defaults, Variables};
use super::{Action, ProviderError, Record, Timing};

const VERSION: &str = "/2013-04-01";
const DEFAULTS: Defaults = Defaults {
    ttl_seconds: 10,
    timeout: Duration::from_secs(120),
    interval: Duration::from_secs(4),
    ..Defaults::of(&["AWS"])
};

pub(super) struct Route53 {
    api: Api,
    keys: Keyring,
    /// The one that signatures are for; the service is the same everywhere.
    region: &'static str,
    zone: Option<String>,
    is_private: bool,
    waits: bool,
    ttl_seconds: u32,
    timing: Timing,
}

/// The texts of a name.
#[derive(Default)]
struct Set {
    ttl: String,
    texts: Vec<String>,
}

impl Route53 {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), ProviderError> {
        let common = DEFAULTS.read(variables)?;
        let region = variables.text(&["AWS_REGION", "AWS_DEFAULT_REGION"])?.unwrap_or_default();
        let keys = Keyring::open(variables, &region, common.http_timeout)?;
        let (url, region) = if region.starts_with("cn-") {
            ("https://route53.amazonaws.com.cn", "cn-northwest-1")
        } else if region.starts_with("us-gov-") {
            ("https://route53.us-gov.amazonaws.com", "us-gov-west-1")
        } else {
            ("https://route53.amazonaws.com", "us-east-1")
        };
        let elsewhere = variables.text(&["AWS_ENDPOINT_URL_ROUTE_53", "AWS_ENDPOINT_URL"])?;
        let url = super::base_url("AWS_ENDPOINT_URL_ROUTE_53", elsewhere.as_deref().unwrap_or(url))?;
        let zone = variables.text(&["AWS_HOSTED_ZONE_ID"])?;
        let provider = Self {
            api: Api::new(&url, common.http_timeout)?,
            keys,
            region,
            zone: zone.map(|id| id.trim_start_matches("/hostedzone/").to_owned()),
            is_private: variables.flag("AWS_PRIVATE_ZONE", false)?,
            waits: variables.flag("AWS_WAIT_FOR_RECORD_SETS_CHANGED", true)?,
            ttl_seconds: common.ttl_seconds,
            timing: common.timing,
        };
        Ok((provider, common.timing))
    }

    /// `query` in the order of names.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: String,
    ) -> Result<String, ProviderError> {
        let (path, query) = (format!("{VERSION}{path}"), form(query));
        let host = self.api.host();
        let asked = Asked { method: method.as_str(), host, path: &path, query: &query, body: &body };
        let headers = sign(self.keys.keys().await?, self.region, "route53", &asked, SystemTime::now());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let answer = self.api.request(method, &path, &headers, body).await?;
        String::from_utf8(answer.body.into()).map_err(|_| not_understood())
    }

    async fn look(&self, zone: &str, fqdn: &str) -> Result<Set, ProviderError> {
        let query = [("maxitems", "1"), ("name", fqdn), ("type", "TXT")];
        let answer =
            self.ask(Method::GET, &format!("/hostedzone/{zone}/rrset"), &query, String::new()).await?;
        // The first that is not before what was asked for.
        let is_it = |set: &&str| {
            element(set, "Name").is_some_and(|name| name.eq_ignore_ascii_case(fqdn))
                && element(set, "Type") == Some("TXT")
        };
        let Some(set) = elements(&answer, "ResourceRecordSet").find(is_it) else { return Ok(Set::default()) };
        let texts = elements(set, "Value").map(unescaped).collect();
        Ok(Set { ttl: element(set, "TTL").unwrap_or_default().to_owned(), texts })
    }

    async fn done(&self, mut answer: String) -> Result<(), ProviderError> {
        let patience = Patience::new(self.timing);
        loop {
            let change = element(&answer, "ChangeInfo").ok_or_else(not_understood)?;
            if element(change, "Status") == Some("INSYNC") {
                return Ok(());
            }
            let id = element(change, "Id").ok_or_else(not_understood)?.trim_start_matches("/change/");
            let path = format!("/change/{}", encoded(id));
            patience.pause().await?;
            answer = self.ask(Method::GET, &path, &[], String::new()).await?;
        }
    }
}

impl Zoned for Route53 {
    /// Its id.
    type Zone = String;

    async fn zone(&self, name: &str) -> Result<Option<String>, ProviderError> {
        if let Some(zone) = &self.zone {
            return Ok(Some(encoded(zone)));
        }
        let answer = self.ask(Method::GET, "/hostedzonesbyname", &[("dnsname", name)], String::new()).await?;
        // Those that are not before the name; several may have it.
        let is_it = |zone: &&str| {
            let is_private = element(zone, "PrivateZone") == Some("true");
            is_private == self.is_private
                && element(zone, "Name")
                    .is_some_and(|known| known.trim_end_matches('.').eq_ignore_ascii_case(name))
        };
        let zone = elements(&answer, "HostedZone").find(is_it).and_then(|zone| element(zone, "Id"));
        Ok(zone.map(|id| encoded(id.trim_start_matches("/hostedzone/"))))
    }

    async fn change(&self, action: Action, zone: &String, record: &Record) -> Result<(), ProviderError> {
        let Set { ttl, texts } = self.look(zone, &record.fqdn).await?;
        let before = texts.clone();
        let Some(texts) = changed(texts, action, &record.value) else { return Ok(()) };
        let ours = self.ttl_seconds.to_string();
        // A set is deleted as it is.
        let (what, ttl, texts) = match (action, texts.is_empty()) {
            (Action::Present, _) => ("UPSERT", &ours, texts),
            (Action::CleanUp, false) => ("UPSERT", &ttl, texts),
            (Action::CleanUp, true) => ("DELETE", &ttl, before),
        };
        let records: String = texts
            .iter()
            .map(|text| format!("<ResourceRecord><Value>{}</Value></ResourceRecord>", escaped(text)))
            .collect();
        let body = format!(
            "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeBatch>\
             <Changes><Change><Action>{what}</Action><ResourceRecordSet><Name>{}</Name><Type>TXT</Type>\
             <TTL>{ttl}</TTL><ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></Change></Changes>\
             </ChangeBatch></ChangeResourceRecordSetsRequest>",
            escaped(&record.fqdn)
        );
        let answer = self.ask(Method::POST, &format!("/hostedzone/{zone}/rrset/"), &[], body).await?;
        // Nobody waits for a record to be gone.
        if action == Action::Present && self.waits { self.done(answer).await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::dns::testing::{Kept, Server, Told, record, two_of_one_name, variables};

    fn zone(id: &str, name: &str, is_private: bool) -> String {
        format!(
            "<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}</Name><CallerReference>x</CallerReference>\
             <Config><PrivateZone>{is_private}</PrivateZone></Config></HostedZone>"
        )
    }

    fn set(ttl: u32, kept: &Kept) -> String {
        let values =
            kept.list(|_, text| format!("<ResourceRecord><Value>{}</Value></ResourceRecord>", escaped(text)));
        format!(
            "<ResourceRecordSet><Name>_acme-challenge.a.b.test.</Name><Type>TXT</Type><TTL>{ttl}</TTL>\
             <ResourceRecords>{}</ResourceRecords></ResourceRecordSet>",
            values.concat()
        )
    }

    /// As Route 53: it deletes what is described just as it is, and is done with a change after a while.
    async fn route53(kept: &Kept) -> Server {
        let (theirs, ttl) = (kept.clone(), AtomicU32::new(300));
        Server::start(move |request| {
            let told = Told::of(request);
            if told.header("x-amz-security-token") == "old" {
                return (401, "<Message>no</Message>".to_owned());
            }
            let authorization = told.header("authorization");
            let starts = authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/");
            let signed = "/us-east-1/route53/aws4_request, SignedHeaders=host;x-amz-date";
            assert!(starts && authorization.contains(signed), "{authorization}");
            let path = told.line.replace(VERSION, "");
            let answer = match path.as_str() {
                "GET /hostedzonesbyname?dnsname=b.test" => [
                    zone("ZPRIVATE", "b.test.", true),
                    zone("ZPUBLIC", "b.test.", false),
                    zone("ZOTHER", "c.test.", false),
                ]
                .concat(),
                "GET /hostedzone/ZPUBLIC/rrset?maxitems=1&name=_acme-challenge.a.b.test.&type=TXT" => {
                    match theirs.is_empty() {
                        true => "<ResourceRecordSet><Name>a.b.test.</Name><Type>A</Type></ResourceRecordSet>"
                            .into(),
                        false => set(ttl.load(Ordering::Relaxed), &theirs),
                    }
                }
                "POST /hostedzone/ZPUBLIC/rrset/" => {
                    let new = element(&told.text, "ResourceRecordSet").unwrap();
                    let texts: Vec<_> = elements(new, "Value").map(unescaped).collect();
                    if element(&told.text, "Action") == Some("UPSERT") {
                        ttl.store(element(new, "TTL").unwrap().parse().unwrap(), Ordering::Relaxed);
                        theirs.replace(&texts.into());
                    } else {
                        let described = format!("<ResourceRecordSet>{new}</ResourceRecordSet>");
                        assert_eq!(described, set(ttl.load(Ordering::Relaxed), &theirs));
                        theirs.clear();
                    }
                    "<ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status></ChangeInfo>".into()
                }
                "GET /change/C1" => {
                    "<ChangeInfo><Id>/change/C1</Id><Status>INSYNC</Status></ChangeInfo>".into()
                }
                _ => zone("ZOTHER", "other.test.", false),
            };
            (200, format!("<?xml version=\"1.0\"?>\n<Response>{answer}</Response>"))
        })
        .await
    }

    fn open(server: &Server, more: &[(&str, &str)]) -> Route53 {
        let url = server.url();
        let set = [
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "k3y"),
            ("AWS_ENDPOINT_URL_ROUTE_53", url.as_str()),
            ("AWS_POLLING_INTERVAL", "0"),
        ];
        variables(&[&set[..], more].concat(), Route53::open).unwrap().0
    }

    #[tokio::test]
    async fn records_stand_side_by_side_and_only_ours_are_taken_away() {
        let kept = Kept::default();
        let server = route53(&kept).await;
        let stranger = open(&server, &[("AWS_SESSION_TOKEN", "old")]);
        two_of_one_name(&open(&server, &[]), &stranger, &kept).await;
        assert!(server.told().iter().any(|told| told.contains("<TTL>10</TTL>")));
        assert_eq!(
            server.told().iter().filter(|told| told.starts_with("GET /2013-04-01/change/")).count(),
            2
        );
    }

    #[tokio::test]
    async fn the_last_record_of_a_name_takes_the_set_along() {
        let kept = Kept::default();
        let server = route53(&kept).await;
        let more =
            [("AWS_HOSTED_ZONE_ID", "/hostedzone/ZPUBLIC"), ("AWS_WAIT_FOR_RECORD_SETS_CHANGED", "false")];
        let provider = open(&server, &more);
        for (action, left) in [(Action::Present, &["v"][..]), (Action::CleanUp, &[])] {
            provider.act(action, &record("a.b.test", "v")).await.unwrap();
            assert_eq!(kept.values(), left);
        }
        // Neither is a zone looked for nor is it waited.
        assert_eq!(server.told().len(), 4);
    }

    #[test]
    fn regions_have_apis_of_their_own() {
        let keys = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "k3y")];
        let of = |name, value| variables(&[&keys[..], &[(name, value)]].concat(), Route53::open);
        for (region, url, signed) in [
            ("eu-central-1", "https://route53.amazonaws.com", "us-east-1"),
            ("cn-north-1", "https://route53.amazonaws.com.cn", "cn-northwest-1"),
            ("us-gov-east-1", "https://route53.us-gov.amazonaws.com", "us-gov-west-1"),
        ] {
            let provider = of("AWS_REGION", region).unwrap().0;
            assert_eq!((provider.api.base_url.as_str(), provider.region), (url, signed));
        }
        let told = of("AWS_PRIVATE_ZONE", "maybe").err().unwrap().to_string();
        assert_eq!(told, "AWS_PRIVATE_ZONE is neither `true` nor `false`");
    }
}
