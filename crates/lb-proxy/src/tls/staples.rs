//! OCSP responses that handshakes show with their certificate. Somebody else fetches them; a handshake only looks.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

pub use super::ocsp::OcspError;
use super::ocsp::Question;

/// By address of the certificate without a response.
type Staples = HashMap<usize, Staple>;

#[derive(Clone)]
struct Staple {
    /// Kept, so that its address is nobody else's.
    bare: Arc<CertifiedKey>,
    stapled: Arc<CertifiedKey>,
    /// Unix time.
    until: i64,
}

/// Of the process, as tickets are: they outlive snapshots.
static STAPLES: LazyLock<ArcSwap<Staples>> = LazyLock::new(ArcSwap::default);
static SERVED: LazyLock<watch::Sender<Vec<Certificate>>> = LazyLock::new(|| watch::channel(Vec::new()).0);

/// A certificate that clients are shown.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

/// What to ask of one, and of whom.
pub struct Stapling {
    certificate: Certificate,
    question: Question,
}

/// The certificates of the snapshot in force; a changed list is announced.
pub fn served() -> watch::Receiver<Vec<Certificate>> {
    SERVED.subscribe()
}

pub(crate) fn follow(keys: Vec<Arc<CertifiedKey>>) {
    STAPLES.rcu(|staples| {
        let mut kept = Staples::clone(staples);
        kept.retain(|_, staple| keys.iter().any(|key| Arc::ptr_eq(key, &staple.bare)));
        kept
    });
    SERVED.send_replace(keys.into_iter().map(Certificate).collect());
}

/// `key` with its response, if there is one that counts.
pub(super) fn stapled(key: Arc<CertifiedKey>) -> Arc<CertifiedKey> {
    let staples = STAPLES.load();
    match staples.get(&address(&key)) {
        Some(staple) if unix_now() < staple.until => Arc::clone(&staple.stapled),
        _ => key,
    }
}

fn address(key: &Arc<CertifiedKey>) -> usize {
    Arc::as_ptr(key) as usize
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl Certificate {
    /// Tells it apart from others, as long as it exists.
    pub fn id(&self) -> usize {
        address(&self.0)
    }

    /// `None`: it names no responder. An error where nothing can be asked.
    pub fn stapling(&self) -> Option<Result<Stapling, &'static str>> {
        let question = Question::of(&self.0)?;
        Some(question.map(|question| Stapling { certificate: self.clone(), question }))
    }
}

impl Stapling {
    /// URL of the responder, as the certificate names it.
    pub fn responder(&self) -> &str {
        &self.question.responder
    }

    /// The body of a question.
    pub fn request(&self) -> &[u8] {
        &self.question.request
    }

    /// Shows `answer` to clients from now on if it may be; how many seconds it counts.
    ///
    /// # Errors
    /// Why it may not. A response from before stays until its own end, unless the certificate is revoked.
    pub fn answer(&self, answer: &[u8]) -> Result<u64, OcspError> {
        let now = unix_now();
        let Certificate(bare) = &self.certificate;
        let id = address(bare);
        let until = self.question.check(answer, now).inspect_err(|error| {
            if *error == OcspError::Revoked {
                STAPLES.rcu(|staples| {
                    let mut staples = Staples::clone(staples);
                    staples.remove(&id);
                    staples
                });
            }
        })?;
        let mut stapled = CertifiedKey::clone(bare);
        stapled.ocsp = Some(answer.to_vec());
        let staple = Staple { bare: Arc::clone(bare), stapled: Arc::new(stapled), until };
        // One that has been replaced meanwhile is nobody's; the next list drops it.
        STAPLES.rcu(|staples| {
            let mut staples = Staples::clone(staples);
            staples.insert(id, staple.clone());
            staples
        });
        Ok(u64::try_from(until - now).unwrap_or(0))
    }
}
