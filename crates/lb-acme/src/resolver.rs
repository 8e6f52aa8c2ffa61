//! One resolver at work: it looks what is due, orders it, one certificate after the other, and hands it on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_config::acme::{Challenge, Resolver as Settings};
use lb_config::dynamic::{KeyPair, Pem};
use lb_config::{Config, Loaded, Places, Problems, StaticConfig};
use lb_observe::metrics::Metrics;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::Failing;
use crate::answers::Answers;
use crate::certificate::Validity;
use crate::client::{Client, Error};
use crate::http::Http;
use crate::jws::AccountKey;
use crate::order::{self, Issued};
use crate::plan::{self, Names, Wanted};
use crate::store::{Account, Store, StoreError, Stored};

/// The longest sleep: clocks are set, and machines suspended. Chosen.
const NAP: Duration = Duration::from_secs(600);

pub(crate) struct Resolver {
    name: String,
    settings: Settings,
    fixed: Arc<StaticConfig>,
    metrics: Metrics,
    store: Arc<Store>,
    answers: Answers,
    deliver: mpsc::Sender<Result<Loaded, Problems>>,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    certificates: Vec<(Stored, Validity)>,
    account: Option<Arc<Account>>,
    wanted: Wanted,
    failures: BTreeMap<BTreeSet<String>, Failure>,
}

struct Failure {
    names: Names,
    count: u32,
    reason: String,
    next: SystemTime,
}

/// Anything that keeps a certificate from being had.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Order(#[from] Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the authority's certificate cannot be read")]
    Unreadable,
}

impl Resolver {
    pub(crate) fn new(
        name: &str,
        settings: &Settings,
        fixed: &Arc<StaticConfig>,
        metrics: Metrics,
        store: Arc<Store>,
        answers: Answers,
        deliver: mpsc::Sender<Result<Loaded, Problems>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            settings: settings.clone(),
            fixed: Arc::clone(fixed),
            metrics,
            store,
            answers,
            deliver,
            own: Mutex::default(),
        }
    }

    /// Reads the file; what it has to show, if anything.
    pub(crate) fn read(&self) -> Result<Option<Loaded>, StoreError> {
        let kept = self.store.read(&self.name)?;
        let mut own = self.own.lock();
        own.account = kept.account.map(Arc::new);
        own.certificates.clear();
        for stored in kept.certificates {
            match Validity::of(&stored.chain) {
                Some(validity) => own.certificates.push((stored, validity)),
                None => tracing::warn!(certResolver = %self.name, names = ?stored.names,
                    "A certificate of the file cannot be read and is ignored"),
            }
        }
        Ok(if own.certificates.is_empty() { None } else { Some(self.shown(&own)) })
    }

    /// Works while this process is the active one.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut config: watch::Receiver<Arc<Config>>,
        mut active: watch::Receiver<bool>,
    ) {
        let mut again = active.clone();
        while active.wait_for(|active| *active).await.is_ok() {
            tokio::select! {
                // What is under way is dropped, and with it the answers to its challenges.
                _ = again.wait_for(|active| !*active) => {}
                () = self.work(&mut config) => return,
            }
        }
    }

    /// Ends when there will be no more configurations.
    async fn work(&self, config: &mut watch::Receiver<Arc<Config>>) {
        // The process before this one may have written since it was read.
        match tokio::task::block_in_place(|| self.read()) {
            Ok(Some(loaded)) => drop(self.deliver.send(Ok(loaded)).await),
            Ok(None) => {}
            Err(error) => tracing::error!(certResolver = %self.name, %error, "The file cannot be read again"),
        }
        loop {
            // Thousands of certificates of files take their time, and so does a disk.
            let current = config.borrow_and_update().clone();
            let next = tokio::task::block_in_place(|| self.look(&current));
            let now = SystemTime::now();
            let wait = match next.as_ref().map(|(due, _)| due.duration_since(now)) {
                Some(Err(_)) => Duration::ZERO,
                Some(Ok(wait)) => wait.min(NAP),
                None => Duration::MAX,
            };
            match next {
                Some((_, names)) if wait.is_zero() => self.order(&names).await,
                _ => tokio::select! {
                    changed = config.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                    () = tokio::time::sleep(wait) => {}
                },
            }
        }
    }

    /// What is to be ordered next, and when.
    fn look(&self, config: &Config) -> Option<(SystemTime, Names)> {
        let wanted = plan::wanted(&self.name, &self.fixed, config);
        let mut own = self.own.lock();
        for (name, (router, reason)) in &wanted.impossible {
            if !own.wanted.impossible.contains_key(name) {
                tracing::error!(certResolver = %self.name, routerName = %router, domain = %name, reason,
                    "No certificate can be ordered");
            }
        }
        if own.wanted != wanted {
            let sets: BTreeSet<_> = wanted.sets.iter().map(|names| plan::key(names)).collect();
            own.failures.retain(|names, _| sets.contains(names));
            own.wanted = wanted;
        }
        let prefix = self.origin("");
        let foreign = config.tls.certificates.iter().filter(|pair| !pair.origin.starts_with(&prefix));
        let foreign: Vec<_> = match own.wanted.sets.is_empty() {
            true => Vec::new(),
            false => foreign.filter_map(|pair| Validity::of(&pair.cert.0)).collect(),
        };
        let until = |validity: &Validity| plan::renewal(validity, self.settings.certificates_duration);
        let known = own.certificates.iter().map(|(_, validity)| (validity, until(validity)));
        let known = known.chain(foreign.iter().map(|validity| (validity, validity.not_after)));
        let dues = own.wanted.sets.iter().map(|names| {
            let due = plan::due(names, known.clone());
            let pause = own.failures.get(&plan::key(names)).map(|failure| failure.next);
            (pause.map_or(due, |pause| pause.max(due)), names)
        });
        let (due, names) = dues.min_by_key(|(due, _)| *due)?;
        Some((due, names.clone()))
    }

    async fn order(&self, names: &Names) {
        let covered = |own: &Own| {
            names.iter().all(|name| own.certificates.iter().any(|(_, validity)| validity.covers(name)))
        };
        let outcome = if covered(&self.own.lock()) { "renewed" } else { "ordered" };
        tracing::info!(certResolver = %self.name, domains = %names.join(","), "A certificate is ordered");
        let ordered = self.try_order(names).await;
        let now = SystemTime::now();
        match ordered {
            Ok((loaded, not_after)) => {
                self.own.lock().failures.remove(&plan::key(names));
                self.metrics.acme_order(&self.name, outcome);
                tracing::info!(certResolver = %self.name, domains = %names.join(","),
                    notAfter = %lb_observe::rfc3339(not_after), "A certificate was {outcome}");
                // Only a process that ends listens no more.
                let _ = self.deliver.send(Ok(loaded)).await;
            }
            Err(Trouble::Store(StoreError::Closed(_))) => {}
            Err(trouble) => {
                self.metrics.acme_order(&self.name, "failed");
                let asked = match &trouble {
                    Trouble::Order(error) => error.retry_after(),
                    _ => None,
                };
                let mut own = self.own.lock();
                let count = own.failures.get(&plan::key(names)).map_or(1, |failure| failure.count + 1);
                let next = now + plan::backoff(count).max(asked.unwrap_or_default());
                let reason = trouble.to_string();
                tracing::error!(certResolver = %self.name, domains = %names.join(","), %reason, failures = count,
                    nextTry = %lb_observe::rfc3339(next), "No certificate could be had");
                let failure = Failure { names: names.clone(), count, reason, next };
                own.failures.insert(plan::key(names), failure);
            }
        }
    }

    /// What to show from now on, and the end of the new certificate.
    async fn try_order(&self, names: &Names) -> Result<(Loaded, SystemTime), Trouble> {
        tokio::task::block_in_place(|| self.store.ready())?;
        let http = Http::new(&self.settings).map_err(Error::from)?;
        let account = self.account(&http, names).await?;
        let Issued { chain, key } = match self.ask(&http, &account, names).await {
            // The authority has lost it, or the file came from elsewhere: the key makes it known again.
            Err(Trouble::Order(error)) if error.is_unknown_account() => {
                tracing::warn!(certResolver = %self.name, "The authority does not know the account, it is registered again");
                let account = self.register(&http, account).await?;
                self.ask(&http, &account, names).await?
            }
            asked => asked?,
        };
        let validity = Validity::of(chain.as_bytes()).ok_or(Trouble::Unreadable)?;
        let issued = Issued { chain, key };
        match tokio::task::block_in_place(|| self.store.put_certificate(&self.name, names, &issued)) {
            Ok(()) => {}
            Err(error @ StoreError::Closed(_)) => return Err(error.into()),
            // Served it is all the same; a restart would order it again.
            Err(error) => tracing::error!(certResolver = %self.name, domains = %names.join(","), %error,
                "A certificate cannot be kept"),
        }
        let not_after = validity.not_after;
        let stored =
            Stored { names: names.clone(), chain: issued.chain.into_bytes(), key: issued.key.into_bytes() };
        let mut own = self.own.lock();
        own.certificates.retain(|(old, _)| plan::key(&old.names) != plan::key(names));
        own.certificates.push((stored, validity));
        Ok((self.shown(&own), not_after))
    }

    async fn ask(&self, http: &Http, account: &Account, names: &Names) -> Result<Issued, Trouble> {
        let mut client = Client::open(http, &self.settings.ca_server, &account.key).await?;
        client.use_account(&account.uri);
        Ok(order::obtain(&mut client, names, &self.settings, &self.answers).await?)
    }

    /// The account of the file, if it is one of this authority; else a new one.
    async fn account(&self, http: &Http, names: &Names) -> Result<Arc<Account>, Trouble> {
        let known = self.own.lock().account.clone();
        if let Some(account) = known {
            if host(&account.uri) == host(&self.settings.ca_server) {
                return Ok(account);
            }
            if account.uri.is_empty() {
                return self.register(http, account).await;
            }
            tracing::info!(certResolver = %self.name, "The account of the file is another authority's, a new one is made");
        }
        tracing::debug!(certResolver = %self.name, domains = %names.join(","), "A key for the account is made");
        let key = tokio::task::spawn_blocking(AccountKey::generate).await;
        let key = key.map_err(|error| Error::Ours(error.to_string()))?.map_err(Error::from)?;
        let email = self.settings.email.clone();
        self.register(http, Arc::new(Account { email, uri: String::new(), key })).await
    }

    async fn register(&self, http: &Http, account: Arc<Account>) -> Result<Arc<Account>, Trouble> {
        let mut client = Client::open(http, &self.settings.ca_server, &account.key).await?;
        let registration = client.register(&self.settings.email, self.settings.eab.as_ref()).await?;
        drop(client);
        tokio::task::block_in_place(|| {
            self.store.put_account(&self.name, &self.settings.email, &registration, &account.key)
        })?;
        let key = AccountKey::from_pkcs1(account.key.pkcs1().to_vec()).map_err(Error::from)?;
        let account = Arc::new(Account { email: self.settings.email.clone(), uri: registration.uri, key });
        tracing::info!(certResolver = %self.name, account = %account.uri, email = %account.email, "An account is registered");
        self.own.lock().account = Some(Arc::clone(&account));
        Ok(account)
    }

    /// Names the certificates among those of others.
    fn origin(&self, main: &str) -> String {
        format!("{}.acme {main}", self.name)
    }

    fn shown(&self, own: &Own) -> Loaded {
        let all: Vec<&Validity> = own.certificates.iter().map(|(_, validity)| validity).collect();
        let pair = |stored: &Stored| KeyPair {
            cert: Pem(Arc::from(stored.chain.as_slice())),
            key: Pem(Arc::from(stored.key.as_slice())),
            origin: self.origin(&stored.names.join(",")),
        };
        let shown = own.certificates.iter().enumerate();
        let shown = shown.filter(|(index, _)| !plan::is_superseded(&all, *index));
        let mut config = Config::default();
        config.tls.certificates = shown.map(|(_, (stored, _))| pair(stored)).collect();
        Loaded {
            config,
            problems: Vec::new(),
            disabled: BTreeMap::new(),
            waiting: Config::default(),
            unfit: Config::default(),
            stale_files: BTreeMap::new(),
            places: Places::default(),
            files: Vec::new(),
        }
    }

    /// What the DNS provider cannot work without.
    pub(crate) fn lacking(&self) -> Option<String> {
        match &self.settings.challenge {
            Challenge::Dns(challenge) => crate::dns::check(challenge.provider).err(),
            _ => None,
        }
    }

    pub(crate) fn failing(&self) -> Vec<Failing> {
        let own = self.own.lock();
        // Where nothing is ordered now nobody would hear of it before the next renewal.
        let lacking = own.failures.is_empty().then(|| self.lacking()).flatten();
        let lacking = lacking.map(|reason| Failing {
            resolver: self.name.clone(),
            names: Vec::new(),
            reason,
            next: None,
        });
        let failing = own.failures.values().map(|failure| Failing {
            resolver: self.name.clone(),
            names: failure.names.clone(),
            reason: failure.reason.clone(),
            next: Some(failure.next),
        });
        let impossible = own.wanted.impossible.iter().map(|(name, (_, reason))| Failing {
            resolver: self.name.clone(),
            names: vec![name.clone()],
            reason: (*reason).to_owned(),
            next: None,
        });
        lacking.into_iter().chain(failing).chain(impossible).collect()
    }
}

fn host(url: &str) -> Option<String> {
    let uri: ::http::Uri = url.parse().ok()?;
    uri.host().map(str::to_ascii_lowercase)
}
