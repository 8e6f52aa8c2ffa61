//! Certificates from ACME authorities: ordered, renewed, kept in a file and handed on.
//!
//! Each resolver is a provider of the name `<resolver>.acme`, whose configuration is its certificates. What it is to
//! order it reads off the configuration in force. Nothing is ordered before [`Acme::start`] and after [`Acme::stop`]:
//! of two processes, during an upgrade, one owns the files.

mod answers;
mod certificate;
mod client;
mod dns;
mod http;
mod jws;
mod order;
mod plan;
mod resolver;
mod store;
mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lb_config::{Config, Loaded, Problems, StaticConfig};
use lb_observe::metrics::Metrics;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use answers::Answers;
pub use certificate::Validity;
pub use dns::{AliasError, Aliases, check as check_provider};
pub use store::{StoreError, check};

use resolver::Resolver;
use store::Store;

/// All resolvers of a process.
pub struct Acme {
    resolvers: Vec<Arc<Resolver>>,
    /// Resolvers that cannot work, with the reason.
    broken: BTreeMap<String, StoreError>,
    stores: Vec<Arc<Store>>,
    answers: Answers,
    config: watch::Sender<Arc<Config>>,
    active: watch::Sender<bool>,
}

/// A certificate that is wanted and could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    pub resolver: String,
    /// Empty: all of the resolver's.
    pub names: Vec<String>,
    pub reason: String,
    /// When it is tried again; `None`: not before something is changed.
    pub next: Option<SystemTime>,
}

/// What a resolver delivers, for whoever merges configurations.
pub struct Provider {
    pub name: String,
    /// The certificates of the file, if there are any.
    pub first: Option<Loaded>,
    pub readings: mpsc::Receiver<Result<Loaded, Problems>>,
}

impl Acme {
    /// Opens the files. A resolver whose file cannot be used is left out, and told of.
    pub fn open(config: &Arc<StaticConfig>, metrics: &Metrics) -> (Self, Vec<Provider>) {
        let answers = Answers::default();
        let (mut resolvers, mut broken, mut providers) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut stores: BTreeMap<PathBuf, Arc<Store>> = BTreeMap::new();
        for (name, settings) in &config.certificates_resolvers {
            let opened = shared(&mut stores, &settings.storage).and_then(|store| {
                let (deliver, readings) = mpsc::channel(1);
                let resolver =
                    Resolver::new(name, settings, config, metrics.clone(), store, answers.clone(), deliver);
                let first = resolver.read()?;
                if let Some(reason) = resolver.lacking() {
                    tracing::error!(certResolver = %name, %reason, "The DNS provider cannot be used");
                }
                providers.push(Provider { name: format!("{name}.acme"), first, readings });
                Ok(resolver)
            });
            match opened {
                Ok(resolver) => resolvers.push(Arc::new(resolver)),
                Err(error) => {
                    tracing::error!(certResolver = %name, %error, "The resolver orders no certificates");
                    broken.insert(name.clone(), error);
                }
            }
        }
        let acme = Self {
            resolvers,
            broken,
            stores: stores.into_values().collect(),
            answers,
            config: watch::Sender::default(),
            active: watch::Sender::new(false),
        };
        (acme, providers)
    }

    /// The answers to challenges, for the data plane.
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// This configuration has come into force: its routers get their certificates.
    pub fn follow(&self, config: &Arc<Config>) {
        self.config.send_replace(Arc::clone(config));
    }

    /// Gives each resolver a task, which rests until [`start`](Self::start). The runtime has threads of its own
    /// (`multi_thread`).
    pub fn spawn(&self, runtime: &Handle) {
        for resolver in &self.resolvers {
            let task = Arc::clone(resolver).run(self.config.subscribe(), self.active.subscribe());
            runtime.spawn(task);
        }
    }

    /// From now on the files are this process's.
    pub fn start(&self) {
        self.stores.iter().for_each(|store| store.resume());
        self.active.send_replace(true);
    }

    /// From now on nothing is ordered and no file is written.
    pub fn stop(&self) {
        self.stores.iter().for_each(|store| store.close());
        self.active.send_replace(false);
    }

    pub fn failing(&self) -> Vec<Failing> {
        let broken = self.broken.iter().map(|(resolver, error)| Failing {
            resolver: resolver.clone(),
            names: Vec::new(),
            reason: error.to_string(),
            next: None,
        });
        broken.chain(self.resolvers.iter().flat_map(|resolver| resolver.failing())).collect()
    }
}

/// Resolvers may share a file, and then share its lock.
fn shared(stores: &mut BTreeMap<PathBuf, Arc<Store>>, path: &Path) -> Result<Arc<Store>, StoreError> {
    let store = Store::open(path)?;
    let known = stores.entry(store.path().to_owned()).or_insert_with(|| Arc::new(store));
    Ok(Arc::clone(known))
}
