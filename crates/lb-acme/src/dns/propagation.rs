//! Waits until a record can be seen: an authority that looks too early remembers that there was none.

use std::net::SocketAddr;
use std::time::Duration;

use lb_config::acme::DnsChallenge;
use tokio::time::{Instant, sleep};

use super::lookup::{Recursive, ask};
use super::message::{Data, TXT};
use super::{Record, Timing};

/// The shortest time between two looks. Chosen.
const LEAST: Duration = Duration::from_millis(50);

/// Where records are looked for.
pub(super) struct Propagation {
    pub(super) recursive: Recursive,
    delay: Duration,
    check_authoritative: bool,
    check_recursive: bool,
}

impl Propagation {
    pub(super) fn new(challenge: &DnsChallenge) -> Self {
        Self {
            recursive: Recursive::new(&challenge.resolvers),
            delay: challenge.delay,
            check_authoritative: challenge.check_authoritative,
            check_recursive: challenge.check_recursive,
        }
    }

    /// Returns when all name servers that must have the records have them.
    ///
    /// # Errors
    /// What the last look has shown, after `timing.timeout`.
    pub(super) async fn wait(&self, records: &[Record], timing: &Timing) -> Result<(), String> {
        sleep(self.delay).await;
        if !self.check_authoritative && !self.check_recursive {
            return Ok(());
        }
        for record in records {
            let (began, name) = (Instant::now(), record.fqdn.trim_end_matches('.'));
            loop {
                // Also before the first look, as lego does: who asks too early may be told so for long.
                sleep(timing.interval.max(LEAST)).await;
                let Err(reason) = self.look(record).await else { break };
                tracing::debug!(record = name, reason, "The record is not seen everywhere");
                if began.elapsed() >= timing.timeout {
                    return Err(format!(
                        "the record {name} is not seen after {:?}: {reason}",
                        timing.timeout
                    ));
                }
            }
            tracing::debug!(record = name, after = ?began.elapsed(), "The record is seen");
        }
        Ok(())
    }

    async fn look(&self, record: &Record) -> Result<(), String> {
        if self.check_recursive {
            for server in self.recursive.addresses().await {
                self.seen(&[server], &server.to_string(), record, true).await?;
            }
        }
        if self.check_authoritative {
            let authorities = self.recursive.authorities(&record.fqdn).await;
            for (host, addresses) in authorities.map_err(|error| error.to_string())? {
                self.seen(&addresses, &host, record, false).await?;
            }
        }
        Ok(())
    }

    /// Whether a name server, at the first of its addresses that answers, has the record.
    async fn seen(
        &self,
        addresses: &[SocketAddr],
        host: &str,
        record: &Record,
        recursive: bool,
    ) -> Result<(), String> {
        let mut failed = format!("the name server {host} has no address");
        for address in addresses {
            match ask(*address, &record.fqdn, TXT, recursive, self.recursive.limit).await {
                Ok(answer) => {
                    let has =
                        |data: &Data| matches!(data, Data::Text(text) if *text == record.value.as_bytes());
                    return match answer.records.iter().any(|record| has(&record.data)) {
                        true => Ok(()),
                        false => Err(format!("the name server {host} does not have it")),
                    };
                }
                Err(error) => failed = error.to_string(),
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use lb_config::acme::DnsProvider;

    use super::super::message::{A, AAAA, CNAME, NS, SOA, put_name};
    use super::*;
    use crate::dns::testing::{NameServer, record};

    const TIMING: Timing =
        Timing { timeout: Duration::from_millis(300), interval: Duration::ZERO, sequence: None };

    fn name(text: &str) -> Vec<u8> {
        let mut name = Vec::new();
        put_name(&mut name, text).unwrap();
        name
    }

    /// Both the recursive name server and the authoritative one of `test.`, which has the record from a number of looks on.
    async fn zone(from: usize) -> (NameServer, Arc<AtomicUsize>) {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let server = NameServer::start(move |asked, kind| match (asked, kind) {
            ("_acme-challenge.a.test.", CNAME) => vec![(CNAME, name("b.test."))],
            ("test.", SOA) => vec![(SOA, vec![0; 22])],
            ("test.", NS) => vec![(NS, name("ns.test."))],
            // Nobody listens at the first one.
            ("ns.test.", AAAA) => vec![(AAAA, [[0; 15].as_slice(), &[1]].concat())],
            ("ns.test.", A) => vec![(A, vec![127, 0, 0, 1])],
            (_, TXT) if counted.fetch_add(1, Ordering::Relaxed) + 1 >= from => {
                vec![(TXT, b"\x05other".to_vec()), (TXT, b"\x03val\x02ue".to_vec())]
            }
            _ => Vec::new(),
        });
        (server.await, looks)
    }

    fn propagation(server: &NameServer, check_authoritative: bool, check_recursive: bool) -> Propagation {
        let mut propagation = Propagation::new(&DnsChallenge {
            provider: DnsProvider::Exec,
            resolvers: vec![("127.0.0.1".to_owned(), server.address.port())],
            delay: Duration::ZERO,
            check_authoritative,
            check_recursive,
        });
        propagation.recursive.port = server.address.port();
        propagation
    }

    #[tokio::test]
    async fn a_record_is_waited_for_where_it_is_said() {
        for (authoritative, recursive, from, looks) in [
            (true, false, 1, 1),
            (true, false, 3, 3),
            (false, true, 2, 2),
            (true, true, 1, 2),
            (false, false, 1, 0),
        ] {
            let (server, looked) = zone(from).await;
            let propagation = propagation(&server, authoritative, recursive);
            propagation.wait(&[record("a.test", "value")], &TIMING).await.unwrap();
            assert_eq!(looked.load(Ordering::Relaxed), looks, "{authoritative} {recursive} {from}");
        }
    }

    #[tokio::test]
    async fn who_lacks_the_record_is_told() {
        let (server, _) = zone(usize::MAX).await;
        for (authoritative, who) in [(true, "ns.test.".to_owned()), (false, server.address.to_string())] {
            let waited = propagation(&server, authoritative, !authoritative);
            let waited = waited.wait(&[record("a.test", "value")], &TIMING).await;
            let expected = format!(
                "the record _acme-challenge.a.test is not seen after 300ms: the name server {who} does not have it"
            );
            assert_eq!(waited, Err(expected));
        }
        let elsewhere = record("a.example", "value");
        let waited = propagation(&server, true, false).wait(&[elsewhere], &TIMING).await.unwrap_err();
        assert!(waited.ends_with("no zone is found that _acme-challenge.a.example. is in"), "{waited}");
    }

    #[tokio::test]
    async fn aliases_are_followed() {
        let (server, _) = zone(1).await;
        let recursive = propagation(&server, true, false).recursive;
        assert_eq!(recursive.follow("_acme-challenge.a.test.").await, "b.test.");
        assert_eq!(recursive.follow("b.test.").await, "b.test.");
    }
}
