//! What goes wrong and what changes while the load runs, one thing after another, in an order drawn by lot.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use lb_testkit::{PATIENCE, eventually};
use tokio::time::sleep;

use crate::replica::Replica;
use crate::vigie::Vigie;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// SIGKILL, and back after a while.
    Kill,
    /// The same with all replicas but one.
    KillAllButOne,
    /// SIGSTOP, and on after a while.
    Hang,
    /// RST to each request, for a while.
    Reset,
    Reload,
    /// A server leaves the service and comes back.
    RemoveServer,
    BrokenReload,
    RotateLogs,
    Upgrade,
}

use Event::{BrokenReload, Hang, Kill, KillAllButOne, Reload, RemoveServer, Reset, RotateLogs, Upgrade};

/// What happens, the frequent more than once.
const BAG: [Event; 12] = [
    Kill,
    Hang,
    Reset,
    KillAllButOne,
    Reload,
    Reload,
    Reload,
    RemoveServer,
    BrokenReload,
    BrokenReload,
    RotateLogs,
    Upgrade,
];

/// Events drawn from a full bag until it is empty: each has its turn soon, also in a short run.
pub(crate) struct Chaos {
    random: Rng,
    bag: Vec<Event>,
    pub(crate) done: BTreeMap<Event, usize>,
    pub(crate) complaints: Vec<String>,
}

impl Chaos {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Rng::with_seed(seed), bag: Vec::new(), done: BTreeMap::new(), complaints: Vec::new() }
    }

    /// The next event, from its begin to the return of peace. What fails is noted; the soak goes on.
    pub(crate) async fn next(&mut self, vigie: &mut Vigie, replicas: &mut [Replica], may_upgrade: bool) {
        let event = self.draw(may_upgrade);
        if let Err(error) = self.play(event, vigie, replicas).await {
            self.complaints.push(format!("{event:?}: {error:#}"));
        }
        // Before the next blow everybody is on their feet, so that one replica is always left.
        if !eventually(PATIENCE, async || vigie.all_healthy().await).await {
            self.complaints.push(format!("{event:?}: not all replicas are healthy {PATIENCE:?} later"));
        }
        *self.done.entry(event).or_default() += 1;
        sleep(self.between(200, 1000)).await;
    }

    fn draw(&mut self, may_upgrade: bool) -> Event {
        loop {
            if self.bag.is_empty() {
                self.bag = BAG.to_vec();
                self.random.shuffle(&mut self.bag);
            }
            match self.bag.pop() {
                Some(Upgrade) if !may_upgrade => {}
                Some(event) => return event,
                None => {}
            }
        }
    }

    async fn play(
        &mut self,
        event: Event,
        vigie: &mut Vigie,
        replicas: &mut [Replica],
    ) -> anyhow::Result<()> {
        let chosen = self.random.usize(..replicas.len());
        let pause = self.between(500, 3000);
        match event {
            Kill => {
                replicas[chosen].kill()?;
                sleep(pause).await;
                replicas[chosen].restart().await
            }
            KillAllButOne => {
                for (index, replica) in replicas.iter_mut().enumerate() {
                    if index != chosen {
                        replica.kill()?;
                        sleep(Duration::from_millis(300)).await;
                    }
                }
                sleep(pause).await;
                for (index, replica) in replicas.iter_mut().enumerate() {
                    if index != chosen {
                        replica.restart().await?;
                    }
                }
                Ok(())
            }
            Hang => {
                replicas[chosen].hang()?;
                sleep(pause * 2).await; // sometimes longer than Vigie's patience
                replicas[chosen].go_on()
            }
            Reset => {
                replicas[chosen].misbehave().await?;
                sleep(pause).await;
                replicas[chosen].behave().await
            }
            Reload => vigie.reload().await,
            RemoveServer => vigie.reload_without(chosen).await,
            BrokenReload => vigie.reload_broken(self.random.usize(..3)).await,
            RotateLogs => vigie.rotate_logs().await,
            Upgrade => vigie.upgrade().await,
        }
    }

    fn between(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.u64(low..=high))
    }
}
