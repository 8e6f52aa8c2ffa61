//! Gives the services in force the time: ejected servers return, slow starts move on, panic is noticed.

use std::sync::Arc;
use std::time::Duration;

use lb_core::balance::{Event, Service};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::state::State;

/// How often. Chosen: a tenth of a second more or less matters to none of it, and a look costs nanoseconds.
const TICK: Duration = Duration::from_millis(100);

/// Owns the task, of which there is none while no service needs it; dropping this ends it.
#[derive(Default)]
pub(crate) struct Upkeep {
    task: JoinSet<()>,
}

impl Upkeep {
    /// Looks after the services of `state` from now on, and no others.
    pub(crate) fn follow(&mut self, state: &State) {
        let services: Vec<_> =
            state.services.values().filter(|service| service.needs_upkeep()).map(Arc::clone).collect();
        self.task = JoinSet::new();
        if !services.is_empty() {
            self.task.spawn(keep(services));
        }
    }
}

async fn keep(services: Vec<Arc<Service>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now().into_std();
        for service in &services {
            for event in service.advance(now) {
                log(service, event);
            }
        }
    }
}

fn log(service: &Service, event: Event) {
    let name = service.name();
    let url = |index| service.servers().nth(index).map_or("", |(server, _)| server.url());
    match event {
        Event::Returned { index, after } => {
            info!(
                serviceName = name,
                targetURL = url(index),
                afterSeconds = after.as_secs(),
                "Server is no longer ejected."
            );
        }
        Event::Rising { index } => {
            info!(serviceName = name, targetURL = url(index), "Server starts slowly.");
        }
        Event::Risen { index } => {
            info!(serviceName = name, targetURL = url(index), "Server has its whole share.");
        }
        Event::PanicBegun => {
            warn!(
                serviceName = name,
                panicThreshold = service.settings().panic_threshold,
                "Too few servers are eligible: all are used, whatever their health."
            );
        }
        Event::PanicEnded => {
            info!(serviceName = name, "Enough servers are eligible again: no others are used.");
        }
    }
}
