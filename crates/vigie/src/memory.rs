//! Refuses new requests before memory runs out: what is in flight is finished, the system ends nobody.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lb_config::static_config::MemoryLimit;

/// How often memory is looked at: 100 MB more at a gigabit a second meanwhile, in the worst case. Chosen.
const INTERVAL: Duration = Duration::from_millis(250);
/// Requests are taken again below this share of the limit. Chosen.
const RELIEF_PERCENT: u64 = 95;

/// The limit in bytes; `None` without one, or where the system does not say what there is.
pub(crate) fn limit(configured: MemoryLimit) -> Option<u64> {
    match configured {
        MemoryLimit::Never => None,
        MemoryLimit::Bytes(bytes) => Some(bytes),
        MemoryLimit::Percent(percent) => {
            available().map(|bytes| (u128::from(bytes) * u128::from(percent) / 100) as u64)
        }
    }
}

/// Watches for ever.
pub(crate) async fn watch(limit: u64, shedding: Arc<AtomicBool>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(resident_bytes) = resident() else { continue };
        let is = shedding.load(Ordering::Relaxed);
        let shall = sheds(is, resident_bytes, limit);
        if shall == is {
            continue;
        }
        shedding.store(shall, Ordering::Relaxed);
        if shall {
            tracing::error!(resident_bytes, limit_bytes = limit, "memory is short: new requests are refused");
        } else {
            tracing::warn!(resident_bytes, limit_bytes = limit, "memory suffices: requests are taken again");
        }
    }
}

/// Whether to refuse requests, given whether that is so already.
fn sheds(already: bool, resident_bytes: u64, limit: u64) -> bool {
    let from = if already { limit / 100 * RELIEF_PERCENT } else { limit };
    resident_bytes >= from
}

/// What the process has in memory: `VmRSS`, as `process_resident_memory_bytes` shows it.
fn resident() -> Option<u64> {
    kib_after(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What it may have: the least of the machine's memory and the limits of its control groups.
fn available() -> Option<u64> {
    let machine =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_after(&text, "MemTotal:"));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        // `max` is none.
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    limits.chain(machine).min()
}

/// Where limits may stand: those of the process's own group and of all above. In a container the own group is `/`.
fn limit_files(groups: &str) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        // Version 2 has one hierarchy, version 1 one for each controller (man 7 cgroups).
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

fn kib_after(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relief_takes_more_than_a_byte() {
        let mut shedding = false;
        let seen: String = [99, 100, 99, 95, 94, 99, 100]
            .map(|resident| {
                shedding = sheds(shedding, resident * 1_000_000, 100_000_000);
                if shedding { 'x' } else { '.' }
            })
            .iter()
            .collect();
        assert_eq!(seen, ".xxx..x");
    }

    #[test]
    fn limits_of_every_group_above_count() {
        let files = |groups| -> Vec<String> {
            limit_files(groups).iter().map(|file| file.display().to_string()).collect()
        };
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            files("0::/system.slice/vigie.service\n"),
            [
                "/sys/fs/cgroup/system.slice/vigie.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            files("12:pids:/a\n7:memory:/docker\n"),
            [
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
    }

    #[test]
    fn a_share_is_one_of_what_there_is() {
        let all = limit(MemoryLimit::Percent(100));
        assert!(all.is_some_and(|bytes| bytes > resident().unwrap_or(u64::MAX)), "{all:?}");
        assert_eq!(limit(MemoryLimit::Never), None);
    }
}
