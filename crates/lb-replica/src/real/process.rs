//! What the process itself uses of what it may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

use crate::Vitals;

/// How often it is looked at: a second evens out what a single request takes. Chosen.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Readings {
    memory_percent: AtomicU8,
    cpu_percent: AtomicU8,
}

pub(super) struct Process(Arc<Readings>);

impl Process {
    /// Looks from now on, for as long as it is kept.
    pub(super) fn watch() -> Self {
        let readings = Arc::new(Readings::default());
        let watched = Arc::downgrade(&readings);
        tokio::spawn(async move {
            let mut system = System::new().ok();
            let mut interval = tokio::time::interval(INTERVAL);
            loop {
                interval.tick().await;
                let Some(readings) = watched.upgrade() else { return };
                let Some((memory, cpu)) = system.as_mut().and_then(look) else {
                    tracing::warn!("the system does not say what memory and processor are used");
                    return;
                };
                readings.memory_percent.store(memory, Ordering::Relaxed);
                readings.cpu_percent.store(cpu, Ordering::Relaxed);
            }
        });
        Self(readings)
    }

    pub(super) fn vitals(&self) -> Vitals {
        Vitals {
            memory_percent: self.0.memory_percent.load(Ordering::Relaxed),
            cpu_percent: self.0.cpu_percent.load(Ordering::Relaxed),
        }
    }
}

/// Memory of what the control group or the machine has, processor time of what all cores have given since the last
/// look; `None` where the system does not say.
fn look(system: &mut System) -> Option<(u8, u8)> {
    let own = sysinfo::get_current_pid().ok()?;
    system.refresh_memory();
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, what);
    let process = system.process(own)?;
    let available = system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory);
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f32);
    Some((percent(process.memory(), available), (process.cpu_usage() / cores).round() as u8))
}

fn percent(part: u64, whole: u64) -> u8 {
    u8::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps a core busy, for so long that it shows.
    fn work(hoard: &[u8]) {
        let until = tokio::time::Instant::now() + Duration::from_millis(400);
        while tokio::time::Instant::now() < until {
            std::hint::black_box(hoard.iter().fold(0_u64, |sum, byte| sum.wrapping_add(u64::from(*byte))));
        }
    }

    #[test]
    fn a_process_knows_what_it_uses() {
        let hoard = vec![1_u8; 64 << 20];
        let mut system = System::new().unwrap();
        // The first look is what the second is compared with.
        work(&hoard);
        assert!(look(&mut system).is_some());
        work(&hoard);
        let (memory, cpu) = look(&mut system).unwrap();
        assert!(cpu > 0 && cpu <= 100, "{cpu} % after 400 ms of work");
        assert!(memory < 100, "{memory} %");
        let own = system.process(sysinfo::get_current_pid().unwrap()).unwrap().memory();
        assert!(own > 64 << 20, "{own}");
        assert_eq!((percent(1, 3), percent(1, 0)), (33, 100));
    }
}
