//! OCSP stapling: asks the responders of the certificates that are served, again before the answers run out.
//!
//! Whatever happens here, handshakes go on: without a response that counts they show none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri};
use lb_observe::metrics::Metrics;
use lb_proxy::ocsp::{Certificate, OcspError, Stapling, served};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::http::ask_once;

/// As Traefik refreshes; sooner where an answer counts for less than two of it.
const REFRESH: Duration = Duration::from_secs(3600);
/// Doubled after each failure, up to [`REFRESH`]. Chosen.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// Of one question. Chosen.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer; usual are two thousand. Chosen.
const MOST: usize = 64 * 1024;
/// Questions at a time. Chosen.
const AT_ONCE: usize = 8;

struct Job {
    /// Kept, so that its id is nobody else's.
    _certificate: Certificate,
    /// `None`: nothing to ask.
    stapling: Option<Stapling>,
    due: Instant,
    is_asked: bool,
    failures: u32,
    is_stapled: bool,
}

impl Job {
    fn new(certificate: Certificate) -> Self {
        let stapling = match certificate.stapling() {
            Some(Err(reason)) => {
                tracing::warn!(reason, "a certificate names an OCSP responder that cannot be asked");
                None
            }
            found => found.and_then(Result::ok),
        };
        let due = Instant::now();
        Self { _certificate: certificate, stapling, due, is_asked: false, failures: 0, is_stapled: false }
    }

    fn waits(&self) -> bool {
        self.stapling.is_some() && !self.is_asked
    }
}

/// The certificate that was asked about, what was answered, and by whom.
type Answered = (usize, anyhow::Result<Bytes>, String);

/// Runs for the life of the process. `overrides` are responders to ask instead of those that certificates name.
pub(crate) async fn run(overrides: BTreeMap<String, String>, metrics: Metrics) {
    let mut certificates = served();
    let mut jobs: HashMap<usize, Job> = HashMap::new();
    let mut asked: JoinSet<Answered> = JoinSet::new();
    certificates.mark_changed();
    loop {
        let is_free = asked.len() < AT_ONCE;
        let next = jobs.values().filter(|job| is_free && job.waits()).map(|job| job.due).min();
        let wait = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        // A responder that is slow keeps neither other answers nor new certificates waiting.
        tokio::select! {
            changed = certificates.changed() => {
                if changed.is_err() {
                    return;
                }
                let current = certificates.borrow_and_update().clone();
                let ids: HashSet<usize> = current.iter().map(Certificate::id).collect();
                jobs.retain(|id, _| ids.contains(id));
                for certificate in current {
                    jobs.entry(certificate.id()).or_insert_with(|| Job::new(certificate));
                }
            }
            Some(answered) = asked.join_next() => {
                if let Ok((id, answer, url)) = answered
                    && let Some(job) = jobs.get_mut(&id)
                {
                    job.is_asked = false;
                    job.take(answer, &url, &metrics);
                }
            }
            () = wait => {}
        }
        ask_due(&mut jobs, &mut asked, &overrides);
    }
}

/// Begins as many questions as may be under way at a time.
fn ask_due(
    jobs: &mut HashMap<usize, Job>,
    asked: &mut JoinSet<Answered>,
    overrides: &BTreeMap<String, String>,
) {
    let now = Instant::now();
    for (id, job) in jobs.iter_mut().filter(|(_, job)| job.waits() && job.due <= now) {
        if asked.len() >= AT_ONCE {
            return;
        }
        let Some(stapling) = &job.stapling else { continue };
        let named = stapling.responder();
        let url = overrides.get(named).map_or(named, String::as_str).to_owned();
        let (id, request) = (*id, Bytes::copy_from_slice(stapling.request()));
        job.is_asked = true;
        asked.spawn(async move {
            let answer = tokio::time::timeout(TIMEOUT, ask(&url, request)).await;
            (id, answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {TIMEOUT:?}"))), url)
        });
    }
}

impl Job {
    fn take(&mut self, answer: anyhow::Result<Bytes>, responder: &str, metrics: &Metrics) {
        let Some(stapling) = &self.stapling else { return };
        let taken = answer.and_then(|answer| Ok(stapling.answer(&answer)?));
        let now = Instant::now();
        match taken {
            Ok(seconds) => {
                metrics.ocsp_response("good");
                if !self.is_stapled || self.failures > 0 {
                    tracing::info!(responder, seconds, "an OCSP response is stapled");
                }
                (self.failures, self.is_stapled) = (0, true);
                // Half of what it counts, so that a responder may be away for a while.
                self.due = now + REFRESH.min(Duration::from_secs(seconds / 2).max(Duration::from_secs(1)));
            }
            Err(error) => {
                let revoked = error.downcast_ref() == Some(&OcspError::Revoked);
                metrics.ocsp_response(if revoked { "revoked" } else { "failed" });
                self.is_stapled &= !revoked;
                tracing::warn!(responder, %error, "no OCSP response is stapled anew");
                let pause = FIRST_RETRY.saturating_mul(1 << self.failures.min(16));
                self.failures += 1;
                self.due = now + REFRESH.min(pause);
            }
        }
    }
}

/// Asks over plain HTTP, as RFC 6960 appendix A.1 has it: the answer is signed.
async fn ask(url: &str, request: Bytes) -> anyhow::Result<Bytes> {
    let url: Uri = url.parse()?;
    let host = url.host().filter(|_| url.scheme_str() == Some("http"));
    let host =
        host.ok_or_else(|| anyhow::anyhow!("{url} is no address to ask: it must begin with http://"))?;
    let address = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::post(path)
        .header("Host", authority)
        .header("Content-Type", "application/ocsp-request")
        .header("Connection", "close")
        .body(Full::new(request))?;
    match ask_once(stream, request, MOST).await? {
        (200, body) => Ok(body),
        (status, _) => Err(anyhow::anyhow!("the responder answers {status}")),
    }
}
