//! Whether each name that a router takes over TLS gets a certificate for it, and for how long that is good.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_acme::Validity;
use lb_core::route::Rule;
use lb_observe::rfc3339;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{AT_ONCE, Instance, PATIENCE, Report, entry_points, text};

/// As the alert `CertificateExpires` has it.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// How the name in the certificate ends that stands in where no other fits.
const MADE_AT_START: &str = ".vigie.default";

pub(super) async fn verify(instance: &Instance, report: &mut Report) {
    let names = names(instance);
    report.certificates = names.len();
    let Some(config) = client().filter(|_| !names.is_empty()) else { return };
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for (entry_point, address, name) in names {
        let (turns, config) = (Arc::clone(&turns), Arc::clone(&config));
        asked.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let served = served(address, &name, config).await;
            (entry_point, name, served)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    for (entry_point, name, served) in answers {
        let what = format!("certificate of {name} on entry point {entry_point}");
        match served {
            Ok(validity) => judge(what, &name, &validity, SystemTime::now(), report),
            Err(reason) => {
                report.error(
                    what,
                    format!("no TLS from here: {reason}"),
                    "the log of Vigie says why it refuses",
                );
            }
        }
    }
}

/// Each name once for each entry point that serves it over TLS.
fn names(instance: &Instance) -> BTreeSet<(String, SocketAddr, String)> {
    let mut names = BTreeSet::new();
    let with_tls = |router: &&Value| router.get("tls").is_some() && router["status"] != "disabled";
    for router in instance.routers.iter().filter(with_tls) {
        let hosts = Rule::parse(text(router, "rule")).map(|rule| rule.hosts()).unwrap_or_default();
        for used in router["using"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let entry_point = instance.entry_points.iter().find(|known| text(known, "name") == used);
            let written = entry_point.map(|known| text(known, "address")).unwrap_or_default();
            let Some(address) = entry_points::reached(instance, written) else { continue };
            // Any name under a wildcard does.
            let hosts = hosts.iter().map(|host| host.replacen('*', "verify", 1));
            names.extend(hosts.map(|host| (used.to_owned(), address, host)));
        }
    }
    names
}

/// Takes every certificate: it is looked at afterwards.
fn client() -> Option<Arc<ClientConfig>> {
    let (config, _) = lb_config::parse_static("none", "serversTransport: {insecureSkipVerify: true}").ok()?;
    lb_proxy::client_tls(&config.servers_transport).ok()
}

/// The certificate that a client gets who asks for `name`.
async fn served(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<Validity, String> {
    let server_name = ServerName::try_from(name.to_owned()).map_err(|_| "this is no name".to_owned())?;
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(config).connect(server_name, stream).await
    };
    let stream = timeout(PATIENCE, handshake).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?;
    let stream = stream.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    certificate
        .and_then(|der| Validity::of_der(der))
        .ok_or_else(|| "its certificate cannot be read".to_owned())
}

fn judge(what: String, name: &str, validity: &Validity, now: SystemTime, report: &mut Report) {
    let at = rfc3339(validity.not_after);
    let renew = "renew it; one from a `certResolver` is renewed by itself, or the log says why not";
    if !validity.covers(name) {
        let hint = "add one to `tls.certificates`, or a `certResolver` to the router";
        let problem = if validity.names.iter().any(|name| name.ends_with(MADE_AT_START)) {
            "there is none for this name: clients get the self-signed one that Vigie makes at start, and refuse it"
                .to_owned()
        } else if validity.names.is_empty() {
            "is for no name".to_owned()
        } else {
            format!("is for {}", validity.names.join(", "))
        };
        report.error(what, problem, hint);
    } else if validity.not_after < now {
        report.error(what, format!("expired at {at}"), renew);
    } else if validity.not_before > now {
        report.error(
            what,
            format!("is not valid before {}", rfc3339(validity.not_before)),
            "look at the clock",
        );
    } else if validity.not_after < now + SOON {
        let days = validity.not_after.duration_since(now).unwrap_or_default().as_secs() / 86_400;
        report.warn(what, format!("expires in {days} days, at {at}"), renew);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_judged_by_name_and_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_308_356);
        let day = Duration::from_secs(86_400);
        for (of, name, from, to, expected) in [
            ("a.test", "a.test", now - day, now + 90 * day, ""),
            ("a.test", "b.test", now - day, now + 90 * day, "error: it: is for a.test; add one"),
            ("a.test", "a.test", now - 2 * day, now - day, "error: it: expired at 2026-11-21T"),
            ("a.test", "a.test", now + day, now + 90 * day, "error: it: is not valid before 2026-11-23T"),
            ("a.test", "a.test", now - day, now + 5 * day, "warning: it: expires in 5 days, at 2026-11-27T"),
            (
                "0af3.vigie.default",
                "a.test",
                now - day,
                now + 90 * day,
                "error: it: there is none for this name: clients get the self-signed one",
            ),
        ] {
            let validity = Validity { names: vec![of.to_owned()], not_before: from, not_after: to };
            let mut report = Report::default();
            judge("it".to_owned(), name, &validity, now, &mut report);
            assert!(report.text().starts_with(expected), "{expected}: {}", report.text());
            assert_eq!(report.findings.is_empty(), expected.is_empty());
        }
    }
}
