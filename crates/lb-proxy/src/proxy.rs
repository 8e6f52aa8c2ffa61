//! The data plane as a whole: bind, publish, run, drain.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use lb_config::dynamic::Config;
use lb_config::static_config::{EntryPoint, StaticConfig};
use lb_core::balance::Service as LiveService;
use lb_observe::access_log::AccessLog;
use lb_observe::metrics::{Certificate, Kind, Metrics};
use lb_observe::otlp::Queue;
use lb_observe::trace::{self, Tracer};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::entrypoint::balancer::{Arrival, Balancer};
use crate::entrypoint::inherit::{self, Inherited};
use crate::entrypoint::quic::{self, Beginning, Datagrams, Port};
use crate::entrypoint::seats::Seats;
use crate::entrypoint::{Entry, Validations, listen};
use crate::http::alias::{Aliases, KnownAliases};
use crate::http::forwarded::ForwardedSettings;
use crate::http::normalise::Policy;
use crate::http::pace::Least;
use crate::report::Reports;
use crate::snapshot::{Failure, Fixed, Snapshot};
use crate::udp::{self, Relay};
use crate::worker::{Internals, Worker};

/// Milliseconds that workers have to stop accepting before somebody is told of it anyway. Chosen.
const HAND_OVER_LOOKS: u32 = 1000;

/// How often a draining worker looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What the data plane is made of besides its configuration.
pub struct Settings {
    pub config: Arc<StaticConfig>,
    pub metrics: Metrics,
    pub access_log: Option<Arc<AccessLog>>,
    /// What is said of requests that are traced, and where their spans go.
    pub tracing: Option<(Arc<trace::Settings>, Arc<Queue>)>,
    pub internals: Arc<dyn Internals>,
    /// Whoever knows what hosts are aliases of; `None`: rules do not see that.
    pub aliases: Option<Arc<dyn Aliases>>,
    /// Threads; at least one.
    pub workers: usize,
    /// Name of this machine, for `X-Forwarded-Server`.
    pub host_name: String,
    /// Handshakes of ACME authorities; `None`: no name is ever validated over TLS.
    pub validations: Option<Arc<Validations>>,
    /// Set while memory is short: new requests are refused.
    pub shedding: Arc<AtomicBool>,
    /// Ports for HTTP/3 of the process that this one follows.
    pub datagrams: Vec<Datagrams>,
}

/// An entry point whose address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("entry point {name:?} cannot listen on {address}")]
pub struct BindError {
    pub name: String,
    pub address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Serve,
    /// Accept no more, finish what is open, at most for each entry point's `graceTimeOut`.
    Drain,
}

/// A configuration that could come into force.
pub struct Compiled {
    snapshot: Snapshot,
    failures: Vec<Failure>,
}

impl Compiled {
    /// What could not be compiled, and is left out.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

/// The data plane. Listening sockets are bound when it is made; nothing is accepted before [`Proxy::start`].
pub struct Proxy {
    settings: Settings,
    entries: Vec<Arc<Entry>>,
    /// Each entry point's sockets.
    listeners: Vec<Vec<TcpListener>>,
    /// Which of them came by socket activation.
    activated: Vec<bool>,
    /// Those for UDP.
    udp: Vec<UdpEntry>,
    /// The process that follows this one reads from all sockets.
    handed_over: Arc<AtomicBool>,
    /// The UDP port of each entry point that has HTTP/3.
    quic: Vec<Option<Port>>,
    store: Arc<ArcSwap<Snapshot>>,
    /// Told of each snapshot after it came into force.
    published: watch::Sender<()>,
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
}

/// An entry point for UDP.
struct UdpEntry {
    entry: Arc<Entry>,
    sockets: Vec<UdpSocket>,
    activated: bool,
}

/// Compiles configurations and puts them in force. The control plane has the only one.
pub struct Publisher {
    fixed: Fixed,
    store: Arc<ArcSwap<Snapshot>>,
    published: watch::Sender<()>,
}

impl Publisher {
    /// Compiles `config`, with its live services and those of `tcp`, beside the snapshot in force, which stays in force.
    pub fn compile(
        &self,
        config: &Arc<Config>,
        live: &HashMap<String, Arc<LiveService>>,
        tcp: &HashMap<String, Arc<LiveService>>,
    ) -> Compiled {
        let now = tokio::time::Instant::now().into_std();
        let (snapshot, failures) =
            Snapshot::build(&self.fixed, config, (live, tcp), Some(&self.store.load()), now);
        Compiled { snapshot, failures }
    }

    /// Puts a compiled configuration in force with one store.
    pub fn publish(&self, compiled: Compiled) {
        let Compiled { snapshot, .. } = compiled;
        self.fixed.metrics.retain(&snapshot.labels());
        let known = certificates(&self.store.load());
        let in_use = certificates(&snapshot);
        for certificate in
            in_use.iter().filter(|one| one.not_after < SystemTime::now() && !known.contains(one))
        {
            tracing::warn!(commonName = certificate.common_name, names = certificate.sans,
                notAfter = %lb_observe::rfc3339(certificate.not_after), "a certificate has expired: clients refuse it");
        }
        self.fixed.metrics.set_certificates(in_use);
        if self.fixed.config.ocsp.is_some() {
            crate::tls::staples::follow(snapshot.tls.keys());
        }
        self.store.load().retire_for(&snapshot);
        let snapshot = Arc::new(snapshot);
        self.store.store(Arc::clone(&snapshot));
        self.published.send_replace(());
        snapshot.wake_queues();
    }
}

/// What [`Publisher::compile`] would find, for a configuration that nobody is going to run.
pub fn check(
    config: &Arc<StaticConfig>,
    dynamic: &Config,
    live: &HashMap<String, Arc<LiveService>>,
) -> Vec<Failure> {
    let metrics = Metrics::new(lb_observe::metrics::Settings::default(), 1);
    let fixed = Fixed { config: Arc::clone(config), metrics };
    let dynamic = Arc::new(dynamic.clone());
    let no_tcp = HashMap::new(); // made as they are needed
    Snapshot::build(&fixed, &dynamic, (live, &no_tcp), None, tokio::time::Instant::now().into_std()).1
}

/// The certificates in use, for `traefik_tls_certs_not_after`.
fn certificates(snapshot: &Snapshot) -> Vec<Certificate> {
    let infos = snapshot.tls.certificates_not_after().into_iter();
    infos
        .map(|info| Certificate {
            common_name: info.cn,
            serial: info.serial,
            sans: info.sans,
            not_after: UNIX_EPOCH + Duration::from_secs(info.not_after_unix.max(0).unsigned_abs()),
        })
        .collect()
}

impl Proxy {
    /// Binds every entry point, but for those that have `inherited` sockets. Of these the ones that no entry point
    /// wants are closed.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(mut settings: Settings, inherited: Vec<Inherited>) -> Result<Self, BindError> {
        let (mut datagrams, mut inherited): (Vec<_>, Vec<_>) =
            inherited.into_iter().partition(|one| udp::is_for_datagrams(&one.socket));
        let udp = bind_udp(&settings, &mut datagrams)?;
        let (mut entries, mut listeners, mut activated) = (Vec::new(), Vec::new(), Vec::new());
        let (mut quic, mut handed_on) = (Vec::new(), std::mem::take(&mut settings.datagrams));
        for (index, config) in settings.config.entry_points.iter().enumerate() {
            let share = inherit::take(&mut inherited, config, &settings.config.entry_points);
            let bound = match share.sockets.is_empty() {
                false => listen::adopt(share.sockets, settings.workers, config.idle_timeout),
                true => {
                    listen::bind(config.address, config.reuse_port, settings.workers, config.idle_timeout)
                }
            };
            let failed = |source| BindError { name: config.name.clone(), address: config.address, source };
            let bound = bound.map_err(failed)?;
            let (socket, alt_svc) = match config.http3 {
                Some(http3) => quic::beside(&bound, config, http3, &mut handed_on).map_err(failed)?,
                None => (None, None),
            };
            listeners.push(bound);
            quic.push(socket);
            activated.push(share.activated);
            entries.push(Arc::new(entry(&settings, index, config.clone(), alt_svc)));
        }
        for unwanted in inherited.into_iter().chain(datagrams) {
            tracing::info!(
                entryPointName = unwanted.entry_point,
                "a socket that no entry point wants is closed"
            );
        }
        let fixed = Fixed { config: Arc::clone(&settings.config), metrics: settings.metrics.clone() };
        let now = tokio::time::Instant::now().into_std();
        let (empty, _) =
            Snapshot::build(&fixed, &Arc::default(), (&HashMap::new(), &HashMap::new()), None, now);
        Ok(Self {
            settings,
            entries,
            listeners,
            activated,
            udp,
            handed_over: Arc::default(),
            quic,
            store: Arc::new(ArcSwap::from_pointee(empty)),
            published: watch::Sender::new(()),
            phase: watch::Sender::new(Phase::Serve),
            threads: Vec::new(),
        })
    }

    pub fn publisher(&self) -> Publisher {
        let config = Arc::clone(&self.settings.config);
        let fixed = Fixed { config, metrics: self.settings.metrics.clone() };
        Publisher { fixed, store: Arc::clone(&self.store), published: self.published.clone() }
    }

    /// Name and bound address of each entry point, the port that was given where 0 was asked for.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let first = self.listeners.iter().map(|sockets| sockets.first());
        let named = self.entries.iter().map(|entry| entry.config.name.clone()).zip(first);
        let tcp = named.filter_map(|(name, listener)| Some((name, listener?.local_addr().ok()?)));
        let udp = self
            .udp
            .iter()
            .filter_map(|one| Some((one.entry.config.name.clone(), one.sockets.first()?.local_addr().ok()?)));
        tcp.chain(udp).collect()
    }

    /// Every listening socket once more, for the process that is to follow this one.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn sockets(&self) -> std::io::Result<Vec<Inherited>> {
        let entries = self.entries.iter().zip(&self.listeners).zip(&self.activated);
        let each = entries.flat_map(|((entry, sockets), activated)| {
            sockets.iter().map(move |socket| {
                Ok(Inherited {
                    entry_point: entry.config.name.clone(),
                    configured: (!activated).then_some(entry.config.address),
                    socket: socket.try_clone()?,
                })
            })
        });
        let udp = self.udp.iter().flat_map(|UdpEntry { entry, sockets, activated }| {
            sockets.iter().map(move |socket| {
                Ok(Inherited {
                    entry_point: entry.config.name.clone(),
                    configured: (!activated).then_some(entry.config.address),
                    socket: OwnedFd::from(socket.try_clone()?).into(),
                })
            })
        });
        each.chain(udp).collect()
    }

    /// From now on the process that follows accepts, and reads what comes for the UDP entry points: this one begins to
    /// [`drain`](Self::drain). Returns when no worker accepts any more, so that whoever is told of it meets the other process.
    pub fn handed_over(&self) {
        self.handed_over.store(true, Ordering::Release);
        let _ = self.phase.send(Phase::Drain);
        for _ in 0..HAND_OVER_LOOKS {
            if self.phase.is_closed() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The ports for HTTP/3 once more, for the process that is to follow this one. Once it reads them, this one gets by
    /// pipes what is for its connections.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn datagrams(&self) -> std::io::Result<Vec<Datagrams>> {
        let each = self.entries.iter().zip(&self.quic);
        each.filter_map(|(entry, port)| Some(port.as_ref()?.hand_on(&entry.config))).collect()
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start(&mut self) -> std::io::Result<()> {
        // Kept as well: `addresses` stays true, nothing is refused between here and there, and the next process can
        // have them.
        let shares = listen::share_out(&self.listeners, self.settings.workers)?;
        let mut udp: Vec<Vec<_>> = (0..self.settings.workers).map(|_| Vec::new()).collect();
        for UdpEntry { entry, sockets, .. } in &self.udp {
            for (turn, socket) in sockets.iter().enumerate() {
                udp[turn % self.settings.workers].push((Arc::clone(entry), socket.try_clone()?));
            }
        }
        let (balancer, inboxes) = Balancer::new(self.settings.workers);
        let aliases = self.settings.aliases.clone().map(|source| Arc::new(KnownAliases::new(source)));
        let mut quic = quic::share_out(&mut self.quic, self.settings.workers)?;
        for (index, ((listeners, udp), inbox)) in shares.into_iter().zip(udp).zip(inboxes).enumerate() {
            let seed = Seed {
                index,
                balancer: Arc::clone(&balancer),
                inbox,
                listeners,
                udp,
                handed_over: Arc::clone(&self.handed_over),
                quic: std::mem::take(&mut quic[index]),
                entries: self.entries.clone(),
                store: Arc::clone(&self.store),
                metrics: self.settings.metrics.clone(),
                access_log: self.settings.access_log.as_ref().map(|log| log.shard(index)),
                tracer: self.tracer(index),
                internals: (Arc::clone(&self.settings.internals), aliases.clone()),
                shedding: Arc::clone(&self.settings.shedding),
                published: self.published.subscribe(),
                phase: self.phase.subscribe(),
            };
            let thread = std::thread::Builder::new().name(format!("vigie-worker-{index}"));
            self.threads.push(thread.spawn(move || seed.run())?);
        }
        Ok(())
    }

    fn tracer(&self, worker: usize) -> Option<Tracer> {
        let (settings, queue) = self.settings.tracing.as_ref()?;
        Some(Tracer::new(Arc::clone(settings), Arc::clone(queue), worker))
    }

    /// Stops accepting, lets open requests finish within `graceTimeOut`, and returns when all is quiet.
    pub fn drain(mut self) {
        self.listeners.clear();
        self.udp.clear();
        let _ = self.phase.send(Phase::Drain);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

fn entry(settings: &Settings, index: usize, config: EntryPoint, alt_svc: Option<Box<str>>) -> Entry {
    Entry {
        index,
        label: settings.metrics.label(Kind::EntryPoint, &config.name),
        policy: Policy {
            sanitize_path: config.http.sanitize_path,
            encode_query_semicolons: config.http.encode_query_semicolons,
        },
        forwarded: ForwardedSettings::new(
            config.forwarded_connection.clone(),
            settings.host_name.clone(),
            config.add_scheme_headers,
        ),
        seats: Seats::new(&config.limits),
        least: Least::new(&config.limits),
        refused: Reports::default(),
        alt_svc,
        validations: settings.validations.clone().filter(|_| !config.allow_acme_by_pass),
        config,
    }
}

/// The entry points for UDP, with sockets that were `inherited` where there are any.
fn bind_udp(settings: &Settings, inherited: &mut Vec<Inherited>) -> Result<Vec<UdpEntry>, BindError> {
    let all = &settings.config.udp_entry_points;
    let bound = all.iter().enumerate().map(|(index, config)| {
        let share = inherit::take(inherited, config, all);
        let sockets = match share.sockets.is_empty() {
            false => {
                udp::adopt(share.sockets.into_iter().map(|socket| OwnedFd::from(socket).into()).collect())
            }
            true => udp::bind(config.address, config.reuse_port, settings.workers),
        };
        let sockets = sockets.map_err(|source| BindError {
            name: config.name.clone(),
            address: config.address,
            source,
        })?;
        let mut config = config.clone();
        // Each flow has a descriptor, and strangers can make as many as they have addresses to invent.
        config.limits.connections.get_or_insert_with(udp::most_flows);
        let entry = Arc::new(entry(settings, index, config, None));
        Ok(UdpEntry { entry, sockets, activated: share.activated })
    });
    bound.collect()
}

/// What a worker's thread starts with.
struct Seed {
    index: usize,
    balancer: Arc<Balancer>,
    /// What other workers hand over.
    inbox: UnboundedReceiver<Arrival>,
    /// With the index of the entry point.
    listeners: Vec<(usize, TcpListener)>,
    udp: Vec<(Arc<Entry>, UdpSocket)>,
    handed_over: Arc<AtomicBool>,
    /// The same for HTTP/3.
    quic: Vec<(usize, Beginning)>,
    entries: Vec<Arc<Entry>>,
    store: Arc<ArcSwap<Snapshot>>,
    metrics: Metrics,
    access_log: Option<lb_observe::access_log::Shard>,
    tracer: Option<Tracer>,
    internals: (Arc<dyn Internals>, Option<Arc<KnownAliases>>),
    shedding: Arc<AtomicBool>,
    published: watch::Receiver<()>,
    phase: watch::Receiver<Phase>,
}

impl Seed {
    fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                runtime.block_on(self.serve());
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "a worker cannot start"),
        }
    }

    async fn serve(self) {
        let Self {
            index,
            balancer,
            inbox,
            listeners,
            udp,
            handed_over,
            quic,
            entries,
            store,
            metrics,
            access_log,
            tracer,
            internals,
            shedding,
            published,
            mut phase,
        } = self;
        let observed = (access_log, tracer);
        let worker = Rc::new(Worker::new((index, balancer), &store, &metrics, observed, internals, shedding));
        let mut acceptors = Vec::new();
        for (entry, listener) in listeners {
            let entry = Arc::clone(&entries[entry]);
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let stop = Rc::new(tokio::sync::Notify::new());
                    let accept = listen::accept(Rc::clone(&worker), entry, listener, Rc::clone(&stop));
                    acceptors.push((stop, tokio::task::spawn_local(accept)));
                }
                Err(error) => tracing::error!(%error, "a listening socket cannot be used"),
            }
        }
        let mut relays = Vec::new();
        for (entry, socket) in udp {
            match Relay::new(&worker, entry, socket, Arc::clone(&handed_over)) {
                Ok(relay) => {
                    let stop = Rc::new(tokio::sync::Notify::new());
                    let serve = Rc::clone(&relay).serve(Rc::clone(&stop));
                    acceptors.push((stop, tokio::task::spawn_local(serve)));
                    relays.push(relay);
                }
                Err(error) => tracing::error!(%error, "a UDP socket cannot be used"),
            }
        }
        let receivers = quic::start(&worker, &entries, quic, &mut acceptors);
        let stop = Rc::new(tokio::sync::Notify::new());
        let receive = listen::receive(Rc::clone(&worker), entries, inbox, Rc::clone(&stop));
        // The last to stop: until then other workers may hand over.
        acceptors.push((stop, tokio::task::spawn_local(receive)));
        tokio::task::spawn_local(sweep(Rc::clone(&worker), published));
        // The sender lives as long as the proxy; without it there is nothing left to serve for.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Drain)).await;
        for (stop, acceptor) in acceptors {
            // Kept for an acceptor that has not run yet: the process may be stopped as it starts.
            stop.notify_one();
            let _ = acceptor.await;
        }
        worker.drain();
        // Whoever hands over waits for this.
        drop(phase);
        let began = tokio::time::Instant::now();
        while worker.waits_after(began.elapsed())
            || worker.mirrors.wait_after(began.elapsed())
            || relays.iter().any(|relay| relay.waits_after(began.elapsed()))
            || receivers.iter().any(|receiver| receiver.waits_after(began.elapsed()))
        {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        if worker.connections() > 0 {
            tracing::warn!(connections = worker.connections(), "graceTimeOut is over, closing what is left");
        }
        quic::end(&worker, &receivers).await;
    }
}

/// Closes idle connections that had their time, and after a reload what servers that are gone leave behind.
async fn sweep(worker: Rc<Worker>, mut published: watch::Receiver<()>) {
    let mut seen = worker.snapshot();
    loop {
        let tick = Instant::now() + worker.pools.pause();
        tokio::select! {
            () = worker.pools.hurry() => continue,
            () = tokio::time::sleep_until(worker.lasting.next_end().map_or(tick, |end| end.min(tick))) => {}
            () = worker.lasting.joined() => {}
            Ok(()) = published.changed() => {}
        }
        let now = Instant::now();
        let snapshot = worker.snapshot();
        worker.pools.sweep(now, |id| snapshot.endpoints.contains(&id));
        if !Arc::ptr_eq(&seen, &snapshot) {
            worker.lasting.follow(&snapshot.config, now);
            worker.wake_left_behind(|id| snapshot.endpoints.contains(&id));
            seen = snapshot;
        }
        let ended = worker.lasting.expire(now);
        if ended > 0 {
            worker.metrics.removed_closed(ended);
        }
    }
}
